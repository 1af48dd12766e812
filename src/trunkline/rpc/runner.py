"""Runs methods within bounds: so many at once, so many that wait, the rest refused at once."""

import asyncio
import contextlib
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from trunkline.errors import Overloaded
from trunkline.reactor import Reactor
from trunkline.rpc.context import CallContext, current_call
from trunkline.rpc.limits import RpcLimits
from trunkline.rpc.service import Method
from trunkline.rpc.streams import Credits, IncomingItems

if TYPE_CHECKING:
    from trunkline.rpc.peer import RpcPeer

__all__ = ["Run", "Runner"]


class Run:
    """One call that this side runs, or will.

    A run has an end of its own, besides the call's: a thread can't be broken off, and a task may take its time over it.
    Until then it counts, so that who calls and cancels can't have more at once than who waits.

    Attributes:
        call_id: the call's; 0 for a notification.
        method, arguments, context: what is run.
        size: the bytes of the arguments.
        over: whether nobody waits for it any more.
        credits: for the items of its result, where that is a stream.
        items: those of its argument that is one.
        started_at: in nanoseconds, when it came.
    """

    __slots__ = (
        "_begun", "_runner", "_task", "arguments", "call_id", "context", "credits", "items", "method", "over", "peer",
        "size", "started_at",
    )  # fmt: skip

    def __init__(
        self,
        peer: "RpcPeer",
        call_id: int,
        method: Method,
        arguments: tuple[Any, ...],
        context: CallContext,
        size: int,
    ) -> None:
        self.peer = peer
        self.call_id = call_id
        self.method = method
        self.arguments = arguments
        self.context = context
        self.size = size
        self.over = False
        self.credits: Credits | None = None
        self.items: IncomingItems | None = None
        self.started_at = perf_counter_ns()
        self._runner: Runner | None = None
        self._task: asyncio.Task[None] | None = None
        self._begun = False

    def stop(self) -> None:
        """Nobody waits for it any more: breaks it off, as far as that can be done."""
        if self.over:
            return
        self.over = True
        if self._task is not None and self._runner is not None:
            self._task.cancel()
            if not self._begun:  # so none of it will ever run, not even what is to run at its end
                self._runner.finished(self)

    def start(self, runner: "Runner") -> None:
        """Runs it. The runner's own."""
        self._runner = runner
        if self.method.kind == "blocking":
            runner.pool.submit(self._run_in_thread, runner)
        else:
            self._task = runner.reactor.loop.create_task(self._run(runner), name=self.method.name)

    async def _run(self, runner: "Runner") -> None:
        self._begun = True
        current_call.set(self.context)
        try:
            result = await (self._send_items() if self.method.kind == "stream" else self._result())
        except asyncio.CancelledError:
            self.peer.broken_off(self)
        except Exception as error:
            self.peer.failed(self, error)
        else:
            self.peer.returned(self, result)
        finally:
            runner.finished(self)

    async def _result(self) -> Any:
        return await self.method.function(*self.arguments)

    async def _send_items(self) -> None:
        credits_left = self.credits
        async with contextlib.aclosing(self.method.function(*self.arguments)) as items:
            async for item in items:
                if credits_left is not None:  # else it was notified of, and nobody wants them
                    await credits_left.take()
                    await self.peer.send_item(self, item)

    def _run_in_thread(self, runner: "Runner") -> None:
        result: Any = None
        failure: BaseException | None = None
        if not self.over:
            token = current_call.set(self.context)
            try:
                result = self.method.function(*self.arguments)
            except BaseException as error:
                failure = error
            finally:
                current_call.reset(token)
        with contextlib.suppress(RuntimeError):  # the loop is closed: there is nobody to tell
            runner.reactor.call(self._thread_done, runner, result, failure)

    def _thread_done(self, runner: "Runner", result: Any, failure: BaseException | None) -> None:
        if failure is not None:
            self.peer.failed(self, failure)
        else:
            self.peer.returned(self, result)
        runner.finished(self)


class Runner:
    """Runs the calls of all peers of a server or client. Reactor's thread.

    Args:
        reactor: where they run.
        limits: how many.

    Attributes:
        running: calls that run.
        pool: the threads for methods that block.
    """

    def __init__(self, reactor: Reactor, limits: RpcLimits) -> None:
        self.reactor = reactor
        self.limits = limits
        self.running = 0
        self._waiting: deque[Run] = deque()
        self._pool: ThreadPoolExecutor | None = None
        self._idle: asyncio.Future[None] | None = None

    @property
    def waiting(self) -> int:
        """Calls that wait to be run."""
        return len(self._waiting)

    @property
    def pool(self) -> ThreadPoolExecutor:
        """The threads for methods that block; made when the first of them is called."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.limits.threads, thread_name_prefix="trunkline-rpc")
        return self._pool

    def admit(self, run: Run) -> None:
        """Runs a call, now or when others have ended.

        Raises:
            Overloaded: a bound is reached. It will not be run.
        """
        method, limits, works = run.method, self.limits, run.peer.runs
        if method.limit is not None and method.running >= method.limit:
            raise Overloaded(f"{method.name}: {method.limit} calls of it are under way; try again later")
        if len(works) >= limits.connection_limit:
            raise Overloaded(f"{limits.connection_limit} calls of this connection are under way; wait for one of them")
        if run.peer.tally.held + run.size > limits.connection_bytes and works:
            raise Overloaded(f"the calls of this connection hold {limits.connection_bytes} bytes; wait for one of them")
        if self.running >= limits.running_limit:
            if len(self._waiting) >= limits.waiting_limit:
                raise Overloaded(f"{limits.running_limit} calls run and {limits.waiting_limit} wait; try again later")
            self._waiting.append(run)
        else:
            self._start(run)
        method.running += 1
        works.add(run)
        run.peer.tally.held += run.size

    def _start(self, run: Run) -> None:
        self.running += 1
        run.start(self)

    def finished(self, run: Run) -> None:
        """What was run has come to its end."""
        self.running -= 1
        self._forget(run)
        while self._waiting and self.running < self.limits.running_limit:
            following = self._waiting.popleft()
            if following.over:
                self._forget(following)
            else:
                self._start(following)
        if self._idle is not None and not self.running and not self._idle.done():
            self._idle.set_result(None)

    def _forget(self, run: Run) -> None:
        run.method.running -= 1
        run.peer.runs.discard(run)
        run.peer.tally.held -= run.size
        if run.items is not None:
            run.items.drop()

    async def idle(self) -> None:
        """Waits until nothing runs."""
        if self.running:
            self._idle = self.reactor.loop.create_future()
            await self._idle

    def stop(self) -> None:
        """Lets the threads end, when they have done what they do."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
