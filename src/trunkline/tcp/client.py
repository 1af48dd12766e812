"""A TCP client that stays connected."""

import asyncio
import contextlib
from collections.abc import Callable

from trunkline.errors import ProtocolError
from trunkline.reactor import Reactor
from trunkline.tcp.backoff import FullJitter
from trunkline.tcp.connection import Connection, ConnectionOptions
from trunkline.wire import Framer

__all__ = ["Client"]


class Client:
    """Connects, and connects again with full-jitter back-off, until it is stopped. Reactor's thread.

    Args:
        reactor: where the connection lives.
        host, port: the server's address.
        new_framer: makes the framer of each new connection.
        on_message: called with the connection and each message.
        on_connection: called when the connection is up, and again when it is down.
        on_error: called when the server broke the protocol, before the connection is closed.
        on_connect_failed: called with the error when an attempt to connect failed.
        backoff: how long to wait after a failed or lost connection.
        options: the bounds of each connection.
        connect_timeout: seconds that one attempt may take.
    """

    def __init__(
        self,
        reactor: Reactor,
        host: str,
        port: int,
        new_framer: Callable[[], Framer],
        on_message: Callable[[Connection, bytes], object],
        *,
        on_connection: Callable[[Connection], object] = lambda _connection: None,
        on_error: Callable[[Connection, ProtocolError], object] = lambda _connection, _error: None,
        on_connect_failed: Callable[[OSError], object] = lambda _error: None,
        backoff: FullJitter | None = None,
        options: ConnectionOptions | None = None,
        connect_timeout: float = 10.0,
    ) -> None:
        self.connection: Connection | None = None
        self._reactor = reactor
        self._address = (host, port)
        self._new_framer = new_framer
        self._on_message = on_message
        self._on_connection = on_connection
        self._on_error = on_error
        self._on_connect_failed = on_connect_failed
        self._backoff = backoff or FullJitter()
        self._options = options or ConnectionOptions()
        self._connect_timeout = connect_timeout
        self._lost = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to connect."""
        if self._task is None:
            self._task = self._reactor.spawn(self._stay_connected(), f"client {self._address[0]}:{self._address[1]}")

    async def stop(self) -> None:
        """Closes the connection in good order and connects no more."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self.connection is not None:
            self.connection.close()
            await self._lost.wait()

    async def _stay_connected(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._connect_timeout):
                    await self._reactor.loop.create_connection(self._new_connection, *self._address)
            except OSError as error:
                self._on_connect_failed(error)
            else:
                await self._lost.wait()
            await asyncio.sleep(self._backoff.next_wait())

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
        if connection.is_open:
            self.connection = connection
            self._lost.clear()
            self._backoff.reset()
        else:
            self.connection = None
            self._lost.set()
        self._reactor.run_guarded(self._on_connection, connection)
