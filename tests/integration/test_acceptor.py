"""The accept loop against real sockets: crowds, no descriptor left, stale files, two families, two processes.

Run as a program, this file is one of the processes that the tests need: `serve` or `crowd`.
"""

import asyncio
import contextlib
import errno
import json
import logging
import os
import resource
import select
import socket
import stat
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from trunkline.errors import SettingsError, UsageError, WrongThread
from trunkline.reactor import POLLERS, Reactor, new_event_loop
from trunkline.tcp import Acceptor, bind, bind_tcp, bind_unix

WAIT = 30.0
LOCAL = "127.0.0.1"
CROWD = 3_000


def available(*names: str) -> Iterator[str]:
    for name in names:
        with contextlib.suppress(UsageError):
            new_event_loop(name).close()
            yield name


ALL_POLLERS = list(available(*POLLERS[1:]))


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
needs_unix = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this platform has no Unix sockets")


# Processes of their own.


class Child:
    """This file as a program; answers each line that it is asked with a line of JSON."""

    def __init__(self, role: str, **options: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, role, json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_error: object) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(WAIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self.process.stdout.close()

    def read(self) -> Any:
        out = self.process.stdout
        assert out is not None
        assert select.select([out], [], [], WAIT)[0], "the other process says nothing"
        return json.loads(out.readline())

    def ask(self, *words: object) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(map(str, words)).encode() + b"\n")
        return self.read()


