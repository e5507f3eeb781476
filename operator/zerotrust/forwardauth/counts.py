"""What the service counts, beside what every process counts; no label comes from a request."""

from collections.abc import Callable

from zerotrust.telemetry.metrics import Metrics

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2)
REASONS = 64


class Counts:
    """Metrics of forward-auth, in the registry of the process."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._reasons: set[str] = set()
        self._answers = metrics.counter("forward_auth_answers", "Answers to the proxy.", ["upstream", "code", "reason"])
        self._unknown = metrics.counter("forward_auth_unknown", "Questions without a verdict.", ["why"])
        self._cut = metrics.counter("forward_auth_connections_cut", "Connections cut.", ["reason"])
        self._seconds = metrics.histogram(
            "forward_auth_seconds", "From a complete request to its answer.", buckets=SECONDS
        )

    def answered(self, upstream: str, code: int, reason: str, seconds: float) -> None:
        """Count an answer; `upstream` and `reason` are from configuration and OPA, and reasons are bounded all the same."""
        if len(self._reasons) < REASONS:
            self._reasons.add(reason)
        self._answers.labels(upstream, str(code), reason if reason in self._reasons else "other").inc()
        self._seconds.observe(seconds)

    def unknown(self, why: str) -> None:
        """Count a question that nobody answered."""
        self._unknown.labels(why).inc()

    def cut(self, reason: str) -> None:
        """Count a connection that was cut."""
        self._cut.labels(reason).inc()

    def gauge(self, name: str, description: str, value: Callable[[], float]) -> None:
        """Show a number when asked."""
        self._metrics.gauge(f"forward_auth_{name}", description, value)
