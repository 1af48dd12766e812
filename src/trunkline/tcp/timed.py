"""The deadlines of a connection: what has to be done, or is over, as time passes."""

import abc
import asyncio
from typing import cast

from trunkline.errors import PeerTimeout
from trunkline.tcp.blueprint import Blueprint
from trunkline.tcp.deadlines import NEVER
from trunkline.tcp.inbound import CLOSED, Inbound
from trunkline.wire import Framer, Session

__all__ = ["Timed"]


class Timed(Inbound):
    """A connection that is looked at some times each second."""

    __slots__ = (
        "_beat_at", "_closing_at", "_deadlines", "_due", "_established", "_frame_at", "_frame_count", "_heard_at",
        "_heard_bytes", "_said_at", "_said_bytes", "_started_at", "_taken_bytes", "_unread_at",
    )  # fmt: skip

    def __init__(self, blueprint: Blueprint, framer: Framer) -> None:
        super().__init__(blueprint, framer)
        self._deadlines = blueprint.deadlines(framer if isinstance(framer, Session) else None)
        self._established = self._deadlines.handshake == NEVER
        now = blueprint.reactor.now()
        self._started_at = self._heard_at = self._said_at = self._beat_at = now
        self._heard_bytes = self._said_bytes = self._taken_bytes = 0
        self._unread_at: float | None = None
        self._closing_at: float | None = None
        self._frame_at = NEVER  # when the frame that is not whole yet was first seen
        self._frame_count = 0  # how many messages had come then
        self._due = 0.0  # before which no deadline can have passed

    @abc.abstractmethod
    def _beat(self) -> None:
        """A heartbeat is due."""

    @abc.abstractmethod
    def _timed_out(self, error: PeerTimeout) -> None:
        """A deadline has passed."""

    def check(self, now: float) -> None:
        """Ends the connection if one of its deadlines has passed. Called by its owner, some times each second.

        Args:
            now: the reactor's time in seconds.
        """
        # What has come since the last look is counted as come just now: so data costs no look at the clock.
        deaf = self._reading_paused and self._is_deaf()
        if self.received_bytes != self._heard_bytes or deaf:
            self._heard_bytes = self.received_bytes
            self._heard_at = now
            self._look_at_frame(now, deaf)
        if self.sent_bytes != self._said_bytes:
            self._said_bytes = self.sent_bytes
            self._said_at = now
        if self._backlog:
            self._check_unread(now)
        elif self._unread_at is not None:
            self._unread_at = None
        if (now >= self._due or deaf) and self._transport is not None:
            self._judge(now, deaf)

    def _look_at_frame(self, now: float, deaf: bool) -> None:
        """Bytes have come, or could not."""
        if not self.framer.unfinished:
            self._frame_at = NEVER
        elif deaf or self._frame_at == NEVER or self.received != self._frame_count:  # it has only now begun
            self._frame_at, self._frame_count = now, self.received
            self._due = min(self._due, now + self._deadlines.frame)

    def _judge(self, now: float, deaf: bool) -> None:
        verdict, self._due = self._deadlines.judge(
            now,
            started_at=self._started_at,
            heard_at=self._heard_at,
            said_at=self._said_at,
            beat_at=self._beat_at,
            established=self._established,
            closing_at=self._closing_at,
            frame_at=self._frame_at,
            deaf=deaf,
            half_closed=not self._holds & CLOSED,
        )
        if verdict == "beat":
            self._beat_at = now
            self._beat()
        elif self._closing_at is not None and verdict is not None:
            self.abort()
        elif verdict is not None:
            self._timed_out(PeerTimeout(verdict, self._deadlines.text(verdict)))

    def began(self, moment: float) -> None:
        """Its time began before it was made, with a proxy's header or a TLS handshake. Called by its owner.

        Args:
            moment: the reactor's time in seconds at which it was accepted.
        """
        self._started_at = moment

    def forgive(self, now: float, lost: float) -> None:
        """The reactor was held up: what the peer did meanwhile has not been seen, so the time does not count.

        Args:
            now: the reactor's time in seconds.
            lost: the seconds since the last look.
        """
        self._heard_at = min(now, self._heard_at + lost)
        self._said_at = min(now, self._said_at + lost)
        if self._frame_at != NEVER:
            self._frame_at = min(now, self._frame_at + lost)
        if not self._established:
            self._started_at = min(now, self._started_at + lost)
        if self._closing_at is not None:
            self._closing_at = min(now, self._closing_at + lost)
        if self._unread_at is not None:
            self._unread_at = min(now, self._unread_at + lost)

    def _check_unread(self, now: float) -> None:
        taken = self.sent_bytes - cast(asyncio.Transport, self._transport).get_write_buffer_size()
        if self._unread_at is None or taken != self._taken_bytes:
            self._taken_bytes, self._unread_at = taken, now
        elif now - self._unread_at > self._blueprint.options.unread_timeout:
            self._over_budget()
