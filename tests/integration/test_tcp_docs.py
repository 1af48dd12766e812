"""The how-tos of the TCP framework: their blocks of code are cut out of the pages and run, so they can't drift."""

import asyncio
import contextlib
import importlib.util
import re
import signal
import socket
import subprocess
import threading
import warnings
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from programs import PATIENCE, Peer, Programs, programs_in, wait_for

from trunkline import ConnectionClosed, ConnectionOptions, ProtocolError, Reactor, TcpConnection, TcpServer, connect
from trunkline.tcp import CloseReason
from trunkline.testing import check_framer
from trunkline.wire import LineFramer, RawFramer
from trunkline.wire.proxy_protocol import encode_v2

HOW_TOS = Path(__file__).resolve().parents[2] / "docs" / "how-to"
SECTION = re.compile(r"^## (.+)$", re.MULTILINE)
FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HERE = "127.0.0.1"
T = TypeVar("T")


def sections(name: str) -> dict[str, list[str]]:
    """The blocks of code of a page, by the heading that they stand under."""
    _, *parts = SECTION.split((HOW_TOS / f"{name}.md").read_text(encoding="utf-8"))
    blocks = {head: FENCE.findall(body) for head, body in zip(parts[::2], parts[1::2], strict=True)}
    return {head: found for head, found in blocks.items() if found}


TOUR, ASYNCORE, TWISTED = map(sections, ("tcp-servers-and-clients", "move-from-asyncore", "move-from-twisted"))


def run_blocks(*blocks: str, **given: Any) -> dict[str, Any]:
    """What a reader has who has typed in these blocks."""
    names: dict[str, Any] = {"__name__": "a page", **given}
    for block in blocks:
        exec(compile(block, "a page", "exec"), names)
    return names


def tour(section: str) -> dict[str, Any]:
    """The names of one section of the tour, which may use those of the sections before it."""
    heads = list(TOUR)
    return run_blocks(*(block for head in heads[: heads.index(section) + 1] for block in TOUR[head]))


def run(main: Callable[[], Awaitable[T]]) -> T:
    """Runs `main`, after which nothing may be left."""

    async def limited() -> T:
        async with asyncio.timeout(PATIENCE):
            result = await main()
        await asyncio.sleep(0)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, left
        return result

    return Reactor.run(limited)


@contextlib.asynccontextmanager
async def serving(started: Awaitable[TcpServer]) -> Any:
    server = await started
    try:
        yield server
    finally:
        await server.drain(5.0)


