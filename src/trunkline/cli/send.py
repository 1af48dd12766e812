"""``trunkline send``."""

import json
import math
import sys
import time
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from trunkline.errors import UsageError

__all__ = ["send"]

_LONGEST_WAIT = 300.0  # what one request may wait
_WAIT_SLACK = 5.0
_LOOK_INTERVAL = 1.0


def send(
    device: Annotated[str, typer.Argument(help="The device's id.")],
    cmd: Annotated[str, typer.Argument(help="The command: one line of text.")],
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the outcome, and print the reply.")] = False,
    timeout: Annotated[float | None, typer.Option(help="Seconds to wait for the reply after the write.")] = None,
    ttl: Annotated[float | None, typer.Option(help="Seconds in which it must have been written.")] = None,
    url: Annotated[str | None, typer.Option(help="The node; the one in the settings by default.")] = None,
    config: Annotated[Path | None, typer.Option(help="The settings' file; ./trunkline.toml if it is there.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole command as JSON.")] = False,
) -> None:
    """Send a command to a device. Exit code 0: accepted, or with --wait replied; 1: it ended without a reply."""
    from trunkline.cli.node_client import NodeClient  # here, since the other commands start sooner without it

    _check_arguments({"device": device, "cmd": cmd}, {"timeout": timeout, "ttl": ttl})
    client = NodeClient(url, config, timeout=_LONGEST_WAIT + _WAIT_SLACK)
    body = (
        {"cmd": cmd} | ({"timeout": timeout} if timeout is not None else {}) | ({"ttl": ttl} if ttl is not None else {})
    )
    try:
        path = f"/devices/{quote(device, safe='')}/commands"
        command = client.request("POST", path, json=body, params={"wait": _LONGEST_WAIT} if wait else None)
        while wait and command["state"] in ("queued", "written"):  # one that may take longer than one request
            time.sleep(_LOOK_INTERVAL)
            command = client.request("GET", f"/commands/{command['id']}")
    finally:
        client.close()
    if as_json:
        print(json.dumps(command))
    elif not wait:
        print(command["id"])
    elif command["reply"] is not None:
        print(command["reply"])
    else:
        print(f"{command['state']}: {command['reason']}", file=sys.stderr)
    if wait and command["state"] != "replied":
        raise typer.Exit(1)


def _check_arguments(texts: dict[str, str], times: dict[str, float | None]) -> None:
    """Refuses what JSON can't carry to the node: a shell can pass bytes that are no UTF-8, and ``nan``."""
    for name, text in texts.items():
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise UsageError(f"{name} = {text!r}: it is no UTF-8 text")
    for name, seconds in times.items():
        if seconds is not None and not math.isfinite(seconds):
            raise UsageError(f"{name} = {seconds:g}: it must be a number of seconds")
