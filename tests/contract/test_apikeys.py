"""The controllers for ApiKeys against the fake API server: how a key comes into being, rotates and ends, and what it costs."""

import asyncio
import base64
import contextlib
import json
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.fakeapi import FakeApi
from tests.support.rig import OPERATOR_NAMESPACE, Rig, resource, running
from zerotrust.apikey import key
from zerotrust.common import naming, times
from zerotrust.engine import apikeys
from zerotrust.opabundle import reports
from zerotrust.opabundle.reports import KeyUse, NamespaceReport, Point

RECORD, BUNDLES, REPORT = "shop.api-keys", "shop.bundles", "zt-reports-one"


@pytest.fixture
async def server():
    async with FakeApi(namespaces=[OPERATOR_NAMESPACE, "shop", "web"]) as server:
        yield server


def partner(server: FakeApi, name: str = "partner", **spec: Any) -> None:
    body = {"holder": {"name": name}, "audience": ["orders"], "scopes": ["orders:read"], **spec}
    if server.get("ApiKey", name, "shop") is None:
        server.create(resource("ApiKey", name, "shop", body))
    else:
        server.patch("ApiKey", name, {"spec": body}, "shop")


def secret(server: FakeApi, name: str = "partner-api-key") -> dict[str, str]:
    body = server.get("Secret", name, "shop") or {}
    return {key: base64.b64decode(value).decode() for key, value in (body.get("data") or {}).items()}


def status(server: FakeApi, name: str = "partner") -> dict[str, Any]:
    return (server.get("ApiKey", name, "shop") or {}).get("status", {})


def condition(server: FakeApi, type_: str, name: str = "partner") -> tuple[str, str]:
    for one in status(server, name).get("conditions", []):
        if one["type"] == type_:
            return one["status"], one["reason"]
    return "", ""


def record(server: FakeApi) -> dict[str, dict[str, Any]]:
    body = server.get("ConfigMap", RECORD, OPERATOR_NAMESPACE) or {}
    return {entry["name"]: entry for entry in map(json.loads, (body.get("data") or {}).values())}


def bundles(server: FakeApi) -> dict[str, Any]:
    body = server.get("ConfigMap", BUNDLES, OPERATOR_NAMESPACE) or {}
    return {kind: json.loads(text) for kind, text in body.get("data", {}).items()}


def now_text(seconds: float = 0) -> str:
    return times.render(datetime.now(UTC) + timedelta(seconds=seconds))


def said(server: FakeApi, namespace: str | None = "shop") -> set[str]:
    """The reasons of all events."""
    return {one["reason"] for one in server.list("Event", namespace)}


def report(server: FakeApi, *points: Point, keys: tuple[KeyUse, ...] = ()) -> None:
    """A replica serves what is recorded."""
    served = {kind: entry["serial"] for kind, entry in bundles(server).items()}
    body = reports.manifest(REPORT, OPERATOR_NAMESPACE, {"shop": NamespaceReport(served, points, keys=keys)})
    if server.get("ConfigMap", REPORT, OPERATOR_NAMESPACE) is None:
        server.create(body)
    else:
        server.patch("ConfigMap", REPORT, {"data": body["data"]}, OPERATOR_NAMESPACE)


def point(server: FakeApi, name: str = "orders-1") -> Point:
    """An OPA that runs what is recorded now."""
    now = datetime.now(UTC)
    if server.get("Pod", name, "shop") is None:
        containers = [{"name": "opa", "image": "opa"}]
        metadata = {"name": name, "namespace": "shop"}
        server.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": containers}})
    uid = server.get("Pod", name, "shop")["metadata"]["uid"]
    revisions = {kind: entry["revision"] for kind, entry in bundles(server).items()}
    serials = {kind: entry["serial"] for kind, entry in bundles(server).items()}
    return Point(uid, name, "orders", revisions, serials, (), now + timedelta(hours=1), now)


@contextlib.asynccontextmanager
async def serving(server: FakeApi, *pods: str) -> AsyncIterator[None]:
    """A replica that serves whatever is recorded at once, and decision points in these pods that run it."""

    async def follow() -> None:
        seen: dict[str, Any] = {}
        while True:
            if bundles(server) != seen:
                seen = bundles(server)
                report(server, *(point(server, pod) for pod in pods))
            await asyncio.sleep(0.01)

    task = asyncio.create_task(follow())
    try:
        yield
    finally:
        task.cancel()


