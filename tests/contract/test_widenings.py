"""A way out opens after the way in and after the decision points that judge it; what closes never waits."""

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.contract.test_bundles import RECORD, complete
from tests.support.fakeapi import FakeApi
from tests.support.rig import OPERATOR_NAMESPACE, Rig, resource, running
from zerotrust.common import naming
from zerotrust.common.naming import Ref
from zerotrust.engine import widenings
from zerotrust.opabundle import reports
from zerotrust.opabundle.reports import NamespaceReport, Point

REPORT = "zt-reports-one"
CALLS = {"mode": "Isolated", "calls": [{"name": "orders", "namespace": "shop"}]}


@pytest.fixture
async def server():
    async with FakeApi(namespaces=[OPERATOR_NAMESPACE, "shop", "web"]) as server:
        yield server


def policy(server: FakeApi, *ports: int) -> None:
    peer = {"workload": {"name": "frontend", "namespace": "web"}}
    rules = [{"name": f"on-{port}", "from": [peer], "to": [{"port": port, "methods": ["GET"]}]} for port in ports]
    spec = {"target": {"identities": ["orders"]}, "rules": rules}
    if server.get("TrustPolicy", "orders", "shop") is None:
        server.create(resource("TrustPolicy", "orders", "shop", spec))
    else:
        server.patch("TrustPolicy", "orders", {"spec": spec}, "shop")


def recorded(server: FakeApi) -> dict[str, Any]:
    body = server.get("ConfigMap", RECORD, OPERATOR_NAMESPACE) or {}
    return json.loads(body.get("data", {}).get("policy", "{}"))


def report(server: FakeApi, entry: dict[str, Any]) -> None:
    """What one replica says: it serves the record, and a pod with an OPA beside orders runs `entry`."""
    now = datetime.now(UTC)
    revisions, serials = {"policy": entry["revision"]}, {"policy": entry["serial"]}
    uid = server.get("Pod", "orders-1", "shop")["metadata"]["uid"]
    point = Point(uid, "orders-1", "orders", revisions, serials, (), now + timedelta(hours=1), now)
    served = {"policy": recorded(server)["serial"]}
    body = reports.manifest(REPORT, OPERATOR_NAMESPACE, {"shop": NamespaceReport(served, (point,))})
    if server.get("ConfigMap", REPORT, OPERATOR_NAMESPACE) is None:
        server.create(body)
    else:
        server.patch("ConfigMap", REPORT, {"data": body["data"]}, OPERATOR_NAMESPACE)


def ports(server: FakeApi, name: str, namespace: str, direction: str) -> set[int]:
    body = server.get("NetworkPolicy", name, namespace) or {"spec": {}}
    return {one["port"] for rule in body["spec"].get(direction) or () for one in rule["ports"]} - {53}


def way_out(server: FakeApi) -> set[int]:
    return ports(server, "zt-frontend", "web", "egress")


def way_in(server: FakeApi) -> set[int]:
    return ports(server, "zt-orders", "shop", "ingress")


async def acknowledged(rig: Rig) -> None:
    """An isolated client, a server with a decision point, and one port that is open between them."""
    server = rig.server
    rig.domain()
    rig.identity("orders")
    rig.identity("frontend", "web", egress=CALLS)
    rig.identity(naming.BUNDLE_SERVER, OPERATOR_NAMESPACE)
    await rig.until(lambda: rig.is_ready() and rig.is_ready("frontend", "web"))
    await rig.watching()
    labels = {naming.SERVICE_ACCOUNT: "orders"}
    metadata = {"name": "orders-1", "namespace": "shop", "labels": labels}
    containers = [{"name": "opa", "image": "opa"}]
    server.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": containers}})
    policy(server, 8443)
    await rig.until(lambda: complete(server) and way_out(server) == {8443})
    report(server, recorded(server))
    await rig.until(lambda: rig.controller.cache.get(Ref("ConfigMap", OPERATOR_NAMESPACE, REPORT)) is not None)
    await rig.idle()


async def test_egress_waits_for_the_decision_point(server: FakeApi, tmp_path: Path) -> None:
    async with running(server, tmp_path) as rig:
        await acknowledged(rig)
        before = recorded(server)
        policy(server, 8443, 9443)
        await rig.until(lambda: recorded(server) != before and way_in(server) == {8443, 9443})
        await asyncio.sleep(1)
        assert way_out(server) == {8443}, "what is open stays open, and what is new waits"
        report(server, recorded(server))
        await rig.until(lambda: way_out(server) == {8443, 9443}, seconds=5)


async def test_egress_does_not_wait_for_ever(server: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(widenings, "LONGEST", timedelta(seconds=3))
    async with running(server, tmp_path) as rig:
        await acknowledged(rig)
        policy(server, 8443, 9443)
        began = time.monotonic()
        await rig.until(lambda: way_out(server) == {8443, 9443})
        assert 1.5 < time.monotonic() - began < 8


async def test_a_withdrawal_does_not_wait(server: FakeApi, tmp_path: Path) -> None:
    async with running(server, tmp_path) as rig:
        await acknowledged(rig)
        before = recorded(server)
        policy(server, 9443)
        await rig.until(lambda: way_out(server) == set() and way_in(server) == {9443}, seconds=5)
        await rig.until(lambda: recorded(server) != before)
        report(server, recorded(server))
        await rig.until(lambda: way_out(server) == {9443}, seconds=5)


async def test_nobody_waits_for_silence_where_there_is_no_decision_point(server: FakeApi, tmp_path: Path) -> None:
    async with running(server, tmp_path) as rig:
        await acknowledged(rig)
        server.delete("ConfigMap", REPORT, OPERATOR_NAMESPACE)
        policy(server, 8443, 9443)
        await rig.until(lambda: way_out(server) == {8443, 9443}, seconds=5)
