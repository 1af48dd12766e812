"""One connected device, over a real connection and a real database: what its line writes, and what it records."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from sqlalchemy import Connection as DatabaseConnection
from sqlalchemy import select

from trunkline.bus.memory import MemoryBus
from trunkline.clock import SystemClock
from trunkline.db import Database, Write, Writer
from trunkline.db.tables import commands
from trunkline.gateway.command_store import (
    LOAD_LIMIT,
    NewCommand,
    Standing,
    command_of,
    insert_commands,
    load_commands,
    record_states,
)
from trunkline.gateway.device_line import STORAGE_FAILED, DeviceLine, Lines
from trunkline.gateway.device_store import Connected, device_connected
from trunkline.gateway.ledger import Command, CommandState
from trunkline.gateway.profiles import LineProfile
from trunkline.reactor import Reactor
from trunkline.settings import DeviceSettings
from trunkline.stats import Stats
from trunkline.tcp import Blueprint, Callbacks, TcpConnection

WAIT = 10.0


class Desk:
    """A line to a device that is played by the test."""

    def __init__(self, database: Database, line_limit_bytes: int = 1024) -> None:
        loop = asyncio.get_running_loop()
        self.database = database
        self.stats = Stats()
        self.clock = SystemClock()
        self.errors: list[BaseException] = []
        self.reactor = Reactor(loop, self.errors.append)
        self.writer = Writer(database.writer_engine, loop, self.stats, 0.0)
        self.bus = MemoryBus(self.reactor, self.stats)
        self.outcomes: asyncio.Queue[Command] = asyncio.Queue()
        self.bus.subscribe("command.ended.*", self._ended)
        profile = LineProfile(DeviceSettings(line_limit_bytes=line_limit_bytes))
        self._lines = Lines(self.reactor, self.writer, self.bus, self.clock, self.stats, profile)
        self.line: Any = None
        loop.set_exception_handler(lambda _loop, context: self.errors.append(context["exception"]))

    def _ended(self, _topic: str, message: bytes) -> None:
        self.outcomes.put_nowait(msgspec.msgpack.decode(message, type=Command))

    async def connect(self) -> None:
        mine, devices = socket.socketpair()
        mine.setblocking(False)
        self._reader, self._pen = await asyncio.open_connection(sock=devices)

        def new_connection() -> TcpConnection:
            callbacks = Callbacks(
                lambda _, message: self.line.said(message.decode()), on_error=lambda _, error: self.errors.append(error)
            )
            return TcpConnection(Blueprint(self.reactor, self, callbacks), self._lines.profile.new_framer())

        _, self.connection = await self.reactor.loop.create_connection(new_connection, sock=mine)
        registered = await self.writer.submit(
            device_connected, Connected("d1", "line", "here", "node-1", self.clock.time())
        )
        self.line = DeviceLine(self._lines, "d1", self.connection)
        self.line.open(registered.epoch, registered.commands)

    def connection_made(self, connection: TcpConnection) -> None:
        pass

    connection_established = connection_lost = connection_made

    async def disconnect(self) -> None:
        self.line.detach()
        self.connection.abort()
        self._pen.close()
        self.line = None
        await self._pen.wait_closed()

    def command(self, name: str, *, timeout: float = 60.0, cmd: str = "") -> Command:
        now = self.clock.time()
        return Command(
            id=name, device="d1", cmd=cmd or f"do {name}", timeout=timeout, ttl=60.0, queued_at=now,
            expires_at=now + 60.0,
        )  # fmt: skip

    async def accept(self, command: Command) -> None:
        await self.writer.submit(insert_commands, NewCommand(command, 1000))

    async def heard(self) -> str:
        """The next line that the device gets."""
        return (await self._reader.readline()).decode().rstrip("\n")

    def say(self, text: str) -> None:
        self._pen.write(text.encode() + b"\n")

    def stored(self, name: str) -> Command:
        query = select(commands).where(commands.c.id == name)
        return self.database.read_now(lambda connection: command_of(connection.execute(query).one()))


def run(
    database: Database, story: Callable[[Desk], Coroutine[Any, Any, None]], *, line_limit_bytes: int = 1024
) -> None:
    async def main() -> None:
        desk = Desk(database, line_limit_bytes)
        try:
            async with asyncio.timeout(WAIT):
                await desk.writer.submit(device_connected, Connected("d1", "line", "before", "node-1", 0.0))
                await story(desk)
            assert desk.errors == []
        finally:
            if desk.line is not None:
                await desk.disconnect()
            await desk.writer.close()

    asyncio.run(main())


def test_a_command_is_written_answered_and_recorded(database: Database) -> None:
    async def story(desk: Desk) -> None:
        await desk.connect()
        command = desk.command("c1")
        await desk.accept(command)
        desk.line.offer(command)
        assert await desk.heard() == "do c1"
        desk.say("done")
        outcome = await desk.outcomes.get()
        assert (outcome.id, outcome.state, outcome.reply, outcome.writes) == ("c1", CommandState.REPLIED, "done", 1)
        assert desk.stored("c1") == outcome

    run(database, story)


def test_a_line_whose_outcome_cannot_be_recorded_is_given_up_and_its_command_comes_again(database: Database) -> None:
    async def story(desk: Desk) -> None:
        await desk.connect()
        command = desk.command("c1")
        await desk.accept(command)
        desk.line.offer(command)
        assert await desk.heard() == "do c1"
        await desk.writer.submit(load_commands, "d1")  # behind it, that it was written is on disk
        with database.writer_engine.begin() as connection:  # as when a disk is full: the database refuses to write
            connection.exec_driver_sql(
                "CREATE TRIGGER full BEFORE UPDATE ON commands BEGIN SELECT RAISE(ABORT, 'full'); END"
            )
        desk.say("done")
        assert await desk.heard() == f"BYE {STORAGE_FAILED}"
        assert desk.connection.close_reason == STORAGE_FAILED
        with database.writer_engine.begin() as connection:
            connection.exec_driver_sql("DROP TRIGGER full")
        await desk.disconnect()
        await desk.connect()
        assert await desk.heard() == "do c1"
        desk.say("done again")
        assert (await desk.outcomes.get()).reply == "done again"

    run(database, story)


def test_what_waited_for_the_device_is_written_when_it_comes(database: Database) -> None:
    async def story(desk: Desk) -> None:
        await desk.accept(desk.command("c1"))
        await desk.accept(desk.command("c2"))
        await desk.connect()
        for name in ("c1", "c2"):
            assert await desk.heard() == f"do {name}"
            desk.say(f"done {name}")
            assert (await desk.outcomes.get()).reply == f"done {name}"

    run(database, story)


def test_a_command_for_a_line_that_is_closing_stays_for_the_next_one(database: Database) -> None:
    async def story(desk: Desk) -> None:
        await desk.connect()
        command = desk.command("c1", timeout=0.001)
        await desk.accept(command)
        desk.connection.close()
        desk.line.offer(command)
        due = desk.reactor.loop.time() + 0.002
        passed = asyncio.Event()
        desk.reactor.loop.call_at(due, passed.set)
        await passed.wait()  # its reply would have been due by now, had it been written
        assert command.state is CommandState.QUEUED
        assert desk.stored("c1").state is CommandState.QUEUED
        await desk.disconnect()
        await desk.connect()
        assert await desk.heard() == "do c1"

    run(database, story)


def test_a_command_that_does_not_fit_the_line_any_more_ends_and_makes_room(database: Database) -> None:
    async def story(desk: Desk) -> None:
        never, before, after = desk.command("c1", cmd="x" * 17), desk.command("c2", cmd="y" * 17), desk.command("c3")
        for command in (never, before, after):
            await desk.accept(command)
        before.become(CommandState.WRITTEN, desk.clock.time())
        await desk.writer.submit(record_states, Standing.of(before))
        await desk.connect()
        assert await desk.heard() == "do c3"
        first, second = await desk.outcomes.get(), await desk.outcomes.get()
        assert (first.id, first.state) == ("c1", CommandState.FAILED)
        assert (second.id, second.state) == ("c2", CommandState.UNKNOWN)
        assert "17 bytes" in str(first.reason)
        assert "17 bytes" in str(second.reason)

    run(database, story, line_limit_bytes=16)


async def turns(count: int) -> None:
    """Lets the loop go round."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  what a device does is no event of ours
        await asyncio.sleep(0)


