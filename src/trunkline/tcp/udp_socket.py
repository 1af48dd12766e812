"""UDP sockets: how they are bound, connected and joined to groups, and which addresses they take."""

import asyncio
import socket
import struct
from typing import Any

import msgspec

from trunkline.errors import UsageError

__all__ = ["Address", "UdpOptions", "join_group", "numeric_address", "open_socket"]

Address = tuple[Any, ...]
"""Host and port; of an IPv6 peer flow and scope too. The host is numeric: a name would hold up the reactor."""


class UdpOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of an endpoint, and how its socket is made."""

    datagram_limit_bytes: int = 65_507
    """The longest datagram, received or sent; the default is the longest that UDP over IPv4 has."""
    unsent_limit_bytes: int = 262_144
    """Unsent bytes, over which what is sent is dropped and counted; as much again may be on its way from threads."""
    tasks_limit: int = 64
    """Callbacks that are coroutines and run at once; at the limit datagrams are dropped and counted."""
    inbox_limit: int = 1_024
    """Messages that wait for ``async for``; at the limit datagrams are dropped and counted."""
    close_timeout: float = 5.0
    """Seconds that `UdpEndpoint.close` may take to send what is unsent, and for coroutines to end."""
    reuse_port: bool = False
    """Whether several processes may bind the same port, to share what comes."""
    broadcast: bool = False
    """Whether datagrams may be sent to broadcast addresses."""


async def open_socket(host: str, port: int, options: UdpOptions, *, connect: bool = False) -> socket.socket:
    """A UDP socket for the running event loop, which looks the name up without being held up.

    Args:
        host: where to bind it or, with `connect`, whom to connect it to.
        port: the same's port.
        options: how it is made.
        connect: whether it speaks with one peer only.

    Raises:
        UsageError: the port is none, or sockets can't share one here.
        OSError: the name is not known, or the system refuses.
    """
    if not (int(connect) <= port < 65_536):  # uvloop takes it modulo 65,536
        raise UsageError(f"port = {port}: it must be {int(connect)} to 65535")
    if options.reuse_port and not hasattr(socket, "SO_REUSEPORT"):
        raise UsageError("reuse_port = true: this system has no such sockets")
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        if options.reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if options.broadcast:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        if connect:
            sock.connect(address)
        else:
            sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def join_group(sock: socket.socket, group: str, interface: str) -> None:
    """Has a socket receive what is sent to a multicast group.

    Args:
        sock: an IPv4 or IPv6 socket.
        group: the group's address.
        interface: where: over IPv4 an address of this machine, over IPv6 an interface's name. Empty for the
            system's choice.

    Raises:
        OSError: the group can't be joined there.
    """
    if sock.family == socket.AF_INET:
        own = socket.inet_aton(interface) if interface else bytes(4)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(group) + own)
    else:
        index = socket.if_nametoindex(interface) if interface else 0
        membership = socket.inet_pton(socket.AF_INET6, group) + struct.pack("@I", index)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, membership)


def numeric_address(family: int, address: Address) -> Address:
    """The address as event loops take it, which close the socket over one that is none, or look up a name.

    Raises:
        UsageError: it is no numeric host of the IP version with a port.
    """
    try:
        host, port, *rest = address
        socket.inet_pton(family, host.partition("%")[0])
        scope = rest[1] if len(rest) > 1 else 0
        if 0 < port < 65_536 and 0 <= scope < 2**32:
            return (host, int(port)) if family == socket.AF_INET else (host, int(port), 0, int(scope))
    except (OSError, TypeError, ValueError, AttributeError):
        pass
    version = "IPv4" if family == socket.AF_INET else "IPv6"
    raise UsageError(f"address = {address!r}: it must be a numeric {version} host and a port")
