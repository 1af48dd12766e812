"""TCP clients: one that stays connected, and one connection for as long as it is used."""

import asyncio
import contextlib
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

from trunkline.errors import ConnectionClosed, PeerTimeout, ProtocolError
from trunkline.reactor import Reactor
from trunkline.tcp.backoff import FullJitter
from trunkline.tcp.blueprint import Blueprint, Callback, Callbacks
from trunkline.tcp.budget import OutboundBudget
from trunkline.tcp.coded import new_connection
from trunkline.tcp.connection import TcpConnection
from trunkline.tcp.options import CloseReason, ConnectionOptions
from trunkline.tcp.rounds import Rounds
from trunkline.tcp.tls import ClientTls
from trunkline.wire import Framer, Session
from trunkline.wire.codecs import Codec

__all__ = ["Address", "TcpClient", "connect"]

Address = tuple[str, int] | str
"""A host and a port, or the path of a Unix socket."""


class TcpClient:
    """Keeps connections to one server up: connects again with full-jitter back-off until it is stopped.

    Reactor's thread. The callbacks are functions or coroutine functions, the same as those of `TcpServer`.

    Args:
        reactor: where the connections live.
        address: the server's host and port, or the path of its Unix socket.
        new_framer: makes the framer or session of each new connection.
        on_message: called with a connection and each message. Without it, ``async for message in connection``.
        on_connection: called when a connection is up, with a session once the server has said hello, and again when
            it is down.
        on_error: called when the server broke the protocol, before the connection is closed.
        on_write_complete: called when all that was sent has been taken by the operating system.
        on_high_water: called with the unsent bytes when they pass the high-water mark.
        on_connect_failed: called with the error when an attempt to connect failed; it is tried again in any case. What
            it raises is reported.
        count: how many connections to keep up.
        new_backoff: makes what says how long to wait after a failed or lost connection, one for each connection.
        codec: between the framer and the user; None for bytes as they are.
        options: the bounds of each connection.
        budget: what all connections may hold unsent; None for the budget of the process.
        tls: whom to trust, or a context of your own; None for plain TCP.
        connect_timeout: seconds that one attempt may take, with its handshakes.

    Attributes:
        connections: those that are up, by their id.
        closed: connections that ended so far, by reason.
    """

    def __init__(
        self,
        reactor: Reactor,
        address: Address,
        new_framer: Callable[[], Framer],
        on_message: Callback | None = None,
        *,
        on_connection: Callback | None = None,
        on_error: Callback | None = None,
        on_write_complete: Callback | None = None,
        on_high_water: Callback | None = None,
        on_connect_failed: Callback | None = None,
        count: int = 1,
        new_backoff: Callable[[], FullJitter] = FullJitter,
        codec: Codec[Any] | None = None,
        options: ConnectionOptions | None = None,
        budget: OutboundBudget | None = None,
        tls: ClientTls | ssl.SSLContext | None = None,
        connect_timeout: float = 10.0,
    ) -> None:
        self.connections: dict[int, TcpConnection] = {}
        self.closed: Counter[str] = Counter()
        self._reactor = reactor
        self._address = address
        self._new_framer = new_framer
        self._on_connect_failed = on_connect_failed
        self._count = count
        self._new_backoff = new_backoff
        self._connect_timeout = connect_timeout
        self._server_hostname = tls.server_hostname if isinstance(tls, ClientTls) else None
        self._context = tls.context() if isinstance(tls, ClientTls) else tls
        callbacks = Callbacks(
            on_message,
            on_connection=on_connection,
            on_error=on_error,
            on_write_complete=on_write_complete,
            on_high_water=on_high_water,
        )
        self._blueprint = Blueprint(reactor, self, callbacks, options, codec, budget, pauses_over_high=False)
        self._tasks: set[asyncio.Task[None]] = set()
        self._ready: dict[int, asyncio.Future[None]] = {}
        self._lost: dict[int, asyncio.Future[None]] = {}
        self._changed = asyncio.Event()
        self._stopped = False
        self._rounds = Rounds(reactor, self.connections)

    @property
    def connection(self) -> TcpConnection | None:
        """A connection that messages can be sent on; None if there is none just now."""
        return next((one for one in self.connections.values() if one.is_open and one.is_established), None)

    def start(self) -> None:
        """Begins to connect. Starting twice does nothing."""
        if not self._tasks:
            self._stopped = False
            self._rounds.start()
            for number in range(self._count):
                name = f"client {number} of {self._address}"
                self._tasks.add(self._reactor.spawn(self._stay_connected(), name))

    async def connected(self, timeout: float | None = None) -> TcpConnection:
        """Waits until all connections are up; returns one of them.

        Args:
            timeout: seconds to wait; None for as long as it takes.

        Raises:
            TimeoutError: they are not up in time.
            ConnectionClosed: the client is stopped.
        """
        async with asyncio.timeout(timeout):
            while True:
                if self._stopped:
                    raise ConnectionClosed(CloseReason.CLOSED)
                up = [one for one in self.connections.values() if one.is_open and one.is_established]
                if len(up) >= self._count:
                    return up[0]
                self._changed.clear()
                await self._changed.wait()

    async def stop(self, reason: str = CloseReason.CLOSED) -> None:
        """Closes the connections in good order and connects no more; running handlers have the close timeout to end."""
        self._stopped = True
        self._changed.set()
        tasks, self._tasks = self._tasks, set()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for connection in list(self.connections.values()):
            connection.close(reason)
        if self._lost:
            await asyncio.wait(list(self._lost.values()))
        await self._blueprint.finish_tasks(self._reactor.now() + self._blueprint.options.close_timeout)
        self._rounds.stop()

    async def open(self) -> TcpConnection:
        """Connects once; returns the connection when it is up and, with a session, its peer has said hello.

        Raises:
            OSError: it can't be reached, the TLS handshake failed, or it took too long (`TimeoutError`).
            ProtocolError: the server broke the protocol, or refused.
            ConnectionClosed: the server closed the connection before it was up.
        """
        self._rounds.start()
        loop, host = self._reactor.loop, self._address[0]
        connection = new_connection(self._blueprint, self._new_framer())
        ready = self._ready[connection.id] = loop.create_future()
        try:
            async with asyncio.timeout(self._connect_timeout):
                if isinstance(self._address, str):
                    await loop.create_unix_connection(
                        lambda: connection, self._address, ssl=self._context, server_hostname=self._server_hostname
                    )
                else:
                    name = (self._server_hostname or host) if self._context is not None else None
                    await loop.create_connection(
                        lambda: connection, *self._address, ssl=self._context, server_hostname=name
                    )
                await ready
        except BaseException:
            connection.give_up()
            raise
        finally:
            self._ready.pop(connection.id, None)
        return connection

    async def _stay_connected(self) -> None:
        backoff = self._new_backoff()
        while True:
            try:
                connection = await self.open()
            except Exception as error:
                if not isinstance(error, OSError | ProtocolError | ConnectionClosed):
                    self._reactor.report(error, f"making a connection to {self._address}")  # it won't mend by itself
                self._blueprint.tell(self._on_connect_failed, error)
            else:
                up_at = self._reactor.now()
                if (lost := self._lost.get(connection.id)) is not None:
                    await asyncio.shield(lost)
                # One that is closed soon after it came up, by a server that is full or falls over, is a failure too.
                if self._reactor.now() - up_at > backoff.cap:
                    backoff.reset()
            await asyncio.sleep(backoff.next_wait())

    # What the connections say.

    def connection_made(self, connection: TcpConnection) -> None:
        """A connection is up."""
        self.connections[connection.id] = connection
        self._lost[connection.id] = self._reactor.loop.create_future()
        if connection.is_established:
            self.connection_established(connection)

    def connection_established(self, connection: TcpConnection) -> None:
        """A connection's server has said who it is."""
        ready = self._ready.get(connection.id)
        if ready is not None and not ready.done():
            ready.set_result(None)
        self._changed.set()

    def connection_lost(self, connection: TcpConnection) -> None:
        """A connection is down."""
        self.connections.pop(connection.id, None)
        lost, ready = self._lost.pop(connection.id), self._ready.get(connection.id)
        lost.set_result(None)
        self.closed[connection.close_reason or CloseReason.CLOSED] += 1
        if ready is not None and not ready.done():
            reason = connection.close_reason or CloseReason.CLOSED
            error = connection.framer.error
            said = connection.framer.peer_reason if isinstance(connection.framer, Session) else None
            if reason == CloseReason.HANDSHAKE_TIMEOUT:
                error = PeerTimeout(reason, "the server did not say hello in time")
            elif error is None and said is not None:
                error = ProtocolError(f"the server has ended the session: {said}")
            ready.set_exception(error or ConnectionClosed(reason))


@contextlib.asynccontextmanager
async def connect(
    address: Address,
    new_framer: Callable[[], Framer],
    on_message: Callback | None = None,
    **more: Any,
) -> AsyncIterator[TcpConnection]:
    """One connection, for as long as it is used; in any asyncio program.

    As in ``async with connect(("meter-7", 7000), LineFramer) as connection``. It is closed in good order at the end,
    and does not connect again.

    Args:
        address: the server's host and port, or the path of its Unix socket.
        new_framer: makes the framer or session.
        on_message: called with the connection and each message. Without it, ``async for message in connection``.
        more: as for `TcpClient`.

    Raises:
        OSError: it can't be reached, or not in time.
        ProtocolError: the server broke the protocol, or refused.
        ConnectionClosed: the server closed the connection before it was up.
    """
    client = TcpClient(Reactor(asyncio.get_running_loop()), address, new_framer, on_message, **more)
    try:
        yield await client.open()
    finally:
        await client.stop()
