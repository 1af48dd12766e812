"""The logbook of a running job: bounded, numbered without a gap, and honest about what it left out."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import Connection

from trunkline.db import Database, Write, Writer
from trunkline.errors import Overloaded
from trunkline.jobs.job_store import Claim, Ended, NewJob, Requeue, claim_jobs, create_job, end_job, read_events
from trunkline.jobs.job_store import requeue_jobs as requeue
from trunkline.jobs.logbook import Logbook
from trunkline.jobs.model import JobEvent, JobState
from trunkline.reactor import Reactor
from trunkline.stats import Stats
from trunkline.testing import ManualClock

WAIT = 10.0


class Desk:
    """A job that runs, and the logbook of its first attempt. Entries 1 and 2 are queued and running."""

    def __init__(self, database: Database, lines_limit: int, pending_limit: int) -> None:
        self.database = database
        self.clock = ManualClock(500.0)
        self.stats = Stats()
        loop = asyncio.get_running_loop()
        self.errors: list[BaseException] = []
        self.reactor = Reactor(loop, self.errors.append)
        self.writer = Writer(database.writer_engine, loop, self.stats, 0.0, pending_limit)
        self.commits = 0
        self.rung = asyncio.Event()
        self._lines_limit = lines_limit

    async def begin(self) -> None:
        await self.writer.submit(create_job, NewJob("j1", "meter", "m1", 100.0))
        (self.claimed,) = await self.writer.submit(claim_jobs, Claim("node-1", 1, 101.0))
        self.logbook = Logbook(
            "j1", 1, self.claimed.next_n, reactor=self.reactor, writer=self.writer, clock=self.clock,
            lines_limit=self._lines_limit, committed=self._committed,
        )  # fmt: skip

    def _committed(self) -> None:
        self.commits += 1
        self.rung.set()

    async def until_committed(self) -> None:
        async with asyncio.timeout(WAIT):
            await self.rung.wait()
        self.rung.clear()

    async def until_there_is_room(self, write: Write[None, None]) -> None:
        async with asyncio.timeout(WAIT):
            while True:
                try:
                    await self.writer.submit(write, None)
                except Overloaded:
                    await asyncio.sleep(0)
                else:
                    return

    def entries(self) -> list[JobEvent]:
        """What the handler's logbook holds, without the two states before it."""
        found = self.database.read_now(lambda connection: read_events(connection, "j1", 0, 100_000))
        assert [entry.n for entry in found] == list(range(1, len(found) + 1)), "a gap"
        return found[2:]

    def texts(self) -> list[str]:
        return [entry.data["text"] for entry in self.entries() if entry.kind == "log"]


@asynccontextmanager
async def open_desk(database: Database, lines_limit: int, pending_limit: int) -> AsyncIterator[Desk]:
    desk = Desk(database, lines_limit, pending_limit)
    try:
        await desk.begin()
        yield desk
        assert desk.errors == []
    finally:
        async with asyncio.timeout(WAIT):
            await desk.writer.close()


def run(
    database: Database,
    story: Callable[[Desk], Coroutine[Any, Any, None]],
    *,
    lines_limit: int = 100_000,
    pending_limit: int = 100_000,
) -> None:
    async def main() -> None:
        async with open_desk(database, lines_limit, pending_limit) as desk:
            await story(desk)

    asyncio.run(main())


def test_lines_are_written_in_order_with_their_level_and_moment(database: Database) -> None:
    async def story(desk: Desk) -> None:
        desk.logbook.log("first", "info")
        desk.clock.advance(1.5)
        desk.logbook.log("second", "warning")
        assert await desk.logbook.close() == 5
        assert desk.entries() == [
            JobEvent(3, 500.0, "log", {"level": "info", "text": "first"}),
            JobEvent(4, 501.5, "log", {"level": "warning", "text": "second"}),
        ]

    run(database, story)


def test_lines_are_written_by_themselves_and_many_share_a_commit(database: Database) -> None:
    async def story(desk: Desk) -> None:
        for number in range(300):
            desk.logbook.log(f"line {number}", "info")
        await desk.until_committed()
        assert desk.texts() == [f"line {number}" for number in range(300)]
        assert desk.commits == 1
        desk.logbook.log("one more", "info")
        await desk.until_committed()
        assert desk.texts()[-1] == "one more"

    run(database, story)


def test_of_the_progress_within_one_flush_the_last_counts(database: Database) -> None:
    async def story(desk: Desk) -> None:
        for done in range(100):
            desk.logbook.progress(float(done), 100.0)
        desk.logbook.log("nearly", "info")
        await desk.logbook.close()
        assert [(entry.kind, entry.data) for entry in desk.entries()] == [
            ("log", {"level": "info", "text": "nearly"}),
            ("progress", {"done": 99.0, "total": 100.0}),
        ]

    run(database, story)


