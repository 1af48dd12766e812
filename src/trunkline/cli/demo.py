"""``trunkline demo``: a node and simulated devices, each in a process of its own, and a back office that uses them."""

import asyncio
import itertools
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from trunkline.errors import Unavailable
from trunkline.reactor import Reactor

if TYPE_CHECKING:
    import httpx

__all__ = ["demo"]

_START_TIMEOUT = 60.0
_STOP_TIMEOUT = 10.0
_CHILD_STOP_TIMEOUT = 9.0


class _Counts(msgspec.Struct):
    devices_online: int = 0
    commands_replied: int = 0
    jobs_done: int = 0
    items_stored: int = 0


def demo(
    seconds: Annotated[float | None, typer.Option("--for", min=1.0, help="Stop after so many seconds.")] = None,
    devices: Annotated[int, typer.Option(min=1, max=5000, help="How many simulated devices.")] = 50,
) -> None:
    """Run a node with simulated devices, and a back office that sends commands, syncs records and stores items."""
    counts = Reactor.run(lambda: _demo(seconds, devices))
    print(
        f"devices online    {counts.devices_online}\n"
        f"commands replied  {counts.commands_replied}\n"
        f"jobs done         {counts.jobs_done}\n"
        f"items stored      {counts.items_stored}"
    )
    if seconds is not None and 0 in msgspec.structs.astuple(counts):
        print("trunkline: the demo did not do all of its work; see the log above", file=sys.stderr)
        raise typer.Exit(1)


async def _demo(seconds: float | None, devices: int) -> _Counts:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    modules = ",".join(filter(None, [os.environ.get("TRUNKLINE_MODULES", ""), "trunkline.cli.demo_meters"]))
    environ = {"TRUNKLINE_LOG_LEVEL": "WARNING", **os.environ, "TRUNKLINE_MODULES": modules}
    import httpx  # here, since the other commands start sooner without it

    async with _child("serve", environ=environ) as node:
        addresses = await _ready(node)
        print(
            f"console  {addresses['http']}/\n"
            f"API      {addresses['http']}/api/v1/status (OpenAPI: /api/v1/openapi.json)\n"
            f"devices  {addresses['devices']} over TCP, {devices} of them simulated\n"
            f"data     {addresses['data']}",
            flush=True,
        )
        options = ["--devices", str(devices), "--connect", addresses["devices"], "--json"]
        options += ["--delay", "0.1", "--store", "5"]
        async with _child("simulate", *options, environ=environ) as simulation:
            async with httpx.AsyncClient(base_url=f"{addresses['http']}/api/v1", trust_env=False, timeout=30) as client:
                office = _BackOffice(client, devices)
                work = asyncio.ensure_future(office.work())
                ends: set[asyncio.Future[Any]] = {asyncio.ensure_future(stop.wait()), work}
                ends |= {asyncio.ensure_future(child.wait()) for child in (node, simulation)}
                await asyncio.wait(ends, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
                failed = work.done() or node.returncode is not None or simulation.returncode is not None
                for end in ends:
                    end.cancel()
                await asyncio.gather(*ends, return_exceptions=True)
                if not failed:
                    await office.look()
            office.show(last=True)
    if failed:
        raise Unavailable("the demo broke off; see the log above")
    return office.counts


@asynccontextmanager
async def _child(*command: str, environ: dict[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    # A session of its own: Ctrl-C in the terminal reaches the demo alone, which stops its children in order.
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "trunkline.cli.main", *command,
        env=environ, stdout=asyncio.subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        yield child
    finally:
        if child.returncode is None:
            child.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_CHILD_STOP_TIMEOUT):
                await child.communicate()
        except TimeoutError:
            child.kill()
            await child.wait()


async def _ready(node: asyncio.subprocess.Process) -> dict[str, str]:
    assert node.stdout is not None
    try:
        async with asyncio.timeout(_START_TIMEOUT):
            line = (await node.stdout.readline()).decode()
    except TimeoutError:
        line = ""
    if not line.startswith("trunkline is ready:"):
        raise Unavailable("the node did not start; its own words are above")
    return dict(part.split("=", 1) for part in line.strip().split(" ", 5)[3:])


class _BackOffice:
    """What a back office would do, at a pace that a person can watch."""

    def __init__(self, client: "httpx.AsyncClient", devices: int) -> None:
        self.counts = _Counts()
        self._client = client
        self._devices = [f"sim-{number:04d}" for number in range(1, devices + 1)]
        self._chance = random.Random()  # noqa: S311  it picks what to show
        self._items_before: int | None = None
        self._all_online = asyncio.Event()

    async def work(self) -> None:
        """Goes on until it is cancelled."""
        for device in self._devices:
            await self._put_record(device)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch())
            await self._all_online.wait()
            for work in (self._send, self._send, self._sync, self._store):
                tasks.create_task(work())

    async def _put_record(self, device: str) -> None:
        answer = await self._client.put(f"/records/meter/{device}", json={"title": f"Meter {device}"})
        answer.raise_for_status()

    async def _send(self) -> None:
        while True:
            device = self._chance.choice(self._devices)
            answer = await self._client.post(
                f"/devices/{device}/commands", params={"wait": 5}, json={"cmd": "read all", "timeout": 5, "ttl": 10}
            )
            if answer.json().get("state") == "replied":
                self.counts.commands_replied += 1
            await asyncio.sleep(0.05)

    async def _sync(self) -> None:
        under_way: list[str] = []
        while True:
            device = self._chance.choice(self._devices)
            answer = await self._client.post(f"/records/meter/{device}/sync")
            under_way.append(answer.json()["job"]["id"])
            await asyncio.sleep(1.0)
            for job in list(under_way):
                state = (await self._client.get(f"/jobs/{job}")).json()["state"]
                if state in ("succeeded", "failed"):
                    under_way.remove(job)
                    self.counts.jobs_done += state == "succeeded"

    async def _store(self) -> None:
        while True:
            await self._client.post("/items", json=[self._chance.randint(1, 9) for _ in range(10)])
            await asyncio.sleep(1.0)

    async def _watch(self) -> None:
        pace = 1 if sys.stdout.isatty() else 10
        for look in itertools.count():
            await self.look()
            if look % pace == 0:
                self.show()
            await asyncio.sleep(0.5)

    async def look(self) -> None:
        """Asks the node how things stand."""
        status = (await self._client.get("/status")).json()
        if self._items_before is None:
            self._items_before = status["items_stored"]
        self.counts.items_stored = status["items_stored"] - self._items_before
        self.counts.devices_online = status["devices_online"]
        if self.counts.devices_online >= len(self._devices):
            self._all_online.set()

    def show(self, *, last: bool = False) -> None:
        """Prints the status line: over the last one on a terminal, below it elsewhere."""
        counts = self.counts
        line = (
            f"{counts.devices_online} devices online, {counts.commands_replied} commands replied, "
            f"{counts.jobs_done} jobs done, {counts.items_stored} items stored (Ctrl-C ends)"
        )
        if sys.stdout.isatty():
            print(f"\r\033[K{line}", end="\n" if last else "", flush=True)
        else:
            print(line, flush=True)
