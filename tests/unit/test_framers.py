"""Every framer cuts the same however its stream is split, is never held to more than its limit, and never raises."""

import gc
import importlib.util
import re
import sys
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.errors import BadFrame, FrameTooLarge, ProtocolError, UsageError
from trunkline.testing import check_framer
from trunkline.wire import (
    DelimiterFramer,
    FixedFramer,
    Framer,
    LengthFramer,
    LineFramer,
    NetstringFramer,
    RawFramer,
    VarintFramer,
)

ROOT = Path(__file__).resolve().parents[2]
FUZZ = ROOT / "fuzz"
LIMIT = 40

JT808 = {b"\x7e": b"\x7d\x02", b"\x7d": b"\x7d\x01"}
SLIP = {b"\xc0": b"\xdb\xdc", b"\xdb": b"\xdb\xdd"}
BACKSLASH = {b"\n": b"\\n", b"\\": b"\\\\"}


def pieces_of(data: st.DataObject, stream: bytes) -> list[bytes]:
    """The stream, cut at places that are drawn."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12), label="cuts"))
    return [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


def byte_by_byte(stream: bytes) -> list[bytes]:
    return [stream[at : at + 1] for at in range(len(stream))]


def fed(framer: Framer, *pieces: bytes) -> tuple[list[bytes], type[ProtocolError] | None]:
    """What a framer makes of the pieces: its messages, and its error's type."""
    messages = [message for piece in pieces for message in framer.receive(piece)]
    return messages, None if framer.error is None else type(framer.error)


def held(framer: Framer) -> int:
    """The bytes of the stream that it keeps."""
    return len(getattr(framer, "_rest", b""))


# What all of them promise, in one configuration of each kind.


class Kind(NamedTuple):
    """A framer, what it can send, and streams that break its protocol."""

    new: Callable[[], Framer]
    messages: list[bytes]
    held_limit: int
    bad: Sequence[bytes] = ()
    oversize: Sequence[bytes] = ()
    unsendable: Sequence[bytes] = ()


WORDS = [b"hello", b"", b"\x00\xff\n\r", b"x" * 30]
FULL = b"x" * LIMIT
HDR = b"\xca\xfe"

