"""Devices on real TCP: who they are, whether they are there, and why they are not."""

import json
import signal
import socket
import time
from collections.abc import Callable

import pytest
from node_process import NodeProcess, wait_for

StartNode = Callable[..., NodeProcess]


def test_a_hello_registers_a_device(node: NodeProcess) -> None:
    device = node.connect("d1")
    found = node.device("d1")
    assert found["online"] is True
    assert found["address"] == device.address
    assert found["profile"] == "line"
    assert found["online_since"] == found["first_seen_at"]
    assert found["offline_since"] is None
    assert found["offline_reason"] is None


def test_a_carriage_return_before_the_line_end_is_no_part_of_the_line(node: NodeProcess) -> None:
    device = node.dial()
    device.send("HELLO crlf-1", ending="\r\n")
    wait_for(lambda: node.is_online("crlf-1"), "the device is online")
    device.send("PING", ending="\r\n")
    assert device.read_line() == "PONG"
    command = node.send("crlf-1", "read", wait=0.01)
    assert device.read_line() == "read"
    device.send("42", ending="\r\n")
    assert node.ended_command(command["id"])["reply"] == "42"


def test_a_hello_and_the_end_in_one_go_make_a_known_device(node: NodeProcess) -> None:
    device = node.dial()
    device.send("HELLO brief-1")
    device.socket.shutdown(socket.SHUT_WR)
    assert device.lines_until_closed() == []
    wait_for(lambda: node.http.get("/api/v1/devices/brief-1").status_code == 200, "the device is known")
    assert node.offline_reason("brief-1") == "peer_closed"


def test_two_devices_behind_one_address_are_two_devices(node: NodeProcess) -> None:
    first, second = node.connect("twin-1"), node.connect("twin-2")
    assert node.device("twin-1")["address"].split(":")[0] == node.device("twin-2")["address"].split(":")[0]
    one, two = node.send("twin-1", "who?"), node.send("twin-2", "who?")
    second.answer(1, lambda _cmd: "second")
    first.answer(1, lambda _cmd: "first")
    assert node.ended_command(one["id"])["reply"] == "first"
    assert node.ended_command(two["id"])["reply"] == "second"


def test_the_same_id_on_a_second_connection_takes_over(node: NodeProcess) -> None:
    first = node.connect("moved-1")
    taken_over = node.metric("trunkline_connections_closed_total", reason="taken_over")
    second = node.connect("moved-1")
    assert first.lines_until_closed() == ["BYE taken_over"]
    wait_for(
        lambda: node.metric("trunkline_connections_closed_total", reason="taken_over") == taken_over + 1,
        "the first connection is counted as taken over",
    )
    command = node.send("moved-1", "read")
    assert second.answer(1) == ["read"]
    assert node.ended_command(command["id"])["reply"] == "OK read"
    found = node.device("moved-1")
    assert found["online"] is True
    assert found["address"] == second.address


def test_of_many_connections_with_one_id_one_stays(node: NodeProcess) -> None:
    online = node.metric("trunkline_devices_online")
    lost = node.metric("trunkline_connections_closed_total", reason="taken_over")
    devices = [node.dial() for _ in range(20)]
    for device in devices:
        device.send("HELLO fought-over")
    wait_for(
        lambda: node.metric("trunkline_connections_closed_total", reason="taken_over") == lost + 19, "19 have lost"
    )
    # Which of them came last is up to the network.
    wait_for(lambda: node.is_online("fought-over"), "the device is online")
    (winner,) = (device for device in devices if device.address == node.device("fought-over")["address"])
    for device in devices:
        if device is not winner:
            assert device.lines_until_closed() == ["BYE taken_over"]
    command = node.send("fought-over", "still there?")
    assert winner.answer(1) == ["still there?"]
    assert node.ended_command(command["id"])["state"] == "replied"
    assert node.metric("trunkline_devices_online") == online + 1


def test_a_device_that_closes_is_offline_because_it_closed(node: NodeProcess) -> None:
    node.connect("closer-1").close()
    assert node.offline_reason("closer-1") == "peer_closed"
    found = node.device("closer-1")
    assert found["online_since"] is None
    assert found["offline_since"] >= found["first_seen_at"]


def test_a_device_that_resets_is_offline_because_of_the_reset(node: NodeProcess) -> None:
    node.connect("resetter-1").reset()
    assert node.offline_reason("resetter-1") == "reset"


def test_a_device_that_breaks_the_protocol_is_offline_because_of_that(node: NodeProcess) -> None:
    device = node.connect("babbler-1")
    device.send_bytes(b"\xff\xfe\n")
    assert device.read_line().startswith("ERR ")
    assert node.offline_reason("babbler-1") == "bad_frame"


def test_a_device_that_is_silent_too_long_is_offline_as_idle(start_node: StartNode) -> None:
    node = start_node("[devices]\nidle_timeout = 1.5\n")
    silent, beating = node.connect("silent-1"), node.connect("beating-1")
    while node.device("silent-1")["online"]:
        beating.check_round_trip()
        time.sleep(0.1)
    assert silent.lines_until_closed() == ["ERR nothing came for 1.5 s"]
    assert node.offline_reason("silent-1") == "idle"
    assert node.is_online("beating-1")
    assert node.metric("trunkline_bad_input_total", kind="idle") == 1


