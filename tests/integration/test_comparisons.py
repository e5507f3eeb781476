"""What a comparison finds newer than the watch has told is read again, kind by kind, with the rights that each process has."""

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from hack.controlplane import EXISTING_CLUSTER, ControlPlane
from tests.support import rights
from zerotrust.cli.serving import WATCHED as SERVED
from zerotrust.common import naming
from zerotrust.common.naming import Ref
from zerotrust.engine.cache import Cache
from zerotrust.engine.clock import SystemClock
from zerotrust.engine.scope import Scope
from zerotrust.gatekeeper.templates import TEMPLATES
from zerotrust.kube.client import Client, load_configuration
from zerotrust.kube.observe import Observer
from zerotrust.kube.resources import CONSTRAINT_TEMPLATES, CONSTRAINTS, WATCHED, ResourceType
from zerotrust.kube.watch import Watch
from zerotrust.telemetry.metrics import Metrics
from zerotrust.trustdomain.authority import KeyRing

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(EXISTING_CLUSTER in os.environ, reason="installs cluster-wide objects"),
]

OPERATOR = "zerotrust-system"
OURS = {naming.MANAGED_BY: naming.OPERATOR}
OPEN = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
SPECS: dict[str, dict[str, Any]] = {
    "TrustDomain": {"spec": {"default": True}},
    "ServiceIdentity": {"spec": {}},
    "ApiKey": {"spec": {"holder": {"name": "partner"}, "audience": ["one"], "scopes": ["read"]}},
    "TrustPolicy": {"spec": {"target": {"all": True}}},
    "NetworkPolicy": {"spec": {"podSelector": {}}},
    "ControllerRevision": {"revision": 1, "data": {}},
    "EndpointSlice": {"addressType": "IPv4", "endpoints": [], "ports": []},
    "Pod": {"spec": {"containers": [{"name": "main", "image": "none"}]}},
}
HOMES = {"operator": OPERATOR, "default": "default"}


def definition(resource: ResourceType) -> dict[str, Any]:
    """The CRD of one of Gatekeeper's kinds, with any content."""
    names = {"kind": resource.kind, "plural": resource.plural, "singular": resource.plural}
    version = {"name": resource.version, "served": True, "storage": True, "schema": {"openAPIV3Schema": OPEN}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{resource.plural}.{resource.group}"},
        "spec": {"group": resource.group, "names": names, "scope": "Cluster", "versions": [version]},
    }


def one(resource: ResourceType) -> dict[str, Any]:
    """An object of a kind that the operator would look at."""
    name = next((each.name for each in TEMPLATES.values()), "") if resource is CONSTRAINT_TEMPLATES else "one"
    labels = (
        OURS
        if resource.selector == naming.MANAGED_SELECTOR
        else dict([resource.selector.split("=")] if resource.selector else [])
    )
    namespace = {"namespace": HOMES.get(resource.home, "shop")} if resource.namespaced else {}
    return {
        "apiVersion": "/".join(part for part in (resource.group, resource.version) if part),
        "kind": resource.kind,
        "metadata": {"name": name, "labels": labels, **namespace},
        **SPECS.get(resource.kind, {}),
    }


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with ControlPlane() as plane:
        plane.kubectl("apply", "-f", str(rights.ROOT / "crds"))
        apply(plane, *(definition(each) for each in (CONSTRAINT_TEMPLATES, *CONSTRAINTS)))
        plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        for namespace in (OPERATOR, "shop"):
            plane.kubectl("create", "namespace", namespace)
            plane.kubectl("wait", "--for=create", "serviceaccount/default", "-n", namespace, "--timeout=60s")
        rights.install(plane, OPERATOR)
        apply(plane, *(one(each) for each in WATCHED))
        yield plane


def apply(plane: ControlPlane, *documents: dict[str, Any]) -> None:
    plane.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": documents}))


@pytest.mark.parametrize(
    ("account", "resources"),
    [(rights.CONTROLLER, WATCHED), (rights.BUNDLE_SERVER, SERVED)],
    ids=["controller", "server"],
)
async def test_what_is_newer_is_read(plane: ControlPlane, account: str, resources: tuple[ResourceType, ...]) -> None:
    configuration = await load_configuration(str(rights.kubeconfig_of(plane, account, OPERATOR)))
    cache, scope, metrics = Cache(), Scope(OPERATOR), Metrics()
    for resource in SERVED:  # the bundle server's ConfigMaps are the records
        apply(plane, one(resource))
    client = Client(configuration, metrics)
    watch = Watch(client, cache, Observer(OPERATOR, KeyRing()), SystemClock(), metrics, scope, resources)
    async with client:
        await watch.fill()
        for resource in resources:
            document = one(resource)
            metadata = document["metadata"]
            known = Ref(resource.kind, metadata.get("namespace", ""), metadata["name"])
            before = int(cache.get(known).meta.resource_version)
            metadata["annotations"] = {"seen": account}
            apply(plane, document)
            (place,) = resource.places(scope)
            await watch.compare(resource.kind, place)
            assert int(cache.get(known).meta.resource_version) > before, resource.kind
