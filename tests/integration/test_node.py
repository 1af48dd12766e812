"""A whole node inside the test's process: the parts as `app` puts them together, over a real folder and real TCP."""

import asyncio
import json
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from trunkline.app import Node
from trunkline.errors import BadItems, NoReply, NotFound, Overloaded, StorageError, UsageError
from trunkline.gateway import CommandState
from trunkline.jobs import Handlers, JobState, Record, SyncJob
from trunkline.reactor import Reactor
from trunkline.settings import BatchSettings, CommandSettings, DataSettings, DeviceSettings, Settings
from trunkline.testing import Simulation, SimulationOptions
from trunkline.web import create_app

T = TypeVar("T")
PATIENCE = 15.0


def run_node(
    folder: Path,
    main: Callable[[Node], Awaitable[T]],
    *,
    sync_handlers: Handlers | None = None,
    commands: CommandSettings | None = None,
    batches: BatchSettings | None = None,
) -> T:
    """Runs `main` beside a node in a reactor of its own, and stops the node in good order."""

    async def run() -> T:
        node = Node(
            Settings(
                devices=DeviceSettings(port=0),
                data=DataSettings(directory=str(folder)),
                commands=commands or CommandSettings(),
                batches=batches or BatchSettings(),
            ),
            sync_handlers=sync_handlers or Handlers(),
        )
        await node.start()
        try:
            return await main(node)
        finally:
            await node.stop()

    return Reactor.run(run)


async def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Gives the node time until something holds; fails, naming it, where it never does."""
    try:
        async with asyncio.timeout(PATIENCE):
            while not condition():  # noqa: ASYNC110  what it waits for rings no bell
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"not in time: {what}") from None


async def simulated(node: Node, **options: Any) -> Simulation:
    """Simulated devices that are all online."""
    simulation = Simulation(node.reactor, "127.0.0.1", node.gateway.port, SimulationOptions(**options))
    online = node.gateway.online + simulation.options.devices
    await simulation.start()
    await wait_until(lambda: node.gateway.online == online, "the devices are online")
    while (await node.count_devices())[1] < online:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    return simulation


# Storage.

ITEMS = st.recursive(
    st.sampled_from([1, 2, 3]) | st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8"))
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=5,
)  # fmt: skip


def is_number(item: Any, number: int) -> bool:
    """JSON's ``true`` is no 1, whatever Python thinks."""
    return isinstance(item, int | float) and not isinstance(item, bool) and item == number


@settings(max_examples=25)
@given(lists=st.lists(st.lists(ITEMS, max_size=40), max_size=8), items_per_batch=st.integers(1, 6))
def test_whatever_is_stored_comes_out_once_in_order_and_by_the_rules(
    lists: list[list[Any]], items_per_batch: int
) -> None:
    sent = [item for some in lists for item in some]

    async def store(node: Node) -> None:
        counts = await asyncio.gather(*(node.storage.accept(json.dumps(some).encode()) for some in lists))
        assert counts == [len(some) for some in lists]
        await wait_until(lambda: node.storage.stored[1] == len(sent), "all items are stored")
        assert node.storage.spooled == 0

    with tempfile.TemporaryDirectory() as folder:
        run_node(Path(folder), store, batches=BatchSettings(items_per_batch=items_per_batch))
        batches = [
            [json.loads(line) for line in file.read_text("utf-8").removesuffix("\n").split("\n")]
            for file in sorted(Path(folder, "batches").iterdir())
        ]
    assert [json.dumps(item) for batch in batches for item in batch] == [json.dumps(item) for item in sent]
    for batch in batches:
        assert 1 <= len(batch) <= items_per_batch
        assert not (any(is_number(item, 1) for item in batch) and any(is_number(item, 2) for item in batch))


def test_a_list_is_taken_whole_or_not_at_all(tmp_path: Path) -> None:
    async def store(node: Node) -> None:
        with pytest.raises(BadItems, match="item 2"):
            await node.storage.accept(json.dumps([1, "x" * 100, 3]).encode())
        with pytest.raises(Overloaded):
            await node.storage.accept(json.dumps(list(range(11))).encode())
        assert node.storage.spooled == 0
        assert await node.storage.accept(b"[1, 3, 4]") == 3
        await wait_until(lambda: node.storage.stored == (1, 3), "the batch is stored")

    run_node(tmp_path, store, batches=BatchSettings(item_limit_bytes=50, spool_limit=10))


# Commands and jobs.


def test_commands_of_many_callers_each_get_their_own_reply(tmp_path: Path) -> None:
    async def send(node: Node) -> None:
        simulation = await simulated(node, devices=5)
        ended = await asyncio.gather(
            *(
                node.commands.send_and_wait(simulation.ids[number % 5], f"step {number}", wait=PATIENCE)
                for number in range(200)
            )
        )
        assert [command.reply for command in ended] == [f"OK step {number}" for number in range(200)]
        assert {command.writes for command in ended} == {1}
        assert simulation.counts.commands == 200
        assert await node.commands.count_open() == 0
        await simulation.stop()

    run_node(tmp_path, send)


