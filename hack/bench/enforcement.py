"""`make bench-enforcement`: from an edit on the API server to the verdict of a real OPA, and from a revocation to a denial,
of an identity and of an API key.

Everything is real: control plane, controller, bundle server, OPA with the configuration that the controller wrote.
"""

import argparse
import asyncio
import base64
import contextlib
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hack.bench.cluster import say
from tests.support.decision_points import DecisionPoints
from tests.support.deployment import ROOT, Running, deployed
from tests.support.opa import Opa
from zerotrust.common.naming import API_VERSION, Ref
from zerotrust.kube.client import Client, load_configuration
from zerotrust.kube.errors import NotFound
from zerotrust.telemetry.metrics import Metrics

ORDERS = Ref("TrustPolicy", "shop", "orders")
SERVER = "spiffe://example.org/ns/shop/sa/orders"
CLIENT = "spiffe://example.org/ns/web/sa/frontend"
WITH_KEY = "/with-key"


def rule(path: str) -> dict[str, Any]:
    """One grant for one path."""
    peer = {"workload": {"name": "frontend", "namespace": "web"}}
    return {"name": "frontend-reads", "from": [peer], "to": [{"port": 8443, "methods": ["GET"], "paths": [path]}]}


def request(path: str, certificate: str = "", **headers: str) -> dict[str, Any]:
    """A question of frontend's."""
    source = {"principal": CLIENT, "mtls": True, **({"certificate": certificate} if certificate else {})}
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    asked = {"method": "GET", "path": path, "port": 8443, "headers": sent}
    return {"server": SERVER, "source": source, "request": asked}


async def answered(opa: Opa, given: object, reason: str) -> None:
    """Ask until the answer is this one."""
    deadline = time.monotonic() + 60
    while (await opa.ask(given)).get("reason") != reason:
        assert time.monotonic() < deadline, f"{reason} never came"
        await asyncio.sleep(0.002)


async def edits(client: Client, opa: Opa, count: int) -> list[float]:
    """Seconds from the acknowledgement of each edit to the first request that it allows."""
    times = []
    for number in range(count):
        await asyncio.sleep(1.2)  # idle: a single edit is published at once, a wave once a second
        await client.patch(ORDERS, {"spec": {"rules": [rule(f"/edit/{number}")]}})
        started = time.perf_counter()
        await answered(opa, request(f"/edit/{number}"), "allowed")
        times.append(time.perf_counter() - started)
    return times


async def revocations(client: Client, opa: Opa, path: str, count: int) -> list[float]:
    """Seconds from the acknowledgement of each revocation to the first denial of the old certificate."""
    times = []
    place = Ref("ServiceIdentity", "web", "frontend")
    for _ in range(count):
        secret = await client.get(Ref("Secret", "web", "frontend-tls"))
        certificate = base64.b64decode(secret["data"]["tls.crt"]).decode()
        await answered(opa, request(path, certificate), "allowed")
        await asyncio.sleep(2)  # cut-offs count whole seconds
        before = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        await client.patch(place, {"spec": {"revocation": {"before": before, "reason": "KeyCompromise"}}})
        started = time.perf_counter()
        await answered(opa, request(path, certificate), "revoked_identity")
        times.append(time.perf_counter() - started)
        await renewed(client, secret)
    return times


async def key_revocations(running: Running, client: Client, opa: Opa, count: int) -> list[float]:
    """Seconds from the acknowledgement of each edit of `revokedKeyIDs` to the first request that is refused with that key.

    Each is the key in use of an ApiKey of its own, because one ApiKey remembers 32 keys and revokes no more in a day.
    """
    peer = {"anyWorkload": {}, "apiKey": {"scopes": ["orders:read"]}}
    ports = [{"port": 8443, "methods": ["GET"], "paths": [WITH_KEY]}]
    spec = {"target": {"identities": ["orders"]}, "rules": [{"name": "partners", "from": [peer], "to": ports}]}
    policy = {"apiVersion": API_VERSION, "kind": "TrustPolicy", "metadata": {"name": "keyed", "namespace": "shop"}}
    partners = [Ref("ApiKey", "shop", f"partner-{number}") for number in range(count)]
    await asyncio.to_thread(running.apply, {**policy, "spec": spec}, *map(api_key, partners))
    keys = [await delivered(client, partner) for partner in partners]
    times = []
    for partner, (key_id, text) in zip(partners, keys, strict=True):
        await answered(opa, request(WITH_KEY, x_api_key=text), "allowed")
        await asyncio.sleep(1.2)  # idle: a single change is recorded and published at once, a wave once a second
        await client.patch(partner, {"spec": {"revokedKeyIDs": [key_id]}})
        started = time.perf_counter()
        await answered(opa, request(WITH_KEY, x_api_key=text), "revoked_key")
        times.append(time.perf_counter() - started)
    return times


