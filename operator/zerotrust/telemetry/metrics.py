"""Prometheus metrics; no per-object series, so that their number does not grow with the cluster."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from zerotrust.common.plan import Outcome

ISSUE_BUCKETS = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 900, 3600)
LATENESS_BUCKETS = (1, 5, 15, 60, 300, 900, 3600, 14400, 86400)

Sample = tuple[tuple[str, ...], float]


class Metrics:
    """Everything that the controller counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._issued = self._counter("issued", "Certificates issued, by reason.", ["reason"])
        self._issue_seconds = Histogram(
            "zerotrust_issue_seconds",
            "From the creation of a ServiceIdentity to its first certificate.",
            buckets=ISSUE_BUCKETS,
            registry=self.registry,
        )
        self._lateness = Histogram(
            "zerotrust_renewal_lateness_seconds",
            "From a certificate's renewal time to its renewal.",
            buckets=LATENESS_BUCKETS,
            registry=self.registry,
        )
        self._repaired = self._counter("repaired", "Foreign edits of owned objects that were put right.", ["kind"])
        self._reconciles = Histogram(
            "zerotrust_reconcile_seconds", "Duration of reconciles.", ["controller"], registry=self.registry
        )
        self._errors = self._counter("reconcile_errors", "Reconciles that failed.", ["controller", "reason"])
        self._writes = self._counter("api_writes", "Writes to the API server.", ["kind", "verb", "code"])
        self._events_dropped = self._counter("events_dropped", "Kubernetes events that were not sent.", ["reason"])
        self._resyncs = self._counter("relists", "Authoritative comparisons of the cache.", ["kind"])
        self._missed = self._counter("missed_changes", "Changes that only a comparison has found.", ["kind", "change"])
        self.leading = Gauge("zerotrust_leading", "1 while this process leads.", registry=self.registry)
        self.synced = Gauge("zerotrust_caches_synced", "1 once every cache is filled.", registry=self.registry)
        self.loop_lag = Gauge(
            "zerotrust_event_loop_lag_seconds", "How late the event loop was at its last beat.", registry=self.registry
        )
        self._stalls = self._counter("event_loop_stalls", "Times the event loop stood still for a second and more.", [])

    def _counter(self, name: str, description: str, labels: Sequence[str]) -> Counter:
        return Counter(f"zerotrust_{name}", description, labels, registry=self.registry)

    def watch_queue(self, depth: Callable[[], int], timers: Callable[[], int]) -> None:
        """Show the workqueue's depth and the number of timers when asked."""
        queue = Gauge("zerotrust_queue_depth", "Keys that wait for a worker.", registry=self.registry)
        queue.set_function(depth)
        heap = Gauge("zerotrust_timers", "Times at which something is due.", registry=self.registry)
        heap.set_function(timers)

    def watch(
        self, name: str, description: str, labels: Sequence[str], samples: Callable[[], Iterable[Sample]]
    ) -> None:
        """Show gauges that are computed from the cache when asked."""
        self.registry.register(_Computed(f"zerotrust_{name}", description, labels, samples))

    def reconciled(self, controller: str, seconds: float, outcomes: Iterable[Outcome]) -> None:
        """Count a reconcile and what came of it."""
        self._reconciles.labels(controller).observe(seconds)
        for outcome in outcomes:
            match outcome.metric:
                case "issued":
                    self._issued.labels(outcome.label).inc()
                case "issue_seconds":
                    self._issue_seconds.observe(outcome.value)
                case "renewal_lateness_seconds":
                    self._lateness.observe(outcome.value)
                case "repaired":
                    self._repaired.labels(outcome.label).inc()

    def repaired(self, kind: str) -> None:
        """Count a foreign edit that was put right."""
        self._repaired.labels(kind).inc()

    def failed(self, controller: str, reason: str) -> None:
        """Count a failed reconcile."""
        self._errors.labels(controller, reason).inc()

    def wrote(self, kind: str, verb: str, code: int) -> None:
        """Count a write to the API server; code 0 is a connection that broke."""
        self._writes.labels(kind, verb, str(code)).inc()

    def event_dropped(self, reason: str) -> None:
        """Count an event that was not sent."""
        self._events_dropped.labels(reason).inc()

    def compared(self, kind: str, missed: Iterable[tuple[str, int]]) -> None:
        """Count an authoritative comparison, and what it found that the watch had not told."""
        self._resyncs.labels(kind).inc()
        for change, number in missed:
            if number:
                self._missed.labels(kind, change).inc(number)

    def stalled(self) -> None:
        """Count a stall of the event loop."""
        self._stalls.inc()

    def render(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self.registry)


class _Computed(Collector):
    def __init__(
        self, name: str, description: str, labels: Sequence[str], samples: Callable[[], Iterable[Sample]]
    ) -> None:
        self._name, self._description, self._labels, self._samples = name, description, labels, samples

    def collect(self) -> Iterable[Any]:
        family = GaugeMetricFamily(self._name, self._description, labels=self._labels)
        for labels, value in self._samples():
            family.add_metric(labels, value)
        return [family]
