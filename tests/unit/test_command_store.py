"""The ledger's rows: what is accepted, what is recorded, and what never changes again."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select

from trunkline.db import Database
from trunkline.db.tables import commands
from trunkline.errors import NotFound, Overloaded
from trunkline.gateway.command_store import (
    LOAD_LIMIT,
    LateReply,
    NewCommand,
    Standing,
    command_of,
    devices_with_waiting,
    end_overdue,
    insert_commands,
    late_replies,
    load_commands,
    open_commands,
    record_states,
)
from trunkline.gateway.delivery import IN_DOUBT
from trunkline.gateway.device_store import (
    Connected,
    Disconnected,
    Lease,
    claim_node,
    device_connected,
    device_disconnected,
    renew_lease,
)
from trunkline.gateway.ledger import Command, CommandState

Apply = Callable[..., list[Any]]


def command(name: str, device: str = "d1", *, at: float = 100.0, ttl: float = 60.0, cmd: str = "read all") -> Command:
    return Command(id=name, device=device, cmd=cmd, timeout=5.0, ttl=ttl, queued_at=at, expires_at=at + ttl)


@pytest.fixture
def ledger(database: Database, write: Apply) -> Apply:
    """A writer of rows in a database where two devices are known, on a node whose lease has run out."""
    write(claim_node, Lease("node-1", 0.0, 1.0))
    write(device_connected, *(Connected(name, "line", "127.0.0.1:1", "node-1", 0.0) for name in ("d1", "d2")))
    return write


@pytest.fixture
def stored(database: Database) -> Callable[[str], Command]:
    """Reads a command as it stands on disk."""

    def read(name: str) -> Command:
        query = select(commands).where(commands.c.id == name)
        return database.read_now(lambda connection: command_of(connection.execute(query).one()))

    return read


def accept(ledger: Apply, *new: Command, limit: int = 1000) -> list[Any]:
    return ledger(insert_commands, *(NewCommand(one, limit) for one in new))


def test_an_accepted_command_is_a_row_that_says_all_of_it(ledger: Apply, stored: Callable[[str], Command]) -> None:
    given = command("c1", at=100.25, cmd='write "é"\t\\ 漢🙂 \u2028')
    assert accept(ledger, given) == [None]
    assert stored("c1") == given


def test_a_device_that_never_said_hello_is_unknown(ledger: Apply, database: Database) -> None:
    results = accept(ledger, command("c1", "nobody"), command("c2", "d1"))
    assert isinstance(results[0], NotFound)
    assert 'no device "nobody"' in str(results[0])
    assert results[1] is None, "the others of the batch are accepted all the same"
    ids = database.read_now(lambda connection: list(connection.execute(select(commands.c.id)).scalars()))
    assert ids == ["c2"]


def test_the_limit_of_open_commands_is_exact_within_one_batch(ledger: Apply) -> None:
    results = accept(ledger, *(command(f"c{n}", "d1") for n in range(5)), command("other", "d2"), limit=3)
    assert results[:3] == [None, None, None]
    assert all(isinstance(refused, Overloaded) for refused in results[3:5])
    assert 'device "d1" has 3 unfinished commands' in str(results[3])
    assert results[5] is None, "each device has its own limit"


def test_the_limit_counts_what_earlier_batches_left_open_and_not_what_has_ended(ledger: Apply) -> None:
    first, second = command("c1"), command("c2")
    accept(ledger, first, second, limit=2)
    assert isinstance(accept(ledger, command("c3"), limit=2)[0], Overloaded)
    first.become(CommandState.WRITTEN, 101.0)
    ledger(record_states, Standing.of(first))
    assert isinstance(accept(ledger, command("c3"), limit=2)[0], Overloaded), "written is still open"
    first.become(CommandState.REPLIED, 102.0, reply="1")
    ledger(record_states, Standing.of(first))
    assert accept(ledger, command("c3"), command("c4"), limit=2)[0] is None


def test_each_step_of_a_command_is_recorded_with_its_time(ledger: Apply, stored: Callable[[str], Command]) -> None:
    given = command("c1")
    accept(ledger, given)
    given.become(CommandState.WRITTEN, 101.5)
    ledger(record_states, Standing.of(given))
    assert stored("c1") == given
    given.become(CommandState.REPLIED, 102.25, reply="voltage=230 \u2028 é")
    ledger(record_states, Standing.of(given))
    assert stored("c1") == given


def test_of_several_words_on_one_command_in_a_batch_the_last_counts(
    ledger: Apply, stored: Callable[[str], Command]
) -> None:
    one, other = command("c1"), command("c2")
    accept(ledger, one, other)
    standings = []
    for state in (CommandState.WRITTEN, CommandState.REPLIED):
        for given in (one, other):
            given.become(state, 101.0, reply="done")
            standings.append(Standing.of(given))
    assert ledger(record_states, *standings) == [None] * 4
    assert (stored("c1"), stored("c2")) == (one, other)


@pytest.mark.parametrize("state", [state for state in CommandState if state in ("replied", "unknown")])
def test_a_command_that_has_ended_never_changes_again(
    ledger: Apply, stored: Callable[[str], Command], state: CommandState
) -> None:
    given = command("c1")
    accept(ledger, given)
    given.become(CommandState.WRITTEN, 101.0)
    given.become(state, 102.0, reply="first" if state is CommandState.REPLIED else None)
    ledger(record_states, Standing.of(given))
    for again in CommandState:
        ledger(record_states, Standing("c1", again, 900.0, 9, 900.0, "second", "lied"))
    assert stored("c1") == given


def test_a_late_reply_is_kept_beside_an_unknown_outcome_and_the_first_counts(
    ledger: Apply, stored: Callable[[str], Command]
) -> None:
    given = command("c1")
    accept(ledger, given)
    given.become(CommandState.WRITTEN, 101.0)
    given.become(CommandState.UNKNOWN, 106.0, reason="no reply")
    ledger(record_states, Standing.of(given))
    ledger(late_replies, LateReply("c1", "late"))
    ledger(late_replies, LateReply("c1", "later still"))
    found = stored("c1")
    assert (found.state, found.reply, found.late_reply) == (CommandState.UNKNOWN, None, "late")


def test_a_late_reply_changes_no_other_outcome(ledger: Apply, stored: Callable[[str], Command]) -> None:
    given, waiting = command("c1"), command("c2")
    accept(ledger, given, waiting)
    given.become(CommandState.WRITTEN, 101.0)
    given.become(CommandState.REPLIED, 102.0, reply="in time")
    ledger(record_states, Standing.of(given))
    ledger(late_replies, LateReply("c1", "late"), LateReply("c2", "late"), LateReply("c3", "late"))
    assert (stored("c1"), stored("c2")) == (given, waiting)


def test_open_commands_are_read_oldest_first_and_each_device_gets_its_own(ledger: Apply) -> None:
    names = [(f"z{9 - n}", "d1" if n % 2 else "d2") for n in range(8)]
    accept(ledger, *(command(name, device) for name, device in names))
    first, second, third = ledger(load_commands, "d1", "d2", "nobody")
    assert [one.id for one in first] == [name for name, device in names if device == "d1"]
    assert [one.id for one in second] == [name for name, device in names if device == "d2"]
    assert third == []


def test_the_same_device_may_ask_twice_in_one_batch(ledger: Apply) -> None:
    accept(ledger, command("c1"))
    first, second = ledger(load_commands, "d1", "d1")
    assert [one.id for one in first] == [one.id for one in second] == ["c1"]


def test_a_long_queue_is_read_in_parts(ledger: Apply, database: Database) -> None:
    accept(ledger, *(command(f"c{n:04}") for n in range(LOAD_LIMIT + 10)))
    ended = command("c0000")
    ended.become(CommandState.EXPIRED, 200.0, reason="too late")
    ledger(record_states, Standing.of(ended))
    found = database.read_now(lambda connection: open_commands(connection, ["d1"]))["d1"]
    assert [one.id for one in found] == [f"c{n:04}" for n in range(1, LOAD_LIMIT + 1)]


def test_devices_with_forgotten_commands_are_found(ledger: Apply, database: Database) -> None:
    old, written, young = command("c1", at=100.0), command("c2", "d2", at=100.0), command("c3", "d2", at=200.0)
    accept(ledger, old, written, young, command("c4", at=100.0))
    written.become(CommandState.WRITTEN, 101.0)
    ledger(record_states, Standing.of(written))
    assert database.read_now(lambda connection: devices_with_waiting(connection, 150.0)) == ["d1"]
    assert sorted(database.read_now(lambda connection: devices_with_waiting(connection, 201.0))) == ["d1", "d2"]
    assert database.read_now(lambda connection: devices_with_waiting(connection, 100.0)) == []


def test_the_overdue_commands_of_an_absent_device_expire(ledger: Apply, stored: Callable[[str], Command]) -> None:
    accept(ledger, command("c1", ttl=10.0), command("c2", ttl=20.0))
    assert ledger(end_overdue, 109.999) == [[]]
    ((ended,),) = ledger(end_overdue, 110.0)
    assert (ended.id, ended.state, ended.ended_at) == ("c1", CommandState.EXPIRED, 110.0)
    assert ended.reason == "its ttl passed while the device was offline"
    assert stored("c1") == ended
    assert stored("c2").state is CommandState.QUEUED
    assert ledger(end_overdue, 111.0) == [[]], "an outcome is told once"


def test_an_overdue_command_that_was_written_is_unknown(ledger: Apply) -> None:
    given = command("c1", ttl=10.0)
    accept(ledger, given)
    given.become(CommandState.WRITTEN, 101.0)
    ledger(record_states, Standing.of(given))
    ((ended,),) = ledger(end_overdue, 110.0)
    assert (ended.state, ended.written_at) == (CommandState.UNKNOWN, 101.0)
    assert ended.reason == "written, then the line broke and its ttl passed"


def test_the_overdue_commands_of_a_connected_device_are_left_to_its_line(ledger: Apply) -> None:
    accept(ledger, command("c1", ttl=10.0), command("c2", "d2", ttl=10.0))
    ledger(renew_lease, Lease("node-1", 110.0, 125.0))
    assert ledger(end_overdue, 115.0) == [[]]
    ((first, second),) = ledger(end_overdue, 125.0)
    assert {first.id, second.id} == {"c1", "c2"}, "once the lease has run out, nobody else will end them"


def test_requests_that_meet_in_one_batch_tell_each_outcome_once(ledger: Apply) -> None:
    accept(ledger, command("c1", ttl=10.0))
    first, second = ledger(end_overdue, 105.0, 111.0)
    assert ([one.id for one in first], second) == (["c1"], [])


def test_what_a_dying_node_may_have_written_is_in_doubt_and_never_expires_as_unwritten(
    database: Database, write: Apply, stored: Callable[[str], Command]
) -> None:
    write(claim_node, Lease("node-1", 100.0, 115.0))
    write(device_connected, *(Connected(name, "line", "127.0.0.1:1", "node-1", 100.0) for name in ("held", "away")))
    write(device_disconnected, Disconnected("away", 1, 100.5, "idle"))
    accept(write, command("c1", "held", ttl=10.0), command("c2", "away", ttl=10.0))
    write(claim_node, Lease("node-2", 105.0, 120.0))
    assert (stored("c1").in_doubt, stored("c2").in_doubt) == (True, False)
    (ended,) = write(end_overdue, 111.0)
    assert {one.id: one.state for one in ended} == {"c1": CommandState.UNKNOWN, "c2": CommandState.EXPIRED}
    assert stored("c1").reason == IN_DOUBT


def test_a_command_in_doubt_goes_to_the_next_line_all_the_same(write: Apply) -> None:
    write(claim_node, Lease("node-1", 100.0, 115.0))
    write(device_connected, Connected("d1", "line", "127.0.0.1:1", "node-1", 100.0))
    accept(write, command("c1"))
    write(claim_node, Lease("node-2", 105.0, 120.0))
    (registered,) = write(device_connected, Connected("d1", "line", "127.0.0.1:2", "node-2", 106.0))
    assert [(one.id, one.in_doubt) for one in registered.commands] == [("c1", True)]
