"""Calls over the native session, in both directions: typed methods, deadlines, cancellation, streams."""

from trunkline.rpc.blocking import BlockingRpcClient
from trunkline.rpc.caller import Caller
from trunkline.rpc.client import RpcClient
from trunkline.rpc.connecting import connect_rpc
from trunkline.rpc.context import CallContext, current_call
from trunkline.rpc.limits import RpcLimits
from trunkline.rpc.outcomes import CallFuture, CallStream
from trunkline.rpc.peer import RpcPeer
from trunkline.rpc.retrying import RetryBudget
from trunkline.rpc.server import RpcServer
from trunkline.rpc.service import Method, Service
from trunkline.rpc.stub import stub_source

__all__ = [
    "BlockingRpcClient",
    "CallContext",
    "CallFuture",
    "CallStream",
    "Caller",
    "Method",
    "RetryBudget",
    "RpcClient",
    "RpcLimits",
    "RpcPeer",
    "RpcServer",
    "Service",
    "connect_rpc",
    "current_call",
    "stub_source",
]
