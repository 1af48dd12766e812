"""Jobs on disk: one unfinished per record, attempts that fence, and logbooks without a gap."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select

from trunkline.db import Database
from trunkline.db.tables import job_events, jobs, record_entries, records
from trunkline.errors import RunOver
from trunkline.jobs.job_store import (
    Claim,
    Claimed,
    Ended,
    Events,
    NewJob,
    Requeue,
    append_events,
    claim_jobs,
    create_job,
    end_job,
    job_of,
    read_events,
    requeue_jobs,
)
from trunkline.jobs.model import FINAL_STATES, TRANSITIONS, Job, JobEvent, JobState
from trunkline.jobs.records import NewEntries, save_entries

Apply = Callable[..., list[Any]]


@pytest.fixture
def look(database: Database) -> Callable[[str], Job]:
    """Reads a job as it stands."""

    def read(name: str) -> Job:
        query = select(jobs).where(jobs.c.id == name)
        return database.read_now(lambda connection: job_of(connection.execute(query).one()))

    return read


@pytest.fixture
def events(database: Database) -> Callable[..., list[JobEvent]]:
    """Reads a job's logbook."""

    def read(name: str, after: int = 0, limit: int = 10_000) -> list[JobEvent]:
        return database.read_now(lambda connection: read_events(connection, name, after, limit))

    return read


def new(name: str, record: str = "m1", kind: str = "meter", at: float = 100.0) -> NewJob:
    return NewJob(name, kind, record, at)


def claim(write: Apply, limit: int = 10, node: str = "node-1", at: float = 101.0) -> list[Claimed]:
    (claimed,) = write(claim_jobs, Claim(node, limit, at))
    return claimed  # type: ignore[no-any-return]


def line(n: int, text: str = "x") -> JobEvent:
    return JobEvent(n, 102.0, "log", {"level": "info", "text": text})


def states(found: list[JobEvent]) -> list[str]:
    return [event.data["state"] for event in found if event.kind == "state"]


def test_a_new_job_is_queued_and_its_logbook_begins(
    write: Apply, look: Callable[[str], Job], events: Callable[..., list[JobEvent]]
) -> None:
    ((job, joined),) = write(create_job, new("j1"))
    assert not joined
    assert job == look("j1")
    assert (job.state, job.attempt, job.created_at, job.started_at, job.ended_at) == ("queued", 0, 100.0, None, None)
    assert events("j1") == [JobEvent(1, 100.0, "state", {"state": "queued", "attempt": 0, "error": None})]


def test_a_second_click_joins_the_unfinished_job(write: Apply) -> None:
    write(create_job, new("j1"))
    ((job, joined),) = write(create_job, new("j2"))
    assert (job.id, joined) == ("j1", True)
    claim(write)
    ((job, joined),) = write(create_job, new("j3"))
    assert (job.id, job.state, joined) == ("j1", JobState.RUNNING, True)


def test_clicks_that_meet_in_one_batch_join_the_first(write: Apply) -> None:
    results = write(create_job, new("j1"), new("j2"), new("j3", record="m2"), new("j4", kind="order"), new("j5"))
    assert [(job.id, joined) for job, joined in results] == [
        ("j1", False), ("j1", True), ("j3", False), ("j4", False), ("j1", True),
    ]  # fmt: skip


def test_a_record_can_be_synced_again_once_its_job_has_ended(write: Apply, database: Database) -> None:
    write(create_job, new("j1"))
    (claimed,) = claim(write)
    write(end_job, Ended(claimed.job, JobState.FAILED, 103.0, "no reply", claimed.next_n))
    ((job, joined),) = write(create_job, new("j2", at=104.0))
    assert (job.id, joined) == ("j2", False)
    record = database.read_now(lambda connection: connection.execute(select(records)).one())
    assert (record.type, record.id, record.job, record.synced_at) == ("meter", "m1", "j2", None)


def test_the_oldest_jobs_are_claimed_first_and_no_more_than_asked_for(write: Apply, look: Callable[[str], Job]) -> None:
    write(create_job, *(new(f"j{9 - n}", record=f"m{n}") for n in range(5)))
    assert {one.job.id for one in claim(write, limit=2)} == {"j9", "j8"}
    assert {one.job.id for one in claim(write, limit=2)} == {"j7", "j6"}
    assert [one.job.id for one in claim(write, limit=2)] == ["j5"]
    assert claim(write, limit=2) == []
    assert (look("j9").state, look("j9").attempt, look("j9").started_at) == (JobState.RUNNING, 1, 101.0)


