"""A watch over the loop: says which line holds it up."""

import logging
import sys
import sysconfig
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import NamedTuple

from trunkline.logs import event
from trunkline.reactor.reactor import Reactor
from trunkline.reactor.timers import Timer

__all__ = ["Block", "LagWatch"]

_log = logging.getLogger(__name__)
_STANDARD_LIBRARY = tuple({sysconfig.get_paths()["stdlib"], sysconfig.get_paths()["platstdlib"]})
_INSTALLED = ("site-packages", "dist-packages")


class Block(NamedTuple):
    """The loop stood still.

    Attributes:
        seconds: for how long so far.
        where: ``file:line in function``: the innermost line that is not the standard library's own.
    """

    seconds: float
    where: str


class LagWatch:
    """Notices, from a thread of its own, when a reactor's loop stands still, and where.

    A callback that computes, or calls what blocks, holds up every connection of its reactor. While that lasts, the
    loop can say nothing; so another thread looks at its stack (the way of `sys._current_frames`). A block by code that
    keeps the interpreter's lock is seen when it lets go, before the loop goes on.

    Args:
        reactor: the reactor to watch.
        threshold: seconds after which the loop counts as blocked.
        on_blocked: called in the watch's own thread, once per block, when it is noticed.
        clock: monotonic seconds; a test can pass its own.
        process_clock: seconds for which the process has had a processor, like `time.process_time`.
    """

    def __init__(
        self,
        reactor: Reactor,
        threshold: float = 0.25,
        on_blocked: Callable[[Block], object] = lambda _block: None,
        clock: Callable[[], float] = time.monotonic,
        process_clock: Callable[[], float] = time.process_time,
    ) -> None:
        self.longest = 0.0
        """The longest block so far, in seconds."""
        self.blocks = 0
        """How many blocks there were."""
        self._reactor = reactor
        self._threshold = threshold
        self._on_blocked = on_blocked
        self._clock = clock
        self._beat_at = clock()
        self._process_clock = process_clock
        self._looked_at = self._beat_at
        self._used = process_clock()
        self._noticed = False
        self._timer: Timer | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trunkline-lag-watch", daemon=True)

    def start(self) -> None:
        """Begins to watch. Any thread."""
        self._beat()
        self._looked_at, self._used = self._beat_at, self._process_clock()
        self._timer = self._reactor.every(self._threshold / 4, self._beat)
        self._thread.start()

    def stop(self) -> None:
        """Ends the watch. Any thread."""
        if self._timer is not None:
            self._timer.cancel()
        self._ended.set()

    def _beat(self) -> None:
        self._beat_at = self._clock()

    def _run(self) -> None:
        while not self._ended.wait(self._threshold / 4):
            self.look()

    def look(self) -> None:
        """Looks once. The watch's own thread does it again and again."""
        now = self._clock()
        used = self._process_clock()
        passed, worked = now - self._looked_at, used - self._used
        self._looked_at, self._used = now, used
        # Was this thread held up itself? If the process worked meanwhile, it was by code that keeps the interpreter's
        # lock (a regular expression, say), and the loop still stands at its line. If not, the process stood still as a
        # whole, as in a suspended machine, which says nothing about the loop.
        if passed > self._threshold and worked < self._threshold / 2:
            return
        late = now - self._beat_at
        if late < self._threshold:
            self._noticed = False
            return
        self.longest = max(self.longest, late)
        if self._noticed:
            return
        self._noticed = True
        self.blocks += 1
        block = Block(late, _where(sys._current_frames().get(self._reactor.thread_id)))
        event(_log, logging.WARNING, "reactor blocked", seconds=f"{block.seconds:.3f}", at=block.where)
        self._on_blocked(block)


def _where(frame: FrameType | None) -> str:
    """The innermost line that somebody wrote who can mend it; else the innermost of all."""
    innermost = frame
    while frame is not None:
        file = frame.f_code.co_filename
        installed = any(folder in file for folder in _INSTALLED)  # which lie inside the standard library's folder
        if not file.startswith("<") and (installed or not file.startswith(_STANDARD_LIBRARY)):
            break
        frame = frame.f_back
    found = frame or innermost
    if found is None:
        return "the thread has ended"
    return f"{found.f_code.co_filename}:{found.f_lineno} in {found.f_code.co_qualname}"
