r"""Lines that end in ``\n`` or ``\r\n``."""

from trunkline.errors import FrameTooLarge, ProtocolError, UsageError

__all__ = ["LineFramer"]


class LineFramer:
    r"""Cuts lines; a message is a line without its ``\n`` or ``\r\n``.

    Args:
        limit_bytes: the longest message. A longer line is an error as soon as it is seen to be longer,
            before its end has come.
        ending: what `encode` ends a line with.
    """

    __slots__ = ("_ending", "_rest", "error", "limit_bytes")

    def __init__(self, limit_bytes: int = 1024, ending: bytes = b"\n") -> None:
        self.limit_bytes = limit_bytes
        self.error: ProtocolError | None = None
        self._ending = ending
        self._rest = bytearray()

    def receive(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes. See `Framer.receive`."""
        if self.error is not None:
            return []
        rest = self._rest
        if b"\n" not in data:
            # Looking only at what is new keeps a peer that sends byte by byte linear in what it sends.
            rest += data
            self._check_rest()
            return []
        if rest:
            data = bytes(rest) + data
        *lines, last = data.split(b"\n")
        self._rest = bytearray(last)
        if b"\r" in data:
            lines = [line[:-1] if line.endswith(b"\r") else line for line in lines]
        if len(max(lines, key=len)) > self.limit_bytes:
            good = next(index for index, line in enumerate(lines) if len(line) > self.limit_bytes)
            self._fail()
            return lines[:good]
        self._check_rest()
        return lines

    def _check_rest(self) -> None:
        # One byte more may be the \r of an ending whose \n has not come yet.
        over = len(self._rest) - self.limit_bytes
        if over > 1 or (over == 1 and self._rest[-1] != 0x0D):
            self._fail()

    def _fail(self) -> None:
        self._rest = bytearray()
        self.error = FrameTooLarge(f"a line is longer than {self.limit_bytes} bytes")

    def encode(self, message: bytes) -> bytes:
        r"""The message and its ending.

        Raises:
            UsageError: the message is over the limit, or holds a ``\n`` or ends in ``\r``, and would not
                come out as the same one line.
        """
        if len(message) > self.limit_bytes:
            raise UsageError(f"the line has {len(message)} bytes; the limit is {self.limit_bytes}")
        if b"\n" in message or message.endswith(b"\r"):
            raise UsageError("a line can't hold a line end; send several lines, or escape it")
        return message + self._ending
