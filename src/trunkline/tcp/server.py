"""A TCP server: listens, admits, keeps the map of its connections, and stops in good order."""

import asyncio
import concurrent.futures
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from typing import Any

from trunkline.errors import ConnectionClosed, Overloaded
from trunkline.reactor import Reactor
from trunkline.tcp.acceptor import Acceptor
from trunkline.tcp.binding import bind_resolved, bind_unix, resolve
from trunkline.tcp.blueprint import Blueprint, Callback, Callbacks
from trunkline.tcp.budget import OutboundBudget
from trunkline.tcp.connection import TcpConnection
from trunkline.tcp.intake import Intake
from trunkline.tcp.limits import ConnectionLimits, RefusalReason
from trunkline.tcp.options import CloseReason, ConnectionOptions
from trunkline.tcp.rounds import Rounds
from trunkline.tcp.tcp_info import address_text
from trunkline.tcp.tls import ServerTls, TlsReloader
from trunkline.wire import Framer
from trunkline.wire.codecs import Codec

__all__ = ["TcpServer"]


class TcpServer:
    """Accepts connections, checks their deadlines, and stops in good order. Reactor's thread, but for `broadcast`.

    The callbacks are functions or coroutine functions; see `trunkline.tcp.Callbacks` for what they are called with.

    Args:
        reactor: where the connections live.
        new_framer: makes the framer or session of each new connection.
        on_message: called with each connection and message. Without it, ``async for message in connection``.
        on_connection: called when a connection is up, with a session once the peer has said hello, and again when it
            is down (``close_reason`` is set then).
        on_error: called when the peer broke the protocol, before its connection is closed: the place to tell it.
        on_write_complete: called when all that was sent has been taken by the operating system.
        on_high_water: called with the unsent bytes when they pass the high-water mark.
        on_refused: called with the reason when a peer is turned away at once. What it raises is reported. Of its
            coroutines, 256 may run at a time; while they do, peers are counted in `refused` alone.
        codec: between the framer and the user; None for bytes as they are.
        options: the bounds of each connection.
        limits: who may connect, and how many.
        budget: what all connections may hold unsent; None for the budget of the process.
        tls: certificate and key, or a context of your own; None for plain TCP.

    Attributes:
        connections: those that are up, by their id.
        accepted: connections admitted so far.
        refused: peers turned away so far, by reason.
        closed: connections that ended so far, by reason.
    """

    def __init__(
        self,
        reactor: Reactor,
        new_framer: Callable[[], Framer],
        on_message: Callback | None = None,
        *,
        on_connection: Callback | None = None,
        on_error: Callback | None = None,
        on_write_complete: Callback | None = None,
        on_high_water: Callback | None = None,
        on_refused: Callback | None = None,
        codec: Codec[Any] | None = None,
        options: ConnectionOptions | None = None,
        limits: ConnectionLimits | None = None,
        budget: OutboundBudget | None = None,
        tls: ServerTls | ssl.SSLContext | None = None,
    ) -> None:
        self.connections: dict[int, TcpConnection] = {}
        self.accepted = 0
        self.refused: Counter[str] = Counter()
        self.closed: Counter[str] = Counter()
        self._reactor = reactor
        self._on_refused = on_refused
        callbacks = Callbacks(
            on_message,
            on_connection=on_connection,
            on_error=on_error,
            on_write_complete=on_write_complete,
            on_high_water=on_high_water,
        )
        self._blueprint = Blueprint(reactor, self, callbacks, options, codec, budget)
        self._tls = TlsReloader(tls) if isinstance(tls, ServerTls) else None
        context = self._tls.context if self._tls is not None else tls
        assert not isinstance(context, ServerTls)  # told apart above
        self._intake = Intake(self._blueprint, new_framer, limits or ConnectionLimits(), context, self._refuse)
        self._acceptors: list[Acceptor] = []
        self._rounds = Rounds(reactor, self.connections)
        self._all_closed = asyncio.Event()
        self._all_closed.set()

    # Listening.

    async def listen(self, host: str, port: int, *, reuse_port: bool = False) -> int:
        """Listens on all addresses of a host, besides what it listens on already.

        Args:
            host: an address or name; empty for every address of this machine, of both families.
            port: the port; 0 for a free one.
            reuse_port: whether other processes may listen on the same port, to share its connections.

        Returns:
            The port.

        Raises:
            OSError: the port is in use or not allowed, or the host is none of this machine's.
            UsageError: this platform can't share a port.
        """
        sockets = bind_resolved(await resolve(host, port), port, reuse_port=reuse_port)
        for sock in sockets:
            await self.start(sock)
        bound: int = sockets[0].getsockname()[1]
        return bound

    async def listen_unix(self, path: str, mode: int = 0o600) -> None:
        """Listens on a Unix socket.

        Args:
            path: its file, which is removed at the end.
            mode: who may connect: the file's permission bits.

        Raises:
            OSError: somebody listens on it, it is no socket, or it can't be made.
        """
        await self.start(bind_unix(path, mode))

    async def start(self, sock: socket.socket) -> None:
        """Listens on a bound socket (see `bind`), which the server owns from now on, besides any others."""
        self._acceptors.append(Acceptor(self._reactor, sock, self._intake.take, self._shed))
        self._rounds.start()

    @property
    def addresses(self) -> list[str]:
        """What it listens on: ``host:port``, or the path of a Unix socket."""
        return [address_text(acceptor.address) for acceptor in self._acceptors]

    @property
    def port(self) -> int:
        """The TCP port it listens on, the first if there are several."""
        for acceptor in self._acceptors:
            if isinstance(acceptor.address, tuple):
                port: int = acceptor.address[1]
                return port
        raise RuntimeError("the server listens on no TCP port")

    def reload_tls(self) -> None:
        """Reads the certificate's files again. Connections that are up stay; new ones get what is there now.

        Raises:
            SettingsError: a file is bad; the old certificate stays in use.
        """
        if self._tls is not None:
            self._tls.reload()

    # What the acceptors and the connections say.

    def _shed(self, count: int) -> None:
        for _ in range(count):
            self._refuse(RefusalReason.DESCRIPTORS_LIMIT)

    def _refuse(self, reason: str) -> None:
        self.refused[reason] += 1
        self._blueprint.tell(self._on_refused, reason)

    def connection_made(self, connection: TcpConnection) -> None:
        """A connection is up."""
        self.accepted += 1
        self.connections[connection.id] = connection
        self._all_closed.clear()
        if connection.is_established:
            self._intake.established(connection)

    def connection_established(self, connection: TcpConnection) -> None:
        """A connection's peer has said who it is."""
        self._intake.established(connection)

    def connection_lost(self, connection: TcpConnection) -> None:
        """A connection is down."""
        del self.connections[connection.id]
        self.closed[connection.close_reason or CloseReason.CLOSED] += 1
        self._intake.release(connection)
        if not self.connections:
            self._all_closed.set()

    # What the user asks of all connections.

    def broadcast(self, message: Any, to: Callable[[TcpConnection], bool] | None = None) -> None:
        """Sends one message to all connections. Any thread; one that is not the reactor's waits until it is done.

        It goes to those that are established. A connection that is full by its own options does not keep it from the
        others: the message is dropped there, and counted in its ``dropped``.

        Args:
            message: the message.
            to: says which connections get it, in the reactor's thread; None for all.

        Raises:
            Overloaded: the reactor has not come so far within the options' send timeout. It was sent to nobody.
            UsageError: the message can't be framed. It was sent to nobody, or to those before the first that says so.
        """
        if self._reactor.in_thread():
            self._broadcast(message, to)
            return
        done: concurrent.futures.Future[None] = concurrent.futures.Future()

        def run() -> None:
            if done.set_running_or_notify_cancel():  # else nobody waits for it any more
                try:
                    self._broadcast(message, to)
                except Exception as error:
                    done.set_exception(error)
                else:
                    done.set_result(None)

        self._reactor.call(run)
        try:
            # Waiting bounds what threads can hand over: one message each.
            done.result(self._blueprint.options.send_timeout)
        except TimeoutError:
            if done.cancel():
                raise Overloaded("the reactor is held up; the message was sent to nobody") from None
            done.result()

    def _broadcast(self, message: Any, to: Callable[[TcpConnection], bool] | None) -> None:
        for connection in list(self.connections.values()):
            if connection.is_open and connection.is_established and (to is None or to(connection)):
                try:
                    connection.send(message)
                except (Overloaded, ConnectionClosed):
                    connection.dropped += 1

    def stop_accepting(self) -> None:
        """No new connections; the ones that are there stay."""
        for acceptor in self._acceptors:
            acceptor.close()

    async def serve(
        self, drain: float = 5.0, farewell: Callable[[TcpConnection], object] = lambda _connection: None
    ) -> None:
        """Serves until it is cancelled, as `run_until_signal` does it, and drains then.

        Args:
            drain: seconds that the draining may take: see `drain`.
            farewell: called with each connection before it is closed.
        """
        try:
            await self._reactor.loop.create_future()
        finally:
            await self.drain(drain, farewell)

    async def drain(
        self, deadline: float, farewell: Callable[[TcpConnection], object] = lambda _connection: None
    ) -> None:
        """Stops accepting, lets running handlers end, closes every connection in good order, and drops what is left.

        Nothing is left of the server then: no connection, no task, no timer.

        Args:
            deadline: seconds that all this may take.
            farewell: called with each connection before it is closed; a session says so by itself.
        """
        ends_at = self._reactor.now() + deadline
        self.stop_accepting()
        await self._intake.stop()
        for connection in list(self.connections.values()):
            if connection.is_open:
                connection.finish(CloseReason.DRAINED, farewell)
        try:
            async with asyncio.timeout_at(ends_at):
                await self._all_closed.wait()
        except TimeoutError:
            for connection in list(self.connections.values()):
                connection.abort(CloseReason.DRAINED)
            await self._all_closed.wait()
        await self._blueprint.finish_tasks(ends_at)
        self._rounds.stop()
