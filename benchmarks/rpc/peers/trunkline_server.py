"""Trunkline's server, with all its limits on."""

import asyncio

from load import serving

from trunkline.reactor import Reactor
from trunkline.rpc import RpcServer, Service

service = Service()


@service.method
def echo(data: bytes) -> bytes:
    return data


async def main() -> None:
    server = RpcServer(Reactor(asyncio.get_running_loop()), service)
    serving(await server.listen("127.0.0.1", 0))
    await asyncio.Event().wait()


Reactor.run(main)
