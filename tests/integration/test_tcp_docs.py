"""The how-tos of the TCP framework: their blocks of code are cut out of the pages and run, so they can't drift."""

import asyncio
import contextlib
import importlib.util
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import warnings
import zlib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from programs import PATIENCE, Peer, Programs, programs_in, wait_for

from trunkline import ConnectionClosed, ConnectionOptions, ProtocolError, Reactor, TcpConnection, TcpServer, connect
from trunkline.reactor import POLLERS
from trunkline.settings import load_settings
from trunkline.tcp import CloseReason
from trunkline.testing import check_framer
from trunkline.wire import LineFramer, RawFramer, SimpleReactorWire
from trunkline.wire.proxy_protocol import encode_v2

HOW_TOS = Path(__file__).resolve().parents[2] / "docs" / "how-to"
SECTION = re.compile(r"^## (.+)$", re.MULTILINE)
FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TOML = re.compile(r"^```toml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HERE = "127.0.0.1"
T = TypeVar("T")


def sections(name: str) -> dict[str, list[str]]:
    """The blocks of code of a page, by the heading that they stand under."""
    _, *parts = SECTION.split((HOW_TOS / f"{name}.md").read_text(encoding="utf-8"))
    blocks = {head: FENCE.findall(body) for head, body in zip(parts[::2], parts[1::2], strict=True)}
    return {head: found for head, found in blocks.items() if found}


TOUR, ASYNCORE, TWISTED, SIMPLE, LOGS = map(
    sections,
    ("tcp-servers-and-clients", "move-from-asyncore", "move-from-twisted", "move-from-simplereactor", "log-to-a-file"),
)


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


async def listening(server: TcpServer, port: int = 0) -> TcpServer:
    await server.listen(HERE, port)
    return server


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


@pytest.mark.parametrize(
    ("page", "least"),
    [(TOUR, 18), (ASYNCORE, 5), (TWISTED, 5), (SIMPLE, 4), (LOGS, 1)],
    ids=["tour", "asyncore", "twisted", "simplereactor", "logs"],
)
def test_every_section_that_has_code_is_run_here(page: dict[str, list[str]], least: int) -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    assert len(page) >= least
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


def test_the_tours_client_goes_on_trying_and_says_why_it_failed() -> None:
    names = tour("When nobody answers")
    failures: list[Exception] = []

    async def main() -> None:
        with socket.create_server((HERE, 0)) as held:
            port = held.getsockname()[1]
        client = names["keep_trying"](port, failures)
        await until(lambda: len(failures) >= 2)
        async with serving(listening(TcpServer(Reactor.current(), LineFramer), port)):
            await client.connected(PATIENCE)
            await client.stop()

    run(main)
    assert all(isinstance(error, ConnectionRefusedError) for error in failures)


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


def test_the_tours_plain_program_serves_beside_its_own_work() -> None:
    names = tour("Pollers, and a reactor beside your program")
    answers: list[str] = []
    errors: list[BaseException] = []

    def work(port: int) -> None:
        peer = Peer(port)
        answers.append(peer.ask("hello"))
        peer.close()

    names["serve_beside"](work, errors)
    assert answers == ["you said hello"]
    assert errors == []
    assert "trunkline-reactor" not in [thread.name for thread in threading.enumerate()]


def test_the_pollers_that_the_tour_names_are_those_there_are() -> None:
    text = (HOW_TOS / "tcp-servers-and-clients.md").read_text(encoding="utf-8")
    (named,) = re.findall(r"one of these names: (.+?)\. ", text)
    assert ("auto", *re.findall(r"`(\w+)`", named)) == POLLERS


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


def test_the_tours_description_of_a_connection() -> None:
    names = tour("What a connection can tell")

    def on_message(connection: TcpConnection, _line: bytes) -> None:
        connection.send(names["describe"](connection).encode())
        assert {"received_bytes", "sent_bytes", "dropped", "age"} <= connection.statistics().keys()

    async def main() -> None:
        async with serving(echo_server(on_message=on_message)) as server:
            first, second = await ask(server.port, b"hello", b"again")
            assert first.startswith(b"1 messages in, 0 out, ")
            assert second.startswith(b"2 messages in, 1 out, ")
            told = re.search(rb" bytes unsent, [0-9.]+ ms to and fro, 0 segments sent again$", second)
            assert bool(told) == (sys.platform == "linux")

    run(main)


def test_the_tours_watch_names_the_line_that_holds_up_the_loop() -> None:
    names = tour("Which line holds up the loop")
    blocks: list[Any] = []

    def hold_up() -> None:
        ends_at = time.monotonic() + PATIENCE
        while not blocks and time.monotonic() < ends_at:
            time.sleep(0.01)

    async def main() -> None:
        watch = names["watch"](Reactor.current(), 0.05, blocks)
        await asyncio.sleep(0.05)
        hold_up()
        watch.stop()
        assert watch.blocks == 1
        assert watch.longest >= 0.05

    run(main)
    assert blocks[0].where.startswith(f"{__file__}:")
    assert blocks[0].where.endswith("hold_up")


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


def test_the_tours_datagrams() -> None:
    names = tour("UDP")

    async def main() -> None:
        endpoint = await names["answer_datagrams"]()
        assert await names["ask_by_datagram"](endpoint.address[1], [1, 2]) == {"you said": [1, 2]}
        stranger = names["UdpEndpoint"](Reactor.current())
        await stranger.connect(HERE, endpoint.address[1])
        stranger.send(b"no JSON")
        await until(lambda: endpoint.bad == 1)
        await stranger.close()
        await endpoint.close()

    run(main)


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


# From SimpleReactor. The peers here are written from its format alone.


class OldPeer:
    """Either side of SimpleReactor's format, over blocking sockets."""

    def __init__(self, sock: socket.socket, compression: bool = True) -> None:
        self.sock = sock
        self.sock.settimeout(PATIENCE)
        self.deflate = zlib.compressobj() if compression else None
        self.inflate = zlib.decompressobj() if compression else None

    def say(self, data: bytes, kind: int = 1) -> None:
        payload = struct.pack("<I", kind) + data
        if self.deflate:
            payload = self.deflate.compress(payload) + self.deflate.flush(zlib.Z_SYNC_FLUSH)
        self.sock.sendall(struct.pack("<I", len(payload)) + payload)

    def hear(self, kind: int = 1) -> bytes:
        """The next payload of a kind."""
        while True:
            payload = self._take(*struct.unpack("<I", self._take(4)))
            if self.inflate:
                payload = self.inflate.decompress(payload)
            if payload[:4] == struct.pack("<I", kind):
                return payload[4:]

    def _take(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self.sock.recv(size - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def close(self) -> None:
        self.sock.close()


def dial_as_the_old_client(port: int, compression: bool = True) -> OldPeer:
    return OldPeer(socket.create_connection((HERE, port)), compression)


def test_simplereactors_old_clients_are_served_with_heartbeats_and_broadcasts() -> None:
    before, after = SIMPLE["A server"]
    assert "use_heartbeat" in before
    names = run_blocks(after)

    def talk(port: int) -> None:
        peer = dial_as_the_old_client(port)
        for message in (b"hello", b"hello again"):
            peer.say(message)
        peer.say(b"own", kind=3)
        heard: list[bytes] = []
        while not {b"got hello", b"got hello again", b"how much?"} <= set(heard):
            heard.append(peer.hear())
        assert [one for one in heard if one != b"how much?"] == [b"got hello", b"got hello again"]
        assert len(peer.hear(kind=2).split(b"#")) == 3
        peer.close()

    async def main() -> None:
        meters = names["Meters"](interval=0.1)
        async with serving(listening(meters.server)) as server:
            await asyncio.to_thread(talk, server.port)
        meters.timer.cancel()

    run(main)


def test_simplereactors_new_server_is_a_program_that_ends_on_ctrl_c(programs: Programs, tmp_path: Path) -> None:
    _, after = SIMPLE["A server"]
    listen = "await meters.server.listen(host, port)"
    assert f"    {listen}\n" in after
    text = after.replace(listen, f'print("listening on port", {listen}, flush=True)').replace("port=8080", "port=0")
    (tmp_path / "meters.py").write_text(f"{text}\n\nmain()\n", encoding="utf-8")
    program = programs.start(tmp_path / "meters.py")
    peer = dial_as_the_old_client(program.port)
    peer.say(b"hello")
    assert peer.hear() == b"got hello"
    program.stop(signal.SIGINT)
    with pytest.raises(EOFError):
        peer.hear()
    peer.close()


def test_simplereactors_old_server_is_asked_by_the_new_client_again_and_again() -> None:
    before, after = SIMPLE["A client"]
    assert "use_heartbeat" in before
    meter = None
    with socket.create_server((HERE, 0)) as listener:
        listener.settimeout(PATIENCE)
        try:
            meter = run_blocks(after)["Meter"](listener.getsockname())
            for _ in range(2):
                peer = OldPeer(listener.accept()[0])
                for _ in range(3):
                    peer.say(b"('127.0.0.1', 1)#('127.0.0.1', 2)#0", kind=2)
                    peer.say(b"how much?")
                    assert peer.hear() == b"230.1"
                peer.close()
        finally:
            if meter is not None:
                meter.close()
    assert "trunkline-reactor" not in [thread.name for thread in threading.enumerate()]


def test_simplereactors_connections_by_number() -> None:
    send_data = run_blocks(*SIMPLE["Connections by their keys"])["send_data"]

    async def main() -> None:
        reactor = Reactor.current()
        async with (
            serving(echo_server()) as server,
            connect((HERE, server.port), LineFramer) as peer,
        ):
            await until(lambda: bool(server.connections))
            (number,) = server.connections
            await asyncio.to_thread(send_data, reactor, server, number, b"to you")
            await asyncio.to_thread(send_data, reactor, server, number + 1_000_000, b"to nobody")
            assert await peer.receive() == b"to you"

    run(main)


def test_simplereactors_peers_without_heartbeats() -> None:
    options = run_blocks(*SIMPLE["Heartbeats"])["NO_HEARTBEAT"]

    def wait_and_talk(port: int) -> None:
        peer = dial_as_the_old_client(port)
        time.sleep(2.2)  # one with heartbeats would have been sent two
        peer.sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            peer.sock.recv(1)
        peer.close()

    async def main() -> None:
        server = TcpServer(Reactor.current(), lambda: SimpleReactorWire("server"), lambda *_: None, options=options)
        async with (
            serving(listening(server)),
            connect((HERE, server.port), lambda: SimpleReactorWire("client"), options=options) as client,
        ):
            await asyncio.to_thread(wait_and_talk, server.port)
            await asyncio.sleep(0.6)
            assert client.is_open, "it would be closed after 2 s"

    run(main)


@pytest.mark.parametrize("compression", [False, True])
def test_simplereactors_peer_of_the_other_kind_is_closed_and_it_is_said_why(compression: bool) -> None:
    errors: list[str] = []

    def talk(port: int) -> None:
        peer = dial_as_the_old_client(port, not compression)
        peer.say(b"hello")
        with pytest.raises(EOFError):
            peer.hear()
        peer.close()

    async def main() -> None:
        server = TcpServer(
            Reactor.current(),
            lambda: SimpleReactorWire("server", compression),
            lambda *_: None,
            on_error=lambda _connection, error: errors.append(str(error)),
        )
        async with serving(listening(server)):
            await asyncio.to_thread(talk, server.port)
            await until(lambda: not server.connections)
            assert server.closed == {CloseReason.BAD_FRAME: 1}

    run(main)
    (error,) = errors
    assert "compress" in error


# The log.


def test_the_page_on_logs_gives_a_file_that_the_program_logs_to(tmp_path: Path) -> None:
    (block,) = LOGS["Your own program"]
    (tmp_path / "program.py").write_text(block + '\n\nlog_to("own.log")\nsay_hello("d1")\n', encoding="utf-8")
    subprocess.run([sys.executable, "-W", "error", "program.py"], cwd=tmp_path, timeout=PATIENCE, check=True)
    first, second = (tmp_path / "own.log").read_text(encoding="utf-8").splitlines()
    assert first.endswith("Z INFO meters hello, d1")
    page = (HOW_TOS / "log-to-a-file.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^2026\S+ (INFO meters .+)$", page, re.MULTILINE)
    assert second.endswith(f"Z {shown}")


def test_the_page_on_logs_names_the_settings_of_a_node(tmp_path: Path) -> None:
    (block,) = TOML.findall((HOW_TOS / "log-to-a-file.md").read_text(encoding="utf-8"))
    (tmp_path / "trunkline.toml").write_text(block, encoding="utf-8")
    log = load_settings(tmp_path / "trunkline.toml", {}).log
    assert (log.file, log.file_bytes, log.file_backups) == ("/var/log/trunkline/node.log", 10_485_760, 5)
    assert load_settings(environ={"TRUNKLINE_LOG_FILE": "there.log"}).log.file == "there.log"
