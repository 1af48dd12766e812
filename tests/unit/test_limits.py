"""Who may connect, how many, and how fast."""

from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from trunkline.errors import UsageError
from trunkline.tcp.limits import Admission, ConnectionLimits, RefusalReason, TokenBucket


def admitted(limits: ConnectionLimits, *hosts: str) -> list[str | None]:
    """What is said of peers that come at one moment, in order."""
    admission = Admission(limits)
    return [admission.admit(host, 0.0) for host in hosts]


# Networks.


def test_everyone_may_connect_where_nothing_is_said() -> None:
    assert admitted(ConnectionLimits(), "192.0.2.1", "2001:db8::1", "127.0.0.1", "") == [None] * 4


def test_with_a_list_of_who_may_connect_all_others_may_not() -> None:
    limits = ConnectionLimits(allow=("10.0.0.0/8", "2001:db8::/32", "192.0.2.7"))
    assert admitted(limits, "10.1.2.3", "2001:db8::1", "192.0.2.7") == [None] * 3
    assert admitted(limits, "11.0.0.1", "2001:db9::1", "192.0.2.8", "::1") == [RefusalReason.DENIED] * 4


def test_who_is_denied_and_allowed_is_denied() -> None:
    limits = ConnectionLimits(allow=("10.0.0.0/8",), deny=("10.6.6.0/24",))
    assert admitted(limits, "10.6.5.255", "10.6.6.0", "10.6.7.0") == [None, RefusalReason.DENIED, None]


@pytest.mark.parametrize("network", ["10.0.0.0/8", "::ffff:10.0.0.0/104"])
def test_an_ipv4_address_in_ipv6_clothes_is_that_ipv4_address(network: str) -> None:
    hosts = ("10.1.2.3", "::ffff:10.1.2.3", "::ffff:0a01:0203")
    assert admitted(ConnectionLimits(deny=(network,)), *hosts) == [RefusalReason.DENIED] * 3
    assert admitted(ConnectionLimits(allow=(network,)), *hosts) == [None] * 3
    assert admitted(ConnectionLimits(deny=("::/0",)), *hosts, "::1") == [None, None, None, RefusalReason.DENIED]


def test_a_zone_does_not_hide_an_address() -> None:
    assert admitted(ConnectionLimits(deny=("fe80::/10",)), "fe80::1%eth0") == [RefusalReason.DENIED]


def test_a_peer_at_a_unix_socket_belongs_to_no_network() -> None:
    limits = ConnectionLimits(allow=("10.0.0.0/8",), deny=("0.0.0.0/0", "::/0"), per_address=1)
    assert admitted(limits, "", "", "") == [None] * 3


@given(st.ip_addresses(), st.data())
def test_a_network_holds_the_addresses_that_share_its_first_bits(address: object, data: st.DataObject) -> None:
    other = data.draw(st.ip_addresses(v=address.version))  # type: ignore[attr-defined]
    bits = address.max_prefixlen  # type: ignore[attr-defined]
    length = data.draw(st.integers(0, bits))
    first = int(address) >> (bits - length) << (bits - length)  # type: ignore[call-overload]
    network = f"{type(address)(first)}/{length}"  # type: ignore[call-arg]
    mapped = bits == 128 and 0xFFFF in {int(one) >> 32 for one in (address, other)}  # type: ignore[call-overload]
    if not mapped:
        same = int(other) >> (bits - length) == first >> (bits - length)
        expected = [RefusalReason.DENIED, RefusalReason.DENIED if same else None]
        assert admitted(ConnectionLimits(deny=(network,)), str(address), str(other)) == expected


@pytest.mark.parametrize("host", ["localhost", "10.0.0", "10.0.0.1:80", "[::1]", " ", "10.0.0.01", "@"])
def test_what_is_no_address_is_the_callers_error(host: str) -> None:
    admission = Admission(ConnectionLimits(proxies=("10.0.0.0/8",)))
    for ask in (lambda: admission.admit(host, 0.0), lambda: admission.admit_behind(host),
                lambda: admission.needs_proxy_header(host)):  # fmt: skip
        with pytest.raises(UsageError, match="no IPv4 or IPv6 address"):
            ask()
    assert (admission.connections, admission.handshakes) == (0, 0)


# What is set.


