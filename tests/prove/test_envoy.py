"""Real Envoy and opa-envoy-plugin before a workload, with SVIDs, bundles and configuration that the operator has issued."""

import asyncio
import os
import time
import urllib.parse
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from hack.controlplane import EXISTING_CLUSTER
from tests.support.api_keys import a_key
from tests.support.certificates import a_leaf, a_root, key_pem, pem
from tests.support.deployment import ROOT, Running, deployed
from tests.support.envoy import Envoy, EnvoyDecisionPoints, EnvoyOpa, Svid, envoy
from tests.support.opa import free_port
from tests.support.proving import only_in_prove
from tests.support.raw_https import Refused

pytestmark = [
    pytest.mark.cluster,
    only_in_prove,
    pytest.mark.skipif(EXISTING_CLUSTER in os.environ, reason="installs cluster-wide objects"),
]

API = "zerotrust.dev/v1alpha1"
FRONTEND = "spiffe://example.org/ns/web/sa/frontend"
ALLOWED, NO_GRANT, REVOKED = (200, ""), (403, "no_grant"), (403, "revoked_identity")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with deployed(tmp_path_factory.mktemp("envoy")) as running:
        running.apply(ROOT / "examples" / "quickstart")
        running.apply(
            {"apiVersion": API, "kind": "TrustDomain", "metadata": {"name": "example.net"}, "spec": {}},
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "foreigner", "namespace": "web"}},
            {
                "apiVersion": API,
                "kind": "ServiceIdentity",
                "metadata": {"name": "foreigner", "namespace": "web"},
                "spec": {"trustDomain": "example.net"},
            },
        )
        for namespace, name in (("shop", "orders"), ("shop", "payments"), ("web", "frontend"), ("web", "foreigner")):
            is_ready(running, namespace, name)
        yield running


def is_ready(running: Running, namespace: str, name: str) -> None:
    running.until(
        lambda: running.conditions("svid", name, namespace).get("Ready", " ")[0] == "True", f"{namespace}/{name}"
    )


@dataclass
class Scene:
    running: Running
    opa: EnvoyOpa
    envoy: Envoy
    environment: dict[str, str]
    frontend: Svid
    payments: Svid
    folder: Path

    async def says(self, caller: Svid | None, start: str = "GET /a", **fields: str) -> tuple[int, str]:
        given = tuple((name.replace("_", "-"), value) for name, value in fields.items())
        answer = await self.envoy.call(caller, start, given)
        return answer.status, answer.reason

    async def comes_to(self, wanted: tuple[int, str], caller: Svid, seconds: float = 20) -> float:
        started = time.monotonic()
        while (said := await self.says(caller)) != wanted:
            assert time.monotonic() - started < seconds, f"{said}, not {wanted}\n{self.opa.log.read_text()[-3000:]}"
            await asyncio.sleep(0.01)
        return time.monotonic() - started


@asynccontextmanager
async def scene(cluster: Running, folder: Path) -> AsyncIterator[Scene]:
    """Frontend may GET /a from orders; nobody may anything else."""
    port = free_port()
    cluster.apply(policy(port))
    points = EnvoyDecisionPoints(cluster, folder / "points")
    async with points.serving(), points.opa("shop", "orders", f"orders-{port}") as opa:
        assert isinstance(opa, EnvoyOpa)
        await opa.ready()
        server = Svid(cluster, folder / "orders", "orders-svid", "shop")
        async with envoy(folder / "envoy", port, server, "orders.shop.svc", opa) as before:
            frontend = Svid(cluster, folder / "frontend", "frontend-tls", "web")
            payments = Svid(cluster, folder / "payments", "payments-svid", "shop")
            one = Scene(cluster, opa, before, points.environment, frontend, payments, folder)
            await one.comes_to(ALLOWED, frontend)
            yield one


def policy(port: int) -> dict[str, Any]:
    rule = {
        "name": "frontend-reads",
        "from": [{"workload": {"name": "frontend", "namespace": "web"}}],
        "to": [{"port": port, "methods": ["GET"], "paths": ["/a"]}],
    }
    spec = {"target": {"identities": ["orders"]}, "rules": [rule]}
    return {"apiVersion": API, "kind": "TrustPolicy", "metadata": {"name": "orders", "namespace": "shop"}, "spec": spec}


def forged(certificate: str) -> str:
    return f'By=spiffe://example.org/ns/shop/sa/orders;Cert="{urllib.parse.quote(certificate, safe="")}";URI={FRONTEND}'


