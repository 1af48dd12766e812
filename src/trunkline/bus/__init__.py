"""Messages between the parts of a node, and between nodes: the doorbell, never the truth."""

from trunkline.bus.base import Bus, Subscription
from trunkline.bus.memory import MemoryBus

__all__ = ["Bus", "MemoryBus", "Subscription"]