class Echo(asyncio.Protocol):
    """Answers `who?` with its process, and all else with the same."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(str(os.getpid()).encode() if data == b"who?" else data)


def serve(poller: str = "auto", port: int = 0, reuse_port: bool = False) -> None:
    """Echoes, until its standard input ends. Says its port first."""
    logged: list[logging.LogRecord] = []

    class Counting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            logged.append(record)

    logging.getLogger("trunkline").addHandler(Counting())

    async def main() -> None:
        reactor = Reactor(asyncio.get_running_loop())
        ended = asyncio.Event()

        def on_accepted(sock: socket.socket, _address: Any) -> None:
            reactor.spawn(reactor.loop.connect_accepted_socket(Echo, sock), "echo")

        acceptor = Acceptor(reactor, bind_tcp(LOCAL, port, reuse_port=reuse_port)[0], on_accepted)

        def answer(words: list[str]) -> None:
            if words[0] == "limit":
                resource.setrlimit(
                    resource.RLIMIT_NOFILE, (int(words[1]), resource.getrlimit(resource.RLIMIT_NOFILE)[1])
                )
            report = {"cpu": time.process_time(), "accepted": acceptor.accepted, "shed": acceptor.shed}
            print(json.dumps(report | {"logged": len(logged)}), flush=True)

        def listen_to_parent() -> None:
            for line in sys.stdin:
                reactor.call(answer, line.split())
            reactor.call(ended.set)

        print(json.dumps(acceptor.address[1]), flush=True)
        threading.Thread(target=listen_to_parent, daemon=True).start()
        await ended.wait()
        acceptor.close()

    Reactor.run(main, poller)


def crowd(port: int, size: int) -> None:
    """Connects so many times, then talks on each connection, and says how many answered right."""
    peers = [socket.create_connection((LOCAL, port), WAIT) for _ in range(size)]
    answered = 0
    for number, peer in enumerate(peers):
        peer.sendall(str(number).encode())
    for number, peer in enumerate(peers):
        answered += peer.recv(100) == str(number).encode()
    print(json.dumps(answered), flush=True)
    sys.stdin.read()


def connect(port: int) -> socket.socket:
    return socket.create_connection((LOCAL, port), WAIT)


def answer(peer: socket.socket, words: bytes) -> bytes:
    """What is answered; nothing if the connection is closed."""
    try:
        peer.sendall(words)
        return peer.recv(100)
    except (ConnectionResetError, BrokenPipeError):
        return b""


@pytest.mark.parametrize("poller", [name for name in ALL_POLLERS if name != "select"])
def test_thousands_of_connections_of_one_process_are_all_served(poller: str) -> None:
    with Child("serve", poller=poller) as server, Child("crowd", port=server.read(), size=CROWD) as crowd:
        assert crowd.read() == CROWD
        report = server.ask("report")
        assert (report["accepted"], report["shed"], report["logged"]) == (CROWD, 0, 0)


# select and poll can't be told of a limit below the descriptors that they watch.
@pytest.mark.parametrize("poller", [name for name in ALL_POLLERS if name in ("uvloop", "epoll", "kqueue")])
def test_without_a_descriptor_left_newcomers_are_dropped_and_the_others_notice_nothing(poller: str) -> None:
    with Child("serve", poller=poller) as server, contextlib.ExitStack() as opened:
        port = server.read()
        server.ask("limit", 64)
        peers: list[socket.socket] = []
        while answer(peer := opened.enter_context(connect(port)), b"hello") == b"hello":
            peers.append(peer)
        assert 20 < len(peers) < 64

        dropped: list[bytes] = []
        enough = threading.Event()

        def knock() -> None:
            while not enough.is_set():
                with connect(port) as peer, contextlib.suppress(ConnectionResetError):
                    dropped.append(peer.recv(1))

        before, started_at = server.ask("report"), time.monotonic()
        threads = [threading.Thread(target=knock) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            while (len(dropped) < 500 or time.monotonic() - started_at < 2.0) and time.monotonic() - started_at < WAIT:
                for number, peer in enumerate(peers):
                    assert answer(peer, b"%d" % number) == b"%d" % number
                time.sleep(0.1)
            after, elapsed = server.ask("report"), time.monotonic() - started_at
        finally:
            enough.set()
            for thread in threads:
                thread.join()
        assert len(dropped) >= 500
        assert set(dropped) == {b""}
        assert after["shed"] - before["shed"] >= 500
        assert after["cpu"] - before["cpu"] < elapsed / 2
        assert 1 <= after["logged"] <= 2 + elapsed / 10

        for peer in peers[:10]:
            peer.close()
        ends_at = time.monotonic() + WAIT
        while answer(opened.enter_context(connect(port)), b"again") != b"again":
            assert time.monotonic() < ends_at, "it does not recover"
        assert answer(peers[-1], b"last") == b"last"


@pytest.mark.parametrize("poller", [name for name in ALL_POLLERS if name in ("uvloop", "epoll", "kqueue")])
def test_where_not_even_the_spare_descriptor_helps_newcomers_wait_and_are_served_later(poller: str) -> None:
    with Child("serve", poller=poller) as server, contextlib.ExitStack() as opened:
        port = server.read()
        peer = opened.enter_context(connect(port))
        assert answer(peer, b"hello") == b"hello"
        server.ask("limit", 3)
        before, started_at = server.ask("report"), time.monotonic()
        waiting = [opened.enter_context(connect(port)) for _ in range(20)]
        for newcomer in waiting:
            newcomer.sendall(b"let me in")
        while time.monotonic() - started_at < 2.5:
            assert answer(peer, b"still there") == b"still there"
            time.sleep(0.1)
        after, elapsed = server.ask("report"), time.monotonic() - started_at
        assert after["cpu"] - before["cpu"] < elapsed / 2
        assert (after["accepted"], after["shed"]) == (1, 0)
        assert 1 <= after["logged"] <= 2 + elapsed / 10
        server.ask("limit", 256)
        assert [newcomer.recv(100) for newcomer in waiting] == [b"let me in"] * 20


@pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="this platform can't share a port")
def test_two_processes_share_a_port_and_both_get_connections() -> None:
    with Child("serve", reuse_port=True) as first:
        port = first.read()
        with Child("serve", reuse_port=True, port=port) as second:
            assert second.read() == port
            owners: Counter[bytes] = Counter()
            for _ in range(200):
                with connect(port) as peer:
                    owners[answer(peer, b"who?")] += 1
            assert set(owners) == {b"%d" % child.process.pid for child in (first, second)}


# In this process.


def run(main: Callable[[Reactor], Coroutine[Any, Any, None]], poller: str = "auto") -> None:
    async def with_reactor() -> None:
        async with asyncio.timeout(WAIT):
            await main(Reactor(asyncio.get_running_loop()))

    Reactor.run(with_reactor, poller)


async def until(true: Callable[[], bool]) -> None:
    while not true():  # noqa: ASYNC110  what it waits for is not all of one kind
        await asyncio.sleep(0.001)


async def some_turns() -> None:
    """Time enough for a loop that has something to do to do it."""
    for _ in range(100):
        await asyncio.sleep(0)


@pytest.mark.parametrize("poller", ALL_POLLERS)
def test_a_crowd_is_taken_in_batches_and_all_else_has_its_turns_between(poller: str) -> None:
    async def main(reactor: Reactor) -> None:
        turn = 0
        turns: list[int] = []
        accepted: list[socket.socket] = []

        def on_accepted(sock: socket.socket, address: Any) -> None:
            assert sock.getpeername() == address
            assert sock.gettimeout() == 0.0
            accepted.append(sock)
            turns.append(turn)

        def tick() -> None:
            nonlocal turn
            turn += 1
            reactor.loop.call_soon(tick)

        sock = bind_tcp(LOCAL, 0)[0]
        peers = [connect(sock.getsockname()[1]) for _ in range(200)]
        acceptor = Acceptor(reactor, sock, on_accepted, batch=16)
        tick()
        await until(lambda: len(accepted) == 200)
        acceptor.close()
        assert acceptor.accepted == 200
        assert max(Counter(turns).values()) <= 16
        for one in (*peers, *accepted):
            one.close()

    run(main, poller)


@pytest.mark.parametrize("poller", ALL_POLLERS)
def test_who_comes_in_a_pause_waits_and_who_comes_after_the_end_is_refused(poller: str) -> None:
    async def main(reactor: Reactor) -> None:
        accepted: list[socket.socket] = []
        acceptor = Acceptor(reactor, bind_tcp(LOCAL, 0)[0], lambda sock, _address: accepted.append(sock))
        port = acceptor.address[1]
        acceptor.pause()
        acceptor.pause()
        with connect(port):
            await some_turns()
            assert accepted == []
            acceptor.resume()
            acceptor.resume()
            await until(lambda: len(accepted) == 1)
        for _ in range(2):
            acceptor.close()
        acceptor.resume()
        with pytest.raises(ConnectionRefusedError):
            connect(port)
        accepted[0].close()

    run(main, poller)


def test_a_pause_counts_at_once_also_within_a_batch() -> None:
    async def main(reactor: Reactor) -> None:
        accepted: list[socket.socket] = []

        def on_accepted(sock: socket.socket, _address: Any) -> None:
            accepted.append(sock)
            acceptor.pause()

        sock = bind_tcp(LOCAL, 0)[0]
        peers = [connect(sock.getsockname()[1]) for _ in range(3)]
        acceptor = Acceptor(reactor, sock, on_accepted)
        for number in range(1, 4):
            await until(lambda number=number: len(accepted) == number)  # type: ignore[misc]
            await some_turns()
            assert len(accepted) == number
            acceptor.resume()
        acceptor.close()
        for one in (*peers, *accepted):
            one.close()

    run(main)


def test_a_connection_that_nobody_can_take_over_is_closed_and_the_next_is_taken() -> None:
    async def main(_reactor: Reactor) -> None:
        reported: list[BaseException] = []
        reactor = Reactor(asyncio.get_running_loop(), reported.append)
        accepted: list[socket.socket] = []

        def on_accepted(sock: socket.socket, _address: Any) -> None:
            if not reported:
                raise ValueError("not this one")
            accepted.append(sock)

        acceptor = Acceptor(reactor, bind_tcp(LOCAL, 0)[0], on_accepted)
        with connect(acceptor.address[1]) as first, connect(acceptor.address[1]):
            await until(lambda: bool(accepted))
            assert first.recv(1) == b""
        assert [str(error) for error in reported] == ["not this one"]
        acceptor.close()
        accepted[0].close()

    run(main)


class FaultySocket(socket.socket):
    """A listening socket whose system fails at times."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(fileno=sock.detach())
        self.faults: list[int] = []
        self.calls = 0

    def accept(self) -> tuple[socket.socket, Any]:
        self.calls += 1
        if self.faults:
            number = self.faults.pop(0)
            raise OSError(number, os.strerror(number))
        return super().accept()