def test_claims_that_meet_in_one_batch_never_share_a_job(write: Apply) -> None:
    write(create_job, *(new(f"j{n}", record=f"m{n}") for n in range(3)))
    first, second = write(claim_jobs, Claim("node-1", 2, 101.0), Claim("node-1", 2, 101.0))
    assert sorted(one.job.id for one in [*first, *second]) == ["j0", "j1", "j2"]


def test_a_claim_says_where_the_logbook_goes_on(write: Apply, events: Callable[..., list[JobEvent]]) -> None:
    write(create_job, new("j1"))
    (claimed,) = claim(write)
    assert claimed.next_n == 3
    write(append_events, Events("j1", 1, [line(3), line(4)]))
    write(end_job, Ended(claimed.job, JobState.SUCCEEDED, 105.0, None, 5))
    assert [event.n for event in events("j1")] == [1, 2, 3, 4, 5]
    assert states(events("j1")) == ["queued", "running", "succeeded"]


def test_the_jobs_of_a_lost_node_are_queued_again_and_those_of_others_stay(
    write: Apply, look: Callable[[str], Job]
) -> None:
    write(create_job, new("j1"), new("j2", record="m2"))
    claim(write, limit=1, node="node-1")
    claim(write, limit=1, node="node-2")
    assert write(requeue_jobs, Requeue("node-2", 110.0)) == [1]
    assert (look("j1").state, look("j2").state) == (JobState.QUEUED, JobState.RUNNING)
    (again,) = claim(write, node="node-2", at=111.0)
    assert (again.job.id, again.job.attempt, again.job.started_at) == ("j1", 2, 101.0)


def test_one_job_can_be_queued_again(write: Apply, look: Callable[[str], Job]) -> None:
    write(create_job, new("j1"), new("j2", record="m2"))
    claim(write)
    assert write(requeue_jobs, Requeue("node-1", 110.0, "j2"), Requeue("node-1", 110.0, "j2")) == [1, 0]
    assert (look("j1").state, look("j2").state) == (JobState.RUNNING, JobState.QUEUED)


def test_a_job_that_has_ended_is_not_queued_again(write: Apply, look: Callable[[str], Job]) -> None:
    write(create_job, new("j1"))
    (claimed,) = claim(write)
    write(end_job, Ended(claimed.job, JobState.SUCCEEDED, 105.0, None, 3))
    assert write(requeue_jobs, Requeue("node-2", 110.0), Requeue("node-1", 110.0, "j1")) == [0, 0]
    assert look("j1").state is JobState.SUCCEEDED


def test_an_attempt_that_is_over_writes_nothing(
    write: Apply, look: Callable[[str], Job], events: Callable[..., list[JobEvent]]
) -> None:
    write(create_job, new("j1"))
    (stale,) = claim(write, node="node-1")
    write(requeue_jobs, Requeue("node-2", 110.0))
    before = events("j1")
    progress = JobEvent(5, 111.0, "progress", {"done": 9.0, "total": 10.0})
    write(append_events, Events("j1", 1, [line(4), progress]))
    assert write(end_job, Ended(stale.job, JobState.FAILED, 111.0, "stale", 6)) == [None]
    assert events("j1") == before, "the job is queued: nobody runs it"
    (fresh,) = claim(write, node="node-2", at=112.0)
    before, job = events("j1"), look("j1")
    write(append_events, Events("j1", 1, [line(fresh.next_n), progress]))
    assert write(end_job, Ended(stale.job, JobState.SUCCEEDED, 113.0, None, 99)) == [None]
    assert (events("j1"), look("j1")) == (before, job)
    write(append_events, Events("j1", 2, [line(fresh.next_n)]))
    assert write(end_job, Ended(fresh.job, JobState.SUCCEEDED, 114.0, None, fresh.next_n + 1))[0].attempt == 2


def test_an_attempt_that_is_over_saves_nothing(write: Apply, database: Database) -> None:
    def saved() -> list[str]:
        return database.read_now(lambda connection: list(connection.execute(select(record_entries.c.key)).scalars()))

    write(create_job, new("j1"))
    claim(write, node="node-1")
    write(requeue_jobs, Requeue("node-2", 110.0))
    claim(write, node="node-2", at=112.0)
    stale = NewEntries.of("j1", 1, "meter", "m1", {"a": 1}, 113.0)
    fresh = NewEntries.of("j1", 2, "meter", "m1", {"b": 2}, 113.0)
    refused, accepted = write(save_entries, stale, fresh)
    assert isinstance(refused, RunOver)
    assert accepted is None
    assert saved() == ["b"]


