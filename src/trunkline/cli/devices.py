"""``trunkline devices``."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from trunkline.settings import load_settings

if TYPE_CHECKING:
    from trunkline.db import Database
    from trunkline.gateway import Device

__all__ = ["devices"]

_PAGE = 1000


def devices(
    config: Annotated[Path | None, typer.Option(help="The settings' file; ./trunkline.toml if it is there.")] = None,
    online: Annotated[bool, typer.Option("--online", help="Only those that are online.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
) -> None:
    """List the devices, from the node's database; the node need not run."""
    from trunkline.db import Database  # here, since the other commands start sooner without it

    database = Database(Path(load_settings(config).data.directory), exclusive=False)
    now = time.time()
    try:
        found = [device for device in _all(database, now) if device.online or not online]
    finally:
        database.close()
    if as_json:
        for device in found:
            print(msgspec.json.encode(device).decode())
    elif sys.stdout.isatty():
        _print_table(found, now)
    else:
        for device in found:
            print("\t".join([device.id, _state(device), device.address or "", _ago(device.last_seen_at, now)]))


def _all(database: "Database", now: float) -> "list[Device]":
    from trunkline.gateway import read_devices

    found: list[Device] = []
    while True:
        after = found[-1].id if found else ""
        page = database.read_now(lambda connection: read_devices(connection, now, after=after, limit=_PAGE))  # noqa: B023
        found += page
        if len(page) < _PAGE:
            return found


def _state(device: "Device") -> str:
    return "online" if device.online else f"offline ({device.offline_reason or 'never online'})"


def _ago(moment: float, now: float) -> str:
    seconds = max(0, int(now - moment))
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


def _print_table(found: "list[Device]", now: float) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("device", "state", "address", "last seen", box=None, pad_edge=False)
    for device in found:
        style = "green" if device.online else "dim"
        table.add_row(
            escape(device.id), f"[{style}]{_state(device)}[/]", device.address or "", _ago(device.last_seen_at, now)
        )
    Console().print(table)
    Console().print(f"{len(found)} devices, {sum(device.online for device in found)} online", style="dim")
