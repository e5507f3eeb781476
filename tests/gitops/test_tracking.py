"""What the operator makes is not taken for something that came from Git: no mark of Argo CD's is copied from parents."""

import os
from pathlib import Path
from typing import Any

import pytest

from hack.controlplane import EXISTING_CLUSTER
from tests.contract.test_apikeys import secret, serving
from tests.support.deployment import AT_ONCE, Running
from tests.support.fakeapi import FakeApi
from tests.support.gatekeeper import TEMPLATES, constraint_kind, running_gatekeeper
from tests.support.proving import only_in_prove
from tests.support.rig import OPERATOR_NAMESPACE, TRUST_DOMAIN, resource, running
from zerotrust.common import naming

Body = dict[str, Any]

MARK = "by-argo-cd"
LABELS = {"app.kubernetes.io/instance": MARK, "argocd.argoproj.io/instance": MARK}
ANNOTATIONS = {
    "argocd.argoproj.io/tracking-id": f"{MARK}:zerotrust.dev/X:shop/x",
    "argocd.argoproj.io/sync-wave": MARK,
    "argocd.argoproj.io/sync-options": MARK,
    "kubectl.kubernetes.io/last-applied-configuration": MARK,
}
RULE = {"name": "web", "from": [{"workload": {"name": "frontend", "namespace": "web"}}], "to": [{"port": 8443}]}
PARENTS = (
    ("Namespace", "shop", "", None),
    ("TrustDomain", TRUST_DOMAIN, "", {"default": True}),
    ("ServiceAccount", "orders", "shop", None),
    ("ServiceAccount", "frontend", "web", None),
    ("ServiceIdentity", "orders", "shop", {"egress": {"mode": "Isolated"}, "secret": {"labels": {"team": "shop"}}}),
    ("ServiceIdentity", "frontend", "web", {}),
    ("TrustPolicy", "orders", "shop", {"target": {"identities": ["orders"]}, "rules": [RULE]}),
    ("ApiKey", "partner", "shop", {"holder": {"name": "P"}, "audience": ["orders"], "scopes": ["orders:read"]}),
)


def marked() -> list[Body]:
    """Parents as Argo CD applies them, whichever way it tracks."""
    found = []
    for kind, name, namespace, spec in PARENTS:
        body = resource(kind, name, namespace, spec)
        if spec is None:
            body = {**body, "apiVersion": "v1"}
            del body["spec"]
        body["metadata"] |= {"labels": dict(LABELS), "annotations": dict(ANNOTATIONS)}
        found.append(body)
    return found


def made(bodies: list[Body]) -> list[Body]:
    """Those that the operator made."""
    return [one for one in bodies if one["metadata"].get("labels", {}).get(naming.MANAGED_BY) == naming.OPERATOR]


def assert_unmarked(children: list[Body]) -> None:
    for one in children:
        metadata = one["metadata"]
        place = (one["kind"], metadata["name"], metadata)
        assert set(metadata.get("labels", {})).isdisjoint(LABELS), place
        assert set(metadata.get("annotations", {})).isdisjoint(ANNOTATIONS), place
        assert MARK not in str(one), place


async def test_children_carry_no_mark_of_their_parents(tmp_path: Path) -> None:
    async with FakeApi(namespaces=[OPERATOR_NAMESPACE, "web"]) as server, running(server, tmp_path) as rig:
        for body in marked():
            server.create(body)
        rig.identity(naming.BUNDLE_SERVER, OPERATOR_NAMESPACE)
        async with serving(server):
            await rig.until(lambda: secret(server))
        await rig.until(lambda: server.get("NetworkPolicy", "zt-orders", "shop"))
        await rig.until(lambda: server.get("ConfigMap", naming.isolation_record_name("shop"), OPERATOR_NAMESPACE))
        await rig.idle()
        kinds = ("Secret", "ConfigMap", "NetworkPolicy", "ControllerRevision")
        found = {kind: made(list(server.list(kind))) for kind in kinds}
    components = {one["metadata"]["labels"][naming.COMPONENT] for each in found.values() for one in each}
    assert components >= {
        naming.COMPONENT_SVID, naming.COMPONENT_AUTHORITY, naming.COMPONENT_AUTHORITY_RECORD, naming.COMPONENT_TRUST_BUNDLE,
        naming.COMPONENT_NETWORK_POLICY, naming.COMPONENT_ISOLATION_RECORD, naming.COMPONENT_ACCEPTED_POLICY,
        naming.COMPONENT_API_KEY, naming.COMPONENT_API_KEYS, naming.COMPONENT_BUNDLE_RECORD, naming.COMPONENT_OPA_CONFIG,
    }  # fmt: skip
    for each in found.values():
        assert each
        assert_unmarked(each)


@only_in_prove
@pytest.mark.cluster
@pytest.mark.skipif(EXISTING_CLUSTER in os.environ, reason="installs cluster-wide objects")
def test_constraints_and_their_templates_carry_no_mark(tmp_path: Path) -> None:
    with running_gatekeeper(tmp_path) as (plane, _):
        running = Running(plane, tmp_path, *AT_ONCE)
        try:
            plane.kubectl("create", "namespace", "web")
            running.apply(*(one for one in marked()))
            enforced = running.until(
                lambda: running.conditions("tp", "orders", "shop").get("ConstraintsEnforced", ("",))[0] == "True",
                "constraints are enforced",
            )
            assert enforced
            found = made(running.every(TEMPLATES))
            assert found
            constraints = made(
                running.every(",".join(constraint_kind(one["spec"]["crd"]["spec"]["names"]["kind"]) for one in found))
            )
            assert constraints
            assert_unmarked(constraints)
            assert_unmarked(found)
            assert_unmarked(made(running.every("secrets,configmaps,networkpolicies,controllerrevisions")))
        finally:
            running.controller.stop(30)
