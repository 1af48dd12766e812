"""Framers cut a byte stream into messages."""

from trunkline.wire.framers.base import Framer
from trunkline.wire.framers.line import LineFramer

__all__ = ["Framer", "LineFramer"]
