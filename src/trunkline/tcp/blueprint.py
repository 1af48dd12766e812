"""What all connections of one server or client have in common."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol

from trunkline.errors import ConnectionClosed
from trunkline.reactor import Reactor
from trunkline.tcp.budget import PROCESS_BUDGET, OutboundBudget
from trunkline.tcp.deadlines import Deadlines
from trunkline.tcp.options import ConnectionOptions
from trunkline.wire import Session
from trunkline.wire.codecs import Codec

if TYPE_CHECKING:
    from trunkline.tcp.connection import TcpConnection

__all__ = ["Blueprint", "Callback", "Callbacks", "Owner"]

Callback = Callable[..., object] | Callable[..., Awaitable[object]]
"""A function or a coroutine function."""


class Owner(Protocol):
    """The server or client that a connection belongs to."""

    def connection_made(self, connection: "TcpConnection") -> None:
        """The transport is up."""

    def connection_established(self, connection: "TcpConnection") -> None:
        """The peer has said who it is."""

    def connection_lost(self, connection: "TcpConnection") -> None:
        """The transport is down."""


class Callbacks:
    """What the user wants to hear of: functions, or coroutine functions that run as tasks. None for nothing.

    Attributes:
        on_connection: (connection) when it is up, and again when it is down: ``close_reason`` is set then.
        on_message: (connection, message). Without it, messages wait for ``async for message in connection``.
        on_error: (connection, error) before the connection of a peer that broke the protocol is closed.
        on_write_complete: (connection) when all that was sent has been taken by the operating system.
        on_high_water: (connection, unsent bytes) when more is unsent than the high-water mark.
    """

    __slots__ = ("on_connection", "on_error", "on_high_water", "on_message", "on_write_complete")

    def __init__(
        self,
        on_message: Callback | None = None,
        *,
        on_connection: Callback | None = None,
        on_error: Callback | None = None,
        on_write_complete: Callback | None = None,
        on_high_water: Callback | None = None,
    ) -> None:
        self.on_message: Callback | None = on_message
        self.on_connection: Callback | None = on_connection
        self.on_error: Callback | None = on_error
        self.on_write_complete: Callback | None = on_write_complete
        self.on_high_water: Callback | None = on_high_water


class Blueprint:
    """What all connections of one server or client have in common. Reactor's thread.

    Args:
        reactor: where they live.
        owner: whom they tell that they are up and down.
        callbacks: the user's.
        options: their bounds.
        codec: between the framer and the user; None for bytes as they are.
        budget: what they may hold unsent together; None for the one of the process.
    """

    __slots__ = ("_deadlines", "budget", "callbacks", "codec", "options", "owner", "reactor", "tasks")

    def __init__(
        self,
        reactor: Reactor,
        owner: Owner,
        callbacks: Callbacks,
        options: ConnectionOptions | None = None,
        codec: Codec[Any] | None = None,
        budget: OutboundBudget | None = None,
    ) -> None:
        self.reactor = reactor
        self.owner = owner
        self.options = options or ConnectionOptions()
        self.codec = codec
        self.budget = budget or PROCESS_BUDGET
        self.tasks: set[asyncio.Task[object]] = set()
        self._deadlines: Deadlines | None = None
        self.callbacks = Callbacks(
            self._plain(callbacks.on_message, retains=True),
            on_connection=self._plain(callbacks.on_connection),
            on_error=self._plain(callbacks.on_error),
            on_write_complete=self._plain(callbacks.on_write_complete),
            on_high_water=self._plain(callbacks.on_high_water),
        )

    def deadlines(self, session: Session | None) -> Deadlines:
        """The deadlines of its connections, which all have sessions of one kind or none."""
        if self._deadlines is None:
            self._deadlines = Deadlines.of(self.options, session)
        return self._deadlines

    def _plain(self, callback: Callback | None, *, retains: bool = False) -> Callback | None:
        """A function that starts a task, where the user gave a coroutine function."""
        if callback is None or not (
            inspect.iscoroutinefunction(callback) or inspect.iscoroutinefunction(getattr(callback, "__call__", None))  # noqa: B004
        ):
            return callback

        def start(connection: "TcpConnection", *args: object) -> None:
            task: asyncio.Task[object] = self.reactor.loop.create_task(callback(connection, *args))  # type: ignore[arg-type]
            self.tasks.add(task)
            if retains:
                connection.retain()
            task.add_done_callback(lambda task: self._task_done(task, connection, retains))

        return start

    def _task_done(self, task: "asyncio.Task[object]", connection: "TcpConnection", retained: bool) -> None:
        self.tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        # That its peer has left is no failure of a handler that wanted to hear from it, or to answer.
        gone = isinstance(error, ConnectionClosed) and connection.close_reason is not None
        if error is not None and not gone:
            connection.fail(error)
        if retained:
            connection.release()

    async def finish_tasks(self, deadline: float) -> None:
        """Waits for the handlers that run still; those that take longer are cancelled.

        Args:
            deadline: the moment of the reactor's clock until which they have time.
        """
        tasks = self.tasks - {asyncio.current_task()}
        if tasks:
            await asyncio.wait(tasks, timeout=max(0.0, deadline - self.reactor.now()))
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)
