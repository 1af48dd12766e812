"""What all sessions have in common: framers that also speak for themselves."""

import abc

from trunkline.wire.framers import Framer

__all__ = ["UNPACKED_BYTES", "Session"]

UNPACKED_BYTES = 1_048_576
"""What one call of `receive` decompresses, before it says that it has more: so much, and one message."""


class Session(Framer):
    """A framer with a life of its own: it says hello, beats, and says why it ends.

    What it wants to say is in `output`, which the connection takes and clears. The connection calls `start` once, feeds
    `receive`, and calls `ping` by the heartbeat's interval. Whatever is in `output` is written before anything that
    `encode` returns later, so a stream that is compressed as a whole stays in order. Time never comes in here.

    Attributes:
        has_more: whether what was received holds more messages, which the next call of `receive` gives, with no new
            bytes if need be. So it is handled piece by piece where few bytes are decompressed to many.
        output: bytes that are to be sent, in order, before any message that is encoded from now on.
        established: whether the peer has said who it is. Messages may be encoded only then.
        peer_reason: why the peer says that it closes; None while it has not said so.
        always_beats: whether `ping` is to be called at each interval; else only when nothing was heard for so long.
        heartbeat_interval: seconds between two calls of `ping`, where the options do not say otherwise.
        judges_silence: whether a peer that is silent for too many intervals is to be taken for dead.
    """

    __slots__ = ("established", "has_more", "output", "peer_reason")

    always_beats: bool = False
    heartbeat_interval: float = 30.0
    judges_silence: bool = True

    def __init__(self) -> None:
        super().__init__()
        self.output = bytearray()
        self.established = False
        self.has_more = False
        self.peer_reason: str | None = None

    @abc.abstractmethod
    def start(self) -> None:
        """The connection is up: puts what is said first into `output`."""

    @abc.abstractmethod
    def ping(self) -> None:
        """Puts a sign of life, or the question for one, into `output`."""

    @abc.abstractmethod
    def close(self, reason: str) -> None:
        """Puts a farewell into `output`, where the protocol has one.

        Args:
            reason: why, in one word or a short text.
        """
