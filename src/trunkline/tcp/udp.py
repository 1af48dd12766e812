"""A UDP endpoint: datagrams in and out, with the callbacks and the codecs of a TCP connection."""

import asyncio
import inspect
import socket
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Generic, Self, TypeVar, cast

from trunkline.errors import ConnectionClosed, FrameTooLarge, ProtocolError, SettingsError, Unavailable, UsageError
from trunkline.reactor import Reactor
from trunkline.tcp.options import CloseReason
from trunkline.tcp.udp_socket import Address, UdpOptions, join_group, numeric_address, open_socket
from trunkline.wire.codecs import Codec

__all__ = ["UdpEndpoint", "UdpOptions"]

M = TypeVar("M")


class UdpEndpoint(asyncio.DatagramProtocol, Generic[M]):
    """A UDP socket. Its methods belong to the reactor's thread; `send` to any.

    Callbacks may be functions, which are called at once in the reactor, or coroutine functions, which run as tasks.
    What they raise is reported by the reactor, and the endpoint goes on.

    Args:
        reactor: where it lives.
        on_message: called with the endpoint, a message and the address that it came from. None: messages wait to be
            taken by ``async for message, address in endpoint``.
        codec: makes messages of datagrams and back; None for bytes as they are.
        on_error: called with the endpoint, an error and an address. A `ProtocolError`: a datagram from there was bad.
            An `OSError`: the network says that something can't be sent or received; its address is None.
        options: its bounds.

    Attributes:
        received, received_bytes: datagrams that came.
        dropped: those of them that were over a bound. bad: those that were too long or that the codec can't read.
        sent, sent_bytes: datagrams that were handed to the network. unsent: those that were dropped over a bound.
    """

    def __init__(
        self,
        reactor: Reactor,
        on_message: Callable[["UdpEndpoint[M]", M, Address], object] | None = None,
        *,
        codec: Codec[M] | None = None,
        on_error: Callable[["UdpEndpoint[M]", ProtocolError | OSError, Address | None], object] | None = None,
        options: UdpOptions | None = None,
    ) -> None:
        self.received = self.received_bytes = self.dropped = self.bad = 0
        self.sent = self.sent_bytes = self.unsent = 0
        self._reactor = reactor
        self._on_message = on_message
        self._codec = codec
        self._on_error = on_error
        self._options = options or UdpOptions()
        self._transport: asyncio.DatagramTransport | None = None
        self._family = 0
        self._peer: Address | None = None
        self._started = self._is_open = False
        self._lost = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._inbox: deque[tuple[M, Address]] = deque()
        self._arrived = asyncio.Event()
        self._lock = threading.Lock()  # over what threads count
        self._handed_bytes = 0

    async def bind(self, host: str, port: int) -> None:
        """Receives what is sent to an address of this machine.

        Args:
            host: the address or name to bind to.
            port: the port; 0 for a free one, see `address`.

        Raises:
            SettingsError: the port is in use or not allowed, or the host is none of this machine's.
            UsageError: the port is none, or the endpoint is in use already.
        """
        try:
            await self._start(open_socket(host, port, self._options))
        except OSError as error:
            raise SettingsError(f'udp host = "{host}", port = {port}: can\'t be bound: {error.strerror}') from None

    async def connect(self, host: str, port: int) -> None:
        """Speaks with one peer only: what others send is not received, and `send` needs no address.

        Nothing is sent by this, so it does not tell whether anybody is there.

        Raises:
            Unavailable: the name is not known, or there is no way there.
            UsageError: the port is none, or the endpoint is in use already.
        """
        try:
            await self._start(open_socket(host, port, self._options, connect=True))
        except OSError as error:
            raise Unavailable(f"no way to {host} over UDP: {error.strerror}") from None

    async def _start(self, opening: Coroutine[Any, Any, socket.socket]) -> None:
        if self._started:
            opening.close()
            raise UsageError("this endpoint is in use, or was; make another one")
        self._started = True
        try:
            await self._reactor.loop.create_datagram_endpoint(lambda: self, sock=await opening)
        except BaseException:
            self._started = False
            raise

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent. Any thread."""
        return self._is_open

    @property
    def address(self) -> Address:
        """The address that it is bound to.

        Raises:
            ConnectionClosed: it is not open.
        """
        return cast(Address, self._open_transport().get_extra_info("sockname"))

    def join(self, group: str, interface: str = "") -> None:
        """Receives what is sent to a multicast group, too, until the endpoint is closed.

        Args:
            group: the group's address.
            interface: over IPv4 an address of this machine, over IPv6 an interface's name; empty: the system's choice.

        Raises:
            ConnectionClosed: it is not open.
            UsageError: the group can't be joined there.
        """
        sock = self._open_transport().get_extra_info("socket")
        try:
            join_group(sock, group, interface)
        except OSError as error:
            raise UsageError(f'group = "{group}", interface = "{interface}": can\'t be joined: {error}') from None

    def send(self, message: M, address: Address | None = None) -> None:
        """Sends one datagram. Any thread; the order of one thread's datagrams is kept.

        Never waits: what is over the bound of unsent bytes is dropped and counted in `unsent`, as the network itself
        may do at any time.

        Args:
            message: the message; bytes if there is no codec.
            address: where to; None for the peer of a connected endpoint.

        Raises:
            ConnectionClosed: the endpoint is closed, or not open yet.
            UsageError: the message can't be encoded, is empty or too long, or the address is none.
        """
        self._open_transport()
        data = self._codec.encode(message) if self._codec is not None else cast(bytes, message)
        if not isinstance(data, bytes) or not 0 < len(data) <= self._options.datagram_limit_bytes:
            raise UsageError(f"a datagram must be 1 to {self._options.datagram_limit_bytes:,} bytes")
        target = self._target(address)
        if self._reactor.in_thread():
            self._send(data, target)
            return
        with self._lock:
            if self._handed_bytes + len(data) > self._options.unsent_limit_bytes:
                self.unsent += 1
                return
            self._handed_bytes += len(data)
        self._reactor.call(self._send_handed, data, target)

    async def close(self) -> None:
        """Sends what is unsent, within the close timeout, cancels coroutines that still run, and closes the socket.

        Closing twice does nothing. A coroutine that takes its cancellation for longer than the timeout is left alone.
        """
        transport, timeout = self._transport, self._options.close_timeout
        if transport is None:
            return
        self._shut()
        transport.close()
        tasks = self._tasks - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        try:
            async with asyncio.timeout(timeout):
                await self._lost.wait()
        except TimeoutError:
            transport.abort()
            await self._lost.wait()
        if tasks:
            await asyncio.wait(tasks, timeout=timeout)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[M, Address]:
        while not self._inbox:
            if not self._is_open:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        return self._inbox.popleft()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The event loop's: the socket is open."""
        self._transport = cast(asyncio.DatagramTransport, transport)
        self._family = transport.get_extra_info("socket").family
        self._peer = transport.get_extra_info("peername")
        self._is_open = True

    def datagram_received(self, data: bytes, address: Address) -> None:
        """The event loop's: a datagram came."""
        if not self._is_open:
            return
        self.received += 1
        self.received_bytes += len(data)
        try:
            if len(data) > self._options.datagram_limit_bytes:
                raise FrameTooLarge(f"a datagram of {len(data)} bytes, over {self._options.datagram_limit_bytes}")
            message = self._codec.decode(data) if self._codec is not None else cast(M, data)
        except ProtocolError as error:
            self.bad += 1
            self._call(self._on_error, error, address)
            return
        if self._on_message is not None:
            taken = self._call(self._on_message, message, address)
        elif taken := len(self._inbox) < self._options.inbox_limit:
            self._inbox.append((message, address))
            self._arrived.set()
        self.dropped += not taken

    def error_received(self, error: Exception) -> None:
        """The event loop's: the network refused something, as with an ICMP message."""
        self._call(self._on_error, error, None)

    def connection_lost(self, error: Exception | None) -> None:
        """The event loop's: the socket is closed."""
        self._shut()
        self._transport = None
        self._lost.set()
        if error is not None:
            self._call(self._on_error, error, None)

    def _shut(self) -> None:
        self._is_open = False
        self._arrived.set()

    def _call(self, callback: Callable[..., object] | None, *args: object) -> bool:
        """Returns whether there was room to call it."""
        if callback is None:
            return True
        name = getattr(callback, "__qualname__", repr(callback))
        try:
            result = callback(self, *args)
        except Exception as error:
            self._reactor.report(error, name)
            return True
        if inspect.iscoroutine(result):
            if len(self._tasks) >= self._options.tasks_limit:
                result.close()  # it has not begun
                return False
            task = self._reactor.spawn(result, name)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return True

    def _open_transport(self) -> asyncio.DatagramTransport:
        transport = self._transport
        if transport is None or not self._is_open:
            raise ConnectionClosed(CloseReason.CLOSED)
        return transport

    def _target(self, address: Address | None) -> Address | None:
        if self._peer is None:
            return numeric_address(self._family, address or ())
        if address is not None and address[:2] != self._peer[:2]:
            raise UsageError(f"address = {address!r}: the endpoint is connected to {self._peer[0]}:{self._peer[1]}")
        return None

    def _send_handed(self, data: bytes, address: Address | None) -> None:
        with self._lock:
            self._handed_bytes -= len(data)
        self._send(data, address)

    def _send(self, data: bytes, address: Address | None) -> None:
        transport = self._transport
        if (
            transport is None
            or not self._is_open
            or cast(Any, transport).get_write_buffer_size() + len(data) > self._options.unsent_limit_bytes
        ):
            with self._lock:
                self.unsent += 1
            return
        self.sent += 1
        self.sent_bytes += len(data)
        transport.sendto(data, address)
