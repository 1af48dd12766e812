"""The life of a command and of a job: one table each, kept to exactly."""

import enum
import itertools
from collections.abc import Mapping

import pytest

from trunkline.db.tables import commands, jobs
from trunkline.gateway import ledger
from trunkline.gateway.ledger import Command, CommandState
from trunkline.jobs import model
from trunkline.jobs.model import JobState

TABLES: list[Mapping[enum.StrEnum, frozenset[enum.StrEnum]]] = [ledger.TRANSITIONS, model.TRANSITIONS]  # type: ignore[list-item]
NAMES = ["command", "job"]


def reachable(table: Mapping[enum.StrEnum, frozenset[enum.StrEnum]], start: enum.StrEnum) -> set[enum.StrEnum]:
    """The states that can follow `start`, in any number of steps, and itself."""
    found, todo = {start}, [start]
    while todo:
        for state in table[todo.pop()] - found:
            found.add(state)
            todo.append(state)
    return found


def a_command(state: CommandState) -> Command:
    return Command(
        id="c", device="d1", cmd="x", timeout=1.0, ttl=1.0, queued_at=0.0, expires_at=1.0, state=state,
        writes=int(state is CommandState.WRITTEN),
    )  # fmt: skip


@pytest.mark.parametrize("table", TABLES, ids=NAMES)
def test_the_table_names_every_state(table: Mapping[enum.StrEnum, frozenset[enum.StrEnum]]) -> None:
    kind = type(next(iter(table)))
    assert set(table) == set(kind)
    assert set().union(*table.values()) <= set(kind)


@pytest.mark.parametrize("table", TABLES, ids=NAMES)
def test_every_state_can_be_reached_from_queued(table: Mapping[enum.StrEnum, frozenset[enum.StrEnum]]) -> None:
    kind = type(next(iter(table)))
    assert reachable(table, kind("queued")) == set(table)


@pytest.mark.parametrize("table", TABLES, ids=NAMES)
def test_every_open_state_can_still_come_to_an_end(table: Mapping[enum.StrEnum, frozenset[enum.StrEnum]]) -> None:
    final = {state for state, following in table.items() if not following}
    assert all(reachable(table, state) & final for state in table)


def test_a_command_has_four_outcomes_and_no_way_back_from_them() -> None:
    final = set(CommandState) - set(ledger.OPEN_STATES)
    assert final == {CommandState.REPLIED, CommandState.FAILED, CommandState.EXPIRED, CommandState.UNKNOWN}
    assert all(not ledger.TRANSITIONS[state] for state in final)


def test_a_job_has_two_outcomes_and_no_way_back_from_them() -> None:
    assert set(model.FINAL_STATES) == {JobState.SUCCEEDED, JobState.FAILED}
    assert all(not model.TRANSITIONS[state] for state in model.FINAL_STATES)


def test_a_command_that_was_written_can_neither_expire_nor_fail() -> None:
    assert not ledger.TRANSITIONS[CommandState.WRITTEN] & {CommandState.EXPIRED, CommandState.FAILED}


@pytest.mark.parametrize(("before", "after"), list(itertools.product(CommandState, CommandState)))
def test_a_command_becomes_what_the_table_lists_and_nothing_else(before: CommandState, after: CommandState) -> None:
    command = a_command(before)
    if after in ledger.TRANSITIONS[before]:
        command.become(after, 5.0, reply="r", reason="why")
        assert command.state is after
    else:
        unchanged = a_command(before)
        with pytest.raises(ValueError, match=f"a command that is {before} can't become {after}"):
            command.become(after, 5.0, reply="r", reason="why")
        assert command == unchanged


def test_each_write_is_counted_and_dated_and_ends_nothing() -> None:
    command = a_command(CommandState.QUEUED)
    command.become(CommandState.WRITTEN, 5.0)
    command.become(CommandState.WRITTEN, 7.0)
    assert (command.writes, command.written_at, command.ended_at) == (2, 7.0, None)


def test_an_outcome_is_dated_and_keeps_the_moment_of_the_write() -> None:
    command = a_command(CommandState.QUEUED)
    command.become(CommandState.WRITTEN, 5.0)
    command.become(CommandState.REPLIED, 6.0, reply="42")
    assert (command.written_at, command.ended_at, command.reply, command.reason) == (5.0, 6.0, "42", None)


def test_the_partial_indexes_of_the_tables_name_the_open_states() -> None:
    def where(table: object, name: str) -> str:
        (index,) = [index for index in table.indexes if index.name == name]  # type: ignore[attr-defined]
        return str(index.dialect_options["sqlite"]["where"])

    def naming(states: list[enum.StrEnum]) -> str:
        listed = ", ".join(f"'{state}'" for state in states)
        return f"state IN ({listed})"

    assert where(commands, "commands_open") == naming(list(ledger.OPEN_STATES))
    assert where(jobs, "jobs_unfinished") == naming([state for state in JobState if state not in model.FINAL_STATES])
