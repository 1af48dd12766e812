"""The examples of the TCP framework, each as a process of its own that does its job and ends on Ctrl-C."""

import contextlib
import hashlib
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from programs import PATIENCE, Peer, Program, Programs, programs_in, wait_for

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "tcp"
FREE = "127.0.0.1:0"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    yield from programs_in(tmp_path)


def start(programs: Programs, name: str, *arguments: object) -> Program:
    return programs.start(EXAMPLES / f"{name}.py", *arguments)


def at(program: Program) -> str:
    return f"127.0.0.1:{program.port}"


def test_the_examples_are_found() -> None:
    assert NAMES == [
        "chat", "echo", "file_transfer", "hub", "idle_connection", "max_connection", "multi_process_echo", "relay",
        "round_trip",
    ]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_an_example_fits_on_a_page_and_says_how_to_run_it(name: str) -> None:
    source = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    assert len(source.splitlines()) < 60
    assert f"\nusage: python {name}.py " in source


SERVERS = {
    "chat": (FREE,),
    "echo": (FREE,),
    "file_transfer": ("serve", FREE, __file__),
    "hub": ("serve", FREE),
    "idle_connection": (FREE,),
    "max_connection": (FREE,),
    "multi_process_echo": (FREE,),
    "relay": (FREE, "127.0.0.1:1"),
    "round_trip": ("serve", FREE),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_example_ends_in_good_order_as_soon_as_it_has_said_its_port(
    name: str, number: signal.Signals, programs: Programs
) -> None:
    program = start(programs, name, *SERVERS[name])
    assert program.port
    program.stop(number)


def test_echo_sends_back_a_megabyte_and_ends_with_a_peer_still_there(programs: Programs) -> None:
    program = start(programs, "echo", FREE)
    peer = programs.dial(program.port)
    data = os.urandom(1_000_000)
    sending = threading.Thread(target=peer.socket.sendall, args=(data,))
    sending.start()
    received = b""
    while len(received) < len(data):
        received += peer.socket.recv(65_536)
    sending.join(PATIENCE)
    assert received == data
    program.stop()
    assert peer.is_ended()


def test_chat_knows_names_and_passes_on_what_is_said(programs: Programs) -> None:
    program = start(programs, "chat", FREE)
    ann = programs.dial(program.port)
    assert ann.hear() == "Who are you?"
    assert ann.ask("x" * 21) == "A name has 1 to 20 letters. Who are you?"
    assert ann.ask("Ann") == "Welcome, Ann. 1 are here."
    silent = programs.dial(program.port)  # has no name, and hears nothing
    assert silent.hear() == "Who are you?"
    bob = programs.dial(program.port)
    assert bob.hear() == "Who are you?"
    assert bob.ask("Ann") == "That one is here already. Who are you?"
    assert bob.ask("Bob") == "Welcome, Bob. 3 are here."
    assert ann.hear() == "Bob has come"
    bob.say("hello, Ann")
    assert ann.hear() == "Bob: hello, Ann"
    ann.say("hello, Bob")
    assert bob.hear() == "Ann: hello, Bob"
    bob.close()
    assert ann.hear() == "Bob has left"
    program.stop()
    assert ann.hear() == "The chat is closing."
    assert ann.is_ended()


def test_hub_passes_on_what_is_published_to_subscribers_alone(programs: Programs) -> None:
    program = start(programs, "hub", "serve", FREE)
    subscriber = start(programs, "hub", "sub", at(program), "weather", "news")
    subscriber.wait_for("subscribed weather\nsubscribed news\n")
    plain = programs.dial(program.port)
    assert plain.ask("sub news") == "subscribed news"
    for topic, content in (("weather", "rain"), ("sports", "1:0"), ("news", "extra extra")):
        assert start(programs, "hub", "pub", at(program), topic, content).wait() == 0
    subscriber.wait_for("weather rain\nnews extra extra\n")
    assert plain.hear() == "news extra extra"
    plain.say("unsub news")
    plain.say("pub news more")
    subscriber.wait_for("news more\n")
    assert plain.ask("what?") == "error what?", "and not the news that it unsubscribed"
    assert "sports" not in subscriber.output
    subscriber.stop()
    program.stop()


def test_idle_connection_closes_who_is_silent_and_says_why(programs: Programs) -> None:
    program = start(programs, "idle_connection", FREE, "1.5")
    silent, busy = programs.dial(program.port), programs.dial(program.port)
    beats = threading.Event()

    def beat() -> None:
        while not beats.wait(0.2):
            assert busy.ask("beat") == "beat"

    beating = threading.Thread(target=beat)
    beating.start()
    assert silent.hear() == "goodbye: nothing came for 1.5 s"
    assert silent.is_ended()
    beats.set()
    beating.join(PATIENCE)
    assert busy.ask("still there?") == "still there?"
    program.wait_for(r"is gone: idle$")
    assert program.output.count("is here") == 2
    assert program.output.count("is gone") == 1
    program.stop()


def test_max_connection_turns_away_those_over_the_limits_and_lets_in_others_later(programs: Programs) -> None:
    program = start(programs, "max_connection", FREE, "2", "2")
    first, second = programs.dial(program.port), programs.dial(program.port)
    assert first.ask("1") == "1"
    assert second.ask("2") == "2"
    assert programs.dial(program.port).is_ended()
    program.wait_for("refused: connections_limit")
    assert first.ask("still there?") == "still there?"
    second.close()

    def let_in() -> bool:
        peer = programs.dial(program.port)
        try:
            return peer.ask("third") == "third"
        except ConnectionResetError:
            return False

    wait_for(let_in, "there is room again")
    program.stop()
    assert re.search(r"^3 accepted, \d+ refused$", program.output, re.MULTILINE)


def test_max_connection_counts_each_address_by_itself(programs: Programs) -> None:
    program = start(programs, "max_connection", FREE, "5", "1")
    assert programs.dial(program.port).ask("1") == "1"
    assert programs.dial(program.port).is_ended()
    program.wait_for("refused: address_limit")
    with socket.create_connection(("127.0.0.1", program.port), PATIENCE, source_address=("127.0.0.2", 0)) as other:
        other.sendall(b"other\n")
        assert other.recv(100) == b"other\n"
    program.stop()


def test_relay_passes_on_both_ways_and_a_client_that_ends_its_side_still_gets_its_answer(programs: Programs) -> None:
    with socket.create_server(("127.0.0.1", 0)) as target:
        program = start(programs, "relay", FREE, f"127.0.0.1:{target.getsockname()[1]}")
        client = programs.dial(program.port)
        client.socket.sendall(b"question")
        target.settimeout(PATIENCE)
        served, _ = target.accept()
        with served:
            served.settimeout(PATIENCE)
            assert served.recv(100) == b"question"
            served.sendall(b"go on")
            assert client.socket.recv(100) == b"go on"
            client.socket.shutdown(socket.SHUT_WR)
            assert served.recv(100) == b"", "the target hears that the client has ended its side"
            served.sendall(b"answer")
        assert client.read_all() == b"answer"
        program.stop()


def test_relay_holds_up_who_sends_more_than_the_other_side_takes(programs: Programs) -> None:
    with socket.create_server(("127.0.0.1", 0)) as target:
        program = start(programs, "relay", FREE, f"127.0.0.1:{target.getsockname()[1]}")
        client = programs.dial(program.port)
        target.settimeout(PATIENCE)
        served, _ = target.accept()
        with served:
            served.settimeout(PATIENCE)
            client.socket.setblocking(False)
            sent, quiet_since = 0, time.monotonic()
            while time.monotonic() - quiet_since < 1.0:  # until nothing is taken any more for a second
                try:
                    sent += client.socket.send(bytes(65_536))
                    quiet_since = time.monotonic()
                except BlockingIOError:
                    time.sleep(0.01)
                assert sent < 64 * 2**20, "the relay keeps all that comes"
            client.socket.settimeout(PATIENCE)
            client.socket.shutdown(socket.SHUT_WR)
            received = 0
            while data := served.recv(2**20):
                received += len(data)
            assert received == sent
        program.stop()


def test_relay_closes_a_client_whose_target_is_not_there(programs: Programs) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        program = start(programs, "relay", FREE, f"127.0.0.1:{nobody.getsockname()[1]}")
        assert programs.dial(program.port).is_ended()
        program.wait_for("can't be passed on")
        program.stop()


def test_file_transfer_brings_a_file_whole(programs: Programs, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    data = os.urandom(10_000_001)
    source.write_bytes(data)
    program = start(programs, "file_transfer", "serve", FREE, source)
    client = start(programs, "file_transfer", "get", at(program), target)
    assert client.wait() == 0, client.errors
    assert client.output == f"10000001 bytes, SHA-256 {hashlib.sha256(data).hexdigest()}\n"
    assert target.read_bytes() == data
    source.write_bytes(b"")
    assert start(programs, "file_transfer", "get", at(program), target).wait() == 0
    assert target.read_bytes() == b""
    program.stop()


def test_file_transfer_holds_no_more_of_a_file_than_its_peer_takes(programs: Programs, tmp_path: Path) -> None:
    source = tmp_path / "source"
    with source.open("wb") as file:
        file.truncate(2**30)  # a gibibyte of nothing, which takes no room on the disk
    program = start(programs, "file_transfer", "serve", FREE, source)
    peers = [programs.dial(program.port) for _ in range(5)]
    for peer in peers:
        assert peer.socket.recv(4, socket.MSG_WAITALL) == b"\0\0\0\x0a"
    growth = resident_bytes(program)
    for peer in peers[1:]:
        peer.close()  # in the middle of it
    wait_for(lambda: resident_bytes(program) - growth < 8 * 2**20, "what the peers did not take is not kept")
    assert resident_bytes(program) < 128 * 2**20
    program.stop()


def resident_bytes(program: Program) -> int:
    """The memory that the process holds."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{program.process.pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def test_file_transfer_refuses_what_is_not_what_was_sent(programs: Programs, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as liar:
        target = tmp_path / "target"
        client = start(programs, "file_transfer", "get", f"127.0.0.1:{liar.getsockname()[1]}", target)
        liar.settimeout(PATIENCE)
        served, _ = liar.accept()
        with served:
            for message in (b"5", b"hello", hashlib.sha256(b"hullo").digest()):
                served.sendall(len(message).to_bytes(4, "big") + message)
            assert client.wait() == 1
    assert "is not what was sent" in client.errors
    assert not target.exists()


def test_round_trip_measures_delay_and_clock_offset(programs: Programs) -> None:
    program = start(programs, "round_trip", "serve", FREE)
    client = start(programs, "round_trip", "measure", at(program), "3")
    assert client.wait() == 0, client.errors
    lines = re.findall(r"^round trip (\d+) us, clock offset (-?\d+) us$", client.output, re.MULTILINE)
    assert len(lines) == 3
    for delay, offset in lines:  # one machine has one clock: what seems to be offset is half the delay at the most
        assert abs(int(offset)) <= int(delay) / 2 + 1
    endless = start(programs, "round_trip", "measure", at(program), "1000000")
    endless.wait_for("round trip")
    endless.stop()
    program.stop()


def test_multi_process_echo_shares_its_connections_out_and_replaces_a_worker_that_is_killed(
    programs: Programs,
) -> None:
    program = start(programs, "multi_process_echo", FREE, "2")

    def workers(count: int) -> set[int]:
        """The ids of the processes that have answered, of so many connections."""
        found = set()
        for _ in range(count):
            # A worker may not be up yet, or be about to be down.
            with contextlib.suppress(ConnectionError), contextlib.closing(Peer(program.port)) as peer:
                found.add(int(peer.ask("who is it?").partition(":")[0] or 0))
        return found - {0}

    before = wait_for(lambda: found if len(found := workers(50)) == 2 else None, "both workers answer")
    assert before is not None
    killed = min(before)
    os.kill(killed, signal.SIGKILL)
    after = wait_for(
        lambda: found if len(found := workers(50)) == 2 and killed not in found else None, "there is a new worker"
    )
    assert after is not None
    program.stop()
    for pid in before | after:
        assert not Path(f"/proc/{pid}").exists()
