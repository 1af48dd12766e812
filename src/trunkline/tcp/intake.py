"""From an accepted socket to a connection: admission, a proxy's header, the TLS handshake."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any

from trunkline.errors import BadFrame, ProtocolError
from trunkline.tcp.blueprint import Blueprint
from trunkline.tcp.coded import new_connection
from trunkline.tcp.connection import TcpConnection
from trunkline.tcp.limits import Admission, ConnectionLimits, RefusalReason
from trunkline.tcp.tcp_info import address_text
from trunkline.wire import Framer
from trunkline.wire.proxy_protocol import V2_LIMIT_BYTES, ProxyHeader

__all__ = ["Intake"]

_HANDSHAKE_TIMEOUT = 10.0  # seconds; where the options have none
_PEEK_BYTES = V2_LIMIT_BYTES + 16


class Intake:
    """Takes accepted sockets, and makes connections of those that are admitted. Reactor's thread.

    Args:
        blueprint: what the connections have in common.
        new_framer: makes the framer or session of each.
        limits: who may connect, and how many.
        context: for TLS; None for plain TCP.
        on_refused: called with the reason when a peer is turned away.
    """

    def __init__(
        self,
        blueprint: Blueprint,
        new_framer: Callable[[], Framer],
        limits: ConnectionLimits,
        context: ssl.SSLContext | None,
        on_refused: Callable[[str], object],
    ) -> None:
        self._blueprint = blueprint
        self._new_framer = new_framer
        self._admission = Admission(limits)
        self._context = context
        self._on_refused = on_refused
        self._handshake_timeout = blueprint.options.handshake_timeout or _HANDSHAKE_TIMEOUT
        self._opening: set[asyncio.Task[None]] = set()

    def take(self, sock: socket.socket, address: Any) -> None:
        """Admits a socket that was accepted, or closes it."""
        host = address[0] if isinstance(address, tuple) else ""
        reason = self._admission.admit(host, self._blueprint.reactor.now())
        if reason is not None:
            sock.close()
            self._on_refused(reason)
            return
        task = self._blueprint.reactor.loop.create_task(self._open(sock, host, address_text(address)))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    def established(self, connection: TcpConnection) -> None:
        """The connection's peer has said who it is."""
        self._admission.established(connection.host)

    def release(self, connection: TcpConnection) -> None:
        """The connection is down."""
        self._admission.release(connection.host, connection.is_established)

    async def stop(self) -> None:
        """Gives up the handshakes that are under way."""
        await asyncio.sleep(0)  # a task that is cancelled before it has begun would not close its socket
        for task in self._opening:
            task.cancel()
        if self._opening:
            await asyncio.wait(self._opening)

    async def _open(self, sock: socket.socket, host: str, peer: str) -> None:
        connection: TcpConnection | None = None
        refusal: str | None = None
        loop = self._blueprint.reactor.loop
        began = loop.time()
        ends = began + self._handshake_timeout  # for a proxy's header, TLS and a hello, all together
        try:
            if sock.family != socket.AF_UNIX:
                # A command is one small write; Nagle would hold it back for the peer's delayed ack.
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self._admission.needs_proxy_header(host):
                    source = await self._read_proxy_header(sock, ends)
                    if source is not None:
                        refusal = self._admission.admit_behind(source[0])
                        if refusal is not None:
                            return
                        host, peer = source[0], address_text(source)
            connection = new_connection(self._blueprint, self._new_framer(), peer)
            connection.host = host
            connection.began(began)
            made = connection
            await loop.connect_accepted_socket(
                lambda: made,
                sock,
                ssl=self._context,
                ssl_handshake_timeout=max(0.001, ends - loop.time()) if self._context is not None else None,
            )
        except (OSError, ProtocolError):
            refusal = RefusalReason.HANDSHAKE_FAILED
        except asyncio.CancelledError:
            if connection is not None:
                connection.give_up()
            raise
        except Exception as error:  # the user's new_framer raised
            self._blueprint.reactor.report(error, "new_framer")
        finally:
            if connection is None or connection.was_never_up:
                sock.close()
                self._admission.release(host, established=False)
                self._on_refused(refusal or RefusalReason.HANDSHAKE_FAILED)

    async def _read_proxy_header(self, sock: socket.socket, ends: float) -> tuple[str, int] | None:
        """Whose connection a proxy passes on; exactly the header is taken from the socket, since TLS may follow."""
        header = ProxyHeader()
        loop = self._blueprint.reactor.loop
        async with asyncio.timeout_at(ends):
            while True:
                data = await self._peek(loop, sock)
                if not data:
                    raise BadFrame("the connection ended within its PROXY header")
                rest = header.receive(data)
                sock.recv(len(data) - len(rest or b""))
                if rest is not None:
                    return header.source

    @staticmethod
    async def _peek(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> bytes:
        while True:
            try:
                return sock.recv(_PEEK_BYTES, socket.MSG_PEEK)
            except BlockingIOError:
                readable = loop.create_future()
                loop.add_reader(sock, _set, readable)
                try:
                    await readable
                finally:
                    loop.remove_reader(sock)


def _set(readable: "asyncio.Future[None]") -> None:
    if not readable.done():
        readable.set_result(None)
