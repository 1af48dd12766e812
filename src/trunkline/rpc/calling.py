"""The half of a peer that calls."""

import abc
from collections.abc import AsyncIterable
from math import ceil
from typing import Any

from trunkline.errors import BadFrame, CallLost, DeadlineExceeded, UsageError
from trunkline.rpc.blueprint import RpcBlueprint
from trunkline.rpc.calls import NEVER, CallTable
from trunkline.rpc.channel import Channel
from trunkline.rpc.context import current_call
from trunkline.rpc.encoding import decoder_of, encode_call, encode_item, encode_notify
from trunkline.rpc.failures import error_of
from trunkline.rpc.messages import CREDIT_LIMIT, Failed, Item, Reply, encode
from trunkline.rpc.outcomes import CallFuture, CallStream, Feed, StreamCall
from trunkline.rpc.streams import Credits, IncomingItems, Tally
from trunkline.tcp import TcpConnection

__all__ = ["Calling"]


class Calling(Channel, abc.ABC):
    """Calls out."""

    __slots__ = ("_calls", "_watched", "goes_away")

    def __init__(self, blueprint: RpcBlueprint, connection: TcpConnection, connected: bool) -> None:
        super().__init__(blueprint, connection)
        self.goes_away = False
        self._calls: CallTable[CallFuture | StreamCall] = CallTable(connected, blueprint.limits.own_limit)
        self._watched = False

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
        future._decode = decoder_of(result_type)
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
        if not 1 <= window <= CREDIT_LIMIT:
            raise UsageError(f"window = {window}: it must be from 1 to {CREDIT_LIMIT}")
        call_id = 0

        def grant(count: int) -> None:
            self._say(encode((8, call_id, count)))

        items = IncomingItems(self._loop, window, decoder_of(result_type), grant, Tally())
        call_id = self._begin(StreamCall(items), method, args, timeout, meta, window)
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
        self._send(encode_notify(method, args, meta))

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
        entry: CallFuture | StreamCall,
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
            self._send(encode_call(call_id, method, args, timeout_ms, meta, credit, streams))
        except BaseException:
            self._calls.take(call_id)
            raise
        if deadline != NEVER and not self._watched:
            self._watched = True
            self._blueprint.ticker.watch(self)
        if streams:
            left = Credits(self._loop, 0)
            task = self._loop.create_task(self._send_argument(call_id, streams[0], left), name=f"items: {method}")
            entry.feed = Feed(left, task)
        return call_id

    async def _send_argument(self, call_id: int, items: AsyncIterable[Any], left: Credits) -> None:
        try:
            async for item in items:
                await left.take()
                self._send(encode_item(call_id, item))
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

    def give_up(self, call_id: int) -> None:
        """The package's: nobody waits for a call any more."""
        entry = self._calls.take(call_id)
        if entry is not None:
            self._stop_feeding(entry)
            self._say(encode((4, call_id)))

    @staticmethod
    def _stop_feeding(entry: CallFuture | StreamCall) -> None:
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
        if isinstance(entry, StreamCall):
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
