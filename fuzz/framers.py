"""What must hold for every framer and whatever bytes, as one function of a framer's name and some bytes.

`fuzz_framer.py` looks for bytes for which it does not; the unit tests try those in `corpus/` each time.
"""

import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

from trunkline.errors import UsageError
from trunkline.wire import (
    DelimiterFramer,
    FixedFramer,
    Framer,
    LengthFramer,
    LineFramer,
    NetstringFramer,
    RawFramer,
    VarintFramer,
)

LIMIT = 40
"""Small, so that what is random is over it as often as not."""


class Target(NamedTuple):
    """A framer in one configuration."""

    new_framer: Callable[[], Framer]
    held_limit: int
    """The most bytes of a stream that it may hold."""
    exact: bool = True
    """Whether what is sent comes back as it is; not so where the length in it is put right."""


JT808 = {b"\x7e": b"\x7d\x02", b"\x7d": b"\x7d\x01"}
BACKSLASH = {b"\n": b"\\n", b"\\": b"\\\\"}

TARGETS: dict[str, list[Target]] = {
    "line": [
        Target(lambda: LineFramer(LIMIT), LIMIT + 1),
        Target(lambda: LineFramer(LIMIT, b"\r\n"), LIMIT + 1),
        Target(lambda: LineFramer(1), 2),
    ],
    "length": [
        Target(lambda: LengthFramer(LIMIT), LIMIT),
        Target(lambda: LengthFramer(LIMIT, size=1), LIMIT),
        Target(lambda: LengthFramer(LIMIT, size=2, order="little", strip=0), LIMIT, exact=False),
        Target(lambda: LengthFramer(LIMIT, size=3, offset=2, prefix=b"\xca\xfe"), LIMIT),
        Target(lambda: LengthFramer(LIMIT, size=2, adjustment=-2), LIMIT),
        Target(lambda: LengthFramer(LIMIT, size=2, offset=1, adjustment=-3, strip=3), LIMIT),
        Target(lambda: LengthFramer(LIMIT, size=2, offset=1, adjustment=1, strip=4), LIMIT),
        Target(lambda: LengthFramer(LIMIT, size=8, order="little", offset=1, strip=1), LIMIT, exact=False),
    ],
    "varint": [Target(lambda: VarintFramer(LIMIT), LIMIT + 10), Target(lambda: VarintFramer(300), 310)],
    "netstring": [Target(lambda: NetstringFramer(LIMIT), LIMIT + 4), Target(lambda: NetstringFramer(9), 12)],
    "delimiter": [
        Target(lambda: DelimiterFramer(b"\0", LIMIT), LIMIT),
        Target(lambda: DelimiterFramer(b"\r\n", LIMIT), LIMIT + 1),
        Target(lambda: DelimiterFramer(b"aba", LIMIT, leading=True), LIMIT + 2),
        Target(lambda: DelimiterFramer(b"\r\n\r\n", LIMIT), LIMIT + 3),
        Target(lambda: DelimiterFramer(b"\x7e", LIMIT, escapes=JT808, leading=True), LIMIT),
        Target(lambda: DelimiterFramer(b"\n", LIMIT, escapes=BACKSLASH), LIMIT),
    ],
    "fixed": [Target(lambda: FixedFramer(1), 0), Target(lambda: FixedFramer(7), 6)],
    "raw": [Target(lambda: RawFramer(LIMIT), 0)],
}


def check(name: str, data: bytes) -> None:
    """Tries one input: a byte that chooses the configuration, one that chooses the split, and the stream.

    Raises:
        AssertionError: a framer breaks a promise.
        Exception: a framer raised what it never may.
    """
    if len(data) < 2:
        return
    targets = TARGETS[name]
    target, split, stream = targets[data[0] % len(targets)], data[1], data[2:]
    whole, error = _received(target, [stream])
    for pieces in (_pieces(stream, split), [stream[at : at + 1] for at in range(len(stream))]):
        messages, same_error = _received(target, pieces)
        if name == "raw":
            messages, whole = [b"".join(messages)], [b"".join(whole)]
        assert (messages, same_error) == (whole, error), f"{messages}, {same_error} in pieces; {whole}, {error} whole"
    sent = [message for message in (*whole, stream) if _comes_back(target, message)]
    framer = target.new_framer()
    assert framer.encode_all(sent) == b"".join([framer.encode(message) for message in sent])


def _pieces(stream: bytes, split: int) -> Iterator[bytes]:
    chance = random.Random(split)  # noqa: S311  repeatable, not secret
    at = 0
    while at < len(stream):
        end = at + chance.randint(1, 12)
        yield stream[at:end]
        at = end


def _received(target: Target, pieces: Iterator[bytes] | list[bytes]) -> tuple[list[bytes], str]:
    framer = target.new_framer()
    messages: list[bytes] = []
    for piece in pieces:
        failed = framer.error is not None
        more = framer.receive(piece)
        assert not (failed and more), "a framer goes on after its error"
        messages += more
        held = len(getattr(framer, "_rest", b""))
        limit = target.held_limit if framer.error is None else 0
        assert held <= limit, f"a framer holds {held} bytes; it may hold {limit}"
    return messages, repr(framer.error)


def _comes_back(target: Target, message: bytes) -> bool:
    """Whether a message can be sent. If so, it must be received as the same."""
    try:
        frame = target.new_framer().encode(message)
    except UsageError:
        return False
    if isinstance(target.new_framer(), RawFramer):
        assert frame == message
        return True
    messages, error = _received(target, [frame])
    assert error == "None", f"{message!r} was sent as {frame!r}, for which the error is {error}"
    assert len(messages) == 1, f"{message!r} was sent as {frame!r}, and came back as {messages}"
    assert not target.exact or messages == [message], f"{message!r} was sent as {frame!r}, and came back as {messages}"
    assert target.new_framer().encode(messages[0]) == frame, f"{messages[0]!r} came, and is not sent as it came"
    return True