async def test_who_may_calls_and_nobody_else(cluster: Running, tmp_path: Path) -> None:
    async with scene(cluster, tmp_path) as one:
        reached = len(one.envoy.seen)
        assert await one.says(one.frontend) == ALLOWED
        assert await one.says(one.frontend, "GET /b") == NO_GRANT
        assert await one.says(one.frontend, "PUT /a") == NO_GRANT
        assert (
            await one.says(one.frontend, "GET /b/%2e%2e/a") == ALLOWED
        )  # Envoy makes it /a for OPA and application alike
        assert await one.says(one.frontend, "GET /a/%2e%2e/b") == NO_GRANT
        assert (await one.says(one.frontend, "GET /b%2F..%2Fa"))[0] == 400
        # Another identity of the same trust domain, whatever it says that Envoy has said of it.
        claims = forged((one.frontend.folder / "tls.crt").read_text())
        assert await one.says(one.payments) == NO_GRANT
        assert await one.says(one.payments, x_forwarded_client_cert=claims) == NO_GRANT
        assert await one.says(one.payments, x_forwarded_client_cert=claims, x_envoy_original_path="/a") == NO_GRANT
        assert await one.says(one.frontend, x_forwarded_client_cert=f"URI={FRONTEND}/x") == ALLOWED
        assert one.envoy.seen[-1][1]["x-forwarded-client-cert"].endswith(f"URI={FRONTEND}")
        assert await one.says(one.frontend, x_api_key="sk_something", x_other="kept") == ALLOWED
        sent = {name.lower(): value for name, value in one.envoy.seen[-1][1].items()}
        assert (sent.get("x-api-key"), sent.get("x-other")) == (None, "kept")
        for credential, kept in ((f"ApiKey {a_key()}", False), ("ApiKey of-somebody-else", True), ("Bearer x", True)):
            assert await one.says(one.frontend, authorization=credential, x_other="kept") == ALLOWED
            sent = {name.lower(): value for name, value in one.envoy.seen[-1][1].items()}
            assert (sent.get("authorization"), sent["x-other"]) == (credential if kept else None, "kept")
        assert all(path == "/a" for path, _ in one.envoy.seen[reached:])

        for caller in (None, *strangers(cluster, tmp_path)):
            with pytest.raises(Refused):
                await one.says(caller, x_forwarded_client_cert=claims)

        one.opa.stop(grace=0)
        assert await one.says(one.frontend) == (503, "")
        one.opa.start(one.environment)
        await one.opa.ready()
        assert await one.says(one.frontend) == ALLOWED


def strangers(cluster: Running, folder: Path) -> list[Svid]:
    """One of another trust domain, issued by the same operator; and one who says that it is the frontend."""
    foreigner = Svid(cluster, folder / "foreigner", "foreigner-svid", "web")
    impostor = Svid(cluster, folder / "impostor", "foreigner-svid", "web")
    root = a_root(not_before=datetime(2026, 1, 1, tzinfo=UTC), not_after=datetime(2100, 1, 1, tzinfo=UTC))
    leaf = a_leaf(root, uris=(FRONTEND.encode(),), not_after=datetime(2099, 1, 1, tzinfo=UTC))
    (impostor.folder / "tls.crt").write_bytes(pem(leaf.certificate))
    (impostor.folder / "tls.key").write_bytes(key_pem(leaf.key))
    return [foreigner, impostor]


async def test_a_revoked_identity_is_denied_until_it_has_a_newer_certificate(cluster: Running, tmp_path: Path) -> None:
    async with scene(cluster, tmp_path) as one:
        old = (one.frontend.folder / "tls.crt").read_text()
        newer = Svid(cluster, tmp_path / "newer", "frontend-tls", "web")
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        patch = f'{{"spec": {{"revocation": {{"before": "{now}"}}}}}}'
        cluster.plane.kubectl("patch", "svid", "frontend", "-n", "web", "--type", "merge", "-p", patch)
        seconds = await one.comes_to(REVOKED, one.frontend)
        print(f"\nrevoked after {seconds:.3f} s")
        assert await one.says(one.payments) == NO_GRANT
        await asyncio.to_thread(cluster.until, lambda: newer.read() != old, "another certificate")
        assert await one.says(newer) == ALLOWED
        assert await one.says(one.frontend, x_forwarded_client_cert=forged(newer.read())) == REVOKED
