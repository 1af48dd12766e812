"""A TCP server: accepts connections and keeps their map."""

import asyncio
import errno
import socket
from collections.abc import Callable

from trunkline.errors import ProtocolError, SettingsError
from trunkline.reactor import Reactor, Timer
from trunkline.tcp.connection import CloseReason, Connection, ConnectionOptions
from trunkline.wire import Framer

__all__ = ["Server", "bind"]

_BACKLOG = 1024
_CHECK_INTERVAL = 0.5  # seconds between two looks at the connections' deadlines


def bind(host: str, port: int, setting: str) -> socket.socket:
    """A listening socket's first half: bound, so that a port in use is known before anything else is started.

    Args:
        host: the address or name to bind to.
        port: the port; 0 for a free one.
        setting: the group of settings that they came from, to name in errors.

    Raises:
        SettingsError: the port is in use or not allowed, or the host is none of this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise SettingsError(f'{setting}.host = "{host}": {error.strerror}; the default is "127.0.0.1"') from None
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setblocking(False)
        sock.bind(address)
        # At once: two that bind a port of the same number both succeed, and the second one's listen fails.
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            text = (
                f"the port is in use on {host}; stop what uses it (ss -ltnp 'sport = :{port}' shows it) or set another"
            )
        elif error.errno == errno.EACCES:
            text = "this user may not bind the port; set one above 1023"
        elif error.errno == errno.EADDRNOTAVAIL:
            raise SettingsError(f'{setting}.host = "{host}": no address of this machine; try "127.0.0.1"') from None
        else:
            text = str(error)
        raise SettingsError(f"{setting}.port = {port}: {text}") from None
    return sock


class Server:
    """Accepts connections, checks their deadlines, and stops in good order. Reactor's thread.

    Args:
        reactor: where the connections live.
        new_framer: makes the framer of each new connection.
        on_message: called with each connection and message.
        on_connection: called when a connection is up, and again when it is down (``close_reason`` is set then).
        on_error: called when the peer broke the protocol, before its connection is closed: the place to tell it.
        on_refused: called with the reason when a connection is refused at once.
        options: the bounds of each connection.
        connections_limit: connections at once; one more is refused.
    """

    def __init__(
        self,
        reactor: Reactor,
        new_framer: Callable[[], Framer],
        on_message: Callable[[Connection, bytes], object],
        *,
        on_connection: Callable[[Connection], object] = lambda _connection: None,
        on_error: Callable[[Connection, ProtocolError], object] = lambda _connection, _error: None,
        on_refused: Callable[[str], object] = lambda _reason: None,
        options: ConnectionOptions | None = None,
        connections_limit: int = 10_000,
    ) -> None:
        self.connections: set[Connection] = set()
        self._reactor = reactor
        self._new_framer = new_framer
        self._on_message = on_message
        self._on_connection = on_connection
        self._on_error = on_error
        self._on_refused = on_refused
        self._options = options or ConnectionOptions()
        self._connections_limit = connections_limit
        self._listener: asyncio.Server | None = None
        self._timer: Timer | None = None
        self._checked_at = reactor.now()
        self._all_closed = asyncio.Event()
        self._all_closed.set()

    async def start(self, sock: socket.socket, backlog: int = _BACKLOG) -> None:
        """Listens on a bound socket (see `bind`), which the server owns from now on."""
        self._listener = await self._reactor.loop.create_server(self._new_connection, sock=sock, backlog=backlog)
        self._checked_at = self._reactor.now()
        self._timer = self._reactor.every(_CHECK_INTERVAL, self._check)

    @property
    def port(self) -> int:
        """The port it listens on."""
        if self._listener is None:
            raise RuntimeError("the server is not started")
        port: int = self._listener.sockets[0].getsockname()[1]
        return port

    def _new_connection(self) -> Connection:
        return Connection(
            self._reactor.loop,
            self._new_framer(),
            self._connection_changed,
            self._on_message,
            self._on_error,
            self._options,
        )

    def _connection_changed(self, connection: Connection) -> None:
        if not connection.is_open:
            if connection in self.connections:
                self.connections.discard(connection)
                if not self.connections:
                    self._all_closed.set()
                self._on_connection(connection)
        elif len(self.connections) >= self._connections_limit:
            self._on_refused("connections_limit")
            connection.abort()
        else:
            self.connections.add(connection)
            self._all_closed.clear()
            self._on_connection(connection)

    def _check(self) -> None:
        now = self._reactor.now()
        late, self._checked_at = now - self._checked_at > 2 * _CHECK_INTERVAL, now
        if late:
            # The loop was held up. What the peers sent meanwhile has not been read yet, so their silence is not
            # theirs: they are judged at the next look.
            return
        for connection in list(self.connections):
            connection.check(now)

    def stop_accepting(self) -> None:
        """No new connections; the ones that are there stay."""
        if self._listener is not None:
            self._listener.close()

    async def drain(self, deadline: float, farewell: Callable[[Connection], object] = lambda _connection: None) -> None:
        """Stops accepting, closes every connection in good order, and drops what is left after `deadline` seconds.

        Args:
            deadline: seconds.
            farewell: called with each connection before it is closed.
        """
        self.stop_accepting()
        for connection in list(self.connections):
            if connection.is_open:
                self._reactor.run_guarded(farewell, connection)
            connection.close(CloseReason.DRAINED)
        try:
            async with asyncio.timeout(deadline):
                await self._all_closed.wait()
        except TimeoutError:
            for connection in list(self.connections):
                connection.abort(CloseReason.DRAINED)
            await self._all_closed.wait()
        if self._timer is not None:
            self._timer.cancel()
