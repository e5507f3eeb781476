"""The rights in manifests/base are enough for a bundle server to serve a real OPA, and too few to read an authority's key."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hack.controlplane import EXISTING_CLUSTER
from hack.gotools import find_or_build
from tests.support.decision_points import DecisionPoints, Replica
from tests.support.deployment import OPERATOR_NAMESPACE, ROOT, Running, deployed
from tests.support.service_names import LOOPBACK
from zerotrust.common import naming

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(EXISTING_CLUSTER in os.environ, reason="installs cluster-wide objects"),
]

API = "zerotrust.dev/v1alpha1"
ACCOUNT = f"system:serviceaccount:{OPERATOR_NAMESPACE}:{naming.BUNDLE_SERVER}"
GROUPS = ("system:serviceaccounts", f"system:serviceaccounts:{OPERATOR_NAMESPACE}")
POD = f"{naming.BUNDLE_SERVER}-0"
REFUSED = re.compile(r"forbidden|\b40[13]\b|permission", re.IGNORECASE)
ORDERS = "spiffe://example.org/ns/shop/sa/orders"
REQUEST = {
    "server": ORDERS,
    "source": {"principal": "spiffe://example.org/ns/web/sa/frontend", "mtls": True},
    "request": {"method": "GET", "path": "/a", "port": 8443, "protocol": "TCP", "headers": {}},
}
POLICY = {
    "apiVersion": API,
    "kind": "TrustPolicy",
    "metadata": {"name": "orders", "namespace": "shop"},
    "spec": {
        "target": {"identities": ["orders"]},
        "rules": [
            {
                "name": "frontend-reads",
                "from": [{"workload": {"name": "frontend", "namespace": "web"}}],
                "to": [{"port": 8443, "methods": ["GET"], "paths": ["/a"]}],
            }
        ],
    },
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with deployed(tmp_path_factory.mktemp("rights")) as running:
        # Without the policies that know the controller by its account: this one runs as an administrator.
        running.plane.kubectl("apply", "-k", str(ROOT / "manifests" / "base"), "-l", "zerotrust.dev/uninstall!=keep")
        running.apply(ROOT / "examples" / "quickstart")
        yield running


@pytest.fixture(scope="module")
def rights(cluster: Running) -> Path:
    return cluster.plane.kubeconfig_for(ACCOUNT, GROUPS)


async def test_it_serves_a_real_opa_and_nothing_is_forbidden(cluster: Running, rights: Path, tmp_path: Path) -> None:
    points = DecisionPoints(cluster, tmp_path)
    points.server = Replica(cluster, tmp_path / "bundle-server", POD, rights)
    report = naming.REPORT_PREFIX + POD
    async with points.serving():
        cluster.apply(POLICY)
        async with points.opa("shop", "orders", "orders-0") as opa:
            await opa.ready()
            await points.decided(opa, REQUEST, "allowed")
            await points.until(
                lambda: "orders-0" in read(cluster, "configmap", report), "the decision point is reported"
            )
            cluster.plane.kubectl("delete", "tp", "orders", "-n", "shop")
            await points.decided(opa, REQUEST, "no_grant")
    said = (tmp_path / "bundle-server" / "bundle-server.log").read_text()
    assert not [line for line in said.splitlines() if REFUSED.search(line)]
    assert "stopped" in said


def read(cluster: Running, kind: str, name: str) -> str:
    return cluster.plane.kubectl("get", kind, name, "-n", OPERATOR_NAMESPACE, "-o", "json", "--ignore-not-found")


@pytest.mark.parametrize(
    "question",
    [
        f"list secrets -n {OPERATOR_NAMESPACE}",
        f"watch secrets -n {OPERATOR_NAMESPACE}",
        f"get secrets -n {OPERATOR_NAMESPACE}",
        f"get secrets/example.org.authorities -n {OPERATOR_NAMESPACE}",
        f"get secrets/{naming.BUNDLE_SERVER}-svid -n {OPERATOR_NAMESPACE}",
        f"patch secrets/{naming.BUNDLE_KEYS} -n {OPERATOR_NAMESPACE}",
        f"get secrets/{naming.BUNDLE_KEYS} -n shop",
        f"delete configmaps -n {OPERATOR_NAMESPACE}",
        "create configmaps -n shop",
        "patch configmaps -n shop",
        "patch trustpolicies/status -n shop",
        "patch serviceidentities -n shop",
        "create controllerrevisions -n zerotrust-system",
        "get pods -n shop",
        "create serviceaccounts/token -n shop",
        f"update leases/zerotrust-controller -n {OPERATOR_NAMESPACE}",
        "impersonate users",
    ],
)
def test_it_may_not(cluster: Running, rights: Path, question: str) -> None:
    answer = cluster.plane.kubectl("auth", "can-i", *question.split(), check=False, kubeconfig=rights)
    assert answer.split()[0] == "no", answer


def test_it_cannot_read_the_keys_of_authorities(cluster: Running, rights: Path) -> None:
    def authorities() -> list[str]:
        found = cluster.every("secrets", "-n", OPERATOR_NAMESPACE)
        return [one["metadata"]["name"] for one in found if ".ca-" in one["metadata"]["name"]]

    for name in cluster.until(authorities, "there is an authority"):
        assert refusal(rights, "get", "secret", name, "-n", OPERATOR_NAMESPACE).startswith("Error from server")


def config_map(name: str, component: str = "bundle-report") -> dict[str, Any]:
    metadata = {"name": name, "namespace": OPERATOR_NAMESPACE, "labels": {naming.COMPONENT: component}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}


@pytest.mark.parametrize(
    "body",
    [
        config_map(naming.REVOCATIONS),
        config_map("shop.bundles", "bundle-record"),
        config_map("zt-reports-other", "bundle-record"),
        config_map("example.org.trust-bundle"),
    ],
    ids=lambda body: body["metadata"]["name"],
)
def test_it_writes_no_config_map_but_reports(cluster: Running, rights: Path, body: dict[str, Any]) -> None:
    """A dry run is judged like a request; a policy is in force a moment after it was created."""

    def refused() -> bool:
        return "a bundle server writes reports only" in refusal(
            rights, "create", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(body)
        )

    cluster.until(refused, "it is refused")


def test_it_patches_no_config_map_but_reports(cluster: Running, rights: Path) -> None:
    cluster.until(lambda: read(cluster, "configmap", "example.org.trust-bundle"), "the trust bundle is published")
    patch = ("patch", "configmap", "example.org.trust-bundle", "-n", OPERATOR_NAMESPACE, "--type=merge", "-p", "{}")
    told = refusal(rights, *patch[:-1], json.dumps({"data": {"bundle.pem": "mine"}}))
    assert "a bundle server writes reports only" in told
    report = yaml.safe_dump(config_map("zt-reports-mine"))
    assert not refusal(rights, "create", "--dry-run=server", "-f", "-", stdin=report)


def test_with_a_pods_token_it_writes_that_pods_report_only(cluster: Running) -> None:
    pod = f"{naming.BUNDLE_SERVER}-1"  # one that has reported nothing yet
    metadata = {"name": pod, "namespace": OPERATOR_NAMESPACE}
    text = cluster.plane.kubectl("get", "deployment", naming.BUNDLE_SERVER, "-n", OPERATOR_NAMESPACE, "-o", "json")
    spec = json.loads(text)["spec"]["template"]["spec"]
    cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    bound = ("--bound-object-kind", "Pod", "--bound-object-name", pod)
    token = cluster.plane.kubectl("create", "token", naming.BUNDLE_SERVER, "-n", OPERATOR_NAMESPACE, *bound).strip()
    server = ("--server", cluster.plane.url, "--certificate-authority", str(cluster.plane.authority))

    def told(report: str) -> str:
        arguments = (*server, "--token", token, "create", "--dry-run=server", "-f", "-")
        return refusal(Path(os.devnull), *arguments, stdin=yaml.safe_dump(config_map(report)))

    assert "the report of its own pod only" in told("zt-reports-another")
    assert not told(naming.REPORT_PREFIX + pod)


def refusal(rights: Path, *arguments: str, stdin: str = "") -> str:
    """What kubectl says on standard error with these rights."""
    command = [find_or_build("kubectl"), "--kubeconfig", str(rights), *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    return done.stderr


def test_its_pods_are_accepted_where_pods_are_restricted(cluster: Running) -> None:
    text = cluster.plane.kubectl("get", "deployment", naming.BUNDLE_SERVER, "-n", OPERATOR_NAMESPACE, "-o", "json")
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "probe", "namespace": OPERATOR_NAMESPACE},
        "spec": json.loads(text)["spec"]["template"]["spec"],
    }
    answer = cluster.plane.kubectl("create", "--dry-run=server", "-o", "name", "-f", "-", stdin=json.dumps(pod))
    assert answer.strip() == "pod/probe"


def test_its_identity_is_issued_for_the_names_of_its_service(cluster: Running) -> None:
    ready = lambda: cluster.conditions("svid", naming.BUNDLE_SERVER, OPERATOR_NAMESPACE).get("Ready", " ")[0]  # noqa: E731
    cluster.until(lambda: ready() == "True", "the bundle server has its SVID")


def test_the_arguments_are_the_command_lines() -> None:
    manifest = (ROOT / "manifests" / "base" / "bundle-server.yaml").read_text()
    (arguments,) = re.findall(r"args: \[(.*)\]", manifest)
    command = [Path(sys.executable).with_name("zerotrust"), *arguments.split(", "), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert f"{LOOPBACK}" not in manifest
    (default,) = re.findall(r"default:\s+(/var/run/secrets/zerotrust/svid)", done.stdout)
    assert f"mountPath: {default}" in manifest
