"""Bytes in, messages out; messages in, bytes out. No socket, loop, thread, clock or chance in here."""

from trunkline.wire.framers import (
    DelimiterFramer,
    FixedFramer,
    Framer,
    LengthFramer,
    LineFramer,
    NetstringFramer,
    RawFramer,
    VarintFramer,
)

__all__ = [
    "DelimiterFramer",
    "FixedFramer",
    "Framer",
    "LengthFramer",
    "LineFramer",
    "NetstringFramer",
    "RawFramer",
    "VarintFramer",
]
