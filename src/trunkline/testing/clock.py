"""A clock that stands still until it is told to go on."""

__all__ = ["ManualClock"]


class ManualClock:
    """A `trunkline.clock.Clock` for tests.

    Args:
        now: what `time` returns at the start, in seconds since 1970 UTC; `monotonic` starts at 0.
    """

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self._monotonic = 0.0
        self._time = now

    def monotonic(self) -> float:
        """Seconds that the clock was moved on by."""
        return self._monotonic

    def time(self) -> float:
        """Seconds since 1970 UTC, as set."""
        return self._time

    def advance(self, seconds: float) -> None:
        """Moves both times on."""
        if seconds < 0:
            raise ValueError("time does not go back; use set_time to set the wall clock")
        self._monotonic += seconds
        self._time += seconds

    def set_time(self, now: float) -> None:
        """Sets the wall clock, as an administrator may; `monotonic` does not notice."""
        self._time = now
