"""Peers that talk without end: they have their turns, and so have all others."""

import contextlib
import json
import threading
from collections.abc import Callable

import pytest
from node_process import NodeProcess, PlainDevice

StartNode = Callable[..., NodeProcess]
MIB = 1024 * 1024


@pytest.mark.parametrize("line", ["x", "PING", "STORE [5]"])
def test_floods_neither_stall_the_node_nor_grow_it(start_node: StartNode, line: str) -> None:
    node = start_node()
    healthy = node.answering("healthy")
    before = node.resident_bytes()
    ended = threading.Event()
    data = f"{line}\n".encode() * 20_000

    def flood(device: PlainDevice) -> None:
        with contextlib.suppress(OSError):
            while not ended.is_set():
                device.send_bytes(data)

    devices = [node.connect(f"flood-{number}") for number in range(5)]
    for device in devices:
        device.socket.settimeout(1.0)
    threads = [threading.Thread(target=flood, args=(device,)) for device in devices]
    for thread in threads:
        thread.start()
    try:
        for number in range(20):
            assert node.send("healthy", f"still there {number}?", wait=10)["reply"] == f"OK still there {number}?"
        assert node.resident_bytes() - before < 60 * MIB
    finally:
        ended.set()
        for device in devices:
            device.close()
        for thread in threads:
            thread.join()
    assert healthy.commands[-1] == "still there 19?"
    node.stop()


def test_a_list_nested_too_deep_is_refused_and_the_batches_can_be_read(start_node: StartNode) -> None:
    node = start_node()
    device = node.connect("d1")
    device.send("STORE [" + "[" * 300 + "]" * 300 + "]")
    assert "nested deeper than 100" in device.read_line()
    deepest = json.dumps([json.loads("[" * 99 + "1" + "]" * 99)])
    device.send(f"STORE {deepest}")
    assert device.read_line() == "STORED 1"
    assert node.http.get("/api/v1/batches").status_code == 200


def test_a_refused_request_leaves_a_line_in_the_log(start_node: StartNode) -> None:
    node = start_node()
    node.http.post("/api/v1/records/nope/1/sync")
    node.http.post("/api/v1/items", json={})
    node.http.post("/api/v1/devices/d1/commands", json={"cmd": "a", "timeout": -1})
    node.http.get("/api/v1/status", headers={"Host": "evil.example"})
    log = node.log()
    for kind, path in (
        ("http_404", "/api/v1/records/nope/1/sync"),
        ("http_422", "/api/v1/items"),
        ("http_422", "/api/v1/devices/d1/commands"),
        ("http_403", "/api/v1/status"),
    ):
        assert any(f"kind={kind}" in line and path in line for line in log.splitlines()), (kind, path)


def test_one_port_for_both_is_one_line(node_folder: Callable[..., NodeProcess]) -> None:
    node = node_folder(TRUNKLINE_DEVICES_PORT="27541", TRUNKLINE_HTTP_PORT="27541")
    node.spawn()
    assert node.wait() == 2
    assert "port = 27541: the port is in use" in node.log()
    assert "Traceback" not in node.log()
