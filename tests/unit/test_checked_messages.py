"""What a framer says of a message beforehand is what it says when it frames it."""

from collections.abc import Callable

import pytest

from trunkline.errors import UsageError
from trunkline.wire import (
    DelimiterFramer,
    FixedFramer,
    Framer,
    Frames,
    LengthFramer,
    LineFramer,
    NetstringFramer,
    RawFramer,
    SimpleReactorWire,
    VarintFramer,
)


def established() -> Frames:
    here, there = Frames(300), Frames(300)
    there.start()
    here.receive(bytes(there.output))
    return here


FRAMERS: dict[str, Callable[[], Framer]] = {
    "length": lambda: LengthFramer(300),
    "varint": lambda: VarintFramer(300),
    "netstring": lambda: NetstringFramer(300),
    "line": lambda: LineFramer(300),
    "delimiter": lambda: DelimiterFramer(b"|", 300),
    "fixed": lambda: FixedFramer(5),
    "raw": RawFramer,
    "simple_reactor": lambda: SimpleReactorWire("client", limit_bytes=300),
    "native": established,
}
MESSAGES = [
    b"",
    b"plain",
    b"a\nb",
    b"ends in \r",
    b"a|b",
    bytes(296),
    bytes(297),
    bytes(300),
    bytes(301),
    bytes(10_000),
]


@pytest.mark.parametrize("kind", FRAMERS)
@pytest.mark.parametrize("message", MESSAGES, ids=range(len(MESSAGES)))
def test_check_refuses_what_encode_refuses(kind: str, message: bytes) -> None:
    framer = FRAMERS[kind]()
    try:
        framer.encode(message)
    except UsageError as error:
        with pytest.raises(UsageError, match=str(error)[:20]):
            FRAMERS[kind]().check(message)
    else:
        framer.check(message)


def test_a_frame_with_more_than_its_length_in_front_is_not_judged_beforehand() -> None:
    framer = LengthFramer(300, offset=2, strip=0)
    framer.check(bytes(1_000))
    with pytest.raises(UsageError):
        framer.encode(bytes(1_000))
