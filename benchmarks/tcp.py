"""What compare.sh does not measure of the TCP framework: memory, accepting, threads that send, SimpleReactor's format.

    python benchmarks/tcp.py [memory] [accept] [threads] [simple-reactor] [--json FILE]

Each figure stands beside that of a peer in the same run: a bare uvloop protocol, or the plain way to do it. All is on
loopback, and ends by itself.
"""

import argparse
import asyncio
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvloop

from trunkline import ConnectionOptions, Reactor, TcpClient, TcpConnection, TcpServer
from trunkline.reactor import ReactorThread
from trunkline.tcp import bind
from trunkline.wire import Frames, LengthFramer, RawFramer, SimpleReactorWire

HERE = Path(__file__).resolve()
CONNECTIONS, ROUNDS = 15_000, 3


class Bare(asyncio.Protocol):
    """The least that one can write on uvloop by hand."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


async def serve(kind: str) -> None:
    """A server in a process of its own, on a port that it prints; it ends with its standard input."""
    loop = asyncio.get_running_loop()
    reactor = Reactor(loop)
    sock = bind("127.0.0.1", 0, "benchmark")
    sock.listen(4096)
    print(sock.getsockname()[1], flush=True)
    if kind == "bare":
        await loop.create_server(Bare, sock=sock)
    else:
        framers: dict[str, Callable[[], Any]] = {
            "raw": RawFramer, "native": Frames, "simple-reactor": lambda: SimpleReactorWire("server"),
        }  # fmt: skip
        server = TcpServer(reactor, framers[kind], lambda connection, message: connection.send(message))
        await server.start(sock)
    await loop.run_in_executor(None, sys.stdin.read)
    os._exit(0)


class Process:
    """One of these servers."""

    def __init__(self, kind: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, HERE, "serve", kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.port = int(self.process.stdout.readline())

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stdin.close()
        self.process.wait(10)

    def cpu_seconds(self) -> float:
        """What all its threads have used."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9

    def resident_bytes(self) -> int:
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


def measure_memory() -> dict[str, float]:
    """Bytes of the server's resident memory per idle connection, 15,000 held."""
    found: dict[str, float] = {}
    session = Frames()
    session.start()
    for kind in ("bare", "raw", "native"):
        with Process(kind) as server:
            warm = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(100)]
            time.sleep(0.5)
            before = server.resident_bytes()
            held = []
            for _ in range(CONNECTIONS):
                sock = socket.create_connection(("127.0.0.1", server.port))
                if kind == "native":
                    sock.sendall(session.output)
                held.append(sock)
            time.sleep(2.0)
            found[kind] = (server.resident_bytes() - before) / CONNECTIONS
            for sock in held + warm:
                sock.close()
    return found


def measure_accepting() -> dict[str, float]:
    """Microseconds of the server's CPU per connection that is opened, echoes once and is closed."""
    found: dict[str, list[float]] = {"bare": [], "raw": []}
    for _ in range(ROUNDS):
        for kind, costs in found.items():
            with Process(kind) as server:
                before, count = server.cpu_seconds(), 5_000
                for _ in range(count // 50):
                    socks = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(50)]
                    for sock in socks:
                        sock.sendall(b"hello")
                    for sock in socks:
                        assert sock.recv(100) == b"hello"
                        sock.close()
                costs.append((server.cpu_seconds() - before) / count * 1e6)
    return {kind: statistics.median(costs) for kind, costs in found.items()}


def measure_threads() -> dict[str, float]:
    """Nanoseconds of CPU of the whole process per message of 32 bytes that 4 threads send over one connection."""
    found: dict[str, list[float]] = {"call_soon_threadsafe": [], "send": []}
    for _ in range(ROUNDS):
        for way, costs in found.items():
            costs.append(_send_from_threads(way, 50_000))
    return {way: statistics.median(costs) for way, costs in found.items()}