async def populated(rig: Rig) -> None:
    rig.domain()
    rig.identity("orders")
    rig.identity(naming.BUNDLE_SERVER, OPERATOR_NAMESPACE)
    await rig.until(rig.is_ready)
    await rig.watching()
    await rig.idle()


async def issued(rig: Rig, **spec: Any) -> str:
    """A key that is in the Secret, with the status that says so; its id."""
    await populated(rig)
    partner(rig.server, **spec)
    await rig.until(lambda: condition(rig.server, "Ready") == ("True", "Delivered"))
    await rig.idle()
    return str(status(rig.server)["keyID"])


async def test_a_key_is_recorded_then_served_then_delivered(server: FakeApi, tmp_path: Path) -> None:
    async with running(server, tmp_path) as rig:
        await populated(rig)
        server.reset_counts()
        partner(server)
        await rig.until(lambda: record(server) and bundles(server))
        (entry,) = record(server)["partner"]["keys"]
        await asyncio.sleep(0.5)
        assert secret(server) == {}, "nobody serves it yet"
        async with serving(server):
            await rig.until(lambda: secret(server))
        await rig.until(lambda: condition(server, "Ready") == ("True", "Delivered"))
        text = key.parse(secret(server)["api-key"])
        assert (text.id, key.digest(text)) == (entry["id"], entry["hash"])
        assert status(server)["keyID"] == secret(server)["key-id"] == entry["id"]
        assert status(server)["expiresAt"] == secret(server)["expires-at"]
        await rig.idle()
        assert record(server)["partner"]["keys"][0]["delivered"]
        mine = Counter((verb, kind) for verb, kind, _, name in rig.writes() if name.startswith("partner"))
        assert mine == {("create", "secrets"): 1, ("patch", "apikeys/status"): 1}
        assert sum(name == RECORD for *_, name in rig.writes()) == 2
        kinds = ("ApiKey", "ConfigMap", "Event", "ServiceIdentity", "TrustDomain")
        assert text.reveal() not in json.dumps([server.list(kind) for kind in kinds])


async def test_a_rotation_waits_for_the_decision_point_and_leaves_an_overlap(server: FakeApi, tmp_path: Path) -> None:
    async with running(server, tmp_path) as rig:
        async with serving(server, "orders-1"):
            before = await issued(rig)
            old = secret(server)["api-key"]
        partner(server, rotation={"requestedAt": now_text(1)})
        await rig.until(lambda: len(record(server)["partner"]["keys"]) == 2)
        stale = point(server)
        await rig.until(lambda: bundles(server)["policy"]["revision"] != stale.revisions["policy"])
        report(server, stale)
        await rig.until(lambda: condition(server, "Published") == ("False", "Lagging"))
        assert secret(server)["api-key"] == old
        async with serving(server, "orders-1"):
            await rig.until(lambda: secret(server)["key-id"] != before)
            assert secret(server)["api-key-previous"] == old
            assert key.parse(secret(server)["api-key"]).id == secret(server)["key-id"]
            await rig.until(lambda: condition(server, "OverlapActive")[0] == "True")
            assert status(server)["previousKeyID"] == before
            assert status(server)["phase"] == "Overlap"


async def test_nobody_waits_for_a_pod_that_is_gone(
    server: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apikeys, "SURVEY_EVERY", timedelta(seconds=1))
    async with running(server, tmp_path) as rig:
        async with serving(server, "orders-1"):
            before = await issued(rig)
        partner(server, revokedKeyIDs=[before])
        await rig.until(
            lambda: condition(server, "Revoked")[0] == "False" and len(record(server)["partner"]["keys"]) == 2
        )
        stale = point(server)
        for _ in range(3):
            report(server, stale)
            await asyncio.sleep(0.3)
        await rig.until(lambda: condition(server, "Revoked") == ("False", "Lagging"))
        server.delete("Pod", "orders-1", "shop")
        await rig.until(lambda: condition(server, "Revoked") == ("True", "Acknowledged"))
        await rig.until(lambda: secret(server)["key-id"] != before)


