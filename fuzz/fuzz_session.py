"""Looks for bytes that make the native session, `Frames`, break a promise.

Run python fuzz/fuzz_session.py [libFuzzer's arguments]. Fuzzing begins with the files in corpus/session, which python
fuzz/fuzz_session.py --corpus writes anew; what it finds besides goes into a folder that is deleted in the end. Bytes
that break a promise are written to crash-* in the working directory: `check` with them repeats the find. The unit tests
try those in the corpus each time.

Needs Atheris: pip install atheris.
"""

import random
import struct
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

if __name__ == "__main__" and "--corpus" not in sys.argv:
    import atheris

    with atheris.instrument_imports(include=["trunkline"]):
        from trunkline.wire.compression import PackedMessages, is_available
        from trunkline.wire.frames import Frames
else:
    from trunkline.wire.compression import PackedMessages, is_available
    from trunkline.wire.frames import Frames

CORPUS = Path(__file__).resolve().parent / "corpus" / "session"

LIMIT = 300
"""Small, so that what is random is over it as often as not."""

HELLO, DATA, COMPRESSED, PING, PONG, CLOSE = range(1, 7)
FIRST, JUDGED, PLAIN, ZLIB, ZSTD, MADE = range(6)
"""The first byte of an input: the peer's first bytes; the same, to a side that judges; bytes behind the hello, without
compression and with each; and what is made into good frames first, with zlib."""

HELD_LIMIT = {False: 5 + 4_096, True: 5 + LIMIT}
"""The most bytes that a session may hold before and after the hello."""


class Outcome(NamedTuple):
    """What a session made of a stream."""

    messages: list[bytes]
    error: str
    peer_reason: str | None
    established: bool


def check(data: bytes) -> None:
    """Tries one input: a byte that says how to read the rest, one that chooses the split, and the stream.

    Raises:
        AssertionError: a promise is broken.
        Exception: something was raised that never may be.
    """
    if len(data) < 2:
        return
    kind, split, stream = data[0] % 6, data[1], data[2:]
    if kind == MADE:
        stream = made(stream)
    whole = _received(kind, [stream])
    for pieces in (_pieces(stream, split), [stream[at : at + 1] for at in range(len(stream))]):
        assert _received(kind, pieces) == whole, "what comes out depends on how the stream is split"
    assert all(len(message) <= LIMIT for message in whole.messages), "a message over the limit came"
    sent = new_session(PLAIN).encode_all(whole.messages)
    assert _received(PLAIN, [sent]).messages == whole.messages, "what was received is not sent as it came"


def new_session(kind: int) -> Frames:
    """A session that awaits such a stream."""
    names = {ZLIB: ["zlib"], MADE: ["zlib"], ZSTD: ["zstd"]}.get(kind, [])
    refuse = {JUDGED: lambda hello: None if hello.auth == "right" else "wrong"}.get(kind)
    session = Frames(LIMIT, compression=names, threshold_bytes=1, authorize=refuse)
    session.start()
    if kind > JUDGED:
        peer = Frames(LIMIT, compression=names)
        peer.start()
        assert session.receive(bytes(peer.output)) == []
        assert session.established
    session.output.clear()
    return session


def made(script: bytes) -> bytes:
    """Frames, each from a type, a length and so many bytes. For compressed ones a byte more says what goes wrong."""
    stream = PackedMessages("zlib", "zlib")
    frames = []
    at = 0
    while at + 2 <= len(script):
        kind, length = script[at], script[at + 1]
        payload = script[at + 2 : at + 2 + length]
        at += 2 + length
        if kind == COMPRESSED:
            wrong = script[at] if at < len(script) else 0
            at += 1
            payload = bytearray(stream.pack(payload * (1 + wrong % 8)))
            if wrong & 0x80:
                payload[wrong % len(payload)] ^= 1 << (wrong >> 4 & 7)
        frames.append(frame(kind, bytes(payload)))
    return b"".join(frames)


def frame(kind: int, payload: bytes = b"") -> bytes:
    """A frame, good or not."""
    return struct.pack(">IB", len(payload) + 1, kind) + payload


def _pieces(stream: bytes, split: int) -> Iterator[bytes]:
    chance = random.Random(split)  # noqa: S311  repeatable, not secret
    at = 0
    while at < len(stream):
        end = at + chance.randint(1, 30)
        yield stream[at:end]
        at = end


def _received(kind: int, pieces: Iterable[bytes]) -> Outcome:
    session = new_session(kind)
    messages: list[bytes] = []
    for piece in pieces:
        over = session.error is not None or session.peer_reason is not None
        more = session.receive(piece)
        assert not (over and (more or session.output)), "it goes on after its end"
        messages += more
        limit = HELD_LIMIT[session.established] if not over else 0
        assert len(session._rest) <= limit, f"it holds {len(session._rest)} bytes; it may hold {limit}"
        # A farewell, or a hello and the answer to a ping.
        assert len(session.output) <= 5 + 256, f"it says {len(session.output)} bytes at once"
        session.output.clear()
    return Outcome(messages, repr(session.error), session.peer_reason, session.established)


