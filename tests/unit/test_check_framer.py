"""The conformance check of framers fails framers that are broken."""

import io
from collections.abc import Generator
from typing import Any

import pytest

from trunkline.errors import BadFrame, FrameTooLarge, UsageError
from trunkline.testing import check_framer
from trunkline.wire import Framer, LineFramer

MESSAGES = [b"one", b"", b"three"]
TOO_LONG = [b"ok\n" + b"x" * 40 + b"\nmore\n"]


class LosesBytesAtASplit(LineFramer):
    """Forgets an unfinished line when the next piece comes."""

    def receive(self, data: bytes) -> list[bytes]:
        return LineFramer(self.limit_bytes).receive(data)


class LosesTheLastLine(LineFramer):
    """Cuts wrongly whatever the split."""

    def receive(self, data: bytes) -> list[bytes]:
        return super().receive(data)[:-1]


class ReportsNoError(LineFramer):
    """Leaves out a line that is too long, and says nothing."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(1 << 20)
        self._longest = limit_bytes

    def receive(self, data: bytes) -> list[bytes]:
        return [line for line in super().receive(data) if len(line) <= self._longest]


class ReportsAnErrorOnlyOfWholeLines(LineFramer):
    """Sees that a line is too long only if it comes in one piece."""

    def receive(self, data: bytes) -> list[bytes]:
        if self.error is not None:
            return []
        if len(data) > self.limit_bytes + 2 and b"x" * (self.limit_bytes + 1) in data:
            self.error = FrameTooLarge("too long")
            return [b"ok"]
        return [line for line in data.split(b"\n")[:-1] if line]


class GoesOnAfterItsError(LineFramer):
    """Notes the error and cuts on."""

    def receive(self, data: bytes) -> list[bytes]:
        lines = super().receive(data)
        if self.error is not None and not lines:
            return LineFramer(self.limit_bytes).receive(data)
        return lines


class SeesErrorsEverywhere(LineFramer):
    """Gives the right messages, and an error with them."""

    def receive(self, data: bytes) -> list[bytes]:
        lines = super().receive(data)
        self.error = FrameTooLarge("nothing is wrong")
        return lines


class RaisesForGarbage(LineFramer):
    """Takes for granted that what comes is text."""

    def receive(self, data: bytes) -> list[bytes]:
        return [line.decode("ascii").encode() for line in super().receive(data)]


class KeepsABadLine(LineFramer):
    """Sees at once that a line is too long, and forgets to let go of it."""

    def receive(self, data: bytes) -> list[bytes]:
        lines = super().receive(data)
        if self.error is not None:
            self._rest += data + bytes(2_000)
        return lines


class KeepsWhatItHasHandedOut(LineFramer):
    """Has a history, in which nothing is ever deleted."""

    __slots__ = ("_history",)

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(limit_bytes)
        self._history: list[dict[str, bytes]] = []

    def receive(self, data: bytes) -> list[bytes]:
        lines = super().receive(data)
        self._history += [{"line": line} for line in lines]
        return lines


class WaitsForTheEndOfALongLine(LineFramer):
    """Knows that a line is too long only when it has all of it."""

    def receive(self, data: bytes) -> list[bytes]:
        if self.error is not None:
            return []
        *lines, rest = (bytes(self._rest) + data).split(b"\n")
        self._rest[:] = rest
        for index, line in enumerate(lines):
            if len(line) > self.limit_bytes:
                self._fail()
                return lines[:index]
        return lines


class WaitsInAFile(Framer):
    """The same in a `io.BytesIO`, which is no less memory."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__()
        self._framer = LineFramer(limit_bytes)
        self._log = io.BytesIO()

    def receive(self, data: bytes) -> list[bytes]:
        self._log.write(data)
        lines = self._framer.receive(data)
        self.error = self._framer.error
        return lines

    def encode(self, message: bytes) -> bytes:
        return self._framer.encode(message)


class KeepsATraceback(LineFramer):
    """Raises its error and catches it, and so keeps the variables of all that it went through."""

    def receive(self, data: bytes) -> list[bytes]:
        lines = super().receive(data)
        if self.error is not None and self.error.__traceback__ is None:
            chunk = data + bytes(2_000)
            try:
                self._raise(chunk)
            except FrameTooLarge as error:
                self.error = error
        return lines

    def _raise(self, chunk: bytes) -> None:
        raise FrameTooLarge(f"a line is longer than {self.limit_bytes} bytes")


class CallsALongLineBad(LineFramer):
    """Has the wrong error."""

    def _fail(self) -> None:
        self._rest.clear()
        self.error = BadFrame("something is wrong")


class NamesTheErrorByThePiece(LineFramer):
    """Has an error that depends on how the stream was split."""

    def receive(self, data: bytes) -> list[bytes]:
        failed = self.error is not None
        lines = super().receive(data)
        if self.error is not None and not failed:
            self.error = FrameTooLarge(f"a piece of {len(data)} bytes is too long")
        return lines


class ChangesItsError(LineFramer):
    """Has another error for everything that comes after the first."""

    def receive(self, data: bytes) -> list[bytes]:
        if self.error is not None:
            self.error = BadFrame("and more")
        return super().receive(data)


class GivesBuffers(LineFramer):
    """Gives what is equal to bytes, but can change."""

    def receive(self, data: bytes) -> list[bytes]:
        return [bytearray(line) for line in super().receive(data)]


