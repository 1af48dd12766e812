"""A TCP server over real sockets: callbacks, listeners, limits, deadlines, TLS, proxies, threads, and its end."""

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from trunkline.errors import SettingsError, UsageError
from trunkline.reactor import POLLERS, Reactor, new_event_loop
from trunkline.tcp import (
    ClientTls,
    CloseReason,
    ConnectionLimits,
    ConnectionOptions,
    ServerTls,
    TcpConnection,
    TcpServer,
    connect,
)
from trunkline.testing import FaultyLink, LinkFaults
from trunkline.wire import Framer, Frames, JsonCodec, LengthFramer, LineFramer, SimpleReactorWire, TextCodec
from trunkline.wire.proxy_protocol import encode_v1, encode_v2

LOCAL = "127.0.0.1"
WAIT = 15.0
Work = Callable[[], Coroutine[Any, Any, None]]


def available(*names: str) -> Iterator[str]:
    for name in names:
        with contextlib.suppress(UsageError):
            new_event_loop(name).close()
            yield name


ALL_POLLERS = list(available(*POLLERS[1:]))


@pytest.fixture(params=ALL_POLLERS)
def run(request: pytest.FixtureRequest) -> Callable[[Work], None]:
    """Runs a coroutine on each kind of loop, within a time."""
    return lambda work: run_once(work, request.param)


def run_once(work: Work, poller: str = "auto") -> None:
    async def bounded() -> None:
        async with asyncio.timeout(WAIT):
            await work()

    Reactor.run(bounded, poller)


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110  any condition may be asked for
        await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def serving(
    new_framer: Callable[[], Framer] = LengthFramer, on_message: Any = None, **more: Any
) -> AsyncIterator[TcpServer]:
    """A server on a free port, which is drained at the end."""
    server = TcpServer(Reactor(asyncio.get_running_loop()), new_framer, on_message, **more)
    await server.listen(LOCAL, 0)
    try:
        yield server
    finally:
        await server.drain(2.0)
        assert not server.connections


def echo(connection: TcpConnection, message: Any) -> None:
    connection.send(message)


async def echo_soon(connection: TcpConnection, message: Any) -> None:
    await asyncio.sleep(0)
    connection.send(message)


# Messages.


@pytest.mark.parametrize("handler", [echo, echo_soon])
def test_a_handler_is_a_function_or_a_coroutine_function(run: Callable[[Work], None], handler: Any) -> None:
    async def main() -> None:
        messages = [b"x" * size for size in (0, 1, 1_000, 100_000)] * 3
        async with serving(on_message=handler) as server, connect((LOCAL, server.port), LengthFramer) as client:
            for message in messages:
                client.send(message)
                assert await client.receive() == message

    run(main)


def test_an_object_with_a_coroutine_call_is_a_handler_too() -> None:
    class Handler:
        async def __call__(self, connection: TcpConnection, message: bytes) -> None:
            await echo_soon(connection, message)

    async def main() -> None:
        async with serving(on_message=Handler()) as server, connect((LOCAL, server.port), LengthFramer) as client:
            client.send(b"x")
            assert await client.receive() == b"x"

    run_once(main)


def test_a_server_can_iterate_each_connection(run: Callable[[Work], None]) -> None:
    async def main() -> None:
        ended: list[str | None] = []

        async def serve(connection: TcpConnection) -> None:
            if connection.is_open:
                async for message in connection:
                    connection.send(message.upper())
                ended.append(connection.close_reason)

        async with serving(LineFramer, on_connection=serve) as server:
            async with connect((LOCAL, server.port), LineFramer) as client:
                client.send(b"hello")
                assert await client.receive() == b"HELLO"
            await until(lambda: ended)
        assert ended == [CloseReason.PEER_CLOSED]

    run(main)


def test_many_messages_in_both_directions_keep_their_order(run: Callable[[Work], None]) -> None:
    async def main() -> None:
        async with serving(on_message=echo) as server, connect((LOCAL, server.port), LengthFramer) as client:

            async def send() -> None:
                for number in range(20_000):
                    client.send(b"%d" % number)
                    if number % 100 == 0:
                        await client.drain()

            sending = asyncio.create_task(send())
            for number in range(20_000):
                assert await client.receive() == b"%d" % number
            await sending

    run(main)


