"""Who may connect, and how much: pure rules, to which the time is an argument."""

import ipaddress
import math
from collections.abc import Iterable
from typing import Final

import msgspec

from trunkline.errors import UsageError

__all__ = ["Admission", "ConnectionLimits", "RefusalReason", "TokenBucket"]

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")


class RefusalReason:
    """Why a peer was turned away. Plain words, as they stand in the log and the statistics."""

    DENIED: Final = "denied"
    """Its network is denied, or not among those that are allowed."""
    CONNECTIONS_LIMIT: Final = "connections_limit"
    """All connections together are at their limit."""
    HANDSHAKES_LIMIT: Final = "handshakes_limit"
    """Too many peers have yet to say who they are."""
    ADDRESS_LIMIT: Final = "address_limit"
    """Its address has as many connections as one may have."""
    RATE_LIMIT: Final = "rate_limit"
    """Too many came in too short a time."""
    DESCRIPTORS_LIMIT: Final = "descriptors_limit"
    """The process, or the system, has no descriptor left."""
    HANDSHAKE_FAILED: Final = "handshake_failed"
    """Its TLS handshake or its proxy's header went wrong, or took too long."""


class ConnectionLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Who may connect to one server, and how many. Networks are text: ``10.0.0.0/8``, ``192.0.2.7``, ``::1``.

    An IPv4 address that is written as an IPv6 one (``::ffff:192.0.2.7``) counts as IPv4 throughout. One address is
    one IPv4 address, or one IPv6 network of 64 bits, since whoever has one address of it has them all.

    Raises:
        UsageError: a count is less than 1, a rate is not more than 0, or a network is none.
    """

    connections: int = 20_000
    """Connections at once, all together."""
    per_address: int | None = None
    """Connections at once from one address; None for no such limit. There is none by default, because a whole fleet
    may stand behind the one address of a NAT or of a mobile network; `handshakes` holds off who only knocks."""
    per_second: float | None = None
    """New connections per second, all together; None for as many as come."""
    burst: int = 100
    """New connections that may come at once before `per_second` holds them back."""
    handshakes: int = 1_000
    """Connections at once that are not yet established, all together."""
    handshakes_per_address: int | None = None
    """The same for one address, so that no one can take the place of all others; None for no such limit."""
    allow: tuple[str, ...] = ()
    """Networks that may connect; empty for all. Peers at a Unix socket always may: its file's mode guards it."""
    deny: tuple[str, ...] = ()
    """Networks that may not; this wins over all else."""
    proxies: tuple[str, ...] = ()
    """Networks whose connections must begin with a PROXY header, as no others may. They need not be in `allow`, and
    are held to no limit per address: the peers behind them are."""

    def __post_init__(self) -> None:
        for name in ("connections", "per_address", "burst", "handshakes", "handshakes_per_address"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} = {value}: it must be 1 or more")
        if self.per_second is not None and not self.per_second > 0:
            raise UsageError(f"per_second = {self.per_second}: it must be more than 0")
        for name in ("allow", "deny", "proxies"):
            _networks(name, getattr(self, name))


class TokenBucket:
    """Holds amounts to a rate, with a burst: it fills at the rate, up to the burst, and may be overdrawn.

    Whatever passes only after the wait that `take` gives never exceeds, over any span of time, the rate times the span
    plus the burst (or plus the largest single amount, where that is more).

    Source: J. Turner, "New Directions in Communications" (IEEE Communications Magazine, 1986): the leaky bucket as
    a meter.

    Args:
        per_second: the amount that may pass per second, in the long run.
        burst: the amount that may pass at once.

    Raises:
        UsageError: one of them is not more than 0.
    """

    __slots__ = ("_at", "_level", "burst", "per_second")

    def __init__(self, per_second: float, burst: float) -> None:
        if not (per_second > 0 and burst > 0):
            raise UsageError(f"per_second = {per_second}, burst = {burst}: both must be more than 0")
        self.per_second = per_second
        self.burst = burst
        self._level = burst
        self._at = -math.inf

    def take(self, amount: float, now: float) -> float:
        """Takes an amount that has come already, and returns the seconds to wait until it is paid for; 0 if it is."""
        self._fill(now)
        self._level -= amount
        return -self._level / self.per_second if self._level < 0 else 0.0

    def try_take(self, amount: float, now: float) -> bool:
        """Takes an amount if it is there; returns whether."""
        self._fill(now)
        if amount > self._level:
            return False
        self._level -= amount
        return True

    def _fill(self, now: float) -> None:
        if now > self._at:
            self._level = min(self.burst, self._level + (now - self._at) * self.per_second)
            self._at = now


