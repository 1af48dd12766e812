"""The half of a peer that calls."""

import abc
import asyncio
import contextlib
from collections.abc import AsyncIterable, Callable
from functools import lru_cache
from math import ceil
from typing import Any, Self

import msgspec

from trunkline.errors import BadFrame, CallLost, ConnectionClosed, DeadlineExceeded, Overloaded, UsageError
from trunkline.rpc.blueprint import RpcBlueprint
from trunkline.rpc.calls import NEVER, CallTable
from trunkline.rpc.context import current_call
from trunkline.rpc.failures import error_of
from trunkline.rpc.messages import Failed, Item, Reply, encode
from trunkline.rpc.streams import Credits, IncomingItems
from trunkline.tcp import CloseReason, TcpConnection
from trunkline.wire import Frames

__all__ = ["CallFuture", "CallStream", "Calling"]

_SMALL_BYTES = 4_096  # a longer message is written at once
_BATCH = 256  # messages that wait for the end of the turn

_decode_any = msgspec.msgpack.Decoder().decode


@lru_cache(maxsize=1_024)
def _decode_as(kind: Any) -> Any:
    return msgspec.msgpack.Decoder(kind).decode


class _Feed:
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
    _caller: "Calling"
    _decode: Callable[[msgspec.Raw], Any]
    call_id: int
    feed: _Feed | None

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


class _StreamCall:
    """A call whose result is a stream."""

    __slots__ = ("feed", "items")

    def __init__(self, items: IncomingItems) -> None:
        self.items = items
        self.feed: _Feed | None = None

    def finish(self, _result: msgspec.Raw) -> None:
        self.items.end()

    def fail(self, error: Exception) -> None:
        self.items.end(error)


class CallStream:
    """The items of a method's stream, to be taken by ``async for``. Reactor's thread; one coroutine at a time.

    The callee is held back by whoever takes the items. A stream that nobody holds any more is given up, as by `aclose`.
    """

    __slots__ = ("__weakref__", "_call_id", "_caller", "_items")

    def __init__(self, caller: "Calling", call_id: int, items: IncomingItems) -> None:
        self._caller = caller
        self._call_id = call_id
        self._items = items

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        return await self._items.__anext__()

    async def aclose(self) -> None:
        """Gives the stream up, if it has not ended."""
        if not self._items.has_ended:
            self._items.end()
            self._caller.give_up(self._call_id)

    def __del__(self) -> None:
        if not self._items.has_ended:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._caller.reactor.call(self._caller.give_up, self._call_id)


