"""The life of a command: its states, and the one table of what may follow what."""

import enum

import msgspec

__all__ = ["OPEN_STATES", "TRANSITIONS", "Command", "CommandState"]


class CommandState(enum.StrEnum):
    """Where a command stands."""

    QUEUED = "queued"
    """Committed; not yet written to a line."""
    WRITTEN = "written"
    """Written to the device's line; its reply is awaited. It is written again if the line breaks before that."""
    REPLIED = "replied"
    """The device answered."""
    FAILED = "failed"
    """It can't be written to this device. It never was."""
    EXPIRED = "expired"
    """Its ttl passed before it could be written. It never was."""
    UNKNOWN = "unknown"
    """It was written, and no answer came: the device may have carried it out or not."""


TRANSITIONS: dict[CommandState, frozenset[CommandState]] = {
    # From queued to unknown: where a node died that may have written it without having been able to say so.
    CommandState.QUEUED: frozenset(
        {CommandState.WRITTEN, CommandState.FAILED, CommandState.EXPIRED, CommandState.UNKNOWN}
    ),
    CommandState.WRITTEN: frozenset({CommandState.WRITTEN, CommandState.REPLIED, CommandState.UNKNOWN}),
    CommandState.REPLIED: frozenset(),
    CommandState.FAILED: frozenset(),
    CommandState.EXPIRED: frozenset(),
    CommandState.UNKNOWN: frozenset(),
}

OPEN_STATES = tuple(state for state, following in TRANSITIONS.items() if following)
"""The states of a command whose outcome is still to come."""


class Command(msgspec.Struct, kw_only=True):
    """One row of the ledger. Moments are seconds since 1970 UTC, durations are seconds."""

    id: str
    device: str
    cmd: str
    timeout: float
    """How long to wait for the reply after a write."""
    ttl: float
    queued_at: float
    expires_at: float
    """The moment from which it may no longer be written."""
    state: CommandState = CommandState.QUEUED
    written_at: float | None = None
    """The last write."""
    writes: int = 0
    in_doubt: bool = False
    """Whether a node that died may have written it, without having been able to say so."""
    ended_at: float | None = None
    reply: str | None = None
    reason: str | None = None
    late_reply: str | None = None
    """What came after the outcome had been recorded as unknown."""

    def become(self, state: CommandState, at: float, *, reply: str | None = None, reason: str | None = None) -> None:
        """Takes the next state.

        Args:
            state: one that may follow the present one.
            at: the moment.
            reply: what the device answered.
            reason: why it ended without an answer.
        """
        if state not in TRANSITIONS[self.state]:
            raise ValueError(f"a command that is {self.state} can't become {state}")
        self.state = state
        if state is CommandState.WRITTEN:
            self.written_at = at
            self.writes += 1
        else:
            self.ended_at, self.reply, self.reason = at, reply, reason