class SendsSeveralInAnotherOrder(LineFramer):
    """Has an `encode_all` of its own, which is wrong."""

    def encode_all(self, messages: list[bytes]) -> bytes:
        return super().encode_all(messages[::-1])


class SendsSomethingForNothing(LineFramer):
    """Has an `encode_all` that ends what it did not begin."""

    def encode_all(self, messages: list[bytes]) -> bytes:
        return super().encode_all(messages) or b"\n"


class SendsWhatNobodyCanRead(LineFramer):
    """Sends two lines as one message."""

    def encode(self, message: bytes) -> bytes:
        return message + b"\n"


class SendsSeveralThatNobodyCanRead(LineFramer):
    """The same, only for several."""

    def encode_all(self, messages: list[bytes]) -> bytes:
        return b"".join(message + b"\n" for message in messages)


class CutsInAGenerator(Framer):
    """No subclass of ours, and keeps its state in a generator: one that keeps its promises all the same."""

    def __init__(self, limit_bytes: int = 16) -> None:
        super().__init__()
        self._limit = limit_bytes
        self._messages: list[bytes] = []
        self._cutter = self._cut()
        next(self._cutter)

    def _cut(self) -> Generator[None, bytes, None]:
        line = bytearray()
        while self.error is None:
            for byte in (yield):
                if byte == 0x0A:
                    self._messages.append(bytes(line))
                    line.clear()
                elif len(line) == self._limit:
                    self.error = FrameTooLarge("too long")
                    line.clear()
                    break
                else:
                    line.append(byte)
        yield

    def receive(self, data: bytes) -> list[bytes]:
        if self.error is not None:
            return []
        self._cutter.send(data)
        messages, self._messages = self._messages, []
        return messages

    def encode(self, message: bytes) -> bytes:
        if b"\n" in message or len(message) > self._limit:
            raise UsageError("no line")
        return message + b"\n"


class GathersInAGenerator(CutsInAGenerator):
    """Its generator has no limit."""

    def __init__(self, _limit_bytes: int) -> None:
        super().__init__(1 << 20)


def check(new_framer: Any, **options: Any) -> None:
    given = {"oversize_streams": TOO_LONG, "unsendable": [b"two\nlines"], "limit_bytes": 17}
    check_framer(lambda: new_framer(16), MESSAGES, **given | options)


def test_a_framer_that_keeps_its_promises_passes() -> None:
    check(LineFramer)
    check(CutsInAGenerator)


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (LosesBytesAtASplit, "cut at"),
        (LosesTheLastLine, "instead of"),
        (ReportsNoError, "no error"),
        (ReportsAnErrorOnlyOfWholeLines, "cut at"),
        (GoesOnAfterItsError, "goes on after its error"),
        (SeesErrorsEverywhere, "the error is"),
        (KeepsABadLine, "holds .* after its error"),
        (KeepsATraceback, "holds .* after its error"),
        (KeepsWhatItHasHandedOut, "it may hold"),
        (WaitsForTheEndOfALongLine, "it may hold"),
        (WaitsInAFile, "it may hold"),
        (GathersInAGenerator, "no error"),
        (CallsALongLineBad, "not a FrameTooLarge"),
        (NamesTheErrorByThePiece, "cut at .*: the error is"),
        (ChangesItsError, "error changes"),
        (GivesBuffers, "not bytes"),
        (SendsSeveralInAnotherOrder, "encode_all is not what encode gives"),
        (SendsSomethingForNothing, "encode_all of no messages"),
        (SendsWhatNobodyCanRead, "encode takes"),
        (SendsSeveralThatNobodyCanRead, "encode_all takes"),
    ],
)
def test_a_broken_framer_fails_with_the_reason(broken: type[LineFramer], complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        check(broken)


@pytest.mark.parametrize("greedy", [WaitsForTheEndOfALongLine, WaitsInAFile, GathersInAGenerator])
def test_a_greedy_framer_fails_also_where_no_stream_was_given_that_shows_it(greedy: type[LineFramer]) -> None:
    with pytest.raises(AssertionError, match="it may hold"):
        check(greedy, oversize_streams=())


def test_a_framer_that_raises_for_garbage_fails_with_what_it_raised() -> None:
    with pytest.raises(UnicodeDecodeError):
        check(RaisesForGarbage)


def test_a_framer_that_only_looks_at_whole_lines_fails_for_a_long_line_without_an_end() -> None:
    with pytest.raises(AssertionError, match="no error for b'xxx"):
        check(WaitsForTheEndOfALongLine, oversize_streams=[b"x" * 40])


def test_a_stream_that_is_bad_but_not_too_long_may_have_any_error() -> None:
    check(CallsALongLineBad, oversize_streams=(), bad_streams=TOO_LONG)


def test_it_can_be_checked_without_messages() -> None:
    check_framer(lambda: LineFramer(16), [], limit_bytes=17)


def test_the_random_splits_can_be_repeated() -> None:
    seen: list[list[bytes]] = [[], []]
    for pieces in seen:

        class Noting(LineFramer):
            def receive(self, data: bytes, pieces: list[bytes] = pieces) -> list[bytes]:
                pieces.append(data)
                return super().receive(data)

        check_framer(lambda Noting=Noting: Noting(16), MESSAGES, limit_bytes=17, seed=3, rounds=5)  # type: ignore[misc]
    assert seen[0] == seen[1]
    assert len(seen[0]) > 5
