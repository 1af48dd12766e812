"""TCP servers, clients and connections over a reactor: bytes in and out, within bounds."""

from trunkline.tcp.acceptor import Acceptor
from trunkline.tcp.backoff import FullJitter
from trunkline.tcp.binding import bind, bind_tcp, bind_unix
from trunkline.tcp.blueprint import Blueprint, Callbacks
from trunkline.tcp.budget import OutboundBudget
from trunkline.tcp.client import TcpClient, connect
from trunkline.tcp.connection import TcpConnection
from trunkline.tcp.limits import Admission, ConnectionLimits, RefusalReason, TokenBucket
from trunkline.tcp.options import CloseReason, ConnectionOptions
from trunkline.tcp.server import TcpServer
from trunkline.tcp.tcp_info import TcpInfo
from trunkline.tcp.tls import ClientTls, ServerTls, TlsInfo, TlsReloader
from trunkline.tcp.udp import UdpEndpoint, UdpOptions
from trunkline.tcp.workers import hold_port, run_workers

__all__ = [
    "Acceptor",
    "Admission",
    "Blueprint",
    "Callbacks",
    "ClientTls",
    "CloseReason",
    "ConnectionLimits",
    "ConnectionOptions",
    "FullJitter",
    "OutboundBudget",
    "RefusalReason",
    "ServerTls",
    "TcpClient",
    "TcpConnection",
    "TcpInfo",
    "TcpServer",
    "TlsInfo",
    "TlsReloader",
    "TokenBucket",
    "UdpEndpoint",
    "UdpOptions",
    "bind",
    "bind_tcp",
    "bind_unix",
    "connect",
    "hold_port",
    "run_workers",
]
