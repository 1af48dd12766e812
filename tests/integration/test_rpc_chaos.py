"""Everything at once: calls, streams, cancels, deadlines, lost connections. Each call ends, and nothing is left."""

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from test_rpc_calls import NoSuchMeter, new_service, until

from trunkline.errors import CallFailed, CallLost, ConnectionClosed, DeadlineExceeded, Overloaded, RpcError, UsageError
from trunkline.reactor import Reactor
from trunkline.rpc import CallContext, RpcLimits, RpcPeer, RpcServer, connect_rpc
from trunkline.rpc.service import Service

EXPECTED = (RpcError, CallLost, DeadlineExceeded, Overloaded, UsageError, asyncio.CancelledError)


def chaotic_service() -> Service:
    service = new_service()

    @service.method
    async def nap(seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds

    @service.method(blocking=True, limit=20)
    def think(count: int) -> int:
        return sum(range(count))

    @service.method
    async def count(until: int, seconds: float) -> AsyncIterator[int]:
        for number in range(until):
            await asyncio.sleep(seconds)
            yield number

    @service.method
    async def total(numbers: AsyncIterator[int]) -> int:
        return sum([number async for number in numbers])

    @service.method
    async def call_back(context: CallContext, depth: int) -> int:
        if depth == 0:
            return 0
        found: int = await context.peer.call("call_back", depth - 1)
        return found + 1

    return service


async def numbers(count: int, seconds: float) -> AsyncIterator[int]:
    for number in range(count):
        await asyncio.sleep(seconds)
        yield number


async def one_thing(peer: RpcPeer, chance: random.Random) -> str:
    """Makes one call, and checks its result if it has one."""
    timeout = chance.choice([None, None, 0.001, 0.02, 5.0])
    kind = chance.choice(["add", "nap", "think", "fail", "slow_fail", "count", "total", "call_back", "wrong", "notify"])
    short = chance.random() / 100
    match kind:
        case "add":
            assert await peer.call("add", 20, 22, timeout=timeout) == 42
        case "nap":
            assert await peer.call("nap", short, timeout=timeout) == short
        case "think":
            assert await peer.call("think", 1_000, timeout=timeout) == 499_500
        case "fail":
            await peer.call("fail", "declared", timeout=timeout)
        case "slow_fail":
            await peer.call("slow_fail", True, timeout=timeout)
        case "count":
            size, got = chance.randrange(200), []
            async for item in peer.stream("count", size, short / 100, timeout=timeout, window=chance.randint(1, 70)):
                got.append(item)
                if chance.random() < 0.005:
                    return "left"
            assert got == list(range(size))
        case "total":
            size = chance.randrange(200)
            assert await peer.call("total", numbers(size, short / 100), timeout=timeout) == sum(range(size))
        case "call_back":
            assert await peer.call("call_back", 5, timeout=timeout) == 5
        case "wrong":
            await peer.call("add", "x", timeout=timeout)
        case "notify":
            peer.notify("nap", short)
    return "done"


@pytest.mark.parametrize("seed", range(3))
def test_nothing_hangs_and_nothing_is_left(seed: int) -> None:
    chance = random.Random(seed)
    outcomes: dict[str, int] = {}

    def note(results: list[Any]) -> None:
        for result in results:
            # A method that makes calls may fail as they do, without declaring it; no other may.
            assert not isinstance(result, CallFailed) or "call_back failed" in str(result)
            assert isinstance(result, (str, *EXPECTED)), repr(result)
            name = result if isinstance(result, str) else type(result).__name__
            outcomes[name] = outcomes.get(name, 0) + 1

    async def client(address: tuple[str, int]) -> None:
        try:
            async with connect_rpc(address, service=chaotic_service(), errors=[NoSuchMeter]) as peer:
                tasks = [asyncio.create_task(one_thing(peer, chance)) for _ in range(chance.randrange(60))]
                for task in tasks:
                    if chance.random() < 0.1:
                        asyncio.get_running_loop().call_later(chance.random() / 50, task.cancel)
                if chance.random() < 0.3:
                    asyncio.get_running_loop().call_later(chance.random() / 50, peer.connection.abort)
                note(await asyncio.gather(*tasks, return_exceptions=True))
                tasks.clear()  # with their errors, which hold streams that were left
                await until(lambda: peer.calls_under_way == 0)
        except ConnectionClosed:
            pass

    async def main() -> None:
        limits = RpcLimits(connection_limit=40, running_limit=60, waiting_limit=30)
        server = RpcServer(Reactor(asyncio.get_running_loop()), chaotic_service(), limits=limits)
        port = await server.listen("127.0.0.1", 0)
        async with asyncio.timeout(60):
            for _ in range(8):
                await asyncio.gather(*(client(("127.0.0.1", port)) for _ in range(6)))
            await until(lambda: not server.peers and not server.stats()["running"] and not server.stats()["waiting"])
            await server.drain(2)
        assert {method.running for method in server._blueprint.methods.values()} == {0}
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        await until(lambda: all(task.done() for task in left))

    asyncio.run(main())
    assert {"done", "NoSuchMeter", "UsageError", "DeadlineExceeded", "CancelledError", "CallLost"} <= set(outcomes)


def test_the_keepers_of_the_test_are_real() -> None:
    """A wrong result is noticed."""

    class Liar:
        async def call(self, *_args: Any, **_more: Any) -> int:
            return 41

    chance = random.Random(0)
    chance.choice = lambda choices: choices[0]  # type: ignore[method-assign]
    with pytest.raises(AssertionError):
        asyncio.run(one_thing(Liar(), chance))  # type: ignore[arg-type]
