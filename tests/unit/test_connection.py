"""A connection over a transport in memory, which keeps asyncio's contract, under all that may happen to it."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from trunkline.errors import BadFrame, ConnectionClosed, FrameTooLarge, Overloaded, PeerTimeout, UsageError
from trunkline.reactor import Reactor
from trunkline.tcp import Blueprint, Callbacks, CloseReason, ConnectionOptions, OutboundBudget, TcpConnection
from trunkline.tcp.coded import new_connection
from trunkline.testing import ManualClock
from trunkline.wire import Framer, Frames, JsonCodec, LengthFramer

BATCH = 256 * 4_096  # what may be sent in a pass before anybody looks
EVERYTHING = 1 << 40


class Loop(asyncio.SelectorEventLoop):
    """A real loop whose clock goes on only when it is told to."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        super().__init__()
        self.failures: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _loop, context: self.failures.append(context))

    def time(self) -> float:
        return self.clock.monotonic()

    def turn(self, count: int = 1) -> None:
        """Runs what is ready, and what that makes ready in so many turns."""
        for _ in range(count):
            self.call_soon(self.stop)
            self.run_forever()


class MemoryTransport(asyncio.Transport):
    """A TCP transport without a socket. The peer's end are `wire`, `takes`, `feed`, `end` and `reset`.

    It does what asyncio's documentation says that a transport does, and what its selector transports do besides:
    it may say `pause_writing` from within `write`, and nothing after `connection_lost`.
    """

    def __init__(self, loop: Loop, protocol: Any, room: int = 0) -> None:
        super().__init__()
        self.wire = bytearray()  # what the peer's system has
        self.room = room  # bytes that it takes at once
        self.ended = False  # whether we have ended our side
        self.lost: list[BaseException | None] = []
        self.reading = True
        self.empties = 0  # times that no more than the low-water mark was held
        self._loop = loop
        self._protocol = protocol
        self._buffer = bytearray()
        self._incoming = bytearray()
        self._incoming_end = False
        self._closing = self._told = False
        self._eof = False
        self._high = self._low = 0
        self._paused_writing = False
        loop.call_soon(self._connection_made)

    # What a protocol may call.

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("192.0.2.1", 7)}.get(name, default)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = 65_536 if high is None else high
        self._low = self._high // 4 if low is None else low

    def get_write_buffer_size(self) -> int:
        return len(self._buffer)

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return self.reading and not self._closing

    def can_write_eof(self) -> bool:
        return True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        if not self._closing:
            self.reading = True
            self._loop.call_soon(self._deliver)

    def write(self, data: bytes) -> None:
        assert isinstance(data, bytes | bytearray | memoryview)
        assert not self._eof, "write after write_eof"
        if self._closing or self._told or not data:
            return
        self._buffer += data
        self._hand_over()
        if len(self._buffer) > self._high and not self._paused_writing:
            self._paused_writing = True
            self._protocol.pause_writing()

    def write_eof(self) -> None:
        if not self._eof and not self._closing:
            self._eof = True
            self._hand_over()

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            if not self._buffer:
                self._lose(None)

    def abort(self) -> None:
        self._closing = True
        self._buffer.clear()
        self._lose(None)

    # The peer's end.

    def takes(self, size: int) -> None:
        """The peer reads: its system takes so many bytes more."""
        self.room += size
        if self._told:
            return
        self._hand_over()
        if len(self._buffer) <= self._low and self._paused_writing:
            self._paused_writing = False
            self._protocol.resume_writing()
        if self._closing and not self._buffer:
            self._lose(None)

    def feed(self, data: bytes) -> None:
        """The peer sends."""
        self._incoming += data
        self._loop.call_soon(self._deliver)

    def end(self) -> None:
        """The peer ends its side."""
        self._incoming_end = True
        self._loop.call_soon(self._deliver)

    def reset(self) -> None:
        """The peer resets the connection."""
        self._closing = True
        self._buffer.clear()
        self._lose(ConnectionResetError())

    def _deliver(self) -> None:
        if self._told or self._closing or not self.reading:
            return
        if self._incoming:
            data = bytes(self._incoming)
            self._incoming.clear()
            self._protocol.data_received(data)
            self._loop.call_soon(self._deliver)
        elif self._incoming_end:
            self._incoming_end = False
            self.reading = False
            if not self._protocol.eof_received():
                self.close()

    def _connection_made(self) -> None:
        self._protocol.connection_made(self)

    def _hand_over(self) -> None:
        taken = min(self.room, len(self._buffer))
        self.room -= taken
        self.wire += self._buffer[:taken]
        del self._buffer[:taken]
        if not self._buffer:
            self.empties += 1
            self.ended = self._eof

    def _lose(self, error: BaseException | None) -> None:
        if not self._told:
            self._told = True
            self._loop.call_soon(self._connection_lost, error)

    def _connection_lost(self, error: BaseException | None) -> None:
        self.lost.append(error)
        self._protocol.connection_lost(error)


