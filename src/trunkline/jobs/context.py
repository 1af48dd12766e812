"""What a handler is given: the record, and the job that it runs in."""

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any, NamedTuple, TypeVar

from trunkline.clock import Clock
from trunkline.db import Writer
from trunkline.errors import UsageError
from trunkline.jobs.engine import DevicePort
from trunkline.jobs.logbook import Logbook
from trunkline.jobs.records import NewEntries, save_entries

__all__ = ["BlockingSyncJob", "Record", "SyncJob"]

T = TypeVar("T")
_MOST_PROGRESS = 2**53  # beyond it a float does not count in ones any more
_LEVELS = ("debug", "info", "warning", "error")


class Record(NamedTuple):
    """What is to be synced: a type, and an id among those of the type."""

    type: str
    id: str


class _Reporting:
    """What works the same way in a coroutine and in a thread.

    Attributes:
        id: the job's id.
        attempt: 1 for the first run, 2 for the second, and so on.
    """

    def __init__(self, job_id: str, attempt: int, logbook: Logbook) -> None:
        self.id = job_id
        self.attempt = attempt
        self._logbook = logbook

    def log(self, text: str, level: str = "info") -> None:
        """Adds a line to the job's log, at once visible to whoever follows it. Any thread; never waits.

        Args:
            text: the line; cut after 8,192 characters.
            level: ``debug``, ``info``, ``warning`` or ``error``.
        """
        if level not in _LEVELS:
            raise UsageError(f'level = "{level}": it must be one of {", ".join(_LEVELS)}')
        self._logbook.log(str(text), level)

    def progress(self, done: float, total: float | None = None) -> None:
        """Says how far the job is: `done` of `total`, in any unit. Any thread; never waits.

        Raises:
            UsageError: one of them is no number.
        """
        for name, value in (("done", done), ("total", total)):
            if value is not None and not (isinstance(value, int | float) and abs(value) < _MOST_PROGRESS):
                raise UsageError(f"{name} = {value!r}: it must be a number")
        self._logbook.progress(done, total)


class SyncJob(_Reporting):
    """The running job, as a coroutine handler gets it. Reactor's thread but where a method says otherwise."""

    def __init__(
        self,
        job_id: str,
        attempt: int,
        logbook: Logbook,
        *,
        record: Record,
        devices: DevicePort,
        writer: Writer,
        clock: Clock,
    ) -> None:
        super().__init__(job_id, attempt, logbook)
        self._record = record
        self._devices = devices
        self._writer = writer
        self._clock = clock

    async def ask(self, device: str, cmd: str, *, timeout: float | None = None) -> str:
        """Sends a command to a device and returns its reply. See `DevicePort.ask`."""
        return await self._devices.ask(device, cmd, timeout=timeout)

    async def save(self, entries: Mapping[str, Any]) -> None:
        """Writes entries of the record, all of them or none: new keys are added, known ones replaced.

        Args:
            entries: JSON values by key; a key has at most 256 characters.

        Raises:
            UsageError: a key is too long, or a value is no JSON.
            RunOver: the job runs anew, elsewhere or after a restart; this run has no say any more.
        """
        record_type, record = self._record
        new = NewEntries.of(self.id, self.attempt, record_type, record, entries, self._clock.time())
        await self._writer.submit(save_entries, new)


class BlockingSyncJob(_Reporting):
    """The running job, as a plain function gets it, in its own thread. Its methods block."""

    def __init__(self, job: SyncJob, logbook: Logbook, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(job.id, job.attempt, logbook)
        self._job = job
        self._loop = loop

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def ask(self, device: str, cmd: str, *, timeout: float | None = None) -> str:
        """Sends a command to a device and returns its reply. See `DevicePort.ask`."""
        return self._wait(self._job.ask(device, cmd, timeout=timeout))

    def save(self, entries: Mapping[str, Any]) -> None:
        """Writes entries of the record. See `SyncJob.save`."""
        self._wait(self._job.save(entries))
