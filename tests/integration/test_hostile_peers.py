"""Peers that break the protocol, stall, flood or vanish: each costs little, ends soon, and disturbs nobody else.

Run as a program, this file is one of the processes that the crowd of stalled TLS handshakes needs: `serve` or `stall`.
"""

import asyncio
import contextlib
import gc
import json
import logging
import random
import resource
import select
import socket
import ssl
import struct
import subprocess
import sys
import time
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from trunkline.errors import BadFrame, FrameTooLarge, PeerTimeout, ProtocolError
from trunkline.reactor import Reactor
from trunkline.tcp import (
    CloseReason,
    ConnectionLimits,
    ConnectionOptions,
    ServerTls,
    TcpConnection,
    TcpServer,
    connect,
)
from trunkline.wire import Framer, Frames, LengthFramer, NetstringFramer, SimpleReactorWire, VarintFramer

LOCAL = "127.0.0.1"
WAIT = 20.0
SOON = 1.0  # seconds, within which a breach has to end the connection
LIMIT = 65_536  # bytes of a message
MEMORY = 1_048_576  # bytes by which the server may grow


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Handlers that fail on purpose are reported, as they should be, and of no interest here."""
    logging.getLogger("trunkline").setLevel(logging.CRITICAL)
    yield
    logging.getLogger("trunkline").setLevel(logging.NOTSET)


class Attacker:
    """A raw socket to the server."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.reader = asyncio.get_running_loop()

    async def send(self, *pieces: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                await self.reader.sock_sendall(self.sock, piece)

    async def closed_within(self, seconds: float) -> float:
        """Reads on until the server has ended the connection; the seconds that it took."""
        began = time.monotonic()
        async with asyncio.timeout(seconds):
            with contextlib.suppress(ConnectionError):
                while await self.reader.sock_recv(self.sock, 65_536):
                    pass
        return time.monotonic() - began

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


class House:
    """A server under attack, with a peer beside that asks for an echo all the while."""

    def __init__(self, new_framer: Callable[[], Framer], on_message: Any = None, **more: Any) -> None:
        self.errors: list[ProtocolError] = []
        self.echoes = 0
        self.slowest = 0.0
        self._new_framer = new_framer
        self._on_message = on_message or (lambda connection, message: connection.send(message))
        self._more = more
        self._peer_framer: Callable[[], Framer] = more.pop("peer_framer", new_framer)

    async def __aenter__(self) -> "House":
        def on_message(connection: TcpConnection, message: bytes) -> object:
            return connection.send(message) if message == b"echo" else self._on_message(connection, message)

        self.server = TcpServer(
            Reactor(asyncio.get_running_loop()),
            self._new_framer,
            on_message,
            on_error=lambda _connection, error: self.errors.append(error),
            **self._more,
        )
        await self.server.listen(LOCAL, 0)
        self._attackers: list[Attacker] = []
        self._stopped = asyncio.Event()
        self._asking = asyncio.create_task(self._ask())
        await self.until(lambda: self.echoes > 2)
        return self

    async def __aexit__(self, kind: Any, *_error: object) -> None:
        self._stopped.set()
        before = self.echoes
        await self._asking  # raises if the peer beside was disturbed
        assert kind is not None or before > 2
        for attacker in self._attackers:
            attacker.sock.close()
        await self.server.drain(2.0)
        assert not self.server.connections

    async def _ask(self) -> None:
        async with connect((LOCAL, self.server.port), self._peer_framer) as connection:
            while not self._stopped.is_set():
                asked = time.monotonic()
                connection.send(b"echo")
                async with asyncio.timeout(WAIT):
                    assert await connection.receive() == b"echo"
                self.slowest = max(self.slowest, time.monotonic() - asked)
                self.echoes += 1
                await asyncio.sleep(0.005)

    async def attacker(self, *, receive_bytes: int | None = None) -> Attacker:
        sock = socket.socket()
        if receive_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (LOCAL, self.server.port))
        self._attackers.append(Attacker(sock))
        return self._attackers[-1]

    async def until(self, condition: Callable[[], bool], seconds: float = WAIT) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                assert not self._asking.done() or self._asking.result() is None
                await asyncio.sleep(0.01)

    async def ended(self, reason: str, *, within: float = SOON) -> None:
        """The attacker's connection ended in time, and was counted."""
        await self.until(lambda: self.server.closed[reason] == 1, within)
        echoes = self.echoes
        await self.until(lambda: self.echoes >= echoes + 2)


