"""Identifiers rise, whatever the clock does and whoever asks."""

import random
import re
import threading

from hypothesis import given
from hypothesis import strategies as st

from trunkline.ids import IdMaker
from trunkline.testing import ManualClock

ULID = re.compile(r"[0-9A-HJKMNP-TV-Z]{26}")
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def milliseconds_of(made: str) -> int:
    """The time in a ULID: its first ten characters."""
    number = 0
    for character in made[:10]:
        number = number * 32 + ALPHABET.index(character)
    return number


def test_an_id_is_26_characters_that_begin_with_the_time() -> None:
    clock = ManualClock(1_700_000_000.123)
    made = IdMaker(clock)()
    assert ULID.fullmatch(made)
    assert milliseconds_of(made) == 1_700_000_000_123


def test_the_published_example_of_the_format_is_met() -> None:
    # The time of https://github.com/ulid/spec: 1469918176385 is 01ARYZ6S41.
    clock = ManualClock(1469918176.3854)
    assert IdMaker(clock, lambda bits: 0)() == "01ARYZ6S41" + "0" * 16
    assert IdMaker(clock, lambda bits: (1 << bits) - 1)() == "01ARYZ6S41" + "Z" * 16


def test_ids_rise_within_one_millisecond() -> None:
    new_id = IdMaker(ManualClock(), random.Random(7).getrandbits)
    made = [new_id() for _ in range(5000)]
    assert made == sorted(set(made))


def test_ids_rise_within_one_millisecond_even_without_chance() -> None:
    new_id = IdMaker(ManualClock(), lambda bits: 0)
    made = [new_id() for _ in range(100)]
    assert made == sorted(set(made))


def test_ids_rise_when_the_clock_is_set_back() -> None:
    clock = ManualClock(1_700_000_000.0)
    new_id = IdMaker(clock)
    before = new_id()
    clock.set_time(1_600_000_000.0)
    after = [new_id() for _ in range(100)]
    assert [before, *after] == sorted({before, *after})


@given(st.lists(st.floats(0, 2e9), min_size=1, max_size=40), st.integers(0, 2**32))
def test_ids_rise_whatever_the_clock_says(moments: list[float], seed: int) -> None:
    clock = ManualClock()
    new_id = IdMaker(clock, random.Random(seed).getrandbits)
    made = []
    for moment in moments:
        clock.set_time(moment)
        made.append(new_id())
    assert made == sorted(set(made))
    assert all(ULID.fullmatch(one) for one in made)


def test_threads_that_ask_at_once_get_ids_of_their_own() -> None:
    new_id = IdMaker()
    made: list[list[str]] = [[] for _ in range(8)]
    start = threading.Barrier(len(made))

    def ask(mine: list[str]) -> None:
        start.wait()
        mine += [new_id() for _ in range(2000)]

    threads = [threading.Thread(target=ask, args=(mine,)) for mine in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(mine == sorted(mine) for mine in made)
    assert len({one for mine in made for one in mine}) == 8 * 2000