KINDS = {
    "line": Kind(
        lambda: LineFramer(LIMIT), [b"hello", b"", b"\ra", FULL], LIMIT + 1,
        oversize=[FULL + b"x", b"ok\r\n" + FULL + b"\rx", FULL + b"\r\r\n"],
        unsendable=[b"a\nb", b"a\r", b"\n", FULL + b"x"],
    ),
    "line, sent with \\r\\n": Kind(
        lambda: LineFramer(LIMIT, b"\r\n"), [b"hello", b"", FULL], LIMIT + 1,
        oversize=[FULL + b"x"], unsendable=[b"a\nb", b"a\r", b"a\r\n"],
    ),
    "netstring": Kind(
        lambda: NetstringFramer(LIMIT), [*WORDS, FULL, b"1:a,"], LIMIT + 4,
        bad=[b":", b"a", b"3:abcd", b"0:,x", b"03:abc,", b"00", b"0x", b"-1:", b" 1:a,", b"1 :a,", b"01x:", b"1:a,:"],
        oversize=[b"41:", b"999", b"0:,99999999999", b"4294967295:"],
        unsendable=[FULL + b"x"],
    ),
    "varint": Kind(
        lambda: VarintFramer(LIMIT), [*WORDS, FULL], LIMIT + 10,
        bad=[b"\x80" * 10, b"\x00" + b"\x80" * 10],
        oversize=[b"\x29", b"\xff\xff\xff\xff\x0f", b"\x01a\xff\xff", b"\xff" * 10],
        unsendable=[FULL + b"x"],
    ),
    "fixed": Kind(lambda: FixedFramer(5), [b"hello", b"world", bytes(5)], 4, unsendable=[b"", b"four", b"sixsix"]),
    "fixed, one byte": Kind(lambda: FixedFramer(1), [b"a", b"\x00"], 0, unsendable=[b"", b"ab"]),
    "delimiter of 1 byte": Kind(
        lambda: DelimiterFramer(b"\0", LIMIT), [b"hello", b"", b"\r\n", FULL], LIMIT,
        oversize=[FULL + b"x", FULL + b"x\0", b"ok\0" + FULL + b"xx"], unsendable=[b"\0", b"a\0b", FULL + b"x"],
    ),
    "delimiter of 2 bytes": Kind(
        lambda: DelimiterFramer(b"\r\n", LIMIT), [b"hello", b"", b"\n\r", b"\n", FULL], LIMIT + 1,
        oversize=[FULL + b"xx", FULL + b"x\r\n"], unsendable=[b"\r\n", FULL + b"x"],
    ),
    "delimiter of 2 equal bytes": Kind(
        lambda: DelimiterFramer(b"aa", LIMIT), [b"b", b"", b"bab", FULL], LIMIT + 1,
        oversize=[FULL + b"xx"], unsendable=[b"a", b"ba", b"aa", b"baab"],
    ),
    "delimiter of 3 bytes that begins as it ends": Kind(
        lambda: DelimiterFramer(b"aba", LIMIT, leading=True), [b"b", b"a", b"bb", b"aa", FULL], LIMIT + 2,
        oversize=[b"aba" + FULL + b"xxx"], unsendable=[b"ab", b"xaba", b"", b"aab"],
    ),
    "delimiter of 4 bytes": Kind(
        lambda: DelimiterFramer(b"\r\n\r\n", LIMIT), [b"hello", b"", b"a\r\nb", b"\n", FULL], LIMIT + 3,
        oversize=[FULL + b"xxxx", FULL + b"\r\n\r\r", FULL + b"x\r\n\r\n"],
        unsendable=[b"\r\n\r\n", b"a\r\n", b"\r\n\r\nb"],
    ),
    "JT/T 808": Kind(
        lambda: DelimiterFramer(b"\x7e", LIMIT, escapes=JT808, leading=True),
        [b"hello", b"\x30\x7e\x08\x7d\x55", b"\x7e", b"\x7d" * 20, b"\x7d\x02\x7d\x01", FULL], LIMIT,
        bad=[b"~a}~", b"~}\x03~", b"~}}\x01~", b"~a~~}~"],
        oversize=[b"~" + FULL + b"x", FULL + b"x~", b"~ok~" + FULL + b"x"],
        unsendable=[b"", FULL + b"x", b"\x7e" * 21],
    ),
    "SLIP": Kind(
        lambda: DelimiterFramer(b"\xc0", LIMIT, escapes=SLIP, leading=True),
        [b"hello", b"\xc0", b"\xdb", b"\xdb\xdc\xdb\xdd"], LIMIT, bad=[b"\xdb\xc0", b"\xdbx\xc0"], oversize=[FULL * 2],
    ),
    "backslashes": Kind(
        lambda: DelimiterFramer(b"\n", LIMIT, escapes=BACKSLASH),
        [b"hello", b"", b"a\nb", b"\\", b"\\\\n", b"\\n", b"\n\\" * 10], LIMIT,
        bad=[b"\\\n", b"\\x\n", b"\\\\\\\n"], oversize=[FULL + b"x"], unsendable=[b"\n" * 21],
    ),
    "length": Kind(
        lambda: LengthFramer(LIMIT), [*WORDS, b"x" * 36], LIMIT,
        oversize=[b"\0\0\0\x25", b"\xff\xff\xff\xff", b"\0\0\0\x01a" + b"\xff" * 4], unsendable=[b"x" * 37],
    ),
    "length of 1 byte": Kind(
        lambda: LengthFramer(300, size=1), [*WORDS, b"x" * 255], 300, unsendable=[b"x" * 256, b"x" * 300],
    ),
    "length of 3 bytes at the end of a head of 5": Kind(
        lambda: LengthFramer(LIMIT, size=3, offset=2, prefix=HDR), [*WORDS, b"x" * 35], LIMIT,
        oversize=[HDR + b"\0\0\x24", HDR + b"\xff\xff\xff"], unsendable=[b"x" * 36],
    ),
    "length of 3 bytes, little endian, in a head of 5 that is stripped": Kind(
        lambda: LengthFramer(LIMIT, size=3, order="little", adjustment=2, strip=5, prefix=b"\0\0\0" + HDR),
        [*WORDS, b"x" * 35], LIMIT, oversize=[b"\x24\0\0", b"\xff\xff\xff"], unsendable=[b"x" * 36],
    ),
    "length that counts itself": Kind(
        lambda: LengthFramer(LIMIT, size=2, adjustment=-2), [*WORDS, b"x" * 38], LIMIT,
        bad=[b"\0\0", b"\0\1", b"\0\2\0\3a\0\0"], oversize=[b"\0\x29", b"\xff\xff"], unsendable=[b"x" * 39],
    ),
    "length of the body behind a second head": Kind(
        lambda: LengthFramer(LIMIT, size=2, offset=1, adjustment=1), [b"\xfe", b"\xfehello", b"x" * 37], LIMIT,
        oversize=[b"\xca\0\x25"], unsendable=[b"", b"x" * 38],
    ),
    "length of what is stripped and more": Kind(
        lambda: LengthFramer(LIMIT, size=2, strip=6), [*WORDS, b"x" * 34], LIMIT,
        bad=[b"\0\0", b"\0\3abc"], oversize=[b"\0\x27"], unsendable=[b"x" * 35],
    ),
    "length of 8 bytes": Kind(
        lambda: LengthFramer(LIMIT, size=8, order="little"), [*WORDS], LIMIT, oversize=[b"\xff" * 8, bytes(7) + b"\1"],
    ),
}  # fmt: skip

