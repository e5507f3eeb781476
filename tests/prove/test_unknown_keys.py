"""A user's token at a real OPA, with keys of a real issuer: allowed, and allowed again after the issuer has changed its key."""

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
from tests.support.issuer import LOOPBACK, Issuer, running_issuer
from tests.support.proving import only_in_prove
from tests.support.tokens import token

pytestmark = [
    pytest.mark.cluster,
    only_in_prove,
    pytest.mark.skipif(EXISTING_CLUSTER in os.environ, reason="installs cluster-wide objects"),
]

ORDERS = "spiffe://example.org/ns/shop/sa/orders"
FRONTEND = "spiffe://example.org/ns/web/sa/frontend"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with deployed(tmp_path_factory.mktemp("keys"), "--allow-private-issuers", str(LOOPBACK)) as running:
        running.apply(ROOT / "examples" / "quickstart")
        yield running


def policy() -> dict[str, Any]:
    peer = {"workload": {"name": "frontend", "namespace": "web"}, "user": {"provider": "corp", "audiences": ["orders"]}}
    rule = {"name": "users", "from": [peer], "to": [{"port": 8443}]}
    spec = {"target": {"identities": ["orders"]}, "rules": [rule]}
    metadata = {"name": "orders", "namespace": "shop"}
    return {"apiVersion": "zerotrust.dev/v1alpha1", "kind": "TrustPolicy", "metadata": metadata, "spec": spec}


def bearing(issuer: Issuer, kid: str) -> dict[str, Any]:
    now = int(datetime.now(UTC).timestamp())
    changes = {"iss": issuer.url, "iat": now - 10, "exp": now + 3000}
    headers = {"authorization": f"Bearer {token(changes, kind=f'ES256 {kid}', kid=kid)}"}
    asked = {"method": "GET", "path": "/a", "port": 8443, "headers": headers}
    return {"server": ORDERS, "source": {"principal": FRONTEND, "mtls": True}, "request": asked}


async def test_a_new_key_of_the_issuer_reaches_the_decision_point_by_being_used(
    cluster: Running, tmp_path: Path
) -> None:
    points = DecisionPoints(cluster, tmp_path)
    async with running_issuer(tmp_path) as issuer, points.serving():
        issuer.publishes("one", max_age=3600)
        patch = json.dumps({"spec": {"identityProviders": [issuer.provider()]}})
        cluster.plane.kubectl("patch", "td", "example.org", "--type", "merge", "-p", patch)
        cluster.apply(policy())
        async with points.opa("shop", "orders", "orders-0") as opa:
            await opa.ready()
            await points.decided(opa, bearing(issuer, "one"), "allowed")
            issuer.publishes("one", "two", max_age=3600)
            answer = await opa.ask(bearing(issuer, "two"))
            assert (answer["reason"], answer["unknown_key"]) == ("bad_token", {"provider": "corp", "kid": "two"})
            assert (await opa.ask(bearing(issuer, "one"))).get("unknown_key") is None
            await points.decided(opa, bearing(issuer, "two"), "allowed")
            assert len(issuer.asked) == 2
            assert (await opa.ask(bearing(issuer, "three")))["reason"] == "bad_token"
    assert "eyJ" not in cluster.controller.tail(), "no token is in the log"
