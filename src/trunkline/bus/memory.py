"""The bus of one process."""

from collections.abc import Callable

from trunkline.bus.base import Subscription
from trunkline.reactor import Reactor
from trunkline.stats import Stats

__all__ = ["MemoryBus"]

Receive = Callable[[str, bytes], object]


class _MemorySubscription:
    def __init__(self, bus: "MemoryBus", pattern: str, receive: Receive) -> None:
        self.pattern = pattern
        self.receive = receive
        self.active = True
        self._bus = bus

    def cancel(self) -> None:
        if self.active:
            self.active = False
            self._bus.forget(self)


class MemoryBus:
    """Delivers in the reactor that it was made on.

    Args:
        reactor: where subscribers are called.
        stats: counts what is dropped.
        limit: messages that may be under way at once; beyond it they are dropped.
    """

    def __init__(self, reactor: Reactor, stats: Stats, limit: int = 100_000) -> None:
        self._reactor = reactor
        self._dropped = stats.bus_dropped
        self._limit = limit
        self._under_way = 0
        # Most subscriptions name one topic; only those with a wildcard must be tried one by one.
        self._exact: dict[str, list[_MemorySubscription]] = {}
        self._patterns: list[tuple[list[str], _MemorySubscription]] = []

    def publish(self, topic: str, message: bytes) -> None:
        """See `Bus.publish`."""
        if self._under_way >= self._limit:
            self._dropped.inc()
            return
        self._under_way += 1
        self._reactor.call(self._deliver, topic, message)

    def _deliver(self, topic: str, message: bytes) -> None:
        self._under_way -= 1
        found = list(self._exact.get(topic, ()))
        if self._patterns:
            words = topic.split(".")
            found += [subscription for pattern, subscription in self._patterns if _fits(pattern, words)]
        for subscription in found:
            if subscription.active:  # one that was called before may have cancelled this one
                self._reactor.run_guarded(subscription.receive, topic, message)

    def subscribe(self, pattern: str, receive: Receive) -> Subscription:
        """See `Bus.subscribe`."""
        self._reactor.check_thread()
        subscription = _MemorySubscription(self, pattern, receive)
        words = pattern.split(".")
        if "*" in words or "#" in words:
            self._patterns.append((words, subscription))
        else:
            self._exact.setdefault(pattern, []).append(subscription)
        return subscription

    def forget(self, subscription: _MemorySubscription) -> None:
        """Takes a cancelled subscription out."""
        self._patterns = [entry for entry in self._patterns if entry[1] is not subscription]
        same_topic = self._exact.get(subscription.pattern, [])
        if subscription in same_topic:
            same_topic.remove(subscription)
            if not same_topic:
                del self._exact[subscription.pattern]

    async def close(self) -> None:
        """See `Bus.close`."""
        self._exact.clear()
        self._patterns.clear()


def _fits(pattern: list[str], topic: list[str]) -> bool:
    if pattern[-1] == "#":
        pattern, topic = pattern[:-1], topic[: len(pattern) - 1]
    return len(pattern) == len(topic) and all(
        expected in ("*", word) for expected, word in zip(pattern, topic, strict=True)
    )
