"""A file that lines are appended to, and that rotates."""

import itertools
import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from trunkline.errors import SettingsError

__all__ = ["RotatingFile"]

_WRITE_BYTES = 262_144  # what one write takes at the most, but for a line that is longer
_MODE = 0o640


class RotatingFile:
    """A file that lines are appended to: ``node.log`` becomes ``node.log.1``, that ``node.log.2``, and so on.

    Rotation is by renames, each of them atomic: a line is never in two files, and after a crash in between there is
    at the most a number left out, which the next rotation fills. If somebody else moves or deletes the file, as
    logrotate does, or cuts it short, the next line goes to the file of that name. One thread.

    Args:
        path: the file. It is made if it is not there; its folder is not.
        max_bytes: the size over which it is rotated; a longer line has a file to itself.
        backups: how many rotated files are kept.
        interval: seconds; it is also rotated at each multiple of it since 1970-01-01 UTC. None for never.
        clock: returns the time in seconds since 1970-01-01 UTC.

    Raises:
        SettingsError: the file can't be opened, or a number is out of range.
    """

    def __init__(
        self, path: Path, max_bytes: int, backups: int, interval: float | None, clock: Callable[[], float]
    ) -> None:
        if max_bytes < 1 or backups < 1 or (interval is not None and not interval > 0):
            raise SettingsError(
                f"max_bytes = {max_bytes}, backups = {backups}, interval = {interval}: they must be more than 0"
            )
        self.path = path.absolute()
        self._max_bytes = max_bytes
        self._backups = backups
        self._interval = interval
        self._clock = clock
        self._fd = -1
        try:
            self._open()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise SettingsError(f'the log file "{path}" can\'t be opened: {reason}') from None

    def write(self, lines: deque[bytes]) -> tuple[int, int]:
        """Writes the first of the lines, and takes what is written out of the deque. May wait for the disk.

        Args:
            lines: at least one, each with its end.

        Returns:
            How many whole lines are done with, and how many bytes were written. A line that was written in part
            stays, without that part.

        Raises:
            OSError: the disk refuses; nothing was taken out.
        """
        self._follow()
        if self._size and (self._size + len(lines[0]) > self._max_bytes or self._period() > self._opened_in):
            self._rotate()
        data = self._next(lines)
        written = os.write(self._fd, data)
        self._size += written
        return self._remove(lines, written), written

    def close(self) -> None:
        """Closes the file. Closing twice does nothing."""
        if self._fd >= 0:
            with suppress(OSError):
                os.close(self._fd)
            self._fd = -1

    def _next(self, lines: deque[bytes]) -> bytes:
        """The lines that fit into one write and into the file; always one."""
        room = min(_WRITE_BYTES, self._max_bytes - self._size)
        if sum(map(len, lines)) <= room:
            return b"".join(lines)  # as nearly always: nothing is done line by line, which would hold up the rest
        sizes = itertools.accumulate(map(len, lines))
        fitting = sum(1 for _ in itertools.takewhile(room.__ge__, sizes))
        return b"".join(itertools.islice(lines, max(1, fitting)))

    @staticmethod
    def _remove(lines: deque[bytes], written: int) -> int:
        """Takes out so many bytes; returns how many lines are done with."""
        if written == sum(map(len, lines)):
            done = len(lines)
            lines.clear()
            return done
        done = 0
        while written >= len(lines[0]):
            written -= len(lines.popleft())
            done += 1
        lines[0] = lines[0][written:]
        return done

    def _open(self) -> None:
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _MODE)
        self.close()
        self._fd = fd
        found = os.fstat(fd)
        self._identity = found.st_dev, found.st_ino
        self._size = found.st_size
        # What another run has left belongs to the period of its last line.
        self._opened_in = self._period(found.st_mtime if found.st_size else None)

    def _follow(self) -> None:
        """Goes to the file of that name, if it is another one by now."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            self._open()
            return
        if (found.st_dev, found.st_ino) == self._identity:
            self._size = found.st_size
        else:
            self._open()

    def _period(self, moment: float | None = None) -> int:
        if self._interval is None:
            return 0
        return int((self._clock() if moment is None else moment) // self._interval)

    def _rotate(self) -> None:
        # Only up to a number that is free: a rotation that fails again and again then pushes no file over the end.
        free = next((number for number in range(1, self._backups) if not self._backup(number).exists()), self._backups)
        for number in range(free - 1, 0, -1):
            self._backup(number).replace(self._backup(number + 1))
        self.path.replace(self._backup(1))
        self._open()

    def _backup(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")
