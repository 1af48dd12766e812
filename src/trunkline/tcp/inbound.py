"""The half of a connection that receives: whole messages, in order, in turns, as fast as they are taken."""

import abc
import asyncio
import itertools
from collections.abc import Callable
from typing import Any, Final, Self

from trunkline.errors import BadFrame, ConnectionClosed, ProtocolError
from trunkline.tcp.blueprint import Blueprint
from trunkline.tcp.limits import TokenBucket
from trunkline.tcp.options import CloseReason
from trunkline.tcp.outbound import AT_ONCE, Outbound
from trunkline.wire import Codec, Framer

__all__ = ["CLOSED", "Inbound"]

_GLANCE = 16  # messages between two looks at the clock
_TURN_SECONDS = 0.002  # for which one connection may have the reactor before the others have their turns
_BURST_SECONDS = 2.0

# Why messages are not handed over as they come. All but the last two also stop the reading.
_OVER_HIGH: Final = 1
_RETAINED: Final = 2
_PAUSED: Final = 4
_RATE: Final = 8
_READING_STOPS: Final = _OVER_HIGH | _RETAINED | _PAUSED | _RATE
_ITERATED: Final = 16
CLOSED: Final = 32
"""A hold: the connection is closed."""


class Inbound(Outbound):
    """Messages in."""

    __slots__ = (
        "_buckets", "_debt", "_ends_with", "_finishing", "_flowing", "_held", "_holds", "_iterating", "_more",
        "_on_message", "_reading_paused", "_receive", "_retained", "_turn", "_waiter", "received", "received_bytes",
    )  # fmt: skip

    def __init__(self, blueprint: Blueprint, framer: Framer) -> None:
        super().__init__(blueprint, framer)
        options = blueprint.options
        self.received = self.received_bytes = 0
        self._on_message: Callable[..., object] | None = blueprint.callbacks.on_message
        self._held: list[Any] = []  # messages that wait, the one to be handed over next at the end
        self._holds = _ITERATED if self._on_message is None else 0
        self._flowing = not self._holds
        self._turn: asyncio.Handle | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._iterating = False  # whether the user works on a message that `receive` has returned
        self._retained = 0
        self._more = False  # whether the session has more messages in what came already
        self._debt: asyncio.TimerHandle | None = None  # when what came over the rate is paid for
        self._ends_with: str | None = None  # why to close when all that has come is handled
        self._finishing = False  # whether it is this side that wants to close then
        self._reading_paused = False
        self._receive: Callable[[bytes], list[Any]] = framer.receive
        self._buckets: tuple[TokenBucket, TokenBucket] | None = None
        rates = (options.bytes_per_second, options.messages_per_second)
        if rates != (None, None):
            by_byte, by_message = (TokenBucket(rate or 1e15, _BURST_SECONDS * (rate or 1e15)) for rate in rates)
            self._buckets = (by_byte, by_message)

    @abc.abstractmethod
    def close(self, reason: str = CloseReason.CLOSED) -> None:
        """Closes in good order."""

    @abc.abstractmethod
    def _broken(self, error: ProtocolError) -> None:
        """The peer broke the protocol, and all that came before has been handled."""

    # What the event loop says.

    def data_received(self, data: bytes) -> None:
        """The event loop's: bytes came."""
        self.received_bytes += len(data)
        try:
            messages = self._receive(data)
        except (Exception, asyncio.CancelledError) as error:  # of the user's framer, codec or judge of hellos
            self.fail(error)
            return
        self.received += len(messages)
        if not self._flowing or self._held or self._buckets is not None:
            self._hold_messages(messages, len(data))
        elif len(messages) == 1:
            # The common case by the shortest way: one message, and its answer written here, as `_flush` would do it.
            self._room = self._pass_room
            try:
                self._on_message(self, messages[0])  # type: ignore[misc]  # it flows only where there is a callback
                self._room = AT_ONCE
                out, transport = self._out, self._transport
                if len(out) == 1 and not self._backlog and transport is not None:
                    frame = self.framer.encode(out.pop(0))
                    self.sent += 1
                    self.sent_bytes += len(frame)
                    transport.write(frame)
                    if self._backlog or self._tells_written:
                        self._written(len(frame))
                elif out:
                    self._flush()
            except (Exception, asyncio.CancelledError) as error:
                self._room = AT_ONCE
                self.fail(error)
            if not self._flowing or self.framer.error is not None:
                self._after_turn()
        else:
            self._hand_over(messages)
            self._after_turn()

    def eof_received(self) -> bool:
        """The event loop's: the peer sends no more. What is in the works is still answered."""
        self._ends_with = self._ends_with or CloseReason.PEER_CLOSED
        self._after_turn()
        # What is still to be answered keeps the way out open; else it is closed by now. TLS has no half-closed streams.
        return self._transport is not None and self._transport.can_write_eof()

    # Turns.

    def _hold_messages(self, messages: list[Any], size: int) -> None:
        self._held[:0] = messages[::-1]
        if self._buckets is not None:
            now = self._blueprint.reactor.now()
            wait = max(self._buckets[0].take(size, now), self._buckets[1].take(len(messages), now))
            if wait > 0:
                # What has come already is handed over; what comes next has to wait.
                self._take_turn()
                self._hold(_RATE)
                if self._debt is not None:
                    self._debt.cancel()
                self._debt = self._blueprint.reactor.loop.call_later(wait, self._unhold, _RATE)
                return
        self._take_turn()

    def _receive_more(self) -> None:
        """Takes more messages out of what came before."""
        self._turn = None
        self._more = False
        if not self._holds & CLOSED:
            self.data_received(b"")
            self._after_turn()

    def _take_turn(self) -> None:
        """Hands over messages that wait."""
        self._turn = None
        if self._flowing and self._held:
            messages, self._held = self._held[::-1], []
            self._hand_over(messages)
        self._after_turn()

    def _hand_over(self, messages: list[Any]) -> None:
        """Hands over messages for a while; what is left waits until the others have had their turns."""
        now, on_message = self._blueprint.reactor.now, self._on_message
        rest = iter(messages)
        until = now() + _TURN_SECONDS
        self._room = self._pass_room
        try:
            for _ in range(0, len(messages), _GLANCE):
                for message in itertools.islice(rest, _GLANCE):
                    on_message(self, message)  # type: ignore[misc]  # it flows only where there is a callback
                    if not self._flowing:
                        break
                if not self._flowing or now() > until:
                    break
            self._room = AT_ONCE
            if self._out:
                self._flush()
        except (Exception, asyncio.CancelledError) as error:
            self._room = AT_ONCE
            self.fail(error)
        self._held[:0] = list(rest)[::-1]

    def _after_turn(self) -> None:
        if self._room != AT_ONCE:  # called by a handler: the messages at hand come first
            self._blueprint.reactor.loop.call_soon(self._after_turn)
            return
        if self._holds & CLOSED and not self._holds & _ITERATED:
            self._held.clear()
        if not (self._held or self._more or self._holds & CLOSED):
            if self.framer.error is not None:
                self._broken(self.framer.error)
            elif self._ends_with is not None and not (self._retained or self._iterating):
                if self._ends_with == CloseReason.PEER_CLOSED and self.framer.unfinished:
                    self.framer.error = BadFrame("the stream ends within a frame")
                    self._broken(self.framer.error)
                else:
                    self.close(self._ends_with)
        elif self._finishing and self._waits_in_vain():
            # What waits would wait for ever: nobody is at work who would resume the reading.
            self.close(self._ends_with or CloseReason.CLOSED)
        self._wake()
        self._pace()

    def _waits_in_vain(self) -> bool:
        """Whether the user has paused the reading, and nobody is at work who would resume it."""
        return self._holds & (_PAUSED | CLOSED) == _PAUSED and not (self._retained or self._iterating)

    def _hold(self, why: int) -> None:
        self._holds |= why
        self._flowing = False
        self._pace()

    def _unhold(self, why: int) -> None:
        self._holds &= ~why
        self._flowing = not self._holds
        self._pace()

    def _is_deaf(self) -> bool:
        """Where nothing is read: whether that is this side's doing, and not because the peer has ended."""
        return bool(self._held or self._more) or self._ends_with != CloseReason.PEER_CLOSED

    def _pressure_changed(self) -> None:
        if self._blueprint.pauses_over_high:
            (self._hold if self._over_high else self._unhold)(_OVER_HIGH)

    def _pace(self) -> None:
        """Reads on, or stops reading, and has the messages that wait handed over, as things stand now."""
        transport = self._transport
        if self._held and self._flowing and self._turn is None:
            self._turn = self._blueprint.reactor.loop.call_soon(self._take_turn)
        if self._more and self._turn is None and not (self._held or self._holds & (_READING_STOPS | CLOSED)):
            self._turn = self._blueprint.reactor.loop.call_soon(self._receive_more)
        pause = bool(self._held or self._more or self._holds & _READING_STOPS or self._ends_with)
        if pause != self._reading_paused and transport is not None and not transport.is_closing():
            self._reading_paused = pause
            if pause:
                transport.pause_reading()
            else:
                transport.resume_reading()

    # What the user calls.

    def retain(self) -> None:
        """A message is being worked on and its answer is still to come: a half-closed peer waits for it.

        Each call is to be paired with one of `release`. At the limit of retained messages reading pauses.
        """
        self._retained += 1
        if self._retained >= self._blueprint.options.retained_limit:
            self._hold(_RETAINED)

    def release(self) -> None:
        """The answer was sent, or there will be none."""
        self._retained -= 1
        if self._holds & _RETAINED:
            self._unhold(_RETAINED)
        if self._ends_with is not None:
            self._after_turn()

    def hand_to(self, on_message: Callable[..., object]) -> None:
        """Hands messages to this function from now on. For the blueprint, which knows the user's better by then."""
        self._on_message = on_message

    def pause_reading(self) -> None:
        """Takes no more from the peer until `resume_reading`; what has been cut out already waits too."""
        self._hold(_PAUSED)
        if self._finishing:
            self._after_turn()

    def resume_reading(self) -> None:
        """Goes on reading."""
        self._unhold(_PAUSED)

    async def receive(self) -> Any:
        """The next message. For connections without ``on_message``; one coroutine at a time.

        Raises:
            ConnectionClosed: there is no further one: the connection is closed, or the peer has ended its side.
        """
        self._iterating = False
        while not self._held:
            self._after_turn()  # the last message before an end or a breach may just have been worked on
            if self._holds & CLOSED:
                raise ConnectionClosed(self.close_reason or CloseReason.CLOSED)
            if self._ends_with is not None and not self._more:
                raise ConnectionClosed(self._ends_with)  # the peer has ended its side; what is retained keeps ours open
            self._waiter = self._blueprint.reactor.loop.create_future()
            await self._waiter
        self._iterating = True
        message = self._held.pop()
        self._pace()
        if not self._held and self.framer.error is not None:
            self._blueprint.reactor.loop.call_soon(self._after_turn)  # an answer that is sent at once comes first
        return message

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        try:
            return await self.receive()
        except ConnectionClosed:
            raise StopAsyncIteration from None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _decoded(self, codec: Codec[Any], messages: list[bytes]) -> list[Any]:
        """What the codec makes of payloads, up to the first that is none."""
        decoded: list[Any] = []
        for message in messages:
            try:
                decoded.append(codec.decode(message))
            except BadFrame as error:
                self.framer.error = error
                break
        return decoded
