"""Framers cut a byte stream into messages."""

from trunkline.wire.framers.base import Framer
from trunkline.wire.framers.delimiter import DelimiterFramer
from trunkline.wire.framers.fixed import FixedFramer, RawFramer
from trunkline.wire.framers.length import LengthFramer, VarintFramer
from trunkline.wire.framers.line import LineFramer
from trunkline.wire.framers.netstring import NetstringFramer

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
