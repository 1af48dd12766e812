"""The reactor: timers that do not drift, callbacks that may fail, and one thread."""

import asyncio
import gc
import logging
import selectors
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from trunkline.errors import UsageError, WrongThread
from trunkline.reactor import Reactor
from trunkline.testing import ManualClock

WAIT = 10.0


class _Selector(selectors.DefaultSelector):
    """Waits for nothing: where the loop would sleep, its time goes on instead."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is not None and timeout > 0:
            self.clock.advance(timeout)
            return super().select(0)
        return super().select(timeout)


class ManualLoop(asyncio.SelectorEventLoop):
    """An event loop in which an hour takes no time."""

    def __init__(self) -> None:
        self.selector = _Selector()
        super().__init__(self.selector)

    def time(self) -> float:
        return self.selector.clock.monotonic()

    def busy_for(self, seconds: float) -> None:
        """What a callback that takes so long does to the time."""
        self.selector.clock.advance(seconds)


@pytest.fixture
def loop() -> Iterator[ManualLoop]:
    loop = ManualLoop()
    yield loop
    loop.close()


def run_until(loop: ManualLoop, moment: float) -> None:
    loop.call_at(moment, loop.stop)
    loop.run_forever()


def test_a_timer_comes_each_interval_without_drift(loop: ManualLoop) -> None:
    reactor = Reactor(loop)
    times: list[float] = []

    def work() -> None:
        times.append(loop.time())
        loop.busy_for(0.03)

    reactor.every(0.1, work)
    run_until(loop, 100.05)
    assert len(times) == 1000
    assert times == pytest.approx([0.1 * number for number in range(1, 1001)], abs=1e-6)


def test_periods_that_were_missed_are_left_out_and_the_beat_is_kept(loop: ManualLoop) -> None:
    reactor = Reactor(loop)
    times: list[float] = []

    def work() -> None:
        times.append(loop.time())
        if len(times) == 2:
            loop.busy_for(3.5)

    reactor.every(1.0, work)
    run_until(loop, 9.5)
    # The call of 3 comes late, at 5.5; those of 4 and 5 are left out.
    assert times == pytest.approx([1, 2, 5.5, 6, 7, 8, 9], abs=1e-6)


def test_a_cancelled_timer_comes_no_more(loop: ManualLoop) -> None:
    reactor = Reactor(loop)
    times: list[float] = []
    timer = reactor.every(1.0, lambda: times.append(loop.time()))
    loop.call_at(2.5, timer.cancel)
    loop.call_at(2.6, timer.cancel)
    run_until(loop, 10.0)
    assert times == pytest.approx([1, 2], abs=1e-6)


def test_a_timer_may_cancel_itself(loop: ManualLoop) -> None:
    reactor = Reactor(loop)
    times: list[float] = []

    def once() -> None:
        times.append(loop.time())
        timer.cancel()

    timer = reactor.every(1.0, once)
    run_until(loop, 10.0)
    assert len(times) == 1


def test_a_callback_that_fails_is_reported_and_the_timer_goes_on(
    loop: ManualLoop, caplog: pytest.LogCaptureFixture
) -> None:
    errors: list[BaseException] = []
    reactor = Reactor(loop, errors.append)
    reactor.every(1.0, lambda: 1 // 0)
    run_until(loop, 3.5)
    assert [type(error) for error in errors] == [ZeroDivisionError] * 3
    assert [line.getMessage() for line in caplog.records] == ["callback failed"] * 3


def test_what_a_guarded_callback_raises_is_reported_with_its_name(
    loop: ManualLoop, caplog: pytest.LogCaptureFixture
) -> None:
    errors: list[BaseException] = []
    reactor = Reactor(loop, errors.append)
    got: list[object] = []

    def fails(*args: object) -> None:
        got.extend(args)
        raise ValueError("on purpose")

    reactor.run_guarded(fails, 1, "two")
    assert got == [1, "two"]
    (line,) = caplog.records
    assert line.levelno == logging.ERROR
    assert line.facts["callback"].endswith("fails")  # type: ignore[attr-defined]
    assert line.exc_info
    assert line.exc_info[1] is errors[0]


def test_nobody_need_listen_to_errors(loop: ManualLoop, caplog: pytest.LogCaptureFixture) -> None:
    Reactor(loop).run_guarded(lambda: int("no number"))
    assert len(caplog.records) == 1


def test_what_ends_the_process_is_not_held_back(loop: ManualLoop) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Reactor(loop).run_guarded(interrupted)


def in_thread(call: Callable[[], object]) -> BaseException | None:
    """What `call` raises in a thread of its own."""
    raised: list[BaseException] = []

    def work() -> None:
        try:
            call()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(WAIT)
    return raised[0] if raised else None


def test_another_thread_is_told_that_it_is_the_wrong_one(loop: ManualLoop) -> None:
    reactor = Reactor(loop)
    reactor.check_thread()
    error = in_thread(reactor.check_thread)
    assert isinstance(error, WrongThread)
    assert "Reactor.call" in str(error)


def test_tasks_belong_to_the_reactors_thread(loop: ManualLoop) -> None:
    reactor = Reactor(loop)

    async def work() -> None:
        """Never begun."""

    refused = work()
    assert isinstance(in_thread(lambda: reactor.spawn(refused, "work")), WrongThread)
    refused.close()


def test_the_reactor_never_waits_for_itself(loop: ManualLoop) -> None:
    async def work() -> None:
        """Never begun."""

    with pytest.raises(WrongThread):
        Reactor(loop).submit(work())


@pytest.mark.parametrize("interval", [0, -1.0, float("nan")])
def test_an_interval_is_more_than_nothing(loop: ManualLoop, interval: float) -> None:
    with pytest.raises(UsageError, match="interval"):
        Reactor(loop).every(interval, print)


def test_a_call_at_a_moment_comes_once_and_then(loop: ManualLoop) -> None:
    reactor = Reactor(loop)
    times: list[float] = []
    reactor.call_at(2.0, lambda: times.append(loop.time()))
    reactor.call_later(3.5, lambda: times.append(loop.time()))
    cancelled = reactor.call_later(1.0, lambda: times.append(-1))
    cancelled.cancel()
    run_until(loop, 10.0)
    assert times == pytest.approx([2.0, 3.5], abs=1e-6)


def test_timers_set_and_cancelled_in_another_thread_work_as_well(loop: ManualLoop) -> None:
    reactor = Reactor(loop)
    times: list[float] = []

    def set_timers() -> None:
        reactor.every(1.0, lambda: times.append(loop.time()))
        reactor.call_later(0.5, lambda: times.append(loop.time()))
        reactor.every(0.1, lambda: times.append(-1)).cancel()

    assert in_thread(set_timers) is None
    run_until(loop, 2.5)
    assert times == pytest.approx([0.5, 1.0, 2.0], abs=1e-6)


def run(main: Callable[[Reactor, list[BaseException]], Coroutine[Any, Any, None]]) -> None:
    """Runs a story on a reactor of its own, with the errors that it reports."""

    async def story() -> None:
        errors: list[BaseException] = []
        async with asyncio.timeout(WAIT):
            await main(Reactor(asyncio.get_running_loop(), errors.append), errors)

    Reactor.run(story)


def test_calls_from_another_thread_arrive_in_the_reactor_in_their_order() -> None:
    async def main(reactor: Reactor, errors: list[BaseException]) -> None:
        got: list[tuple[int, int]] = []
        all_here = asyncio.Event()

        def receive(number: int) -> None:
            got.append((number, threading.get_ident()))
            if number == 999:
                all_here.set()

        def send() -> None:
            for number in range(1000):
                reactor.call(receive, number)

        await asyncio.to_thread(send)
        await all_here.wait()
        assert got == [(number, threading.get_ident()) for number in range(1000)]
        assert errors == []

    run(main)


def test_a_call_never_happens_at_once() -> None:
    async def main(reactor: Reactor, errors: list[BaseException]) -> None:
        called = asyncio.Event()
        reactor.call(called.set)
        assert not called.is_set()
        await called.wait()

    run(main)


def test_a_call_that_fails_is_reported_and_the_next_comes_all_the_same() -> None:
    async def main(reactor: Reactor, errors: list[BaseException]) -> None:
        called = asyncio.Event()
        reactor.call(lambda: 1 // 0)
        reactor.call(called.set)
        await called.wait()
        assert [type(error) for error in errors] == [ZeroDivisionError]

    run(main)


def test_a_spawned_task_gives_its_result() -> None:
    async def main(reactor: Reactor, errors: list[BaseException]) -> None:
        async def work() -> int:
            return 42

        task = reactor.spawn(work(), "the answer")
        assert task.get_name() == "the answer"
        assert await task == 42
        assert errors == []

    run(main)


def test_a_task_that_fails_is_reported_by_its_name(caplog: pytest.LogCaptureFixture) -> None:
    async def main(reactor: Reactor, errors: list[BaseException]) -> None:
        async def work() -> None:
            raise ValueError("on purpose")

        await asyncio.wait({reactor.spawn(work(), "doomed")})
        await asyncio.sleep(0)  # its end is told in the next turn
        assert [str(error) for error in errors] == ["on purpose"]
        (line,) = caplog.records
        assert line.facts == {"callback": "doomed"}  # type: ignore[attr-defined]

    run(main)


def test_a_cancelled_task_is_no_failure() -> None:
    async def main(reactor: Reactor, errors: list[BaseException]) -> None:
        task = reactor.spawn(asyncio.Event().wait(), "waits for ever")
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        await asyncio.sleep(0)
        assert task.cancelled()
        assert errors == []

    run(main)


def test_a_spawned_task_is_kept_though_nobody_else_holds_it() -> None:
    async def main(reactor: Reactor, errors: list[BaseException]) -> None:
        waits_for: list[weakref.ref[asyncio.Future[None]]] = []
        done = asyncio.Event()

        async def work() -> None:
            # The task holds this future, and the future the task: a cycle that nobody else holds.
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            waits_for.append(weakref.ref(future))
            await future
            done.set()

        reactor.spawn(work(), "kept")
        await asyncio.sleep(0)
        gc.collect()
        future = waits_for[0]()
        assert future is not None, "the task was collected while it waited"
        future.set_result(None)
        await done.wait()

    run(main)


def test_run_gives_back_what_main_returns_and_raises() -> None:
    async def answer() -> tuple[int, int]:
        return 42, threading.get_ident()

    async def fail() -> None:
        raise ValueError("on purpose")

    assert Reactor.run(answer) == (42, threading.get_ident())
    with pytest.raises(ValueError, match="on purpose"):
        Reactor.run(fail)


def test_the_reactors_time_is_the_loops(loop: ManualLoop) -> None:
    reactor = Reactor(loop)
    assert reactor.now() == 0.0
    loop.busy_for(2.5)
    assert reactor.now() == 2.5
