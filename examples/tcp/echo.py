"""Sends back whatever comes, to every peer at once.

usage: python echo.py [HOST:PORT]     then, in other terminals: nc 127.0.0.1 9000
"""

import sys

from trunkline import Reactor, TcpConnection, TcpServer
from trunkline.reactor import run_until_signal
from trunkline.wire import RawFramer


def on_message(connection: TcpConnection, data: bytes) -> None:
    connection.send(data)


async def main(address: str = "127.0.0.1:9000") -> None:
    host, _, port = address.rpartition(":")
    server = TcpServer(Reactor.current(), RawFramer, on_message)
    print("listening on port", await server.listen(host, int(port)), flush=True)
    await server.serve()


if __name__ == "__main__":
    run_until_signal(lambda: main(*sys.argv[1:]))