def test_lines_over_the_jobs_limit_are_counted_and_said_at_the_end(database: Database) -> None:
    async def story(desk: Desk) -> None:
        for number in range(10):
            desk.logbook.log(f"line {number}", "info")
        desk.logbook.progress(1.0, None)
        await desk.logbook.close()
        assert desk.texts() == ["line 0", "line 1", "line 2", "7 lines skipped"]
        assert desk.entries()[3].data["level"] == "warning"
        assert desk.entries()[4].kind == "progress", "progress is no line"

    run(database, story, lines_limit=3)


def test_a_handler_that_talks_faster_than_the_disk_is_cut_short_and_it_is_said_where(database: Database) -> None:
    async def story(desk: Desk) -> None:
        for number in range(10_250):
            desk.logbook.log(f"line {number}", "info")
        await desk.until_committed()
        desk.logbook.log("behind the gap", "info")
        await desk.logbook.close()
        texts = desk.texts()
        assert texts[:10_000] == [f"line {number}" for number in range(10_000)]
        assert texts[10_000:] == ["250 lines skipped", "behind the gap"]

    run(database, story)


def test_a_long_line_is_cut_and_says_how_long_it_was(database: Database) -> None:
    async def story(desk: Desk) -> None:
        desk.logbook.log("x" * 8192, "info")
        desk.logbook.log("y" * 9000, "info")
        await desk.logbook.close()
        assert desk.texts() == ["x" * 8192, "y" * 8192 + "... (9000 characters)"]

    run(database, story)


def test_any_text_can_be_logged_and_takes_no_other_line_with_it(database: Database) -> None:
    async def story(desk: Desk) -> None:
        for text in ("plain", "", "a\nb\x00c", "\u2028 é 漢 🙂", "half a pair: \ud800", "last"):
            desk.logbook.log(text, "info")
        await desk.logbook.close()
        assert desk.texts() == ["plain", "", "a\nb\x00c", "\u2028 é 漢 🙂", "half a pair: \\ud800", "last"]

    run(database, story)


def test_threads_that_log_at_once_leave_no_gap_and_each_keeps_its_order(database: Database) -> None:
    async def story(desk: Desk) -> None:
        start = threading.Barrier(8)

        def talk(name: int) -> None:
            start.wait(WAIT)
            for number in range(300):
                desk.logbook.log(f"{name}/{number}", "info")
                desk.logbook.progress(number, 300)

        threads = [threading.Thread(target=talk, args=(name,)) for name in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            await asyncio.to_thread(thread.join)
        next_n = await desk.logbook.close()
        texts = desk.texts()
        assert next_n == desk.entries()[-1].n + 1
        assert len(texts) == 8 * 300
        for name in range(8):
            mine = [text for text in texts if text.startswith(f"{name}/")]
            assert mine == [f"{name}/{number}" for number in range(300)]

    run(database, story)


def test_after_closing_nothing_is_taken(database: Database) -> None:
    async def story(desk: Desk) -> None:
        desk.logbook.log("in time", "info")
        assert await desk.logbook.close() == 4
        assert await desk.logbook.close() == 4, "as after an outcome that could not be recorded at once"
        desk.logbook.log("too late", "info")
        desk.logbook.progress(1.0, None)
        outcome = Ended(desk.claimed.job, JobState.SUCCEEDED, 600.0, None, 4)
        assert await desk.writer.submit(end_job, outcome) is not None
        assert [entry.data.get("text") for entry in desk.entries()] == ["in time", None]

    run(database, story)


def test_an_attempt_that_is_over_logs_nothing(database: Database) -> None:
    async def story(desk: Desk) -> None:
        assert await desk.writer.submit(requeue, Requeue("node-2", 200.0)) == 1
        desk.logbook.log("from a run that is over", "info")
        await desk.logbook.close()
        assert desk.texts() == []

    run(database, story)


def test_lines_that_the_writer_has_no_room_for_are_kept_for_the_next_flush(database: Database) -> None:
    entered, opened = threading.Event(), threading.Event()

    def stand_still(connection: Connection, items: Sequence[None]) -> list[None]:
        entered.set()
        assert opened.wait(WAIT)
        return [None] * len(items)

    gate: Write[None, None] = Write(1, stand_still)
    idle: Write[None, None] = Write(1, lambda connection, items: [None] * len(items))

    async def story(desk: Desk) -> None:
        desk.writer.post(gate, None)
        assert await asyncio.to_thread(entered.wait, WAIT)
        desk.writer.post(idle, None)  # now it is full
        desk.logbook.log("first", "info")
        desk.logbook.log("second", "info")
        await desk.logbook.close()
        assert desk.texts() == []
        opened.set()
        await desk.until_there_is_room(idle)
        assert await desk.logbook.close() == 5
        assert desk.texts() == ["first", "second"]

    run(database, story, pending_limit=1)
