"""Frames that end, or begin and end, with a delimiter."""

import re
from collections.abc import Mapping

from trunkline.errors import BadFrame, FrameTooLarge, UsageError
from trunkline.wire.framers.base import Framer, checked_limit

__all__ = ["DelimiterFramer"]


class DelimiterFramer(Framer):
    r"""Cuts at a delimiter of one byte or more; a message is what stands between two.

    With `escapes`, the delimiter and the escape byte may occur in a message: on the line each is replaced by a
    pair. JT/T 808 (clause 4.4.2 of the 2013 edition) is ``DelimiterFramer(b"\x7e", escapes={b"\x7e": b"\x7d\x02",
    b"\x7d": b"\x7d\x01"}, leading=True)``.

    Args:
        delimiter: what ends a frame.
        limit_bytes: the longest frame on the line, escapes counted, without its delimiters.
        escapes: what replaces what: bytes of a message to what stands for them on the line. Each replacement
            is two bytes and begins with the same escape byte, which must be replaced too.
        leading: whether a frame also begins with the delimiter; empty frames are passed over then, so that one
            delimiter may both end a frame and begin the next. What comes before the first delimiter is a frame too.

    Raises:
        UsageError: a delimiter or escapes that no peer could read.
    """

    __slots__ = ("_delimiter", "_escaped", "_escapes", "_leading", "_pair", "_rest", "_unescape", "limit_bytes")

    def __init__(
        self,
        delimiter: bytes,
        limit_bytes: int = 1_048_576,
        *,
        escapes: Mapping[bytes, bytes] | None = None,
        leading: bool = False,
    ) -> None:
        if not delimiter:
            raise UsageError("delimiter: it must have at least one byte")
        self.limit_bytes = checked_limit(limit_bytes)
        super().__init__()
        self._delimiter = delimiter
        self._leading = leading
        self._rest = bytearray()
        self._escapes = dict(escapes or {})
        self._unescape = {pair: byte for byte, pair in self._escapes.items()}
        self._pair = self._escaped = re.compile(b"")
        if self._escapes:
            escape = re.escape(self._check_escapes())
            self._pair = re.compile(escape + b".?", re.DOTALL)
            self._escaped = re.compile(b"[" + b"".join(re.escape(byte) for byte in self._escapes) + b"]")

    def _check_escapes(self) -> bytes:
        """The byte with which all replacements begin."""
        first = {pair[:1] for pair in self._escapes.values()}
        plain = all(len(byte) == 1 and len(pair) == 2 for byte, pair in self._escapes.items())
        if not plain or len(first) != 1 or len(set(self._escapes.values())) != len(self._escapes):
            raise UsageError("escapes: each must replace one byte by a pair of its own, all with the same first byte")
        escape = first.pop()
        if escape not in self._escapes or self._delimiter not in self._escapes:
            raise UsageError("escapes: the escape byte and the delimiter, which is one byte then, must be replaced")
        if any(self._delimiter in pair for pair in self._escapes.values()):
            raise UsageError("escapes: a replacement must not hold the delimiter")
        return escape

    @property
    def unfinished(self) -> bool:
        """Whether a part of a frame is held. See `Framer.unfinished`."""
        return bool(self._rest)

    def receive(self, data: bytes) -> list[bytes]:
        """The messages that `data` completes. See `Framer.receive`."""
        if self.error is not None:
            return []
        rest, delimiter = self._rest, self._delimiter
        if rest:
            # The delimiter may begin in what is here already; further back there is none.
            seen = max(0, len(rest) - len(delimiter) + 1)
            rest += data
            if rest.find(delimiter, seen) < 0:
                self._check_rest()
                return []
            data = bytes(rest)
            rest.clear()
        *frames, last = data.split(delimiter)
        messages: list[bytes] = []
        for frame in frames:
            if self._leading and not frame:
                continue
            if len(frame) > self.limit_bytes:
                self._fail()
                return messages
            message = self._decode(frame) if self._escapes else frame
            if message is None:
                self.error = BadFrame("an escape byte is followed by nothing that it may stand before")
                return messages
            messages.append(message)
        rest += last
        self._check_rest()
        return messages

    def _check_rest(self) -> None:
        # What could be the beginning of the delimiter does not count yet.
        if len(self._rest) > self.limit_bytes + len(self._delimiter) - 1:
            self._fail()

    def _fail(self) -> None:
        self._rest.clear()
        self.error = FrameTooLarge(f"a frame is longer than {self.limit_bytes} bytes")

    def _decode(self, frame: bytes) -> bytes | None:
        """The frame with its pairs replaced; None where the escape byte begins no pair."""
        # From left to right, pair by pair: the second byte of a pair may be the escape byte again.
        try:
            return self._pair.sub(lambda pair: self._unescape[pair[0]], frame)
        except KeyError:
            return None

    def check(self, message: bytes) -> None:
        """Whether `encode` takes it. See `Framer.check`."""
        self.encode(message)

    def encode(self, message: bytes) -> bytes:
        """The frame of a message.

        Raises:
            UsageError: it is over the limit, it holds the delimiter and there are no escapes, or it is empty where
                empty frames are passed over.
        """
        frame = message
        if self._escapes:
            frame = self._escaped.sub(lambda byte: self._escapes[byte[0]], message)
        elif self._delimiter in message + self._delimiter[:-1]:
            raise UsageError("the message holds the delimiter, and there are no escapes for it")
        if len(frame) > self.limit_bytes:
            raise UsageError(f"the frame has {len(frame)} bytes; the limit is {self.limit_bytes}")
        if self._leading:
            if not frame:
                raise UsageError("an empty message can't be framed where a frame begins with the delimiter")
            return self._delimiter + frame + self._delimiter
        return frame + self._delimiter
