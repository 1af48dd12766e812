"""The port of every bus."""

from collections.abc import Callable
from typing import Protocol

__all__ = ["Bus", "Subscription"]


class Subscription(Protocol):
    """One subscriber's claim on the messages of a pattern."""

    def cancel(self) -> None:
        """No further messages. Cancelling twice does nothing."""


class Bus(Protocol):
    """Tells others that something is there to be read. `trunkline.testing.check_bus` proves an adapter.

    The database is the truth, so a message may be lost (a full subscriber, a broker that is down): whoever
    depends on one also looks for itself from time to time. It comes at most once per subscription, and the
    messages of one publisher to one topic come in their order.

    A topic is words joined by dots (``command.replied``). In a pattern ``*`` stands for one word, and ``#``, at
    its end, for any number of them: AMQP's topic exchange, https://www.rabbitmq.com/tutorials/amqp-concepts.
    """

    def publish(self, topic: str, message: bytes) -> None:
        """Sends a message to all that subscribed. Never waits. Any thread."""

    def subscribe(self, pattern: str, receive: Callable[[str, bytes], object]) -> Subscription:
        """Has ``receive(topic, message)`` called, in the reactor, for each message whose topic fits. Reactor's thread.

        What `receive` raises is reported, and the next message is delivered all the same.
        """

    async def close(self) -> None:
        """Delivers nothing more."""