class Calling(abc.ABC):
    """Calls out."""

    __slots__ = (
        "_blueprint",
        "_calls",
        "_loop",
        "_message_limit",
        "_said",
        "_watched",
        "connection",
        "goes_away",
        "reactor",
    )

    def __init__(self, blueprint: RpcBlueprint, connection: TcpConnection, connected: bool) -> None:
        self.connection = connection
        self.reactor = blueprint.reactor
        self._loop = blueprint.reactor.loop
        self.goes_away = False
        self._blueprint = blueprint
        self._calls: CallTable[CallFuture | _StreamCall] = CallTable(connected, blueprint.limits.own_limit)
        self._watched = False
        self._said: list[bytes] = []
        session = connection.framer
        said = session.peer if isinstance(session, Frames) else None
        self._message_limit = said.limit_bytes if said is not None else 0

    # What the user calls.

    def call(
        self,
        method: str,
        *args: Any,
        timeout: float | None = None,
        result_type: Any = Any,
        meta: dict[str, str] | None = None,
        idempotent: bool = False,  # noqa: ARG002
    ) -> CallFuture:
        """Calls a method of the peer; ``await`` what it returns.

        Within a method, the call has no more time than the method's own caller gives, and carries the same `meta`.

        Args:
            method: its name.
            args: its arguments, in their order: whatever MessagePack can carry. One that is an asynchronous iterable
                is sent as a stream, as fast as the callee takes its items.
            timeout: seconds until the call is over, whatever becomes of it; None for no end.
            result_type: what the result must be, to be checked.
            meta: what is to travel along.
            idempotent: for callers that try again, as `RpcClient` does; a peer does not.

        Raises:
            UsageError: the arguments can't be sent, or are longer than the peer takes.
            Overloaded: too many calls are under way, or too much is unsent. This one was not made.
            CallLost: the connection is closed, or the peer takes no more calls. This one was not made.

        The future's errors:
            RpcError: the method failed in a way that it declares; `CallFailed`: in another way.
            NotFound, UsageError, Forbidden: there is no such method; it does not take these arguments; or this caller.
            Overloaded: the peer did not begin it, for a bound is reached.
            DeadlineExceeded: its time is over.
            CallLost: the connection is gone; it may have run.
            BadFrame: the result is not of its type.
        """
        future = CallFuture(loop=self._loop)
        future._caller = self
        future._decode = _decode_any if result_type is Any else _decoder_of(result_type)
        future.feed = None
        future.call_id = self._begin(future, method, args, timeout, meta, 0)
        return future

    def stream(
        self,
        method: str,
        *args: Any,
        timeout: float | None = None,
        result_type: Any = Any,
        meta: dict[str, str] | None = None,
        window: int = 64,
    ) -> CallStream:
        """Calls a method that is a stream; ``async for`` over what it returns. See `call`.

        Args:
            method: its name.
            args: its arguments.
            timeout: seconds until the stream is over, whether it has ended or not; None for no end.
            result_type: what each item must be, to be checked.
            meta: what is to travel along.
            window: items that may come before any is taken.

        Raises:
            UsageError, Overloaded, CallLost: as for `call`. Iterating raises what the future of a call does.
        """
        call_id = 0

        def grant(count: int) -> None:
            self._say(encode((8, call_id, count)))

        items = IncomingItems(self.reactor.loop, window, result_type, grant)
        call_id = self._begin(_StreamCall(items), method, args, timeout, meta, window)
        return CallStream(self, call_id, items)

    def notify(self, method: str, *args: Any, meta: dict[str, str] | None = None) -> None:
        """Has a method of the peer run. Nobody hears what becomes of it.

        Raises:
            UsageError, Overloaded, CallLost: as for `call`.
        """
        self._check_taken()
        context = current_call.get()
        if meta is None and context is not None:
            meta = context.meta
        try:
            data = encode((5, method, args) if meta is None else (5, method, args, meta))
        except (TypeError, ValueError, RecursionError, OverflowError) as error:
            raise UsageError(f"{method}: its arguments can't be sent: {error}") from None
        self._send(data)

    @abc.abstractmethod
    def expire(self, now: float) -> bool:
        """The package's: ends the calls whose deadline has come; returns whether there are others."""

    @property
    def calls_under_way(self) -> int:
        """Calls of this side that have not ended."""
        return len(self._calls)

    @property
    def is_open(self) -> bool:
        """Whether calls can be made: the connection is up, and the peer takes them."""
        return self.connection.is_open and not self.goes_away

    # How a call begins.

    def _check_taken(self) -> None:
        if self.goes_away:
            raise CallLost("the peer is stopping and takes no more calls", sent="no")

    def _begin(
        self,
        entry: CallFuture | _StreamCall,
        method: str,
        args: tuple[Any, ...],
        timeout: float | None,
        meta: dict[str, str] | None,
        credit: int,
    ) -> int:
        context = current_call.get()
        deadline, timeout_ms = NEVER, 0
        if context is not None:
            deadline = context.deadline
            meta = context.meta if meta is None else meta
        if timeout is not None or deadline is not NEVER:
            now = self.reactor.now()
            if timeout is not None:
                deadline = min(deadline, now + timeout)
            if not deadline > now:
                raise DeadlineExceeded(f"{method}: there is no time left for it")
            if deadline != NEVER:
                timeout_ms = min(ceil((deadline - now) * 1000), 1 << 53)
        if self.goes_away:
            self._check_taken()
        streams: list[AsyncIterable[Any]] = []
        call_id = self._calls.begin(entry, deadline)
        try:
            self._send(_call(call_id, method, args, timeout_ms, meta, credit, streams))
        except BaseException:
            self._calls.take(call_id)
            raise
        if deadline != NEVER and not self._watched:
            self._watched = True
            self._blueprint.ticker.watch(self)
        if streams:
            left = Credits(self.reactor.loop, 0)
            task = self.reactor.loop.create_task(
                self._send_argument(call_id, streams[0], left), name=f"items: {method}"
            )
            entry.feed = _Feed(left, task)
        return call_id

    async def _send_argument(self, call_id: int, items: AsyncIterable[Any], left: Credits) -> None:
        try:
            async for item in items:
                await left.take()
                self._send(_item(call_id, item))
                await self._drained()
            self._send(encode((7, call_id)))
        except Exception as error:
            entry = self._calls.take(call_id)
            if entry is not None:
                self._say(encode((4, call_id)))
                entry.fail(error)
        finally:
            close = getattr(items, "aclose", None)
            if close is not None:
                await close()

    async def _drained(self) -> None:
        """Waits while the peer does not read."""
        if self.connection.unsent_bytes:
            try:
                await self.connection.drain()
            except ConnectionClosed:
                raise CallLost("the connection was closed", sent="unknown") from None

    def give_up(self, call_id: int) -> None:
        """The package's: nobody waits for a call any more."""
        entry = self._calls.take(call_id)
        if entry is not None:
            self._stop_feeding(entry)
            self._say(encode((4, call_id)))

    @staticmethod
    def _stop_feeding(entry: CallFuture | _StreamCall) -> None:
        if entry.feed is not None:
            entry.feed.task.cancel()

    # How it goes on, and ends.

    def replied(self, message: Reply) -> None:
        """The package's: a reply has come."""
        entry = self._calls.take(message.id)
        if entry is not None:
            entry.finish(message.result)
            if entry.feed is not None:
                entry.feed.task.cancel()

    def call_failed(self, message: Failed) -> None:
        """The package's: the peer says that a call has failed."""
        entry = self._calls.take(message.id)
        if entry is not None:
            self._stop_feeding(entry)
            entry.fail(error_of(message, self._blueprint.errors))

    def result_item(self, message: Item) -> None:
        """The package's: an item of a result that is a stream has come."""
        entry = self._calls.get(message.id)
        if isinstance(entry, _StreamCall):
            try:
                entry.items.put(message.item)
            except (ValueError, RecursionError) as error:
                self.give_up(message.id)
                entry.fail(BadFrame(f"an item of the stream is not what was asked for: {error}"))
        elif entry is not None:
            raise BadFrame(f"call {message.id}: an item came, though no stream was asked for")

    def argument_credit(self, call_id: int, count: int) -> None:
        """The package's: the callee takes more items of an argument."""
        entry = self._calls.get(call_id)
        if entry is not None and entry.feed is not None:
            entry.feed.credits.add(count)

    def _expire_calls(self, now: float) -> None:
        for call_id, entry in self._calls.expired(now):
            self._stop_feeding(entry)
            self._say(encode((4, call_id)))
            entry.fail(DeadlineExceeded("the call took longer than its caller waits"))

    def not_taken(self, last: int) -> None:
        """The package's: the peer says that it has taken no call after this one, and will take none."""
        for entry in self._calls.take_after(last):
            self._stop_feeding(entry)
            entry.fail(CallLost("the peer is stopping and has not taken the call", sent="no"))

    def _lose_calls(self, reason: str) -> None:
        for _, entry in self._calls.take_all():
            self._stop_feeding(entry)
            entry.fail(CallLost(f"the connection is gone ({reason}); the call may have run", sent="unknown"))
        self._said.clear()  # so the next one to call is told that the connection is closed

    # Sending. What is said in one turn of the loop leaves in one write.

    def _send(self, data: bytes) -> None:
        """Sends a message of the user's.

        Raises:
            UsageError: it is longer than the peer takes.
            Overloaded: too much is unsent.
            CallLost: the connection is closed.
        """
        size, said = len(data), self._said
        if size > self._message_limit:
            raise UsageError(f"the message has {size} bytes; the peer takes {self._message_limit}")
        if not said:
            if not self.connection.is_open:
                raise CallLost("the connection is closed", sent="no")
            if self.connection.is_full:
                raise Overloaded(f"{self.connection.unsent_bytes} bytes are unsent already; the peer does not read")
            self.reactor.loop.call_soon(self.flush)
        said.append(data)
        if size > _SMALL_BYTES or len(said) >= _BATCH:
            self.flush()

    def _say(self, data: bytes) -> None:
        """Sends a message that is this side's own. Where there is no room for it, the connection can't go on."""
        try:
            self._send(data)
        except CallLost:
            pass
        except Overloaded:
            self.connection.abort(CloseReason.OVER_BUDGET)

    def _say_now(self, data: bytes) -> None:
        """Like `_say`; while messages are handled, it goes out with their replies."""
        self.flush()
        try:
            self.connection.send(data)
        except ConnectionClosed:
            pass
        except Overloaded:
            self.connection.abort(CloseReason.OVER_BUDGET)

    def flush(self) -> None:
        """The package's: writes what was said in this turn of the loop now."""
        if self._said:
            said, self._said = self._said, []
            with contextlib.suppress(ConnectionClosed):  # the calls are told when the connection is down
                self.connection.send_all(said)