async def test_a_revoked_key_is_replaced_and_its_revocation_is_acknowledged(server: FakeApi, tmp_path: Path) -> None:
    async with running(server, tmp_path) as rig, serving(server, "orders-1"):
        before = await issued(rig)
        partner(server, revokedKeyIDs=[before])
        await rig.until(lambda: condition(server, "Revoked") == ("True", "Acknowledged"))
        await rig.until(lambda: secret(server)["key-id"] != before and condition(server, "Ready")[0] == "True")
        assert "api-key-previous" not in secret(server)
        revocation = status(server)["revocation"]
        assert revocation["acknowledged"] is True
        assert revocation["effectiveAt"] >= revocation["requestedAt"]
        partner(server, revokedKeyIDs=[])
        await rig.idle()
        assert condition(server, "Revoked") == ("True", "Acknowledged")


async def test_a_deleted_secret_is_filled_with_another_key_and_says_so(server: FakeApi, tmp_path: Path) -> None:
    async with running(server, tmp_path) as rig, serving(server):
        before, old = await issued(rig), secret(server)["api-key"]
        server.delete("Secret", "partner-api-key", "shop")
        await rig.until(lambda: secret(server).get("key-id", before) != before)
        await rig.idle()
        assert old not in secret(server).values()
        await rig.until(lambda: "SecretLost" in said(server) or "KeyIssued" in said(server))
        assert any("cannot be made again" in one["note"] for one in server.list("Event", "shop"))


async def test_the_secret_outlives_the_apikey_and_a_new_one_adopts_it(server: FakeApi, tmp_path: Path) -> None:
    async with running(server, tmp_path) as rig, serving(server):
        before, old = await issued(rig), secret(server)
        server.delete("ApiKey", "partner", "shop")
        await rig.until(lambda: "gone" in record(server)["partner"])
        await rig.idle()
        assert secret(server) == old
        partner(server)
        await rig.until(lambda: condition(server, "Ready") == ("True", "Delivered"))
        assert secret(server) == old
        assert status(server)["keyID"] == before
        await rig.idle()
        assert [one["id"] for one in record(server)["partner"]["keys"]] == [before]


async def test_a_planted_secret_is_no_credential(server: FakeApi, tmp_path: Path) -> None:
    planted = key.generate(secrets.token_bytes)
    labels = {naming.MANAGED_BY: naming.OPERATOR, naming.COMPONENT: "api-key", naming.API_KEY: "partner"}
    data = {"api-key": base64.b64encode(planted.reveal().encode()).decode(), "key-id": ""}
    metadata = {"name": "partner-api-key", "namespace": "shop", "labels": labels}
    server.create({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})
    async with running(server, tmp_path) as rig, serving(server):
        issued_id = await issued(rig)
        assert issued_id != planted.id
        assert secret(server)["key-id"] == issued_id
        assert planted.reveal() not in secret(server).values()
        assert planted.id not in json.dumps(record(server))


async def test_somebody_elses_secret_is_left_alone_and_named(server: FakeApi, tmp_path: Path) -> None:
    data = {"password": base64.b64encode(b"theirs").decode()}
    metadata = {"name": "partner-api-key", "namespace": "shop"}
    server.create({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})
    async with running(server, tmp_path) as rig, serving(server):
        await populated(rig)
        partner(server)
        await rig.until(lambda: condition(server, "Ready") == ("False", "SecretConflict"))
        assert secret(server) == {"password": "theirs"}
        partner(server, delivery={"secretName": "partner-key"})
        await rig.until(lambda: condition(server, "Ready") == ("True", "Delivered"))
        assert secret(server, "partner-key")["key-id"] == status(server)["keyID"]
        assert secret(server) == {"password": "theirs"}


async def test_another_name_or_format_keeps_the_key(server: FakeApi, tmp_path: Path) -> None:
    async with running(server, tmp_path) as rig, serving(server):
        await issued(rig)
        old = secret(server)["api-key"]
        partner(server, delivery={"secretName": "elsewhere"})
        await rig.until(lambda: secret(server, "elsewhere").get("api-key") == old)
        await rig.until(lambda: not secret(server))
        partner(server, delivery={"secretName": "elsewhere", "format": "Env"})
        await rig.until(lambda: secret(server, "elsewhere").get("API_KEY") == old)
        await rig.idle()
        assert set(secret(server, "elsewhere")) == {"API_KEY", "API_KEY_ID", "API_KEY_EXPIRES_AT"}
        assert len(record(server)["partner"]["keys"]) == 1


