"""Frames that begin and do not end, and peers that are slow: by a clock that goes on only when it is told to."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_connection import EVERYTHING, Line, framed

from trunkline.errors import BadFrame, PeerTimeout
from trunkline.tcp import CloseReason, ConnectionOptions
from trunkline.tcp.deadlines import Deadlines
from trunkline.wire import (
    DelimiterFramer,
    FixedFramer,
    Framer,
    Frames,
    LengthFramer,
    LineFramer,
    NetstringFramer,
    RawFramer,
    Session,
    SimpleReactorWire,
    VarintFramer,
)

New = Callable[..., Line]
FRAMERS: dict[str, Callable[[], Framer]] = {
    "length": LengthFramer,
    "length with a head": lambda: LengthFramer(offset=2),
    "varint": VarintFramer,
    "netstring": NetstringFramer,
    "line": LineFramer,
    "delimiter": lambda: DelimiterFramer(b"||"),
    "fixed": lambda: FixedFramer(4),
    "native": lambda: met(Frames()),
    "simple reactor": lambda: SimpleReactorWire("server"),
    "simple reactor, plain": lambda: SimpleReactorWire("client", compression=False),
}


def met(session: Frames) -> Frames:
    greeter = Frames()
    greeter.start()
    session.receive(bytes(greeter.output))
    return session


@pytest.fixture
def lines() -> Iterator[New]:
    made: list[Line] = []

    def make(*args: Any, **more: Any) -> Line:
        made.append(Line(*args, **more))
        return made[-1]

    yield make
    for line in made:
        line.end()


# What framers say.


@pytest.mark.parametrize("name", FRAMERS)
@given(count=st.integers(1, 3), cuts=st.sets(st.integers(1, 100)))
def test_a_framer_knows_whether_a_frame_has_begun(name: str, count: int, cuts: set[int]) -> None:
    """It has, wherever the stream is cut, but where a frame ends: whatever the pieces in which it came."""
    sender, receiver = FRAMERS[name](), FRAMERS[name]()
    frames = [sender.encode(b"abcd") for _ in range(count)]
    stream = b"".join(frames)
    borders = {sum(map(len, frames[:number])) for number in range(count + 1)}
    at = 0
    for cut in sorted(cut for cut in cuts | {len(stream)} if cut <= len(stream)):
        receiver.receive(stream[at:cut])
        at = cut
        assert receiver.unfinished is (cut not in borders), cut
    assert receiver.error is None


def test_raw_bytes_have_no_frame_that_could_be_cut_short() -> None:
    framer = RawFramer()
    framer.receive(b"anything")
    assert not framer.unfinished


def test_a_framer_of_ones_own_need_not_say_it() -> None:
    class Bytes(Framer):
        def receive(self, data: bytes) -> list[bytes]:
            return [data]

        def encode(self, message: bytes) -> bytes:
            return message

    assert not Bytes().unfinished


def test_what_a_session_has_put_off_is_no_unfinished_frame() -> None:
    greeter = Frames(compression=("zlib",))
    greeter.start()
    native = Frames(compression=("zlib",))
    native.receive(bytes(greeter.output))
    native.start()
    greeter.receive(bytes(native.output))
    senders: list[tuple[Session, Session]] = [
        (greeter, native),
        (SimpleReactorWire("client"), SimpleReactorWire("server")),
    ]
    for sender, session in senders:
        session.receive(b"".join(sender.encode(bytes(900_000)) for _ in range(4)))
        rounds = 0
        while session.has_more:
            assert not session.unfinished
            session.receive(b"")
            rounds += 1
        assert rounds > 0
        assert not session.unfinished


# The frame timeout.


def test_a_frame_that_comes_byte_by_byte_has_the_frame_timeout(lines: New) -> None:
    line = lines(frame_timeout=5.0, idle_timeout=3.0)
    for byte in framed(b"x" * 100)[:12]:
        assert line.connection.is_open or line.loop.time() > 5.0
        line.feed_raw(bytes([byte]))
        line.pass_time(0.5)
    assert line.connection.close_reason == CloseReason.FRAME_TIMEOUT
    assert [error.reason for error in line.heard.errors if isinstance(error, PeerTimeout)] == ["frame_timeout"]
    assert line.loop.time() <= 6.5


def test_each_frame_has_the_frame_timeout_of_its_own(lines: New) -> None:
    """A busy peer may have a part of some frame under way at each look."""
    line = lines(frame_timeout=2.0)
    stream = framed(*[b"x" * 6] * 40)
    for at in range(0, len(stream) - 5, 5):
        line.feed_raw(stream[at : at + 5])
        line.pass_time(0.25)
    assert line.connection.is_open
    assert len(line.heard.messages) > 30


def test_a_frame_that_is_whole_in_time_has_no_deadline_left(lines: New) -> None:
    line = lines(frame_timeout=2.0)
    line.feed_raw(framed(b"late")[:3])
    line.pass_time(1.5)
    line.feed_raw(framed(b"late")[3:])
    line.pass_time(10.0)
    assert line.connection.is_open


def test_without_a_frame_timeout_a_frame_may_take_for_ever(lines: New) -> None:
    line = lines(frame_timeout=None)
    line.feed_raw(b"\0")
    line.pass_time(200.0)
    assert line.connection.is_open


def test_while_reading_is_paused_the_frame_is_not_late(lines: New) -> None:
    line = lines(frame_timeout=2.0)
    line.feed_raw(framed(b"late")[:3])
    line.pass_time(1.0)
    line.connection.pause_reading()
    line.pass_time(20.0)
    line.connection.resume_reading()
    line.pass_time(1.0)
    assert line.connection.is_open
    line.pass_time(2.0)
    assert line.connection.close_reason == CloseReason.FRAME_TIMEOUT


# Streams that are cut short.


def test_an_end_within_a_frame_is_a_breach_behind_the_good_messages(lines: New) -> None:
    line = lines(lambda connection, message: connection.send(message))
    line.transport.feed(framed(b"a", b"b", b"cut")[:-1])
    line.transport.end()
    line.loop.turn(6)
    assert line.sent == [b"a", b"b"]
    assert [str(error) for error in line.heard.errors] == ["the stream ends within a frame"]
    assert isinstance(line.heard.errors[0], BadFrame)
    assert line.connection.close_reason == CloseReason.BAD_FRAME


def test_before_that_is_told_the_answers_in_the_works_are_waited_for(lines: New) -> None:
    line = lines(lambda connection, message: connection.retain())
    line.transport.feed(framed(b"ask", b"cut")[:-1])
    line.transport.end()
    line.loop.turn(6)
    assert line.connection.is_open
    assert line.heard.errors == []
    line.connection.send(b"answer")
    line.connection.release()
    line.loop.turn(6)
    assert line.sent == [b"answer"]
    assert len(line.heard.errors) == 1


def test_an_end_between_two_frames_is_an_end(lines: New) -> None:
    line = lines()
    line.feed(b"whole")
    line.transport.end()
    line.loop.turn(6)
    assert line.connection.close_reason == CloseReason.PEER_CLOSED
    assert line.heard.errors == []


def test_a_reset_within_a_frame_is_told_as_an_error_and_counted_as_a_reset(lines: New) -> None:
    line = lines()
    line.feed_raw(framed(b"cut")[:-1])
    line.transport.reset()
    line.loop.turn(3)
    assert [str(error) for error in line.heard.errors] == ["the connection was reset within a frame"]
    assert line.connection.close_reason == CloseReason.RESET
    assert line.heard.up == [True, False]


def test_a_connection_that_this_side_drops_within_a_frame_is_no_error(lines: New) -> None:
    line = lines()
    line.feed_raw(framed(b"cut")[:-1])
    line.connection.abort()
    line.loop.turn(3)
    assert line.heard.errors == []


def test_a_connection_that_is_finished_within_a_frame_ends_as_it_was_asked_to(lines: New) -> None:
    line = lines()
    line.feed_raw(framed(b"cut")[:-1])
    line.connection.finish(CloseReason.DRAINED)
    line.loop.turn(3)
    assert line.connection.close_reason == CloseReason.DRAINED
    assert line.heard.errors == []


# Peers that do not read.


def test_who_takes_nothing_is_told_of_once_before_it_is_dropped(lines: New) -> None:
    line = lines(room=0, unread_timeout=3.0)
    line.connection.send(b"x" * 100)
    line.pass_time(4.0)
    assert [error.reason for error in line.heard.errors if isinstance(error, PeerTimeout)] == ["over_budget"]
    assert line.connection.close_reason == CloseReason.OVER_BUDGET


def test_a_user_who_answers_that_it_is_over_budget_is_told_once_all_the_same(lines: New) -> None:
    told: list[Exception] = []

    def on_error(connection: Any, error: Exception) -> None:
        told.append(error)
        for _ in range(3):
            connection.send(b"x" * 1_000)

    line = lines(room=0, unsent_limit_bytes=2_000, callbacks={"on_error": on_error})
    for _ in range(20):
        if line.connection.is_open:
            line.connection.send(b"x" * 1_000)
    assert len(told) == 1
    assert line.connection.close_reason == CloseReason.OVER_BUDGET


# Sides that do not read.


def test_a_side_whose_reading_is_paused_goes_on_beating(lines: New) -> None:
    """It can't answer the other one's beats, which would take it for dead."""
    line = lines(heartbeat_interval=2.0, heartbeat_message=b"beat")
    line.connection.pause_reading()
    line.pass_time(21.0)
    assert line.connection.is_open, "it does not judge a peer that it does not listen to"
    assert 9 <= line.sent.count(b"beat") <= 10


def test_it_beats_in_time_though_it_was_said_to_when_it_still_read(lines: New) -> None:
    line = lines(heartbeat_interval=4.0, heartbeat_message=b"beat")
    for _ in range(3):
        line.feed(b"news")
        line.pass_time(1.0)
    assert line.sent == []
    line.connection.pause_reading()
    line.pass_time(1.5)
    assert line.sent == [b"beat"], "an interval after it said something last, not after it heard something"


def test_a_peer_that_has_ended_its_side_is_not_waited_for_longer_than_it_may_be_silent(lines: New) -> None:
    line = lines(lambda connection, message: connection.retain(), idle_timeout=3.0)
    line.feed(b"a question that has no answer")
    line.transport.end()
    line.loop.turn(3)
    line.pass_time(2.0)
    assert line.connection.is_open
    line.pass_time(2.0)
    assert line.connection.close_reason == CloseReason.IDLE


def test_what_a_peer_sent_before_it_ended_may_take_as_long_as_it_takes(lines: New) -> None:
    line = lines(iterated=True, idle_timeout=3.0)
    line.connection.data_received(framed(b"a", b"b"))  # uvloop may tell of both in one go
    line.connection.eof_received()
    assert line.run(line.connection.receive()) == b"a"
    line.pass_time(10.0)
    assert line.run(line.connection.receive()) == b"b"
    assert line.connection.is_open


# Half-closed.


def test_after_shutdown_a_peer_may_send_for_as_long_as_it_sends(lines: New) -> None:
    line = lines(close_timeout=2.0)
    line.connection.shutdown()
    for number in range(10):
        line.feed(b"%d" % number)
        line.pass_time(1.5)
    assert len(line.heard.messages) == 10
    assert line.heard.lost == 0
    line.pass_time(3.0)
    assert line.heard.lost == 1


def test_after_shutdown_the_idle_timeout_holds_where_there_is_one(lines: New) -> None:
    line = lines(close_timeout=2.0, idle_timeout=8.0)
    line.connection.shutdown()
    line.pass_time(7.0)
    assert line.heard.lost == 0
    line.pass_time(2.0)
    assert line.heard.lost == 1


def test_a_close_after_a_long_shutdown_has_its_own_time(lines: New) -> None:
    line = lines(close_timeout=2.0, room=0)
    line.connection.send(b"last")
    line.connection.shutdown()
    for _ in range(5):
        line.feed(b"still")
        line.pass_time(1.0)
    line.connection.close()
    line.pass_time(1.0)
    line.transport.takes(EVERYTHING)
    line.loop.turn(3)
    assert line.sent == [b"last"]
    assert line.heard.lost == 1


# A reactor that was held up.


@pytest.mark.parametrize(
    ("options", "act"),
    [
        ({"handshake_timeout": 5.0}, lambda line: None),
        ({"idle_timeout": 5.0}, lambda line: None),
        ({"write_idle_timeout": 5.0}, lambda line: None),
        ({"frame_timeout": 5.0}, lambda line: line.feed_raw(b"\0")),
        ({"unread_timeout": 5.0, "room": 0}, lambda line: line.connection.send(b"unread")),
        ({"close_timeout": 5.0, "room": 0}, lambda line: (line.connection.send(b"unread"), line.connection.close())),
    ],
)
def test_time_in_which_the_reactor_was_held_up_counts_for_no_deadline(
    lines: New, options: dict[str, Any], act: Callable[[Line], object]
) -> None:
    line = lines(**options)
    act(line)
    line.pass_time(2.0)
    line.loop.clock.advance(60.0)
    line.connection.forgive(line.loop.time(), 60.0)
    line.pass_time(2.0)
    assert line.heard.lost == 0
    assert line.heard.errors == []
    line.pass_time(2.0)
    assert line.heard.lost == 1, "and the rest of the time counts"


@given(st.floats(0, 100), st.floats(0, 100), st.floats(0, 100), st.floats(0, 100))
def test_a_side_that_does_not_read_says_something_each_interval(
    now: float, heard_at: float, said_at: float, beat_at: float
) -> None:
    deadlines = Deadlines.of(ConnectionOptions(heartbeat_interval=10.0, heartbeat_misses=100), None)
    said_at, beat_at = min(said_at, now), min(beat_at, now)
    verdict, due = deadlines.judge(
        now, started_at=0.0, heard_at=heard_at, said_at=said_at, beat_at=beat_at,
        established=True, closing_at=None, deaf=True,
    )  # fmt: skip
    assert (verdict == "beat") == (now >= max(said_at, beat_at) + 10.0)
    assert due <= now + 10.0