def run(work: Callable[[], Any], poller: str = "auto") -> None:
    Reactor.run(work, poller)


@contextlib.contextmanager
def bounded(limit_bytes: int = MEMORY) -> Iterator[None]:
    """What is allocated within, at any moment, is no more than this."""
    gc.collect()
    tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < limit_bytes, f"it grew by {peak - before} bytes"


# Frames that are none. Each is what a peer sends, after its hello if it has one.

HEAD = struct.Struct(">IB")
DATA, DATA_COMPRESSED = 2, 3


def hello(*features: str) -> bytes:
    peer = Frames(LIMIT, compression=features)
    peer.start()
    return bytes(peer.output)


def compressed(*parts: bytes, size: int = LIMIT) -> bytes:
    payload = struct.pack(">I", size) + b"".join(parts)
    return HEAD.pack(len(payload) + 1, DATA_COMPRESSED) + payload


def zlib_bomb(megabytes: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(megabytes)) + packer.flush(zlib.Z_SYNC_FLUSH)


def zstd_bomb(megabytes: int) -> bytes:
    packer = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters.from_level(1, window_log=14)
    ).compressobj()
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(megabytes)) + packer.flush(
        zstandard.COMPRESSOBJ_FLUSH_BLOCK
    )


def simple(payload: bytes) -> bytes:
    return struct.pack("<I", len(payload)) + payload


def packed() -> Frames:
    return Frames(LIMIT, compression=("zstd", "zlib"))


