"""Streams in both directions: nobody gets more than there was credit for, and every stream ends."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from test_rpc_calls import served, until

from trunkline.errors import BadFrame, CallFailed, CallLost, DeadlineExceeded, Overloaded, RpcError, UsageError
from trunkline.rpc import RpcLimits, RpcPeer, RpcServer, Service, connect_rpc


class RanDry(RpcError):
    """The stream has no more."""


class Log:
    def __init__(self) -> None:
        self.yielded = 0
        self.taken: list[int] = []
        self.closed = asyncio.Event()


def new_service(log: Log) -> Service:
    service = Service()

    @service.method(errors=(RanDry,))
    async def count(until: int, then: str = "") -> AsyncIterator[int]:
        try:
            for number in range(until):
                log.yielded += 1
                yield number
            if then == "declared":
                raise RanDry("no more", 7)
            if then == "bug":
                raise ValueError("secret")
            if then == "wait":
                await asyncio.Event().wait()
        finally:
            log.closed.set()

    @service.method
    async def total(start: int, numbers: AsyncIterator[int]) -> int:
        try:
            async for number in numbers:
                log.taken.append(number)
                start += number
        finally:
            log.closed.set()
        return start

    @service.method
    async def take_two(numbers: AsyncIterator[int]) -> list[int]:
        return [await anext(numbers), await anext(numbers)]

    @service.method
    async def never_take(numbers: AsyncIterator[int]) -> None:
        await asyncio.Event().wait()

    @service.method
    async def double(numbers: AsyncIterator[int]) -> AsyncIterator[int]:
        async for number in numbers:
            yield 2 * number

    @service.method
    def add(left: int, right: int) -> int:
        return left + right

    return service


async def numbers(count: int, sent: list[int] | None = None) -> AsyncIterator[int]:
    for number in range(count):
        if sent is not None:
            sent.append(number)
        yield number


def with_log(test: Any, **options: Any) -> None:
    async def main() -> None:
        log = Log()
        async with (
            asyncio.timeout(20),
            served(new_service(log), **options) as (server, address),
            connect_rpc(address, errors=(RanDry,)) as peer,
        ):
            await test(server, peer, log)
            await until(lambda: server.stats()["running"] == 0)

    asyncio.run(main())


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 1_000])
def test_every_item_of_a_result_comes_once_and_in_order(count: int) -> None:
    async def test(_server: RpcServer, peer: RpcPeer, log: Log) -> None:
        assert [item async for item in peer.stream("count", count, result_type=int)] == list(range(count))
        assert log.closed.is_set()
        assert peer.calls_under_way == 0

    with_log(test)


def test_a_slow_taker_holds_the_callee_back() -> None:
    async def test(_server: RpcServer, peer: RpcPeer, log: Log) -> None:
        stream = peer.stream("count", 1_000, window=10)
        assert [await anext(stream) for _ in range(4)] == [0, 1, 2, 3]
        assert await peer.call("add", 1, 1) == 2, "others go on meanwhile"
        assert log.yielded <= 12
        assert [item async for item in stream][-1] == 999

    with_log(test)


def test_a_stream_that_is_given_up_ends_at_the_callee() -> None:
    async def test(_server: RpcServer, peer: RpcPeer, log: Log) -> None:
        stream = peer.stream("count", 1_000_000)
        await anext(stream)
        await stream.aclose()
        await asyncio.wait_for(log.closed.wait(), 5)

    with_log(test)


def test_a_stream_that_nobody_holds_any_more_ends_at_the_callee() -> None:
    async def test(_server: RpcServer, peer: RpcPeer, log: Log) -> None:
        async for item in peer.stream("count", 1_000_000):
            if item == 3:
                break
        await asyncio.wait_for(log.closed.wait(), 5)

    with_log(test)


def test_a_stream_whose_taker_is_cancelled_ends_at_the_callee() -> None:
    async def test(_server: RpcServer, peer: RpcPeer, log: Log) -> None:
        stream = peer.stream("count", 3, "wait")
        taking = asyncio.ensure_future(anext(stream))
        assert await taking == 0
        with pytest.raises(TimeoutError):  # noqa: PT012  # it is the iteration that is broken off
            async with asyncio.timeout(0.05):
                async for _ in stream:
                    pass
        await asyncio.wait_for(log.closed.wait(), 5)
        assert peer.calls_under_way == 0

    with_log(test)


def test_errors_come_behind_the_items_before_them() -> None:
    async def test(_server: RpcServer, peer: RpcPeer, _log: Log) -> None:
        for then, error in (("declared", RanDry), ("bug", CallFailed)):
            got = []
            with pytest.raises(error):  # noqa: PT012  # it is the iteration that raises
                async for item in peer.stream("count", 3, then):
                    got.append(item)  # noqa: PERF401  # what came before the error is kept
            assert got == [0, 1, 2]
        with pytest.raises(UsageError, match="Expected `int`"):
            await anext(peer.stream("count", "three"))
        with pytest.raises(BadFrame, match="Expected `str`"):
            await anext(peer.stream("count", 3, result_type=str))

    with_log(test)


def test_a_stream_has_a_deadline() -> None:
    async def test(_server: RpcServer, peer: RpcPeer, log: Log) -> None:
        with pytest.raises(DeadlineExceeded):
            async for _ in peer.stream("count", 3, "wait", timeout=0.05):
                pass
        await asyncio.wait_for(log.closed.wait(), 5)

    with_log(test)


def test_a_stream_is_called_as_one_and_nothing_else_is() -> None:
    async def test(_server: RpcServer, peer: RpcPeer, _log: Log) -> None:
        with pytest.raises(UsageError, match="its result is a stream"):
            await peer.call("count", 3)
        with pytest.raises(UsageError, match="its result is no stream"):
            await anext(peer.stream("total", 3))

    with_log(test)


@pytest.mark.parametrize("count", [0, 1, 64, 1_000])
def test_an_argument_can_be_a_stream(count: int) -> None:
    async def test(_server: RpcServer, peer: RpcPeer, log: Log) -> None:
        assert await peer.call("total", 5, numbers(count)) == 5 + sum(range(count))
        assert log.taken == list(range(count))

    with_log(test)


def test_both_directions_can_be_streams_at_once() -> None:
    async def test(_server: RpcServer, peer: RpcPeer, _log: Log) -> None:
        got = [item async for item in peer.stream("double", numbers(500), window=8)]
        assert got == [2 * number for number in range(500)]

    with_log(test)


def test_a_callee_that_takes_no_items_holds_the_caller_back() -> None:
    async def test(_server: RpcServer, peer: RpcPeer, _log: Log) -> None:
        sent: list[int] = []
        call = peer.call("never_take", numbers(1_000, sent))
        await until(lambda: len(sent) == 9)
        assert await peer.call("add", 1, 1) == 2
        assert len(sent) == 9, "eight for which there was credit, and one that waits for it"
        call.cancel()

    with_log(test, limits=RpcLimits(stream_window=8))


def test_a_callee_that_has_enough_ends_the_callers_stream() -> None:
    async def test(_server: RpcServer, peer: RpcPeer, _log: Log) -> None:
        closed = asyncio.Event()

        async def endless() -> AsyncIterator[int]:
            try:
                number = 0
                while True:
                    yield number
                    number += 1
            finally:
                closed.set()

        assert await peer.call("take_two", endless()) == [0, 1]
        await asyncio.wait_for(closed.wait(), 5)
        assert await peer.call("add", 1, 1) == 2, "items that crossed the reply harm nobody"

    with_log(test)


def test_an_argument_that_raises_fails_its_call_alone() -> None:
    async def test(_server: RpcServer, peer: RpcPeer, log: Log) -> None:
        async def broken() -> AsyncIterator[int]:
            yield 1
            raise ValueError("the caller's own")

        with pytest.raises(ValueError, match="the caller's own"):
            await peer.call("total", 0, broken())
        await asyncio.wait_for(log.closed.wait(), 5)
        assert await peer.call("add", 1, 1) == 2

    with_log(test)


def test_an_item_of_the_wrong_type_fails_its_call_alone() -> None:
    async def test(_server: RpcServer, peer: RpcPeer, log: Log) -> None:
        async def words() -> AsyncIterator[Any]:
            yield 1
            yield "two"

        with pytest.raises(UsageError, match="numbers: Expected `int`, got `str`"):
            await peer.call("total", 0, words())
        await asyncio.wait_for(log.closed.wait(), 5)
        assert await peer.call("add", 1, 1) == 2

    with_log(test)


def test_what_no_stream_can_be_is_said_before_it_is_called() -> None:
    async def test(_server: RpcServer, peer: RpcPeer, _log: Log) -> None:
        for window in (0, -1, 2**31):
            with pytest.raises(UsageError, match="window"):
                peer.stream("count", 3, window=window)
        with pytest.raises(UsageError, match="result_type"):
            peer.stream("count", 3, result_type=int | str | bytes | list[int] | list[str])
        with pytest.raises(UsageError, match="can't be sent"):
            peer.call("total", numbers(3), numbers(3))
        with pytest.raises(UsageError, match="an item of the stream can't be sent"):
            await peer.call("total", 0, objects())
        assert peer.calls_under_way == 0

    async def objects() -> AsyncIterator[object]:
        yield object()

    with_log(test)


def test_items_that_nobody_takes_are_bounded_by_their_bytes_too() -> None:
    async def test(server: RpcServer, peer: RpcPeer, _log: Log) -> None:
        async def large() -> AsyncIterator[bytes]:
            while True:
                yield bytes(1_000_000)

        calls = [peer.call("hoard", large()) for _ in range(3)]
        with pytest.raises(Overloaded, match="hold 8000000 bytes"):
            await asyncio.gather(*calls)
        (served_peer,) = server.peers.values()
        assert served_peer.tally.held <= 8_000_000
        for call in calls:
            call.cancel()
        await until(lambda: not served_peer.runs)
        assert served_peer.tally.held == 0

    async def main() -> None:
        service = Service()

        @service.method
        async def hoard(items: AsyncIterator[bytes]) -> None:
            await asyncio.Event().wait()

        limits = RpcLimits(connection_bytes=8_000_000)
        async with (
            asyncio.timeout(20),
            served(service, limits=limits) as (server, address),
            connect_rpc(address) as peer,
        ):
            await test(server, peer, Log())

    asyncio.run(main())


def test_streams_end_with_their_connection() -> None:
    async def test(server: RpcServer, peer: RpcPeer, log: Log) -> None:
        stream = peer.stream("count", 3, "wait")
        adding = peer.call("total", 0, numbers(10**9))
        await anext(stream)
        next(iter(server.peers.values())).connection.abort()
        with pytest.raises(CallLost):
            await adding
        with pytest.raises(CallLost):
            async for _ in stream:
                pass
        await asyncio.wait_for(log.closed.wait(), 5)

    with_log(test)


def test_large_items_do_not_pile_up_unsent() -> None:
    async def main() -> None:
        service = Service()

        @service.method
        async def megabytes(count: int) -> AsyncIterator[bytes]:
            for _ in range(count):
                yield bytes(1_000_000)

        async with served(service) as (server, address), connect_rpc(address) as peer:
            stream = peer.stream("megabytes", 60)
            peer.connection.pause_reading()
            await asyncio.sleep(0.2)
            unsent = next(iter(server.peers.values())).connection.unsent_bytes
            assert unsent < 3_000_000
            peer.connection.resume_reading()
            assert sum([len(item) async for item in stream]) == 60_000_000

    asyncio.run(main())