async def test_a_restart_writes_nothing(server: FakeApi, tmp_path: Path) -> None:
    async with serving(server, "orders-1"):
        async with running(server, tmp_path) as rig:
            await issued(rig)
            await asyncio.sleep(1.2)
            await rig.idle()
        server.reset_counts()
        async with running(server, tmp_path) as rig:
            await rig.watching()
            await asyncio.sleep(1)
            await rig.idle()
            assert [one for one in rig.writes() if one[1] != "events"] == []


@pytest.mark.parametrize("damage", ["delete", "forget", "forge"])
async def test_a_damaged_record_is_put_back(server: FakeApi, tmp_path: Path, damage: str) -> None:
    async with running(server, tmp_path) as rig, serving(server):
        await issued(rig)
        await asyncio.sleep(1.2)
        await rig.idle()
        before, old = server.get("ConfigMap", RECORD, OPERATOR_NAMESPACE)["data"], secret(server)
        ((uid, text),) = before.items()
        if damage == "delete":
            server.delete("ConfigMap", RECORD, OPERATOR_NAMESPACE)
        else:
            forged = json.dumps(json.loads(text) | {"keys": []}) if damage == "forge" else None
            server.patch("ConfigMap", RECORD, {"data": {uid: forged}}, OPERATOR_NAMESPACE)
        await rig.until(lambda: record(server).get("partner", {}).get("keys"))
        await asyncio.sleep(1.5)
        await rig.idle()
        assert server.get("ConfigMap", RECORD, OPERATOR_NAMESPACE)["data"] == before
        assert secret(server) == old
        assert condition(server, "Ready") == ("True", "Delivered")


async def test_a_crash_before_the_delivery_costs_one_key(server: FakeApi, tmp_path: Path) -> None:
    async with running(server, tmp_path) as rig:
        await populated(rig)
        partner(server)
        await rig.until(lambda: record(server))
        lost = record(server)["partner"]["keys"][0]["id"]
        await rig.kill()
        await rig.start()
        async with serving(server):
            await rig.until(lambda: condition(server, "Ready") == ("True", "Delivered"))
        assert status(server)["keyID"] != lost
        await rig.idle()
        assert [one["id"] for one in record(server)["partner"]["keys"]] == [status(server)["keyID"]]


async def test_a_key_whose_apikey_went_while_nobody_looked_stops_working(server: FakeApi, tmp_path: Path) -> None:
    async with serving(server):
        async with running(server, tmp_path) as rig:
            await issued(rig)
            before = bundles(server)["policy"]["revision"]
        server.delete("ApiKey", "partner", "shop")
        async with running(server, tmp_path) as rig:
            await rig.until(lambda: "gone" in record(server)["partner"])
            await rig.until(lambda: bundles(server)["policy"]["revision"] != before)
            assert rig.controller.contents.content("shop", "policy").document["api_keys"] == {}


async def test_uses_are_told_forward_only_and_refused_ones_as_events(server: FakeApi, tmp_path: Path) -> None:
    async with running(server, tmp_path) as rig:
        async with serving(server):
            mine = await issued(rig)
        at = datetime.now(UTC).replace(microsecond=0)
        report(server, keys=(KeyUse(mine, "", at), KeyUse("unknownkey12", "unknown_key", at)))
        await rig.until(lambda: status(server).get("lastUsedTime") == times.render(at))
        assert status(server)["phase"] == "Active"
        await rig.until(lambda: "UnknownKeyUsed" in said(server, None))
        server.reset_counts()
        for minutes in (-5, 1, 20, 59):
            report(server, keys=(KeyUse(mine, "", at + timedelta(minutes=minutes)),))
            await asyncio.sleep(0.3)
        await rig.idle()
        assert rig.writes() == []
        report(server, keys=(KeyUse(mine, "", at + timedelta(minutes=61)),))
        await rig.until(lambda: status(server)["lastUsedTime"] == times.render(at + timedelta(minutes=61)))
        async with serving(server):
            partner(server, revokedKeyIDs=[mine])
            await rig.until(lambda: condition(server, "Ready") == ("True", "Delivered"))
        report(server, keys=(KeyUse(mine, "revoked_key", at + timedelta(minutes=62)),))
        await rig.until(lambda: "RefusedKeyUsed" in said(server))
