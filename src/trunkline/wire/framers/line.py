r"""Lines that end in ``\n`` or ``\r\n``."""

from trunkline.errors import FrameTooLarge, UsageError
from trunkline.wire.framers.base import Framer, checked_limit

__all__ = ["LineFramer"]


class LineFramer(Framer):
    r"""Cuts lines; a message is a line without its ``\n`` or ``\r\n``.

    Args:
        limit_bytes: the longest message. A longer line is an error as soon as it is seen to be longer,
            before its end has come.
        ending: what `encode` ends a line with: ``\n`` or ``\r\n``.

    Raises:
        UsageError: another ending, which nobody would take for one.
    """

    __slots__ = ("_ending", "_rest", "limit_bytes")

    def __init__(self, limit_bytes: int = 65_536, ending: bytes = b"\n") -> None:
        self.limit_bytes = checked_limit(limit_bytes)
        super().__init__()
        if ending not in (b"\n", b"\r\n"):
            raise UsageError(f"ending = {ending!r}: it must be \\n or \\r\\n")
        self._ending = ending
        self._rest = bytearray()

    @property
    def unfinished(self) -> bool:
        """Whether a part of a line is held. See `Framer.unfinished`."""
        return bool(self._rest)

    def receive(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes. See `Framer.receive`."""
        rest = self._rest
        if self.error is not None:
            return []
        at = data.find(b"\n")
        # One whole line by itself is what comes from a peer that waits for each answer: by the shortest way.
        if not rest and at == len(data) - 1 <= self.limit_bytes and at >= 0 and data[-2:-1] != b"\r":
            return [data[:at]]
        if at < 0:
            # Looking only at what is new keeps a peer that sends byte by byte linear in what it sends.
            rest += data
            self._check_rest()
            return []
        if rest:
            data = bytes(rest) + data
            rest.clear()
        lines = data.split(b"\n")
        if last := lines.pop():
            rest += last
            self._check_rest()
        if b"\r" in data:
            lines = [line[:-1] if line.endswith(b"\r") else line for line in lines]
        if len(data) > self.limit_bytes and len(max(lines, key=len)) > self.limit_bytes:
            good = next(index for index, line in enumerate(lines) if len(line) > self.limit_bytes)
            self._fail()
            return lines[:good]
        return lines

    def _check_rest(self) -> None:
        # One byte more may be the \r of an ending whose \n has not come yet.
        over = len(self._rest) - self.limit_bytes
        if over > 1 or (over == 1 and self._rest[-1] != 0x0D):
            self._fail()

    def _fail(self) -> None:
        self._rest.clear()
        self.error = FrameTooLarge(f"a line is longer than {self.limit_bytes} bytes")

    def check(self, message: bytes) -> None:
        """Whether a line can hold it. See `Framer.check`."""
        if len(message) > self.limit_bytes:
            raise UsageError(f"the line has {len(message)} bytes; the limit is {self.limit_bytes}")
        if b"\n" in message or message[-1:] == b"\r":
            raise UsageError("a line can't hold a line end; send several lines, or escape it")

    def encode(self, message: bytes) -> bytes:
        r"""The message and its ending.

        Raises:
            UsageError: the message is over the limit, or holds a ``\n`` or ends in ``\r``, and would not
                come out as the same one line.
        """
        self.check(message)
        return message + self._ending

    def encode_all(self, messages: list[bytes]) -> bytes:
        """The messages, each with its ending. See `Framer.encode_all`."""
        data = self._ending.join([*messages, b""])
        # Whether all is well is known from the whole, in two passes over memory; only if not, from each.
        ends = len(messages)
        if (
            data.count(b"\n") != ends
            or data.count(b"\r") != ends * self._ending.count(b"\r")
            or len(data) > self.limit_bytes
        ):
            return b"".join([self.encode(message) for message in messages])
        return data
