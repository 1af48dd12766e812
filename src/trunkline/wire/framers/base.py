"""The port of all framers."""

from typing import Protocol

from trunkline.errors import ProtocolError

__all__ = ["Framer"]


class Framer(Protocol):
    """Cuts what arrives on one connection into messages, and frames what is sent.

    One framer serves one connection, in its reactor's thread. However the stream is split into calls of
    `receive`, the messages and the error are the same; `trunkline.testing.check_framer` proves it.
    """

    error: ProtocolError | None
    """What the peer did wrong. It is set after the last good message; from then on `receive` returns nothing."""

    def receive(self, data: bytes) -> list[bytes]:
        """Takes the next bytes of the stream and returns the messages that they complete, in order.

        Holds at most one unfinished message, and never more of it than the framer's limit.
        """

    def encode(self, message: bytes) -> bytes:
        """The bytes to send for one message.

        Raises:
            UsageError: the message can't be framed: too long, or it holds what ends a frame.
        """
