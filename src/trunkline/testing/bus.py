"""The conformance check of buses."""

import asyncio
from collections.abc import Callable

from trunkline.bus import Bus

__all__ = ["check_bus"]

_WAIT = 10.0


async def check_bus(bus: Bus) -> None:
    """Proves that an adapter keeps what `Bus` promises.

    Args:
        bus: a fresh one, on the running loop; it is closed in the end.

    Raises:
        AssertionError: it does not.
    """
    await _delivers_in_order(bus)
    await _matches_patterns(bus)
    await _survives_a_failing_subscriber(bus)
    await _stops_after_cancel(bus)
    await _takes_messages_from_threads(bus)
    await bus.close()


async def _until(condition: Callable[[], bool]) -> None:
    try:
        async with asyncio.timeout(_WAIT):
            while not condition():  # noqa: ASYNC110  any condition may be asked for
                await asyncio.sleep(0)
    except TimeoutError:
        raise AssertionError(f"a message that was published did not come within {_WAIT:g} s") from None


async def _delivers_in_order(bus: Bus) -> None:
    got: list[tuple[str, bytes]] = []
    subscription = bus.subscribe("order.test", lambda topic, message: got.append((topic, message)))
    sent = [("order.test", b"%d" % number) for number in range(1000)]
    for topic, message in sent:
        bus.publish(topic, message)
    await _until(lambda: len(got) >= len(sent))
    assert got == sent, "messages of one topic are lost, doubled or out of order"
    subscription.cancel()


async def _matches_patterns(bus: Bus) -> None:
    patterns = ["a.b", "a.*", "a.#", "*.b", "#"]
    fitting = {"a.b": {"a.b", "a.*", "a.#", "*.b", "#"}, "a": {"a.#", "#"}, "a.c.d": {"a.#", "#"}, "c.b": {"*.b", "#"}}
    for topic, expected in fitting.items():
        got: list[str] = []
        subscriptions = [bus.subscribe(pattern, _noting(pattern, got)) for pattern in patterns]
        bus.publish(topic, b"")
        await _until(lambda: len(got) >= len(expected))  # noqa: B023
        bus.publish("zz.flush", b"!")  # behind it nothing of the first can still come
        await _until(lambda: "#!" in got)  # noqa: B023
        assert sorted(set(got) - {"#!"}) == sorted(expected), f"{topic} went to {got}, not to {expected}"
        for subscription in subscriptions:
            subscription.cancel()


def _noting(pattern: str, got: list[str]) -> Callable[[str, bytes], None]:
    return lambda _topic, message: got.append(pattern + message.decode())


async def _survives_a_failing_subscriber(bus: Bus) -> None:
    got: list[bytes] = []

    def receive(_topic: str, message: bytes) -> None:
        got.append(message)
        raise RuntimeError("a subscriber that fails, on purpose")

    subscription = bus.subscribe("fail.test", receive)
    bus.publish("fail.test", b"1")
    bus.publish("fail.test", b"2")
    await _until(lambda: len(got) >= 2)
    subscription.cancel()


async def _stops_after_cancel(bus: Bus) -> None:
    got: list[bytes] = []
    others: list[bytes] = []
    first = bus.subscribe("cancel.test", lambda _topic, message: got.append(message))
    second = bus.subscribe("cancel.test", lambda _topic, message: others.append(message))
    bus.publish("cancel.test", b"1")
    await _until(lambda: got == [b"1"])
    first.cancel()
    first.cancel()
    bus.publish("cancel.test", b"2")
    await _until(lambda: others == [b"1", b"2"])
    assert got == [b"1"], "a cancelled subscription got a message"
    second.cancel()


async def _takes_messages_from_threads(bus: Bus) -> None:
    got: list[bytes] = []
    subscription = bus.subscribe("thread.test", lambda _topic, message: got.append(message))
    await asyncio.to_thread(bus.publish, "thread.test", b"from a thread")
    await _until(lambda: got == [b"from a thread"])
    subscription.cancel()
