"""From what a user gives to bytes, and back; what can't be is the user's error."""

from collections.abc import AsyncIterable, Callable
from functools import lru_cache
from typing import Any, Final, cast

import msgspec

from trunkline.errors import UsageError
from trunkline.rpc.messages import encode

__all__ = ["decoder_of", "encode_call", "encode_item", "encode_notify"]

_UNFIT: Final = (TypeError, ValueError, RecursionError, OverflowError)
_decode_any = msgspec.msgpack.Decoder().decode


@lru_cache(maxsize=1_024)
def _decode_as(kind: Any) -> Any:
    return msgspec.msgpack.Decoder(kind).decode


def decoder_of(kind: Any) -> Callable[[msgspec.Raw], Any]:
    """What reads a value of a type.

    Raises:
        UsageError: values of this type can't be told from others.
    """
    if kind is Any:
        return _decode_any
    try:
        return cast(Callable[[msgspec.Raw], Any], _decode_as(kind))
    except TypeError as error:
        try:
            return msgspec.msgpack.Decoder(kind).decode  # one that can't be looked up
        except TypeError:
            raise UsageError(f"result_type = {kind!r}: it can't be checked: {error}") from None


def encode_call(
    call_id: int,
    method: str,
    args: tuple[Any, ...],
    timeout_ms: int,
    meta: dict[str, str] | None,
    credit: int,
    streams: list[AsyncIterable[Any]],
) -> bytes:
    """The message of a call. An argument that is a stream is put into `streams` instead; the rest is as in `Call`.

    Raises:
        UsageError: an argument can't be sent, or two are streams.
    """
    try:
        if meta is None and not credit:
            return encode((1, call_id, method, args, timeout_ms) if timeout_ms else (1, call_id, method, args))
        return encode((1, call_id, method, args, timeout_ms, meta, credit))
    except _UNFIT as error:
        found = [one for one in args if isinstance(one, AsyncIterable)]
        if len(found) != 1:
            raise UsageError(f"{method}: its arguments can't be sent: {error}") from None
        streams += found
        plain = tuple(one for one in args if one is not found[0])
        return encode_call(call_id, method, plain, timeout_ms, meta, credit, streams)


def encode_notify(method: str, args: tuple[Any, ...], meta: dict[str, str] | None) -> bytes:
    """The message of a notification.

    Raises:
        UsageError: an argument can't be sent.
    """
    try:
        return encode((5, method, args) if meta is None else (5, method, args, meta))
    except _UNFIT as error:
        raise UsageError(f"{method}: its arguments can't be sent: {error}") from None


def encode_item(call_id: int, item: Any) -> bytes:
    """The message of one item of a stream.

    Raises:
        UsageError: it can't be sent.
    """
    try:
        return encode((6, call_id, item))
    except _UNFIT as error:
        raise UsageError(f"an item of the stream can't be sent: {error}") from None
