"""What ended long ago is deleted, little by little, and nothing else."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, Table, func, select

from trunkline.db import Database
from trunkline.db.retention import prune
from trunkline.db.tables import batches, commands, devices, items, job_events, jobs

Apply = Callable[..., list[Any]]
NOW = 1000.0


@pytest.fixture
def fill(database: Database) -> Callable[[Table, list[dict[str, object]]], None]:
    """Puts rows into a table."""

    def insert(table: Table, rows: list[dict[str, object]]) -> None:
        with database.writer_engine.begin() as connection:
            connection.execute(table.insert(), rows)

    return insert


@pytest.fixture
def ids(database: Database) -> Callable[[Table], set[str]]:
    def read(table: Table) -> set[str]:
        return database.read_now(lambda connection: set(connection.execute(select(table.c.id)).scalars()))

    return read


def command(name: str, state: str, ended_at: float | None) -> dict[str, object]:
    return {
        "id": name, "device": "d1", "cmd": "x", "timeout": 1.0, "ttl": 1.0, "state": state, "queued_at": 0.0,
        "expires_at": 1.0, "writes": 0, "ended_at": ended_at,
    }  # fmt: skip


def job(name: str, state: str, ended_at: float | None) -> dict[str, object]:
    return {
        "id": name, "type": "meter", "record": name, "state": state, "attempt": 1, "created_at": 0.0,
        "ended_at": ended_at,
    }  # fmt: skip


def batch(name: str, state: str, stored_at: float | None) -> dict[str, object]:
    return {
        "id": name, "state": state, "count": 1, "items": "[1]", "file": f"{name}.jsonl", "created_at": 0.0,
        "stored_at": stored_at,
    }  # fmt: skip


def add_device(fill: Callable[..., None]) -> None:
    fill(devices, [{"id": "d1", "profile": "line", "epoch": 1, "first_seen_at": 0.0, "last_seen_at": 0.0}])


def test_only_commands_that_ended_before_the_moment_go(
    write: Apply, fill: Any, ids: Callable[[Table], set[str]]
) -> None:
    add_device(fill)
    fill(commands, [
        command("old", "replied", 999.0), command("at", "replied", 1000.0), command("new", "expired", 1001.0),
        command("queued", "queued", None), command("written", "written", None),
    ])  # fmt: skip
    assert write(prune, NOW) == [None]
    assert ids(commands) == {"at", "new", "queued", "written"}
    assert ids(devices) == {"d1"}, "a device is never forgotten"


def test_only_batches_that_were_stored_before_the_moment_go(
    write: Apply, fill: Any, ids: Callable[[Table], set[str]], database: Database
) -> None:
    fill(batches, [batch("old", "stored", 999.0), batch("new", "stored", 1000.0), batch("planned", "planned", None)])
    fill(items, [{"item": "1", "accepted_at": 0.0}])
    write(prune, NOW)
    assert ids(batches) == {"new", "planned"}
    assert database.read_now(lambda connection: _count(connection, items)) == 1


def _count(connection: Connection, table: Table) -> int:
    return connection.execute(select(func.count()).select_from(table)).scalar_one()


def test_an_old_job_goes_with_its_whole_logbook(
    write: Apply, fill: Any, ids: Callable[[Table], set[str]], database: Database
) -> None:
    fill(jobs, [job("old", "failed", 999.0), job("new", "succeeded", 1000.0), job("running", "running", None)])
    names = ("old", "new", "running")
    fill(job_events, [{"job": name, "n": n, "at": 0.0, "kind": "log", "data": "{}"} for name in names for n in (1, 2)])
    write(prune, NOW)
    assert ids(jobs) == {"new", "running"}
    left = database.read_now(lambda connection: list(connection.execute(select(job_events.c.job, job_events.c.n))))
    assert sorted(tuple(row) for row in left) == [("new", 1), ("new", 2), ("running", 1), ("running", 2)]


@pytest.mark.parametrize("length", [1200, 1000])
def test_a_long_logbook_goes_in_several_rounds_and_its_job_with_the_last(
    write: Apply, fill: Any, ids: Callable[[Table], set[str]], database: Database, length: int
) -> None:
    fill(jobs, [job("old", "failed", 999.0)])
    fill(job_events, [{"job": "old", "n": n, "at": 0.0, "kind": "log", "data": "{}"} for n in range(length)])
    left = []
    while ids(jobs):
        assert len(left) < 10
        write(prune, NOW)
        left.append(database.read_now(lambda connection: _count(connection, job_events)))
        assert left[-1] == 0 or ids(jobs), "a job went before its logbook"
    assert left[:2] == [length - 500, max(length - 1000, 0)]
    assert left[-1] == 0


def test_much_goes_in_several_rounds_so_that_it_holds_nobody_up(
    write: Apply, fill: Any, ids: Callable[[Table], set[str]]
) -> None:
    add_device(fill)
    fill(commands, [command(f"c{n}", "replied", float(n % 900)) for n in range(1100)])
    sizes = []
    while ids(commands):
        write(prune, NOW)
        sizes.append(len(ids(commands)))
    assert sizes == [600, 100, 0]


def test_rounds_that_meet_in_one_batch_keep_to_the_earlier_moment(
    write: Apply, fill: Any, ids: Callable[[Table], set[str]]
) -> None:
    add_device(fill)
    fill(commands, [command("old", "replied", 10.0), command("new", "replied", 900.0)])
    assert write(prune, NOW, 500.0) == [None, None]
    assert ids(commands) == {"new"}
