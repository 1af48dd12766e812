"""What little input decompresses to much is handled piece by piece."""

import asyncio
import tracemalloc
from collections.abc import Callable

import pytest

from trunkline import Reactor, TcpConnection, TcpServer
from trunkline.wire import Frames, Session, SimpleReactorWire

SIZE = 1_000_000  # a little less than the limit, which what can't be compressed would pass
COUNT = 60


def expanding(session: Session, other: Session) -> tuple[bytes, bytes]:
    """What a client says first, and then few bytes that are 60 messages of 1 MB each."""
    session.start()
    hello = bytes(session.output)
    other.start()
    session.receive(bytes(other.output))
    return hello, session.encode_all([bytes(SIZE)] * COUNT)


KINDS: dict[str, tuple[Callable[[], Session], Callable[[], Session]]] = {
    "zlib": (lambda: Frames(compression=["zlib"]), lambda: Frames(compression=["zlib"])),
    "zstd": (lambda: Frames(compression=["zstd"]), lambda: Frames(compression=["zstd"])),
    "simple_reactor": (lambda: SimpleReactorWire("server"), lambda: SimpleReactorWire("client")),
}


async def served(
    kind: str,
    on_message: Callable[..., object] | None,
    on_connection: Callable[..., object] | None = None,
) -> tuple[TcpServer, asyncio.StreamWriter]:
    new_server, new_client = KINDS[kind]
    server = TcpServer(Reactor(asyncio.get_running_loop()), new_server, on_message, on_connection=on_connection)
    hello, frames = expanding(new_client(), new_server())
    _reader, writer = await asyncio.open_connection("127.0.0.1", await server.listen("127.0.0.1", 0))
    writer.write(hello + frames)
    return server, writer


@pytest.mark.parametrize("kind", KINDS)
def test_few_bytes_that_are_many_messages_take_little_memory(kind: str) -> None:
    async def main() -> None:
        handled, done = 0, asyncio.Event()

        def on_message(_connection: TcpConnection, message: bytes) -> None:
            nonlocal handled
            assert len(message) == SIZE
            handled += 1
            if handled == COUNT:
                done.set()

        server, writer = await served(kind, on_message)
        tracemalloc.start()
        try:
            async with asyncio.timeout(20):
                await done.wait()
            _size, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 8 * SIZE, "of 60"
        writer.close()
        await server.drain(2)

    asyncio.run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_all_of_them_come_though_the_peer_has_ended_and_reading_is_paused_meanwhile(kind: str) -> None:
    async def main() -> None:
        handled, done = 0, asyncio.Event()

        def on_message(connection: TcpConnection, message: bytes) -> None:
            nonlocal handled
            handled += 1
            if handled == COUNT:
                done.set()
            elif handled % 7 == 0:
                connection.pause_reading()
                asyncio.get_running_loop().call_later(0.01, connection.resume_reading)

        closed = asyncio.Event()
        server, writer = await served(kind, on_message, lambda one: one.is_open or closed.set())
        writer.write_eof()
        async with asyncio.timeout(20):
            await done.wait()
            await closed.wait()
        assert server.closed == {"peer_closed": 1}
        writer.close()
        await server.drain(2)

    asyncio.run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_who_iterates_gets_them_one_by_one(kind: str) -> None:
    async def main() -> None:
        seen, closed = 0, asyncio.Event()

        async def on_connection(connection: TcpConnection) -> None:
            nonlocal seen
            if not connection.is_open:
                closed.set()
                return
            async for message in connection:
                assert len(message) == SIZE
                seen += 1
                await asyncio.sleep(0)

        server, writer = await served(kind, None, on_connection)
        writer.write_eof()
        async with asyncio.timeout(20):
            await closed.wait()
        assert seen == COUNT
        writer.close()
        await server.drain(2)

    asyncio.run(main())
