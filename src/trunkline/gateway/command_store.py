"""The ledger's rows: what the writer writes of commands, and how they are read."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Float, Integer, Row, Text, case, column, func, literal, select, update

from trunkline.db import Write, encode_rows, incoming
from trunkline.db.tables import commands, devices, nodes
from trunkline.errors import NotFound, Overloaded
from trunkline.gateway.delivery import IN_DOUBT
from trunkline.gateway.ledger import OPEN_STATES, Command, CommandState

__all__ = [
    "LOAD_LIMIT",
    "LateReply",
    "NewCommand",
    "Standing",
    "command_of",
    "devices_with_waiting",
    "end_overdue",
    "insert_commands",
    "late_replies",
    "load_commands",
    "open_commands",
    "record_states",
]

LOAD_LIMIT = 64
"""Commands that are read for one device at a time."""

_IS_OPEN = commands.c.state.in_([str(state) for state in OPEN_STATES])


class NewCommand(NamedTuple):
    """A command to accept, and how many open ones its device may have."""

    command: Command
    open_limit: int


class Standing(NamedTuple):
    """Where a command stands: a copy, since the command itself goes on changing in the reactor's thread."""

    id: str
    state: str
    written_at: float | None
    writes: int
    ended_at: float | None
    reply: str | None
    reason: str | None

    @classmethod
    def of(cls, command: Command) -> "Standing":
        """The command's standing now."""
        return cls(
            command.id,
            command.state,
            command.written_at,
            command.writes,
            command.ended_at,
            command.reply,
            command.reason,
        )


class LateReply(NamedTuple):
    """A reply to a command whose outcome is recorded already."""

    id: str
    reply: str


_new = incoming(
    column("id", Text), column("device", Text), column("cmd", Text), column("timeout", Float), column("ttl", Float),
    column("queued_at", Float), column("expires_at", Float),
)  # fmt: skip
_insert = commands.insert().from_select(
    ["id", "device", "cmd", "timeout", "ttl", "queued_at", "expires_at", "state", "writes"],
    select(
        *(_new.c[name] for name in ("id", "device", "cmd", "timeout", "ttl", "queued_at", "expires_at")),
        literal(str(CommandState.QUEUED)),
        literal(0),
    ).order_by(_new.c.position),
)
_wanted = incoming(column("device", Text))
_open_counts = select(
    devices.c.id,
    select(func.count()).where(commands.c.device == devices.c.id, _IS_OPEN).correlate(devices).scalar_subquery(),
).where(devices.c.id.in_(select(_wanted.c.device)))


def _insert_commands(connection: Connection, items: Sequence[NewCommand]) -> list[NotFound | Overloaded | None]:
    distinct = list({(item.command.device,) for item in items})
    open_counts: dict[str, int] = {row[0]: row[1] for row in connection.execute(_open_counts, encode_rows(distinct))}
    results: list[NotFound | Overloaded | None] = []
    rows: list[tuple[Any, ...]] = []
    for command, limit in items:
        device = command.device
        if device not in open_counts:
            results.append(NotFound(f'no device "{device}" has ever said hello here; see: trunkline devices'))
        elif open_counts[device] >= limit:
            results.append(Overloaded(f'device "{device}" has {limit} unfinished commands; wait until some have ended'))
        else:
            open_counts[device] += 1
            rows.append(
                (command.id, device, command.cmd, command.timeout, command.ttl, command.queued_at, command.expires_at)
            )
            results.append(None)
    if rows:
        connection.execute(_insert, encode_rows(rows))
    return results


insert_commands: Write[NewCommand, None] = Write(10, _insert_commands)
"""Accepts commands. Results: None; `NotFound` for an unknown device; `Overloaded` for one with too many open."""


_states = incoming(
    column("id", Text), column("state", Text), column("written_at", Float), column("writes", Integer),
    column("ended_at", Float), column("reply", Text), column("reason", Text),
)  # fmt: skip
_update_states = (
    update(commands)
    .values({name: _states.c[name] for name in ("state", "written_at", "writes", "ended_at", "reply", "reason")})
    .where(commands.c.id == _states.c.id, _IS_OPEN)
)


