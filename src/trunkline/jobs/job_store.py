"""The rows of jobs and their logbooks: what the writer writes, and how they are read."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, Float, Integer, Text, bindparam, column, func, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from trunkline.db import Write, encode_rows, incoming
from trunkline.db.tables import job_events, jobs, records
from trunkline.jobs.model import Job, JobEvent, JobState

__all__ = [
    "Claim",
    "Claimed",
    "Ended",
    "Events",
    "NewJob",
    "Requeue",
    "append_events",
    "claim_jobs",
    "create_job",
    "end_job",
    "job_of",
    "read_events",
    "requeue_jobs",
]


class NewJob(NamedTuple):
    """A request to sync a record."""

    id: str
    type: str
    record: str
    at: float


class Claim(NamedTuple):
    """A node's request for jobs to run."""

    node: str
    limit: int
    at: float


class Claimed(NamedTuple):
    """A job that this node runs now, and the number of the next entry of its logbook."""

    job: Job
    next_n: int


class Requeue(NamedTuple):
    """Running jobs that are to run again: one job, or with `job` None all those of other nodes than `node`."""

    node: str
    at: float
    job: str | None = None


class Events(NamedTuple):
    """Entries of one job's logbook."""

    job: str
    attempt: int
    events: list[JobEvent]


class Ended(NamedTuple):
    """A job's outcome."""

    job: Job
    state: JobState
    at: float
    error: str | None
    n: int


_by_id = select(jobs).where(jobs.c.id == bindparam("job_id"))
_unfinished = select(jobs).where(
    jobs.c.type == bindparam("type_"),
    jobs.c.record == bindparam("record_"),
    jobs.c.state.in_([str(JobState.QUEUED), str(JobState.RUNNING)]),
)
_add_record = upsert(records).values(
    type=bindparam("type_"), id=bindparam("record_"), title=bindparam("record_"), job=bindparam("job_id")
)
_link_record = _add_record.on_conflict_do_update(index_elements=["type", "id"], set_={"job": _add_record.excluded.job})
_last_n = select(func.max(job_events.c.n)).where(job_events.c.job == bindparam("job_id"))


def _add_event(connection: Connection, job_id: str, n: int, at: float, kind: str, data: dict[str, Any]) -> None:
    text = msgspec.json.encode(data).decode()
    connection.execute(insert(job_events), {"job": job_id, "n": n, "at": at, "kind": kind, "data": text})


def _add_state(connection: Connection, job: Job, n: int, at: float) -> None:
    _add_event(connection, job.id, n, at, "state", {"state": job.state, "attempt": job.attempt, "error": job.error})


def _create_job(connection: Connection, items: Sequence[NewJob]) -> list[tuple[Job, bool]]:
    results: list[tuple[Job, bool]] = []
    for new in items:
        row = connection.execute(_unfinished, {"type_": new.type, "record_": new.record}).first()
        if row is not None:
            results.append((job_of(row), True))
            continue
        connection.execute(
            insert(jobs),
            {
                "id": new.id, "type": new.type, "record": new.record, "state": str(JobState.QUEUED), "attempt": 0,
                "created_at": new.at,
            },
        )  # fmt: skip
        connection.execute(_link_record, {"type_": new.type, "record_": new.record, "job_id": new.id})
        job = job_of(connection.execute(_by_id, {"job_id": new.id}).one())
        _add_state(connection, job, 1, new.at)
        results.append((job, False))
    return results


create_job: Write[NewJob, tuple[Job, bool]] = Write(60, _create_job)
"""Queues jobs. The result is the job, and whether it is one that was unfinished already."""


def _requeue_jobs(connection: Connection, items: Sequence[Requeue]) -> list[int]:
    counts: list[int] = []
    for node, at, job_id in items:
        lost = update(jobs).where(jobs.c.state == str(JobState.RUNNING)).values(state=str(JobState.QUEUED), node=None)
        lost = lost.where(jobs.c.id == job_id) if job_id is not None else lost.where(jobs.c.node != node)
        rows = connection.execute(lost.returning(jobs)).all()
        for job in map(job_of, rows):
            _add_state(connection, job, connection.execute(_last_n, {"job_id": job.id}).scalar_one() + 1, at)
        counts.append(len(rows))
    return counts


requeue_jobs: Write[Requeue, int] = Write(61, _requeue_jobs)
"""Queues running jobs again; the result is how many."""


