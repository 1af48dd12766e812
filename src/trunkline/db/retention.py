"""Deletes what ended long ago, little by little, so that the database does not grow for ever."""

from collections.abc import Sequence

from sqlalchemy import Connection, delete, select

from trunkline.clock import Clock
from trunkline.db.tables import batches, commands, job_events, jobs
from trunkline.db.writer import Write, Writer
from trunkline.reactor import Reactor, Timer

__all__ = ["Retention", "prune"]

_INTERVAL = 10.0
_ROWS_AT_ONCE = 500  # so that it never holds up the writes of others for long


def _prune(connection: Connection, items: Sequence[float]) -> list[None]:
    before = min(items)
    old_commands = select(commands.c.seq).where(commands.c.ended_at < before).limit(_ROWS_AT_ONCE)
    connection.execute(delete(commands).where(commands.c.seq.in_(old_commands)))
    old_batches = (
        select(batches.c.seq)
        .where(batches.c.state == "stored", batches.c.stored_at < before)
        .order_by(batches.c.seq)
        .limit(_ROWS_AT_ONCE)
    )
    connection.execute(delete(batches).where(batches.c.seq.in_(old_batches)))
    old_jobs = list(connection.execute(select(jobs.c.id).where(jobs.c.ended_at < before).limit(10)).scalars())
    for job in old_jobs:
        # A long logbook goes in several rounds, and its job with the last of them.
        some = select(job_events.c.n).where(job_events.c.job == job).limit(_ROWS_AT_ONCE)
        deleted = connection.execute(delete(job_events).where(job_events.c.job == job, job_events.c.n.in_(some)))
        if deleted.rowcount < _ROWS_AT_ONCE:
            connection.execute(delete(jobs).where(jobs.c.id == job))
    return [None] * len(items)


prune: Write[float, None] = Write(95, _prune)
"""Deletes some of the commands, jobs and batch records that ended before a moment."""


class Retention:
    """Prunes from time to time. Reactor's thread.

    Args:
        keep_days: how long ended commands, ended jobs and the records of stored batches are kept.
    """

    def __init__(self, reactor: Reactor, writer: Writer, clock: Clock, keep_days: float) -> None:
        self._reactor = reactor
        self._writer = writer
        self._clock = clock
        self._keep_seconds = keep_days * 86_400.0
        self._timer: Timer | None = None

    def start(self) -> None:
        """Begins."""
        self._timer = self._reactor.every(_INTERVAL, self._prune)

    def stop(self) -> None:
        """Ends."""
        if self._timer is not None:
            self._timer.cancel()

    def _prune(self) -> None:
        self._writer.post(prune, self._clock.time() - self._keep_seconds)
