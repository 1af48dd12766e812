"""The half of a connection that sends: from any thread, framed whole, within a budget."""

import abc
import asyncio
from threading import get_ident
from typing import Any

from trunkline.errors import ConnectionClosed, Overloaded
from trunkline.tcp.blueprint import Blueprint
from trunkline.tcp.options import CloseReason
from trunkline.wire import Framer

__all__ = ["AT_ONCE", "Outbound"]

AT_ONCE = 0
"""No room: each message is written when it is sent, or waits for the transport."""
_PASS_MESSAGES = 256  # that may be sent while messages are handled, before anybody looks at them
_SMALL_BYTES = 1024  # of each of these
_NONE = -1  # of them, because the transport holds something
_BUDGET_INTERVAL = 0.05  # seconds between two looks whether others have left room in the budget
_RESERVED_BYTES = 4_096  # that a connection takes from the budget at once for what other threads send


class Outbound(asyncio.Protocol):
    """Messages out. What is sent while messages are handled leaves in one write when all have been.

    Messages wait unframed, as what they are, until the transport takes them: so whole ones can be dropped, and a
    stream that is compressed is compressed in the order in which it is written.
    """

    __slots__ = (
        "_backlog", "_blueprint", "_charged", "_counted", "_drained", "_handed", "_in_pass", "_out", "_over_high",
        "_pass_room", "_posted_bytes", "_refused", "_reserved", "_room", "_rung", "_tells_written", "_thread_id",
        "_transport", "_unsent", "close_reason", "dropped", "framer", "sent", "sent_bytes",
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
        # So many may be sent in a pass: together they are within the limit, where the transport holds nothing yet.
        self._in_pass = max(1, min(_PASS_MESSAGES, blueprint.options.unsent_limit_bytes // _SMALL_BYTES))
        self._pass_room = self._in_pass  # and none while it holds something
        self._room = AT_ONCE  # how many messages _out may hold before anybody looks; more than none in a pass only
        self._backlog = False  # whether the transport still holds bytes
        self._handed = 0  # how many at most, then
        self._over_high = False
        self._charged = 0  # what the budget has been told of
        self._tells_written = blueprint.callbacks.on_write_complete is not None
        self._posted_bytes = 0  # what other threads have sent since the reactor last looked
        self._refused = False  # whether the last message was, for want of room
        self._reserved = 0  # what the budget has been told of for these
        self._rung = False  # whether it has been told to look
        self._drained: asyncio.Future[None] | None = None

    @abc.abstractmethod
    def abort(self, reason: str = CloseReason.CLOSED) -> None:
        """Drops the connection now."""

    @abc.abstractmethod
    def _over_budget(self) -> None:
        """The peer does not read: tells the user, and drops the connection."""

    @abc.abstractmethod
    def _tell(self, callback: Any, *args: object) -> None:
        """Calls a callback of the user with the connection; what it raises ends the connection."""

    @abc.abstractmethod
    def _pressure_changed(self) -> None:
        """`_over_high` has changed."""

    # Sending.

    def send(self, message: Any) -> None:
        """Sends one message, framed. Any thread; the messages of one thread keep their order.

        It is bytes, or where there is a codec, what that takes. In the reactor's thread nothing waits: the message is
        framed and written at once, or when all that arrived with the message that is being handled has been handled.
        What can't be framed raises here if it is framed at once; else the connection ends as when a handler raises.

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
        overflow, budget = self._blueprint.options.overflow, self._blueprint.budget
        if self._backlog:
            self.framer.check(message)  # it is framed later, when nobody could be told
            self._count()
            full = self._excess(len(message)) > 0
        else:
            full = budget.used_bytes > 0 and budget.used_bytes + len(message) > budget.limit_bytes
        if full and overflow in ("raise", "wait"):
            self._refused = True
            raise Overloaded(f"{self.unsent_bytes} bytes are unsent already; await drain() first")
        if full and not self._backlog:  # others have used up the budget
            self.dropped += 1
            if overflow == "close":
                self._over_budget()
            return
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
            self._over_budget()
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
            if count == 1:
                data = framer.encode(out[0])
                del out[0]
            else:
                data = framer.encode_all(out[:count])  # of a copy: other threads may append meanwhile
                del out[:count]
        except Exception:
            self._flush_good(count)
            raise
        self.sent += count
        self.sent_bytes += len(data)
        transport.write(data)
        if self._backlog or self._tells_written:
            self._written(len(data))

    def _written(self, size: int) -> None:
        """So many bytes have been handed to the transport, which has said from within the write if it keeps some."""
        if self._backlog:
            self._handed = size
            self._settle()
        else:
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
        self.framer.check(message)
        size = len(message)
        if self._full(size):
            self._wait_for_room(size)
        # Without a lock, for which threads would queue at each message. Where an interpreter lets two of them count at
        # once, the count is short, and only until the reactor looks and begins it anew.
        self._posted_bytes += size
        if self._posted_bytes > self._reserved:
            self._reserve(size)
        self._out.append(message)
        if not self._rung:
            self._ring()

    def _reserve(self, size: int) -> None:
        budget, more = self._blueprint.budget, max(size, _RESERVED_BYTES)
        with budget.changed:
            self._reserved += more
            budget.used_bytes += more

    def _give_back(self) -> None:
        budget = self._blueprint.budget
        with budget.changed:
            budget.used_bytes -= self._reserved
            self._reserved = 0
        budget.wake()

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
            try:
                self._blueprint.reactor.call(self._look)
            except RuntimeError:  # its loop is closed
                self._rung = False
                raise ConnectionClosed(self.close_reason or CloseReason.CLOSED) from None

    def _full(self, size: int) -> bool:
        budget, options, unsent = self._blueprint.budget, self._blueprint.options, self._posted_bytes
        if self.close_reason is not None:
            return False
        if unsent + size > self._reserved and 0 < budget.used_bytes > budget.limit_bytes - size:
            return True
        # What a pass sends is about to be written, and nobody would tell that it was. And where the options say that a
        # connection is closed, or the oldest messages go, the reactor does so, once it has come so far.
        if self._backlog and options.overflow in ("raise", "wait"):
            unsent += self._unsent + self._handed
        return unsent > 0 and unsent + size > options.unsent_limit_bytes  # one more than nothing always has room

    def _look(self) -> None:
        """Other threads have sent."""
        self._rung = False  # before anything is taken: who sends from now on rings again
        self._posted_bytes = 0
        if self._reserved:
            self._give_back()
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
        self._pass_room = _NONE
        if self._room > AT_ONCE:
            self._room = _NONE

    def resume_writing(self) -> None:
        """The event loop's: the transport holds nothing any more."""
        self._backlog = False
        self._pass_room = self._in_pass
        self._handed = self._counted = self._unsent = 0
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
            self._tell(self._blueprint.callbacks.on_high_water, unsent)
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
        if self._transport is not None:
            self._tell(self._blueprint.callbacks.on_write_complete)

    @property
    def unsent_bytes(self) -> int:
        """Bytes that are sent but not yet taken by the operating system: about so many."""
        return self._unsent + self._handed + self._posted_bytes

    async def drain(self) -> None:
        """Waits until no more than the low-water mark is unsent, or nothing if `send` was refused. Reactor's thread.

        Raises:
            ConnectionClosed: the connection is closed.
        """
        refused, self._refused = self._refused, False
        enough = 0 if refused else self._blueprint.options.low_water_bytes
        if refused and not self._backlog:
            await asyncio.sleep(_BUDGET_INTERVAL)  # others have used up the budget
        while self.close_reason is None and self._unsent + self._handed > enough:
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
        if self._reserved:
            self._give_back()
        self._blueprint.budget.wake()
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