@pytest.mark.parametrize(("codec", "message"), [(JsonCodec(), {"a": [1, None]}), (TextCodec(), "äöü")])
def test_a_codec_is_between_the_framer_and_the_user(codec: Any, message: Any) -> None:
    async def main() -> None:
        async with (
            serving(LineFramer, echo, codec=codec) as server,
            connect((LOCAL, server.port), LineFramer, codec=codec) as client,
        ):
            client.send(message)
            assert await client.receive() == message
            server.broadcast(message)
            assert await client.receive() == message

    run_once(main)


def test_a_broadcast_reaches_all_that_are_established_and_asked_for() -> None:
    async def main() -> None:
        async with serving(Frames, echo) as server, contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(connect((LOCAL, server.port), Frames)) for _ in range(3)]
            half = socket.create_connection((LOCAL, server.port))  # has not said hello
            await until(lambda: len(server.connections) == 4)
            server.broadcast(b"to all")
            await asyncio.to_thread(server.broadcast, b"from a thread")
            first = min(server.connections)
            server.broadcast(b"to one", lambda connection: connection.id == first)
            for client in clients:
                assert await client.receive() == b"to all"
                assert await client.receive() == b"from a thread"
            done, waiting = await asyncio.wait(
                [asyncio.create_task(client.receive()) for client in clients], timeout=0.2
            )
            assert [task.result() for task in done] == [b"to one"]
            for task in waiting:
                task.cancel()
            half.close()

    run_once(main)


def test_four_threads_send_at_once_and_each_keeps_its_order(run: Callable[[Work], None]) -> None:
    count = 2_000

    async def main() -> None:
        up: list[TcpConnection] = []
        async with (
            serving(on_connection=up.append) as server,
            connect((LOCAL, server.port), LengthFramer) as client,
        ):
            await until(lambda: up)

            def send(thread: int) -> None:
                for number in range(count):
                    up[0].send(b"%d %d " % (thread, number) + b"x" * (number % 500))

            threads = [threading.Thread(target=send, args=(number,)) for number in range(4)]
            for thread in threads:
                thread.start()
            for number in range(count):  # the reactor's own messages between theirs
                up[0].send(b"4 %d " % number)
                if number % 50 == 0:
                    await asyncio.sleep(0)
            got: list[list[int]] = [[], [], [], [], []]
            for _ in range(5 * count):
                words = (await client.receive()).split(b" ")
                got[int(words[0])].append(int(words[1]))
            assert got == [list(range(count))] * 5
            for thread in threads:
                await asyncio.to_thread(thread.join)

    run(main)


def test_relaying_to_a_slow_reader_is_paced_by_the_water_marks(run: Callable[[Work], None]) -> None:
    size, pieces = 65_536, 200

    async def main() -> None:
        most = sent = 0

        def more(connection: TcpConnection) -> None:
            nonlocal sent, most
            most = max(most, connection.unsent_bytes)
            if sent < pieces:
                sent += 1
                connection.send(bytes(size))

        def begin(connection: TcpConnection) -> None:
            if connection.is_open:
                more(connection)

        async with (
            serving(on_connection=begin, on_write_complete=more) as server,
            FaultyLink((LOCAL, server.port), down=LinkFaults(bytes_per_second=40_000_000)) as link,
            connect(link.address, LengthFramer) as client,
        ):
            for _ in range(pieces):
                assert await client.receive() == bytes(size)
        assert sent == pieces
        assert most <= size + 4

    run(main)


# Listening.


def test_a_server_has_several_listeners(tmp_path: Path, run: Callable[[Work], None]) -> None:
    async def main() -> None:
        path = str(tmp_path / "socket")
        async with serving(on_message=echo) as server:
            other = await server.listen(LOCAL, 0)
            await server.listen_unix(path)
            assert server.addresses == [f"{LOCAL}:{server.port}", f"{LOCAL}:{other}", path]
            for address in ((LOCAL, server.port), (LOCAL, other), path):
                async with connect(address, LengthFramer) as client:
                    client.send(b"x")
                    assert await client.receive() == b"x"
        assert not Path(path).exists()  # noqa: ASYNC240  a moment, in a test

    run(main)


