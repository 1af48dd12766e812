"""What a method can know of its call."""

from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trunkline.rpc.peer import RpcPeer

__all__ = ["CallContext", "current_call"]


class CallContext:
    """One call, as the method that runs sees it. Any thread, but for the peer, which is the reactor's.

    Attributes:
        peer: the peer that calls; it can be called back.
        method: the method's name.
        deadline: the moment of the reactor's clock at which the caller stops waiting; infinity for never.
        meta: what travels along with the call, as a trace's context.
    """

    __slots__ = ("deadline", "meta", "method", "peer")

    def __init__(self, peer: "RpcPeer", method: str, deadline: float, meta: dict[str, str] | None) -> None:
        self.peer = peer
        self.method = method
        self.deadline = deadline
        self.meta = meta


current_call: ContextVar[CallContext | None] = ContextVar("trunkline_current_call", default=None)
"""The call on whose behalf a coroutine or a thread runs: calls that it makes have no more time than it has itself, and
carry its `meta`. Tasks that it starts inherit it. A plain function, which can't wait for anything, has none."""
