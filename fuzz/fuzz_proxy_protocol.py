"""Looks for bytes that make the reader of PROXY headers break a promise.

Run python fuzz/fuzz_proxy_protocol.py [libFuzzer's arguments]. Fuzzing begins with the files in corpus/proxy_protocol,
which python fuzz/fuzz_proxy_protocol.py corpus writes anew; what it finds besides goes into a folder that is deleted in
the end. Bytes that break a promise are written to crash-* in the working directory: `check` with them repeats the
find.

Needs Atheris: pip install atheris.
"""

import ipaddress
import random
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from trunkline.errors import BadFrame
from trunkline.wire import proxy_protocol
from trunkline.wire.proxy_protocol import (
    V1_LIMIT_BYTES,
    V2_LIMIT_BYTES,
    ProxyHeader,
    TlvType,
    crc32c,
    encode_v1,
    encode_v2,
)

CORPUS = Path(__file__).resolve().parent / "corpus" / "proxy_protocol"
HELD_LIMIT = max(V1_LIMIT_BYTES, 16 + V2_LIMIT_BYTES)

Outcome = tuple[bytes | None, str, object]


def check(data: bytes) -> None:
    """Tries one input: a byte that chooses how the checksum is put right and how it is split, and the stream.

    Raises:
        AssertionError: the reader breaks a promise.
        Exception: it raised what it never may.
    """
    if not data:
        return
    stream = _with_true_checksum(data[1:]) if data[0] & 1 else data[1:]
    whole = _received([stream])
    assert _received(_pieces(stream, data[0])) == whole, "what it reads depends on how the stream is split"
    assert _received(stream[at : at + 1] for at in range(len(stream))) == whole, "byte by byte it reads something else"
    rest, error, read = whole
    if rest is not None and not error:
        assert stream.endswith(rest), "what follows the header is not what came"
        _check_same_when_sent(read)


def _received(pieces: Iterable[bytes]) -> Outcome:
    header = ProxyHeader()
    rest: bytes | None = None
    errors: list[str] = []
    for piece in pieces:
        try:
            more = header.receive(piece)
        except BadFrame as caught:
            errors.append(str(caught))
            continue
        assert not errors, "it goes on after an error"
        assert (more is None) == (header.version == 0), "it has a version before the header is complete, or none after"
        if more is None:
            assert rest is None, "it wants more again"
        else:
            rest = (rest or b"") + more
        assert len(header._held) <= HELD_LIMIT, "it holds more than a header"
    assert len(set(errors)) <= 1, "after an error it raises another"
    assert not (errors and (header.version or header._held)), "it fails, and it has a version or holds on to bytes"
    return rest, "".join(errors[:1]), (header.version, header.source, header.destination, header.tlvs)


def _check_same_when_sent(read: object) -> None:
    version, source, destination, tlvs = read  # type: ignore[misc]
    for host, port in (end for end in (source, destination) if end is not None):
        assert str(ipaddress.ip_address(host)) == host
        assert 0 <= port <= 65535
    plain = tuple((kind, value) for kind, value in tlvs if kind != TlvType.CRC32C)
    sent = encode_v1(source, destination) if version == 1 else encode_v2(source, destination, plain if source else ())
    rest, error, again = _received([sent])
    assert (rest, error) == (b"", "")
    assert again == (version, source, destination, plain if source else ())


def _pieces(stream: bytes, split: int) -> Iterator[bytes]:
    chance = random.Random(split)  # noqa: S311  repeatable, not secret
    at = 0
    while at < len(stream):
        end = at + chance.randint(1, 40)
        yield stream[at:end]
        at = end


def _with_true_checksum(stream: bytes) -> bytes:
    """The stream with the header's checksum put right if it is its last part: no fuzzer would guess one."""
    end = 16 + int.from_bytes(stream[14:16], "big")
    if len(stream) < end or end < 23 or stream[end - 7 : end - 4] != b"\x03\0\x04":
        return stream
    header = stream[: end - 4] + bytes(4)
    return header[:-4] + crc32c(header).to_bytes(4, "big") + stream[end:]


def corpus() -> dict[str, bytes]:
    """What fuzzing begins with, by file name."""
    four = ("192.0.2.1", 56324), ("198.51.100.7", 443)
    six = ("2001:db8::1", 1), ("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", 65535)
    tlvs = [(TlvType.ALPN, b"h2"), (TlvType.AUTHORITY, b"example.com"), (TlvType.NOOP, bytes(5)), (0xE0, b"")]
    unix = proxy_protocol._V2_SIGNATURE + b"\x21\x31\0\xd8" + b"/run/a".ljust(108, b"\0") * 2
    streams = {
        "v1-tcp4": encode_v1(*four) + b"hello",
        "v1-tcp6": encode_v1(*six) + b"hello",
        "v1-unknown": b"PROXY UNKNOWN and more\r\nhello",
        "v1-zone": b"PROXY TCP6 fe80::1%1 ::1 1 2\r\n",
        "v1-octal": b"PROXY TCP4 192.0.2.01 192.0.2.1 1 2\r\n",
        "v1-ports": b"PROXY TCP4 192.0.2.1 192.0.2.1 65536 -1\r\n",
        "v1-never-ends": b"PROXY TCP4 " + b"1" * V1_LIMIT_BYTES,
        "v1-cut": encode_v1(*four)[:-1],
        "v2-tcp4": encode_v2(*four) + b"hello",
        "v2-tcp6": encode_v2(*six) + b"hello",
        "v2-tlvs": encode_v2(*four, tlvs) + b"hello",
        "v2-checksum": encode_v2(*six, tlvs, checksum=True) + b"hello",
        "v2-wrong-checksum": encode_v2(*four, [(TlvType.CRC32C, b"\1\2\3\4")]),
        "v2-short-checksum": encode_v2(*four, [(TlvType.CRC32C, b"\1\2\3")]),
        "v2-local": encode_v2() + b"hello",
        "v2-local-with-more": encode_v2(*four, tlvs).replace(b"\x21\x11", b"\x20\x11") + b"hello",
        "v2-unix": unix + b"hello",
        "v2-too-long": encode_v2(*four)[:14] + b"\xff\xff",
        "v2-too-short": encode_v2(*four)[:14] + b"\0\x0b" + bytes(11),
        "v2-tlv-too-long": encode_v2(*four, [(1, b"ab")])[:-3] + b"\x03ab",
        "v2-cut": encode_v2(*four, tlvs)[:-1],
        "neither": b"GET / HTTP/1.1\r\n",
    }
    return {f"{split}-{name}": bytes([split]) + stream for name, stream in streams.items() for split in (2, 3)}


def main() -> None:
    """Writes the corpus, or fuzzes until told to stop, by -max_total_time=SECONDS or Ctrl-C."""
    if sys.argv[1:] == ["corpus"]:
        CORPUS.mkdir(parents=True, exist_ok=True)
        for name, data in corpus().items():
            (CORPUS / name).write_bytes(data)
        return
    import atheris  # noqa: PLC0415  the corpus is written, and the unit tests call `check`, without it

    for function in (value for value in vars(proxy_protocol).values() if callable(value)):
        if getattr(function, "__module__", "") == proxy_protocol.__name__ and not isinstance(function, type):
            setattr(proxy_protocol, function.__name__, atheris.instrument_func(function))
    for name in ("receive", "_read", "_read_v1", "_read_v2"):
        setattr(ProxyHeader, name, atheris.instrument_func(getattr(ProxyHeader, name)))
    with tempfile.TemporaryDirectory() as found:
        atheris.Setup([sys.argv[0], "-max_len=4200", *sys.argv[1:], found, str(CORPUS)], check)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
