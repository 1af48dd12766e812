"""What a peer sends through: all that is said in one turn of the loop leaves in one write."""

import contextlib

from trunkline.errors import CallLost, ConnectionClosed, Overloaded, UsageError
from trunkline.rpc.blueprint import RpcBlueprint
from trunkline.tcp import CloseReason, TcpConnection
from trunkline.wire import Frames

__all__ = ["Channel"]

_SMALL_BYTES = 4_096  # a longer message is written at once
_BATCH = 256  # messages that wait for the end of the turn


class Channel:
    """Messages out. Reactor's thread."""

    __slots__ = ("_blueprint", "_loop", "_message_limit", "_said", "connection", "reactor")

    def __init__(self, blueprint: RpcBlueprint, connection: TcpConnection) -> None:
        self.connection = connection
        self.reactor = blueprint.reactor
        self._blueprint = blueprint
        self._loop = blueprint.reactor.loop
        self._said: list[bytes] = []
        session = connection.framer
        said = session.peer if isinstance(session, Frames) else None
        self._message_limit = said.limit_bytes if said is not None else 0

    def _send(self, data: bytes) -> None:
        """Sends a message of the user's.

        Raises:
            UsageError: it is longer than the peer takes.
            Overloaded: too much is unsent.
            CallLost: the connection is closed.
        """
        size, said = len(data), self._said
        if size > self._message_limit:
            raise UsageError(f"the message has {size} bytes; the peer takes {self._message_limit}")
        if not said:
            self.reactor.check_thread()
            if not self.connection.is_open:
                raise CallLost("the connection is closed", sent="no")
            if self.connection.is_full:
                raise Overloaded(f"{self.connection.unsent_bytes} bytes are unsent already; the peer does not read")
            self._loop.call_soon(self.flush)
        said.append(data)
        if size > _SMALL_BYTES or len(said) >= _BATCH:
            self.flush()

    def _say(self, data: bytes) -> None:
        """Sends a message that is this side's own. Where there is no room for it, the connection can't go on."""
        try:
            self._send(data)
        except CallLost:
            pass
        except Overloaded:
            self.connection.abort(CloseReason.OVER_BUDGET)

    def _say_now(self, data: bytes) -> None:
        """Like `_say`; while messages are handled, it goes out with their replies."""
        self.flush()
        try:
            self.connection.send(data)
        except ConnectionClosed:
            pass
        except Overloaded:
            self.connection.abort(CloseReason.OVER_BUDGET)

    def flush(self) -> None:
        """The package's: writes what was said in this turn of the loop now."""
        if self._said:
            said, self._said = self._said, []
            with contextlib.suppress(ConnectionClosed):  # the calls are told when the connection is down
                self.connection.send_all(said)

    async def _drained(self) -> None:
        """Waits while the peer does not read."""
        if self.connection.unsent_bytes:
            try:
                await self.connection.drain()
            except ConnectionClosed:
                raise CallLost("the connection was closed", sent="unknown") from None
