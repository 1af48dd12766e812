"""SimpleReactor's format is read and written as its own programs do, whatever comes and however it is split."""

import importlib.util
import random
import struct
import sys
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from trunkline.errors import BadFrame, FrameTooLarge, ProtocolError, UsageError
from trunkline.testing import check_framer
from trunkline.wire import Session, SimpleReactorWire

FUZZ = Path(__file__).resolve().parents[2] / "fuzz"
LIMIT = 256
DATA, HEARTBEAT = 1, 2
KEY = b"('127.0.0.1', 8080)#('127.0.0.1', 51234)#1490000000.12"


class Reference:
    """A peer that was written from the format alone, and knows nothing of Trunkline."""

    def __init__(self, compression: bool) -> None:
        self.deflate = zlib.compressobj() if compression else None
        self.inflate = zlib.decompressobj() if compression else None
        self.buffer = b""

    def frame(self, inside: bytes) -> bytes:
        if self.deflate:
            inside = self.deflate.compress(inside) + self.deflate.flush(zlib.Z_SYNC_FLUSH)
        return struct.pack("<I", len(inside)) + inside

    def say(self, kind: int, data: bytes) -> bytes:
        return self.frame(struct.pack("<I", kind) + data)

    def hear(self, stream: bytes) -> list[tuple[int, bytes]]:
        self.buffer += stream
        heard = []
        while len(self.buffer) >= 4:
            (length,) = struct.unpack("<I", self.buffer[:4])
            if len(self.buffer) < 4 + length:
                break
            inside, self.buffer = self.buffer[4 : 4 + length], self.buffer[4 + length :]
            if self.inflate:
                inside = self.inflate.decompress(inside)
            heard.append((struct.unpack("<I", inside[:4])[0], inside[4:]))
        return heard


def new(compression: bool = True, role: Literal["server", "client"] = "client", **options: Any) -> SimpleReactorWire:
    return SimpleReactorWire(role, compression, LIMIT, **options)


def fed(wire: Session, *pieces: bytes) -> tuple[list[bytes], type[ProtocolError] | None]:
    messages = [message for piece in pieces for message in wire.receive(piece)]
    return messages, None if wire.error is None else type(wire.error)


def failed(wire: Session, *pieces: bytes) -> str:
    """What the error says that these pieces lead to."""
    fed(wire, *pieces)
    assert wire.error is not None
    return str(wire.error)


def taken(wire: Session) -> bytes:
    """What a session has to say, as the connection takes it."""
    said = bytes(wire.output)
    wire.output.clear()
    return said


both = pytest.mark.parametrize("compression", [True, False], ids=["compressed", "plain"])
messages_ = st.lists(st.binary(min_size=1, max_size=LIMIT), max_size=8)


# What is on the wire.


PLAIN_VECTOR = (
    "0f000000" "01000000" "68656c6c6f20776f726c64"
    "3a000000" "02000000" "28273132372e302e302e31272c203830383029"
    "2328273132372e302e302e31272c20353132333429" "23313439303030303030302e3132"
    "05000000" "01000000" "ff"
)  # fmt: skip
COMPRESSED_VECTOR = (
    "17000000" "789c62646060c848cdc9c95728cf2fca4901000000ffff"
    "2d000000" "62027235d40d8dccf50c80d0505d47c1c2c0c240531955ccd4d0c8d84453d9d0c4d20002f40c8d00000000ffff"
    "0a000000" "6204eafc0f000000ffff"
)  # fmt: skip


@pytest.mark.parametrize(
    ("compression", "vector"), [(False, PLAIN_VECTOR), (True, COMPRESSED_VECTOR)], ids=["plain", "compressed"]
)
def test_the_vectors_are_read_in_every_split(compression: bool, vector: str) -> None:
    stream = bytes.fromhex(vector)
    expected = ([b"hello world", b"\xff"], None)
    assert Reference(compression).hear(stream) == [(DATA, b"hello world"), (HEARTBEAT, KEY), (DATA, b"\xff")]
    for first in range(len(stream) + 1):
        for second in range(first, len(stream) + 1):
            assert fed(new(compression), stream[:first], stream[first:second], stream[second:]) == expected
    assert fed(new(compression), *(stream[at : at + 1] for at in range(len(stream)))) == expected


