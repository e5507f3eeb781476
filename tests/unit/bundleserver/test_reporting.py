"""What a replica writes about its decision points, and what the controller makes of it."""

from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.fakeapi import FakeApi
from tests.support.replicas import KEY, OPERATOR, Cluster
from zerotrust.bundleserver import reporting
from zerotrust.bundleserver.caller import POD_NAME, POD_UID, Caller, Subject
from zerotrust.bundleserver.decisions import Denial as Logged
from zerotrust.bundleserver.decisions import LogSummary
from zerotrust.bundleserver.intake import BundleState, Delivery, Report
from zerotrust.bundleserver.reporting import Reporting
from zerotrust.bundleserver.shelf import Kind, Place
from zerotrust.common.naming import Ref
from zerotrust.engine.enforcement import MOVING, UNHEARD
from zerotrust.engine.policybook import AcceptedVersion
from zerotrust.kube.client import Client, load_configuration
from zerotrust.policy.delivery import DecisionPoint, Denial
from zerotrust.policy.delivery import Delivery as Progress
from zerotrust.telemetry.metrics import Metrics

REPORT = Ref("ConfigMap", OPERATOR, "zt-reports-replica-0")


class Rig:
    """One replica that reports to a fake API server, and a controller that hears of it."""

    def __init__(self, api: FakeApi, client: Client) -> None:
        self.api, self.cluster = api, Cluster(replicas=1)
        self.replica = self.cluster.replicas[0]
        self.reporting = Reporting(client, self.cluster.clock, REPORT, self.replica.publisher)
        self.enforcement = self.cluster.enforcement

    async def accept(self, client: str, name: str = "orders") -> None:
        """A policy is accepted now, recorded and published a second later."""
        self.cluster.allow(client, name=name)
        self.cluster.later(1)
        self.cluster.record()
        await self.replica.publish()

    def revision(self) -> str:
        bundle = self.replica.policy()
        assert bundle is not None
        return bundle.content_hash

    def report(self, revision: str, pod: str = "orders-0", account: str = "orders") -> None:
        now = self.cluster.clock.now()
        states: Mapping[str, BundleState] = {"policy": BundleState(revision), "revocations": BundleState("0" * 64)}
        keys = frozenset({KEY.id})
        self.reporting.report(Report(pod, f"uid-{pod}", "shop", account, "opa", states, keys, now))

    def delivered(self, pod: str = "orders-0") -> None:
        now, bundle = self.cluster.clock.now(), self.replica.policy()
        assert bundle is not None
        extra = ((POD_NAME, (pod,)), (POD_UID, (f"uid-{pod}",)))
        subject = Subject("system:serviceaccount:shop:orders", extra=extra)
        caller = Caller(subject, now + timedelta(hours=1), pod, f"uid-{pod}")
        place = Place(KEY.id, "shop", Kind.POLICY)
        self.reporting.delivered(
            Delivery(caller, place, bundle.serial, bundle.content_hash, bundle.epoch, bundle.not_after, now)
        )

    async def tell(self) -> None:
        """Write the report, and let the controller hear of it."""
        await self.reporting.write()
        body = self.api.get("ConfigMap", REPORT.name, OPERATOR)
        assert body is not None
        self.cluster.leader.hear(body)

    @property
    def version(self) -> AcceptedVersion:
        return self.cluster.leader.book.version(self.cluster.leader.cache.get(Ref("TrustPolicy", "shop", "orders")))

    def points(self) -> tuple[DecisionPoint, ...]:
        return self.enforcement.points("shop", "orders", self.version)

    def progress(self) -> Progress:
        return self.enforcement.delivery("shop", self.version)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with FakeApi(namespaces=[OPERATOR]) as api:
        configuration = await load_configuration(str(api.kubeconfig(tmp_path / "kubeconfig")))
        async with Client(configuration, Metrics()) as client:
            rig = Rig(api, client)
            rig.cluster.populate()
            await rig.accept("frontend")
            yield rig