@pytest.mark.parametrize(
    "faults",
    [[errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.ENETDOWN], [errno.EMFILE, errno.ECONNABORTED]],
    ids=["one after the other", "at the descriptor limit"],
)
def test_connections_that_ended_while_they_waited_are_passed_over(faults: list[int]) -> None:
    async def main(reactor: Reactor) -> None:
        accepted: list[socket.socket] = []
        sock = FaultySocket(bind_tcp(LOCAL, 0)[0])
        sock.faults = list(faults)
        acceptor = Acceptor(reactor, sock, lambda one, _address: accepted.append(one))
        with connect(acceptor.address[1]):
            await until(lambda: bool(accepted))
        assert (sock.faults, acceptor.shed) == ([], 0)
        acceptor.close()
        accepted[0].close()

    run(main)


@pytest.mark.parametrize("fault", [errno.ENOBUFS, errno.ENOMEM, errno.EINVAL])
def test_when_the_system_fails_it_waits_and_tries_again(fault: int) -> None:
    async def main(reactor: Reactor) -> None:
        accepted: list[socket.socket] = []
        sock = FaultySocket(bind_tcp(LOCAL, 0)[0])
        sock.faults = [fault] * 2
        acceptor = Acceptor(reactor, sock, lambda one, _address: accepted.append(one))
        with connect(acceptor.address[1]):
            await until(lambda: bool(accepted))
        assert sock.calls <= 5, "it spins"
        assert acceptor.shed == 0
        acceptor.close()
        accepted[0].close()

    run(main)


