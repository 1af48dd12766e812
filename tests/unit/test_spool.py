"""The spool on disk: every accepted item is in the spool or in one batch, at any moment."""

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select

from trunkline.batch.rules import BatchRules, key_of
from trunkline.batch.spool import (
    Batch,
    BatchState,
    Plan,
    SpoolItems,
    Stored,
    batches_stored,
    count_spooled,
    count_stored,
    plan_batches,
    read_batches,
    spool_items,
)
from trunkline.db import Database
from trunkline.db.tables import batches, items

Apply = Callable[..., list[Any]]
RULES = BatchRules(5, [[1, 2]])


class Names:
    """Ids that rise."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> str:
        self.count += 1
        return f"b{self.count:04}"


@pytest.fixture
def planner(write: Apply) -> Callable[..., list[Batch]]:
    """Plans batches and returns them."""
    names = Names()

    def plan(limit: int = 100, rules: BatchRules = RULES, at: float = 200.0) -> list[Batch]:
        (planned,) = write(plan_batches, Plan(rules, limit, names, lambda name: f"{name}.jsonl", at))
        return planned  # type: ignore[no-any-return]

    return plan


def spool(write: Apply, *values: object) -> None:
    assert write(spool_items, SpoolItems([json.dumps(value) for value in values], 100.0)) == [None]


def contents(found: list[Batch]) -> list[list[object]]:
    return [[json.loads(item) for item in batch.items] for batch in found]


def waiting(database: Database) -> list[object]:
    query = select(items.c.item).order_by(items.c.seq)
    texts = database.read_now(lambda connection: connection.execute(query).scalars().all())
    return [json.loads(text) for text in texts]


def planned_on_disk(database: Database, state: BatchState | None = None) -> list[Batch]:
    return database.read_now(lambda connection: read_batches(connection, limit=1000, state=state))[::-1]


def test_items_wait_in_the_order_in_which_they_came(write: Apply, database: Database) -> None:
    write(spool_items, SpoolItems(["3", "1"], 100.0), SpoolItems([], 100.0), SpoolItems(['"x"', "1"], 101.0))
    spool(write, 2)
    assert waiting(database) == [3, 1, "x", 1, 2]
    assert database.read_now(count_spooled) == 5


def test_items_keep_their_text_to_the_letter(
    write: Apply, database: Database, planner: Callable[..., list[Batch]]
) -> None:
    texts = ['{"b":1,"a":[2.50,1e5]}', '"é \\u0000 \\ud83d\\ude42 漢"', "1.0", "12345678901234567890", "null"]
    write(spool_items, SpoolItems(texts, 100.0))
    (batch,) = planner()
    assert batch.items == texts
    assert planned_on_disk(database) == [batch]


def test_a_plan_moves_items_from_the_spool_into_batches_that_keep_the_rules(
    write: Apply, database: Database, planner: Callable[..., list[Batch]]
) -> None:
    spool(write, 1, 1, 3, 2, 2, 4, 1, 5, 5, 5, 5, 5)
    found = planner()
    assert contents(found) == [[1, 1, 3], [2, 2, 4], [1, 5, 5, 5, 5], [5]]
    assert waiting(database) == []
    assert planned_on_disk(database) == found
    assert [(batch.state, batch.file, batch.created_at, batch.stored_at) for batch in found] == [
        (BatchState.PLANNED, f"b000{n}.jsonl", 200.0, None) for n in range(1, 5)
    ]


def test_a_plan_for_few_batches_leaves_the_rest_in_the_spool(
    write: Apply, database: Database, planner: Callable[..., list[Batch]]
) -> None:
    spool(write, *range(10, 30))
    assert contents(planner(limit=1)) == [[10, 11, 12, 13, 14]]
    assert waiting(database) == list(range(15, 30))
    spool(write, 30)
    assert contents(planner(limit=2)) == [list(range(15, 20))], (
        "the last may still take more: it waits for the next look"
    )
    assert sum(len(batch.items) for batch in planner(limit=100)) == 11


def test_an_item_that_may_not_join_does_not_hold_a_batch_back(
    write: Apply, planner: Callable[..., list[Batch]]
) -> None:
    spool(write, 1, 2, 1, 2, 1, 2)
    assert contents(planner(limit=1)) == [[1]]
    assert contents(planner(limit=1)) == [[2]]


def test_an_empty_spool_makes_no_batch(database: Database, planner: Callable[..., list[Batch]]) -> None:
    assert planner() == []
    assert planned_on_disk(database) == []


def test_a_plan_that_fails_halfway_leaves_every_item_in_the_spool(
    write: Apply, database: Database, planner: Callable[..., list[Batch]]
) -> None:
    spool(write, *range(12))

    def file_of(name: str) -> str:
        if name.endswith("3"):
            raise OSError("no name for that one")
        return name

    with pytest.raises(OSError, match="no name"):
        write(plan_batches, Plan(RULES, 100, Names(), file_of, 200.0))
    assert waiting(database) == list(range(12))
    assert planned_on_disk(database) == []


def test_stored_batches_are_dated_once_and_counted(
    write: Apply, database: Database, planner: Callable[..., list[Batch]]
) -> None:
    spool(write, *range(10, 22))
    first, second, third = planner()
    write(batches_stored, [Stored(first.id, 300.0), Stored(second.id, 300.0)], [Stored("nobody's", 300.0)])
    write(batches_stored, [Stored(first.id, 999.0)])
    assert planned_on_disk(database, BatchState.PLANNED) == [third]
    assert [batch.stored_at for batch in planned_on_disk(database, BatchState.STORED)] == [300.0, 300.0]
    assert database.read_now(count_stored) == (2, 10)


def test_batches_are_read_newest_first_and_page_by_page(
    write: Apply, database: Database, planner: Callable[..., list[Batch]]
) -> None:
    spool(write, *range(60))
    planned = planner()
    newest = planned[::-1]

    def page(before: str | None) -> list[Batch]:
        return database.read_now(lambda connection: read_batches(connection, limit=5, before=before))

    assert page(None) == newest[:5]
    assert page(newest[4].id) == newest[5:10]
    assert page(newest[9].id) == newest[10:]
    assert page(newest[-1].id) == []


values = st.sampled_from([1, 2, 3, 1.0, "1", True, None, [1], {"a": 1}])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(
    st.lists(st.one_of(st.lists(values, max_size=12), st.integers(1, 4)), max_size=8),
    st.integers(1, 4),
    st.lists(st.lists(values, max_size=3), max_size=2),
)
def test_whatever_comes_when_every_item_is_stored_once_in_order_within_the_rules(
    database: Database,
    write: Apply,
    planner: Callable[..., list[Batch]],
    steps: list[list[object] | int],
    size: int,
    sets: list[list[object]],
) -> None:
    with database.writer_engine.begin() as connection:
        connection.execute(delete(items))
        connection.execute(delete(batches))
    rules = BatchRules(size, sets)
    accepted: list[object] = []
    planned: list[Batch] = []
    for step in [*steps, 100]:
        if isinstance(step, list):
            spool(write, *step)
            accepted += step
        else:
            found = planner(limit=step, rules=rules)
            assert len(found) <= step
            planned += found
        now = [*itertools.chain(*contents(planned)), *waiting(database)]
        assert list(map(key_of, now)) == list(map(key_of, accepted)), "an item is lost, doubled or out of order"
    while waiting(database):
        found = planner(limit=1, rules=rules)
        assert found, "the spool does not empty"
        planned += found
    assert planned_on_disk(database) == planned
    foes = [frozenset(map(key_of, members)) for members in sets]
    for batch in contents(planned):
        keys = set(map(key_of, batch))
        assert 1 <= len(batch) <= size
        assert all(len(keys & members) <= 1 for members in foes)