class Recorder:
    """The owner of the connection, and all that its user hears."""

    def __init__(self) -> None:
        self.up: list[bool] = []
        self.messages: list[Any] = []
        self.errors: list[Exception] = []
        self.high: list[int] = []
        self.completed = 0
        self.made = self.established = self.lost = 0

    def connection_made(self, _connection: TcpConnection) -> None:
        self.made += 1

    def connection_established(self, _connection: TcpConnection) -> None:
        self.established += 1

    def connection_lost(self, _connection: TcpConnection) -> None:
        self.lost += 1

    def on_connection(self, connection: TcpConnection) -> None:
        self.up.append(connection.is_open)
        assert connection.is_open is (connection.close_reason is None)

    def on_message(self, _connection: TcpConnection, message: Any) -> None:
        self.messages.append(message)

    def on_error(self, _connection: TcpConnection, error: Exception) -> None:
        self.errors.append(error)

    def on_high_water(self, _connection: TcpConnection, unsent: int) -> None:
        self.high.append(unsent)

    def on_write_complete(self, _connection: TcpConnection) -> None:
        assert self.up == [True], "told of a write on a connection that is not up"
        self.completed += 1


def framed(*messages: bytes) -> bytes:
    return LengthFramer().encode_all(list(messages))


class Line:
    """A connection, its transport, and who hears of it."""

    def __init__(
        self,
        on_message: Callable[..., object] | None = None,
        *,
        iterated: bool = False,
        framer: Framer | None = None,
        room: int = EVERYTHING,
        codec: Any = None,
        budget: OutboundBudget | None = None,
        callbacks: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self.loop = Loop()
        self.heard = Recorder()
        self.reported: list[BaseException] = []
        self.reactor = Reactor(self.loop, self.reported.append)
        self.budget = budget or OutboundBudget()
        heard = self.heard
        named: dict[str, Any] = {
            "on_connection": heard.on_connection,
            "on_error": heard.on_error,
            "on_high_water": heard.on_high_water,
            "on_write_complete": heard.on_write_complete,
        } | (callbacks or {})
        handler = None if iterated else on_message or heard.on_message
        self.blueprint = Blueprint(
            self.reactor, heard, Callbacks(handler, **named), ConnectionOptions(**options), codec, self.budget
        )
        self.connection = new_connection(self.blueprint, framer or LengthFramer())
        self.transport = MemoryTransport(self.loop, self.connection, room)
        self.loop.turn()

    def feed(self, *messages: bytes) -> None:
        self.feed_raw(framed(*messages))

    def feed_raw(self, data: bytes) -> None:
        self.transport.feed(data)
        self.loop.turn(3)

    def pass_time(self, seconds: float) -> None:
        """Lets the time go by, with a look at the deadlines each quarter of a second."""
        ends_at = self.loop.time() + seconds
        while self.loop.time() < ends_at:
            self.loop.clock.advance(0.25)
            if self.heard.lost < self.heard.made:
                self.connection.check(self.loop.time())
            self.loop.turn(2)

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    @property
    def sent(self) -> list[bytes]:
        """The messages that the peer's system has taken, all whole."""
        framer = LengthFramer()
        messages = framer.receive(bytes(self.transport.wire))
        assert framer.error is None
        assert framed(*messages) == self.transport.wire, "a frame is not whole"
        return messages

    def end(self) -> None:
        self.connection.abort()
        self.loop.turn(4)
        assert self.heard.lost == self.heard.made == 1
        assert self.heard.up in ([], [True, False])
        assert self.budget.used_bytes == 0
        assert not self.loop.failures, self.loop.failures
        self.loop.close()


@pytest.fixture
def lines() -> Iterator[Callable[..., Line]]:
    """Makes lines, and looks at the end whether nothing is left of them."""
    made: list[Line] = []

    def make(*args: Any, **more: Any) -> Line:
        made.append(Line(*args, **more))
        return made[-1]

    yield make
    for line in made:
        line.end()


New = Callable[..., Line]


# Sending.


def test_what_is_sent_while_messages_are_handled_leaves_in_one_write(lines: New) -> None:
    writes: list[int] = []
    line = lines(lambda connection, message: connection.send(message))
    write = line.transport.write
    line.transport.write = lambda data: (writes.append(len(data)), write(data))[1]  # type: ignore[method-assign]
    line.feed(b"a", b"b", b"c")
    assert line.sent == [b"a", b"b", b"c"]
    assert len(writes) == 1


def test_a_message_that_cannot_be_framed_raises_where_it_is_sent(lines: New) -> None:
    line = lines(framer=LengthFramer(10))
    with pytest.raises(UsageError):
        line.connection.send(b"x" * 11)
    line.connection.send(b"good")
    assert line.sent == [b"good"]


def test_a_message_that_a_handler_cannot_send_ends_the_connection_behind_the_good_ones(lines: New) -> None:
    class SendsLess(LengthFramer):
        def encode(self, message: bytes) -> bytes:
            if len(message) > 6:
                raise UsageError("too long")
            return super().encode(message)

        def encode_all(self, messages: list[bytes]) -> bytes:
            return b"".join([self.encode(message) for message in messages])

    line = lines(lambda connection, message: connection.send(message), framer=SendsLess())
    line.feed(b"a", b"b", b"far too long", b"c")
    assert line.sent == [b"a", b"b"]
    assert line.connection.close_reason == CloseReason.HANDLER_FAILED
    assert len(line.reported) == 1


def test_sending_on_a_closed_connection_raises_why_it_is_closed(lines: New) -> None:
    line = lines()
    line.connection.close(CloseReason.DRAINED)
    with pytest.raises(ConnectionClosed) as caught:
        line.connection.send(b"late")
    assert caught.value.reason == CloseReason.DRAINED
    line.loop.turn(2)
    with pytest.raises(ConnectionClosed):
        line.connection.send(b"later")


def test_a_codec_makes_bytes_of_what_is_sent_and_messages_of_what_comes(lines: New) -> None:
    line = lines(lambda connection, message: connection.send({"echo": message}), codec=JsonCodec())
    line.feed(b"[1,2]")
    line.connection.send([3])
    assert line.sent == [b'{"echo":[1,2]}', b"[3]"]


def test_bytes_that_the_codec_cannot_read_are_a_breach_behind_the_good_messages(lines: New) -> None:
    line = lines(codec=JsonCodec())
    line.feed(b"1", b"2", b"{", b"3")
    assert line.heard.messages == [1, 2]
    assert [type(error) for error in line.heard.errors] == [BadFrame]
    assert line.connection.close_reason == CloseReason.BAD_FRAME


def test_a_heartbeat_message_is_sent_as_it_is_whatever_the_codec(lines: New) -> None:
    line = lines(codec=JsonCodec(), heartbeat_interval=1.0, heartbeat_message=b"beat")
    line.pass_time(1.5)
    assert line.sent == [b"beat"]


def test_a_heartbeat_that_cannot_be_framed_ends_its_own_connection_alone(lines: New) -> None:
    line = lines(framer=LengthFramer(10), heartbeat_interval=1.0, heartbeat_message=b"far too long a beat")
    line.pass_time(1.5)
    assert line.connection.close_reason == CloseReason.HANDLER_FAILED
    assert len(line.reported) == 1


def test_the_write_is_complete_once_although_more_waited_behind_the_backlog(lines: New) -> None:
    line = lines(room=0)
    line.connection.send(b"first")
    line.connection.send(b"second")
    line.transport.takes(EVERYTHING)
    line.loop.turn(3)
    assert line.sent == [b"first", b"second"]
    assert line.heard.completed == 1


def test_no_write_is_complete_on_a_connection_that_is_down(lines: New) -> None:
    """The transport gives up within the write: its `connection_lost` is under way before the write has returned."""
    line = lines()

    def dying(data: bytes) -> None:
        line.transport.abort()

    line.transport.write = dying  # type: ignore[method-assign]
    line.connection.send(b"x")
    line.loop.turn(4)
    assert line.heard.up == [True, False]
    assert not line.reported, "on_write_complete was called, and has complained"


def test_what_a_handler_sent_before_it_dropped_the_connection_is_lost(lines: New) -> None:
    def answer_and_drop(connection: TcpConnection, message: bytes) -> None:
        connection.send(message)
        connection.abort()

    line = lines(answer_and_drop)
    line.feed(b"a")
    assert line.sent == []
    assert line.connection.sent == 0


# Too much.


def stuffed(lines: New, overflow: str, **more: Any) -> Line:
    """A connection whose peer takes nothing, with 1,000 bytes framed and handed over."""
    line = lines(
        room=0, overflow=overflow, unsent_limit_bytes=2_000, high_water_bytes=1_500, low_water_bytes=500, **more
    )
    line.connection.send(b"h" * 996)
    return line


def test_over_the_limit_the_policy_to_close_drops_the_connection(lines: New) -> None:
    line = stuffed(lines, "close")
    line.connection.send(b"a" * 1_000)
    assert line.connection.is_open, "that is just the limit"
    line.connection.send(b"b")
    assert line.connection.close_reason == CloseReason.OVER_BUDGET
    line.loop.turn(2)
    assert line.budget.used_bytes == 0


@pytest.mark.parametrize("overflow", ["close", "raise", "wait", "drop_oldest"])
def test_a_message_over_the_limit_is_sent_where_nothing_waits(lines: New, overflow: str) -> None:
    line = lines(room=0, overflow=overflow, unsent_limit_bytes=2_000)
    line.connection.send(b"x" * 5_000)
    assert line.connection.is_open
    line.transport.takes(EVERYTHING)
    assert line.sent == [b"x" * 5_000]


@pytest.mark.parametrize("overflow", ["raise", "wait"])
def test_over_the_limit_a_message_is_refused_and_the_others_stay(lines: New, overflow: str) -> None:
    line = stuffed(lines, overflow)
    line.connection.send(b"a" * 1_000)
    with pytest.raises(Overloaded):
        line.connection.send(b"b")
    assert line.connection.unsent_bytes == 2_000
    line.transport.takes(EVERYTHING)
    line.connection.send(b"c")
    assert line.sent == [b"h" * 996, b"a" * 1_000, b"c"]


def test_over_the_limit_the_oldest_messages_are_dropped_and_counted(lines: New) -> None:
    line = stuffed(lines, "drop_oldest")
    messages = [bytes([number]) * 300 for number in range(10)]
    for message in messages:
        line.connection.send(message)
    line.transport.takes(EVERYTHING)
    assert line.sent == [b"h" * 996, *messages[-3:]]
    assert line.connection.dropped == 7


def test_the_high_water_mark_is_told_once_for_each_crossing(lines: New) -> None:
    line = stuffed(lines, "close")
    for _ in range(9):
        line.connection.send(b"x" * 96)
    assert len(line.heard.high) == 1
    line.transport.takes(1_000)
    line.loop.turn()
    assert len(line.heard.high) == 1, "it has not been under the low-water mark"
    line.transport.takes(EVERYTHING)
    line.transport.room = 0
    line.connection.send(b"x" * 1_600)
    assert len(line.heard.high) == 2


def test_a_peer_that_does_not_read_is_not_read_from_until_it_does(lines: New) -> None:
    line = stuffed(lines, "close")
    line.connection.send(b"x" * 600)
    assert not line.transport.reading
    line.feed(b"question")
    assert line.heard.messages == []
    line.transport.takes(EVERYTHING)
    line.loop.turn(2)
    assert line.heard.messages == [b"question"]


def test_connections_that_share_a_budget_share_its_limit(lines: New) -> None:
    budget = OutboundBudget(3_000)
    first = lines(room=0, budget=budget, overflow="raise")
    second = lines(room=0, budget=budget, overflow="raise")
    for line in (first, second):
        line.connection.send(b"x" * 1_000)
    with pytest.raises(Overloaded):
        first.connection.send(b"x" * 1_000)
    assert budget.used_bytes == 2_008
    first.connection.abort()
    first.loop.turn(2)
    second.connection.send(b"x" * 1_000)
    second.connection.abort()
    second.loop.turn(2)


def test_who_drains_waits_for_the_low_water_mark(lines: New) -> None:
    line = stuffed(lines, "close")
    line.connection.send(b"x" * 600)
    drain = line.loop.create_task(line.connection.drain())
    line.loop.turn(2)
    assert not drain.done()
    line.transport.takes(EVERYTHING)
    line.run(drain)
    line.run(line.connection.drain())


def test_who_drains_a_connection_that_goes_down_is_told(lines: New) -> None:
    line = stuffed(lines, "close")
    drain = line.loop.create_task(line.connection.drain())
    line.loop.turn(2)
    line.transport.reset()
    with pytest.raises(ConnectionClosed):
        line.run(drain)


# From other threads.


def in_a_thread(work: Callable[[], object]) -> None:
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), "the thread hangs"
    if errors:
        raise errors[0]


