"""How a TCP client keeps trying: what it backs off from, what can't stop it, and who hears when it is stopped."""

import asyncio
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from trunkline.errors import ConnectionClosed
from trunkline.reactor import Reactor
from trunkline.tcp import ClientTls, CloseReason, ConnectionLimits, FullJitter, TcpClient, TcpServer
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


def free_port() -> int:
    with socket.create_server((LOCAL, 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


class Waits:
    """The waits of a back-off that always waits as long as it may."""

    def __init__(self, base: float, cap: float) -> None:
        self.waits: list[float] = []
        self._base = base
        self._cap = cap

    def backoff(self) -> FullJitter:
        return FullJitter(self._base, self._cap, self._longest)

    def _longest(self, _least: float, most: float) -> float:
        self.waits.append(most)
        return most


def quick() -> FullJitter:
    return FullJitter(0.01, 0.02)


# What it backs off from.


def test_a_server_that_accepts_and_closes_at_once_is_backed_off_from() -> None:
    async def main() -> None:
        server = TcpServer(Reactor.current(), LineFramer, limits=ConnectionLimits(deny=("127.0.0.0/8",)))
        await server.listen(LOCAL, 0)
        waits = Waits(0.01, 0.16)
        client = TcpClient(Reactor.current(), (LOCAL, server.port), LineFramer, new_backoff=waits.backoff)
        client.start()
        await until(lambda: len(waits.waits) >= 7)
        await client.stop()
        assert waits.waits[:7] == [0.01, 0.02, 0.04, 0.08, 0.16, 0.16, 0.16]
        assert server.refused["denied"] >= 7
        await server.drain(1.0)

    run(main)


def test_after_a_connection_that_stayed_up_the_back_off_begins_anew() -> None:
    async def main() -> None:
        port = free_port()
        waits = Waits(0.01, 0.04)
        client = TcpClient(Reactor.current(), (LOCAL, port), LineFramer, new_backoff=waits.backoff)
        client.start()
        await until(lambda: len(waits.waits) >= 4)
        server = TcpServer(Reactor.current(), LineFramer)
        await server.listen(LOCAL, port)
        connection = await client.connected()
        failures = len(waits.waits)
        await until(lambda: connection.statistics()["age"] > 0.2)
        await server.drain(1.0)
        await until(lambda: len(waits.waits) > failures)
        await client.stop()
        assert waits.waits[failures - 1] == 0.04
        assert waits.waits[failures] == 0.01

    run(main)


# What can't stop it.


@pytest.mark.parametrize("host", ["x..y", "a\0b"])
def test_a_host_that_is_no_name_is_told_reported_and_tried_again(host: str) -> None:
    async def main() -> None:
        failed: list[Exception] = []
        client = TcpClient(Reactor.current(), (host, 1), LineFramer, on_connect_failed=failed.append, new_backoff=quick)
        client.start()
        await until(lambda: len(failed) >= 3)
        await client.stop()

    run(main)


def test_tls_over_a_unix_socket_without_a_name_to_check_is_told(tmp_path: Path) -> None:
    async def main() -> None:
        reported: list[BaseException] = []
        failed: list[Exception] = []
        client = TcpClient(
            Reactor(asyncio.get_running_loop(), reported.append), str(tmp_path / "socket"), LineFramer,
            on_connect_failed=failed.append, new_backoff=quick, tls=ClientTls(),
        )  # fmt: skip
        client.start()
        await until(lambda: len(failed) >= 2)
        await client.stop()
        assert all(isinstance(error, ValueError) for error in failed)
        assert reported[:2] == failed[:2]

    run(main)


def test_a_framer_that_can_not_be_made_just_now_is_made_later() -> None:
    async def main() -> None:
        server = TcpServer(Reactor.current(), LineFramer, lambda connection, line: connection.send(line))
        await server.listen(LOCAL, 0)
        faults = [KeyError("no key yet"), MemoryError(), KeyError("no key yet")]
        made, failed = list(faults), list[Exception]()

        def new_framer() -> LineFramer:
            if made:
                raise made.pop(0)
            return LineFramer()

        client = TcpClient(
            Reactor.current(), (LOCAL, server.port), new_framer, on_connect_failed=failed.append, new_backoff=quick
        )
        client.start()
        connection = await client.connected()
        connection.send(b"x")
        assert await connection.receive() == b"x"
        await client.stop()
        await server.drain(1.0)
        assert failed == faults

    run(main)


@pytest.mark.parametrize("error", [ValueError("the user's"), asyncio.CancelledError()])
def test_what_on_connect_failed_raises_is_reported_and_stops_nothing(error: BaseException) -> None:
    async def main() -> None:
        reported: list[BaseException] = []

        def on_connect_failed(_: Exception) -> None:
            raise error

        client = TcpClient(
            Reactor(asyncio.get_running_loop(), reported.append), (LOCAL, free_port()), LineFramer,
            on_connect_failed=on_connect_failed, new_backoff=quick,
        )  # fmt: skip
        client.start()
        await until(lambda: len(reported) >= 3)
        await client.stop()
        assert set(reported) == {error}

    run(main)


def test_on_connect_failed_may_be_a_coroutine_function_and_its_failure_is_reported() -> None:
    async def main() -> None:
        reported: list[BaseException] = []
        failed: list[Exception] = []

        async def on_connect_failed(error: Exception) -> None:
            await asyncio.sleep(0)
            failed.append(error)
            raise LookupError("the user's")

        client = TcpClient(
            Reactor(asyncio.get_running_loop(), reported.append), (LOCAL, free_port()), LineFramer,
            on_connect_failed=on_connect_failed, new_backoff=quick,
        )  # fmt: skip
        client.start()
        await until(lambda: len(failed) >= 3)
        await client.stop()
        assert all(isinstance(error, ConnectionRefusedError) for error in failed)
        assert {type(error) for error in reported} == {LookupError}

    run(main)


def test_a_coroutine_that_on_connect_failed_began_may_end_before_the_client_has_stopped() -> None:
    async def main() -> None:
        ends, ended = asyncio.Event(), []

        async def on_connect_failed(error: Exception) -> None:
            await ends.wait()
            ended.append(error)

        client = TcpClient(
            Reactor.current(), (LOCAL, free_port()), LineFramer,
            on_connect_failed=on_connect_failed, new_backoff=lambda: FullJitter(WAIT, WAIT, lambda _, most: most),
        )  # fmt: skip
        client.start()
        await until(lambda: client._blueprint.tasks)
        asyncio.get_running_loop().call_later(0.05, ends.set)
        await client.stop()
        assert len(ended) == 1

    run(main)


# Who hears when it is stopped.


def test_who_waits_for_a_connection_hears_that_the_client_is_stopped() -> None:
    async def main() -> None:
        client = TcpClient(Reactor.current(), (LOCAL, free_port()), LineFramer, new_backoff=quick)
        client.start()
        waiters = [asyncio.create_task(client.connected()) for _ in range(3)]
        await asyncio.sleep(0.02)
        await client.stop()
        for waiter in waiters:
            with pytest.raises(ConnectionClosed):
                await waiter
        with pytest.raises(ConnectionClosed):
            await client.connected()

    run(main)


def test_a_connection_that_is_about_to_be_closed_by_stop_is_not_handed_out() -> None:
    async def main() -> None:
        server = TcpServer(Reactor.current(), LineFramer)
        await server.listen(LOCAL, 0)
        client = TcpClient(Reactor.current(), (LOCAL, server.port), LineFramer)
        client.start()
        await client.connected()
        stopping = asyncio.create_task(client.stop())
        await asyncio.sleep(0)
        with pytest.raises(ConnectionClosed):
            await client.connected()
        await stopping
        client.start()
        assert (await client.connected()).is_open
        await client.stop()
        await server.drain(1.0)

    run(main)


def test_a_client_counts_why_its_connections_ended() -> None:
    async def main() -> None:
        server = TcpServer(Reactor.current(), LineFramer)
        await server.listen(LOCAL, 0)
        client = TcpClient(Reactor.current(), (LOCAL, server.port), LineFramer, count=3, new_backoff=quick)
        client.start()
        await client.connected()
        assert not client.closed
        (await client.connected()).abort("of no use")
        await until(lambda: client.closed)
        await client.connected()
        await until(lambda: len(server.connections) == 3)
        next(iter(server.connections.values())).close()
        await until(lambda: client.closed[CloseReason.PEER_CLOSED])
        await client.connected()
        await client.stop()
        await server.drain(1.0)
        assert client.closed == {"of no use": 1, CloseReason.PEER_CLOSED: 1, CloseReason.CLOSED: 3}

    run(main)
