"""When a connection has to end, or to beat: a pure function of its times."""

from typing import Literal, Self

import msgspec

from trunkline.tcp.options import CloseReason, ConnectionOptions
from trunkline.wire import Session

__all__ = ["NEVER", "Deadlines", "Verdict"]

NEVER = float("inf")
"""The moment, or the time, of what does not apply."""
_SESSION_HANDSHAKE_TIMEOUT = 10.0

Verdict = tuple[Literal["beat"] | str | None, float]
"""What is to be done now: nothing, a heartbeat, or to close for a reason of `CloseReason`; and before which moment
there will be nothing to do."""


class Deadlines(msgspec.Struct, frozen=True, kw_only=True):
    """The deadlines of a kind of connections, in seconds; `NEVER` for what does not apply."""

    handshake: float
    idle: float
    write_idle: float
    frame: float
    lifetime: float
    close: float
    beat: float
    """Seconds between two heartbeats."""
    always_beats: bool
    """Whether a heartbeat goes out also to a peer that is heard of."""
    silence: float
    """Seconds without a byte after which the peer is taken for dead."""

    @classmethod
    def of(cls, options: ConnectionOptions, session: Session | None) -> Self:
        """Those that the options say, and what they leave open for a session."""
        handshake, interval = options.handshake_timeout, options.heartbeat_interval
        if session is not None:
            handshake = handshake or _SESSION_HANDSHAKE_TIMEOUT
            interval = interval or session.heartbeat_interval
        return cls(
            handshake=handshake or NEVER,
            idle=options.idle_timeout or NEVER,
            write_idle=options.write_idle_timeout or NEVER,
            frame=options.frame_timeout or NEVER,
            lifetime=options.lifetime or NEVER,
            close=options.close_timeout,
            beat=interval or NEVER,
            always_beats=session is not None and session.always_beats,
            silence=(interval or NEVER) * options.heartbeat_misses
            if session is None or session.judges_silence
            else NEVER,
        )

    def text(self, reason: str) -> str:
        """What to tell a peer whose time is up.

        Args:
            reason: the word that `judge` gave.
        """
        return {
            CloseReason.HANDSHAKE_TIMEOUT: f"no hello within {self.handshake:g} s",
            CloseReason.HEARTBEAT_LOST: f"no sign of life for {self.silence:g} s",
            CloseReason.IDLE: f"nothing came for {self.idle:g} s",
            CloseReason.WRITE_IDLE: f"nothing was sent for {self.write_idle:g} s",
            CloseReason.FRAME_TIMEOUT: f"a frame was not whole after {self.frame:g} s",
            CloseReason.LIFETIME: f"a connection may live for {self.lifetime:g} s",
        }.get(reason, reason)

    def judge(
        self,
        now: float,
        *,
        started_at: float,
        heard_at: float,
        said_at: float,
        beat_at: float,
        established: bool,
        closing_at: float | None,
        frame_at: float = NEVER,
        deaf: bool = False,
        half_closed: bool = False,
    ) -> Verdict:
        """What is to be done with a connection.

        Args:
            now: the moment.
            started_at: when it came up.
            heard_at: when a byte came last.
            said_at: when a byte was sent last.
            beat_at: when the last heartbeat was sent, or the connection came up.
            established: whether the peer has said who it is.
            closing_at: since when it is closing; None while it is open.
            frame_at: when the frame that is not whole yet was begun; `NEVER` where there is none.
            deaf: whether this side does not read at present. It can't answer then, so it beats whenever it has said
                nothing for an interval.
            half_closed: whether it is closing, but the peer may still send.
        """
        if closing_at is not None:
            due = closing_at + self.close
            if half_closed:
                silence = self.close if self.idle == NEVER else self.idle
                due = min(max(closing_at, heard_at) + silence, frame_at + self.frame, started_at + self.lifetime)
            return (CloseReason.CLOSED, NEVER) if now > due else (None, due)
        ends = [
            (started_at + self.lifetime, CloseReason.LIFETIME),
            (heard_at + self.silence, CloseReason.HEARTBEAT_LOST),
            (heard_at + self.idle, CloseReason.IDLE),
            (said_at + self.write_idle, CloseReason.WRITE_IDLE),
            (frame_at + self.frame, CloseReason.FRAME_TIMEOUT),
        ]
        if not established:
            ends.append((started_at + self.handshake, CloseReason.HANDSHAKE_TIMEOUT))
        due, reason = min(ends)
        if now > due:
            return reason, NEVER
        spoken_at = said_at if deaf else heard_at
        next_beat = (beat_at if self.always_beats else max(beat_at, spoken_at)) + self.beat
        if established and now >= next_beat:
            return "beat", min(due, now + self.beat)
        return None, min(due, next_beat) if established else due
