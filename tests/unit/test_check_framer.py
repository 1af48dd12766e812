"""The conformance check of framers fails framers that are broken."""

import pytest

from trunkline.errors import FrameTooLarge
from trunkline.testing import check_framer
from trunkline.wire import LineFramer

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


def test_a_framer_that_keeps_its_promises_passes() -> None:
    check_framer(lambda: LineFramer(16), MESSAGES, bad_streams=TOO_LONG)


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (LosesBytesAtASplit, "cut at"),
        (LosesTheLastLine, "instead of"),
        (ReportsNoError, "no error"),
        (ReportsAnErrorOnlyOfWholeLines, "cut at"),
        (GoesOnAfterItsError, "goes on after its error"),
        (SeesErrorsEverywhere, "the error is"),
    ],
)
def test_a_broken_framer_fails_with_the_reason(broken: type[LineFramer], complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        check_framer(lambda: broken(16), MESSAGES, bad_streams=TOO_LONG)


def test_the_random_splits_can_be_repeated() -> None:
    seen: list[list[bytes]] = [[], []]
    for pieces in seen:

        class Noting(LineFramer):
            def receive(self, data: bytes, pieces: list[bytes] = pieces) -> list[bytes]:
                pieces.append(data)
                return super().receive(data)

        check_framer(lambda Noting=Noting: Noting(16), MESSAGES, seed=3, rounds=5)  # type: ignore[misc]
    assert seen[0] == seen[1]
    assert len(seen[0]) > 5
