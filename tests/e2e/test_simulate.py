"""Simulated devices against a real node: what they say they saw is what the node says."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from node_process import NodeProcess, wait_for

StartNode = Callable[..., NodeProcess]


@contextmanager
def simulation(node: NodeProcess, *options: str) -> Iterator[dict[str, Any]]:
    """Simulated devices in a process of their own; what they saw is there in the end."""
    connect = f"{node.address[0]}:{node.address[1]}"
    process = subprocess.Popen(
        [sys.executable, "-m", "trunkline.cli.main", "simulate", "--connect", connect, "--json", *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    counts: dict[str, Any] = {}
    try:
        yield counts
        process.terminate()
        out, errors = process.communicate(timeout=20)
        assert (process.returncode, errors) == (0, "")
        counts |= json.loads(out)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_the_counts_of_a_short_run_add_up(start_node: StartNode) -> None:
    node = start_node()
    connect = f"{node.address[0]}:{node.address[1]}"
    run = node.cli(
        "simulate", "--devices", "20", "--for", "3", "--json", "--connect", connect, "--store", "0.5", "--beat", "0.5"
    )
    assert (run.returncode, run.stderr) == (0, "")
    counts = json.loads(run.stdout)
    assert counts["online"] == counts["connects"] == 20
    assert counts["disconnects"] == counts["connects_failed"] == counts["errors"] == counts["goodbyes"] == 0
    assert counts["commands"] == counts["answers"] == counts["drops"] == 0
    assert counts["lists_sent"] > 20
    assert counts["items_stored"] > 0
    wait_for(lambda: node.get("/status")["items_spooled"] == 0, "the spool is empty")
    stored = node.metric("trunkline_items_accepted_total")
    assert stored >= counts["items_stored"]  # the last answers may have come after the count
    node.wait_until_drained(int(stored))
    listed = node.get("/devices")
    assert (listed["total"], listed["online"]) == (20, 0)
    assert [device["id"] for device in listed["items"]] == [f"sim-{number:04d}" for number in range(1, 21)]
    assert {device["offline_reason"] for device in listed["items"]} == {"peer_closed"}


def test_commands_reach_simulated_devices_and_their_answers_come_back(start_node: StartNode) -> None:
    node = start_node()
    with simulation(node, "--devices", "20", "--delay", "0.05", "--prefix", "m-") as counts:
        wait_for(lambda: node.get("/status")["devices_online"] == 20, "all devices are online")
        with ThreadPoolExecutor(20) as callers:
            ended = list(
                callers.map(lambda number: node.send(f"m-{number % 20 + 1:04d}", f"step {number}", wait=20), range(100))
            )
        assert [command["reply"] for command in ended] == [f"OK step {number}" for number in range(100)]
        assert node.send("m-0001", "read all", wait=20)["reply"].startswith("voltage=")
    assert counts["commands"] == counts["answers"] == 101
    assert counts["errors"] == 0


def test_commands_are_all_answered_in_the_end_by_devices_that_drop_their_lines(start_node: StartNode) -> None:
    node = start_node()
    with simulation(node, "--devices", "10", "--drop", "0.3", "--seed", "3") as counts:
        wait_for(lambda: node.get("/devices")["total"] == 10, "all devices are known")
        sent = [node.send(f"sim-{number % 10 + 1:04d}", f"step {number}", ttl=120, timeout=60) for number in range(60)]
        wait_for(lambda: node.get("/status")["commands_open"] == 0, "all commands have ended", 60)
        ended = [node.command(command["id"]) for command in sent]
    assert [command["reply"] for command in ended] == [f"OK step {number}" for number in range(60)]
    assert counts["drops"] > 0
    assert sum(command["writes"] for command in ended) == 60 + counts["drops"]
    assert counts["answers"] == 60
    assert counts["commands"] == 60 + counts["drops"]


def test_an_address_that_is_none_is_refused(node: NodeProcess) -> None:
    for address in ("7400", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:0", ":7400"):
        refused = node.cli("simulate", "--connect", address, "--for", "1")
        assert refused.returncode == 2
        assert refused.stderr.startswith(f"trunkline: --connect {address}")
        assert len(refused.stderr.splitlines()) == 1


def test_a_node_that_is_not_there_is_counted_and_no_error(node: NodeProcess) -> None:
    run = node.cli("simulate", "--devices", "3", "--for", "1", "--json", "--connect", "127.0.0.1:1")
    assert (run.returncode, run.stderr) == (0, "")
    counts = json.loads(run.stdout)
    assert counts["connects"] == counts["online"] == 0
    assert counts["connects_failed"] >= 3
