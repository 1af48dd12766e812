"""The commands of one line: one in flight, each within its time, and every reply given to its own command."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from trunkline.gateway.delivery import Delivery, End, GiveUp, Late, Unsolicited, WriteOut
from trunkline.gateway.ledger import Command, CommandState

RESYNC = 10.0


def command(name: str, *, timeout: float = 5.0, ttl: float = 60.0, writes: int = 0) -> Command:
    """A command as the ledger holds it; with `writes`, one that an earlier line was given."""
    return Command(
        id=name, device="d1", cmd=f"do {name}", timeout=timeout, ttl=ttl, queued_at=0.0, expires_at=ttl,
        state=CommandState.WRITTEN if writes else CommandState.QUEUED, writes=writes,
    )  # fmt: skip


def test_a_command_is_written_at_once_on_an_idle_line() -> None:
    first = command("a")
    assert Delivery(RESYNC).offer([(first, 60.0)], 0.0) == [WriteOut(first)]


def test_the_second_command_waits_for_the_reply_to_the_first() -> None:
    delivery = Delivery(RESYNC)
    first, second = command("a"), command("b")
    assert delivery.offer([(first, 60.0), (second, 60.0)], 0.0) == [WriteOut(first)]
    assert delivery.tick(1.0) == []
    assert delivery.said("done", 2.0) == [End(first, CommandState.REPLIED, "done", None), WriteOut(second)]
    assert len(delivery) == 1


def test_replies_are_matched_in_the_order_of_the_writes() -> None:
    delivery = Delivery(RESYNC)
    sent = [command(name) for name in "abc"]
    delivery.offer([(one, 60.0) for one in sent], 0.0)
    ends = [action for number in range(3) for action in delivery.said(f"r{number}", 1.0) if isinstance(action, End)]
    assert [(end.command.id, end.reply) for end in ends] == [("a", "r0"), ("b", "r1"), ("c", "r2")]
    assert len(delivery) == 0


def test_a_command_whose_time_has_come_expires_at_the_moment_of_the_write() -> None:
    delivery = Delivery(RESYNC)
    first, second, third = command("a"), command("b", ttl=2.0), command("c")
    delivery.offer([(first, 60.0), (second, 2.0), (third, 60.0)], 0.0)
    assert delivery.said("done", 2.0) == [
        End(first, CommandState.REPLIED, "done", None),
        End(second, CommandState.EXPIRED, None, "its ttl of 2 s passed before it was written"),
        WriteOut(third),
    ]


def test_a_command_is_written_until_the_last_moment_of_its_ttl() -> None:
    first = command("a", ttl=2.0)
    assert Delivery(RESYNC).offer([(first, 2.0)], 1.999) == [WriteOut(first)]
    assert [type(action) for action in Delivery(RESYNC).offer([(first, 2.0)], 2.0)] == [End]


def test_a_command_expires_in_the_queue_while_another_is_in_flight() -> None:
    delivery = Delivery(RESYNC)
    first, second = command("a", timeout=30.0), command("b", ttl=2.0)
    delivery.offer([(first, 60.0), (second, 2.0)], 0.0)
    assert delivery.next_deadline() == 2.0
    assert [(end.command.id, end.state) for end in delivery.tick(2.0)] == [("b", CommandState.EXPIRED)]
    assert delivery.next_deadline() == 30.0


def test_without_a_reply_in_time_the_outcome_is_unknown() -> None:
    delivery = Delivery(RESYNC)
    first = command("a", timeout=5.0)
    delivery.offer([(first, 60.0)], 0.0)
    assert delivery.next_deadline() == 5.0
    assert delivery.tick(4.999) == []
    assert delivery.tick(5.0) == [End(first, CommandState.UNKNOWN, None, "written, but no reply within 5 s")]
    assert delivery.next_deadline() is None


def test_a_late_reply_is_recorded_as_late_and_never_given_to_the_next_command() -> None:
    delivery = Delivery(RESYNC)
    first, second = command("a"), command("b")
    delivery.offer([(first, 60.0), (second, 60.0)], 0.0)
    assert [type(action) for action in delivery.tick(5.0)] == [End]
    assert delivery.said("late", 6.0) == [Late(first, "late"), WriteOut(second)]
    assert delivery.said("mine", 7.0) == [End(second, CommandState.REPLIED, "mine", None)]


def test_a_late_reply_is_recorded_as_late_even_when_nothing_waits() -> None:
    delivery = Delivery(RESYNC)
    first = command("a")
    delivery.offer([(first, 60.0)], 0.0)
    delivery.tick(5.0)
    assert delivery.said("late", 500.0) == [Late(first, "late")]
    assert delivery.said("more", 501.0) == [Unsolicited("more")]


def test_a_line_in_doubt_is_given_up_when_a_command_has_waited_too_long() -> None:
    delivery = Delivery(RESYNC)
    first, second = command("a"), command("b")
    delivery.offer([(first, 60.0), (second, 60.0)], 0.0)
    delivery.tick(5.0)
    assert delivery.next_deadline() == 15.0
    assert delivery.tick(14.999) == []
    assert delivery.tick(15.0) == [GiveUp()]
    assert len(delivery) == 1, "the waiting command is not lost: the next line gets it"


def test_a_line_in_doubt_is_kept_while_nothing_waits_for_it() -> None:
    delivery = Delivery(RESYNC)
    delivery.offer([(command("a"), 60.0)], 0.0)
    delivery.tick(5.0)
    assert delivery.tick(1000.0) == []
    assert delivery.next_deadline() is None
    assert delivery.offer([(command("b"), 2000.0)], 1001.0) == [GiveUp()]


def test_a_command_that_is_offered_twice_is_taken_once() -> None:
    delivery = Delivery(RESYNC)
    first, second = command("a"), command("b")
    delivery.offer([(first, 60.0), (second, 60.0), (second, 60.0)], 0.0)
    assert delivery.offer([(command("a"), 60.0), (command("b"), 60.0)], 1.0) == []
    assert len(delivery) == 2
    assert delivery.said("done", 2.0)[1:] == [WriteOut(second)]
    assert delivery.said("done", 3.0)[1:] == []


def test_a_written_command_whose_ttl_passed_after_a_broken_line_is_unknown_and_not_expired() -> None:
    before = command("a", ttl=2.0, writes=1)
    (end,) = Delivery(RESYNC).offer([(before, 2.0)], 3.0)
    assert end == End(before, CommandState.UNKNOWN, None, "written, then the line broke and its ttl passed")
    before.become(end.state, 3.0, reason=end.reason)


def test_a_written_command_is_written_again_on_the_next_line_within_its_ttl() -> None:
    before = command("a", writes=1)
    assert Delivery(RESYNC).offer([(before, 60.0)], 3.0) == [WriteOut(before)]


def test_a_command_that_cannot_be_written_fails_and_makes_room_for_the_next() -> None:
    delivery = Delivery(RESYNC)
    first, second = command("a"), command("b")
    delivery.offer([(first, 60.0), (second, 60.0)], 0.0)
    assert delivery.refuse("too long", 0.0) == [End(first, CommandState.FAILED, None, "too long"), WriteOut(second)]


def test_a_command_that_was_written_once_and_cannot_be_written_again_is_unknown() -> None:
    delivery = Delivery(RESYNC)
    before = command("a", writes=1)
    delivery.offer([(before, 60.0)], 0.0)
    (end,) = delivery.refuse("too long", 0.0)
    assert (end.state, end.command) == (CommandState.UNKNOWN, before)
    assert "too long" in end.reason
    before.become(end.state, 0.0, reason=end.reason)


def test_there_is_nothing_to_refuse_on_an_idle_line() -> None:
    assert Delivery(RESYNC).refuse("too long", 0.0) == []


def test_what_a_device_says_unasked_answers_no_command() -> None:
    delivery = Delivery(RESYNC)
    assert delivery.said("hello?", 0.0) == [Unsolicited("hello?")]
    assert len(delivery) == 0
    assert delivery.next_deadline() is None


class DeliveryStory(RuleBasedStateMachine):
    """A line with a device that answers, stays silent or answers late, checked against what was promised."""

    @initialize()
    def begin(self) -> None:
        self.now = 0.0
        self.delivery = Delivery(RESYNC)
        self.count = 0
        self.deadlines: dict[str, float] = {}
        self.order: list[str] = []  # as they were first offered
        self.writes: list[str] = []
        self.ends: dict[str, End] = {}
        self.open: dict[str, Command] = {}
        self.in_flight: Command | None = None
        self.in_flight_since = 0.0
        self.owed: Command | None = None
        self.owed_since = 0.0
        self.refuse_next = False
        self.refusing = False

    def apply(self, actions: list[Any], said: str | None = None) -> None:
        """Does what the line does with the actions, and holds each against the promises."""
        waiting = list(reversed(actions))
        replies = 0
        while waiting:
            match waiting.pop():
                case WriteOut(written):
                    assert self.in_flight is None, "two commands in flight"
                    assert self.owed is None, "a command was written while a late reply may still come"
                    assert self.now < self.deadlines[written.id], "written after its deadline"
                    self.writes.append(written.id)
                    self.in_flight, self.in_flight_since = written, self.now
                    if self.refuse_next:
                        self.refuse_next, self.refusing = False, True
                        waiting += reversed(self.delivery.refuse("no", self.now))
                    else:
                        written.become(CommandState.WRITTEN, self.now)
                case End(ended, state, reply, reason) as end:
                    assert ended.id not in self.ends, "a command ended twice"
                    assert (reply is not None) == (state is CommandState.REPLIED)
                    assert (reason is not None) == (state is not CommandState.REPLIED)
                    if reply is not None:
                        replies += 1
                        assert ended is self.in_flight, "a reply went to a command that was not in flight"
                        assert reply == said
                    if state is CommandState.EXPIRED:
                        assert ended.id not in self.writes
                        assert self.now >= self.deadlines[ended.id]
                    if ended is self.in_flight:
                        if state is CommandState.UNKNOWN and not self.refusing:
                            assert self.now >= self.in_flight_since + ended.timeout
                            self.owed, self.owed_since = ended, self.now
                        self.in_flight, self.refusing = None, False
                    ended.become(state, self.now, reply=reply, reason=reason)  # raises what the table forbids
                    self.ends[ended.id] = end
                    del self.open[ended.id]
                case Late(late, reply):
                    replies += 1
                    assert late is self.owed
                    assert late.state is CommandState.UNKNOWN
                    assert reply == said
                    self.owed = None
                case Unsolicited(text):
                    replies += 1
                    assert text == said
                    assert self.in_flight is None
                    assert self.owed is None
                case GiveUp():
                    assert self.owed is not None
                    assert self.now >= self.owed_since + RESYNC
                    assert self.open, "given up, though no command waits"
        assert replies == (said is not None), "what the device said was lost or used twice"

    @rule(
        timeouts=st.lists(st.tuples(st.sampled_from([1.0, 5.0]), st.sampled_from([-1.0, 0.0, 2.0, 30.0])), max_size=3),
        written_before=st.booleans(),
    )
    def offer(self, timeouts: list[tuple[float, float]], written_before: bool) -> None:
        offered = []
        for timeout, left in timeouts:
            self.count += 1
            new = command(f"c{self.count}", timeout=timeout, writes=int(written_before))
            self.deadlines[new.id] = self.now + left
            self.order.append(new.id)
            self.open[new.id] = new
            offered.append((new, self.now + left))
        self.apply(self.delivery.offer(offered, self.now))

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def offer_again(self, data: st.DataObject) -> None:
        known = data.draw(st.lists(st.sampled_from(sorted(self.open)), min_size=1, max_size=3))
        copies = [(command(name), self.deadlines[name]) for name in known]
        self.apply(self.delivery.offer(copies, self.now))

    @rule()
    def say(self) -> None:
        self.count += 1
        self.apply(self.delivery.said(f"r{self.count}", self.now), said=f"r{self.count}")

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def tick(self) -> None:
        self.apply(self.delivery.tick(self.now))
        due = self.delivery.next_deadline()
        if self.owed is None:
            assert due is None or due > self.now, "a tick left something overdue"

    @precondition(lambda self: self.delivery.next_deadline() is not None)
    @rule()
    def wait_for_the_next_deadline(self) -> None:
        before = self.delivery.next_deadline()
        assert before is not None
        self.now = max(self.now, before)
        actions = self.delivery.tick(self.now)
        assert actions, "a deadline passed, and nothing came of it"
        self.apply(actions)

    @rule()
    def refuse_the_next_write(self) -> None:
        self.refuse_next = True

    @rule()
    def the_device_talks_until_all_has_ended(self) -> None:
        self.refuse_next = False
        for _ in range(2 * len(self.open) + 2):
            self.say()
        assert not self.open

    @invariant()
    def nothing_is_lost(self) -> None:
        assert len(self.delivery) == len(self.open)

    @invariant()
    def writes_keep_the_order_of_the_offers(self) -> None:
        assert self.writes == sorted(self.writes, key=self.order.index)
        assert len(set(self.writes)) == len(self.writes), "written twice on one line"


DeliveryStory.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestDeliveryStory = DeliveryStory.TestCase