def test_who_was_dropped_is_told_of_by_number() -> None:
    async def main(reactor: Reactor) -> None:
        dropped: list[int] = []
        accepted: list[socket.socket] = []
        sock = FaultySocket(bind_tcp(LOCAL, 0)[0])
        sock.faults = [errno.EMFILE]
        peers = [connect(sock.getsockname()[1]) for _ in range(5)]
        acceptor = Acceptor(reactor, sock, lambda one, _address: accepted.append(one), dropped.append, batch=3)
        await until(lambda: len(accepted) == 2)
        assert (dropped, acceptor.shed, acceptor.accepted) == ([3], 3, 2)
        assert [peer.recv(1) for peer in peers[:3]] == [b""] * 3
        acceptor.close()
        for one in (*peers, *accepted):
            one.close()

    run(main)


@pytest.mark.parametrize("stop", [Acceptor.pause, Acceptor.close])
def test_an_acceptor_that_is_stopped_while_it_waits_does_not_come_back(stop: Callable[[Acceptor], None]) -> None:
    async def main(_reactor: Reactor) -> None:
        reported: list[BaseException] = []
        sock = FaultySocket(bind_tcp(LOCAL, 0)[0])
        sock.faults = [errno.EMFILE] * 2
        reactor = Reactor(asyncio.get_running_loop(), reported.append)
        acceptor = Acceptor(reactor, sock, lambda one, _address: one.close())
        with connect(acceptor.address[1]):
            await until(lambda: not sock.faults)
            stop(acceptor)
            calls = sock.calls
            await asyncio.sleep(1.2)
            assert sock.calls == calls
        acceptor.close()
        assert reported == []

    run(main)


