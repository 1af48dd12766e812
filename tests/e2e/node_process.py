"""The real node as a process of its own, and devices on plain sockets: what the end-to-end tests are made of."""

import contextlib
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx

T = TypeVar("T")

START_DEADLINE = 30.0
STOP_DEADLINE = 10.0
PATIENCE = 15.0
"""Seconds for anything that should come at once. Only a failing test ever waits that long."""

_READY = re.compile(r"trunkline is ready: devices=(\S+):(\d+) http=(\S+) data=(.+)")
_TRUNKLINE = [sys.executable, "-m", "trunkline.cli.main"]


def wait_for(find: Callable[[], T], what: str, deadline: float = PATIENCE) -> T:
    """Asks again and again until the answer is true; fails, naming `what`, after `deadline` seconds."""
    ends_at = time.monotonic() + deadline
    while True:
        found = find()
        if found:
            return found
        if time.monotonic() > ends_at:
            raise AssertionError(f"not within {deadline:g} s: {what}; the last answer was {found!r}")
        time.sleep(0.02)


class PlainDevice:
    """A device on a blocking socket: what it says is said by the test, byte for byte."""

    def __init__(self, address: tuple[str, int], *, receive_buffer: int | None = None) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(PATIENCE)
        try:
            self.socket.connect(address)
        except OSError:
            self.socket.close()
            raise
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""

    @property
    def address(self) -> str:
        """The address by which the node knows it."""
        host, port = self.socket.getsockname()
        return f"{host}:{port}"

    def send(self, line: str, ending: str = "\n") -> None:
        self.socket.sendall((line + ending).encode())

    def send_bytes(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read_line(self, timeout: float = PATIENCE) -> str:
        """The next line; `EOFError` if the node has closed, `TimeoutError` if nothing comes."""
        ends_at = time.monotonic() + timeout
        while b"\n" not in self._received:
            self.socket.settimeout(max(0.001, ends_at - time.monotonic()))
            data = self.socket.recv(65_536)
            if not data:
                raise EOFError(f"closed after {self._received!r}")
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        return line.decode()

    def lines_until_closed(self, timeout: float = PATIENCE) -> list[str]:
        """All lines up to the end of the connection, be it closed in good order or reset."""
        lines = []
        with contextlib.suppress(EOFError, ConnectionResetError):
            while True:
                lines.append(self.read_line(timeout))
        return lines

    def says_nothing(self, seconds: float) -> bool:
        """Whether no line comes for so long."""
        try:
            self.read_line(seconds)
        except TimeoutError:
            return True
        return False

    def check_round_trip(self) -> None:
        """A heartbeat is answered: everything sent before it has been read."""
        self.send("PING")
        assert self.read_line() == "PONG"

    def answer(self, count: int, reply: Callable[[str], str] = lambda cmd: f"OK {cmd}") -> list[str]:
        """Answers so many commands, and returns them."""
        commands = []
        for _ in range(count):
            commands.append(self.read_line())
            self.send(reply(commands[-1]))
        return commands

    def reset(self) -> None:
        """Drops the connection with a RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        self.socket.close()


class AnsweringDevice:
    """A device in a thread: it answers whatever comes, until its line ends."""

    def __init__(
        self, device: PlainDevice, reply: Callable[[str], str] = lambda cmd: f"OK {cmd}", delay: float = 0.0
    ) -> None:
        self.device = device
        self.commands: list[str] = []
        self._reply = reply
        self._delay = delay
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                cmd = self.device.read_line(300)
                if cmd.startswith(("BYE ", "ERR ", "STORED ")) or cmd == "PONG":
                    continue
                self.commands.append(cmd)
                if self._delay:
                    time.sleep(self._delay)
                self.device.send(self._reply(cmd))

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.device.socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE)
        self.device.close()


class NodeProcess:
    """``trunkline serve`` in a folder of its own, on free ports."""

    def __init__(self, folder: Path, settings: str = "", **environment: str) -> None:
        self.folder = folder
        self.data = folder / "trunkline-data"
        self.http: httpx.Client
        self.url = ""
        self.address = ("", 0)
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TRUNKLINE_")},
            "TRUNKLINE_DEVICES_PORT": "0",
            "TRUNKLINE_HTTP_PORT": "0",
            **environment,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._opened: list[PlainDevice | AnsweringDevice | httpx.Client] = []
        self._starts = 0
        if settings:
            (folder / "trunkline.toml").write_text(settings, encoding="utf-8")

    # The process.

    def spawn(self) -> None:
        """Starts the process, and does not wait for it."""
        self._starts += 1
        with self._stdout.open("wb") as out, (self.folder / "node.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*_TRUNKLINE, "serve"], cwd=self.folder, env=self._environment, stdout=out, stderr=log
            )

    @property
    def _stdout(self) -> Path:
        return self.folder / f"stdout-{self._starts}"

    def start(self) -> "NodeProcess":
        """Starts the process, and waits until it says that it is ready."""
        self.spawn()
        ready = wait_for(self._ready, "the node is ready", START_DEADLINE)
        self.address = (ready[1], int(ready[2]))
        self.url = ready[3]
        self.http = self.new_client()
        return self

    def _ready(self) -> re.Match[str] | None:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"the node ended with {self._process.returncode} before it was ready:\n{self.log()}")
        return _READY.search(self._stdout.read_text())

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def log(self) -> str:
        """What the node has logged so far."""
        path = self.folder / "node.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def send_signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self, deadline: float = STOP_DEADLINE) -> int:
        """The exit code, once the process has ended."""
        assert self._process is not None
        return self._process.wait(deadline)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Has it drain; it must end in time, with 0, and with no error of its own in its log."""
        self.send_signal(number)
        assert self.wait() == 0, self.log()
        errors = [line for line in self.log().splitlines() if " ERROR " in line or line.startswith("Traceback")]
        assert not errors, errors

    def kill(self) -> None:
        """Ends it at once, as a power cut would."""
        self.send_signal(signal.SIGKILL)
        assert self.wait() == -signal.SIGKILL

    def close(self) -> None:
        """Closes what the test has opened, and stops the node if it still runs."""
        for opened in reversed(self._opened):  # a thread before the socket that it reads
            opened.close()
        self._opened.clear()
        if self.is_running:
            try:
                self.stop()
            finally:
                if self.is_running:
                    self.kill()

    def resident_bytes(self) -> int:
        """The memory that the process holds."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024

    # Devices.

    def dial(self, **options: Any) -> PlainDevice:
        """A connection that has said nothing yet."""
        device = PlainDevice(self.address, **options)
        self._opened.append(device)
        return device

    def connect(self, device_id: str, **options: Any) -> PlainDevice:
        """A device that has said hello and is online."""
        device = self.dial(**options)
        device.send(f"HELLO {device_id}")
        wait_for(lambda: self.is_online(device_id, device.address), f"{device_id} is online")
        return device

    def answering(self, device_id: str, reply: Callable[[str], str] | None = None, **options: Any) -> AnsweringDevice:
        """A device that is online and answers whatever it is sent."""
        device = AnsweringDevice(self.connect(device_id), reply or (lambda cmd: f"OK {cmd}"), **options)
        self._opened.append(device)
        return device

    def is_online(self, device_id: str, address: str | None = None) -> bool:
        response = self.http.get(f"/api/v1/devices/{device_id}")
        if response.status_code == 404:
            return False
        found = response.json()
        return bool(found["online"]) and address in (None, found["address"])

    def device(self, device_id: str) -> dict[str, Any]:
        return self.get(f"/devices/{device_id}")

    def offline_reason(self, device_id: str) -> str:
        """Why the device is offline, once it is."""

        def find() -> dict[str, Any] | None:
            response = self.http.get(f"/api/v1/devices/{device_id}")
            # A device that says hello and goes at once is gone before it is known.
            known = response.status_code == 200 and not response.json()["online"]
            return dict(response.json()) if known else None

        return str(wait_for(find, f"{device_id} is offline")["offline_reason"])

    # HTTP.

    def new_client(self, **options: Any) -> httpx.Client:
        client = httpx.Client(base_url=self.url, timeout=60, trust_env=False, **options)
        self._opened.append(client)
        return client

    def get(self, path: str, **params: Any) -> Any:
        response = self.http.get(f"/api/v1{path}", params=params)
        assert response.status_code == 200, response.text
        return response.json()

    def send(self, device_id: str, cmd: str, *, wait: float | None = None, **body: Any) -> dict[str, Any]:
        """Sends a command that must be accepted."""
        response = self.http.post(
            f"/api/v1/devices/{device_id}/commands",
            json={"cmd": cmd, **body},
            params={} if wait is None else {"wait": wait},
        )
        assert response.status_code in (200, 202), response.text
        return dict(response.json())

    def command(self, command_id: str) -> dict[str, Any]:
        return dict(self.get(f"/commands/{command_id}"))

    def ended_command(self, command_id: str) -> dict[str, Any]:
        """The command, once it has an outcome."""
        return wait_for(
            lambda: found if (found := self.command(command_id))["state"] not in ("queued", "written") else {},
            f"command {command_id} has ended",
        )

    def store(self, items: list[Any]) -> int:
        response = self.http.post("/api/v1/items", json=items)
        assert response.status_code == 200, response.text
        return int(response.json()["stored"])

    def sync(self, record_type: str, record: str) -> dict[str, Any]:
        response = self.http.post(f"/api/v1/records/{record_type}/{record}/sync")
        assert response.status_code == 202, response.text
        return dict(response.json())

    def ended_job(self, job_id: str, deadline: float = PATIENCE) -> dict[str, Any]:
        """The job, once it has an outcome."""
        return wait_for(
            lambda: found if (found := self.get(f"/jobs/{job_id}"))["state"] in ("succeeded", "failed") else {},
            f"job {job_id} has ended",
            deadline,
        )

    def metric(self, name: str, **labels: str) -> float:
        """The value of one figure in /metrics; 0 if it has none yet."""
        wanted = name + ("{" + ",".join(f'{key}="{value}"' for key, value in labels.items()) + "}" if labels else "")
        for line in self.http.get("/metrics").text.splitlines():
            key, _, value = line.rpartition(" ")
            if key == wanted:
                return float(value)
        return 0.0

    # Storage.

    def batch_files(self) -> list[Path]:
        """The stored batches, oldest first: their names sort in the order in which they were made."""
        return sorted((self.data / "batches").glob("*.jsonl"))

    def stored_items(self) -> list[Any]:
        """Every item in every file, in order."""
        return [json.loads(line) for file in self.batch_files() for line in file.read_text().splitlines()]

    def wait_until_drained(self, count: int) -> None:
        """Waits until so many items are in files."""
        wait_for(lambda: self.get("/status")["items_stored"] >= count, f"{count} items are stored", 60)

    # The command line.

    def cli(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Runs ``trunkline`` in the node's folder."""
        return subprocess.run(
            [*_TRUNKLINE, *arguments],
            cwd=self.folder,
            env={**self._environment, **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def read_events(response: httpx.Response) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Server-sent events as (id, event, data), as they come."""
    fields: dict[str, str] = {}
    for line in response.iter_lines():
        if not line:
            if "data" in fields:
                yield int(fields["id"]), fields["event"], json.loads(fields["data"])
            fields = {}
        elif not line.startswith(":"):
            key, _, value = line.partition(":")
            fields[key] = value.removeprefix(" ")
