"""Looks for bytes that make `SimpleReactorWire` break a promise.

Run python fuzz/fuzz_simple_reactor.py [libFuzzer's arguments]. It begins with the files in corpus/simple_reactor; what
it finds besides goes into a folder that is deleted in the end. Bytes that break a promise are written to crash-* in the
working directory: `check` with them repeats the find. The unit tests try those in the corpus each time.

Needs Atheris: pip install atheris. With --corpus it writes the corpus instead, and needs nothing.
"""

import random
import struct
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

if __name__ == "__main__" and "--corpus" not in sys.argv:
    import atheris

    with atheris.instrument_imports(include=["trunkline"]):
        from trunkline.wire import SimpleReactorWire
else:
    from trunkline.wire import SimpleReactorWire

CORPUS = Path(__file__).resolve().parent / "corpus" / "simple_reactor"

LIMIT = 256
"""The least that there is, so that what is random is over it now and then."""

PLAIN, COMPRESSED, PACKED = range(3)
"""The first byte of an input: bytes without compression; bytes with it; bytes that are framed and compressed first."""

HELD_LIMIT = 4 + (4 + LIMIT) + (4 + LIMIT) // 8 + 64


def check(data: bytes) -> None:
    """Tries one input: a byte that says how to read the rest, one that chooses the split, and the stream.

    Raises:
        AssertionError: a promise is broken.
        Exception: something was raised that never may be.
    """
    if len(data) < 2:
        return
    kind, split, stream = data[0] % 3, data[1], data[2:]
    compression = kind != PLAIN
    if kind == PACKED:
        stream = packed(stream)
    whole, error = _received(compression, [stream])
    for pieces in (_pieces(stream, split), [stream[at : at + 1] for at in range(len(stream))]):
        messages, same_error = _received(compression, pieces)
        assert (messages, same_error) == (whole, error), f"{messages}, {same_error} in pieces; {whole}, {error} whole"
    assert all(0 < len(message) <= LIMIT for message in whole), "a message that could not be sent was received"
    sent = SimpleReactorWire("server", compression, LIMIT).encode_all(whole)
    assert _received(compression, [sent]) == (whole, "None"), "what was received is not sent as it came"


def packed(stream: bytes) -> bytes:
    """Payloads, each between a byte for its length and one for what goes wrong, as a compressed stream."""
    compressor = zlib.compressobj()
    frames = []
    at = 0
    while at < len(stream):
        length = stream[at]
        payload = stream[at + 1 : at + 1 + length] * (1 + stream[at] // 64)
        at += 1 + length
        wrong = stream[at] if at < len(stream) else 0
        at += 1
        ways = {0xFD: zlib.Z_PARTIAL_FLUSH, 0xFE: zlib.Z_FULL_FLUSH, 0xFF: zlib.Z_FINISH}
        frame = compressor.compress(payload) + compressor.flush(ways.get(wrong, zlib.Z_SYNC_FLUSH))
        if wrong == 0xFF:
            compressor = zlib.compressobj()
        frames.append(struct.pack("<I", len(frame)) + frame)
    return b"".join(frames)


def _pieces(stream: bytes, split: int) -> Iterator[bytes]:
    chance = random.Random(split)  # noqa: S311  repeatable, not secret
    at = 0
    while at < len(stream):
        end = at + chance.randint(1, 30)
        yield stream[at:end]
        at = end


def _received(compression: bool, pieces: Iterator[bytes] | list[bytes]) -> tuple[list[bytes], str]:
    wire = SimpleReactorWire("client", compression, LIMIT)
    messages: list[bytes] = []
    for piece in pieces:
        failed = wire.error is not None
        more = wire.receive(piece)
        assert not (failed and more), "it goes on after its error"
        messages += more
        limit = HELD_LIMIT if wire.error is None else 0
        assert len(wire._rest) <= limit, f"it holds {len(wire._rest)} bytes; it may hold {limit}"
        assert not wire.output, "it says something of its own"
    return messages, repr(wire.error)


def corpus() -> dict[str, bytes]:
    """The streams that fuzzing begins with, by the names of their files."""
    hello, beat, other = b"\1\0\0\0hello world", b"\2\0\0\0a#b#0", b"\3\0\0\0own"
    payloads = {
        "good": [hello, beat, hello, b"\1\0\0\0x"],
        "own-types": [other] * 3 + [hello],
        "too-many-own-types": [other] * 40 + [b"\1\0\0\0"] * 61,
        "no-data": [b"\1\0\0\0", b"\2\0\0\0", hello],
        "shorter-than-its-type": [hello, b"\1\0\0"],
        "empty": [hello, b"", hello],
        "at-the-limit": [b"\1\0\0\0" + b"x" * LIMIT],
        "over-the-limit": [hello, b"\1\0\0\0" + b"x" * (LIMIT + 1), hello],
    }
    files = {}
    for name, items in payloads.items():
        plain = b"".join(struct.pack("<I", len(item)) + item for item in items)
        squeezed = zlib.compressobj()
        frames = [squeezed.compress(item) + squeezed.flush(zlib.Z_SYNC_FLUSH) for item in items]
        deflated = b"".join(struct.pack("<I", len(frame)) + frame for frame in frames)
        files |= {f"{PLAIN}-{name}": plain, f"{COMPRESSED}-{name}": deflated, f"{COMPRESSED}-{name}-cut": deflated[:-3]}
        if all(len(item) < 64 for item in items):
            files[f"{PACKED}-{name}"] = b"".join(bytes([len(item)]) + item + b"\0" for item in items)
    files[f"{COMPRESSED}-of-a-peer-that-does-not-compress"] = files[f"{PLAIN}-good"]
    files[f"{PLAIN}-of-a-peer-that-compresses"] = files[f"{COMPRESSED}-good"]
    files[f"{PLAIN}-promises-all"] = b"\xff" * 12
    files[f"{PACKED}-flushed-otherwise"] = b"\x0f" + hello + b"\xfd\x0f" + hello + b"\xfe\x0f" + hello
    files[f"{PACKED}-ends"] = b"\x0f" + hello + b"\0\x0f" + hello + b"\xff\x0f" + hello
    bomb = zlib.compressobj()
    frame = bomb.compress(bytes(200_000)) + bomb.flush(zlib.Z_SYNC_FLUSH)
    files[f"{COMPRESSED}-bomb"] = struct.pack("<I", len(frame)) + frame
    return {name: bytes([int(name[0]), len(stream) % 256]) + stream for name, stream in files.items()}


def main() -> None:
    """Fuzzes until told to stop, by -max_total_time=SECONDS or Ctrl-C."""
    if "--corpus" in sys.argv:
        CORPUS.mkdir(parents=True, exist_ok=True)
        for name, data in corpus().items():
            (CORPUS / name).write_bytes(data)
        return
    with tempfile.TemporaryDirectory() as found:
        atheris.Setup([sys.argv[0], "-max_len=1024", *sys.argv[1:], found, str(CORPUS)], check)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
