"""A reactor in a thread of its own."""

import asyncio
import threading

import pytest

from trunkline.errors import UsageError
from trunkline.reactor import ReactorThread


def test_work_is_handed_in_and_results_come_back() -> None:
    async def where() -> tuple[int, str]:
        await asyncio.sleep(0)
        return threading.get_ident(), threading.current_thread().name

    with ReactorThread(name="my-reactor") as thread:
        ident, name = thread.run(where())
        assert (ident, name) == (thread.reactor.thread_id, "my-reactor")
        assert ident != threading.get_ident()


def test_what_the_work_raises_comes_back_too() -> None:
    async def fail() -> None:
        raise ValueError("on purpose")

    with ReactorThread() as thread, pytest.raises(ValueError, match="on purpose"):
        thread.run(fail())


def test_work_that_takes_too_long_is_cancelled() -> None:
    cancelled = threading.Event()

    async def wait_for_ever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with ReactorThread() as thread:
        with pytest.raises(TimeoutError):
            thread.run(wait_for_ever(), timeout=0.01)
        assert cancelled.wait(10)


def test_stop_ends_the_thread_and_cancels_what_runs() -> None:
    thread = ReactorThread()
    reactor = thread.start()
    ended = threading.Event()

    async def wait_for_ever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    started = threading.Event()
    reactor.call(lambda: (reactor.spawn(wait_for_ever(), "waits"), reactor.call(started.set)))
    assert started.wait(10)
    before = threading.active_count()
    thread.stop()
    thread.stop()
    assert ended.is_set()
    assert threading.active_count() == before - 1
    assert reactor.loop.is_closed()


def test_a_poller_that_is_not_here_is_told_to_whoever_starts_it() -> None:
    with pytest.raises(UsageError, match="kqueue"):
        ReactorThread(poller="kqueue").start()


def test_one_thread_serves_once() -> None:
    with ReactorThread() as thread, pytest.raises(UsageError, match="started before"):
        thread.start()
    ReactorThread().stop()  # never started: nothing to stop
