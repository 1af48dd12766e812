"""A reactor in a thread of its own, for programs that are not asyncio's."""

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from trunkline.errors import UsageError
from trunkline.reactor.pollers import new_event_loop
from trunkline.reactor.reactor import Reactor

__all__ = ["ReactorThread"]

T = TypeVar("T")


class ReactorThread:
    """Runs a reactor in a thread of its own, from `start` to `stop`; a context manager does both.

    Args:
        poller: what the loop waits with: see `new_event_loop`.
        name: the thread's name.
        on_error: called in the reactor with each exception that a callback let out, after it was logged.
    """

    def __init__(
        self,
        poller: str = "auto",
        name: str = "trunkline-reactor",
        on_error: Callable[[BaseException], object] | None = None,
    ) -> None:
        self._poller = poller
        self._on_error = on_error
        self._ready: concurrent.futures.Future[Reactor] = concurrent.futures.Future()
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._started = False

    def start(self) -> Reactor:
        """Starts the thread; returns the reactor once it runs. Any thread.

        Raises:
            UsageError: the platform has no such poller, or it was started before.
        """
        if self._started:
            raise UsageError("this reactor's thread was started before; make another one")
        self._started = True
        self._thread.start()
        return self._ready.result()

    @property
    def reactor(self) -> Reactor:
        """The reactor, once started. Any thread."""
        return self._ready.result(timeout=0)

    def run(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Runs a coroutine in the reactor and waits for its result. Any other thread.

        Args:
            work: the coroutine.
            timeout: seconds to wait; None for as long as it takes.

        Raises:
            TimeoutError: it has not come to its end in time; it is cancelled.
        """
        future = self.reactor.submit(work)
        try:
            return future.result(timeout)
        except TimeoutError:
            future.cancel()
            raise

    def stop(self, timeout: float | None = 10.0) -> None:
        """Ends the loop and the thread; tasks that still run are cancelled. Any other thread; twice does nothing.

        Raises:
            TimeoutError: the thread has not ended in time: something in the reactor does not let go.
        """
        if not self._started or not self._thread.is_alive():
            return
        reactor = self._ready.result()
        stop = self._stop
        if stop is not None:
            reactor.loop.call_soon_threadsafe(stop.set)
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise TimeoutError(f"the reactor's thread has not ended within {timeout:g} s")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _main(self) -> None:
        try:
            loop = new_event_loop(self._poller)
        except BaseException as error:
            self._ready.set_exception(error)
            return
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(self._until_stopped())

    async def _until_stopped(self) -> None:
        self._stop = asyncio.Event()
        self._ready.set_result(Reactor(asyncio.get_running_loop(), self._on_error))
        await self._stop.wait()