class Admission:
    """Says of each peer whether it may connect, and counts those that may. Reactor's thread.

    Each admission is to be paired with one `release`. It holds an entry only for addresses that have connections.

    Attributes:
        connections: how many are admitted just now.
        handshakes: how many of them are not established.
    """

    __slots__ = (
        "_allow", "_connections_of", "_deny", "_handshakes_of", "_limits", "_proxies", "_rate", "connections",
        "handshakes",
    )  # fmt: skip

    def __init__(self, limits: ConnectionLimits) -> None:
        self.connections = self.handshakes = 0
        self._limits = limits
        self._allow = _networks("allow", limits.allow)
        self._deny = _networks("deny", limits.deny)
        self._proxies = _networks("proxies", limits.proxies)
        self._rate = None if limits.per_second is None else TokenBucket(limits.per_second, limits.burst)
        self._connections_of = _Counts(limits.per_address)
        self._handshakes_of = _Counts(limits.handshakes_per_address)

    def admit(self, host: str, now: float) -> str | None:
        """Admits and counts a peer, or says why not. One that is refused uses up nothing.

        Args:
            host: its address without the port; empty for a peer at a Unix socket.
            now: the loop's time in seconds.

        Returns:
            None if it is admitted; else a word of `RefusalReason`.

        Raises:
            UsageError: the host is no address.
        """
        address = _address(host)
        if not self._may_come(address):
            return RefusalReason.DENIED
        if self.connections >= self._limits.connections:
            return RefusalReason.CONNECTIONS_LIMIT
        if self.handshakes >= self._limits.handshakes:
            return RefusalReason.HANDSHAKES_LIMIT
        key = self._key(address)
        if (reason := self._over_its_share(key)) is not None:
            return reason
        if self._rate is not None and not self._rate.try_take(1, now):
            return RefusalReason.RATE_LIMIT
        self.connections += 1
        self.handshakes += 1
        self._connections_of.add(key)
        self._handshakes_of.add(key)
        return None

    def needs_proxy_header(self, host: str) -> bool:
        """Whether connections from this host must begin with a PROXY header; else they may not."""
        return bool(self._proxies) and _within(_address(host), self._proxies)

    def admit_behind(self, host: str) -> str | None:
        """Judges the peer that a proxy's header names; its connection is admitted already, by the proxy's address.

        If it is admitted, its connection counts for it from now on, and `established` and `release` are to be called
        with this host; else they are to be called with the proxy's. Returns and raises as `admit`.
        """
        address = _address(host)
        if not self._may_come(address):
            return RefusalReason.DENIED
        key = self._key(address)
        if (reason := self._over_its_share(key)) is not None:
            return reason
        self._connections_of.add(key)
        self._handshakes_of.add(key)
        return None

    def established(self, host: str) -> None:
        """A peer that was admitted has said who it is. To be called at most once for each.

        Raises:
            UsageError: none from there is in its handshake.
        """
        if not self.handshakes:
            raise UsageError(f"no connection from {host!r} is in its handshake")
        self._handshakes_of.remove(self._key(_address(host)))
        self.handshakes -= 1

    def release(self, host: str, established: bool) -> None:
        """The connection of a peer that was admitted is gone.

        Args:
            host: as it was admitted.
            established: whether `established` was called for it.

        Raises:
            UsageError: none from there is admitted.
        """
        if not self.connections:
            raise UsageError(f"no connection from {host!r} is admitted")
        if not established:
            self.established(host)
        self._connections_of.remove(self._key(_address(host)))
        self.connections -= 1

    def _may_come(self, address: _Address | None) -> bool:
        if address is None:
            return True
        if _within(address, self._deny):
            return False
        return not self._allow or _within(address, self._allow) or _within(address, self._proxies)

    def _key(self, address: _Address | None) -> bytes | None:
        """What connections are counted by; None for those that are held to no limit per address."""
        if address is None or _within(address, self._proxies):
            return None
        return address.packed[:8]  # all of an IPv4 address, the network of an IPv6 one

    def _over_its_share(self, key: bytes | None) -> str | None:
        if self._connections_of.is_full(key):
            return RefusalReason.ADDRESS_LIMIT
        return RefusalReason.HANDSHAKES_LIMIT if self._handshakes_of.is_full(key) else None


class _Counts:
    """How many there are of each key, where there is a limit to it; a key that has none takes no room."""

    __slots__ = ("_counts", "_limit")

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._counts: dict[bytes, int] = {}

    def is_full(self, key: bytes | None) -> bool:
        return self._limit is not None and key is not None and self._counts.get(key, 0) >= self._limit

    def add(self, key: bytes | None) -> None:
        if self._limit is not None and key is not None:
            self._counts[key] = self._counts.get(key, 0) + 1

    def remove(self, key: bytes | None) -> None:
        if self._limit is None or key is None:
            return
        count = self._counts.pop(key, 0)
        if count < 1:
            raise UsageError("a connection was released or established that was not admitted")
        if count > 1:
            self._counts[key] = count - 1


def _address(host: str) -> _Address | None:
    """The address that counts; None for a Unix socket's peer."""
    if not host:
        return None
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise UsageError(f"{host!r} is no IPv4 or IPv6 address") from None
    return (isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped) or address


def _networks(name: str, texts: Iterable[str]) -> tuple[_Network, ...]:
    networks: list[_Network] = []
    for text in texts:
        try:
            network = ipaddress.ip_network(text)
        except ValueError as error:
            raise UsageError(f'{name}: {error}; write it like "10.0.0.0/8", "192.0.2.7" or "::1"') from None
        if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
            network = ipaddress.IPv4Network((network.network_address.packed[12:], network.prefixlen - 96))
        networks.append(network)
    return tuple(networks)


def _within(address: _Address | None, networks: tuple[_Network, ...]) -> bool:
    return address is not None and any(address in network for network in networks)
