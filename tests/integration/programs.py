"""Programs as processes of their own, and peers on plain sockets: what tests of whole programs are made of."""

import contextlib
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 20.0
"""Seconds for anything that should come at once. Only a failing test ever waits that long."""
STOP_DEADLINE = 10.0


def wait_for(find: Callable[[], T], what: str, deadline: float = PATIENCE) -> T:
    """Asks again and again until the answer is true; fails, naming `what`, after `deadline` seconds."""
    ends_at = time.monotonic() + deadline
    while True:
        found = find()
        if found:
            return found
        if time.monotonic() > ends_at:
            raise AssertionError(f"not within {deadline:g} s: {what}; the last answer was {found!r}")
        time.sleep(0.01)


class Program:
    """A Python program that runs, and what it prints."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        number = len(list(folder.glob("*.out")))
        self._out, self._err = folder / f"{number}.out", folder / f"{number}.err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "error", *arguments], stdout=out, stderr=err, stdin=subprocess.DEVNULL
            )

    @property
    def output(self) -> str:
        return self._out.read_text()

    @property
    def errors(self) -> str:
        return self._err.read_text()

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Waits until a pattern is in the output."""

        def find() -> re.Match[str] | None:
            found = re.search(pattern, self.output, re.MULTILINE)
            assert found or self.process.poll() is None, f"ended before it said {pattern}: {self.output}{self.errors}"
            return found

        found = wait_for(find, f"{pattern} in the output, beside {self.output!r} and {self.errors!r}")
        assert found is not None
        return found

    @property
    def port(self) -> int:
        """The port that it says it listens on, in its first line."""
        return int(self.wait_for(r"\Alistening on port (\d+)\n")[1])

    def tell(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, deadline: float = PATIENCE) -> int:
        """The exit code, once it has ended."""
        return self.process.wait(deadline)

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """Has it end, which it must do soon, with 0, and without a traceback."""
        self.tell(number)
        assert self.wait(STOP_DEADLINE) == 0, self.errors
        assert "Traceback" not in self.errors
        assert "ERROR" not in self.errors

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE)


class Programs:
    """Starts programs in a folder, and peers; ends those that are left."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._opened: list[Program | Peer] = []

    def start(self, *arguments: object) -> Program:
        program = Program(self.folder, *map(str, arguments))
        self._opened.append(program)
        return program

    def dial(self, port: int) -> "Peer":
        peer = Peer(port)
        self._opened.append(peer)
        return peer

    def close(self) -> None:
        for opened in self._opened:
            opened.close()


class Peer:
    """A peer that reads and writes lines on a blocking socket."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self._file = self.socket.makefile("rb")

    def say(self, line: str) -> None:
        self.socket.sendall(f"{line}\n".encode())

    def hear(self) -> str:
        """The next line; empty at the end of the stream."""
        return self._file.readline().decode().removesuffix("\n")

    def ask(self, line: str) -> str:
        self.say(line)
        return self.hear()

    def read_all(self) -> bytes:
        """What comes until the end."""
        return self._file.read()

    def is_ended(self) -> bool:
        """Waits for the end of the stream, and whether nothing came before it."""
        with contextlib.suppress(ConnectionResetError):
            return self._file.read() == b""
        return True

    def close(self) -> None:
        self._file.close()
        self.socket.close()


def programs_in(folder: Path) -> Iterator[Programs]:
    """For a fixture: programs that are ended when the test has."""
    programs = Programs(folder)
    try:
        yield programs
    finally:
        programs.close()
