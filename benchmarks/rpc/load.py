"""What the benchmark's servers and clients have in common, whatever library they stand on.

A server prints its port and serves until its standard input ends. A client is started with PORT CONNECTIONS IN_FLIGHT
SECONDS; it connects, warms up, prints "ready", waits for a line, makes calls for so many seconds, and prints how many
there were and how long they took. Each call echoes 32 bytes of its own; a wrong echo ends the client with an error.
"""

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

WARM_UP = 0.5
"""Seconds of calls that are not counted."""


class Load(NamedTuple):
    """What a client has to do."""

    port: int
    connections: int
    in_flight: int
    """Calls under way on each connection."""
    seconds: float


def asked() -> Load:
    """What this client has to do, by its command line."""
    port, connections, in_flight, seconds = sys.argv[1:]
    return Load(int(port), int(connections), int(in_flight), float(seconds))


def serving(port: int) -> None:
    """A server is ready. It ends with its standard input."""
    print(port, flush=True)
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()


def payload(worker: int, number: int) -> bytes:
    """32 bytes that no other call has."""
    return b"%016x%016x" % (worker, number)


def check(sent: bytes, echoed: object) -> None:
    """Ends the client if the echo is not what was sent."""
    if echoed != sent:
        raise SystemExit(f"wrong echo: sent {sent!r}, got {echoed!r}")


def wait_for_start() -> None:
    """Warm now; waits for the runner's word."""
    print("ready", flush=True)
    sys.stdin.readline()


def report(calls: int, seconds: float) -> None:
    """What was done."""
    print(json.dumps({"calls": calls, "seconds": seconds}), flush=True)


async def make_calls(load: Load, echoes: list[Callable[[bytes], Awaitable[object]]]) -> None:
    """Makes the calls of an asyncio client: `in_flight` coroutines for each of the connections' `echoes`."""
    await _round(load, echoes, WARM_UP)
    wait_for_start()
    report(*await _round(load, echoes, load.seconds))


async def _round(load: Load, echoes: list[Callable[[bytes], Awaitable[object]]], seconds: float) -> tuple[int, float]:
    running = True

    def stop() -> None:
        nonlocal running
        running = False

    async def work(worker: int, echo: Callable[[bytes], Awaitable[object]]) -> int:
        calls = 0
        while running:
            sent = payload(worker, calls)
            check(sent, await echo(sent))
            calls += 1
        return calls

    workers = [echo for echo in echoes for _ in range(load.in_flight)]
    asyncio.get_running_loop().call_later(seconds, stop)
    began = time.perf_counter()
    calls = await asyncio.gather(*(work(worker, echo) for worker, echo in enumerate(workers)))
    return sum(calls), time.perf_counter() - began
