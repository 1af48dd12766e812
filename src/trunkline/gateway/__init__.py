"""The device gateway: who is there, and the commands they get."""

from trunkline.gateway.commands import Commands
from trunkline.gateway.device_store import Device, count_devices, read_devices
from trunkline.gateway.gateway import Gateway
from trunkline.gateway.ledger import OPEN_STATES, TRANSITIONS, Command, CommandState
from trunkline.gateway.presence import Presence

__all__ = [
    "OPEN_STATES",
    "TRANSITIONS",
    "Command",
    "CommandState",
    "Commands",
    "Device",
    "Gateway",
    "Presence",
    "count_devices",
    "read_devices",
]
