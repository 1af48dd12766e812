"""Ctrl-C and SIGTERM: the node takes leave of everybody, within its time, and forgets nothing."""

import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from node_process import NodeProcess, read_events, wait_for

StartNode = Callable[..., NodeProcess]
HANDLERS = Path(__file__).parent / "sync_handlers.py"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_busy_node_drains_in_time(start_node: StartNode, tmp_path: Path, number: signal.Signals) -> None:
    shutil.copy(HANDLERS, tmp_path)
    node = start_node('modules = ["sync_handlers"]\n[batches]\nper_second = 1\n')
    devices = [node.dial() for _ in range(50)]
    for index, device in enumerate(devices):
        device.send(f"HELLO d{index}")
    wait_for(lambda: node.get("/status")["devices_online"] == 50, "50 devices are online")
    jobs = [node.sync("gated", "never")["job"]["id"], node.sync("blocking-forever", "never")["job"]["id"]]
    wait_for(lambda: node.get("/status")["jobs_running"] == 2, "both jobs run")
    node.store(list(range(3, 103)))

    followed: list[dict[str, Any]] = []
    waited: list[dict[str, Any]] = []
    attached = threading.Event()

    def follow() -> None:
        with node.new_client().stream("GET", f"/api/v1/jobs/{jobs[0]}/events") as response:
            for _, _, data in read_events(response):
                followed.append(data)
                attached.set()

    def wait() -> None:
        client = node.new_client()
        response = client.post("/api/v1/devices/d0/commands", json={"cmd": "read", "ttl": 600}, params={"wait": 60})
        waited.append({"status": response.status_code, **response.json()})

    threads = [threading.Thread(target=follow), threading.Thread(target=wait)]
    for thread in threads:
        thread.start()
    assert attached.wait(15)
    assert devices[0].read_line() == "read"
    wait_for(lambda: node.get("/devices/d0/commands")["items"][0]["state"] == "written", "the write is recorded")

    node.stop(number)
    for thread in threads:
        thread.join(15)
        assert not thread.is_alive()
    assert {tuple(device.lines_until_closed()) for device in devices} == {("BYE drained",)}
    # Whoever waited has the command as it stands, with the id to ask for later; whoever followed was let go.
    assert (waited[0]["status"], waited[0]["state"]) == (202, "written")
    assert followed
    assert all(data.get("state") not in ("succeeded", "failed") for data in followed)

    (tmp_path / "open-never").touch()
    node.start()
    assert node.ended_job(jobs[0])["state"] == "succeeded"
    assert node.connect("d0").answer(1) == ["read"]
    assert node.ended_command(waited[0]["id"])["writes"] == 2
    status = node.get("/status")
    assert status["items_stored"] + status["items_spooled"] in range(95, 101)  # one batch of 5 may be on its way
    assert {device["offline_reason"] for device in node.get("/devices")["items"] if device["id"] != "d0"} == {"drained"}
    node.kill()  # a handler that never ends runs again: a second drain would wait for it once more


def test_a_second_ctrl_c_ends_a_drain_that_takes_too_long(start_node: StartNode, tmp_path: Path) -> None:
    shutil.copy(HANDLERS, tmp_path)
    node = start_node('modules = ["sync_handlers"]\n')
    job = node.sync("blocking-forever", "r1")["job"]["id"]
    wait_for(lambda: node.get(f"/jobs/{job}")["state"] == "running", "the job runs")
    deaf = node.connect("deaf")
    node.send_signal(signal.SIGINT)
    node.send_signal(signal.SIGINT)
    assert node.wait() in (0, 128 + signal.SIGINT)  # 0 where the first was quicker
    deaf.lines_until_closed()
    node.start()
    assert node.get(f"/jobs/{job}")["attempt"] in (1, 2)
    node.kill()


def test_a_job_that_waits_for_a_reply_when_the_node_stops_runs_again(start_node: StartNode, tmp_path: Path) -> None:
    shutil.copy(HANDLERS, tmp_path)
    node = start_node('modules = ["sync_handlers"]\n')
    device = node.connect("m1")
    job = node.sync("meter", "m1")["job"]["id"]
    assert device.read_line() == "PAGES"
    node.stop()
    node.start()
    assert node.get(f"/jobs/{job}")["state"] in ("queued", "running")
    device = node.connect("m1")
    assert device.read_line() == "PAGES"
    device.send("0")
    # The first run's question is still open too: it was accepted, so it is asked.
    if node.get(f"/jobs/{job}")["state"] not in ("succeeded", "failed"):
        device.answer(1, lambda _cmd: "0")
    assert node.ended_job(job)["state"] == "succeeded"


def test_a_draining_node_takes_no_new_devices(start_node: StartNode) -> None:
    node = start_node()
    address = node.address
    node.stop()
    with pytest.raises(ConnectionRefusedError):
        node.dial()
    assert address == node.address
