"""The half of a connection that sends: from any thread, framed whole, within a budget."""

import abc
import asyncio
from collections.abc import Callable
from threading import get_ident

from trunkline.errors import ConnectionClosed, Overloaded
from trunkline.tcp.blueprint import Blueprint
from trunkline.tcp.options import CloseReason
from trunkline.wire import Framer

__all__ = ["AT_ONCE", "IN_PASS", "Outbound"]

AT_ONCE = 0
"""No room: each message is written when it is sent, or waits for the transport."""
IN_PASS = 256
"""How many messages may be sent while messages are handled, before anybody looks at them."""
_SMALL_BYTES = 4096


class Outbound(asyncio.Protocol):
    """Messages out. What is sent while messages are handled leaves in one write when all have been.

    Messages wait unframed, as what they are, until the transport takes them: so whole ones can be dropped, and a
    stream that is compressed is compressed in the order in which it is written.
    """

    __slots__ = (
        "_backlog", "_blueprint", "_charged", "_counted", "_drained", "_handed", "_out", "_over_high", "_posted_bytes",
        "_room", "_rung", "_thread_id", "_transport", "_unsent", "close_reason", "dropped", "framer", "sent",
        "sent_bytes",
    )  # fmt: skip

    framer: Framer

    def __init__(self, blueprint: Blueprint, framer: Framer) -> None:
        self.framer = framer
        self.close_reason: str | None = None
        self.sent = self.sent_bytes = self.dropped = 0
        self._blueprint = blueprint
        self._thread_id = blueprint.reactor.thread_id
        self._transport: asyncio.Transport | None = None
        # Any thread may append here. Only the reactor takes from it, and never by another list in its place.
        self._out: list[bytes] = []
        self._counted = 0  # how many of them are counted in _unsent
        self._unsent = 0  # their bytes, before they are framed
        self._room = AT_ONCE  # how many messages _out may hold before anybody looks; more than none in a pass only
        self._backlog = False  # whether the transport still holds bytes
        self._handed = 0  # how many at most, then
        self._over_high = False
        self._charged = 0  # what the budget has been told of
        self._posted_bytes = 0  # what other threads have sent since the reactor last looked
        self._rung = False  # whether it has been told to look
        self._drained: asyncio.Future[None] | None = None

    @abc.abstractmethod
    def abort(self, reason: str = CloseReason.CLOSED) -> None:
        """Drops the connection now."""

    @abc.abstractmethod
    def _pressure_changed(self) -> None:
        """`_over_high` has changed."""

    # Sending.

    def send(self, message: bytes) -> None:
        """Sends one message, framed. Any thread; the messages of one thread keep their order.

        In the reactor's thread nothing waits: the message is framed and written at once, or when all that arrived
        with the message that is being handled has been handled. A message that can't be framed raises here if it is
        framed at once; else the connection ends as it does when a handler raises.

        Raises:
            ConnectionClosed: the connection is closed or closing.
            Overloaded: too much is unsent already, and the options say that this is to be raised, or a thread has
                waited for room in vain. Nothing was sent.
            UsageError: the framer can't frame the message; nothing was sent.
        """
        out = self._out
        if len(out) < self._room and len(message) <= _SMALL_BYTES:
            out.append(message)
            if not self._room:  # the pass came to its end in between: this is another thread
                self._ring()
            return
        self._send_at_once(message)

    def send_all(self, messages: list[bytes]) -> None:
        """Sends several messages in one write, in their order. Reactor's thread.

        Who has many to send looks at `is_full` before: here the options alone say what becomes of what is over the
        limit, and nothing is raised for it.

        Raises:
            ConnectionClosed: the connection is closed or closing.
            UsageError: the framer can't frame one of them. Those before it were sent, and none from there on.
        """
        if self._transport is None or self.close_reason is not None:
            raise ConnectionClosed(self.close_reason or CloseReason.CLOSED)
        self._out += messages
        if not self._room:
            self._flush()

    @property
    def is_full(self) -> bool:
        """Whether more is unsent than this connection's limit, or the budget's, allows. Reactor's thread."""
        if not self._backlog:
            return False
        self._count()
        return self._excess() > 0

    def _send_at_once(self, message: bytes) -> None:
        if get_ident() != self._thread_id:
            self._post(message)
            return
        if self._transport is None or self.close_reason is not None:
            raise ConnectionClosed(self.close_reason or CloseReason.CLOSED)
        overflow = self._blueprint.options.overflow
        if self._backlog and overflow in ("raise", "wait"):
            self._count()
            if self._excess(len(message)) > 0:
                raise Overloaded(f"{self._unsent + self._handed} bytes are unsent already; await drain() first")
        self._out.append(message)
        self._flush()

    def _count(self) -> None:
        """Counts what has been put into `_out` since the last count."""
        fresh = self._out[self._counted :]
        self._counted += len(fresh)
        self._unsent += sum(map(len, fresh))

    def _take(self, count: int) -> None:
        """The first messages have been taken out of `_out`, and written or given up."""
        del self._out[:count]
        self._counted = self._unsent = 0

    def _excess(self, more: int = 0) -> int:
        """Bytes over the connection's limit or the budget's, with so many more."""
        unsent, budget = self._unsent + self._handed + more, self._blueprint.budget
        return max(
            unsent - self._blueprint.options.unsent_limit_bytes,
            budget.used_bytes + unsent - self._charged - budget.limit_bytes,
        )

    def _overflow(self, excess: int) -> None:
        overflow = self._blueprint.options.overflow
        if overflow == "close":
            self.abort(CloseReason.OVER_BUDGET)
        if overflow != "drop_oldest":
            return  # the next message is refused; a pass goes over the limit by one batch at the most
        out, count, size = self._out, 0, 0
        while size < excess and count < len(out):
            size += len(out[count])
            count += 1
        self._counted -= count
        self._unsent -= size
        del out[:count]
        self.dropped += count

    def _flush(self) -> None:
        """Frames what was sent and hands it to the transport, if that has room."""
        if self._backlog:
            self._count()
            excess = self._excess()
            if excess > 0 and self._out:  # what the transport has already was within the limit, or was all there was
                self._overflow(excess)
            self._settle()
            return
        out, framer, transport = self._out, self.framer, self._transport
        count = len(out)
        if transport is None or not count:
            self._take(count)
            return
        try:
            # Of a copy: other threads may append meanwhile.
            data = framer.encode(out[0]) if count == 1 else framer.encode_all(out[:count])
        except Exception:
            self._flush_good(count)
            raise
        self.sent += count
        self.sent_bytes += len(data)
        del out[:count]
        self._counted = self._unsent = 0
        transport.write(data)
        if self._backlog:  # which is told from within the write
            self._handed = len(data)  # type: ignore[unreachable]
            self._settle()
        elif self._blueprint.callbacks.on_write_complete is not None:
            self._write_complete()

    def _flush_good(self, count: int) -> None:
        """One of the messages can't be framed: writes those before it, and forgets it and what comes behind it."""
        frames = []
        for message in self._out[:count]:
            try:
                frames.append(self.framer.encode(message))
            except Exception:
                break
        self._take(count)
        self.sent += len(frames)
        self._write(b"".join(frames))

    def _write_all(self) -> None:
        """Hands all that waits to the transport, however full it is: the connection is about to close."""
        if count := len(self._out):
            try:
                data = self.framer.encode_all(self._out[:count])
            except Exception as error:
                self._blueprint.reactor.report(error, "send")
                self._flush_good(count)
            else:
                self._take(count)
                self.sent += count
                self._write(data)

    def _write(self, data: bytes) -> None:
        """Writes what is framed already, before anything that waits."""
        if self._transport is not None and data:
            self.sent_bytes += len(data)
            self._transport.write(data)
            if self._backlog:
                self._handed = self._transport.get_write_buffer_size()
                self._settle()

    # From other threads.

    def _post(self, message: bytes) -> None:
        if self.close_reason is not None or self._transport is None:
            raise ConnectionClosed(self.close_reason or CloseReason.CLOSED)
        size = len(message)
        if self._full(size):
            self._wait_for_room(size)
        # Without a lock, for which threads would queue at each message. Should two of them count at once, the count
        # is short by one message, and only until the reactor looks and begins it anew.
        self._posted_bytes += size
        self._out.append(message)
        if not self._rung:
            self._ring()

    def _wait_for_room(self, size: int) -> None:
        budget, options = self._blueprint.budget, self._blueprint.options
        with budget.changed:
            if options.overflow != "raise":
                budget.waiting += 1
                budget.changed.wait_for(lambda: not self._full(size), options.send_timeout)
                budget.waiting -= 1
                if self.close_reason is not None:
                    raise ConnectionClosed(self.close_reason)
            if self._full(size):
                raise Overloaded(f"{self.unsent_bytes} bytes are unsent already")

    def _ring(self) -> None:
        """Tells the reactor that something was sent. Once for all that comes before it looks."""
        if not self._rung:
            self._rung = True
            self._blueprint.reactor.call(self._look)

    def _full(self, size: int) -> bool:
        budget, options, unsent = self._blueprint.budget, self._blueprint.options, self._posted_bytes
        over_budget = False
        if options.overflow in ("raise", "wait"):  # else the reactor says what becomes of it, once it has come so far
            over_budget = budget.used_bytes + size > budget.limit_bytes
            if self._backlog:  # else what a pass sends is about to be written, and nobody would tell that it was
                unsent += self._unsent + self._handed
        over = over_budget or unsent + size > options.unsent_limit_bytes
        return over and unsent > 0 and self.close_reason is None  # one message more than nothing always has room

    def _look(self) -> None:
        """Other threads have sent."""
        self._rung = False  # before anything is taken: who sends from now on rings again
        self._posted_bytes = 0
        if self.close_reason is not None:
            self._take(len(self._out))
        else:
            try:
                self._flush()
            except Exception as error:
                self.fail(error)
        self._blueprint.budget.wake()

    @abc.abstractmethod
    def fail(self, error: BaseException) -> None:
        """The code that handles the connection, or that sends, raised."""

    # What the event loop says of the transport.

    def pause_writing(self) -> None:
        """The event loop's: the peer reads more slowly than we send."""
        self._backlog = True

    def resume_writing(self) -> None:
        """The event loop's: the transport holds nothing any more."""
        self._backlog = False
        self._handed = 0
        if not self._out:
            self._write_complete()
        else:
            try:
                self._flush()
            except Exception as error:
                self.fail(error)
        self._settle()

    def _settle(self) -> None:
        """Tells the budget and the watchers of the marks what is unsent now."""
        options, unsent = self._blueprint.options, self._unsent + self._handed
        if unsent != self._charged:
            self._blueprint.budget.charge(unsent - self._charged)
            self._charged = unsent
        if not self._over_high and unsent > options.high_water_bytes:
            self._over_high = True
            self._pressure_changed()
            if self._blueprint.callbacks.on_high_water is not None:
                self._blueprint.reactor.run_guarded(self._blueprint.callbacks.on_high_water, self, unsent)
        elif unsent <= options.low_water_bytes:
            if self._over_high:
                self._over_high = False
                self._pressure_changed()
            if self._drained is not None and not self._drained.done():
                self._drained.set_result(None)

    def _write_complete(self) -> None:
        if self._blueprint.callbacks.on_write_complete is not None and self._transport is not None:
            # Not from within the write: a handler that sends the next piece would come back here without end.
            self._blueprint.reactor.loop.call_soon(self._tell_written)

    def _tell_written(self) -> None:
        callback: Callable[..., object] | None = self._blueprint.callbacks.on_write_complete
        if callback is not None and self._transport is not None:
            self._blueprint.reactor.run_guarded(callback, self)

    @property
    def unsent_bytes(self) -> int:
        """Bytes that are sent but not yet taken by the operating system: about so many."""
        return self._unsent + self._handed + self._posted_bytes

    async def drain(self) -> None:
        """Waits until no more than the low-water mark is unsent. Reactor's thread.

        Raises:
            ConnectionClosed: the connection is closed.
        """
        while self.close_reason is None and self._unsent + self._handed > self._blueprint.options.low_water_bytes:
            if self._drained is None or self._drained.done():
                self._drained = self._blueprint.reactor.loop.create_future()
            await asyncio.shield(self._drained)
        if self.close_reason is not None:
            raise ConnectionClosed(self.close_reason)

    def _give_up_unsent(self) -> None:
        """The connection is down: what waited is lost, and who waited is told."""
        self._take(len(self._out))
        self._handed = 0
        if self._charged:
            self._blueprint.budget.charge(-self._charged)
            self._charged = 0
        self._blueprint.budget.wake()
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
