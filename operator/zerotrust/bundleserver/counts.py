"""What the bundle server counts, beside what every process counts; no label comes from a client."""

from collections.abc import Callable, Iterable

from prometheus_client import Counter, Gauge, Histogram

from zerotrust.telemetry.metrics import Metrics, Sample


class Counts:
    """Metrics of the bundle server, in the registry of the process."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        registry = metrics.registry
        self._requests = Counter(
            "zerotrust_bundle_requests", "Answered requests.", ["route", "code"], registry=registry
        )
        self._seconds = Histogram(
            "zerotrust_bundle_send_seconds",
            "From the decision to send a bundle until its last byte was handed to the network.",
            registry=registry,
        )
        self._cut = Counter("zerotrust_bundle_connections_cut", "Connections cut.", ["reason"], registry=registry)
        self._intake = Counter(
            "zerotrust_bundle_intake", "Status reports and decision logs.", ["kind", "outcome"], registry=registry
        )
        self._events = Counter(
            "zerotrust_bundle_decision_events", "Events in decision logs.", ["outcome"], registry=registry
        )

    def answered(self, route: str, code: int) -> None:
        """Count an answer."""
        self._requests.labels(route, str(code)).inc()

    def sent(self, seconds: float) -> None:
        """Count a bundle that was sent."""
        self._seconds.observe(seconds)

    def cut(self, reason: str) -> None:
        """Count a connection that was cut."""
        self._cut.labels(reason).inc()

    def took(self, kind: str, outcome: str) -> None:
        """Count a report or an upload of logs."""
        self._intake.labels(kind, outcome).inc()

    def events(self, outcome: str, number: int) -> None:
        """Count events of a decision log."""
        if number:
            self._events.labels(outcome).inc(number)

    def gauge(self, name: str, description: str, value: Callable[[], float]) -> None:
        """Show a number when asked."""
        Gauge(f"zerotrust_bundle_{name}", description, registry=self._metrics.registry).set_function(value)

    def watch(self, name: str, description: str, labels: list[str], samples: Callable[[], Iterable[Sample]]) -> None:
        """Show labelled numbers when asked."""
        self._metrics.watch(f"bundle_{name}", description, labels, samples)
