"""Connections with a codec between their framer and their user."""

from typing import Any

from trunkline.tcp.blueprint import Blueprint
from trunkline.tcp.connection import TcpConnection
from trunkline.wire import Codec, Framer

__all__ = ["new_connection"]


class _CodedConnection(TcpConnection):
    """A connection between whose framer and user there is a codec."""

    __slots__ = ("_encode",)

    def __init__(self, blueprint: Blueprint, framer: Framer, peer: str, codec: Codec[Any]) -> None:
        super().__init__(blueprint, framer, peer)
        receive = self._receive
        self._receive = lambda data: self._decoded(codec, receive(data))
        self._encode = codec.encode

    def send(self, message: Any) -> None:
        """Sends one message, encoded. See `Outbound.send`."""
        super().send(self._encode(message))


def new_connection(blueprint: Blueprint, framer: Framer, peer: str = "") -> TcpConnection:
    """A connection as the blueprint has it, with its codec if there is one. See `TcpConnection`."""
    if blueprint.codec is None:
        return TcpConnection(blueprint, framer, peer)
    return _CodedConnection(blueprint, framer, peer, blueprint.codec)
