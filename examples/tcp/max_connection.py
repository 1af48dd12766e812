"""An echo by lines that takes so many connections and no more: in all, and from one address.

usage: python max_connection.py [HOST:PORT] [MOST] [MOST_PER_ADDRESS]
"""

import sys

from trunkline import ConnectionLimits, Reactor, TcpConnection, TcpServer
from trunkline.reactor import run_until_signal
from trunkline.wire import LineFramer


def on_message(connection: TcpConnection, line: bytes) -> None:
    connection.send(line)


def on_refused(reason: str) -> None:
    print("refused:", reason, flush=True)


async def main(address: str = "127.0.0.1:9000", most: str = "5", most_per_address: str = "3") -> None:
    server = TcpServer(
        Reactor.current(),
        LineFramer,
        on_message,
        on_refused=on_refused,
        limits=ConnectionLimits(connections=int(most), per_address=int(most_per_address)),
    )
    host, _, port = address.rpartition(":")
    print("listening on port", await server.listen(host, int(port)), flush=True)
    try:
        await server.serve()
    finally:
        print(f"{server.accepted} accepted, {server.refused.total()} refused", flush=True)


if __name__ == "__main__":
    run_until_signal(lambda: main(*sys.argv[1:]))
