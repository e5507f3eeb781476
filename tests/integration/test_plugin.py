"""`kubectl zerotrust` on a real API server with the controller: every command as a process of its own, without a terminal."""

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from hack.controlplane import EXISTING_CLUSTER
from hack.gotools import find_or_build
from tests.support.deployment import AT_ONCE, ROOT, Running, deployed
from zerotrust.common import naming
from zerotrust.common.naming import API_VERSION

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(EXISTING_CLUSTER in os.environ, reason="installs cluster-wide objects"),
]

READER = "system:serviceaccount:shop:reader"
PROGRAMS = {
    "kubectl-zerotrust": "from zerotrust.cli.main import as_kubectl_plugin as main",
    "kubectl_complete-zerotrust": "from zerotrust.cli.completion import main",
}
RIGHTS = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "Role",
    "metadata": {"name": "reader", "namespace": "shop"},
    "rules": [{"apiGroups": ["zerotrust.dev"], "resources": ["serviceidentities"], "verbs": ["get", "list"]}],
}
BINDING = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "RoleBinding",
    "metadata": {"name": "reader", "namespace": "shop"},
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
    "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": "shop"}],
}


class Said(NamedTuple):
    """What a command has printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


class Plugin:
    """kubectl with the plugin on its PATH, as a user runs it in a script."""

    def __init__(self, kubeconfig: Path, programs: Path) -> None:
        path = f"{programs}{os.pathsep}{os.environ['PATH']}"
        self._environment = {
            **os.environ,
            "KUBECONFIG": str(kubeconfig),
            "PATH": path,
            "NO_COLOR": "1",
            "COLUMNS": "80",
        }
        self._kubectl = str(find_or_build("kubectl"))

    def __call__(self, *arguments: str) -> Said:
        return self.kubectl("zerotrust", *arguments)

    def kubectl(self, *arguments: str) -> Said:
        done = subprocess.run(
            [self._kubectl, *arguments], env=self._environment, capture_output=True, text=True, timeout=120, check=False
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def on_a_terminal(self, *arguments: str) -> str:
        """What a terminal of 80 columns shows."""
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [self._kubectl, "zerotrust", *arguments], env=self._environment, stdout=theirs, stderr=theirs, stdin=theirs
        )
        os.close(theirs)
        shown, deadline = b"", time.monotonic() + 120
        while time.monotonic() < deadline and select.select([ours], [], [], 120)[0]:
            try:
                part = os.read(ours, 65536)
            except OSError:  # the other side is closed
                break
            if not part:
                break
            shown += part
        os.close(ours)
        process.wait(30)
        return shown.decode().replace("\r\n", "\n")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with deployed(tmp_path_factory.mktemp("plugin"), *AT_ONCE) as running:
        running.apply(ROOT / "examples" / "quickstart")
        for kind in ("trustdomains", "serviceidentities"):
            running.plane.kubectl("wait", "--for=condition=Ready", kind, "--all", "-A", "--timeout=60s")
        yield running


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The entry points of pyproject.toml, which a test of them reads, as an installation would have them."""
    folder = tmp_path_factory.mktemp("programs")
    for name, line in PROGRAMS.items():
        path = folder / name
        path.write_text(f"#!{sys.executable}\n{line}\nmain()\n")
        path.chmod(0o755)
    return folder


@pytest.fixture
def plugin(cluster: Running, programs: Path) -> Plugin:
    return Plugin(cluster.plane.kubeconfig, programs)


def get(cluster: Running, kind: str, name: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(cluster.plane.kubectl("get", kind, name, "-n", "shop", "-o", "json"))
    return body


def fresh(cluster: Running, name: str, spec: Mapping[str, Any] | None = None) -> None:
    """A ServiceIdentity with its ServiceAccount."""
    metadata = {"name": name, "namespace": "shop"}
    cluster.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {"apiVersion": API_VERSION, "kind": "ServiceIdentity", "metadata": metadata, "spec": dict(spec or {})},
    )


