"""What the kernel knows of a TCP connection."""

import socket
import struct
import sys
from typing import Any

import msgspec

__all__ = ["TcpInfo", "address_text", "tcp_info"]

_LAYOUT = struct.Struct("=8B24I")
"""The front of ``struct tcp_info`` in Linux's include/uapi/linux/tcp.h, which only ever grew at its end."""


class TcpInfo(msgspec.Struct, frozen=True):
    """Some of what Linux keeps of a connection."""

    state: int
    """As in Linux's ``net/tcp_states.h``; 1 is established."""
    retransmits: int
    """Retransmissions in a row, without an answer yet."""
    round_trip: float
    """The smoothed round trip time in seconds."""
    round_trip_variance: float
    """Its mean deviation in seconds."""
    unacknowledged: int
    """Segments that are sent and not acknowledged."""
    lost: int
    """Segments that are taken for lost."""
    total_retransmits: int
    """Retransmissions since the connection began."""
    congestion_window: int
    """Segments that may be on their way."""
    last_received: float
    """Seconds since the last data came."""
    segment_bytes: int
    """The largest segment that is sent."""


def tcp_info(sock: Any) -> TcpInfo | None:
    """What the kernel knows of a TCP socket; None where it does not tell (not Linux, not TCP, or closed)."""
    if not sys.platform.startswith("linux") or sock is None:
        return None
    try:
        raw = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAYOUT.size)
    except OSError:
        return None
    if len(raw) < _LAYOUT.size:
        return None
    fields = _LAYOUT.unpack(raw)
    state, retransmits = fields[0], fields[2]
    (
        _rto, _ato, send_segment, _receive_segment, unacknowledged, _sacked, lost, _retransmitted, _fackets,
        _last_sent, _last_ack_sent, last_received, _last_ack, _path_mtu, _receive_threshold, round_trip, variance,
        _slow_start, congestion_window, _advertised, _reordering, _receive_round_trip, _receive_space, total,
    ) = fields[8:]  # fmt: skip
    return TcpInfo(
        state=state,
        retransmits=retransmits,
        round_trip=round_trip / 1e6,
        round_trip_variance=variance / 1e6,
        unacknowledged=unacknowledged,
        lost=lost,
        total_retransmits=total,
        congestion_window=congestion_window,
        last_received=last_received / 1e3,
        segment_bytes=send_segment,
    )


def address_text(address: Any) -> str:
    """A socket's address as ``host:port``, with an IPv6 host in brackets; a unix socket's path, or nothing."""
    if isinstance(address, tuple):
        host = f"[{address[0]}]" if ":" in address[0] else address[0]
        return f"{host}:{address[1]}"
    return address if isinstance(address, str) else ""
