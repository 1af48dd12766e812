"""A session that unpacks no more at once than it may: the rest of what came is given by the next call."""

from trunkline.wire import Frames, Session, SimpleReactorWire
from trunkline.wire.session import UNPACKED_BYTES

SIZE = 200_000
MESSAGES = [bytes([number]) * SIZE for number in range(12)]
PER_CALL = UNPACKED_BYTES // SIZE + 1  # the one that goes over the bound is still given


def all_of(session: Session, stream: bytes) -> list[list[bytes]]:
    """What each call gives, where the first has all the bytes and the others have none."""
    calls = [session.receive(stream)]
    while session.has_more:
        calls.append(session.receive(b""))
    assert session.error is None
    return calls


def check(session: Session, stream: bytes, step: int) -> None:
    calls = all_of(session, stream)
    assert [len(call) for call in calls] == [step] * (len(MESSAGES) // step)
    assert [message for call in calls for message in call] == MESSAGES
    assert session.receive(b"") == []
    assert not session.has_more


def frames() -> tuple[Frames, Frames]:
    """Two sessions that have said hello to each other and compress."""
    here, there = (Frames(2 * SIZE, compression=("zlib",)) for _ in range(2))
    for one, other in ((here, there), (there, here)):
        one.start()
        other.receive(bytes(one.output))
        one.output.clear()
    return here, there


def test_frames_gives_compressed_messages_in_bounded_batches() -> None:
    here, there = frames()
    stream = here.encode_all(MESSAGES)
    assert len(stream) < SIZE, "they were compressed"
    check(there, stream, PER_CALL)


def test_frames_has_no_more_where_the_bound_falls_on_the_last_message() -> None:
    here, there = frames()
    assert there.receive(here.encode_all(MESSAGES[:PER_CALL])) == MESSAGES[:PER_CALL]
    assert not there.has_more


def test_frames_has_more_also_where_a_frame_has_not_come_whole() -> None:
    here, there = frames()
    stream = here.encode_all(MESSAGES[: PER_CALL + 1])
    assert there.receive(stream[:-1]) == MESSAGES[:PER_CALL]
    assert there.has_more, "nobody has looked yet whether the rest is a message"
    assert there.receive(b"") == []
    assert not there.has_more
    assert there.receive(stream[-1:]) == [MESSAGES[PER_CALL]]


def wires() -> tuple[SimpleReactorWire, SimpleReactorWire]:
    return SimpleReactorWire("client", limit_bytes=SIZE), SimpleReactorWire("server", limit_bytes=SIZE)


def test_simple_reactors_wire_gives_compressed_messages_in_bounded_batches() -> None:
    here, there = wires()
    stream = here.encode_all(MESSAGES)
    assert len(stream) < SIZE, "they were compressed"
    check(there, stream, PER_CALL)


def test_simple_reactors_wire_has_no_more_where_the_bound_falls_on_the_last_message() -> None:
    here, there = wires()
    assert there.receive(here.encode_all(MESSAGES[:PER_CALL])) == MESSAGES[:PER_CALL]
    assert not there.has_more


def test_simple_reactors_wire_breaks_off_before_what_is_wrong_and_finds_it_with_the_next_call() -> None:
    here, there = wires()
    stream = here.encode_all(MESSAGES[:PER_CALL]) + (5).to_bytes(4, "little") + b"wrong"
    assert there.receive(stream) == MESSAGES[:PER_CALL]
    assert there.has_more
    assert there.error is None
    assert there.receive(b"") == []
    assert there.error is not None
    assert not there.has_more


def test_what_is_not_compressed_is_given_at_once() -> None:
    sent = MESSAGES * 2
    here, there = (SimpleReactorWire(role, compression=False, limit_bytes=SIZE) for role in ("client", "server"))
    assert there.receive(here.encode_all(sent)) == sent
    assert not there.has_more