async def test_silence_is_no_agreement(rig: Rig) -> None:
    assert rig.progress() == Progress(0, 0)
    rig.delivered()
    await rig.tell()
    assert rig.progress() == Progress(1, 1)
    assert rig.points() == (DecisionPoint("orders-0", acknowledged=False),)
    rig.report(rig.revision())
    await rig.tell()
    assert rig.points() == (DecisionPoint("orders-0", acknowledged=True),)


async def test_an_older_revision_does_not_acknowledge_a_newer_version(rig: Rig) -> None:
    before = rig.revision()
    rig.report(before)
    await rig.accept("batch")
    await rig.tell()
    assert rig.progress().published
    assert rig.points() == (DecisionPoint("orders-0", acknowledged=False),)
    rig.report(rig.revision())
    await rig.tell()
    assert rig.points() == (DecisionPoint("orders-0", acknowledged=True),)


async def test_the_edit_of_another_policy_is_news_only_if_it_does_not_arrive(rig: Rig) -> None:
    rig.cluster.later(5)
    rig.report(rig.revision())
    await rig.accept("batch", "others")
    await rig.tell()
    assert rig.points() == (DecisionPoint("orders-0", acknowledged=True),)
    rig.cluster.later(MOVING.total_seconds())
    assert rig.points() == (DecisionPoint("orders-0", acknowledged=False),)


async def test_edits_within_one_second_are_told_apart(rig: Rig) -> None:
    for number in range(5):
        rig.cluster.allow("frontend", name=f"others-{number}")
        rig.cluster.record()  # serials run ahead of the clock
    await rig.replica.publish()
    rig.report(rig.revision())
    await rig.tell()
    rig.cluster.allow("batch")
    assert not rig.progress().published
    assert rig.points() == (DecisionPoint("orders-0", acknowledged=False),)


