"""Bad input: a typed error for that call, or a close with a reason; nobody else notices."""

import asyncio
import contextlib
import json
import struct
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from test_rpc_calls import Address, Waiting, served, until, waiting_service

from trunkline.rpc import RpcLimits, RpcServer, Service, connect_rpc

encode = msgspec.msgpack.encode
CALL, REPLY, FAILED, CANCEL, NOTIFY, ITEM, END, CREDIT, GOAWAY = range(1, 10)
DATA, CLOSE = 2, 6


def frame(payload: bytes, kind: int = DATA) -> bytes:
    return struct.pack(">IB", len(payload) + 1, kind) + payload


def message(*fields: Any) -> bytes:
    return frame(encode(fields))


class Raw:
    """A client that says what it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def say(self, *frames: bytes) -> None:
        self.writer.write(b"".join(frames))

    async def frame(self) -> tuple[int, bytes]:
        length, kind = struct.unpack(">IB", await self.reader.readexactly(5))
        return kind, await self.reader.readexactly(length - 1)

    async def hear(self) -> list[Any]:
        """The next message of a call."""
        while True:
            kind, payload = await self.frame()
            if kind == DATA:
                found: list[Any] = msgspec.msgpack.decode(payload)
                return found
            assert kind != CLOSE, payload

    async def farewell(self) -> str:
        """What the server says when it closes."""
        while True:
            kind, payload = await self.frame()
            if kind == CLOSE:
                assert await self.reader.read() == b""
                return payload.decode()


@contextlib.asynccontextmanager
async def raw(address: Address) -> AsyncIterator[Raw]:
    reader, writer = await asyncio.open_connection(*address)
    client = Raw(reader, writer)
    client.say(frame(json.dumps({"version": [1, 1], "limit_bytes": 1 << 20}).encode(), 1))
    kind, _ = await client.frame()
    assert kind == 1
    try:
        yield client
    finally:
        writer.close()


def with_raw(test: Any, **options: Any) -> None:
    async def main() -> None:
        waiting = Waiting()
        service = waiting_service(waiting)

        @service.method
        async def total(numbers: AsyncIterator[int]) -> int:
            return sum([number async for number in numbers])

        @service.method
        async def count(until: int) -> AsyncIterator[int]:
            for number in range(until):
                yield number

        async with (
            asyncio.timeout(30),
            served(service, **options) as (server, address),
            connect_rpc(address) as other,
            raw(address) as client,
        ):
            await test(server, client)
            assert await other.call("add", 1, 1) == 2, "others don't notice"
            waiting.go.set()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("said", "why"),
    [
        pytest.param(frame(b"\xc1"), "no message of a call", id="no MessagePack"),
        pytest.param(frame(b""), "no message of a call", id="nothing"),
        pytest.param(frame(b"\x91" * 10_000), "no message of a call", id="nested deeply"),
        pytest.param(message(99, 1), "Invalid value 99", id="unknown kind"),
        pytest.param(frame(encode({"a": 1})), "Expected `array`", id="no array"),
        pytest.param(message(CALL, "1", "add"), "Expected `int`", id="id of a wrong type"),
        pytest.param(message(CALL, 2, "add", [1]), "must be greater than -1, and odd", id="id of the server's"),
        pytest.param(message(CALL, 0, "add", [1]), "must be greater", id="id zero"),
        pytest.param(message(CALL, -1, "add", [1]), "must be greater", id="id below zero"),
        pytest.param(message(CALL, 3, "add", [1]) + message(CALL, 3, "add", [1]), "greater than 3", id="same id"),
        pytest.param(message(CALL, 3, "wait") + message(CALL, 1, "wait"), "greater than 3", id="id that falls"),
        pytest.param(message(CALL, 1, "add", [1], -5), "Expected `int` >= 0", id="time below zero"),
        pytest.param(message(REPLY, 2, 5), "call 2 was never made", id="reply to no call"),
        pytest.param(message(REPLY, 1, 5), "call 1 was never made", id="reply to its own"),
        pytest.param(message(FAILED, 2, "internal"), "call 2 was never made", id="failure of no call"),
        pytest.param(message(CANCEL, 1), "call 1 was never made", id="cancel of no call"),
        pytest.param(message(ITEM, 1, 5), "call 1 was never made", id="item of no call"),
        pytest.param(message(END, 1), "call 1 was never made", id="end of no call"),
        pytest.param(message(CREDIT, 1, 5), "call 1 was never made", id="credit of no call"),
        pytest.param(message(CREDIT, 1, 2**31), "Expected `int` <=", id="much credit"),
        pytest.param(message(CALL, 1, "wait") + message(ITEM, 1, 5), "is no stream", id="item for no stream"),
        pytest.param(
            message(CALL, 1, "total") + message(END, 1) + message(ITEM, 1, 5), "has ended", id="item behind the end"
        ),
        pytest.param(message(CALL, 1, "total") + message(ITEM, 1, 5) * 65, "without credit", id="items without credit"),
        pytest.param(struct.pack(">IB", 16 << 20, DATA), "the limit is 1048576", id="too long"),
    ],
)
def test_what_breaks_the_protocol_closes_the_connection_and_says_why(said: bytes, why: str) -> None:
    async def test(_server: RpcServer, client: Raw) -> None:
        client.say(said)
        farewell = await client.farewell()
        assert farewell.startswith("bad_frame: ")
        assert why in farewell

    with_raw(test)


def test_replies_to_what_came_before_a_breach_are_sent() -> None:
    async def test(_server: RpcServer, client: Raw) -> None:
        client.say(message(CALL, 1, "add", [1, 2]), frame(b"\xc1"), message(CALL, 3, "add", [1, 2]))
        assert await client.hear() == [REPLY, 1, 3]
        assert "no message of a call" in await client.farewell()

    with_raw(test)


@pytest.mark.parametrize(
    ("call", "code", "text"),
    [
        ((CALL, 1, "no_such"), "not_found", "no_such"),
        ((CALL, 1, "x" * 100_000), "not_found", "xxx"),
        ((CALL, 1, "add", ["1"]), "usage", "Expected `int`"),
        ((CALL, 1, "add", {"left": 1}), "usage", "Expected `array`"),
        ((CALL, 1, "add", [1, 2, 3]), "usage", "length"),
        ((CALL, 1, "add", [2**63]), None, ""),
        ((CALL, 1, "add", [1], 0, None, 5), "usage", "is no stream"),
        ((CALL, 1, "count", [1]), "usage", "is a stream"),
    ],
)
def test_a_wrong_call_has_an_error_of_its_own(call: tuple[Any, ...], code: str | None, text: str) -> None:
    async def test(_server: RpcServer, client: Raw) -> None:
        client.say(message(*call), message(CALL, 3, "add", [20, 22]))
        first = await client.hear()
        if code is not None:
            assert first[:3] == [FAILED, 1, code]
            assert text in first[3]
            assert len(first[3]) < 2_100
        assert await client.hear() == [REPLY, 3, 42]

    with_raw(test)


def test_arguments_that_are_nested_deeply_fail_their_call_or_close() -> None:
    async def test(_server: RpcServer, client: Raw) -> None:
        nested = b"\x91" * 900 + b"\xc0"
        client.say(frame(b"\x94\x01\x01\xa4echo\x91" + nested))
        kind, _ = await client.frame()
        assert kind == DATA

    with_raw(test)


def test_what_crosses_the_end_of_a_call_harms_nobody() -> None:
    async def test(_server: RpcServer, client: Raw) -> None:
        client.say(
            message(CALL, 1, "add", [1, 2]),
            message(CANCEL, 1),
            message(ITEM, 1, 5),
            message(END, 1),
            message(CREDIT, 1, 5),
            message(CANCEL, 1),
            message(CALL, 3, "add", [3, 4]),
        )
        assert await client.hear() == [REPLY, 1, 3]
        assert await client.hear() == [REPLY, 3, 7]

    with_raw(test)


def test_an_item_of_another_type_ends_its_call_and_later_ones_are_let_pass() -> None:
    async def test(_server: RpcServer, client: Raw) -> None:
        client.say(message(CALL, 1, "total"), message(ITEM, 1, "x"), message(ITEM, 1, 5), message(END, 1))
        assert await client.hear() == [CREDIT, 1, 64]
        assert (await client.hear())[:3] == [FAILED, 1, "usage"]
        client.say(message(CALL, 3, "add", [3, 4]))
        assert await client.hear() == [REPLY, 3, 7]

    with_raw(test)


def test_a_stream_sends_no_more_than_it_has_credit_for() -> None:
    async def test(_server: RpcServer, client: Raw) -> None:
        client.say(message(CALL, 1, "count", [100], 0, None, 3))
        assert [await client.hear() for _ in range(3)] == [[ITEM, 1, number] for number in range(3)]
        client.say(message(CALL, 3, "add", [3, 4]))
        assert await client.hear() == [REPLY, 3, 7]
        client.say(message(CREDIT, 1, 0), message(CREDIT, 1, 2**31 - 1), message(CREDIT, 1, 2**31 - 1))
        assert [(await client.hear())[2] for _ in range(97)] == list(range(3, 100))
        assert await client.hear() == [REPLY, 1, None]

    with_raw(test)


def test_a_hundred_thousand_calls_in_one_write_are_all_answered_and_take_little_memory() -> None:
    async def test(server: RpcServer, client: Raw) -> None:
        count = 100_000
        tracemalloc.start()
        sending = b"".join(message(CALL, 2 * index + 1, "add", [index, 0]) for index in range(count))
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        client.say(sending)
        for index in range(count):
            assert await client.hear() == [REPLY, 2 * index + 1, index]
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak - before < 8 << 20
        assert server.stats()["methods"]["add"]["calls"] == count

    with_raw(test)


def test_a_client_that_calls_and_never_reads_is_held_back() -> None:
    async def test(server: RpcServer, client: Raw) -> None:
        (peer,) = [one for one in server.peers.values() if one.agent == ""][-1:]
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        call_id = 1
        for _ in range(400):
            client.say(message(CALL, call_id, "repeat", ["x", 1_000_000]))
            call_id += 2
        await asyncio.sleep(0.3)
        assert peer.connection.unsent_bytes < 20_000_000
        assert server.stats()["methods"]["repeat"]["calls"] < 100

    with_raw(test)


def test_who_calls_and_cancels_has_no_more_at_once_than_who_waits() -> None:
    async def test(server: RpcServer, client: Raw) -> None:
        for call_id in range(1, 21, 2):
            client.say(message(CALL, call_id, "stubborn"))
        await until(lambda: begun == 10)
        for call_id in range(1, 21, 2):
            client.say(message(CANCEL, call_id))
        for call_id in range(21, 101, 2):
            client.say(message(CALL, call_id, "stubborn"), message(CANCEL, call_id))
        refused = [await client.hear() for _ in range(40)]
        assert {tuple(one[:1] + one[2:3]) for one in refused} == {(FAILED, "overloaded")}
        assert server.stats()["running"] == 10
        go.set()
        await until(lambda: server.stats()["running"] == 0)

    go = asyncio.Event()
    begun = 0
    service = Service()

    @service.method
    async def stubborn() -> None:
        nonlocal begun
        begun += 1
        while not go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await go.wait()

    async def main() -> None:
        async with (
            asyncio.timeout(20),
            served(service, limits=RpcLimits(connection_limit=10)) as (server, address),
            raw(address) as client,
        ):
            await test(server, client)

    asyncio.run(main())
