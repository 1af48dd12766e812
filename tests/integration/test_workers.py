"""Worker processes: started again when they die, ended in good order, and never left behind."""

import asyncio
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from programs import Program, Programs, programs_in, wait_for

from trunkline.errors import UsageError
from trunkline.tcp import bind_tcp, hold_port, run_workers

HEAD = """
import asyncio, os, signal, sys, time
from trunkline.logs import start_logging
from trunkline.tcp import FullJitter
from trunkline.tcp import run_workers

start_logging()

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def at_once():
    return FullJitter(base=0.01, cap=0.05)

async def for_ever():
    await asyncio.Event().wait()

"""
WORK = """
async def work(number):
    say("up", number, os.getpid())
    try:
        await for_ever()
    finally:
        await asyncio.sleep(0.05)
        say("drained", number, os.getpid())
"""


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    yield from programs_in(tmp_path)


def start(programs: Programs, source: str) -> Program:
    return programs.start("-c", HEAD + source)


def up(program: Program, number: int) -> list[int]:
    """The ids of the processes that have been worker `number` so far."""
    return [int(pid) for pid in re.findall(rf"^up {number} (\d+)$", program.output, re.MULTILINE)]


def wait_until_up(program: Program, count: int, times: int = 1) -> list[int]:
    def find() -> list[int]:
        pids = [up(program, number) for number in range(count)]
        return [one[-1] for one in pids] if all(len(one) >= times for one in pids) else []

    return wait_for(find, f"{count} workers are up, beside {program.errors}")


def is_gone(pid: int) -> bool:
    """Whether no such process runs, or only its exit code is left."""
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def drained(program: Program) -> set[int]:
    return {int(pid) for pid in re.findall(r"^drained \d+ (\d+)$", program.output, re.MULTILINE)}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_all_workers_drain_when_the_parent_is_told_to_stop(programs: Programs, number: signal.Signals) -> None:
    program = start(programs, WORK + "sys.exit(run_workers(work, 3))")
    pids = wait_until_up(program, 3)
    program.stop(number)
    assert drained(program) == set(pids)
    assert all(map(is_gone, pids))


def test_ctrl_c_reaches_parent_and_workers_alike_and_they_drain_once(programs: Programs) -> None:
    program = start(programs, "os.setpgid(0, 0)\n" + WORK + "sys.exit(run_workers(work, 2))")
    pids = wait_until_up(program, 2)
    os.killpg(program.process.pid, signal.SIGINT)
    assert program.wait() == 0, program.errors
    assert drained(program) == set(pids)


def test_a_service_manager_may_tell_all_of_them(programs: Programs) -> None:
    program = start(programs, "os.setpgid(0, 0)\n" + WORK + "sys.exit(run_workers(work, 2))")
    pids = wait_until_up(program, 2)
    os.killpg(program.process.pid, signal.SIGTERM)
    assert program.wait() == 0, program.errors
    assert drained(program) >= set(pids)


def test_a_worker_that_is_killed_is_started_again_and_the_others_stay(programs: Programs) -> None:
    program = start(programs, WORK + "sys.exit(run_workers(work, 2, new_backoff=at_once))")
    first, second = wait_until_up(program, 2)
    for times in (2, 3, 4):
        os.kill(up(program, 0)[-1], signal.SIGKILL)
        wait_for(lambda times=times: len(up(program, 0)) == times, "worker 0 is up again")  # type: ignore[misc]
    assert up(program, 1) == [second]
    assert is_gone(first)
    program.stop(signal.SIGTERM)
    assert program.errors.count("exit_code=-9") == 3
    assert drained(program) == {second, up(program, 0)[-1]}


def test_a_worker_that_ends_by_itself_is_started_again_too(programs: Programs) -> None:
    source = 'async def work(number):\n    say("up", number, os.getpid())\n    await asyncio.sleep(0.01)\n'
    program = start(programs, source + "sys.exit(run_workers(work, 1, new_backoff=at_once))")
    wait_for(lambda: len(up(program, 0)) > 3, "it is started again")
    program.stop()


def test_a_worker_that_fails_says_why_and_is_not_started_again_and_again_without_a_pause(programs: Programs) -> None:
    source = 'async def work(number):\n    say("up", number, os.getpid())\n    raise ValueError("no such luck")\n'
    backoff = "lambda: FullJitter(base=30.0, cap=30.0, uniform=max)"
    program = start(programs, source + f"sys.exit(run_workers(work, 1, new_backoff={backoff}))")
    wait_for(lambda: "exit_code=1" in program.errors, "it has ended")
    assert "ValueError: no such luck" in program.errors
    program.tell(signal.SIGTERM)
    assert program.wait() == 1, "it did not end in good order"
    assert len(up(program, 0)) == 1


@pytest.mark.parametrize(("argument", "code"), [("", 0), ("0", 0), ("3", 3), ("'in a word'", 1)])
def test_a_worker_may_exit_as_any_program(programs: Programs, argument: str, code: int) -> None:
    source = f"async def work(number):\n    sys.exit({argument})\n"
    program = start(programs, source + "sys.exit(run_workers(work, 1))")
    wait_for(lambda: f"exit_code={code}\n" in program.errors, "it has ended")
    program.tell(signal.SIGTERM)
    program.wait()


