"""What a job is: its states, the one table of what may follow what, and the events of its logbook."""

import enum
from typing import Any

import msgspec

__all__ = ["FINAL_STATES", "TRANSITIONS", "Job", "JobEvent", "JobState"]


class JobState(enum.StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    """Committed; waits for its turn."""
    RUNNING = "running"
    """Its handler runs. It is queued again if its node stops or dies."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"


TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING}),
    JobState.RUNNING: frozenset({JobState.QUEUED, JobState.SUCCEEDED, JobState.FAILED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
}

FINAL_STATES = tuple(state for state, following in TRANSITIONS.items() if not following)
"""The states of a job that has its outcome."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One row. Moments are seconds since 1970 UTC."""

    id: str
    type: str
    """The record's type, which chooses the handler."""
    record: str
    """The record's id."""
    state: JobState
    attempt: int
    """How many times it was begun."""
    created_at: float
    started_at: float | None
    ended_at: float | None
    done: float | None
    total: float | None
    error: str | None


class JobEvent(msgspec.Struct, frozen=True):
    """One entry of a job's logbook.

    Attributes:
        n: its number: 1, 2, 3 and so on, without a gap, through all attempts.
        kind: ``log`` (data: level, text), ``progress`` (done, total) or ``state`` (state, attempt, error).
    """

    n: int
    at: float
    kind: str
    data: dict[str, Any]
