"""Calls for threads: a client whose reactor has a thread of its own."""

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self

from trunkline.reactor import ReactorThread
from trunkline.rpc.client import RpcClient
from trunkline.tcp.client import Address

__all__ = ["BlockingRpcClient"]

_END = object()


class BlockingRpcClient:
    """An `RpcClient` for programs that are not asyncio's. Any thread but a reactor's.

    As in ``with BlockingRpcClient([("meters-1", 7000)]) as client: client.call("read", "m1")``.

    Args:
        addresses: the servers' hosts and ports, or paths of Unix sockets.
        options: as for `RpcClient`.
    """

    def __init__(self, addresses: Sequence[Address], **options: Any) -> None:
        self._closed = False
        self._thread = ReactorThread(name="trunkline-rpc-client")
        reactor = self._thread.start()

        async def begin() -> RpcClient:
            client = RpcClient(reactor, addresses, **options)
            client.start()
            return client

        try:
            self._client = self._thread.run(begin())
        except BaseException:
            self._thread.stop()
            raise

    def call(
        self,
        method: str,
        *args: Any,
        timeout: float | None = None,
        result_type: Any = Any,
        meta: dict[str, str] | None = None,
        idempotent: bool = False,
    ) -> Any:
        """Calls a method of one of the servers; returns its result. See `RpcClient.call`."""
        call = self._client.call(
            method, *args, timeout=timeout, result_type=result_type, meta=meta, idempotent=idempotent
        )
        return self._thread.run(call)

    def stream(self, method: str, *args: Any, **more: Any) -> Iterator[Any]:
        """Calls a method that is a stream; iterate over what it returns. See `RpcClient.stream`."""
        items = self._client.stream(method, *args, **more)

        async def following() -> Any:
            return await anext(items, _END)

        try:
            while (item := self._thread.run(following())) is not _END:
                yield item
        finally:
            self._thread.run(items.aclose())

    def notify(self, method: str, *args: Any, meta: dict[str, str] | None = None) -> None:
        """Has a method of one of the servers run. See `RpcClient.notify`."""
        self._thread.run(self._client.notify(method, *args, meta=meta))

    def close(self) -> None:
        """Closes the connections and ends the thread. Closing twice does nothing."""
        if not self._closed:
            self._closed = True
            self._thread.run(self._client.stop())
            self._thread.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