def _streams() -> Iterator[tuple[int, str, bytes]]:
    good = b'{"version":[1,1],"limit_bytes":100,"features":["zlib","x"],"agent":"a","auth":"right"}'
    hellos = {
        "good": good,
        "object-for-auth": good.replace(b'"right"', b'{"user":"a","n":1}'),
        "unknown-fields": good.replace(b'"agent"', b'"other":[[{}]],"agent"'),
        "later-version": good.replace(b"[1,1]", b"[2,3]"),
        "no-version": b'{"limit_bytes":100}',
        "limit-of-0": good.replace(b"100", b"0"),
        "deep": good.replace(b'"agent"', b'"other":' + b"[" * 2_000),
        "no-utf8": good.replace(b'"a"', b'"\xff"'),
        "no-json": b"HELLO",
        "too-long": good.ljust(4_097),
    }
    for name, payload in hellos.items():
        for kind in (FIRST, JUDGED):
            yield kind, f"hello-{name}", frame(HELLO, payload) + frame(PING, b"1") + frame(DATA, b"hello")
    yield FIRST, "two-hellos", frame(HELLO, good) * 2
    yield FIRST, "data-first", frame(DATA, b"hello")
    yield FIRST, "close-first", frame(CLOSE, b"refused: full") + frame(DATA)
    frames = [frame(DATA, b"hello"), frame(PING), frame(DATA), frame(PING, b"12345678"), frame(PONG), frame(0x80, b"x")]
    every = {
        "good": b"".join(frames) + frame(CLOSE, b"drained"),
        "good-but-cut": b"".join(frames)[:-1],
        "behind-the-close": frame(CLOSE, "é".encode()) + frames[0] + b"garbage",
        "close-no-utf8": frames[0] + frame(CLOSE, b"\xff"),
        "close-too-long": frame(CLOSE, b"x" * 257),
        "ping-too-long": frame(PING, b"123456789"),
        "no-type": frames[0] + bytes(8),
        "at-the-limit": frame(DATA, b"x" * LIMIT) + frame(0xFF, b"x" * LIMIT),
        "over-the-limit": frame(DATA, b"x" * (LIMIT + 1)),
        "promises-all": b"\xff" * 12,
        "reserved": frames[0] + frame(0x7F),
        "compressed-no-size": frame(COMPRESSED, b"\0\0\0"),
    }
    for name, stream in every.items():
        for kind in (PLAIN, ZLIB):
            yield kind, name, stream
    for kind, compression in ((ZLIB, "zlib"), (ZSTD, "zstd")):
        if is_available(compression):
            yield from ((kind, name, stream) for name, stream in _compressed(compression))
    yield MADE, "good", b"\2\5hello\3\5hello\0\3\5hello\3\4\0\6\4done"
    yield MADE, "wrong", b"\3\5hello\0\3\5hello\x91\3\5hello\0"


def _compressed(name: str) -> Iterator[tuple[str, bytes]]:
    stream = PackedMessages(name, name)
    packed = [stream.pack(message) for message in (b"hello" * 20, b"hello" * 21, b"", b"x" * LIMIT)]
    good = b"".join(frame(COMPRESSED, one) for one in packed)
    yield "compressed", good + frame(DATA, b"hello")
    yield "compressed-cut", good[:-3]
    yield "compressed-out-of-order", frame(COMPRESSED, packed[1]) + frame(COMPRESSED, packed[0])
    bomb = PackedMessages(name, name).pack(bytes(100_000))
    yield "bomb", frame(COMPRESSED, bomb)
    yield "bomb-that-lies", frame(COMPRESSED, b"\0\0\0\x64" + bomb[4:])
    yield "shorter-than-it-states", frame(COMPRESSED, b"\0\0\0\x65" + packed[0][4:])


def corpus() -> dict[str, bytes]:
    """The streams that fuzzing begins with, by the names of their files."""
    return {f"{kind}-{name}": bytes([kind, len(stream) % 256]) + stream for kind, name, stream in _streams()}


def main() -> None:
    """Writes the corpus, or fuzzes until told to stop, by -max_total_time=SECONDS or Ctrl-C."""
    if "--corpus" in sys.argv:
        CORPUS.mkdir(parents=True, exist_ok=True)
        for name, data in corpus().items():
            (CORPUS / name).write_bytes(data)
        return
    with tempfile.TemporaryDirectory() as found:
        atheris.Setup([sys.argv[0], "-max_len=4500", *sys.argv[1:], found, str(CORPUS)], check)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
