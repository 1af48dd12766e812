"""What may be unsent, by one connection and by all, however it is sent; and two ends that both send at once."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from trunkline import ConnectionClosed, ConnectionOptions, Overloaded, Reactor, TcpConnection, TcpServer, UsageError
from trunkline.reactor import ReactorThread
from trunkline.tcp import OutboundBudget, connect
from trunkline.wire import LengthFramer, LineFramer, RawFramer

MB = 1_000_000


def echo(connection: TcpConnection, message: bytes) -> None:
    connection.send(message)


def test_more_than_all_buffers_hold_comes_back_from_an_echo() -> None:
    async def main() -> None:
        server = TcpServer(Reactor.current(), RawFramer, echo)
        port = await server.listen("127.0.0.1", 0)
        async with connect(("127.0.0.1", port), RawFramer) as connection, asyncio.timeout(20):
            connection.send(bytes(20 * MB))
            got = 0
            while got < 20 * MB:
                got += len(await connection.receive())
        await server.drain(2)

    asyncio.run(main())


def test_two_ends_that_push_at_once_both_get_all() -> None:
    async def push(connection: TcpConnection) -> None:
        for _ in range(200):
            connection.send(bytes(100_000))
            await connection.drain()

    async def pull(connection: TcpConnection) -> None:
        got = 0
        while got < 20 * MB:
            got += len(await connection.receive())

    async def main() -> None:
        served = asyncio.Event()

        async def on_connection(connection: TcpConnection) -> None:
            if connection.is_open:
                await asyncio.gather(push(connection), pull(connection))
                served.set()

        server = TcpServer(Reactor.current(), RawFramer, on_connection=on_connection)
        port = await server.listen("127.0.0.1", 0)
        async with asyncio.timeout(20), connect(("127.0.0.1", port), RawFramer) as connection:
            await asyncio.gather(push(connection), pull(connection))
            await served.wait()
        await server.drain(2)

    asyncio.run(main())


async def unread(
    count: int, options: ConnectionOptions, budget: OutboundBudget, new_framer: Callable[[], Any] = LengthFramer
) -> tuple[TcpServer, list[TcpConnection], list[socket.socket]]:
    """A server, and connections to it whose peers read nothing."""
    server = TcpServer(Reactor.current(), new_framer, echo, options=options, budget=budget)
    port = await server.listen("127.0.0.1", 0)
    peers = [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
    async with asyncio.timeout(5):
        while len(server.connections) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return server, list(server.connections.values()), peers


@pytest.mark.parametrize("overflow", ["close", "raise", "wait", "drop_oldest"])
def test_a_budget_that_others_have_used_up_holds_for_who_has_nothing_unsent_too(overflow: Any) -> None:
    async def main() -> None:
        budget = OutboundBudget(MB)
        server, connections, peers = await unread(
            5, ConnectionOptions(overflow=overflow), budget, lambda: LengthFramer(100 * MB)
        )
        outcomes = []
        for connection in connections:
            try:
                connection.send(bytes(20 * MB))  # more than the system's buffers take
            except (Overloaded, ConnectionClosed) as error:
                outcomes.append(type(error))
        assert budget.used_bytes <= 20 * MB + 100, "one message has room where nothing waits"
        if overflow in ("raise", "wait"):
            assert outcomes == [Overloaded] * 4
            assert all(connection.is_open for connection in connections)
        else:
            refused = [one for one in connections if not one.is_open or one.dropped]
            assert len(refused) >= 4
        for peer in peers:
            peer.close()
        await server.drain(1)
        assert budget.used_bytes == 0

    asyncio.run(main())


def test_what_threads_send_counts_before_the_reactor_has_looked() -> None:
    budget = OutboundBudget(MB)
    with ReactorThread() as thread:
        server, connections, peers = thread.run(unread(50, ConnectionOptions(overflow="raise"), budget))
        release = threading.Event()
        thread.reactor.call(release.wait)  # the reactor stands still
        accepted = refused = 0
        for _ in range(10):
            for connection in connections:
                try:
                    connection.send(bytes(20_000))
                    accepted += 20_000
                except Overloaded:
                    refused += 1
        assert accepted <= MB
        assert refused > 0
        release.set()
        for peer in peers:
            peer.close()
        thread.run(server.drain(2))
        assert budget.used_bytes == 0


def test_a_pass_sends_no_more_than_the_limit() -> None:
    async def main() -> None:
        done = asyncio.Event()
        most, raised = 0, 0

        def on_message(connection: TcpConnection, _message: bytes) -> None:
            nonlocal most, raised
            for _ in range(10_000):
                try:
                    connection.send(bytes(1_000))
                except Overloaded:
                    raised += 1
                most = max(most, connection.unsent_bytes)
            done.set()

        options = ConnectionOptions(overflow="raise", unsent_limit_bytes=50_000)
        server = TcpServer(Reactor.current(), LineFramer, on_message, options=options)
        port = await server.listen("127.0.0.1", 0)
        with socket.create_connection(("127.0.0.1", port)) as peer:
            peer.sendall(b"go\n")
            async with asyncio.timeout(10):
                await done.wait()
            assert most <= 50_000 + 100
            assert raised > 0
        await server.drain(1)

    asyncio.run(main())


def test_threads_that_broadcast_wait_for_the_reactor() -> None:
    with ReactorThread() as thread:
        options = ConnectionOptions(send_timeout=0.05)
        server, connections, peers = thread.run(unread(2, options, OutboundBudget()))
        release = threading.Event()
        thread.reactor.call(release.wait)
        for _ in range(3):
            with pytest.raises(Overloaded):
                server.broadcast(b"too late")
        release.set()
        server.broadcast(b"in time")
        for peer in peers:
            peer.settimeout(5)
            assert peer.recv(100) == b"\0\0\0\x07in time", "what was refused was sent to nobody"
            peer.close()
        assert [connection.sent for connection in connections] == [1, 1]
        thread.run(server.drain(2))


def test_who_was_refused_and_drains_waits_until_there_is_room() -> None:
    async def main() -> None:
        options = ConnectionOptions(overflow="raise", unsent_limit_bytes=20_000, unread_timeout=0.5)
        server, (connection,), (peer,) = await unread(1, options, OutboundBudget())
        drains = 0

        async def send_on() -> None:
            nonlocal drains
            while True:
                try:
                    connection.send(bytes(15_000))
                except Overloaded:
                    drains += 1
                    await connection.drain()

        with pytest.raises(ConnectionClosed):  # in the end, for the peer never reads
            await send_on()
        assert drains < 100
        peer.close()
        await server.drain(1)

    asyncio.run(main())


def test_a_line_that_can_not_be_framed_is_refused_to_the_thread_that_sends_it() -> None:
    with ReactorThread() as thread:
        server, (connection,), (peer,) = thread.run(unread(1, ConnectionOptions(), OutboundBudget(), LineFramer))
        with pytest.raises(UsageError, match="line end"):
            connection.send(b"two\nlines")
        connection.send(b"one")
        peer.settimeout(5)
        assert peer.recv(100) == b"one\n"
        peer.close()
        thread.run(server.drain(2))


@pytest.mark.parametrize("wrong", [{"idle_timeout": -1}, {"overflow": "clsoe"}, {"retained_limit": 0}])
def test_options_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        ConnectionOptions(**wrong)


def test_the_clock_is_not_asked_for_each_message() -> None:
    """A turn ends after some milliseconds, although the clock is read only now and then."""
    seen: list[int] = []

    async def main() -> None:
        other = asyncio.Event()

        def on_message(connection: TcpConnection, message: bytes) -> None:
            if message == b"slow":
                time.sleep(0.001)  # what a handler should not do
                seen.append(1)
            else:
                seen.append(2)
                other.set()

        server = TcpServer(Reactor.current(), LineFramer, on_message)
        port = await server.listen("127.0.0.1", 0)
        with socket.create_connection(("127.0.0.1", port)) as one, socket.create_connection(("127.0.0.1", port)) as two:
            one.sendall(b"slow\n" * 500)
            two.sendall(b"quick\n")
            async with asyncio.timeout(10):
                await other.wait()
        await server.drain(1)

    asyncio.run(main())
    assert seen.index(2) < 400, "the other had its turn before the five hundred were through"
