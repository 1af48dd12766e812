"""The deadlines of a connection: pure rules over its times."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.tcp.deadlines import NEVER, Deadlines
from trunkline.tcp.options import CloseReason, ConnectionOptions
from trunkline.wire import Frames, SimpleReactorWire

TICK = 0.25


def judge(deadlines: Deadlines, now: float, **times: Any) -> tuple[str | None, float]:
    """The verdict on a connection that came up at 0 and did nothing since, but for `times`."""
    facts: dict[str, Any] = {"started_at": 0.0, "heard_at": 0.0, "said_at": 0.0, "beat_at": 0.0}
    return deadlines.judge(now, **(facts | {"established": True, "closing_at": None} | times))


def plain(**options: Any) -> Deadlines:
    return Deadlines.of(ConnectionOptions(**options), None)


def test_without_options_nothing_is_ever_due() -> None:
    assert judge(plain(), 1e9) == (None, NEVER)


@pytest.mark.parametrize(
    ("options", "established", "reason"),
    [
        ({"idle_timeout": 5.0}, True, CloseReason.IDLE),
        ({"write_idle_timeout": 5.0}, True, CloseReason.WRITE_IDLE),
        ({"lifetime": 5.0}, True, CloseReason.LIFETIME),
        ({"handshake_timeout": 5.0}, False, CloseReason.HANDSHAKE_TIMEOUT),
        ({"heartbeat_interval": 2.5}, False, CloseReason.HEARTBEAT_LOST),
        ({"heartbeat_interval": 1.0, "heartbeat_misses": 5}, False, CloseReason.HEARTBEAT_LOST),
    ],
)
def test_each_deadline_has_its_reason(options: dict[str, Any], established: bool, reason: str) -> None:
    deadlines = plain(**options)
    assert judge(deadlines, 5.0, established=established) == (None, 5.0)
    assert judge(deadlines, 5.1, established=established) == (reason, NEVER)
    assert "s" in deadlines.text(reason), "and says how long it was"


def test_the_text_for_a_reason_that_is_no_deadline_is_the_reason() -> None:
    assert plain().text(CloseReason.DRAINED) == CloseReason.DRAINED


def test_a_handshake_that_is_done_is_not_judged() -> None:
    assert judge(plain(handshake_timeout=5.0), 6.0, established=True) == (None, NEVER)


def test_bytes_that_come_do_not_put_off_the_handshake() -> None:
    deadlines = plain(handshake_timeout=5.0, idle_timeout=5.0)
    assert judge(deadlines, 5.1, heard_at=5.0, established=False)[0] == CloseReason.HANDSHAKE_TIMEOUT


def test_traffic_does_not_put_off_the_lifetime() -> None:
    assert judge(plain(lifetime=5.0, idle_timeout=1.0), 5.1, heard_at=5.0, said_at=5.0)[0] == CloseReason.LIFETIME


def test_a_silent_peer_is_asked_and_then_given_up() -> None:
    deadlines = plain(heartbeat_interval=10.0)
    assert judge(deadlines, 9.9) == (None, 10.0)
    assert judge(deadlines, 10.0) == ("beat", 20.0)
    assert judge(deadlines, 19.9, beat_at=10.0) == (None, 20.0)
    assert judge(deadlines, 20.1, beat_at=20.0)[0] == CloseReason.HEARTBEAT_LOST


def test_a_peer_that_answers_is_asked_again_an_interval_later() -> None:
    deadlines = plain(heartbeat_interval=10.0)
    assert judge(deadlines, 10.5, heard_at=10.5, beat_at=10.0) == (None, 20.5)
    assert judge(deadlines, 20.5, heard_at=10.5, beat_at=10.0) == ("beat", 30.5)


def test_no_heartbeat_goes_out_before_the_handshake_is_done() -> None:
    deadlines = plain(heartbeat_interval=1.0, heartbeat_misses=5, handshake_timeout=10.0)
    assert judge(deadlines, 3.0, established=False) == (None, 5.0)


def test_a_server_of_simple_reactor_beats_whatever_it_hears_and_judges_nobody() -> None:
    deadlines = Deadlines.of(ConnectionOptions(heartbeat_interval=1.0), SimpleReactorWire("server"))
    assert judge(deadlines, 1.0, heard_at=1.0)[0] == "beat"
    assert judge(deadlines, 1e6, beat_at=1e6, heard_at=0.0)[0] is None


def test_a_session_has_deadlines_though_nobody_set_them() -> None:
    deadlines = Deadlines.of(ConnectionOptions(), Frames())
    assert judge(deadlines, 10.1, established=False)[0] == CloseReason.HANDSHAKE_TIMEOUT
    assert judge(deadlines, 30.0)[0] == "beat"
    assert judge(deadlines, 60.1, beat_at=60.0)[0] == CloseReason.HEARTBEAT_LOST


def test_options_win_over_the_defaults_of_a_session() -> None:
    deadlines = Deadlines.of(ConnectionOptions(handshake_timeout=2.0, heartbeat_interval=3.0), Frames())
    assert (deadlines.handshake, deadlines.beat, deadlines.silence) == (2.0, 3.0, 6.0)


def test_a_closing_connection_has_the_close_timeout_and_no_other_deadline() -> None:
    deadlines = plain(close_timeout=5.0, idle_timeout=1.0, lifetime=1.0)
    assert judge(deadlines, 104.9, closing_at=100.0) == (None, 105.0)
    assert judge(deadlines, 105.1, closing_at=100.0) == (CloseReason.CLOSED, NEVER)


spans = st.none() | st.sampled_from([0.5, 1.0, 2.0, 3.0, 7.0, 30.0])
kinds = st.builds(
    ConnectionOptions,
    handshake_timeout=spans,
    idle_timeout=spans,
    write_idle_timeout=spans,
    lifetime=spans,
    heartbeat_interval=spans,
    heartbeat_misses=st.integers(1, 4),
    close_timeout=st.sampled_from([0.5, 5.0]),
).map(lambda options: Deadlines.of(options, None))
events = st.sampled_from(["heard", "said", "established", "closing", "nothing", "nothing", "nothing"])


@given(kinds, st.lists(events, max_size=80))
def test_who_looks_only_when_something_may_be_due_sees_all_that_is(deadlines: Deadlines, story: list[str]) -> None:
    """The moment that `judge` gives is safe: before it, `judge` has nothing to say.

    Whoever relies on it has to look again at once when the connection is established or begins to close.
    """
    times: dict[str, Any] = {"established": deadlines.handshake == NEVER}
    due = 0.0
    for number, event in enumerate(story):
        now = number * TICK
        match event:
            case "heard" | "said":
                times[f"{event}_at"] = now
            case "established":
                times["established"] = True
                due = 0.0
            case "closing":
                times.setdefault("closing_at", now)
                due = 0.0
        verdict, next_due = judge(deadlines, now, **times)
        assert now >= due or verdict is None, f"{verdict} at {now}, though nothing was due before {due}"
        assert next_due >= now or verdict is not None
        if now >= due:
            due = next_due
        if verdict == "beat":
            times["beat_at"] = now
        elif verdict is not None:
            return


@given(kinds, st.floats(0, 100), st.floats(0, 100), st.floats(0, 100), st.booleans())
def test_the_first_deadline_to_pass_gives_the_reason(
    deadlines: Deadlines, now: float, heard_at: float, said_at: float, established: bool
) -> None:
    heard_at, said_at = min(heard_at, now), min(said_at, now)
    reason, _ = judge(deadlines, now, heard_at=heard_at, said_at=said_at, beat_at=now, established=established)
    passed = {
        CloseReason.LIFETIME: now - deadlines.lifetime,
        CloseReason.HEARTBEAT_LOST: now - heard_at - deadlines.silence,
        CloseReason.IDLE: now - heard_at - deadlines.idle,
        CloseReason.WRITE_IDLE: now - said_at - deadlines.write_idle,
        CloseReason.HANDSHAKE_TIMEOUT: -math.inf if established else now - deadlines.handshake,
    }
    worst = max(passed.values())
    if reason in passed:
        assert passed[reason] == pytest.approx(worst)
        assert worst > -1e-9
    else:
        assert worst <= 1e-9


@given(
    st.floats(0.25, 60),
    st.integers(1, 5),
    st.lists(st.integers(0, 400), max_size=30),
    st.integers(0, 3),
)
def test_a_silent_peer_is_found_in_time_and_one_that_answers_never(
    interval: float, misses: int, gaps: list[int], answer_ticks: int
) -> None:
    """A peer that answers within half an interval stays; one that stops is found within its intervals and two looks."""
    answer_after = min(answer_ticks * TICK, interval / 2 - TICK)
    deadlines = plain(heartbeat_interval=interval, heartbeat_misses=max(2, misses))
    ticks = sum(gaps)
    heard_at = beat_at = 0.0
    answer_at = math.inf
    heard_ticks = {sum(gaps[:number]) for number in range(len(gaps) + 1)}
    for tick in range(ticks):
        now = tick * TICK
        if tick in heard_ticks or now >= answer_at:
            heard_at, answer_at = now, math.inf
        verdict, _ = judge(deadlines, now, heard_at=heard_at, beat_at=beat_at)
        assert verdict in (None, "beat") or answer_after < 0, f"a live peer was given up at {now}"
        if verdict == "beat":
            beat_at = now
            answer_at = now + answer_after
    for tick in range(ticks, ticks + int(deadlines.silence / TICK) + 3):
        now = tick * TICK
        verdict, _ = judge(deadlines, now, heard_at=heard_at, beat_at=beat_at)
        if verdict == "beat":
            beat_at = now
    assert verdict == CloseReason.HEARTBEAT_LOST
    assert now <= max(ticks * TICK, heard_at) + deadlines.silence + 3 * TICK
