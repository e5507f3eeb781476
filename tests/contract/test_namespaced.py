"""The controller in named namespaces: one that may not be read holds up nobody, and what is not known there is not touched."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.fakeapi import FakeApi, Respond
from tests.support.rig import OPERATOR_NAMESPACE, Rig, resource, running
from zerotrust.common import naming
from zerotrust.engine.scope import Scope
from zerotrust.kube import watch
from zerotrust.kube.resources import WATCHED

FORBIDDEN = Respond(403)
ISOLATION = naming.isolation_record_name("web")
SERVED = ("shop", "web")


@pytest.fixture
async def server():
    async with FakeApi(namespaces=[OPERATOR_NAMESPACE, *SERVED, "bank"]) as server:
        yield server


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "RETRY", timedelta(seconds=0.2))
    monkeypatch.setattr(watch, "PAUSE", 0.05)


def populate(rig: Rig) -> None:
    rig.domain(bundle={"namespaces": {"all": True}}, isolation={"mode": "All"})
    for namespace in (*SERVED, "bank"):
        rig.identity(namespace=namespace)


def told(server: FakeApi) -> str:
    """What the TrustDomain's conditions say."""
    body = server.get("TrustDomain", "example.org") or {}
    return " ".join(one["message"] for one in body.get("status", {}).get("conditions", []))


async def test_nothing_is_done_in_a_namespace_that_is_not_watched(server: FakeApi, tmp_path: Path) -> None:
    async with running(server, tmp_path, watch_namespaces=SERVED) as rig:
        populate(rig)
        for namespace in SERVED:
            await rig.until(lambda namespace=namespace: rig.is_ready(namespace=namespace))  # type: ignore[misc]
        await rig.until(lambda: server.get("NetworkPolicy", naming.DEFAULT_DENY, "shop"))
        await rig.until(lambda: rig.condition("BundlePublished", "example.org", None)[0] == "True")
        await rig.until(lambda: "more are selected, and the operator does not watch them" in told(server))
        await rig.idle()
    assert {one.namespace for one in server.requests if one.namespace} == {*SERVED, OPERATOR_NAMESPACE, "default"}
    assert {one.resource for one in server.requests if not one.namespace} <= {
        "", "trustdomains", "namespaces", "customresourcedefinitions", "constrainttemplates", "validatingadmissionpolicies",
    }  # fmt: skip
    assert server.get("ServiceIdentity", "orders", "bank").get("status") is None  # type: ignore[union-attr]


async def test_a_namespace_that_may_not_be_read_is_worked_in_as_soon_as_it_may(server: FakeApi, tmp_path: Path) -> None:
    record = resource("ConfigMap", ISOLATION, OPERATOR_NAMESPACE) | {"apiVersion": "v1", "data": {"orders": "{}"}}
    record["metadata"]["labels"] = {
        naming.MANAGED_BY: naming.OPERATOR, naming.COMPONENT: naming.COMPONENT_ISOLATION_RECORD,
    }  # fmt: skip
    record.pop("spec")
    server.create(record)
    server.faults.on(namespace="web", verb="list", resource="secrets", action=FORBIDDEN, times=None)
    async with running(server, tmp_path, watch_namespaces=SERVED) as rig:
        populate(rig)
        await rig.until(rig.is_ready)
        await rig.idle()
        assert not rig.is_ready(namespace="web")
        assert not [one for one in rig.writes() if one[2] == "web" or one[3] == ISOLATION]
        server.faults.clear()
        await rig.until(lambda: rig.is_ready(namespace="web"))
        await rig.until(lambda: server.get("ConfigMap", naming.trust_bundle_name("example.org"), "web"))


async def test_a_namespace_that_may_be_read_no_longer_stays_as_it_is(server: FakeApi, tmp_path: Path) -> None:
    async with running(server, tmp_path, watch_namespaces=SERVED) as rig:
        populate(rig)
        for namespace in SERVED:
            await rig.until(lambda namespace=namespace: rig.is_ready(namespace=namespace))  # type: ignore[misc]
        await rig.idle()
        server.faults.on(namespace="web", action=FORBIDDEN, times=None)
        with pytest.raises(watch.Forbidden):
            await rig.controller.watch.compare("Secret", "web")
        before = len(rig.writes())
        for namespace in SERVED:
            server.delete("Secret", "orders-svid", namespace)
        await rig.until(lambda: server.get("Secret", "orders-svid", "shop"))
        await rig.idle()
        assert {one[2] for one in rig.writes()[before:]} <= {"shop", ""}
        server.faults.clear()
        await rig.until(lambda: server.get("Secret", "orders-svid", "web"))
        await rig.until(lambda: rig.is_ready(namespace="web"))


async def test_a_bundle_is_confirmed_only_while_its_namespace_may_be_read(server: FakeApi, tmp_path: Path) -> None:
    async with running(server, tmp_path, watch_namespaces=SERVED) as rig:
        confirmed = rig.controller.watch.confirmed
        server.faults.on(namespace="web", action=FORBIDDEN, times=None)
        with pytest.raises(watch.Forbidden):
            await rig.controller.watch.compare("Secret", "web")
        moment = datetime.now(UTC)
        for resource_type in WATCHED:
            for place in set(resource_type.places(Scope(OPERATOR_NAMESPACE, SERVED))) - {"web"}:
                await rig.controller.watch.compare(resource_type.kind, place)
        assert confirmed("web") < moment < confirmed("shop")


@pytest.mark.parametrize("end", ["cut", "410 in the stream", "410"])
async def test_a_watch_that_ends_is_begun_again_and_misses_nothing(server: FakeApi, tmp_path: Path, end: str) -> None:
    async with running(server, tmp_path, watch_namespaces=SERVED) as rig:
        populate(rig)
        await rig.until(rig.is_ready)
        await rig.idle()
        held = server.faults.on(
            verb=["list", "watch"], resource="secrets", namespace="shop", action=Respond(503), times=3
        )
        match end:
            case "cut":
                server.cut_watches("secrets")
            case "410 in the stream":
                server.error_in_stream("secrets", 410)
            case _:
                server.compact()
                server.cut_watches("secrets")
        server.delete("Secret", "orders-svid", "shop")  # while nobody watches
        await held.wait()
        await rig.until(lambda: server.get("Secret", "orders-svid", "shop"))
        server.delete("Secret", "orders-svid", "shop")  # and while somebody does again
        await rig.until(lambda: server.get("Secret", "orders-svid", "shop"))