def test_workers_end_in_good_order_when_their_parent_is_killed(programs: Programs) -> None:
    program = start(programs, WORK + "sys.exit(run_workers(work, 3))")
    pids = wait_until_up(program, 3)
    os.kill(program.process.pid, signal.SIGKILL)
    program.wait()
    wait_for(lambda: all(map(is_gone, pids)), "the orphans have ended")
    assert drained(program) == set(pids)


def test_a_worker_that_was_started_later_is_no_one_s_parent_either(programs: Programs) -> None:
    program = start(programs, WORK + "sys.exit(run_workers(work, 2, new_backoff=at_once))")
    first, _ = wait_until_up(program, 2)
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: len(up(program, 0)) == 2, "worker 0 is up again")
    os.kill(program.process.pid, signal.SIGKILL)
    pids = [up(program, 0)[-1], up(program, 1)[-1]]
    wait_for(lambda: all(map(is_gone, pids)), "none of them holds the pipe open for the other")


STUBBORN = """
async def work(number):
    say("up", number, os.getpid())
    try:
        await for_ever()
    finally:
        if number == 0:
            time.sleep(60)
        say("drained", number, os.getpid())
"""


def test_a_worker_that_does_not_end_in_time_is_killed_and_that_shows_in_the_exit_code(programs: Programs) -> None:
    program = start(programs, STUBBORN + "sys.exit(run_workers(work, 2, stop_timeout=0.5))")
    first, second = wait_until_up(program, 2)
    program.tell(signal.SIGTERM)
    assert program.wait() == 1
    assert drained(program) == {second}
    assert is_gone(first)
    assert "worker killed worker=0" in program.errors


def test_a_second_signal_to_the_parent_waits_no_longer(programs: Programs) -> None:
    program = start(programs, STUBBORN + "sys.exit(run_workers(work, 2, stop_timeout=300))")
    _, second = wait_until_up(program, 2)
    program.tell(signal.SIGINT)
    wait_for(lambda: second in drained(program), "the other one has drained")
    program.tell(signal.SIGINT)
    assert program.wait() == 1


def test_a_signal_that_comes_while_workers_are_started_is_not_lost(programs: Programs) -> None:
    program = start(programs, WORK + (
        "fork = os.fork\n"
        "def fork_and_tell():\n"
        "    pid = fork()\n"
        "    if pid:\n"
        "        os.kill(pid, signal.SIGTERM)\n"  # long before it has a loop
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return pid\n"
        "os.fork = fork_and_tell\n"
        "sys.exit(run_workers(work, 3))"
    ))  # fmt: skip
    assert program.wait() == 0, program.errors
    assert drained(program) == {up(program, number)[0] for number in range(3)}


def test_a_fork_that_fails_is_tried_again(programs: Programs) -> None:
    program = start(programs, WORK + (
        "fork, failures = os.fork, [OSError(11, 'not now'), OSError(11, 'not now')]\n"
        "def sometimes():\n"
        "    if failures:\n"
        "        raise failures.pop()\n"
        "    return fork()\n"
        "os.fork = sometimes\n"
        "sys.exit(run_workers(work, 1, new_backoff=at_once))"
    ))  # fmt: skip
    wait_until_up(program, 1)
    assert program.errors.count("no worker can be started") == 2
    program.tell(signal.SIGTERM)
    assert program.wait() == 0


def test_what_was_printed_before_is_printed_once(programs: Programs) -> None:
    program = start(programs, 'print("before")\n' + WORK + "sys.exit(run_workers(work, 3))")
    wait_until_up(program, 3)
    program.stop()
    assert program.output.count("before") == 1


def test_workers_do_not_draw_the_same_lots(programs: Programs) -> None:
    source = 'import random\nasync def work(number):\n    say("drew", random.random())\n    await for_ever()\n'
    program = start(programs, source + "sys.exit(run_workers(work, 3))")
    wait_for(lambda: program.output.count("drew") == 3, "all have drawn")
    program.stop()
    assert len(set(program.output.splitlines())) == 3


async def never(number: int) -> None:
    raise AssertionError("no worker is to be started")


@pytest.mark.parametrize("count", [0, -1])
def test_less_than_one_worker_is_a_mistake(count: int) -> None:
    with pytest.raises(UsageError, match="1 or more"):
        run_workers(never, count)


def test_workers_are_not_forked_off_a_program_with_threads() -> None:
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait, name="the-other")
    thread.start()
    try:
        with pytest.raises(UsageError, match="the-other"):
            run_workers(never, 1)
    finally:
        ended.set()
        thread.join()


def test_workers_are_not_forked_off_a_running_loop() -> None:
    async def main() -> None:
        with pytest.raises(UsageError, match="loop"):
            run_workers(never, 1)

    asyncio.run(main())


def test_a_held_port_is_known_and_free_for_those_who_share_it() -> None:
    with hold_port("127.0.0.1", 0) as port:
        (sock,) = bind_tcp("127.0.0.1", port, reuse_port=True)
        with sock, pytest.raises(OSError, match="in use"):
            bind_tcp("127.0.0.1", port)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))


def test_a_port_that_is_in_use_is_noticed_before_any_worker_is_started() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        pytest.raises(OSError, match="in use"),
        hold_port("127.0.0.1", other.getsockname()[1]),
    ):
        pass
