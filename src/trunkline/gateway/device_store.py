"""The rows of devices and nodes: what the writer writes of presence, and how it is read.

A node holds a lease and renews it. A device is online while the node that its row names holds one: so a node
that was killed takes its devices offline with it, without a word, as soon as its lease has run out.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    Float,
    Integer,
    Select,
    Text,
    case,
    column,
    delete,
    func,
    literal,
    null,
    select,
    update,
)
from sqlalchemy.dialects.sqlite import insert

from trunkline.db import Write, encode_rows, incoming
from trunkline.db.tables import commands, devices, nodes
from trunkline.gateway.command_store import open_commands
from trunkline.gateway.ledger import Command, CommandState

__all__ = [
    "Connected",
    "Device",
    "Disconnected",
    "Lease",
    "Registered",
    "Seen",
    "claim_node",
    "count_devices",
    "device_connected",
    "device_disconnected",
    "devices_seen",
    "read_devices",
    "release_node",
    "renew_lease",
]


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a device. Moments are seconds since 1970 UTC."""

    id: str
    profile: str
    online: bool
    address: str | None
    node: str | None
    first_seen_at: float
    last_seen_at: float
    online_since: float | None
    offline_since: float | None
    offline_reason: str | None


class Connected(NamedTuple):
    """A device has said who it is."""

    device: str
    profile: str
    address: str
    node: str
    at: float


class Registered(NamedTuple):
    """What a device that has connected gets: its epoch, and the commands that wait for it."""

    epoch: int
    commands: list[Command]


class Disconnected(NamedTuple):
    """The connection of that epoch is gone."""

    device: str
    epoch: int
    at: float
    reason: str


class Seen(NamedTuple):
    """A device was heard."""

    device: str
    epoch: int
    at: float


class Lease(NamedTuple):
    """A node's claim to be up until a moment."""

    node: str
    at: float
    expires_at: float


_connected = incoming(
    column("device", Text), column("profile", Text), column("address", Text), column("node", Text), column("at", Float)
)
_add = insert(devices).from_select(
    ["id", "profile", "address", "node", "epoch", "first_seen_at", "last_seen_at", "online_since"],
    select(
        _connected.c.device, _connected.c.profile, _connected.c.address, _connected.c.node, literal(1),
        _connected.c.at, _connected.c.at, _connected.c.at,
    ).where(_connected.c.position >= 0),
)  # fmt: skip
_connect = _add.on_conflict_do_update(
    index_elements=[devices.c.id],
    set_={
        **{name: _add.excluded[name] for name in ("profile", "address", "node", "last_seen_at", "online_since")},
        "epoch": devices.c.epoch + 1,
        "offline_since": null(),
        "offline_reason": null(),
    },
).returning(devices.c.id, devices.c.epoch)


def _device_connected(connection: Connection, items: Sequence[Connected]) -> list[Registered]:
    results: list[Registered] = []
    start = 0
    while start < len(items):
        # One statement takes each device once; the same id again begins the next statement.
        seen: set[str] = set()
        end = start
        while end < len(items) and items[end].device not in seen:
            seen.add(items[end].device)
            end += 1
        some = items[start:end]
        epochs: dict[str, int] = {row[0]: row[1] for row in connection.execute(_connect, encode_rows(some))}
        waiting = open_commands(connection, [item.device for item in some])
        results += [Registered(epochs[item.device], waiting[item.device]) for item in some]
        start = end
    return results


device_connected: Write[Connected, Registered] = Write(40, _device_connected)
"""Puts devices online with a new epoch, and reads the commands that wait for them."""


_disconnected = incoming(column("device", Text), column("epoch", Integer), column("at", Float), column("reason", Text))
_disconnect = (
    update(devices)
    .values(
        online_since=null(), offline_since=_disconnected.c.at, offline_reason=_disconnected.c.reason,
        last_seen_at=func.max(devices.c.last_seen_at, _disconnected.c.at),
    )
    .where(devices.c.id == _disconnected.c.device, devices.c.epoch == _disconnected.c.epoch)
)  # fmt: skip


def _device_disconnected(connection: Connection, items: Sequence[Disconnected]) -> list[None]:
    connection.execute(_disconnect, encode_rows(items))
    return [None] * len(items)


device_disconnected: Write[Disconnected, None] = Write(45, _device_disconnected)
"""Puts devices offline, unless a later connection has raised the epoch."""


