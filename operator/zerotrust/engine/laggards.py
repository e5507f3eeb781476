"""For how long decision points have not followed what is recorded for them: the metric by which a slow revocation is seen."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import NamedTuple

from zerotrust.common.naming import Ref
from zerotrust.engine.cache import Cache
from zerotrust.engine.clock import Clock
from zerotrust.engine.contents import BundleContents
from zerotrust.engine.enforcement import Enforcement
from zerotrust.opabundle.archive import Kind
from zerotrust.opabundle.record import KINDS
from zerotrust.opabundle.reports import Point
from zerotrust.telemetry.metrics import Metrics, Sample


class _Behind(NamedTuple):
    serial: int
    since: datetime


class Laggards:
    """Looks when asked. One that is behind and moves on with every look is slow at worst, and counts from its last move."""

    def __init__(self, cache: Cache, contents: BundleContents, enforcement: Enforcement, clock: Clock) -> None:
        self._cache, self._contents, self._enforcement, self._clock = cache, contents, enforcement, clock
        self._behind: dict[tuple[str, Kind], _Behind] = {}

    def announce(self, metrics: Metrics) -> None:
        """Show the numbers."""
        metrics.gauge(
            "decision_points",
            "Decision points whose bundle has not ended, and whose pod is not known to be gone.",
            lambda: sum(1 for namespace in self._contents.namespaces() for _ in self._points(namespace)),
        )
        metrics.watch(
            "decision_point_lag_seconds",
            "For how long the slowest decision point has not run what is recorded for it, as far as this process has seen.",
            ["kind"],
            self.lags,
        )

    def lags(self) -> Iterable[Sample]:
        """The longest lag for each kind of bundle, 0 while everybody follows."""
        now, seen = self._clock.now(), dict[tuple[str, Kind], _Behind]()
        for namespace in self._contents.namespaces():
            recorded = self._contents.record(namespace)
            for point in self._points(namespace):
                for kind, entry in recorded.items():
                    if point.revisions.get(kind) != entry.revision:
                        known, serial = self._behind.get((point.uid, kind)), point.serials.get(kind, 0)
                        if known is None or known.serial != serial:
                            known = _Behind(serial, now)
                        seen[point.uid, kind] = known
        self._behind = seen
        for kind in KINDS:
            since = min((one.since for (_, of), one in seen.items() if of == kind), default=now)
            yield (kind,), (now - since).total_seconds()

    def _points(self, namespace: str) -> Iterator[Point]:
        return (one for one in self._enforcement.living(namespace) if self._exists(namespace, one))

    def _exists(self, namespace: str, point: Point) -> bool:
        """Whether its pod is there, as far as pods are watched: what a rollout has removed does not lag."""
        if not self._cache.count("Pod"):
            return True
        pod = self._cache.get(Ref("Pod", namespace, point.pod))
        return pod is not None and pod.meta.uid == point.uid and pod.running