def until(condition: Callable[[], object]) -> None:
    """Lets other threads run until it is so."""
    for _ in range(2_000):
        if condition():
            return
        threading.Event().wait(0.005)
    raise AssertionError("what another thread should do does not happen")


def test_what_a_thread_sent_before_the_connection_was_closed_is_sent(lines: New) -> None:
    line = lines()
    in_a_thread(lambda: line.connection.send(b"from a thread"))
    line.connection.close()
    line.loop.turn(2)
    assert line.sent == [b"from a thread"]


def test_a_thread_that_sends_when_the_loop_is_closed_is_told_each_time(
    lines: New, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = lines()

    def closed(*_: object) -> None:
        raise RuntimeError("Event loop is closed")

    with monkeypatch.context() as patched:
        patched.setattr(Reactor, "call", closed)
        for _ in range(3):
            with pytest.raises(ConnectionClosed):
                in_a_thread(lambda: line.connection.send(b"to nobody"))


def test_what_a_thread_sent_before_the_stream_was_ended_is_sent(lines: New) -> None:
    line = lines()
    in_a_thread(lambda: line.connection.send(b"from a thread"))
    line.connection.shutdown()
    line.loop.turn(2)
    assert line.sent == [b"from a thread"]
    assert line.transport.ended


@pytest.mark.parametrize("overflow", ["close", "raise", "wait", "drop_oldest"])
def test_threads_can_pile_up_no_more_than_the_limit_while_the_reactor_is_busy(lines: New, overflow: str) -> None:
    line = lines(overflow=overflow, unsent_limit_bytes=10_000, send_timeout=0.01)

    def flood() -> None:
        for _ in range(10):
            line.connection.send(b"x" * 1_000)
        with pytest.raises(Overloaded):
            line.connection.send(b"x" * 1_000)

    in_a_thread(flood)
    assert line.connection.unsent_bytes <= 10_000
    line.loop.turn(2)
    assert line.connection.is_open, "the peer is not to blame"
    assert len(line.sent) == 10
    assert line.budget.used_bytes == 0


def test_a_thread_may_always_send_one_message_more_than_nothing(lines: New) -> None:
    line = lines(overflow="wait", unsent_limit_bytes=100)
    in_a_thread(lambda: line.connection.send(b"x" * 1_000))
    line.loop.turn(2)
    assert line.sent == [b"x" * 1_000]


def test_what_a_handler_is_about_to_write_makes_no_thread_wait(lines: New) -> None:
    """Nobody would wake it: what is written without a backlog is never counted."""

    def answer(connection: TcpConnection, message: bytes) -> None:
        connection.send(b"x" * 1_000)
        in_a_thread(lambda: connection.send(b"y"))

    line = lines(answer, overflow="raise", unsent_limit_bytes=1_000)
    line.feed(b"go")
    assert line.sent == [b"x" * 1_000, b"y"]
    assert not line.reported


def test_what_a_thread_sends_just_when_a_pass_ends_is_not_left_lying(lines: New) -> None:
    line = lines()

    class EndsMeanwhile(list[bytes]):
        def append(self, message: bytes) -> None:
            line.connection._room = 0
            super().append(message)

    line.connection._out = EndsMeanwhile()
    line.connection._room = 256
    in_a_thread(lambda: line.connection.send(b"x"))
    line.loop.turn(2)
    assert line.sent == [b"x"]


def test_a_thread_that_waits_for_room_is_woken_when_there_is_some(lines: New) -> None:
    line = lines(room=0, overflow="wait", unsent_limit_bytes=1_000, send_timeout=20.0)
    line.connection.send(b"x" * 996)
    done: list[str] = []
    waiter = threading.Thread(target=lambda: (line.connection.send(b"y"), done.append("sent")))
    waiter.start()
    until(lambda: line.budget.waiting)
    assert not done
    line.transport.takes(EVERYTHING)
    waiter.join(10)
    assert done == ["sent"]
    line.loop.turn(2)
    assert line.sent == [b"x" * 996, b"y"]


def test_a_thread_that_waits_on_a_connection_that_goes_down_is_told(lines: New) -> None:
    line = lines(room=0, overflow="wait", unsent_limit_bytes=1_000, send_timeout=20.0)
    line.connection.send(b"x" * 996)
    raised: list[BaseException] = []

    def send() -> None:
        try:
            line.connection.send(b"y")
        except ConnectionClosed as error:
            raised.append(error)

    waiter = threading.Thread(target=send)
    waiter.start()
    until(lambda: line.budget.waiting)
    line.transport.reset()
    line.loop.turn(2)
    waiter.join(10)
    assert len(raised) == 1


# Receiving.


def test_messages_wait_while_reading_is_paused_and_come_in_order(lines: New) -> None:
    def handle(connection: TcpConnection, message: bytes) -> None:
        line.heard.messages.append(message)
        if message == b"pause":
            connection.pause_reading()

    line = lines(handle)
    line.feed(b"1", b"pause", b"2", b"pause", b"3")
    assert line.heard.messages == [b"1", b"pause"]
    assert not line.transport.reading
    line.feed(b"4")
    line.connection.resume_reading()
    line.loop.turn(3)
    assert line.heard.messages == [b"1", b"pause", b"2", b"pause"]
    line.connection.resume_reading()
    line.loop.turn(5)
    assert line.heard.messages[4:] == [b"3", b"4"]
    assert line.transport.reading


def test_at_the_limit_of_retained_messages_the_next_wait(lines: New) -> None:
    def handle(connection: TcpConnection, message: bytes) -> None:
        line.heard.messages.append(message)
        connection.retain()

    line = lines(handle, retained_limit=2)
    line.feed(b"1", b"2", b"3")
    assert line.heard.messages == [b"1", b"2"]
    line.connection.release()
    line.loop.turn(2)
    assert line.heard.messages == [b"1", b"2", b"3"]


def test_a_peer_that_has_ended_its_side_gets_the_answers_to_what_it_asked(lines: New) -> None:
    line = lines(lambda connection, message: connection.retain())
    line.transport.feed(framed(b"question"))
    line.transport.end()
    line.loop.turn(4)
    assert line.connection.is_open
    line.connection.send(b"answer")
    line.connection.release()
    line.loop.turn(2)
    assert line.sent == [b"answer"]
    assert line.connection.close_reason == CloseReason.PEER_CLOSED
    assert line.transport.lost == [None]


def test_messages_that_wait_are_handled_before_a_peer_that_ended_its_side_is_closed(lines: New) -> None:
    """Though each is retained and released within its handler, so that nothing is in the works in between."""

    def handle(connection: TcpConnection, message: bytes) -> None:
        connection.retain()
        line.heard.messages.append(message)
        connection.release()

    line = lines(handle)
    line.connection.pause_reading()
    line.connection.data_received(framed(b"1", b"2", b"3"))
    line.connection.eof_received()
    line.connection.resume_reading()
    line.loop.turn(3)
    assert line.heard.messages == [b"1", b"2", b"3"]
    assert line.connection.close_reason == CloseReason.PEER_CLOSED


def test_a_handler_that_finishes_its_connection_still_gets_what_came_with_its_message(lines: New) -> None:
    def handle(connection: TcpConnection, message: bytes) -> None:
        line.heard.messages.append(message)
        if message == b"1":
            connection.finish(CloseReason.DRAINED)

    line = lines(handle)
    line.feed(b"1", b"2", b"3")
    assert line.heard.messages == [b"1", b"2", b"3"]
    line.loop.turn(2)
    assert line.connection.close_reason == CloseReason.DRAINED


def test_after_a_breach_nothing_is_taken_and_the_peer_can_be_told(lines: New) -> None:
    line = lines(
        framer=LengthFramer(100),
        callbacks={"on_error": lambda connection, error: connection.send(type(error).__name__.encode())},
    )
    line.feed_raw(framed(b"good") + b"\xff\xff\xff\xff")
    assert line.heard.messages == [b"good"]
    assert line.sent == [FrameTooLarge.__name__.encode()]
    assert line.connection.close_reason == CloseReason.BAD_FRAME


def test_a_handler_that_raises_ends_its_connection(lines: New) -> None:
    def fail(connection: TcpConnection, message: bytes) -> None:
        raise RuntimeError("on purpose")

    line = lines(fail)
    line.feed(b"1", b"2")
    assert line.connection.close_reason == CloseReason.HANDLER_FAILED
    assert len(line.reported) == 1


@pytest.mark.parametrize("name", ["on_connection", "on_error"])
def test_any_callback_that_raises_ends_its_connection_and_is_reported(lines: New, name: str) -> None:
    def fail(*_args: object) -> None:
        raise RuntimeError("on purpose")

    line = lines(framer=LengthFramer(100), callbacks={name: fail})
    line.feed_raw(b"\xff\xff\xff\xff")
    assert line.connection.close_reason == CloseReason.HANDLER_FAILED
    assert line.reported


def test_a_framer_that_raises_ends_its_connection_and_is_reported(lines: New) -> None:
    class Broken(LengthFramer):
        def receive(self, data: bytes) -> list[bytes]:
            raise RuntimeError("on purpose")

    line = lines(framer=Broken())
    line.feed(b"x")
    assert line.connection.close_reason == CloseReason.HANDLER_FAILED
    assert len(line.reported) == 1
    assert not line.loop.failures


def test_a_rate_is_kept_by_reading_nothing_until_what_came_is_paid_for(lines: New) -> None:
    line = lines(messages_per_second=10.0)
    line.feed(*[b"x"] * 25)
    assert len(line.heard.messages) == 25
    assert not line.transport.reading
    line.feed(b"y")
    assert len(line.heard.messages) == 25
    line.pass_time(0.75)
    assert len(line.heard.messages) == 26


def test_a_debt_is_forgotten_with_its_connection(lines: New) -> None:
    line = lines(bytes_per_second=1.0)
    line.feed(b"x" * 10_000)
    line.transport.reset()
    line.loop.turn(3)
    assert not [timer for timer in line.loop._scheduled if not timer.cancelled()], "a timer holds the dead connection"


# Iterating.


def test_a_connection_is_iterated_to_its_end(lines: New) -> None:
    line = lines(iterated=True)

    async def all_messages() -> list[Any]:
        return [message async for message in line.connection]

    task = line.loop.create_task(all_messages())
    line.feed(b"1", b"2")
    line.transport.end()
    assert line.run(task) == [b"1", b"2"]
    assert line.connection.close_reason == CloseReason.PEER_CLOSED


def test_who_iterates_can_answer_a_peer_that_has_ended_its_side(lines: New) -> None:
    line = lines(iterated=True)
    line.transport.feed(framed(b"1"))
    line.transport.end()

    async def answer() -> None:
        async for message in line.connection:
            for _ in range(5):
                await asyncio.sleep(0)
            line.connection.send(message)

    line.run(answer())
    assert line.sent == [b"1"]


def test_a_breach_behind_good_messages_ends_the_iteration_at_once(lines: New) -> None:
    line = lines(iterated=True, framer=LengthFramer(100))
    line.feed_raw(framed(b"good") + b"\xff\xff\xff\xff")

    async def all_messages() -> list[Any]:
        return [message async for message in line.connection]

    task = line.loop.create_task(all_messages())
    line.loop.turn(5)
    assert task.done(), "the iteration waits though nothing can come any more"
    assert task.result() == [b"good"]
    assert line.connection.close_reason == CloseReason.BAD_FRAME
    assert [type(error) for error in line.heard.errors] == [FrameTooLarge]


def test_a_peer_that_leaves_a_connection_that_nobody_iterates_is_noticed(lines: New) -> None:
    line = lines(iterated=True)
    line.transport.end()
    line.loop.turn(4)
    assert line.connection.close_reason == CloseReason.PEER_CLOSED


def test_a_connection_that_nobody_iterates_can_be_finished(lines: New) -> None:
    line = lines(iterated=True)
    line.connection.finish(CloseReason.DRAINED)
    line.loop.turn(4)
    assert line.connection.close_reason == CloseReason.DRAINED
    assert line.transport.lost == [None]


# Ending.


def test_close_sends_what_waits_behind_the_backlog(lines: New) -> None:
    line = lines(room=0)
    line.connection.send(b"first")
    line.connection.send(b"second")
    line.connection.close()
    line.transport.takes(EVERYTHING)
    line.loop.turn(2)
    assert line.sent == [b"first", b"second"]
    assert line.transport.lost == [None]


def test_a_peer_that_takes_nothing_cannot_hold_up_a_close(lines: New) -> None:
    line = lines(room=0, close_timeout=2.0)
    line.connection.send(b"first")
    line.connection.close()
    line.pass_time(1.75)
    assert line.heard.lost == 0
    line.pass_time(1.0)
    assert line.heard.lost == 1
    assert line.connection.close_reason == CloseReason.CLOSED


def test_after_shutdown_the_peer_is_heard_to_its_end_and_then_it_is_over(lines: New) -> None:
    line = lines()
    line.connection.send(b"last")
    line.connection.shutdown()
    assert line.transport.ended
    line.feed(b"still")
    assert line.heard.messages == [b"still"]
    line.transport.end()
    line.loop.turn(4)
    assert line.heard.lost == 1, "both sides have ended, and the connection lingers"
    assert line.sent == [b"last"]


def test_a_breach_after_shutdown_ends_the_connection(lines: New) -> None:
    line = lines(framer=LengthFramer(100))
    line.connection.shutdown()
    line.feed_raw(b"\xff\xff\xff\xff")
    line.loop.turn(4)
    assert line.heard.lost == 1


def test_a_peer_that_never_ends_its_side_has_the_close_timeout_after_shutdown(lines: New) -> None:
    line = lines(close_timeout=2.0)
    line.connection.shutdown()
    line.pass_time(3.0)
    assert line.heard.lost == 1


def test_close_after_shutdown_closes(lines: New) -> None:
    line = lines()
    line.connection.shutdown()
    line.connection.close()
    line.loop.turn(2)
    assert line.heard.lost == 1


def test_a_reset_is_told_from_an_end(lines: New) -> None:
    line = lines()
    line.transport.reset()
    line.loop.turn(2)
    assert line.connection.close_reason == CloseReason.RESET
    assert line.heard.up == [True, False]


@pytest.mark.parametrize("name", ["close", "shutdown", "abort"])
def test_any_thread_may_end_a_connection(lines: New, name: str) -> None:
    line = lines()
    in_a_thread(getattr(line.connection, name))
    line.transport.end()
    line.loop.turn(4)
    assert line.heard.lost == 1


# Deadlines.


def test_a_peer_that_takes_nothing_is_dropped_after_the_unread_timeout(lines: New) -> None:
    line = lines(room=0, unread_timeout=3.0)
    line.connection.send(b"x" * 100)
    for _ in range(5):
        line.pass_time(2.0)
        line.transport.takes(10)
    assert line.connection.is_open, "it takes some, if slowly"
    line.pass_time(4.0)
    assert line.connection.close_reason == CloseReason.OVER_BUDGET


def test_time_spent_before_the_connection_was_up_is_not_the_peers_silence(lines: New) -> None:
    """A TLS handshake may take longer than a peer may be silent."""
    line = Line(idle_timeout=2.0)
    late = TcpConnection(line.blueprint, LengthFramer())
    line.loop.clock.advance(5.0)
    late.connection_made(MemoryTransport(line.loop, Recorder()))
    late.check(line.loop.time())
    assert late.is_open
    late.abort()
    late.connection_lost(None)
    line.connection.abort()
    line.loop.turn(2)
    line.loop.close()


def test_a_peer_is_asked_for_a_sign_of_life_an_interval_after_its_hello(lines: New) -> None:
    """Not only when its silence is nearly over: the handshake's deadline is no reason to look away."""
    line = lines(framer=Frames(), heartbeat_interval=1.0, handshake_timeout=60.0)
    greeter = Frames()
    greeter.start()
    line.pass_time(0.25)
    line.feed_raw(bytes(greeter.output))
    sent = len(line.transport.wire)
    line.pass_time(1.5)
    assert len(line.transport.wire) > sent, "no ping within an interval and two looks"


def test_who_is_given_up_is_told_why(lines: New) -> None:
    line = lines(idle_timeout=2.0)
    line.pass_time(3.0)
    assert line.connection.close_reason == CloseReason.IDLE
    assert [error.reason for error in line.heard.errors if isinstance(error, PeerTimeout)] == [CloseReason.IDLE]


# All of it, in any order.

SIZES = st.sampled_from([0, 1, 10, 200, 900, 3_000, 70_000])
ACTIONS = st.sampled_from(
    ["note", "note", "note", "echo", "echo", "burst", "pause", "retain", "hold", "close", "shutdown", "abort", "raise"]
)
LIMIT, HIGH, LOW = 4_000, 2_000, 500
LARGEST = 70_000 + 10


class ConnectionMachine(RuleBasedStateMachine):
    """What is promised of a connection holds whatever its user, its peer and its transport do."""

    @initialize(
        overflow=st.sampled_from(["close", "raise", "wait", "drop_oldest"]),
        retained_limit=st.sampled_from([1, 3]),
        room=st.sampled_from([0, 500, EVERYTHING]),
    )
    def connect(self, overflow: str, retained_limit: int, room: int) -> None:
        self.overflow = overflow
        self.fed: list[bytes] = []  # messages that the peer has sent
        self.handled: list[bytes] = []
        self.accepted: list[bytes] = []  # messages that `send` has taken
        self.number = 0
        self.retained = 0
        self.dropping = False  # whether what is unsent may be lost
        self.closing_for = 0.0  # seconds
        self.armed = True
        self.line = Line(
            self.on_message,
            room=room,
            overflow=overflow,
            retained_limit=retained_limit,
            unsent_limit_bytes=LIMIT,
            high_water_bytes=HIGH,
            low_water_bytes=LOW,
            close_timeout=2.0,
            send_timeout=0.0,
            callbacks={"on_high_water": self.on_high_water},
        )
        self.connection, self.transport = self.line.connection, self.line.transport
        self.empties = 0

    # The user.

    def on_message(self, connection: TcpConnection, message: bytes) -> None:
        assert connection is self.connection
        self.handled.append(message)
        action, _, rest = message.partition(b" ")
        match action:
            case b"echo":
                self.send(len(rest))
            case b"burst":
                for _ in range(5):
                    self.send(len(rest) // 2)
            case b"pause":
                connection.pause_reading()
            case b"retain":
                connection.retain()
                self.retained += 1
            case b"hold":
                connection.retain()
                connection.release()
            case b"close" | b"shutdown":
                getattr(connection, action.decode())()
            case b"abort":
                self.dropping = True
                connection.abort()
            case b"raise":
                raise RuntimeError("on purpose")

    def on_high_water(self, connection: TcpConnection, unsent: int) -> None:
        assert unsent > HIGH
        assert self.armed or self.transport.empties > self.empties, "told twice of one crossing"
        self.armed, self.empties = False, self.transport.empties

    def send(self, size: int, *, in_reactor: bool = True) -> None:
        self.number += 1
        message = b"%d " % self.number + b"x" * size
        was_open = self.connection.is_open
        try:
            self.connection.send(message)
        except ConnectionClosed:
            assert not was_open
        except Overloaded:
            assert self.overflow in ("raise", "wait") or not in_reactor
            assert was_open
        else:
            assert was_open
            self.accepted.append(message)

    @rule(size=SIZES)
    def send_outside(self, size: int) -> None:
        self.send(size)

    @rule(size=SIZES)
    def send_from_a_thread(self, size: int) -> None:
        in_a_thread(lambda: self.send(size, in_reactor=False))

    @rule()
    def pause(self) -> None:
        self.connection.pause_reading()

    @rule()
    def resume(self) -> None:
        self.connection.resume_reading()

    @precondition(lambda self: self.retained > 0)
    @rule()
    def release(self) -> None:
        self.retained -= 1
        self.connection.release()

    @rule(how=st.sampled_from(["close", "shutdown", "finish"]))
    def end_in_good_order(self, how: str) -> None:
        getattr(self.connection, how)(*["finished"] * (how == "finish"))

    @rule()
    def abort(self) -> None:
        self.dropping = True
        self.connection.abort()

    # The peer.

    @rule(actions=st.lists(st.tuples(ACTIONS, SIZES), min_size=1, max_size=5), cut=st.integers(0, 100_000))
    def peer_sends(self, actions: list[tuple[str, int]], cut: int) -> None:
        messages = [b"%s %s" % (action.encode(), b"y" * size) for action, size in actions]
        data = framed(*messages)
        self.fed += messages
        self.transport.feed(data[:cut])
        if cut < len(data):
            self.line.loop.turn()
            self.transport.feed(data[cut:])

    @rule(size=st.sampled_from([1, 100, 1_000, 100_000, EVERYTHING]))
    def peer_reads(self, size: int) -> None:
        self.transport.takes(size)

    @rule()
    def peer_reads_no_more(self) -> None:
        self.transport.room = 0

    @rule()
    def peer_ends(self) -> None:
        self.transport.end()

    @rule()
    def peer_resets(self) -> None:
        if self.line.heard.made:
            self.dropping = True
            self.transport.reset()

    # The world.

    @rule(count=st.integers(1, 4))
    def turn(self, count: int) -> None:
        self.line.loop.turn(count)

    @rule(seconds=st.sampled_from([0.25, 1.0, 3.0]))
    def time_passes(self, seconds: float) -> None:
        self.line.pass_time(seconds)
        if self.connection.close_reason is not None:
            self.closing_for += seconds
            self.dropping |= self.closing_for > 1.5  # the close timeout

    # The promises.

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "line"):
            return
        # What a thread has sent is counted twice until the reactor has looked.
        unsent = self.connection.unsent_bytes - self.connection._posted_bytes
        # A single message is always taken where nothing waits; and one pass may fill its batch before anybody looks.
        assert unsent <= max(LIMIT, LARGEST) + BATCH
        if unsent <= LOW:
            self.armed = True
        self.empties = self.transport.empties
        budget = self.line.budget
        assert budget.used_bytes >= 0
        if self.line.heard.lost and not self.connection._posted_bytes:
            assert budget.used_bytes == unsent == 0
        assert self.line.heard.up in ([True], [True, False])
        assert len(self.transport.lost) <= 1
        assert self.handled == self.fed[: len(self.handled)], "messages are lost, doubled or out of order"
        assert not self.line.loop.failures, self.line.loop.failures
        self.check_sent()

    def check_sent(self) -> None:
        framer = LengthFramer()
        got = framer.receive(bytes(self.transport.wire))
        assert framer.error is None
        if self.overflow == "drop_oldest":
            rest = iter(self.accepted)
            assert all(message in rest for message in got), "sent messages are out of order, or not what was sent"
        else:
            assert got == self.accepted[: len(got)]

    def teardown(self) -> None:
        if not hasattr(self, "line"):
            return
        try:
            self.come_to_an_end()
        finally:
            self.line.loop.close()

    def come_to_an_end(self) -> None:
        loop, connection, transport = self.line.loop, self.connection, self.transport
        # All obstacles go away: now everything has to come to its end.
        for _ in range(4 * len(self.fed) + 20):
            transport.takes(EVERYTHING)
            while self.retained:
                self.release()
            connection.resume_reading()
            loop.turn(2)
        self.holds()
        assert connection.unsent_bytes == 0
        was_open = connection.is_open
        if was_open:
            assert self.handled == self.fed, "messages were not handled although nothing was in the way"
            connection.close()
            loop.turn(2)
        else:
            self.line.pass_time(3.0)
        assert not transport._buffer
        if not self.dropping and connection.close_reason != CloseReason.OVER_BUDGET:
            sent = self.line.sent
            assert len(sent) + connection.dropped == len(self.accepted), "a close in good order has lost what was sent"
            assert connection.dropped == 0 or self.overflow == "drop_oldest"
        assert self.line.heard.up == [True, False]
        assert self.line.budget.used_bytes == 0
        self.line.end()


TestConnection = ConnectionMachine.TestCase
TestConnection.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@pytest.mark.slow
class TestConnectionLong(ConnectionMachine.TestCase):  # type: ignore[misc, name-defined]
    settings = settings(max_examples=3_000, stateful_step_count=50, deadline=None)


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Failures on purpose are many here."""
    logging.getLogger("trunkline").setLevel(logging.CRITICAL)
    with contextlib.suppress(ValueError):
        yield
    logging.getLogger("trunkline").setLevel(logging.NOTSET)
