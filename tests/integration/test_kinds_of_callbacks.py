"""Callbacks that are coroutine functions, or functions that return a coroutine, or that raise."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from trunkline.reactor import Reactor
from trunkline.tcp import CloseReason, ConnectionLimits, ConnectionOptions, TcpConnection, TcpServer, connect
from trunkline.wire import LineFramer

LOCAL = "127.0.0.1"
WAIT = 15.0


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(WAIT):
            await work()
        assert asyncio.all_tasks() == {asyncio.current_task()}, "tasks are left behind"

    Reactor.run(bounded)


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110  any condition may be asked for
        await asyncio.sleep(0.005)


async def echo(connection: TcpConnection, line: bytes) -> None:
    await asyncio.sleep(0)
    connection.send(line)


def soon(handler: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., object]:
    """A plain function that returns the handler's coroutine."""
    return lambda *args: handler(*args)  # noqa: PLW0108  nobody can see what it is


async def knock(server: TcpServer) -> None:
    reader, writer = await asyncio.open_connection(LOCAL, server.port)
    assert await reader.read() == b""
    writer.close()


# A function that returns a coroutine.


def test_a_lambda_around_a_coroutine_function_is_run_for_each_message_of_each_connection() -> None:
    async def main() -> None:
        server = TcpServer(Reactor.current(), LineFramer, soon(echo))
        await server.listen(LOCAL, 0)
        for _ in range(3):
            async with connect((LOCAL, server.port), LineFramer) as client:
                for number in range(5):
                    client.send(b"%d" % number)
                assert sorted([await client.receive() for _ in range(5)]) == [b"%d" % number for number in range(5)]
                client.send(b"alone")
                assert await client.receive() == b"alone"
        await server.drain(1.0)

    run(main)


def test_such_coroutines_are_bounded_as_handlers_are() -> None:
    async def main() -> None:
        running, most, ends = 0, 0, asyncio.Event()

        async def slow(_connection: TcpConnection, _line: bytes) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await ends.wait()
            running -= 1

        options = ConnectionOptions(retained_limit=4)
        server = TcpServer(Reactor.current(), LineFramer, soon(slow), options=options)
        await server.listen(LOCAL, 0)
        async with connect((LOCAL, server.port), LineFramer) as client:
            for number in range(50):
                client.send(b"%d" % number)
            await until(lambda: running == 4)
            ends.set()
            await until(lambda: sum(one.received for one in server.connections.values()) == 50 and not running)
        await server.drain(1.0)
        assert most == 4

    run(main)


def test_a_function_may_return_a_coroutine_on_one_connection_and_none_on_the_next() -> None:
    async def main() -> None:
        def on_message(connection: TcpConnection, line: bytes) -> object:
            if connection.context is None:
                connection.context = line
            if connection.context == b"soon":
                return echo(connection, line)
            connection.send(line)
            return None

        server = TcpServer(Reactor.current(), LineFramer, on_message)
        await server.listen(LOCAL, 0)
        for first in (b"now", b"soon", b"now", b"soon"):
            async with connect((LOCAL, server.port), LineFramer) as client:
                for line in (first, b"1", b"2"):
                    client.send(line)
                    assert await client.receive() == line
        await server.drain(1.0)

    run(main)


def test_a_plain_handler_is_called_as_it_is_from_the_second_message_on() -> None:
    async def main() -> None:
        def on_message(connection: TcpConnection, line: bytes) -> None:
            connection.send(line)

        server = TcpServer(Reactor.current(), LineFramer, on_message)
        await server.listen(LOCAL, 0)
        async with connect((LOCAL, server.port), LineFramer) as client:
            client.send(b"x")
            assert await client.receive() == b"x"
            (connection,) = server.connections.values()
            assert connection._on_message is on_message
        await server.drain(1.0)

    run(main)


