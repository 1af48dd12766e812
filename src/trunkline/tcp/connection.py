"""One TCP connection: an `asyncio.Protocol` over a sans-I/O framer or session."""

import asyncio
import itertools
from collections.abc import Callable
from typing import Any, cast

from trunkline.errors import BadFrame, PeerTimeout, ProtocolError, UsageError
from trunkline.tcp.blueprint import Blueprint
from trunkline.tcp.inbound import CLOSED
from trunkline.tcp.options import CloseReason
from trunkline.tcp.outbound import AT_ONCE
from trunkline.tcp.tcp_info import TcpInfo, address_text, tcp_info
from trunkline.tcp.timed import Timed
from trunkline.tcp.tls import TlsInfo, tls_info
from trunkline.wire import Framer, Session

__all__ = ["TcpConnection"]

_ids = itertools.count(1)


class TcpConnection(Timed):
    """A connection that cuts messages out of what arrives and sends messages whole.

    Its methods belong to the reactor's thread, but for `send`, `close`, `shutdown` and `abort`, which any thread may
    call. Messages that are sent while a message of the same connection is handled leave in one write when all that
    arrived has been handled.

    Args:
        blueprint: what it has in common with the others of its server or client.
        framer: its own framer or session.
        peer: the peer's address, where the transport does not know it.

    Attributes:
        id: a number that no other connection of this process has.
        context: a slot for whatever the user wants to keep with the connection.
        close_reason: why it ended or is ending, a word of `CloseReason`; None while it is open.
        peer: the peer's address as ``host:port``; behind a trusted proxy, that of the proxy's peer.
        host: its host alone; empty for a peer at a Unix socket.
        framer: the framer or session that it speaks through.
        received, sent: messages so far. received_bytes, sent_bytes: bytes so far.
        dropped: messages that were dropped because the peer did not read.
    """

    __slots__ = ("_announced", "_farewell", "_session", "context", "host", "id", "peer")

    def __init__(self, blueprint: Blueprint, framer: Framer, peer: str = "") -> None:
        super().__init__(blueprint, framer)
        self.id = next(_ids)
        self.context: Any = None
        self.peer = peer
        self.host = ""
        self._session = framer if isinstance(framer, Session) else None
        if self._session is not None:
            self._receive = self._receive_session
        self._farewell: Callable[[TcpConnection], object] | None = None
        self._announced = False

    # What the user calls.

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent. Any thread."""
        return self._transport is not None and self.close_reason is None

    @property
    def was_never_up(self) -> bool:
        """Whether the transport has not come up yet."""
        return self._transport is None and self.close_reason is None

    @property
    def is_established(self) -> bool:
        """Whether the peer has said who it is, or need not."""
        return self._established

    def established(self) -> None:
        """The peer has said who it is: the handshake deadline no longer applies. A session calls it by itself."""
        if not self._established:
            self._established = True
            self._due = 0.0  # a heartbeat may be due before the handshake's end would have been
            self._blueprint.owner.connection_established(self)

    def shutdown(self) -> None:
        """Sends what is unsent, then the end of the stream; what the peer still sends is received. Any thread.

        Over TLS, which has no half-closed streams, it closes. A peer that does not end its side is dropped when nothing
        came from it for the idle timeout, or where there is none, for the close timeout.
        """
        if self._in_thread(self.shutdown) and self.is_open:
            transport = cast(asyncio.Transport, self._transport)
            if not transport.can_write_eof():
                self.close()
                return
            self._write_all()
            self._ending(CloseReason.CLOSED)
            transport.write_eof()

    def close(self, reason: str = CloseReason.CLOSED) -> None:
        """Sends what is still unsent, then closes, within the close timeout. Closing twice does nothing. Any thread.

        Args:
            reason: a word for the statistics; a session tells it to its peer.
        """
        if not self._in_thread(self.close, reason):
            return
        if self.is_open:
            farewell, self._farewell = self._farewell, None
            if farewell is not None:
                self._blueprint.reactor.run_guarded(farewell, self)
            self._write_all()
            if self._session is not None:
                self._session.close(reason)
                self._write_output()
            self._ending(reason)
        if self._transport is not None:
            if not self._transport.is_closing():  # after `shutdown`, the time for it begins only now
                self._closing_at = self._blueprint.reactor.now()
            self._hold(CLOSED)
            self._transport.close()

    def finish(self, reason: str, farewell: Callable[["TcpConnection"], object] | None = None) -> None:
        """Takes nothing more from the peer, and closes as soon as all that has come is handled and answered.

        Where the user has paused the reading, messages that wait are waited for only as long as a handler runs.

        Args:
            reason: a word for the statistics.
            farewell: called just before it is closed, to tell the peer.
        """
        self._farewell = farewell
        self._ends_with = reason
        self._finishing = True
        self._after_turn()

    def abort(self, reason: str = CloseReason.CLOSED) -> None:
        """Drops the connection now; what is unsent is lost. Any thread."""
        if self._in_thread(self.abort, reason) and self._transport is not None:
            if self.close_reason is None:
                self._ending(reason)
            self._give_up_unsent()
            self._hold(CLOSED)
            self._transport.abort()

    def give_up(self) -> None:
        """Drops a connection whose making was cancelled: uvloop closes its transport without a word to its protocol."""
        if self._transport is not None:
            self.abort()
            self._blueprint.reactor.loop.call_soon(self.connection_lost, None)

    def fail(self, error: BaseException) -> None:
        """The code that handles the connection raised: it is reported, and the connection closed."""
        self._blueprint.reactor.report(error, f"handler of the connection with {self.peer or 'a local peer'}")
        self.close(CloseReason.HANDLER_FAILED)

    def _in_thread(self, method: Any, *args: object) -> bool:
        reactor = self._blueprint.reactor
        if reactor.in_thread():
            return True
        reactor.call(method, *args)
        return False

    def _ending(self, reason: str) -> None:
        self.close_reason = reason
        self._closing_at = self._blueprint.reactor.now()
        self._due = 0.0
        self._room = AT_ONCE
        self._wake()

    # What one may know of it.

    @property
    def local(self) -> str:
        """This side's address as ``host:port``; empty where it has none, or is closed."""
        return "" if self._transport is None else address_text(self._transport.get_extra_info("sockname"))

    def tls(self) -> TlsInfo | None:
        """What TLS has made out: version, cipher, protocol, the peer's certificate. None without TLS."""
        ssl_object = None if self._transport is None else self._transport.get_extra_info("ssl_object")
        return None if ssl_object is None else tls_info(ssl_object)

    def tcp_info(self) -> TcpInfo | None:
        """What the kernel knows of the connection: round trip, retransmits, window. None where it does not tell."""
        return None if self._transport is None else tcp_info(self._transport.get_extra_info("socket"))

    def statistics(self) -> dict[str, float]:
        """Counts of messages and bytes, unsent bytes, dropped messages, and the connection's age in seconds."""
        counts = ("received", "received_bytes", "sent", "sent_bytes", "unsent_bytes", "dropped")
        return {name: getattr(self, name) for name in counts} | {
            "age": self._blueprint.reactor.now() - self._started_at
        }

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The event loop's: the connection is up."""
        self._transport = cast(asyncio.Transport, transport)
        # With no room, the transport says at once when it could not hand over all, and nothing when it could. Those
        # of TLS, which can't end one direction, take 0 for always full.
        self._transport.set_write_buffer_limits(high=0 if self._transport.can_write_eof() else 1, low=0)
        self._heard_at = self._said_at = self._beat_at = self._blueprint.reactor.now()
        self.peer = self.peer or address_text(transport.get_extra_info("peername"))
        self._blueprint.owner.connection_made(self)
        if self._session is None:
            self._announce()
        else:
            self._session.start()
            self._write_output()
            self._session_moved()

    def connection_lost(self, error: Exception | None) -> None:
        """The event loop's: the connection is down."""
        if self._transport is None:
            return  # `give_up` has said so
        cut_short = error is not None and self.close_reason is None and self.framer.unfinished
        if self.close_reason is None:
            self.close_reason = CloseReason.PEER_CLOSED if error is None else CloseReason.RESET
        self._transport = None
        self._holds |= CLOSED
        self._flowing = False
        if self._debt is not None:
            self._debt.cancel()
        self._give_up_unsent()
        # No circle through this object, which the next collection would have to find.
        self._receive = self.framer.receive
        self._after_turn()
        self._blueprint.owner.connection_lost(self)
        if cut_short and self.framer.error is None:
            self._tell(self._blueprint.callbacks.on_error, BadFrame("the connection was reset within a frame"))
        if self._announced:
            self._tell(self._blueprint.callbacks.on_connection)

    def _announce(self) -> None:
        if not self._announced and self.is_open:
            self._announced = True
            self._tell(self._blueprint.callbacks.on_connection)

    def _tell(self, callback: Any, *args: object) -> None:
        if callback is not None:
            try:
                callback(self, *args)
            except (Exception, asyncio.CancelledError) as error:
                self.fail(error)

    def _broken(self, error: ProtocolError) -> None:
        self._hold(CLOSED)  # so it is told once
        self._tell(self._blueprint.callbacks.on_error, error)
        self.close(CloseReason.BAD_FRAME)

    # Sessions.

    def _receive_session(self, data: bytes) -> list[bytes]:
        session = cast(Session, self._session)
        messages = session.receive(data)
        if session.output:
            self._write_output()
        if not self._announced or session.peer_reason is not None:
            self._session_moved()
        if session.has_more:
            self._more = True
            self._blueprint.reactor.loop.call_soon(self._pace)  # when these messages have been handled
        return messages

    def _session_moved(self) -> None:
        session = cast(Session, self._session)
        if session.established:
            self.established()
            self._announce()
        if session.peer_reason is not None and self._ends_with is None:
            self._ends_with = CloseReason.PEER_CLOSED
            self._blueprint.reactor.loop.call_soon(self._after_turn)  # when what came before it has been handled

    def _write_output(self) -> None:
        output = cast(Session, self._session).output
        if output:
            self._write(bytes(output))
            output.clear()

    # Deadlines.

    def _beat(self) -> None:
        message = self._blueprint.options.heartbeat_message
        if self._session is not None:
            self._session.ping()
            self._write_output()
        elif message is not None and not self._backlog:  # to one that does not read, the next beat comes soon enough
            try:
                TcpConnection.send(self, message)  # as it is, past any codec
            except UsageError as error:
                self.fail(error)

    def _over_budget(self) -> None:
        """The peer does not read what is sent to it."""
        if not self._holds & CLOSED:
            self._hold(CLOSED)  # so it is told once, whatever is sent meanwhile
            text = f"{self.unsent_bytes} bytes wait for the peer to read them"
            self._tell(self._blueprint.callbacks.on_error, PeerTimeout(CloseReason.OVER_BUDGET, text))
        self.abort(CloseReason.OVER_BUDGET)

    def _timed_out(self, error: PeerTimeout) -> None:
        self._tell(self._blueprint.callbacks.on_error, error)
        self.close(error.reason)
