"""What one embedded node does per second, end to end, beside the same HTTP stack with no-op handlers.

usage: python benchmarks/node.py [--seconds 5] [--connections 50] [--rounds 3] [--json FILE]

Commands: POST .../commands?wait=5 to 50 simulated devices that answer at once; an answer counts if it holds the
device's reply. Items: POST /api/v1/items with lists of 100; an answer counts if all 100 are on disk. The node, the
devices and the load generator share the machine. The runs alternate, and the median is printed.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import uvloop
from http_load import Load

HERE = Path(__file__).parent
DEVICES = 50
ITEMS = list(range(1, 101))


def post(port: int, path: str, body: bytes) -> bytes:
    """One request as bytes."""
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def cpu_seconds(pid: int) -> float:
    """CPU time of a process, all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Server:
    """A server process under test, with its HTTP port."""

    def __init__(self, process: subprocess.Popen[str], port: int, helpers: list[subprocess.Popen[str]]) -> None:
        self.process = process
        self.port = port
        self._helpers = helpers

    def stop(self) -> None:
        """Ends it."""
        for process in [*self._helpers, self.process]:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def start_node(folder: str) -> Server:
    """A node on embedded defaults, and its devices."""
    environ = os.environ | {
        "TRUNKLINE_HTTP_PORT": "0", "TRUNKLINE_DEVICES_PORT": "0", "TRUNKLINE_DATA_DIRECTORY": folder,
        "TRUNKLINE_LOG_LEVEL": "WARNING", "TRUNKLINE_BATCHES_SPOOL_LIMIT": "100000000",
    }  # fmt: skip
    run = [sys.executable, "-m", "trunkline.cli.main"]
    node = subprocess.Popen([*run, "serve"], env=environ, stdout=subprocess.PIPE, text=True)
    assert node.stdout is not None
    ready = dict(part.split("=", 1) for part in node.stdout.readline().strip().split(" ", 5)[3:])
    devices = subprocess.Popen(
        [*run, "simulate", "--devices", str(DEVICES), "--connect", ready["devices"], "--json"],
        stdout=subprocess.DEVNULL,
        text=True,
    )
    time.sleep(2)
    return Server(node, int(ready["http"].rpartition(":")[2]), [devices])


def items_stored(port: int) -> int:
    """How many items are in their files; 0 for a server that has none."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/status", timeout=10) as answer:
            return int(json.load(answer)["items_stored"])
    except urllib.error.HTTPError:
        return 0


def start_noop(_folder: str) -> Server:
    """The same HTTP stack with handlers that do nothing."""
    port = 20_000 + os.getpid() % 10_000
    process = subprocess.Popen([sys.executable, str(HERE / "noop_server.py"), str(port)], text=True)
    time.sleep(2)
    return Server(process, port, [])


async def measure(server: Server, work: str, connections: int, seconds: float) -> dict[str, float]:
    """One work against one server."""
    if work == "commands":
        requests = [
            post(server.port, f"/api/v1/devices/sim-{number % DEVICES + 1:04d}/commands?wait=5", b'{"cmd":"read all"}')
            for number in range(connections)
        ]
        load = Load(
            "127.0.0.1", server.port, connections, lambda number: requests[number],
            lambda status, body: status == 200 and b'"state":"replied"' in body,
        )  # fmt: skip
    else:
        request = post(server.port, "/api/v1/items", json.dumps(ITEMS).encode())
        load = Load("127.0.0.1", server.port, connections, lambda _number: request, lambda status, _body: status == 200)
    before, stored = cpu_seconds(server.process.pid), items_stored(server.port)
    result = await load.run(seconds)
    result["drained_per_second"] = (items_stored(server.port) - stored) / seconds
    used = cpu_seconds(server.process.pid) - before
    if work == "items":  # and with nothing else to do
        stored = items_stored(server.port)
        await asyncio.sleep(seconds)
        result["drained_alone_per_second"] = (items_stored(server.port) - stored) / seconds
    return result | {"cpu_us_per_request": used / (result["per_second"] * seconds) * 1e6}


def main() -> None:
    """Runs all, prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--connections", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    runs: dict[tuple[str, str], list[dict[str, float]]] = {}
    for _ in range(options.rounds):
        for name, start in (("node", start_node), ("no-op", start_noop)):
            for work, connections in (("commands", options.connections), ("items", 10)):
                with tempfile.TemporaryDirectory() as folder:
                    server = start(folder)
                    try:
                        result = uvloop.run(measure(server, work, connections, options.seconds))
                    finally:
                        server.stop()
                runs.setdefault((work, name), []).append(result)
    rows = []
    for (work, name), results in sorted(runs.items()):
        median = {key: statistics.median(result[key] for result in results) for key in results[0]}
        rows.append({"work": work, "name": name, **median})
        items = ""
        if work == "items":
            items = f"  {median['per_second'] * 100:.0f} items/s accepted, {median['drained_per_second']:.0f} drained "
            items += f"meanwhile, {median['drained_alone_per_second']:.0f} alone"
        print(
            f"{work:9} {name:6} {median['per_second']:8.0f} requests/s  p50 {median['p50_ms']:6.1f} ms  "
            f"p99 {median['p99_ms']:6.1f} ms  {median['cpu_us_per_request']:6.0f} us CPU/request  "
            f"{median['wrong']:.0f} wrong{items}"
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
