"""The messages of calls: MessagePack arrays inside the messages of a session.

docs/reference/rpc.md has them to the byte.
"""

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from trunkline.errors import BadFrame

__all__ = [
    "CREDIT_LIMIT", "NIL", "Call", "Cancel", "Credit", "End", "Failed", "Goaway", "Item", "Message", "Notify",
    "Reply", "decode", "decode_unguarded", "encode",
]  # fmt: skip

CREDIT_LIMIT: Final = 2**31 - 1
"""Items that there may be credit for."""

_Count = Annotated[int, Meta(ge=0, le=CREDIT_LIMIT)]
_Milliseconds = Annotated[int, Meta(ge=0, le=2**53)]

_EMPTY = msgspec.Raw(b"\x90")

NIL = msgspec.Raw(b"\xc0")
"""No data."""


class Call(msgspec.Struct, array_like=True, tag=1, frozen=True, gc=False):
    """Asks for a method to be run. The id is the caller's: odd for the side that connected, even for the other.

    Each id is greater than all that this side has used on the connection before.
    """

    id: int
    method: str
    args: msgspec.Raw = _EMPTY
    timeout_ms: _Milliseconds = 0
    """How long the caller waits for the reply; 0 for no end."""
    meta: dict[str, str] | None = None
    """What travels along: trace context and the like."""
    credit: _Count = 0
    """Items of the result's stream that the caller takes before it gives more; 0 for a result that is no stream."""


class Reply(msgspec.Struct, array_like=True, tag=2, frozen=True, gc=False):
    """What a call has returned. Ends the call."""

    id: int
    result: msgspec.Raw


class Failed(msgspec.Struct, array_like=True, tag=3, frozen=True, gc=False):
    """Why a call has failed. Ends the call."""

    id: int
    code: str
    text: str = ""
    data: msgspec.Raw = NIL
    """The fields of an error that the method declares."""


class Cancel(msgspec.Struct, array_like=True, tag=4, frozen=True, gc=False):
    """The caller does not want the reply any more. There may be one all the same, if it crosses this."""

    id: int


class Notify(msgspec.Struct, array_like=True, tag=5, frozen=True, gc=False):
    """Asks for a method to be run. There is no reply, whatever becomes of it."""

    method: str
    args: msgspec.Raw = _EMPTY
    meta: dict[str, str] | None = None


class Item(msgspec.Struct, array_like=True, tag=6, frozen=True, gc=False):
    """One item of a call's stream: of its result from the callee, of its argument from the caller.

    It is sent only where there is credit for it: the callee's from the call itself and each `Credit`, the caller's from
    each `Credit`. Who sends more breaks the protocol.
    """

    id: int
    item: msgspec.Raw


class End(msgspec.Struct, array_like=True, tag=7, frozen=True, gc=False):
    """The caller's stream has ended. The callee's ends with its `Reply` or `Failed`."""

    id: int


class Credit(msgspec.Struct, array_like=True, tag=8, frozen=True, gc=False):
    """So many more items may be sent: from the caller, of the result's stream; from the callee, of the argument's."""

    id: int
    count: _Count


class Goaway(msgspec.Struct, array_like=True, tag=9, frozen=True, gc=False):
    """This side stops: it ends what it has begun and takes no new calls."""

    reason: str = ""
    last: int = 0
    """The id of the last call of the peer's that was taken, or 0: those that are greater are not run."""


Message = Call | Reply | Failed | Cancel | Notify | Item | End | Credit | Goaway

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(Message)

encode = _encoder.encode
decode_unguarded = _decoder.decode
"""What `decode` does, but for the errors, which are msgspec's."""


def decode(data: bytes) -> Message:
    """The message in the payload of a frame.

    Raises:
        BadFrame: it is none.
    """
    try:
        message: Message = decode_unguarded(data)
    except (ValueError, RecursionError) as error:
        raise BadFrame(f"no message of a call: {error}") from None
    return message
