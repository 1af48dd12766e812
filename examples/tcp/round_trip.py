"""Measures how long a message takes to a server and back, and how far the two clocks are apart.

usage: python round_trip.py serve HOST:PORT
       python round_trip.py measure HOST:PORT [TIMES]
"""

import asyncio
import struct
import sys
import time

from trunkline import Reactor, TcpConnection, TcpServer, connect
from trunkline.reactor import run_until_signal
from trunkline.wire import FixedFramer

TIMES = struct.Struct(">qq")  # when the client asked, and when the server answered: nanoseconds of each one's clock
INTERVAL = 0.2


def new_framer() -> FixedFramer:
    return FixedFramer(TIMES.size)


def answer(connection: TcpConnection, question: bytes) -> None:
    asked, _ = TIMES.unpack(question)
    connection.send(TIMES.pack(asked, time.time_ns()))


async def serve(host: str, port: int) -> None:
    server = TcpServer(Reactor.current(), new_framer, answer)
    print("listening on port", await server.listen(host, port), flush=True)
    await server.serve()


async def measure(host: str, port: int, times: str = "10") -> None:
    async with connect((host, port), new_framer) as connection:
        for _ in range(int(times)):
            connection.send(TIMES.pack(time.time_ns(), 0))
            asked, answered = TIMES.unpack(await connection.receive())
            now = time.time_ns()
            # If both ways take as long, the server answered halfway between. This is how NTP reckons it.
            offset = answered - (asked + now) // 2
            print(f"round trip {(now - asked) / 1_000:.0f} us, clock offset {offset / 1_000:.0f} us", flush=True)
            await asyncio.sleep(INTERVAL)


if __name__ == "__main__":
    task = {"serve": serve, "measure": measure}[sys.argv[1]]
    host, _, port = sys.argv[2].rpartition(":")
    run_until_signal(lambda: task(host, int(port), *sys.argv[3:]))