@pytest.mark.parametrize("flood", ["PING\n", "STORE []\n"])
def test_a_client_that_never_reads_is_closed_and_costs_no_memory(start_node: StartNode, flood: str) -> None:
    node = start_node("[devices]\nunread_bytes = 65536\n")
    healthy = node.answering("healthy-1")
    device = node.connect("deaf-1", receive_buffer=4096)
    before = node.resident_bytes()
    highest = before
    block = (flood * 4000).encode()
    device.socket.settimeout(0.2)
    ends_at = time.monotonic() + 40
    while node.device("deaf-1")["online"]:
        assert time.monotonic() < ends_at, "the node bears with a client that never reads"
        try:
            device.socket.sendall(block)
        except TimeoutError:
            pass  # the node reads no more: as it should
        except OSError:
            break
        highest = max(highest, node.resident_bytes())
    assert node.offline_reason("deaf-1") == "over_budget"
    assert highest - before < 20_000_000
    assert node.send("healthy-1", "read", wait=10)["reply"] == "OK read"
    assert healthy.commands == ["read"]


def test_commands_for_a_device_that_never_reads_pile_up_on_disk_alone(start_node: StartNode) -> None:
    node = start_node("[devices]\nunread_bytes = 65536\n")
    node.connect("deaf-2", receive_buffer=4096)
    commands = [node.send("deaf-2", f"{number} {'x' * 900}") for number in range(200)]
    # Protocols without ids have one command in flight: what waits is in the ledger, not in the node's memory.
    states = [node.command(command["id"])["state"] for command in commands]
    assert states.count("written") <= 1
    assert states.count("queued") >= 199


def test_a_node_that_was_drained_says_goodbye_and_leaves_that_as_the_reason(start_node: StartNode) -> None:
    node = start_node()
    devices = [node.connect(f"d{number}") for number in range(3)]
    node.stop(signal.SIGTERM)
    assert [device.lines_until_closed() for device in devices] == [["BYE drained"]] * 3
    listed = node.cli("devices", "--json")
    assert listed.returncode == 0
    found = [json.loads(line) for line in listed.stdout.splitlines()]
    assert [(device["id"], device["online"], device["offline_reason"]) for device in found] == [
        ("d0", False, "drained"),
        ("d1", False, "drained"),
        ("d2", False, "drained"),
    ]


def test_the_devices_of_a_killed_node_are_lost_with_it_until_they_come_back(start_node: StartNode) -> None:
    node = start_node()
    node.connect("d1")
    node.connect("d2")
    node.kill()
    node.start()
    assert node.offline_reason("d1") == "node_lost"
    assert node.offline_reason("d2") == "node_lost"
    node.connect("d1")
    found = {device["id"]: device for device in node.get("/devices")["items"]}
    assert found["d1"]["online"]
    assert found["d1"]["offline_reason"] is None
    assert not found["d2"]["online"]


def test_the_command_line_lists_devices_while_the_node_runs_and_after(start_node: StartNode) -> None:
    node = start_node()
    node.connect("here-1")
    node.connect("gone-1").close()
    assert node.offline_reason("gone-1") == "peer_closed"

    listed = node.cli("devices")
    assert listed.returncode == 0
    assert listed.stderr == ""
    rows = [line.split("\t") for line in listed.stdout.splitlines()]
    assert [row[:2] for row in rows] == [["gone-1", "offline (peer_closed)"], ["here-1", "online"]]

    as_json = node.cli("devices", "--json", "--online")
    assert [json.loads(line)["id"] for line in as_json.stdout.splitlines()] == ["here-1"]

    node.stop()
    assert node.cli("devices", "--online").stdout == ""
    assert "offline (drained)" in node.cli("devices").stdout


def test_listing_devices_where_no_node_has_been_is_an_error_that_says_what_to_do(node_folder: StartNode) -> None:
    listed = node_folder().cli("devices")
    assert listed.returncode == 2
    assert len(listed.stderr.splitlines()) == 1
    assert "trunkline serve" in listed.stderr


def test_the_list_of_devices_comes_in_pages(start_node: StartNode) -> None:
    node = start_node()
    ids = [f"page-{number:02d}" for number in range(7)]
    for device_id in ids:
        node.connect(device_id)
    found: list[str] = []
    after = None
    while True:
        page = node.get("/devices", limit=3, **({"after": after} if after else {}))
        assert page["total"] == 7
        assert page["online"] == 7
        found += [device["id"] for device in page["items"]]
        after = page["next"]
        if after is None:
            break
    assert found == ids


def test_a_hello_of_the_users_own_is_understood(start_node: StartNode) -> None:
    node = start_node("[devices]\nhello = 'IMEI:(?P<device>[0-9]{15});.*'\nheartbeat = '#'\nheartbeat_answer = ''\n")
    device = node.dial()
    device.send("IMEI:490154203237518;v1")
    wait_for(lambda: node.is_online("490154203237518"), "the device is online")
    device.send("#")
    command = node.send("490154203237518", "read")
    assert device.read_line() == "read"  # and no answer to the heartbeat before it
    device.send("done")
    assert node.ended_command(command["id"])["reply"] == "done"


def test_one_connection_too_many_is_refused_and_the_others_stay(start_node: StartNode) -> None:
    node = start_node("[devices]\nconnections_limit = 3\n")
    devices = [node.connect(f"d{number}") for number in range(3)]
    assert node.dial().lines_until_closed() == []
    assert node.metric("trunkline_connections_refused_total", reason="connections_limit") == 1
    for device in devices:
        device.check_round_trip()
    devices[0].close()
    assert node.offline_reason("d0") == "peer_closed"
    node.connect("d3")


def test_a_client_that_has_said_all_still_gets_its_answer(node: NodeProcess) -> None:
    """As with ``printf 'STORE [1]\\n' | nc``: its side is closed before the items are committed."""
    client = node.dial()
    client.send("STORE [1, 3, 4]")
    client.socket.shutdown(socket.SHUT_WR)
    assert client.lines_until_closed() == ["STORED 3"]
