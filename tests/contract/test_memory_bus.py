"""The bus of one process keeps what every bus promises, and its own bound."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from trunkline.bus.memory import MemoryBus
from trunkline.errors import WrongThread
from trunkline.reactor import Reactor
from trunkline.stats import Stats
from trunkline.testing import bus as bus_check
from trunkline.testing import check_bus

WAIT = 10.0


def run(main: Callable[[Reactor, Stats], Coroutine[Any, Any, None]]) -> list[BaseException]:
    """Runs a story on a reactor of its own, and returns the errors that it reported."""
    errors: list[BaseException] = []

    async def story() -> None:
        async with asyncio.timeout(WAIT):
            await main(Reactor(asyncio.get_running_loop(), errors.append), Stats())

    Reactor.run(story)
    return errors


def dropped(stats: Stats) -> float | None:
    return stats.registry.get_sample_value("trunkline_bus_dropped_total")


async def until_quiet(reactor: Reactor) -> None:
    """Until all that was published before has been delivered."""
    turn = asyncio.Event()
    reactor.call(turn.set)
    await turn.wait()


def test_the_memory_bus_keeps_what_every_bus_promises() -> None:
    async def main(reactor: Reactor, stats: Stats) -> None:
        await check_bus(MemoryBus(reactor, stats))
        assert dropped(stats) == 0

    errors = run(main)
    assert {str(error) for error in errors} == {"a subscriber that fails, on purpose"}


def test_over_its_bound_messages_are_dropped_and_counted() -> None:
    async def main(reactor: Reactor, stats: Stats) -> None:
        bus = MemoryBus(reactor, stats, limit=3)
        got: list[bytes] = []
        bus.subscribe("a.b", lambda _topic, message: got.append(message))
        for number in range(5):
            bus.publish("a.b", b"%d" % number)
        await until_quiet(reactor)
        assert got == [b"0", b"1", b"2"]
        assert dropped(stats) == 2
        bus.publish("a.b", b"again")
        await until_quiet(reactor)
        assert got[3:] == [b"again"], "there is room again"

    assert run(main) == []


def test_a_message_that_nobody_wants_makes_room_too() -> None:
    async def main(reactor: Reactor, stats: Stats) -> None:
        bus = MemoryBus(reactor, stats, limit=2)
        for _ in range(10):
            bus.publish("nobody.listens", b"")
            bus.publish("nobody.listens", b"")
            await until_quiet(reactor)
        assert dropped(stats) == 0

    assert run(main) == []


def test_a_subscriber_that_fails_makes_room_too_and_takes_nothing_from_the_others() -> None:
    async def main(reactor: Reactor, stats: Stats) -> None:
        bus = MemoryBus(reactor, stats, limit=1)
        got: list[bytes] = []
        bus.subscribe("a", lambda _topic, _message: 1 // 0)
        bus.subscribe("a", lambda _topic, message: got.append(message))
        for number in range(3):
            bus.publish("a", b"%d" % number)
            await until_quiet(reactor)
        assert got == [b"0", b"1", b"2"]
        assert dropped(stats) == 0

    assert [type(error) for error in run(main)] == [ZeroDivisionError] * 3


def test_a_subscriber_may_cancel_another_for_the_same_message() -> None:
    async def main(reactor: Reactor, stats: Stats) -> None:
        bus = MemoryBus(reactor, stats)
        got: list[str] = []
        bus.subscribe("a", lambda _topic, _message: second.cancel())
        second = bus.subscribe("a", lambda _topic, _message: got.append("second"))
        bus.subscribe("a", lambda _topic, _message: got.append("third"))
        bus.publish("a", b"")
        await until_quiet(reactor)
        assert got == ["third"]

    assert run(main) == []


def test_what_is_under_way_when_the_bus_closes_is_not_delivered() -> None:
    async def main(reactor: Reactor, stats: Stats) -> None:
        bus = MemoryBus(reactor, stats)
        got: list[str] = []
        for pattern in ("a", "*", "#"):
            bus.subscribe(pattern, lambda _topic, _message: got.append("too late"))
        bus.publish("a", b"")
        await bus.close()
        bus.publish("a", b"")
        await until_quiet(reactor)
        assert got == []

    assert run(main) == []


def test_a_subscription_is_made_in_the_reactors_thread() -> None:
    async def main(reactor: Reactor, stats: Stats) -> None:
        bus = MemoryBus(reactor, stats)
        with pytest.raises(WrongThread):
            await asyncio.to_thread(bus.subscribe, "a", print)

    assert run(main) == []


class Reorders(MemoryBus):
    """Holds each second message back until the next one."""

    _held: tuple[str, bytes] | None = None

    def publish(self, topic: str, message: bytes) -> None:
        if self._held is None:
            self._held = (topic, message)
        else:
            super().publish(topic, message)
            super().publish(*self._held)
            self._held = None


class Doubles(MemoryBus):
    """Delivers each message twice."""

    def publish(self, topic: str, message: bytes) -> None:
        super().publish(topic, message)
        super().publish(topic, message)


class Loses(MemoryBus):
    """Delivers nothing."""

    def publish(self, topic: str, message: bytes) -> None:
        """Forgets it."""


class DeliversAllToAll(MemoryBus):
    """Takes every pattern for one that fits."""

    def subscribe(self, pattern: str, receive: Callable[[str, bytes], object]) -> Any:
        return super().subscribe("#" if pattern[0] in "a*" else pattern, receive)


class _NeverCancelled:
    def cancel(self) -> None:
        """Does nothing."""


class GoesOnAfterCancel(MemoryBus):
    """Lets nobody go."""

    def subscribe(self, pattern: str, receive: Callable[[str, bytes], object]) -> Any:
        subscription = super().subscribe(pattern, receive)
        return _NeverCancelled() if pattern == "cancel.test" else subscription


@pytest.mark.parametrize("broken", [Reorders, Doubles, Loses, DeliversAllToAll, GoesOnAfterCancel])
def test_a_broken_bus_fails_the_check(broken: type[MemoryBus], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus_check, "_WAIT", 0.05)

    async def main(reactor: Reactor, stats: Stats) -> None:
        with pytest.raises(AssertionError):
            await check_bus(broken(reactor, stats))

    run(main)
