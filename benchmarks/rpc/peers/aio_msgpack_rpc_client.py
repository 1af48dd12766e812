"""aio-msgpack-rpc's client, on uvloop."""

import asyncio
import functools

import aio_msgpack_rpc
import uvloop
from load import asked, make_calls


async def main():
    load = asked()
    clients = [
        aio_msgpack_rpc.Client(*await asyncio.open_connection("127.0.0.1", load.port)) for _ in range(load.connections)
    ]
    await make_calls(load, [functools.partial(client.call, "echo") for client in clients])


uvloop.run(main())