def test_what_is_sent_without_compression_is_the_vector() -> None:
    wire = new(False, "server", heartbeat=KEY)
    sent = wire.encode(b"hello world")
    wire.ping()
    assert (sent + taken(wire) + wire.encode(b"\xff")).hex() == PLAIN_VECTOR


def test_what_is_sent_with_zlibs_own_defaults_is_what_the_original_sends() -> None:
    wire, reference = new(True, "server", heartbeat=KEY, wbits=15, memory_level=8), Reference(True)
    sent = wire.encode(b"hello world")
    wire.ping()
    sent += taken(wire) + wire.encode(b"\xff")
    assert sent == reference.say(DATA, b"hello world") + reference.say(HEARTBEAT, KEY) + reference.say(DATA, b"\xff")


@both
@settings(max_examples=60)
@given(said=st.lists(st.tuples(st.sampled_from([1, 2, 3, 2**32 - 1]), st.binary(max_size=LIMIT))), data=st.data())
def test_all_that_a_peer_says_arrives_in_any_split(
    compression: bool, said: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    reference = Reference(compression)
    stream = b"".join(reference.say(kind, text) for kind, text in said)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert fed(new(compression), *pieces) == ([text for kind, text in said if kind == DATA and text], None)


@both
@settings(max_examples=60)
@given(turns=st.lists(st.one_of(messages_, st.just("ping")), max_size=8), small=st.booleans())
def test_a_peer_hears_all_that_is_sent_in_its_order(
    compression: bool, turns: list[list[bytes] | Literal["ping"]], small: bool
) -> None:
    options = {"wbits": 9, "memory_level": 1} if small else {}
    wire, reference = new(compression, "server", heartbeat=KEY, **options), Reference(compression)
    wire.start()
    for turn in turns:
        if turn == "ping":
            wire.ping()
            assert reference.hear(taken(wire)) == [(HEARTBEAT, KEY)]
        elif len(turn) == 1:
            assert reference.hear(wire.encode(turn[0])) == [(DATA, turn[0])]
        else:
            assert reference.hear(wire.encode_all(turn)) == [(DATA, message) for message in turn]


def test_what_repeats_is_sent_as_hardly_anything() -> None:
    wire = new()
    sizes = [len(wire.encode(b"the same again and again")) for _ in range(10)]
    assert sizes[1] < sizes[0] // 2
    assert sum(sizes[1:]) < 9 * 16


# The life of a session.


@both
@pytest.mark.parametrize("role", ["server", "client"])
def test_it_is_established_at_once_and_has_no_hello_and_no_farewell(
    compression: bool, role: Literal["server", "client"]
) -> None:
    wire = new(compression, role)
    assert wire.established
    wire.start()
    wire.close("drained")
    assert not wire.output
    assert wire.peer_reason is None


def test_the_server_beats_always_and_judges_no_silence() -> None:
    wire = new(role="server")
    assert (wire.role, wire.always_beats, wire.judges_silence) == ("server", True, False)
    wire.ping()
    ((kind, text),) = Reference(True).hear(taken(wire))
    assert kind == HEARTBEAT
    assert text.count(b"#") == 2


def test_the_client_never_beats_and_judges_silence() -> None:
    wire = new()
    assert (wire.role, wire.always_beats, wire.judges_silence) == ("client", False, True)
    wire.ping()
    assert not wire.output


@both
@pytest.mark.parametrize("role", ["server", "client"])
def test_heartbeats_are_swallowed_however_many(compression: bool, role: Literal["server", "client"]) -> None:
    reference, wire = Reference(compression), new(compression, role)
    for _ in range(1_000):
        assert wire.receive(reference.say(HEARTBEAT, KEY)) == []
    assert wire.receive(reference.say(HEARTBEAT, b"")) == []
    assert wire.receive(reference.say(DATA, b"a")) == [b"a"]
    assert not wire.output


class TwoWires(RuleBasedStateMachine):
    """A server and a client, and between them bytes on their way."""

    compression = True

    def __init__(self) -> None:
        super().__init__()
        self.ends = [new(self.compression, "server"), new(self.compression, "client")]
        self.way: list[bytearray] = [bytearray(), bytearray()]
        self.sent: list[list[bytes]] = [[], []]
        self.got: list[list[bytes]] = [[], []]

    @rule(end=st.integers(0, 1), messages=messages_)
    def send(self, end: int, messages: list[bytes]) -> None:
        self.way[end] += self.ends[end].encode_all(messages)
        self.sent[end] += messages

    @rule(end=st.integers(0, 1))
    def beat(self, end: int) -> None:
        self.ends[end].ping()
        self.way[end] += taken(self.ends[end])

    @rule(end=st.integers(0, 1), message=st.one_of(st.just(b""), st.binary(min_size=LIMIT + 1, max_size=LIMIT + 9)))
    def fail_to_send(self, end: int, message: bytes) -> None:
        for messages in ([message], [b"good", message], [message, b"good"]):
            with pytest.raises(UsageError):
                self.ends[end].encode_all(messages)
        with pytest.raises(UsageError):
            self.ends[end].encode(message)

    @precondition(lambda self: any(self.way))
    @rule(end=st.integers(0, 1), size=st.integers(0, 600))
    def carry(self, end: int, size: int) -> None:
        self.got[end] += self.ends[1 - end].receive(bytes(self.way[end][:size]))
        del self.way[end][:size]

    @invariant()
    def what_arrived_is_what_was_sent_first(self) -> None:
        for end in (0, 1):
            assert self.ends[end].error is None
            assert self.got[end] == self.sent[end][: len(self.got[end])]

    def teardown(self) -> None:
        for end in (0, 1):
            self.carry(end, len(self.way[end]))
            assert self.got[end] == self.sent[end]


class TwoPlainWires(TwoWires):
    """The same without compression."""

    compression = False


TestTwoWires = TwoWires.TestCase
TestTwoPlainWires = TwoPlainWires.TestCase
TestTwoWires.settings = TestTwoPlainWires.settings = settings(max_examples=40, stateful_step_count=20)


# What can't be sent.


@both
def test_an_empty_message_can_not_be_sent_for_simple_reactor_has_none(compression: bool) -> None:
    with pytest.raises(UsageError, match="an empty message"):
        new(compression).encode(b"")


@both
def test_a_batch_with_a_message_that_can_not_be_sent_leaves_the_stream_whole(compression: bool) -> None:
    wire, reference = new(compression), Reference(compression)
    assert reference.hear(wire.encode(b"first")) == [(DATA, b"first")]
    for bad, said in ((b"", "an empty message"), (b"x" * 257, "has 257 bytes; the limit is 256")):
        with pytest.raises(UsageError, match=said):
            wire.encode_all([b"not to be sent", bad, b"nor this"])
        with pytest.raises(UsageError, match=said):
            wire.encode(bad)
    assert reference.hear(wire.encode(b"x" * 256)) == [(DATA, b"x" * 256)]
    assert wire.encode_all([]) == b""


@pytest.mark.parametrize(
    "options",
    [{"role": "peer"}, {"limit_bytes": 255}, {"limit_bytes": 1 << 31}, {"heartbeat": b""}, {"heartbeat": b"x" * 257},
     {"wbits": 8}, {"wbits": 16}, {"memory_level": 0}, {"memory_level": 10}],
)  # fmt: skip
def test_options_that_can_not_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(options))}"):
        SimpleReactorWire(**{"role": "server"} | options)


