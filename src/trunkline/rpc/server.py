"""A server of methods."""

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from trunkline.errors import RpcError, UsageError
from trunkline.reactor import Reactor
from trunkline.rpc.blueprint import RpcBlueprint
from trunkline.rpc.built_in import server_methods
from trunkline.rpc.limits import RpcLimits, server_options
from trunkline.rpc.peer import RpcPeer, on_message
from trunkline.rpc.service import Service
from trunkline.rpc.tokens import Tokens
from trunkline.tcp import ConnectionLimits, ConnectionOptions, OutboundBudget, ServerTls, TcpConnection, TcpServer
from trunkline.wire import Frames

__all__ = ["ADMIN_ROLE", "RpcServer"]

_BREAK_OFF_SECONDS = 1.0  # that a method has, to end when it is broken off

ADMIN_ROLE = "admin"
"""Who may see what goes on in a server that has tokens."""


class RpcServer:
    """Serves the methods of a service to whoever connects, and can call whoever is connected. Reactor's thread.

    Besides, it has methods of its own: ``trunkline.ping``, ``.describe``, ``.health``, ``.stats`` and ``.connections``.

    Args:
        reactor: where the connections live.
        service: what can be called.
        tokens: the roles of each token; without one of them nobody gets in. None to let everybody in.
        errors: the errors that the peers' methods declare, where they are called.
        on_peer: called with each `RpcPeer` when it is up, and again when it is down.
        limits: the bounds of calls.
        connection_limits: who may connect, and how many.
        options: the bounds of each connection.
        budget: what all connections may hold unsent; None for the budget of the process.
        tls: certificate and key, or a context of your own; None for plain TCP.
        compression: what to offer: see `Frames`.
        agent: what program this is, for people.
        debug: whether callers are told the tracebacks of methods that fail.

    Attributes:
        peers: those that are connected, by their connection's id.

    Raises:
        UsageError: a method is for certain roles, and there are no tokens that anybody could have them by.
    """

    def __init__(
        self,
        reactor: Reactor,
        service: Service,
        *,
        tokens: Mapping[str, Iterable[str]] | None = None,
        errors: Iterable[type[RpcError]] = (),
        on_peer: Callable[[RpcPeer], object] = lambda _peer: None,
        limits: RpcLimits | None = None,
        connection_limits: ConnectionLimits | None = None,
        options: ConnectionOptions | None = None,
        budget: OutboundBudget | None = None,
        tls: ServerTls | ssl.SSLContext | None = None,
        compression: tuple[str, ...] = (),
        agent: str = "",
        debug: bool = False,
    ) -> None:
        self.peers: dict[int, RpcPeer] = {}
        self._reactor = reactor
        self._tokens = None if tokens is None else Tokens(tokens)
        guarded = [method.name for method in service.methods.values() if method.roles]
        if guarded and tokens is None:
            raise UsageError(f"{guarded[0]} is for certain roles: say which tokens have them, by tokens=")
        methods = server_methods(self, service.methods, (ADMIN_ROLE,) if tokens is not None else ())
        self._blueprint = RpcBlueprint(reactor, methods, errors, limits, debug)
        self._on_peer = on_peer
        message_bytes, judge = self._blueprint.limits.message_bytes, self._tokens.judge if self._tokens else None
        self.tcp = TcpServer(
            reactor,
            lambda: Frames(message_bytes, compression=compression, agent=agent, authorize=judge),
            on_message,
            on_connection=self._on_connection,
            options=server_options(options),
            limits=connection_limits,
            budget=budget,
            tls=tls,
        )

    async def listen(self, host: str, port: int, *, reuse_port: bool = False) -> int:
        """Listens on all addresses of a host; returns the port. See `TcpServer.listen`."""
        return await self.tcp.listen(host, port, reuse_port=reuse_port)

    async def listen_unix(self, path: str, mode: int = 0o600) -> None:
        """Listens on a Unix socket. See `TcpServer.listen_unix`."""
        await self.tcp.listen_unix(path, mode)

    def _on_connection(self, connection: TcpConnection) -> None:
        if not connection.is_open:
            peer = self.peers.pop(connection.id)
            connection.context = None
            peer.lost()
        else:
            peer = RpcPeer(self._blueprint, connection, connected=False, roles=self._roles_of(connection))
            connection.context = self.peers[connection.id] = peer
            if self._blueprint.goes_away:
                peer.say_goaway()
        self._on_peer(peer)

    def _roles_of(self, connection: TcpConnection) -> frozenset[str]:
        session = connection.framer
        if self._tokens is None or not isinstance(session, Frames) or session.peer is None:
            return frozenset()
        return self._tokens.roles_of(session.peer) or frozenset()

    async def drain(self, deadline: float) -> None:
        """Takes no new calls, lets those that run end, and closes every connection in good order.

        Peers are told at once, so that they call elsewhere. What runs longer than the deadline is broken off.

        Args:
            deadline: seconds that all this may take.
        """
        ends_at = self._reactor.now() + deadline
        self.tcp.stop_accepting()
        self._blueprint.goes_away = True
        for peer in list(self.peers.values()):
            peer.say_goaway("draining")
        await self._idle_until(ends_at)
        for peer in list(self.peers.values()):
            peer.break_off_runs()
            peer.flush()
        await self.tcp.drain(max(0.0, ends_at - self._reactor.now()))
        await self._idle_until(max(ends_at, self._reactor.now() + _BREAK_OFF_SECONDS))
        self._blueprint.ticker.stop()
        self._blueprint.runner.stop()

    async def _idle_until(self, moment: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(moment):
                await self._blueprint.runner.idle()

    @property
    def port(self) -> int:
        """The TCP port it listens on, the first if there are several."""
        return self.tcp.port

    @property
    def health(self) -> str:
        """``serving``, or ``draining`` when no new calls are taken."""
        return "draining" if self._blueprint.goes_away else "serving"

    def stats(self) -> dict[str, Any]:
        """What is counted: connections, calls that run and wait, and of each method what `MethodFigures` has."""
        runner = self._blueprint.runner
        return {
            "connections": len(self.peers),
            "accepted": self.tcp.accepted,
            "refused": dict(self.tcp.refused),
            "closed": dict(self.tcp.closed),
            "running": runner.running,
            "waiting": runner.waiting,
            "methods": {name: method.figures.snapshot() for name, method in self._blueprint.methods.items()},
        }

    def describe_connections(self) -> list[dict[str, Any]]:
        """Every connection: its peer's address and program, its age in seconds, its counts, and its calls."""
        return [
            {
                "id": peer.connection.id,
                "peer": peer.connection.peer,
                "agent": peer.agent,
                "roles": sorted(peer.roles or ()),
                "runs": len(peer.runs),
                "calls": peer.calls_under_way,
                **peer.connection.statistics(),
            }
            for peer in self.peers.values()
        ]
