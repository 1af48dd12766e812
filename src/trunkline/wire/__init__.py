"""Bytes in, messages out; messages in, bytes out. No socket, loop, thread, clock or chance in here."""

from trunkline.wire.codecs import Codec, JsonCodec, MessagePackCodec, StructCodec, TextCodec
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
from trunkline.wire.frames import Frames, Hello
from trunkline.wire.session import Session
from trunkline.wire.simple_reactor import SimpleReactorWire

__all__ = [
    "Codec",
    "DelimiterFramer",
    "FixedFramer",
    "Framer",
    "Frames",
    "Hello",
    "JsonCodec",
    "LengthFramer",
    "LineFramer",
    "MessagePackCodec",
    "NetstringFramer",
    "RawFramer",
    "Session",
    "SimpleReactorWire",
    "StructCodec",
    "TextCodec",
    "VarintFramer",
]
