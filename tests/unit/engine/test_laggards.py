"""For how long decision points have not followed, from reports and records as they are in the cache."""

from datetime import timedelta

from tests.support.replicas import OPERATOR, Cluster
from zerotrust.common import naming
from zerotrust.common.naming import Ref
from zerotrust.engine.laggards import Laggards
from zerotrust.opabundle import record, reports
from zerotrust.opabundle.archive import Kind
from zerotrust.opabundle.record import Entry
from zerotrust.opabundle.reports import NamespaceReport, Point
from zerotrust.telemetry.metrics import Metrics


class Watched:
    """A namespace with bundles, its decision points, and the metrics about them."""

    def __init__(self) -> None:
        self.cluster, self.metrics = Cluster(replicas=1), Metrics()
        self.cluster.populate()
        self.edit("frontend")
        leader = self.cluster.leader
        Laggards(leader.cache, leader.contents, self.cluster.enforcement, self.cluster.clock).announce(self.metrics)

    def edit(self, client: str) -> None:
        """Change the policies of the namespace, and record it."""
        self.cluster.allow(client)
        self.cluster.record()

    @property
    def recorded(self) -> dict[Kind, Entry]:
        place = Ref("ConfigMap", OPERATOR, naming.bundle_record_name("shop"))
        return record.read(self.cluster.leader.cache.get(place))

    def report(self, **running: dict[Kind, Entry]) -> None:
        """What the decision point in each pod runs, as the one bundle server reports it."""
        now = self.cluster.clock.now()
        points = tuple(
            Point(
                f"uid-{pod}",
                pod,
                "orders",
                {kind: entry.revision for kind, entry in entries.items()},
                {kind: entry.serial for kind, entry in entries.items()},
                (),
                now + timedelta(hours=24),
                now,
            )
            for pod, entries in running.items()
        )
        manifest = reports.manifest(f"{naming.REPORT_PREFIX}replica-0", OPERATOR, {"shop": NamespaceReport({}, points)})
        metadata = {"labels": manifest["metadata"]["labels"]}
        name = manifest["metadata"]["name"]
        self.cluster.tell(
            self.cluster.body("ConfigMap", name, OPERATOR, api="v1", metadata=metadata, data=manifest["data"])
        )

    def pod(self, name: str) -> None:
        metadata = {"uid": f"uid-{name}"}
        spec = {"serviceAccountName": "orders"}
        self.cluster.tell(self.cluster.body("Pod", name, "shop", api="v1", metadata=metadata, spec=spec))

    def points(self) -> float | None:
        return self.metrics.registry.get_sample_value("zerotrust_decision_points")

    def lag(self, kind: Kind = "policy") -> float | None:
        return self.metrics.registry.get_sample_value("zerotrust_decision_point_lag_seconds", {"kind": kind})


def test_nobody_lags_where_nobody_decides() -> None:
    watched = Watched()
    assert (watched.points(), watched.lag("policy"), watched.lag("revocations")) == (0, 0, 0)


def test_one_that_does_not_follow_is_told_for_how_long() -> None:
    watched = Watched()
    old = watched.recorded
    watched.report(a=old, b=old)
    watched.cluster.later(3600)
    assert (watched.points(), watched.lag()) == (2, 0)
    watched.edit("batch")
    watched.report(a=watched.recorded, b=old)
    assert watched.lag() == 0
    watched.cluster.later(90)
    assert watched.lag() == 90
    assert watched.lag("revocations") == 0
    watched.report(a=watched.recorded, b=watched.recorded)
    assert watched.lag() == 0


def test_one_that_moves_on_is_slow_and_not_stuck() -> None:
    watched = Watched()
    versions = [watched.recorded]
    for number in range(7):
        watched.cluster.later(20)
        watched.edit("frontend" if number % 2 else "batch")
        versions.append(watched.recorded)
    for before in versions[:-1]:
        watched.report(a=before)
        assert watched.lag() == 0
        watched.cluster.later(20)


def test_a_rollout_leaves_no_laggard_behind() -> None:
    watched = Watched()
    old = watched.recorded
    watched.pod("after")
    watched.report(before=old, after=old)
    watched.edit("batch")
    watched.cluster.later(600)
    watched.report(before=old, after=watched.recorded)
    assert watched.lag() == 0
    watched.cluster.later(600)
    assert (watched.points(), watched.lag()) == (1, 0)


def test_a_pod_that_starts_long_after_the_last_edit_is_not_late_at_once() -> None:
    watched = Watched()
    watched.cluster.later(86_400)
    watched.report(a={})
    assert watched.lag() == 0
    watched.cluster.later(5)
    watched.report(a=watched.recorded)
    assert watched.lag() == 0


def test_one_that_keeps_silent_is_late_until_what_it_runs_has_ended() -> None:
    watched = Watched()
    watched.report(a={})
    assert watched.lag() == 0
    watched.cluster.later(7200)
    assert watched.lag() == 7200
    watched.cluster.later(86_400)
    assert (watched.points(), watched.lag()) == (0, 0)
