"""The operator in named namespaces, with the Roles of manifests/namespaced: it works there, and reads nothing anywhere else."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hack.controlplane import EXISTING_CLUSTER, ControlPlane
from tests.support import rights
from tests.support.decision_points import DecisionPoints
from tests.support.deployment import OPERATOR_NAMESPACE, ROOT, Running, keep_metrics

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(EXISTING_CLUSTER in os.environ, reason="installs cluster-wide objects"),
]

API = "zerotrust.dev/v1alpha1"
NAMESPACED, EXAMPLE = ROOT / "manifests" / "namespaced", ROOT / "examples" / "namespaced"
ROLES = ("ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")
WITHOUT_NAMESPACE = {
    "namespaces",
    "trustdomains",
    "trustdomains/status",
    "customresourcedefinitions",
    "constrainttemplates",
    "validatingadmissionpolicies",
    "validatingwebhookconfigurations",
    "tokenreviews",
    "subjectaccessreviews",
}
WATCHED = ("shop", rights.UNREADABLE)
REQUEST = {
    "server": "spiffe://example.org/ns/shop/sa/orders",
    "source": {"principal": "spiffe://example.org/ns/shop/sa/payments", "mtls": True},
    "request": {"method": "GET", "path": "/a", "port": 8443, "protocol": "TCP", "headers": {}},
}


class Namespaced(Running):
    """Watches the namespaces `shop`, and `unreadable`, where nobody has made Roles at first; `web` is none of its own."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self.folder = folder
        super().__init__(plane, folder, *(word for name in WATCHED for word in ("--watch-namespace", name)))

    def restart_controller(self) -> None:
        self.plane.kubectl("delete", "clusterroles,clusterrolebindings", *self._cluster_wide(), "--ignore-not-found")
        self.plane.kubectl("create", "namespace", "shop")
        self.apply(*(one for one in rights.rendered(EXAMPLE) if one["kind"] in ROLES))
        super().restart_controller()

    def _cluster_wide(self) -> list[str]:
        return [one["metadata"]["name"] for one in rights.rendered(rights.BASE) if one["kind"] == "ClusterRole"]

    def let_in(self, namespace: str) -> None:
        """Give the Roles for one more namespace, as docs/guides/namespaced.md has it done."""
        overlay = self.folder / f"overlay-{namespace}"
        overlay.mkdir()
        base = os.path.relpath(NAMESPACED / "watched", overlay.resolve())
        (overlay / "kustomization.yaml").write_text(json.dumps({"namespace": namespace, "resources": [base]}))
        self.plane.kubectl("create", "namespace", namespace, check=False)
        self.plane.kubectl("apply", "-k", str(overlay))

    def ready(self, name: str, namespace: str) -> str:
        return self.conditions("svid", name, namespace).get("Ready", ("", "", ""))[0]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Namespaced]:
    folder = tmp_path_factory.mktemp("namespaced")
    with ControlPlane() as plane:
        plane.kubectl("create", "namespace", rights.UNREADABLE)
        running = Namespaced(plane, folder)
        running.apply(ROOT / "examples" / "quickstart")
        try:
            yield running
        finally:
            keep_metrics(running.port, folder / "controller.metrics")
            running.controller.stop(30)