def test_ipv6_peers_have_addresses_in_brackets() -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")

    async def main() -> None:
        server = TcpServer(Reactor(asyncio.get_running_loop()), LengthFramer, echo)
        port = await server.listen("::1", 0)
        async with connect(("::1", port), LengthFramer) as client:
            client.send(b"x")
            assert await client.receive() == b"x"
            (connection,) = server.connections.values()
            assert connection.peer.startswith("[::1]:")
            assert connection.host == "::1"
            assert client.peer == f"[::1]:{port}"
        await server.drain(1.0)

    run_once(main)


def test_both_families_listen_on_one_port_where_the_host_is_empty() -> None:
    async def main() -> None:
        server = TcpServer(Reactor(asyncio.get_running_loop()), LengthFramer, echo)
        port = await server.listen("", 0)
        async with connect((LOCAL, port), LengthFramer) as client:
            client.send(b"x")
            assert await client.receive() == b"x"
        await server.drain(1.0)

    run_once(main)


# Who may come.


async def refused(server: TcpServer, reason: str) -> None:
    """A peer that connects now is turned away, for this reason."""
    before = server.refused[reason]
    reader, writer = await asyncio.open_connection(LOCAL, server.port)
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""
    writer.close()
    assert server.refused[reason] == before + 1


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (ConnectionLimits(connections=2), "connections_limit"),
        (ConnectionLimits(per_address=2), "address_limit"),
        (ConnectionLimits(per_second=0.01, burst=2), "rate_limit"),
        (ConnectionLimits(handshakes=2), "handshakes_limit"),
        (ConnectionLimits(handshakes_per_address=2), "handshakes_limit"),
    ],
)
def test_the_third_is_one_too_many(limits: ConnectionLimits, reason: str) -> None:
    async def main() -> None:
        told: list[str] = []
        options = ConnectionOptions(handshake_timeout=60.0)
        async with serving(on_message=echo, limits=limits, options=options, on_refused=told.append) as server:
            peers = [await asyncio.open_connection(LOCAL, server.port) for _ in range(2)]
            await until(lambda: len(server.connections) == 2)
            await refused(server, reason)
            assert told == [reason]
            for connection in list(server.connections.values()):
                connection.established()
            if "handshakes" in reason:
                peers.append(await asyncio.open_connection(LOCAL, server.port))
                await until(lambda: len(server.connections) == 3)
            for _, writer in peers:
                writer.close()
            await until(lambda: not server.connections)
            if reason != "rate_limit":
                for _ in range(2):  # their places are free again
                    _, writer = await asyncio.open_connection(LOCAL, server.port)
                    await until(lambda: server.connections)
                    writer.close()
                    await until(lambda: not server.connections)

    run_once(main)


def test_denied_networks_are_turned_away() -> None:
    async def main() -> None:
        async with serving(on_message=echo, limits=ConnectionLimits(deny=("127.0.0.0/8",))) as server:
            await refused(server, "denied")

    run_once(main)


@pytest.mark.parametrize("encode", [encode_v1, encode_v2])
def test_behind_a_proxy_the_peer_is_who_the_proxy_says(encode: Any, run: Callable[[Work], None]) -> None:
    async def main() -> None:
        limits = ConnectionLimits(proxies=("127.0.0.1",), deny=("203.0.113.0/24",), per_address=1)
        async with serving(on_message=echo, limits=limits) as server:
            header = encode(("198.51.100.7", 4_711), ("192.0.2.1", 80))
            reader, writer = await asyncio.open_connection(LOCAL, server.port)
            for byte in header[:-1]:
                writer.write(bytes([byte]))
                await asyncio.sleep(0)
            writer.write(header[-1:] + b"\0\0\0\1x")
            assert await reader.readexactly(5) == b"\0\0\0\1x"
            (connection,) = server.connections.values()
            assert (connection.peer, connection.host) == ("198.51.100.7:4711", "198.51.100.7")
            for source, reason in (("198.51.100.7", "address_limit"), ("203.0.113.9", "denied")):
                other, other_writer = await asyncio.open_connection(LOCAL, server.port)
                other_writer.write(encode((source, 1), ("192.0.2.1", 80)))
                with contextlib.suppress(ConnectionError):
                    assert await other.read() == b""
                assert server.refused[reason] == 1
                other_writer.close()
            writer.close()
            await until(lambda: not server.connections)

    run(main)


