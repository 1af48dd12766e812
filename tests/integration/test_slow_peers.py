"""Peers that are slow, half gone or not listened to for a while, over real sockets: the dead ones alone are closed."""

import asyncio
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from trunkline.errors import PeerTimeout, ProtocolError
from trunkline.reactor import Reactor
from trunkline.tcp import CloseReason, ConnectionOptions, TcpConnection, TcpServer, connect
from trunkline.wire import Frames, LengthFramer, LineFramer

LOCAL = "127.0.0.1"
WAIT = 10.0
each_poller = pytest.mark.parametrize("poller", ["auto", "epoll"])


def run(story: Callable[[], Awaitable[None]], poller: str = "auto") -> None:
    async def bounded() -> None:
        async with asyncio.timeout(2 * WAIT):
            await story()

    Reactor.run(bounded, poller)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT):
        while not condition():  # noqa: ASYNC110  any condition may be asked for
            await asyncio.sleep(0.01)


async def served(*args: Any, **more: Any) -> TcpServer:
    server = TcpServer(Reactor.current(), *args, **more)
    await server.listen(LOCAL, 0)
    return server


async def dial(server: TcpServer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(LOCAL, server.port)


def block(seconds: float) -> None:
    """What a handler must not do."""
    time.sleep(seconds)


def ignore(_connection: TcpConnection, _message: bytes) -> None:
    pass


@each_poller
def test_neither_side_is_taken_for_dead_while_one_has_paused_its_reading(poller: str) -> None:
    async def story() -> None:
        options = ConnectionOptions(heartbeat_interval=0.5)
        server = await served(Frames, ignore, options=options)
        async with connect((LOCAL, server.port), Frames, ignore, options=options) as client:
            await until(lambda: server.connections)
            (connection,) = server.connections.values()
            connection.pause_reading()
            await asyncio.sleep(2.5)
            assert (client.close_reason, connection.close_reason) == (None, None)
            connection.resume_reading()
            await asyncio.sleep(1.5)
            assert (client.close_reason, connection.close_reason) == (None, None)
        await server.drain(WAIT)

    run(story, poller)


def test_who_takes_long_over_each_message_is_not_taken_for_dead() -> None:
    async def story() -> None:
        async def slowly(connection: TcpConnection) -> None:
            async for message in connection:
                await asyncio.sleep(1.5)
                connection.send(message)

        options = ConnectionOptions(heartbeat_interval=0.5)
        server = await served(Frames, on_connection=slowly, options=options)
        async with connect((LOCAL, server.port), Frames, options=options) as client:
            client.send(b"1")
            client.send(b"2")
            assert [await client.receive(), await client.receive()] == [b"1", b"2"]
        await server.drain(WAIT)

    run(story)


def test_a_frame_that_trickles_is_ended_whatever_comes_of_it() -> None:
    async def story() -> None:
        errors: list[ProtocolError] = []
        options = ConnectionOptions(frame_timeout=1.0, idle_timeout=30.0)
        server = await served(
            LengthFramer, ignore, options=options, on_error=lambda _connection, error: errors.append(error)
        )
        reader, writer = await dial(server)
        writer.write(struct.pack(">I", 1_000))
        began = time.monotonic()
        while not reader.at_eof():
            writer.write(b"x")
            try:
                async with asyncio.timeout(0.1):
                    assert await reader.read(1) == b""
            except TimeoutError:
                assert time.monotonic() - began < WAIT
        assert time.monotonic() - began > 0.9
        writer.close()
        await until(lambda: server.closed[CloseReason.FRAME_TIMEOUT] == 1)
        assert [error.reason for error in errors if isinstance(error, PeerTimeout)] == [CloseReason.FRAME_TIMEOUT]
        await server.drain(WAIT)

    run(story)


def test_half_a_peer_with_a_handler_that_never_ends_is_found_by_its_silence() -> None:
    async def story() -> None:
        async def never_ends(_connection: TcpConnection, _message: bytes) -> None:
            await asyncio.Event().wait()

        server = await served(LineFramer, never_ends, options=ConnectionOptions(idle_timeout=1.0))
        _reader, writer = await dial(server)
        writer.write(b"ask\n")
        writer.write_eof()
        await until(lambda: server.closed[CloseReason.IDLE] == 1)
        writer.close()
        await server.drain(1.0)

    run(story)


def test_after_shutdown_a_peer_that_goes_on_sending_is_heard_to_its_end() -> None:
    async def story() -> None:
        heard: list[bytes] = []
        server = await served(
            LineFramer,
            lambda _connection, message: heard.append(message),
            on_connection=lambda connection: connection.is_open and connection.shutdown(),
            options=ConnectionOptions(close_timeout=1.0),
        )
        reader, writer = await dial(server)
        assert await reader.read() == b""
        for number in range(6):
            await asyncio.sleep(0.4)
            writer.write(b"%d\n" % number)
        writer.close()
        await until(lambda: not server.connections)
        assert heard == [b"0", b"1", b"2", b"3", b"4", b"5"]
        await server.drain(WAIT)

    run(story)


@each_poller
def test_a_hello_that_came_while_the_reactor_was_blocked_came_in_time(poller: str) -> None:
    async def story() -> None:
        server = await served(Frames, ignore, options=ConnectionOptions(handshake_timeout=0.6))
        with socket.create_connection((LOCAL, server.port)) as peer:
            await until(lambda: server.connections)
            (connection,) = server.connections.values()
            greeter = Frames()
            greeter.start()
            peer.sendall(bytes(greeter.output))
            block(1.5)
            await until(lambda: connection.is_established)
            await asyncio.sleep(0.5)
            assert connection.is_open
        await server.drain(WAIT)

    run(story, poller)


@each_poller
def test_a_hello_that_never_comes_is_missed_although_the_reactor_was_blocked(poller: str) -> None:
    async def story() -> None:
        server = await served(Frames, ignore, options=ConnectionOptions(handshake_timeout=0.6))
        with socket.create_connection((LOCAL, server.port)):
            await until(lambda: server.connections)
            block(1.5)
            await until(lambda: server.closed[CloseReason.HANDSHAKE_TIMEOUT] == 1)
        await server.drain(WAIT)

    run(story, poller)
