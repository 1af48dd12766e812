"""One timer for the deadlines of all calls of a server or client."""

from typing import Protocol

from trunkline.reactor import Reactor, Timer

__all__ = ["TICK", "Ticker"]

TICK = 0.01
"""Seconds by which the end of a call's time may be noticed late."""


class _Watched(Protocol):
    def expire(self, now: float) -> bool:
        """Ends the calls whose deadline has come; returns whether there are other deadlines."""


class Ticker:
    """Looks at the deadlines of those who have any, a hundred times a second; not at all if nobody has.

    Reactor's thread.
    """

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._watched: set[_Watched] = set()
        self._timer: Timer | None = None

    def watch(self, watched: _Watched) -> None:
        """Looks at this one's deadlines from now on, until it has no more, or `forget`."""
        self._watched.add(watched)
        if self._timer is None:
            self._timer = self._reactor.every(TICK, self._tick)

    def forget(self, watched: _Watched) -> None:
        """It is gone."""
        self._watched.discard(watched)

    def _tick(self) -> None:
        now = self._reactor.now()
        for watched in list(self._watched):
            if not watched.expire(now):
                self._watched.discard(watched)
        if not self._watched:
            self.stop()

    def stop(self) -> None:
        """Looks no more. Stopping twice does nothing."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
