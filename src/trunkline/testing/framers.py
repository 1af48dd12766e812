"""The conformance check of framers."""

import gc
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from types import BuiltinFunctionType, CodeType, FrameType, FunctionType, ModuleType, TracebackType

from trunkline.errors import FrameTooLarge, UsageError
from trunkline.wire import Framer

__all__ = ["check_framer"]

_SHARED = (type, ModuleType, FunctionType, BuiltinFunctionType, CodeType, FrameType)
"""What objects refer to but do not own."""

_OWN_BYTES = 1_024
"""What Python's own objects may take, an error's among them."""


def check_framer(
    new_framer: Callable[[], Framer],
    messages: Sequence[bytes],
    *,
    limit_bytes: int,
    bad_streams: Sequence[bytes] = (),
    oversize_streams: Sequence[bytes] = (),
    unsendable: Sequence[bytes] = (),
    seed: int = 0,
    rounds: int = 50,
) -> None:
    """Proves that a framer keeps what `Framer` promises.

    It gives the same messages and the same error however its stream is split, also for garbage, for which it never
    raises. It never holds more of a stream than its limit, and nothing after an error. `encode_all` sends what
    `encode` does.

    Args:
        new_framer: makes a fresh one.
        messages: messages that it can frame.
        limit_bytes: the most bytes of an unfinished message that it may hold, with head and delimiter. The check is
            quick for some kilobytes.
        bad_streams: streams that break its protocol, perhaps after some good messages.
        oversize_streams: streams that begin or promise a message over its limit, perhaps after some good messages.
            The error must be `FrameTooLarge`, and come although the message is not whole.
        unsendable: messages that `encode` must refuse with `UsageError`.
        seed: of the random splits and the garbage.
        rounds: random splits to try for each stream, besides whole and byte by byte; streams of garbage to try.

    Raises:
        AssertionError: it does not; the text says for which split.
    """
    check = _Check(new_framer, limit_bytes, random.Random(seed), rounds)  # noqa: S311  repeatable, not secret
    stream = b"".join(new_framer().encode(message) for message in messages)
    check.encodes(list(messages), stream, unsendable)
    check.splits(stream, list(messages), None)
    for bad in (*bad_streams, *oversize_streams):
        framer = new_framer()
        expected = framer.receive(bad)
        assert framer.error is not None, f"no error for {bad[:80]!r}"
        assert bad not in oversize_streams or isinstance(framer.error, FrameTooLarge), (
            f"the error for {bad[:80]!r} is {framer.error!r}, not a FrameTooLarge"
        )
        error = _error_of(framer)
        assert framer.receive(stream) == [], "a framer goes on after its error"
        assert _error_of(framer) == error, "a framer's error changes after it was set"
        check.splits(bad, expected, error)
    for garbage in check.garbage(stream):
        framer = new_framer()
        expected = framer.receive(garbage)
        check.splits(garbage, expected, _error_of(framer), random_splits=2)
    for byte in {0x00, 0x41, 0xFF, *stream[:2]}:
        check.endless(bytes([byte]))
    check.endless(stream)