class Gate:
    """A write that stands still in the writer's thread until it is let go.

    Args:
        order: before or behind which others of its transaction it stands.
    """

    def __init__(self, order: int) -> None:
        self._reached, self._opened = threading.Event(), threading.Event()
        self.write: Write[None, None] = Write(order, self._apply)

    def _apply(self, connection: DatabaseConnection, items: Sequence[None]) -> list[None]:
        self._reached.set()
        assert self._opened.wait(WAIT)
        return [None] * len(items)

    async def reached(self) -> None:
        assert await asyncio.to_thread(self._reached.wait, WAIT)

    def open(self) -> None:
        self._opened.set()


@asynccontextmanager
async def while_the_ledger_is_read(desk: Desk) -> AsyncIterator[Callable[[], Coroutine[Any, Any, None]]]:
    """What the line reads is held back until the end of the block; it has read once the yielded function returns."""
    before, behind = Gate(1), Gate(99)
    desk.writer.post(before.write, None)
    await before.reached()

    async def has_read() -> None:
        desk.writer.post(behind.write, None)
        before.open()
        await behind.reached()

    try:
        yield has_read
    finally:
        before.open()
        behind.open()


def test_a_command_that_ends_while_the_ledger_is_read_is_not_written_again(database: Database) -> None:
    async def story(desk: Desk) -> None:
        await desk.connect()
        command, following = desk.command("c1"), desk.command("c2")
        await desk.accept(command)
        desk.line.offer(command)
        assert await desk.heard() == "do c1"
        async with while_the_ledger_is_read(desk) as has_read:
            desk.line.load()
            await turns(3)  # the line asks in a task of its own
            await has_read()
            desk.say("done")
            await until(lambda: command.state is CommandState.REPLIED)
        assert (await desk.outcomes.get()).reply == "done"
        await desk.accept(following)
        desk.line.offer(following)
        assert await desk.heard() == "do c2"

    run(database, story)