def _decoder_of(kind: Any) -> Any:
    try:
        return _decode_as(kind)
    except TypeError as error:
        try:
            return msgspec.msgpack.Decoder(kind).decode  # one that can't be looked up
        except TypeError:
            raise UsageError(f"result_type = {kind!r}: it can't be checked: {error}") from None


def _call(
    call_id: int,
    method: str,
    args: tuple[Any, ...],
    timeout_ms: int,
    meta: dict[str, str] | None,
    credit: int,
    streams: list[AsyncIterable[Any]],
) -> bytes:
    """The message of a call; an argument that is a stream is put into `streams`."""
    try:
        if meta is None and not credit:
            return encode((1, call_id, method, args, timeout_ms) if timeout_ms else (1, call_id, method, args))
        return encode((1, call_id, method, args, timeout_ms, meta, credit))
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        found = [one for one in args if isinstance(one, AsyncIterable)]
        if len(found) != 1:
            raise UsageError(f"{method}: its arguments can't be sent: {error}") from None
        streams += found
        plain = tuple(one for one in args if one is not found[0])
        return _call(call_id, method, plain, timeout_ms, meta, credit, streams)


def _item(call_id: int, item: Any) -> bytes:
    try:
        return encode((6, call_id, item))
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        raise UsageError(f"an item of the stream can't be sent: {error}") from None
