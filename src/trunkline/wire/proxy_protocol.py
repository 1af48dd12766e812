"""The PROXY protocol: the header in which a proxy says whose connection it passes on."""

import enum
import ipaddress
import struct
from collections.abc import Iterable

from trunkline.errors import BadFrame, UsageError

__all__ = ["V1_LIMIT_BYTES", "V2_LIMIT_BYTES", "Endpoint", "ProxyHeader", "TlvType", "crc32c", "encode_v1", "encode_v2"]

Endpoint = tuple[str, int]
"""An address without a port, and the port."""

V1_LIMIT_BYTES = 107
"""The longest header of version 1, with its end."""
V2_LIMIT_BYTES = 4_096
"""The longest that may follow the fixed 16 bytes of a header of version 2."""

_V1_START = b"PROXY "
_V2_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_V2_FIXED = 16
_PORT_MAX = 65_535
_LOCAL, _PROXY = 0, 1
_ADDRESS_BYTES = {0: 0, 1: 4, 2: 16, 3: 108}  # by family: unspecified, IPv4, IPv6, Unix
_STREAM, _PROTOCOLS = 1, (0, 1, 2)


class TlvType(enum.IntEnum):
    """What a proxy may say besides the addresses (section 2.2 of the specification)."""

    ALPN = 0x01
    """The protocol that the peer asked for in TLS."""
    AUTHORITY = 0x02
    """The host name that the peer asked for, in UTF-8."""
    CRC32C = 0x03
    """The header's checksum, which `ProxyHeader` has checked."""
    NOOP = 0x04
    """Padding."""
    UNIQUE_ID = 0x05
    """The proxy's id of the connection, up to 128 bytes."""
    SSL = 0x20
    """How the peer came to the proxy over TLS: a structure of its own."""
    NETNS = 0x30
    """The name of the peer's network namespace."""


class ProxyHeader:
    """Takes the header of version 1 or 2 off the front of a connection.

    One object serves one connection. However the stream is split into calls of `receive`, the outcome is the same.
    It holds at most one unfinished header.

    Only headers from known proxies are to be believed: whoever may send one can pass for anybody.

    Source: W. Tarreau, "The PROXY protocol" (https://www.haproxy.org/download/1.8/doc/proxy-protocol.txt).

    Attributes:
        version: 1 or 2 when the header is complete, else 0.
        source: the peer's address and port; None where the proxy speaks for itself (``LOCAL``), or the peer has no
            such address (``UNKNOWN``, a Unix socket): the connection's own address holds then.
        destination: the address and port that the peer connected to; None as above.
        tlvs: what else stood in a header of version 2: pairs of a type (see `TlvType`) and a value, in their order.
    """

    __slots__ = ("_failed", "_held", "destination", "source", "tlvs", "version")

    def __init__(self) -> None:
        self.version = 0
        self.source: Endpoint | None = None
        self.destination: Endpoint | None = None
        self.tlvs: tuple[tuple[int, bytes], ...] = ()
        self._held = b""
        self._failed = ""

    def receive(self, data: bytes) -> bytes | None:
        """Takes the next bytes of the stream.

        Returns:
            None while the header is not complete; then what came after it, with this call and each later one.

        Raises:
            BadFrame: this is no PROXY header, or it can't be read; from then on at each call.
        """
        if self.version:
            return data
        try:
            if self._failed:
                raise BadFrame(self._failed)
            return self._read(self._held + data)
        except BadFrame as error:
            self._failed = str(error)
            self._held = b""
            raise

    def _read(self, data: bytes) -> bytes | None:
        if data.startswith(_V2_SIGNATURE[: len(data)]):
            end = _v2_end(data)
            if end is not None:
                self._read_v2(data[:end])
        elif data.startswith(_V1_START[: len(data)]):
            end = _v1_end(data)
            if end is not None:
                self._read_v1(data[: end - 2])
        else:
            raise BadFrame("the connection does not begin with a PROXY header")
        if end is None:
            self._held = data
            return None
        self._held = b""
        return data[end:]

    def _read_v1(self, line: bytes) -> None:
        family, *fields = line[len(_V1_START) :].split(b" ")
        if family != b"UNKNOWN":
            if family not in (b"TCP4", b"TCP6") or len(fields) != 4:
                raise BadFrame(
                    "a PROXY header of version 1 is not of the form PROXY TCP4|TCP6|UNKNOWN SRC DST PORT PORT"
                )
            source, destination, source_port, destination_port = fields
            self.source, self.destination = (
                (_v1_host(family, host), _v1_port(port))
                for host, port in ((source, source_port), (destination, destination_port))
            )
        self.version = 1

    def _read_v2(self, header: bytes) -> None:
        command, family, protocol = header[12] & 15, header[13] >> 4, header[13] & 15
        # Of a header that names no address nothing is used. What it holds has no known form, so it is not read at all.
        if command == _PROXY and family and protocol:
            size = _ADDRESS_BYTES[family]
            at = _V2_FIXED + 2 * size
            if family != 3:
                ports = struct.unpack_from("!HH", header, at)
                at += 4
            self.tlvs = _tlvs(header, at)
            if family != 3:
                hosts = (header[start : start + size] for start in (_V2_FIXED, _V2_FIXED + size))
                self.source, self.destination = (
                    (str(ipaddress.ip_address(host)), port) for host, port in zip(hosts, ports, strict=True)
                )
        self.version = 2


