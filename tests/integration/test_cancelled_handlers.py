"""User's code that ends with `asyncio.CancelledError`, as `future.result()` does: it costs its connection alone."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from trunkline.reactor import Reactor
from trunkline.tcp import CloseReason, TcpConnection, TcpServer, connect
from trunkline.wire import LineFramer

WAIT = 10.0
each_poller = pytest.mark.parametrize("poller", ["auto", "select"])


def on_message(connection: TcpConnection, message: bytes) -> None:
    if message == b"cancelled":
        raise asyncio.CancelledError
    connection.send(message)


class CancelledFramer(LineFramer):
    """One that goes by a future."""

    def receive(self, data: bytes) -> list[bytes]:
        if b"cancelled" in data:
            raise asyncio.CancelledError
        return super().receive(data)


def run(story: Callable[[list[BaseException]], Coroutine[Any, Any, None]], poller: str) -> None:
    errors: list[BaseException] = []

    async def bounded() -> None:
        async with asyncio.timeout(WAIT):
            await story(errors)

    Reactor.run(bounded, poller, errors.append)
    assert [type(error) for error in errors] == [asyncio.CancelledError]


async def break_it(server: TcpServer, said: bytes, answers: Sequence[bytes] = ()) -> None:
    """One peer says what makes the code raise, and is told the end; another one goes on."""
    await server.listen("127.0.0.1", 0)
    address = ("127.0.0.1", server.port)
    async with connect(address, LineFramer) as other, connect(address, LineFramer) as peer:
        for message in said.split(b"\n"):
            peer.send(message)
        assert [message async for message in peer] == list(answers)
        assert not peer.is_open
        other.send(b"still there?")
        assert await other.receive() == b"still there?"
    await server.drain(WAIT)
    assert server.closed[CloseReason.HANDLER_FAILED] == 1
    assert not server.closed[CloseReason.RESET]
    assert not server.connections


@each_poller
@pytest.mark.parametrize(("said", "answers"), [(b"cancelled", []), (b"before\ncancelled\nafter", [b"before"])])
def test_a_handler_that_ends_as_cancelled_costs_its_connection_alone(
    poller: str, said: bytes, answers: list[bytes]
) -> None:
    async def story(errors: list[BaseException]) -> None:
        await break_it(TcpServer(Reactor.current(), LineFramer, on_message), said, answers)

    run(story, poller)


@each_poller
def test_a_framer_that_ends_as_cancelled_costs_its_connection_alone(poller: str) -> None:
    async def story(errors: list[BaseException]) -> None:
        await break_it(TcpServer(Reactor.current(), CancelledFramer, on_message), b"cancelled")

    run(story, poller)


@each_poller
def test_a_callback_for_connections_that_ends_as_cancelled_costs_its_connection_alone(poller: str) -> None:
    async def story(errors: list[BaseException]) -> None:
        met: list[TcpConnection] = []

        def on_connection(connection: TcpConnection) -> None:
            if connection.is_open:
                met.append(connection)
                if len(met) == 2:
                    raise asyncio.CancelledError

        await break_it(TcpServer(Reactor.current(), LineFramer, on_message, on_connection=on_connection), b"hello")

    run(story, poller)
