"""One event loop in one thread, its timers, and a watch over how long it is held up."""

from trunkline.reactor.lag import Block, LagWatch
from trunkline.reactor.pollers import POLLERS, new_event_loop
from trunkline.reactor.reactor import Reactor
from trunkline.reactor.signals import run_until_signal
from trunkline.reactor.thread import ReactorThread
from trunkline.reactor.timers import Timer

__all__ = ["POLLERS", "Block", "LagWatch", "Reactor", "ReactorThread", "Timer", "new_event_loop", "run_until_signal"]
