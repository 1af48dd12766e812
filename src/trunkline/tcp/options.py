"""The bounds of a connection, and the words for why one ended."""

from typing import Final, Literal

import msgspec

from trunkline.errors import UsageError

__all__ = ["CloseReason", "ConnectionOptions"]


class CloseReason:
    """Why a connection ended. Plain words, as they stand in the database, the log and the statistics."""

    PEER_CLOSED: Final = "peer_closed"
    """The peer closed its side in good order."""
    RESET: Final = "reset"
    """The peer, or the path to it, reset the connection."""
    IDLE: Final = "idle"
    """Nothing came for longer than the idle timeout."""
    WRITE_IDLE: Final = "write_idle"
    """Nothing was sent for longer than the write idle timeout."""
    HEARTBEAT_LOST: Final = "heartbeat_lost"
    """Nothing came for as many heartbeat intervals as the options allow."""
    LIFETIME: Final = "lifetime"
    """The connection has lived as long as the options allow."""
    HANDSHAKE_TIMEOUT: Final = "handshake_timeout"
    """The peer did not say who it is in time."""
    FRAME_TIMEOUT: Final = "frame_timeout"
    """A frame that had begun was not whole in time."""
    BAD_FRAME: Final = "bad_frame"
    """The peer broke the protocol."""
    OVER_BUDGET: Final = "over_budget"
    """The peer did not read what was sent to it."""
    TAKEN_OVER: Final = "taken_over"
    """The same identity came on another connection."""
    DRAINED: Final = "drained"
    """This node is stopping."""
    HANDLER_FAILED: Final = "handler_failed"
    """The code that handles the connection raised."""
    CLOSED: Final = "closed"
    """This side closed it."""


class ConnectionOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of one connection. All have defaults that are safe to leave on."""

    handshake_timeout: float | None = None
    """Seconds from the start, whatever comes meanwhile, until `TcpConnection.established` must have been called or a
    session must have heard the peer's hello; None for no such deadline, but 10 s where there is a session."""
    idle_timeout: float | None = None
    """Seconds without a byte from the peer, after which it is closed; None for never."""
    write_idle_timeout: float | None = None
    """Seconds without a byte to the peer, after which it is closed; None for never."""
    frame_timeout: float | None = 60.0
    """Seconds from when a frame has begun until it must be whole, whatever comes of it meanwhile; None for never. It is
    to be raised where long messages come over slow lines: 1 MiB at 40 kbit/s takes 210 s. Time in which reading is
    paused does not count."""
    lifetime: float | None = None
    """Seconds after which a connection is closed, however busy it is; None for never."""
    heartbeat_interval: float | None = None
    """Seconds of silence after which the peer is asked for a sign of life; None for never, or with a session for what
    that says: 30 s with the native one."""
    heartbeat_misses: int = 2
    """Intervals of silence after which the peer is taken for dead."""
    heartbeat_message: bytes | None = None
    """What is sent for a heartbeat where there is no session, whose own ping goes before it."""
    high_water_bytes: int = 65_536
    """Unsent bytes over which `on_high_water` is called, and a server stops reading from the peer, so that a peer that
    does not read can't go on asking."""
    pause_over_high: bool | None = None
    """Whether reading pauses over the high-water mark; None: in servers, not in clients. Were it both ends of one
    connection that wait for the other to read, they would wait for ever."""
    low_water_bytes: int = 16_384
    """Unsent bytes under which it goes on."""
    unsent_limit_bytes: int = 1_048_576
    """Unsent bytes that a connection may hold at the most; what one more message means, the policy says."""
    overflow: Literal["close", "raise", "wait", "drop_oldest"] = "close"
    """What becomes of a message over the limit: the connection is dropped, `send` raises `Overloaded`, `send` waits (in
    the reactor's thread it raises: a coroutine awaits `drain` before it sends), or the oldest unsent messages go."""
    send_timeout: float = 30.0
    """Seconds for which a thread waits at the most for the reactor to take what it sends, or for room, where the policy
    is to wait; 0 for not at all."""
    unread_timeout: float = 14.0
    """Seconds for which a peer may take nothing of what waits for it."""
    close_timeout: float = 5.0
    """Seconds that a graceful close may take to flush; then the connection is dropped."""
    retained_limit: int = 64
    """Messages that may be in the works (see `TcpConnection.retain`); at the limit, reading pauses."""
    bytes_per_second: float | None = None
    """Bytes that are read per second in the long run: what comes in one read (up to 256 KiB) is taken, then waited for.
    None for no such limit."""
    messages_per_second: float | None = None
    """Messages that are handled per second in the long run, in the same way; None for no such limit."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if (
                isinstance(value, int | float)
                and not isinstance(value, bool)
                and not (value > 0 or (name == "send_timeout" and value == 0))
            ):
                raise UsageError(f"{name} = {value}: it must be more than 0")
        if self.overflow not in ("close", "raise", "wait", "drop_oldest"):
            raise UsageError(f'overflow = "{self.overflow}": it must be close, raise, wait or drop_oldest')