@pytest.mark.parametrize("name", ["allow", "deny", "proxies"])
@pytest.mark.parametrize("text", ["10.0.0.1/8", "10.0.0.0/33", "::/129", "localhost", "", "10.0.0.0-10.0.0.9"])
def test_what_is_no_network_is_named_with_its_list(name: str, text: str) -> None:
    with pytest.raises(UsageError, match=rf"^{name}: .*write it like"):
        ConnectionLimits(**{name: ("127.0.0.1", text)})


@pytest.mark.parametrize("name", ["connections", "per_address", "burst", "handshakes", "handshakes_per_address"])
@pytest.mark.parametrize("value", [0, -1])
def test_a_limit_under_which_nobody_could_connect_is_an_error(name: str, value: int) -> None:
    with pytest.raises(UsageError, match=f"{name} = {value}"):
        ConnectionLimits(**{name: value})


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_a_rate_must_be_more_than_nothing(value: float) -> None:
    with pytest.raises(UsageError, match="per_second"):
        ConnectionLimits(per_second=value)
    with pytest.raises(UsageError, match="per_second"):
        TokenBucket(value, 1)
    with pytest.raises(UsageError, match="burst"):
        TokenBucket(1, value)


def test_limits_can_be_read_from_a_file() -> None:
    text = b'{"per_second": 50, "deny": ["10.6.6.0/24"], "proxies": ["::1"]}'
    limits = msgspec.json.decode(text, type=ConnectionLimits)
    assert limits == ConnectionLimits(per_second=50, deny=("10.6.6.0/24",), proxies=("::1",))


# Counts.


def test_one_more_than_the_limit_is_refused_until_one_has_gone() -> None:
    admission = Admission(ConnectionLimits(connections=2))
    assert [admission.admit("10.0.0.1", 0.0) for _ in range(3)] == [None, None, RefusalReason.CONNECTIONS_LIMIT]
    admission.release("10.0.0.1", False)
    assert admission.admit("10.0.0.2", 0.0) is None
    assert admission.admit("10.0.0.3", 0.0) == RefusalReason.CONNECTIONS_LIMIT


def test_peers_that_have_not_said_who_they_are_have_a_limit_of_their_own() -> None:
    admission = Admission(ConnectionLimits(handshakes=2))
    assert [admission.admit("10.0.0.1", 0.0) for _ in range(3)] == [None, None, RefusalReason.HANDSHAKES_LIMIT]
    admission.established("10.0.0.1")
    assert admission.admit("10.0.0.2", 0.0) is None
    assert (admission.connections, admission.handshakes) == (3, 2)
    admission.release("10.0.0.1", True)
    admission.release("10.0.0.2", False)
    assert (admission.connections, admission.handshakes) == (1, 1)


def test_one_address_has_its_limit_and_the_others_have_theirs() -> None:
    admission = Admission(ConnectionLimits(per_address=2))
    assert [admission.admit("10.0.0.1", 0.0) for _ in range(3)] == [None, None, RefusalReason.ADDRESS_LIMIT]
    assert admission.admit("::ffff:10.0.0.1", 0.0) == RefusalReason.ADDRESS_LIMIT
    assert admission.admit("10.0.0.2", 0.0) is None
    admission.release("::ffff:10.0.0.1", False)
    assert admission.admit("10.0.0.1", 0.0) is None


def test_whoever_has_one_address_of_an_ipv6_network_has_them_all() -> None:
    limits = ConnectionLimits(per_address=1)
    hosts = ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", "2001:db8:1:3::1")
    assert admitted(limits, *hosts) == [None, RefusalReason.ADDRESS_LIMIT, None]


def test_one_address_does_not_take_all_places_of_those_that_knock() -> None:
    admission = Admission(ConnectionLimits(handshakes=10, handshakes_per_address=2))
    assert [admission.admit("10.0.0.1", 0.0) for _ in range(3)] == [None, None, RefusalReason.HANDSHAKES_LIMIT]
    assert admission.admit("10.0.0.2", 0.0) is None
    admission.established("10.0.0.1")
    assert admission.admit("10.0.0.1", 0.0) is None
    assert admission.admit("10.0.0.1", 0.0) == RefusalReason.HANDSHAKES_LIMIT


