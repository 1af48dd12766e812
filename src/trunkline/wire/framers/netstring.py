"""Netstrings: ``5:hello,``."""

from trunkline.errors import BadFrame, FrameTooLarge, UsageError
from trunkline.wire.framers.base import PrefixFramer, checked_limit

__all__ = ["NetstringFramer"]


class NetstringFramer(PrefixFramer):
    """Cuts netstrings: a decimal length, a colon, the message, a comma.

    Source: D. J. Bernstein, "Netstrings" (https://cr.yp.to/proto/netstrings.txt).

    Args:
        limit_bytes: the longest message. A length with more digits than the limit has is an error at once.
    """

    __slots__ = ("_digits",)

    def __init__(self, limit_bytes: int = 1_048_576) -> None:
        self.limit_bytes = checked_limit(limit_bytes)
        super().__init__()
        self._digits = len(str(limit_bytes))

    def _cut(self, data: bytes) -> list[bytes]:
        messages: list[bytes] = []
        at, size = 0, len(data)
        need = 1
        while at < size:
            colon = data.find(b":", at, at + self._digits + 1)
            digits = data[at : colon if colon >= 0 else at + self._digits + 1]
            if not self._is_length(digits, complete=colon >= 0):
                return messages
            if colon < 0:
                need = size - at + 1
                break
            end = colon + 1 + int(digits)
            if end + 1 > size:
                need = end + 1 - at
                break
            if data[end] != 0x2C:
                self.error = BadFrame("a netstring does not end in a comma where its length says")
                return messages
            messages.append(data[colon + 1 : end])
            at = end + 1
        if at < size:
            self._rest += data[at:]
            self._need = need
        return messages

    def _is_length(self, digits: bytes, *, complete: bool) -> bool:
        """Whether these are the digits of a length, or can become some; if not, the error is set."""
        # In this order what is wrong with the first bytes has the same name however many more have come.
        if complete and not digits:
            self.error = BadFrame("a netstring has no length")
        elif len(digits) > 1 and digits.startswith(b"0"):
            self.error = BadFrame("a netstring's length begins with 0")
        elif not digits.isdigit():
            self.error = BadFrame("a netstring begins with something else than a length and a colon")
        elif len(digits) > self._digits or (complete and int(digits) > self.limit_bytes):
            self.error = FrameTooLarge(f"a netstring is longer than {self.limit_bytes} bytes")
        return self.error is None

    def check(self, message: bytes) -> None:
        """Whether `encode` takes it. See `Framer.check`."""
        self.encode(message)

    def encode(self, message: bytes) -> bytes:
        """The message as a netstring.

        Raises:
            UsageError: it is over the limit.
        """
        if len(message) > self.limit_bytes:
            raise UsageError(f"the message has {len(message)} bytes; the limit is {self.limit_bytes}")
        return b"%d:%b," % (len(message), message)
