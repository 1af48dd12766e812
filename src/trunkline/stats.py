"""What a node counts, for Prometheus and for the console.

One `Stats` belongs to one node, with a registry of its own, so that several nodes can live in one process
(as tests do). Names follow https://prometheus.io/docs/practices/naming/.
"""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

__all__ = ["Stats"]

_LATENCIES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Stats:
    """The counters of one node. Any thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        counter, gauge = self._counter, self._gauge
        self.connections_opened = counter("connections_opened", "Connections accepted")
        self.connections_closed = counter("connections_closed", "Connections closed, by reason", "reason")
        self.connections_refused = counter("connections_refused", "Connections refused at once, by reason", "reason")
        self.devices_online = gauge("devices_online", "Devices that hold a line to this node")
        self.bad_input = counter("bad_input", "Input that was refused, by kind", "kind")
        self.unsolicited_lines = counter("unsolicited_lines", "Device lines that answer no command")
        self.commands_accepted = counter("commands_accepted", "Commands committed")
        self.commands_refused = counter("commands_refused", "Commands refused, by reason", "reason")
        self.commands_written = counter("commands_written", "Commands written to a device's line")
        self.commands_ended = counter("commands_ended", "Commands that reached their outcome, by state", "state")
        self.command_seconds = Histogram(
            "trunkline_command_seconds",
            "Seconds from a command's acceptance to its reply",
            buckets=_LATENCIES,
            registry=self.registry,
        )
        self.jobs_ended = counter("jobs_ended", "Jobs that reached their outcome, by state", "state")
        self.items_accepted = counter("items_accepted", "Items committed to the spool")
        self.items_stored = counter("items_stored", "Items written to a sink")
        self.batches_stored = counter("batches_stored", "Batches written to a sink")
        self.sink_failures = counter("sink_failures", "Batches that a sink refused")
        self.commits = counter("commits", "Transactions committed by the writer")
        self.writes = counter("writes", "Writes committed by the writer")
        self.write_failures = counter("write_failures", "Writes that failed")
        self.bus_dropped = counter("bus_dropped", "Bus messages dropped because a subscriber was full")
        self.reactor_blocks = counter("reactor_blocks", "Times that something held up the event loop")
        self.reactor_errors = counter("reactor_errors", "Exceptions in callbacks on the reactor")

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"trunkline_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"trunkline_{name}", text, registry=self.registry)

    def observe(self, collect: Callable[[], Iterable[tuple[str, str, str, float]]]) -> None:
        """Adds figures that are read only when somebody asks, so that counting them costs nothing.

        Args:
            collect: returns rows of (name, help, ``"counter"`` or ``"gauge"``, value).
        """
        self.registry.register(_Collector(collect))

    def exposition(self) -> bytes:
        """All figures in Prometheus's text format."""
        return generate_latest(self.registry)


class _Collector:
    def __init__(self, collect: Callable[[], Iterable[tuple[str, str, str, float]]]) -> None:
        self._collect = collect

    def collect(self) -> Iterable[Metric]:
        for name, text, kind, value in self._collect():
            family = CounterMetricFamily if kind == "counter" else GaugeMetricFamily
            yield family(f"trunkline_{name}", text, value=value)
