"""Identifiers that sort by the time at which they were made.

The format is ULID (https://github.com/ulid/spec): 48 bits of milliseconds and 80 random bits, as 26
characters of Crockford's base 32. Within one `IdMaker` they strictly rise, even inside one millisecond and
even when the clock is set back.
"""

import secrets
import threading
from collections.abc import Callable

from trunkline.clock import Clock, SystemClock

__all__ = ["IdMaker"]

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [high + low for high in _ALPHABET for low in _ALPHABET]


class IdMaker:
    """Makes identifiers. Any thread.

    Args:
        clock: gives the milliseconds.
        random_bits: returns that many random bits as a number; a test can pass a seeded one.
    """

    def __init__(self, clock: Clock | None = None, random_bits: Callable[[int], int] = secrets.randbits) -> None:
        self._clock = clock or SystemClock()
        self._random_bits = random_bits
        self._last = 0
        self._lock = threading.Lock()

    def __call__(self) -> str:
        """A new identifier: 26 characters, greater than every one that this maker has made before."""
        fresh = int(self._clock.time() * 1000) << 80 | self._random_bits(80)
        with self._lock:
            # A step of up to 2^64 keeps later ids of the same millisecond hard to guess, and still rising.
            value = fresh if fresh > self._last else self._last + 1 + self._random_bits(64)
            self._last = value
        return _encode(value)


def _encode(value: int) -> str:
    # Ten bits at a time: half as many steps as one character at a time.
    return "".join([_PAIRS[value >> shift & 1023] for shift in range(120, -1, -10)])
