"""Presence on disk: epochs that fence, and leases that run out."""

from collections.abc import Callable
from typing import Any

import pytest

from trunkline.db import Database
from trunkline.gateway.command_store import NewCommand, insert_commands
from trunkline.gateway.device_store import (
    Connected,
    Device,
    Disconnected,
    Lease,
    Registered,
    Seen,
    claim_node,
    count_devices,
    device_connected,
    device_disconnected,
    devices_seen,
    read_devices,
    release_node,
    renew_lease,
)
from trunkline.gateway.ledger import Command

Apply = Callable[..., list[Any]]
Look = Callable[..., Device]


@pytest.fixture
def look(database: Database) -> Look:
    """Reads one device at a moment."""

    def read(name: str, now: float = 110.0) -> Device:
        (device,) = database.read_now(lambda connection: read_devices(connection, now, device=name))
        return device

    return read


@pytest.fixture
def node(write: Apply) -> Apply:
    """A writer of rows in a database where a node holds a lease until 115."""
    write(claim_node, Lease("node-1", 100.0, 115.0))
    return write


def connected(device: str, at: float = 101.0, address: str = "10.0.0.1:5000", node: str = "node-1") -> Connected:
    return Connected(device, "line", address, node, at)


def test_a_first_connection_makes_the_device_known_and_online(node: Apply, look: Look) -> None:
    assert node(device_connected, connected("d1")) == [Registered(1, [])]
    assert look("d1") == Device(
        id="d1", profile="line", online=True, address="10.0.0.1:5000", node="node-1", first_seen_at=101.0,
        last_seen_at=101.0, online_since=101.0, offline_since=None, offline_reason=None,
    )  # fmt: skip


def test_each_connection_gets_a_higher_epoch_and_keeps_when_the_device_was_first_seen(node: Apply, look: Look) -> None:
    epochs = [node(device_connected, connected("d1", at))[0].epoch for at in (101.0, 102.0, 103.0)]
    assert epochs == [1, 2, 3]
    device = look("d1")
    assert (device.first_seen_at, device.online_since, device.last_seen_at) == (101.0, 103.0, 103.0)


def test_the_same_id_twice_in_one_batch_is_a_takeover_in_order(node: Apply, look: Look) -> None:
    results = node(
        device_connected,
        connected("d1", 101.0, "10.0.0.1:1"),
        connected("d2", 101.0),
        connected("d1", 102.0, "10.0.0.2:2"),
        connected("d1", 103.0, "10.0.0.3:3"),
    )
    assert [registered.epoch for registered in results] == [1, 1, 2, 3]
    assert look("d1").address == "10.0.0.3:3"
    node(device_disconnected, Disconnected("d1", 1, 104.0, "taken_over"), Disconnected("d1", 2, 104.0, "taken_over"))
    assert look("d1").online, "what the earlier connections still write changes nothing"
    node(device_disconnected, Disconnected("d1", 3, 105.0, "peer_closed"))
    assert not look("d1").online


def test_a_connecting_device_is_given_the_commands_that_wait_for_it(node: Apply) -> None:
    node(device_connected, connected("d1"), connected("d2"))
    made = [
        Command(id=f"c{n}", device="d1", cmd="x", timeout=1.0, ttl=9.0, queued_at=1.0, expires_at=10.0) for n in (2, 1)
    ]
    node(insert_commands, *(NewCommand(one, 10) for one in made))
    first, second, again = node(device_connected, connected("d1"), connected("d2"), connected("d1"))
    assert first.commands == again.commands == made
    assert second.commands == []


def test_a_disconnect_says_since_when_and_why(node: Apply, look: Look) -> None:
    node(device_connected, connected("d1"))
    node(device_disconnected, Disconnected("d1", 1, 105.0, "idle"))
    device = look("d1")
    assert (device.online, device.online_since) == (False, None)
    assert (device.offline_since, device.offline_reason, device.last_seen_at) == (105.0, "idle", 105.0)


def test_the_disconnect_of_an_older_connection_is_fenced_off(node: Apply, look: Look) -> None:
    node(device_connected, connected("d1", 101.0))
    node(device_connected, connected("d1", 102.0))
    before = look("d1")
    node(device_disconnected, Disconnected("d1", 1, 105.0, "reset"))
    assert look("d1") == before


def test_coming_back_clears_why_it_was_away(node: Apply, look: Look) -> None:
    node(device_connected, connected("d1", 101.0))
    node(device_disconnected, Disconnected("d1", 1, 105.0, "idle"))
    node(device_connected, connected("d1", 106.0))
    device = look("d1")
    assert (device.online, device.offline_since, device.offline_reason) == (True, None, None)