def test_status_and_why(cluster: Running, plugin: Plugin) -> None:
    well = cluster.until(lambda: (said := plugin("status", "-A")).code == 0 and said, "all is well", every=0.5)
    assert well.out.endswith("All is well.\n"), well
    assert "\x1b" not in well.out
    fresh(cluster, "lost", {"trustDomain": "nowhere.org"})
    cluster.until(lambda: cluster.conditions("svid", "lost", "shop").get("Ready"), "the controller has looked at it")
    why = plugin("why", "svid/lost", "-n", "shop", "-o", "json")
    assert why.code == 1
    assert why.document["problem"]["reason"] == "TrustDomainNotFound"
    assert why.document["whatToDo"] == ["create it, correct spec.trustDomain, or set spec.default on one"]
    assert why.document["decisions"][0]["reason"] == "TrustDomainNotFound"
    near = plugin("why", "svid/ordres", "-n", "shop")
    assert near.code == 2
    assert "there is shop/orders" in near.err
    for arguments in (("status", "-n", "shop"), ("doctor",)):
        lines = re.sub(r"\x1b\[[0-9;]*m", "", plugin.on_a_terminal(*arguments)).splitlines()
        assert len(lines) > 5
        assert max(map(len, lines)) <= 80, [line for line in lines if len(line) > 80]
    cluster.plane.kubectl("delete", "svid", "lost", "-n", "shop")


def test_renew_and_revoke(cluster: Running, plugin: Plugin) -> None:
    before = get(cluster, "svid", "orders")
    time.sleep(1.1)  # certificates and requests count whole seconds
    renewed = plugin("renew", "svid/orders", "-n", "shop", "--timeout", "60s", "-o", "json")
    assert (renewed.code, renewed.document["revision"]) == (0, before["status"]["revision"] + 1), renewed
    after = get(cluster, "svid", "orders")
    assert after["spec"] == before["spec"]
    assert after["metadata"]["annotations"][naming.ROTATE_REQUESTED] == renewed.document["at"]
    verified = plugin("verify", "svid/orders", "-n", "shop")
    assert verified.code == 0, verified
    time.sleep(1.1)
    revoked = plugin("revoke", "svid/orders", "-n", "shop", "--timeout", "60s")
    assert revoked.code == 0, revoked
    status = get(cluster, "svid", "orders")["status"]
    assert status["notBefore"] >= status["revokedBefore"]
    every = plugin("verify", "-A")
    assert (every.code, len(every.out.splitlines())) == (0, 3), every


def test_with_a_readers_rights(cluster: Running, programs: Path) -> None:
    cluster.apply(RIGHTS, BINDING)
    reader = Plugin(cluster.plane.kubeconfig_for(READER), programs)
    seen = reader("status", "-n", "shop", "-o", "json")
    assert seen.code == 2
    assert seen.document["kinds"]["ServiceIdentity"]["total"] == 2
    assert "Missing right: list trustpolicies.zerotrust.dev in namespace shop" in seen.err
    assert seen.document["controller"]["leads"] is None
    why = reader("why", "svid/orders", "-n", "shop")
    assert why.code == 0, why
    assert "Warning: not read: its events" in why.err
    refused = reader("renew", "svid/orders", "-n", "shop")
    assert refused.code == 2
    assert "Missing right: patch serviceidentities.zerotrust.dev in namespace shop" in refused.err
    doctor = reader("doctor", "-o", "json")
    assert doctor.code == 2, doctor
    verdicts = {one["check"]: one["verdict"] for one in doctor.document["checks"]}
    assert (verdicts["Kubernetes"], verdicts["Rights"], verdicts["CRDs"]) == ("ok", "unknown", "unknown")


def test_completion(cluster: Running, plugin: Plugin) -> None:
    assert "status\tShow how everything stands" in plugin.kubectl("__complete", "zerotrust", "sta").out
    named = plugin.kubectl("__complete", "zerotrust", "why", "-n", "shop", "svid/o")
    assert named.out.splitlines()[:2] == ["svid/orders", ":4"]
    assert "_ZEROTRUST_COMPLETE" in plugin("completion", "bash").out


