"""Prometheus metrics; no per-object series, so that their number does not grow with the cluster."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from zerotrust.common.plan import Outcome

ISSUE_BUCKETS = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 900, 3600)
LATENESS_BUCKETS = (1, 5, 15, 60, 300, 900, 3600, 14400, 86400)

# They would be one more series for each set of labels, which nobody asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]

Sample = tuple[tuple[str, ...], float]


@dataclass(frozen=True)
class Family:
    """A metric as it is announced; `name` is without `_total` and the other endings of its samples."""

    name: str
    type: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    description: str


class Metrics:
    """Everything that a process counts; `families` lists it, for the reference and for the tests of alerts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.families: list[Family] = []
        self._issued = self.counter("issued", "Certificates issued, by reason.", ["reason"])
        self._issue_seconds = self.histogram(
            "issue_seconds",
            "From the creation of a ServiceIdentity to its first certificate.",
            buckets=ISSUE_BUCKETS,
        )
        self._lateness = self.histogram(
            "renewal_lateness_seconds", "From a certificate's renewal time to its renewal.", buckets=LATENESS_BUCKETS
        )
        self._repaired = self.counter("repaired", "Foreign edits of owned objects that were put right.", ["kind"])
        self._reconciles = self.histogram("reconcile_seconds", "Duration of reconciles.", ["controller"])
        self._errors = self.counter("reconcile_errors", "Reconciles that failed.", ["controller", "reason"])
        self._writes = self.counter(
            "api_writes", "Writes to the API server; code 0 is a connection that broke.", ["kind", "verb", "code"]
        )
        self._events_dropped = self.counter("events_dropped", "Kubernetes events that were not sent.", ["reason"])
        self._resyncs = self.counter("relists", "Authoritative comparisons of the cache.", ["kind"])
        self._missed = self.counter("missed_changes", "Changes that only a comparison has found.", ["kind", "change"])
        self.loop_lag = self.gauge("event_loop_lag_seconds", "How late the event loop was at its last beat.")
        self._stalls = self.counter("event_loop_stalls", "Times the event loop stood still for a second and more.")

    @cached_property
    def leading(self) -> Gauge:
        """Announced where it is used: a process that never leads must not look like one that should."""
        return self.gauge("leading", "1 while this process leads.")

    @cached_property
    def synced(self) -> Gauge:
        """Announced where it is used, as `leading` is."""
        return self.gauge("caches_synced", "1 once every cache is filled.")

    def counter(self, name: str, description: str, labels: Sequence[str] = ()) -> Counter:
        """Announce a counter; its samples end in `_total`."""
        return Counter(
            self._announce(name, "counter", labels, description), description, labels, registry=self.registry
        )

    def gauge(self, name: str, description: str, value: Callable[[], float] | None = None) -> Gauge:
        """Announce a number that is set, or computed by `value` when asked."""
        gauge = Gauge(self._announce(name, "gauge", (), description), description, registry=self.registry)
        if value is not None:
            gauge.set_function(value)
        return gauge

    def histogram(
        self,
        name: str,
        description: str,
        labels: Sequence[str] = (),
        buckets: Sequence[float] = Histogram.DEFAULT_BUCKETS,
    ) -> Histogram:
        """Announce a histogram; its samples end in `_bucket`, `_sum` and `_count`."""
        full = self._announce(name, "histogram", labels, description)
        return Histogram(full, description, labels, buckets=buckets, registry=self.registry)

    def watch(
        self, name: str, description: str, labels: Sequence[str], samples: Callable[[], Iterable[Sample]]
    ) -> None:
        """Announce gauges that are computed from the cache when asked."""
        full = self._announce(name, "gauge", labels, description)
        self.registry.register(_Computed(full, description, labels, samples))

    def _announce(
        self, name: str, kind: Literal["counter", "gauge", "histogram"], labels: Sequence[str], description: str
    ) -> str:
        full = f"zerotrust_{name}"
        self.families.append(Family(full, kind, tuple(labels), description))
        return full

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

    def describe(self) -> Iterable[Any]:
        """Lets the registry refuse a name that is taken."""
        return [GaugeMetricFamily(self._name, self._description, labels=self._labels)]

    def collect(self) -> Iterable[Any]:
        family = GaugeMetricFamily(self._name, self._description, labels=self._labels)
        for labels, value in self._samples():
            family.add_metric(labels, value)
        return [family]