def test_new_connections_come_at_a_rate_after_a_burst() -> None:
    admission = Admission(ConnectionLimits(per_second=2.0, burst=3))
    assert [admission.admit("10.0.0.1", 5.0) for _ in range(4)] == [None, None, None, RefusalReason.RATE_LIMIT]
    assert admission.admit("10.0.0.1", 5.25) == RefusalReason.RATE_LIMIT
    assert [admission.admit("10.0.0.1", 5.5) for _ in range(2)] == [None, RefusalReason.RATE_LIMIT]
    assert [admission.admit("10.0.0.1", 99.0) for _ in range(4)] == [None, None, None, RefusalReason.RATE_LIMIT]


def test_who_is_refused_uses_up_nothing_of_the_rate() -> None:
    admission = Admission(ConnectionLimits(per_second=1.0, burst=1, deny=("10.6.6.6",)))
    assert {admission.admit("10.6.6.6", 0.0) for _ in range(100)} == {RefusalReason.DENIED}
    assert admission.admit("10.0.0.1", 0.0) is None
    assert {admission.admit("10.0.0.1", 0.5) for _ in range(100)} == {RefusalReason.RATE_LIMIT}
    assert admission.admit("10.0.0.1", 1.0) is None


def test_what_was_not_admitted_cannot_be_released_or_established() -> None:
    admission = Admission(ConnectionLimits(per_address=5, handshakes_per_address=5))
    with pytest.raises(UsageError):
        admission.release("10.0.0.1", True)
    with pytest.raises(UsageError):
        admission.established("10.0.0.1")
    assert admission.admit("10.0.0.1", 0.0) is None
    with pytest.raises(UsageError):
        admission.established("10.0.0.2")
    with pytest.raises(UsageError):
        admission.release("10.0.0.2", True)
    admission.release("10.0.0.1", False)
    assert (admission.connections, admission.handshakes) == (0, 0)


# Proxies.

PROXIED = ConnectionLimits(
    allow=("192.0.2.0/24",), deny=("192.0.2.66",), proxies=("10.0.0.0/30", "::1"), per_address=2, connections=5
)


def test_a_proxy_needs_a_header_and_nobody_else_does() -> None:
    admission = Admission(PROXIED)
    hosts = ("10.0.0.1", "::ffff:10.0.0.1", "::1", "10.0.0.4", "192.0.2.1", "")
    assert [admission.needs_proxy_header(host) for host in hosts] == [True, True, True, False, False, False]
    assert not Admission(ConnectionLimits()).needs_proxy_header("10.0.0.1")


def test_a_proxy_is_held_to_no_limit_per_address_and_the_peers_behind_it_are() -> None:
    admission = Admission(PROXIED)
    for expected in (None, None, RefusalReason.ADDRESS_LIMIT):
        assert admission.admit("10.0.0.1", 0.0) is None
        assert admission.admit_behind("192.0.2.1") == expected
    assert admission.admit_behind("192.0.2.66") == RefusalReason.DENIED
    assert admission.admit_behind("198.51.100.1") == RefusalReason.DENIED
    admission.release("10.0.0.1", False)
    admission.release("192.0.2.1", False)
    assert admission.connections == 1
    assert admission.admit("192.0.2.1", 0.0) is None
    assert admission.admit("192.0.2.1", 0.0) == RefusalReason.ADDRESS_LIMIT


def test_a_proxy_that_is_denied_is_denied() -> None:
    assert admitted(ConnectionLimits(proxies=("10.0.0.0/8",), deny=("10.0.0.9",)), "10.0.0.9") == [RefusalReason.DENIED]


# Any history.