_seen = incoming(column("device", Text), column("epoch", Integer), column("at", Float))
_see = (
    update(devices)
    .values(last_seen_at=_seen.c.at)
    .where(devices.c.id == _seen.c.device, devices.c.epoch == _seen.c.epoch)
)


def _devices_seen(connection: Connection, items: Sequence[list[Seen]]) -> list[None]:
    for some in items:
        connection.execute(_see, encode_rows(some))
    return [None] * len(items)


devices_seen: Write[list[Seen], None] = Write(42, _devices_seen)
"""Notes when devices were last heard, many at a time."""


def _unheld(at: float) -> ColumnElement[bool]:
    """The devices that stand as online, though no live node holds them."""
    return devices.c.online_since.is_not(None) & devices.c.node.not_in(
        select(nodes.c.id).where(nodes.c.expires_at > at)
    )


def _put_in_doubt(connection: Connection, at: float) -> None:
    # A command is written first, and that it was is committed after: a node that died between the two left it
    # queued. Whether it was written nobody can say; only that the device had a line then.
    connection.execute(
        update(commands)
        .where(
            commands.c.state == str(CommandState.QUEUED), commands.c.device.in_(select(devices.c.id).where(_unheld(at)))
        )
        .values(in_doubt=True)
    )


def _take_offline(connection: Connection, at: float) -> None:
    connection.execute(
        update(devices).where(_unheld(at)).values(online_since=null(), offline_since=at, offline_reason="node_lost")
    )


def _claim_node(connection: Connection, items: Sequence[Lease]) -> list[None]:
    for lease in items:
        # The claim on the data folder is exclusive: whichever node was here before is dead, whatever its lease says.
        connection.execute(delete(nodes).where(nodes.c.id != lease.node))
        connection.execute(nodes.insert().values(id=lease.node, started_at=lease.at, expires_at=lease.expires_at))
        _put_in_doubt(connection, lease.at)
        _take_offline(connection, lease.at)
    return [None] * len(items)


claim_node: Write[Lease, None] = Write(1, _claim_node)
"""Registers a node that starts, and takes the devices of its predecessors offline."""


def _renew_lease(connection: Connection, items: Sequence[Lease]) -> list[None]:
    for lease in items:
        connection.execute(update(nodes).where(nodes.c.id == lease.node).values(expires_at=lease.expires_at))
    return [None] * len(items)


renew_lease: Write[Lease, None] = Write(2, _renew_lease)
"""Keeps a node's lease alive."""


def _release_node(connection: Connection, items: Sequence[Lease]) -> list[None]:
    for lease in items:
        connection.execute(delete(nodes).where(nodes.c.id == lease.node))
        _take_offline(connection, lease.at)
    return [None] * len(items)


release_node: Write[Lease, None] = Write(90, _release_node)
"""Ends a node's lease in good order."""


def read_devices(
    connection: Connection, now: float, *, after: str = "", limit: int = 100, device: str | None = None
) -> list[Device]:
    """Devices by id, those after `after`, at most `limit`; or the one that is named."""
    query: Select[Any] = (
        select(devices, nodes.c.expires_at.label("lease_until"))
        .join_from(devices, nodes, nodes.c.id == devices.c.node, isouter=True)
        .order_by(devices.c.id)
        .limit(limit)
    )
    query = query.where(devices.c.id == device) if device is not None else query.where(devices.c.id > after)
    return [_device_of(row, now) for row in connection.execute(query)]


def _device_of(row: Any, now: float) -> Device:
    online = row.online_since is not None and row.lease_until is not None and row.lease_until > now
    lost = row.online_since is not None and not online
    return Device(
        id=row.id,
        profile=row.profile,
        online=online,
        address=row.address,
        node=row.node,
        first_seen_at=row.first_seen_at,
        last_seen_at=row.last_seen_at,
        online_since=row.online_since if online else None,
        offline_since=(row.lease_until or row.last_seen_at) if lost else row.offline_since,
        offline_reason="node_lost" if lost else row.offline_reason,
    )


def count_devices(connection: Connection, now: float) -> tuple[int, int]:
    """How many devices are known, and how many of them are online."""
    row = connection.execute(
        select(
            func.count(),
            func.coalesce(
                func.sum(case((devices.c.online_since.is_not(None) & (nodes.c.expires_at > now), 1), else_=0)), 0
            ),
        ).select_from(devices.outerjoin(nodes, nodes.c.id == devices.c.node))
    ).one()
    return row[0], row[1]
