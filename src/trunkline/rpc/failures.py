"""How errors travel: a code, a text for people, and perhaps data."""

from collections.abc import Mapping
from typing import Any

import msgspec

from trunkline.errors import (
    BadFrame,
    CallFailed,
    CallLost,
    DeadlineExceeded,
    Forbidden,
    NotFound,
    Overloaded,
    RpcError,
    UsageError,
)
from trunkline.rpc.messages import NIL, Failed

__all__ = ["CANCELLED", "DEADLINE", "FORBIDDEN", "GOAWAY", "INTERNAL", "NOT_FOUND", "OVERLOADED", "USAGE", "error_of"]

NOT_FOUND = "not_found"
"""The callee has no such method."""
USAGE = "usage"
"""The method does not take these arguments, or can't be called so."""
FORBIDDEN = "forbidden"
"""None of the caller's roles allows it."""
OVERLOADED = "overloaded"
"""A bound is reached. The call was not begun."""
GOAWAY = "goaway"
"""The callee takes no new calls. The call was not begun."""
CANCELLED = "cancelled"
"""The callee has broken the call off, since it is stopping."""
DEADLINE = "deadline"
"""The time that the caller gave is over."""
INTERNAL = "internal"
"""The method failed in a way that it does not declare. ``data`` is the id that its log has."""

_CLASSES: Mapping[str, type[Exception]] = {
    NOT_FOUND: NotFound,
    USAGE: UsageError,
    FORBIDDEN: Forbidden,
    OVERLOADED: Overloaded,
    DEADLINE: DeadlineExceeded,
}


def error_of(failed: Failed, declared: Mapping[str, type[RpcError]]) -> Exception:
    """The error that a caller gets.

    Args:
        failed: what the callee says.
        declared: the errors that the caller knows, by name.
    """
    known = _CLASSES.get(failed.code)
    if known is not None:
        return known(failed.text)
    if failed.code in (GOAWAY, CANCELLED):
        return CallLost(failed.text, sent="no" if failed.code == GOAWAY else "yes")
    kind = declared.get(failed.code, RpcError)
    try:
        data = _data(failed.data, str if failed.code == INTERNAL else kind.data_type)
    except (ValueError, RecursionError) as error:
        return BadFrame(f"the data of the error {failed.code[:100]!r} can't be read: {error}")
    if failed.code == INTERNAL:
        return CallFailed(failed.text, data or "")
    found = kind.__new__(kind)
    RpcError.__init__(found, failed.text, data)  # a class may have an __init__ of its own, for those who raise it
    found.code = failed.code
    return found


def _data(raw: msgspec.Raw, kind: Any) -> Any:
    return None if raw == NIL else msgspec.msgpack.decode(raw, type=kind)
