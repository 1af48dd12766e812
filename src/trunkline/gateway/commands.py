"""Accepting commands, and waiting for their outcomes."""

import asyncio
import logging
import math
from collections.abc import Callable

import msgspec
from sqlalchemy import Connection, func, select

from trunkline.bus import Bus
from trunkline.clock import Clock
from trunkline.db import Database, Writer
from trunkline.db.tables import commands, devices
from trunkline.errors import NotFound, TrunklineError, UsageError
from trunkline.gateway.command_store import NewCommand, command_of, end_overdue, insert_commands
from trunkline.gateway.ledger import OPEN_STATES, Command
from trunkline.ids import IdMaker
from trunkline.logs import event
from trunkline.reactor import Reactor, Timer
from trunkline.settings import CommandSettings
from trunkline.stats import Stats

__all__ = ["QUEUED_TOPIC", "Commands", "ended_topic", "publish_outcome"]

QUEUED_TOPIC = "command.queued"
LONGEST_TIMEOUT = 3600.0
LONGEST_TTL = 30 * 86_400.0
_OVERDUE_INTERVAL = 1.0
_log = logging.getLogger(__name__)


def ended_topic(command_id: str) -> str:
    """Where the outcome of a command is published, as a `Command` in MessagePack."""
    return f"command.ended.{command_id}"