async def until(condition: Callable[[], bool]) -> None:
    """Waits for what rings no bell; `run` has the limit."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def ask(port: int, *lines: bytes) -> list[bytes]:
    """One answer to each line."""
    async with connect((HERE, port), LineFramer) as connection:
        answers = []
        for line in lines:
            connection.send(line)
            answers.append(await connection.receive())
        return answers


async def echo_server(**more: Any) -> TcpServer:
    """A server that sends back lines, for clients that a page shows."""

    def echo(connection: TcpConnection, line: bytes) -> None:
        connection.send(line)

    server = TcpServer(Reactor(asyncio.get_running_loop()), LineFramer, more.pop("on_message", echo), **more)
    await server.listen(HERE, 0)
    return server


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    yield from programs_in(tmp_path)


@pytest.mark.parametrize("page", [TOUR, ASYNCORE, TWISTED], ids=["tour", "asyncore", "twisted"])
def test_every_section_that_has_code_is_run_here(page: dict[str, list[str]]) -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    assert len(page) >= 5
    assert [head for head in page if f'"{head}"' not in source] == []


# The tour.


def test_the_tours_server_is_a_program_that_ends_on_ctrl_c(programs: Programs, tmp_path: Path) -> None:
    (program_text,) = TOUR["A server"]
    (tmp_path / "server.py").write_text(program_text.replace("port: int = 7000", "port: int = 0"), encoding="utf-8")
    program = programs.start(tmp_path / "server.py")
    assert programs.dial(program.port).ask("hello") == "you said hello"
    program.stop(signal.SIGINT)


def test_the_tours_client_asks_once() -> None:
    names = tour("A client")

    async def main() -> None:
        async with serving(echo_server()) as server:
            assert await names["ask"](server.port, b"hello") == b"hello"

    run(main)


def test_the_tours_client_stays_connected(capsys: pytest.CaptureFixture[str]) -> None:
    names = tour("A client that stays connected")

    async def main() -> None:
        async with serving(echo_server()) as server:
            client = await names["stay_connected"](server.port)
            next(iter(server.connections.values())).abort()
            await until(lambda: bool(client.connections) and server.accepted == 2)
            (await client.connected(PATIENCE)).send(b"back again")
            await until(lambda: "back again" in so_far())
            await client.stop()

    printed = ""

    def so_far() -> str:
        nonlocal printed
        printed += capsys.readouterr().out
        return printed

    run(main)
    lines = (printed + capsys.readouterr().out).splitlines()
    assert lines[0] == lines[2] == "connected"
    assert lines[1].startswith("lost: ")
    assert lines[3:] == ["back again", "lost: closed"]


def test_the_tours_conversation() -> None:
    names = tour("Callbacks, or iteration")

    async def main() -> None:
        async with (
            serving(names["serve_conversations"]()) as server,
            connect((HERE, server.port), LineFramer) as peer,
        ):
            assert await peer.receive() == b"what is your name?"
            for line in (b"Ann", b"hello", b"bye"):
                peer.send(line)
            assert [line async for line in peer] == [b"hello Ann", b"Ann said hello"]
            assert server.closed[CloseReason.HANDLER_FAILED] == 0

    run(main)


def test_the_tours_codec_and_session() -> None:
    names = tour("Framers, codecs, sessions")

    async def main() -> None:
        reading, codec = names["Reading"], names["StructCodec"](names["Reading"], format="json")
        async with (
            serving(names["serve_readings"]()) as server,
            connect((HERE, server.port), names["LengthFramer"], codec=codec) as peer,
        ):
            peer.send(reading("m7", 2.5))
            assert await peer.receive() == reading("m7", 5.0)
        async with serving(names["serve_sessions"]()) as server:
            assert await names["ask_with_token"](server.port, b"hello", "secret") == b"hello"
            with pytest.raises(ProtocolError, match="bad token"):
                await names["ask_with_token"](server.port, b"hello", "guess")

    run(main)


def test_the_tours_plain_program_asks_from_a_thread_of_its_own() -> None:
    names = tour("Sending from threads")

    async def main() -> bytes:
        async with serving(echo_server()) as server:
            answer = await asyncio.to_thread(names["ask_in_a_plain_program"], server.port, b"hello")
            return bytes(answer)

    assert run(main) == b"hello"
    assert "trunkline-reactor" not in [thread.name for thread in threading.enumerate()]


def test_the_tours_sender_sends_as_much_as_is_taken() -> None:
    names = tour("When the peer does not read")
    lines = [bytes([65 + number % 26]) * 10_000 for number in range(1_000)]
    most = 0

    async def send(connection: TcpConnection) -> None:
        nonlocal most
        if connection.is_open:
            watch = Reactor(asyncio.get_running_loop()).every(0.001, lambda: look(connection))
            await names["send_all"](connection, lines)
            watch.cancel()
            connection.close()

    def look(connection: TcpConnection) -> None:
        nonlocal most
        most = max(most, connection.unsent_bytes)

    async def main() -> None:
        async with (
            serving(echo_server(on_message=None, on_connection=send)) as server,
            connect((HERE, server.port), LineFramer) as peer,
        ):
            await asyncio.sleep(0.2)  # meanwhile it can send no more than is taken
            assert [line async for line in peer] == lines
        assert 0 < most < 100_000, "no more than the low-water mark and one message"

    run(main)


def test_the_tours_options_find_who_says_nothing() -> None:
    (block,) = TOUR["Deadlines and heartbeats"]
    options = run_blocks(re.sub(r"(\d+)\.0,", r"0.\1,", block))["OPTIONS"]
    assert isinstance(options, ConnectionOptions)
    assert options.handshake_timeout == 0.5

    async def main() -> None:
        def on_connection(connection: TcpConnection) -> None:
            if connection.is_open:
                connection.established()

        async with serving(echo_server(on_connection=on_connection, options=options)) as server:
            async with connect((HERE, server.port), LineFramer) as peer:
                assert [line async for line in peer] == [b"ping"]
            assert server.closed == {CloseReason.HEARTBEAT_LOST: 1}

    run(main)


def test_the_tours_limits_let_in_this_machine() -> None:
    limits = tour("Who may connect")["LIMITS"]

    async def main() -> None:
        async with serving(echo_server(limits=limits)) as server:
            assert await ask(server.port, b"hello") == [b"hello"]
            for _ in range(limits.per_address - 1):
                await asyncio.open_connection(HERE, server.port)

    assert limits.per_address == 20
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        run(main)


def test_the_tours_server_speaks_tls(tmp_path: Path) -> None:
    names = tour("TLS")
    certificate, key = tmp_path / "server.pem", tmp_path / "server.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=server", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip

    async def main() -> None:
        async with serving(names["serve_tls"](str(certificate), str(key))) as server:
            assert await names["ask_over_tls"](str(certificate), server.port) == b"TLSv1.3"

    run(main)


def test_the_tours_proxy_says_for_whom_it_connects() -> None:
    limits = tour("Behind a proxy")["PROXIED"]

    def on_message(connection: TcpConnection, line: bytes) -> None:
        connection.send(connection.peer.encode())

    async def main() -> None:
        async with serving(echo_server(on_message=on_message, limits=limits)) as server:
            reader, writer = await asyncio.open_connection(HERE, server.port)
            writer.write(encode_v2(("192.0.2.7", 5000), ("192.0.2.1", 443)) + b"who am I?\n")
            assert await reader.readline() == b"192.0.2.7:5000\n"
            writer.close()
            await writer.wait_closed()

    run(main)


def test_the_tours_unix_socket(tmp_path: Path) -> None:
    names = tour("Unix sockets")
    path = tmp_path / "socket"

    async def main() -> None:
        async with serving(names["serve_locally"](str(path))):
            assert await names["ask_locally"](str(path), b"hello") == b"you said hello"

    run(main)
    assert not path.exists()


def test_the_tours_workers_are_a_program_that_ends_on_ctrl_c(programs: Programs, tmp_path: Path) -> None:
    heads = list(TOUR)
    blocks = [block for head in heads[: heads.index("Several processes") + 1] for block in TOUR[head]]
    text = (
        "".join(blocks).replace("    run_until_signal(serve)\n", "    pass\n").replace("wanted: int = 7000", "wanted=0")
    )
    (tmp_path / "workers.py").write_text(text, encoding="utf-8")
    program = programs.start(tmp_path / "workers.py")

    def answer() -> str:
        try:
            return programs.dial(program.port).ask("hello")
        except ConnectionError:  # none of them listens yet
            return ""

    assert wait_for(answer, "a worker answers") == "you said hello"
    program.stop(signal.SIGINT)


def test_the_tours_end_tells_the_peers() -> None:
    names = tour("Ending in good order")

    async def main() -> None:
        server = await echo_server()
        async with connect((HERE, server.port), LineFramer) as peer:
            peer.send(b"hello")
            assert await peer.receive() == b"hello"
            await names["end"](server)
            assert [line async for line in peer] == [b"closing for the night"]
            assert server.connections == {}

    run(main)


# From asyncore. What is said of the old code is asked of it too, where Python still has the modules.

HAS_ASYNCORE = importlib.util.find_spec("asyncore") is not None
BOTH = pytest.mark.parametrize(
    "after", [pytest.param(False, marks=[] if HAS_ASYNCORE else pytest.mark.skip("no asyncore")), True]
)


def asyncore_block(section: str, after: bool, **given: Any) -> dict[str, Any]:
    """The block of a section that stands before, or after."""
    blocks = ASYNCORE[section]
    assert len(blocks) == 2
    assert "import asyncore" in blocks[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # which is why the page is there
        return run_blocks(blocks[after], **given)


@contextlib.contextmanager
def old_loop(start: Callable[[], Any], names: dict[str, Any]) -> Iterator[Any]:
    """Runs asyncore's loop in a thread, with what `start` makes."""
    loop_of = names["asyncore"]
    made, stop = start(), threading.Event()

    def run_loop() -> None:
        while not stop.is_set():
            loop_of.loop(timeout=0.02, count=1)

    thread = threading.Thread(target=run_loop)
    thread.start()
    try:
        yield made
    finally:
        stop.set()
        thread.join(PATIENCE)
        loop_of.close_all()