# What breaks the format.


@both
def test_what_is_passed_over_leaves_the_rest_as_it_is(compression: bool) -> None:
    reference, wire = Reference(compression), new(compression)
    for _ in range(20):
        strange = b"".join(reference.say(kind, b"own") for kind in (0, 3, 2**32 - 1, 256) for _ in range(24))
        assert fed(wire, strange + reference.say(DATA, b"")) == ([], None)
        assert fed(wire, reference.say(DATA, b"a")) == ([b"a"], None)


@both
@pytest.mark.parametrize("kind", [DATA, HEARTBEAT])
def test_a_hundred_payloads_on_end_of_other_types_are_passed_over_and_not_one_more(
    compression: bool, kind: int
) -> None:
    reference = Reference(compression)
    stream = b""
    for _ in range(2):
        stream += b"".join(reference.say(7, b"own") for _ in range(100)) + reference.say(kind, b"a")
    wire = new(compression)
    expected = [b"a"] * 2 if kind == DATA else []
    assert fed(wire, stream) == (expected, None)
    assert fed(wire, b"".join(reference.say(7, b"own") for _ in range(100))) == ([], None)
    assert failed(wire, reference.say(7, b"own") + reference.say(DATA, b"late")).endswith("the last of type 7")


@both
@pytest.mark.parametrize("inside", [b"", b"\1", b"\1\0\0"])
def test_a_payload_shorter_than_its_type_is_an_error(compression: bool, inside: bytes) -> None:
    reference = Reference(compression)
    stream = reference.say(DATA, b"good") + reference.frame(inside) + reference.say(DATA, b"late")
    wire = new(compression)
    assert fed(wire, stream) == ([b"good"], BadFrame)
    assert str(wire.error) == f"a payload has {len(inside)} bytes; its type alone has 4"


