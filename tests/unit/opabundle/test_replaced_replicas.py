"""The report of a replica that is gone: kept for as long as somebody may believe what it has sent, and no longer."""

from datetime import datetime

from tests.support.builders import NOW, hours, minutes, seconds
from tests.unit.opabundle.test_reports import SYSTEM, a_point
from zerotrust.common.naming import Ref
from zerotrust.common.observed import ConfigMap, Meta, config_map
from zerotrust.opabundle.reports import NamespaceReport, Point, ReportSnapshot, manifest, read, reconcile_report
from zerotrust.policy.survey import Survey

LATER = NOW + minutes(5)


def a_report(*points: Point, unheard: datetime | None = None, pod_uid: str = "uid-replica") -> ConfigMap:
    report = NamespaceReport({"policy": 7}, points, unheard_until=unheard)
    body = manifest("zt-reports-replica", SYSTEM, {"shop": report}, pod_uid)
    stamps = {"uid": "uid", "resourceVersion": "1", "creationTimestamp": NOW.strftime("%Y-%m-%dT%H:%M:%SZ")}
    return config_map({**body, "metadata": {**body["metadata"], **stamps}})


def a_survey(*uids: str, at: datetime = LATER) -> Survey:
    meta = Meta(Ref("Survey", SYSTEM, SYSTEM), "", "1", 0, None, {}, {}, (), deleting=False)
    return Survey(meta, (), (), frozenset(uids), at)


def seen(report: ConfigMap, *others: Point, survey: Survey | None = None) -> ReportSnapshot:
    return ReportSnapshot(report, survey or a_survey(), {"shop": others})


def test_a_replica_that_has_just_written_is_not_looked_for() -> None:
    plan = reconcile_report(seen(a_report(a_point())), NOW + seconds(90))
    assert plan.requeue_at == NOW + minutes(2)
    assert not plan.refresh
    assert not plan.deletes


def test_a_replica_whose_pod_is_there_keeps_its_report() -> None:
    for report in (a_report(), a_report(a_point())):
        plan = reconcile_report(seen(report, survey=a_survey("uid-replica")), LATER)
        assert plan.refresh
        assert not plan.deletes
        assert not plan.applies


def test_a_look_from_before_its_last_word_says_nothing() -> None:
    plan = reconcile_report(seen(a_report(a_point()), survey=a_survey(at=NOW - seconds(1))), LATER)
    assert plan.refresh
    assert not plan.deletes
    assert not plan.applies


def test_whoever_was_sent_something_by_it_is_kept_and_it_serves_nothing() -> None:
    report = a_report(a_point("silent"), a_point("elsewhere"))
    plan = reconcile_report(seen(report, a_point("elsewhere", at=NOW + minutes(1))), LATER)
    (apply,) = plan.applies
    kept = read(config_map({**apply.manifest, "metadata": {**apply.manifest["metadata"]}}), "shop")
    assert [one.uid for one in kept.points] == ["silent"]
    assert kept.served == {}
    assert plan.requeue_at is not None
    assert not plan.deletes


def test_it_goes_when_nobody_is_left() -> None:
    known = a_point("elsewhere", at=NOW + minutes(1))
    for report, others, now in (
        (a_report(), (), LATER),
        (a_report(a_point("elsewhere")), (known,), LATER),
        (a_report(a_point("silent")), (), NOW + hours(24) + seconds(31)),
    ):
        plan = reconcile_report(seen(report, *others), now)
        assert [one.ref.name for one in plan.deletes] == ["zt-reports-replica"]


def test_those_it_had_no_room_for_are_waited_for() -> None:
    report = a_report(unheard=NOW + hours(1))
    assert reconcile_report(seen(report), LATER).applies
    assert reconcile_report(seen(report), NOW + hours(2)).deletes


def test_a_replica_outside_the_cluster_is_left_alone() -> None:
    plan = reconcile_report(seen(a_report(pod_uid="")), LATER)
    assert not plan.deletes
    assert not plan.applies