class _Check:
    def __init__(self, new_framer: Callable[[], Framer], limit_bytes: int, chance: random.Random, rounds: int) -> None:
        self._new_framer = new_framer
        self._chance = chance
        self._rounds = rounds
        self._empty_bytes = _held_bytes(new_framer())
        # Python keeps room for an eighth more in what grows.
        self._held_limit = limit_bytes + limit_bytes // 8 + _OWN_BYTES
        self._endless_bytes = 2 * self._held_limit + 16_384

    def encodes(self, messages: list[bytes], stream: bytes, unsendable: Sequence[bytes]) -> None:
        """`encode_all` agrees with `encode`, and both refuse what is unsendable."""
        assert self._new_framer().encode_all(messages) == stream, "encode_all is not what encode gives, joined"
        assert self._new_framer().encode_all([]) == b"", "encode_all of no messages is not empty"
        for message in unsendable:
            for encode, name in ((self._encode, "encode"), (self._new_framer().encode_all, "encode_all")):
                try:
                    encode([*messages, message])
                except UsageError:
                    continue
                raise AssertionError(f"{name} takes {message[:80]!r}, which can't be sent")

    def _encode(self, messages: list[bytes]) -> bytes:
        return self._new_framer().encode(messages[-1])

    def splits(self, stream: bytes, expected: list[bytes], error: str | None, random_splits: int | None = None) -> None:
        """Whole, byte by byte and in random pieces the stream gives the same."""
        places = range(len(stream) + 1)
        splits = [[], list(range(1, len(stream)))]
        splits += [
            sorted(self._chance.sample(places, k=self._chance.randint(0, min(10, len(stream)))))
            for _ in range(self._rounds if random_splits is None else random_splits)
        ]
        for cuts in splits:
            framer = self._new_framer()
            got: list[bytes] = []
            # Looking at what it holds takes long: a few looks have to do where there are many pieces.
            look_every = 1 + len(cuts) // 64
            for number, (start, end) in enumerate(zip([0, *cuts], [*cuts, len(stream)], strict=True)):
                got += framer.receive(stream[start:end])
                if number % look_every == 0:
                    self._look(framer)
            shown = str(cuts) if len(cuts) < 20 else "every byte"
            assert got == expected, f"cut at {shown}: {got!r} instead of {expected!r}"
            assert all(isinstance(message, bytes) for message in got), "a message is not bytes"
            found = _error_of(framer)
            assert found == error, f"cut at {shown}: the error is {found}, not {error}"
            self._look(framer)

    def garbage(self, stream: bytes) -> Iterator[bytes]:
        """Random bytes, and good streams with something wrong in them."""
        chance = self._chance
        for number in range(self._rounds):
            if number % 2 or not stream:
                yield chance.randbytes(chance.randint(1, 200))
            else:
                bad = bytearray(stream[:400])
                for _ in range(chance.randint(1, 4)):
                    at = chance.randrange(len(bad))
                    bad[at : at + chance.randint(0, 2)] = chance.randbytes(chance.randint(1, 2))
                yield bytes(bad)

    def endless(self, stream: bytes) -> None:
        """A peer that sends the same over and over makes the framer hold no more than its limit."""
        framer = self._new_framer()
        piece = stream * (4_096 // max(1, len(stream)) + 1)
        for _ in range(self._endless_bytes // max(1, len(piece)) + 1):
            framer.receive(piece)
            self._look(framer)
            if framer.error is not None:
                return

    def _look(self, framer: Framer) -> None:
        held = _held_bytes(framer) - self._empty_bytes
        limit = self._held_limit if framer.error is None else _OWN_BYTES
        when = "" if framer.error is None else " after its error"
        assert held <= limit, f"a framer holds {held} bytes{when}; it may hold {limit}"


def _error_of(framer: Framer) -> str | None:
    return None if framer.error is None else repr(framer.error)


def _held_bytes(framer: Framer) -> int:
    """The bytes of all that the framer refers to, directly or not, wherever it keeps it.

    An error that was raised counts too, with its traceback: that keeps the variables of the functions that it went
    through, and with them what had been received.
    """
    seen: set[int] = set()
    keep: list[object] = []  # an id is one object's only while that object lives
    todo: list[object] = [framer]
    total = 0
    while todo:
        thing = todo.pop()
        if id(thing) in seen or isinstance(thing, _SHARED):
            continue
        seen.add(id(thing))
        keep.append(thing)
        total += sys.getsizeof(thing)
        if isinstance(thing, TracebackType):
            # Not by its frames, which know their callers, and so all that there is.
            todo += [thing.tb_next, dict(thing.tb_frame.f_locals)]
        elif isinstance(thing, BaseException):
            todo += [thing.args, thing.__dict__, thing.__traceback__, thing.__context__, thing.__cause__]
        else:
            todo += gc.get_referents(thing)
    return total
