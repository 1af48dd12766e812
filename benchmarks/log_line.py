"""What one log line costs the thread that logs, by handler.

usage: python benchmarks/log_line.py [--lines 20000] [--rounds 5] [--folder DIR] [--json FILE]

Each handler logs the same event, with the node's own formatter, to a file of its own. Lines come in bursts of 50 with
a pause after each, as on a node that has other things to do, so that no handler gets by on dropping them: it is
checked that every line is in the file. CPU is that of the logging thread alone (time.thread_time_ns); p99.9 is the
wall time of a call, in which the thread also waits for the disk, for a lock or for the interpreter. "format only"
formats the line and throws it away: the floor for all that format in the thread that logs. "nothing" has its level
turned off. The handlers take turns, and medians over the rounds are printed.
"""

import argparse
import json
import logging
import logging.handlers
import queue
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from trunkline.logs import KeyValueFormatter, RotatingLogHandler, event

BURST = 50
PAUSE = 0.002
Made = tuple[logging.Handler, Callable[[], object]]


class FormatOnly(logging.Handler):
    """Formats each line and throws it away."""

    def emit(self, record: logging.LogRecord) -> None:
        self.format(record)


def queue_handler(path: Path) -> Made:
    """The standard library's own way to take the disk out of the thread that logs."""
    lines: queue.SimpleQueue[object] = queue.SimpleQueue()
    target = logging.FileHandler(path)
    target.setFormatter(KeyValueFormatter())
    listener = logging.handlers.QueueListener(lines, target)  # type: ignore[arg-type]
    listener.start()

    def close() -> None:
        listener.stop()
        target.close()

    return logging.handlers.QueueHandler(lines), close  # type: ignore[arg-type]


def plain(new: Callable[[Path], logging.Handler]) -> Callable[[Path], Made]:
    """A handler that formats and closes by itself."""

    def make(path: Path) -> Made:
        handler = new(path)
        handler.setFormatter(KeyValueFormatter())
        return handler, handler.close

    return make


HANDLERS: dict[str, Callable[[Path], Made]] = {
    "nothing": plain(lambda _path: FormatOnly(logging.CRITICAL)),
    "format only": plain(lambda _path: FormatOnly()),
    "FileHandler": plain(logging.FileHandler),
    "RotatingFileHandler": plain(
        lambda path: logging.handlers.RotatingFileHandler(path, maxBytes=10_485_760, backupCount=5)
    ),
    "QueueHandler": queue_handler,
    "RotatingLogHandler": plain(RotatingLogHandler),
}


def measure(name: str, lines: int, folder: Path) -> dict[str, float]:
    """One round of one handler."""
    path = folder / f"{name.replace(' ', '_')}.log"
    handler, close = HANDLERS[name](path)
    logger = logging.Logger("trunkline.benchmark")
    logger.setLevel(logging.CRITICAL if name == "nothing" else logging.INFO)
    logger.addHandler(handler)
    calls: list[int] = []
    used = 0
    for start in range(0, lines, BURST):
        began = time.thread_time_ns()
        before = time.perf_counter_ns()
        for number in range(start, start + BURST):
            event(logger, logging.INFO, "command written", device="meter-0042", command=number, size=128, epoch=3)
            now = time.perf_counter_ns()
            calls.append(now - before)
            before = now
        used += time.thread_time_ns() - began
        time.sleep(PAUSE)
    close()
    written = sum(file.read_bytes().count(b"\n") for file in folder.glob(path.name + "*"))
    assert written == (0 if name in ("nothing", "format only") else lines), f"{name}: {written} of {lines} lines"
    for file in folder.glob(path.name + "*"):
        file.unlink()
    calls.sort()
    return {
        "cpu_ns": used / lines,
        "p50_ns": calls[len(calls) // 2],
        "p999_ns": calls[len(calls) * 999 // 1000],
        "worst_ns": calls[-1],
    }


def main() -> None:
    """Runs all, prints a table, and writes it as JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the files go; a folder of the system's by default")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    lines = max(BURST, arguments.lines // BURST * BURST)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        rounds = [
            {name: measure(name, lines, Path(folder)) for name in HANDLERS} for _ in range(max(1, arguments.rounds))
        ]
    result = {
        name: {key: statistics.median(each[name][key] for each in rounds) for key in rounds[0][name]}
        for name in HANDLERS
    }
    print(f"{lines:,} lines, median of {len(rounds)} rounds; microseconds per line, in the thread that logs")
    print(f"{'handler':<20}{'CPU':>8}{'p50':>8}{'p99.9':>10}{'worst':>10}")
    for name, figures in result.items():
        cpu, p50, p999, worst = (figures[key] / 1000 for key in ("cpu_ns", "p50_ns", "p999_ns", "worst_ns"))
        print(f"{name:<20}{cpu:>8.2f}{p50:>8.2f}{p999:>10.1f}{worst:>10.0f}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"lines": lines, "rounds": len(rounds), "handlers": result}, indent=2))


if __name__ == "__main__":
    main()
