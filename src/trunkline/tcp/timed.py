"""The deadlines of a connection: what has to be done, or is over, as time passes."""

import abc
import asyncio
from typing import cast

from trunkline.errors import PeerTimeout
from trunkline.tcp.blueprint import Blueprint
from trunkline.tcp.deadlines import NEVER
from trunkline.tcp.inbound import Inbound
from trunkline.tcp.options import CloseReason
from trunkline.wire import Framer, Session

__all__ = ["Timed"]


class Timed(Inbound):
    """A connection that is looked at some times each second."""

    __slots__ = (
        "_beat_at", "_closing_at", "_deadlines", "_due", "_established", "_heard_at", "_heard_bytes", "_said_at",
        "_said_bytes", "_started_at", "_taken_bytes", "_unread_at",
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
        if self.received_bytes != self._heard_bytes or self._reading_paused:
            self._heard_bytes = self.received_bytes
            self._heard_at = now
        if self.sent_bytes != self._said_bytes:
            self._said_bytes = self.sent_bytes
            self._said_at = now
        if self._backlog:
            self._check_unread(now)
        elif self._unread_at is not None:
            self._unread_at = None
        if now >= self._due and self._transport is not None:
            self._judge(now)

    def _judge(self, now: float) -> None:
        verdict, self._due = self._deadlines.judge(
            now,
            started_at=self._started_at,
            heard_at=self._heard_at,
            said_at=self._said_at,
            beat_at=self._beat_at,
            established=self._established,
            closing_at=self._closing_at,
        )
        if verdict == "beat":
            self._beat_at = now
            self._beat()
        elif self._closing_at is not None and verdict is not None:
            self.abort()
        elif verdict is not None:
            self._timed_out(PeerTimeout(verdict, self._deadlines.text(verdict)))

    def forgive(self, now: float) -> None:
        """The reactor was held up: what the peer sent meanwhile has not been read, so its silence is not its own."""
        self._heard_at = now
        self._unread_at = None

    def _check_unread(self, now: float) -> None:
        taken = self.sent_bytes - cast(asyncio.Transport, self._transport).get_write_buffer_size()
        if self._unread_at is None or taken != self._taken_bytes:
            self._taken_bytes, self._unread_at = taken, now
        elif now - self._unread_at > self._blueprint.options.unread_timeout:
            self.abort(CloseReason.OVER_BUDGET)