def test_after_its_outcome_nothing_is_added_to_a_logbook(write: Apply, events: Callable[..., list[JobEvent]]) -> None:
    write(create_job, new("j1"))
    (claimed,) = claim(write)
    write(end_job, Ended(claimed.job, JobState.SUCCEEDED, 105.0, None, 3))
    write(append_events, Events("j1", 1, [line(4)]))
    assert write(end_job, Ended(claimed.job, JobState.FAILED, 106.0, "again", 4)) == [None]
    assert [event.n for event in events("j1")] == [1, 2, 3]


def test_progress_is_kept_with_the_job_and_the_last_counts(write: Apply, look: Callable[[str], Job]) -> None:
    write(create_job, new("j1"))
    claim(write)
    write(
        append_events,
        Events("j1", 1, [JobEvent(3, 102.0, "progress", {"done": 1.0, "total": 4.0})]),
        Events("j1", 1, [line(4), JobEvent(5, 102.0, "progress", {"done": 2.0, "total": None})]),
    )
    assert (look("j1").done, look("j1").total) == (2.0, None)


def test_success_dates_the_record_and_failure_does_not(write: Apply, database: Database) -> None:
    write(create_job, new("j1"), new("j2", record="m2"))
    first, second = claim(write)
    done, failed = (
        Ended(first.job, JobState.SUCCEEDED, 105.0, None, 3),
        Ended(second.job, JobState.FAILED, 105.0, "no", 3),
    )
    write(end_job, done, failed)
    query = select(records.c.id, records.c.synced_at).order_by(records.c.id)
    assert database.read_now(lambda connection: [tuple(row) for row in connection.execute(query)]) == [
        ("m1", 105.0), ("m2", None),
    ]  # fmt: skip


def test_the_outcome_keeps_its_error(write: Apply, look: Callable[[str], Job]) -> None:
    write(create_job, new("j1"))
    (claimed,) = claim(write)
    (ended,) = write(end_job, Ended(claimed.job, JobState.FAILED, 105.0, "NoReply: é \n", 3))
    assert ended == look("j1")
    assert (ended.state, ended.ended_at, ended.error) == (JobState.FAILED, 105.0, "NoReply: é \n")


def test_a_logbook_can_be_read_from_any_cursor(write: Apply, events: Callable[..., list[JobEvent]]) -> None:
    write(create_job, new("j1"))
    claim(write)
    write(append_events, Events("j1", 1, [line(n, f"line {n} é\x00") for n in range(3, 50)]))
    assert [event.n for event in events("j1", 10, 5)] == [11, 12, 13, 14, 15]
    assert events("j1", 49) == []
    assert events("j1", 48)[0].data == {"level": "info", "text": "line 49 é\x00"}


steps = st.lists(st.sampled_from(["click", "claim", "log", "end", "fail", "lose node", "stale log"]), max_size=25)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(steps)
def test_whatever_happens_the_numbers_have_no_gap_and_the_states_keep_to_the_table(
    database: Database, write: Apply, events: Callable[..., list[JobEvent]], steps: list[str]
) -> None:
    with database.writer_engine.begin() as connection:
        for table in (jobs, job_events, records):
            connection.execute(delete(table))
    running: dict[str, tuple[Claimed, int]] = {}
    over: list[Claimed] = []
    made: set[str] = set()
    for number, step in enumerate(steps):
        at = 100.0 + number
        if step == "click":
            ((job, _),) = write(create_job, new(f"j{number}", record=f"m{number % 2}", at=at))
            made.add(job.id)
        elif step == "claim":
            running |= {one.job.id: (one, one.next_n) for one in claim(write, limit=1, at=at)}
        elif step == "lose node":
            assert write(requeue_jobs, Requeue("node-2", at)) == [len(running)]
            over += [one for one, _ in running.values()]
            running.clear()
        elif step == "stale log" and over:
            write(append_events, Events(over[-1].job.id, over[-1].job.attempt, [line(over[-1].next_n)]))
        elif running:
            name = sorted(running)[0]
            one, n = running[name]
            if step == "log":
                write(append_events, Events(name, one.job.attempt, [line(n), line(n + 1)]))
                running[name] = (one, n + 2)
            elif step in ("end", "fail"):
                state = JobState.SUCCEEDED if step == "end" else JobState.FAILED
                write(end_job, Ended(one.job, state, at, None, n))
                over.append(running.pop(name)[0])
    for name in made:
        found = events(name)
        assert [event.n for event in found] == list(range(1, len(found) + 1))
        lived = [JobState(state) for state in states(found)]
        assert lived[0] is JobState.QUEUED
        assert all(after in TRANSITIONS[before] for before, after in itertools.pairwise(lived))
        assert not any(state in FINAL_STATES for state in lived[:-1])
