"""A server's first and last moments with a connection: names to listen on, the handshake's deadline, draining."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from trunkline.reactor import Reactor
from trunkline.tcp import CloseReason, ConnectionLimits, ConnectionOptions, TcpConnection, TcpServer, connect
from trunkline.wire import Frames, LineFramer
from trunkline.wire.proxy_protocol import encode_v1

LOCAL = "127.0.0.1"
WAIT = 15.0
FROM_PROXY = ConnectionLimits(proxies=(LOCAL,))
HEADER = encode_v1(("10.0.0.1", 1), ("10.0.0.2", 2))


def run(work: Callable[[], Coroutine[Any, Any, None]], poller: str = "auto") -> None:
    async def bounded() -> None:
        async with asyncio.timeout(WAIT):
            await work()
        assert asyncio.all_tasks() == {asyncio.current_task()}, "tasks are left behind"

    Reactor.run(bounded, poller)


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110  any condition may be asked for
        await asyncio.sleep(0.005)


# Listening.


def test_a_name_is_looked_up_in_another_thread_and_an_address_is_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    real, looked_up = socket.getaddrinfo, []

    def getaddrinfo(host: Any, port: int, *more: Any, **how: Any) -> Any:
        if host == "a-name":
            if how.get("flags", 0) & socket.AI_NUMERICHOST:
                raise socket.gaierror(socket.EAI_NONAME, "it is no address")
            looked_up.append(threading.get_ident())
            host = LOCAL
        return real(host, port, *more, **how)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    async def main() -> None:
        server = TcpServer(Reactor.current(), LineFramer)
        for host in (LOCAL, "", "::1"):
            await server.listen(host, 0)
        assert not looked_up
        assert await server.listen("a-name", 0) > 0
        assert len(looked_up) == 1
        assert looked_up[0] != threading.get_ident()
        with pytest.raises(OSError, match=r".+"):
            await server.listen("no-such-host.invalid", 0)
        await server.drain(1.0)

    run(main, "epoll")


# The handshake's deadline.


def test_a_proxys_header_is_within_the_time_for_the_hello() -> None:
    async def main() -> None:
        server = TcpServer(Reactor.current(), Frames, limits=FROM_PROXY)
        await server.listen(LOCAL, 0)
        reader, writer = await asyncio.open_connection(LOCAL, server.port)
        await asyncio.sleep(0.3)
        writer.write(HEADER)
        await until(lambda: server.connections)
        (connection,) = server.connections.values()
        assert connection.statistics()["age"] >= 0.25
        writer.close()
        await reader.read()
        await server.drain(1.0)

    run(main)


def test_a_peer_that_sends_its_proxys_header_and_nothing_more_is_closed() -> None:
    async def main() -> None:
        options = ConnectionOptions(handshake_timeout=0.4)
        server = TcpServer(Reactor.current(), Frames, limits=FROM_PROXY, options=options)
        await server.listen(LOCAL, 0)
        reader, writer = await asyncio.open_connection(LOCAL, server.port)
        await asyncio.sleep(0.2)
        writer.write(HEADER)
        await reader.read()
        writer.close()
        await until(lambda: server.closed)
        assert server.closed == {CloseReason.HANDSHAKE_TIMEOUT: 1}
        await server.drain(1.0)

    run(main)


def test_tls_has_the_time_that_the_proxys_header_has_left() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        timeouts: list[float] = []
        real = loop.connect_accepted_socket

        def connect_accepted_socket(*args: Any, **more: Any) -> Any:
            timeouts.append(more["ssl_handshake_timeout"])
            return real(*args, **more)

        loop.connect_accepted_socket = connect_accepted_socket  # type: ignore[method-assign]
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        options = ConnectionOptions(handshake_timeout=0.6)
        server = TcpServer(Reactor.current(), Frames, limits=FROM_PROXY, options=options, tls=context)
        await server.listen(LOCAL, 0)
        reader, writer = await asyncio.open_connection(LOCAL, server.port)
        await asyncio.sleep(0.3)
        writer.write(HEADER)
        assert await reader.read() == b""
        writer.close()
        await until(lambda: server.refused)
        assert server.refused == {"handshake_failed": 1}
        assert 0 < timeouts[0] <= 0.35
        await server.drain(1.0)

    run(main, "epoll")


# Draining.


def test_draining_does_not_wait_for_a_connection_whose_reading_the_user_has_paused() -> None:
    async def main() -> None:
        heard: list[bytes] = []

        def on_message(connection: TcpConnection, line: bytes) -> None:
            heard.append(line)
            connection.pause_reading()

        server = TcpServer(Reactor.current(), LineFramer, on_message)
        await server.listen(LOCAL, 0)
        async with connect((LOCAL, server.port), LineFramer) as client:
            for line in (b"1", b"2", b"3"):
                client.send(line)
            await until(lambda: heard)
            await server.drain(10 * WAIT)
            assert [line async for line in client] == []
        assert heard == [b"1"]
        assert server.closed == {CloseReason.DRAINED: 1}

    run(main)


def test_draining_waits_for_a_handler_that_has_paused_the_reading_and_resumes_it() -> None:
    async def main() -> None:
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def on_message(connection: TcpConnection, line: bytes) -> None:
            if line == b"1":
                connection.pause_reading()
                begun.set()
                await go_on.wait()
                connection.resume_reading()
            connection.send(line)

        server = TcpServer(Reactor.current(), LineFramer, on_message, options=ConnectionOptions(retained_limit=1))
        await server.listen(LOCAL, 0)
        async with connect((LOCAL, server.port), LineFramer) as client:
            for line in (b"1", b"2", b"3"):
                client.send(line)
            await begun.wait()
            draining = asyncio.create_task(server.drain(10 * WAIT))
            await asyncio.sleep(0.05)
            assert not draining.done()
            go_on.set()
            assert [line async for line in client] == [b"1", b"2", b"3"]
            await draining

    run(main)


def test_a_reading_that_is_paused_while_the_server_drains_is_not_waited_for_either() -> None:
    async def main() -> None:
        begun, go_on = asyncio.Event(), asyncio.Event()
        heard: list[bytes] = []

        async def on_message(connection: TcpConnection, line: bytes) -> None:
            heard.append(line)
            begun.set()
            await go_on.wait()
            connection.pause_reading()

        server = TcpServer(Reactor.current(), LineFramer, on_message, options=ConnectionOptions(retained_limit=1))
        await server.listen(LOCAL, 0)
        async with connect((LOCAL, server.port), LineFramer) as client:
            for line in (b"1", b"2", b"3"):
                client.send(line)
            await begun.wait()
            draining = asyncio.create_task(server.drain(10 * WAIT))
            await asyncio.sleep(0.01)
            go_on.set()
            await draining
        assert heard == [b"1"]
        assert server.closed == {CloseReason.DRAINED: 1}

    run(main)
