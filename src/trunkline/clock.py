"""Where time comes from.

Rules never read a clock: they are given `now`. What drives them asks a `Clock`, so that a test can
put `trunkline.testing.ManualClock` in its place.
"""

import time as _time
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """Two times: one for durations and one for the record."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes back. For deadlines and intervals."""

    def time(self) -> float:
        """Seconds since 1970-01-01 UTC. For what is written down and read by people or other processes."""


class SystemClock:
    """The machine's own clocks. Any thread."""

    def monotonic(self) -> float:
        """Seconds of `time.monotonic`."""
        return _time.monotonic()

    def time(self) -> float:
        """Seconds of `time.time`."""
        return _time.time()
