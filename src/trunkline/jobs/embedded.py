"""The engine inside the node: coroutines on its loop, plain functions in threads of their own."""

import asyncio
import contextlib
import inspect
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from trunkline.bus import Bus
from trunkline.clock import Clock
from trunkline.db import Writer
from trunkline.errors import TrunklineError
from trunkline.jobs.context import BlockingSyncJob, Record, SyncJob
from trunkline.jobs.engine import DevicePort
from trunkline.jobs.handlers import Handlers
from trunkline.jobs.job_store import Claim, Claimed, Ended, Requeue, claim_jobs, end_job, requeue_jobs
from trunkline.jobs.logbook import Logbook, as_text
from trunkline.jobs.model import Job, JobState
from trunkline.jobs.service import events_topic
from trunkline.logs import event
from trunkline.reactor import Reactor
from trunkline.settings import JobSettings
from trunkline.stats import Stats

__all__ = ["EmbeddedEngine"]

_LOOK_INTERVAL = 5.0  # seconds until it looks for queued jobs unasked
_RETRY_INTERVAL = 1.0  # seconds after the database refused
_log = logging.getLogger(__name__)


class EmbeddedEngine:
    """Runs up to ``jobs.concurrency`` jobs at once, oldest first. Reactor's thread.

    Args:
        node: this node's id.
        handlers: the functions that sync records.
        devices: how handlers reach devices.
    """

    def __init__(
        self,
        *,
        node: str,
        reactor: Reactor,
        writer: Writer,
        bus: Bus,
        clock: Clock,
        stats: Stats,
        settings: JobSettings,
        handlers: Handlers,
        devices: DevicePort,
    ) -> None:
        self._node = node
        self._reactor = reactor
        self._writer = writer
        self._bus = bus
        self._clock = clock
        self._stats = stats
        self._settings = settings
        self._handlers = handlers
        self._devices = devices
        self._woken = asyncio.Event()
        self._runs: set[asyncio.Task[None]] = set()
        self._in_threads: set[asyncio.Task[None]] = set()
        self._claiming: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """See `Engine.start`."""
        lost = await self._writer.submit(requeue_jobs, Requeue(self._node, self._clock.time()))
        if lost:
            event(_log, logging.WARNING, "jobs of a lost node queued again", count=lost)
        self._claiming = self._reactor.spawn(self._claim(), "claim jobs")
        self.wake()

    def wake(self) -> None:
        """See `Engine.wake`."""
        self._woken.set()

    @property
    def running(self) -> int:
        """See `Engine.running`."""
        return len(self._runs)

    async def _claim(self) -> None:
        while True:
            try:
                async with asyncio.timeout(_LOOK_INTERVAL):
                    await self._woken.wait()
            except TimeoutError:
                pass
            self._woken.clear()
            free = self._settings.concurrency - len(self._runs)
            if free <= 0:
                continue  # the next one that ends wakes us
            try:
                claimed = await self._writer.submit(claim_jobs, Claim(self._node, free, self._clock.time()))
            except TrunklineError as error:
                event(_log, logging.ERROR, "jobs not claimed", error=error)
                await asyncio.sleep(_RETRY_INTERVAL)
                self._woken.set()
                continue
            for one in claimed:
                run = self._reactor.spawn(self._run(one), f"job {one.job.id}")
                self._runs.add(run)
                run.add_done_callback(self._ended)
            if len(claimed) == free:
                self._woken.set()

    def _ended(self, run: "asyncio.Task[None]") -> None:
        self._runs.discard(run)
        self._in_threads.discard(run)
        self.wake()

    async def _run(self, claimed: Claimed) -> None:
        job = claimed.job
        topic = events_topic(job.id)
        self._bus.publish(topic, b"")
        logbook = Logbook(
            job.id, job.attempt, claimed.next_n,
            reactor=self._reactor, writer=self._writer, clock=self._clock,
            lines_limit=self._settings.log_lines_limit, committed=lambda: self._bus.publish(topic, b""),
        )  # fmt: skip
        try:
            await self._call_handler(job, logbook)
        except asyncio.CancelledError:
            # The node stops: the job runs again, here or elsewhere.
            logbook.log("the node is stopping; the job will run again", "warning")
            await logbook.close()
            await self._writer.submit(requeue_jobs, Requeue(self._node, self._clock.time(), job.id))
            self._bus.publish(topic, b"")
        except Exception as error:
            text = as_text(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
            logbook.log(text, "error")
            # Our own errors say what happened by themselves; of all others the place is worth knowing.
            unforeseen = None if isinstance(error, TrunklineError) else error
            _log.warning("handler failed", exc_info=unforeseen, extra={"facts": {"job": job.id, "error": text}})
            await self._end(job, logbook, JobState.FAILED, text[:2000])
        else:
            await self._end(job, logbook, JobState.SUCCEEDED, None)

    async def _call_handler(self, job: Job, logbook: Logbook) -> None:
        record = Record(job.type, job.record)
        context = SyncJob(
            job.id, job.attempt, logbook, record=record, devices=self._devices, writer=self._writer, clock=self._clock
        )
        handler = self._handlers.find(job.type)
        if inspect.iscoroutinefunction(handler):
            await self._in_loop(handler(record, context))
        else:
            blocking = BlockingSyncJob(context, logbook, self._reactor.loop)
            if run := asyncio.current_task():
                self._in_threads.add(run)
            await self._in_thread(job.id, handler, record, blocking)

    async def _in_loop(self, handling: Coroutine[Any, Any, Any]) -> None:
        """Awaits a handler. What would end the loop, or pass for this node's stop, is an error like any other."""
        run = asyncio.current_task()
        try:
            await handling
        except (SystemExit, KeyboardInterrupt) as raised:
            raise RuntimeError(f"the handler raised {type(raised).__name__}") from raised
        except asyncio.CancelledError as raised:
            if run is None or run.cancelling():
                raise
            raise RuntimeError("the handler raised CancelledError") from raised

    async def _in_thread(self, name: str, function: Callable[..., Any], *args: object) -> None:
        """Calls `function` in a daemon thread of its own: one that never returns can't keep the node from ending."""
        loop = self._reactor.loop
        ended: asyncio.Future[None] = loop.create_future()

        def finish(error: BaseException | None) -> None:
            if not ended.done():
                if error is None:
                    ended.set_result(None)
                else:
                    ended.set_exception(error)

        def work() -> None:
            error: BaseException | None = None
            try:
                function(*args)
            except Exception as raised:
                error = raised
            except BaseException as raised:
                error = RuntimeError(f"the handler raised {type(raised).__name__}")
            with contextlib.suppress(RuntimeError):  # the loop has ended before the handler
                loop.call_soon_threadsafe(finish, error)

        threading.Thread(target=work, name=f"job-{name}", daemon=True).start()
        await ended

    async def _end(self, job: Job, logbook: Logbook, state: JobState, error: str | None) -> None:
        while True:
            try:
                n = await logbook.close()
                ended = await self._writer.submit(end_job, Ended(job, state, self._clock.time(), error, n))
                break
            except TrunklineError as failure:
                event(_log, logging.ERROR, "job's outcome not recorded yet", job=job.id, error=failure)
                await asyncio.sleep(_RETRY_INTERVAL)
        if ended is not None:
            self._stats.jobs_ended.labels(state).inc()
            event(_log, logging.INFO, "job ended", job=job.id, state=state, error=error or "")
        self._bus.publish(events_topic(job.id), b"")

    async def stop(self, deadline: float) -> None:
        """See `Engine.stop`. Coroutines are cancelled at once; threads, which can't be, have until the deadline."""
        if self._claiming is not None:
            self._claiming.cancel()
        for run in self._runs - self._in_threads:
            run.cancel()
        if self._runs:
            _, late = await asyncio.wait(set(self._runs), timeout=deadline)
            for run in late:
                run.cancel()
            if late:
                await asyncio.wait(late, timeout=1.0)
