"""The native session: two of them agree whatever happens on the way, and no bytes make one grow or raise."""

import importlib.util
import json
import struct
import sys
import tracemalloc
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from trunkline.errors import BadFrame, FrameTooLarge, PeerTimeout, ProtocolError, UsageError
from trunkline.testing import check_framer
from trunkline.wire.compression import PackedMessages, is_available
from trunkline.wire.frames import Frames, Hello

FUZZ = Path(__file__).resolve().parents[2] / "fuzz"
MIB = 1 << 20
HELLO, DATA, COMPRESSED, PING, PONG, CLOSE = range(1, 7)
GOOD = {"version": [1, 1], "limit_bytes": 1_000}
each_compression = pytest.mark.parametrize(
    "name",
    ["zlib", pytest.param("zstd", marks=pytest.mark.skipif(not is_available("zstd"), reason="zstandard is missing"))],
)


def frame(kind: int, payload: bytes = b"") -> bytes:
    return struct.pack(">IB", len(payload) + 1, kind) + payload


def hello(**fields: Any) -> bytes:
    return frame(HELLO, json.dumps({**GOOD, **fields}).encode())


def frames_of(stream: bytes) -> list[tuple[int, bytes]]:
    """The frames of a stream that was said, read by other means than the session's."""
    found = []
    while stream:
        length = int.from_bytes(stream[:4], "big")
        assert len(stream) >= 4 + length
        found.append((stream[4], stream[5 : 4 + length]))
        stream = stream[4 + length :]
    return found


def taken(session: Frames) -> bytes:
    output = bytes(session.output)
    session.output.clear()
    return output


def said(session: Frames) -> list[tuple[int, bytes]]:
    return frames_of(taken(session))


def established(limit_bytes: int = 1_000, peer: bytes = hello(), **options: Any) -> Frames:
    """A session behind the hellos."""
    session = Frames(limit_bytes, **options)
    session.start()
    assert session.receive(peer) == []
    assert session.error is None
    session.output.clear()
    return session


def pair(one: dict[str, Any], other: dict[str, Any]) -> tuple[Frames, Frames]:
    """Two sessions that have said hello to each other."""
    left, right = Frames(**one), Frames(**other)
    left.start()
    right.start()
    for _ in range(2):
        assert right.receive(taken(left)) == []
        assert left.receive(taken(right)) == []
    return left, right


def failed(session: Frames, kind: type[ProtocolError], text: str) -> None:
    assert type(session.error) is kind
    assert text in str(session.error)
    assert not session._rest
    session.output.clear()
    assert session.receive(frame(DATA, b"more")) == []
    assert not session.output


# Two sessions, and all that can happen to them.

