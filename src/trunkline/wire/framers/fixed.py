"""Messages that all have one size, and bytes that have no messages."""

from trunkline.errors import UsageError
from trunkline.wire.framers.base import Framer, checked_limit

__all__ = ["FixedFramer", "RawFramer"]


class FixedFramer(Framer):
    """Cuts messages of one size.

    Args:
        size: bytes of each message; 1 or more.
    """

    __slots__ = ("_rest", "size")

    def __init__(self, size: int) -> None:
        if size < 1:
            raise UsageError(f"size = {size}: it must be 1 or more")
        self.size = size
        super().__init__()
        self._rest = bytearray()

    @property
    def unfinished(self) -> bool:
        """Whether a part of a message is held. See `Framer.unfinished`."""
        return bool(self._rest)

    def receive(self, data: bytes) -> list[bytes]:
        """The messages that `data` completes. See `Framer.receive`."""
        rest, size = self._rest, self.size
        if rest or len(data) < size:
            rest += data
            if len(rest) < size:
                return []
            data = bytes(rest)
            rest.clear()
        whole = len(data) - len(data) % size
        rest += data[whole:]
        return [data[at : at + size] for at in range(0, whole, size)]

    def check(self, message: bytes) -> None:
        """Whether `encode` takes it. See `Framer.check`."""
        self.encode(message)

    def encode(self, message: bytes) -> bytes:
        """The message as it is.

        Raises:
            UsageError: it has another size.
        """
        if len(message) != self.size:
            raise UsageError(f"the message has {len(message)} bytes; it must have {self.size}")
        return message


class RawFramer(Framer):
    """No framing: a message is whatever has arrived, in pieces of at most `limit_bytes`.

    TCP keeps bytes, not pieces: how they are cut says nothing.
    """

    __slots__ = ("limit_bytes",)

    def __init__(self, limit_bytes: int = 1_048_576) -> None:
        self.limit_bytes = checked_limit(limit_bytes)
        super().__init__()

    def receive(self, data: bytes) -> list[bytes]:
        """`data`, as one message or several."""
        limit = self.limit_bytes
        if len(data) <= limit:
            return [data] if data else []
        return [data[at : at + limit] for at in range(0, len(data), limit)]

    def encode(self, message: bytes) -> bytes:
        """The message as it is."""
        return message
