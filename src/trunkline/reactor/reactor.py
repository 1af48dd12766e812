"""The reactor: an asyncio event loop, uvloop's where it is installed, and who may touch it."""

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from trunkline.errors import WrongThread

__all__ = ["Reactor", "Timer"]

T = TypeVar("T")
_log = logging.getLogger(__name__)


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop  # noqa: PLC0415  it has no build for every platform, and the rest runs without
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


class Timer:
    """A callback that comes again and again, until `cancel`. Reactor's thread."""

    __slots__ = ("_callback", "_handle", "_interval", "_next_at", "_reactor")

    def __init__(self, reactor: "Reactor", interval: float, callback: Callable[[], object]) -> None:
        self._reactor = reactor
        self._interval = interval
        self._callback = callback
        self._next_at = reactor.now() + interval
        self._handle: asyncio.TimerHandle | None = reactor.loop.call_at(self._next_at, self._fire)

    def _fire(self) -> None:
        # From the moment that was due, not from now: the period does not drift. Periods that were missed
        # altogether (a stopped process, a blocked loop) are left out, not made up for in a burst.
        now = self._reactor.now()
        missed = max(0, int((now - self._next_at) / self._interval))
        self._next_at += self._interval * (missed + 1)
        self._handle = self._reactor.loop.call_at(self._next_at, self._fire)
        self._reactor.run_guarded(self._callback)

    def cancel(self) -> None:
        """No further calls. Cancelling twice does nothing."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


class Reactor:
    """One event loop and its one thread.

    Inside a running asyncio program make it with ``Reactor(asyncio.get_running_loop())``; `run` makes and
    runs a loop of its own.

    Args:
        loop: the running loop that it stands on; the calling thread must be the loop's.
        on_error: called with each exception that a callback let out, after it was logged.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_error: Callable[[BaseException], object] | None = None,
    ) -> None:
        self.loop = loop
        self._on_error = on_error
        self._thread = threading.get_ident()
        self._tasks: set[asyncio.Task[Any]] = set()

    @staticmethod
    def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Runs `main` to its end in the calling thread, on uvloop where it is installed."""
        with asyncio.Runner(loop_factory=_new_loop) as runner:
            return runner.run(main())

    def now(self) -> float:
        """The loop's monotonic time in seconds."""
        return self.loop.time()

    def check_thread(self) -> None:
        """Raises `WrongThread` unless the caller is in the reactor's thread."""
        if threading.get_ident() != self._thread:
            raise WrongThread("this may be called in the reactor's thread only; hand it over with Reactor.call")

    def call(self, callback: Callable[..., object], *args: object) -> None:
        """Has `callback` called soon, in the reactor. Any thread; the order of one thread's calls is kept."""
        self.loop.call_soon_threadsafe(lambda: self.run_guarded(callback, *args))

    def every(self, interval: float, callback: Callable[[], object]) -> Timer:
        """Has `callback` called each `interval` seconds, without drift. Reactor's thread."""
        self.check_thread()
        return Timer(self, interval, callback)

    def spawn(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Runs a coroutine as a task that is kept, and whose failure is reported. Reactor's thread."""
        self.check_thread()
        task = self.loop.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.report(error, task.get_name())

    def run_guarded(self, callback: Callable[..., object], *args: object) -> None:
        """Calls `callback`; what it raises is reported, and the loop goes on."""
        try:
            callback(*args)
        except Exception as error:
            self.report(error, getattr(callback, "__qualname__", repr(callback)))

    def report(self, error: BaseException, where: str) -> None:
        """Logs an exception that nobody else will see, and tells `on_error`."""
        _log.error("callback failed", exc_info=error, extra={"facts": {"callback": where}})
        if self._on_error is not None:
            self._on_error(error)
