"""`zerotrust import` of a cluster: applied with the running controller, the old NetworkPolicies deleted, nothing opened."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hack.controlplane import EXISTING_CLUSTER
from tests.support import cert_manager
from tests.support.clusters import Cluster, Flow, Pod, Port
from tests.support.deployment import ROOT, Running, deployed
from tests.support.proving import only_in_prove
from tests.support.reachability import documented
from zerotrust.common import naming

# It needs a control plane of its own: the proposed TrustDomain is the default.
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(EXISTING_CLUSTER in os.environ, reason="installs cluster-wide objects"),
]

EXAMPLE = ROOT / "examples" / "migration"
PROGRAM = Path(sys.executable).with_name("zerotrust")
ASKED = (Port("TCP", 8443), Port("TCP", 9090), Port("TCP", 5432), Port("TCP", 53), Port("UDP", 53))
PODS = [
    Pod("shop", "orders", {"app": "orders", "tier": "backend", naming.SERVICE_ACCOUNT: "orders"}),
    Pod("shop", "payments", {"app": "payments", "tier": "backend", naming.SERVICE_ACCOUNT: "payments"}),
    Pod("web", "frontend", {"app": "frontend", naming.SERVICE_ACCOUNT: "frontend"}),
    Pod("monitoring", "prometheus", {"app": "prometheus", naming.SERVICE_ACCOUNT: "default"}),
    Pod("kube-system", "dns", {"k8s-app": "kube-dns", naming.SERVICE_ACCOUNT: "default"}),
    Pod("shop", "stranger", {"app": "stranger"}),
]


@pytest.fixture(scope="module", params=["simple", pytest.param("real", marks=only_in_prove)])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with deployed(tmp_path_factory.mktemp(f"import-{request.param}")) as running:
        if request.param == "real":
            running.plane.kubectl("apply", "--server-side", "-f", str(cert_manager.crd_folder()))
        else:
            running.apply(*cert_manager.simple_crds())
        running.plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        running.apply(EXAMPLE)
        yield running


def run(cluster: Running, *arguments: str, kubeconfig: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [str(PROGRAM), "import", *arguments, "--kubeconfig", str(kubeconfig or cluster.plane.kubeconfig)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def flows(cluster: Running) -> set[Flow]:
    labels = {body["metadata"]["name"]: body["metadata"]["labels"] for body in cluster.every("namespaces", "-A")}
    world = Cluster({pod.namespace: labels[pod.namespace] for pod in PODS}, PODS, readable(cluster.network_policies()))
    return documented([world], ASKED)[0]


def readable(policies: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """With the numbers of the example's named ports."""
    text = json.dumps(policies).replace('"port": "https"', '"port": 8443').replace('"port": "metrics"', '"port": 9090')
    found: list[dict[str, Any]] = json.loads(text)
    return found


def status(body: dict[str, Any], type_: str) -> str:
    return next((one["status"] for one in body.get("status", {}).get("conditions", []) if one["type"] == type_), "")


def replaced(document: dict[str, Any]) -> set[str]:
    return {one["name"] for one in document["replaced"] if one["kind"] == "NetworkPolicy"}


def test_a_cluster_is_migrated_and_nothing_opens(cluster: Running) -> None:
    before = flows(cluster)
    first = run(cluster, "-A", "--trust-domain", "example.org")
    assert first.returncode == 1, first.stderr
    assert first.stdout == (EXAMPLE / "imported" / "resources.yaml").read_text(), "files and cluster say the same"

    cluster.plane.kubectl("apply", "-f", "-", stdin=first.stdout)
    cluster.until(lambda: all(status(one, "Ready") == "True" for one in cluster.every("svid")), "identities are Ready")
    cluster.until(
        lambda: all(status(one, "NetworkProgrammed") == "True" for one in cluster.every("tp")), "policies are in force"
    )
    cluster.until(
        lambda: any(one["metadata"]["name"] == naming.DEFAULT_DENY for one in cluster.network_policies()), "closed"
    )
    assert flows(cluster) == before, "both side by side change nothing"

    again = json.loads(run(cluster, "-A", "-o", "json").stdout)
    assert {one["kind"] for one in again["resources"]} == {"TrustPolicy"}, "what exists is left alone"
    assert replaced(again) == {"default-deny", "orders", "payments"}
    assert {one["object"]["name"] for one in again["left"]} == {"payments", "frontend"}
    cluster.plane.kubectl("delete", "networkpolicy", "-n", "shop", *sorted(replaced(again)))
    assert flows(cluster) == before, "what was replaced meant the same"

    cluster.plane.kubectl("apply", "-f", str(EXAMPLE / "30-network-policies.yaml"))
    assert flows(cluster) == before, "and the way back is open"


def test_pods_without_the_label_keep_their_policies(cluster: Running) -> None:
    cluster.plane.kubectl("create", "namespace", "late")
    cluster.plane.kubectl("create", "serviceaccount", "old", "-n", "late")
    place = {"namespace": "late", "name": "old"}
    spec = {"serviceAccountName": "old", "containers": [{"name": "main", "image": "none"}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {**place, "labels": {"app": "old"}}, "spec": spec}
    selector = {"podSelector": {"matchLabels": {"app": "old"}}, "policyTypes": ["Ingress"]}
    policy = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": place, "spec": selector}
    cluster.apply(pod, policy)
    told = json.loads(run(cluster, "-n", "late", "-o", "json").stdout)
    assert [(one["opens"], "run without the label" in one["why"]) for one in told["left"]] == [(True, True)]
    cluster.plane.kubectl("label", "pod", "old", "-n", "late", f"{naming.SERVICE_ACCOUNT}=old")
    done = run(cluster, "-n", "late", "-o", "json")
    assert (done.returncode, json.loads(done.stdout)["left"]) == (0, [])


def test_whoever_may_not_read_everything_gets_no_half_answer(cluster: Running) -> None:
    user = cluster.plane.kubeconfig_for("system:serviceaccount:shop:developer")
    refused = run(cluster, "-n", "shop", kubeconfig=user)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "403" in refused.stderr
