"""Peers that break the protocol: each is told on its own line, counted and logged, and nobody else notices."""

import socket
from collections.abc import Callable, Iterator

import pytest
from node_process import AnsweringDevice, NodeProcess, wait_for

StartNode = Callable[..., NodeProcess]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    node = NodeProcess(tmp_path_factory.mktemp("node"), "[devices]\nhello_timeout = 3\n").start()
    yield node
    node.close()


@pytest.fixture(scope="module")
def healthy(node: NodeProcess) -> AnsweringDevice:
    """A device on the same node, connected all the time."""
    return node.answering("healthy")


def check_unharmed(node: NodeProcess, healthy: AnsweringDevice) -> None:
    """The healthy device's line is still the same one, and commands go to and fro on it."""
    assert node.send("healthy", "still there?", wait=10)["reply"] == "OK still there?"
    assert node.device("healthy")["address"] == healthy.device.address


BAD_LINES = {
    "a line over the limit": (b"x" * 1025 + b"\n", "1024 bytes"),
    "a line over the limit, without its end": (b"x" * 1500, "1024 bytes"),
    "a line over the limit that ends in a carriage return": (b"x" * 1025 + b"\r\n", "1024 bytes"),
    "a NUL": (b"temp=\x00\n", "U+0000"),
    "a control character": (b"\x1b[2J\n", "U+001B"),
    "invalid UTF-8": (b"abc\xff\n", "byte 4"),
    "half a character of UTF-8": (b"caf\xc3\n", "UTF-8"),
    "an overlong encoding": (b"\xc0\xaf\n", "UTF-8"),
}


@pytest.mark.parametrize(("line", "named"), BAD_LINES.values(), ids=BAD_LINES.keys())
@pytest.mark.parametrize("known", [True, False], ids=["after the hello", "instead of a hello"])
def test_a_bad_line_ends_its_own_connection_and_no_other(
    node: NodeProcess, healthy: AnsweringDevice, line: bytes, named: str, known: bool
) -> None:
    counted = node.metric("trunkline_bad_input_total", kind="bad_frame")
    closed = node.metric("trunkline_connections_closed_total", reason="bad_frame")
    device = node.connect("sick") if known else node.dial()
    device.send_bytes(line)
    (answer,) = device.lines_until_closed()
    assert answer.startswith("ERR ")
    assert named in answer
    assert node.metric("trunkline_bad_input_total", kind="bad_frame") == counted + 1
    wait_for(
        lambda: node.metric("trunkline_connections_closed_total", reason="bad_frame") == closed + 1, "it is closed"
    )
    (logged,) = [text for text in node.log().splitlines() if "bad input" in text and f"={device.address} " in text]
    assert "kind=bad_frame" in logged
    assert named in logged
    if known:
        assert node.offline_reason("sick") == "bad_frame"
    check_unharmed(node, healthy)


@pytest.mark.parametrize(
    "line",
    ["PING", "hello d1", "HELLO", "HELLO ", "HELLO  d1", "HELLO -d1", "HELLO a b", "HELLO " + "x" * 65, "", "42"],
)
def test_a_first_line_that_is_no_hello_is_answered_with_what_one_looks_like(
    node: NodeProcess, healthy: AnsweringDevice, line: str
) -> None:
    counted = node.metric("trunkline_bad_input_total", kind="bad_frame")
    stranger = node.dial()
    stranger.send(line)
    (answer,) = stranger.lines_until_closed()
    assert answer.startswith("ERR the first line must say who you are, as in HELLO ")
    assert node.metric("trunkline_bad_input_total", kind="bad_frame") == counted + 1
    check_unharmed(node, healthy)


def test_what_came_before_a_bad_line_still_counts(node: NodeProcess) -> None:
    device = node.dial()
    device.send_bytes(b"HELLO mixed\nPING\nSTORE [3]\nPING\n\xff\nPING\n")
    lines = device.lines_until_closed()
    assert lines[0] == lines[1] == "PONG"
    assert lines[2].startswith("ERR ")
    assert len(lines) == 3 or lines[3] == "STORED 3"
    assert node.offline_reason("mixed") == "bad_frame"
    node.wait_until_drained(1)


def test_a_huge_line_is_refused_as_soon_as_it_is_seen(node: NodeProcess, healthy: AnsweringDevice) -> None:
    counted = node.metric("trunkline_bad_input_total", kind="bad_frame")
    before = node.resident_bytes()
    device = node.connect("endless")
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        device.send_bytes(b"x" * 200_000_000)
    assert node.offline_reason("endless") == "bad_frame"
    assert node.metric("trunkline_bad_input_total", kind="bad_frame") == counted + 1
    assert node.resident_bytes() - before < 20_000_000
    check_unharmed(node, healthy)


