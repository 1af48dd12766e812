"""What all peers of one server or client have in common."""

from collections.abc import Iterable, Mapping

from trunkline.errors import RpcError
from trunkline.reactor import Reactor
from trunkline.rpc.limits import RpcLimits
from trunkline.rpc.runner import Runner
from trunkline.rpc.service import Method
from trunkline.rpc.ticker import Ticker

__all__ = ["RpcBlueprint"]


class RpcBlueprint:
    """What all peers of one server or client have in common. Reactor's thread.

    Args:
        reactor: where they live.
        methods: what their peers can call, by name.
        errors: the errors of their peers' methods that they know.
        limits: their bounds.
        debug: whether callers are told the tracebacks of methods that fail.

    Attributes:
        runner: runs the methods.
        ticker: looks at the deadlines.
        goes_away: whether new calls are refused, for this side is stopping.
    """

    __slots__ = ("debug", "errors", "goes_away", "limits", "methods", "reactor", "runner", "ticker")

    def __init__(
        self,
        reactor: Reactor,
        methods: Mapping[str, Method],
        errors: Iterable[type[RpcError]] = (),
        limits: RpcLimits | None = None,
        debug: bool = False,
    ) -> None:
        self.reactor = reactor
        self.methods = dict(methods)
        self.errors = {error.__name__: error for error in errors}
        self.limits = limits or RpcLimits()
        self.debug = debug
        self.runner = Runner(reactor, self.limits)
        self.ticker = Ticker(reactor)
        self.goes_away = False
