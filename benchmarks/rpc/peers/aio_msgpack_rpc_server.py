"""aio-msgpack-rpc's server, on uvloop, which its manual does not ask for but which is in its favour."""

import asyncio

import aio_msgpack_rpc
import uvloop
from load import serving


class Servicer:
    async def echo(self, data):
        return data


async def main():
    server = await asyncio.start_server(aio_msgpack_rpc.Server(Servicer()), "127.0.0.1", 0, backlog=1024)
    serving(server.sockets[0].getsockname()[1])
    await server.serve_forever()


uvloop.run(main())
