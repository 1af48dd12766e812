"""Trunkline: a switchboard for long-lived TCP connections.

Devices and services hold a line open; the back office sends them commands and gets honest outcomes, syncs
records with a live log and progress bar, and stores what they send, by rules, without losing any.
"""

from trunkline.app import Node
from trunkline.clock import Clock, SystemClock
from trunkline.errors import (
    BadFrame,
    BadItems,
    ConnectionClosed,
    FrameTooLarge,
    NoReply,
    NotFound,
    Overloaded,
    PeerTimeout,
    ProtocolError,
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
from trunkline.tcp import Client, Connection, ConnectionOptions, Server

__version__ = "0.1.0"

__all__ = [
    "BadFrame",
    "BadItems",
    "BlockingSyncJob",
    "Client",
    "Clock",
    "Connection",
    "ConnectionClosed",
    "ConnectionOptions",
    "FrameTooLarge",
    "NoReply",
    "Node",
    "NotFound",
    "Overloaded",
    "PeerTimeout",
    "ProtocolError",
    "Reactor",
    "Record",
    "Server",
    "Settings",
    "SettingsError",
    "StorageError",
    "SyncJob",
    "SystemClock",
    "TrunklineError",
    "Unavailable",
    "UsageError",
    "WrongThread",
    "load_settings",
    "sync",
]
