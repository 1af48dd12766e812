"""The page on calls and the plain client, which share no code with Trunkline, against a real server."""

import asyncio
import importlib.util
import io
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline import Reactor
from trunkline.errors import RpcError
from trunkline.rpc import CallContext, RpcServer, Service

ROOT = Path(__file__).resolve().parents[2]
CLIENT = ROOT / "examples" / "rpc" / "plain_client.py"
PAGE = (ROOT / "docs" / "reference" / "rpc.md").read_text(encoding="utf-8")
HELLO = b'{"version":[1,1],"limit_bytes":1048576}'
DATA, CLOSE = 2, 6
SECONDS = 20


def load_client() -> ModuleType:
    spec = importlib.util.spec_from_file_location("plain_client", CLIENT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


plain_client: Any = load_client()


class NoSuchMeter(RpcError):
    """There is no such meter."""


class Meters:
    """The methods of the page, and what became of them."""

    def __init__(self) -> None:
        self.service = Service()
        self.lines: list[str] = []
        self.waiting = 0
        self.changed = asyncio.Event()
        for method in (self.add, self.log, self.wait, self.waits, self.count, self.total, self.ignore, self.greet):
            self.service.method(method)
        self.service.method(errors=(NoSuchMeter,))(self.read)

    def add(self, a: int, b: int) -> int:
        return a + b

    def log(self, line: str) -> None:
        self.lines.append(line)

    async def read(self, meter: str, register: str) -> float:
        if meter != "d1":
            raise NoSuchMeter(f"there is no meter {meter}", {"meter": meter})
        return {"voltage": 230.1}[register]

    async def wait(self) -> None:
        self.waiting += 1
        self.changed.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.waiting -= 1
            self.changed.set()

    def waits(self) -> int:
        return self.waiting

    async def count(self, to: int) -> AsyncIterator[int]:
        for number in range(to):
            yield number + 1

    async def total(self, items: AsyncIterator[int]) -> int:
        return sum([item async for item in items])

    async def ignore(self, items: AsyncIterator[int]) -> None:
        await asyncio.Event().wait()

    async def greet(self, context: CallContext) -> str:
        return f"hello, {await context.peer.call('ask', 'who are you?')}"

    async def until(self, waiting: int) -> None:
        """Waits until so many calls of `wait` run."""
        while self.waiting != waiting:
            self.changed.clear()
            await self.changed.wait()


def serve(test: Callable[[RpcServer, Meters], Coroutine[Any, Any, None]], **more: Any) -> None:
    """Runs a test beside a server."""

    async def main() -> None:
        meters = Meters()
        server = RpcServer(Reactor(asyncio.get_running_loop()), meters.service, **more)
        await server.listen("127.0.0.1", 0)
        try:
            async with asyncio.timeout(SECONDS):
                await test(server, meters)
        finally:
            await server.drain(1.0)

    Reactor.run(main)


# The page's transcripts, byte by byte.


class Line:
    """A connection that says and hears what stands on the page."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, server: RpcServer) -> "Line":
        line = cls(*await asyncio.open_connection("127.0.0.1", server.port))
        line.say(1, HELLO)
        assert (await line.hear())[0] == 1
        return line

    def say(self, kind: int, payload: bytes) -> None:
        self.writer.write((len(payload) + 1).to_bytes(4, "big") + bytes([kind]) + payload)

    async def hear(self) -> tuple[int, bytes]:
        length = int.from_bytes(await self.reader.readexactly(4), "big")
        frame = await self.reader.readexactly(length)
        return frame[0], frame[1:]

    async def play(self, steps: list[tuple[str, bytes]], drain: Callable[[], object] = lambda: None) -> None:
        for sender, data in steps:
            if sender == ">":
                self.say(DATA, data)
            else:
                if data[1] == plain_client.GOAWAY:
                    drain()
                assert await self.hear() == (DATA, data)

    async def farewell(self) -> str:
        kind, payload = await self.hear()
        assert kind == CLOSE
        assert await self.reader.read() == b""
        return payload.decode()

    def close(self) -> None:
        self.writer.close()


def section(title: str) -> str:
    _, found, text = PAGE.partition(f"\n### {title}\n")
    assert found, f"the page has no section {title}"
    return re.split(r"\n##+ ", text)[0]


def steps_of(title: str) -> list[tuple[str, bytes]]:
    found = re.findall(r"^([><]) ([0-9a-f ]+?)  ", section(title), re.MULTILINE)
    assert found
    return [(sender, bytes.fromhex(data)) for sender, data in found]


def table(title: str) -> list[tuple[str, str]]:
    found = re.findall(r"^\| `([0-9a-f ]+)` \| (.+) \|$", section(title), re.MULTILINE)
    assert len(found) > 5
    return found


@pytest.mark.parametrize(
    "title",
    ["Calls", "Failures", "Deadlines and cancelling", "A stream as a result", "A stream as an argument", "A call back"],
)
def test_a_server_answers_a_transcript_with_the_very_bytes_of_the_page(title: str) -> None:
    async def test(server: RpcServer, meters: Meters) -> None:
        line = await Line.open(server)
        await line.play(steps_of(title))
        await meters.until(waiting=0)
        assert meters.lines == (["the door is open", "the door is shut"] if title == "Calls" else [])
        line.close()

    serve(test)


def test_a_server_that_drains_says_so_ends_what_it_has_begun_and_refuses_the_rest() -> None:
    async def test(server: RpcServer, _meters: Meters) -> None:
        line = await Line.open(server)
        drains: list[asyncio.Task[None]] = []
        await line.play(steps_of("A farewell"), lambda: drains.append(asyncio.create_task(server.drain(SECONDS))))
        assert await line.farewell() == "drained"
        line.close()
        await drains[0]

    serve(test)


@pytest.mark.parametrize(("data", "error"), table("Messages that must not come"))
def test_what_must_not_come_ends_the_connection_with_the_words_of_the_page(data: str, error: str) -> None:
    async def test(server: RpcServer, _meters: Meters) -> None:
        line, other = await Line.open(server), await Line.open(server)
        await line.play(steps_of("A stream as an argument")[:2])
        line.say(DATA, bytes.fromhex(data))
        assert await line.farewell() == f"bad_frame: {error}"
        await other.play(steps_of("Calls"))
        for one in (line, other):
            one.close()

    serve(test)


@pytest.mark.parametrize(("data", "_why"), table("Messages that can't be read"))
def test_what_can_not_be_read_ends_the_connection_too(data: str, _why: str) -> None:
    async def test(server: RpcServer, _meters: Meters) -> None:
        line = await Line.open(server)
        await line.play(steps_of("Calls")[:2])
        line.say(DATA, bytes.fromhex(data))
        assert (await line.farewell()).startswith("bad_frame: no message of a call: ")
        line.close()

    serve(test)


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        ([[1, 1, "ignore"], *([[6, 1, 0]] * 65)], "without credit"),
        ([[1, 1, "ignore"], [7, 1], [6, 1, 0]], "or has ended"),
        ([[1, 1, "wait"], [6, 1, 0]], "is no stream"),
    ],
)
def test_an_item_over_the_credit_or_behind_the_end_breaks_the_protocol(messages: list[Any], error: str) -> None:
    async def test(server: RpcServer, _meters: Meters) -> None:
        line = await Line.open(server)
        for message in messages:
            line.say(DATA, plain_client.pack(message))
        while (frame := await line.hear())[0] == DATA:
            assert frame[1] == bytes.fromhex("93 08 01 40")  # the credit, if it was still said
        assert error in frame[1].decode()
        line.close()

    serve(test)


@pytest.mark.parametrize("message", [[4, 1], [6, 1, 0], [7, 1], [8, 1, 5], [4, 1, "more"]])
def test_a_message_about_a_call_that_has_ended_is_ignored(message: list[Any]) -> None:
    async def test(server: RpcServer, _meters: Meters) -> None:
        line = await Line.open(server)
        await line.play(steps_of("Calls")[:2])
        line.say(DATA, plain_client.pack(message))
        await line.play(steps_of("Calls")[2:])
        line.close()

    serve(test)


# The plain client.


def with_client(work: Callable[[Any], None], token: str | None = None, **more: Any) -> None:
    """Runs a plain client in a thread beside a server."""

    async def test(server: RpcServer, meters: Meters) -> None:
        def run() -> None:
            client = plain_client.Client("127.0.0.1", server.port, token, silence_timeout=SECONDS)
            try:
                work(client)
            finally:
                client.file.close()

        await asyncio.to_thread(run)
        await meters.until(waiting=0)

    serve(test, **more)


def test_the_plain_client_is_short_and_shares_no_code_with_trunkline() -> None:
    source = CLIENT.read_text(encoding="utf-8")
    assert len(source.splitlines()) < 150
    imported = set(re.findall(r"^(?:import|from) (\w+)", source, re.MULTILINE))
    assert imported <= set(sys.stdlib_module_names)
    assert not imported & {"asyncio", "trunkline"}


def test_the_plain_client_calls_and_is_told_of_failures() -> None:
    def work(client: Any) -> None:
        assert client.call("add", 2, 3) == 5
        assert client.call("read", "d1", "voltage") == 230.1
        for method, args, code, data in (
            ("add", (2, "3"), "usage", None),
            ("ad", (2, 3), "not_found", None),
            ("read", ("d9", "voltage"), "NoSuchMeter", {"meter": "d9"}),
            ("trunkline.nothing", (), "not_found", None),
        ):
            with pytest.raises(plain_client.CallFailed) as failed:
                client.call(method, *args)
            assert failed.value.args[0] == code
            assert failed.value.args[2:] == ((data,) if data else ())
        with pytest.raises(plain_client.CallFailed) as failed:
            client.call("read", "d1", "no such register")
        assert failed.value.args[0] == "internal"
        assert "no such register" not in failed.value.args[1]
        assert client.call("trunkline.ping") == "pong"

    with_client(work)


def test_the_plain_client_has_many_calls_under_way_and_takes_their_replies_in_any_order() -> None:
    def work(client: Any) -> None:
        slow = client.start("read", "d1", "voltage")
        ids = [client.start("add", number, number) for number in range(100)]
        assert [client.next_message(call_id)[2] for call_id in reversed(ids)] == [2 * n for n in reversed(range(100))]
        assert client.next_message(slow)[2] == 230.1
        assert client.under_way == {}

    with_client(work)


def test_the_plain_client_reads_a_stream_longer_than_its_credit_and_leaves_one_in_the_middle() -> None:
    def work(client: Any) -> None:
        assert list(client.stream("count", 1_000)) == list(range(1, 1_001))
        items = client.stream("count", 1_000_000_000)
        assert [next(items) for _ in range(50)] == list(range(1, 51))
        items.close()
        assert client.under_way == {}
        assert client.call("add", 1, 1) == 2

    with_client(work)


def test_the_plain_client_cancels_and_the_method_is_broken_off() -> None:
    def work(client: Any) -> None:
        call_id = client.start("wait")
        while not client.call("waits"):
            pass
        client.cancel(call_id)
        client.cancel(call_id)
        assert client.call("add", 1, 2) == 3
        assert client.under_way == {}
        while client.call("waits"):  # its task ends a turn of the loop or two later
            pass

    with_client(work)


def test_the_plain_client_is_told_when_the_time_of_a_call_is_over() -> None:
    def work(client: Any) -> None:
        with pytest.raises(plain_client.CallFailed) as failed:
            client.call("wait", timeout=0.05)
        assert failed.value.args[0] == "deadline"
        assert client.call("add", 1, 2) == 3

    with_client(work)


def test_the_plain_client_says_that_it_has_no_methods() -> None:
    def work(client: Any) -> None:
        with pytest.raises(plain_client.CallFailed) as failed:
            client.call("greet")
        assert failed.value.args[0] == "internal"
        assert client.call("add", 1, 2) == 3

    with_client(work)


def test_the_plain_client_gets_in_with_its_token_alone() -> None:
    def work(client: Any) -> None:
        assert client.call("add", 2, 3) == 5
        with pytest.raises(plain_client.CallFailed) as failed:
            client.call("trunkline.stats")
        assert failed.value.args[0] == "forbidden"

    with_client(work, "right", tokens={"right": ["reader"]})
    with pytest.raises(ConnectionError, match="refused: "):
        with_client(work, "wrong", tokens={"right": ["reader"]})


def test_the_plain_client_runs_from_the_command_line() -> None:
    async def test(server: RpcServer, _meters: Meters) -> None:
        async def run(*arguments: str) -> str:
            command = [sys.executable, str(CLIENT), *arguments]
            done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=SECONDS)
            assert done.stderr == ""
            return done.stdout

        address = ("127.0.0.1", str(server.port))
        assert await run(*address, "add", "2", "3") == "5\n"
        assert await run(*address, "read", json.dumps("d1"), json.dumps("voltage")) == "230.1\n"
        assert await run("--stream", *address, "count", "3") == "1\n2\n3\n"

    serve(test)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_the_plain_clients_messagepack_is_the_real_one(value: Any) -> None:
    assert msgspec.msgpack.decode(plain_client.pack(value)) == value
    assert plain_client.unpack(io.BytesIO(msgspec.msgpack.encode(value)).read) == value


@pytest.mark.parametrize("size", [15, 16, 31, 32, 127, 128, 255, 256, 65_535, 65_536])
def test_the_plain_clients_messagepack_has_every_length(size: int) -> None:
    texts = {str(number): number for number in range(size)}
    for value in ("x" * size, b"x" * size, [None] * size, texts, size, -size, 2**32 + size):
        assert msgspec.msgpack.decode(plain_client.pack(value)) == value
        assert plain_client.unpack(io.BytesIO(msgspec.msgpack.encode(value)).read) == value
