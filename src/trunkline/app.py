"""The composition root: builds the parts of a node, and starts and stops them in order.

This is the one place that knows which adapter stands behind which port.
"""

import asyncio
import importlib
import logging
import sys
from pathlib import Path

from trunkline.batch import Storage
from trunkline.batch.sinks.files import FileSink
from trunkline.bus.memory import MemoryBus
from trunkline.clock import Clock, SystemClock
from trunkline.db import Database, Writer
from trunkline.db.retention import Retention
from trunkline.errors import NoReply, SettingsError
from trunkline.gateway import Commands, CommandState, Gateway, Presence, count_devices
from trunkline.gateway.profiles import LineProfile
from trunkline.ids import IdMaker
from trunkline.jobs import Handlers, Jobs, Records, handlers
from trunkline.jobs.embedded import EmbeddedEngine
from trunkline.logs import event
from trunkline.reactor import LagWatch, Reactor
from trunkline.settings import Settings
from trunkline.stats import Stats
from trunkline.tcp import bind

__all__ = ["Node", "import_modules"]

_log = logging.getLogger(__name__)


def import_modules(names: list[str]) -> None:
    """Imports the user's modules, which register their handlers. The current folder is searched first.

    Raises:
        SettingsError: one of them can't be imported.
    """
    folder = str(Path.cwd())
    if names and folder not in sys.path:
        sys.path.insert(0, folder)
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:
            raise SettingsError(
                f'modules = ["{name}"]: it can\'t be imported: {type(error).__name__}: {error}'
            ) from error


class Node:
    """One node: devices, commands, jobs and storage over one data folder. Reactor's thread.

    Args:
        settings: how it is to be.
        clock: where moments come from.
        sync_handlers: the functions that sync records; those of `trunkline.sync` by default.
    """

    def __init__(self, settings: Settings, clock: Clock | None = None, sync_handlers: Handlers = handlers) -> None:
        self.settings = settings
        self.clock = clock or SystemClock()
        self.stats = Stats()
        self.ids = IdMaker(self.clock)
        self.id = self.ids()
        self.started_at = self.clock.time()
        self.reactor = Reactor(asyncio.get_running_loop(), on_error=lambda _error: self.stats.reactor_errors.inc())
        self.lag_watch = LagWatch(self.reactor, on_blocked=lambda _block: self.stats.reactor_blocks.inc())
        directory = Path(settings.data.directory)
        # Bound before anything else is touched: a port in use is the most likely mistake, and costs nothing to find.
        self._device_socket = bind(settings.devices.host, settings.devices.port, "devices")
        try:
            self.database = Database(directory)
        except BaseException:
            self._device_socket.close()
            raise
        self.writer = Writer(self.database.writer_engine, self.reactor.loop, self.stats)
        self.bus = MemoryBus(self.reactor, self.stats)
        profile = LineProfile(settings.devices)
        self.presence = Presence(self.id, self.reactor, self.writer, self.bus, self.clock, self.stats)
        self.storage = Storage(
            reactor=self.reactor,
            database=self.database,
            writer=self.writer,
            clock=self.clock,
            ids=self.ids,
            stats=self.stats,
            settings=settings.batches,
            sink=FileSink(directory / "batches"),
        )
        self.commands = Commands(
            reactor=self.reactor,
            database=self.database,
            writer=self.writer,
            bus=self.bus,
            clock=self.clock,
            ids=self.ids,
            stats=self.stats,
            settings=settings.commands,
            check=profile.encode,
        )
        self.gateway = Gateway(
            reactor=self.reactor,
            database=self.database,
            writer=self.writer,
            bus=self.bus,
            clock=self.clock,
            stats=self.stats,
            settings=settings.devices,
            presence=self.presence,
            profile=profile,
            store=self.storage.accept,
        )
        self.records = Records(self.database, self.writer, self.clock)
        self.engine = EmbeddedEngine(
            node=self.id,
            reactor=self.reactor,
            writer=self.writer,
            bus=self.bus,
            clock=self.clock,
            stats=self.stats,
            settings=settings.jobs,
            handlers=sync_handlers,
            devices=_Devices(self.commands, settings.commands.ttl),
        )
        self.jobs = Jobs(
            database=self.database,
            writer=self.writer,
            bus=self.bus,
            clock=self.clock,
            ids=self.ids,
            handlers=sync_handlers,
            engine=self.engine,
        )
        self.retention = Retention(self.reactor, self.writer, self.clock, settings.data.keep_days)

    async def start(self) -> None:
        """Starts every part, in the order in which they need each other. Devices come last."""
        self.lag_watch.start()
        await self.presence.start()
        await self.storage.start()
        self.commands.start(self.presence.keep_lease)
        await self.engine.start()
        self.retention.start()
        await self.gateway.start(self._device_socket)
        event(_log, logging.INFO, "node started", node=self.id, devices_port=self.gateway.port)

    async def count_devices(self) -> tuple[int, int]:
        """How many devices are known, and how many of them are online."""
        now = self.clock.time()
        return await self.database.read(lambda connection: count_devices(connection, now))

    async def quiesce(self, deadline: float = 3.0) -> None:
        """Ends what runs and what waits, so that requests in the works come to their end. `stop` is to follow.

        Args:
            deadline: seconds for handlers in threads, which can't be broken off.
        """
        self.jobs.stop_following()
        # Jobs first: a handler that waits for a reply would take the end of its wait for the device's silence.
        await self.engine.stop(deadline)
        self.commands.stop_waiting()

    async def stop(self, deadline: float = 6.0) -> None:
        """Stops every part in good order, within about `deadline` seconds. What was accepted stays on disk.

        Args:
            deadline: seconds for all parts together.
        """
        ends_at = self.clock.monotonic() + deadline

        def left() -> float:
            return max(0.1, ends_at - self.clock.monotonic())

        event(_log, logging.INFO, "node stopping", node=self.id)
        self.retention.stop()
        await self.quiesce(left() / 2)
        await self.gateway.drain(left() / 2)
        self.commands.stop()
        await self.storage.stop(left())
        await self.presence.stop()
        await self.bus.close()
        await self.writer.close()
        self.database.close()
        self.lag_watch.stop()
        event(_log, logging.INFO, "node stopped", node=self.id)


class _Devices:
    """Jobs' way to devices: commands, like everybody else's."""

    def __init__(self, commands: Commands, ttl: float) -> None:
        self._commands = commands
        self._ttl = ttl

    async def ask(self, device: str, cmd: str, *, timeout: float | None = None) -> str:
        """See `trunkline.jobs.DevicePort.ask`."""
        # It is written within its ttl, and answered within its timeout after that; the commits come on top.
        wait = self._ttl + (timeout or 60.0) + 5.0
        command = await self._commands.send_and_wait(device, cmd, wait=wait, timeout=timeout, ttl=self._ttl)
        if command.state is not CommandState.REPLIED or command.reply is None:
            raise NoReply(
                command.state, f'device "{device}" gave no reply to "{cmd}": {command.reason or command.state}'
            )
        return command.reply
