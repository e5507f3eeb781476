"""Real packets go where the decision table says, and nowhere else: the controller writes, an independent agent enforces."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from tests.support import policies as random_policies
from tests.support.clusters import Cluster, Flow, Pod, Port
from tests.support.deployment import ROOT, Running, deployed
from tests.support.packets import wired
from tests.support.policies import World, random_world
from tests.support.proving import only_in_prove
from tests.support.shadow import shadow
from zerotrust.common import naming
from zerotrust.common.naming import API_VERSION
from zerotrust.policy import acceptance, table
from zerotrust.policy.directory import Identity, Workload
from zerotrust.policy.podset import to_kubernetes
from zerotrust.policy.table import Table

pytestmark = [pytest.mark.cluster, only_in_prove]

SHOP = ROOT / "examples" / "shop"
SEEDS = range(20)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with deployed(tmp_path_factory.mktemp("packets")) as one:
        yield one


def settled(running: Running, places: set[str]) -> bool:
    """Every TrustPolicy of these namespaces is judged, and what it asks for is written."""
    policies = [body for body in running.every("tp") if body["metadata"]["namespace"] in places]
    for body in policies:
        found = {one["type"]: one["status"] for one in body.get("status", {}).get("conditions", [])}
        if "Accepted" not in found or found["NetworkProgrammed"] == "False":
            return False
    return bool(policies)


def test_the_shop(running: Running) -> None:
    running.apply(SHOP)
    places = {"edge", "web", "shop", "ops"}
    running.until(lambda: settled(running, places), "the shop is settled")
    ports = (8443, 9090, 8080)
    pods = [
        Pod(place, name, {naming.SERVICE_ACCOUNT: name}, ports, account=name)
        for place, name in (
            ("edge", "gateway"),
            ("web", "frontend"),
            ("shop", "orders"),
            ("shop", "payments"),
            ("shop", "inventory"),
            ("ops", "batch"),
        )
    ]
    pods += [Pod(place, "nobody", {"app": "nobody"}, ports) for place in sorted(places)]
    labels = {one["metadata"]["name"]: one["metadata"]["labels"] for one in running.every("namespaces")}
    with wired(running.plane, Cluster({place: labels[place] for place in places}, pods)) as wire:
        flows = wire.flows()
    assert Flow("web/frontend", "shop/orders", "TCP", 8443) in flows
    assert Flow("edge/gateway", "shop/orders", "TCP", 8443) in flows
    assert Flow("shop/nobody", "shop/orders", "TCP", 8443) not in flows
    assert Flow("web/frontend", "shop/payments", "TCP", 8443) not in flows
    assert not [flow for flow in flows if flow.client == "shop/payments"], "isolated, and it names nobody"
    running.plane.kubectl("delete", "-f", str(SHOP / "00-trustdomain.yaml"))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_random_cluster(running: Running, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    names = tuple(f"{name}-{seed}" for name in random_policies.NAMESPACES)
    monkeypatch.setattr(random_policies, "NAMESPACES", names)
    world = random_world(seed)
    world.directory.api_keys.clear()  # there are none in the cluster yet
    running.apply(*objects_of(world))
    places = set(world.directory.labels)
    running.until(lambda: settled(running, places), "the cluster is settled")
    pods = [
        Pod(pod.namespace, pod.name, pod.labels, tuple(port.number for port in tcp()), pod.account)
        for pod in world.pods
    ]
    with wired(running.plane, Cluster(dict(world.directory.labels), pods)) as wire:
        flows = wire.flows()
    assert flows == shadow(world, tcp(), datetime.now(UTC), tables_in_force(world))
    for place in places:
        running.plane.kubectl("delete", "namespace", place, "--wait=false")


def tcp() -> tuple[Port, ...]:
    return tuple(port for port in random_policies.PORTS if port.protocol == "TCP")


def tables_in_force(world: World) -> dict[Workload, Table]:
    """As the controller has it: a policy of which something does not resolve is not accepted and allows nothing."""
    tables = {}
    for server in world.directory.identities():
        contributions = []
        for policy in world.policies:
            spec = random_policies.spec_of(policy)
            refused = acceptance.unresolved(policy, spec, world.directory)
            if server not in table.targets_of(spec, policy.meta.namespace, world.directory):
                continue
            if refused:
                found = acceptance.rows_in_force(policy, None, world.directory, server)
                contributions += [table.contribution(policy.meta.name, *found)] if found else []
            else:
                rows = table.resolve(policy.meta.name, policy.meta.namespace, spec, world.directory, server).rows
                contributions.append(table.contribution(policy.meta.name, spec, rows))
        tables[server.workload] = table.compile_table(server, contributions)
    return tables


def objects_of(world: World) -> list[dict]:
    """The world as a user would apply it."""
    domain = {
        "default": True,
        "identityProviders": [
            {"name": name, "issuer": f"https://{name}.example.org", "algorithms": ["ES256"], "jwks": '{"keys":[]}'}
            for name in random_policies.PROVIDERS
        ],
    }
    objects: list[dict] = [
        {"apiVersion": API_VERSION, "kind": "TrustDomain", "metadata": {"name": "packets.example.org"}, "spec": domain}
    ]
    for name, labels in world.directory.labels.items():
        objects.append({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": dict(labels)}})
    for identity in world.directory.identities():
        place = {"namespace": identity.workload.namespace, "name": identity.workload.name}
        objects.append({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": place})
        objects.append(
            {
                "apiVersion": API_VERSION,
                "kind": "ServiceIdentity",
                "metadata": {**place, "labels": dict(identity.labels)},
                "spec": spec_of(identity),
            }
        )
    for body in world.manifests:
        metadata = {key: body["metadata"][key] for key in ("name", "namespace")}
        objects.append({**body, "metadata": metadata})
    return objects


def spec_of(identity: Identity) -> dict:
    calls = [{"namespace": one.namespace, "name": one.name} for one in sorted(identity.calls)]
    spec: dict = {
        "enforcement": identity.enforcement,
        "egress": {"mode": identity.egress, **({"calls": calls} if calls else {})},
    }
    if not identity.is_labelled:
        spec["selector"] = to_kubernetes(identity.pods)
    return spec
