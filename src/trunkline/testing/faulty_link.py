"""A bad line between a client and a server."""

import asyncio
import contextlib
import random
import socket
import struct
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from trunkline.errors import UsageError
from trunkline.tcp import bind_tcp, bind_unix

__all__ = ["FaultyLink", "LinkFaults"]

_PIECE_BYTES: Final = 65_536
_LINGER_NOT: Final = struct.pack("ii", 1, 0)  # so that close resets. Source: socket(7), SO_LINGER


class LinkFaults(msgspec.Struct, frozen=True, kw_only=True):
    """What happens to the bytes of one direction. By default they pass as they are.

    The three that name a count of bytes happen once to each connection, behind so many of its bytes: it passes exactly
    those first.

    Raises:
        UsageError: a value is out of range.
    """

    piece_bytes: int | None = None
    """The longest piece in which bytes are passed on; how long each is, chance says. 1 for single bytes; None for as
    they come."""
    delay: float = 0.0
    """Seconds for which each piece is held."""
    bytes_per_second: float | None = None
    """How fast bytes pass; None for at once."""
    stall_after_bytes: int | None = None
    """Then nothing passes any more, nor is read from who sends, and the connection stays."""
    end_after_bytes: int | None = None
    """Then this direction ends in good order, and what still comes is thrown away."""
    reset_after_bytes: int | None = None
    """Then both sides get a reset."""

    def __post_init__(self) -> None:
        for name in ("stall_after_bytes", "end_after_bytes", "reset_after_bytes"):
            if (getattr(self, name) or 0) < 0:
                raise UsageError(f"{name} = {getattr(self, name)}: it must be 0 or more")
        if self.piece_bytes is not None and self.piece_bytes < 1:
            raise UsageError(f"piece_bytes = {self.piece_bytes}: it must be 1 or more")
        if self.delay < 0 or (self.bytes_per_second is not None and not self.bytes_per_second > 0):
            raise UsageError(f"delay = {self.delay}, bytes_per_second = {self.bytes_per_second}: they can't be")

    def until(self, passed: int) -> tuple[int, str]:
        """How many more bytes pass before something happens to the connection, and what: a word, empty for nothing.

        Args:
            passed: how many have passed.
        """
        events = [(self.reset_after_bytes, "reset"), (self.end_after_bytes, "end"), (self.stall_after_bytes, "stall")]
        return min(
            ((at - passed, what) for at, what in events if at is not None and at >= passed), default=(1 << 62, "")
        )


class FaultyLink:
    """Passes connections on to a server, with faults. For tests: an asynchronous context manager, in the running loop.

    As in ``async with FaultyLink(("127.0.0.1", port), up=LinkFaults(piece_bytes=1)) as link:``, with clients that
    connect to ``link.address``. Faults are chosen by chance from the seed: the n-th connection has the same each
    time. Nothing is left behind at the end. Any one thread; not for load, for each connection costs two tasks.

    Args:
        target: the server's host and port, or the path of its Unix socket.
        up: what happens to what clients send. It may be replaced at any time, also for connections that are up.
        down: the same for what the server sends.
        path: where to listen, as a Unix socket; None for a free port of 127.0.0.1.
        seed: of what chance decides.

    Attributes:
        address: what clients connect to: host and port, or a path.
        connections: how many there are just now.
        accepted: how many there have been.
        passed_up, passed_down: bytes passed on so far.
    """

    def __init__(
        self,
        target: tuple[str, int] | str,
        up: LinkFaults | None = None,
        down: LinkFaults | None = None,
        *,
        path: str | None = None,
        seed: int = 0,
    ) -> None:
        self.up = up or LinkFaults()
        self.down = down or LinkFaults()
        self.address: tuple[str, int] | str = path or ""
        self.accepted = self.passed_up = self.passed_down = 0
        self._target = target
        self._path = path
        self._seed = seed
        self._links: dict[_Link, asyncio.Task[None]] = {}
        self._flows = asyncio.Event()
        self._flows.set()
        self._accepting: asyncio.Task[None] | None = None

    @property
    def connections(self) -> int:
        """How many connections there are just now."""
        return len(self._links)

    async def __aenter__(self) -> Self:
        if self._path is None:
            (sock,) = bind_tcp("127.0.0.1", 0)
            self.address = sock.getsockname()
        else:
            sock = bind_unix(self._path)
        self._accepting = asyncio.create_task(self._accept(sock))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def stall(self) -> None:
        """From now on nothing passes, in both directions of all connections, and nobody is told."""
        self._flows.clear()

    def resume(self) -> None:
        """Ends a stall: all that waited passes."""
        self._flows.set()

    async def reset(self) -> None:
        """Drops all connections, with a reset to both sides."""
        tasks = list(self._links.values())
        for link in self._links:
            link.reset = True
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def close(self) -> None:
        """Drops all connections and listens no more. Closing twice does nothing."""
        accepting, self._accepting = self._accepting, None
        if accepting is not None:
            accepting.cancel()
            await asyncio.wait([accepting])
        await self.reset()

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                client, _ = await loop.sock_accept(listener)
                self.accepted += 1
                link = _Link(self, client, f"{self._seed}/{self.accepted}")
                task = asyncio.create_task(link.run())
                self._links[link] = task
                task.add_done_callback(lambda _task, link=link: self._drop(link))  # type: ignore[misc]
        finally:
            listener.close()
            if self._path is not None:
                Path(self._path).unlink(missing_ok=True)  # noqa: ASYNC240  at the end, where nothing may wait

    def _drop(self, link: "_Link") -> None:
        self._links.pop(link, None)
        link.close()  # also of one whose task was cancelled before it had begun


