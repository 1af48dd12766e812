"""One TCP connection: an `asyncio.Protocol` over a sans-I/O framer."""

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, Final, cast

import msgspec

from trunkline.errors import ConnectionClosed, PeerTimeout, ProtocolError
from trunkline.wire import Framer

__all__ = ["CloseReason", "Connection", "ConnectionOptions"]


_MESSAGES_PER_TURN = 64  # handed over before the other connections have their turns


class CloseReason:
    """Why a connection ended. Plain words, as they stand in the database, the log and the statistics."""

    PEER_CLOSED: Final = "peer_closed"
    """The peer closed its side in good order."""
    RESET: Final = "reset"
    """The peer, or the path to it, reset the connection."""
    IDLE: Final = "idle"
    """Nothing came for longer than the idle timeout."""
    HANDSHAKE_TIMEOUT: Final = "handshake_timeout"
    """The peer did not say who it is in time."""
    BAD_FRAME: Final = "bad_frame"
    """The peer broke the protocol."""
    OVER_BUDGET: Final = "over_budget"
    """The peer did not read what was sent to it."""
    TAKEN_OVER: Final = "taken_over"
    """The same identity came on another connection."""
    DRAINED: Final = "drained"
    """This node is stopping."""
    HANDLER_FAILED: Final = "handler_failed"
    """The code that handles the connection raised."""
    CLOSED: Final = "closed"
    """This side closed it."""


class ConnectionOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of one connection. All have defaults that are safe to leave on."""

    handshake_timeout: float | None = None
    """Seconds from the start until `Connection.established` must have been called; None for no such deadline."""
    idle_timeout: float | None = None
    """Seconds without a byte from the peer, after which it is closed; None for never."""
    high_water_bytes: int = 65_536
    """Unsent bytes over which reading from the peer pauses, so that a peer that does not read can't go on asking."""
    unread_bytes: int = 1_048_576
    """Unsent bytes over which the connection is closed."""
    unread_timeout: float = 15.0
    """Seconds for which unsent bytes may stay above the high-water mark."""
    close_timeout: float = 5.0
    """Seconds that a graceful close may take to flush; then the connection is dropped."""
    retained_limit: int = 64
    """Messages that may be in the works (see `Connection.retain`); at the limit, reading pauses."""