def test_a_peer_that_compresses_where_this_side_does_not_is_found_out_at_once() -> None:
    for level in range(10):
        reference = Reference(True)
        reference.deflate = zlib.compressobj(level)
        assert "the peer compresses" in failed(new(False), reference.say(DATA, b"hello"))


def test_a_peer_that_does_not_compress_where_this_side_does_is_found_out_at_once() -> None:
    for kind in (DATA, HEARTBEAT):
        assert "does the peer compress?" in failed(new(True), Reference(False).say(kind, b"hello"))


@both
def test_a_message_over_the_limit_is_too_large(compression: bool) -> None:
    reference, wire = Reference(compression), new(compression)
    stream = reference.say(DATA, b"x" * 256) + reference.say(HEARTBEAT, b"x" * 256) + reference.say(DATA, b"x" * 257)
    assert fed(wire, stream) == ([b"x" * 256], FrameTooLarge)
    assert fed(new(compression), Reference(compression).say(HEARTBEAT, b"x" * 257)) == ([], FrameTooLarge)


@both
def test_a_frame_over_the_limit_is_too_large_as_soon_as_its_length_is_read(compression: bool) -> None:
    most = 260 + (260 // 8 + 64) * compression
    assert fed(new(compression), struct.pack("<I", most)) == ([], None)
    for length in (most + 1, 2**31, 2**32 - 1):
        assert fed(new(compression), struct.pack("<I", length)) == ([], FrameTooLarge)


@settings(max_examples=30)
@given(st.binary(min_size=LIMIT, max_size=LIMIT), st.integers(0, 9))
def test_what_can_not_be_compressed_still_fits_its_frame(message: bytes, level: int) -> None:
    reference = Reference(True)
    reference.deflate = zlib.compressobj(level)
    assert fed(new(), reference.say(DATA, message)) == ([message], None)


def test_a_bomb_is_too_large_before_it_has_gone_off() -> None:
    limit = 1 << 20
    bomb = Reference(True).say(DATA, bytes(64 << 20))
    assert len(bomb) < limit
    wire = SimpleReactorWire("server", limit_bytes=limit)
    tracemalloc.start()
    try:
        assert fed(wire, bomb) == ([], FrameTooLarge)
        _, most = tracemalloc.get_traced_memory()
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 2 * limit + len(bomb) + 200_000
    assert left < 10_000


def test_nothing_is_set_aside_for_what_is_only_promised_and_nothing_for_a_stream_not_begun() -> None:
    tracemalloc.start()
    try:
        wires = [SimpleReactorWire("server", limit_bytes=1 << 30) for _ in range(10)]
        for wire in wires:
            assert fed(wire, b"\0\0\0\x40", b"x") == ([], None)
        most = tracemalloc.get_traced_memory()[1]
        wires[0].encode(b"a")
        zlibs = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert most < 25_000
    assert zlibs > 30_000


class CountingBytes(bytearray):
    """A buffer that counts the bytes that are copied into it and out of it."""

    touched = 0

    def __iadd__(self, more: Any) -> "CountingBytes":  # type: ignore[override]
        self.touched += len(more)
        self.extend(more)
        return self

    def __bytes__(self) -> bytes:
        self.touched += len(self)
        return bytes(memoryview(self))


@both
def test_a_long_message_byte_by_byte_takes_work_in_proportion(compression: bool) -> None:
    wire: Any = SimpleReactorWire("server", compression, limit_bytes=20_000)
    buffer = wire._rest = CountingBytes()
    message = random.Random(0).randbytes(20_000)
    stream = Reference(compression).say(DATA, message)
    assert fed(wire, *(stream[at : at + 1] for at in range(len(stream)))) == ([message], None)
    assert len(stream) <= buffer.touched <= 3 * len(stream)


def test_a_small_window_makes_a_sending_connection_cheap() -> None:
    tracemalloc.start()
    try:
        wire = new(wbits=12, memory_level=5)
        wire.encode(b"a")
        assert tracemalloc.get_traced_memory()[0] < 50_000
    finally:
        tracemalloc.stop()


BROKEN: dict[str, Callable[[Any], bytes]] = {
    "garbage": lambda deflate: b"\xff" * 20,
    "a second stream": lambda deflate: zlib.compress(b"\1\0\0\0late"),
    "an end": lambda deflate: deflate.compress(b"\1\0\0\0late") + deflate.flush(),
    "an end and more": lambda deflate: deflate.compress(b"\1\0\0\0late") + deflate.flush() + b"\0" * 50,
    "a block of no type": lambda deflate: b"\x07",
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
def test_a_stream_that_breaks_is_a_bad_frame_in_every_split(broken: Callable[[Any], bytes]) -> None:
    reference = Reference(True)
    stream = reference.say(DATA, b"good")
    assert reference.deflate is not None
    frame = broken(reference.deflate)
    stream += struct.pack("<I", len(frame)) + frame + Reference(True).say(DATA, b"more")
    said = failed(new(), stream)
    for cut in range(len(stream)):
        wire = new()
        assert fed(wire, stream[:cut], stream[cut:]) == ([b"good"], BadFrame)
        assert str(wire.error) == said


@pytest.mark.parametrize("head", [b"\x78\xbb", b"\x78\x9d", b"\x88\x1c", b"\x1f\x8b"], ids=repr)
def test_a_stream_that_does_not_begin_as_zlibs_is_a_bad_frame(head: bytes) -> None:
    frame = head + zlib.compress(b"\1\0\0\0hello")[2:]
    assert fed(new(), struct.pack("<I", len(frame)) + frame) == ([], BadFrame)


@both
@settings(max_examples=100)
@given(good=messages_, change=st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), data=st.data())
def test_a_changed_byte_never_raises_and_spoils_no_message_before_it(
    compression: bool, good: list[bytes], change: tuple[float, int], data: st.DataObject
) -> None:
    reference = Reference(compression)
    frames = [reference.say(DATA, message) for message in [*good, b"last"]]
    stream = bytearray(b"".join(frames))
    at = int(change[0] * len(stream))
    stream[at] ^= change[1]
    whole = fed(new(compression), bytes(stream))
    before, seen = 0, len(frames[0])
    while seen <= at:
        before += 1
        seen += len(frames[before])
    assert whole[0][:before] == good[:before]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [bytes(stream[start:end]) for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert fed(new(compression), *pieces) == whole


@both
def test_nothing_comes_after_an_error_and_nothing_is_kept(compression: bool) -> None:
    reference, wire = Reference(compression), new(compression)
    wire.receive(reference.say(DATA, b"good"))
    wire.receive(reference.frame(b"\1")[:-1])
    wire.receive(reference.frame(b"\1")[-1:] + b"\xff" * 400)
    error = wire.error
    assert error is not None
    assert error.__traceback__ is None
    assert error.__context__ is None
    assert wire.receive(Reference(compression).say(DATA, b"late")) == []
    assert wire.error is error
    assert not wire._rest
    assert wire._decompressor is None


def test_without_compression_it_passes_the_conformance_check() -> None:
    hello = b"hello world"
    check_framer(
        lambda: new(False),
        [hello, b"\0", b"x" * LIMIT, bytes(range(256))],
        limit_bytes=LIMIT + 8,
        bad_streams=[bytes(4), b"\3\0\0\0\1\0\0", b"\4\0\0\0\x78\x9c\0\0", Reference(False).say(7, b"") * 101],
        oversize_streams=[struct.pack("<I", LIMIT + 5), b"\xff" * 4, Reference(False).say(DATA, b"ok") + b"\xff" * 8],
        unsendable=[b"", b"x" * (LIMIT + 1)],
    )


# What fuzzing begins with.


@pytest.fixture(scope="module")
def fuzz() -> Iterator[ModuleType]:
    """The module `fuzz_simple_reactor` of the folder fuzz."""
    spec = importlib.util.spec_from_file_location("fuzz_simple_reactor", FUZZ / "fuzz_simple_reactor.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["fuzz_simple_reactor"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["fuzz_simple_reactor"]


CORPUS = sorted((FUZZ / "corpus" / "simple_reactor").iterdir())


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_the_streams_that_fuzzing_begins_with_break_no_promise(fuzz: ModuleType, path: Path) -> None:
    fuzz.check(path.read_bytes())


def test_the_streams_that_fuzzing_begins_with_are_those_of_its_script(fuzz: ModuleType) -> None:
    # What is compressed may differ by a byte with another zlib.
    made = fuzz.corpus()
    assert {path.name for path in CORPUS} == set(made), "run: python fuzz/fuzz_simple_reactor.py --corpus"
    plain = [path for path in CORPUS if not path.name.startswith("1-") and "compresses" not in path.name]
    assert {path.name: path.read_bytes() for path in plain} == {path.name: made[path.name] for path in plain}


@settings(max_examples=150)
@given(st.binary(max_size=300))
def test_whatever_fuzzing_tries_breaks_no_promise(fuzz: ModuleType, data: bytes) -> None:
    fuzz.check(data)


class _KeepsAll(SimpleReactorWire):
    def receive(self, data: bytes) -> list[bytes]:
        self._rest += data
        return []


class _LosesSplitFrames(SimpleReactorWire):
    def receive(self, data: bytes) -> list[bytes]:
        self._rest.clear()
        return super().receive(data)


class _AnswersHeartbeats(SimpleReactorWire):
    def receive(self, data: bytes) -> list[bytes]:
        self.output += b"!"
        return super().receive(data)


class _Raises(SimpleReactorWire):
    def _decompressed(self, frame: bytes) -> bytes | None:
        return zlib.decompress(frame)


@pytest.mark.parametrize("broken", [_KeepsAll, _LosesSplitFrames, _AnswersHeartbeats, _Raises])
def test_fuzzing_would_find_a_broken_wire(
    fuzz: ModuleType, monkeypatch: pytest.MonkeyPatch, broken: type[SimpleReactorWire]
) -> None:
    monkeypatch.setattr(fuzz, "SimpleReactorWire", broken)
    with pytest.raises((AssertionError, zlib.error)):  # noqa: PT012  which of them finds it is not said
        for path in CORPUS:
            fuzz.check(path.read_bytes())
