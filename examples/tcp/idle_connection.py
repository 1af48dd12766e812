"""An echo by lines that closes who says nothing for a while, and says why.

usage: python idle_connection.py [HOST:PORT] [SECONDS]     then: nc 127.0.0.1 9000
"""

import sys

from trunkline import ConnectionOptions, ProtocolError, Reactor, TcpConnection, TcpServer
from trunkline.reactor import run_until_signal
from trunkline.wire import LineFramer


def on_message(connection: TcpConnection, line: bytes) -> None:
    connection.send(line)


def on_error(connection: TcpConnection, error: ProtocolError) -> None:
    # The last chance to tell the peer: the connection is closed when this is done.
    connection.send(f"goodbye: {error}".encode())


def on_connection(connection: TcpConnection) -> None:
    print(connection.peer, "is here" if connection.is_open else f"is gone: {connection.close_reason}", flush=True)


async def main(address: str = "127.0.0.1:9000", seconds: str = "10") -> None:
    server = TcpServer(
        Reactor.current(),
        LineFramer,
        on_message,
        on_connection=on_connection,
        on_error=on_error,
        options=ConnectionOptions(idle_timeout=float(seconds)),
    )
    host, _, port = address.rpartition(":")
    print("listening on port", await server.listen(host, int(port)), flush=True)
    await server.serve()


if __name__ == "__main__":
    run_until_signal(lambda: main(*sys.argv[1:]))
