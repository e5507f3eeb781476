"""The controller as a process against the real API server: what a user does, and what a user gets."""

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from hack.controlplane import ControlPlane
from hack.gotools import find_or_build
from tests.support import rights

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Deployment:
    """A running controller and the cluster it works on."""

    plane: ControlPlane
    operator_namespace: str
    trust_domain: str
    log: Path
    process: subprocess.Popen[bytes]

    def kubectl(self, *arguments: str, stdin: Any = None, check: bool = True) -> str:
        text = stdin if isinstance(stdin, str) or stdin is None else yaml.safe_dump_all(stdin)
        return self.plane.kubectl(*arguments, stdin=text, check=check)

    def get(self, kind: str, name: str, namespace: str | None = None) -> dict[str, Any] | None:
        place = ("-n", namespace) if namespace else ()
        text = self.kubectl("get", kind, name, *place, "-o", "json", "--ignore-not-found")
        return json.loads(text) if text.strip() else None

    def until(self, condition: Callable[[], Any], what: str, seconds: float = 60) -> Any:
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            assert self.process.poll() is None, f"the controller ended:\n{self.log.read_text()[-3000:]}"
            assert time.monotonic() < deadline, f"gave up waiting until {what}:\n{self.log.read_text()[-3000:]}"
            time.sleep(0.1)
        return value

    def condition(self, name: str, namespace: str, type_: str = "Ready") -> tuple[str, str]:
        body = self.get("svid", name, namespace) or {}
        for one in body.get("status", {}).get("conditions", []):
            if one["type"] == type_:
                return one["status"], one["reason"]
        return "", ""

    def ready(self, name: str, namespace: str) -> dict[str, Any]:
        self.until(lambda: self.condition(name, namespace)[0] == "True", f"{namespace}/{name} is Ready")
        body = self.get("svid", name, namespace)
        assert body is not None
        return body

    def identity(self, name: str, namespace: str, account: bool = True, **spec: Any) -> None:
        objects = [resource("ServiceIdentity", name, namespace, {"trustDomain": self.trust_domain, **spec})]
        if account:
            objects.insert(
                0, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}
            )
        self.kubectl("apply", "-f", "-", stdin=objects)

    def events(self, namespace: str, name: str) -> list[str]:
        text = self.kubectl("get", "events.events.k8s.io", "-n", namespace, "-o", "json")
        return [one["reason"] for one in json.loads(text)["items"] if one["regarding"]["name"] == name]


def resource(kind: str, name: str, namespace: str = "", spec: Any = None) -> dict[str, Any]:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": "zerotrust.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec or {}}


def start(plane: ControlPlane, namespace: str, log: Path) -> subprocess.Popen[bytes]:
    program = Path(sys.executable).with_name("zerotrust")
    arguments = ["--namespace", namespace, "--metrics-host", "127.0.0.1", "--metrics-port", "0"]
    access = rights.kubeconfig_of(plane, rights.CONTROLLER, namespace)
    environment = {**os.environ, "KUBECONFIG": str(access)}
    return subprocess.Popen([program, "controller", *arguments], stderr=log.open("ab"), env=environment)