class AdmissionHistory(RuleBasedStateMachine):
    """Peers come, say who they are, and go, as it happens. A plain count beside it says what must be answered."""

    connections = Bundle("connections")
    hosts = st.sampled_from(["10.0.0.1", "10.0.0.2", "::ffff:10.0.0.2", "2001:db8::1", "2001:db8::2", "10.9.9.9", ""])
    limits = ConnectionLimits(
        connections=6, per_address=3, handshakes=4, handshakes_per_address=2, deny=("10.9.0.0/16",)
    )

    def __init__(self) -> None:
        super().__init__()
        self.admission = Admission(self.limits)
        self.open: Counter[str] = Counter()
        self.early: Counter[str] = Counter()

    def one(self, host: str) -> str:
        return "10.0.0.2" if host.startswith("::ffff") else "2001:db8::" if host.startswith("2001") else host

    def expected(self, host: str) -> str | None:
        if host == "10.9.9.9":
            return RefusalReason.DENIED
        if self.open.total() >= 6:
            return RefusalReason.CONNECTIONS_LIMIT
        if self.early.total() >= 4:
            return RefusalReason.HANDSHAKES_LIMIT
        if host and self.open[self.one(host)] >= 3:
            return RefusalReason.ADDRESS_LIMIT
        return RefusalReason.HANDSHAKES_LIMIT if host and self.early[self.one(host)] >= 2 else None

    @rule(target=connections, host=hosts)
    def comes(self, host: str) -> object:
        reason = self.admission.admit(host, 0.0)
        assert reason == self.expected(host)
        if reason is not None:
            return multiple()
        self.open[self.one(host)] += 1
        self.early[self.one(host)] += 1
        return host, False

    @rule(target=connections, connection=consumes(connections))
    def says_who_it_is(self, connection: tuple[str, bool]) -> object:
        host, established = connection
        if not established:
            self.admission.established(host)
            self.early[self.one(host)] -= 1
        return host, True

    @rule(connection=consumes(connections))
    def goes(self, connection: tuple[str, bool]) -> None:
        host, established = connection
        self.admission.release(host, established)
        self.open[self.one(host)] -= 1
        self.early[self.one(host)] -= not established

    @invariant()
    def counts_are_true_and_no_address_without_a_connection_takes_room(self) -> None:
        assert self.admission.connections == self.open.total()
        assert self.admission.handshakes == self.early.total()
        assert len(self.admission._connections_of._counts) == len([host for host in +self.open if host])
        assert len(self.admission._handshakes_of._counts) == len([host for host in +self.early if host])


TestAdmissionHistory = AdmissionHistory.TestCase


# The token bucket. Times, rates and amounts are sums of powers of two, so that no rounding blurs what must be exact.

eighths = st.integers(0, 800).map(lambda number: number / 8)
rates = st.sampled_from([0.25, 0.5, 1.0, 4.0, 64.0])
steps = st.lists(st.tuples(eighths, eighths), min_size=1, max_size=30)


@given(rates, st.integers(1, 50), steps)
def test_no_span_of_time_lets_more_pass_than_the_burst_and_the_rate(
    rate: float, burst: int, steps: list[tuple[float, float]]
) -> None:
    bucket = TokenBucket(rate, burst)
    now, passed = 0.0, []
    for pause, amount in steps:
        now += pause
        passed.append((now + bucket.take(amount, now), amount))
    most = max([burst, *(amount for _, amount in passed)])
    for first, (start, _) in enumerate(passed):
        for last in range(first, len(passed)):
            span = passed[last][0] - start
            assert sum(amount for _, amount in passed[first : last + 1]) <= most + rate * span


@given(rates, st.integers(1, 50), steps)
def test_who_waits_as_told_waits_no_longer_than_the_rate_asks(
    rate: float, burst: int, steps: list[tuple[float, float]]
) -> None:
    bucket = TokenBucket(rate, burst)
    now, total = 0.0, 0.0
    for _, amount in steps:
        now += bucket.take(amount, now)
        total += amount
    assert now == max(0.0, (total - burst) / rate)


@given(rates, st.integers(1, 50), steps)
def test_what_is_only_taken_if_it_is_there_is_never_owed(
    rate: float, burst: int, steps: list[tuple[float, float]]
) -> None:
    bucket = TokenBucket(rate, burst)
    level, now = float(burst), 0.0
    for pause, amount in steps:
        now += pause
        level = min(float(burst), level + pause * rate)
        taken = bucket.try_take(amount, now)
        assert taken == (amount <= level)
        level -= amount * taken
        assert bucket.take(0, now) == 0.0


def test_a_clock_that_stands_or_goes_back_earns_nothing() -> None:
    bucket = TokenBucket(2.0, 10)
    assert bucket.take(10, 100.0) == 0.0
    assert bucket.take(4, 100.0) == 2.0
    assert bucket.take(0, 50.0) == 2.0
    assert bucket.take(0, 101.0) == 1.0
    assert bucket.take(0, 102.0) == 0.0