def check_both_servers(names: dict[str, Any], old_server: str, after: bool, check: Callable[[int], None]) -> None:
    """Has `check` talk to the old server, or to the new one."""
    if not after:
        with old_loop(lambda: names[old_server](HERE, 0), names) as server:
            check(server.socket.getsockname()[1])
        return

    async def main() -> None:
        async with serving(names["start_server"](HERE, 0)) as server:
            await asyncio.to_thread(check, server.port)

    run(main)


@BOTH
def test_asyncores_echo_server(after: bool) -> None:
    def check(port: int) -> None:
        with contextlib.closing(Peer(port)) as peer:
            assert peer.ask("hello") == "hello"
            assert peer.ask("x" * 100_000) == "x" * 100_000

    check_both_servers(asyncore_block("A server", after), "EchoServer", after, check)


def test_what_replaces_asyncores_main_ends_on_ctrl_c(programs: Programs, tmp_path: Path) -> None:
    text = ASYNCORE["A server"][1].replace("await start_server(", "await started(").replace("7000", "0")
    text += (
        "\n\nasync def started(host, port):\n    server = await start_server(host, port)\n"
        '    print("listening on port", server.port, flush=True)\n    return server\n\n\nmain()\n'
    )
    (tmp_path / "server.py").write_text(text, encoding="utf-8")
    program = programs.start(tmp_path / "server.py")
    assert programs.dial(program.port).ask("hello") == "hello"
    program.stop(signal.SIGINT)


