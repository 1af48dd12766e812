"""Calls per second, and what they cost the server, of Trunkline's RPC and of its peers.

    python benchmarks/rpc/run.py [--only bare,trunkline] [--seconds 2] [--rounds 3] [--json FILE]

Each call echoes 32 bytes. The server's process is pinned to one core, the client's to another one; so where the client
is the slower of the two, compare by the server's CPU. The work is connections x calls under way on each. Each figure is
the median of the rounds, in which the peers take turns.

`bare` is written by hand and has no limits, deadlines, errors or tasks: no RPC can be faster on the same libraries.
The peers from PyPI are written as their manuals do it, and live in a virtual environment beside this file, which the
first run makes. What can't be installed or does not do a work is said under the table.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
VENV = HERE / ".venv"
WORKS = {"1x1": (1, 1), "1x100": (1, 100), "100x1": (100, 1)}
OURS = ("bare", "trunkline")  # they need what Trunkline needs, so they run where this script does
PACKAGES = {
    "grpcio": "grpcio",
    "rpyc": "rpyc",
    "thriftpy2": "thriftpy2",
    "aio_msgpack_rpc": "aio-msgpack-rpc",
    "zerorpc": "zerorpc",
}
NAMES = (*OURS, *PACKAGES)
CORES = sorted(os.sched_getaffinity(0))


class Failed(Exception):
    """A peer does not do what it was asked for."""


class Result(NamedTuple):
    calls_per_second: float
    server_cpu_us_per_call: float


def install() -> dict[str, str]:
    """Makes the peers' environment; returns the packages that could not be installed, and why."""
    if not (VENV / "bin" / "python").exists():
        print(f"installing the peers into {VENV.relative_to(HERE.parent)} ...", file=sys.stderr)
        venv.create(VENV, with_pip=True)
    missing: dict[str, str] = {}
    for line in (HERE / "requirements.txt").read_text().split():
        command = [VENV / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", line]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            missing[line.partition("==")[0]] = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
    return missing


class Process:
    """A peer's server or client, pinned to a core."""

    def __init__(self, name: str, side: str, core: int, *arguments: object) -> None:
        python = sys.executable if name in OURS else VENV / "bin" / "python"
        self.process = subprocess.Popen(
            [python, HERE / "peers" / f"{name}_{side}.py", *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(HERE)},
        )
        os.sched_setaffinity(self.process.pid, {core})  # long before it has a second thread

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def line(self) -> str:
        """What it prints next.

        Raises:
            Failed: it ended instead.
        """
        line = self.process.stdout.readline().strip()
        if not line:
            _, errors = self.process.communicate(timeout=20)
            raise Failed((errors.strip().splitlines() or ["it ended without a word"])[-1])
        return line

    def go(self) -> None:
        """Lets a client begin."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def cpu_seconds(self) -> float:
        """What all its threads have used."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def measure(name: str, work: str, seconds: float) -> Result:
    connections, in_flight = WORKS[work]
    with Process(name, "server", CORES[0]) as server:
        port = server.line()
        with Process(name, "client", CORES[-1], port, connections, in_flight, seconds) as client:
            client.line()
            before = server.cpu_seconds()
            client.go()
            done = json.loads(client.line())
            used = server.cpu_seconds() - before
    return Result(done["calls"] / done["seconds"], used / done["calls"] * 1e6)


def say(text: str) -> None:
    """How far it is, where somebody looks on."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def measure_all(
    names: list[str], seconds: float, rounds: int
) -> tuple[list[dict[str, Any]], dict[tuple[str, str], str]]:
    """The medians, and what was left out: why, by work and name."""
    found: dict[tuple[str, str], list[Result]] = {}
    notes: dict[tuple[str, str], str] = {}
    for number in range(rounds):
        for work in WORKS:
            for name in names:
                if (work, name) in notes:
                    continue
                say(f"round {number + 1} of {rounds}: {work} {name}")
                try:
                    found.setdefault((work, name), []).append(measure(name, work, seconds))
                except Failed as error:
                    if "wrong echo" in str(error):
                        raise SystemExit(f"\n{name}, {work}: {error}") from None
                    notes[work, name] = str(error)
    say("")
    rows = []
    for (work, name), results in found.items():
        if (work, name) not in notes:
            medians = [round(statistics.median(column), 2) for column in zip(*results, strict=True)]
            rows.append({"work": work, "name": name, **dict(zip(Result._fields, medians, strict=True))})
    return rows, notes


def show(rows: list[dict[str, Any]]) -> None:
    for work in WORKS:
        print(f"\n{work:<17} {'calls/s':>10} {'server CPU/call':>17}")
        for row in sorted((row for row in rows if row["work"] == work), key=lambda row: row["server_cpu_us_per_call"]):
            print(f"{row['name']:<17} {row['calls_per_second']:>10,.0f} {row['server_cpu_us_per_call']:>14,.2f} us")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(NAMES), help=f"of {', '.join(NAMES)}")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    names = options.only.split(",")
    if unknown := set(names) - set(NAMES):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    missing = install() if set(names) & set(PACKAGES) else {}
    notes = [f"{package} can't be installed: {why}" for package, why in missing.items()]
    names = [name for name in names if PACKAGES.get(name) not in missing]
    rows, left_out = measure_all(names, options.seconds, options.rounds)
    show(rows)
    notes += [f"{name}, {work}: {why}" for (work, name), why in left_out.items()]
    for note in notes:
        print(f"\nleft out: {note}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    if any(name in OURS for _, name in left_out):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
