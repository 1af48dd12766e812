"""``trunkline call``."""

import asyncio
import json
import sys
from typing import Annotated, Any

import typer

from trunkline.errors import RpcError, Unavailable, UsageError

__all__ = ["call"]


def call(
    address: Annotated[str, typer.Argument(help="The server: HOST:PORT, or the path of its Unix socket.")],
    method: Annotated[str, typer.Argument(help="The method's name; trunkline.describe lists them.")],
    args: Annotated[str, typer.Argument(help="Its arguments as JSON: a list, or the one that there is.")] = "[]",
    stream: Annotated[
        bool, typer.Option("--stream", help="The result is a stream: print each item as it comes.")
    ] = False,
    timeout: Annotated[float, typer.Option(help="Seconds until the call is over.", min=0.001)] = 10.0,
    token: Annotated[
        str | None, typer.Option(envvar="TRUNKLINE_CALL_TOKEN", help="Proves who this is; better in the environment.")
    ] = None,
) -> None:
    """Call a method of an RPC server, and print its result as JSON. Exit code 1: the method failed."""
    try:
        given = json.loads(args)
    except ValueError as error:
        raise UsageError(f"args = {args!r}: they are no JSON: {error}") from None
    arguments = given if isinstance(given, list) else [given]
    try:
        asyncio.run(_call(_address(address), method, arguments, stream, timeout, token))
    except RpcError as error:
        print(f"{error.code}: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    except OSError as error:
        raise Unavailable(f"{address} can't be reached: {error or 'it took too long'}") from None


def _address(text: str) -> tuple[str, int] | str:
    if "/" in text:
        return text
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65_536:
        raise UsageError(f"address = {text!r}: write it as HOST:PORT, or as a path with a /")
    return host.strip("[]"), int(port)


async def _call(
    address: tuple[str, int] | str, method: str, args: list[Any], stream: bool, timeout: float, token: str | None
) -> None:
    import msgspec

    from trunkline.rpc import connect_rpc  # here, since the other commands start sooner without it

    def show(result: Any) -> None:
        try:
            text = msgspec.json.encode(result).decode()
        except (TypeError, ValueError, RecursionError) as error:
            raise UsageError(f"the result can't be shown as JSON: {error}") from None
        print(text, flush=True)

    async with connect_rpc(address, token=token, agent="trunkline call", connect_timeout=timeout) as peer:
        if stream:
            async for item in peer.stream(method, *args, timeout=timeout):
                show(item)
        else:
            show(await peer.call(method, *args, timeout=timeout))