@pytest.fixture(scope="module")
def deployed(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    control_plane.kubectl("apply", "-f", str(ROOT / "crds"))
    control_plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    unique = uuid.uuid4().hex[:8]
    namespace, trust_domain = f"operator-{unique}", f"{unique}.example.org"
    control_plane.kubectl("create", "namespace", namespace)
    rights.install(control_plane, namespace)
    log = tmp_path_factory.mktemp("controller") / "log"
    control_plane.kubectl(
        "apply",
        "-f",
        "-",
        stdin=yaml.safe_dump(
            resource(
                "TrustDomain",
                trust_domain,
                spec={"identities": {"keyAlgorithms": ["ECDSA-P256", "ECDSA-P384", "RSA-2048"]}},
            )
        ),
    )
    process = start(control_plane, namespace, log)
    deployment = Deployment(control_plane, namespace, trust_domain, log, process)
    try:
        deployment.until(
            lambda: any(
                one["type"] == "Ready" and one["status"] == "True"
                for one in (deployment.get("td", trust_domain) or {}).get("status", {}).get("conditions", [])
            ),
            "the TrustDomain is Ready",
        )
        yield deployment
    finally:
        deployment.process.send_signal(signal.SIGTERM)
        assert deployment.process.wait(30) == 0
        control_plane.kubectl("delete", "td", trust_domain, "--wait=false")
        control_plane.kubectl("delete", "namespace", namespace, "--wait=false")


@pytest.mark.parametrize("algorithm", ["ECDSA-P256", "ECDSA-P384", "RSA-2048"])
def test_an_svid_is_issued_and_every_verifier_accepts_it(
    deployed: Deployment, namespace: str, tmp_path: Path, algorithm: str
) -> None:
    deployed.identity(
        "orders", namespace, certificate={"keyAlgorithm": algorithm, "dnsNames": [f"orders.{namespace}.svc"]}
    )
    status = deployed.ready("orders", namespace)["status"]
    expected = f"spiffe://{deployed.trust_domain}/ns/{namespace}/sa/orders"
    assert status["spiffeID"] == expected
    secret = deployed.get("secret", "orders-svid", namespace)
    assert secret is not None
    assert secret["type"] == "kubernetes.io/tls"
    for key, value in secret["data"].items():
        (tmp_path / key).write_bytes(base64.b64decode(value))
    verify = [Path(sys.executable).with_name("zerotrust"), "verify", "secret/orders-svid", "-n", namespace]
    place = ["--kubeconfig", deployed.plane.kubeconfig, "--trust-domain", deployed.trust_domain]
    ours = subprocess.run([*verify, *place], capture_output=True, text=True, check=False)
    assert ours.returncode == 0, ours.stdout + ours.stderr
    if shutil.which("openssl"):
        command = ["openssl", "verify", "-x509_strict", "-CAfile", tmp_path / "ca.crt", tmp_path / "tls.crt"]
        subprocess.run(command, check=True, capture_output=True)
    for bundle in ("ca.crt", "bundle.spiffe.json"):
        command = [find_or_build("spiffe-verify"), "-cert", tmp_path / "tls.crt", "-bundle", tmp_path / bundle]
        theirs = subprocess.run(
            [*command, "-trust-domain", deployed.trust_domain, "-id", expected],
            capture_output=True,
            text=True,
            check=False,
        )
        assert theirs.returncode == 0, theirs.stdout + theirs.stderr
    bundle_map = deployed.get("configmap", f"{deployed.trust_domain}.trust-bundle", namespace)
    assert bundle_map is not None
    assert bundle_map["data"]["bundle.pem"].encode() == (tmp_path / "ca.crt").read_bytes()
    assert "Issued" in deployed.until(lambda: deployed.events(namespace, "orders"), "the event is there")


def test_over_long_names_are_refused_at_the_door(deployed: Deployment, namespace: str) -> None:
    for body in (
        resource("ServiceIdentity", "a" * 64, namespace),
        resource("TrustDomain", "a." * 100 + "example"),
        resource("ServiceIdentity", "fine", namespace, {"serviceAccountName": "a" * 64}),
    ):
        answer = deployed.plane.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(body), check=False)
        assert deployed.get("svid", "fine", namespace) is None, answer


def test_an_unknown_trust_domain_is_told_and_waited_for(deployed: Deployment, namespace: str) -> None:
    deployed.identity("orders", namespace, trustDomain="later.example.org")
    deployed.until(lambda: deployed.condition("orders", namespace) == ("False", "TrustDomainNotFound"), "it is told")
    deployed.kubectl("apply", "-f", "-", stdin=[resource("TrustDomain", "later.example.org")])
    try:
        deployed.ready("orders", namespace)
    finally:
        deployed.kubectl("delete", "td", "later.example.org")
    deployed.until(
        lambda: deployed.condition("orders", namespace) == ("False", "TrustDomainNotFound"), "its end is told"
    )
    assert deployed.get("secret", "orders-svid", namespace) is not None, "what was issued is not taken away"


