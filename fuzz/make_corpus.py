"""Writes the streams that fuzzing begins with, corpus/NAME/*: run python fuzz/make_corpus.py."""

from pathlib import Path

from framers import LIMIT, TARGETS

from trunkline.errors import UsageError
from trunkline.wire import Framer

CORPUS = Path(__file__).resolve().parent / "corpus"

MESSAGES = [b"a", b"HELLO, WORLD", bytes(7), b"\x30\x7e\x08\x7d\x55", b"a\\nb\\", b"0123456789012345678901234567"]

STREAMS: dict[str, dict[str, bytes]] = {
    "line": {
        "mixed-endings": b"one\ntwo\r\n\n\r\nthree\r\r\n",
        "too-long": b"ok\n" + b"x" * (LIMIT + 1),
        "return-at-the-limit": b"x" * LIMIT + b"\r",
        "return-that-was-no-ending": b"x" * LIMIT + b"\rx\n",
    },
    "length": {
        "promises-all": b"\xff" * 12,
        "empty-messages": bytes(16),
        "shorter-than-its-head": b"\0\1" * 8,
        "over-by-one": (LIMIT - 3).to_bytes(4, "big") + b"x" * LIMIT,
        "counts-itself": b"\0\4ok\0\2\0\1",
    },
    "varint": {
        "two-bytes": b"\x80\x02" + b"x" * 256,
        "boundary": b"\x7f" + b"x" * 127 + b"\x80\x01" + b"x" * 128,
        "never-ends": b"\x80" * 11,
        "not-the-shortest": b"\x81\x80\x00a",
        "promises-all": b"\xff" * 9 + b"\x01",
    },
    "netstring": {
        "empty": b"0:,3:abc,",
        "no-comma": b"3:abcd",
        "leading-zero": b"03:abc,",
        "no-length": b":abc,",
        "too-long": b"41:",
        "too-many-digits": b"99999999999",
        "no-number": b"1x:a,",
        "sign": b"-1:a,",
    },
    "delimiter": {
        "jt808": bytes.fromhex("7e307d02087d01557e"),
        "backslashes": b"a\\\\n\\nb\n\\\\\\\\\n",
        "cut-escape": b"\x7e\x30\x7d\x7e",
        "wrong-escape": b"\x7e\x30\x7d\x03\x7e\\x\n",
        "begins-before-it-begins": b"aba" + b"ab" * 4 + b"aba" + b"\r\n\r\r\n\r\n",
        "too-long": b"x" * (LIMIT + 4),
    },
    "fixed": {"one-and-a-half": b"1234567890"},
    "raw": {"long": b"x" * (2 * LIMIT + 1)},
}


def _good_stream(framer: Framer) -> bytes:
    frames = []
    for message in MESSAGES:
        try:
            frames.append(framer.encode(message))
        except UsageError:
            continue
    return b"".join(frames)


def corpus() -> dict[str, bytes]:
    """Every file by its path under corpus/: each stream for each configuration, and what each sends itself."""
    files = {}
    for name, targets in TARGETS.items():
        for number, target in enumerate(targets):
            good = _good_stream(target.new_framer())
            streams = STREAMS[name] | {"good": good, "good-but-cut": good[:-1]}
            for title, stream in streams.items():
                files[f"{name}/{number}-{title}"] = bytes([number, len(stream) % 256]) + stream
    return files


if __name__ == "__main__":
    for path, data in corpus().items():
        (CORPUS / path).parent.mkdir(parents=True, exist_ok=True)
        (CORPUS / path).write_bytes(data)
