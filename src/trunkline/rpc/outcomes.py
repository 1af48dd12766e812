"""What a caller holds of a call: the future of its result, or the stream."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Protocol, Self

import msgspec

from trunkline.errors import BadFrame
from trunkline.reactor import Reactor
from trunkline.rpc.streams import Credits, IncomingItems

__all__ = ["CallFuture", "CallStream", "Feed", "GivesUp", "StreamCall"]


class GivesUp(Protocol):
    """The caller that a call is given up by."""

    reactor: Reactor

    def give_up(self, call_id: int) -> None:
        """Nobody waits for the call any more."""


class Feed:
    """What a call sends besides: the items of an argument that is a stream."""

    __slots__ = ("credits", "task")

    def __init__(self, credits_left: Credits, task: "asyncio.Task[None]") -> None:
        self.credits = credits_left
        self.task = task


class CallFuture(asyncio.Future[Any]):
    """The outcome of a call: to be awaited, once or more often. Reactor's thread.

    `cancel` tells the callee that nobody waits any more; so does cancelling the task that awaits it.

    Attributes:
        call_id: the call's.
    """

    __slots__ = ("_caller", "_decode", "call_id", "feed")

    # Set by who makes it: an __init__ in Python would take longer than all the rest.
    _caller: "GivesUp"
    _decode: Callable[[msgspec.Raw], Any]
    call_id: int
    feed: Feed | None

    def cancel(self, msg: Any | None = None) -> bool:
        """Gives the call up. See `asyncio.Future.cancel`."""
        if not super().cancel(msg):
            return False
        self._caller.give_up(self.call_id)
        return True

    def finish(self, result: msgspec.Raw) -> None:
        """The package's: the reply has come."""
        try:
            self.set_result(self._decode(result))
        except (ValueError, RecursionError) as error:
            self.set_exception(BadFrame(f"the result is not what was asked for: {error}"))

    def fail(self, error: Exception) -> None:
        """The package's: there will be no reply."""
        if not self.done():
            self.set_exception(error)


class StreamCall:
    """A call whose result is a stream."""

    __slots__ = ("feed", "items")

    def __init__(self, items: IncomingItems) -> None:
        self.items = items
        self.feed: Feed | None = None

    def finish(self, _result: msgspec.Raw) -> None:
        """The stream has come to its end."""
        self.items.end()

    def fail(self, error: Exception) -> None:
        """It has ended otherwise."""
        self.items.end(error)


class CallStream:
    """The items of a method's stream, to be taken by ``async for``. Reactor's thread; one coroutine at a time.

    The callee is held back by whoever takes the items. A stream that nobody holds any more is given up, as by `aclose`;
    so is one whose taker is cancelled while it waits for an item, as an asynchronous generator would end.
    """

    __slots__ = ("__weakref__", "_call_id", "_caller", "_items")

    def __init__(self, caller: "GivesUp", call_id: int, items: IncomingItems) -> None:
        self._caller = caller
        self._call_id = call_id
        self._items = items

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        try:
            return await self._items.__anext__()
        except asyncio.CancelledError:
            # At once: the error holds this object for as long as somebody holds the error.
            self._give_up()
            raise

    async def aclose(self) -> None:
        """Gives the stream up, if it has not ended."""
        self._give_up()

    def _give_up(self) -> None:
        if not self._items.has_ended:
            self._items.end()
            self._caller.give_up(self._call_id)

    def __del__(self) -> None:
        if not self._items.has_ended:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._caller.reactor.call(self._caller.give_up, self._call_id)
