"""The spool's rows: items that wait, and the batches that were made of them."""

import enum
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, Float, Integer, Text, bindparam, column, delete, func, select, update

from trunkline.batch.rules import BatchRules, key_of, plan
from trunkline.db import Write, encode_rows, incoming
from trunkline.db.tables import batches, items

__all__ = [
    "Batch",
    "BatchState",
    "Plan",
    "SpoolItems",
    "Stored",
    "batches_stored",
    "count_spooled",
    "count_stored",
    "plan_batches",
    "read_batches",
    "spool_items",
]


class BatchState(enum.StrEnum):
    """Where a batch stands."""

    PLANNED = "planned"
    """Its items are chosen for good. It may be in the sink already."""
    STORED = "stored"
    """It is in the sink, to stay."""


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """A batch. Moments are seconds since 1970 UTC."""

    id: str
    state: BatchState
    items: list[str]
    """Each item as JSON text, in the order in which they came."""
    file: str
    created_at: float
    stored_at: float | None


class SpoolItems(NamedTuple):
    """Items to accept, as JSON texts."""

    items: list[str]
    at: float


class Plan(NamedTuple):
    """A request for up to so many batches."""

    rules: BatchRules
    batches_limit: int
    new_id: Callable[[], str]
    file_of: Callable[[str], str]
    at: float


class Stored(NamedTuple):
    """A batch that is in its sink."""

    id: str
    at: float


_items = incoming(column("item", Text))
_insert_items = items.insert().from_select(
    ["item", "accepted_at"], select(_items.c.item, bindparam("at", type_=Float)).order_by(_items.c.position)
)


def _spool_items(connection: Connection, some: Sequence[SpoolItems]) -> list[None]:
    rows = [(item,) for request in some for item in request.items]
    connection.execute(_insert_items, encode_rows(rows) | {"at": some[0].at})
    return [None] * len(some)


spool_items: Write[SpoolItems, None] = Write(70, _spool_items)
"""Accepts items."""


_oldest = select(items.c.seq, items.c.item).order_by(items.c.seq).limit(bindparam("most"))
_new_batches = incoming(
    column("id", Text), column("state", Text), column("count", Integer), column("items", Text), column("file", Text),
    column("created_at", Float),
)  # fmt: skip
_BATCH_COLUMNS = ["id", "state", "count", "items", "file", "created_at"]
_insert_batches = batches.insert().from_select(
    _BATCH_COLUMNS, select(*(_new_batches.c[name] for name in _BATCH_COLUMNS)).order_by(_new_batches.c.position)
)


def _plan_batches(connection: Connection, some: Sequence[Plan]) -> list[list[Batch]]:
    results: list[list[Batch]] = []
    for rules, limit, new_id, file_of, at in some:
        most = limit * rules.items_per_batch
        rows = connection.execute(_oldest, {"most": most}).all()
        planned: list[Batch] = []
        start = 0
        sizes = plan([key_of(msgspec.json.decode(row.item)) for row in rows], rules)
        if len(rows) == most and len(sizes) > 1:
            sizes.pop()  # what comes behind it may still join it
        for size in sizes[:limit]:
            texts = [row.item for row in rows[start : start + size]]
            start += size
            batch_id = new_id()
            planned.append(
                Batch(
                    id=batch_id, state=BatchState.PLANNED, items=texts, file=file_of(batch_id), created_at=at,
                    stored_at=None,
                )
            )  # fmt: skip
        if planned:
            # From the spool to the batches in one transaction: an item is in exactly one of them at any moment.
            connection.execute(delete(items).where(items.c.seq <= rows[start - 1].seq))
            connection.execute(
                _insert_batches,
                encode_rows([
                    (batch.id, batch.state, len(batch.items), f"[{','.join(batch.items)}]", batch.file, at)
                    for batch in planned
                ]),
            )  # fmt: skip
        results.append(planned)
    return results


plan_batches: Write[Plan, list[Batch]] = Write(72, _plan_batches)
"""Makes batches of the oldest items."""


_stored = incoming(column("id", Text), column("at", Float))
_mark_stored = (
    update(batches)
    .values(state=str(BatchState.STORED), stored_at=_stored.c.at)
    .where(batches.c.id == _stored.c.id, batches.c.state == str(BatchState.PLANNED))
)


def _batches_stored(connection: Connection, some: Sequence[list[Stored]]) -> list[None]:
    connection.execute(_mark_stored, encode_rows([row for rows in some for row in rows]))
    return [None] * len(some)


batches_stored: Write[list[Stored], None] = Write(74, _batches_stored)
"""Notes that batches are in the sink."""


def count_spooled(connection: Connection) -> int:
    """How many items wait for their batch."""
    return connection.execute(select(func.count()).select_from(items)).scalar_one()


def count_stored(connection: Connection) -> tuple[int, int]:
    """How many batches are stored, and how many items are in them."""
    row = connection.execute(
        select(func.count(), func.coalesce(func.sum(batches.c.count), 0)).where(
            batches.c.state == str(BatchState.STORED)
        )
    ).one()
    return row[0], int(row[1])


def read_batches(
    connection: Connection, *, limit: int, before: str | None = None, state: BatchState | None = None
) -> list[Batch]:
    """Batches, newest first; those older than the batch `before`; only those in a state."""
    query = select(batches).order_by(batches.c.seq.desc()).limit(limit)
    if before is not None:
        query = query.where(batches.c.seq < select(batches.c.seq).where(batches.c.id == before).scalar_subquery())
    if state is not None:
        query = query.where(batches.c.state == str(state))
    return [_batch_of(row) for row in connection.execute(query)]


def _batch_of(row: Any) -> Batch:
    return Batch(
        id=row.id,
        state=BatchState(row.state),
        items=[str(bytes(raw), "utf-8") for raw in msgspec.json.decode(row.items, type=list[msgspec.Raw])],
        file=row.file,
        created_at=row.created_at,
        stored_at=row.stored_at,
    )