async def test_without_a_record_no_content_is_computed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Policies are asked how far they are at every reconcile, also in clusters without decision points."""
    contents = rig.cluster.leader.contents
    monkeypatch.setattr(contents, "record", lambda _: {})
    monkeypatch.setattr(contents, "content", lambda *_: pytest.fail("a content was computed"))
    assert rig.progress() == Progress(0, 0)
    assert rig.points() == ()


async def test_a_controller_that_has_just_started_believes_only_what_is_current(rig: Rig) -> None:
    before = rig.revision()
    await rig.accept("batch", "others")
    rig.report(before)
    await rig.tell()
    assert rig.points() == (DecisionPoint("orders-0", acknowledged=True),)
    rig.enforcement._first.clear()
    assert rig.points() == (DecisionPoint("orders-0", acknowledged=False),)


async def test_a_version_that_is_not_recorded_is_not_published(rig: Rig) -> None:
    await rig.tell()
    assert rig.progress().published
    rig.cluster.later(2)
    rig.cluster.allow("batch")
    assert not rig.progress().published


async def test_a_replica_that_lags_keeps_a_version_from_being_published(rig: Rig) -> None:
    await rig.tell()
    await rig.accept("batch")
    assert not rig.progress().published  # its report is from before
    await rig.tell()
    assert rig.progress().published


async def test_a_report_of_another_account_is_not_the_targets(rig: Rig) -> None:
    rig.report(rig.revision(), pod="batch-0", account="batch")
    await rig.tell()
    assert rig.points() == ()


async def test_a_report_outside_the_operators_namespace_counts_for_nothing(rig: Rig) -> None:
    rig.report(rig.revision())
    await rig.tell()
    body = rig.api.get("ConfigMap", REPORT.name, OPERATOR)
    assert body is not None
    forged = {**body, "metadata": {**body["metadata"], "namespace": "shop", "name": "zt-reports-forged"}}
    other = Rig(rig.api, rig.reporting._client)
    other.cluster.populate()
    await other.accept("frontend")
    other.cluster.leader.hear(forged)
    assert other.progress().replicas == 0
    assert other.points() == ()


async def test_who_is_silent_until_its_content_has_ended_counts_no_more(rig: Rig) -> None:
    rig.delivered()
    await rig.tell()
    bundle = rig.replica.policy()
    assert bundle is not None
    rig.cluster.clock.set(bundle.not_after + timedelta(seconds=29))
    assert len(rig.points()) == 1
    rig.cluster.clock.set(bundle.not_after + timedelta(seconds=31))
    assert rig.points() == ()


async def test_the_same_report_again_is_no_write_but_once_a_minute(rig: Rig) -> None:
    rig.report(rig.revision())
    await rig.tell()
    rig.api.reset_counts()
    for _ in range(50):
        rig.cluster.later(1)
        rig.report(rig.revision())
        await rig.reporting.write()
    assert rig.api.count_writes(resource="configmaps") == 0
    rig.cluster.later(10)
    rig.report(rig.revision())
    await rig.reporting.write()
    assert rig.api.count_writes(resource="configmaps") == 1


async def test_keys_in_use_are_those_of_living_decision_points(rig: Rig) -> None:
    assert rig.enforcement.keys_in_use() is None
    await rig.tell()
    assert rig.enforcement.keys_in_use() == set()
    rig.report(rig.revision())
    await rig.tell()
    assert rig.enforcement.keys_in_use() == {KEY.id}


def logged(rig: Rig, client: str, reason: str) -> None:
    now = rig.cluster.clock.now()
    server = "spiffe://example.org/ns/shop/sa/orders"
    denial = Logged(now, server, client, reason, "", "", "GET")
    rig.reporting.decisions(LogSummary("orders-0", "uid-orders-0", "shop", now, denials=(denial,)))


async def test_a_denied_caller_is_told_a_few_times_an_hour_and_forgotten_an_hour_later(rig: Rig) -> None:
    first = rig.cluster.clock.now()
    logged(rig, "spiffe://example.org/ns/web/sa/batch", "no_grant")
    await rig.tell()
    told = Denial(first.replace(microsecond=0), "orders", "spiffe://example.org/ns/web/sa/batch", "no_grant")
    assert rig.enforcement.denials("shop", "orders", "orders") == (told,)
    assert rig.enforcement.denials("shop", "payments", "payments") == ()
    rig.api.reset_counts()
    for _ in range(9):
        rig.cluster.later(60)
        logged(rig, "spiffe://example.org/ns/web/sa/batch", "no_grant")
        await rig.reporting.write()
    assert rig.api.count_writes(resource="configmaps") == 0
    rig.cluster.later(60)
    logged(rig, "spiffe://example.org/ns/web/sa/batch", "no_grant")
    await rig.tell()
    (again,) = rig.enforcement.denials("shop", "orders", "orders")
    assert again.at > told.at
    rig.cluster.later(3601)
    await rig.tell()
    assert rig.enforcement.denials("shop", "orders", "orders") == ()


async def test_a_flood_of_callers_is_bounded(rig: Rig) -> None:
    for number in range(1000):
        logged(rig, f"spiffe://example.org/ns/web/sa/w{number}", "no_grant")
    await rig.tell()
    assert len(rig.enforcement.denials("shop", "orders", "orders")) == 16


async def test_a_replica_that_starts_anew_in_its_pod_forgets_nobody(rig: Rig) -> None:
    rig.delivered()
    await rig.tell()
    await rig.accept("batch")
    rig.reporting = Reporting(rig.reporting._client, rig.cluster.clock, REPORT, rig.replica.publisher)
    await rig.reporting.resume()
    await rig.tell()
    assert rig.progress().published
    assert rig.points() == (DecisionPoint("orders-0", acknowledged=False),)
    rig.report(rig.revision())
    await rig.tell()
    assert rig.points() == (DecisionPoint("orders-0", acknowledged=True),)


async def test_decision_points_beyond_what_a_report_holds_have_not_agreed(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "MAX_POINTS", 2)
    for number in range(3):
        rig.report(rig.revision(), pod=f"orders-{number}")
    await rig.tell()
    assert [one.acknowledged for one in rig.points()] == [True, True, False]
    assert rig.points()[-1].pod == UNHEARD
    bundle = rig.replica.policy()
    assert bundle is not None
    rig.cluster.clock.set(bundle.not_after + timedelta(seconds=31))
    await rig.tell()
    assert rig.points() == ()
