"""Calls over real sockets: whatever becomes of a call, its caller is told once."""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest

from trunkline.errors import (
    BadFrame,
    CallFailed,
    CallLost,
    DeadlineExceeded,
    NotFound,
    Overloaded,
    RpcError,
    UsageError,
    WrongThread,
)
from trunkline.reactor import Reactor
from trunkline.rpc import CallContext, RpcLimits, RpcPeer, RpcServer, Service, connect_rpc, current_call

Address = tuple[str, int]


class NoSuchMeter(RpcError):
    """There is no such meter."""


class TooHot(RpcError):
    """With data of a type."""

    data_type = tuple[int, float]

    def __init__(self, meter: int, degrees: float) -> None:
        super().__init__(f"meter {meter} has {degrees} degrees", (meter, degrees))


class Undeclared(RpcError):
    """Raised, but not declared."""


class Reading(msgspec.Struct):
    meter: int
    volts: float = 230.0


class Waiting:
    """What a test waits for on the server's side."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.go = asyncio.Event()
        self.calls = 0

    async def wait(self) -> str:
        self.calls += 1
        self.begun.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return "done"


def new_service() -> Service:
    service = Service()

    @service.method
    def echo(value: Any) -> Any:
        return value

    @service.method
    def add(left: int, right: int = 10) -> int:
        return left + right

    @service.method
    def read(meter: int) -> Reading:
        return Reading(meter)

    @service.method
    async def slow_add(left: int, right: int) -> int:
        await asyncio.sleep(0)
        return left + right

    @service.method(blocking=True)
    def thread_of() -> str:
        assert current_call.get() is not None
        return threading.current_thread().name

    @service.method(errors=(NoSuchMeter, TooHot))
    def fail(how: str) -> None:
        match how:
            case "declared":
                raise NoSuchMeter("no meter m9", {"near": ["m8"]})
            case "hot":
                raise TooHot(3, 90.5)
            case "undeclared":
                raise Undeclared("not for you")
            case "bug":
                raise KeyError("a secret of the server")
            case "unsendable":
                raise NoSuchMeter("x", object())

    @service.method(errors=(NoSuchMeter,))
    async def slow_fail(declared: bool) -> None:
        await asyncio.sleep(0)
        raise NoSuchMeter("no meter m9") if declared else ValueError("a secret of the server")

    @service.method
    def unsendable() -> Any:
        return object()

    @service.method
    def repeat(text: str, count: int) -> str:
        return text * count

    return service


def waiting_service(waiting: Waiting, **options: Any) -> Service:
    service = new_service()
    service.method(name="wait", **options)(waiting.wait)
    return service


@contextlib.asynccontextmanager
async def served(service: Service, **options: Any) -> AsyncIterator[tuple[RpcServer, Address]]:
    server = RpcServer(Reactor(asyncio.get_running_loop()), service, **options)
    port = await server.listen("127.0.0.1", 0)
    try:
        yield server, ("127.0.0.1", port)
    finally:
        await server.drain(2)


def with_peer(
    service: Service, test: Callable[[RpcServer, RpcPeer], Coroutine[Any, Any, None]], **options: Any
) -> None:
    async def main() -> None:
        async with (
            asyncio.timeout(20),
            served(service, **options) as (server, address),
            connect_rpc(address, errors=(NoSuchMeter, TooHot)) as peer,
        ):
            await test(server, peer)

    asyncio.run(main())


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110  # what is waited for is the server's own
        await asyncio.sleep(0.001)


# Results.


def test_every_kind_of_method_returns_what_it_returns() -> None:
    async def test(_server: RpcServer, peer: RpcPeer) -> None:
        assert await peer.call("echo", {"a": [1, 2.5, None, b"bytes"]}) == {"a": [1, 2.5, None, b"bytes"]}
        assert await peer.call("add", 1, 2) == 3
        assert await peer.call("add", 1) == 11
        assert await peer.call("slow_add", 1, 2) == 3
        assert (await peer.call("thread_of")).startswith("trunkline-rpc")
        assert await peer.call("read", 7, result_type=Reading) == Reading(7)

    with_peer(new_service(), test)


def test_many_calls_at_once_get_each_its_own_result() -> None:
    async def test(server: RpcServer, peer: RpcPeer) -> None:
        calls = [peer.call("echo" if i % 3 else "slow_add", *([i] if i % 3 else [i, 0])) for i in range(900)]
        assert await asyncio.gather(*calls) == list(range(900))
        assert server.stats()["methods"]["echo"]["calls"] == 600

    with_peer(new_service(), test)


def test_a_result_that_is_not_what_was_asked_for_is_an_error() -> None:
    async def test(_server: RpcServer, peer: RpcPeer) -> None:
        with pytest.raises(BadFrame, match="Expected `str`"):
            await peer.call("add", 1, result_type=str)
        assert await peer.call("add", 1, result_type=int) == 11

    with_peer(new_service(), test)


def test_the_server_calls_its_client_in_the_middle_of_a_call() -> None:
    mine = Service()

    @mine.method
    def name() -> str:
        return "client seven"

    theirs = Service()

    @theirs.method
    async def greet(context: CallContext) -> str:
        return f"hello, {await context.peer.call('name')}"

    async def main() -> None:
        async with served(theirs) as (_, address), connect_rpc(address, service=mine) as peer:
            assert await peer.call("greet") == "hello, client seven"

    asyncio.run(main())


def test_a_notification_runs_and_has_no_reply() -> None:
    heard: list[int] = []
    service = new_service()

    @service.method
    def hear(value: int) -> None:
        heard.append(value)

    @service.method
    async def hear_slowly(value: int) -> None:
        await asyncio.sleep(0)
        heard.append(value)

    async def test(server: RpcServer, peer: RpcPeer) -> None:
        peer.notify("hear", 1)
        peer.notify("hear_slowly", 2)
        peer.notify("hear", "not a number")
        peer.notify("no_such_method")
        assert await peer.call("add", 1, 1) == 2
        await until(lambda: heard == [1, 2])
        assert server.stats()["methods"]["hear"]["errors"] == {"usage": 1}

    with_peer(service, test)


# Errors.


def test_declared_errors_come_as_what_they_are_with_their_data() -> None:
    async def test(_server: RpcServer, peer: RpcPeer) -> None:
        with pytest.raises(NoSuchMeter, match="no meter m9") as caught:
            await peer.call("fail", "declared")
        assert caught.value.data == {"near": ["m8"]}
        with pytest.raises(TooHot) as hot:
            await peer.call("fail", "hot")
        assert hot.value.data == (3, 90.5)
        with pytest.raises(NoSuchMeter):
            await peer.call("slow_fail", True)

    with_peer(new_service(), test)


def test_a_caller_that_does_not_know_an_error_gets_its_code() -> None:
    async def main() -> None:
        async with served(new_service()) as (_, address), connect_rpc(address) as peer:
            with pytest.raises(RpcError, match="no meter m9") as caught:
                await peer.call("fail", "declared")
            assert type(caught.value) is RpcError
            assert caught.value.code == "NoSuchMeter"

    asyncio.run(main())


@pytest.mark.parametrize(
    ("method", "args"),
    [("fail", ["bug"]), ("fail", ["undeclared"]), ("fail", ["unsendable"]), ("slow_fail", [False]), ("unsendable", [])],
)
def test_what_is_not_declared_leaves_its_traceback_in_the_log_alone(
    method: str, args: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    async def test(_server: RpcServer, peer: RpcPeer) -> None:
        with caplog.at_level(logging.ERROR), pytest.raises(CallFailed) as caught:
            await peer.call(method, *args)
        assert "secret" not in str(caught.value)
        assert "not for you" not in str(caught.value)
        (record,) = caplog.records
        assert record.exc_info is not None
        assert record.facts == {"method": method, "id": caught.value.id}  # type: ignore[attr-defined]
        assert caught.value.id in str(caught.value)

    with_peer(new_service(), test)


def test_with_debug_on_the_caller_gets_the_traceback() -> None:
    async def test(_server: RpcServer, peer: RpcPeer) -> None:
        with pytest.raises(CallFailed, match="KeyError: 'a secret of the server'"):
            await peer.call("fail", "bug")

    with_peer(new_service(), test, debug=True)


def test_wrong_calls_say_what_is_wrong() -> None:
    async def test(_server: RpcServer, peer: RpcPeer) -> None:
        with pytest.raises(NotFound, match="no method 'no_such'"):
            await peer.call("no_such")
        with pytest.raises(UsageError, match=r"Expected `int`, got `str` - at `\$\[0\]`"):
            await peer.call("add", "1", 2)
        with pytest.raises(UsageError, match="length 1, got 2"):
            await peer.call("echo", 1, 2)
        with pytest.raises(UsageError, match="Expected `array` of at least length 1"):
            await peer.call("add")
        with pytest.raises(UsageError, match="Encoding objects of type object"):
            peer.call("echo", object())
        with pytest.raises(UsageError, match="result_type"):
            peer.call("echo", 1, result_type=int | str | Reading | bytes | list[int] | list[str])
        assert peer.calls_under_way == 0
        assert await peer.call("add", 1, 1) == 2

    with_peer(new_service(), test)


def test_what_is_too_long_fails_alone_in_both_directions() -> None:
    async def test(_server: RpcServer, peer: RpcPeer) -> None:
        with pytest.raises(UsageError, match="the peer takes 1048576"):
            peer.call("echo", bytes(16 << 20))
        with pytest.raises(UsageError, match="the caller takes 1048576"):
            await peer.call("repeat", "x", 16 << 20)
        assert len(await peer.call("repeat", "x", 1 << 19)) == 1 << 19

    with_peer(new_service(), test)


# Deadlines and cancelling.


def test_a_deadline_ends_the_call_on_both_sides() -> None:
    async def main() -> None:
        waiting = Waiting()
        async with served(waiting_service(waiting)) as (server, address), connect_rpc(address) as peer:
            with pytest.raises(DeadlineExceeded):
                await peer.call("wait", timeout=0.05)
            await asyncio.wait_for(waiting.cancelled.wait(), 5)
            await until(lambda: server.stats()["running"] == 0)
            assert await peer.call("add", 1, timeout=5) == 11
            with pytest.raises(DeadlineExceeded, match="no time left"):
                peer.call("add", 1, timeout=0)

    asyncio.run(main())


def test_cancelling_the_task_that_awaits_a_call_cancels_the_method() -> None:
    async def main() -> None:
        waiting = Waiting()
        async with served(waiting_service(waiting)) as (server, address), connect_rpc(address) as peer:

            async def ask() -> None:
                await peer.call("wait")

            task = asyncio.create_task(ask())
            await waiting.begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.wait_for(waiting.cancelled.wait(), 5)
            assert peer.calls_under_way == 0
            assert server.stats()["methods"]["wait"]["errors"] == {"cancelled": 1}

    asyncio.run(main())


def test_a_nested_call_has_the_time_and_the_meta_of_the_outer_one() -> None:
    seen: list[tuple[float, dict[str, str] | None]] = []

    async def main() -> None:
        waiting = Waiting()
        inner = waiting_service(waiting)

        @inner.method
        async def look(context: CallContext) -> None:
            seen.append((context.deadline - asyncio.get_running_loop().time(), context.meta))

        async with served(inner) as (_, inner_address), connect_rpc(inner_address) as inner_peer:
            outer = Service()

            @outer.method
            async def relay(method: str) -> None:
                await inner_peer.call(method, timeout=100)

            async with served(outer) as (_, address), connect_rpc(address) as peer:
                await peer.call("relay", "look", timeout=5, meta={"trace": "t1"})
                assert 0 < seen[0][0] <= 5
                assert seen[0][1] == {"trace": "t1"}
                with pytest.raises(DeadlineExceeded):
                    await peer.call("relay", "wait", timeout=0.05)
                await asyncio.wait_for(waiting.cancelled.wait(), 5)

    asyncio.run(main())


def test_a_thread_that_is_given_up_still_counts_until_it_ends() -> None:
    async def main() -> None:
        go = threading.Event()
        service = new_service()

        @service.method(blocking=True, limit=2)
        def block() -> None:
            go.wait(10)

        async with served(service) as (server, address), connect_rpc(address) as peer:
            for _ in range(2):
                peer.call("block").cancel()
            with pytest.raises(Overloaded, match="2 calls of it"):
                await peer.call("block")
            go.set()
            await until(lambda: server.stats()["running"] == 0)
            await peer.call("block")

    asyncio.run(main())


def test_a_deadline_that_an_inner_call_notices_first_is_told_as_what_it_is(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        service = new_service()

        @service.method
        async def late(context: CallContext) -> None:
            loop = asyncio.get_running_loop()
            while loop.time() < context.deadline:  # it holds up the loop, so that nobody else can notice
                pass
            raise DeadlineExceeded("of a call that it made")

        async with served(service) as (_, address), connect_rpc(address) as peer:
            with pytest.raises(DeadlineExceeded):
                await peer.call("late", timeout=0.05)
        assert caplog.records == []

    asyncio.run(main())


# Ends of connections.


def test_calls_are_lost_with_their_connection_and_none_hangs() -> None:
    async def main() -> None:
        waiting = Waiting()
        async with served(waiting_service(waiting)) as (server, address), connect_rpc(address) as peer:
            calls = [peer.call("wait") for _ in range(10)]
            await until(lambda: waiting.calls == 10)
            next(iter(server.peers.values())).connection.abort()
            for call in calls:
                with pytest.raises(CallLost) as caught:
                    await call
                assert caught.value.sent == "unknown"
            await asyncio.wait_for(waiting.cancelled.wait(), 5)
            with pytest.raises(CallLost) as after:
                peer.call("add", 1)
            assert after.value.sent == "no"

    asyncio.run(main())


def test_a_caller_that_goes_away_has_its_calls_cancelled() -> None:
    async def main() -> None:
        waiting = Waiting()
        async with served(waiting_service(waiting)) as (server, address):
            async with connect_rpc(address) as peer:
                call = peer.call("wait")
                await waiting.begun.wait()
            with pytest.raises(CallLost):
                await call
            await asyncio.wait_for(waiting.cancelled.wait(), 5)
            await until(lambda: server.stats()["running"] == 0)

    asyncio.run(main())


def test_a_drain_lets_running_calls_end_and_takes_no_new_ones() -> None:
    async def main() -> None:
        waiting = Waiting()
        async with served(waiting_service(waiting)) as (server, address), connect_rpc(address) as peer:
            running = peer.call("wait")
            await waiting.begun.wait()
            drained = asyncio.create_task(server.drain(10))
            crossing = peer.call("add", 1)
            with pytest.raises(CallLost) as caught:
                await crossing
            assert caught.value.sent == "no"
            assert peer.goes_away
            with pytest.raises(CallLost, match="stopping"):
                peer.call("add", 1)
            waiting.go.set()
            assert await running == "done"
            await drained
            await until(lambda: not peer.connection.is_open)
            assert peer.connection.close_reason == "peer_closed"

    asyncio.run(main())


def test_what_runs_longer_than_a_drain_is_broken_off_and_its_caller_told() -> None:
    async def main() -> None:
        waiting = Waiting()
        async with served(waiting_service(waiting)) as (server, address), connect_rpc(address) as peer:
            running = peer.call("wait")
            await waiting.begun.wait()
            await server.drain(0.05)
            with pytest.raises(CallLost) as caught:
                await running
            assert caught.value.sent == "yes"
            assert waiting.cancelled.is_set()

    asyncio.run(main())


# Limits.


def test_over_the_limit_of_a_connection_calls_are_refused_at_once() -> None:
    async def main() -> None:
        waiting = Waiting()
        limits = RpcLimits(connection_limit=3)
        async with (
            served(waiting_service(waiting), limits=limits) as (_, address),
            connect_rpc(address) as peer,
            connect_rpc(address) as other,
        ):
            held = [peer.call("wait") for _ in range(3)]
            with pytest.raises(Overloaded, match="3 calls of this connection"):
                await peer.call("wait")
            assert await peer.call("add", 1) == 11, "a function that runs at once needs no place"
            fourth = other.call("wait")
            await until(lambda: waiting.calls == 4)
            waiting.go.set()
            assert await asyncio.gather(*held, fourth) == ["done"] * 4

    asyncio.run(main())


def test_over_the_limit_of_a_server_calls_wait_then_are_refused() -> None:
    async def main() -> None:
        waiting = Waiting()
        limits = RpcLimits(running_limit=2, waiting_limit=3)
        async with served(waiting_service(waiting), limits=limits) as (server, address), connect_rpc(address) as peer:
            calls = [peer.call("wait") for _ in range(5)]
            with pytest.raises(Overloaded, match="2 calls run and 3 wait"):
                await peer.call("wait")
            assert (waiting.calls, server.stats()["waiting"]) == (2, 3)
            calls[2].cancel()
            await until(lambda: server.stats()["methods"]["wait"]["errors"].get("cancelled"))
            expiring = asyncio.gather(calls[0], calls[1], calls[3], calls[4])
            waiting.go.set()
            assert await expiring == ["done"] * 4
            assert waiting.calls == 4, "the one that was given up while it waited never ran"
            await until(lambda: server.stats()["running"] == server.stats()["waiting"] == 0)

    asyncio.run(main())


def test_arguments_are_bounded_by_their_bytes_too() -> None:
    async def main() -> None:
        go = asyncio.Event()
        service = Service()

        @service.method
        async def keep(data: bytes) -> int:
            await go.wait()
            return len(data)

        limits = RpcLimits(connection_bytes=2_500_000)
        async with served(service, limits=limits) as (_, address), connect_rpc(address) as peer:
            held = [peer.call("keep", bytes(1_000_000)) for _ in range(2)]
            with pytest.raises(Overloaded, match="hold 2500000 bytes"):
                await peer.call("keep", bytes(1_000_000))
            go.set()
            assert await asyncio.gather(*held) == [1_000_000] * 2
            assert await peer.call("keep", bytes(1_000_000)) == 1_000_000

    asyncio.run(main())


def test_a_call_from_another_thread_is_refused() -> None:
    async def test(_server: RpcServer, peer: RpcPeer) -> None:
        def wrong() -> None:
            peer.call("add", 1)

        with pytest.raises(WrongThread):
            await asyncio.to_thread(wrong)
        assert peer.calls_under_way == 0

    with_peer(new_service(), test)


def test_calls_go_over_a_unix_socket_and_compressed(tmp_path: Path) -> None:
    async def main() -> None:
        path = str(tmp_path / "rpc.sock")
        async with served(new_service(), compression=("zlib",)) as (server, _):
            await server.listen_unix(path)
            async with connect_rpc(path, compression=("zlib",)) as peer:
                text = "voltage " * 50_000
                assert await peer.call("echo", text) == text
                assert peer.connection.sent_bytes < len(text) / 20

    asyncio.run(main())


def test_a_slow_method_does_not_hold_up_others() -> None:
    async def test(_server: RpcServer, peer: RpcPeer) -> None:
        begun = time.monotonic()
        slow = peer.call("sleep_in_thread", 0.3)
        assert await peer.call("add", 1) == 11
        assert not slow.done()
        await slow
        assert time.monotonic() - begun >= 0.3

    service = new_service()

    @service.method(blocking=True)
    def sleep_in_thread(seconds: float) -> None:
        time.sleep(seconds)

    with_peer(service, test)