FAILING = {name: kind for name, kind in KINDS.items() if kind.bad or kind.oversize}


def each(kinds: dict[str, Kind]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("kind", kinds.values(), ids=kinds.keys())


@each(KINDS)
def test_it_passes_the_conformance_check(kind: Kind) -> None:
    check_framer(
        kind.new,
        kind.messages,
        limit_bytes=kind.held_limit,
        bad_streams=kind.bad,
        oversize_streams=kind.oversize,
        unsendable=kind.unsendable,
    )


@each(KINDS)
@settings(max_examples=40)
@given(data=st.data())
def test_any_messages_in_any_split_come_out_as_they_went_in(kind: Kind, data: st.DataObject) -> None:
    messages = data.draw(st.lists(st.sampled_from(kind.messages), max_size=12))
    stream = b"".join(kind.new().encode(message) for message in messages)
    assert kind.new().encode_all(messages) == stream
    assert fed(kind.new(), *pieces_of(data, stream)) == (messages, None)


@each(FAILING)
@settings(max_examples=40)
@given(data=st.data())
def test_the_error_comes_after_the_good_messages_whatever_the_split(kind: Kind, data: st.DataObject) -> None:
    good = data.draw(st.lists(st.sampled_from(kind.messages), max_size=6))
    bad = data.draw(st.sampled_from([*kind.bad, *kind.oversize]))
    before, error = fed(kind.new(), bad)
    stream = kind.new().encode_all(good) + bad + data.draw(st.binary(max_size=100))
    framer = kind.new()
    assert fed(framer, *pieces_of(data, stream)) == (good + before, error)
    assert error is not None
    assert held(framer) == 0
    first = framer.error
    assert framer.receive(kind.new().encode(kind.messages[0])) == []
    assert framer.error is first


@each(KINDS)
@settings(max_examples=40)
@given(data=st.data())
def test_garbage_never_raises_and_is_never_kept_beyond_the_limit(kind: Kind, data: st.DataObject) -> None:
    stream = data.draw(st.binary(max_size=300))
    whole = fed(kind.new(), stream)
    framer = kind.new()
    messages: list[bytes] = []
    for piece in pieces_of(data, stream):
        messages += framer.receive(piece)
        assert held(framer) <= (kind.held_limit if framer.error is None else 0)
    assert (messages, None if framer.error is None else type(framer.error)) == whole


@each(KINDS)
@settings(max_examples=40)
@given(data=st.data())
def test_what_encode_takes_comes_back_as_the_same_message(kind: Kind, data: st.DataObject) -> None:
    near = st.sampled_from([*kind.messages, *kind.unsendable]).flatmap(
        lambda base: st.binary(max_size=4).map(lambda more: base + more)
    )
    message = data.draw(st.one_of(st.binary(max_size=60), near))
    try:
        frame = kind.new().encode(message)
    except UsageError:
        return
    assert fed(kind.new(), frame) == ([message], None)


@each(KINDS)
def test_it_has_no_more_to_say_about_nothing(kind: Kind) -> None:
    framer = kind.new()
    assert framer.receive(b"") == []
    assert kind.new().encode_all([]) == b""
    assert framer.error is None


@each(FAILING)
def test_an_error_does_not_keep_what_was_received(kind: Kind) -> None:
    for bad in [*kind.bad, *kind.oversize]:
        framer = kind.new()
        framer.receive(bad)
        assert framer.error is not None
        assert framer.error.__traceback__ is None
        assert framer.error.__context__ is None


# A peer that sends byte by byte costs no more than one that sends all at once.


class CountingBytes(bytearray):
    """A buffer that counts the bytes that are copied into it and out of it, or searched in it."""

    touched = 0

    def __iadd__(self, more: Any) -> "CountingBytes":  # type: ignore[override]
        self.touched += len(more)
        self.extend(more)
        return self

    def __bytes__(self) -> bytes:
        self.touched += len(self)
        return bytes(memoryview(self))

    def find(self, what: Any, start: Any = 0, end: Any = None) -> int:
        self.touched += len(self) - start
        return super().find(what, start, len(self) if end is None else end)


LONG = 20_000
LONG_FRAMERS: dict[str, tuple[Callable[[], Framer], bytes]] = {
    "line": (lambda: LineFramer(LONG), b"x" * LONG),
    "length": (lambda: LengthFramer(LONG + 4), b"x" * LONG),
    "length with a head": (lambda: LengthFramer(LONG + 9, size=3, offset=2, adjustment=4, strip=9), b"x" * LONG),
    "varint": (lambda: VarintFramer(LONG), b"x" * LONG),
    "netstring": (lambda: NetstringFramer(LONG), b"x" * LONG),
    "delimiter": (lambda: DelimiterFramer(b"\r\n\r\n", LONG), b"\r\nx" * (LONG // 3)),
    "escapes": (lambda: DelimiterFramer(b"~", 2 * LONG, escapes=JT808), b"}" * LONG),
    "fixed": (lambda: FixedFramer(LONG), b"x" * LONG),
}


@pytest.mark.parametrize(("new_framer", "message"), LONG_FRAMERS.values(), ids=LONG_FRAMERS.keys())
def test_a_long_message_byte_by_byte_takes_work_in_proportion(new_framer: Callable[[], Framer], message: bytes) -> None:
    framer: Any = new_framer()
    buffer = framer._rest = CountingBytes()
    stream = framer.encode(message) + framer.encode(message)
    assert fed(framer, *byte_by_byte(stream)) == ([message, message], None)
    assert framer._rest is buffer
    # Each byte in, out, and looked at as often as a delimiter is long.
    assert len(stream) <= buffer.touched + 1 <= 8 * len(stream)


@pytest.mark.parametrize(
    ("new_framer", "promise"),
    [
        (LengthFramer, b"\x00\x0f\xff\x00"),
        (lambda: LengthFramer(1 << 31, size=8, order="little"), b"\0\0\0\x40" + bytes(4)),
        (VarintFramer, b"\xff\xff\x3f"),
        (NetstringFramer, b"1000000:"),
        (lambda: FixedFramer(1 << 30), b""),
    ],
)
def test_nothing_is_set_aside_for_what_is_only_promised(new_framer: Callable[[], Framer], promise: bytes) -> None:
    framer = new_framer()
    gc.collect()
    tracemalloc.start()
    try:
        assert fed(framer, promise, b"x") == ([], None)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 100_000


def test_a_promise_of_4_gib_is_an_error_at_once() -> None:
    for size, order in ((4, "big"), (4, "little"), (8, "little")):
        framer = LengthFramer(size=size, order=order)  # type: ignore[arg-type]
        assert fed(framer, b"\xff\xff\xff\xff" + bytes(size - 4)) == ([], FrameTooLarge)
        assert str(0xFFFFFFFF + size) in str(framer.error)
        assert held(framer) == 0


# The length field, against Netty and against the plainest reading.

HELLO = b"HELLO, WORLD"
NETTY = [
    # The examples of https://netty.io/4.1/api/io/netty/handler/codec/LengthFieldBasedFrameDecoder.html in their order:
    # lengthFieldOffset, lengthFieldLength, lengthAdjustment, initialBytesToStrip, before, after.
    (0, 2, 0, 0, "000C", "000C"),
    (0, 2, 0, 2, "000C", ""),
    (0, 2, -2, 0, "000E", "000E"),
    (2, 3, 0, 0, "CAFE 00000C", "CAFE 00000C"),
    (0, 3, 2, 0, "00000C CAFE", "00000C CAFE"),
    (1, 2, 1, 3, "CA 000C FE", "FE"),
    (1, 2, -3, 3, "CA 0010 FE", "FE"),
]


@pytest.mark.parametrize(("offset", "size", "adjustment", "strip", "before", "after"), NETTY)
def test_the_examples_in_nettys_documentation_come_out_as_it_says(
    offset: int, size: Any, adjustment: int, strip: int, before: str, after: str
) -> None:
    stream, message = bytes.fromhex(before) + HELLO, bytes.fromhex(after) + HELLO

    def new_framer() -> LengthFramer:
        return LengthFramer(
            100, size=size, offset=offset, adjustment=adjustment, strip=strip, prefix=stream[: min(offset, strip)]
        )

    assert fed(new_framer(), stream) == ([message], None)
    assert fed(new_framer(), *byte_by_byte(stream + stream)) == ([message, message], None)
    assert new_framer().encode(message) == stream
    assert new_framer().encode_all([message, message]) == stream + stream


class LengthOptions(NamedTuple):
    size: Any
    order: Any
    offset: int
    adjustment: int
    strip: int

    def framer(self, limit: int = LIMIT) -> LengthFramer:
        return LengthFramer(limit, **self._asdict())


length_options = st.builds(
    LengthOptions,
    size=st.sampled_from([1, 2, 3, 4, 8]),
    order=st.sampled_from(["big", "little"]),
    offset=st.integers(0, 4),
    # As often as not what most protocols have, which is cut by a shorter way than the rest.
    adjustment=st.just(0) | st.integers(-14, 6),
    strip=st.sampled_from([1, 2, 3, 4, 8]) | st.integers(0, 16),
)


def cut_by_length(stream: bytes, limit: int, options: LengthOptions) -> tuple[list[bytes], type[ProtocolError] | None]:
    """The same as the framer, as plainly as it can be written."""
    messages: list[bytes] = []
    head = options.offset + options.size
    while len(stream) >= head:
        total = head + int.from_bytes(stream[options.offset : head], options.order) + options.adjustment
        if total > limit:
            return messages, FrameTooLarge
        if total < head or total < options.strip:
            return messages, BadFrame
        if len(stream) < total:
            break
        messages.append(stream[options.strip : total])
        stream = stream[total:]
    return messages, None


@pytest.mark.parametrize("size", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("adjustment", [-1, 0, 1])
@pytest.mark.parametrize("more_stripped", [-1, 0, 1])
def test_what_is_nearly_the_common_length_field_is_not_taken_for_it(
    size: int, offset: int, adjustment: int, more_stripped: int
) -> None:
    options = LengthOptions(size, "big", offset, adjustment, size + more_stripped)
    stream = (bytes(offset) + (5).to_bytes(size, "big") + b"hello"[: 5 + adjustment] + b"!" * max(0, adjustment)) * 2
    expected = cut_by_length(stream, LIMIT, options)
    assert len(expected[0]) == 2
    assert fed(options.framer(), stream) == expected
    assert fed(options.framer(), *byte_by_byte(stream)) == expected


@given(length_options, st.lists(st.integers(0, 30), max_size=8), st.binary(max_size=60), st.data())
def test_any_length_field_in_any_split_agrees_with_the_plainest_reading(
    options: LengthOptions, values: list[int], behind: bytes, data: st.DataObject
) -> None:
    frames = [
        bytes(options.offset) + value.to_bytes(options.size, options.order) + b"x" * max(0, value + options.adjustment)
        for value in values
    ]
    stream = b"".join(frames) + behind
    expected = cut_by_length(stream, LIMIT, options)
    assert fed(options.framer(), *pieces_of(data, stream)) == expected


@given(length_options, st.binary(max_size=LIMIT + 4), st.data())
def test_any_length_field_is_written_as_it_is_read(options: LengthOptions, message: bytes, data: st.DataObject) -> None:
    framer = options.framer()
    try:
        frame = framer.encode(message)
    except UsageError:
        # Refused exactly if no frame with these bytes behind what is stripped could be received.
        total = options.strip + len(message)
        value = total - options.offset - options.size - options.adjustment
        assert total > LIMIT or total < options.offset + options.size or not 0 <= value < 1 << 8 * options.size
        return
    (received,), error = fed(framer, *pieces_of(data, frame))
    assert error is None
    assert len(received) == len(message)
    # Where the field is part of the message, its place holds the right value now; everywhere else nothing changed.
    behind = max(0, options.offset + options.size - options.strip)
    assert received[behind:] == message[behind:]
    assert received[: max(0, options.offset - options.strip)] == message[: max(0, options.offset - options.strip)]
    assert options.framer().encode_all([received, received]) == frame + frame


def test_a_length_field_in_the_message_is_put_right() -> None:
    framer = LengthFramer(size=2, offset=1, strip=0)
    assert framer.encode(b"\xca\xff\xffhello") == b"\xca\x00\x05hello"
    assert LengthFramer(size=2, strip=1).encode(b"\xffhello") == b"\x00\x05hello"


def test_the_prefix_is_the_head_before_the_field_or_all_that_is_stripped() -> None:
    assert LengthFramer(size=2, offset=2, prefix=HDR).encode(b"hi") == HDR + b"\0\2hi"
    assert LengthFramer(size=2, offset=2, strip=4).encode(b"hi") == b"\0\0\0\2hi"
    assert LengthFramer(size=2, adjustment=2, strip=4, prefix=b"..\xca\xfe").encode(b"hi") == b"\0\2" + HDR + b"hi"
    assert LengthFramer(size=2, offset=2, strip=1, prefix=b"\xca").encode(b"\xfe..hi") == HDR + b"\0\2hi"


@pytest.mark.parametrize(
    "options",
    [
        {"size": 5},
        {"size": 0},
        {"order": "middle"},
        {"offset": -1},
        {"strip": -1},
        {"limit_bytes": 3},
        {"limit_bytes": 10, "strip": 11},
        {"limit_bytes": 10, "offset": 7},
        {"prefix": b"x"},
        {"offset": 2, "prefix": b"x"},
        {"offset": 2, "strip": 1, "prefix": b"xx"},
    ],
)
def test_a_length_field_that_can_not_be_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        LengthFramer(**options)


def test_a_limit_that_holds_the_head_alone_lets_empty_messages_through() -> None:
    assert fed(LengthFramer(4), bytes(8)) == ([b"", b""], None)
    assert fed(LengthFramer(6, strip=6), b"\0\0\0\2ab") == ([b""], None)
    assert fed(LengthFramer(4), b"\0\0\0\1") == ([], FrameTooLarge)


def test_a_batch_with_one_message_that_is_too_long_is_refused_as_a_whole() -> None:
    with pytest.raises(UsageError, match="41 bytes"):
        LengthFramer(LIMIT).encode_all([b"ok", b"x" * 37])
    with pytest.raises(UsageError, match="does not fit"):
        LengthFramer(size=1).encode_all([b"ok", b"x" * 256])
    with pytest.raises(UsageError, match="does not fit"):
        LengthFramer(1 << 25, size=3, offset=1).encode(bytes(1 << 24))


# Varints.


@pytest.mark.parametrize(
    ("length", "head"),
    [(0, "00"), (1, "01"), (127, "7f"), (128, "8001"), (300, "ac02"), (16_383, "ff7f"), (16_384, "808001")],
)
def test_a_varint_grows_by_a_byte_at_its_boundaries(length: int, head: str) -> None:
    frame = bytes.fromhex(head) + b"x" * length
    assert VarintFramer().encode(b"x" * length) == frame
    assert fed(VarintFramer(), frame) == ([b"x" * length], None)
    assert fed(VarintFramer(), *byte_by_byte(frame + frame)) == ([b"x" * length] * 2, None)
    assert fed(VarintFramer(length or 1), frame) == ([b"x" * length], None)
    if length > 1:
        assert fed(VarintFramer(length - 1), bytes.fromhex(head)) == ([], FrameTooLarge)


def test_a_varint_may_be_longer_than_it_need_be_but_not_than_ten_bytes() -> None:
    assert fed(VarintFramer(), b"\x81\x80\x00a") == ([b"a"], None)
    assert fed(VarintFramer(), b"\x81" + b"\x80" * 8 + b"\x00a") == ([b"a"], None)
    assert fed(VarintFramer(), b"\x80" * 9) == ([], None)
    assert fed(VarintFramer(), b"\x80" * 10) == ([], BadFrame)


# Delimiters.


def test_the_example_in_jtt808_is_escaped_as_it_says() -> None:
    framer = DelimiterFramer(b"\x7e", escapes=JT808, leading=True)
    message, frame = bytes.fromhex("30 7e 08 7d 55"), bytes.fromhex("7e 30 7d 02 08 7d 01 55 7e")
    assert framer.encode(message) == frame
    assert fed(framer, *byte_by_byte(frame)) == ([message], None)


def test_one_delimiter_may_end_a_frame_and_begin_the_next() -> None:
    framer = DelimiterFramer(b"~", leading=True)
    assert fed(framer, b"~one~two~~three~~~~four~") == ([b"one", b"two", b"three", b"four"], None)


def test_without_a_leading_delimiter_an_empty_frame_is_a_message() -> None:
    assert fed(DelimiterFramer(b"~"), b"~one~~two~") == ([b"", b"one", b"", b"two"], None)


@given(
    st.binary(min_size=1, max_size=4).map(lambda raw: bytes(byte % 3 for byte in raw)),
    st.lists(st.integers(0, 3), max_size=80).map(bytes),
    st.data(),
)
def test_any_delimiter_in_any_split_agrees_with_the_plainest_reading(
    delimiter: bytes, stream: bytes, data: st.DataObject
) -> None:
    expected: list[bytes] = []
    frame = b""
    for byte in stream:
        frame += bytes([byte])
        if frame.endswith(delimiter):
            expected.append(frame.removesuffix(delimiter))
            frame = b""
    framer = DelimiterFramer(delimiter, 100)
    assert fed(framer, *pieces_of(data, stream)) == (expected, None)
    assert held(framer) == len(frame)


@given(st.sampled_from([JT808, SLIP, BACKSLASH, {b"a": b"bb", b"b": b"bc", b"c": b"bd"}]), st.data())
def test_any_bytes_can_be_sent_where_there_are_escapes(escapes: dict[bytes, bytes], data: st.DataObject) -> None:
    delimiter = next(iter(escapes))
    hard = st.sampled_from([*escapes, *(pair[1:] for pair in escapes.values()), b"x"])
    message = b"".join(data.draw(st.lists(hard, min_size=1, max_size=30)))
    framer = DelimiterFramer(delimiter, escapes=escapes, leading=data.draw(st.booleans()))
    frame = framer.encode(message)
    assert frame.strip(delimiter).count(delimiter) == 0
    assert fed(framer, *pieces_of(data, frame)) == ([message], None)


@pytest.mark.parametrize(
    ("delimiter", "options"),
    [
        (b"", {}),
        (b"~", {"escapes": {b"~": b"}"}}),
        (b"~", {"escapes": {b"~": b""}}),
        (b"~", {"escapes": {b"~~": b"}1", b"}": b"}2"}}),
        (b"~", {"escapes": {b"~": b"}1", b"}": b"|2"}}),
        (b"~", {"escapes": {b"~": b"}1", b"}": b"}1"}}),
        (b"~", {"escapes": {b"~": b"}1"}}),
        (b"~", {"escapes": {b"}": b"}1"}}),
        (b"~", {"escapes": {b"~": b"}~", b"}": b"}1"}}),
        (b"~~", {"escapes": JT808}),
    ],
)
def test_escapes_that_no_peer_could_read_are_refused(delimiter: bytes, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        DelimiterFramer(delimiter, **options)


# Fixed sizes, and no messages at all.


@given(st.integers(1, 9), st.binary(max_size=60), st.data())
def test_messages_of_one_size_are_cut_in_any_split(size: int, stream: bytes, data: st.DataObject) -> None:
    framer = FixedFramer(size)
    whole = len(stream) // size
    expected = [stream[at * size : (at + 1) * size] for at in range(whole)]
    assert fed(framer, *pieces_of(data, stream)) == (expected, None)
    assert held(framer) == len(stream) - whole * size


@given(st.integers(1, 9), st.lists(st.binary(max_size=60)))
def test_raw_bytes_are_handed_on_in_pieces_within_the_limit(limit: int, pieces: list[bytes]) -> None:
    messages, error = fed(RawFramer(limit), *pieces)
    assert b"".join(messages) == b"".join(pieces)
    assert all(0 < len(message) <= limit for message in messages)
    assert error is None


def test_raw_bytes_are_sent_as_they_are() -> None:
    assert RawFramer(3).encode(b"hello") == b"hello"
    assert RawFramer(3).encode_all([b"hello", b"", b"world"]) == b"helloworld"


# Arguments.


@pytest.mark.parametrize(
    "new_framer",
    [
        lambda: LineFramer(0),
        lambda: LineFramer(ending=b"\r"),
        lambda: LineFramer(ending=b""),
        lambda: DelimiterFramer(b"~", 0),
        lambda: VarintFramer(-1),
        lambda: NetstringFramer(0),
        lambda: RawFramer(0),
        lambda: FixedFramer(0),
        lambda: LengthFramer(0),
    ],
)
def test_a_framer_that_could_receive_nothing_is_refused(new_framer: Callable[[], Framer]) -> None:
    with pytest.raises(UsageError):
        new_framer()


def test_a_framer_without_receive_and_encode_is_none() -> None:
    with pytest.raises(TypeError):
        Framer()  # type: ignore[abstract]


@each(KINDS)
def test_two_framers_share_nothing(kind: Kind) -> None:
    frame = kind.new().encode(kind.messages[0])
    first, second = kind.new(), kind.new()
    first.receive(frame[:-1])
    assert fed(second, frame) == (kind.messages[:1], None)
    assert fed(first, frame[-1:]) == (kind.messages[:1], None)


# What fuzzing begins with, and the framer in the documentation.


@pytest.fixture(scope="module")
def fuzz() -> Iterator[tuple[ModuleType, ModuleType]]:
    """The modules `framers` and `make_corpus` of the folder fuzz."""
    modules = []
    for name in ("framers", "make_corpus"):
        spec = importlib.util.spec_from_file_location(name, FUZZ / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        modules.append(importlib.util.module_from_spec(spec))
        sys.modules[name] = modules[-1]
        spec.loader.exec_module(modules[-1])
    yield modules[0], modules[1]
    for module in modules:
        del sys.modules[module.__name__]


FRAMERS = {"delimiter", "fixed", "length", "line", "netstring", "raw", "varint"}  # other folders are of other targets
CORPUS = sorted(path for path in (FUZZ / "corpus").glob("*/*") if path.parent.name in FRAMERS)


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_streams_that_fuzzing_begins_with_break_no_promise(fuzz: tuple[ModuleType, ModuleType], path: Path) -> None:
    fuzz[0].check(path.parent.name, path.read_bytes())


def test_the_streams_that_fuzzing_begins_with_are_those_of_its_script(fuzz: tuple[ModuleType, ModuleType]) -> None:
    written = {f"{path.parent.name}/{path.name}": path.read_bytes() for path in CORPUS}
    assert written == fuzz[1].corpus(), "the corpus is out of date; run: python fuzz/make_corpus.py"
    assert {path.parent.name for path in CORPUS} == set(fuzz[0].TARGETS)


class _KeepsAll(LineFramer):
    def receive(self, data: bytes) -> list[bytes]:
        self._rest += data
        return []


class _LosesSplitLines(LineFramer):
    def receive(self, data: bytes) -> list[bytes]:
        return data.split(b"\n")[:-1]


class _SendsTwice(LineFramer):
    def encode(self, message: bytes) -> bytes:
        return super().encode(message) * 2


class _Raises(LineFramer):
    def receive(self, data: bytes) -> list[bytes]:
        return super().receive(data.decode("ascii").encode())


@pytest.mark.parametrize("broken", [_KeepsAll, _LosesSplitLines, _SendsTwice, _Raises])
def test_fuzzing_would_find_a_broken_framer(
    fuzz: tuple[ModuleType, ModuleType], monkeypatch: pytest.MonkeyPatch, broken: type[LineFramer]
) -> None:
    module = fuzz[0]
    monkeypatch.setitem(module.TARGETS, "line", [module.Target(lambda: broken(LIMIT), LIMIT + 1)])
    with pytest.raises((AssertionError, UnicodeDecodeError)):
        module.check("line", b"\0\1first\nsecond\n\xff" + b"x" * 50)


def test_the_framer_in_the_documentation_keeps_its_promises() -> None:
    page = (ROOT / "docs" / "how-to" / "write-a-framer.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(block, names)
    names["test_the_checksum_framer_keeps_its_promises"]()
    assert fed(names["ChecksumFramer"](), b"\x00\x03abc\x26") == ([b"abc"], None)
