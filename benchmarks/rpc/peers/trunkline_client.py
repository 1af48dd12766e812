"""Trunkline's client: a peer for each connection."""

import contextlib
import functools

from load import asked, make_calls

from trunkline.reactor import Reactor
from trunkline.rpc import connect_rpc


async def main() -> None:
    load = asked()
    async with contextlib.AsyncExitStack() as stack:
        address = ("127.0.0.1", load.port)
        peers = [await stack.enter_async_context(connect_rpc(address)) for _ in range(load.connections)]
        await make_calls(load, [functools.partial(peer.call, "echo", result_type=bytes) for peer in peers])


Reactor.run(main)
