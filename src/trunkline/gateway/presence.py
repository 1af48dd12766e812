"""Who is there: the node's lease, and the devices that hold a line to it."""

import logging

import msgspec

from trunkline.bus import Bus
from trunkline.clock import Clock
from trunkline.db import Writer
from trunkline.errors import TrunklineError
from trunkline.gateway.device_store import (
    Connected,
    Disconnected,
    Lease,
    Registered,
    Seen,
    claim_node,
    device_connected,
    device_disconnected,
    devices_seen,
    release_node,
    renew_lease,
)
from trunkline.logs import event
from trunkline.reactor import Reactor, Timer
from trunkline.stats import Stats

__all__ = ["LEASE_SECONDS", "Presence"]

LEASE_SECONDS = 15.0
_RENEW_INTERVAL = 5.0
_log = logging.getLogger(__name__)


class Presence:
    """Writes presence down and tells the bus. Reactor's thread.

    Args:
        node: this node's id.
    """

    def __init__(self, node: str, reactor: Reactor, writer: Writer, bus: Bus, clock: Clock, stats: Stats) -> None:
        self.node = node
        self._reactor = reactor
        self._writer = writer
        self._bus = bus
        self._clock = clock
        self._stats = stats
        self._heard: dict[str, Seen] = {}
        self._timer: Timer | None = None
        self._expires_at = 0.0

    async def start(self) -> None:
        """Takes the node's lease, and begins to renew it."""
        await self._writer.submit(claim_node, self._lease())
        self._timer = self._reactor.every(_RENEW_INTERVAL, self._renew)

    async def stop(self) -> None:
        """Gives the lease back. Devices that are still connected are offline from now on."""
        if self._timer is not None:
            self._timer.cancel()
        await self._writer.submit(release_node, self._lease())

    def _lease(self) -> Lease:
        now = self._clock.time()
        self._expires_at = now + LEASE_SECONDS
        return Lease(self.node, now, self._expires_at)

    def keep_lease(self) -> None:
        """Renews the lease at once if it is closer to its end than the timer would have let it come."""
        if self._clock.time() > self._expires_at - LEASE_SECONDS / 2:
            self._writer.post(renew_lease, self._lease())

    def _renew(self) -> None:
        self._writer.post(renew_lease, self._lease())
        if self._heard:
            self._writer.post(devices_seen, list(self._heard.values()))
            self._heard.clear()

    def heard(self, device: str, epoch: int) -> None:
        """A device said something. Written down, for many devices together, with the next renewal."""
        self._heard[device] = Seen(device, epoch, self._clock.time())

    async def connected(self, device: str, profile: str, address: str) -> Registered:
        """A device has said who it is. Returns once its row is committed."""
        at = self._clock.time()
        registered = await self._writer.submit(device_connected, Connected(device, profile, address, self.node, at))
        self._stats.devices_online.inc()
        event(_log, logging.INFO, "device online", device=device, address=address, epoch=registered.epoch)
        self._bus.publish("device.online", msgspec.json.encode({"device": device, "address": address, "at": at}))
        return registered

    def disconnected(self, device: str, epoch: int, reason: str) -> None:
        """The device's connection of that epoch is gone."""
        at = self._clock.time()
        self._heard.pop(device, None)
        self._stats.devices_online.dec()
        event(_log, logging.INFO, "device offline", device=device, reason=reason)
        try:
            self._writer.post(device_disconnected, Disconnected(device, epoch, at, reason))
        except TrunklineError as error:
            # The row is put right by the next connection, or by the end of this node's lease.
            event(_log, logging.ERROR, "presence not recorded", device=device, error=error)
        self._bus.publish("device.offline", msgspec.json.encode({"device": device, "reason": reason, "at": at}))