class Connection(asyncio.Protocol):
    """A connection that cuts messages out of what arrives and sends messages whole.

    All methods belong to the reactor's thread. Messages that are sent while `on_message` runs for the same
    connection leave in one write when all that arrived has been handled.

    Attributes:
        context: a slot for whatever the user wants to keep with the connection.
        close_reason: why it ended or is ending, a word of `CloseReason`; None while it is open.
        peer: the peer's address as ``host:port``.
        received, sent: messages so far. received_bytes, sent_bytes: bytes so far.
    """

    __slots__ = (
        "_closing_at", "_established", "_held", "_loop", "_on_connection", "_on_error", "_on_message", "_options",
        "_out", "_peer_ended", "_read_at", "_reading_paused", "_retained", "_started_at", "_transport", "_turn",
        "_unread_since", "close_reason", "context", "framer", "peer", "received", "received_bytes", "sent",
        "sent_bytes",
    )  # fmt: skip

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        framer: Framer,
        on_connection: Callable[["Connection"], object],
        on_message: Callable[["Connection", bytes], object],
        on_error: Callable[["Connection", ProtocolError], object],
        options: ConnectionOptions,
    ) -> None:
        self.framer = framer
        self.context: Any = None
        self.close_reason: str | None = None
        self.peer = ""
        self.received = self.received_bytes = self.sent = self.sent_bytes = 0
        self._loop = loop
        self._on_connection = on_connection
        self._on_message = on_message
        self._on_error = on_error
        self._options = options
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] | None = None
        self._held: deque[bytes] = deque()
        self._turn: asyncio.Handle | None = None
        self._retained = 0
        self._established = options.handshake_timeout is None
        self._peer_ended = False
        self._reading_paused = False
        self._started_at = self._read_at = loop.time()
        self._unread_since: float | None = None
        self._closing_at: float | None = None

    # What the user calls.

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent."""
        return self._transport is not None and self.close_reason is None

    def send(self, message: bytes) -> None:
        """Sends one message, framed.

        Raises:
            ConnectionClosed: the connection is closed or closing.
            UsageError: the framer can't frame the message; nothing was sent.
        """
        if self.close_reason is not None or self._transport is None:
            raise ConnectionClosed(self.close_reason or CloseReason.CLOSED)
        frame = self.framer.encode(message)
        self.sent += 1
        self.sent_bytes += len(frame)
        if self._out is not None:
            self._out.append(frame)
        else:
            self._write(frame)

    def established(self) -> None:
        """The peer has said who it is: the handshake deadline no longer applies."""
        self._established = True

    def retain(self) -> None:
        """A message is being worked on and its answer is still to come: a half-closed peer waits for it.

        Each call is to be paired with one of `release`. At the limit of retained messages reading pauses.
        """
        self._retained += 1
        if self._retained >= self._options.retained_limit:
            self._pace_reading()

    def release(self) -> None:
        """The answer was sent, or there will be none."""
        self._retained -= 1
        self._pace_reading()
        if self._peer_ended and not self._retained and not self._held:
            self.close(CloseReason.PEER_CLOSED)

    def close(self, reason: str = CloseReason.CLOSED) -> None:
        """Sends what is still unsent, then closes, within the close timeout. Closing twice does nothing."""
        if self.close_reason is None and self._transport is not None:
            self._flush()
            self.close_reason = reason
            self._closing_at = self._loop.time()
            self._transport.close()

    def abort(self, reason: str = CloseReason.CLOSED) -> None:
        """Drops the connection now; what is unsent is lost."""
        if self._transport is not None:
            if self.close_reason is None:
                self.close_reason = reason
            self._transport.abort()

    def check(self, now: float) -> None:
        """Ends the connection if one of its deadlines has passed. Called each second or so by its owner.

        Args:
            now: the loop's time in seconds.
        """
        options = self._options
        if self._closing_at is not None:
            if now - self._closing_at > options.close_timeout:
                self.abort()
        elif self._unread_since is not None and now - self._unread_since > options.unread_timeout:
            self.abort(CloseReason.OVER_BUDGET)
        elif not self._established and now - self._started_at > cast(float, options.handshake_timeout):
            self._time_out(CloseReason.HANDSHAKE_TIMEOUT, f"no hello within {options.handshake_timeout:g} s")
        elif (
            options.idle_timeout is not None and not self._reading_paused and now - self._read_at > options.idle_timeout
        ):
            self._time_out(CloseReason.IDLE, f"nothing came for {options.idle_timeout:g} s")

    def _time_out(self, reason: str, text: str) -> None:
        self._on_error(self, PeerTimeout(reason, text))
        self.close(reason)

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The event loop's: the connection is up."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=self._options.high_water_bytes)
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):
            host = f"[{peer[0]}]" if ":" in peer[0] else peer[0]
            self.peer = f"{host}:{peer[1]}"
            sock: socket.socket | None = transport.get_extra_info("socket")
            if sock is not None:
                # A command is one small write; Nagle would hold it back for the peer's delayed ack.
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._on_connection(self)

    def data_received(self, data: bytes) -> None:
        """The event loop's: bytes came."""
        if self.close_reason is not None:
            return
        self._read_at = self._loop.time()
        self.received_bytes += len(data)
        framer = self.framer
        self._held.extend(framer.receive(data))
        self._take_turn()

    def _take_turn(self) -> None:
        """Hands over some of the messages that are there; with more to come, after the others have had their turns."""
        held, framer, on_message = self._held, self.framer, self._on_message
        self._turn = None
        if self.close_reason is not None:
            held.clear()
            return
        self._out = []
        try:
            for _ in range(min(len(held), _MESSAGES_PER_TURN)):
                self.received += 1
                on_message(self, held.popleft())
                if self.close_reason is not None:
                    held.clear()  # type: ignore[unreachable]  # on_message may close the connection
                    return
                if self._waits():
                    break
            if not held and framer.error is not None:
                self._on_error(self, framer.error)
                self.close(CloseReason.BAD_FRAME)
            elif not held and self._peer_ended and not self._retained:
                self.close(CloseReason.PEER_CLOSED)
        except Exception:
            self.close(CloseReason.HANDLER_FAILED)
            raise  # to the loop's exception handler, which reports it and goes on
        finally:
            self._flush()
            if held or self._reading_paused:
                self._pace_reading()

    def _waits(self) -> bool:
        """Whether answers are still to come, or to be read, before anything more is taken from the peer."""
        return self._unread_since is not None or self._retained >= self._options.retained_limit

    def eof_received(self) -> bool:
        """The event loop's: the peer sends no more. What is in the works is still answered."""
        self._peer_ended = True
        if self._retained or self._held:
            return True
        if self.close_reason is None:
            self.close_reason = CloseReason.PEER_CLOSED
            self._closing_at = self._loop.time()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """The event loop's: the connection is down."""
        if self.close_reason is None:
            self.close_reason = CloseReason.PEER_CLOSED if error is None else CloseReason.RESET
        self._transport = None
        self._held.clear()
        self._on_connection(self)

    def pause_writing(self) -> None:
        """The event loop's: the peer reads more slowly than we send."""
        self._unread_since = self._loop.time()
        self._pace_reading()

    def resume_writing(self) -> None:
        """The event loop's: the peer has caught up."""
        self._unread_since = None
        self._pace_reading()

    def _pace_reading(self) -> None:
        waits = self._waits()
        if self._held and not waits and self._turn is None and self._out is None:
            self._turn = self._loop.call_soon(self._take_turn)
        pause = waits or bool(self._held)
        if pause != self._reading_paused and self._transport is not None and not self._transport.is_closing():
            self._reading_paused = pause
            if pause:
                self._transport.pause_reading()
            elif not self._peer_ended:
                self._read_at = self._loop.time()
                self._transport.resume_reading()

    def _flush(self) -> None:
        out, self._out = self._out, None
        if out and self._transport is not None:
            self._write(out[0] if len(out) == 1 else b"".join(out))

    def _write(self, data: bytes) -> None:
        transport = cast(asyncio.Transport, self._transport)
        transport.write(data)
        if self._unread_since is not None and transport.get_write_buffer_size() > self._options.unread_bytes:
            self.abort(CloseReason.OVER_BUDGET)