def test_one_that_never_says_hello_is_told_and_closed(node: NodeProcess, healthy: AnsweringDevice) -> None:
    silent, half, storing = node.dial(), node.dial(), node.dial()
    counted = node.metric("trunkline_bad_input_total", kind="handshake_timeout")
    half.send_bytes(b"HEL")
    storing.send("STORE [3]")  # which needs no hello, and is none
    assert silent.lines_until_closed() == ["ERR no hello within 3 s"]
    assert half.lines_until_closed() == ["ERR no hello within 3 s"]
    assert storing.lines_until_closed() == ["STORED 1", "ERR no hello within 3 s"]
    assert node.metric("trunkline_bad_input_total", kind="handshake_timeout") == counted + 3
    assert f"kind=handshake_timeout address={silent.address} " in node.log()
    check_unharmed(node, healthy)


def test_one_byte_at_a_time_is_slow_but_right(node: NodeProcess) -> None:
    device = node.dial()
    for byte in b"HELLO drip\r\n":
        device.send_bytes(bytes([byte]))
    wait_for(lambda: node.is_online("drip"), "the device is online")
    command = node.send("drip", "read")
    assert device.read_line() == "read"
    for byte in "voltage=230 ✓\n".encode():
        device.send_bytes(bytes([byte]))
    assert node.ended_command(command["id"])["reply"] == "voltage=230 ✓"


def test_the_longest_line_there_may_be_is_a_line(node: NodeProcess) -> None:
    device = node.connect("long")
    for ending in ("\n", "\r\n"):
        command = node.send("long", "read")
        assert device.read_line() == "read"
        device.send("x" * 1024, ending=ending)
        assert node.ended_command(command["id"])["reply"] == "x" * 1024


@pytest.mark.parametrize("end", ["close", "reset"])
def test_half_a_line_is_no_reply(node: NodeProcess, healthy: AnsweringDevice, end: str) -> None:
    device = node.connect("half")
    command = node.send("half", "read")
    assert device.read_line() == "read"
    device.send_bytes(b"vol")
    device.close() if end == "close" else device.reset()
    assert node.offline_reason("half") == {"close": "bad_frame", "reset": "reset"}[end]
    assert node.command(command["id"])["state"] == "written"
    assert node.connect("half").answer(1, lambda _cmd: "voltage=230") == ["read"]
    assert node.ended_command(command["id"])["reply"] == "voltage=230"
    check_unharmed(node, healthy)


def test_what_a_device_says_can_not_forge_a_log_line(start_node: StartNode) -> None:
    node = start_node("[devices]\nhello = '(?P<device>[^ ]+).*'\n[log]\nlevel = \"DEBUG\"\n")
    device = node.dial()
    device.send('d1"=x\u2028ERROR')
    wait_for(lambda: node.get("/devices")["total"] == 1, "the device is known")
    lines = [line for line in node.log().splitlines() if "device online" in line]
    assert len(lines) == 1
    assert "\\u2028" in lines[0]
    assert "\u2028" not in node.log()


def test_thousands_of_connections_that_say_nothing_are_cleared_away(
    node: NodeProcess, healthy: AnsweringDevice
) -> None:
    counted = node.metric("trunkline_bad_input_total", kind="handshake_timeout")
    before = node.resident_bytes()
    silent = [node.dial() for _ in range(2000)]
    check_unharmed(node, healthy)
    assert node.resident_bytes() - before < 100_000_000
    wait_for(
        lambda: node.metric("trunkline_bad_input_total", kind="handshake_timeout") >= counted + 2000,
        "all of them are told",
        30,
    )
    assert {tuple(one.lines_until_closed()) for one in silent} == {("ERR no hello within 3 s",)}
    for one in silent:
        one.close()
    check_unharmed(node, healthy)


def test_http_on_the_device_port_is_no_hello(node: NodeProcess, healthy: AnsweringDevice) -> None:
    browser = node.dial()
    browser.send("POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nHELLO forged", ending="\r\n")
    lines = browser.lines_until_closed()
    assert len(lines) == 1
    assert lines[0].startswith("ERR ")
    assert node.http.get("/api/v1/devices/forged").status_code == 404
    check_unharmed(node, healthy)


def test_a_peer_that_stops_sending_hears_what_it_is_owed(node: NodeProcess) -> None:
    device = node.dial()
    device.send_bytes(b"STORE [3,4]\nSTORE {}\n")
    device.socket.shutdown(socket.SHUT_WR)
    first, second = device.lines_until_closed()
    assert {first, second.split()[0]} <= {"STORED 2", "ERR"} or {second, first.split()[0]} <= {"STORED 2", "ERR"}
