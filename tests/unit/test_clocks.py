"""The clocks: the machine's, and the one that stands still."""

import time

import pytest

from trunkline.clock import Clock, SystemClock
from trunkline.testing import ManualClock


def test_the_system_clock_is_the_machines() -> None:
    clock: Clock = SystemClock()
    before = time.time(), time.monotonic()
    found = clock.time(), clock.monotonic()
    after = time.time(), time.monotonic()
    assert all(first <= between <= last for first, between, last in zip(before, found, after, strict=True))


def test_a_manual_clock_stands_still() -> None:
    clock: Clock = ManualClock(100.0)
    assert (clock.time(), clock.monotonic()) == (100.0, 0.0)
    assert (clock.time(), clock.monotonic()) == (100.0, 0.0)


def test_a_manual_clock_moves_both_times_on() -> None:
    clock = ManualClock(100.0)
    clock.advance(2.5)
    assert (clock.time(), clock.monotonic()) == (102.5, 2.5)


def test_setting_the_wall_clock_back_is_not_noticed_by_the_monotonic_one() -> None:
    clock = ManualClock(100.0)
    clock.advance(5.0)
    clock.set_time(10.0)
    assert (clock.time(), clock.monotonic()) == (10.0, 5.0)


def test_time_does_not_go_back() -> None:
    clock = ManualClock()
    with pytest.raises(ValueError, match="set_time"):
        clock.advance(-1.0)
    assert clock.monotonic() == 0.0