class Commands:
    """The way in for commands: HTTP, jobs and the bus all come here. Reactor's thread.

    Args:
        check: raises `UsageError` for a text that can't be written to a device.
    """

    def __init__(
        self,
        *,
        reactor: Reactor,
        database: Database,
        writer: Writer,
        bus: Bus,
        clock: Clock,
        ids: IdMaker,
        stats: Stats,
        settings: CommandSettings,
        check: Callable[[str], object],
    ) -> None:
        self._reactor = reactor
        self._database = database
        self._writer = writer
        self._bus = bus
        self._clock = clock
        self._ids = ids
        self._stats = stats
        self._settings = settings
        self._check = check
        self._timer: Timer | None = None
        self._keep_lease: Callable[[], object] = lambda: None
        self._waiters: set[asyncio.Future[Command]] = set()

    def stop_waiting(self) -> None:
        """Ends every wait: the node is stopping. Each returns its command as it stands."""
        for outcome in self._waiters:
            outcome.cancel()

    def start(self, keep_lease: Callable[[], object]) -> None:
        """Begins to end the commands whose devices stay away for longer than their ttl.

        Args:
            keep_lease: called before each look: where the clock was set forward, this node's own lease has run out,
                and its devices would pass for offline.
        """
        self._keep_lease = keep_lease
        self._timer = self._reactor.every(_OVERDUE_INTERVAL, self._sweep)

    def stop(self) -> None:
        """Ends the sweep."""
        if self._timer is not None:
            self._timer.cancel()

    async def send(self, device: str, cmd: str, *, timeout: float | None = None, ttl: float | None = None) -> Command:
        """Accepts a command. When this returns it is on disk, and will have an outcome.

        Args:
            device: the device's id.
            cmd: the text; one line.
            timeout: seconds to wait for the reply after the write.
            ttl: seconds in which it must have been written.

        Raises:
            UsageError: the text or a time is not what it may be.
            NotFound: no such device.
            Overloaded: too many of the device's commands are unfinished.
        """
        return await self._accept(self._new_command(device, cmd, timeout, ttl))

    async def send_and_wait(
        self, device: str, cmd: str, *, wait: float, timeout: float | None = None, ttl: float | None = None
    ) -> Command:
        """Accepts a command and waits up to `wait` seconds for its outcome; returns it as it stands then."""
        command = self._new_command(device, cmd, timeout, ttl)
        outcome: asyncio.Future[Command] = self._reactor.loop.create_future()

        def ended(_topic: str, message: bytes) -> None:
            if not outcome.done():
                outcome.set_result(msgspec.msgpack.decode(message, type=Command))

        # Subscribed before it is accepted: a fast device answers before this would get another turn.
        subscription = self._bus.subscribe(ended_topic(command.id), ended)
        self._waiters.add(outcome)
        try:
            await self._accept(command)
            await asyncio.wait({outcome}, timeout=wait)
            if outcome.done() and not outcome.cancelled():
                return outcome.result()
            return await self.get(command.id)
        finally:
            self._waiters.discard(outcome)
            subscription.cancel()

    def _new_command(self, device: str, cmd: str, timeout: float | None, ttl: float | None) -> Command:
        timeout = self._settings.reply_timeout if timeout is None else timeout
        ttl = self._settings.ttl if ttl is None else ttl
        try:
            self._check(cmd)
            _check_duration("timeout", timeout, LONGEST_TIMEOUT)
            _check_duration("ttl", ttl, LONGEST_TTL)
        except UsageError:
            self._refused("bad_input")
            raise
        now = self._clock.time()
        return Command(
            id=self._ids(), device=device, cmd=cmd, timeout=timeout, ttl=ttl, queued_at=now, expires_at=now + ttl
        )

    async def _accept(self, command: Command) -> Command:
        try:
            await self._writer.submit(insert_commands, NewCommand(command, self._settings.queued_limit))
        except TrunklineError as error:
            self._refused(type(error).__name__)
            raise
        self._stats.commands_accepted.inc()
        event(_log, logging.DEBUG, "command accepted", command=command.id, device=command.device)
        self._bus.publish(QUEUED_TOPIC, msgspec.msgpack.encode(command))
        return command

    def _refused(self, reason: str) -> None:
        self._stats.commands_refused.labels(reason).inc()

    async def get(self, command_id: str) -> Command:
        """The command as it stands.

        Raises:
            NotFound: there is none, or it ended too long ago.
        """

        def query(connection: Connection) -> Command:
            row = connection.execute(select(commands).where(commands.c.id == command_id)).one_or_none()
            if row is None:
                raise NotFound(f'there is no command "{command_id}"; it may have ended too long ago')
            return command_of(row)

        return await self._database.read(query)

    async def of_device(self, device: str, *, limit: int = 20, before: str | None = None) -> list[Command]:
        """The device's commands, newest first; those older than the command `before`, if given.

        Raises:
            NotFound: no such device.
        """

        def query(connection: Connection) -> list[Command]:
            found = select(commands).where(commands.c.device == device).order_by(commands.c.seq.desc()).limit(limit)
            if before is not None:
                found = found.where(
                    commands.c.seq < select(commands.c.seq).where(commands.c.id == before).scalar_subquery()
                )
            rows = connection.execute(found).all()
            if not rows and connection.execute(select(devices.c.id).where(devices.c.id == device)).first() is None:
                raise NotFound(f'no device "{device}" has ever said hello here; see: trunkline devices')
            return [command_of(row) for row in rows]

        return await self._database.read(query)

    async def count_open(self) -> int:
        """How many commands have no outcome yet."""
        states = [str(state) for state in OPEN_STATES]
        query = select(func.count()).select_from(commands).where(commands.c.state.in_(states))
        return await self._database.read(lambda connection: connection.execute(query).scalar_one())

    def _sweep(self) -> None:
        self._keep_lease()
        self._reactor.spawn(self._end_overdue(), "end overdue commands")

    async def _end_overdue(self) -> None:
        for command in await self._writer.submit(end_overdue, self._clock.time()):
            publish_outcome(command, self._bus, self._stats)


def publish_outcome(command: Command, bus: Bus, stats: Stats) -> None:
    """Counts and tells an outcome that is committed."""
    stats.commands_ended.labels(command.state).inc()
    if command.reply is not None and command.ended_at is not None:
        stats.command_seconds.observe(max(0.0, command.ended_at - command.queued_at))
    event(
        _log, logging.INFO if command.reply is None else logging.DEBUG, "command ended",
        command=command.id, device=command.device, state=command.state, reason=command.reason or "",
    )  # fmt: skip
    bus.publish(ended_topic(command.id), msgspec.msgpack.encode(command))


def _check_duration(name: str, value: float, longest: float) -> None:
    if not (math.isfinite(value) and 0 < value <= longest):
        raise UsageError(f"{name} = {value:g}: it must be more than 0 and at most {longest:g} seconds")