def api_key(partner: Ref) -> dict[str, Any]:
    """A key that orders accepts for reading."""
    spec = {"holder": {"name": partner.name}, "audience": ["orders"], "scopes": ["orders:read"]}
    metadata = {"name": partner.name, "namespace": partner.namespace}
    return {"apiVersion": API_VERSION, "kind": "ApiKey", "metadata": metadata, "spec": spec}


async def delivered(client: Client, partner: Ref) -> tuple[str, str]:
    """Id and text of an ApiKey's key, once it is in the Secret."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(NotFound):
            secret = await client.get(Ref("Secret", partner.namespace, f"{partner.name}-api-key"))
            found = {name: base64.b64decode(value).decode() for name, value in secret["data"].items()}
            return found["key-id"], found["api-key"]
        await asyncio.sleep(0.05)
    raise AssertionError(f"{partner} has no key")


async def renewed(client: Client, before: dict[str, Any]) -> None:
    """Wait for another certificate."""
    deadline = time.monotonic() + 60
    while (await client.get(Ref("Secret", "web", "frontend-tls")))["data"] == before["data"]:
        assert time.monotonic() < deadline, "no new certificate"
        await asyncio.sleep(0.05)


def show(what: str, times: list[float]) -> None:
    """One line of milliseconds."""
    ordered = sorted(times)
    p99 = ordered[min(len(ordered) - 1, round(0.99 * len(ordered)))]
    say(f"{what}: n={len(times)} p50 {statistics.median(times) * 1e3:.0f} ms, p99 {p99 * 1e3:.0f} ms, "
        f"longest {ordered[-1] * 1e3:.0f} ms")  # fmt: skip


async def measure(running: Running, folder: Path, arguments: argparse.Namespace) -> None:
    """One run."""
    configuration = await load_configuration(str(running.plane.kubeconfig))
    points = DecisionPoints(running, folder)
    metadata = {"name": ORDERS.name, "namespace": ORDERS.namespace}
    spec = {"target": {"identities": ["orders"]}, "rules": [rule("/start")]}
    async with Client(configuration, Metrics()) as client, points.serving():
        running.apply({"apiVersion": API_VERSION, "kind": "TrustPolicy", "metadata": metadata, "spec": spec})
        async with points.opa("shop", "orders", "orders-0") as opa:
            await opa.ready()
            await points.decided(opa, request("/start"), "allowed")
            if arguments.edits:
                say(f"{arguments.edits} edits of a TrustPolicy")
                show("edit -> verdict", await edits(client, opa, arguments.edits))
            last = f"/edit/{arguments.edits - 1}" if arguments.edits else "/start"
            if arguments.revocations:
                say(f"{arguments.revocations} revocations of an identity")
                show("revocation -> denied", await revocations(client, opa, last, arguments.revocations))
            if arguments.key_revocations:
                say(f"{arguments.key_revocations} revocations of an API key")
                times = await key_revocations(running, client, opa, arguments.key_revocations)
                show("key revoked -> refused", times)


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edits", type=int, default=200)
    parser.add_argument("--revocations", type=int, default=20, help="of the identity of a client")
    parser.add_argument("--key-revocations", type=int, default=100, help="of API keys")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="zerotrust-bench-") as name, deployed(Path(name)) as running:
        running.apply(ROOT / "examples" / "quickstart")
        asyncio.run(measure(running, Path(name), arguments))


if __name__ == "__main__":
    main()
