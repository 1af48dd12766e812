"""The looks at the deadlines of many connections."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from trunkline.reactor import Reactor, Timer

if TYPE_CHECKING:
    from trunkline.tcp.connection import TcpConnection

__all__ = ["Rounds"]

_INTERVAL = 0.25  # seconds between two looks


class Rounds:
    """Looks at all connections of one server or client some times each second. Reactor's thread.

    Args:
        reactor: whose clock it goes by.
        connections: those to look at, which may change in between.
    """

    def __init__(self, reactor: Reactor, connections: "Mapping[int, TcpConnection]") -> None:
        self._reactor = reactor
        self._connections = connections
        self._timer: Timer | None = None
        self._looked_at = 0.0

    def start(self) -> None:
        """Begins. Starting twice does nothing."""
        if self._timer is None:
            self._looked_at = self._reactor.now()
            self._timer = self._reactor.every(_INTERVAL, self._look)

    def stop(self) -> None:
        """Ends. Stopping twice does nothing."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _look(self) -> None:
        now = self._reactor.now()
        since, self._looked_at = now - self._looked_at, now
        for connection in list(self._connections.values()):
            if since > 2 * _INTERVAL:
                # The reactor was held up: what the peers sent meanwhile has not been read yet.
                connection.forgive(now, since)
            connection.check(now)