@pytest.mark.parametrize("sent", [b"\0\0\0\1x" * 30, b"PROXY TCP9 1 2 3 4\r\n", b"PROXY TCP4 1.2.3.4", b"\r\n\r\n\0"])
def test_a_proxy_that_sends_no_good_header_in_time_is_turned_away(sent: bytes) -> None:
    async def main() -> None:
        limits = ConnectionLimits(proxies=("127.0.0.1",))
        options = ConnectionOptions(handshake_timeout=0.3)
        async with serving(on_message=echo, limits=limits, options=options) as server:
            reader, writer = await asyncio.open_connection(LOCAL, server.port)
            writer.write(sent)
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            assert server.refused == {"handshake_failed": 1}
            writer.close()

    run_once(main)


def test_a_proxys_header_from_elsewhere_is_no_header_but_bytes() -> None:
    async def main() -> None:
        heard: list[bytes] = []
        limits = ConnectionLimits(proxies=("192.0.2.0/24",))
        async with serving(LineFramer, lambda _, message: heard.append(message), limits=limits) as server:
            _, writer = await asyncio.open_connection(LOCAL, server.port)
            writer.write(encode_v1(("198.51.100.7", 4_711), ("192.0.2.1", 80)))
            await until(lambda: heard)
            (connection,) = server.connections.values()
            assert connection.host == LOCAL
            writer.close()

    run_once(main)


# Rates and deadlines.


@pytest.mark.parametrize("options", [{"messages_per_second": 100.0}, {"bytes_per_second": 1_400.0}])
def test_a_peer_is_read_no_faster_than_its_rate(options: dict[str, float]) -> None:
    """200 messages are a burst; when 400 have come, the next has to wait until the other 200 are paid for."""

    async def main() -> None:
        arrived: list[float] = []
        kept = ConnectionOptions(**options)  # type: ignore[arg-type]
        async with serving(on_message=lambda *_: arrived.append(time.monotonic()), options=kept) as server:
            _, writer = await asyncio.open_connection(LOCAL, server.port)
            try:
                began = time.monotonic()
                for _ in range(40):
                    writer.write(b"\0\0\0\x0a0123456789" * 10)
                    await asyncio.sleep(0.01)
                await until(lambda: len(arrived) == 400)
                writer.write(b"\0\0\0\1x")
                await until(lambda: len(arrived) == 401)
                assert 1.9 < arrived[-1] - began < 4.0
            finally:
                writer.close()

    run_once(main)


@pytest.mark.parametrize("poller", ["auto", "epoll"])
def test_a_session_whose_peer_goes_silent_is_found_by_both_sides_and_a_quiet_live_one_is_not(poller: str) -> None:
    """With an interval of 0.5 s, it has to be found within 1 s, and one more."""

    async def main() -> None:
        options = ConnectionOptions(heartbeat_interval=0.5)
        lost: list[str | None] = []

        def on_connection(connection: TcpConnection) -> None:
            if not connection.is_open:
                lost.append(connection.close_reason)

        async with (
            serving(Frames, echo, options=options, on_connection=on_connection) as server,
            FaultyLink((LOCAL, server.port)) as link,
            connect(link.address, Frames, options=options) as client,
            connect((LOCAL, server.port), Frames, options=options) as live,
        ):
            await asyncio.sleep(1.6)
            assert client.is_open
            assert not lost
            link.stall()
            began = time.monotonic()
            await until(lambda: lost and client.close_reason)
            assert time.monotonic() - began < 2 * 0.5 + 1.0
            assert lost == [CloseReason.HEARTBEAT_LOST]
            assert client.close_reason == CloseReason.HEARTBEAT_LOST
            link.resume()
            live.send(b"x")
            assert await live.receive() == b"x"

    run_once(main, poller)


