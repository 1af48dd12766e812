"""What can make calls, however it does so."""

from collections.abc import AsyncIterator, Awaitable
from typing import Any, Protocol

__all__ = ["Caller"]


class Caller(Protocol):
    """An `RpcPeer` or an `RpcClient`, to those who only call. Reactor's thread."""

    def call(
        self,
        method: str,
        *args: Any,
        timeout: float | None = None,
        result_type: Any = Any,
        meta: dict[str, str] | None = None,
        idempotent: bool = False,
    ) -> Awaitable[Any]:
        """Calls a method. See `RpcPeer.call`."""

    def stream(
        self,
        method: str,
        *args: Any,
        timeout: float | None = None,
        result_type: Any = Any,
        meta: dict[str, str] | None = None,
        window: int = 64,
    ) -> AsyncIterator[Any]:
        """Calls a method that is a stream. See `RpcPeer.stream`."""