def test_another_thread_may_not_touch_it() -> None:
    async def main(reactor: Reactor) -> None:
        acceptor = Acceptor(reactor, bind_tcp(LOCAL, 0)[0], lambda one, _address: one.close())
        for method in (acceptor.pause, acceptor.resume, acceptor.close):
            with pytest.raises(WrongThread):
                await asyncio.to_thread(method)
        acceptor.close()

    run(main)


def test_it_gives_back_every_descriptor() -> None:
    def descriptors() -> set[str]:
        return {path.name for path in Path("/dev/fd").iterdir()}

    async def main(reactor: Reactor) -> None:
        before = descriptors()
        for _ in range(3):
            Acceptor(reactor, bind_tcp(LOCAL, 0)[0], lambda one, _address: one.close()).close()
            with pytest.raises(OSError, match=r".*"):
                bind_tcp("192.0.2.1", 0)
        assert len(descriptors()) == len(before)

    run(main)


# Binding.


@contextlib.contextmanager
def closing(sockets: list[socket.socket]) -> Iterator[list[socket.socket]]:
    try:
        yield sockets
    finally:
        for sock in sockets:
            sock.close()


@needs_ipv6
def test_an_empty_host_is_every_address_of_both_families_with_one_port() -> None:
    with closing(bind_tcp("", 0)) as sockets:
        assert {sock.family for sock in sockets} == {socket.AF_INET, socket.AF_INET6}
        port = sockets[0].getsockname()[1]
        assert {sock.getsockname()[:2] for sock in sockets} == {("0.0.0.0", port), ("::", port)}
        for host in (LOCAL, "::1"):
            socket.create_connection((host, port), WAIT).close()


@needs_ipv6
@pytest.mark.parametrize(("first", "second"), [("::", "0.0.0.0"), ("0.0.0.0", "::"), ("::1", LOCAL)])
def test_both_families_can_have_the_same_port_side_by_side(first: str, second: str) -> None:
    with closing(bind_tcp(first, 0)) as one, closing(bind_tcp(second, one[0].getsockname()[1])) as other:
        assert len(one) == len(other) == 1


@needs_ipv6
def test_peers_of_ipv6_are_accepted() -> None:
    async def main(reactor: Reactor) -> None:
        accepted: list[tuple[socket.socket, Any]] = []
        acceptor = Acceptor(reactor, bind_tcp("::1", 0)[0], lambda *one: accepted.append(one))
        with socket.create_connection(("::1", acceptor.address[1]), WAIT) as peer:
            await until(lambda: bool(accepted))
            assert accepted[0][1] == peer.getsockname()
        acceptor.close()
        accepted[0][0].close()

    run(main)


def test_a_port_in_use_and_a_host_that_is_none_are_errors() -> None:
    with closing(bind_tcp(LOCAL, 0)) as sockets:
        with pytest.raises(OSError, match="in use") as error:
            bind_tcp(LOCAL, sockets[0].getsockname()[1])
        assert error.value.errno == errno.EADDRINUSE
    with pytest.raises(OSError, match=r".*") as error:
        bind_tcp("192.0.2.1", 0)
    assert error.value.errno == errno.EADDRNOTAVAIL
    with pytest.raises(socket.gaierror):
        bind_tcp("no-such-host.invalid", 0)


def resolving_to(*hosts: str) -> Callable[..., Any]:
    def getaddrinfo(_host: object, port: int, **_how: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in hosts]

    return getaddrinfo


def test_of_a_names_addresses_those_that_this_machine_has_are_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", resolving_to("192.0.2.1", LOCAL, LOCAL))
    with closing(bind_tcp("a-name", 0)) as sockets:
        assert [sock.getsockname()[0] for sock in sockets] == [LOCAL]


def test_a_free_port_must_be_free_on_all_addresses_and_is_not_looked_for_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", resolving_to(LOCAL, "0.0.0.0"))
    with pytest.raises(OSError, match="in use"):
        bind_tcp("a-name", 0)


def test_where_a_port_cannot_be_shared_this_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "SO_REUSEPORT")
    with pytest.raises(UsageError, match="SO_REUSEPORT"):
        bind_tcp(LOCAL, 0, reuse_port=True)


