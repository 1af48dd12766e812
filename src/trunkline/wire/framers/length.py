"""Messages behind a field that holds their length."""

import struct
from typing import Literal

from trunkline.errors import BadFrame, FrameTooLarge, UsageError
from trunkline.wire.framers.base import PrefixFramer, checked_limit

__all__ = ["LengthFramer", "VarintFramer"]

_RUN_AFTER = 3  # frames, after which it is tried whether all that follow are as long as the last


class _ThreeBytes:
    """A field of 3 bytes, for which `struct` has no letter, with the methods of `struct.Struct`."""

    def __init__(self, order: Literal["big", "little"]) -> None:
        self._order = order

    def unpack_from(self, data: bytes, at: int = 0) -> tuple[int]:
        return (int.from_bytes(data[at : at + 3], self._order),)

    def pack(self, value: int) -> bytes:
        try:
            return value.to_bytes(3, self._order)
        except OverflowError as error:
            raise struct.error(str(error)) from None

    def pack_into(self, frame: bytearray, at: int, value: int) -> None:
        frame[at : at + 3] = self.pack(value)


_FIELDS: dict[tuple[int, str], struct.Struct | _ThreeBytes] = {
    (size, order): struct.Struct(sign + letter)
    for size, letter in ((1, "B"), (2, "H"), (4, "I"), (8, "Q"))
    for order, sign in (("big", ">"), ("little", "<"))
}
_FIELDS |= {(3, "big"): _ThreeBytes("big"), (3, "little"): _ThreeBytes("little")}


class LengthFramer(PrefixFramer):
    """Cuts frames by a length field of 1, 2, 3, 4 or 8 bytes, wherever in the head it stands and whatever it counts.

    A frame is ``offset`` bytes, the field, and then as many bytes as the field's value and ``adjustment`` say. A
    message is the frame without its first ``strip`` bytes. This is as general as Netty's
    LengthFieldBasedFrameDecoder (https://netty.io/4.1/api/io/netty/handler/codec/LengthFieldBasedFrameDecoder.html).

    Args:
        limit_bytes: the longest frame, head included. A longer one is an error as soon as its length is read,
            before a byte of it is kept.
        size: bytes of the length field: 1, 2, 3, 4 or 8.
        order: ``big`` or ``little`` endian.
        offset: bytes before the field.
        adjustment: what to add to the field's value to have the number of bytes behind the field. Where the
            field counts itself too, that is ``-size``.
        strip: bytes to leave out of a frame's front; None for all up to the end of the field. It may be more: a
            frame that is shorter than that is an error.
        prefix: what `encode` puts into the bytes that are stripped, where those of the field are overwritten: either
            all of them, or those before the field alone. What it does not give is zeros.

    Raises:
        UsageError: sizes that can't go together.
    """

    __slots__ = ("_field", "_front", "_head", "_longest", "_pack", "_plain", "_unpack", "adjustment", "offset", "strip")

    def __init__(
        self,
        limit_bytes: int = 1_048_576,
        *,
        size: Literal[1, 2, 3, 4, 8] = 4,
        order: Literal["big", "little"] = "big",
        offset: int = 0,
        adjustment: int = 0,
        strip: int | None = None,
        prefix: bytes | None = None,
    ) -> None:
        if (size, order) not in _FIELDS:
            raise UsageError(
                f'size = {size}, order = "{order}": it must be 1, 2, 3, 4 or 8 bytes, "big" or "little" endian'
            )
        self._field = _FIELDS[size, order]
        self._head = offset + size
        self.limit_bytes = limit_bytes
        self.offset = offset
        self.adjustment = adjustment
        self.strip = self._head if strip is None else strip
        if offset < 0 or self.strip < 0:
            raise UsageError(f"offset = {offset}, strip = {strip}: they must be 0 or more")
        if limit_bytes < max(self._head, self.strip):
            raise UsageError(
                f"limit_bytes = {limit_bytes}: it can't hold a head of {max(self._head, self.strip)} bytes"
            )
        before = min(offset, self.strip)
        if prefix is not None and len(prefix) not in (before, self.strip):
            raise UsageError(
                f"prefix: it must have the {before} bytes that are stripped before the field, or all {self.strip}"
            )
        self._front = (prefix or b"").ljust(self.strip, b"\0")
        super().__init__()
        self._plain = offset == 0 and adjustment == 0 and self.strip == size
        self._longest = limit_bytes - self._head
        self._pack, self._unpack = self._field.pack, self._field.unpack_from

    def receive(self, data: bytes) -> list[bytes]:
        """The messages that `data` completes. See `Framer.receive`."""
        # One whole frame by itself is what comes from a peer that waits for each answer: by the shortest way.
        if self._plain and not self._rest and self.error is None:
            length = len(data) - self._head
            if 0 <= length <= self._longest and self._unpack(data)[0] == length:
                return [data[self._head :]]
        return super().receive(data)

    def _cut(self, data: bytes) -> list[bytes]:
        if not self._plain:
            return self._cut_any(data)
        # The common case, a field in front that counts what follows it, by the shortest way.
        head, unpack, longest = self._head, self._unpack, self._longest
        size = len(data)
        messages: list[bytes] = []
        at, need = 0, head
        last = size - head
        while at <= last:
            (length,) = unpack(data, at)
            if length > longest:
                self._too_large(head + length)
                return messages
            start = at + head
            end = start + length
            if end > size:
                need = head + length
                break
            messages.append(data[start:end])
            at = end
            if len(messages) == _RUN_AFTER:
                at = self._cut_run(data, at, length, messages)
        if at < size:
            self._rest += data[at:]
            self._need = need
        return messages

    def _cut_run(self, data: bytes, at: int, length: int, messages: list[bytes]) -> int:
        """Cuts the frames from `at` on if all have one length, as those of a fleet often do; returns where they end."""
        head, step = self._head, self._head + length
        count = (len(data) - at) // step
        end = at + count * step
        for index in range(at, at + head):
            if data[index:end:step] != data[index - step : index - step + 1] * count:
                return at
        messages += [data[start : start + length] for start in range(at + head, end + 1, step)]
        return end

    def _cut_any(self, data: bytes) -> list[bytes]:
        messages: list[bytes] = []
        head, offset, strip, unpack = self._head, self.offset, self.strip, self._field.unpack_from
        at, size = 0, len(data)
        need, least = head, max(head, strip)
        while size - at >= head:
            total = head + unpack(data, at + offset)[0] + self.adjustment
            if total > self.limit_bytes:
                self._too_large(total)
                return messages
            if total < least:
                self.error = BadFrame(f"a frame's length field makes it {total} bytes long; its head alone has {least}")
                return messages
            if total > size - at:
                need = total
                break
            messages.append(data[at + strip : at + total])
            at += total
        if at < size:
            self._rest += data[at:]
            self._need = need
        return messages

    def _too_large(self, total: int) -> None:
        self.error = FrameTooLarge(f"a frame has {total} bytes; the limit is {self.limit_bytes}")

    def encode_all(self, messages: list[bytes]) -> bytes:
        """The frames of several messages. See `Framer.encode_all`."""
        if not self._plain:
            return super().encode_all(messages)
        lengths = set(map(len, messages))
        if not lengths or max(lengths) > self._longest:
            return super().encode_all(messages)  # which names the one that is too long
        pack = self._pack
        try:
            if len(lengths) == 1:
                front = pack(lengths.pop())
                return front + front.join(messages)
            return b"".join([pack(len(message)) + message for message in messages])
        except struct.error:
            return super().encode_all(messages)

    def check(self, message: bytes) -> None:
        """Whether it is too long, where only the field is added. See `Framer.check`."""
        if self._plain and len(message) > self._longest:
            raise UsageError(f"the frame has {len(message) + self._head} bytes; the limit is {self.limit_bytes}")

    def encode(self, message: bytes) -> bytes:
        """The frame of a message, in the form in which `receive` returns it.

        Where the field itself is not stripped, its place in the message is overwritten with the right value.

        Raises:
            UsageError: the frame would be over the limit, or its length does not fit the field.
        """
        if self._plain:
            if len(message) > self._longest:
                raise UsageError(f"the frame has {len(message) + self._head} bytes; the limit is {self.limit_bytes}")
            try:
                return self._pack(len(message)) + message
            except struct.error:
                raise UsageError(f"{len(message)} bytes: the length does not fit the field") from None
        frame = bytearray(self._front)
        frame += message
        if not self._head <= len(frame) <= self.limit_bytes:
            raise UsageError(f"the frame has {len(frame)} bytes; it must be {self._head} to {self.limit_bytes}")
        try:
            self._field.pack_into(frame, self.offset, len(frame) - self._head - self.adjustment)
        except struct.error:
            raise UsageError(f"{len(message)} bytes: the length does not fit the field") from None
        return bytes(frame)