def test_a_long_queue_is_written_in_its_order_though_commands_come_while_it_is_read(database: Database) -> None:
    async def story(desk: Desk) -> None:
        await desk.connect()
        queue = [desk.command(f"c{number:03}") for number in range(LOAD_LIMIT + 20)]
        for command in queue:
            await desk.accept(command)
            desk.line.offer(command)
        answered = LOAD_LIMIT - 8
        for command in queue[:answered]:
            assert await desk.heard() == f"do {command.id}"
            desk.say("done")
            await desk.outcomes.get()
        late, later = desk.command("late"), desk.command("later")
        async with while_the_ledger_is_read(desk) as has_read:
            assert await desk.heard() == f"do {queue[answered].id}"
            desk.say("done")  # few are left now: the line looks for more
            await until(lambda: queue[answered].state is CommandState.REPLIED)
            await turns(3)
            await has_read()
            accepted = asyncio.ensure_future(desk.accept(late))
            await turns(1)
            desk.line.offer(late)
        await accepted
        await desk.outcomes.get()
        await desk.accept(later)
        desk.line.offer(later)
        for command in [*queue[answered + 1 :], late, later]:
            assert await desk.heard() == f"do {command.id}"
            desk.say("done")
            await desk.outcomes.get()

    run(database, story)