BREACHES = {
    "a length of 0xFFFFFFFF": (lambda: LengthFramer(LIMIT), b"\xff\xff\xff\xff", FrameTooLarge),
    "a varint without an end": (lambda: VarintFramer(LIMIT), b"\xff" * 20, FrameTooLarge),
    "a netstring of a billion": (lambda: NetstringFramer(LIMIT), b"1000000000:", FrameTooLarge),
    "a session's length of 0xFFFFFFFF": (packed, hello() + b"\xff\xff\xff\xff\x02", FrameTooLarge),
    "a session's length of 0": (packed, hello() + b"\0\0\0\0\0", BadFrame),
    "no hello": (packed, HEAD.pack(2, DATA) + b"x", BadFrame),
    "two hellos": (packed, hello() + hello(), BadFrame),
    "HTTP": (packed, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", BadFrame),
    "a zlib bomb that lies": (packed, hello("zlib") + compressed(zlib_bomb(40)), FrameTooLarge),
    "a zlib bomb that says so": (packed, hello("zlib") + compressed(zlib_bomb(40), size=40 << 20), FrameTooLarge),
    "a zstd bomb that lies": (packed, hello("zstd") + compressed(zstd_bomb(40)), FrameTooLarge),
    "a zstd bomb that says so": (packed, hello("zstd") + compressed(zstd_bomb(40), size=40 << 20), FrameTooLarge),
    "20,000 empty zlib members": (packed, hello("zlib") + compressed(*[zlib.compress(b"")] * 7_000), BadFrame),
    "20,000 empty zstd members": (
        packed,
        hello("zstd") + compressed(*[zstandard.ZstdCompressor().compress(b"")] * 7_000),
        BadFrame,
    ),
    "a zlib stream cut short": (packed, hello("zlib") + compressed(zlib.compress(bytes(LIMIT))[:-20]), BadFrame),
    "garbage for zlib": (packed, hello("zlib") + compressed(random.Random(1).randbytes(1_000)), BadFrame),
    "garbage for zstd": (packed, hello("zstd") + compressed(random.Random(1).randbytes(1_000)), BadFrame),
    "SimpleReactor, a length of 0xFFFFFFFF": (
        lambda: SimpleReactorWire("server", limit_bytes=LIMIT),
        b"\xff\xff\xff\xff",
        FrameTooLarge,
    ),
    "SimpleReactor, a zlib bomb": (
        lambda: SimpleReactorWire("server", limit_bytes=LIMIT),
        simple(zlib_bomb(40)),
        FrameTooLarge,
    ),
    "SimpleReactor, empty members": (
        lambda: SimpleReactorWire("server", limit_bytes=LIMIT),
        simple(zlib.compress(b"") * 7_000),
        BadFrame,
    ),
    "SimpleReactor, no compression": (
        lambda: SimpleReactorWire("server", limit_bytes=LIMIT),
        simple(b"\1\0\0\0plain"),
        BadFrame,
    ),
}


@pytest.mark.parametrize("name", BREACHES)
def test_a_breach_ends_its_own_connection_at_once_and_costs_little(name: str) -> None:
    new_framer, attack, error = BREACHES[name]

    async def main() -> None:
        peer = (lambda: SimpleReactorWire("client")) if "SimpleReactor" in name else new_framer
        async with House(new_framer, peer_framer=peer) as house:
            # A bomb may cost as much as the longest message does.
            with bounded(MEMORY + LIMIT):
                attacker = await house.attacker()
                await attacker.send(attack)
                assert await attacker.closed_within(SOON) < SOON
                await house.ended(CloseReason.BAD_FRAME)
            assert [type(one) for one in house.errors] == [error]

    run(main)


@pytest.mark.parametrize("count", [20_000])
def test_20_000_frames_that_hold_an_empty_stream_each_are_a_breach_at_the_first(count: int) -> None:
    empty = compressed(zlib.compress(b""), size=0)

    async def main() -> None:
        async with House(packed) as house:
            with bounded(2 * MEMORY):  # with what the test itself holds of it
                attacker = await house.attacker()
                sending = asyncio.create_task(attacker.send(hello("zlib") + empty * count))
                await attacker.closed_within(SOON)
                await house.ended(CloseReason.BAD_FRAME)
                await sending
            assert [type(one) for one in house.errors] == [BadFrame]

    run(main)


def test_frames_that_are_interleaved_are_a_breach_and_no_messages() -> None:
    async def main() -> None:
        heard: list[bytes] = []
        async with House(packed, lambda connection, message: heard.append(message)) as house:
            attacker = await house.attacker()
            frames = [HEAD.pack(101, DATA) + bytes([letter]) * 100 for letter in b"AB"]
            # Two writers of one socket: half of the first, half of the second, the rest of both.
            await attacker.send(hello() + frames[0][:50] + frames[1][:50] + frames[0][50:] + frames[1][50:])
            await attacker.closed_within(SOON)
            await house.ended(CloseReason.BAD_FRAME)
            assert len(heard) == 1, "what lies where a frame was promised is a frame; then it is over"

    run(main)


@pytest.mark.parametrize("cut", [1, 4, 5, 60])
def test_a_frame_that_is_cut_short_by_the_end_is_a_breach_and_no_message(cut: int) -> None:
    async def main() -> None:
        heard: list[bytes] = []
        async with House(lambda: LengthFramer(LIMIT), lambda connection, message: heard.append(message)) as house:
            attacker = await house.attacker()
            await attacker.send((struct.pack(">I", 100) + bytes(100))[:cut])
            attacker.sock.shutdown(socket.SHUT_WR)
            await attacker.closed_within(SOON)
            await house.ended(CloseReason.BAD_FRAME)
            assert heard == []
            assert [str(error) for error in house.errors] == ["the stream ends within a frame"]

    run(main)


def test_a_reset_in_the_middle_of_a_frame_is_counted_as_one() -> None:
    async def main() -> None:
        async with House(lambda: LengthFramer(LIMIT)) as house:
            with bounded():
                attacker = await house.attacker()
                await attacker.send(struct.pack(">I", 1_000) + bytes(500))
                await house.until(lambda: len(house.server.connections) == 2)
                attacker.reset()
                await house.ended(CloseReason.RESET)
            assert [str(error) for error in house.errors] == ["the connection was reset within a frame"]

    run(main)


def test_random_bytes_never_raise_anything_but_a_protocol_error() -> None:
    chance = random.Random(7)

    async def main() -> None:
        async with House(packed) as house:
            for number in range(30):
                attacker = await house.attacker()
                await attacker.send(hello("zlib") * (number % 2) + chance.randbytes(chance.randint(1, 400)))
                attacker.sock.shutdown(socket.SHUT_WR)
                await attacker.closed_within(SOON)
            await house.until(lambda: len(house.server.connections) == 1)
            assert set(house.server.closed) <= {CloseReason.BAD_FRAME, CloseReason.PEER_CLOSED}

    run(main)


# Slow ones.


def test_a_hello_that_comes_byte_by_byte_is_held_to_the_handshakes_deadline() -> None:
    async def main() -> None:
        options = ConnectionOptions(handshake_timeout=0.8, idle_timeout=30.0)
        async with House(lambda: Frames(LIMIT), options=options) as house:
            attacker = await house.attacker()

            async def drip() -> None:
                for byte in hello():
                    await attacker.send(bytes([byte]))
                    await asyncio.sleep(0.1)

            dripping = asyncio.create_task(drip())
            took = await attacker.closed_within(0.8 + SOON)
            assert took > 0.7
            await house.ended(CloseReason.HANDSHAKE_TIMEOUT)
            assert [type(error) for error in house.errors] == [PeerTimeout]
            dripping.cancel()

    run(main)


def test_a_peer_that_sends_a_byte_now_and_then_is_idle_in_between() -> None:
    async def main() -> None:
        async with House(lambda: LengthFramer(LIMIT), options=ConnectionOptions(idle_timeout=0.5)) as house:
            attacker = await house.attacker()
            await attacker.send(b"\0")
            await attacker.closed_within(0.5 + SOON)
            await house.ended(CloseReason.IDLE)

    run(main)


GIGABYTE = 1 << 30
CHUNK = 65_536


@pytest.mark.parametrize("poller", ["auto", "epoll"])
def test_who_never_reads_is_dropped_where_the_policy_is_to_close(poller: str) -> None:
    async def main() -> None:
        sent = 0

        def flood(connection: TcpConnection, message: bytes) -> None:
            nonlocal sent
            while connection.is_open and sent < GIGABYTE:
                connection.send(bytes(CHUNK))
                sent += CHUNK

        async with House(lambda: LengthFramer(LIMIT * 2), flood) as house:
            with bounded(8 * MEMORY):
                attacker = await house.attacker(receive_bytes=4_096)
                await attacker.send(b"\0\0\0\5flood")
                await house.ended(CloseReason.OVER_BUDGET)
            assert sent < GIGABYTE

    run(main, poller)


@pytest.mark.parametrize("poller", ["auto", "epoll"])
@pytest.mark.parametrize("overflow", ["raise", "drop_oldest"])
def test_who_never_reads_what_others_send_on_is_dropped_after_the_unread_timeout(overflow: str, poller: str) -> None:
    """The sender waits for room, or has the oldest dropped: a gigabyte never adds up."""

    async def main() -> None:
        async def flood(connection: TcpConnection) -> None:
            for number in range(GIGABYTE // CHUNK):
                if not connection.is_open:
                    return
                if overflow != "drop_oldest":
                    await connection.drain()
                elif number % 64 == 0:
                    await asyncio.sleep(0)
                connection.send(bytes(CHUNK))

        floods: list[asyncio.Task[None]] = []

        def start(connection: TcpConnection, message: bytes) -> None:
            floods.append(asyncio.create_task(flood(connection)))

        options = ConnectionOptions(overflow=overflow, unread_timeout=0.8)  # type: ignore[arg-type]
        async with House(lambda: LengthFramer(LIMIT * 2), start, options=options) as house:
            with bounded(8 * MEMORY):
                attacker = await house.attacker(receive_bytes=4_096)
                await attacker.send(b"\0\0\0\5flood")
                await house.ended(CloseReason.OVER_BUDGET, within=WAIT)
            await asyncio.gather(*floods, return_exceptions=True)

    run(main, poller)


def test_who_asks_and_asks_and_never_reads_the_answers_is_not_read_from() -> None:
    async def main() -> None:
        options = ConnectionOptions(unread_timeout=0.8)
        async with House(
            lambda: LengthFramer(LIMIT), lambda connection, message: connection.send(bytes(10_000)), options=options
        ) as house:
            with bounded(4 * MEMORY):
                attacker = await house.attacker(receive_bytes=4_096)
                asking = asyncio.create_task(attacker.send(*[b"\0\0\0\1x" * 10_000] * 100))
                await house.ended(CloseReason.OVER_BUDGET, within=WAIT)
            attacker.sock.close()
            asking.cancel()
            await asyncio.wait([asking])

    run(main)


def test_a_flood_of_pings_gets_few_pongs_and_takes_no_memory() -> None:
    async def main() -> None:
        async with House(lambda: Frames(LIMIT)) as house:
            with bounded():
                attacker = await house.attacker(receive_bytes=4_096)
                pings = (HEAD.pack(9, 4) + b"12345678") * 1_000
                await attacker.send(hello(), *[pings] * 100)
                before = house.echoes
                await house.until(lambda: house.echoes > before + 2)
            (flooder, _) = sorted(house.server.connections.values(), key=lambda one: one.received)
            assert flooder.sent_bytes < 13 * 10_000, "one pong answers all the pings that came with it"

    run(main)


# Handlers that fail.


def test_a_handler_that_raises_costs_its_own_connection_alone() -> None:
    async def main() -> None:
        def fail(connection: TcpConnection, message: bytes) -> None:
            raise RuntimeError("on purpose")

        async with House(lambda: LengthFramer(LIMIT), fail) as house:
            attacker = await house.attacker()
            await attacker.send(b"\0\0\0\1x")
            await attacker.closed_within(SOON)
            await house.ended(CloseReason.HANDLER_FAILED)

    run(main)


def test_a_judge_of_hellos_that_raises_costs_its_own_connection_alone() -> None:
    async def main() -> None:
        def judge(hello: Any) -> str | None:
            if hello.agent == "bad":
                raise RuntimeError("on purpose")
            return None

        async with House(lambda: Frames(LIMIT, authorize=judge), peer_framer=lambda: Frames(LIMIT)) as house:
            attacker = await house.attacker()
            bad = Frames(LIMIT, agent="bad")
            bad.start()
            await attacker.send(bytes(bad.output))
            await attacker.closed_within(SOON)
            await house.ended(CloseReason.HANDLER_FAILED)

    run(main)


def test_coroutine_handlers_that_never_end_hold_up_their_own_connection_alone() -> None:
    async def main() -> None:
        stuck = 0
        over = asyncio.Event()

        async def hang(connection: TcpConnection, message: bytes) -> None:
            nonlocal stuck
            if message == b"echo":
                connection.send(message)
            else:
                stuck += 1
                await over.wait()

        async with House(lambda: LengthFramer(LIMIT)) as house:
            server = TcpServer(Reactor(asyncio.get_running_loop()), lambda: LengthFramer(LIMIT), hang)
            port = await server.listen(LOCAL, 0)
            with bounded():
                async with connect((LOCAL, port), LengthFramer) as bystander:
                    _reader, writer = await asyncio.open_connection(LOCAL, port)
                    writer.write(b"\0\0\0\1x" * 10_000)
                    await house.until(lambda: stuck >= 64)
                    for _ in range(20):
                        bystander.send(b"echo")
                        assert await bystander.receive() == b"echo"
                    assert stuck == 64, "no more messages are in the works than the options allow"
                    writer.close()
                    with contextlib.suppress(ConnectionError):
                        await writer.wait_closed()
            over.set()
            await server.drain(2.0)

    run(main)


def test_a_handler_that_blocks_has_the_reactor_for_its_turn_and_no_longer() -> None:
    """Messages that come behind a slow one wait for the others' turns."""

    async def main() -> None:
        handled = 0

        def block(connection: TcpConnection, message: bytes) -> None:
            nonlocal handled
            handled += 1
            time.sleep(0.005)

        async with House(lambda: LengthFramer(LIMIT), block) as house:
            attacker = await house.attacker()
            await attacker.send(b"\0\0\0\1x" * 600)  # three seconds of work
            await house.until(lambda: handled > 0)
            before = house.echoes
            await house.until(lambda: house.echoes > before + 2)
            assert handled < 600
            attacker.reset()

    run(main)


# A crowd of TLS handshakes that stall.

CROWD = 2_000
HANDSHAKES = 1_000


def test_2_000_stalled_tls_handshakes_end_at_their_deadline_and_others_are_served(tmp_path: Path) -> None:
    certificate, key = tmp_path / "server.pem", tmp_path / "server.key"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
            "-keyout", str(key), "-out", str(certificate),
        ],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    context = ssl.create_default_context(cafile=str(certificate))
    with Child("serve", certificate=str(certificate), key=str(key)) as server:
        port = server.read()
        with (
            socket.create_connection((LOCAL, port), timeout=WAIT) as sock,
            context.wrap_socket(sock, server_hostname=LOCAL) as guest,
            Child("stall", port=port, count=CROWD) as crowd,
        ):

            def echo() -> None:
                guest.sendall(b"\0\0\0\4echo")
                answer = b""
                while len(answer) < 8:
                    answer += guest.recv(8 - len(answer))
                assert answer == b"\0\0\0\4echo"

            echo()
            assert crowd.read() == CROWD, "all have connected"
            began = time.monotonic()
            while sum((report := server.ask("report"))["refused"].values()) < CROWD:
                assert time.monotonic() - began < WAIT, report
                echo()
                time.sleep(0.02)
            assert report["connections"] == 1
            assert report["refused"]["handshakes_limit"] > 0
            assert report["refused"]["handshake_failed"] >= HANDSHAKES
            with (
                socket.create_connection((LOCAL, port), timeout=WAIT) as late,
                context.wrap_socket(late, server_hostname=LOCAL) as served,
            ):
                served.sendall(b"\0\0\0\4late")
                assert served.recv(100)
            echo()


class Child:
    """This file as a program, which answers each line with a line of JSON."""

    def __init__(self, role: str, **options: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, role, json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_error: object) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(WAIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self.process.stdout.close()

    def read(self) -> Any:
        out = self.process.stdout
        assert out is not None
        assert select.select([out], [], [], WAIT)[0], "the other process says nothing"
        return json.loads(out.readline())

    def ask(self, word: str) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(word.encode() + b"\n")
        return self.read()


async def lines_of_parent() -> AsyncIterator[str]:
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        yield line


def enough_descriptors() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8_192) if hard > 0 else 8_192, hard))


