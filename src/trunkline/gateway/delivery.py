"""What to do with the commands of one connected device: one in flight, in order, each within its time.

This holds for protocols whose replies carry no id: a reply belongs to the one command that is in flight. A
command that got no reply in time leaves the line in doubt: the next thing the device says may be that reply,
come late. So the following command waits until it has come, or until the line is given up for a fresh one. A
reply is never given to a command that it may not belong to.
"""

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from trunkline.gateway.ledger import Command, CommandState

__all__ = ["IN_DOUBT", "Action", "Delivery", "End", "GiveUp", "Late", "Unsolicited", "WriteOut"]


IN_DOUBT = "its node died, perhaps after it had written it, and its ttl passed"


class WriteOut(NamedTuple):
    """Write the command to the line now."""

    command: Command


class End(NamedTuple):
    """Record the outcome."""

    command: Command
    state: CommandState
    reply: str | None
    reason: str | None


class Late(NamedTuple):
    """Record a reply that came after its command had ended as unknown."""

    command: Command
    reply: str


class GiveUp(NamedTuple):
    """Close the line: which reply belongs to which command can't be told any more."""


class Unsolicited(NamedTuple):
    """The device said something that answers no command."""

    text: str


Action = WriteOut | End | Late | GiveUp | Unsolicited


class _Waiting(NamedTuple):
    command: Command
    deadline: float


class Delivery:
    """The commands of one line. Every method takes the time and returns what to do, in order.

    Times are in seconds of one monotonic clock.

    Args:
        resync_timeout: how long the next command waits for a late reply before the line is given up.
    """

    __slots__ = ("_in_flight", "_known", "_owed", "_owed_until", "_queue", "_reply_by", "_resync_timeout")

    def __init__(self, resync_timeout: float) -> None:
        self._resync_timeout = resync_timeout
        self._queue: deque[_Waiting] = deque()
        self._known: set[str] = set()
        self._in_flight: Command | None = None
        self._reply_by = 0.0
        self._owed: Command | None = None
        self._owed_until = 0.0

    def __len__(self) -> int:
        """Commands that are queued here or in flight."""
        return len(self._known)

    def offer(self, commands: Iterable[tuple[Command, float]], now: float) -> list[Action]:
        """Takes commands, each with the moment from which it may not be written any more.

        One that is here already is passed over, so the same command may be offered twice.
        """
        for command, deadline in commands:
            if command.id not in self._known:
                self._known.add(command.id)
                self._queue.append(_Waiting(command, deadline))
        return self._pump(now)

    def said(self, text: str, now: float) -> list[Action]:
        """The device said something that is neither heartbeat nor data."""
        if self._in_flight is not None:
            return [self._end(self._in_flight, CommandState.REPLIED, text, None), *self._pump(now)]
        if self._owed is not None:
            owed, self._owed = self._owed, None
            return [Late(owed, text), *self._pump(now)]
        return [Unsolicited(text)]

    def refuse(self, reason: str, now: float) -> list[Action]:
        """The command in flight could not be written after all."""
        command = self._in_flight
        if command is None:
            return []
        if command.writes or command.in_doubt:  # by an earlier line: the device may have carried it out
            state, reason = CommandState.UNKNOWN, f"written, then the line broke; it can't be written again: {reason}"
        else:
            state = CommandState.FAILED
        return [self._end(command, state, None, reason), *self._pump(now)]

    def tick(self, now: float) -> list[Action]:
        """Time has passed: ends what is overdue."""
        actions: list[Action] = []
        command = self._in_flight
        if command is not None and now >= self._reply_by:
            actions.append(
                self._end(command, CommandState.UNKNOWN, None, f"written, but no reply within {command.timeout:g} s")
            )
            self._owed, self._owed_until = command, now + self._resync_timeout
        if any(now >= deadline for _, deadline in self._queue):
            waiting, self._queue = self._queue, deque()
            for entry in waiting:
                if now >= entry.deadline:
                    actions.append(self._overdue(entry.command))
                else:
                    self._queue.append(entry)
        return actions + self._pump(now)

    def next_deadline(self) -> float | None:
        """When `tick` is to be called next; None for not at all."""
        moments = [deadline for _, deadline in self._queue]
        if self._in_flight is not None:
            moments.append(self._reply_by)
        elif self._owed is not None and self._queue:
            moments.append(self._owed_until)
        return min(moments, default=None)

    def _pump(self, now: float) -> list[Action]:
        actions: list[Action] = []
        while self._queue and self._in_flight is None:
            if self._owed is not None:
                if now >= self._owed_until:
                    actions.append(GiveUp())
                break
            command, deadline = self._queue.popleft()
            if now >= deadline:  # checked here, at the moment of the write
                actions.append(self._overdue(command))
            else:
                self._in_flight, self._reply_by = command, now + command.timeout
                actions.append(WriteOut(command))
        return actions

    def _overdue(self, command: Command) -> End:
        if command.writes:
            return self._end(command, CommandState.UNKNOWN, None, "written, then the line broke and its ttl passed")
        if command.in_doubt:
            return self._end(command, CommandState.UNKNOWN, None, IN_DOUBT)
        return self._end(
            command, CommandState.EXPIRED, None, f"its ttl of {command.ttl:g} s passed before it was written"
        )

    def _end(self, command: Command, state: CommandState, reply: str | None, reason: str | None) -> End:
        if command is self._in_flight:
            self._in_flight = None
        self._known.discard(command.id)
        return End(command, state, reply, reason)
