"""The logbook of one run of a job: numbers what it says and writes it down in few commits."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from trunkline.clock import Clock
from trunkline.db import Writer
from trunkline.errors import TrunklineError
from trunkline.jobs.job_store import Events, append_events
from trunkline.jobs.model import JobEvent
from trunkline.reactor import Reactor

__all__ = ["Logbook", "as_text"]

_FLUSH_INTERVAL = 0.02  # seconds: much sooner than a person can see, and few commits for a chatty job
_UNWRITTEN_LIMIT = 10_000
_TEXT_LIMIT = 8192


def as_text(text: str) -> str:
    """The text in UTF-8's range: half a surrogate pair, as in the name of a file that is no UTF-8, is spelled out."""
    return text.encode(errors="backslashreplace").decode()


class Logbook:
    """Takes log lines and progress from any thread, and commits them in order.

    It holds a bounded number of entries that are not written yet, and writes a bounded number of lines: what is
    over either is counted, and the count is written in its place.

    Args:
        job: the job's id.
        attempt: the fence: a later attempt makes the database refuse what this one still writes.
        next_n: the number of the first entry.
        lines_limit: log lines to write at most.
        committed: called in the reactor after each commit.
    """

    def __init__(
        self,
        job: str,
        attempt: int,
        next_n: int,
        *,
        reactor: Reactor,
        writer: Writer,
        clock: Clock,
        lines_limit: int,
        committed: Callable[[], object],
    ) -> None:
        self._job = job
        self._attempt = attempt
        self._next_n = next_n
        self._reactor = reactor
        self._writer = writer
        self._clock = clock
        self._lines_left = lines_limit
        self._committed = committed
        self._lock = threading.Lock()
        self._unwritten: list[JobEvent] = []
        self._under_way = 0
        self._skipped = 0
        self._progress: tuple[float, float | None] | None = None
        self._flush_scheduled = False
        self._closed = False

    def log(self, text: str, level: str) -> None:
        """Adds a line. Any thread; never waits."""
        with self._lock:
            if self._closed or self._lines_left <= 0 or len(self._unwritten) + self._under_way >= _UNWRITTEN_LIMIT:
                self._skipped += 1
                return
            self._say_skipped()
            self._lines_left -= 1
            if len(text) > _TEXT_LIMIT:
                text = f"{text[:_TEXT_LIMIT]}... ({len(text)} characters)"
            self._append("log", {"level": level, "text": as_text(text)})
        self._schedule_flush()

    def progress(self, done: float, total: float | None) -> None:
        """Notes how far the job is; of several within one flush the last counts. Any thread; never waits."""
        with self._lock:
            if self._closed:
                return
            self._progress = (done, total)
        self._schedule_flush()

    def _append(self, kind: str, data: dict[str, Any]) -> None:
        self._unwritten.append(JobEvent(self._next_n, self._clock.time(), kind, data))
        self._next_n += 1

    def _say_skipped(self) -> None:
        if self._skipped:
            self._append("log", {"level": "warning", "text": f"{self._skipped} lines skipped"})
            self._skipped = 0

    def _schedule_flush(self) -> None:
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._reactor.call(lambda: self._reactor.loop.call_later(_FLUSH_INTERVAL, self._flush))

    def _flush(self) -> "asyncio.Future[None] | None":
        self._flush_scheduled = False
        events = self._take()
        if not events:
            return None
        try:
            committed = self._writer.submit(append_events, Events(self._job, self._attempt, events))
        except TrunklineError:
            with self._lock:  # the writer is full: keep them for the next flush, within our own bound
                self._unwritten = events + self._unwritten
                self._under_way -= len(events)
            if not self._closed:
                self._schedule_flush()
            return None
        committed.add_done_callback(lambda done: self._written(len(events), done))
        return committed

    def _take(self) -> list[JobEvent]:
        with self._lock:
            if self._progress is not None:
                done, total = self._progress
                self._progress = None
                self._append("progress", {"done": done, "total": total})
            events, self._unwritten = self._unwritten, []
            self._under_way += len(events)
        return events

    def _written(self, count: int, done: "asyncio.Future[None]") -> None:
        with self._lock:
            self._under_way -= count
        if not done.cancelled() and done.exception() is None:
            self._committed()

    async def close(self) -> int:
        """Writes what is left and takes no more; returns the number that the next entry would have."""
        with self._lock:
            self._say_skipped()
            self._closed = True
        last = self._flush()
        if last is not None:
            await last
        return self._next_n
