"""What the bundle server counts, beside what every process counts; no label comes from a client."""

from collections.abc import Callable, Iterable

from zerotrust.telemetry.metrics import Metrics, Sample


class Counts:
    """Metrics of the bundle server, in the registry of the process."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._requests = metrics.counter("bundle_requests", "Answered requests.", ["route", "code"])
        self._seconds = metrics.histogram(
            "bundle_send_seconds",
            "From the decision to send a bundle until its last byte was handed to the network.",
        )
        self._cut = metrics.counter("bundle_connections_cut", "Connections cut.", ["reason"])
        self._intake = metrics.counter("bundle_intake", "Status reports and decision logs.", ["kind", "outcome"])
        self._events = metrics.counter("bundle_decision_events", "Events in decision logs.", ["outcome"])

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
        self._metrics.gauge(f"bundle_{name}", description, value)

    def watch(self, name: str, description: str, labels: list[str], samples: Callable[[], Iterable[Sample]]) -> None:
        """Show labelled numbers when asked."""
        self._metrics.watch(f"bundle_{name}", description, labels, samples)
