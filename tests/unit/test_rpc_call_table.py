"""The table of calls, through every interleaving: each call ends exactly once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from trunkline.errors import BadFrame, CallLost, Overloaded, RpcError
from trunkline.rpc.calls import NEVER, CallTable
from trunkline.rpc.figures import MethodFigures
from trunkline.rpc.retrying import RetryBudget, may_retry

LIMIT = 5
DEADLINES = st.one_of(st.just(NEVER), st.integers(0, 20).map(float))


class OneSidesCalls(RuleBasedStateMachine):
    """The calls of one side, kept by both: the one that makes them, and the one that runs them.

    What one side says reaches the other in order, but as late as it may be. The model is a plain list of what has
    become of each call.
    """

    @initialize(odd=st.booleans())
    def begin(self, odd: bool) -> None:
        self.own: CallTable[str] = CallTable(odd, LIMIT)
        self.served: CallTable[str] = CallTable(odd, LIMIT)
        self.now = 0.0
        self.made: list[int] = []
        self.deadlines: dict[int, float] = {}
        self.own_ends: dict[int, str] = {}
        self.served_ends: dict[int, str] = {}
        self.forth: list[tuple[str, int]] = []
        self.back: list[tuple[str, int]] = []
        self.closed = False

    def _end(self, ends: dict[int, str], call_id: int, how: str) -> None:
        assert call_id not in ends, f"call {call_id} has ended as {ends[call_id]} already"
        ends[call_id] = how

    @rule(after=DEADLINES)
    def call(self, after: float) -> None:
        if self.closed:
            return
        deadline = self.now + after
        under_way = len(self.made) - len(self.own_ends)
        if under_way >= LIMIT:
            with pytest.raises(Overloaded):
                self.own.begin("x", deadline)
            return
        call_id = self.own.begin(f"call {len(self.made)}", deadline)
        assert call_id > max(self.made, default=0)
        self.made.append(call_id)
        self.deadlines[call_id] = deadline
        self.forth.append(("call", call_id))

    @rule()
    def callee_hears(self) -> None:
        if not self.forth:
            return
        kind, call_id = self.forth.pop(0)
        if kind == "cancel":
            if self.served.take(call_id) is not None:
                self._end(self.served_ends, call_id, "cancelled")
            return
        self.served.note(call_id)
        with pytest.raises(BadFrame):
            self.served.note(call_id)
        try:
            self.served.hold(call_id, f"run {call_id}", self.deadlines[call_id])
        except Overloaded:
            assert len(self.served) == LIMIT
            self._end(self.served_ends, call_id, "refused")
            self.back.append(("failed", call_id))

    @rule(data=st.data())
    def callee_replies(self, data: st.DataObject) -> None:
        """A method ends, whether or not anybody waits for it still."""
        if self.made:
            call_id = data.draw(st.sampled_from(self.made))
            if call_id > self.served.last:
                with pytest.raises(BadFrame):
                    self.served.take(call_id)
            elif self.served.take(call_id) is not None:
                self._end(self.served_ends, call_id, "replied")
                self.back.append(("reply", call_id))

    @rule()
    def caller_hears(self) -> None:
        if self.back:
            kind, call_id = self.back.pop(0)
            if self.own.take(call_id) is not None:
                self._end(self.own_ends, call_id, kind)

    @rule(data=st.data())
    def caller_gives_up(self, data: st.DataObject) -> None:
        if self.made:
            call_id = data.draw(st.sampled_from(self.made))
            if self.own.take(call_id) is not None:
                self._end(self.own_ends, call_id, "given up")
                self.forth.append(("cancel", call_id))

    @rule(seconds=st.integers(0, 8))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def caller_looks_at_the_deadlines(self) -> None:
        for call_id, _ in self.own.expired(self.now):
            assert self.deadlines[call_id] <= self.now
            self._end(self.own_ends, call_id, "expired")
            self.forth.append(("cancel", call_id))
        assert all(self.deadlines[one] > self.now for one in self.made if one not in self.own_ends)

    @rule()
    def callee_looks_at_the_deadlines(self) -> None:
        for call_id, held in self.served.expired(self.now):
            assert held == f"run {call_id}"
            assert self.deadlines[call_id] <= self.now
            self._end(self.served_ends, call_id, "expired")
            self.back.append(("failed", call_id))

    @rule()
    def callee_goes_away(self) -> None:
        last = self.served.last
        self.own.take_after(last)
        for call_id in self.made:
            if call_id > last and call_id not in self.own_ends:
                self._end(self.own_ends, call_id, "not taken")

    @rule()
    def connection_is_lost(self) -> None:
        for call_id, _ in self.own.take_all():
            self._end(self.own_ends, call_id, "lost")
        for call_id, _ in self.served.take_all():
            self._end(self.served_ends, call_id, "lost")
        assert set(self.own_ends) == set(self.made), "no call hangs"
        self.forth.clear()
        self.back.clear()
        self.closed = True

    @invariant()
    def what_is_held_is_what_has_not_ended(self) -> None:
        if hasattr(self, "own"):
            assert [one in self.own for one in self.made] == [one not in self.own_ends for one in self.made]
            assert len(self.own) == len(self.made) - len(self.own_ends) <= LIMIT
            heard = [one for one in self.made if one <= self.served.last]
            assert len(self.served) == len(heard) - len(self.served_ends) <= LIMIT
            waiting = [self.deadlines[one] for one in self.made if one not in self.own_ends]
            assert self.own.soonest <= min(waiting, default=NEVER)


TestOneSidesCalls = OneSidesCalls.TestCase


@given(st.booleans(), st.integers())
def test_an_id_that_was_never_used_is_an_error_whatever_it_is(odd: bool, call_id: int) -> None:
    table: CallTable[str] = CallTable(odd, LIMIT)
    made = [table.begin("a"), table.begin("b")]
    if call_id in made:
        assert table.get(call_id) is not None
        assert table.take(call_id) is not None
        assert table.take(call_id) is None
        assert table.get(call_id) is None
    else:
        for ask in (table.get, table.take):
            with pytest.raises(BadFrame):
                ask(call_id)


@given(st.booleans(), st.lists(st.integers(-3, 12), max_size=12))
def test_the_ids_of_a_peer_rise_and_are_of_its_kind(odd: bool, ids: list[int]) -> None:
    table: CallTable[str] = CallTable(odd, LIMIT)
    last = 0
    for call_id in ids:
        if call_id > last and call_id % 2 == int(odd):
            table.note(call_id)
            last = call_id
        else:
            with pytest.raises(BadFrame):
                table.note(call_id)


# Figures and further tries.


@given(st.lists(st.integers(0, 10**13), min_size=1, max_size=50), st.floats(0, 1))
def test_a_quantile_is_no_less_than_the_true_one_and_at_most_twice_as_much(times: list[int], part: float) -> None:
    figures = MethodFigures()
    for one in times:
        figures.add(one)
    rank = max(1, -int(-part * len(times) // 1))
    true = sorted(times)[rank - 1]
    found = figures.quantile(part) * 1e9
    assert true <= found * (1 + 1e-9)
    assert found <= max(2 * true, 1024) * (1 + 1e-9)
    assert figures.calls == len(times)
    assert sum(count for _, count in figures.snapshot()["buckets"]) == len(times)


def test_times_beyond_all_buckets_are_counted_in_the_last() -> None:
    figures = MethodFigures()
    figures.add(1 << 80)
    assert figures.calls == 1


@given(st.lists(st.booleans(), max_size=200))
def test_further_tries_are_never_more_than_the_reserve_and_a_part_of_the_calls(steps: list[bool]) -> None:
    budget = RetryBudget(part=0.25, reserve=4.0)
    calls = tries = 0
    for is_call in steps:
        if is_call:
            budget.earn()
            calls += 1
        else:
            tries += budget.spend()
        assert tries <= 4 + calls / 4


def test_only_what_harms_nobody_is_tried_again() -> None:
    assert may_retry(Overloaded("x"), idempotent=False)
    assert may_retry(CallLost("x", sent="no"), idempotent=False)
    assert not may_retry(CallLost("x", sent="unknown"), idempotent=False)
    assert not may_retry(CallLost("x", sent="yes"), idempotent=False)
    assert may_retry(CallLost("x", sent="unknown"), idempotent=True)
    assert not may_retry(RpcError("x"), idempotent=True)
