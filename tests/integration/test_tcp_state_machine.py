"""A real server and many clients over bad lines: nothing is lost that could arrive, and nothing is left behind."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from trunkline.errors import ConnectionClosed
from trunkline.reactor import Reactor, new_event_loop
from trunkline.tcp import ConnectionOptions, OutboundBudget, TcpClient, TcpConnection, TcpServer
from trunkline.testing import FaultyLink, LinkFaults
from trunkline.wire import Framer, Frames, LengthFramer, SimpleReactorWire

LOCAL = "127.0.0.1"
WAIT = 20.0
NEWS = b"news "

KINDS: dict[str, tuple[Callable[[], Framer], Callable[[], Framer]]] = {
    "length": (LengthFramer, LengthFramer),
    "frames": (lambda: Frames(compression=("zlib",)), lambda: Frames(compression=("zstd", "zlib"))),
    "simple": (lambda: SimpleReactorWire("server"), lambda: SimpleReactorWire("client")),
}

lines = st.sampled_from(
    [
        LinkFaults(),
        LinkFaults(piece_bytes=1),
        LinkFaults(piece_bytes=50),
        LinkFaults(delay=0.001),
        LinkFaults(reset_after_bytes=300),
        LinkFaults(end_after_bytes=300),
    ]
)


class Peer:
    """A client, what it has sent on its connection, and what it has got back."""

    def __init__(self) -> None:
        self.client: TcpClient
        self.connection: TcpConnection | None = None
        self.sent: list[bytes] = []
        self.echoed: list[bytes] = []
        self.news: list[bytes] = []

    def on_message(self, _connection: TcpConnection, message: bytes) -> None:
        (self.news if message.startswith(NEWS) else self.echoed).append(message)


class NetworkMachine(RuleBasedStateMachine):
    """A server that echoes and broadcasts, and clients that come and go."""

    peers = Bundle("peers")

    @initialize(
        poller=st.sampled_from(["auto", "epoll"]),
        kind=st.sampled_from(sorted(KINDS)),
        coroutines=st.booleans(),
    )
    def start(self, poller: str, kind: str, coroutines: bool) -> None:
        self.runner = asyncio.Runner(loop_factory=lambda: new_event_loop(poller))
        self.new_server_framer, self.new_client_framer = KINDS[kind]
        self.coroutines = coroutines
        self.all: list[Peer] = []
        self.told: Counter[str] = Counter()
        self.broadcasts = 0
        self.budget = OutboundBudget()
        self.run(self._start)

    def run(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(WAIT):
                await work()

        self.runner.run(bounded())

    async def _start(self) -> None:
        def on_connection(connection: TcpConnection) -> None:
            self.told["up" if connection.is_open else "down"] += 1

        def echo(connection: TcpConnection, message: bytes) -> None:
            connection.send(message)

        async def echo_in_a_while(connection: TcpConnection, message: bytes) -> None:
            await asyncio.sleep(0)
            if connection.is_open:
                connection.send(message)

        self.reported: list[BaseException] = []
        self.reactor = Reactor(asyncio.get_running_loop(), self.reported.append)
        self.server = TcpServer(
            self.reactor,
            self.new_server_framer,
            echo_in_a_while if self.coroutines else echo,
            on_connection=on_connection,
            options=ConnectionOptions(close_timeout=1.0, high_water_bytes=8_192, low_water_bytes=1_024),
            budget=self.budget,
        )
        await self.server.listen(LOCAL, 0)
        self.link = await FaultyLink((LOCAL, self.server.port)).__aenter__()

    @rule(target=peers, up=lines, down=lines)
    def connect(self, up: LinkFaults, down: LinkFaults) -> Peer:
        peer = Peer()
        self.all.append(peer)

        async def work() -> None:
            self.link.up, self.link.down = up, down
            peer.client = TcpClient(
                self.reactor,
                self.link.address,
                self.new_client_framer,
                peer.on_message,
                options=ConnectionOptions(close_timeout=1.0),
                budget=self.budget,
                connect_timeout=0.3,
            )
            try:
                peer.connection = await peer.client.open()
            except (OSError, ConnectionClosed):
                await peer.client.stop()

        self.run(work)
        return peer

    @rule(peer=peers, sizes=st.lists(st.sampled_from([1, 20, 300, 5_000, 80_000]), min_size=1, max_size=6))
    def send(self, peer: Peer, sizes: list[int]) -> None:
        async def work() -> None:
            for size in sizes:
                if peer.connection is not None and peer.connection.is_open:
                    message = b"%d %d " % (id(peer), len(peer.sent)) + b"x" * size
                    peer.connection.send(message)
                    peer.sent.append(message)

        self.run(work)

    @rule()
    def broadcast(self) -> None:
        async def work() -> None:
            self.broadcasts += 1
            self.server.broadcast(NEWS + b"%d" % self.broadcasts)

        self.run(work)

    @rule(seconds=st.sampled_from([0.0, 0.002, 0.02]))
    def wait(self, seconds: float) -> None:
        self.run(lambda: asyncio.sleep(seconds))

    @rule(up=lines, down=lines)
    def change_the_lines(self, up: LinkFaults, down: LinkFaults) -> None:
        self.link.up, self.link.down = up, down

    @rule()
    def stall(self) -> None:
        self.link.stall()

    @rule()
    def resume(self) -> None:
        self.link.resume()

    @rule()
    def reset_all(self) -> None:
        self.run(self.link.reset)

    @rule(peer=consumes(peers), how=st.sampled_from(["close", "shutdown", "abort"]))
    def leave(self, peer: Peer, how: str) -> None:
        async def work() -> None:
            if peer.connection is not None:
                getattr(peer.connection, how)()

        self.run(work)

    @rule(number=st.integers(0, 5), how=st.sampled_from(["close", "abort", "finish"]))
    def server_ends_one(self, number: int, how: str) -> None:
        async def work() -> None:
            for connection in list(self.server.connections.values())[number : number + 1]:
                getattr(connection, how)("ended")

        self.run(work)

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "server"):
            return
        for peer in self.all:
            assert peer.echoed == peer.sent[: len(peer.echoed)], "echoes are lost, doubled or out of order"
            numbers = [int(news.removeprefix(NEWS)) for news in peer.news]
            assert numbers == sorted(set(numbers)), "news are doubled or out of order"
        assert self.server.accepted == self.server.closed.total() + len(self.server.connections)
        assert self.told["up"] - self.told["down"] <= len(self.server.connections)
        assert self.budget.used_bytes >= 0
        assert not self.reported

    def teardown(self) -> None:
        if not hasattr(self, "server"):
            return
        try:
            self.run(self._end)
        finally:
            self.runner.close()

    async def _end(self) -> None:
        self.link.resume()
        self.link.up = self.link.down = LinkFaults()
        for peer in self.all:
            if peer.connection is not None and peer.connection.is_open:
                # Its connection may be lost by what has happened to its line before; but else all comes back.
                while peer.connection.is_open and len(peer.echoed) < len(peer.sent):  # noqa: ASYNC110
                    await asyncio.sleep(0.002)
        self.holds()
        await self.server.drain(3.0)
        await asyncio.gather(*(peer.client.stop() for peer in self.all))
        await self.link.close()
        self.holds()
        assert self.budget.used_bytes == 0
        assert not self.server.connections
        assert self.told["up"] == self.told["down"]
        admission = self.server._intake._admission
        assert (admission.connections, admission.handshakes) == (0, 0)
        assert self.link.connections == 0
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"tasks are left behind: {left}"


TestNetwork = NetworkMachine.TestCase
TestNetwork.settings = settings(max_examples=12, stateful_step_count=20, deadline=None)


@pytest.mark.slow
class TestNetworkLong(NetworkMachine.TestCase):  # type: ignore[misc, name-defined]
    settings = settings(max_examples=600, stateful_step_count=40, deadline=None)
