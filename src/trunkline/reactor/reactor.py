"""The reactor: an asyncio event loop, and who may touch it."""

import asyncio
import concurrent.futures
import contextvars
import logging
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Self, TypeVar

from trunkline.errors import UsageError, WrongThread
from trunkline.reactor.pollers import new_event_loop
from trunkline.reactor.timers import Timer

__all__ = ["Reactor"]

T = TypeVar("T")
_log = logging.getLogger(__name__)
_default_on_error: contextvars.ContextVar[Callable[[BaseException], object] | None] = contextvars.ContextVar(
    "_default_on_error", default=None
)


class Reactor:
    """One event loop and its one thread.

    There are three ways to have one: `run` makes a loop and runs it in the calling thread; `ReactorThread` runs one
    in a thread of its own; and inside an asyncio program that runs already, it is `current`.

    Args:
        loop: the loop that it stands on; the calling thread must be the loop's.
        on_error: called with each exception that a callback let out, after it was logged.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_error: Callable[[BaseException], object] | None = None,
    ) -> None:
        self.loop = loop
        self.thread_id = threading.get_ident()
        self._on_error = on_error
        self._tasks: set[asyncio.Task[Any]] = set()
        self._calls: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()
        self._woken = False

    @classmethod
    def current(cls, on_error: Callable[[BaseException], object] | None = None) -> Self:
        """A reactor on the loop that runs in the calling thread: for a program that is asyncio's already.

        Args:
            on_error: called with each exception that a callback let out, after it was logged; in `run`, the one that it
                was given need not be repeated.

        Raises:
            RuntimeError: none runs there.
        """
        return cls(asyncio.get_running_loop(), on_error or _default_on_error.get())

    @staticmethod
    def run(
        main: Callable[[], Coroutine[Any, Any, T]],
        poller: str = "auto",
        on_error: Callable[[BaseException], object] | None = None,
    ) -> T:
        """Runs `main` to its end in the calling thread.

        Args:
            main: a coroutine function without arguments.
            poller: what the loop waits with: see `new_event_loop`.
            on_error: what `current` takes in `main` where it is given none.

        Raises:
            UsageError: the platform has no such poller.
        """
        with asyncio.Runner(loop_factory=lambda: new_event_loop(poller)) as runner:
            context = contextvars.copy_context()
            context.run(_default_on_error.set, on_error)
            return runner.run(main(), context=context)

    def now(self) -> float:
        """The loop's monotonic time in seconds. Any thread."""
        return self.loop.time()

    def in_thread(self) -> bool:
        """Whether the caller is in the reactor's thread."""
        return threading.get_ident() == self.thread_id

    def check_thread(self) -> None:
        """Raises `WrongThread` unless the caller is in the reactor's thread."""
        if threading.get_ident() != self.thread_id:
            raise WrongThread("this may be called in the reactor's thread only; hand it over with Reactor.call")

    def call(self, callback: Callable[..., object], *args: object) -> None:
        """Has `callback` called soon, in the reactor. Any thread; the order of one thread's calls is kept.

        Raises:
            RuntimeError: the loop is closed.
        """
        self._calls.append((callback, args))
        # One wake for all that come before the reactor has looked. A caller who sees the mark set can rely on it, as
        # long as the loop is there: the reactor takes it down before it takes the calls.
        if not self._woken or self.loop.is_closed():
            self._woken = True
            try:
                self.loop.call_soon_threadsafe(self._run_calls)
            except RuntimeError:
                self._woken = False
                self._calls.clear()  # nobody will ever take them
                raise

    def _run_calls(self) -> None:
        self._woken = False
        calls = self._calls
        for _ in range(len(calls)):  # what comes meanwhile has a wake of its own
            callback, args = calls.popleft()
            self.run_guarded(callback, *args)

    def call_later(self, delay: float, callback: Callable[[], object]) -> Timer:
        """Has `callback` called in the reactor after `delay` seconds. Any thread."""
        return self.call_at(self.now() + delay, callback)

    def call_at(self, moment: float, callback: Callable[[], object]) -> Timer:
        """Has `callback` called in the reactor at a moment of `now`. Any thread."""
        return self._set(Timer(self, moment, callback, None))

    def every(self, interval: float, callback: Callable[[], object]) -> Timer:
        """Has `callback` called in the reactor each `interval` seconds, without drift. Any thread.

        Raises:
            UsageError: the interval is not more than 0.
        """
        if not interval > 0:
            raise UsageError(f"interval = {interval}: it must be more than 0 seconds")
        return self._set(Timer(self, self.now() + interval, callback, interval))

    def _set(self, timer: Timer) -> Timer:
        if self.in_thread():
            timer.start()
        else:
            self.call(timer.start)
        return timer

    def spawn(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Runs a coroutine as a task that is kept, and whose failure is reported. Reactor's thread."""
        self.check_thread()
        task = self.loop.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def submit(self, work: Coroutine[Any, Any, T]) -> "concurrent.futures.Future[T]":
        """Runs a coroutine in the reactor; another thread can wait for its result. Any other thread.

        Raises:
            WrongThread: the caller is in the reactor's own thread, which would wait for itself.
        """
        if self.in_thread():
            work.close()
            raise WrongThread("the reactor's thread can't wait for itself; use Reactor.spawn, or await it")
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def _task_done(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.report(error, task.get_name())

    def run_guarded(self, callback: Callable[..., object], *args: object) -> None:
        """Calls `callback`; what it raises is reported, and the loop goes on."""
        try:
            callback(*args)
        except (Exception, asyncio.CancelledError) as error:  # the latter of a future whose result it asked for
            self.report(error, getattr(callback, "__qualname__", repr(callback)))

    def report(self, error: BaseException, where: str) -> None:
        """Logs an exception that nobody else will see, and tells `on_error`."""
        _log.error("callback failed", exc_info=error, extra={"facts": {"callback": where}})
        if self._on_error is not None:
            self._on_error(error)
