"""Messages between the parts of a node, and between nodes: the doorbell, never the truth."""

from trunkline.bus.base import Bus, Subscription

__all__ = ["Bus", "Subscription"]
