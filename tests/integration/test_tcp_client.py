"""TCP clients over real sockets: connecting again, waiting for connections, stopping, and what goes wrong at first."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from trunkline.errors import BadFrame, ConnectionClosed, ProtocolError
from trunkline.reactor import Reactor, ReactorThread
from trunkline.tcp import CloseReason, ConnectionOptions, FullJitter, TcpClient, TcpConnection, TcpServer, connect
from trunkline.testing import FaultyLink, LinkFaults
from trunkline.wire import Frames, LengthFramer, LineFramer

LOCAL = "127.0.0.1"
WAIT = 15.0
POLLERS = ["auto", "epoll", "poll", "select"]


def run(work: Callable[[], Coroutine[Any, Any, None]], poller: str = "auto") -> None:
    async def bounded() -> None:
        async with asyncio.timeout(WAIT):
            await work()
        assert asyncio.all_tasks() == {asyncio.current_task()}, "tasks are left behind"

    Reactor.run(bounded, poller)


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110  any condition may be asked for
        await asyncio.sleep(0.005)


def here() -> Reactor:
    return Reactor(asyncio.get_running_loop())


def quick() -> FullJitter:
    return FullJitter(0.02, 0.05)


async def echo_server(port: int = 0, new_framer: Any = LengthFramer, **more: Any) -> TcpServer:
    server = TcpServer(here(), new_framer, lambda connection, message: connection.send(message), **more)
    await server.listen(LOCAL, port)
    return server


def free_port() -> int:
    with socket.create_server((LOCAL, 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


# Staying connected.


@pytest.mark.parametrize("poller", POLLERS)
def test_a_client_comes_back_when_its_server_does(poller: str) -> None:
    async def main() -> None:
        server = await echo_server()
        port = server.port
        story: list[str] = []
        failed: list[Exception] = []
        heard: list[bytes] = []

        def on_connection(connection: TcpConnection) -> None:
            story.append("up" if connection.is_open else str(connection.close_reason))

        client = TcpClient(
            here(), (LOCAL, port), LengthFramer, lambda _, message: heard.append(message),
            on_connection=on_connection, on_connect_failed=failed.append, new_backoff=quick,
        )  # fmt: skip
        client.start()
        client.start()
        (await client.connected(WAIT)).send(b"1")
        await until(lambda: heard == [b"1"])
        await server.drain(1.0)
        await until(lambda: len(failed) > 2)
        assert client.connection is None
        assert all(isinstance(error, OSError) for error in failed)
        server = await echo_server(port)
        (await client.connected(WAIT)).send(b"2")
        await until(lambda: heard == [b"1", b"2"])
        await client.stop()
        assert story == ["up", CloseReason.PEER_CLOSED, "up", CloseReason.CLOSED]
        assert not client.connections
        await server.drain(1.0)

    run(main, poller)


def test_a_client_comes_back_after_each_reset() -> None:
    async def main() -> None:
        server = await echo_server()
        async with FaultyLink((LOCAL, server.port)) as link:
            client = TcpClient(here(), link.address, LengthFramer, lambda *_: None, new_backoff=quick)
            client.start()
            for number in range(1, 6):
                connection = await client.connected(WAIT)
                await until(lambda: link.connections == 1)
                assert link.accepted == number
                await link.reset()
                await until(lambda connection=connection: not connection.is_open)
                assert connection.close_reason == CloseReason.RESET
            await client.stop()
        await server.drain(1.0)

    run(main)


def test_twenty_connections_are_kept_up_and_all_are_waited_for() -> None:
    async def main() -> None:
        server = await echo_server()
        heard: list[bytes] = []
        client = TcpClient(
            here(), (LOCAL, server.port), LengthFramer, lambda _, message: heard.append(message),
            count=20, new_backoff=quick,
        )  # fmt: skip
        client.start()
        await client.connected(WAIT)
        assert len(client.connections) == 20
        for connection in list(client.connections.values())[:7]:
            connection.abort()
        await until(lambda: len(client.connections) < 20)
        await client.connected(WAIT)
        for number, connection in enumerate(client.connections.values()):
            connection.send(b"%d" % number)
        await until(lambda: len(heard) == 20)
        assert server.accepted == 27
        await client.stop()
        await server.drain(1.0)

    run(main)


def test_waiting_for_a_connection_ends_in_time() -> None:
    async def main() -> None:
        client = TcpClient(here(), (LOCAL, free_port()), LengthFramer, new_backoff=quick)
        client.start()
        with pytest.raises(TimeoutError):
            await client.connected(0.1)
        await client.stop()

    run(main)


def test_a_stopped_client_can_be_started_again() -> None:
    async def main() -> None:
        server = await echo_server()
        client = TcpClient(here(), (LOCAL, server.port), LengthFramer, lambda *_: None, new_backoff=quick)
        for _ in range(2):
            client.start()
            await client.connected(WAIT)
            await client.stop()
            assert client.connection is None
        await server.drain(1.0)

    run(main)


@pytest.mark.parametrize("poller", POLLERS)
@pytest.mark.parametrize("turns", range(8))
def test_a_client_can_be_stopped_at_any_moment_of_connecting(turns: int, poller: str) -> None:
    async def main() -> None:
        server = await echo_server()
        client = TcpClient(here(), (LOCAL, server.port), LengthFramer, lambda *_: None)
        client.start()
        for _ in range(turns):
            await asyncio.sleep(0)
        await client.stop()
        assert not client.connections
        await server.drain(1.0)

    run(main, poller)


@pytest.mark.parametrize("poller", POLLERS)
def test_a_client_can_be_stopped_by_its_own_callback(poller: str) -> None:
    async def main() -> None:
        server = await echo_server()
        stopped: list[asyncio.Task[None]] = []

        def on_connection(connection: TcpConnection) -> None:
            if connection.is_open:
                stopped.append(asyncio.get_running_loop().create_task(client.stop()))

        client = TcpClient(here(), (LOCAL, server.port), LengthFramer, lambda *_: None, on_connection=on_connection)
        client.start()
        await until(lambda: stopped and stopped[0].done())
        await stopped[0]
        assert not client.connections
        await server.drain(1.0)

    run(main, poller)


def test_a_handler_that_runs_may_end_before_the_client_has_stopped() -> None:
    async def main() -> None:
        server = await echo_server()
        done: list[bytes] = []

        async def slow(connection: TcpConnection, message: bytes) -> None:
            await asyncio.sleep(0.1)
            done.append(message)

        client = TcpClient(here(), (LOCAL, server.port), LengthFramer, slow)
        client.start()
        (await client.connected(WAIT)).send(b"x")
        await until(lambda: client._blueprint.tasks)
        await client.stop()
        assert done == [b"x"]
        await server.drain(1.0)

    run(main)


def test_a_client_in_a_reactors_thread_is_used_from_others() -> None:
    heard: list[bytes] = []
    with ReactorThread() as reactor_thread:
        reactor = reactor_thread.reactor

        async def start() -> tuple[TcpServer, TcpClient, TcpConnection]:
            server = TcpServer(reactor, LineFramer, lambda connection, message: connection.send(message.upper()))
            port = await server.listen(LOCAL, 0)
            client = TcpClient(reactor, (LOCAL, port), LineFramer, lambda _, message: heard.append(message))
            client.start()
            return server, client, await client.connected(WAIT)

        server, client, connection = reactor_thread.run(start(), WAIT)
        threads = [threading.Thread(target=connection.send, args=(b"from %d" % number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        async def end() -> None:
            await until(lambda: len(heard) == 4)
            await client.stop()
            await server.drain(1.0)

        reactor_thread.run(end(), WAIT)
    assert sorted(heard) == [b"FROM 0", b"FROM 1", b"FROM 2", b"FROM 3"]


# One connection.


@pytest.mark.parametrize("poller", POLLERS)
def test_shutdown_ends_our_side_and_the_peer_answers_to_its_end(poller: str) -> None:
    async def main() -> None:
        async def answer(connection: TcpConnection, message: bytes) -> None:
            await asyncio.sleep(0.1 - int(message) * 0.05)  # the first comes last
            connection.send(message)

        server = TcpServer(here(), LineFramer, answer)
        await server.listen(LOCAL, 0)
        async with connect((LOCAL, server.port), LineFramer) as client:
            for number in range(3):
                client.send(b"%d" % number)
            client.shutdown()
            with pytest.raises(ConnectionClosed):
                client.send(b"too late")
            assert [message async for message in client] == [b"2", b"1", b"0"]
        await until(lambda: not server.connections)
        await server.drain(1.0)

    run(main, poller)


def test_a_unix_socket_is_an_address_too(tmp_path: Path) -> None:
    async def main() -> None:
        path = str(tmp_path / "socket")
        server = TcpServer(here(), LineFramer, lambda connection, message: connection.send(message))
        await server.listen_unix(path)
        async with connect(path, LineFramer) as client:
            client.send(b"x")
            assert await client.receive() == b"x"
            assert client.host == ""
        await server.drain(1.0)
        with pytest.raises(FileNotFoundError):
            async with connect(path, LineFramer):
                pass

    run(main)


def test_nobody_listens() -> None:
    async def main() -> None:
        with pytest.raises(ConnectionRefusedError):
            async with connect((LOCAL, free_port()), LineFramer):
                pass

    run(main)


def test_a_server_that_says_no_hello_is_given_up_in_time() -> None:
    async def main() -> None:
        async with silent_server() as port:
            with pytest.raises(TimeoutError):
                async with connect((LOCAL, port), Frames, connect_timeout=0.2):
                    pass

    run(main)


def test_a_server_that_breaks_the_protocol_is_named_as_the_cause() -> None:
    async def main() -> None:
        async with silent_server(b"SSH-2.0-OpenSSH_9.2\r\n") as port:
            with pytest.raises(BadFrame):
                async with connect((LOCAL, port), Frames):
                    pass

    run(main)


def test_a_server_that_closes_at_once_is_told_from_one_that_is_not_there() -> None:
    async def main() -> None:
        async with silent_server(None) as port:
            with pytest.raises(ConnectionClosed):
                async with connect((LOCAL, port), Frames):
                    pass

    run(main)


def test_a_server_that_refuses_the_hello_says_why() -> None:
    async def main() -> None:
        server = await echo_server(new_framer=lambda: Frames(authorize=lambda hello: "who are you?"))
        with pytest.raises(ProtocolError, match="who are you"):
            async with connect((LOCAL, server.port), Frames):
                pass
        await server.drain(1.0)

    run(main)


def test_a_client_is_told_why_its_server_ends_the_session() -> None:
    async def main() -> None:
        server = await echo_server(new_framer=Frames)
        async with connect((LOCAL, server.port), Frames) as client:
            for connection in server.connections.values():
                connection.close("maintenance")
            assert [message async for message in client] == []
            assert client.close_reason == CloseReason.PEER_CLOSED
            assert isinstance(client.framer, Frames)
            assert client.framer.peer_reason == "maintenance"
        await server.drain(1.0)

    run(main)


def test_a_server_behind_a_line_that_breaks_in_its_hello_is_tried_again() -> None:
    async def main() -> None:
        server = await echo_server(new_framer=Frames)
        failed: list[Exception] = []
        async with FaultyLink((LOCAL, server.port), down=LinkFaults(reset_after_bytes=9)) as link:
            client = TcpClient(
                here(), link.address, Frames, lambda *_: None,
                new_backoff=quick, on_connect_failed=failed.append,
            )  # fmt: skip
            client.start()
            await until(lambda: len(failed) >= 3)
            link.down = LinkFaults()
            await client.connected(WAIT)
            await client.stop()
        assert all(isinstance(error, ConnectionClosed | OSError) for error in failed)
        await server.drain(1.0)

    run(main)


def test_a_session_over_which_nothing_goes_stays_up() -> None:
    async def main() -> None:
        options = ConnectionOptions(heartbeat_interval=0.3)
        server = await echo_server(new_framer=Frames, options=options)
        async with connect((LOCAL, server.port), Frames, options=options) as client:
            await asyncio.sleep(1.2)
            client.send(b"x")
            assert await client.receive() == b"x"
        await server.drain(1.0)

    run(main)


def test_a_receive_that_is_cancelled_loses_no_message() -> None:
    async def main() -> None:
        server = await echo_server()
        async with connect((LOCAL, server.port), LengthFramer) as client:
            for number in range(20):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.001):
                        await client.receive()
                client.send(b"%d" % number)
                assert await client.receive() == b"%d" % number
        await server.drain(1.0)

    run(main)


@contextlib.asynccontextmanager
async def silent_server(greeting: bytes | None = b"") -> Any:
    """A server of another kind: it says only this, or closes at once where it is None. Yields its port."""
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if greeting is not None:
            writer.write(greeting)
            await ended.wait()
        writer.close()

    server = await asyncio.start_server(serve, LOCAL, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        ended.set()
        await asyncio.sleep(0.01)
        server.close()
        await server.wait_closed()
