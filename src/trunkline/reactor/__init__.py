"""One event loop in one thread, and the timers on it."""

from trunkline.reactor.reactor import Reactor, Timer

__all__ = ["Reactor", "Timer"]