PEER = """
import asyncio, sys
from trunkline.tcp import ConnectionOptions, connect
from trunkline.wire import Frames
async def main():
    options = ConnectionOptions(heartbeat_interval=0.5)
    async with connect(("127.0.0.1", int(sys.argv[1])), lambda: Frames(), options=options) as connection:
        async for message in connection:
            pass
asyncio.run(main())
"""


def test_a_process_that_is_stopped_is_found() -> None:
    async def main() -> None:
        async with serving(Frames, echo, options=ConnectionOptions(heartbeat_interval=0.5)) as server:
            child = await asyncio.create_subprocess_exec(sys.executable, "-c", PEER, str(server.port))
            try:
                await until(lambda: any(one.is_established for one in server.connections.values()))
                await asyncio.sleep(1.3)
                assert not server.closed
                os.kill(child.pid, signal.SIGSTOP)
                began = time.monotonic()
                await until(lambda: server.closed)
                assert time.monotonic() - began < 2 * 0.5 + 1.0
                assert server.closed == {CloseReason.HEARTBEAT_LOST: 1}
            finally:
                child.kill()
                await child.wait()

    run_once(main)


def test_simple_reactors_roles_keep_each_other_alive_without_a_message() -> None:
    async def main() -> None:
        options = ConnectionOptions(heartbeat_interval=0.5)
        async with (
            serving(lambda: SimpleReactorWire("server"), echo, options=options) as server,
            connect((LOCAL, server.port), lambda: SimpleReactorWire("client"), options=options) as client,
        ):
            await asyncio.sleep(1.6)
            client.send(b"x")
            assert await client.receive() == b"x"
            assert not server.closed

    run_once(main)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"idle_timeout": 0.4}, CloseReason.IDLE),
        ({"write_idle_timeout": 0.4}, CloseReason.WRITE_IDLE),
        ({"lifetime": 0.4}, CloseReason.LIFETIME),
        ({"handshake_timeout": 0.4}, CloseReason.HANDSHAKE_TIMEOUT),
    ],
)
def test_each_deadline_ends_the_connection_that_missed_it(options: dict[str, float], reason: str) -> None:
    async def main() -> None:
        began = time.monotonic()
        async with serving(options=ConnectionOptions(**options)) as server:  # type: ignore[arg-type]
            reader, writer = await asyncio.open_connection(LOCAL, server.port)
            drip = asyncio.create_task(dripping(writer)) if reason in ("lifetime", "handshake_timeout") else None
            with contextlib.suppress(ConnectionError):
                await reader.read()
            assert 0.3 < time.monotonic() - began < 0.4 + 1.0
            assert server.closed == {reason: 1}
            writer.close()
            if drip is not None:
                await drip

    async def dripping(writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while not writer.is_closing():
                writer.write(b"\0")
                await asyncio.sleep(0.1)

    run_once(main)


# TLS.


def openssl(*arguments: object) -> None:
    done = subprocess.run(["openssl", *map(str, arguments)], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


class Authority:
    """A certificate authority, and what it has issued."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file, self.key = folder / "ca.pem", folder / "ca.key"
        openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", 30,
            "-subj", "/CN=ca", "-keyout", self.key, "-out", self.file,
        )  # fmt: skip

    def issue(self, name: str) -> tuple[Path, Path]:
        certificate, key, request, extensions = (
            self.folder / f"{name}.{ending}" for ending in ("pem", "key", "csr", "cnf")
        )
        extensions.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
        openssl(
            "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-subj", f"/CN={name}", "-keyout", key, "-out", request,
        )  # fmt: skip
        openssl(
            "x509", "-req", "-in", request, "-CA", self.file, "-CAkey", self.key, "-CAcreateserial", "-days", 30,
            "-extfile", extensions, "-out", certificate,
        )  # fmt: skip
        return certificate, key


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def tls(authority: Authority) -> tuple[ServerTls, ClientTls]:
    server, client = authority.issue("server"), authority.issue("meter-7")
    return (
        ServerTls(*server, client_ca=authority.file, alpn=("trunkline",)),
        ClientTls(authority.file, *client, alpn=("trunkline",)),
    )


def test_both_sides_of_a_tls_connection_know_each_other(
    tls: tuple[ServerTls, ClientTls], run: Callable[[Work], None]
) -> None:
    async def main() -> None:
        async with (
            serving(on_message=echo, tls=tls[0]) as server,
            connect((LOCAL, server.port), LengthFramer, tls=tls[1]) as client,
        ):
            for message in (b"x", b"y" * 200_000, b"z"):
                client.send(message)
                assert await client.receive() == message
            (connection,) = server.connections.values()
            seen, shown = connection.tls(), client.tls()
            assert seen is not None
            assert shown is not None
            assert (seen.common_name, shown.common_name) == ("meter-7", "server")
            assert seen.alpn == "trunkline"
            assert seen.version == "TLSv1.3"

    run(main)


def test_over_tls_one_side_may_send_and_send_without_an_answer(
    tls: tuple[ServerTls, ClientTls], run: Callable[[Work], None]
) -> None:
    async def main() -> None:
        heard: list[bytes] = []
        async with (
            serving(on_message=lambda _, message: heard.append(message), tls=tls[0]) as server,
            connect((LOCAL, server.port), LengthFramer, tls=tls[1]) as client,
        ):
            for number in range(50):
                client.send(b"%d" % number)
                await asyncio.sleep(0.002)
                assert client.unsent_bytes == 0, "what the operating system has taken is not unsent"
            await until(lambda: len(heard) == 50)

    run(main)


def test_over_tls_a_lot_in_both_directions_arrives(
    tls: tuple[ServerTls, ClientTls], run: Callable[[Work], None]
) -> None:
    async def main() -> None:
        async with (
            serving(on_message=echo, tls=tls[0], options=ConnectionOptions(overflow="close")) as server,
            connect((LOCAL, server.port), LengthFramer, tls=tls[1]) as client,
        ):

            async def send() -> None:
                for number in range(100):
                    client.send(bytes([number]) * 60_000)
                    await client.drain()

            sending = asyncio.create_task(send())
            for number in range(100):
                assert await client.receive() == bytes([number]) * 60_000
            await sending

    run(main)


def test_over_tls_what_is_sent_before_a_close_arrives(
    tls: tuple[ServerTls, ClientTls], run: Callable[[Work], None]
) -> None:
    async def main() -> None:
        def answer_and_close(connection: TcpConnection, message: bytes) -> None:
            connection.send(b"x" * 500_000)
            connection.close()

        async with (
            serving(on_message=answer_and_close, tls=tls[0]) as server,
            connect((LOCAL, server.port), LengthFramer, tls=tls[1]) as client,
        ):
            client.send(b"go")
            assert [message async for message in client] == [b"x" * 500_000]
            assert client.close_reason == CloseReason.PEER_CLOSED

    run(main)


def test_a_tls_peer_that_leaves_is_noticed_without_a_warning(
    tls: tuple[ServerTls, ClientTls], run: Callable[[Work], None], caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with serving(on_message=echo, tls=tls[0]) as server:
            async with connect((LOCAL, server.port), LengthFramer, tls=tls[1]) as client:
                client.send(b"x")
                assert await client.receive() == b"x"
            await until(lambda: server.closed)
            assert server.closed == {CloseReason.PEER_CLOSED: 1}
        assert not caplog.records

    run(main)


def test_a_peer_without_a_certificate_or_tls_is_turned_away(
    tls: tuple[ServerTls, ClientTls], authority: Authority
) -> None:
    async def main() -> None:
        async with serving(on_message=echo, tls=tls[0]) as server:
            reader, writer = await asyncio.open_connection(LOCAL, server.port)
            writer.write(b"\0\0\0\5hello")
            with contextlib.suppress(ConnectionError):
                await reader.read()
            writer.close()
            await until(lambda: server.refused == {"handshake_failed": 1})
            context = ssl.create_default_context(cafile=str(authority.file))
            with contextlib.suppress(OSError):
                async with connect((LOCAL, server.port), LengthFramer, tls=context) as client:
                    with contextlib.suppress(StopAsyncIteration):
                        await anext(client)
            await until(lambda: server.refused == {"handshake_failed": 2})

    run_once(main)


def test_new_connections_get_the_new_certificate_and_old_ones_stay(authority: Authority, tmp_path: Path) -> None:
    async def main() -> None:
        here = [tmp_path / "server.pem", tmp_path / "server.key"]
        for source, target in zip(authority.issue("first"), here, strict=True):
            target.write_bytes(source.read_bytes())
        trust = ClientTls(authority.file)
        async with (
            serving(on_message=echo, tls=ServerTls(*here)) as server,
            connect((LOCAL, server.port), LengthFramer, tls=trust) as old,
        ):
            here[0].write_text("no certificate")
            with pytest.raises(SettingsError):
                server.reload_tls()
            for source, target in zip(authority.issue("second"), here, strict=True):
                target.write_bytes(source.read_bytes())
            server.reload_tls()
            async with connect((LOCAL, server.port), LengthFramer, tls=trust) as new:
                info = [one.tls() for one in (old, new)]
                assert [one.common_name for one in info if one is not None] == ["first", "second"]
            old.send(b"still there")
            assert await old.receive() == b"still there"

    run_once(main)


# The end.


async def descriptors() -> set[str]:
    """What each descriptor of this process stands for."""
    async with serving(on_message=echo) as server, connect((LOCAL, server.port), LengthFramer):
        pass  # libuv opens one of its own at its first stream, and keeps it
    await asyncio.sleep(0.01)
    found = set()
    for link in Path("/proc/self/fd").iterdir():  # noqa: ASYNC240  a moment, in a test
        with contextlib.suppress(FileNotFoundError):  # that of the list itself
            found.add(f"{link.name} {link.readlink()}")
    return found


def test_drain_lets_handlers_end_tells_the_peers_and_leaves_nothing(
    tls: tuple[ServerTls, ClientTls], tmp_path: Path, run: Callable[[Work], None]
) -> None:
    async def main() -> None:
        tasks, threads, files = asyncio.all_tasks(), set(threading.enumerate()), await descriptors()
        handling = 0

        async def slow(connection: TcpConnection, message: bytes) -> None:
            nonlocal handling
            handling += 1
            await asyncio.sleep(0.3)
            connection.send(message)

        server = TcpServer(Reactor(asyncio.get_running_loop()), Frames, slow)
        await server.listen(LOCAL, 0)
        await server.listen_unix(str(tmp_path / "socket"))
        knocking = socket.create_connection((LOCAL, server.port))  # in its handshake
        async with (
            connect((LOCAL, server.port), Frames) as client,
            connect(str(tmp_path / "socket"), Frames) as other,
        ):
            client.send(b"question")
            await until(lambda: handling == 1)
            began = time.monotonic()
            await server.drain(5.0)
            assert time.monotonic() - began < 3.0
            assert [message async for message in client] == [b"question"]
            assert [message async for message in other] == []
            framer = client.framer
            assert isinstance(framer, Frames)
            assert framer.peer_reason == CloseReason.DRAINED
            assert not server.connections
        knocking.close()
        await asyncio.sleep(0)
        assert server.closed[CloseReason.DRAINED] == 3
        assert asyncio.all_tasks() == tasks
        assert set(threading.enumerate()) == threads
        assert await descriptors() == files

    run(main)


def test_drain_waits_until_the_slowest_peer_has_all_that_was_sent(run: Callable[[Work], None]) -> None:
    async def main() -> None:
        async with (
            serving(lambda: LengthFramer(1 << 23), echo) as server,
            FaultyLink((LOCAL, server.port), down=LinkFaults(bytes_per_second=8_000_000)) as link,
            connect((LOCAL, server.port), LengthFramer),
            connect(link.address, lambda: LengthFramer(1 << 23)) as slow,
        ):
            await until(lambda: len(server.connections) == 2)
            server.broadcast(bytes(4_000_000))
            received = asyncio.create_task(slow.receive())
            await server.drain(WAIT)
            assert await received == bytes(4_000_000)

    run(main)


def test_what_does_not_end_within_the_deadline_is_dropped(run: Callable[[Work], None]) -> None:
    async def main() -> None:
        tasks = asyncio.all_tasks()
        cancelled: list[str] = []

        async def never(connection: TcpConnection, message: bytes) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.append("cancelled")

        server = TcpServer(Reactor(asyncio.get_running_loop()), LengthFramer, never)
        await server.listen(LOCAL, 0)
        async with connect((LOCAL, server.port), LengthFramer) as client:
            client.send(b"x")
            await until(lambda: server._blueprint.tasks)
            began = time.monotonic()
            await server.drain(0.3)
            assert 0.2 < time.monotonic() - began < 2.0
            assert cancelled == ["cancelled"]
            assert not server.connections
        assert asyncio.all_tasks() == tasks

    run(main)


def test_a_peer_that_knocks_while_the_server_drains_leaves_nothing_behind(run: Callable[[Work], None]) -> None:
    async def main() -> None:
        files = await descriptors()
        for _ in range(20):
            server = TcpServer(Reactor(asyncio.get_running_loop()), LengthFramer, echo)
            port = await server.listen(LOCAL, 0)
            knocking = [socket.create_connection((LOCAL, port)) for _ in range(3)]
            server._acceptors[0]._accept_some()  # as the loop would just before
            await server.drain(1.0)
            assert not server.connections
            for sock in knocking:
                sock.close()
        assert await descriptors() == files

    run(main)


def test_a_server_that_only_sends_drains_at_once_and_sees_who_leaves(run: Callable[[Work], None]) -> None:
    async def main() -> None:
        async with serving() as server:
            async with connect((LOCAL, server.port), LengthFramer) as client:
                await until(lambda: server.connections)
                server.broadcast(b"tick")
                assert await client.receive() == b"tick"
            await until(lambda: server.closed)
            assert server.closed == {CloseReason.PEER_CLOSED: 1}
            async with connect((LOCAL, server.port), LengthFramer):
                await until(lambda: server.connections)
                began = time.monotonic()
                await server.drain(5.0)
                assert time.monotonic() - began < 1.0

    run(main)


# A bad line in between.


@pytest.mark.parametrize(
    "faults",
    [LinkFaults(piece_bytes=1), LinkFaults(piece_bytes=7), LinkFaults(delay=0.002), LinkFaults(bytes_per_second=1e5)],
)
@pytest.mark.parametrize("poller", ["auto", "epoll"])
def test_over_a_bad_line_the_messages_are_the_same(faults: LinkFaults, poller: str) -> None:
    async def main() -> None:
        messages = [os.urandom(size) for size in (1, 3, 100, 0, 300, 700)]
        async with (
            serving(lambda: Frames(compression=("zlib",)), echo) as server,
            FaultyLink((LOCAL, server.port), faults, faults, seed=3) as link,
            connect(link.address, lambda: Frames(compression=("zlib",))) as client,
        ):
            for message in messages:
                client.send(message)
            for message in messages:
                assert await client.receive() == message

    Reactor.run(main, poller)


def test_the_link_resets_ends_and_stalls_behind_just_so_many_bytes(run: Callable[[Work], None], tmp_path: Path) -> None:
    async def main() -> None:
        path = str(tmp_path / "link")
        async with serving(LineFramer, echo) as server:
            for faults, expected in (
                (LinkFaults(reset_after_bytes=6), "reset"),
                (LinkFaults(end_after_bytes=6), "peer_closed"),
                (LinkFaults(stall_after_bytes=6), None),
            ):
                server.closed.clear()
                async with FaultyLink((LOCAL, server.port), up=faults, path=path) as link:
                    async with connect(path, LineFramer) as client:
                        for number in range(5):
                            with contextlib.suppress(Exception):
                                client.send(b"%d2" % number)
                        if expected is not None:
                            await until(lambda: server.closed)
                            assert server.closed == {expected: 1}
                        else:
                            assert [await client.receive() for _ in range(2)] == [b"02", b"12"]
                            await until(lambda: link.passed_up == 6)
                            assert client.is_open
                        assert link.passed_up == 6
                    assert link.accepted == 1
                await until(lambda: not server.connections)

    run(main)
