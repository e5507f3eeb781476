"""API keys from the resource to the verdict of a real OPA: issued, rotated under load, revoked, and seen by nobody else."""

import json
import os
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hack.controlplane import EXISTING_CLUSTER
from tests.support.decision_points import DecisionPoints
from tests.support.deployment import ROOT, Running, deployed
from tests.support.keyholder import KeyHolder, read_secret
from zerotrust.common import times

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(EXISTING_CLUSTER in os.environ, reason="installs cluster-wide objects"),
]

API = "zerotrust.dev/v1alpha1"
QUESTION = {
    "server": "spiffe://example.org/ns/shop/sa/orders",
    "source": {"principal": "spiffe://example.org/ns/web/sa/frontend", "mtls": True},
    "request": {"method": "GET", "path": "/orders", "port": 8443, "protocol": "TCP", "headers": {}},
}
PROVING = os.environ.get("ZEROTRUST_PROVE") == "1"
RATE = 200.0 if PROVING else 40.0
ROTATIONS = 20 if PROVING else 3


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with deployed(tmp_path_factory.mktemp("api-keys")) as running:
        running.apply(ROOT / "examples" / "quickstart")
        rule = {
            "name": "partners",
            "from": [{"anyWorkload": {}, "apiKey": {"scopes": ["orders:read"]}}],
            "to": [{"port": 8443, "methods": ["GET"], "paths": ["/**"]}],
        }
        spec = {"target": {"identities": ["orders"]}, "rules": [rule]}
        running.apply(
            {
                "apiVersion": API,
                "kind": "TrustPolicy",
                "metadata": {"name": "orders", "namespace": "shop"},
                "spec": spec,
            }
        )
        yield running


def api_key(name: str, **spec: Any) -> dict[str, Any]:
    body = {"holder": {"name": name}, "audience": ["orders"], "scopes": ["orders:read"], **spec}
    return {"apiVersion": API, "kind": "ApiKey", "metadata": {"name": name, "namespace": "shop"}, "spec": body}


def status(cluster: Running, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cluster.plane.kubectl("get", "zkey", name, "-n", "shop", "-o", "json"))
    return found.get("status", {})


def is_ready(cluster: Running, name: str) -> bool:
    return cluster.conditions("zkey", name, "shop").get("Ready", ("",))[0] == "True"


def requested(cluster: Running, name: str) -> str:
    """Now, and later than the last key's issue, which is told in whole seconds."""
    issued = times.parse(status(cluster, name)["issuedAt"])
    return times.render(max(datetime.now(UTC), issued + timedelta(seconds=1)))


async def test_a_key_is_accepted_once_it_is_delivered_and_refused_once_it_is_revoked(
    cluster: Running, tmp_path: Path
) -> None:
    points = DecisionPoints(cluster, tmp_path)
    async with points.serving(), points.opa("shop", "orders", "orders-0") as opa:
        await opa.ready()
        cluster.apply(api_key("partner"))
        holder = KeyHolder(cluster, opa, "partner-api-key", QUESTION)
        first = await points.until(lambda: read_secret(cluster, "partner-api-key").get("api-key"), "the key is there")
        answer = await opa.ask(holder.presenting(first))
        assert (answer["allowed"], answer["reason"]) == (True, "allowed"), "whoever has it may use it"
        await points.until(lambda: is_ready(cluster, "partner"), "it is Ready")
        assert answer["key_id"] == status(cluster, "partner")["keyID"]
        await points.until(lambda: status(cluster, "partner").get("lastUsedTime"), "its use is told")

        took = []
        for _ in range(3):
            old, key_id = await holder.read(), status(cluster, "partner")["keyID"]
            listed = status(cluster, "partner").get("revokedKeyIDs", [])
            cluster.apply(api_key("partner", revokedKeyIDs=[*listed, key_id]))
            took.append(await points.decided(opa, holder.presenting(old), "revoked_key", 10))
            await points.until(
                lambda gone=key_id: status(cluster, "partner")["keyID"] != gone, "another key comes in its place"
            )
            await points.until(
                lambda: cluster.conditions("zkey", "partner", "shop")["Revoked"][1] == "Acknowledged", "all know it"
            )
            await points.decided(opa, holder.presenting(await holder.read()), "allowed", 10)
            assert (await opa.ask(holder.presenting(old)))["reason"] == "revoked_key"
        assert max(took) < 5

        cluster.apply(api_key("partner", state="Suspended"))
        await points.decided(opa, holder.presenting(await holder.read()), "revoked_key", 10)
        cluster.apply(api_key("partner", state="Active"))
        await points.decided(opa, holder.presenting(await holder.read()), "allowed", 10)
        cluster.plane.kubectl("delete", "zkey", "partner", "-n", "shop")
        await points.decided(opa, holder.presenting(await holder.read()), "bad_key", 10)


async def test_a_client_is_never_refused_while_its_key_rotates(cluster: Running, tmp_path: Path) -> None:
    """It sends what its Secret holds; afterwards no key that it ever had is to be found anywhere."""
    points = DecisionPoints(cluster, tmp_path)
    async with points.serving(), points.opa("shop", "orders", "orders-1") as opa:
        await opa.ready()
        cluster.apply(api_key("rotating"))
        await points.until(lambda: is_ready(cluster, "rotating"), "it has a key")
        holder = KeyHolder(cluster, opa, "rotating-api-key", QUESTION)
        async with holder.sending(RATE):
            began = time.monotonic()
            for _ in range(ROTATIONS):
                before = status(cluster, "rotating")["keyID"]
                rotation = {"requestedAt": requested(cluster, "rotating"), "interval": "24h", "overlap": "1h"}
                cluster.apply(api_key("rotating", rotation=rotation))
                await points.until(
                    lambda old=before: status(cluster, "rotating")["keyID"] != old, "another key is delivered"
                )
            took = time.monotonic() - began
        await holder.read()
        assert len(holder.keys) == ROTATIONS + 1
        assert set(holder.reasons) == {"allowed"}, holder.reasons
        assert holder.reasons["allowed"] > 50 * ROTATIONS, "it asked all the time"
        print(f"{ROTATIONS} rotations in {took:.1f} s, {holder.reasons['allowed']} requests, 0 refused")
        await points.until(lambda: status(cluster, "rotating").get("lastUsedTime"), "its use is told")
        assert secrets_outside(cluster, tmp_path, holder.keys, opa.folder) == []


def secrets_outside(cluster: Running, folder: Path, keys: set[str], persisted: Path) -> list[str]:
    """Where any of these plaintexts, or its secret part alone, stands in anything but a Secret."""
    texts = {
        f"{kind} objects": cluster.plane.kubectl("get", kind, "-A", "-o", "json")
        for kind in ("zkey", "configmaps", "events", "tp", "svid", "td", "networkpolicies", "controllerrevisions")
    }
    texts |= {
        str(path.relative_to(folder)): path.read_bytes().decode(errors="replace")
        for path in (*folder.rglob("*.log"), *persisted.rglob("*"))
        if path.is_file()
    }
    texts["controller's log"] = cluster.controller.tail(100_000)
    with urllib.request.urlopen(f"http://127.0.0.1:{cluster.port}/metrics", timeout=10) as answer:
        texts["metrics"] = answer.read().decode()
    wanted = keys | {key.partition(".")[2][:43] for key in keys}
    return [place for place, text in texts.items() if any(one in text for one in wanted)]
