"""The wire format of SimpleReactor, so that its servers and clients can be talked to, or replaced one by one."""

import struct
import zlib
from collections.abc import Callable
from typing import Literal, NoReturn

from trunkline.errors import BadFrame, FrameTooLarge, ProtocolError, UsageError
from trunkline.wire.compression import ZlibCompressor
from trunkline.wire.session import UNPACKED_BYTES, Session

__all__ = ["SimpleReactorWire"]

_NUMBER = struct.Struct("<I")
_DATA = _NUMBER.pack(1)
_HEARTBEAT = _NUMBER.pack(2)
_TYPE_BYTES = 4
_LEAST_LIMIT = 256  # a heartbeat holds two addresses and a time as text
_PASSED_OVER_LIMIT = 100
# RFC 1950, section 2.2: method 8, a window of 2^(n+8) bytes, a level; as a number it divides by 31.
_ZLIB_HEADS = tuple(
    (head + 31 - head % 31).to_bytes(2)
    for window in range(1, 8)
    for level in range(4)
    for head in [(window << 4 | 8) << 8 | level << 6]
)


class SimpleReactorWire(Session):
    """Speaks as SimpleReactor's server or its client does.

    A frame is its length in 4 bytes, little endian, and so many bytes. With compression, all frames of one direction
    are one zlib stream, flushed with ``Z_SYNC_FLUSH`` behind each; a frame then is its next piece. Inside is a payload:
    a type in 4 bytes, little endian, and its data. Type 1 is a message, type 2 a heartbeat. There is no hello, no
    farewell and no answer to a heartbeat. Both sides have to be told the same about compression. Source:
    https://github.com/LightCong/SimpleReactor (message_codec.py, payload_codec.py, compress.py, system_service.py).

    The server sends a heartbeat each second, whatever else it sends; the client sends none, and closes when nothing
    came for two seconds: the interval is 1 s, where the options do not say otherwise, and the misses are 2.

    A payload of another type, or a message without data, is passed over, as the original does: its users may have
    types of their own. They take no memory, but a peer that sends more than 100 on end speaks something else: that is
    an error. So is, at once, a peer that compresses where this side does not, and the other way round.

    With compression a connection takes 32 KiB once it has sent, and 40 KiB once it has received. zlib's own defaults,
    ``wbits=15, memory_level=8``, which the original has, take 256 KiB to send, and with many connections a quarter more
    time, since so much does not stay in the processor's cache; peers can read either. No more than twice the limit is
    allocated for what a message decompresses to, and nothing of it is kept.

    What `encode` returns must be sent, and in the order of the calls: the peer can't read a stream that lacks a piece.

    Args:
        role: which of the two this side is.
        compression: whether both directions are compressed, as is SimpleReactor's default.
        limit_bytes: the longest message, and the longest data of a heartbeat that is received; 256 or more.
        heartbeat: what the server's heartbeats say. The original's hold ``host#peer#time``, which its client does not
            look at; they can't be empty.
        wbits: the window's size of what is sent, as a power of 2: 9 to 15.
        memory_level: the memory for what is sent: 1 (little) to 9. See `ZlibCompressor`.

    Raises:
        UsageError: one of these can't be.
    """

    heartbeat_interval = 1.0

    __slots__ = (
        "_compress", "_decompressor", "_frame_limit", "_heartbeat", "_memory_level", "_need", "_passed_over",
        "_payload_limit", "_rest", "_wbits", "always_beats", "compression", "judges_silence", "limit_bytes", "role",
    )  # fmt: skip

    def __init__(
        self,
        role: Literal["server", "client"],
        compression: bool = True,
        limit_bytes: int = 1_048_576,
        *,
        heartbeat: bytes = b"host#peer#0",
        wbits: int = 12,
        memory_level: int = 5,
    ) -> None:
        if role not in ("server", "client"):
            raise UsageError(f'role = {role!r}: it must be "server" or "client"')
        if not _LEAST_LIMIT <= limit_bytes < 1 << 31:
            raise UsageError(f"limit_bytes = {limit_bytes}: it must be {_LEAST_LIMIT} to {(1 << 31) - 1}")
        if not 1 <= len(heartbeat) <= _LEAST_LIMIT:
            raise UsageError(f"heartbeat: it has {len(heartbeat)} bytes; it must have 1 to {_LEAST_LIMIT}")
        if not (9 <= wbits <= 15 and 1 <= memory_level <= 9):
            raise UsageError(f"wbits = {wbits}, memory_level = {memory_level}: they must be 9 to 15, and 1 to 9")
        super().__init__()
        self.role = role
        self.compression = compression
        self.limit_bytes = limit_bytes
        self.established = True
        self.always_beats = role == "server"
        self.judges_silence = role == "client"
        self._heartbeat = _HEARTBEAT + heartbeat
        self._wbits = wbits
        self._memory_level = memory_level
        self._payload_limit = self._frame_limit = _TYPE_BYTES + limit_bytes
        if compression:
            # What can't be compressed grows: by less than 1 in 1000 with zlib, by 1 in 8 with its hastiest relatives.
            self._frame_limit += self._payload_limit // 8 + 64
        self._compress: Callable[[bytes], bytes] | None = None
        self._decompressor: zlib._Decompress | None = None
        self._passed_over = 0
        self._rest = bytearray()
        self._need = _NUMBER.size

    def start(self) -> None:
        """Nothing is said at first."""

    def ping(self) -> None:
        """Puts a heartbeat into `output`, where this side is the server."""
        if self.always_beats:
            self.output += self._frame(self._heartbeat)

    def close(self, reason: str) -> None:
        """There is no farewell."""

    @property
    def unfinished(self) -> bool:
        """Whether a part of a frame is held. See `Framer.unfinished`."""
        return bool(self._rest) and not self.has_more

    def receive(self, data: bytes) -> list[bytes]:
        """The messages that `data` completes. See `Framer.receive`."""
        rest = self._rest
        if self.error is not None:
            return []
        if rest:
            rest += data
            if len(rest) < self._need:
                return []
            data = bytes(rest)
            rest.clear()
        messages: list[bytes] = []
        unpack, longest, compressed = _NUMBER.unpack_from, self._frame_limit, self.compression
        size = len(data)
        at, last = 0, size - 4
        need, room = 4, UNPACKED_BYTES
        self.has_more = False
        while at <= last:
            (length,) = unpack(data, at)
            if length > longest:
                self._fail(FrameTooLarge(f"a frame has {length} bytes; the limit is {longest}"))
                return messages
            start = at + 4
            end = start + length
            if end > size:
                need = 4 + length
                break
            payload = self._decompressed(data[start:end]) if compressed else data[start:end]
            if payload is None:
                return messages
            if payload.startswith(_DATA) and len(payload) > 4:
                messages.append(payload[4:])
                self._passed_over = 0
            elif not self._passes_over(payload):
                return messages
            at = end
            if compressed:
                room -= len(payload)
                if room < 0 and at < size:
                    self.has_more = True
                    break
        if at < size:
            rest += data[at:]
            self._need = need
        return messages

    def _decompressed(self, frame: bytes) -> bytes | None:
        """The payload in a frame; None where there is none, and the error is set."""
        # Not by ZlibDecompressor: small messages are what counts here, and for them it takes five times as long.
        decompressor = self._decompressor
        if decompressor is None:
            decompressor = self._decompressor = zlib.decompressobj()
        try:
            payload = decompressor.decompress(frame, self._payload_limit + 1)
        except zlib.error as error:
            self._fail(BadFrame(f"a frame can't be decompressed (does the peer compress?): {error}"))
            return None
        if len(payload) > self._payload_limit:
            self._fail(FrameTooLarge(f"a frame decompresses to more than {self._payload_limit} bytes"))
            return None
        if decompressor.eof:
            self._fail(BadFrame("the compressed stream ends, which it may not while the connection lasts"))
            return None
        return payload

    def _passes_over(self, payload: bytes) -> bool:
        """Whether a payload that is no message can be passed over; if not, the error is set."""
        if payload.startswith(_HEARTBEAT):
            self._passed_over = 0
            return True
        self._passed_over += 1
        if len(payload) < _TYPE_BYTES:
            self._fail(BadFrame(f"a payload has {len(payload)} bytes; its type alone has {_TYPE_BYTES}"))
        elif not self.compression and payload.startswith(_ZLIB_HEADS):
            self._fail(BadFrame("the peer compresses; this side was told not to"))
        elif self._passed_over > _PASSED_OVER_LIMIT:
            (kind,) = _NUMBER.unpack_from(payload)
            what = f"more than {_PASSED_OVER_LIMIT} payloads on end are no messages and no heartbeats"
            self._fail(BadFrame(f"{what}, the last of type {kind}"))
        return self.error is None

    def _fail(self, error: ProtocolError) -> None:
        self.error = error
        self._decompressor = None

    def check(self, message: bytes) -> None:
        """Whether it has a length that can be sent. See `Framer.check`."""
        if not 0 < len(message) <= self.limit_bytes:
            self._refuse(message)

    def encode(self, message: bytes) -> bytes:
        """The frame of a message. With compression it can be read only behind all frames before it.

        Raises:
            UsageError: it is empty, which SimpleReactor does not send either, or over the limit.
        """
        if not 0 < len(message) <= self.limit_bytes:
            self._refuse(message)
        return self._frame(_DATA + message)

    def encode_all(self, messages: list[bytes]) -> bytes:
        """The frames of several messages. See `Framer.encode_all`."""
        # All are looked at first: what is compressed is part of the stream, and has to be sent.
        for message in messages:
            if not 0 < len(message) <= self.limit_bytes:
                self._refuse(message)
        return b"".join([self._frame(_DATA + message) for message in messages])

    def _refuse(self, message: bytes) -> NoReturn:
        if not message:
            raise UsageError("an empty message can't be sent: SimpleReactor has none")
        raise UsageError(f"the message has {len(message)} bytes; the limit is {self.limit_bytes}")

    def _frame(self, payload: bytes) -> bytes:
        if self.compression:
            compress = self._compress
            if compress is None:
                # zlib takes the memory at once; a connection that sends nothing should not pay for it.
                compress = self._compress = ZlibCompressor(-1, self._wbits, self._memory_level).compress
            payload = compress(payload)
        return _NUMBER.pack(len(payload)) + payload
