"""Asking for jobs, and following them."""

import asyncio
import logging
from collections.abc import AsyncGenerator

from sqlalchemy import Connection, func, select

from trunkline.bus import Bus
from trunkline.clock import Clock
from trunkline.db import Database, Writer
from trunkline.db.tables import jobs
from trunkline.errors import NotFound
from trunkline.ids import IdMaker
from trunkline.jobs.engine import Engine
from trunkline.jobs.handlers import Handlers
from trunkline.jobs.job_store import NewJob, create_job, job_of, read_events
from trunkline.jobs.model import FINAL_STATES, Job, JobEvent
from trunkline.jobs.records import check_name
from trunkline.logs import event

__all__ = ["Jobs", "events_topic"]

_PAGE = 500
_LOOK_INTERVAL = 5.0  # seconds until a follower looks for itself, should a doorbell be lost
_log = logging.getLogger(__name__)


def events_topic(job_id: str) -> str:
    """Where it is told that a job's logbook has new entries."""
    return f"job.events.{job_id}"


class Jobs:
    """The way in for jobs. Reactor's thread."""

    def __init__(
        self,
        *,
        database: Database,
        writer: Writer,
        bus: Bus,
        clock: Clock,
        ids: IdMaker,
        handlers: Handlers,
        engine: Engine,
    ) -> None:
        self._database = database
        self._writer = writer
        self._bus = bus
        self._clock = clock
        self._ids = ids
        self._handlers = handlers
        self._engine = engine
        self._followers: set[asyncio.Event] = set()
        self._stopped = False

    def stop_following(self) -> None:
        """Ends every `follow`: the node is stopping. Whoever follows can go on at another node, or later."""
        self._stopped = True
        for rung in self._followers:
            rung.set()

    async def sync(self, record_type: str, record: str) -> tuple[Job, bool]:
        """Has a record synced. Returns the job once it is on disk, and whether it joined one that was unfinished.

        Raises:
            NotFound: no handler is registered for the type.
            UsageError: a name that can't be one.
        """
        self._handlers.find(record_type)
        new = NewJob(self._ids(), check_name("type", record_type), check_name("id", record), self._clock.time())
        job, joined = await self._writer.submit(create_job, new)
        if not joined:
            event(_log, logging.INFO, "job queued", job=job.id, type=job.type, record=job.record)
            self._engine.wake()
        return job, joined

    async def get(self, job_id: str) -> Job:
        """The job as it stands.

        Raises:
            NotFound: there is none, or it ended too long ago.
        """

        def query(connection: Connection) -> Job:
            row = connection.execute(select(jobs).where(jobs.c.id == job_id)).one_or_none()
            if row is None:
                raise NotFound(f'there is no job "{job_id}"; it may have ended too long ago')
            return job_of(row)

        return await self._database.read(query)

    async def page(self, *, limit: int, before: str | None = None) -> list[Job]:
        """Jobs, newest first; those older than the job `before`, if given."""

        def query(connection: Connection) -> list[Job]:
            found = select(jobs).order_by(jobs.c.seq.desc()).limit(limit)
            if before is not None:
                found = found.where(jobs.c.seq < select(jobs.c.seq).where(jobs.c.id == before).scalar_subquery())
            return [job_of(row) for row in connection.execute(found)]

        return await self._database.read(query)

    async def count(self) -> int:
        """How many there are."""
        query = select(func.count()).select_from(jobs)
        return await self._database.read(lambda connection: connection.execute(query).scalar_one())

    async def has_events(self, job_id: str, after: int) -> bool:
        """Whether following the job from `after` would bring anything, now or later.

        Raises:
            NotFound: there is no such job.
        """
        job = await self.get(job_id)
        if job.state not in FINAL_STATES:
            return True
        return bool(await self._database.read(lambda connection: read_events(connection, job_id, after, 1)))

    async def follow(self, job_id: str, after: int = 0) -> AsyncGenerator[JobEvent, None]:
        """The entries of a job's logbook with numbers above `after`, up to the one that tells its outcome.

        Each comes once, in order, whether it was written long ago or comes while one looks.
        """
        rung = asyncio.Event()
        subscription = self._bus.subscribe(events_topic(job_id), lambda _topic, _message: rung.set())
        self._followers.add(rung)
        try:
            while not self._stopped:
                rung.clear()
                cursor = after
                page = await self._database.read(lambda connection: read_events(connection, job_id, cursor, _PAGE))  # noqa: B023
                for entry in page:
                    after = entry.n
                    yield entry
                    if entry.kind == "state" and entry.data["state"] in FINAL_STATES:
                        return
                if len(page) < _PAGE:
                    try:
                        async with asyncio.timeout(_LOOK_INTERVAL):
                            await rung.wait()
                    except TimeoutError:
                        if not await self.has_events(job_id, after):
                            return
        finally:
            subscription.cancel()
            self._followers.discard(rung)
