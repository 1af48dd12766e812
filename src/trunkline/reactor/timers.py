"""Timers: callbacks at a moment, or again and again."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trunkline.reactor.reactor import Reactor

__all__ = ["Timer"]


class Timer:
    """A callback that comes at a moment, and where it has an interval again and again, until `cancel`.

    Made by `Reactor.call_at`, `Reactor.call_later` and `Reactor.every`.
    """

    __slots__ = ("_callback", "_handle", "_interval", "_next_at", "_reactor", "cancelled")

    def __init__(
        self, reactor: "Reactor", next_at: float, callback: Callable[[], object], interval: float | None
    ) -> None:
        self.cancelled = False
        self._reactor = reactor
        self._next_at = next_at
        self._callback = callback
        self._interval = interval
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Sets it. The reactor's own; reactor's thread."""
        if not self.cancelled:
            self._handle = self._reactor.loop.call_at(self._next_at, self._fire)

    def _fire(self) -> None:
        if self.cancelled:
            return
        if self._interval is not None:
            # From the moment that was due, not from now: the period does not drift. Periods that were missed
            # altogether (a stopped process, a blocked loop) are left out, not made up for in a burst.
            missed = max(0, int((self._reactor.now() - self._next_at) / self._interval))
            self._next_at += self._interval * (missed + 1)
            self._handle = self._reactor.loop.call_at(self._next_at, self._fire)
        else:
            self.cancelled = True
        self._reactor.run_guarded(self._callback)

    def cancel(self) -> None:
        """No further calls. Cancelling twice does nothing. Any thread; from another one, a call may be under way."""
        if self.cancelled:
            return
        self.cancelled = True
        if self._reactor.in_thread():
            self._drop()
        else:
            self._reactor.call(self._drop)

    def _drop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
