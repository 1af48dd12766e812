"""Bytes in, messages out; messages in, bytes out. No socket, loop, thread, clock or chance in here."""

from trunkline.wire.framers import Framer, LineFramer

__all__ = ["Framer", "LineFramer"]