def test_what_was_heard_is_noted_for_the_present_connection_alone(node: Apply, look: Look) -> None:
    node(device_connected, connected("d1"), connected("d2"))
    node(devices_seen, [Seen("d1", 1, 107.0), Seen("d2", 9, 107.0)], [Seen("nobody", 1, 107.0)])
    assert (look("d1").last_seen_at, look("d2").last_seen_at) == (107.0, 101.0)


def test_a_disconnect_never_makes_a_device_seen_earlier_than_it_was(node: Apply, look: Look) -> None:
    node(device_connected, connected("d1"))
    node(devices_seen, [Seen("d1", 1, 107.0)])
    node(device_disconnected, Disconnected("d1", 1, 105.0, "idle"))
    assert look("d1").last_seen_at == 107.0


def test_a_device_is_online_exactly_as_long_as_its_nodes_lease_runs(node: Apply, look: Look) -> None:
    node(device_connected, connected("d1"))
    assert look("d1", 114.999).online
    lost = look("d1", 115.0)
    assert (lost.online, lost.online_since) == (False, None)
    assert (lost.offline_since, lost.offline_reason) == (115.0, "node_lost")


def test_a_renewed_lease_keeps_its_devices_online(node: Apply, look: Look) -> None:
    node(device_connected, connected("d1"))
    node(renew_lease, Lease("node-1", 110.0, 125.0))
    assert look("d1", 124.0).online
    assert look("d1", 125.0).offline_since == 125.0


def test_a_node_that_holds_no_lease_cannot_renew_one(node: Apply, look: Look) -> None:
    node(device_connected, connected("d1", node="node-0"))
    node(renew_lease, Lease("node-0", 110.0, 500.0))
    assert look("d1", 110.0).online is False


def test_a_node_that_starts_takes_its_predecessors_devices_offline(node: Apply, look: Look) -> None:
    node(device_connected, connected("d1"), connected("d2"))
    node(device_disconnected, Disconnected("d2", 1, 105.0, "idle"))
    node(claim_node, Lease("node-2", 108.0, 123.0))
    first, second = look("d1"), look("d2")
    assert (first.online, first.offline_since, first.offline_reason) == (False, 108.0, "node_lost")
    assert (second.offline_since, second.offline_reason) == (105.0, "idle"), "who was away before has its own reason"
    node(device_connected, connected("d1", 109.0, node="node-2"))
    assert look("d1").online
    assert look("d1").node == "node-2"


def test_a_predecessor_can_write_nothing_any_more(node: Apply, look: Look) -> None:
    node(device_connected, connected("d1", 101.0))
    node(claim_node, Lease("node-2", 108.0, 123.0))
    node(device_connected, connected("d1", 109.0, node="node-2"))
    before = look("d1")
    node(renew_lease, Lease("node-1", 109.0, 999.0))
    node(devices_seen, [Seen("d1", 1, 300.0)])
    node(device_disconnected, Disconnected("d1", 1, 300.0, "idle"))
    assert look("d1") == before


def test_a_node_that_stops_in_good_order_leaves_nobody_online(node: Apply, look: Look) -> None:
    node(device_connected, connected("d1"))
    node(release_node, Lease("node-1", 109.0, 124.0))
    device = look("d1")
    assert (device.online, device.offline_since, device.offline_reason) == (False, 109.0, "node_lost")


def test_devices_are_read_page_by_page_in_the_order_of_their_ids(node: Apply, database: Database) -> None:
    names = [f"d{number:02}" for number in range(25)]
    node(device_connected, *(connected(name) for name in reversed(names)))

    def page(after: str) -> list[str]:
        found = database.read_now(lambda connection: read_devices(connection, 110.0, after=after, limit=10))
        return [device.id for device in found]

    assert page("") == names[:10]
    assert page("d09") == names[10:20]
    assert page("d19") == names[20:]
    assert page("d24") == []


def test_an_unknown_device_is_not_there(node: Apply, database: Database) -> None:
    assert database.read_now(lambda connection: read_devices(connection, 110.0, device="nobody")) == []


def test_devices_are_counted_as_they_are_read(node: Apply, database: Database) -> None:
    def count(now: float) -> tuple[int, int]:
        return database.read_now(lambda connection: count_devices(connection, now))

    assert count(110.0) == (0, 0)
    node(device_connected, connected("d1"), connected("d2"), connected("d3"))
    node(device_disconnected, Disconnected("d2", 1, 105.0, "idle"))
    assert count(110.0) == (3, 2)
    assert count(115.0) == (3, 0)
