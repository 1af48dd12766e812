"""A plain user's echo server, with every bound at its default: python benchmarks/echo_server.py PORT FRAMING."""

import sys

from trunkline import Reactor, TcpConnection, TcpServer
from trunkline.wire import Frames, LengthFramer, LineFramer, RawFramer

FRAMERS = {
    "raw": RawFramer,
    "u32le": lambda: LengthFramer(order="little"),
    "line": LineFramer,
    "native": Frames,
}


def on_message(connection: TcpConnection, message: bytes) -> None:
    connection.send(message)


async def main() -> None:
    server = TcpServer(Reactor.current(), FRAMERS[sys.argv[2]], on_message)
    await server.listen("127.0.0.1", int(sys.argv[1]))
    await server.serve()


Reactor.run(main)