def test_without_a_cluster(tmp_path: Path, programs: Path) -> None:
    nowhere = tmp_path / "kubeconfig"
    body = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "x",
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        "clusters": [{"name": "x", "cluster": {"server": "http://127.0.0.1:9"}}],
        "users": [{"name": "x", "user": {}}],
    }
    nowhere.write_text(json.dumps(body))
    said = Plugin(nowhere, programs)("doctor")
    assert said.code == 2
    assert "the API server did not answer" in said.err
    assert "`kubectl config current-context`" in said.err
    missing = Plugin(tmp_path / "none", programs)("status")
    assert missing.code == 2
    assert "no cluster to talk to" in missing.err


def test_doctor(cluster: Running, plugin: Plugin) -> None:
    """The base is installed last, so that the other tests see a cluster without its admission policies."""

    def findings() -> dict[str, list[tuple[str, str]]]:
        found: dict[str, list[tuple[str, str]]] = {}
        for one in plugin("doctor", "-o", "json").document["checks"]:
            found.setdefault(one["check"], []).append((one["verdict"], one["found"]))
        return found

    bare = findings()
    assert bare["Kubernetes"][0][0] == "ok"
    assert bare["CRDs"] == [("ok", "the 4 CRDs are those of this program")]
    assert bare["Clock"][0][0] == "ok"
    assert bare["Controller"][0][0] == "ok"
    assert [verdict for verdict, _ in bare["Rights"]] == ["ok", "ok"], "tests run with the install's own roles"
    assert "fail" in {verdict for verdict, _ in bare["Admission policies"]}
    assert bare["Network plugin"][0][0] == "unknown"
    cluster.apply(daemon_set("cilium"), *unsafe_pod())
    cluster.plane.kubectl("apply", "-k", str(ROOT / "manifests" / "base"))
    cluster.plane.kubectl("delete", "clusterrolebinding", "zerotrust-bundle-server")
    fit = findings()
    assert [verdict for verdict, _ in fit["Rights"]] == ["ok", "fail"], fit["Rights"]
    assert "zerotrust-bundle-server may not: " in fit["Rights"][1][1]
    assert [verdict for verdict, _ in fit["Admission policies"]] == ["ok", "ok"], fit["Admission policies"]
    assert fit["Network plugin"] == [
        ("ok", "looks like Cilium, by the name of DaemonSet kube-system/cilium: a guess; it enforces NetworkPolicies")
    ]
    seen = sorted(found for verdict, found in fit["Decision points"] if verdict == "fail")
    assert len(seen) == 3, seen
    assert seen[0].startswith("ConfigMap shop/envoy: failure_mode_allow: true")
    assert "OPA listens on 0.0.0.0:8181" in seen[1]
    assert "--skip-verify" in seen[2]


def daemon_set(name: str) -> dict[str, Any]:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "agent", "image": "none"}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": name, "namespace": "kube-system"},
        "spec": {"selector": {"matchLabels": labels}, "template": template},
    }


def unsafe_pod() -> tuple[dict[str, Any], ...]:
    """OPA and Envoy as nobody should run them; nothing runs here, it only stands in the API."""
    envoy = {"data": {"envoy.yaml": "http_filters:\n- failure_mode_allow: true\n"}}
    opa = ["run", "--server", "--addr=0.0.0.0:8181", "--skip-verify"]
    containers = [
        {"name": "opa", "image": "openpolicyagent/opa:1.22.0", "args": opa},
        {
            "name": "envoy",
            "image": "envoyproxy/envoy:v1.36.0",
            "volumeMounts": [{"name": "envoy", "mountPath": "/etc/envoy"}],
        },
    ]
    volumes = [
        {"name": "envoy", "configMap": {"name": "envoy"}},
        {
            "name": "token",
            "projected": {"sources": [{"serviceAccountToken": {"path": "token", "audience": "zerotrust-bundles"}}]},
        },
    ]
    metadata = {"name": "unsafe", "namespace": "shop"}
    return (
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "envoy", "namespace": "shop"}, **envoy},
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": metadata,
            "spec": {"serviceAccountName": "orders", "containers": containers, "volumes": volumes},
        },
    )
