"""Trunkline: a switchboard for long-lived TCP connections.

Devices and services hold a line open; the back office sends them commands and gets honest outcomes, syncs
records with a live log and progress bar, and stores what they send, by rules, without losing any.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trunkline.app import Node
    from trunkline.clock import Clock, SystemClock
    from trunkline.errors import (
        BadFrame,
        BadItems,
        CallFailed,
        CallLost,
        ConnectionClosed,
        DeadlineExceeded,
        Forbidden,
        FrameTooLarge,
        NoReply,
        NotFound,
        Overloaded,
        PeerTimeout,
        ProtocolError,
        RpcError,
        SettingsError,
        StorageError,
        TrunklineError,
        Unavailable,
        UsageError,
        WrongThread,
    )
    from trunkline.jobs import BlockingSyncJob, Record, SyncJob, sync
    from trunkline.reactor import Reactor
    from trunkline.settings import Settings, load_settings
    from trunkline.tcp import ConnectionLimits, ConnectionOptions, TcpClient, TcpConnection, TcpServer, connect

__version__ = "0.1.0"

__all__ = [
    "BadFrame",
    "BadItems",
    "BlockingSyncJob",
    "CallFailed",
    "CallLost",
    "Clock",
    "ConnectionClosed",
    "ConnectionLimits",
    "ConnectionOptions",
    "DeadlineExceeded",
    "Forbidden",
    "FrameTooLarge",
    "NoReply",
    "Node",
    "NotFound",
    "Overloaded",
    "PeerTimeout",
    "ProtocolError",
    "Reactor",
    "Record",
    "RpcError",
    "Settings",
    "SettingsError",
    "StorageError",
    "SyncJob",
    "SystemClock",
    "TcpClient",
    "TcpConnection",
    "TcpServer",
    "TrunklineError",
    "Unavailable",
    "UsageError",
    "WrongThread",
    "connect",
    "load_settings",
    "sync",
]

# Each name is imported when it is first used: a program that wants the TCP framework alone need not load the
# database and the web with it.
_HOMES = {
    "Node": "app",
    "Clock": "clock",
    "SystemClock": "clock",
    **dict.fromkeys(("BlockingSyncJob", "Record", "SyncJob", "sync"), "jobs"),
    "Reactor": "reactor",
    **dict.fromkeys(("Settings", "load_settings"), "settings"),
    **dict.fromkeys(
        ("ConnectionLimits", "ConnectionOptions", "TcpClient", "TcpConnection", "TcpServer", "connect"), "tcp"
    ),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"trunkline.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