def test_what_a_setting_binds_is_named_in_its_errors() -> None:
    with contextlib.closing(bind(LOCAL, 0, "devices")) as sock:
        assert sock.gettimeout() == 0.0
        port = sock.getsockname()[1]
        connect(port).close()
        with pytest.raises(SettingsError, match=rf"^devices\.port = {port}: the port is in use on 127\.0\.0\.1; stop"):
            bind(LOCAL, port, "devices")
    with pytest.raises(SettingsError, match=r'^http\.host = "192\.0\.2\.1": no address of this machine'):
        bind("192.0.2.1", 0, "http")
    with pytest.raises(SettingsError, match=r'^http\.host = "no-such-host\.invalid": .*; the default is'):
        bind("no-such-host.invalid", 0, "http")


# Unix sockets.


@needs_unix
@pytest.mark.parametrize("poller", ALL_POLLERS)
def test_a_unix_socket_is_its_owners_alone_and_its_file_goes_with_it(poller: str, tmp_path: Path) -> None:
    async def main(reactor: Reactor) -> None:
        accepted: list[socket.socket] = []
        path = tmp_path / "a.sock"
        acceptor = Acceptor(reactor, bind_unix(path), lambda sock, _address: accepted.append(sock))
        assert acceptor.address == str(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(path))
            await until(lambda: bool(accepted))
            accepted[0].close()
        acceptor.close()
        assert not path.exists()

    run(main, poller)


@needs_unix
def test_a_socket_file_that_nobody_listens_on_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    for mode in (0o600, 0o660, 0o666):
        bind_unix(path, mode).close()  # which leaves its file, as a process does that is killed
        assert stat.S_IMODE(path.stat().st_mode) == mode


@needs_unix
@pytest.mark.parametrize("backlog", [0, 16])
def test_a_socket_that_somebody_listens_on_is_left_alone(backlog: int, tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with contextlib.ExitStack() as opened:
        sock = opened.enter_context(bind_unix(path, backlog=backlog))
        peers = [opened.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(3)]
        for peer in peers[: 1 if backlog == 0 else 3]:
            peer.connect(str(path))  # with a backlog of 0, one fills it
        for _ in range(3):
            with pytest.raises(OSError, match="another process listens on it") as error:
                bind_unix(path)
            assert error.value.errno == errno.EADDRINUSE
        sock.accept()[0].close()


@needs_unix
def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    file, folder, link = tmp_path / "file", tmp_path / "folder", tmp_path / "link"
    file.write_text("precious")
    folder.mkdir()
    bind_unix(tmp_path / "a.sock").close()
    link.symlink_to(tmp_path / "a.sock")
    for path in (file, folder, link):
        with pytest.raises(FileExistsError, match="it is no socket"):
            bind_unix(path)
    assert file.read_text() == "precious"
    assert link.is_symlink()
    with pytest.raises(FileNotFoundError):
        bind_unix(tmp_path / "nowhere" / "a.sock")
    for bad in ("a\0b", "x" * 200):
        with pytest.raises((UsageError, OSError)):
            bind_unix(tmp_path / bad if "x" in bad else bad)


@needs_unix
def test_a_datagram_socket_of_somebody_elses_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        with pytest.raises(OSError, match=r".*"):
            bind_unix(path)
    assert path.is_socket()


@needs_unix
def test_a_file_that_another_process_has_put_in_its_place_stays(tmp_path: Path) -> None:
    async def main(reactor: Reactor) -> None:
        path = tmp_path / "a.sock"
        acceptor = Acceptor(reactor, bind_unix(path), lambda one, _address: one.close())
        path.rename(tmp_path / "old.sock")
        with bind_unix(path):
            acceptor.close()
            assert path.is_socket()

    run(main)


if __name__ == "__main__":
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 16_384) if hard > 0 else 16_384, hard))
    {"serve": serve, "crowd": crowd}[sys.argv[1]](**json.loads(sys.argv[2]))
