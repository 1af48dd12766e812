"""One peer: a connection over which both sides call and are called."""

from collections.abc import Callable
from typing import Any, Final

from trunkline.errors import BadFrame
from trunkline.rpc.calls import NEVER
from trunkline.rpc.messages import (
    Call,
    Cancel,
    Credit,
    End,
    Failed,
    Goaway,
    Item,
    Notify,
    Reply,
    decode_unguarded,
    encode,
)
from trunkline.rpc.serving import Serving
from trunkline.tcp import CloseReason, TcpConnection
from trunkline.wire import Frames

__all__ = ["RpcPeer", "on_message"]


class RpcPeer(Serving):
    """One peer, who can be called and calls. Reactor's thread.

    Args:
        blueprint: what it has in common with the other peers of its server or client.
        connection: with a native session that has heard the peer's hello.
        connected: whether it is this side that connected.
        roles: what the peer may do; None for all.

    Attributes:
        connection: the connection.
        roles: what the peer may do; None for all.
        goes_away: whether the peer has said that it takes no more calls.
        runs: the peer's calls that run, or wait to be run.
    """

    __slots__ = ()

    def close(self, reason: str = CloseReason.CLOSED) -> None:
        """Closes the connection in good order. Calls that are under way are lost, on both sides."""
        self.flush()
        self.connection.close(reason)

    def say_goaway(self, reason: str = "") -> None:
        """Tells the peer that this side takes no more calls."""
        self._say(encode((9, reason, max(0, self._served.last))))

    @property
    def agent(self) -> str:
        """What program the peer is, as it says itself."""
        session = self.connection.framer
        return session.peer.agent if isinstance(session, Frames) and session.peer is not None else ""

    def lost(self) -> None:
        """The package's: the connection is down."""
        self._blueprint.ticker.forget(self)
        self._lose_calls(self.connection.close_reason or CloseReason.CLOSED)
        self._lose_runs()

    def expire(self, now: float) -> bool:
        """The package's: ends the calls whose deadline has come; returns whether there are others."""
        self._expire_calls(now)
        self._expire_runs(now)
        self._watched = min(self._calls.soonest, self._served.soonest) < NEVER
        return self._watched

    def _item(self, message: Item) -> None:
        if self._calls.owns(message.id):
            self.result_item(message)
        else:
            self.argument_item(message)

    def _credit(self, message: Credit) -> None:
        if self._calls.owns(message.id):
            self.argument_credit(message.id, message.count)
        else:
            self.result_credit(message.id, message.count)

    def _cancel(self, message: Cancel) -> None:
        self.cancelled(message.id)

    def _end(self, message: End) -> None:
        self.argument_ended(message.id)

    def _goaway(self, message: Goaway) -> None:
        self.goes_away = True
        self.not_taken(message.last)


_TAKES: Final[dict[type, Callable[[RpcPeer, Any], None]]] = {
    Call: RpcPeer.called,
    Reply: RpcPeer.replied,
    Failed: RpcPeer.call_failed,
    Cancel: RpcPeer._cancel,
    Notify: RpcPeer.notified,
    Item: RpcPeer._item,
    End: RpcPeer._end,
    Credit: RpcPeer._credit,
    Goaway: RpcPeer._goaway,
}


def on_message(connection: TcpConnection, data: bytes) -> None:
    """A message has come. For a connection whose context is an `RpcPeer`."""
    peer: RpcPeer | None = connection.context
    if peer is None:
        return
    try:
        message = decode_unguarded(data)
    except (ValueError, RecursionError) as error:
        _break_off(connection, BadFrame(f"no message of a call: {error}"))
        return
    try:
        _TAKES[type(message)](peer, message)
    except BadFrame as error:
        _break_off(connection, error)


def _break_off(connection: TcpConnection, error: BadFrame) -> None:
    """It closes when all that came with this is handled, and tells the peer why. Nothing more is heard of it."""
    error.__traceback__ = error.__context__ = None  # they would keep what was received
    connection.framer.error = error
    connection.context = None
