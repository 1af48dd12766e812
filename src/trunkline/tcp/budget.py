"""What many connections may hold unsent together."""

import threading

__all__ = ["PROCESS_BUDGET", "OutboundBudget"]


class OutboundBudget:
    """How many unsent bytes all connections that share it may hold together. Any thread.

    Args:
        limit_bytes: the most.

    Attributes:
        used_bytes: what they hold just now.
    """

    def __init__(self, limit_bytes: int = 268_435_456) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self.changed = threading.Condition()
        self.waiting = 0

    def charge(self, size: int) -> None:
        """Counts bytes that wait, or with a negative size that wait no longer."""
        with self.changed:
            self.used_bytes += size
        if size < 0:
            self.wake()

    def wake(self) -> None:
        """Has the threads that wait look whether there is room."""
        if self.waiting:
            with self.changed:
                self.changed.notify_all()


PROCESS_BUDGET = OutboundBudget()
"""What all connections of this process share, where nobody gives them another."""
