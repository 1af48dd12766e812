"""What may share a batch: every item once, in order, and never two that must not meet."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.batch.rules import BatchRules, key_of, plan
from trunkline.nesting import nesting

letters = st.sampled_from("abcdef")
sets_of_foes = st.lists(st.lists(letters, max_size=4), max_size=4)


def may_not_meet(first: str, second: str, sets: list[list[str]]) -> bool:
    """Two different items, both in one of the sets."""
    return first != second and any(first in foes and second in foes for foes in sets)


def cut(items: list[str], sizes: list[int]) -> list[list[str]]:
    stream = iter(items)
    return [list(itertools.islice(stream, size)) for size in sizes]


@given(st.lists(letters, max_size=60), st.integers(1, 6), sets_of_foes)
def test_every_plan_keeps_every_rule(items: list[str], limit: int, sets: list[list[str]]) -> None:
    sizes = plan([key_of(item) for item in items], BatchRules(limit, sets))
    batches = cut(items, sizes)
    assert sum(sizes) == len(items), "an item is lost or doubled"
    assert all(sizes), "an empty batch"
    assert max(sizes, default=0) <= limit
    for batch in batches:
        assert not any(may_not_meet(first, second, sets) for first, second in itertools.combinations(batch, 2))
    for batch, following in itertools.pairwise(batches):
        joins = len(batch) < limit and not any(may_not_meet(one, following[0], sets) for one in batch)
        assert not joins, "a batch was closed although the next item could have joined it"


@given(st.lists(letters, min_size=1, max_size=8), letters, st.integers(1, 6), sets_of_foes)
def test_may_join_says_the_same_as_the_sets(batch: list[str], item: str, limit: int, sets: list[list[str]]) -> None:
    allowed = len(batch) < limit and not any(may_not_meet(one, item, sets) for one in batch)
    assert BatchRules(limit, sets).may_join([key_of(one) for one in batch], key_of(item)) == allowed


@given(st.lists(letters, max_size=40), st.integers(1, 6), sets_of_foes, st.integers(0, 40))
def test_what_comes_later_changes_no_batch_but_the_last(
    items: list[str], limit: int, sets: list[list[str]], first: int
) -> None:
    rules = BatchRules(limit, sets)
    early = plan([key_of(item) for item in items[:first]], rules)
    late = plan([key_of(item) for item in items], rules)
    assert early[:-1] == late[: max(len(early) - 1, 0)]


def test_one_and_two_never_share_a_batch() -> None:
    rules = BatchRules(5, [[1, 2]])
    assert plan([key_of(item) for item in [1, 1, 3, 2, 2, 4, 1]], rules) == [3, 3, 1]


def test_the_same_item_may_share_a_batch_with_itself() -> None:
    assert plan([key_of(1)] * 7, BatchRules(5, [[1, 2], [1, 1]])) == [5, 2]


def test_an_item_in_two_sets_meets_no_member_of_either() -> None:
    rules = BatchRules(9, [["a", "b"], ["b", "c"]])
    assert plan([key_of(item) for item in "acb"], rules) == [2, 1]
    assert plan([key_of(item) for item in "abc"], rules) == [1, 1, 1]


def test_without_sets_only_the_size_counts() -> None:
    assert plan([key_of(1), key_of(2)] * 3, BatchRules(4)) == [4, 2]


def test_nothing_needs_no_batch() -> None:
    assert plan([], BatchRules(5, [[1, 2]])) == []


def test_items_may_be_lists_and_objects() -> None:
    rules = BatchRules(5, [[{"kind": "a", "n": [1]}, None]])
    assert plan([key_of(item) for item in [{"n": [1], "kind": "a"}, None]], rules) == [1, 1]
    assert plan([key_of(item) for item in [{"n": [2], "kind": "a"}, None]], rules) == [2]


@pytest.mark.parametrize(
    ("one", "other"),
    [(1, 1.0), (0, -0.0), (-3, -3.0), (10**22, 1e22), ({"a": 1, "b": 2}, {"b": 2, "a": 1})],
)
def test_equal_items_have_one_key(one: object, other: object) -> None:
    assert key_of(one) == key_of(other)


DIFFERENT: list[object] = [
    1, 1.5, True, "1", "true", None, "null", False, 0, "", [1], ["1"], [[1]], {}, [], {"1": 1}, {"1": "1"}, {"1": True},
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(DIFFERENT, 2)))
def test_different_items_have_different_keys(one: object, other: object) -> None:
    assert key_of(one) != key_of(other)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_a_key_is_the_item_and_stays_so_through_the_disk(item: object) -> None:
    assert json.loads(key_of(item)) == item
    assert key_of(json.loads(json.dumps(item))) == key_of(item)


@pytest.mark.parametrize(
    ("value", "depth"), [(1, 0), ("x", 0), ([], 1), ([1, 2], 1), ({"a": 1}, 1), ([1, {"a": [2]}], 3), ([[], [[]]], 3)]
)
def test_nesting_is_counted(value: object, depth: int) -> None:
    assert nesting(value) == depth
