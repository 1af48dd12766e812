"""An echo in several processes that share one port: each core has its own.

usage: python multi_process_echo.py [HOST:PORT] [WORKERS]     then: nc 127.0.0.1 9000
"""

import os
import sys

from trunkline import Reactor, TcpConnection, TcpServer
from trunkline.logs import start_logging
from trunkline.tcp import hold_port, run_workers
from trunkline.wire import LineFramer


def on_message(connection: TcpConnection, line: bytes) -> None:
    connection.send(b"%d: %s" % (os.getpid(), line))


def main(address: str = "127.0.0.1:9000", count: str = "2") -> int:
    host, _, wanted = address.rpartition(":")

    async def work(_number: int) -> None:
        server = TcpServer(Reactor.current(), LineFramer, on_message)
        await server.listen(host, port, reuse_port=True)
        await server.serve()

    start_logging()
    with hold_port(host, int(wanted)) as port:
        print("listening on port", port, flush=True)
        return run_workers(work, int(count))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