def _claim_jobs(connection: Connection, items: Sequence[Claim]) -> list[list[Claimed]]:
    results: list[list[Claimed]] = []
    for node, limit, at in items:
        first = (
            select(jobs.c.seq).where(jobs.c.state == str(JobState.QUEUED)).order_by(jobs.c.seq).limit(limit)
        ).scalar_subquery()
        rows = connection.execute(
            update(jobs)
            .where(jobs.c.seq.in_(first))
            .values(
                state=str(JobState.RUNNING), node=node, attempt=jobs.c.attempt + 1,
                started_at=func.coalesce(jobs.c.started_at, at),
            )
            .returning(jobs)
        ).all()  # fmt: skip
        claimed: list[Claimed] = []
        for job in map(job_of, rows):
            n = connection.execute(_last_n, {"job_id": job.id}).scalar_one() + 1
            _add_state(connection, job, n, at)
            claimed.append(Claimed(job, n + 1))
        results.append(claimed)
    return results


claim_jobs: Write[Claim, list[Claimed]] = Write(62, _claim_jobs)
"""Takes the oldest queued jobs, and raises their attempt, by which what an earlier run still writes is known."""


_events = incoming(
    column("job", Text), column("attempt", Integer), column("n", Integer), column("at", Float), column("kind", Text),
    column("data", Text),
)  # fmt: skip
_append = insert(job_events).from_select(
    ["job", "n", "at", "kind", "data"],
    select(_events.c.job, _events.c.n, _events.c.at, _events.c.kind, _events.c.data).join(
        jobs, (jobs.c.id == _events.c.job) & (jobs.c.attempt == _events.c.attempt)
    )
    .where(jobs.c.state == str(JobState.RUNNING)),
)  # fmt: skip
_set_progress = (
    update(jobs)
    .where(jobs.c.id == bindparam("job_id"), jobs.c.attempt == bindparam("attempt_"), jobs.c.state == "running")
    .values(done=bindparam("done_"), total=bindparam("total_"))
)


def _append_events(connection: Connection, items: Sequence[Events]) -> list[None]:
    rows = []
    progress: dict[str, dict[str, Any]] = {}
    for job, attempt, events in items:
        for event in events:
            rows.append((job, attempt, event.n, event.at, event.kind, msgspec.json.encode(event.data).decode()))
            if event.kind == "progress":
                progress[job] = {
                    "job_id": job, "attempt_": attempt, "done_": event.data["done"], "total_": event.data["total"],
                }  # fmt: skip
    connection.execute(_append, encode_rows(rows))
    for latest in progress.values():
        connection.execute(_set_progress, latest)
    return [None] * len(items)


append_events: Write[Events, None] = Write(64, _append_events)
"""Adds entries to logbooks, but none of a run that is over."""


def _end_job(connection: Connection, items: Sequence[Ended]) -> list[Job | None]:
    results: list[Job | None] = []
    for ended in items:
        row = connection.execute(
            update(jobs)
            .where(
                jobs.c.id == ended.job.id, jobs.c.attempt == ended.job.attempt, jobs.c.state == str(JobState.RUNNING)
            )
            .values(state=str(ended.state), ended_at=ended.at, error=ended.error)
            .returning(jobs)
        ).first()
        if row is None:
            results.append(None)
            continue
        job = job_of(row)
        _add_state(connection, job, ended.n, ended.at)
        if ended.state is JobState.SUCCEEDED:
            connection.execute(
                update(records).where(records.c.type == job.type, records.c.id == job.record).values(synced_at=ended.at)
            )
        results.append(job)
    return results


end_job: Write[Ended, Job | None] = Write(66, _end_job)
"""Records outcomes. The result is None where the run is not the job's present one any more: nothing was written."""


def read_events(connection: Connection, job_id: str, after: int, limit: int) -> list[JobEvent]:
    """The entries of a job's logbook with numbers above `after`, at most `limit`."""
    rows = connection.execute(
        select(job_events.c.n, job_events.c.at, job_events.c.kind, job_events.c.data)
        .where(job_events.c.job == job_id, job_events.c.n > after)
        .order_by(job_events.c.n)
        .limit(limit)
    )
    return [JobEvent(n, at, kind, msgspec.json.decode(data)) for n, at, kind, data in rows]


def job_of(row: Any) -> Job:
    """A row of the table as a `Job`."""
    return Job(
        id=row.id,
        type=row.type,
        record=row.record,
        state=JobState(row.state),
        attempt=row.attempt,
        created_at=row.created_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        done=row.done,
        total=row.total,
        error=row.error,
    )
