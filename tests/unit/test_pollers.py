"""Event loops by the name of their poller."""

import asyncio
import selectors
import sys

import pytest

from trunkline.errors import UsageError
from trunkline.reactor import POLLERS, Reactor, new_event_loop

HERE = [name for name in POLLERS if name != "kqueue"]


@pytest.mark.parametrize("poller", HERE)
def test_each_poller_of_this_platform_carries_bytes(poller: str) -> None:
    async def echo() -> bytes:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.readline())
            writer.close()
            await writer.wait_closed()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"hello\n")
        line = await reader.readline()
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        return line

    assert Reactor.run(echo, poller) == b"hello\n"


@pytest.mark.parametrize("poller", ["epoll", "poll", "select"])
def test_the_name_is_the_poller(poller: str) -> None:
    loop = new_event_loop(poller)
    selector = loop._selector  # type: ignore[attr-defined]
    assert type(selector).__name__.lower() == f"{poller}selector"
    loop.close()


def test_by_default_it_is_uvloop() -> None:
    loop = new_event_loop()
    assert type(loop).__module__ == "uvloop"
    loop.close()


def test_without_uvloop_the_default_is_the_platforms_best(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    loop = new_event_loop()
    assert isinstance(loop, asyncio.SelectorEventLoop)
    loop.close()
    with pytest.raises(UsageError, match='poller = "uvloop": there is none here; there are auto, epoll, poll, select'):
        new_event_loop("uvloop")


@pytest.mark.parametrize("poller", ["kqueue", "iocp", ""])
def test_a_poller_that_is_not_here_is_refused_with_those_that_are(poller: str) -> None:
    assert not hasattr(selectors, "KqueueSelector")
    with pytest.raises(UsageError, match="there are auto, uvloop, epoll, poll, select"):
        new_event_loop(poller)