def _send_from_threads(way: str, count: int) -> float:
    left, right = socket.socketpair()
    for sock in (left, right):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_194_304)
    message, frame_bytes = b"x" * 32, 36
    with ReactorThread() as reactor:
        client = subprocess.Popen(
            [sys.executable, "-c", _READER, str(right.fileno()), str(4 * count * frame_bytes)],
            pass_fds=[right.fileno()], stdout=subprocess.PIPE,
        )  # fmt: skip
        right.close()
        loop = reactor.reactor.loop
        if way == "send":
            sender = reactor.run(_open_ours(reactor.reactor, left)).send
        else:
            framer = LengthFramer(order="little")
            transport, _ = reactor.run(_open_bare(loop, left))

            def sender(message: bytes) -> None:
                loop.call_soon_threadsafe(transport.write, framer.encode(message))

        def send_many() -> None:
            for _ in range(count):
                sender(message)

        threads = [threading.Thread(target=send_many) for _ in range(4)]
        before = time.process_time()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert client.stdout.read() == b"done"
        client.wait()
        return (time.process_time() - before) / (4 * count) * 1e9


_READER = """
import socket, sys
sock, left = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
while left > 0:
    data = sock.recv(1 << 20)
    if not data:
        break
    left -= len(data)
print("done" if left == 0 else left, end="")
"""


async def _open_ours(reactor: Reactor, sock: socket.socket) -> TcpConnection:
    options = ConnectionOptions(overflow="wait", unsent_limit_bytes=8_388_608)
    server = TcpServer(reactor, lambda: LengthFramer(order="little"), lambda *_: None, options=options)
    server._intake.take(sock, "")  # the one end of a pair stands for an accepted socket
    while not server.connections:
        await asyncio.sleep(0.01)
    return next(iter(server.connections.values()))


async def _open_bare(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> Any:
    sock.setblocking(False)
    return await loop.connect_accepted_socket(asyncio.Protocol, sock)


def measure_simple_reactor() -> dict[str, float]:
    """Seconds for 10,000 messages to and fro over 100 connections, compressed: SimpleReactor's own benchmark."""
    rounds = []
    for _ in range(2 * ROUNDS - 1):
        with Process("simple-reactor") as server:
            before, began = server.cpu_seconds(), time.process_time()
            seconds = Reactor.run(lambda port=server.port: _ping_pong(port, 100, 10_000))
            rounds.append((seconds, server.cpu_seconds() - before, time.process_time() - began))
    names = ("seconds", "seconds of the server's CPU", "seconds of the client's CPU")
    return {name: statistics.median(column) for name, column in zip(names, zip(*rounds, strict=True), strict=True)}


async def _ping_pong(port: int, connections: int, messages: int) -> float:
    done = asyncio.Event()
    received = 0

    def on_message(connection: TcpConnection, message: bytes) -> None:
        nonlocal received
        received += 1
        if received >= messages:
            done.set()
        connection.send(message)

    client = TcpClient(
        Reactor(asyncio.get_running_loop()), ("127.0.0.1", port), lambda: SimpleReactorWire("client"), on_message,
        count=connections,
    )  # fmt: skip
    client.start()
    await client.connected(10)
    began = time.perf_counter()
    for connection in client.connections.values():
        connection.send(b"hello world")
    await done.wait()
    seconds = time.perf_counter() - began
    await client.stop()
    return seconds


MEASURES = {
    "memory": (measure_memory, "bytes of resident memory per idle connection"),
    "accept": (measure_accepting, "microseconds of CPU per connection opened, used once and closed"),
    "threads": (measure_threads, "nanoseconds of CPU per message from 4 threads"),
    "simple-reactor": (measure_simple_reactor, "10,000 compressed messages to and fro over 100 connections"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measures", nargs="*", help=", ".join(MEASURES))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    found = {}
    if unknown := set(options.measures) - set(MEASURES):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(MEASURES)}")
    for name in options.measures or MEASURES:
        measure, unit = MEASURES[name]
        found[name] = {"unit": unit, **{kind: round(value, 3) for kind, value in measure().items()}}
        print(name, found[name], flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        uvloop.run(serve(sys.argv[2]))
    else:
        main()