class VarintFramer(PrefixFramer):
    """Cuts messages by a length in front of each, as a base-128 varint, low groups first.

    Source: Protocol Buffers, "Base 128 Varints" (https://protobuf.dev/programming-guides/encoding/#varints).

    Args:
        limit_bytes: the longest message.
    """

    __slots__ = ()

    _LONGEST_VARINT = 10  # 64 bits in groups of 7

    def __init__(self, limit_bytes: int = 1_048_576) -> None:
        self.limit_bytes = checked_limit(limit_bytes)
        super().__init__()

    def _cut(self, data: bytes) -> list[bytes]:
        messages: list[bytes] = []
        at, size = 0, len(data)
        need = 1
        while at < size:
            length, start = self._length(data, at)
            if length < 0:
                return messages
            if start == 0:
                need = size - at + 1
                break
            if start + length > size:
                need = start - at + length
                break
            messages.append(data[start : start + length])
            at = start + length
        if at < size:
            self._rest += data[at:]
            self._need = need
        return messages

    def _length(self, data: bytes, at: int) -> tuple[int, int]:
        """The length at `at`, and where the message begins: 0 for not complete yet. A length of -1: an error."""
        length = 0
        for index, byte in enumerate(data[at : at + self._LONGEST_VARINT]):
            length |= (byte & 0x7F) << 7 * index
            if length > self.limit_bytes:
                self.error = FrameTooLarge(f"a message has {length} bytes or more; the limit is {self.limit_bytes}")
                return -1, 0
            if byte < 0x80:
                return length, at + index + 1
        if len(data) - at >= self._LONGEST_VARINT:
            self.error = BadFrame("a length of more than 10 bytes is no varint")
            return -1, 0
        return 0, 0

    def check(self, message: bytes) -> None:
        """Whether `encode` takes it. See `Framer.check`."""
        self.encode(message)

    def encode(self, message: bytes) -> bytes:
        """The message with its length in front.

        Raises:
            UsageError: it is over the limit.
        """
        length = len(message)
        if length > self.limit_bytes:
            raise UsageError(f"the message has {length} bytes; the limit is {self.limit_bytes}")
        head = bytearray()
        while length > 0x7F:
            head.append(length & 0x7F | 0x80)
            length >>= 7
        head.append(length)
        return bytes(head) + message
