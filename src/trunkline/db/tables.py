"""The schema. Alembic's migrations build it; a test holds the two against each other.

Moments (``*_at``, ``*_since``) are seconds since 1970 UTC; JSON is text.
"""

from sqlalchemy import (
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    text,
)

__all__ = [
    "batches",
    "commands",
    "devices",
    "items",
    "job_events",
    "jobs",
    "metadata",
    "nodes",
    "record_entries",
    "records",
]

metadata = MetaData()

nodes = Table(
    "nodes",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("started_at", Float, nullable=False),
    # A node is up while its lease runs. What it holds (devices, jobs) counts as held only so long.
    Column("expires_at", Float, nullable=False),
)

devices = Table(
    "devices",
    metadata,
    Column("id", String(128), primary_key=True),
    Column("profile", String(32), nullable=False),
    Column("address", String(64)),
    Column("node", String(26)),
    # Rises with each connection: what an older connection of the device still writes is recognised by it.
    Column("epoch", Integer, nullable=False),
    Column("first_seen_at", Float, nullable=False),
    Column("last_seen_at", Float, nullable=False),
    Column("online_since", Float),
    Column("offline_since", Float),
    Column("offline_reason", String(32)),
    Index("devices_by_node", "node"),
)

_OPEN = text("state IN ('queued', 'written')")

commands = Table(
    "commands",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("id", String(26), nullable=False, unique=True),
    Column("device", String(128), ForeignKey("devices.id"), nullable=False),
    Column("cmd", Text, nullable=False),
    Column("timeout", Float, nullable=False),
    Column("ttl", Float, nullable=False),
    Column("state", String(16), nullable=False),
    Column("queued_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
    Column("written_at", Float),
    Column("writes", Integer, nullable=False),
    # Whether a node that died may have written it, without having been able to say so.
    Column("in_doubt", Boolean, nullable=False, server_default=text("0")),
    Column("ended_at", Float),
    Column("reply", Text),
    Column("reason", Text),
    Column("late_reply", Text),
    Index("commands_by_device", "device", "seq"),
    Index("commands_open", "device", "seq", sqlite_where=_OPEN, postgresql_where=_OPEN),
    Index("commands_by_end", "ended_at"),
    sqlite_autoincrement=True,
)

records = Table(
    "records",
    metadata,
    Column("type", String(64), nullable=False),
    Column("id", String(128), nullable=False),
    Column("title", Text, nullable=False),
    Column("synced_at", Float),
    Column("job", String(26)),
    PrimaryKeyConstraint("type", "id"),
)

record_entries = Table(
    "record_entries",
    metadata,
    Column("type", String(64), nullable=False),
    Column("id", String(128), nullable=False),
    Column("key", String(256), nullable=False),
    Column("value", Text, nullable=False),
    Column("updated_at", Float, nullable=False),
    PrimaryKeyConstraint("type", "id", "key"),
)

_UNFINISHED = text("state IN ('queued', 'running')")

jobs = Table(
    "jobs",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("id", String(26), nullable=False, unique=True),
    Column("type", String(64), nullable=False),
    Column("record", String(128), nullable=False),
    Column("state", String(16), nullable=False),
    Column("node", String(26)),
    # Rises with each run of the job: what an older run still writes is recognised by it.
    Column("attempt", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("started_at", Float),
    Column("ended_at", Float),
    Column("done", Float),
    Column("total", Float),
    Column("error", Text),
    # One unfinished job per record: a second request joins the first.
    Index("jobs_unfinished", "type", "record", unique=True, sqlite_where=_UNFINISHED, postgresql_where=_UNFINISHED),
    Index("jobs_by_state", "state", "seq"),
    Index("jobs_by_end", "ended_at"),
    sqlite_autoincrement=True,
)

job_events = Table(
    "job_events",
    metadata,
    Column("job", String(26), nullable=False),
    Column("n", Integer, nullable=False),
    Column("at", Float, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("data", Text, nullable=False),
    PrimaryKeyConstraint("job", "n"),
)

# The spool: what is accepted and waits for its batch. Planning a batch moves its items into the batch's row.
items = Table(
    "items",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("item", Text, nullable=False),
    Column("accepted_at", Float, nullable=False),
    sqlite_autoincrement=True,
)

batches = Table(
    "batches",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("id", String(26), nullable=False, unique=True),
    Column("state", String(16), nullable=False),
    Column("count", Integer, nullable=False),
    Column("items", Text, nullable=False),  # a JSON list
    Column("file", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("stored_at", Float),
    Index("batches_by_state", "state", "seq"),
    sqlite_autoincrement=True,
)
