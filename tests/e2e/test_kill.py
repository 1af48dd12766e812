"""The node is killed with -9 in the middle of everything: what it had accepted is finished after the restart."""

import random
import shutil
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from node_process import AnsweringDevice, NodeProcess, wait_for
from test_storage import check_files

StartNode = Callable[..., NodeProcess]
HANDLERS = Path(__file__).parent / "sync_handlers.py"
SETTINGS = """
modules = ["sync_handlers"]
[jobs]
concurrency = 2
[batches]
per_second = 40
"""


class Load:
    """A back office that asks for all kinds of things, and remembers what was accepted, until the node is gone."""

    def __init__(self, node: NodeProcess) -> None:
        self.node = node
        self.commands: dict[str, tuple[str, str]] = {}
        self.jobs: list[str] = []
        self.items: list[int] = []
        self.asked_items: list[int] = []

    def run(self, ask: Callable[[int], None]) -> None:
        number = 0
        try:
            while True:
                ask(number)
                number += 1
        except httpx.TransportError:
            return  # the node is gone; what was asked last was perhaps accepted, but nobody was told so

    def idle(self) -> None:
        """Asks for nothing more, and looks whether the node is still there."""
        time.sleep(0.01)
        self.node.http.get("/healthz")

    def ask_command(self, number: int) -> None:
        device = f"d{number % 3}"  # d0 answers, d1 is silent, d2 is offline
        if number >= 150:
            self.idle()
            return
        response = self.node.http.post(
            f"/api/v1/devices/{device}/commands", json={"cmd": f"{device} step {number}", "ttl": 600, "timeout": 60}
        )
        assert response.status_code == 202, response.text
        self.commands[response.json()["id"]] = (device, f"{device} step {number}")

    def ask_job(self, number: int) -> None:
        if number >= 6:
            self.idle()
            return
        response = self.node.http.post(f"/api/v1/records/gated/r{number}/sync")
        assert response.status_code == 202, response.text
        self.jobs.append(response.json()["job"]["id"])

    def ask_items(self, number: int) -> None:
        some = list(range(7 * number + 1, 7 * number + 8))
        self.asked_items += some
        response = self.node.http.post("/api/v1/items", json=some)
        assert response.json() == {"stored": 7}, response.text
        self.items += some


@pytest.mark.parametrize("seed", range(5))
def test_what_was_accepted_before_a_kill_is_finished_after_the_restart(
    start_node: StartNode, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    shutil.copy(HANDLERS, tmp_path)
    node = start_node(SETTINGS)
    load = Load(node)
    heard: dict[str, list[str]] = {"d0": [], "d1": [], "d2": []}

    first = node.answering("d0", lambda cmd: f"reply to {cmd}")
    silent = node.connect("d1")
    node.connect("d2").close()
    assert node.offline_reason("d2") == "peer_closed"
    with ThreadPoolExecutor(3) as office:
        asking = [office.submit(load.run, ask) for ask in (load.ask_command, load.ask_job, load.ask_items)]
        wait_for(lambda: load.commands and load.jobs and load.items, "something of each kind is accepted")
        time.sleep(chance.uniform(0.0, 0.8))  # what matters is that nobody can foresee the moment
        node.kill()
        for asked in asking:
            asked.result()
    heard["d0"] += first.commands
    heard["d1"] += [line for line in silent.lines_until_closed() if line.startswith("d1")]
    assert len(heard["d1"]) <= 1  # written, and never answered
    for number in range(6):
        (tmp_path / f"open-r{number}").touch()

    node.start()
    devices: dict[str, AnsweringDevice] = {
        device: node.answering(device, lambda cmd: f"reply to {cmd}") for device in ("d0", "d1", "d2")
    }
    wait_for(lambda: node.get("/status")["commands_open"] == 0, "all commands have ended", 60)
    for device, answering in devices.items():
        heard[device] += answering.commands

    for command_id, (device, cmd) in load.commands.items():
        ended = node.command(command_id)
        assert (ended["state"], ended["reply"]) == ("replied", f"reply to {cmd}"), ended
        assert ended["device"] == device
        # Once, or twice where the first write had no recorded reply when the node died.
        assert 1 <= heard[device].count(cmd) <= 2
    # One is in flight at a time, so a silent device has heard one of them twice at most, and an offline one none.
    # Of a fast device, the replies of the last moments may not have been on disk yet.
    assert len(heard["d1"]) - len(set(heard["d1"])) <= 1
    assert len(heard["d2"]) == len(set(heard["d2"]))

    for job_id in load.jobs:
        job = node.ended_job(job_id)
        assert job["state"] == "succeeded", job
        assert job["attempt"] in (1, 2)
    attempts = Counter(node.get(f"/jobs/{job_id}")["attempt"] for job_id in load.jobs)
    assert attempts[2] <= 2  # no more than ran

    node.wait_until_drained(len(load.items))
    wait_for(lambda: node.get("/status")["items_spooled"] == 0, "the spool is empty", 60)
    wait_for(
        lambda: all(batch["state"] == "stored" for batch in node.get("/batches", limit=1000)["items"]), "all is stored"
    )
    stored = check_files(node.batch_files())
    assert max(Counter(stored).values()) == 1
    assert stored == load.asked_items[: len(stored)]  # in order, and nothing that nobody asked for
    assert len(stored) in (len(load.items), len(load.asked_items))


def test_a_node_that_is_killed_again_and_again_loses_nothing(start_node: StartNode) -> None:
    node = start_node("[batches]\nper_second = 30\n")
    sent: list[int] = []
    commands: list[dict[str, Any]] = []
    node.connect("d1").close()
    for life in range(4):
        for number in range(10):
            some = list(range(1000 * life + 5 * number + 3, 1000 * life + 5 * number + 8))
            node.store(some)
            sent += some
            commands.append(node.send("d1", f"life {life} step {number}", ttl=600))
        node.kill()
        node.start()
    device = node.answering("d1")
    node.wait_until_drained(len(sent))
    assert check_files(node.batch_files()) == sent
    assert [node.ended_command(command["id"])["reply"] for command in commands] == [
        f"OK {command['cmd']}" for command in commands
    ]
    assert device.commands == [command["cmd"] for command in commands]
