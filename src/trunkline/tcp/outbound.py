"""The half of a connection that sends: from any thread, framed whole, within a budget."""

import abc
import asyncio
from collections.abc import Callable
from threading import get_ident

from trunkline.errors import ConnectionClosed, Overloaded
from trunkline.tcp.blueprint import Blueprint
from trunkline.tcp.options import CloseReason
from trunkline.wire import Framer

__all__ = ["AT_ONCE", "Outbound"]

AT_ONCE = -1
"""No room: every message is looked at when it is sent."""


class Outbound(asyncio.Protocol):
    """Messages out. What is sent while messages are handled leaves in one write when all have been.

    Messages wait unframed, as what they are, until the transport takes them: so whole ones can be dropped, and a
    stream that is compressed is compressed in the order in which it is written.
    """

    __slots__ = (
        "_backlog", "_blueprint", "_charged", "_drained", "_handed", "_out", "_over_high", "_posted", "_posted_bytes",
        "_room", "_thread_id", "_transport", "_unsent", "close_reason", "dropped", "framer", "sent", "sent_bytes",
    )  # fmt: skip

    framer: Framer

    def __init__(self, blueprint: Blueprint, framer: Framer) -> None:
        self.framer = framer
        self.close_reason: str | None = None
        self.sent = self.sent_bytes = self.dropped = 0
        self._blueprint = blueprint
        self._thread_id = blueprint.reactor.thread_id
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._unsent = 0  # bytes in _out, before they are framed
        self._room = AT_ONCE  # bytes that _out may hold before anybody looks; more than none in a pass only
        self._backlog = False  # whether the transport still holds bytes
        self._handed = 0  # how many at most, then
        self._over_high = False
        self._charged = 0  # what the budget has been told of
        self._posted: list[bytes] | None = None  # from other threads
        self._posted_bytes = 0
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
        if get_ident() != self._thread_id:
            self._post(message)
            return
        self._out.append(message)
        self._unsent = unsent = self._unsent + len(message)
        if unsent > self._room:
            self._press(message)

    def _press(self, message: bytes) -> None:
        """A message was put into `_out` that does not just stay there until the pass is over."""
        if self._transport is None or self.close_reason is not None:
            self._out.clear()
            self._unsent = 0
            raise ConnectionClosed(self.close_reason or CloseReason.CLOSED)
        if not self._backlog:
            self._flush()
            return
        excess = self._excess()
        if excess > 0:
            overflow = self._blueprint.options.overflow
            if overflow in ("raise", "wait"):
                self._out.pop()
                self._unsent -= len(message)
                raise Overloaded(f"{self._unsent + self._handed} bytes are unsent already; await drain() first")
            self._overflow(excess)
        self._settle()

    def _excess(self) -> int:
        """Bytes over the connection's limit or the budget's."""
        unsent, budget = self._unsent + self._handed, self._blueprint.budget
        return max(
            unsent + self._posted_bytes - self._blueprint.options.unsent_limit_bytes,
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
        del out[:count]
        self._unsent -= size
        self.dropped += count

    def _flush(self) -> None:
        """Frames what was sent and hands it to the transport, if that has room."""
        out = self._out
        if self._backlog:
            excess = self._excess()
            if excess > 0:
                self._overflow(excess)
            self._settle()
            return
        transport, framer = self._transport, self.framer
        if transport is None:
            out.clear()
            self._unsent = 0
            return
        try:
            data = framer.encode(out[0]) if len(out) == 1 else framer.encode_all(out)
        except Exception:
            self._flush_good()
            raise
        self.sent += len(out)
        self.sent_bytes += len(data)
        out.clear()
        self._unsent = 0
        transport.write(data)
        if self._backlog:  # which is told from within the write
            self._handed = len(data)  # type: ignore[unreachable]
            self._settle()
        elif self._blueprint.callbacks.on_write_complete is not None:
            self._write_complete()

    def _flush_good(self) -> None:
        """One of the messages can't be framed: writes those before it, and forgets it and what comes behind it."""
        out, self._out = self._out, []
        self._unsent = 0
        frames = []
        for message in out:
            try:
                frames.append(self.framer.encode(message))
            except Exception:
                break
        self.sent += len(frames)
        self._write(b"".join(frames))

    def _write_all(self) -> None:
        """Hands all that waits to the transport, however full it is: the connection is about to close."""
        if self._out:
            messages = self._out.copy()
            try:
                data = self.framer.encode_all(messages)
            except Exception as error:
                self._blueprint.reactor.report(error, "send")
                self._flush_good()
            else:
                self._out.clear()
                self._unsent = 0
                self.sent += len(messages)
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
        budget, options, size = self._blueprint.budget, self._blueprint.options, len(message)
        with budget.changed:
            if self.close_reason is not None or self._transport is None:
                raise ConnectionClosed(self.close_reason or CloseReason.CLOSED)
            if self._full(size) and options.overflow in ("raise", "wait"):
                if options.overflow == "wait":
                    budget.waiting += 1
                    budget.changed.wait_for(lambda: not self._full(size), options.send_timeout)
                    budget.waiting -= 1
                    if self.close_reason is not None:
                        raise ConnectionClosed(self.close_reason)
                if self._full(size):
                    raise Overloaded(f"{self._posted_bytes + self._unsent + self._handed} bytes are unsent already")
            budget.used_bytes += size
            self._posted_bytes += size
            if self._posted is not None:
                self._posted.append(message)
                return  # the reactor has been woken for it
            self._posted = [message]
        self._blueprint.reactor.call(self._take_posted)

    def _full(self, size: int) -> bool:
        budget = self._blueprint.budget
        unsent = self._posted_bytes + self._unsent + self._handed
        over = unsent + size > self._blueprint.options.unsent_limit_bytes or (
            budget.used_bytes + size > budget.limit_bytes
        )
        return over and unsent > 0 and self.close_reason is None  # one message more than nothing always has room

    def _take_posted(self) -> None:
        budget = self._blueprint.budget
        with budget.changed:
            posted, self._posted = self._posted, None
            size, self._posted_bytes = self._posted_bytes, 0
        budget.charge(-size)
        if self.close_reason is None and posted:
            self._out += posted
            self._unsent += size
            try:
                self._flush()
            except Exception as error:
                self.fail(error)

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
        if self._out:
            try:
                self._flush()
            except Exception as error:
                self.fail(error)
        self._settle()
        if not self._backlog:
            self._write_complete()

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
        callback: Callable[..., object] | None = self._blueprint.callbacks.on_write_complete
        if callback is not None and self._transport is not None:
            # Not from within the write: a handler that sends the next piece would come back here without end.
            self._blueprint.reactor.loop.call_soon(self._blueprint.reactor.run_guarded, callback, self)

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
        self._out.clear()
        self._unsent = self._handed = 0
        if self._charged:
            self._blueprint.budget.charge(-self._charged)
            self._charged = 0
        budget = self._blueprint.budget
        if budget.waiting:
            with budget.changed:
                budget.changed.notify_all()
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