def test_a_wait_ends_when_the_node_stops(tmp_path: Path) -> None:
    async def send(node: Node) -> None:
        simulation = await simulated(node, devices=1, delay=3600.0)
        waiting = asyncio.ensure_future(node.commands.send_and_wait(simulation.ids[0], "read", wait=300))
        await wait_until(lambda: simulation.counts.commands == 1, "the command has arrived")
        node.commands.stop_waiting()
        async with asyncio.timeout(PATIENCE):
            command = await waiting
        assert command.state in (CommandState.QUEUED, CommandState.WRITTEN)
        await simulation.stop()

    run_node(tmp_path, send)


def test_a_refused_command_leaves_nothing_behind(tmp_path: Path) -> None:
    async def send(node: Node) -> None:
        simulation = await simulated(node, devices=1)
        for cmd, times in (("", {}), ("a\nb", {}), ("read", {"timeout": float("nan")}), ("read", {"ttl": -1.0})):
            with pytest.raises(UsageError):
                await node.commands.send(simulation.ids[0], cmd, **times)
        with pytest.raises(NotFound):
            await node.commands.send("nobody", "read")
        assert await node.commands.of_device(simulation.ids[0]) == []
        await simulation.stop()

    run_node(tmp_path, send)


def test_a_handler_reads_a_device_through_the_node(tmp_path: Path) -> None:
    handlers = Handlers()

    @handlers.sync("meter")
    async def read_meter(record: Record, job: SyncJob) -> None:
        pages = int(await job.ask(record.id, "PAGES"))
        for page in range(1, pages + 1):
            await job.save(json.loads(await job.ask(record.id, f"PAGE {page}")))
            job.progress(page, pages)

    @handlers.sync("absent")
    async def ask_absent(record: Record, job: SyncJob) -> None:
        await job.ask(record.id, "read", timeout=0.05)

    async def sync(node: Node) -> None:
        simulation = await simulated(node, devices=3)
        jobs = [(await node.jobs.sync("meter", device))[0] for device in simulation.ids]
        for job in jobs:
            events = [event async for event in node.jobs.follow(job.id)]
            assert [event.n for event in events] == list(range(1, len(events) + 1))
            assert events[-1].data["state"] == JobState.SUCCEEDED
            record, entries = await node.records.get("meter", job.record)
            assert record.synced_at is not None
            assert len(entries) == 40
        await simulation.stop()
        mute = await simulated(node, devices=1, prefix="mute-", delay=3600.0)
        job, _joined = await node.jobs.sync("absent", mute.ids[0])
        events = [event async for event in node.jobs.follow(job.id)]
        assert events[-1].data["state"] == JobState.FAILED
        assert NoReply.__name__ in events[-1].data["error"]
        await mute.stop()

    run_node(tmp_path, sync, sync_handlers=handlers)


# Over HTTP, without a socket.


def test_an_error_that_nobody_foresaw_is_a_problem_with_all_security_headers(tmp_path: Path) -> None:
    async def ask(node: Node) -> None:
        node.database.writer_engine.dispose()
        with node.database.writer_engine.begin() as connection:
            connection.execute(text("ALTER TABLE batches RENAME TO lost"))
        transport = httpx.ASGITransport(create_app(node), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            response = await client.get("/api/v1/batches")
            assert response.status_code == 500
            assert response.headers["content-type"] == "application/problem+json"
            assert set(response.json()) == {"type", "title", "status", "detail", "next"}
            assert "lost" not in response.text
            assert response.headers["x-content-type-options"] == "nosniff"
            assert response.headers["content-security-policy"].startswith("default-src 'none'")
            assert (await client.get("/api/v1/devices")).status_code == 200

    run_node(tmp_path, ask)


def test_a_database_that_refuses_is_told_and_nothing_is_accepted(tmp_path: Path) -> None:
    async def ask(node: Node) -> None:
        with node.database.writer_engine.begin() as connection:
            connection.execute(text("CREATE TRIGGER full BEFORE INSERT ON items BEGIN SELECT RAISE(FAIL, 'disk'); END"))
        with pytest.raises(StorageError, match="disk"):
            await node.storage.accept(b"[1, 2]")
        assert node.storage.spooled == 0
        transport = httpx.ASGITransport(create_app(node))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            response = await client.post("/api/v1/items", content=b"[1, 2]")
            assert response.status_code == 503
            assert response.headers["content-type"] == "application/problem+json"
            assert response.headers["retry-after"] == "1"
        with node.database.writer_engine.begin() as connection:
            connection.execute(text("DROP TRIGGER full"))
        assert await node.storage.accept(b"[1, 3]") == 2
        await wait_until(lambda: node.storage.stored == (1, 2), "the batch is stored")

    run_node(tmp_path, ask)


def test_two_nodes_in_one_process_share_nothing(tmp_path: Path) -> None:
    async def outer(first: Node) -> None:
        second = Node(
            Settings(devices=DeviceSettings(port=0), data=DataSettings(directory=str(tmp_path / "second"))),
            sync_handlers=Handlers(),
        )
        await second.start()
        simulation = await simulated(first, devices=2)
        assert (first.gateway.online, second.gateway.online) == (2, 0)
        assert b"trunkline_devices_online 2.0" in first.stats.exposition()
        assert b"trunkline_devices_online 0.0" in second.stats.exposition()
        with pytest.raises(NotFound):
            await second.commands.send(simulation.ids[0], "read")
        await simulation.stop()
        await second.stop()

    run_node(tmp_path / "first", outer)
