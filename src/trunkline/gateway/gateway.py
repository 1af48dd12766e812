"""The gateway: devices' connections, from the first line to the last."""

import logging
import socket
from collections.abc import Awaitable, Callable

import msgspec

from trunkline.bus import Bus, Subscription
from trunkline.clock import Clock
from trunkline.db import Database, Writer
from trunkline.errors import BadFrame, PeerTimeout, ProtocolError, TrunklineError
from trunkline.gateway.command_store import devices_with_waiting
from trunkline.gateway.commands import QUEUED_TOPIC
from trunkline.gateway.device_line import DeviceLine, Lines
from trunkline.gateway.ledger import Command
from trunkline.gateway.presence import Presence
from trunkline.gateway.profiles import Beat, LineProfile, Said, Store
from trunkline.logs import event
from trunkline.reactor import Reactor, Timer
from trunkline.settings import DeviceSettings
from trunkline.stats import Stats
from trunkline.tcp import CloseReason, ConnectionLimits, ConnectionOptions, TcpConnection, TcpServer

__all__ = ["Gateway"]

_SWEEP_INTERVAL = 5.0
_SWEEP_AFTER = 2.0
_log = logging.getLogger(__name__)


class Gateway:
    """Accepts devices, keeps their lines, and brings them their commands. Reactor's thread.

    Args:
        store: takes a JSON list that a client sent to be stored, and returns how many items it committed; it
            raises a `TrunklineError` to refuse them.
    """

    def __init__(
        self,
        *,
        reactor: Reactor,
        database: Database,
        writer: Writer,
        bus: Bus,
        clock: Clock,
        stats: Stats,
        settings: DeviceSettings,
        presence: Presence,
        profile: LineProfile,
        store: Callable[[bytes], Awaitable[int]],
    ) -> None:
        self._lines: dict[str, DeviceLine] = {}
        self._reactor = reactor
        self._database = database
        self._bus = bus
        self._clock = clock
        self._stats = stats
        self._presence = presence
        self._profile = profile
        self._store = store
        self._shared = Lines(reactor, writer, bus, clock, stats, profile)
        self._subscription: Subscription | None = None
        self._sweep_timer: Timer | None = None
        self._server = TcpServer(
            reactor,
            profile.new_framer,
            self._on_message,
            on_connection=self._on_connection,
            on_error=self._on_error,
            on_refused=lambda reason: stats.connections_refused.labels(reason).inc(),
            options=ConnectionOptions(
                handshake_timeout=settings.hello_timeout,
                idle_timeout=settings.idle_timeout,
                unsent_limit_bytes=settings.unread_bytes,
            ),
            limits=ConnectionLimits(connections=settings.connections_limit, handshakes=settings.connections_limit),
        )

    async def start(self, sock: socket.socket) -> None:
        """Listens on a bound socket."""
        self._subscription = self._bus.subscribe(QUEUED_TOPIC, self._on_queued)
        self._sweep_timer = self._reactor.every(_SWEEP_INTERVAL, self._sweep)
        await self._server.start(sock)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._server.port

    @property
    def online(self) -> int:
        """Devices that hold a line to this node."""
        return len(self._lines)

    async def drain(self, deadline: float) -> None:
        """Stops accepting, says goodbye to every device, and closes, within `deadline` seconds."""
        await self._server.drain(deadline, lambda connection: self._say_goodbye(connection, CloseReason.DRAINED))
        if self._subscription is not None:
            self._subscription.cancel()
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()

    # Connections.

    def _on_connection(self, connection: TcpConnection) -> None:
        if connection.is_open:
            self._stats.connections_opened.inc()
            return
        reason = connection.close_reason or CloseReason.CLOSED
        self._stats.connections_closed.labels(reason).inc()
        line: DeviceLine | None = connection.context
        event(
            _log, logging.DEBUG, "connection closed",
            address=connection.peer, device=line.device if line else "", reason=reason,
        )  # fmt: skip
        if line is None:
            return
        line.detach()
        if self._lines.get(line.device) is line:
            del self._lines[line.device]
            if line.epoch is not None:
                self._presence.disconnected(line.device, line.epoch, reason)

    def _on_error(self, connection: TcpConnection, error: ProtocolError) -> None:
        kind = error.reason if isinstance(error, PeerTimeout) else "bad_frame"
        self._refuse(connection, kind, str(error))
        self._answer(connection, f"ERR {error}")

    def _refuse(self, connection: TcpConnection, kind: str, text: str) -> None:
        self._stats.bad_input.labels(kind).inc()
        event(_log, logging.WARNING, "bad input", kind=kind, address=connection.peer, error=text)

    def _say_goodbye(self, connection: TcpConnection, reason: str) -> None:
        self._answer(connection, f"BYE {reason}")

    def _answer(self, connection: TcpConnection, text: str) -> None:
        if connection.is_open:
            # Our own sentences are short; only a setting quoted in one can bring it over the device's limit.
            connection.send(text.encode()[: self._profile.limit_bytes])

    def _close(self, connection: TcpConnection, reason: str) -> None:
        self._say_goodbye(connection, reason)
        connection.close(reason)

    # What they say.

    def _on_message(self, connection: TcpConnection, message: bytes) -> None:
        line: DeviceLine | None = connection.context
        profile = self._profile
        try:
            text = profile.decode(message)
            meaning = profile.parse(text)
            if isinstance(meaning, Store):
                self._take_items(connection, meaning.items)
            elif line is None:
                self._identified(connection, profile.identify(text))
        except BadFrame as error:
            self._on_error(connection, error)
            connection.close(CloseReason.BAD_FRAME)
            return
        if line is None:
            return
        if line.epoch is not None:
            self._presence.heard(line.device, line.epoch)
        if isinstance(meaning, Said):
            line.said(text)
        elif isinstance(meaning, Beat) and profile.heartbeat_answer:
            connection.send(profile.heartbeat_answer)

    def _identified(self, connection: TcpConnection, device: str) -> None:
        connection.established()
        line = DeviceLine(self._shared, device, connection)
        connection.context = line
        older = self._lines.get(device)
        self._lines[device] = line
        if older is not None:
            # At once, before the new line is registered: nothing that the old one still hears counts any more.
            older.detach()
            if older.epoch is not None:
                self._stats.devices_online.dec()
            event(_log, logging.INFO, "device taken over", device=device, address=connection.peer)
            self._close(older.connection, CloseReason.TAKEN_OVER)
        self._reactor.spawn(self._register(line), f"register {device}")

    async def _register(self, line: DeviceLine) -> None:
        try:
            epoch, commands = await self._presence.connected(line.device, self._profile.name, line.connection.peer)
        except TrunklineError as error:
            event(_log, logging.ERROR, "device not registered", device=line.device, error=error)
            self._answer(line.connection, f"ERR {error}")
            line.connection.close(CloseReason.CLOSED)
            return
        if self._lines.get(line.device) is line:
            line.open(epoch, commands)
            return
        # It was taken over, or is gone, while it was being registered.
        if line.connection.close_reason == CloseReason.TAKEN_OVER:
            self._stats.devices_online.dec()
        else:
            self._presence.disconnected(line.device, epoch, line.connection.close_reason or CloseReason.CLOSED)

    def _take_items(self, connection: TcpConnection, items: str) -> None:
        connection.retain()
        self._reactor.spawn(self._store_items(connection, items), "store items")

    async def _store_items(self, connection: TcpConnection, items: str) -> None:
        try:
            count = await self._store(items.encode())
        except TrunklineError as error:
            self._refuse(connection, "bad_items", str(error))
            self._answer(connection, f"ERR {error}")
        else:
            self._answer(connection, f"STORED {count}")
        finally:
            connection.release()

    # Commands.

    def _on_queued(self, _topic: str, message: bytes) -> None:
        command = msgspec.msgpack.decode(message, type=Command)
        line = self._lines.get(command.device)
        if line is not None:
            line.offer(command)

    def _sweep(self) -> None:
        if self._lines:
            self._reactor.spawn(self._find_forgotten(), "sweep commands")

    async def _find_forgotten(self) -> None:
        """A doorbell that was lost costs a command some seconds, and no more."""
        before = self._clock.time() - _SWEEP_AFTER
        for device in await self._database.read(lambda connection: devices_with_waiting(connection, before)):
            if line := self._lines.get(device):
                line.load()
