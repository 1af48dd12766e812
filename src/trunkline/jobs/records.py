"""Records: what can be synced, and what was read of them."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, Float, Text, and_, column, func, or_, select
from sqlalchemy.dialects.sqlite import insert

from trunkline.clock import Clock
from trunkline.db import Database, Write, Writer, encode_rows, incoming
from trunkline.db.tables import jobs, record_entries, records
from trunkline.errors import NotFound, RunOver, UsageError
from trunkline.jobs.job_store import job_of
from trunkline.jobs.model import Job, JobState
from trunkline.nesting import NESTING_LIMIT, nesting

__all__ = ["Entry", "NewEntries", "NewRecord", "RecordRow", "Records", "check_name", "put_records", "save_entries"]

_NAME = re.compile(r"[^\x00-\x20\x7f-\x9f/\\]{1,128}")


class RecordRow(msgspec.Struct, frozen=True, kw_only=True):
    """A record, and its latest job."""

    type: str
    id: str
    title: str
    synced_at: float | None
    job: Job | None


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was read of a record."""

    key: str
    value: msgspec.Raw
    updated_at: float


class NewRecord(NamedTuple):
    """A record to add, or to give a new title."""

    type: str
    id: str
    title: str


class NewEntries(NamedTuple):
    """Entries of one record, as rows, and the run of the job that read them."""

    job: str
    attempt: int
    rows: list[tuple[str, str, str, str, float]]

    @classmethod
    def of(
        cls, job: str, attempt: int, record_type: str, record: str, entries: Mapping[str, Any], at: float
    ) -> "NewEntries":
        """Checks and encodes entries.

        Raises:
            UsageError: a key is no text of 1 to 256 characters, or a value is no JSON.
        """
        rows = []
        for key, value in entries.items():
            if not isinstance(key, str) or not 1 <= len(key) <= 256 or "\0" in key:
                raise UsageError(f"the key {key!r} of an entry is no text of 1 to 256 characters")
            try:
                text = msgspec.json.encode(value).decode()
                if nesting(msgspec.json.decode(text)) > NESTING_LIMIT:
                    raise ValueError(f"it is nested deeper than {NESTING_LIMIT}")
                rows.append((record_type, record, key, text, at))
            except (TypeError, ValueError, RecursionError) as error:
                raise UsageError(f"the value of the entry {key!r} is no JSON: {error}") from None
        return cls(job, attempt, rows)


_new_record = incoming(column("type", Text), column("id", Text), column("title", Text))
_insert_record = insert(records).from_select(
    ["type", "id", "title"],
    select(_new_record.c.type, _new_record.c.id, _new_record.c.title).where(_new_record.c.position >= 0),
)
_put = _insert_record.on_conflict_do_update(
    index_elements=["type", "id"], set_={"title": _insert_record.excluded.title}
)


def _put_records(connection: Connection, items: Sequence[NewRecord]) -> list[None]:
    connection.execute(_put, encode_rows(items))
    return [None] * len(items)


put_records: Write[NewRecord, None] = Write(58, _put_records)
"""Adds records, or changes their titles."""

_entries = incoming(
    column("type", Text), column("id", Text), column("key", Text), column("value", Text), column("updated_at", Float)
)
_insert_entries = insert(record_entries).from_select(
    ["type", "id", "key", "value", "updated_at"],
    select(_entries.c.type, _entries.c.id, _entries.c.key, _entries.c.value, _entries.c.updated_at).where(
        _entries.c.position >= 0
    ),
)
_upsert_entries = _insert_entries.on_conflict_do_update(
    index_elements=["type", "id", "key"],
    set_={"value": _insert_entries.excluded.value, "updated_at": _insert_entries.excluded.updated_at},
)


_saving = incoming(column("job", Text))
_running_attempts = select(jobs.c.id, jobs.c.attempt).where(
    jobs.c.id.in_(select(_saving.c.job)), jobs.c.state == str(JobState.RUNNING)
)


def _save_entries(connection: Connection, items: Sequence[NewEntries]) -> list[RunOver | None]:
    rows_of_jobs = connection.execute(_running_attempts, encode_rows([(item.job,) for item in items]))
    running: dict[str, int] = {row[0]: row[1] for row in rows_of_jobs}
    present = [running.get(item.job) == item.attempt for item in items]
    rows = [row for item, is_present in zip(items, present, strict=True) if is_present for row in item.rows]
    connection.execute(_upsert_entries, encode_rows(rows))
    return [None if is_present else RunOver("this run of the job is over; nothing was saved") for is_present in present]


save_entries: Write[NewEntries, None] = Write(63, _save_entries)
"""Adds or replaces entries. The result is `RunOver` where the run is not its job's present one any more."""


def check_name(what: str, name: str) -> str:
    """A record's type or id, if it can be one.

    Raises:
        UsageError: it is empty, longer than 128 characters, or holds a space, a slash or a control character.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"{what} = {name[:40]!r}: it must be 1 to 128 characters without spaces, slashes and controls")
    return name


class Records:
    """The records that this installation knows of. Reactor's thread."""

    def __init__(self, database: Database, writer: Writer, clock: Clock) -> None:
        self._database = database
        self._writer = writer
        self._clock = clock

    async def put(self, record_type: str, record: str, title: str) -> None:
        """Adds a record, or gives it another title.

        Raises:
            UsageError: a name that can't be one, or a title of more than 200 characters.
        """
        if len(title) > 200 or not title.isprintable():
            raise UsageError("title: it must be at most 200 printable characters")
        await self._writer.submit(
            put_records, NewRecord(check_name("type", record_type), check_name("id", record), title or record)
        )

    async def page(self, *, limit: int, after: tuple[str, str] | None = None) -> list[RecordRow]:
        """Records by type and id, those after `after`."""

        def query(connection: Connection) -> list[RecordRow]:
            found = _with_job.limit(limit)
            if after is not None:
                found = found.where(
                    or_(records.c.type > after[0], and_(records.c.type == after[0], records.c.id > after[1]))
                )
            return [_record_of(row) for row in connection.execute(found)]

        return await self._database.read(query)

    async def count(self) -> int:
        """How many there are."""
        query = select(func.count()).select_from(records)
        return await self._database.read(lambda connection: connection.execute(query).scalar_one())

    async def get(self, record_type: str, record: str) -> tuple[RecordRow, list[Entry]]:
        """One record and the first 200 of its entries, by key.

        Raises:
            NotFound: there is none.
        """

        def query(connection: Connection) -> tuple[RecordRow, list[Entry]]:
            row = connection.execute(_with_job.where(records.c.type == record_type, records.c.id == record)).first()
            if row is None:
                raise NotFound(f'there is no record "{record}" of type "{record_type}"; add it with PUT, or sync it')
            entries = connection.execute(
                select(record_entries)
                .where(record_entries.c.type == record_type, record_entries.c.id == record)
                .order_by(record_entries.c.key)
                .limit(200)
            )
            return _record_of(row), [
                Entry(key=entry.key, value=msgspec.Raw(entry.value), updated_at=entry.updated_at) for entry in entries
            ]

        return await self._database.read(query)


_with_job = (
    select(
        records.c.type.label("record_type"), records.c.id.label("record_id"), records.c.title, records.c.synced_at, jobs
    )
    .join_from(records, jobs, jobs.c.id == records.c.job, isouter=True)
    .order_by(records.c.type, records.c.id)
)


def _record_of(row: Any) -> RecordRow:
    return RecordRow(
        type=row.record_type,
        id=row.record_id,
        title=row.title,
        synced_at=row.synced_at,
        job=job_of(row) if row.id is not None else None,
    )