def _v1_end(data: bytes) -> int | None:
    """Where the header ends; None if not in these bytes."""
    end = data.find(b"\r\n", 0, V1_LIMIT_BYTES)
    if end >= 0:
        return end + 2
    if len(data) >= V1_LIMIT_BYTES:
        raise BadFrame(f"a PROXY header of version 1 does not end within {V1_LIMIT_BYTES} bytes")
    return None


def _v1_host(family: bytes, field: bytes) -> str:
    new_address = ipaddress.IPv4Address if family == b"TCP4" else ipaddress.IPv6Address
    try:
        host = str(new_address(field.decode("ascii")))
    except ValueError:
        host = ""
    if not host or "%" in host:
        raise BadFrame(f"an address in a PROXY header of version 1 is not one of {family.decode('ascii')}")
    return host


def _v1_port(field: bytes) -> int:
    # The digits' form is checked first: int() takes spaces, signs and underscores too.
    if not field.isdigit() or (field.startswith(b"0") and len(field) > 1):
        raise BadFrame("a port in a PROXY header of version 1 is no decimal number")
    port = int(field)
    if port > _PORT_MAX:
        raise BadFrame("a port in a PROXY header of version 1 is over 65535")
    return port


def _v2_end(data: bytes) -> int | None:
    """Where the header ends; None if not in these bytes. What comes first is judged first, as soon as it is there."""
    if len(data) > 12 and data[12] not in (0x20 | _LOCAL, 0x20 | _PROXY):
        raise BadFrame(f"a PROXY header has version and command 0x{data[12]:02x}; known are 0x20 and 0x21")
    if len(data) > 13 and (data[13] >> 4 not in _ADDRESS_BYTES or data[13] & 15 not in _PROTOCOLS):
        raise BadFrame(f"a PROXY header has the unknown family and protocol 0x{data[13]:02x}")
    if len(data) < _V2_FIXED:
        return None
    size = int.from_bytes(data[14:16], "big")
    if size > V2_LIMIT_BYTES:
        raise BadFrame(f"a PROXY header promises {size} bytes; the limit is {V2_LIMIT_BYTES}")
    family, protocol = data[13] >> 4, data[13] & 15
    least = 2 * _ADDRESS_BYTES[family] + (4 if family in (1, 2) else 0)
    if data[12] & 15 == _PROXY and protocol and size < least:
        raise BadFrame(f"a PROXY header promises {size} bytes; its addresses alone have {least}")
    return _V2_FIXED + size if len(data) >= _V2_FIXED + size else None


def _tlvs(header: bytes, at: int) -> tuple[tuple[int, bytes], ...]:
    """What follows the addresses, without padding; the checksum is checked."""
    tlvs: list[tuple[int, bytes]] = []
    while at < len(header):
        start = at + 3
        at = start + int.from_bytes(header[start - 2 : start], "big")
        if at > len(header):
            raise BadFrame("a part of a PROXY header is longer than the header")
        kind, value = header[start - 3], header[start:at]
        if kind == TlvType.CRC32C:
            zeroed = header[:start] + bytes(len(value)) + header[at:]
            if len(value) != 4 or int.from_bytes(value, "big") != crc32c(zeroed):
                raise BadFrame("the checksum of a PROXY header is wrong")
        if kind != TlvType.NOOP:
            tlvs.append((kind, value))
    return tuple(tlvs)


