"""A client of several servers that serve the same."""

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Sequence
from typing import Any, Literal

from trunkline.errors import CallLost, DeadlineExceeded, Overloaded, RpcError, UsageError
from trunkline.reactor import Reactor
from trunkline.rpc.blueprint import RpcBlueprint
from trunkline.rpc.built_in import client_methods
from trunkline.rpc.connecting import PeerLine
from trunkline.rpc.limits import RpcLimits
from trunkline.rpc.peer import RpcPeer
from trunkline.rpc.retrying import RetryBudget, may_retry
from trunkline.rpc.service import Service
from trunkline.tcp import ClientTls, ConnectionOptions, FullJitter
from trunkline.tcp.client import Address

__all__ = ["RpcClient"]


class RpcClient:
    """Keeps a connection to each of several servers that serve the same, and calls whichever is best. Reactor's thread.

    A call that surely was not run is made again, elsewhere if possible; one that may have been, only if it is
    idempotent.

    Args:
        reactor: where the connections live.
        addresses: the servers' hosts and ports, or paths of Unix sockets.
        balance: ``"round_robin"``: one server after the other; ``"least_calls"``: the one with the fewest calls of
            this client under way.
        service: what the servers can call here; None for nothing.
        token: what proves who this is; None for nothing.
        errors: the errors that the servers' methods declare, to be raised as what they are.
        limits: the bounds of calls.
        options: the bounds of each connection.
        tls: whom to trust, or a context of your own; None for plain TCP.
        compression: what to offer: see `Frames`.
        agent: what program this is, for people.
        tries: how often a call is made at the most.
        budget: how many calls may be made again.
        new_backoff: makes what says how long to wait before that.
        connection_timeout: seconds that a call without a timeout waits for a connection, where there is none.
        on_peer: called with each `RpcPeer` when it is up, and again when it is down.

    Raises:
        UsageError: there is no address, or fewer than one try.
    """

    def __init__(
        self,
        reactor: Reactor,
        addresses: Sequence[Address],
        *,
        balance: Literal["round_robin", "least_calls"] = "least_calls",
        service: Service | None = None,
        token: str | None = None,
        errors: Iterable[type[RpcError]] = (),
        limits: RpcLimits | None = None,
        options: ConnectionOptions | None = None,
        tls: ClientTls | ssl.SSLContext | None = None,
        compression: tuple[str, ...] = (),
        agent: str = "",
        tries: int = 3,
        budget: RetryBudget | None = None,
        new_backoff: Callable[[], FullJitter] = lambda: FullJitter(base=0.02, cap=1.0),
        connection_timeout: float = 10.0,
        on_peer: Callable[[RpcPeer], object] = lambda _peer: None,
    ) -> None:
        if not addresses or tries < 1:
            raise UsageError("a client needs one address or more, and one try or more")
        self._reactor = reactor
        self._balance = balance
        self._tries = tries
        self._budget = budget or RetryBudget()
        self._new_backoff = new_backoff
        self._connection_timeout = connection_timeout
        self._on_peer = on_peer
        self._turn = 0
        self._stopped = False
        self._changed = asyncio.Event()
        methods = client_methods({} if service is None else service.methods)
        self._blueprint = RpcBlueprint(reactor, methods, errors, limits)
        self._lines = [
            PeerLine(
                self._blueprint,
                address,
                token=token,
                options=options,
                tls=tls,
                compression=compression,
                agent=agent,
                on_peer=self._peer_changed,
            )
            for address in addresses
        ]

    def start(self) -> None:
        """Begins to connect. Starting twice does nothing."""
        for line in self._lines:
            line.tcp.start()

    async def stop(self) -> None:
        """Closes the connections in good order; calls that are under way are lost."""
        self._stopped = True
        self._changed.set()
        await asyncio.gather(*(line.stop() for line in self._lines))
        self._blueprint.ticker.stop()
        self._blueprint.runner.stop()

    async def __aenter__(self) -> "RpcClient":
        self.start()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.stop()

    @property
    def peers(self) -> list[RpcPeer]:
        """The servers that can be called just now."""
        return [line.peer for line in self._lines if line.peer is not None and line.peer.is_open]

    def _peer_changed(self, peer: RpcPeer) -> None:
        self._changed.set()
        self._on_peer(peer)

    def _best(self, tried: RpcPeer | None) -> RpcPeer | None:
        peers = self.peers
        if len(peers) > 1:
            peers = [peer for peer in peers if peer is not tried]
        if not peers:
            return None
        self._turn += 1
        first = self._turn % len(peers)
        ordered = peers[first:] + peers[:first]  # so that equals have their turns
        return ordered[0] if self._balance == "round_robin" else min(ordered, key=lambda peer: peer.calls_under_way)

    async def peer(self, timeout: float | None = None, *, tried: RpcPeer | None = None) -> RpcPeer:
        """The server that is to be called next; waits for one if none can be.

        Args:
            timeout: seconds to wait; None for the client's `connection_timeout`.
            tried: one that is taken only if there is no other.

        Raises:
            CallLost: there is none in time.
        """
        seconds = self._connection_timeout if timeout is None else min(timeout, self._connection_timeout)
        found = self._best(tried)
        try:
            async with asyncio.timeout(seconds):
                while found is None and not self._stopped:
                    self._changed.clear()
                    await self._changed.wait()
                    found = self._best(tried)
        except TimeoutError:
            why = "; ".join(sorted({line.failure for line in self._lines if line.failure})) or "none has said hello yet"
            raise CallLost(f"none of {len(self._lines)} servers can be reached: {why}", sent="no") from None
        if found is None:
            raise CallLost("the client was stopped", sent="no")
        return found

    async def call(
        self,
        method: str,
        *args: Any,
        timeout: float | None = None,
        result_type: Any = Any,
        meta: dict[str, str] | None = None,
        idempotent: bool = False,
    ) -> Any:
        """Calls a method of one of the servers; returns its result. See `RpcPeer.call` for what it raises.

        Args:
            method: its name.
            args: its arguments. A call with a stream among them is made once.
            timeout: seconds until the call is over, with all its tries; None for no end.
            result_type: what the result must be, to be checked.
            meta: what is to travel along.
            idempotent: whether it does no harm if it is run twice.
        """
        ends_at = None if timeout is None else self._reactor.now() + timeout
        tries = 1 if any(isinstance(one, AsyncIterable) for one in args) else self._tries
        backoff = self._new_backoff()
        tried: RpcPeer | None = None
        self._budget.earn()
        while True:
            tries -= 1
            left = self._left(method, ends_at)
            tried = await self.peer(left, tried=tried)
            try:
                return await tried.call(
                    method, *args, timeout=self._left(method, ends_at), result_type=result_type, meta=meta
                )
            except (CallLost, Overloaded) as error:
                if not (tries and may_retry(error, idempotent) and self._budget.spend()):
                    raise
                wait = backoff.next_wait()
                if ends_at is not None and self._reactor.now() + wait >= ends_at:
                    raise
                await asyncio.sleep(wait)

    def _left(self, method: str, ends_at: float | None) -> float | None:
        if ends_at is None:
            return None
        left = ends_at - self._reactor.now()
        if left <= 0:
            raise DeadlineExceeded(f"{method}: there is no time left for it")
        return left

    async def stream(
        self,
        method: str,
        *args: Any,
        timeout: float | None = None,
        result_type: Any = Any,
        meta: dict[str, str] | None = None,
        window: int = 64,
    ) -> AsyncGenerator[Any, None]:
        """Calls a method that is a stream, of one of the servers. See `RpcPeer.stream`; it is made once."""
        ends_at = None if timeout is None else self._reactor.now() + timeout
        peer = await self.peer(timeout)
        left = self._left(method, ends_at)
        items = peer.stream(method, *args, timeout=left, result_type=result_type, meta=meta, window=window)
        try:
            async for item in items:
                yield item
        finally:
            await items.aclose()

    async def notify(self, method: str, *args: Any, meta: dict[str, str] | None = None) -> None:
        """Has a method of one of the servers run. See `RpcPeer.notify`; it is made once."""
        (await self.peer()).notify(method, *args, meta=meta)