def _record_states(connection: Connection, items: Sequence[Standing]) -> list[None]:
    # The last word on each command counts; what came before it in the same batch is contained in it.
    last = {standing.id: standing for standing in items}
    connection.execute(_update_states, encode_rows(list(last.values())))
    return [None] * len(items)


record_states: Write[Standing, None] = Write(20, _record_states)
"""Records where commands stand now. A command that has ended is never changed again."""


_late = incoming(column("id", Text), column("reply", Text))
_update_late = (
    update(commands)
    .values(late_reply=_late.c.reply)
    .where(commands.c.id == _late.c.id, commands.c.state == str(CommandState.UNKNOWN), commands.c.late_reply.is_(None))
)


def _late_replies(connection: Connection, items: Sequence[LateReply]) -> list[None]:
    connection.execute(_update_late, encode_rows(items))
    return [None] * len(items)


late_replies: Write[LateReply, None] = Write(25, _late_replies)
"""Records replies that came after the outcome."""


_asked = incoming(column("device", Text))
_ranked = (
    select(commands, func.row_number().over(partition_by=commands.c.device, order_by=commands.c.seq).label("rank"))
    .where(_IS_OPEN, commands.c.device.in_(select(_asked.c.device)))
    .subquery()
)
_open_of_devices = select(_ranked).where(_ranked.c.rank <= LOAD_LIMIT).order_by(_ranked.c.seq)


def open_commands(connection: Connection, wanted: Sequence[str]) -> dict[str, list[Command]]:
    """The first `LOAD_LIMIT` open commands of each device, oldest first."""
    found: dict[str, list[Command]] = {device: [] for device in wanted}
    for row in connection.execute(_open_of_devices, encode_rows([(device,) for device in found])):
        found[row.device].append(command_of(row))
    return found


def devices_with_waiting(connection: Connection, before: float) -> list[str]:
    """The devices that have commands queued since before a moment."""
    query = (
        select(commands.c.device)
        .where(_IS_OPEN, commands.c.state == str(CommandState.QUEUED), commands.c.queued_at < before)
        .distinct()
    )
    return list(connection.execute(query).scalars())


def _load_commands(connection: Connection, items: Sequence[str]) -> list[list[Command]]:
    found = open_commands(connection, items)
    return [found[device] for device in items]


load_commands: Write[str, list[Command]] = Write(40, _load_commands)
"""Reads a device's open commands. It writes nothing, but in the writer it comes after every state recorded before."""


def _end_overdue(connection: Connection, items: Sequence[float]) -> list[list[Command]]:
    # Only of devices that no live node holds: for a connected one its own line decides, at the moment of the write.
    now = max(items)
    held = (
        select(devices.c.id)
        .join(nodes, nodes.c.id == devices.c.node)
        .where(devices.c.online_since.is_not(None), nodes.c.expires_at > now)
    )
    was_written = commands.c.writes > 0
    ended = connection.execute(
        update(commands)
        .where(_IS_OPEN, commands.c.expires_at <= now, commands.c.device.not_in(held))
        .values(
            state=case((was_written | commands.c.in_doubt, str(CommandState.UNKNOWN)), else_=str(CommandState.EXPIRED)),
            reason=case(
                (was_written, "written, then the line broke and its ttl passed"),
                (commands.c.in_doubt, IN_DOUBT),
                else_="its ttl passed while the device was offline",
            ),
            ended_at=now,
        )
        .returning(commands)
    ).all()
    return [[command_of(row) for row in ended]] + [[] for _ in items[1:]]


end_overdue: Write[float, list[Command]] = Write(50, _end_overdue)
"""Ends the overdue commands of devices that are offline at the given moment, and returns them."""


def command_of(row: Row[Any]) -> Command:
    """A row of the table as a `Command`."""
    return Command(
        id=row.id,
        device=row.device,
        cmd=row.cmd,
        timeout=row.timeout,
        ttl=row.ttl,
        queued_at=row.queued_at,
        expires_at=row.expires_at,
        state=CommandState(row.state),
        written_at=row.written_at,
        writes=row.writes,
        in_doubt=bool(row.in_doubt),
        ended_at=row.ended_at,
        reply=row.reply,
        reason=row.reason,
        late_reply=row.late_reply,
    )
