"""A closed-loop HTTP load generator: one request in flight per connection, over plain asyncio protocols.

It parses no more of HTTP/1.1 than a status line and a Content-Length, so that it costs a fraction of what the
servers under test cost.
"""

import asyncio
import time
from collections.abc import Callable

__all__ = ["Load", "percentile"]


class _Client(asyncio.Protocol):
    def __init__(self, load: "Load", number: int) -> None:
        self._load = load
        self._number = number
        self._buffer = b""
        self._sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._send()

    def _send(self) -> None:
        self._sent_at = time.perf_counter()
        self._transport.write(self._load.request(self._number))  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head_end = self._buffer.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = self._buffer[:head_end].lower()
        at = head.find(b"content-length: ")
        length = int(head[at + 16 :].split(b"\r", 1)[0])
        if len(self._buffer) < head_end + 4 + length:
            return
        self._load.answered(int(head[9:12]), self._buffer[head_end + 4 :], time.perf_counter() - self._sent_at)
        self._buffer = b""
        if self._load.running:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._load.lost(error)


class Load:
    """One measurement.

    Args:
        host, port: the server.
        connections: how many; each has one request in flight.
        request: the bytes of one request, given the connection's number.
        check: whether an answer (status, body) is the one that was asked for.
    """

    def __init__(
        self,
        host: str,
        port: int,
        connections: int,
        request: Callable[[int], bytes],
        check: Callable[[int, bytes], bool],
    ) -> None:
        self.request = request
        self.running = True
        self.latencies: list[float] = []
        self.wrong = 0
        self._check = check
        self._address = (host, port)
        self._connections = connections
        self._open = 0
        self._all_closed = asyncio.Event()

    def answered(self, status: int, body: bytes, seconds: float) -> None:
        self.latencies.append(seconds)
        if not self._check(status, body):
            self.wrong += 1

    def lost(self, error: Exception | None) -> None:
        if error is not None or self.running:
            self.wrong += 1
        self._open -= 1
        if not self._open:
            self._all_closed.set()

    async def run(self, seconds: float) -> dict[str, float]:
        """Runs for so long; returns requests per second, p50 and p99 in milliseconds, and the wrong answers."""
        loop = asyncio.get_running_loop()
        self._open = self._connections
        started_at = time.perf_counter()
        for number in range(self._connections):
            await loop.create_connection(lambda number=number: _Client(self, number), *self._address)
        await asyncio.sleep(seconds)
        self.running = False
        elapsed = time.perf_counter() - started_at
        count = len(self.latencies)
        await asyncio.wait_for(self._all_closed.wait(), 30)
        return {
            "per_second": count / elapsed,
            "p50_ms": percentile(self.latencies, 0.50) * 1000,
            "p99_ms": percentile(self.latencies, 0.99) * 1000,
            "wrong": self.wrong,
        }


def percentile(values: list[float], share: float) -> float:
    """The value below which that share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")
