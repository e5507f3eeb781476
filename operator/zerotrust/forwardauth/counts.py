"""What the service counts, beside what every process counts; no label comes from a request."""

from collections.abc import Callable

from prometheus_client import Counter, Gauge, Histogram

from zerotrust.telemetry.metrics import Metrics

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2)
REASONS = 64


class Counts:
    """Metrics of forward-auth, in the registry of the process."""

    def __init__(self, metrics: Metrics) -> None:
        self._registry = metrics.registry
        self._reasons: set[str] = set()
        self._answers = Counter(
            "zerotrust_forward_auth_answers", "Answers to the proxy.", ["upstream", "code", "reason"],
            registry=self._registry,
        )  # fmt: skip
        self._unknown = Counter(
            "zerotrust_forward_auth_unknown", "Questions without a verdict.", ["why"], registry=self._registry
        )
        self._cut = Counter(
            "zerotrust_forward_auth_connections_cut", "Connections cut.", ["reason"], registry=self._registry
        )
        self._seconds = Histogram(
            "zerotrust_forward_auth_seconds", "From a complete request to its answer.", buckets=SECONDS,
            registry=self._registry,
        )  # fmt: skip

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
        Gauge(f"zerotrust_forward_auth_{name}", description, registry=self._registry).set_function(value)
