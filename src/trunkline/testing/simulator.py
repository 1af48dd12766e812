"""Simulated devices over real TCP: for demos, tests and load."""

import asyncio
import json
import random

import msgspec

from trunkline.reactor import Reactor
from trunkline.tcp import FullJitter, TcpClient, TcpConnection
from trunkline.wire import LineFramer

__all__ = ["Simulation", "SimulationCounts", "SimulationOptions"]

PAGES = 5
_READINGS_PER_PAGE = 8


class SimulationOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the devices do."""

    devices: int = 50
    prefix: str = "sim-"
    """Their ids are the prefix and a number."""
    delay: float = 0.0
    """Seconds from a command to its answer."""
    drop: float = 0.0
    """The share of commands at which a device drops its line instead of answering, from 0 to 1."""
    beat_interval: float = 30.0
    """Seconds between two signs of life."""
    store_interval: float = 0.0
    """Seconds between two lists that a device sends to be stored; 0 for never."""
    connects_per_second: float = 500.0
    """How fast the first connections are opened."""
    reconnect_base: float = 0.5
    reconnect_cap: float = 30.0
    seed: int = 0


class SimulationCounts(msgspec.Struct):
    """What the devices saw."""

    online: int = 0
    connects: int = 0
    connects_failed: int = 0
    disconnects: int = 0
    commands: int = 0
    answers: int = 0
    drops: int = 0
    lists_sent: int = 0
    items_stored: int = 0
    errors: int = 0
    """Lines by which the node refused something."""
    goodbyes: int = 0
    """Lines by which the node closed a connection."""


class _Device:
    def __init__(self, number: int, simulation: "Simulation") -> None:
        options = simulation.options
        self.id = f"{options.prefix}{number:04d}"
        self._simulation = simulation
        self._reactor = simulation.reactor
        self._chance = random.Random(f"{options.seed}/{number}")  # noqa: S311  repeatable, not secret
        self._timers: list[asyncio.TimerHandle] = []
        self.client = TcpClient(
            simulation.reactor,
            (simulation.host, simulation.port),
            lambda: LineFramer(65_536),
            self._on_message,
            on_connection=self._on_connection,
            on_connect_failed=self._on_connect_failed,
            new_backoff=lambda: FullJitter(options.reconnect_base, options.reconnect_cap, self._chance.uniform),
        )

    def _on_connect_failed(self, _error: Exception) -> None:
        self._simulation.counts.connects_failed += 1

    def _on_connection(self, connection: TcpConnection) -> None:
        counts, options = self._simulation.counts, self._simulation.options
        if not connection.is_open:
            counts.online -= 1
            counts.disconnects += 1
            for timer in self._timers:
                timer.cancel()
            self._timers.clear()
            return
        counts.online += 1
        counts.connects += 1
        connection.send(f"HELLO {self.id}".encode())
        # The first of each is spread over its interval: devices that started together don't beat together.
        for interval, act in ((options.beat_interval, self._beat), (options.store_interval, self._store)):
            if interval > 0:
                self._later(self._chance.uniform(0, interval), act, connection)

    def _later(self, seconds: float, act: object, *args: object) -> None:
        loop = self._reactor.loop
        now = loop.time()
        self._timers = [timer for timer in self._timers if timer.when() > now and not timer.cancelled()]
        self._timers.append(loop.call_later(seconds, act, *args))  # type: ignore[arg-type]

    def _beat(self, connection: TcpConnection) -> None:
        if connection.is_open:
            connection.send(b"PING")
            self._later(self._simulation.options.beat_interval, self._beat, connection)

    def _store(self, connection: TcpConnection) -> None:
        if connection.is_open:
            items = [self._chance.randint(1, 9) for _ in range(self._chance.randint(1, 8))]
            connection.send(f"STORE {json.dumps(items)}".encode())
            self._simulation.counts.lists_sent += 1
            self._later(self._simulation.options.store_interval, self._store, connection)

    def _on_message(self, connection: TcpConnection, message: bytes) -> None:
        counts, options = self._simulation.counts, self._simulation.options
        text = message.decode(errors="replace")
        word, _, rest = text.partition(" ")
        match word:
            case "PONG":
                pass
            case "STORED":
                counts.items_stored += int(rest)
            case "ERR":
                counts.errors += 1
            case "BYE":
                counts.goodbyes += 1
            case _:
                counts.commands += 1
                if self._chance.random() < options.drop:
                    counts.drops += 1
                    connection.abort()
                elif options.delay > 0:
                    self._later(options.delay, self._answer, connection, text)
                else:
                    self._answer(connection, text)

    def _answer(self, connection: TcpConnection, cmd: str) -> None:
        if connection.is_open:
            connection.send(self._answer_to(cmd).encode())
            self._simulation.counts.answers += 1

    def _answer_to(self, cmd: str) -> str:
        word, _, rest = cmd.partition(" ")
        if cmd == "read all":
            return f"voltage={self._chance.uniform(220, 240):.1f} energy={self._chance.randint(1000, 9999)}"
        if cmd == "PAGES":
            return str(PAGES)
        if word == "PAGE" and rest.isdecimal() and 1 <= int(rest) <= PAGES:
            first = (int(rest) - 1) * _READINGS_PER_PAGE
            return json.dumps(
                {str(first + offset): round(self._chance.uniform(0, 100), 2) for offset in range(_READINGS_PER_PAGE)}
            )
        return f"OK {cmd}"


class Simulation:
    """Many devices in one process, each with a connection of its own that it keeps up. Reactor's thread.

    They say ``HELLO <id>`` and answer every command: ``read all`` with readings, ``PAGES`` with a number,
    ``PAGE <n>`` with a JSON object, anything else with ``OK`` and the command.

    Attributes:
        counts: what they saw so far.
    """

    def __init__(self, reactor: Reactor, host: str, port: int, options: SimulationOptions) -> None:
        self.reactor = reactor
        self.host = host
        self.port = port
        self.options = options
        self.counts = SimulationCounts()
        self._devices = [_Device(number, self) for number in range(1, options.devices + 1)]

    @property
    def ids(self) -> list[str]:
        """The devices' ids."""
        return [device.id for device in self._devices]

    async def start(self) -> None:
        """Starts the devices one after another, at the rate that the options give."""
        started_at = self.reactor.now()
        for number, device in enumerate(self._devices):
            wait = started_at + number / self.options.connects_per_second - self.reactor.now()
            if wait > 0:
                await asyncio.sleep(wait)
            device.client.start()

    async def stop(self) -> None:
        """Closes all connections."""
        await asyncio.gather(*(device.client.stop() for device in self._devices))