BODIES = st.one_of(
    st.binary(max_size=40),
    st.integers(0, 400).map(lambda size: b'{"voltage":230.1}' * (size // 17)),
    st.sampled_from([b"", b"x" * 31, b"x" * 32, b"x" * 255, b"x" * 256, b"x" * 999, b"x" * 1_000, b"x" * 1_001]),
)


class TwoSessions(RuleBasedStateMachine):
    """A pipe in each direction carries what one side says, cut wherever it may be, to the other."""

    def __init__(self) -> None:
        super().__init__()
        self.sides: list[Frames] = []
        self.wires = [bytearray(), bytearray()]
        self.said: list[list[tuple[int, bytes]]] = [[], []]
        self.sent: list[list[bytes]] = [[], []]
        self.got: list[list[bytes]] = [[], []]
        self.reasons: list[str | None] = [None, None]
        self.broken = [False, False]

    @initialize(
        compression=st.tuples(*[st.lists(st.sampled_from(["zlib", "zstd"]), unique=True)] * 2),
        limits=st.tuples(*[st.sampled_from([40, 1_000, 100_000])] * 2),
        threshold=st.sampled_from([1, 32, 256]),
        judges=st.booleans(),
    )
    def begin(self, compression: tuple[list[str], ...], limits: tuple[int, ...], threshold: int, judges: bool) -> None:
        for side in (0, 1):
            authorize = (lambda hello: None if hello.auth == "token" else "no") if side == 0 and judges else None
            self.sides.append(
                Frames(
                    limits[side],
                    compression=compression[side],
                    threshold_bytes=threshold,
                    auth="token",
                    authorize=authorize,
                )
            )
            self.sides[side].start()
            self.write(side)

    def write(self, side: int, more: bytes = b"") -> None:
        """What the connection does: the output first, then what was encoded."""
        data = taken(self.sides[side]) + more
        self.said[side] += frames_of(data)
        self.wires[side] += data

    @rule(side=st.sampled_from([0, 1]), messages=st.lists(BODIES, min_size=1, max_size=3), all_at_once=st.booleans())
    def send(self, side: int, messages: list[bytes], all_at_once: bool) -> None:
        session, limit = self.sides[side], self.sides[1 - side].limit_bytes
        may = session.established and self.reasons[side] is None
        if not may or max(map(len, messages)) > limit:
            with pytest.raises(UsageError):
                session.encode_all(messages)
            return
        data = session.encode_all(messages) if all_at_once else b"".join([session.encode(one) for one in messages])
        self.write(side, data)
        if not self.broken[side]:
            self.sent[side] += messages

    @rule(side=st.sampled_from([0, 1]))
    def ping(self, side: int) -> None:
        self.sides[side].ping()
        self.write(side)

    @rule(side=st.sampled_from([0, 1]), kind=st.integers(0x80, 0xFF), payload=st.binary(max_size=40))
    @precondition(lambda self: all(side.established for side in self.sides) and self.reasons == [None, None])
    def say_what_a_later_version_may(self, side: int, kind: int, payload: bytes) -> None:
        self.write(side, frame(kind, payload))

    @rule(side=st.sampled_from([0, 1]), sizes=st.lists(st.integers(1, 60), max_size=12), all_of_it=st.booleans())
    def deliver(self, side: int, sizes: list[int], all_of_it: bool) -> None:
        wire, receiver = self.wires[side], self.sides[1 - side]
        for size in [*sizes, *([len(wire)] if all_of_it else [])]:
            piece = bytes(wire[:size])
            del wire[:size]
            over = receiver.error is not None or receiver.peer_reason is not None
            messages = receiver.receive(piece)
            assert not (over and (messages or receiver.output))
            self.got[side] += messages
            assert len(receiver.output) <= 5 + 4_096
            self.write(1 - side)

    @rule(side=st.sampled_from([0, 1]), reason=st.sampled_from(["drained", "", "closed: été " + "é" * 200]))
    @precondition(lambda self: self.reasons == [None, None] and not any(self.broken))
    def close(self, side: int, reason: str) -> None:
        self.sides[side].close(reason)
        self.sides[side].close("a second time")
        self.write(side)
        self.reasons[side] = reason

    @rule(
        side=st.sampled_from([0, 1]),
        garbage=st.sampled_from([bytes(5), frame(0x7F), b"\xff" * 5, frame(PING, b"123456789")]),
    )
    @precondition(lambda self: all(side.established for side in self.sides) and self.reasons == [None, None])
    def break_the_protocol(self, side: int, garbage: bytes) -> None:
        self.wires[side] += garbage
        self.broken[side] = True

    @invariant()
    def what_came_is_what_was_sent_in_order_and_nothing_is_held_that_need_not_be(self) -> None:
        for side in range(len(self.sides)):
            assert self.got[side] == self.sent[side][: len(self.got[side])]
            session = self.sides[side]
            bound = max(session.limit_bytes, 256) if session.established else 4_096
            assert len(session._rest) <= (5 + bound if session.error is None and session.peer_reason is None else 0)
            assert session.error is None or self.broken[1 - side]

    def teardown(self) -> None:
        if not self.sides:
            return
        for _ in range(3):
            for side in (0, 1):
                self.deliver(side, [], all_of_it=True)
        for side in (0, 1):
            receiver = self.sides[1 - side]
            if self.broken[side] and self.reasons[1 - side] is None:
                assert isinstance(receiver.error, ProtocolError)
            ended_first = self.reasons[side] is not None or self.broken[side]
            assert self.got[side] == self.sent[side]
            if self.reasons[side] is not None:
                assert receiver.peer_reason is not None
                assert len(receiver.peer_reason.encode()) <= 256
                assert (self.reasons[side] or "").startswith(receiver.peer_reason)
            elif not ended_first and self.reasons == [None, None] and not any(self.broken):
                self.said[1 - side].clear()
                self.ping(side)
                self.deliver(side, [], all_of_it=True)
                assert self.said[1 - side] == [(PONG, b"")]
                self.deliver(1 - side, [], all_of_it=True)


TestTwoSessions = TwoSessions.TestCase
TestTwoSessions.settings = settings(max_examples=100, stateful_step_count=25, deadline=None)


# It is a framer.


def test_an_established_session_passes_the_conformance_check() -> None:
    check_framer(
        lambda: established(300, peer=hello(limit_bytes=300)),
        [b"hello", b"", b"\x00\xff", b"x" * 255, b"x" * 256, b"x" * 300],
        limit_bytes=305,
        bad_streams=[
            bytes(5), b"\0\0\0\1\0", frame(7), frame(0x7F), hello(), frame(COMPRESSED, bytes(4)), frame(CLOSE, b"\xff"),
            frame(DATA, b"ok") + bytes(5),
        ],
        oversize_streams=[
            b"\0\0\1\x2e\2", b"\xff\xff\xff\xff\2", b"\0\0\1\x2e\xff", b"\0\0\0\x0a\4", b"\0\0\0\x0a\5", b"\0\0\1\2\6",
            frame(DATA, b"ok") + b"\0\0\1\x2e\2x",
        ],
        unsendable=[b"x" * 301],
    )  # fmt: skip


def test_a_session_before_its_hello_passes_the_conformance_check() -> None:
    check_framer(
        lambda: Frames(300),
        [],
        limit_bytes=4_101,
        bad_streams=[frame(DATA), frame(PING), frame(0x80), bytes(5), frame(HELLO, b"{}"), frame(HELLO, b"\xff")],
        oversize_streams=[b"\0\0\x10\2\1", b"\0\0\1\2\6"],
        unsendable=[b"", b"x"],
    )


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_wrong_bytes_anywhere_give_the_same_in_any_split_and_never_raise(data: st.DataObject) -> None:
    left, right = pair({"compression": ["zlib"], "threshold_bytes": 1}, {"compression": ["zlib"]})
    said_hello = hello(features=["zlib"], auth={"user": "a"})
    left.ping()
    stream = bytearray(said_hello + taken(left) + left.encode_all([b"hello" * 10, b"more"]) + right.encode(b"plain"))
    left.close("drained")
    stream += taken(left)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(stream) - 1))
        stream[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    outcomes = []
    for places in ([], cuts, range(len(stream))):
        session = Frames(1_000, compression=["zlib"])
        messages = [
            message
            for start, end in zip([0, *places], [*places, len(stream)], strict=True)
            for message in session.receive(bytes(stream[start:end]))
        ]
        outcomes.append((messages, repr(session.error), session.peer_reason, session.peer))
    assert outcomes[0] == outcomes[1] == outcomes[2]


# The hello.


def test_both_sides_say_hello_at_once_and_know_each_other_then() -> None:
    left, right = pair(
        {"limit_bytes": 500, "agent": "meter/2.1", "auth": "s3cret"}, {"auth": {"user": "a", "n": 1, "x": None}}
    )
    assert left.established
    assert right.established
    assert right.peer == Hello(version=(1, 1), limit_bytes=500, agent="meter/2.1", auth="s3cret")
    assert left.peer == Hello(version=(1, 1), limit_bytes=MIB, auth={"user": "a", "n": 1, "x": None})
    with pytest.raises(AttributeError):
        left.peer.agent = "other"  # type: ignore[misc]


def test_before_the_peers_hello_nothing_can_be_sent() -> None:
    session = Frames()
    session.start()
    for call in (lambda: session.encode(b"x"), lambda: session.encode_all([b"x"])):
        with pytest.raises(UsageError, match="only after the peer's hello"):
            call()
    assert session.encode_all([]) == b""


def test_what_is_sent_keeps_to_the_limit_of_the_peer_and_not_to_ones_own() -> None:
    small, large = pair({"limit_bytes": 10}, {"limit_bytes": 2_000})
    assert large.receive(small.encode(b"x" * 2_000)) == [b"x" * 2_000]
    assert small.receive(large.encode_all([b"x" * 10, b""])) == [b"x" * 10, b""]
    with pytest.raises(UsageError, match="11 bytes; the peer takes 10"):
        large.encode(b"x" * 11)
    with pytest.raises(UsageError, match="11 bytes; the peer takes 10"):
        large.encode_all([b"ok", b"x" * 11])


@pytest.mark.parametrize(
    "payload",
    [
        b"", b"\xff", b"{}", b"[]", b"1", b"null", b"HELLO", hello()[5:-1], hello()[5:] + b"}",
        b"\xef\xbb\xbf" + hello()[5:],
        hello(version=1)[5:], hello(version=[])[5:], hello(version=[1])[5:], hello(version=[1, 1, 1])[5:],
        hello(version=[0, 1])[5:], hello(version=["1", "1"])[5:], hello(version=[1, 65_536])[5:],
        hello(version=[1.5, 2])[5:], hello(version=None)[5:], hello(limit_bytes=0)[5:], hello(limit_bytes=-1)[5:],
        hello(limit_bytes=1 << 32)[5:], hello(limit_bytes="1")[5:], hello(limit_bytes=None)[5:],
        hello(features="zlib")[5:], hello(features=[1])[5:], hello(features=["x"] * 33)[5:],
        hello(features=["x" * 65])[5:],
        hello(features=None)[5:], hello(agent=1)[5:], hello(agent="x" * 201)[5:], hello(auth=1)[5:], hello(auth=[])[5:],
        hello(auth={"a": {}})[5:], hello(auth={"a": []})[5:],
        b'{"version":[1,1],"limit_bytes":1,"other":' + b"[" * 4_000,
    ],
    ids=lambda payload: payload.decode(errors="replace")[:60],
)  # fmt: skip
def test_a_hello_with_anything_wrong_in_it_is_an_error_and_the_peer_is_told(payload: bytes) -> None:
    session = Frames()
    assert session.receive(frame(HELLO, payload)) == []
    (kind, text), *rest = said(session)
    assert (kind, rest) == (CLOSE, [])
    assert text.startswith(b"bad_frame: the HELLO can't be read: ")
    failed(session, BadFrame, "the HELLO can't be read")
    assert not session.established
    assert session.peer is None


def test_what_a_hello_may_have_besides_is_ignored() -> None:
    session = established(peer=hello(features=["brotli", "zlib", "zlib"], other=[[{}]], agent="é" * 200, auth=None))
    assert session.error is None
    assert session.peer is not None
    assert session.peer.features == ("brotli", "zlib", "zlib")


def test_a_hello_may_have_4096_bytes_and_no_more() -> None:
    payload = hello()[5:]
    assert established(peer=frame(HELLO, payload.ljust(4_096))).established
    session = Frames()
    session.receive(b"\0\0\x10\2\1")
    failed(session, FrameTooLarge, "4097 bytes; the limit is 4096")


def test_a_second_hello_is_an_error() -> None:
    session = established()
    assert session.receive(frame(DATA, b"hello") + hello()) == [b"hello"]
    assert not session.output  # the farewell waits until the message has its answer
    failed(session, BadFrame, "a second HELLO")


@pytest.mark.parametrize("kind", [DATA, COMPRESSED, PING, PONG, 0, 7, 0x80, 0xFF])
def test_nothing_but_a_farewell_may_come_before_the_hello(kind: int) -> None:
    session = Frames()
    assert session.receive(frame(kind, b"x") + hello()) == []
    assert [kind for kind, _ in said(session)] == [CLOSE]
    failed(session, BadFrame, f"the first frame is no HELLO but of type 0x{kind:02x}")


@pytest.mark.parametrize(
    ("version", "text"), [([2, 3], "2 to 3"), ([65_535, 65_535], "65535 to 65535"), ([2, 1], "2 to 1")]
)
def test_without_a_common_version_the_peer_is_told_and_it_is_an_error(version: list[int], text: str) -> None:
    session = Frames()
    session.start()
    session.receive(hello(version=version))
    assert [kind for kind, _ in frames_of(bytes(session.output))] == [HELLO, CLOSE]
    assert said(session)[1][1] == f"version: the peer speaks {text}, this side 1".encode()
    failed(session, ProtocolError, f"the peer speaks {text}, this side 1")
    assert not session.established


def test_a_peer_that_speaks_later_versions_too_is_understood() -> None:
    assert established(peer=hello(version=[1, 7])).established


@pytest.mark.parametrize(
    "options",
    [
        {"limit_bytes": 0}, {"limit_bytes": -1}, {"limit_bytes": 1 << 32}, {"threshold_bytes": 0},
        {"compression": ["brotli"]}, {"agent": "x" * 201}, {"auth": "x" * 4_096}, {"auth": {"a": object()}},
        {"auth": {"a": {}}}, {"auth": 1}, {"agent": "\ud800"},
    ],
)  # fmt: skip
def test_what_no_peer_would_take_is_refused_when_the_session_is_made(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Frames(**options)


def test_a_token_is_shown_neither_in_the_hello_nor_in_an_error() -> None:
    session = established(peer=hello(auth="s3cret"))
    assert "s3cret" not in repr(session.peer)
    assert "auth=None" in repr(established().peer)
    for auth in ({"key": {"s3cret": "s3cret"}}, ["s3cret"]):
        session = Frames()
        session.receive(hello(auth=auth))
        assert "s3cret" not in repr(session.error)
        assert b"s3cret" not in session.output


# Who may come in.


def only_right(hello: Hello) -> str | None:
    return None if hello.auth == "right" else "no such token"


def test_a_side_that_judges_says_hello_only_to_whom_it_lets_in() -> None:
    judge = Frames(authorize=only_right)
    judge.start()
    judge.ping()
    assert not judge.output
    judge.receive(hello(auth="right") + frame(PING, b"1"))
    assert [kind for kind, _ in said(judge)] == [HELLO, PONG]
    assert judge.established


def test_a_refused_peer_is_told_why_and_nothing_else() -> None:
    judge = Frames(authorize=only_right)
    judge.start()
    assert judge.receive(hello(auth="wrong") + frame(DATA, b"let me in")) == []
    assert said(judge) == [(CLOSE, b"refused: no such token")]
    failed(judge, ProtocolError, "refused: no such token")
    assert not judge.established
    assert judge.peer is None
    with pytest.raises(UsageError):
        judge.encode(b"x")
    judge.close("bad_frame")
    assert not judge.output


def test_a_refused_peer_hears_why_although_it_has_heard_no_hello() -> None:
    peer = Frames(auth="wrong")
    peer.start()
    assert peer.receive(frame(CLOSE, b"refused: no such token")) == []
    assert peer.peer_reason == "refused: no such token"
    assert not peer.established
    assert peer.error is None


def test_a_judge_that_raises_lets_nobody_in() -> None:
    def authorize(hello: Hello) -> str | None:
        raise KeyError("user")

    session = Frames(authorize=authorize)
    with pytest.raises(KeyError):
        session.receive(hello())
    failed(session, ProtocolError, "refused: the hello could not be judged")
    assert not session.established


def test_a_judge_may_raise_its_own_kind_of_error() -> None:
    def authorize(hello: Hello) -> str | None:
        raise PeerTimeout("handshake_timeout", "the ticket is too old")

    session = Frames(authorize=authorize)
    assert session.receive(hello()) == []
    assert said(session) == [(CLOSE, b"the ticket is too old")]
    failed(session, PeerTimeout, "the ticket is too old")
    assert not session.established


# Heartbeats.


def test_a_ping_is_answered_with_its_own_bytes() -> None:
    session = established()
    for payload in (b"", b"1", b"12345678"):
        assert session.receive(frame(PING, payload)) == []
        assert said(session) == [(PONG, payload)]


def test_a_flood_of_pings_has_one_answer_to_each_read() -> None:
    session = established()
    flood = b"".join(frame(PING, b"%08d" % number) for number in range(10_000)) + frame(DATA, b"x")
    assert session.receive(flood) == [b"x"]
    assert said(session) == [(PONG, b"00009999")]


def test_a_pong_that_nobody_asked_for_is_ignored() -> None:
    session = established()
    assert session.receive(frame(PONG) + frame(PONG, b"12345678") + frame(DATA, b"x")) == [b"x"]
    assert session.error is None
    assert not session.output


def test_a_ping_is_asked_between_the_hello_and_the_farewell() -> None:
    session = Frames()
    session.ping()
    assert not session.output
    session.start()
    session.ping()
    assert [kind for kind, _ in said(session)] == [HELLO, PING]
    session.close("drained")
    session.ping()
    assert [kind for kind, _ in said(session)] == [CLOSE]


# Farewells.


def test_behind_the_farewell_all_is_ignored_and_nothing_is_kept() -> None:
    session = established()
    stream = frame(DATA, b"1") + frame(PING, b"1") + frame(CLOSE, "drained: à bientôt".encode())
    assert session.receive(stream + frame(DATA, b"2") + b"garbage") == [b"1"]
    assert session.peer_reason == "drained: à bientôt"
    assert not session._rest
    assert session.receive(frame(DATA, b"3") + b"\xff" * 100) == []
    assert session.error is None
    assert not session._rest
    assert not session.output


def test_after_ones_own_farewell_nothing_is_said_but_messages_still_come() -> None:
    session = established()
    session.close("drained")
    session.close("again")
    assert said(session) == [(CLOSE, b"drained")]
    assert session.receive(frame(PING) + frame(DATA, b"x")) == [b"x"]
    assert not session.output
    for call in (lambda: session.encode(b"x"), lambda: session.encode_all([b"x"])):
        with pytest.raises(UsageError, match="before this side's farewell"):
            call()


def test_a_side_that_has_closed_before_the_hello_says_no_hello_when_one_comes() -> None:
    judge = Frames(authorize=only_right)
    judge.start()
    judge.close("drained")
    assert judge.receive(hello(auth="right")) == []
    assert said(judge) == [(CLOSE, b"drained")]
    with pytest.raises(UsageError):
        judge.encode(b"x")


@pytest.mark.parametrize("reason", ["x" * 300, "é" * 200, "x" + "é" * 200, "€" * 100, "\N{GRINNING FACE}" * 70])
def test_a_long_farewell_is_cut_between_two_characters(reason: str) -> None:
    session = established()
    session.close(reason)
    ((_, payload),) = said(session)
    assert 252 < len(payload) <= 256
    assert reason.startswith(payload.decode())
    other = established()
    other.receive(frame(CLOSE, payload))
    assert other.peer_reason == payload.decode()


def test_a_farewell_that_is_no_text_is_an_error() -> None:
    session = established()
    session.receive(frame(CLOSE, b"\xc3"))
    failed(session, BadFrame, "a CLOSE is no UTF-8")
    assert session.peer_reason is None
    odd = established()
    odd.close("lone \ud800")
    assert said(odd) == [(CLOSE, b"lone ?")]


def test_after_an_error_the_answers_go_out_and_then_the_farewell_says_what_was_wrong() -> None:
    session = established()
    assert session.receive(frame(DATA, b"question") + frame(0x7F)) == [b"question"]
    assert not session.output
    assert session.encode(b"answer") == frame(DATA, b"answer")
    session.close("bad_frame")
    assert said(session) == [(CLOSE, b"bad_frame: a frame of type 0x7f, which is not known")]


def test_an_error_does_not_keep_what_was_received() -> None:
    for stream in (bytes(5), frame(CLOSE, b"\xff"), frame(COMPRESSED, b"\0\0\0\5hello")):
        session = established(peer=hello(features=["zlib"]), compression=["zlib"])
        session.receive(stream)
        assert session.error is not None
        assert session.error.__traceback__ is None
        assert session.error.__context__ is None


# Compression.


@each_compression
def test_messages_that_are_alike_are_sent_much_shorter(name: str) -> None:
    left, right = pair({"compression": [name], "threshold_bytes": 32}, {"compression": [name]})
    messages = [b'{"id":%d,"op":"read","register":"voltage","unit":"V"}' % number for number in range(1_000, 1_100)]
    stream = left.encode_all(messages)
    assert {kind for kind, _ in frames_of(stream)} == {COMPRESSED}
    assert len(stream) < sum(map(len, messages)) / 2
    assert right.receive(stream) == messages


@pytest.mark.skipif(not is_available("zstd"), reason="zstandard is missing")
@pytest.mark.parametrize(
    ("ours", "theirs", "we_send", "they_send"),
    [
        (["zstd", "zlib"], ["zlib", "zstd"], "zstd", "zlib"),
        (["zstd", "zlib"], ["zlib"], "zlib", "zlib"),
        (["zlib"], ["zstd", "zlib"], "zlib", "zlib"),
        (["zstd"], ["zlib"], None, None),
        ([], ["zlib"], None, None),
    ],
)
def test_each_side_sends_by_the_first_of_its_own_that_the_other_has(
    ours: list[str], theirs: list[str], we_send: str | None, they_send: str | None
) -> None:
    left, right = pair({"compression": ours}, {"compression": theirs})
    for sender, receiver, name in ((left, right, we_send), (right, left, they_send)):
        stream = sender.encode(b"hello" * 100)
        ((kind, payload),) = frames_of(stream)
        assert kind == (DATA if name is None else COMPRESSED)
        if name is not None:
            assert payload[4:].startswith(b"\x28\xb5\x2f\xfd") == (name == "zstd")
        assert receiver.receive(stream) == [b"hello" * 100]


def test_what_is_not_installed_is_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    session = Frames(compression=["zstd", "zlib"])
    session.start()
    ((_, payload),) = said(session)
    assert json.loads(payload)["features"] == ["zlib"]


@each_compression
def test_short_messages_are_not_compressed_nor_those_that_might_grow_over_the_limit(name: str) -> None:
    left, right = pair({"compression": [name]}, {"compression": [name], "limit_bytes": 10_000})
    sizes = {0: DATA, 255: DATA, 256: COMPRESSED, 9_700: COMPRESSED, 9_800: DATA, 10_000: DATA}
    for size, kind in sizes.items():
        message = memoryview(b"0123456789" * 1_000)[:size].tobytes()
        stream = left.encode(message)
        assert [one for one, _ in frames_of(stream)] == [kind], size
        assert right.receive(stream) == [message]
        assert right.receive(left.encode_all([message, b"x"])) == [message, b"x"]


@each_compression
def test_a_batch_that_is_refused_leaves_the_compressed_stream_where_it_was(name: str) -> None:
    left, right = pair({"compression": [name]}, {"compression": [name], "limit_bytes": 1_000})
    assert right.receive(left.encode(b"a" * 300)) == [b"a" * 300]
    with pytest.raises(UsageError):
        left.encode_all([b"b" * 300, b"b" * 1_001])
    assert right.receive(left.encode(b"c" * 300)) == [b"c" * 300]


def test_a_compressed_message_that_was_not_agreed_upon_is_an_error() -> None:
    for offered in ([], ["zlib"]):
        session = established(compression=offered)
        session.receive(frame(COMPRESSED, PackedMessages("zlib", "zlib").pack(b"hello")))
        failed(session, BadFrame, "no compression was agreed upon")


@each_compression
@pytest.mark.parametrize("states", ["its size", "the limit", "nothing"])
def test_a_bomb_is_an_error_before_more_than_the_limit_is_allocated(name: str, states: str) -> None:
    limit = MIB
    bomb = PackedMessages(name, name).pack(bytes(200 * MIB))
    if states != "its size":
        bomb = (limit if states == "the limit" else 0).to_bytes(4, "big") + bomb[4:]
    session = established(limit, peer=hello(features=[name]), compression=[name])
    stream = frame(DATA, b"ok") + frame(COMPRESSED, bomb)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        assert session.receive(stream) == [b"ok"]
        most = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert most < limit + MIB
    failed(session, FrameTooLarge, "")


# What it costs.


def test_nothing_is_set_aside_for_what_is_only_promised() -> None:
    session = established(1 << 30)
    tracemalloc.start()
    try:
        assert session.receive(b"\x3f\xff\xff\xff\2x") == []
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert session.error is None
    assert most < 10_000


def test_an_idle_session_takes_little_memory_even_if_it_may_compress() -> None:
    count = 200
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        sessions = [established(peer=hello(features=["zlib"]), compression=["zlib"]) for _ in range(count)]
        now, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (now - before) / count < 2_000
    assert not hasattr(sessions[0], "__dict__")


def test_a_message_costs_five_bytes_more_than_it_has() -> None:
    session = established(peer=hello(limit_bytes=100_000))
    for size in (0, 1, 255, 256, 1_023, 1_024, 65_536):
        assert session.encode(b"x" * size) == (size + 1).to_bytes(4, "big") + b"\2" + b"x" * size
        assert session.encode_all([b"x" * size, b""]) == frame(DATA, b"x" * size) + frame(DATA)


# The streams that fuzzing begins with.


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz_session", FUZZ / "fuzz_session.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CORPUS = {path.name: path.read_bytes() for path in sorted((FUZZ / "corpus" / "session").iterdir())}


@pytest.mark.parametrize("name", CORPUS)
def test_the_streams_that_fuzzing_begins_with_break_no_promise(fuzz: ModuleType, name: str) -> None:
    if CORPUS[name][0] == fuzz.ZSTD:
        pytest.importorskip("zstandard")
    fuzz.check(CORPUS[name])


def test_the_streams_that_fuzzing_begins_with_are_those_of_its_script(fuzz: ModuleType) -> None:
    made = fuzz.corpus()
    assert {name for name in CORPUS if is_available("zstd") or CORPUS[name][0] != fuzz.ZSTD} == set(made)
    # Compressed bytes are another library's matter.
    fixed = [name for name in made if made[name][0] not in (fuzz.ZLIB, fuzz.ZSTD)]
    assert len(fixed) > 30
    assert [name for name in fixed if made[name] != CORPUS[name]] == [], "run: python fuzz/fuzz_session.py --corpus"


def test_the_fuzzers_check_fails_a_session_that_breaks_a_promise(
    fuzz: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    class LosesSplitFrames(Frames):
        def receive(self, data: bytes) -> list[bytes]:
            self._rest.clear()
            return super().receive(data)

    fuzz.check(CORPUS["2-good"])
    monkeypatch.setattr(fuzz, "Frames", LosesSplitFrames)
    with pytest.raises(AssertionError, match="how the stream is split"):
        fuzz.check(CORPUS["2-good"])
