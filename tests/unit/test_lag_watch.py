"""Which line holds up the loop."""

import threading

from trunkline.reactor import Block, LagWatch, ReactorThread

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


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_time_decides_and_a_block_that_goes_on_is_one() -> None:
    found: list[Block] = []
    clock = Clock()
    with ReactorThread() as thread:
        watch = LagWatch(thread.reactor, threshold=0.2, on_blocked=found.append, clock=clock)
        for now in (0.1, 0.19):
            clock.now = now
            watch.look()
        assert found == []
        for now in (0.3, 0.4, 0.5):
            clock.now = now
            watch.look()
        assert [block.seconds for block in found] == [0.3]
        assert (watch.blocks, watch.longest) == (1, 0.5)


def test_a_process_that_stood_still_as_a_whole_is_no_block() -> None:
    found: list[Block] = []
    clock = Clock()
    with ReactorThread() as thread:
        watch = LagWatch(thread.reactor, threshold=0.2, on_blocked=found.append, clock=clock)
        clock.now = 3600.0
        watch.look()
        assert found == []


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
