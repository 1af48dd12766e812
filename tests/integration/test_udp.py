"""Datagrams over loopback, on both event loops."""

import asyncio
import gc
import os
import socket
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from trunkline.errors import BadFrame, ConnectionClosed, FrameTooLarge, SettingsError, Unavailable, UsageError
from trunkline.reactor import Reactor
from trunkline.tcp.udp import UdpEndpoint, UdpOptions
from trunkline.tcp.udp_socket import Address
from trunkline.wire.codecs import JsonCodec

WAIT = 15.0

Run = Callable[[Callable[[Reactor], Awaitable[None]]], list[BaseException]]


@pytest.fixture(params=["uvloop", "select"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine function in a reactor of its own; returns what callbacks let out. No socket may be left."""

    def run(main: Callable[[Reactor], Awaitable[None]]) -> list[BaseException]:
        errors: list[BaseException] = []

        async def bounded() -> None:
            before = sockets()
            async with asyncio.timeout(WAIT):
                await main(Reactor(asyncio.get_running_loop(), errors.append))
            assert sockets() == before

        Reactor.run(bounded, request.param)
        return errors

    return run


def sockets() -> int:
    gc.collect()
    return sum(
        os.path.realpath(path).rpartition("/")[2].startswith("socket:") for path in Path("/proc/self/fd").iterdir()
    )


async def until(true: Callable[[], bool]) -> None:
    while not true():  # noqa: ASYNC110  it is the other side's state
        await asyncio.sleep(0.001)


async def bound(endpoint: "UdpEndpoint[bytes]") -> Address:
    await endpoint.bind("127.0.0.1", 0)
    return endpoint.address


def test_an_echo_by_a_function(run: Run) -> None:
    async def main(reactor: Reactor) -> None:
        server: UdpEndpoint[bytes] = UdpEndpoint(
            reactor, lambda endpoint, message, address: endpoint.send(message, address)
        )
        client: UdpEndpoint[bytes] = UdpEndpoint(reactor)
        await bound(client)
        address = await bound(server)
        for size in (1, 1_000, 65_507):
            client.send(b"x" * size, address)
            message, source = await anext(client)
            assert (message, source) == (b"x" * size, address)
        assert (server.received, server.sent, server.received_bytes, server.sent_bytes) == (3, 3, 66_508, 66_508)
        assert (server.bad, server.dropped, server.unsent) == (0, 0, 0)
        await server.close()
        await client.close()

    assert run(main) == []


def test_an_echo_by_a_coroutine_with_a_codec_over_a_connected_endpoint(run: Run) -> None:
    async def main(reactor: Reactor) -> None:
        async def on_message(endpoint: UdpEndpoint[object], message: object, address: Address) -> None:
            await asyncio.sleep(0)
            endpoint.send({"answer": message}, address)

        server: UdpEndpoint[object] = UdpEndpoint(reactor, on_message, codec=JsonCodec())
        client: UdpEndpoint[object] = UdpEndpoint(reactor, codec=JsonCodec())
        await server.bind("127.0.0.1", 0)
        await client.connect(*server.address)
        client.send([1, 2])
        assert await anext(client) == ({"answer": [1, 2]}, server.address)
        client.send([3], server.address)
        assert (await anext(client))[0] == {"answer": [3]}
        with pytest.raises(UsageError, match="is connected to"):
            client.send([3], ("127.0.0.1", 1))
        await client.close()
        await server.close()

    assert run(main) == []


def test_a_connected_endpoint_hears_its_peer_alone(run: Run) -> None:
    async def main(reactor: Reactor) -> None:
        peer: UdpEndpoint[bytes] = UdpEndpoint(reactor)
        stranger: UdpEndpoint[bytes] = UdpEndpoint(reactor)
        client: UdpEndpoint[bytes] = UdpEndpoint(reactor)
        host, port = await bound(peer)
        await bound(stranger)
        await client.connect(host, port)
        stranger.send(b"let me in", client.address)
        peer.send(b"hello", client.address)
        assert await anext(client) == (b"hello", peer.address)
        assert client.received == 1
        for each in (peer, stranger, client):
            await each.close()

    assert run(main) == []


def test_a_bad_datagram_is_an_error_with_an_address_and_costs_nothing_else(run: Run) -> None:
    async def main(reactor: Reactor) -> None:
        errors: list[tuple[type[Exception], Address | None]] = []
        server: UdpEndpoint[object] = UdpEndpoint(
            reactor,
            codec=JsonCodec(),
            on_error=lambda _endpoint, error, address: errors.append((type(error), address)),
            options=UdpOptions(datagram_limit_bytes=20),
        )
        await server.bind("127.0.0.1", 0)
        client: UdpEndpoint[bytes] = UdpEndpoint(reactor)
        source = await bound(client)
        for datagram in (b"{", b"\xff", b'"' + b"x" * 30 + b'"', b"[1]"):
            client.send(datagram, server.address)
        assert await anext(server) == ([1], source)
        assert errors == [(BadFrame, source), (BadFrame, source), (FrameTooLarge, source)]
        assert (server.received, server.bad, server.dropped) == (4, 3, 0)
        await server.close()
        await client.close()

    assert run(main) == []


def test_an_empty_datagram_is_one_too(run: Run) -> None:
    async def main(reactor: Reactor) -> None:
        server: UdpEndpoint[bytes] = UdpEndpoint(reactor)
        address = await bound(server)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.bind(("127.0.0.1", 0))
            client.sendto(b"", address)
            client.sendto(b"more", address)
            source = client.getsockname()
        assert [await anext(server), await anext(server)] == [(b"", source), (b"more", source)]
        assert server.received == 2
        await server.close()

    assert run(main) == []


def test_a_handler_that_raises_is_reported_and_the_next_datagram_handled(run: Run) -> None:
    async def main(reactor: Reactor) -> None:
        seen: list[bytes] = []

        def on_message(_endpoint: UdpEndpoint[bytes], message: bytes, _address: Address) -> None:
            seen.append(message)
            if message == b"bad":
                raise ValueError("on purpose")

        async def on_message_later(_endpoint: UdpEndpoint[bytes], message: bytes, _address: Address) -> None:
            await asyncio.sleep(0)
            on_message(_endpoint, message, _address)

        for handler in (on_message, on_message_later):
            server: UdpEndpoint[bytes] = UdpEndpoint(reactor, handler)
            client: UdpEndpoint[bytes] = UdpEndpoint(reactor)
            address = await bound(server)
            await bound(client)
            client.send(b"bad", address)
            client.send(b"good", address)
            await until(lambda: len(seen) == 2)
            assert seen == [b"bad", b"good"]
            seen.clear()
            await server.close()
            await client.close()

    assert [str(error) for error in run(main)] == ["on purpose", "on purpose"]


def test_coroutines_over_the_bound_are_dropped_and_counted(run: Run) -> None:
    async def main(reactor: Reactor) -> None:
        go, ended = asyncio.Event(), []

        async def on_message(_endpoint: UdpEndpoint[bytes], message: bytes, _address: Address) -> None:
            await go.wait()
            ended.append(message)

        server: UdpEndpoint[bytes] = UdpEndpoint(reactor, on_message, options=UdpOptions(tasks_limit=2))
        client: UdpEndpoint[bytes] = UdpEndpoint(reactor)
        address = await bound(server)
        await bound(client)
        for number in range(5):
            client.send(b"%d" % number, address)
        await until(lambda: server.received == 5)
        assert server.dropped == 3
        go.set()
        await until(lambda: len(ended) == 2)
        client.send(b"again", address)
        await until(lambda: len(ended) == 3)
        assert ended == [b"0", b"1", b"again"]
        await server.close()
        await client.close()

    assert run(main) == []


def test_messages_that_nobody_takes_are_dropped_over_the_bound_and_counted(run: Run) -> None:
    async def main(reactor: Reactor) -> None:
        server: UdpEndpoint[bytes] = UdpEndpoint(reactor, options=UdpOptions(inbox_limit=3))
        client: UdpEndpoint[bytes] = UdpEndpoint(reactor)
        address = await bound(server)
        await bound(client)
        for number in range(5):
            client.send(b"%d" % number, address)
        await until(lambda: server.received == 5)
        await server.close()
        assert [message async for message, _ in server] == [b"0", b"1", b"2"], "what came before the close is given"
        assert server.dropped == 2
        await client.close()

    assert run(main) == []


def test_the_iteration_ends_when_the_endpoint_is_closed(run: Run) -> None:
    async def main(reactor: Reactor) -> None:
        endpoint: UdpEndpoint[bytes] = UdpEndpoint(reactor)
        await bound(endpoint)

        async def take() -> list[bytes]:
            return [message async for message, _ in endpoint]

        task = asyncio.create_task(take())
        await asyncio.sleep(0)
        await endpoint.close()
        assert await task == []

    assert run(main) == []


def test_what_is_over_the_bound_of_unsent_bytes_is_dropped_and_counted(run: Run) -> None:
    async def main(reactor: Reactor) -> None:
        server: UdpEndpoint[bytes] = UdpEndpoint(reactor)
        address = await bound(server)
        client: UdpEndpoint[bytes] = UdpEndpoint(reactor, options=UdpOptions(unsent_limit_bytes=10))
        await bound(client)
        client.send(b"x" * 11, address)
        client.send(b"x" * 10, address)
        assert (await anext(server))[0] == b"x" * 10
        assert (client.sent, client.unsent) == (1, 1)

        # From another thread, while the reactor is held up: 2 of 4 bytes are on their way, and no third.
        thread = threading.Thread(target=lambda: [client.send(b"%04d" % number, address) for number in range(5)])
        thread.start()
        thread.join(WAIT)
        assert client.unsent == 4
        assert [(await anext(server))[0], (await anext(server))[0]] == [b"0000", b"0001"]
        assert client.sent == 3
        await server.close()
        await client.close()

    assert run(main) == []


def test_threads_send_and_each_ones_order_is_kept(run: Run) -> None:
    async def main(reactor: Reactor) -> None:
        server: UdpEndpoint[bytes] = UdpEndpoint(reactor)
        client: UdpEndpoint[bytes] = UdpEndpoint(reactor)
        address = await bound(server)
        await bound(client)

        def send(name: bytes) -> None:
            for number in range(50):
                client.send(b"%s %d" % (name, number), address)

        threads = [threading.Thread(target=send, args=(name,)) for name in (b"a", b"b", b"c")]
        for thread in threads:
            thread.start()
        seen: dict[bytes, list[int]] = {}
        for _ in range(150):
            name, number = (await anext(server))[0].split()
            seen.setdefault(name, []).append(int(number))
        assert seen == {name: list(range(50)) for name in (b"a", b"b", b"c")}
        for thread in threads:
            thread.join(WAIT)
        await server.close()
        await client.close()

    assert run(main) == []


def test_that_nobody_is_there_is_told_to_a_connected_endpoint(run: Run) -> None:
    async def main(reactor: Reactor) -> None:
        gone: UdpEndpoint[bytes] = UdpEndpoint(reactor)
        host, port = await bound(gone)
        await gone.close()
        errors: list[tuple[Exception, Address | None]] = []
        client: UdpEndpoint[bytes] = UdpEndpoint(reactor, on_error=lambda _endpoint, *what: errors.append(what))
        await client.connect(host, port)
        client.send(b"anybody there?")
        await until(lambda: bool(errors))
        assert isinstance(errors[0][0], ConnectionRefusedError)
        assert errors[0][1] is None
        assert client.is_open, "somebody may come yet"
        await client.close()

    assert run(main) == []


def test_an_address_that_is_none_harms_nothing(run: Run) -> None:
    async def main(reactor: Reactor) -> None:
        endpoint: UdpEndpoint[bytes] = UdpEndpoint(reactor)
        address = await bound(endpoint)
        bad: tuple[object, ...] = (
            None, (), ("127.0.0.1",), ("localhost", 1), ("::1", 1), ("127.0.0.1", 0), ("127.0.0.1", 65_536),
            ("127.0.0.1", "1"), (b"127.0.0.1", 1), (None, 1), ("127.0.0.1", None), ("\0", 1), ("127.0.0.1", -1), "x", 5,
        )  # fmt: skip
        for each in bad:
            with pytest.raises(UsageError, match="address = "):
                endpoint.send(b"x", each)  # type: ignore[arg-type]
        for data in (b"", b"x" * 65_508, "text", None):
            with pytest.raises(UsageError, match="a datagram must be 1 to 65,507 bytes"):
                endpoint.send(data, address)  # type: ignore[arg-type]
        endpoint.send(b"still here", address)
        assert (await anext(endpoint))[0] == b"still here"
        await endpoint.close()

    assert run(main) == []


def test_ipv6_has_its_own_addresses(run: Run) -> None:
    async def main(reactor: Reactor) -> None:
        endpoint: UdpEndpoint[bytes] = UdpEndpoint(reactor)
        try:
            await endpoint.bind("::1", 0)
        except SettingsError:
            pytest.skip("this machine has no IPv6")
        host, port = endpoint.address[:2]
        for address in ((host, port), endpoint.address):
            endpoint.send(b"x", address)
            assert (await anext(endpoint))[1][:2] == (host, port)
        with pytest.raises(UsageError, match="IPv6"):
            endpoint.send(b"x", ("127.0.0.1", port))
        with pytest.raises(UsageError, match="IPv6"):
            endpoint.send(b"x", (host, port, 0, "eth0"))
        await endpoint.close()

    assert run(main) == []


def test_what_can_not_be_bound_is_named(run: Run) -> None:
    async def main(reactor: Reactor) -> None:
        taken: UdpEndpoint[bytes] = UdpEndpoint(reactor)
        _, port = await bound(taken)
        with pytest.raises(UsageError, match="in use, or was"):
            await taken.bind("127.0.0.1", 0)
        other: UdpEndpoint[bytes] = UdpEndpoint(reactor)
        with pytest.raises(
            SettingsError, match=f'udp host = "127.0.0.1", port = {port}: can\'t be bound: Address already'
        ):
            await other.bind("127.0.0.1", port)
        with pytest.raises(SettingsError, match=r'udp host = "203\.0\.113\.1".*Cannot assign'):
            await other.bind("203.0.113.1", 0)
        with pytest.raises(SettingsError, match="can't be bound"):
            await other.bind("no-such-host.invalid", 0)
        with pytest.raises(Unavailable, match=r"no way to no-such-host\.invalid"):
            await other.connect("no-such-host.invalid", 1)
        for bad in (-1, 65_536, 99_999):
            with pytest.raises(UsageError, match="it must be 0 to 65535"):
                await other.bind("127.0.0.1", bad)
        with pytest.raises(UsageError, match="it must be 1 to 65535"):
            await other.connect("127.0.0.1", 0)
        await bound(other)  # after all
        await other.close()
        await taken.close()

    assert run(main) == []


def test_processes_may_share_a_port(run: Run) -> None:
    async def main(reactor: Reactor) -> None:
        options = UdpOptions(reuse_port=True)
        first: UdpEndpoint[bytes] = UdpEndpoint(reactor, options=options)
        second: UdpEndpoint[bytes] = UdpEndpoint(reactor, options=options)
        _, port = await bound(first)
        await second.bind("127.0.0.1", port)
        client: UdpEndpoint[bytes] = UdpEndpoint(reactor)
        await bound(client)
        for _ in range(20):
            client.send(b"x", first.address)
        await until(lambda: first.received + second.received == 20)
        for each in (first, second, client):
            await each.close()

    assert run(main) == []


def test_a_multicast_group_is_heard(run: Run) -> None:
    async def main(reactor: Reactor) -> None:
        endpoint: UdpEndpoint[bytes] = UdpEndpoint(reactor)
        await endpoint.bind("0.0.0.0", 0)
        endpoint.join("239.1.2.3", "127.0.0.1")
        with pytest.raises(UsageError, match=r'group = "10\.0\.0\.1"'):
            endpoint.join("10.0.0.1")
        with pytest.raises(UsageError, match='group = "nonsense"'):
            endpoint.join("nonsense")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
            client.sendto(b"all of you", ("239.1.2.3", endpoint.address[1]))
        assert (await anext(endpoint))[0] == b"all of you"
        await endpoint.close()

    assert run(main) == []


def test_a_broadcast_must_be_asked_for(run: Run) -> None:
    async def main(reactor: Reactor) -> None:
        errors: list[Exception] = []
        careful: UdpEndpoint[bytes] = UdpEndpoint(
            reactor, on_error=lambda _endpoint, error, _address: errors.append(error)
        )
        await careful.bind("127.0.0.1", 0)
        careful.send(b"x", ("127.255.255.255", 9))
        await until(lambda: bool(errors))
        assert isinstance(errors[0], PermissionError)
        await careful.close()
        loud: UdpEndpoint[bytes] = UdpEndpoint(
            reactor,
            on_error=lambda _endpoint, error, _address: errors.append(error),
            options=UdpOptions(broadcast=True),
        )
        await loud.bind("127.0.0.1", 0)
        loud.send(b"x", ("127.255.255.255", 9))
        await loud.close()
        assert len(errors) == 1

    assert run(main) == []


def test_close_sends_what_is_unsent_and_leaves_nothing_behind(run: Run) -> None:
    async def main(reactor: Reactor) -> None:
        cancelled: list[bool] = []

        async def on_message(_endpoint: UdpEndpoint[bytes], _message: bytes, _address: Address) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.append(True)

        server: UdpEndpoint[bytes] = UdpEndpoint(reactor, on_message)
        client: UdpEndpoint[bytes] = UdpEndpoint(reactor)
        with pytest.raises(ConnectionClosed):
            client.send(b"too early", ("127.0.0.1", 9))
        await server.close()  # which was never open
        address = await bound(server)
        await bound(client)
        for _ in range(10):
            client.send(b"x" * 1_000, address)
        await client.close()
        await client.close()
        await until(lambda: server.received == 10)
        await asyncio.gather(server.close(), server.close())
        assert len(cancelled) == 10
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert not server.is_open
        for use in (lambda: server.send(b"x", address), lambda: server.address, lambda: server.join("239.1.2.3")):
            with pytest.raises(ConnectionClosed):
                use()
        with pytest.raises(UsageError, match="in use, or was"):
            await server.bind("127.0.0.1", 0)

    assert run(main) == []


def test_a_handler_may_close_the_endpoint(run: Run) -> None:
    async def main(reactor: Reactor) -> None:
        closed = asyncio.Event()

        async def on_message(endpoint: UdpEndpoint[bytes], _message: bytes, _address: Address) -> None:
            await endpoint.close()
            closed.set()

        server: UdpEndpoint[bytes] = UdpEndpoint(reactor, on_message)
        client: UdpEndpoint[bytes] = UdpEndpoint(reactor)
        address = await bound(server)
        await bound(client)
        client.send(b"stop", address)
        await closed.wait()
        await client.close()

    assert run(main) == []