def test_a_missing_service_account_is_waited_for(deployed: Deployment, namespace: str) -> None:
    deployed.identity("orders", namespace, account=False)
    deployed.until(lambda: deployed.condition("orders", namespace) == ("False", "ServiceAccountNotFound"), "it is told")
    assert deployed.get("secret", "orders-svid", namespace) is None
    deployed.kubectl("create", "serviceaccount", "orders", "-n", namespace)
    deployed.ready("orders", namespace)


def test_a_foreign_secret_is_reported_and_left_alone(deployed: Deployment, namespace: str) -> None:
    deployed.kubectl("create", "secret", "generic", "orders-svid", "-n", namespace, "--from-literal=mine=1")
    before = deployed.get("secret", "orders-svid", namespace)
    deployed.identity("orders", namespace)
    deployed.until(lambda: deployed.condition("orders", namespace) == ("False", "SecretConflict"), "it is told")
    assert deployed.condition("orders", namespace, "SecretConflict")[0] == "True"
    assert deployed.condition("orders", namespace, "Stalled")[0] == "True"
    assert deployed.get("secret", "orders-svid", namespace) == before
    deployed.kubectl("delete", "secret", "orders-svid", "-n", namespace)
    deployed.ready("orders", namespace)
    assert deployed.condition("orders", namespace, "Stalled") == ("", "")


def test_two_identities_for_one_account_or_one_secret(deployed: Deployment, namespace: str) -> None:
    deployed.identity("orders", namespace)
    deployed.ready("orders", namespace)
    time.sleep(1.1)  # creationTimestamp counts whole seconds
    deployed.identity("again", namespace, serviceAccountName="orders")
    deployed.until(
        lambda: deployed.condition("again", namespace) == ("False", "DuplicateIdentity"), "the younger is told"
    )
    deployed.identity("thief", namespace, secret={"name": "orders-svid"})
    deployed.until(lambda: deployed.condition("thief", namespace) == ("False", "SecretConflict"), "the thief is told")
    assert deployed.condition("orders", namespace)[0] == "True"
    deployed.kubectl("delete", "svid", "orders", "-n", namespace)
    deployed.ready("again", namespace)


def test_hand_edits_are_repaired(deployed: Deployment, namespace: str) -> None:
    deployed.identity("orders", namespace, secret={"labels": {"team": "shop"}})
    deployed.ready("orders", namespace)

    def data() -> dict[str, str]:
        return dict((deployed.get("secret", "orders-svid", namespace) or {}).get("data", {}))

    before = data()
    for patch in (
        {"data": {"ca.crt": "AAAA"}},
        {"metadata": {"labels": {"team": None}}},
        {"metadata": {"labels": {"app.kubernetes.io/managed-by": None}}},
    ):
        deployed.kubectl("patch", "secret", "orders-svid", "-n", namespace, "--type=merge", "-p", json.dumps(patch))

        def repaired() -> bool:
            secret = deployed.get("secret", "orders-svid", namespace) or {}
            labels = secret.get("metadata", {}).get("labels", {})
            return (
                secret.get("data") == before
                and labels.get("team") == "shop"
                and "app.kubernetes.io/managed-by" in labels
            )

        deployed.until(repaired, f"{patch} is repaired")
    for key in ("tls.crt", "tls.key"):
        corrupt = {"data": {key: base64.b64encode(b"-----BEGIN CERTIFICATE-----\nnonsense\n").decode()}}
        deployed.kubectl("patch", "secret", "orders-svid", "-n", namespace, "--type=merge", "-p", json.dumps(corrupt))
        deployed.until(lambda c=corrupt, k=key: data().get(k) not in (c["data"][k], None), f"corrupt {key} is replaced")
        deployed.ready("orders", namespace)
    deployed.kubectl("delete", "secret", "orders-svid", "-n", namespace)
    deployed.until(data, "a deleted Secret is made anew")


