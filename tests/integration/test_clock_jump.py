"""The machine's clock is set, or it slept: no outcome lies for that."""

import asyncio
from pathlib import Path

import pytest

from trunkline import Node, Reactor, load_settings
from trunkline.clock import SystemClock
from trunkline.gateway import CommandState

WAIT = 15.0


class SetClock(SystemClock):
    """The machine's clock, set by so many seconds."""

    offset = 0.0

    def time(self) -> float:
        return super().time() + self.offset


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_a_clock_that_is_set_ends_no_command_of_a_connected_device(tmp_path: Path, jump: float) -> None:
    async def main() -> None:
        environ = {"TRUNKLINE_DEVICES_PORT": "0", "TRUNKLINE_DATA_DIRECTORY": str(tmp_path)}
        clock = SetClock()
        node = Node(load_settings(environ=environ), clock)
        await node.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", node.gateway.port)
        writer.write(b"HELLO d1\nPING\n")
        assert await reader.readline() == b"PONG\n"
        while (await node.count_devices())[1] == 0:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        first, second = [await node.commands.send("d1", cmd, timeout=WAIT, ttl=60) for cmd in ("first", "second")]
        assert await reader.readline() == b"first\n"
        await asyncio.sleep(0.2)  # until the second one has reached its line too
        clock.offset = jump
        await asyncio.sleep(2.5)  # two looks for overdue commands
        assert (await node.commands.get(first.id)).state is CommandState.WRITTEN
        assert (await node.commands.get(second.id)).state is CommandState.QUEUED
        assert await node.count_devices() == (1, 1)
        for cmd in (b"second\n", b""):
            writer.write(b"done\n")
            assert not cmd or await reader.readline() == cmd
        while (await node.commands.get(second.id)).state is not CommandState.REPLIED:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert (await node.commands.get(first.id)).state is CommandState.REPLIED
        writer.close()
        await node.stop()

    async def bounded() -> None:
        async with asyncio.timeout(2 * WAIT):
            await main()

    Reactor.run(bounded)