def resource(kind: str, name: str, namespace: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": API, "kind": kind, "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def policy(name: str, *peers: dict[str, Any], effect: str = "Allow") -> dict[str, Any]:
    rule = {"name": "calls", "effect": effect, "from": list(peers), "to": [{"port": 8443}]}
    return resource("TrustPolicy", name, "shop", target={"identities": ["orders"]}, rules=[rule])


def test_a_watched_namespace_becomes_ready_while_another_may_not_be_read(cluster: Namespaced) -> None:
    for name in ("orders", "payments"):
        cluster.until(lambda name=name: cluster.ready(name, "shop") == "True", f"{name} is Ready")  # type: ignore[misc]
    assert not cluster.ready("frontend", "web")
    assert not cluster.plane.kubectl(
        "get", "secrets,configmaps", "-n", "web", "-l", "app.kubernetes.io/managed-by=zerotrust-operator", "-o", "name"
    )
    domain = json.loads(cluster.plane.kubectl("get", "td", "example.org", "-o", "json"))["status"]
    assert domain["identities"]["total"] == 2, domain


def test_peers_in_other_namespaces_are_unknown_and_get_nothing(cluster: Namespaced) -> None:
    cluster.apply(policy("calls", {"workload": {"name": "frontend", "namespace": "web"}}))
    accepted = cluster.until(lambda: cluster.conditions("tp", "calls", "shop").get("Accepted"), "it is judged")
    assert accepted[:2] == ("False", "Unresolved")
    assert "ServiceIdentity web/frontend is unknown: the operator does not watch its namespace" in accepted[2]

    named = {"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "Exists"}]}
    everywhere = {"workloads": {"namespaceSelector": named, "selector": {"matchLabels": {"tier": "batch"}}}}
    cluster.apply(policy("denies", everywhere, effect="Deny"))
    denies = cluster.until(lambda: cluster.conditions("tp", "denies", "shop").get("Accepted"), "it is judged")
    assert denies[:2] == ("False", "Unresolved")
    assert "so who is denied is unknown" in denies[2]
    cluster.plane.kubectl("delete", "tp", "--all", "-n", "shop")


async def test_a_decision_point_of_a_watched_namespace_is_served(cluster: Namespaced, tmp_path: Path) -> None:
    points = DecisionPoints(cluster, tmp_path)
    points.server.options = [word for name in WATCHED for word in ("--watch-namespace", name)]
    async with points.serving():
        rule = {"name": "reads", "from": [{"workload": {"name": "payments", "namespace": "shop"}}]}
        rule |= {"to": [{"port": 8443, "methods": ["GET"], "paths": ["/a"]}]}
        cluster.apply(resource("TrustPolicy", "orders", "shop", target={"identities": ["orders"]}, rules=[rule]))
        async with points.opa("shop", "orders", "orders-0") as opa:
            await opa.ready()
            await points.decided(opa, REQUEST, "allowed")
        cluster.plane.kubectl("delete", "tp", "orders", "-n", "shop")


def test_a_namespace_is_worked_in_once_it_may_be_read(cluster: Namespaced) -> None:
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "late", "namespace": rights.UNREADABLE},
    }
    cluster.apply(account, resource("ServiceIdentity", "late", rights.UNREADABLE))
    log = cluster.folder / "controller.log"
    assert not cluster.ready("late", rights.UNREADABLE)
    cluster.let_in(rights.UNREADABLE)
    cluster.until(lambda: cluster.ready("late", rights.UNREADABLE) == "True", "it is Ready")
    assert f"namespace {rights.UNREADABLE} is read" in log.read_text()


def test_what_was_isolated_stays_so_when_a_namespace_is_watched_no_longer(cluster: Namespaced) -> None:
    cluster.apply(policy("calls", {"workload": {"name": "payments", "namespace": "shop"}}))
    read = ("get", "networkpolicy", "zt-orders", "-n", "shop", "-o", "jsonpath={.spec}", "--ignore-not-found")
    before = cluster.until(lambda: cluster.plane.kubectl(*read), "orders is isolated")
    record = (
        "get",
        "configmap",
        "shop.isolation",
        "-n",
        OPERATOR_NAMESPACE,
        "-o",
        "jsonpath={.data}",
        "--ignore-not-found",
    )
    remembered = cluster.until(lambda: cluster.plane.kubectl(*record), "that is remembered")
    revisions = ("get", "controllerrevisions", "-n", OPERATOR_NAMESPACE, "-o", "name")
    kept = cluster.plane.kubectl(*revisions)

    cluster.controller.stop(30)
    cluster.plane.kubectl("delete", "rolebindings", "--all", "-n", "shop")
    options, cluster._options = cluster._options, ("--watch-namespace", "elsewhere")
    cluster.let_in("elsewhere")
    Running.restart_controller(cluster)
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "one", "namespace": "elsewhere"}}
    cluster.apply(account, resource("ServiceIdentity", "one", "elsewhere"))
    cluster.until(lambda: cluster.ready("one", "elsewhere") == "True", "the operator works elsewhere")
    assert cluster.plane.kubectl(*read) == before
    assert cluster.plane.kubectl(*record) == remembered
    assert cluster.plane.kubectl(*revisions) == kept
    cluster._options = options


def test_nothing_was_asked_for_in_other_namespaces(cluster: Namespaced) -> None:
    """The audit log has every request, so it is proof of what was not read."""
    asked = list(rights.requests(cluster.plane.audit_log))
    assert len(asked) > 100
    known = {OPERATOR_NAMESPACE, "default", "shop", rights.UNREADABLE, "elsewhere"}
    assert {one.namespace for one in asked if one.namespace} <= known
    assert {one.resource for one in asked if one.namespace == "default"} <= {"endpointslices", "events"}
    constraints = {one.resource for one in asked if one.group == "constraints.gatekeeper.sh"}
    assert {one.resource for one in asked if not one.namespace} <= WITHOUT_NAMESPACE | constraints
    refused = [one for one in asked if not one.allowed]
    assert {one.namespace for one in refused} == {rights.UNREADABLE}


def test_no_role_of_the_whole_cluster_reads_what_is_in_namespaces() -> None:
    for document in rights.rendered(NAMESPACED):
        if document["kind"] == "ClusterRole":
            for rule in document["rules"]:
                assert not {"secrets", "configmaps", "pods", "networkpolicies", "events"} & set(rule["resources"])
    assert {one["kind"] for one in rights.rendered(NAMESPACED / "watched")} == {"Role", "RoleBinding"}
    assert {one["kind"] for one in rights.rendered(NAMESPACED / "default")} == {"Role", "RoleBinding"}
