"""What keeps a node from starting: one line that names the setting and the mend, and an exit code."""

import json
import socket
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from node_process import NodeProcess, wait_for

StartNode = Callable[..., NodeProcess]


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def check_refused(node: NodeProcess, code: int, *named: str) -> None:
    """It ends soon, with one line that names what is wrong, and nothing like a traceback."""
    node.spawn()
    assert node.wait(30) == code, node.log()
    (line,) = node.log().splitlines()
    assert line.startswith("trunkline: ")
    for text in named:
        assert text in line


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ("[devices]\nprot = 1\n", ("devices.prot = 1", "devices.port")),
        ("[device]\nport = 1\n", ("device", "devices")),
        ("ports = 1\n", ("ports = 1",)),
        ('[devices]\nidle_timeout = "soon"\n', ('devices.idle_timeout = "soon"', "90")),
        ("[devices]\nidle_timeout = -1\n", ("devices.idle_timeout = -1", "90")),
        ("[devices]\nline_limit_bytes = 1.5\n", ("devices.line_limit_bytes = 1.5", "1024")),
        ("devices = 7400\n", ("devices = 7400", "[devices]")),
        ("[devices]\nhello = 'HELLO ('\n", ("devices.hello", "HELLO (")),
        ("[devices]\nhello = 'HELLO (.*)'\n", ("devices.hello", "(?P<device>")),
        ("[http]\nhost = '0.0.0.0'\n", ('http.host = "0.0.0.0"', "127.0.0.1")),
        ("[http]\nhost = 'no.such.host.invalid'\n", ('http.host = "no.such.host.invalid"', "127.0.0.1")),
        ("[devices]\nhost = '192.0.2.1'\n", ('devices.host = "192.0.2.1"', "127.0.0.1")),
        ("[log]\nlevel = 'LOUD'\n", ('log.level = "LOUD"', "INFO")),
        ("[devices\n", ("trunkline.toml",)),
        ("modules = ['no_such_module']\n", ("no_such_module",)),
    ],
)
def test_a_wrong_setting_is_named_with_its_value_and_the_mend(
    node_folder: StartNode, settings: str, named: tuple[str, ...]
) -> None:
    check_refused(node_folder(settings), 2, *named)


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("TRUNKLINE_DEVICES_PROT", "1", "TRUNKLINE_DEVICES_PORT"),
        ("TRUNKLINE_DEVICES_PORT", "many", "7400"),
        ("TRUNKLINE_HTTP_PORT", "70000", "7480"),
        ("TRUNKLINE_CONFIG", "/nowhere/trunkline.toml", "/nowhere/trunkline.toml"),
    ],
)
def test_a_wrong_variable_is_named_with_the_mend(node_folder: StartNode, variable: str, value: str, named: str) -> None:
    check_refused(node_folder(**{variable: value}), 2, named)


@pytest.mark.parametrize("group", ["devices", "http"])
def test_a_port_in_use_is_named(node_folder: StartNode, taken_port: int, group: str) -> None:
    check_refused(
        node_folder(**{f"TRUNKLINE_{group.upper()}_PORT": str(taken_port)}), 2, f"{group}.port = {taken_port}", "in use"
    )


def test_a_folder_that_can_not_be_made_is_named(node_folder: StartNode, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "data"
    check_refused(node_folder(f'[data]\ndirectory = "{folder}"\n'), 3, f'data.directory = "{folder}"')


def test_a_second_node_on_one_folder_is_refused_and_the_first_goes_on(start_node: StartNode, tmp_path: Path) -> None:
    first = start_node()
    device = first.answering("d1")
    (tmp_path / "second").mkdir()
    second = NodeProcess(tmp_path / "second", f'[data]\ndirectory = "{first.data}"\n')
    check_refused(second, 2, f'data.directory = "{first.data}"', "another node")
    assert first.send("d1", "read", wait=10)["reply"] == "OK read"
    assert device.commands == ["read"]


def test_the_folder_of_a_killed_node_is_free_again(start_node: StartNode) -> None:
    node = start_node()
    node.kill()
    node.start()
    assert node.http.get("/healthz").text == "ok\n"


def test_the_environment_wins_over_the_file(start_node: StartNode) -> None:
    node = start_node("[devices]\nheartbeat_answer = 'FILE'\n", TRUNKLINE_DEVICES_HEARTBEAT_ANSWER="ENV")
    device = node.connect("d1")
    device.send("PING")
    assert device.read_line() == "ENV"


def test_the_log_can_be_json(start_node: StartNode) -> None:
    node = start_node('[log]\nformat = "json"\n')
    node.connect("d1")
    wait_for(lambda: "device online" in node.log(), "the device is in the log")
    events = [json.loads(line) for line in node.log().splitlines()]
    (online,) = (event for event in events if event["event"] == "device online")
    assert online["device"] == "d1"
    assert online["level"] == "INFO"  # others may be warnings: who waits for the device asks for it before it is known


def test_the_database_is_durable_and_of_the_newest_schema(start_node: StartNode) -> None:
    node = start_node()
    node.stop()
    database = sqlite3.connect(node.data / "trunkline.db")
    try:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert database.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,)
    finally:
        database.close()
