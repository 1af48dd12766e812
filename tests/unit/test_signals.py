"""Running until a signal: `main` is cancelled once, and has its time; a second signal waits for nothing."""

import asyncio
import os
import signal
import subprocess
import sys
import threading

import pytest

from trunkline.errors import WrongThread
from trunkline.reactor.signals import STOP_SIGNALS, run_until_signal

WAIT = 30.0
HEAD = """
import asyncio, os, signal, time
from trunkline.reactor.signals import run_until_signal

def tell(number):
    os.kill(os.getpid(), number)

async def for_ever():
    await asyncio.Event().wait()

"""


def run_program(source: str) -> subprocess.CompletedProcess[str]:
    """A program whose main thread is its own."""
    command = [sys.executable, "-W", "error", "-c", HEAD + source]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=WAIT)


def test_what_main_returns_is_returned() -> None:
    async def main() -> int:
        return 42

    assert run_until_signal(main) == 42


def test_what_main_raises_is_raised() -> None:
    async def main() -> None:
        raise ValueError("of main's own")

    with pytest.raises(ValueError, match="of main's own"):
        run_until_signal(main)


def test_a_cancellation_that_no_signal_has_asked_for_is_none_of_ours() -> None:
    async def main() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        run_until_signal(main)


@pytest.mark.parametrize("number", STOP_SIGNALS)
@pytest.mark.parametrize("poller", ["auto", "poll", "select"])
def test_a_signal_has_main_close_what_it_has_opened(number: signal.Signals, poller: str) -> None:
    closed = []

    async def main() -> None:
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), number)
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            closed.append("closed")

    assert run_until_signal(main, poller) is None
    assert closed == ["closed"]


def test_main_may_take_the_signal_and_return_what_it_has() -> None:
    async def main() -> str:
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGTERM)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "so far"
        return "never"

    assert run_until_signal(main) == "so far"


def test_a_timeout_inside_main_s_finally_is_a_timeout_still() -> None:
    ends = []

    async def main() -> None:
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)
        try:
            await asyncio.Event().wait()
        finally:
            try:
                async with asyncio.timeout(0):
                    await asyncio.Event().wait()
            except TimeoutError:
                ends.append("timeout")
            current = asyncio.current_task()
            assert current is not None
            ends.append(str(current.cancelling()))

    assert run_until_signal(main) is None
    assert ends == ["timeout", "0"]


def test_what_goes_wrong_while_main_closes_is_raised() -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)
        try:
            await asyncio.Event().wait()
        finally:
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        run_until_signal(main)


def test_the_handlers_that_were_there_are_there_again() -> None:
    def mine(*_: object) -> None:
        raise AssertionError

    before = {number: signal.signal(number, mine) for number in STOP_SIGNALS}
    try:

        async def main() -> None:
            asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGTERM)
            await asyncio.Event().wait()

        run_until_signal(main)
        assert [signal.getsignal(number) for number in STOP_SIGNALS] == [mine, mine]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_thread_to_which_no_signals_come_is_told_so() -> None:
    async def main() -> None:
        raise AssertionError

    errors: list[Exception] = []

    def run() -> None:
        try:
            run_until_signal(main)
        except WrongThread as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert len(errors) == 1


def test_a_stopped_program_ends_with_0_and_prints_nothing() -> None:
    done = run_program(
        "async def main():\n"
        "    asyncio.get_running_loop().call_soon(tell, signal.SIGINT)\n"
        "    await for_ever()\n"
        "run_until_signal(main)\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("second", STOP_SIGNALS)
def test_a_second_signal_ends_the_process_even_if_the_loop_stands_still(second: signal.Signals) -> None:
    done = run_program(
        "async def main():\n"
        "    asyncio.get_running_loop().call_soon(tell, signal.SIGINT)\n"
        "    try:\n"
        "        await for_ever()\n"
        "    finally:\n"
        f"        tell(signal.{second.name})\n"
        "        time.sleep(60)\n"
        "run_until_signal(main)\n"
    )
    assert (done.returncode, done.stderr) == (-second, "")


def test_without_force_a_second_signal_is_ignored() -> None:
    done = run_program(
        "async def main():\n"
        "    asyncio.get_running_loop().call_soon(tell, signal.SIGTERM)\n"
        "    try:\n"
        "        await for_ever()\n"
        "    finally:\n"
        "        tell(signal.SIGTERM)\n"
        "        await asyncio.sleep(0.05)\n"
        "        print('drained')\n"
        "run_until_signal(main, signals=(signal.SIGTERM,), force=False)\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "drained\n", "")


def test_without_force_no_signal_out_of_many_comes_at_a_bad_moment() -> None:
    done = run_program(
        "def insist(parent):\n"
        "    while os.getppid() == parent:\n"
        "        os.kill(parent, signal.SIGTERM)\n"
        "    os._exit(0)\n"
        "async def main():\n"
        "    parent = os.getpid()\n"
        "    other = os.fork() or insist(parent)\n"
        "    try:\n"
        "        await for_ever()\n"
        "    finally:\n"
        "        await asyncio.sleep(0.05)\n"
        "        os.kill(other, signal.SIGKILL)\n"
        "        os.waitpid(other, 0)\n"
        "        print('drained')\n"
        "run_until_signal(main, signals=(signal.SIGTERM,), force=False)\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "drained\n", "")
