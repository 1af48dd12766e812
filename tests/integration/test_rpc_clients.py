"""Clients of several servers, blocking clients, tokens and roles, and what is built in."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from test_rpc_calls import NoSuchMeter, Waiting, new_service, served, until, waiting_service

from trunkline.errors import CallLost, DeadlineExceeded, Forbidden, Overloaded, ProtocolError, UsageError
from trunkline.reactor import Reactor, ReactorThread
from trunkline.rpc import BlockingRpcClient, RetryBudget, RpcClient, RpcLimits, RpcServer, Service, connect_rpc
from trunkline.tcp import FullJitter


def named(name: str) -> Service:
    service = new_service()

    @service.method(name="name")
    async def own_name() -> str:
        return name

    return service


def reactor() -> Reactor:
    return Reactor(asyncio.get_running_loop())


def at_once() -> FullJitter:
    return FullJitter(base=0.0, cap=0.0)


# Balance.


def test_round_robin_gives_every_server_its_turn() -> None:
    async def main() -> None:
        async with (
            served(named("a")) as (_, a),
            served(named("b")) as (_, b),
            RpcClient(reactor(), [a, b], balance="round_robin") as client,
        ):
            await until(lambda: len(client.peers) == 2)
            assert sorted([await client.call("name") for _ in range(10)]) == ["a"] * 5 + ["b"] * 5

    asyncio.run(main())


def test_the_server_with_the_fewest_calls_is_called() -> None:
    async def main() -> None:
        waiting = Waiting()
        busy = waiting_service(waiting)
        busy.method(name="name")(lambda: "busy")
        async with served(busy) as (_, a), served(named("free")) as (_, b), RpcClient(reactor(), [a, b]) as client:
            await until(lambda: len(client.peers) == 2)
            blocker = next(peer for peer in client.peers if peer.connection.peer.endswith(str(a[1])))
            held = blocker.call("wait")
            assert [await client.call("name") for _ in range(6)] == ["free"] * 6
            waiting.go.set()
            await held

    asyncio.run(main())


def test_a_server_that_drains_is_left_alone_and_no_call_fails() -> None:
    async def main() -> None:
        async with (
            served(named("a")) as (first, a),
            served(named("b")) as (_, b),
            RpcClient(reactor(), [a, b], balance="round_robin", new_backoff=at_once) as client,
        ):
            await until(lambda: len(client.peers) == 2)
            calls = [asyncio.create_task(client.call("name")) for _ in range(8)]
            draining = asyncio.create_task(first.drain(5))
            assert set(await asyncio.gather(*calls)) <= {"a", "b"}
            await draining
            assert {await client.call("name") for _ in range(8)} == {"b"}

    asyncio.run(main())


def test_a_client_finds_a_server_that_comes_back() -> None:
    async def main() -> None:
        async with served(named("a")) as (_, address):
            client = RpcClient(reactor(), [address])
            client.start()
            assert await client.call("name") == "a"
        server = RpcServer(reactor(), named("again"))
        await server.listen(*address)
        assert await client.call("name", timeout=10) == "again"
        await client.stop()
        await server.drain(1)

    asyncio.run(main())


def test_without_any_server_a_call_ends_in_time() -> None:
    async def main() -> None:
        async with served(named("a")) as (server, address):
            await server.drain(1)
            async with RpcClient(reactor(), [address]) as client:
                with pytest.raises(CallLost, match="none of 1 servers") as caught:
                    await client.call("name", timeout=0.05)
                assert caught.value.sent == "no"

    asyncio.run(main())


def test_a_client_that_was_stopped_says_so_at_once() -> None:
    async def main() -> None:
        async with served(named("a")) as (_, address):
            client = RpcClient(reactor(), [address])
            client.start()
            assert await client.call("name") == "a"
            await client.stop()
            with pytest.raises(CallLost, match="stopped"):
                await client.call("name")
        with pytest.raises(UsageError):
            RpcClient(reactor(), [])

    asyncio.run(main())


# Trying again.


def broken_service(count: int, calls: list[int]) -> Service:
    """A method that breaks the connection so often."""
    service = named("a")

    @service.method
    async def fragile() -> int:
        calls.append(1)
        if len(calls) <= count:
            for peer in list(servers[0].peers.values()):
                peer.connection.abort()
            await asyncio.Event().wait()
        return len(calls)

    return service


servers: list[RpcServer] = []


@pytest.mark.parametrize(("idempotent", "expected"), [(True, 2), (False, None)])
def test_what_may_have_run_is_called_again_only_if_that_does_no_harm(idempotent: bool, expected: int | None) -> None:
    async def main() -> None:
        calls: list[int] = []
        async with served(broken_service(1, calls)) as (server, address):
            servers[:] = [server]
            async with RpcClient(reactor(), [address], new_backoff=at_once) as client:
                if expected is None:
                    with pytest.raises(CallLost) as caught:
                        await client.call("fragile", idempotent=idempotent)
                    assert caught.value.sent == "unknown"
                    assert len(calls) == 1
                else:
                    assert await client.call("fragile", idempotent=idempotent) == expected

    asyncio.run(main())


def test_a_refusal_is_tried_again_within_the_budget_alone() -> None:
    async def main() -> None:
        waiting = Waiting()
        service = waiting_service(waiting, limit=1)
        async with served(service) as (server, address):
            budget = RetryBudget(part=0.0, reserve=3.0)
            client = RpcClient(reactor(), [address], tries=3, budget=budget, new_backoff=at_once)
            async with client:
                held = asyncio.create_task(client.call("wait"))
                await waiting.begun.wait()
                errors = server.stats
                for refusals in (3, 5, 6, 7):
                    with pytest.raises(Overloaded):
                        await client.call("wait")
                    assert errors()["methods"]["wait"]["errors"]["overloaded"] == refusals
                waiting.go.set()
                assert await held == "done"

    asyncio.run(main())


def test_all_tries_together_have_the_time_of_one_call() -> None:
    async def main() -> None:
        waiting = Waiting()
        async with served(waiting_service(waiting)) as (_, address), RpcClient(reactor(), [address]) as client:
            with pytest.raises(DeadlineExceeded):
                await client.call("wait", timeout=0.1, idempotent=True)
            assert waiting.calls == 1

    asyncio.run(main())


def test_a_client_streams_and_notifies_too() -> None:
    heard: list[int] = []
    service = new_service()

    @service.method
    async def count(until: int) -> AsyncIterator[int]:
        for number in range(until):
            yield number

    @service.method
    def hear(value: int) -> None:
        heard.append(value)

    async def main() -> None:
        async with served(service) as (_, address), RpcClient(reactor(), [address]) as client:
            assert [item async for item in client.stream("count", 100)] == list(range(100))
            await client.notify("hear", 3)
            await until(lambda: heard == [3])

    asyncio.run(main())


# Threads.


def test_threads_call_through_a_blocking_client() -> None:
    service = new_service()

    @service.method
    async def count(until: int) -> AsyncIterator[int]:
        for number in range(until):
            yield number

    with ReactorThread() as thread:

        async def serve() -> RpcServer:
            server = RpcServer(thread.reactor, service)
            await server.listen("127.0.0.1", 0)
            return server

        server = thread.run(serve())
        results: list[int] = []
        with BlockingRpcClient([("127.0.0.1", server.port)], errors=[NoSuchMeter]) as client:

            def work(number: int) -> None:
                results.extend(client.call("add", number, index) for index in range(50))

            threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
            for one in threads:
                one.start()
            for one in threads:
                one.join(20)
            assert sorted(results) == sorted(number + index for number in range(4) for index in range(50))
            assert list(client.stream("count", 100)) == list(range(100))
            for item in client.stream("count", 10**9):
                if item == 5:
                    break
            client.notify("add", 1, 2)
            with pytest.raises(NoSuchMeter):
                client.call("fail", "declared")
        client.close()
        thread.run(server.drain(2))


# Tokens and roles.

TOKENS = {"t-reader": ["reader"], "t-admin": ["reader", "admin"], "t-none": []}


def guarded() -> Service:
    service = new_service()
    service.method(name="open")(lambda: "open")
    service.method(name="read_it", roles=("reader",))(lambda: "read")
    service.method(name="reset", roles=("admin", "operator"))(lambda: "reset")
    return service


@pytest.mark.parametrize("token", [None, "", "wrong", "t-reade", "t-reader "])
def test_nobody_gets_in_without_a_token(token: str | None) -> None:
    async def main() -> None:
        async with served(guarded(), tokens=TOKENS) as (server, address):
            with pytest.raises(ProtocolError, match="the token is missing or wrong"):
                async with connect_rpc(address, token=token):
                    pass
            assert server.peers == {}
            async with RpcClient(reactor(), [address], token=token) as client:
                with pytest.raises(CallLost, match="the token is missing or wrong"):
                    await client.call("open", timeout=0.2)

    asyncio.run(main())


def test_roles_say_what_may_be_called() -> None:
    async def main() -> None:
        allowed = {"t-reader": ["open", "read_it"], "t-admin": ["open", "read_it", "reset", "trunkline.stats"]}
        async with served(guarded(), tokens=TOKENS) as (_, address):
            for token in TOKENS:
                async with connect_rpc(address, token=token) as peer:
                    for method in ("open", "read_it", "reset", "trunkline.stats"):
                        if method in allowed.get(token, ["open"]):
                            await peer.call(method)
                        else:
                            with pytest.raises(Forbidden, match=f"{method} is for"):
                                await peer.call(method)

    asyncio.run(main())


def test_a_service_with_roles_needs_tokens() -> None:
    async def main() -> None:
        with pytest.raises(UsageError, match="read_it is for certain roles"):
            RpcServer(reactor(), guarded())
        with pytest.raises(UsageError, match="a token is empty"):
            RpcServer(reactor(), guarded(), tokens={"": ["admin"]})

    asyncio.run(main())


# What is built in.


def test_what_is_built_in_tells_of_the_server() -> None:
    async def main() -> None:
        async with served(new_service()) as (_, address), connect_rpc(address, agent="test 1") as peer:
            assert await peer.call("trunkline.ping") == "pong"
            assert await peer.call("trunkline.health") == "serving"
            described: list[dict[str, Any]] = await peer.call("trunkline.describe")
            (add,) = [one for one in described if one["name"] == "add"]
            assert add["arguments"] == [
                {"name": "left", "type": "int", "required": True},
                {"name": "right", "type": "int", "required": False},
            ]
            (connection,) = await peer.call("trunkline.connections")
            assert connection["agent"] == "test 1"
            await peer.call("add", 1)
            stats = await peer.call("trunkline.stats")
            assert stats["methods"]["add"]["calls"] == 1
            assert stats["connections"] == 1
            assert 0 < stats["methods"]["add"]["p99"] < 10

    asyncio.run(main())


def test_a_client_can_be_pinged_and_described() -> None:
    async def main() -> None:
        async with served(new_service()) as (server, address), connect_rpc(address, service=named("c")):
            (client,) = server.peers.values()
            assert await client.call("trunkline.ping") == "pong"
            assert "name" in [one["name"] for one in await client.call("trunkline.describe")]

    asyncio.run(main())


def test_limits_of_own_calls_are_told_to_the_caller_at_once() -> None:
    async def main() -> None:
        waiting = Waiting()
        limits = RpcLimits(own_limit=2)
        async with served(waiting_service(waiting)) as (_, address), connect_rpc(address, limits=limits) as peer:
            calls = [peer.call("wait"), peer.call("wait")]
            with pytest.raises(Overloaded, match="2 calls are under way"):
                peer.call("wait")
            waiting.go.set()
            assert await asyncio.gather(*calls) == ["done", "done"]

    asyncio.run(main())
