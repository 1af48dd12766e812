"""``trunkline send``."""

import json
import sys
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

__all__ = ["send"]

_WAIT_SLACK = 5.0


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

    longest = min(300.0, (60.0 if ttl is None else ttl) + (10.0 if timeout is None else timeout) + 1.0)
    client = NodeClient(url, config, timeout=longest + _WAIT_SLACK)
    body = (
        {"cmd": cmd} | ({"timeout": timeout} if timeout is not None else {}) | ({"ttl": ttl} if ttl is not None else {})
    )
    try:
        command = client.request(
            "POST", f"/devices/{quote(device, safe='')}/commands", json=body, params={"wait": longest} if wait else None
        )
    finally:
        client.close()
    if as_json:
        print(json.dumps(command))
    elif not wait:
        print(command["id"])
    elif command["reply"] is not None:
        print(command["reply"])
    else:
        print(f"{command['state']}: {command['reason'] or 'it has not ended yet'}", file=sys.stderr)
    if wait and command["state"] != "replied":
        raise typer.Exit(1)
