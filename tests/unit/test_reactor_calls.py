"""Calls into the reactor that come to nothing, and where their errors are told."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable

import pytest

from trunkline.reactor import Reactor, ReactorThread, new_event_loop

WAIT = 10.0
each_loop = pytest.mark.parametrize("poller", ["auto", "select"])


class Payload:
    """What a call holds."""

    def take(self) -> None:
        raise AssertionError("nobody calls this")


def cancelled() -> None:
    raise asyncio.CancelledError  # as `future.result()` does where the future was cancelled


def test_a_callback_that_ends_as_cancelled_strands_no_later_call() -> None:
    errors: list[BaseException] = []
    called = threading.Event()
    held, go_on = threading.Event(), threading.Event()

    def hold_up() -> None:
        held.set()
        go_on.wait(WAIT)

    with ReactorThread(on_error=errors.append) as thread:
        thread.reactor.call(hold_up)
        assert held.wait(WAIT)
        thread.reactor.call(cancelled)  # so that both are of one batch
        thread.reactor.call(called.set)
        go_on.set()
        assert called.wait(WAIT)
    assert [type(error) for error in errors] == [asyncio.CancelledError]


@each_loop
def test_a_call_into_a_closed_loop_is_an_error_and_nothing_of_it_is_kept(poller: str) -> None:
    loop = new_event_loop(poller)
    reactor = Reactor(loop)
    loop.close()
    payload = Payload()
    kept = weakref.ref(payload)
    with pytest.raises(RuntimeError):
        reactor.call(payload.take)
    del payload
    gc.collect()
    assert kept() is None


@each_loop
def test_a_call_is_an_error_also_where_the_loop_was_closed_before_it_had_looked(poller: str) -> None:
    loop = new_event_loop(poller)
    reactor = Reactor(loop)
    payload = Payload()
    kept = weakref.ref(payload)
    reactor.call(payload.take)
    del payload
    loop.close()
    for _ in range(2):
        with pytest.raises(RuntimeError):
            reactor.call(print)
    gc.collect()
    assert kept() is None, "what came before is not kept either"


def fail_in(reactor: Reactor) -> Callable[[], None]:
    return lambda: reactor.run_guarded(lambda: 1 // 0)


def test_the_reactor_of_a_running_program_tells_its_errors() -> None:
    errors: list[BaseException] = []

    async def main() -> None:
        fail_in(Reactor.current(on_error=errors.append))()

    asyncio.run(main())
    assert [type(error) for error in errors] == [ZeroDivisionError]


def test_what_run_is_given_hears_the_errors_of_every_reactor_in_it_that_has_no_other() -> None:
    errors: list[BaseException] = []
    others: list[BaseException] = []

    async def in_a_task() -> None:
        fail_in(Reactor.current())()

    async def main() -> None:
        fail_in(Reactor.current())()
        await asyncio.create_task(in_a_task())
        fail_in(Reactor.current(others.append))()

    Reactor.run(main, on_error=errors.append)
    assert [type(error) for error in errors] == [ZeroDivisionError] * 2
    assert [type(error) for error in others] == [ZeroDivisionError]
    Reactor.run(main)
    assert len(errors) == 2, "it is this run's alone"
    assert len(others) == 2