@BOTH
def test_asyncores_client(after: bool) -> None:
    def answer_and_close(listener: socket.socket) -> None:
        served, _ = listener.accept()
        with served:
            assert served.recv(100) == b"GET it"
            served.sendall(b"here " * 10_000)

    with socket.create_server((HERE, 0)) as listener:
        thread = threading.Thread(target=answer_and_close, args=(listener,))
        thread.start()
        fetch = asyncore_block("A client", after)["fetch"]
        assert fetch(HERE, listener.getsockname()[1], b"GET it") == b"here " * 10_000
        thread.join(PATIENCE)


@BOTH
def test_asynchats_lines_and_lengths(after: bool) -> None:
    def check(port: int) -> None:
        with contextlib.closing(Peer(port)) as peer:
            peer.socket.sendall(b"5\r\nhello3\r\n\r\n\n70000\r\n" + bytes(70_000))
            heard = [peer.hear() for _ in range(3)]
            assert heard == ["got 5 bytes\r", "got 3 bytes\r", "got 70000 bytes\r"]

    names = asyncore_block("Lines, and messages of a known length", after)
    check_both_servers(names, "UploadServer", after, check)


def test_the_framer_for_lines_and_lengths_keeps_the_promises_of_framers() -> None:
    framer = asyncore_block("Lines, and messages of a known length", True)["UploadFramer"]

    class BothWays(framer):  # type: ignore[misc]
        """As the peer frames it, since the two directions differ."""

        def encode(self, message: bytes) -> bytes:
            return b"%d\r\n" % len(message) + message

    check_framer(
        lambda: BothWays(1000),
        [b"", b"hello", b"\r\n", bytes(1000)],
        limit_bytes=1000 + 12,
        bad_streams=[b"five\r\nhello", b"5\r\nhello\r\n", b"-1\r\n", b"\r\n"],
        oversize_streams=[b"1001\r\n", b"9999999999\r\n", b"5\r\nhello1001\r\n"],
        unsendable=[],
    )


@BOTH
def test_asyncores_readable_and_writable(after: bool) -> None:
    async def elsewhere(piece: bytes) -> bytes:
        await asyncio.sleep(0.01)
        return b"done " + piece

    started: list[tuple[Any, bytes]] = []
    names = asyncore_block(
        "Reading and writing when it suits",
        after,
        work=elsewhere,
        start_work=lambda handler, piece: started.append((handler, piece)),
    )
    if not after:
        near, far = socket.socketpair()
        with old_loop(lambda: names["Slow"](near), names) as slow, far:
            far.settimeout(PATIENCE)
            for piece in (b"one", b"two"):
                far.sendall(piece)
                wait_for(lambda: started, "the work has begun")
                slow.work_done(b"done " + started.pop()[1])
                assert far.recv(100) == b"done " + piece
        return

    async def main() -> None:
        for callbacks in ({"on_message": None, "on_connection": names["take_piece_by_piece"]},
                          {"on_message": names["take_and_pause"]}):  # fmt: skip
            server = TcpServer(Reactor(asyncio.get_running_loop()), RawFramer, **callbacks)
            port = await server.listen(HERE, 0)
            async with connect((HERE, port), RawFramer) as peer:
                for piece in (b"one", b"two"):
                    peer.send(piece)
                    if callbacks["on_message"] is not None:
                        await until(lambda: bool(started))
                        work_done, taken = started.pop()
                        work_done(b"done " + taken)
                    assert await peer.receive() == b"done " + piece
            await server.drain(5.0)

    run(main)


