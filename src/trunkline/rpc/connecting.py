"""One peer, for as long as it is used."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Iterable

from trunkline.errors import ConnectionClosed, ProtocolError, RpcError
from trunkline.reactor import Reactor
from trunkline.rpc.blueprint import RpcBlueprint
from trunkline.rpc.built_in import client_methods
from trunkline.rpc.limits import RpcLimits, client_options
from trunkline.rpc.peer import RpcPeer, on_message
from trunkline.rpc.service import Service
from trunkline.tcp import ClientTls, CloseReason, ConnectionOptions, TcpClient, TcpConnection
from trunkline.tcp.client import Address
from trunkline.wire import Frames

__all__ = ["PeerLine", "connect_rpc"]


class PeerLine:
    """A line to one server: a `TcpClient` whose connections have peers. Reactor's thread.

    Args:
        blueprint: what the peers have in common with others.
        address: the server's host and port, or the path of its Unix socket.
        token: what proves who this is; None for nothing.
        options: the bounds of the connection.
        tls: whom to trust, or a context of your own; None for plain TCP.
        compression: what to offer: see `Frames`.
        agent: what program this is, for people.
        connect_timeout: seconds that one attempt may take, with its handshakes.
        on_peer: called with the peer when it is up, and again when it is down.

    Attributes:
        peer: the peer, while it is up.
        tcp: what keeps the connection up.
        failure: why the last attempt to connect failed.
    """

    def __init__(
        self,
        blueprint: RpcBlueprint,
        address: Address,
        *,
        token: str | None = None,
        options: ConnectionOptions | None = None,
        tls: ClientTls | ssl.SSLContext | None = None,
        compression: tuple[str, ...] = (),
        agent: str = "",
        connect_timeout: float = 10.0,
        on_peer: Callable[[RpcPeer], object] = lambda _peer: None,
    ) -> None:
        self.peer: RpcPeer | None = None
        self._blueprint = blueprint
        self._on_peer = on_peer
        self._peers: dict[int, RpcPeer] = {}
        self._session: Frames | None = None
        self.failure = ""
        message_bytes = blueprint.limits.message_bytes

        def new_session() -> Frames:
            self._session = Frames(message_bytes, compression=compression, agent=agent, auth=token)
            return self._session

        self.tcp = TcpClient(
            blueprint.reactor,
            address,
            new_session,
            on_message,
            on_connection=self._on_connection,
            options=client_options(options),
            tls=tls,
            connect_timeout=connect_timeout,
            on_connect_failed=self._connect_failed,
        )

    def _connect_failed(self, error: Exception) -> None:
        told = self._session.peer_reason if self._session is not None else None
        self.failure = told or str(error) or type(error).__name__

    def _on_connection(self, connection: TcpConnection) -> None:
        if connection.is_open:
            peer = RpcPeer(self._blueprint, connection, connected=True)
            connection.context = self._peers[connection.id] = self.peer = peer
        else:
            peer = self._peers.pop(connection.id)
            connection.context = None
            if self.peer is peer:
                self.peer = None
            peer.lost()
        self._on_peer(peer)

    async def open(self) -> RpcPeer:
        """Connects once; returns the peer.

        Raises:
            OSError: the server can't be reached, or not in time.
            ProtocolError: the server broke the protocol, or refused.
            ConnectionClosed: the server closed the connection before it was up.
        """
        try:
            await self.tcp.open()
        except ConnectionClosed:
            if self._session is not None and self._session.peer_reason:
                raise ProtocolError(f"the server says: {self._session.peer_reason}") from None
            raise
        if self.peer is None:
            raise ConnectionClosed(CloseReason.PEER_CLOSED)
        return self.peer

    async def stop(self) -> None:
        """Closes the connection in good order, and does not connect again."""
        for peer in self._peers.values():
            peer.flush()
        await self.tcp.stop()


@contextlib.asynccontextmanager
async def connect_rpc(
    address: Address,
    *,
    service: Service | None = None,
    token: str | None = None,
    errors: Iterable[type[RpcError]] = (),
    limits: RpcLimits | None = None,
    options: ConnectionOptions | None = None,
    tls: ClientTls | ssl.SSLContext | None = None,
    compression: tuple[str, ...] = (),
    agent: str = "",
    connect_timeout: float = 10.0,
) -> AsyncIterator[RpcPeer]:
    """One peer, for as long as it is used; in any asyncio program.

    As in ``async with connect_rpc(("meters-1", 7000)) as peer: await peer.call("read", "m1")``. The connection is
    closed in good order at the end, and not made again: `RpcClient` does that.

    Args:
        address: the server's host and port, or the path of its Unix socket.
        service: what the server can call here; None for nothing.
        token: what proves who this is; None for nothing.
        errors: the errors that the server's methods declare, to be raised as what they are.
        limits: the bounds of calls.
        options: the bounds of the connection.
        tls: whom to trust, or a context of your own; None for plain TCP.
        compression: what to offer: see `Frames`.
        agent: what program this is, for people.
        connect_timeout: seconds that it may take to connect, with all handshakes.

    Raises:
        OSError: the server can't be reached, or not in time.
        ProtocolError: the server broke the protocol, or refused.
        ConnectionClosed: the server closed the connection before it was up.
    """
    methods = client_methods({} if service is None else service.methods)
    blueprint = RpcBlueprint(Reactor(asyncio.get_running_loop()), methods, errors, limits)
    line = PeerLine(
        blueprint,
        address,
        token=token,
        options=options,
        tls=tls,
        compression=compression,
        agent=agent,
        connect_timeout=connect_timeout,
    )
    try:
        yield await line.open()
    finally:
        await line.stop()
        blueprint.ticker.stop()
        blueprint.runner.stop()
