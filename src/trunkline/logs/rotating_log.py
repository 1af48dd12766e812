"""A log handler whose file is written, and rotated, by a thread of its own: whoever logs never waits for the disk."""

import logging
import os
import queue
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from trunkline.logs.rotating_file import RotatingFile

__all__ = ["RotatingLogHandler"]

_LINE_COST = 64  # bytes that a line costs in memory beside its own
_BATCH_INTERVAL = 0.05  # seconds in which lines gather before they are written
_RETRY_INTERVAL = 1.0  # seconds between two tries where the disk refuses
_REPORT_INTERVAL = 10.0  # seconds between two reports of that


class RotatingLogHandler(logging.Handler):
    """Writes lines to a file which rotates: ``node.log`` becomes ``node.log.1``, that ``node.log.2``, and so on.

    A line is formatted in the thread that logs, for what it shows may change right after; and a writer that formats
    would take the interpreter from the reactor for just as long, at moments of its own choice. A daemon thread writes
    the lines that have gathered.

    Over the bound lines are dropped, the newest ones, and a line says how many as soon as there is room. While the
    disk refuses (it is full, or the folder is closed or gone) lines wait, within the bound; standard error is told
    every 10 s, and it goes on by itself when the disk takes them again.

    `logging.shutdown`, which Python calls at its end, writes what waits; what was logged in the last 0.05 s before a
    kill may be lost. After a fork the child writes its own lines, and of processes with one file only one should
    rotate it.

    Args:
        path: the file. It is made if it is not there, for its owner to write and its group to read; its folder is not.
        max_bytes: the size over which it is rotated.
        backups: how many rotated files are kept.
        interval: seconds; it is also rotated at each multiple of it since 1970-01-01 UTC: 86,400 means at midnight.
            None for never.
        waiting_limit_bytes: the memory that lines may take until they are written.
        clock: returns the time in seconds since 1970-01-01 UTC; a test can pass its own.

    Attributes:
        dropped: lines that were dropped so far.

    Raises:
        SettingsError: the file can't be opened, or a number is out of range.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_bytes: int = 10_485_760,
        backups: int = 5,
        interval: float | None = None,
        waiting_limit_bytes: int = 4_194_304,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.dropped = 0
        self._file = RotatingFile(Path(path), max_bytes, backups, interval, clock)
        self._limit = waiting_limit_bytes
        self._closed = False
        self._begin()
        super().__init__()
        _handlers.add(self)

    def _begin(self) -> None:
        """Nothing waits, and there is no thread: at first, and again in a child after a fork."""
        # The lock can be taken twice, because a destructor that logs may run in the middle of `emit`.
        self._lock = threading.RLock()
        self._progress = threading.Condition(self._lock)
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._lines: list[bytes] = []
        self._batch: deque[bytes] = deque()  # the writer's
        self._waiting_bytes = 0  # of both
        self._accepted = self._finished = self._unsaid = 0
        self._full = self._closed
        self._rung = False
        self._reported_at = float("-inf")
        self._writer: threading.Thread | None = None

    # What whoever logs calls.

    def emit(self, record: logging.LogRecord) -> None:
        """Formats the line and leaves it to the writer. Never waits and never raises. Any thread."""
        if self._full:
            self._drop()
            return
        try:
            line = self._line(record)
        except Exception:
            self.handleError(record)
            return
        cost = len(line) + _LINE_COST
        with self._lock:
            if self._full or self._waiting_bytes + cost > self._limit:
                self._drop()
                return
            self._add(line, cost)

    def flush(self, timeout: float = 5.0) -> None:
        """Waits until all that was logged before is written, but no longer than `timeout` seconds.

        Any thread but the reactor's, which it would hold up.
        """
        with self._progress:
            until = self._accepted
            if self._finished < until:
                self._bell.put(None)
                self._progress.wait_for(lambda: self._finished >= until, timeout)

    def close(self, timeout: float = 5.0) -> None:
        """Writes what waits, for no longer than `timeout` seconds, and closes the file. What is left is dropped.

        Closing twice does nothing. Any thread but the reactor's, which it would hold up.
        """
        with self._lock:
            closed, self._closed, self._full = self._closed, True, True
        if closed:
            return
        writer = self._writer
        if writer is not None and writer.is_alive():
            self._bell.put(None)
            writer.join(timeout)
        else:
            self._end()
        with self._lock:
            left = self._accepted - self._finished
            self.dropped += left
        if left:
            self._say(f"{left:,} lines could not be written")
        super().close()

    def _line(self, record: logging.LogRecord) -> bytes:
        return (self.format(record) + "\n").encode("utf-8", "backslashreplace")

    def _add(self, line: bytes, cost: int) -> None:
        self._accepted += 1
        self._waiting_bytes += cost
        self._lines.append(line)
        if not self._rung:
            self._ring()

    def _drop(self) -> None:
        with self._lock:
            self._full = True
            self.dropped += 1
            if not self._closed:
                self._unsaid += 1
                if not self._rung:
                    self._ring()

    def _ring(self) -> None:
        """Tells the writer that there is something, once for each batch."""
        self._rung = True
        if not self._closed and (self._writer is None or not self._writer.is_alive()):
            writer = threading.Thread(target=self._write_until_closed, name="trunkline-log", daemon=True)
            try:
                writer.start()
            except RuntimeError:  # no more threads, or the interpreter ends: `close` writes then
                self._rung = False
                return
            self._writer = writer
        self._bell.put(None)

    # What the writer does.

    def _write_until_closed(self) -> None:
        while True:
            if not self._batch:
                self._bell.get()
            if not self._closed:
                self._pause(_BATCH_INTERVAL)
            if self._closed:
                self._end()
                return
            if not self._write():
                self._pause(_RETRY_INTERVAL)

    def _end(self) -> None:
        while self._write() and self._lines:
            pass
        self._file.close()

    def _pause(self, seconds: float) -> None:
        """Waits, unless somebody waits for the writer."""
        with suppress(queue.Empty):
            self._bell.get(timeout=seconds)

    def _write(self) -> bool:
        """Writes what waits; returns whether the disk has taken it."""
        if not self._batch:
            self._take()
        try:
            while self._batch:
                lines, size = self._file.write(self._batch)
                with self._progress:
                    self._finished += lines
                    self._waiting_bytes -= size + lines * _LINE_COST
                    self._full = self._closed
                    self._count_dropped()
                    self._progress.notify_all()
        except OSError as error:
            self._report(error)
            return False
        return True

    def _take(self) -> None:
        with self._lock:
            if not self._lines:  # else their count comes after these, when there is room
                self._count_dropped()
            lines, self._lines = self._lines, []
            self._rung = False
        self._batch.extend(lines)

    def _count_dropped(self) -> None:
        """Adds a line that says how many were dropped, in their place: after what was kept, before what comes."""
        count, self._unsaid = self._unsaid, 0
        if not count:
            return
        record = logging.LogRecord(__name__, logging.WARNING, __file__, 0, f"{count:,} lines dropped", None, None)
        record.facts = {"lines": count}
        try:
            line = self._line(record)
        except Exception:  # a formatter that wants more than a record has
            line = f"{record.msg}\n".encode()
        self._add(line, len(line) + _LINE_COST)

    def _report(self, error: OSError) -> None:
        now = time.monotonic()
        if now - self._reported_at >= _REPORT_INTERVAL:
            self._reported_at = now
            self._say(f"{error.strerror}; lines wait, and are dropped if it lasts")

    def _say(self, text: str) -> None:
        with suppress(AttributeError, OSError, ValueError):  # there may be no standard error, or a closed one
            sys.stderr.write(f"trunkline: the log file {self._file.path}: {text}\n")
            sys.stderr.flush()


_handlers: "weakref.WeakSet[RotatingLogHandler]" = weakref.WeakSet()


def _begin_anew() -> None:
    for handler in list(_handlers):
        handler._begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
