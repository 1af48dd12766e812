"""``trunkline simulate``."""

import asyncio
import signal
import sys
from typing import Annotated

import msgspec
import typer

from trunkline.errors import UsageError
from trunkline.reactor import Reactor
from trunkline.testing import Simulation, SimulationCounts, SimulationOptions

__all__ = ["simulate"]


def simulate(
    devices: Annotated[int, typer.Option(min=1, max=19_000, help="How many.")] = 50,
    connect: Annotated[str, typer.Option(help="The node's device address, HOST:PORT.")] = "127.0.0.1:7400",
    delay: Annotated[float, typer.Option(min=0.0, help="Seconds from a command to its answer.")] = 0.0,
    drop: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="The share of commands at which a line is dropped.")
    ] = 0.0,
    beat: Annotated[float, typer.Option(min=0.1, help="Seconds between two heartbeats.")] = 30.0,
    store: Annotated[float, typer.Option(min=0.0, help="Seconds between two lists to store; 0 for none.")] = 0.0,
    prefix: Annotated[str, typer.Option(help="What the devices' ids begin with.")] = "sim-",
    rate: Annotated[float, typer.Option(min=0.1, help="Connections to open per second.")] = 500.0,
    seed: Annotated[int, typer.Option(help="Of all that is left to chance.")] = 0,
    seconds: Annotated[float | None, typer.Option("--for", min=0.0, help="Stop after so many seconds.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as one JSON object at the end.")] = False,
) -> None:
    """Run simulated devices over real TCP; print what they saw in the end."""
    host, _, port = connect.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UsageError(f"--connect {connect}: it must be HOST:PORT, as in 127.0.0.1:7400")
    options = SimulationOptions(
        devices=devices, prefix=prefix, delay=delay, drop=drop, beat_interval=beat, store_interval=store,
        connects_per_second=rate, seed=seed,
    )  # fmt: skip
    counts = Reactor.run(lambda: _simulate(host.strip("[]"), int(port), options, seconds, quiet=as_json))
    if as_json:
        print(msgspec.json.encode(counts).decode())
    else:
        for name, count in msgspec.structs.asdict(counts).items():
            print(f"{name:16} {count}")


async def _simulate(
    host: str, port: int, options: SimulationOptions, seconds: float | None, *, quiet: bool
) -> SimulationCounts:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    reactor = Reactor(loop)
    simulation = Simulation(reactor, host, port, options)
    if sys.stderr.isatty() and not quiet:
        reactor.every(1.0, lambda: _print_line(simulation.counts))
    starting = reactor.spawn(simulation.start(), "start devices")
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        pass
    starting.cancel()
    counts = msgspec.structs.replace(simulation.counts)  # as it was before they all hung up
    await simulation.stop()
    return counts


def _print_line(counts: SimulationCounts) -> None:
    print(
        f"\r\033[K{counts.online} online, {counts.commands} commands, {counts.answers} answers, "
        f"{counts.items_stored} items stored, {counts.disconnects} lines lost",
        end="", file=sys.stderr, flush=True,
    )  # fmt: skip
