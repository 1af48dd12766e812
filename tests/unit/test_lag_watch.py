"""Which line holds up the loop."""

import re
import threading
import time

import pytest

from trunkline.reactor import Block, LagWatch, ReactorThread
from trunkline.testing import ManualClock

WAIT = 10.0


def hold_up(entered: threading.Event, go_on: threading.Event) -> None:
    entered.set()
    go_on.wait(WAIT)  # the line that is to be named


def test_a_block_is_noticed_once_with_the_file_and_line() -> None:
    found: list[Block] = []
    noticed, entered, go_on = threading.Event(), threading.Event(), threading.Event()

    def on_blocked(block: Block) -> None:
        found.append(block)
        noticed.set()

    with ReactorThread() as thread:
        watch = LagWatch(thread.reactor, threshold=0.02, on_blocked=on_blocked)
        watch.start()
        thread.reactor.call(hold_up, entered, go_on)
        assert entered.wait(WAIT)
        assert noticed.wait(WAIT)
        go_on.set()
        watch.stop()
    line = hold_up.__code__.co_firstlineno + 2
    assert found[0].where == f"{__file__}:{line} in hold_up"
    assert found[0].seconds >= 0.02
    assert watch.longest >= found[0].seconds


def keep_the_interpreters_lock(seconds: float) -> None:
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at:
        re.match("(a+)+$", "a" * 22 + "b")  # the line that is to be named


@pytest.mark.parametrize("poller", ["auto", "select"])
def test_a_block_by_code_that_keeps_the_interpreters_lock_is_noticed_with_its_line(poller: str) -> None:
    found: list[Block] = []
    noticed = threading.Event()

    def on_blocked(block: Block) -> None:
        found.append(block)
        noticed.set()

    with ReactorThread(poller) as thread:
        watch = LagWatch(thread.reactor, threshold=0.05, on_blocked=on_blocked)
        watch.start()
        thread.reactor.call(keep_the_interpreters_lock, 0.1)
        assert noticed.wait(WAIT)
        watch.stop()
    line = keep_the_interpreters_lock.__code__.co_firstlineno + 3
    assert found[0].where == f"{__file__}:{line} in keep_the_interpreters_lock"


class Looks:
    """A watch that looks when it is told to, and the two clocks that it goes by. Its loop never beats."""

    def __init__(self, thread: ReactorThread, threshold: float) -> None:
        self.found: list[Block] = []
        self.clock, self.processor = ManualClock(), ManualClock()
        self.watch = LagWatch(
            thread.reactor, threshold, self.found.append, self.clock.monotonic, self.processor.monotonic
        )

    def after(self, seconds: float, worked: float = 0.0) -> None:
        self.clock.advance(seconds)
        self.processor.advance(worked)
        self.watch.look()


def test_time_decides_and_a_block_that_goes_on_is_one() -> None:
    with ReactorThread() as thread:
        looks = Looks(thread, threshold=0.25)
        for _ in range(3):
            looks.after(0.0625)
        assert looks.found == []
        for _ in range(3):
            looks.after(0.125)
        assert [block.seconds for block in looks.found] == [0.3125]
        assert (looks.watch.blocks, looks.watch.longest) == (1, 0.5625)


def test_a_process_that_stood_still_as_a_whole_is_no_block() -> None:
    with ReactorThread() as thread:
        looks = Looks(thread, threshold=0.25)
        looks.after(3600.0, worked=0.0625)  # all that it did was to work until it was stopped
        assert looks.found == []


@pytest.mark.parametrize("worked", [2.0, 1.0, 0.125])
def test_a_process_that_worked_while_the_watch_was_held_up_was_blocked(worked: float) -> None:
    """Also where it had to share the processor."""
    with ReactorThread() as thread:
        looks = Looks(thread, threshold=0.25)
        looks.after(2.0, worked)
        assert [block.seconds for block in looks.found] == [2.0]
        assert looks.watch.blocks == 1


def test_a_loop_that_is_only_idle_is_not_blocked() -> None:
    found: list[Block] = []
    with ReactorThread() as thread:
        watch = LagWatch(thread.reactor, threshold=1.0, on_blocked=found.append)
        watch.start()
        beats = threading.Semaphore(0)
        timer = thread.reactor.every(0.25, beats.release)
        for _ in range(5):
            assert beats.acquire(timeout=WAIT)
        timer.cancel()
        watch.stop()
    assert found == []
