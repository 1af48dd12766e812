"""Streams of compressed messages: one stream for each direction of a connection, flushed behind each message."""

import importlib
import struct
import zlib
from collections.abc import Iterator
from typing import Any, Final, Protocol

from trunkline.errors import BadFrame, FrameTooLarge, UsageError

__all__ = [
    "COMPRESSIONS",
    "Compressor",
    "Decompressor",
    "PackedMessages",
    "ZlibCompressor",
    "ZlibDecompressor",
    "ZstdCompressor",
    "ZstdDecompressor",
    "is_available",
]

COMPRESSIONS: Final = ("zstd", "zlib")
"""The names of the compressions that there are, best first. ``zstd`` needs the package zstandard."""

_ZLIB_WINDOW: Final = 12  # with a memory level of 5: 32 KiB to compress, instead of 256
_ZLIB_MEMORY: Final = 5
_ZSTD_WINDOW: Final = 14  # with tables of 2 ** 12 entries: some 150 KiB to compress
_ZSTD_TABLE: Final = 12

_SIZE: Final = struct.Struct(">I")
_PIECE_BYTES: Final = 4_096
_OUTPUT_BYTES: Final = 65_536


class Compressor(Protocol):
    """One direction's compressed stream, on the side that sends."""

    def compress(self, data: bytes) -> bytes:
        """What the stream goes on with, so that a reader that has all of it so far can read `data` to its end."""
        ...


class Decompressor(Protocol):
    """One direction's compressed stream, on the side that receives. After an error it is of no more use."""

    def decompress(self, data: bytes, limit_bytes: int) -> bytes:
        """What the next bytes of the stream decompress to.

        Args:
            data: the next bytes of the stream.
            limit_bytes: the most that they may decompress to. Hardly more than that is ever allocated.

        Raises:
            FrameTooLarge: they decompress to more.
            BadFrame: they can't be decompressed, or the stream ends in them.
        """
        ...


class ZlibCompressor:
    """A zlib stream (RFC 1950) with a ``Z_SYNC_FLUSH`` behind each message. Its memory is taken when it is made.

    Args:
        level: 0 (none) to 9 (best), or -1 for zlib's default.
        wbits: the window's size, as a power of 2: 9 to 15.
        memory_level: 1 (little memory) to 9. The memory is 2 ** (wbits + 2) + 2 ** (memory_level + 9) bytes.

    Raises:
        UsageError: zlib does not know these values.
    """

    __slots__ = ("_stream",)

    def __init__(self, level: int = -1, wbits: int = 15, memory_level: int = 8) -> None:
        try:
            self._stream = zlib.compressobj(level, zlib.DEFLATED, wbits, memory_level)
        except ValueError:
            raise UsageError(
                f"level = {level}, wbits = {wbits}, memory_level = {memory_level}: zlib does not take them"
            ) from None

    def compress(self, data: bytes) -> bytes:
        """What the stream goes on with. See `Compressor.compress`."""
        return self._stream.compress(data) + self._stream.flush(zlib.Z_SYNC_FLUSH)


class ZlibDecompressor:
    """Reads a zlib stream (RFC 1950) that never ends.

    Args:
        wbits: the largest window that the stream may have, as a power of 2: 9 to 15.

    Raises:
        UsageError: zlib does not know this value.
    """

    __slots__ = ("_stream",)

    def __init__(self, wbits: int = 15) -> None:
        try:
            self._stream = zlib.decompressobj(wbits)
        except ValueError:
            raise UsageError(f"wbits = {wbits}: zlib does not take it") from None

    def decompress(self, data: bytes, limit_bytes: int) -> bytes:
        """What the next bytes decompress to. See `Decompressor.decompress`."""
        output = _Output(limit_bytes)
        try:
            # zlib copies what it has not read yet each time that its output is full: so it gets little at once.
            for at in range(0, len(data), _PIECE_BYTES):
                self._read(data[at : at + _PIECE_BYTES], output)
        except zlib.error as error:
            raise BadFrame(f"a message can't be decompressed: {error}") from None
        if self._stream.eof:
            raise BadFrame("the compressed stream ends, which it may not while the connection lasts")
        return output.joined()

    def _read(self, piece: bytes, output: "_Output") -> None:
        while True:
            room = output.room
            part = self._stream.decompress(piece, room)
            output.add(part)
            if len(part) < room:
                return
            piece = self._stream.unconsumed_tail


class ZstdCompressor:
    """A Zstandard frame (RFC 8878) with a flush behind each message. Its memory is taken when it is made.

    Args:
        level: 1 (fast) to 19 (best).
        window_log: the window's size, as a power of 2: 10 to 27.

    Raises:
        UsageError: the package zstandard is not installed, or a value is out of range.
    """

    __slots__ = ("_flush", "_stream")

    def __init__(self, level: int = 3, window_log: int = _ZSTD_WINDOW) -> None:
        zstd = _zstandard()
        if not (1 <= level <= 19 and 10 <= window_log <= 27):
            raise UsageError(f"level = {level}, window_log = {window_log}: they must be 1 to 19, and 10 to 27")
        options = zstd.ZstdCompressionParameters.from_level(
            level, window_log=window_log, hash_log=_ZSTD_TABLE, chain_log=_ZSTD_TABLE
        )
        self._stream = zstd.ZstdCompressor(compression_params=options).compressobj()
        self._flush = zstd.COMPRESSOBJ_FLUSH_BLOCK

    def compress(self, data: bytes) -> bytes:
        """What the stream goes on with. See `Compressor.compress`."""
        compressed: bytes = self._stream.compress(data) + self._stream.flush(self._flush)
        return compressed


