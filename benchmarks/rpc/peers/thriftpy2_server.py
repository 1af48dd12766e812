"""thriftpy2's asyncio server, on uvloop, which its manual does not ask for but which is in its favour."""

import socket
from pathlib import Path

import thriftpy2
import uvloop
from load import serving
from thriftpy2.contrib.aio.rpc import make_server

echo_thrift = thriftpy2.load(str(Path(__file__).with_name("echo.thrift")), module_name="echo_thrift")


class Dispatcher:
    async def echo(self, data):
        return data


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


port = free_port()  # it takes 0 for no port at all
loop = uvloop.new_event_loop()
server = make_server(echo_thrift.Echo, Dispatcher(), "127.0.0.1", port, client_timeout=60_000, loop=loop)
loop.call_soon(serving, port)  # by then it listens
server.serve()
