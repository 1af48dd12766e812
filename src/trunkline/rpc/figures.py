"""What is counted of a method: its calls, its failures, and how long they took."""

from collections import Counter
from typing import Any

__all__ = ["MethodFigures"]

_BUCKETS = 46
_SHIFT = 10  # the first bucket ends at 2^10 ns


class MethodFigures:
    """The figures of one method. Reactor's thread.

    Times are counted in buckets that double, from 1,024 ns on: one shift and one addition for each call. A time that
    is read from them is at most twice the true one.

    Attributes:
        errors: calls that failed, by code.
    """

    __slots__ = ("_buckets", "errors")

    def __init__(self) -> None:
        self._buckets = [0] * _BUCKETS
        self.errors: Counter[str] = Counter()

    def add(self, nanoseconds: int) -> None:
        """One call has ended.

        Args:
            nanoseconds: how long it took.
        """
        bucket = (nanoseconds >> _SHIFT).bit_length()
        self._buckets[bucket if bucket < _BUCKETS else -1] += 1

    @property
    def calls(self) -> int:
        """Calls that have ended, however they did."""
        return sum(self._buckets)

    def quantile(self, part: float) -> float:
        """A time in seconds that this part of the calls did not pass; 0 if there were none.

        Args:
            part: from 0 to 1.
        """
        rest = part * self.calls
        for bucket, count in enumerate(self._buckets):
            rest -= count
            if count and rest <= 0:
                return (1 << bucket + _SHIFT) / 1e9
        return 0.0

    def snapshot(self) -> dict[str, Any]:
        """All of it: ``calls``, ``errors`` by code, ``p50``, ``p99`` and the ``longest`` in seconds, and ``buckets``.

        ``buckets`` are pairs of an upper bound in seconds and the calls up to it that are over the bound before.
        """
        return {
            "calls": self.calls,
            "errors": dict(self.errors),
            "p50": self.quantile(0.5),
            "p99": self.quantile(0.99),
            "longest": self.quantile(1.0),
            "buckets": [((1 << index + _SHIFT) / 1e9, count) for index, count in enumerate(self._buckets) if count],
        }