@BOTH
def test_asyncores_work_beside_the_loop(after: bool) -> None:
    names, calls = asyncore_block("Work beside the loop", after), []

    def work() -> None:
        calls.append(None)

    if after:
        Reactor.run(lambda: names["run"](work, 5))
        assert 1 <= len(calls) <= 5
    else:
        names["run"](work, 5)
        assert len(calls) == 5


# From Twisted: what is to be written instead is run. The old code is compiled with that of all pages.


def twisted_block(section: str, **given: Any) -> dict[str, Any]:
    """The block of a section that stands after."""
    before, after = TWISTED[section]
    assert "from twisted" in before
    assert "twisted" not in after
    return run_blocks(after, **given)


def test_twisteds_line_receiver() -> None:
    names = twisted_block("A server by lines")

    def new_framer() -> LineFramer:
        return LineFramer(ending=b"\r\n")

    async def main() -> None:
        greeter = names["Greeter"]()
        port = await greeter.server.listen(HERE, 0)
        async with connect((HERE, port), RawFramer) as raw:
            assert await raw.receive() == b"What is your name?\r\n"
            raw.close()
        async with connect((HERE, port), new_framer) as ann, connect((HERE, port), new_framer) as bob:
            for peer, name in ((ann, b"Ann"), (bob, b"Bob")):
                assert await peer.receive() == b"What is your name?"
                peer.send(name)
                assert await peer.receive() == b"Welcome, " + name
            ann.send(b"hello")
            assert await bob.receive() == b"Ann: hello"
        await greeter.server.drain(5.0)

    run(main)


def test_twisteds_string_receiver() -> None:
    names = twisted_block("Messages with their length in front")

    async def main() -> None:
        async with serving(names["start_server"](HERE, 0)) as server:
            async with connect((HERE, server.port), RawFramer) as peer:
                peer.send(b"\0\0\0\5hello")
                assert await peer.receive() == b"\0\0\0\5olleh"
                peer.send(b"\0\0\3\xe8" + bytes(1_000))
                answer = b""
                while len(answer) < 1_004:
                    answer += await peer.receive()
                peer.send(b"\0\0\3\xe9")
                assert [data async for data in peer] == [b"\0\0\0\x08too long"]
            assert server.closed[CloseReason.BAD_FRAME] == 1

    run(main)


def test_twisteds_reconnecting_client_and_looping_call() -> None:
    names = twisted_block("A client that connects again")

    async def main() -> None:
        heard: list[bytes] = []
        server = await echo_server(on_message=lambda _connection, line: heard.append(line))
        meter = names["Meter"](HERE, server.port, interval=0.02)

        async def until_beaten(times: int) -> None:
            heard.clear()
            await until(lambda: heard.count(b"beat") >= times)

        await until_beaten(3)
        next(iter(server.connections.values())).abort()
        await until_beaten(3)
        assert server.accepted == 2
        next(iter(server.connections.values())).send(b"how much?")
        await until(lambda: b"you asked how much?" in heard)
        await meter.client.stop()
        await server.drain(5.0)

    run(main)


def test_twisteds_calls_from_threads() -> None:
    names = twisted_block("From another thread")
    lines = [b"%d" % number for number in range(100)]

    async def main() -> None:
        async def on_message(connection: TcpConnection, line: bytes) -> None:
            await names["work_elsewhere"](connection, bytes.upper, line)

        reactor = Reactor(asyncio.get_running_loop())
        async with (
            serving(echo_server(on_message=on_message)) as server,
            connect((HERE, server.port), LineFramer) as peer,
        ):
            peer.send(b"work")
            assert await peer.receive() == b"WORK"
            (served,) = server.connections.values()
            await asyncio.to_thread(names["in_a_thread"], served, lines)
            assert [await peer.receive() for _ in lines] == lines
            assert await asyncio.to_thread(names["count_connections"], reactor, server) == 1
            served.abort()
            with pytest.raises(ConnectionClosed):
                await asyncio.to_thread(names["in_a_thread"], served, lines)

    run(main)


def test_twisteds_deferred_answer() -> None:
    names = twisted_block("Waiting for an answer")

    async def main() -> None:
        async with serving(echo_server()) as server:
            assert await names["ask_once"](HERE, server.port, b"hello") == b"hello"

    run(main)
