"""Group commit: many writes share one durable transaction, and none takes another down with it."""

import asyncio
import logging
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, select, text

from trunkline.db import Database, Write, Writer
from trunkline.db import database as database_module
from trunkline.db.tables import nodes
from trunkline.errors import NotFound, Overloaded, StorageError
from trunkline.stats import Stats

WAIT = 10.0


def _insert(connection: Connection, items: Sequence[str]) -> list[str]:
    connection.execute(nodes.insert(), [{"id": item, "started_at": 0.0, "expires_at": 0.0} for item in items])
    if "bad" in items:
        raise ValueError("a bad item, on purpose")
    return [f"wrote {item}" for item in items]


insert: Write[str, str] = Write(50, _insert)


class Gate:
    """A write that stands still in the writer's thread until it is let go, so that others have to wait behind it."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()
        self.write: Write[None, None] = Write(50, self._apply)

    def _apply(self, connection: Connection, items: Sequence[None]) -> list[None]:
        self.entered.set()
        assert self.opened.wait(WAIT)
        return [None] * len(items)

    async def reached(self) -> None:
        assert await asyncio.to_thread(self.entered.wait, WAIT)


class Desk:
    """A writer over a database, and what it counts."""

    def __init__(self, database: Database, pending_limit: int = 100_000) -> None:
        self.database = database
        self.stats = Stats()
        self.writer = Writer(database.writer_engine, asyncio.get_running_loop(), self.stats, 0.0, pending_limit)

    def count(self, name: str) -> float:
        return self.stats.registry.get_sample_value(f"trunkline_{name}_total") or 0.0

    def rows(self) -> list[str]:
        return self.database.read_now(lambda connection: list(connection.execute(select(nodes.c.id)).scalars()))


@asynccontextmanager
async def open_desk(database: Database, **options: Any) -> AsyncIterator[Desk]:
    desk = Desk(database, **options)
    try:
        yield desk
    finally:
        async with asyncio.timeout(WAIT):
            await desk.writer.close()


def with_desk(story: Callable[[Desk], Coroutine[Any, Any, None]], **options: Any) -> Callable[[Database], None]:
    """Makes a test of a coroutine that is given a desk."""

    def test(database: Database) -> None:
        async def run() -> None:
            async with open_desk(database, **options) as desk:
                await story(desk)

        asyncio.run(run())

    return test


def story(test: Callable[[Desk], Coroutine[Any, Any, None]]) -> Callable[[Database], None]:
    return with_desk(test)


@story
async def test_a_write_is_on_disk_when_its_future_is_done(desk: Desk) -> None:
    assert await desk.writer.submit(insert, "a") == "wrote a"
    assert desk.rows() == ["a"]


@story
async def test_writes_that_come_while_one_is_under_way_share_the_next_commit(desk: Desk) -> None:
    gate = Gate()
    first = desk.writer.submit(gate.write, None)
    await gate.reached()
    others = [desk.writer.submit(insert, f"n{number:03}") for number in range(200)]
    assert desk.count("commits") == 0
    gate.opened.set()
    await first
    assert await asyncio.gather(*others) == [f"wrote n{number:03}" for number in range(200)]
    assert desk.count("commits") == 2
    assert desk.count("writes") == 201


@story
async def test_kinds_run_in_rising_order_and_items_of_a_kind_as_they_came(desk: Desk) -> None:
    done: list[tuple[str, list[int]]] = []

    def noting(name: str) -> Callable[[Connection, Sequence[int]], list[None]]:
        def apply(connection: Connection, items: Sequence[int]) -> list[None]:
            done.append((name, list(items)))
            return [None] * len(items)

        return apply

    early: Write[int, None] = Write(10, noting("early"))
    late: Write[int, None] = Write(90, noting("late"))
    gate = Gate()
    desk.writer.post(gate.write, None)
    await gate.reached()
    last = desk.writer.submit(late, 1)
    for number in (2, 3):
        desk.writer.post(early, number)
        desk.writer.post(late, number)
    gate.opened.set()
    await last
    assert done == [("early", [2, 3]), ("late", [1, 2, 3])]


@story
async def test_an_item_that_fails_fails_alone(desk: Desk) -> None:
    gate = Gate()
    desk.writer.post(gate.write, None)
    await gate.reached()
    waiting = [desk.writer.submit(insert, name) for name in ("a", "bad", "c")]
    gate.opened.set()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert (outcomes[0], outcomes[2]) == ("wrote a", "wrote c")
    assert isinstance(outcomes[1], StorageError)
    assert "a bad item, on purpose" in str(outcomes[1])
    assert isinstance(outcomes[1].__cause__, ValueError)
    assert sorted(desk.rows()) == ["a", "c"], "nothing of the failed item may stay"
    assert desk.count("write_failures") == 1


@story
async def test_what_the_database_refuses_reaches_its_caller_alone(desk: Desk) -> None:
    await desk.writer.submit(insert, "a")
    gate = Gate()
    desk.writer.post(gate.write, None)
    await gate.reached()
    twice, other = desk.writer.submit(insert, "a"), desk.writer.submit(insert, "b")
    gate.opened.set()
    with pytest.raises(StorageError, match=r"UNIQUE constraint failed: nodes\.id; nothing of it was stored"):
        await twice
    assert await other == "wrote b"
    assert sorted(desk.rows()) == ["a", "b"]


@story
async def test_an_exception_as_a_result_is_raised_at_its_caller_and_undoes_nothing(desk: Desk) -> None:
    def apply(connection: Connection, items: Sequence[str]) -> list[str | NotFound]:
        _insert(connection, items)
        return [NotFound(item) if item == "nobody" else item for item in items]

    picky: Write[str, str] = Write(50, apply)
    gate = Gate()
    desk.writer.post(gate.write, None)
    await gate.reached()
    good, missing = desk.writer.submit(picky, "somebody"), desk.writer.submit(picky, "nobody")
    gate.opened.set()
    assert await good == "somebody"
    with pytest.raises(NotFound, match="nobody"):
        await missing
    assert sorted(desk.rows()) == ["nobody", "somebody"]
    assert desk.count("write_failures") == 0
    assert desk.count("commits") == 2


@story
async def test_one_of_our_own_errors_keeps_its_kind(desk: Desk) -> None:
    def apply(connection: Connection, items: Sequence[str]) -> list[str]:
        raise Overloaded("enough")

    with pytest.raises(Overloaded, match="enough"):
        await desk.writer.submit(Write(50, apply), "a")


@story
async def test_a_write_that_forgets_a_result_is_rolled_back(desk: Desk) -> None:
    def apply(connection: Connection, items: Sequence[str]) -> list[str]:
        return _insert(connection, items)[1:]

    with pytest.raises(StorageError):
        await desk.writer.submit(Write(50, apply), "a")
    assert desk.rows() == []


async def _refuses_over_its_limit(desk: Desk) -> None:
    gate = Gate()
    desk.writer.post(gate.write, None)
    await gate.reached()
    waiting = [desk.writer.submit(insert, name) for name in "abc"]
    with pytest.raises(Overloaded, match="3 writes wait"):
        desk.writer.submit(insert, "d")
    with pytest.raises(Overloaded):
        desk.writer.post(insert, "e")
    gate.opened.set()
    await asyncio.gather(*waiting)
    await desk.writer.submit(insert, "f")
    assert desk.rows() == ["a", "b", "c", "f"], "what was refused was not written, and there is room again"


test_one_more_than_the_limit_is_refused = with_desk(_refuses_over_its_limit, pending_limit=3)


@story
async def test_a_caller_that_gave_up_takes_nothing_back(desk: Desk) -> None:
    gate = Gate()
    desk.writer.post(gate.write, None)
    await gate.reached()
    given_up, other = desk.writer.submit(insert, "a"), desk.writer.submit(insert, "b")
    given_up.cancel()
    gate.opened.set()
    assert await other == "wrote b"
    assert desk.rows() == ["a", "b"]


@story
async def test_a_post_that_fails_is_logged_and_counted(desk: Desk) -> None:
    heard: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = heard.append  # type: ignore[method-assign]
    logger = logging.getLogger("trunkline.db.writer")
    logger.addHandler(handler)
    try:
        desk.writer.post(insert, "bad")
        await desk.writer.submit(insert, "a")
    finally:
        logger.removeHandler(handler)
    assert desk.count("write_failures") == 1
    (line,) = heard
    assert line.getMessage() == "write failed"
    assert line.facts["write"] == "_insert"  # type: ignore[attr-defined]


def test_closing_commits_what_waits(database: Database) -> None:
    async def run() -> None:
        desk = Desk(database)
        await desk.writer.submit(insert, "first")
        waiting = [desk.writer.submit(insert, f"n{number}") for number in range(5)]
        async with asyncio.timeout(WAIT):
            await desk.writer.close()
        assert await asyncio.gather(*waiting) == [f"wrote n{number}" for number in range(5)]
        assert len(desk.rows()) == 6

    asyncio.run(run())


def test_closing_waits_for_the_commit_that_is_under_way(database: Database) -> None:
    async def run() -> None:
        desk = Desk(database)
        gate = Gate()
        desk.writer.post(gate.write, None)
        await gate.reached()
        waiting = desk.writer.submit(insert, "a")
        closing = asyncio.ensure_future(desk.writer.close())
        await asyncio.sleep(0)
        gate.opened.set()
        async with asyncio.timeout(WAIT):
            await closing
        assert await waiting == "wrote a"

    asyncio.run(run())


def test_nothing_is_taken_after_closing(database: Database) -> None:
    async def run() -> None:
        async with open_desk(database) as desk:
            pass
        with pytest.raises(StorageError, match="stopping"):
            desk.writer.submit(insert, "a")
        with pytest.raises(StorageError, match="stopping"):
            desk.writer.post(insert, "a")
        assert desk.rows() == []
        await desk.writer.close()  # a second time, at once

    asyncio.run(run())


@story
async def test_the_writers_connection_is_durable(desk: Desk) -> None:
    names = ["journal_mode", "synchronous", "foreign_keys", "wal_autocheckpoint"]

    def apply(connection: Connection, items: Sequence[str]) -> list[Any]:
        return [connection.execute(text(f"PRAGMA {name}")).scalar_one() for name in items]

    pragma: Write[str, Any] = Write(1, apply)
    found = [await desk.writer.submit(pragma, name) for name in names]
    assert found[:3] == ["wal", 2, 1], "2 is FULL: https://www.sqlite.org/pragma.html#pragma_synchronous"
    assert found[3] > 0, "it alone makes checkpoints"


def test_a_transaction_takes_the_write_lock_when_it_begins(database: Database) -> None:
    other = sqlite3.connect(database.directory / "trunkline.db", timeout=0, isolation_level=None)
    try:
        with database.writer_engine.begin(), pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        other.execute("BEGIN IMMEDIATE")
        other.execute("ROLLBACK")
    finally:
        other.close()


def test_a_database_that_is_locked_by_a_stranger_refuses_and_recovers(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "_BUSY_MILLISECONDS", 1)

    async def run() -> None:
        stranger = sqlite3.connect(database.directory / "trunkline.db", isolation_level=None)
        async with open_desk(database) as desk:
            try:
                stranger.execute("BEGIN IMMEDIATE")
                with pytest.raises(StorageError, match="locked"):
                    await desk.writer.submit(insert, "a")
                stranger.execute("ROLLBACK")
                assert await desk.writer.submit(insert, "b") == "wrote b"
            finally:
                stranger.close()
            assert desk.rows() == ["b"]

    asyncio.run(run())
