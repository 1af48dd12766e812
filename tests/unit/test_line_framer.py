"""Lines are cut the same however the stream is split, and never cost more memory than the limit allows."""

import copy
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.errors import FrameTooLarge, UsageError
from trunkline.testing import check_framer
from trunkline.wire import LineFramer

LIMIT = 8

lines = st.binary(max_size=LIMIT).filter(lambda line: b"\n" not in line and not line.endswith(b"\r"))
endings = st.sampled_from([b"\n", b"\r\n"])
stream_bytes = st.sampled_from(b"ab\r\n\x00\xff").flatmap(
    lambda first: st.lists(st.sampled_from(b"ab\r\n\x00\xff"), max_size=60).map(lambda rest: bytes([first, *rest]))
)


def pieces_of(data: st.DataObject, stream: bytes) -> list[bytes]:
    """The stream, cut at places that are drawn."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12), label="cuts"))
    return [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


def fed(pieces: list[bytes], limit: int = LIMIT) -> tuple[list[bytes], bool]:
    """What a fresh framer makes of the pieces: its messages, and whether it ended in an error."""
    framer = LineFramer(limit)
    messages = [message for piece in pieces for message in framer.receive(piece)]
    return messages, framer.error is not None


def cut_by_the_book(stream: bytes, limit: int) -> tuple[list[bytes], bool]:
    """The same as the framer, written as slowly and plainly as can be: one byte after the other."""
    messages: list[bytes] = []
    line = b""
    for byte in stream:
        if byte == 0x0A:
            line = line.removesuffix(b"\r")
            if len(line) > limit:
                return messages, True
            messages.append(line)
            line = b""
        else:
            line += bytes([byte])
            # A \r may be half of the ending, so it is not counted before it is followed by something else.
            if len(line.removesuffix(b"\r")) > limit or len(line) > limit + 1:
                return messages, True
    return messages, False


@given(st.lists(st.tuples(lines, endings), max_size=12), lines, st.data())
def test_any_split_of_mixed_line_endings_gives_the_same_messages(
    sent: list[tuple[bytes, bytes]], unfinished: bytes, data: st.DataObject
) -> None:
    stream = b"".join(line + ending for line, ending in sent) + unfinished
    assert fed(pieces_of(data, stream)) == ([line for line, _ in sent], False)


@given(stream_bytes, st.data())
def test_any_bytes_in_any_split_agree_with_the_byte_by_byte_reading(stream: bytes, data: st.DataObject) -> None:
    assert fed(pieces_of(data, stream)) == cut_by_the_book(stream, LIMIT)


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_garbage_never_raises(pieces: list[bytes]) -> None:
    messages, _ = fed(pieces, limit=16)
    assert all(len(message) <= 16 and b"\n" not in message for message in messages)


@given(
    st.lists(lines, max_size=6),
    st.integers(1, 40),
    st.sampled_from([b"", b"\n", b"\r\n", b"\nnever read\n"]),
    st.data(),
)
def test_the_error_comes_after_the_good_messages_whatever_the_split(
    good: list[bytes], over: int, behind: bytes, data: st.DataObject
) -> None:
    stream = b"".join(line + b"\n" for line in good) + b"x" * (LIMIT + over) + behind
    assert fed(pieces_of(data, stream)) == (good, True)


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_a_line_of_exactly_the_limit_is_a_message(ending: bytes) -> None:
    line = b"x" * LIMIT
    assert fed([line + ending]) == ([line], False)
    assert fed([line, ending]) == ([line], False)
    assert fed([bytes([byte]) for byte in line + ending]) == ([line], False)


def test_one_byte_over_the_limit_is_an_error_before_the_line_has_ended() -> None:
    framer = LineFramer(LIMIT)
    assert framer.receive(b"x" * LIMIT) == []
    assert framer.error is None
    assert framer.receive(b"x") == []
    assert isinstance(framer.error, FrameTooLarge)
    assert str(LIMIT) in str(framer.error)


def test_a_carriage_return_behind_a_full_line_may_still_be_half_of_its_ending() -> None:
    framer = LineFramer(LIMIT)
    line = b"x" * LIMIT
    assert framer.receive(line + b"\r") == []
    assert framer.error is None
    assert framer.receive(b"\n") == [line]
    assert framer.error is None


@pytest.mark.parametrize("behind", [b"x", b"\r", b"\r\n", b"x\n"])
def test_a_carriage_return_that_was_no_ending_counts(behind: bytes) -> None:
    framer = LineFramer(LIMIT)
    assert framer.receive(b"x" * LIMIT + b"\r") == []
    assert framer.receive(behind) == []
    assert isinstance(framer.error, FrameTooLarge)


def test_nothing_is_received_after_an_error() -> None:
    framer = LineFramer(LIMIT)
    framer.receive(b"x" * (LIMIT + 1))
    first = framer.error
    assert framer.receive(b"good\n") == []
    assert framer.error is first


@given(stream_bytes, st.data())
def test_what_is_held_never_exceeds_the_limit(stream: bytes, data: st.DataObject) -> None:
    framer = LineFramer(LIMIT)
    for piece in pieces_of(data, stream):
        framer.receive(piece)
        # What it holds is what comes out if the line ends here; behind an x, a pending \r comes out too.
        held = copy.deepcopy(framer).receive(b"\n")
        assert all(len(message) <= LIMIT for message in held)
        assert len(framer._rest) <= LIMIT + 1


def test_an_endless_line_is_not_kept() -> None:
    framer = LineFramer(1024)
    chunk = b"x" * 65_536
    tracemalloc.start()
    try:
        framer.receive(chunk)
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(200):
            framer.receive(chunk)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < len(chunk)


@given(lines, endings)
def test_what_encode_takes_comes_back_as_the_same_one_line(line: bytes, ending: bytes) -> None:
    frame = LineFramer(LIMIT, ending).encode(line)
    assert frame == line + ending
    assert fed([frame]) == ([line], False)


@given(st.binary(max_size=LIMIT + 4))
def test_encode_refuses_exactly_what_would_not_come_back(line: bytes) -> None:
    comes_back = fed([line + b"\n"]) == ([line], False)
    try:
        LineFramer(LIMIT).encode(line)
    except UsageError:
        assert not comes_back
    else:
        assert comes_back


@pytest.mark.parametrize("line", [b"a\nb", b"a\n", b"a\r", b"a\r\n", b"\r", b"x" * (LIMIT + 1)])
def test_encode_refuses_what_is_no_one_line(line: bytes) -> None:
    with pytest.raises(UsageError):
        LineFramer(LIMIT).encode(line)


def test_the_line_framer_passes_the_conformance_check() -> None:
    check_framer(
        lambda: LineFramer(LIMIT),
        [b"", b"a", b"x" * LIMIT, b"\r a", b"\x00\xff"],
        limit_bytes=LIMIT + 1,
        oversize_streams=[b"x" * (LIMIT + 1), b"good\r\n" + b"x" * 99 + b"\nnever\n", b"x" * LIMIT + b"\r\r\n"],
    )
    check_framer(lambda: LineFramer(LIMIT, b"\r\n"), [b"", b"a", b"x" * LIMIT], limit_bytes=LIMIT + 1)


@given(st.lists(lines, max_size=8), endings)
def test_several_lines_are_sent_as_each_of_them_would_be(messages: list[bytes], ending: bytes) -> None:
    framer = LineFramer(LIMIT, ending)
    stream = framer.encode_all(messages)
    assert stream == b"".join(framer.encode(message) for message in messages)
    assert fed([stream]) == (messages, False)


@given(st.lists(lines, min_size=1, max_size=8), st.sampled_from([b"a\nb", b"a\r", b"x" * (LIMIT + 1)]), st.data())
def test_several_lines_of_which_one_is_none_are_refused_as_a_whole(
    messages: list[bytes], bad: bytes, data: st.DataObject
) -> None:
    messages.insert(data.draw(st.integers(0, len(messages))), bad)
    for ending in (b"\n", b"\r\n"):
        with pytest.raises(UsageError):
            LineFramer(LIMIT, ending).encode_all(messages)
