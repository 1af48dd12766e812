"""Accepting items, and draining them to the sink."""

import asyncio
import logging

import msgspec

from trunkline.batch.rules import BatchRules
from trunkline.batch.sinks import Sink
from trunkline.batch.spool import (
    Batch,
    BatchState,
    Plan,
    SpoolItems,
    Stored,
    batches_stored,
    count_spooled,
    count_stored,
    plan_batches,
    read_batches,
    spool_items,
)
from trunkline.clock import Clock
from trunkline.db import Database, Writer
from trunkline.errors import BadItems, Overloaded, TrunklineError
from trunkline.ids import IdMaker
from trunkline.logs import event
from trunkline.nesting import NESTING_LIMIT, nesting
from trunkline.reactor import Reactor
from trunkline.settings import BatchSettings
from trunkline.stats import Stats

__all__ = ["Storage"]

_BATCHES_AT_ONCE = 200
_RETRY_FIRST = 0.5
_RETRY_LAST = 30.0
_log = logging.getLogger(__name__)


class Storage:
    """Items in, batches out. Reactor's thread.

    Args:
        sink: where batches go.
    """

    def __init__(
        self,
        *,
        reactor: Reactor,
        database: Database,
        writer: Writer,
        clock: Clock,
        ids: IdMaker,
        stats: Stats,
        settings: BatchSettings,
        sink: Sink,
    ) -> None:
        self._reactor = reactor
        self._database = database
        self._writer = writer
        self._clock = clock
        self._ids = ids
        self._stats = stats
        self._settings = settings
        self._sink = sink
        self._rules = BatchRules(settings.items_per_batch, settings.never_together)
        self._spooled = 0
        self._stored = (0, 0)
        self._woken = asyncio.Event()
        self._stopping = asyncio.Event()
        self._drain: asyncio.Task[None] | None = None

    @property
    def spooled(self) -> int:
        """Items that wait for their batch."""
        return self._spooled

    @property
    def stored(self) -> tuple[int, int]:
        """Batches that are in the sink, and the items in them, as far as their records are kept."""
        return self._stored

    async def start(self) -> None:
        """Takes up what an earlier process left, and begins to drain."""
        self._spooled = await self._database.read(count_spooled)
        self._stored = await self._database.read(count_stored)
        self._drain = self._reactor.spawn(self._run(), "drain batches")

    async def stop(self, deadline: float) -> None:
        """Ends the drain when the batches that it writes now are written, or after `deadline` seconds."""
        self._stopping.set()
        self._woken.set()
        if self._drain is not None:
            await asyncio.wait({self._drain}, timeout=deadline)
            self._drain.cancel()

    async def accept(self, body: bytes) -> int:
        """Takes a JSON list; returns the number of its items when all of them are on disk.

        Raises:
            BadItems: it is no JSON list, or an item is too long. None of it was taken.
            Overloaded: too many items wait. None of it was taken.
        """
        texts = self._texts(body)
        if self._spooled + len(texts) > self._settings.spool_limit:
            raise Overloaded(f"{self._spooled} items wait to be stored; the limit is {self._settings.spool_limit}")
        if texts:
            committed = self._writer.submit(spool_items, SpoolItems(texts, self._clock.time()))
            self._spooled += len(texts)
            committed.add_done_callback(lambda done: self._accepted(len(texts), done))
            # A caller that goes away takes nothing back: the items are on their way to the disk.
            await asyncio.shield(committed)
        return len(texts)

    def _accepted(self, count: int, done: "asyncio.Future[None]") -> None:
        if done.exception() is None:
            self._stats.items_accepted.inc(count)
            self._woken.set()
        else:
            self._spooled -= count

    def _texts(self, body: bytes) -> list[str]:
        try:
            items = msgspec.json.decode(body)
            if not isinstance(items, list):
                raise BadItems("that is no JSON list; write a list of items, as in [1, 2, 3]")
            # Written anew, compact and on one line, whatever white space was in it.
            encoded = [msgspec.json.encode(item) for item in items]
            if nesting(items) > NESTING_LIMIT:
                raise BadItems(f"the list is nested deeper than {NESTING_LIMIT}")
        except RecursionError:
            raise BadItems("the list is nested too deep") from None
        except (msgspec.DecodeError, msgspec.EncodeError, UnicodeError, ValueError) as error:
            raise BadItems(f"that is no JSON list: {error}") from None
        limit = self._settings.item_limit_bytes
        for number, item in enumerate(encoded, 1):
            if len(item) > limit:
                raise BadItems(f"item {number} has {len(item)} bytes of JSON; the limit is {limit}")
        return [item.decode() for item in encoded]

    async def page(self, *, limit: int, before: str | None = None) -> list[Batch]:
        """Batches, newest first; those older than the batch `before`, if given."""
        return await self._database.read(lambda connection: read_batches(connection, limit=limit, before=before))

    # The drain.

    async def _run(self) -> None:
        left = await self._database.read(
            lambda connection: read_batches(connection, limit=_BATCHES_AT_ONCE, state=BatchState.PLANNED)
        )
        await self._save(left[::-1])
        rate = self._settings.per_second
        next_at = self._reactor.now()
        while not self._stopping.is_set():
            if not self._spooled:
                self._woken.clear()
                await self._woken.wait()
                continue
            if rate:
                # The next moment counts from the last, not from now: so the rate holds on the average.
                next_at = max(next_at + 1 / rate, self._reactor.now())
                if not await self._pause(next_at - self._reactor.now()):
                    return
            await self._save(await self._next_batches(1 if rate else _BATCHES_AT_ONCE))

    async def _next_batches(self, limit: int) -> "list[Batch]":
        plan = Plan(self._rules, limit, self._ids, self._sink.file_of, self._clock.time())
        try:
            planned = await self._writer.submit(plan_batches, plan)
        except TrunklineError as error:
            event(_log, logging.ERROR, "batches not planned", error=error)
            await self._pause(_RETRY_FIRST)
            return []
        self._spooled -= sum(len(batch.items) for batch in planned)
        return planned

    async def _save(self, planned: "list[Batch]") -> None:
        """Saves batches, again and again until it works: they are planned, so nothing else can be done with them."""
        wait = _RETRY_FIRST
        while planned:
            try:
                await asyncio.to_thread(self._sink.save, planned)
                at = self._clock.time()
                await self._writer.submit(batches_stored, [Stored(batch.id, at) for batch in planned])
                break
            except (OSError, TrunklineError) as error:
                self._stats.sink_failures.inc(len(planned))
                event(_log, logging.ERROR, "batches not stored", count=len(planned), error=error, again_in=wait)
            if not await self._pause(wait):
                return
            wait = min(2 * wait, _RETRY_LAST)
        count = sum(len(batch.items) for batch in planned)
        self._stored = (self._stored[0] + len(planned), self._stored[1] + count)
        self._stats.batches_stored.inc(len(planned))
        self._stats.items_stored.inc(count)

    async def _pause(self, seconds: float) -> bool:
        """Waits; False if the storage is to stop meanwhile."""
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._stopping.wait()
        except TimeoutError:
            return True
        return False
