"""The rights in manifests/base are what the controller needs, and no more than a reader of them expects."""

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hack.children import Child
from hack.controlplane import EXISTING_CLUSTER, ControlPlane
from tests.support import rights

# It needs a control plane of its own: elsewhere another test's controller would do the work for it.
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(EXISTING_CLUSTER in os.environ, reason="installs cluster-wide objects"),
]

ROOT = Path(__file__).resolve().parents[2]
OPERATOR = "zerotrust-system"
GENEROUS_SECONDS = 120
REFUSED = re.compile(r"forbidden|unauthorized|\b40[13]\b|permission", re.IGNORECASE)
COMPARED = 2  # kinds that exist before the controller does, and are compared once kopf has listed them


# Gatekeeper generated it before its CRDs went; there is no Gatekeeper here.
LEFTOVER: dict[str, object] = {
    "apiVersion": "admissionregistration.k8s.io/v1",
    "kind": "ValidatingAdmissionPolicy",
    "metadata": {"name": "gatekeeper-zerotrustimages"},
    "spec": {
        "failurePolicy": "Ignore",
        "matchConstraints": {
            "resourceRules": [
                {"apiGroups": ["x.example.org"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["xs"]}
            ]
        },
        "validations": [{"expression": "true"}],
    },
}


class Installation:
    """The base manifests but for admission policies, and the controller under exactly the rights that they give."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self.plane, self.log = plane, folder / "controller.log"
        plane.kubectl("apply", "-f", str(ROOT / "crds"))
        plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        kinds = ("Namespace", "Deployment", "ServiceIdentity", *rights.RBAC_KINDS)
        self.apply(*(one for one in rights.rendered(rights.BASE) if one["kind"] in kinds))
        self.apply(LEFTOVER)
        self.rights = rights.kubeconfig_of(plane, rights.CONTROLLER, OPERATOR)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        program = Path(sys.executable).with_name("zerotrust")
        listen = ("--metrics-host", "127.0.0.1", "--metrics-port", str(self._port))
        self.controller = Child(
            "controller",
            [program, "controller", "--kubeconfig", self.rights, "--namespace", OPERATOR, *listen],
            self.log,
        )

    def wait_until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + GENEROUS_SECONDS
        while not condition():
            assert self.controller.exit_code is None, self.controller.tail()
            assert time.monotonic() < deadline, f"it never came to this: {what}\n{self.controller.tail()}"
            time.sleep(0.1)

    def ready(self, name: str) -> str:
        condition = '{.status.conditions[?(@.type=="Ready")].reason}'
        return self.plane.kubectl("get", "svid", name, "-n", "shop", "-o", f"jsonpath={condition}", check=False)

    def read(self, kind: str, name: str) -> dict[str, object]:
        found = self.plane.kubectl("get", kind, name, "-n", "shop", "-o", "json", "--ignore-not-found")
        document: dict[str, object] = json.loads(found) if found else {}
        return document

    def metrics(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=30) as answer:
            return str(answer.read().decode())

    def wrote(self, kind: str, verb: str) -> bool:
        return f'zerotrust_api_writes_total{{code="200",kind="{kind}",verb="{verb}"}}' in self.metrics()

    def apply(self, *documents: dict[str, object]) -> None:
        self.plane.kubectl("apply", "-f", "-", stdin="\n---\n".join(json.dumps(document) for document in documents))


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with ControlPlane() as plane:
        installed = Installation(plane, tmp_path_factory.mktemp("rbac"))
        try:
            yield installed
        finally:
            installed.controller.stop(30)


def test_everything_the_controller_does_is_allowed(installation: Installation) -> None:
    """Goes through every verb of the manifest once: read the log after it, and nothing was refused."""
    cluster, kubectl = installation, installation.plane.kubectl
    cluster.apply(
        of("Namespace", "shop", namespace=""),
        ours("TrustDomain", "example.org", namespace="", spec={"default": True}),
        of("ServiceAccount", "orders"),
        ours("ServiceIdentity", "orders"),
    )
    # Leases, Secrets, ConfigMaps and Events are created, both kinds' status is patched.
    cluster.wait_until(lambda: cluster.ready("orders") == "Issued", "an identity is issued")
    cluster.wait_until(lambda: cluster.read("configmap", "example.org.trust-bundle"), "the bundle is published")

    leftover = ("get", "validatingadmissionpolicy", "gatekeeper-zerotrustimages", "--ignore-not-found")
    cluster.wait_until(lambda: not kubectl(*leftover), "what Gatekeeper has left behind is deleted")

    damage = json.dumps({"data": {"ca.crt": "b29wcw=="}})
    kubectl("patch", "secret", "orders-svid", "-n", "shop", "--type=merge", "-p", damage)
    cluster.wait_until(lambda: cluster.wrote("Secret", "patch"), "an edited Secret is repaired")

    damage = json.dumps({"data": {"bundle.pem": "oops"}})
    kubectl("patch", "configmap", "example.org.trust-bundle", "-n", "shop", "--type=merge", "-p", damage)
    cluster.wait_until(lambda: cluster.wrote("ConfigMap", "patch"), "an edited ConfigMap is repaired")

    policies(cluster)
    second_default(cluster)

    revocation = {"before": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}
    cluster.apply(ours("ServiceIdentity", "orders", spec={"secret": {"name": "renamed"}, "revocation": revocation}))
    cluster.wait_until(
        lambda: kubectl("get", "configmap", "zerotrust-revocations", "-n", OPERATOR, "--ignore-not-found"),
        "the cut-off is remembered",
    )
    cluster.wait_until(lambda: cluster.wrote("Secret", "delete"), "the Secret under the old name is deleted")

    # A Secret without our label is outside the watch: the create fails, and the object is read.
    cluster.apply(of("Secret", "foreign-svid"), of("ServiceAccount", "foreign"), ours("ServiceIdentity", "foreign"))
    cluster.wait_until(lambda: cluster.ready("foreign") == "SecretConflict", "a foreign Secret is found")

    kubectl("delete", "serviceaccount", "orders", "-n", "shop")
    cluster.wait_until(lambda: cluster.ready("orders") == "ServiceAccountNotFound", "the account is missed")
    cluster.apply(of("ServiceAccount", "orders"))
    cluster.wait_until(lambda: cluster.ready("orders") == "Issued", "the account is back")
    kubectl("delete", "serviceaccount", "orders", "-n", "shop")
    cluster.wait_until(lambda: cluster.wrote("Event", "patch"), "a repeated event becomes a series")

    kubectl("delete", "svid", "--all", "-n", "shop")
    cluster.wait_until(lambda: cluster.wrote("ConfigMap", "delete"), "a namespace that needs no bundle has none")

    cluster.wait_until(lambda: cluster.wrote("Lease", "update"), "the Lease is renewed")
    cluster.wait_until(
        lambda: cluster.metrics().count("zerotrust_relists_total{") >= COMPARED, "the cache was compared"
    )
    assert not re.findall(
        r'zerotrust_(?:api_writes|events_dropped)_total.*(?:code="40[13]"|Forbidden).*', cluster.metrics()
    )
    cluster.controller.stop(30)
    assert not [line for line in cluster.log.read_text().splitlines() if REFUSED.search(line)]
    assert "released the lease" in cluster.log.read_text()


def policies(cluster: Installation) -> None:
    """A TrustPolicy is accepted, edited until versions are forgotten, damaged, deleted, and its workload opened again."""
    kubectl = cluster.plane.kubectl

    def opens(port: int) -> Callable[[], bool]:
        return lambda: f'"port": {port}' in json.dumps(cluster.read("networkpolicy", "zt-orders"))

    for port in range(1, 6):
        rule = {"name": "self", "from": [{"workload": {"name": "orders", "namespace": "shop"}}], "to": [{"port": port}]}
        cluster.apply(ours("TrustPolicy", "orders", spec={"target": {"identities": ["orders"]}, "rules": [rule]}))
        cluster.wait_until(opens(port), "the edit is in force")
    cluster.wait_until(lambda: cluster.wrote("ControllerRevision", "delete"), "old versions are forgotten")
    cluster.wait_until(lambda: cluster.wrote("TrustPolicy/status", "patch"), "the status is told")
    cluster.wait_until(
        lambda: cluster.read("configmap", "zerotrust-opa-config"), "there are keys, and OPA is told of them"
    )
    kubectl("patch", "networkpolicy", "zt-orders", "-n", "shop", "--type=merge", "-p", '{"spec": {"ingress": [{}]}}')
    cluster.wait_until(opens(5), "it is repaired")
    kubectl("delete", "tp", "orders", "-n", "shop")
    kubectl("annotate", "networkpolicy", "zt-orders", "-n", "shop", "zerotrust.dev/allow-open=test")
    cluster.wait_until(lambda: not cluster.read("networkpolicy", "zt-orders"), "it is open again")


def second_default(cluster: Installation) -> None:
    """A second default TrustDomain is refused twice: its event, in the namespace default, becomes a series."""

    def ready() -> str:
        condition = '{.status.conditions[?(@.type=="Ready")].status}'
        return cluster.plane.kubectl("get", "td", "example.net", "-o", f"jsonpath={condition}", check=False)

    for default in (True, False, True):
        cluster.apply(ours("TrustDomain", "example.net", namespace="", spec={"default": default}))
        cluster.wait_until(lambda default=default: ready() == ("False" if default else "True"), "it is judged")  # type: ignore[misc]
    events = ("get", "events.events.k8s.io", "-n", "default", "-o", "jsonpath={.items[*].series.count}")
    cluster.wait_until(lambda: cluster.plane.kubectl(*events), "a repeated event is a series")
    cluster.plane.kubectl("delete", "td", "example.net")


@pytest.mark.parametrize(
    "question",
    [
        "update trustdomains",
        "patch serviceidentities -n shop",
        "delete serviceidentities -n shop",
        "update serviceidentities/status -n shop",
        "create serviceaccounts/token -n shop",
        "create pods -n shop",
        "patch pods -n shop",
        "delete constrainttemplates.templates.gatekeeper.sh",
        "create otherkinds.constraints.gatekeeper.sh",
        "create pods/exec -n shop",
        "patch namespaces",
        "update secrets -n shop",
        "deletecollection secrets -n shop",
        "create clusterrolebindings",
        "escalate clusterroles",
        "impersonate users",
        "approve certificatesigningrequests",
        "update leases/zerotrust-controller -n kube-system",
        f"update leases/another -n {OPERATOR}",
        "patch customresourcedefinitions",
        "update trustpolicies -n shop",
        "update networkpolicies -n shop",
        "create controllerrevisions -n shop",
        f"patch controllerrevisions -n {OPERATOR}",
        "get services -n shop",
    ],
)
def test_it_may_not(installation: Installation, question: str) -> None:
    answer = installation.plane.kubectl("auth", "can-i", *question.split(), check=False, kubeconfig=installation.rights)
    assert answer.split()[0] == "no", answer


def test_the_deployment_is_accepted_where_pods_are_restricted(installation: Installation) -> None:
    """The namespace enforces the restricted Pod Security Standard; a pod of the template passes it."""
    deployment = json.loads(
        installation.plane.kubectl("get", "deployment", "zerotrust-controller", "-n", OPERATOR, "-o", "json")
    )
    template = deployment["spec"]["template"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "probe", "namespace": OPERATOR},
        "spec": template["spec"],
    }
    answer = installation.plane.kubectl("create", "--dry-run=server", "-o", "name", "-f", "-", stdin=json.dumps(pod))
    assert answer.strip() == "pod/probe"


def test_the_arguments_are_the_command_lines() -> None:
    """What the Deployment passes, the program takes; its probes ask for what the program serves."""
    manifest = (ROOT / "manifests" / "base" / "deployment.yaml").read_text()
    (arguments,) = re.findall(r"args: \[(.*)\]", manifest)
    program = Path(sys.executable).with_name("zerotrust")
    done = subprocess.run(
        [program, *arguments.split(", "), "--help"],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    assert "--namespace" in done.stdout


def of(kind: str, name: str, *, namespace: str = "shop") -> dict[str, object]:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata}


def ours(kind: str, name: str, *, namespace: str = "shop", spec: dict[str, object] | None = None) -> dict[str, object]:
    return {**of(kind, name, namespace=namespace), "apiVersion": "zerotrust.dev/v1alpha1", "spec": spec or {}}