class ZstdDecompressor:
    """Reads a Zstandard frame (RFC 8878) that never ends, of which each message holds whole blocks.

    Args:
        window_log: the largest window that the frame may have, as a power of 2: 10 to 27.

    Raises:
        UsageError: the package zstandard is not installed, or the value is out of range.
    """

    __slots__ = ("_error", "_header_size", "_stream")

    _MAGIC = b"\x28\xb5\x2f\xfd"

    def __init__(self, window_log: int = _ZSTD_WINDOW) -> None:
        zstd = _zstandard()
        if not 10 <= window_log <= 27:
            raise UsageError(f"window_log = {window_log}: it must be 10 to 27")
        reader = zstd.ZstdDecompressor(max_window_size=1 << window_log)
        self._stream = reader.decompressobj(write_size=min(_OUTPUT_BYTES, 1 << window_log))
        self._header_size: Any = zstd.frame_header_size
        self._error: type[Exception] = zstd.ZstdError

    def decompress(self, data: bytes, limit_bytes: int) -> bytes:
        """What the next bytes decompress to. See `Decompressor.decompress`."""
        output = _Output(limit_bytes)
        try:
            for block in self._blocks(data):
                output.add(self._stream.decompress(block))
        except self._error as error:
            raise BadFrame(f"a message can't be decompressed: {error}") from None
        return output.joined()

    def _blocks(self, data: bytes) -> Iterator[bytes]:
        # The decompressor gives all that its input holds, however much. A block holds a window at most.
        at = 0
        if data and self._header_size is not None:
            if not data.startswith(self._MAGIC):
                raise BadFrame("a compressed stream does not begin as a Zstandard frame")
            at = self._header_size(data)
            if at > len(data):
                raise BadFrame("a compressed stream's first message ends within its head")
            self._header_size = None
            yield data[:at]
        while at < len(data):
            header = int.from_bytes(data[at : at + 3], "little")
            if header & 1:
                raise BadFrame("the compressed stream ends, which it may not while the connection lasts")
            end = at + 3 + (1 if header & 6 == 2 else header >> 3)  # a block of one repeated byte holds it once
            if end > len(data):
                raise BadFrame("a compressed message ends within a block")
            yield data[at:end]
            at = end


class _Output:
    """What a message has decompressed to so far."""

    __slots__ = ("_left", "_limit", "_parts")

    def __init__(self, limit_bytes: int) -> None:
        self._limit = self._left = limit_bytes
        self._parts: list[bytes] = []

    @property
    def room(self) -> int:
        """How much to ask for next: up to one byte too much, for that is how too much is noticed."""
        return min(self._left + 1, _OUTPUT_BYTES)

    def add(self, part: bytes) -> None:
        self._left -= len(part)
        if self._left < 0:
            raise FrameTooLarge(f"a message decompresses to more than {self._limit} bytes")
        self._parts.append(part)

    def joined(self) -> bytes:
        return b"".join(self._parts)


class PackedMessages:
    """Both directions of one native session's compressed messages.

    Each is the message's size in 4 bytes, big endian, and what the stream goes on with. A stream's memory is taken when
    its first message comes, and its window is small, so that an idle connection stays cheap.

    Args:
        sends: the compression of what is sent, one of `COMPRESSIONS` that is available.
        receives: the same for what is received.
    """

    __slots__ = ("_compressor", "_decompressor", "_receives", "_sends")

    def __init__(self, sends: str, receives: str) -> None:
        self._sends = sends
        self._receives = receives
        self._compressor: Compressor | None = None
        self._decompressor: Decompressor | None = None

    def pack(self, message: bytes) -> bytes:
        """What is to be sent for a message. It must be, for the stream goes on from there."""
        if self._compressor is None:
            zstd = self._sends == "zstd"
            self._compressor = ZstdCompressor() if zstd else ZlibCompressor(-1, _ZLIB_WINDOW, _ZLIB_MEMORY)
        return _SIZE.pack(len(message)) + self._compressor.compress(message)

    def unpack(self, packed: bytes, limit_bytes: int) -> bytes:
        """The message of what was received. After an error the session is over.

        Raises:
            FrameTooLarge: the message is over the limit, or it is longer than it states.
            BadFrame: it can't be decompressed, or it is shorter than it states.
        """
        if len(packed) < _SIZE.size:
            raise BadFrame("a compressed message does not state its size")
        (size,) = _SIZE.unpack_from(packed)
        if size > limit_bytes:
            raise FrameTooLarge(f"a compressed message has {size} bytes; the limit is {limit_bytes}")
        if self._decompressor is None:
            self._decompressor = ZstdDecompressor() if self._receives == "zstd" else ZlibDecompressor()
        message = self._decompressor.decompress(packed[_SIZE.size :], size)
        if len(message) < size:
            raise BadFrame(f"a message decompresses to {len(message)} bytes; it states {size}")
        return message


def is_available(name: str) -> bool:
    """Whether a compression can be used here.

    Raises:
        UsageError: no compression has that name.
    """
    if name not in COMPRESSIONS:
        raise UsageError(f'compression "{name}": it must be {" or ".join(COMPRESSIONS)}')
    try:
        return name == "zlib" or _zstandard() is not None
    except UsageError:
        return False


def _zstandard() -> Any:
    try:
        return importlib.import_module("zstandard")
    except ImportError:
        raise UsageError("zstd needs the package zstandard: pip install zstandard") from None
