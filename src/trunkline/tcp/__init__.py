"""TCP servers, clients and connections over a reactor: bytes in and out, within bounds."""

from trunkline.tcp.backoff import FullJitter
from trunkline.tcp.client import Client
from trunkline.tcp.connection import CloseReason, Connection, ConnectionOptions
from trunkline.tcp.server import Server, bind

__all__ = ["Client", "CloseReason", "Connection", "ConnectionOptions", "FullJitter", "Server", "bind"]
