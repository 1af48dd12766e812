"""What all framers have in common."""

import abc

from trunkline.errors import ProtocolError, UsageError

__all__ = ["Framer", "PrefixFramer", "checked_limit"]


class Framer(abc.ABC):
    """Cuts what arrives on one connection into messages, and frames what is sent.

    A framer of your own is a class with `receive` and `encode`. One object serves one connection, in its
    reactor's thread. However the stream is split into calls of `receive`, the messages and the error are the same;
    `trunkline.testing.check_framer` proves it.
    """

    __slots__ = ("error",)

    error: ProtocolError | None
    """What the peer did wrong. It is set after the last good message; from then on `receive` returns nothing."""

    def __init__(self) -> None:
        self.error = None

    @property
    def unfinished(self) -> bool:
        """Whether the beginning of a message has come whose end has not: a stream that ends here is cut short.

        A framer of your own says so, and its connections have the frame timeout. Without it, nothing is ever cut short.
        """
        return False

    @abc.abstractmethod
    def receive(self, data: bytes) -> list[bytes]:
        """Takes the next bytes of the stream and returns the messages that they complete, in order.

        Holds at most one unfinished message, and never more of it than the framer's limit.
        """

    @abc.abstractmethod
    def encode(self, message: bytes) -> bytes:
        """The bytes to send for one message.

        Raises:
            UsageError: the message can't be framed: too long, or it holds what ends a frame.
        """

    def check(self, message: bytes) -> None:  # noqa: B027  to be left as it is by who can't say
        """Says beforehand what `encode` would, where that can be told of the message alone. Any thread.

        Messages that have to wait are framed when nobody could be told any more. Without it, such a message ends its
        connection then.

        Raises:
            UsageError: the message can't be framed.
        """

    def encode_all(self, messages: list[bytes]) -> bytes:
        """The bytes to send for several messages: what `encode` gives for each, joined.

        A framer whose frames depend on those before has one of its own, which looks at all messages before it frames
        any: if one is bad, the good ones before it are framed again, one by one.

        Raises:
            UsageError: one of them can't be framed; none of them is to be sent then.
        """
        return b"".join([self.encode(message) for message in messages])


class PrefixFramer(Framer):
    """A framer whose frames say in front how long they are. It keeps the frame that is not whole yet."""

    __slots__ = ("_need", "_rest", "limit_bytes")

    limit_bytes: int

    def __init__(self) -> None:
        super().__init__()
        self._rest = bytearray()
        self._need = 1

    @property
    def unfinished(self) -> bool:
        """Whether a part of a frame is held. See `Framer.unfinished`."""
        return bool(self._rest)

    def receive(self, data: bytes) -> list[bytes]:
        """The messages that `data` completes. See `Framer.receive`."""
        rest = self._rest
        if self.error is not None:
            return []
        if rest:
            rest += data
            if len(rest) < self._need:  # a long frame that comes in pieces is looked at again only when it is whole
                return []
            data = bytes(rest)
            rest.clear()
        return self._cut(data)

    @abc.abstractmethod
    def _cut(self, data: bytes) -> list[bytes]:
        """The messages in `data`, which begins with a frame. What is left is put into `_rest`, its size into `_need`.

        `_need` is the least size that `_rest` must have before anything more can be said about it.
        """


def checked_limit(limit_bytes: int) -> int:
    """The limit of a framer, as it was given.

    Raises:
        UsageError: nothing could be received under it.
    """
    if limit_bytes < 1:
        raise UsageError(f"limit_bytes = {limit_bytes}: it must be 1 or more")
    return limit_bytes