async def serve(certificate: str, key: str) -> None:

    def on_message(connection: TcpConnection, message: bytes) -> None:
        connection.established()
        connection.send(message)

    server = TcpServer(
        Reactor(asyncio.get_running_loop()),
        LengthFramer,
        on_message,
        options=ConnectionOptions(handshake_timeout=3.0),
        limits=ConnectionLimits(handshakes=HANDSHAKES),
        tls=ServerTls(certificate, key),
    )
    print(json.dumps(await server.listen(LOCAL, 0)), flush=True)
    async for _ in lines_of_parent():
        print(json.dumps({"refused": server.refused, "connections": len(server.connections)}), flush=True)
    await server.drain(2.0)


async def stall(port: int, count: int) -> None:
    """Connects, says the first bytes of a TLS handshake, and no more."""
    loop = asyncio.get_running_loop()
    socks = [socket.socket() for _ in range(count)]
    for sock in socks:
        sock.setblocking(False)
        await loop.sock_connect(sock, (LOCAL, port))
        with contextlib.suppress(ConnectionError):
            await loop.sock_sendall(sock, b"\x16\x03\x01")
    print(json.dumps(count), flush=True)
    async for _ in lines_of_parent():
        pass
    for sock in socks:
        sock.close()


if __name__ == "__main__":
    enough_descriptors()
    role, options = {"serve": serve, "stall": stall}[sys.argv[1]], json.loads(sys.argv[2])
    Reactor.run(lambda: role(**options))
