"""Streams of items with credit: who takes them says how many may come."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Self

import msgspec

from trunkline.errors import BadFrame, UsageError
from trunkline.rpc.messages import CREDIT_LIMIT

__all__ = ["Credits", "IncomingItems", "Tally"]


class Tally:
    """How many bytes somebody holds."""

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held = 0


class Credits:
    """How many items this side may still send in one stream. Reactor's thread.

    Args:
        loop: where it waits.
        count: items that may be sent from the start.
    """

    __slots__ = ("_count", "_loop", "_waiter")

    def __init__(self, loop: asyncio.AbstractEventLoop, count: int) -> None:
        self._loop = loop
        self._count = count
        self._waiter: asyncio.Future[None] | None = None

    def add(self, count: int) -> None:
        """The peer gives more."""
        self._count = min(self._count + count, CREDIT_LIMIT)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def take(self) -> None:
        """Takes credit for one item; waits until there is some. One coroutine at a time."""
        while not self._count:
            self._waiter = self._loop.create_future()
            await self._waiter
        self._count -= 1


class IncomingItems:
    """The items of a stream that come in: an asynchronous iterator. Reactor's thread; one coroutine at a time.

    It holds at most as many as it has given credit for. More is given when half of them have been taken.

    Args:
        loop: where it waits.
        window: items that may come before any is taken; the peer has been told of them.
        decode: reads one; it raises `ValueError` or `RecursionError` where it is not of the stream's type.
        grant: called with a count when the peer may send so many more.
        tally: where the bytes of the items that it holds are counted.
    """

    __slots__ = (
        "_credit", "_decode", "_end", "_grant", "_loop", "_ready", "_taken", "_tally", "_waiter", "_window",
    )  # fmt: skip

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        window: int,
        decode: Callable[[msgspec.Raw], Any],
        grant: Callable[[int], object],
        tally: Tally,
    ) -> None:
        self._loop = loop
        self._window = self._credit = window
        self._decode = decode
        self._grant = grant
        self._ready: deque[tuple[Any, int]] = deque()
        self._tally = tally
        self._taken = 0
        self._end: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    def put(self, raw: msgspec.Raw) -> None:
        """One item has come.

        Raises:
            BadFrame: there was no credit for it.
            ValueError, RecursionError: it is not of the stream's type.
        """
        if not self._credit:
            raise BadFrame("an item of a stream came without credit for it")
        self._credit -= 1
        self._ready.append((self._decode(raw), len(raw)))
        self._tally.held += len(raw)
        self._wake()

    def end(self, error: Exception | None = None) -> None:
        """No more items come; what has come can still be taken. Only the first end counts.

        Args:
            error: why, if it is not the stream's own end.
        """
        if self._end is None:
            self._end = StopAsyncIteration() if error is None else error
            self._wake()

    def drop(self) -> None:
        """Nobody takes what has come."""
        while self._ready:
            self._tally.held -= self._ready.popleft()[1]

    @property
    def has_ended(self) -> bool:
        """Whether no more items come."""
        return self._end is not None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        while not self._ready:
            if self._end is not None:
                raise self._end
            if self._waiter is not None:
                raise UsageError("another coroutine waits for the next item of this stream already")
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        item, size = self._ready.popleft()
        self._tally.held -= size
        self._taken += 1
        if self._end is None and 2 * self._taken >= self._window:
            count, self._taken = self._taken, 0
            self._credit += count
            self._grant(count)
        return item
