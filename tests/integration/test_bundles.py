"""From a TrustPolicy on a real API server to the verdict of a real OPA, through the controller and the bundle server."""

import base64
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from hack.controlplane import EXISTING_CLUSTER
from tests.support.decision_points import DecisionPoints
from tests.support.deployment import ROOT, Running, deployed
from zerotrust.common import times

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(EXISTING_CLUSTER in os.environ, reason="installs cluster-wide objects"),
]

API = "zerotrust.dev/v1alpha1"
END = "-----END CERTIFICATE-----\n"
ORDERS = "spiffe://example.org/ns/shop/sa/orders"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with deployed(tmp_path_factory.mktemp("bundles")) as running:
        running.apply(ROOT / "examples" / "quickstart")
        yield running


def policy(*rules: dict[str, Any], name: str = "orders", **spec: Any) -> dict[str, Any]:
    body = {"target": {"identities": ["orders"]}, "rules": list(rules), **spec}
    return {"apiVersion": API, "kind": "TrustPolicy", "metadata": {"name": name, "namespace": "shop"}, "spec": body}


def allow(*paths: str, **more: Any) -> dict[str, Any]:
    peer = {"workload": {"name": "frontend", "namespace": "web"}}
    to = {"port": 8443, "methods": ["GET"], "paths": list(paths)}
    return {"name": "frontend-reads", "from": [peer], "to": [to], **more}


def request(path: str, client: str = "web/sa/frontend", **more: Any) -> dict[str, Any]:
    return {
        "server": ORDERS,
        "source": {"principal": f"spiffe://example.org/ns/{client}", "mtls": True},
        "request": {"method": "GET", "path": path, "port": 8443, "protocol": "TCP", "headers": {}, **more},
    }


def enforced(cluster: Running) -> tuple[str, str, str]:
    return cluster.conditions("tp", "orders", "shop").get("Enforced", ("", "", ""))


def denied(cluster: Running) -> str:
    return cluster.plane.kubectl("get", "tp", "orders", "-n", "shop", "-o", "jsonpath={.status.denials[*].client}")


async def test_a_policy_reaches_a_decision_point_and_is_acknowledged(cluster: Running, tmp_path: Path) -> None:
    points = DecisionPoints(cluster, tmp_path)
    async with points.serving():
        cluster.apply(policy(allow("/a")))
        await points.until(lambda: enforced(cluster)[1] == "NoDecisionPoint", "nobody enforces it")
        async with points.opa("shop", "orders", "orders-0") as opa:
            await opa.ready()
            await points.decided(opa, request("/a"), "allowed")
            await points.decided(opa, request("/b"), "no_grant")
            assert (await opa.ask(request("/a", "shop/sa/payments")))["reason"] == "no_grant"
            await points.until(lambda: enforced(cluster)[:2] == ("True", "Acknowledged"), "it is acknowledged")
            await points.until(lambda: "payments" in denied(cluster), "whom OPA denied is in the status")

            cluster.apply(policy(allow("/b")))
            await points.decided(opa, request("/b"), "allowed", 10)
            assert (await opa.ask(request("/a")))["reason"] == "no_grant"
            await points.until(lambda: enforced(cluster)[:2] == ("True", "Acknowledged"), "the edit, too")

            opa.stop(grace=0)
            cluster.apply(policy(allow("/c")))
            await points.until(lambda: enforced(cluster)[1] == "Lagging", "silence is no agreement")
            assert "orders-0" in enforced(cluster)[2]
            opa.start(points.environment)
            await points.decided(opa, request("/c"), "allowed", 20)
            await points.until(lambda: enforced(cluster)[:2] == ("True", "Acknowledged"), "it agrees when it is back")

            cluster.plane.kubectl("delete", "tp", "orders", "-n", "shop")
            await points.decided(opa, request("/c"), "no_grant", 10)


async def test_a_revocation_reaches_a_decision_point_and_outlives_its_identity(
    cluster: Running, tmp_path: Path
) -> None:
    """The old certificate is denied within seconds, a request without one as well, and the new one is allowed."""
    points = DecisionPoints(cluster, tmp_path)
    async with points.serving():
        cluster.apply(policy(allow("/a")))
        async with points.opa("shop", "orders", "orders-1") as opa:
            await opa.ready()
            old = await points.until(lambda: frontends_certificate(cluster), "the client has a certificate")
            await points.decided(opa, showing(old), "allowed")
            revocation = {"before": times.render(datetime.now(UTC)), "reason": "KeyCompromise"}
            revoke = json.dumps({"spec": {"revocation": revocation}})
            cluster.plane.kubectl("patch", "svid", "frontend", "-n", "web", "--type=merge", "-p", revoke)
            await points.decided(opa, showing(old), "revoked_identity", 10)
            assert (await opa.ask(request("/a")))["reason"] == "revoked_identity"
            new = await points.until(lambda: another_than(old, cluster), "the certificate is replaced")
            await points.decided(opa, showing(new), "allowed", 10)
            assert (await opa.ask(showing(old)))["reason"] == "revoked_identity"

            # The garbage collector learns of new kinds only now and then: it may be first, or come much later.
            cluster.plane.kubectl("delete", "svid/frontend", "secret/frontend-tls", "-n", "web", "--ignore-not-found")
            cluster.apply(ROOT / "examples" / "quickstart")
            newest = await points.until(lambda: another_than(new, cluster), "another certificate is issued")
            await points.decided(opa, showing(newest), "allowed")
            assert (await opa.ask(showing(old)))["reason"] == "revoked_identity"
    status = json.loads(cluster.plane.kubectl("get", "svid", "frontend", "-n", "web", "-o", "json"))["status"]
    assert status["revokedBefore"] == revocation["before"]


def showing(certificate: str) -> dict[str, Any]:
    asked = request("/a")
    return {**asked, "source": {**asked["source"], "certificate": certificate}}


def frontends_certificate(cluster: Running) -> str:
    """The first certificate of web/frontend-tls in PEM, empty while there is none."""
    text = cluster.plane.kubectl("get", "secret", "frontend-tls", "-n", "web", "-o", "json", "--ignore-not-found")
    chain = base64.b64decode(json.loads(text)["data"]["tls.crt"]).decode() if text else ""
    return chain[: chain.find(END) + len(END)] if chain else ""


def another_than(known: str, cluster: Running) -> str:
    found = frontends_certificate(cluster)
    return found if found != known else ""