def encode_v1(source: Endpoint | None = None, destination: Endpoint | None = None) -> bytes:
    """A header of version 1, as a proxy sends it.

    Args:
        source: the peer's address and port; None for ``UNKNOWN``.
        destination: the address and port that the peer connected to; None exactly if `source` is.

    Raises:
        UsageError: one is given without the other, they are not of one family, or one is no address and port.
    """
    pair = _checked_pair(source, destination)
    if pair is None:
        return b"PROXY UNKNOWN\r\n"
    (source_ip, source_port), (destination_ip, destination_port) = pair
    line = f"PROXY TCP{source_ip.version} {source_ip} {destination_ip} {source_port} {destination_port}\r\n"
    return line.encode("ascii")


def encode_v2(
    source: Endpoint | None = None,
    destination: Endpoint | None = None,
    tlvs: Iterable[tuple[int, bytes]] = (),
    *,
    checksum: bool = False,
) -> bytes:
    """A header of version 2, as a proxy sends it.

    Args:
        source: the peer's address and port; None for ``LOCAL``: the proxy's own connection, say to check on a server.
        destination: the address and port that the peer connected to; None exactly if `source` is.
        tlvs: what else to say: pairs of a type (see `TlvType`) and a value.
        checksum: whether to add a CRC32C.

    Raises:
        UsageError: as `encode_v1`; or the header is over the limit, or a type is not within 0 to 255.
    """
    pair = _checked_pair(source, destination)
    if pair is None:
        command, family, body = _LOCAL, 0, b""
    else:
        (source_ip, source_port), (destination_ip, destination_port) = pair
        command, family = _PROXY, (1 if source_ip.version == 4 else 2) << 4 | _STREAM
        body = source_ip.packed + destination_ip.packed + struct.pack("!HH", source_port, destination_port)
    tlvs = [*tlvs, (TlvType.CRC32C, bytes(4))] if checksum else list(tlvs)
    size = len(body) + sum(3 + len(value) for _, value in tlvs)
    if size > V2_LIMIT_BYTES or not all(0 <= kind <= 255 for kind, _ in tlvs):
        raise UsageError(f"the header has {size} bytes; the limit is {V2_LIMIT_BYTES}, and types are 0 to 255")
    body += b"".join(struct.pack("!BH", kind, len(value)) + value for kind, value in tlvs)
    header = _V2_SIGNATURE + struct.pack("!BBH", 0x20 | command, family, len(body)) + body
    return header[:-4] + crc32c(header).to_bytes(4, "big") if checksum else header


_IpEndpoint = tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]


def _checked_pair(source: Endpoint | None, destination: Endpoint | None) -> tuple[_IpEndpoint, _IpEndpoint] | None:
    if source is None and destination is None:
        return None
    if source is None or destination is None:
        raise UsageError("a PROXY header has both a source and a destination, or none of them")
    try:
        pair = (ipaddress.ip_address(source[0]), source[1]), (ipaddress.ip_address(destination[0]), destination[1])
    except ValueError as error:
        raise UsageError(f"a PROXY header can't be made: {error}") from None
    if pair[0][0].version != pair[1][0].version or any("%" in str(ip) for ip, _ in pair):
        raise UsageError(f"{source[0]} and {destination[0]} are not of one family, or have a zone")
    if not all(0 <= port <= _PORT_MAX for _, port in pair):
        raise UsageError(f"the ports {source[1]} and {destination[1]} are not both within 0 to {_PORT_MAX}")
    return pair


def _crc32c_of_byte(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value


_CRC32C = [_crc32c_of_byte(value) for value in range(256)]


def crc32c(data: bytes) -> int:
    """The CRC-32C (Castagnoli) of some bytes. Source: RFC 3720, appendix B.4, which also has test vectors."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC32C[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF
