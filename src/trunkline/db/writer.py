"""One writer thread that commits what many callers write in one transaction: group commit.

A durable commit costs a disk flush whatever is in it. So writes that come while one commit is under way wait
for it together, and share the next.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from trunkline.errors import Overloaded, StorageError, TrunklineError
from trunkline.logs import event
from trunkline.stats import Stats

__all__ = ["Write", "Writer"]

Item = TypeVar("Item")
Result = TypeVar("Result")
_log = logging.getLogger(__name__)


class Write(Generic[Item, Result]):
    """One kind of write: a function over many items at once, so that a batch costs one statement.

    Args:
        order: where this kind stands within a transaction. Kinds run in rising order, items of one kind in the
            order in which they were submitted. Between kinds, only what was awaited is sure to come before.
        apply: ``apply(connection, items)`` writes all items and returns one result for each; an exception as a
            result is raised at that item's caller and undoes nothing. It runs in the writer's thread, inside a
            transaction. If it raises, all is rolled back and each item is tried again alone, so it must do
            nothing but write to the database.
    """

    __slots__ = ("apply", "name", "order")

    def __init__(self, order: int, apply: Callable[[Connection, Sequence[Item]], Sequence[Result | Exception]]) -> None:
        self.order = order
        self.apply = apply
        self.name = apply.__qualname__


_Entry = tuple[Write[Any, Any], Any, "asyncio.Future[Any] | None"]


class Writer:
    """Owns the one connection that writes. All methods belong to the reactor's thread.

    Args:
        engine: makes the connection.
        loop: where futures are resolved.
        stats: counts commits, writes and failures.
        gather_interval: seconds between the starts of two transactions under load. It trades that much latency
            for larger batches, which cost much less each.
        pending_limit: writes that may wait; one more is refused.
    """

    def __init__(
        self,
        engine: Engine,
        loop: asyncio.AbstractEventLoop,
        stats: Stats,
        gather_interval: float = 0.002,
        pending_limit: int = 100_000,
    ) -> None:
        self._engine = engine
        self._loop = loop
        self._stats = stats
        self._gather_interval = gather_interval
        self._pending_limit = pending_limit
        self._pending: deque[_Entry] = deque()
        self._wake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="trunkline-writer", daemon=True)
        self._thread.start()

    def submit(self, write: Write[Item, Result], item: Item) -> "asyncio.Future[Result]":
        """Hands a write over; its result is there once it is committed to disk.

        Raises:
            Overloaded: too many writes wait. Nothing was written.

        The future's errors:
            StorageError: the database refused. Nothing of this item was written.
        """
        future: asyncio.Future[Result] = self._loop.create_future()
        self._enqueue((write, item, future))
        return future

    def post(self, write: Write[Item, Any], item: Item) -> None:
        """Hands a write over whose caller does not wait. A failure is logged and counted.

        Raises:
            Overloaded: too many writes wait. Nothing was written.
        """
        self._enqueue((write, item, None))

    def _enqueue(self, entry: _Entry) -> None:
        if self._closing:
            raise StorageError("the node is stopping; nothing more is written")
        if len(self._pending) >= self._pending_limit:
            raise Overloaded(f"{self._pending_limit} writes wait for the database; try again later")
        self._pending.append(entry)
        self._wake.set()

    async def close(self) -> None:
        """Commits what waits, then ends the thread."""
        self._closing = True
        self._wake.set()
        await self._loop.run_in_executor(None, self._thread.join)

    # From here on: the writer's thread.

    def _run(self) -> None:
        with self._engine.connect() as connection:
            last = 0.0
            while True:
                self._wake.wait()
                pause = last + self._gather_interval - time.monotonic()
                if pause > 0 and not self._closing:
                    time.sleep(pause)
                self._wake.clear()
                entries = [self._pending.popleft() for _ in range(len(self._pending))]
                last = time.monotonic()
                if entries:
                    self._settle(self._commit(connection, entries))
                if self._closing and not self._pending:
                    return  # asked after each round: nobody wakes us once more after the last

    def _commit(self, connection: Connection, entries: list[_Entry]) -> list[tuple[_Entry, Any]]:
        """Writes all entries in one transaction; where that fails, each in one of its own."""
        try:
            outcomes = self._transaction(connection, entries)
        except Exception as error:
            if len(entries) == 1:
                return [(entries[0], self._failure(entries[0], error))]
            return [outcome for entry in entries for outcome in self._commit(connection, [entry])]
        self._stats.commits.inc()
        self._stats.writes.inc(len(entries))
        return outcomes

    def _transaction(self, connection: Connection, entries: list[_Entry]) -> list[tuple[_Entry, Any]]:
        by_kind: dict[Write[Any, Any], list[_Entry]] = {}
        for entry in entries:
            by_kind.setdefault(entry[0], []).append(entry)
        outcomes: list[tuple[_Entry, Any]] = []
        with connection.begin():
            for write in sorted(by_kind, key=lambda kind: kind.order):
                same = by_kind[write]
                results = write.apply(connection, [item for _, item, _ in same])
                outcomes += zip(same, results, strict=True)
        return outcomes

    def _failure(self, entry: _Entry, error: Exception) -> TrunklineError:
        self._stats.write_failures.inc()
        event(_log, logging.ERROR, "write failed", write=entry[0].name, error=error)
        if isinstance(error, TrunklineError):
            return error
        cause = error.orig if isinstance(error, DBAPIError) else error
        failure = StorageError(f"the database refused the write: {cause}; nothing of it was stored")
        failure.__cause__ = error
        return failure

    def _settle(self, outcomes: list[tuple[_Entry, Any]]) -> None:
        waiting = [(future, result) for (_, _, future), result in outcomes if future is not None]
        if waiting:
            self._loop.call_soon_threadsafe(_resolve, waiting)


def _resolve(waiting: "list[tuple[asyncio.Future[Any], Any]]") -> None:
    for future, result in waiting:
        if not future.done():  # a caller that gave up has cancelled it; the write stands all the same
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
