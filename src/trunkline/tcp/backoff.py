"""How long to wait before connecting again."""

import random
from collections.abc import Callable

__all__ = ["FullJitter"]


class FullJitter:
    """Full-jitter exponential back-off: a random wait between 0 and a ceiling that doubles up to a cap.

    Source: M. Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015): spreading each wait
    over the whole range lets many clients that lost the same server come back with the least contention.

    Args:
        base: the first ceiling in seconds.
        cap: the highest ceiling in seconds.
        uniform: returns a float between its two arguments; a test can pass a seeded one.
    """

    def __init__(
        self, base: float = 0.5, cap: float = 30.0, uniform: Callable[[float, float], float] = random.uniform
    ) -> None:
        self.base = base
        self.cap = cap
        self._uniform = uniform
        self._failures = 0

    def next_wait(self) -> float:
        """Seconds to wait after one more failure."""
        ceiling = min(self.cap, self.base * 2.0 ** min(self._failures, 63))
        self._failures += 1
        return self._uniform(0.0, ceiling)

    def reset(self) -> None:
        """Begins anew: it worked."""
        self._failures = 0