class _Link:
    """One connection through the link."""

    def __init__(self, owner: FaultyLink, client: socket.socket, seed: str) -> None:
        self.reset = False
        self._owner = owner
        self._client = client
        self._server: socket.socket | None = None
        self._seed = seed

    async def run(self) -> None:
        loop, target = asyncio.get_running_loop(), self._owner._target
        family = socket.AF_UNIX if isinstance(target, str) else socket.AF_INET6 if ":" in target[0] else socket.AF_INET
        self._server = server = socket.socket(family, socket.SOCK_STREAM)
        for sock in (self._client, server):
            sock.setblocking(False)
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await loop.sock_connect(server, target)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump("up", self._client, server))
                group.create_task(self._pump("down", server, self._client))
        except* OSError:
            self.reset = True

    def close(self) -> None:
        for sock in (self._client, self._server):
            if sock is not None and sock.fileno() >= 0:
                if self.reset:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
                sock.close()

    async def _pump(self, way: str, source: socket.socket, target: socket.socket) -> None:
        loop, owner = asyncio.get_running_loop(), self._owner
        chance = random.Random(f"{self._seed}/{way}")  # noqa: S311  repeatable, not secret
        passed, ended = 0, False
        while data := await loop.sock_recv(source, _PIECE_BYTES):
            while data and not ended:
                faults: LinkFaults = getattr(owner, way)
                left, what = faults.until(passed)
                if left == 0:
                    ended = await self._strike(what, target)
                    continue
                longest = min(left, len(data))
                size = longest if faults.piece_bytes is None else chance.randint(1, min(longest, faults.piece_bytes))
                await self._pass(data[:size], target, faults)
                setattr(owner, f"passed_{way}", getattr(owner, f"passed_{way}") + size)
                passed, data = passed + size, data[size:]
            if not ended and (happens := getattr(owner, way).until(passed))[0] == 0:
                ended = await self._strike(happens[1], target)
        if not ended:
            await self._end(target)

    async def _strike(self, what: str, target: socket.socket) -> bool:
        """Lets happen what is to happen; returns whether the direction has ended."""
        if what == "reset":
            raise ConnectionResetError
        if what == "stall":
            await asyncio.get_running_loop().create_future()  # until the link is dropped
        await self._end(target)
        return True

    async def _pass(self, data: bytes, target: socket.socket, faults: LinkFaults) -> None:
        rate = faults.bytes_per_second
        # Without a wait too, so that the other side has a chance to read piece by piece.
        await asyncio.sleep(faults.delay + (len(data) / rate if rate else 0.0))
        await self._owner._flows.wait()
        await asyncio.get_running_loop().sock_sendall(target, data)

    async def _end(self, target: socket.socket) -> None:
        await self._owner._flows.wait()
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)
