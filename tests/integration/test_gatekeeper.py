"""The Gatekeeper that other tests rely on does what one in a cluster does: deny, generate policies, audit, come and go."""

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from hack.controlplane import EXISTING_CLUSTER, ControlPlane
from hack.gatekeeper import Gatekeeper
from tests.support.deployment import OPERATOR_NAMESPACE, ROOT
from tests.support.gatekeeper import (
    TEMPLATES,
    apply,
    constraint_kind,
    enforce,
    is_current,
    reads,
    refusal,
    running_gatekeeper,
    until,
    violations,
)
from tests.support.proving import only_in_prove
from zerotrust.common import naming

pytestmark = [
    pytest.mark.cluster,
    only_in_prove,  # what of it matters to us is also in test_constraints.py
    pytest.mark.skipif(EXISTING_CLUSTER in os.environ, reason="installs cluster-wide objects"),
]

Body = dict[str, Any]
ASKED = "TestWebhookOnly"  # no ValidatingAdmissionPolicy is generated, so only the webhook can deny
GENERATED = "TestInTheServer"
PROTECTED = "TestKeptToTheOperator"
KEPT = "zerotrust-protected-objects"
BY_WEBHOOK = 'admission webhook "validation.gatekeeper.sh" denied the request'
BY_POLICY = "ValidatingAdmissionPolicy 'gatekeeper-test"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ControlPlane, Gatekeeper]]:
    with running_gatekeeper(tmp_path_factory.mktemp("gatekeeper")) as (plane, gatekeeper):
        apply(plane, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
        apply(plane, a_config_map("older", ASKED), a_config_map("older-too", GENERATED))
        enforce_both(plane, gatekeeper)
        yield plane, gatekeeper


@pytest.fixture
def plane(cluster: tuple[ControlPlane, Gatekeeper]) -> ControlPlane:
    return cluster[0]


@pytest.fixture
def gatekeeper(cluster: tuple[ControlPlane, Gatekeeper]) -> Gatekeeper:
    return cluster[1]


def test_the_webhook_denies(plane: ControlPlane) -> None:
    until(lambda: BY_WEBHOOK in refusal(plane, a_config_map("new", ASKED)), "the webhook denies")
    assert f"the key {ASKED} is not wanted" in refusal(plane, a_config_map("new", ASKED))
    assert not refusal(plane, a_config_map("new", "wanted"))
    apply(plane, a_config_map("stored", "wanted"))


def test_a_webhook_that_is_down_denies_nothing_but_the_generated_policy_does(
    plane: ControlPlane, gatekeeper: Gatekeeper
) -> None:
    until(lambda: BY_POLICY in refusal(plane, a_config_map("new", GENERATED)), "the API server denies by itself")
    gatekeeper.stop_webhook()
    try:
        until(lambda: not refusal(plane, a_config_map("new", ASKED)), "the webhook's failures are ignored")
        assert BY_POLICY in refusal(plane, a_config_map("new", GENERATED))
    finally:
        gatekeeper.start_webhook()
    until(lambda: BY_WEBHOOK in refusal(plane, a_config_map("new", ASKED)), "the webhook denies again")


def test_the_generated_policy_denies_where_nobody_is_asked(plane: ControlPlane, gatekeeper: Gatekeeper) -> None:
    gatekeeper.remove_webhook_configuration()
    try:
        assert not refusal(plane, a_config_map("new", ASKED))
        denial = until(lambda: refusal(plane, a_config_map("new", GENERATED)), "the API server denies by itself")
        assert BY_POLICY in denial
        assert f"the key {GENERATED} is not wanted" in denial
    finally:
        gatekeeper.restore_webhook_configuration()
    assert BY_WEBHOOK in refusal(plane, a_config_map("new", ASKED))


@pytest.mark.parametrize(("kind", "name"), [(ASKED, "older"), (GENERATED, "older-too")])
def test_the_audit_finds_what_was_there_before(plane: ControlPlane, kind: str, name: str) -> None:
    (found,) = until(lambda: violations(plane, kind, "test"), "the audit reports")
    assert (found["kind"], found["namespace"], found["name"]) == ("ConfigMap", "shop", name)
    assert found["message"] == f"the key {kind} is not wanted"


def test_a_namespace_cannot_be_taken_out(plane: ControlPlane, gatekeeper: Gatekeeper) -> None:
    """Gatekeeper itself guards the label that keeps a namespace from it, and with the webhook down nobody sets it either."""
    change = ("label", "namespace", "shop", "admission.gatekeeper.sh/ignore=yes")
    assert "Only exempt namespace can have the admission.gatekeeper.sh/ignore label" in plane.kubectl(
        *change, check=False
    )
    gatekeeper.stop_webhook()
    try:
        assert 'failed calling webhook "check-ignore-label.gatekeeper.sh"' in plane.kubectl(*change, check=False)
    finally:
        gatekeeper.start_webhook()


def test_after_a_rollout_other_pods_report(plane: ControlPlane, gatekeeper: Gatekeeper) -> None:
    before = gatekeeper.pods()
    gatekeeper.restart()
    assert not set(before) & set(gatekeeper.pods())
    for kind in (ASKED, GENERATED):
        until(
            lambda kind=kind: is_current(plane, constraint_kind(kind), "test", gatekeeper.pods()), "the new pods report"
        )
    assert BY_WEBHOOK in refusal(plane, a_config_map("new", ASKED))


def test_nothing_is_left_after_it_is_removed_and_it_can_come_back(plane: ControlPlane, gatekeeper: Gatekeeper) -> None:
    gatekeeper.uninstall()
    kinds = plane.kubectl("get", "crd", "-o", "name")
    assert "constrainttemplates.templates.gatekeeper.sh" not in kinds
    until(
        lambda: "constraints.gatekeeper.sh" not in plane.kubectl("get", "crd", "-o", "name"), "the generated kinds go"
    )
    until(lambda: not refusal(plane, a_config_map("new", GENERATED)), "the generated policy goes")
    assert not refusal(plane, a_config_map("new", ASKED))
    gatekeeper.install()
    enforce_both(plane, gatekeeper)
    until(lambda: BY_WEBHOOK in refusal(plane, a_config_map("new", ASKED)), "the webhook denies again")


def test_it_works_with_templates_that_nobody_else_may_change(plane: ControlPlane, gatekeeper: Gatekeeper) -> None:
    """The protected objects: its account annotates templates, and writes them anew when it starts, without changing them."""
    plane.kubectl("apply", "-f", str(ROOT / "manifests" / "admission" / "protected-objects.yaml"))
    template, constraint = a_template(PROTECTED, generate=True), a_constraint(PROTECTED)
    for body in (template, constraint):
        body["metadata"]["labels"] = {naming.MANAGED_BY: naming.OPERATOR}
    until(lambda: KEPT in refusal(plane, template), "the policy is in force")
    operator = plane.kubeconfig_for(
        f"system:serviceaccount:{OPERATOR_NAMESPACE}:zerotrust-controller", ["system:masters"]
    )
    try:
        enforce(plane, gatekeeper, template, constraint, operator)
        until(lambda: BY_POLICY in refusal(plane, a_config_map("new", PROTECTED)), "the policy is generated")
        gatekeeper.restart()
        until(
            lambda: is_current(plane, constraint_kind(PROTECTED), "test", gatekeeper.pods()), "the new pods enforce it"
        )
        assert KEPT in plane.kubectl("delete", constraint_kind(PROTECTED), "test", check=False)
        assert KEPT not in gatekeeper.logs()
    finally:
        plane.kubectl("delete", "-f", "-", stdin=json.dumps(constraint), kubeconfig=operator)
        plane.kubectl("delete", "-f", "-", stdin=json.dumps(template), kubeconfig=operator)
        plane.kubectl("delete", "-f", str(ROOT / "manifests" / "admission" / "protected-objects.yaml"))


def test_its_log_tells_of_denials(plane: ControlPlane, gatekeeper: Gatekeeper) -> None:
    until(lambda: BY_WEBHOOK in refusal(plane, a_config_map("denied-and-logged", ASKED)), "the webhook denies")
    assert "denied-and-logged" in gatekeeper.logs()


def enforce_both(plane: ControlPlane, gatekeeper: Gatekeeper) -> None:
    enforce(plane, gatekeeper, a_template(ASKED, generate=False), a_constraint(ASKED))
    enforce(plane, gatekeeper, a_template(GENERATED, generate=True), a_constraint(GENERATED))
    assert reads(plane, TEMPLATES, GENERATED.lower())["status"]["created"]


def a_template(kind: str, *, generate: bool) -> Body:
    """It refuses objects whose `data` has its own kind for a key."""
    message = f"the key {kind} is not wanted"
    validation = {"expression": f"!has(object.data) || !('{kind}' in object.data)", "message": message}
    code = {"engine": "K8sNativeValidation", "source": {"generateVAP": generate, "validations": [validation]}}
    names = {"spec": {"names": {"kind": kind}, "validation": {"openAPIV3Schema": {"type": "object"}}}}
    return {
        "apiVersion": "templates.gatekeeper.sh/v1",
        "kind": "ConstraintTemplate",
        "metadata": {"name": kind.lower()},
        "spec": {"crd": names, "targets": [{"target": "admission.k8s.gatekeeper.sh", "code": [code]}]},
    }


def a_constraint(kind: str) -> Body:
    match = {"kinds": [{"apiGroups": [""], "kinds": ["ConfigMap"]}], "namespaces": ["shop"]}
    return {
        "apiVersion": "constraints.gatekeeper.sh/v1beta1",
        "kind": kind,
        "metadata": {"name": "test"},
        "spec": {"enforcementAction": "deny", "match": match},
    }


def a_config_map(name: str, key: str) -> Body:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "shop"},
        "data": {key: "value"},
    }
