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

_TELLING_LIMIT = 256

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

    A function that returns a coroutine, as ``lambda connection, message: handle(message)`` may do, counts as a
    coroutine function. For `on_message`, what it returns for a connection's first message tells.

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
        pauses_over_high: whether reading pauses over the high-water mark, where the options do not say.
    """

    __slots__ = (
        "_deadlines",
        "_telling",
        "budget",
        "callbacks",
        "codec",
        "options",
        "owner",
        "pauses_over_high",
        "reactor",
        "tasks",
    )

    def __init__(
        self,
        reactor: Reactor,
        owner: Owner,
        callbacks: Callbacks,
        options: ConnectionOptions | None = None,
        codec: Codec[Any] | None = None,
        budget: OutboundBudget | None = None,
        *,
        pauses_over_high: bool = True,
    ) -> None:
        self.reactor = reactor
        self.owner = owner
        self.options = options or ConnectionOptions()
        self.codec = codec
        self.budget = budget or PROCESS_BUDGET
        pauses = self.options.pause_over_high
        self.pauses_over_high = pauses_over_high if pauses is None else pauses
        self.tasks: set[asyncio.Task[object]] = set()
        self._telling = 0
        self._deadlines: Deadlines | None = None
        self.callbacks = Callbacks(
            self._message_handler(callbacks.on_message),
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

    def tell(self, callback: Callback | None, *args: object) -> None:
        """Calls what the user gave to hear of something that concerns no connection: a function or coroutine function.

        What it raises is reported. Of its coroutines, 256 may run at a time; while they do, no further one is begun.
        """
        if callback is None:
            return
        name = getattr(callback, "__qualname__", repr(callback))
        try:
            result = callback(*args)
        except (Exception, asyncio.CancelledError) as error:
            self.reactor.report(error, name)
            return
        if not inspect.iscoroutine(result):
            return
        if self._telling >= _TELLING_LIMIT:
            result.close()  # it has not begun
            return
        task: asyncio.Task[object] = self.reactor.spawn(result, name)
        self._telling += 1
        self.tasks.add(task)
        task.add_done_callback(self._told)

    def _told(self, task: "asyncio.Task[object]") -> None:
        self._telling -= 1
        self.tasks.discard(task)

    def _plain(self, callback: Callback | None, *, retains: bool = False) -> Callable[..., bool] | None:
        """A function that calls the user's, and runs as a task what that returns to be awaited; says whether it did."""
        if callback is None:
            return None

        def run(connection: "TcpConnection", *args: object) -> bool:
            result = callback(connection, *args)
            if not inspect.iscoroutine(result):
                return False
            task: asyncio.Task[object] = self.reactor.loop.create_task(result)
            self.tasks.add(task)
            if retains:
                connection.retain()
            task.add_done_callback(lambda task: self._task_done(task, connection, retains))
            return True

        return run

    def _message_handler(self, on_message: Callback | None) -> Callback | None:
        """As `_plain`; a plain function is looked at once for each connection, and is called as it is from then on."""
        run = self._plain(on_message, retains=True)
        if on_message is None or run is None or _is_coroutine_function(on_message):
            return run

        def look(connection: "TcpConnection", *args: object) -> None:
            if run(connection, *args):
                self.callbacks.on_message = run
                connection.hand_to(run)
            else:
                connection.hand_to(on_message)

        return look

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


def _is_coroutine_function(callback: Callback) -> bool:
    return inspect.iscoroutinefunction(callback) or inspect.iscoroutinefunction(getattr(callback, "__call__", None))  # noqa: B004
