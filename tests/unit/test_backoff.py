"""Full jitter: a wait anywhere below a ceiling that doubles up to a cap."""

import random

from hypothesis import given
from hypothesis import strategies as st

from trunkline.tcp import FullJitter


def highest(_low: float, high: float) -> float:
    return high


def test_the_ceiling_doubles_up_to_the_cap() -> None:
    backoff = FullJitter(0.5, 30.0, highest)
    assert [backoff.next_wait() for _ in range(9)] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


def test_it_begins_anew_after_a_success() -> None:
    backoff = FullJitter(0.5, 30.0, highest)
    for _ in range(5):
        backoff.next_wait()
    backoff.reset()
    assert [backoff.next_wait(), backoff.next_wait()] == [0.5, 1.0]


def test_a_base_over_the_cap_is_capped() -> None:
    assert FullJitter(50.0, 30.0, highest).next_wait() == 30.0


def test_it_fails_ten_thousand_times_without_overflow() -> None:
    backoff = FullJitter(0.5, 30.0, highest)
    assert {backoff.next_wait() for _ in range(10_000)} == {0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0}


def test_the_whole_range_down_to_nothing_is_asked_for() -> None:
    asked: list[tuple[float, float]] = []
    backoff = FullJitter(1.0, 4.0, lambda low, high: asked.append((low, high)) or low)  # type: ignore[func-returns-value]
    assert [backoff.next_wait() for _ in range(4)] == [0.0] * 4
    assert asked == [(0.0, 1.0), (0.0, 2.0), (0.0, 4.0), (0.0, 4.0)]


@given(st.floats(0.001, 100), st.floats(0.001, 1000), st.integers(1, 80), st.integers())
def test_every_wait_is_within_its_bounds(base: float, cap: float, failures: int, seed: int) -> None:
    backoff = FullJitter(base, cap, random.Random(seed).uniform)
    for number in range(failures):
        assert 0.0 <= backoff.next_wait() <= min(cap, base * 2.0**number)


def test_clients_that_failed_together_do_not_come_back_together() -> None:
    waits = [FullJitter(10.0, 10.0).next_wait() for _ in range(100)]
    assert len(set(waits)) > 90