def test_rotation_on_request(deployed: Deployment, namespace: str) -> None:
    deployed.identity("orders", namespace)
    first = deployed.ready("orders", namespace)["status"]["revision"]
    time.sleep(1.1)
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    deployed.kubectl("annotate", "svid", "orders", "-n", namespace, f"zerotrust.dev/rotate-requested-at={moment}")

    def revision() -> int:
        return int((deployed.get("svid", "orders", namespace) or {})["status"]["revision"])

    deployed.until(lambda: revision() == first + 1, "the annotation is acted on")
    deployed.kubectl(
        "annotate",
        "svid",
        "orders",
        "-n",
        namespace,
        "--overwrite",
        "zerotrust.dev/rotate-requested-at=2020-01-01T00:00:00Z",
    )
    time.sleep(2)
    assert revision() == first + 1, "going back does nothing"


def test_deletion_takes_the_secret_along_unless_it_is_retained(deployed: Deployment, namespace: str) -> None:
    deployed.identity("orders", namespace)
    deployed.identity("payments", namespace, deletionPolicy="Retain")
    deployed.ready("orders", namespace)
    deployed.ready("payments", namespace)
    kept = deployed.get("secret", "payments-svid", namespace)
    deployed.kubectl("delete", "svid", "orders", "payments", "-n", namespace)
    deployed.until(lambda: deployed.get("secret", "orders-svid", namespace) is None, "the Secret is collected", 120)
    assert (deployed.get("secret", "payments-svid", namespace) or {}).get("data") == (kept or {})["data"]
    deployed.identity("payments", namespace, deletionPolicy="Retain")
    assert deployed.ready("payments", namespace)["status"]["revision"] == 1, "a retained Secret is taken up again"


def test_fields_of_later_versions_say_so(deployed: Deployment, namespace: str) -> None:
    deployed.identity("orders", namespace, egress={"mode": "Isolated"}, secret={"formats": ["PKCS12"]})
    deployed.ready("orders", namespace)
    body = deployed.get("svid", "orders", namespace) or {}
    (told,) = [one for one in body["status"]["conditions"] if one["type"] == "NotImplementedYet"]
    assert told["status"] == "True"
    assert "spec.egress" not in told["message"]
    assert "spec.secret.formats" in told["message"]


def test_nothing_secret_is_told_anywhere(deployed: Deployment, namespace: str) -> None:
    """I10: every private key in the cluster is searched in every log line, event, status and annotation."""
    deployed.identity("orders", namespace)
    deployed.ready("orders", namespace)
    secrets = json.loads(deployed.kubectl("get", "secrets", "-A", "-o", "json"))["items"]
    keys = [base64.b64decode(one["data"]["tls.key"]) for one in secrets if "tls.key" in one.get("data", {})]
    fragments = {line for key in keys for line in key.splitlines() if len(line) > 30}
    assert fragments
    told = deployed.log.read_bytes()
    for kind in ("events.events.k8s.io", "svid", "td", "configmaps", "leases"):
        told += deployed.kubectl("get", kind, "-A", "-o", "json").encode()
    for one in secrets:
        told += json.dumps(one["metadata"]).encode()
    for fragment in fragments:
        assert fragment not in told
        assert base64.b64encode(fragment) not in told


def test_a_restart_writes_nothing_and_keeps_every_key(deployed: Deployment, namespace: str) -> None:
    for number in range(5):
        deployed.identity(f"workload-{number}", namespace)
    for number in range(5):
        deployed.ready(f"workload-{number}", namespace)
    time.sleep(7)  # counts in the TrustDomain's status follow within seconds
    before = versions(deployed, namespace)
    deployed.process.send_signal(signal.SIGKILL)
    deployed.process.wait()
    deployed.process = start(deployed.plane, deployed.operator_namespace, deployed.log)
    deployed.identity("late", namespace)
    deployed.ready("late", namespace)
    time.sleep(5)
    after = versions(deployed, namespace)
    assert {place: after[place] for place in before} == before


def versions(deployed: Deployment, namespace: str) -> dict[tuple[str, str], str]:
    found = {}
    for kind in ("svid", "secrets", "configmaps"):
        for one in json.loads(deployed.kubectl("get", kind, "-n", namespace, "-o", "json"))["items"]:
            found[(one["kind"], one["metadata"]["name"])] = one["metadata"]["resourceVersion"]
    return found