def test_the_other_callbacks_may_return_coroutines_too() -> None:
    async def main() -> None:
        heard: list[str] = []

        async def hear(what: str) -> None:
            await asyncio.sleep(0)
            heard.append(what)

        server = TcpServer(
            Reactor.current(), lambda: LineFramer(limit_bytes=8), lambda *_: None,
            on_connection=lambda connection: hear("up" if connection.is_open else str(connection.close_reason)),
            on_error=lambda _, error: hear(type(error).__name__),
        )  # fmt: skip
        await server.listen(LOCAL, 0)
        async with connect((LOCAL, server.port), LineFramer) as client:
            client.send(b"far too long a line")
            await until(lambda: len(heard) == 3)
        await server.drain(1.0)
        assert heard == ["up", "FrameTooLarge", CloseReason.BAD_FRAME]

    run(main)


def test_a_handler_that_fails_in_the_coroutine_it_returned_ends_its_connection() -> None:
    async def main() -> None:
        reported: list[BaseException] = []

        async def fail(_connection: TcpConnection, _line: bytes) -> None:
            raise LookupError("the user's")

        reactor = Reactor(asyncio.get_running_loop(), reported.append)
        server = TcpServer(reactor, LineFramer, soon(fail))
        await server.listen(LOCAL, 0)
        async with connect((LOCAL, server.port), LineFramer) as client:
            client.send(b"x")
            assert [line async for line in client] == []
        await server.drain(1.0)
        assert server.closed == {CloseReason.HANDLER_FAILED: 1}
        assert [type(error) for error in reported] == [LookupError]

    run(main)


# Who is turned away.

DENIED = ConnectionLimits(deny=("127.0.0.0/8",))


@pytest.mark.parametrize("error", [ValueError("the user's"), asyncio.CancelledError()])
def test_what_on_refused_raises_is_reported_and_counting_goes_on(error: BaseException) -> None:
    async def main() -> None:
        reported: list[BaseException] = []

        def on_refused(_reason: str) -> None:
            raise error

        reactor = Reactor(asyncio.get_running_loop(), reported.append)
        server = TcpServer(reactor, LineFramer, limits=DENIED, on_refused=on_refused)
        await server.listen(LOCAL, 0)
        for _ in range(3):
            await knock(server)
        await server.drain(1.0)
        assert server.refused == {"denied": 3}
        assert reported == [error] * 3

    run(main)


def test_what_on_refused_raises_for_a_failed_handshake_stays_in_its_task_too() -> None:
    async def main() -> None:
        reported: list[BaseException] = []

        def on_refused(reason: str) -> None:
            raise LookupError(reason)

        reactor = Reactor(asyncio.get_running_loop(), reported.append)
        server = TcpServer(reactor, LineFramer, limits=ConnectionLimits(proxies=("127.0.0.1",)), on_refused=on_refused)
        await server.listen(LOCAL, 0)
        reader, writer = await asyncio.open_connection(LOCAL, server.port)
        writer.write(b"no header\r\n")
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
        await until(lambda: reported)
        await server.drain(1.0)
        assert server.refused == {"handshake_failed": 1}
        assert [str(error) for error in reported] == ["handshake_failed"]

    run(main)


def test_on_refused_may_be_a_coroutine_function_and_a_crowd_begins_no_more_than_256() -> None:
    async def main() -> None:
        begun, ends = [], asyncio.Event()

        async def on_refused(reason: str) -> None:
            begun.append(reason)
            await ends.wait()

        server = TcpServer(Reactor.current(), LineFramer, limits=DENIED, on_refused=on_refused)
        await server.listen(LOCAL, 0)
        for _ in range(30):
            await asyncio.gather(*(knock(server) for _ in range(10)))
        assert server.refused == {"denied": 300}
        assert len(begun) == 256
        ends.set()
        await asyncio.sleep(0.01)
        await knock(server)
        await until(lambda: len(begun) == 257)
        await server.drain(1.0)

    run(main)
