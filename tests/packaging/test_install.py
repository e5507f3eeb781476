"""An administrator installs, upgrades and uninstalls by the commands of the guides, with kubectl and with Helm."""

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hack.controlplane import EXISTING_CLUSTER, ControlPlane
from hack.gotools import find_or_build
from tests.docs.blocks import blocks
from tests.docs.commands import commands
from tests.docs.sandbox import Sandbox
from tests.support.kubelet import Kubelet
from tests.support.packaging import KEEP, NAMESPACE, ROOT, Key, Manifest, key_of

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(EXISTING_CLUSTER in os.environ, reason="installs cluster-wide objects"),
]

INSTALL, UNINSTALL = "docs/guides/install.md", "docs/guides/uninstall.md"
PART_OF = "app.kubernetes.io/part-of=zerotrust-operator"
MANAGED = "app.kubernetes.io/managed-by=zerotrust-operator"
IDENTITIES = {("shop", "orders"), ("shop", "payments"), ("web", "frontend"), (NAMESPACE, "zerotrust-bundle-server")}
POLICY = {
    "apiVersion": "zerotrust.dev/v1alpha1",
    "kind": "TrustPolicy",
    "metadata": {"name": "orders", "namespace": "shop"},
    "spec": {
        "target": {"identities": ["orders"]},
        "rules": [
            {
                "name": "frontend-calls",
                "from": [{"workload": {"name": "frontend", "namespace": "web"}}],
                "to": [{"port": 8443}],
            }
        ],
    },
}
KINDS = (
    "crd,namespace,serviceaccount,role,rolebinding,clusterrole,clusterrolebinding,deployment,service,poddisruptionbudget,"
    "mutatingadmissionpolicy,mutatingadmissionpolicybinding,validatingadmissionpolicy,validatingadmissionpolicybinding,"
    "networkpolicy,resourcequota"
)
# What is written although nothing is to be done: whose turn it is, and what replicas report of themselves.
RUNNING_COSTS = re.compile(r'kind="(Lease|Event)"')
QUIET_SECONDS = 3.0
CLOSED = Key("NetworkPolicy", "shop", "zt-orders")


class Admin:
    """Someone with a cluster, a checkout and the guides; `way` is kubectl or Helm."""

    def __init__(self, way: str, plane: ControlPlane, folder: Path) -> None:
        self.way, self.plane = way, plane
        self.shell = Sandbox(folder, plane)
        (self.shell.folder / ".venv" / "bin" / "helm").symlink_to(find_or_build("helm"))
        for kind in ("CACHE", "CONFIG", "DATA"):
            self.shell.environment[f"HELM_{kind}_HOME"] = str(folder / "helm")
        overlay = self.shell.folder / "overlay"
        overlay.mkdir()
        (text,) = [one.text for one in blocks("yaml") if one.page == INSTALL and "kind: Kustomization" in one.text]
        (overlay / "kustomization.yaml").write_text(text)
        self.kubelet = Kubelet(plane, NAMESPACE, folder / "pods")

    def follow(self, page: str, heading: str, program: str = "") -> str:
        """Run the commands under a heading, or those of one program, and return what the last one prints."""
        chosen = [text for text in under(page, heading) if text.startswith(program) and "rollout" not in text]
        assert chosen, f"{page}: nothing to run under {heading!r}"
        return [self.run(text) for text in chosen][-1]

    def run(self, text: str) -> str:
        ran = self.shell.run(text)
        assert ran.code == 0, f"$ {text}\n{ran.output}{ran.errors}"
        return ran.output

    def install(self) -> None:
        self.follow(INSTALL, f"With {self.way}")

    def start(self) -> None:
        self.kubelet.start("zerotrust-controller")
        self.kubelet.start("zerotrust-bundle-server")
        self.kubelet.until(lambda: all(one.answers("/readyz") for one in self.kubelet.running), "every pod is ready")

    def upgrade(self) -> str:
        if self.way == "kubectl":
            return self.run("kubectl apply -k overlay")
        return self.run(
            "kubectl apply -k crds && helm upgrade zerotrust manifests/chart -n zerotrust-system --reuse-values"
        )

    def uninstall(self) -> None:
        """Pods end first: nothing here depends on their seeing it."""
        self.kubelet.stop()
        self.follow(UNINSTALL, "Remove the operator", "kubectl" if self.way == "kubectl" else "helm")

    def every(self, kinds: str, *arguments: str) -> dict[Key, Manifest]:
        """All objects of some kinds."""
        found = self.plane.kubectl("get", kinds, "-A", *arguments, "-o", "json", "--ignore-not-found")
        return {key_of(one): one for one in (json.loads(found)["items"] if found else [])}

    def ready(self, kind: str) -> set[tuple[str, str]]:
        """Namespace and name of those that say so."""

        def is_ready(one: Manifest) -> bool:
            told = one.get("status", {}).get("conditions", [])
            return any((condition["type"], condition["status"]) == ("Ready", "True") for condition in told)

        return {(key.namespace, key.name) for key, one in self.every(kind).items() if is_ready(one)}

    def writes(self) -> float:
        """How often the controller and the bundle server have written something that users see."""
        pages = [one.metrics() for one in self.kubelet.running]
        lines = [line for page in pages for line in page.splitlines() if line.startswith("zerotrust_api_writes_total{")]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if not RUNNING_COSTS.search(line))


def under(page: str, heading: str) -> list[str]:
    """The commands of a page under a heading, with those of the headings below it."""
    lines = (ROOT / page).read_text().splitlines()
    start = next(at for at, line in enumerate(lines, 1) if line == f"## {heading}")
    end = next((at for at, line in enumerate(lines, 1) if at > start and line.startswith("## ")), len(lines) + 1)
    return [one.text for one in commands() if one.block.page == page and start < one.block.line < end]


def content(found: dict[Key, Manifest]) -> dict[Key, Any]:
    """What matters of Secrets and NetworkPolicies, to compare before and after."""
    return {key: (one.get("data"), one.get("spec"), one["metadata"]["labels"]) for key, one in found.items()}


@pytest.fixture(scope="module")
def admin(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Admin]:
    with ControlPlane() as plane:
        one = Admin(request.param, plane, tmp_path_factory.mktemp(request.param))
        try:
            yield one
        finally:
            one.kubelet.stop()


@pytest.mark.parametrize("admin", ["kubectl", "Helm"], indirect=True)
def test_install_upgrade_uninstall(admin: Admin) -> None:
    admin.install()
    admin.run("kubectl apply -f examples/quickstart")
    admin.start()
    admin.kubelet.until(lambda: admin.ready("svid") == IDENTITIES, "every identity is Ready")
    assert admin.ready("td") == {("", "example.org")}

    admin.plane.kubectl("apply", "-f", "-", stdin=json.dumps(POLICY))
    admin.plane.kubectl("apply", "-f", "-", stdin=json.dumps(a_pod("orders")))
    admin.kubelet.until(lambda: CLOSED in admin.every("networkpolicies", "-l", MANAGED), "it is isolated")
    admin.kubelet.until(lambda: admin.ready("tp"), "the policy is Ready")

    settled(admin)
    before = admin.writes(), generations(admin)
    admin.upgrade()
    time.sleep(QUIET_SECONDS)
    assert (admin.writes(), generations(admin)) == before

    secrets = content(admin.every("secrets", "-l", MANAGED))
    networks = content(admin.every("networkpolicies", "-l", MANAGED))
    declared = admin.every("td,svid,tp,zkey")
    admin.uninstall()
    nothing_is_open(admin, networks)
    del secrets[Key("Secret", NAMESPACE, "zerotrust-bundle-server-svid")]  # its identity is part of the installation
    admin.kubelet.until(lambda: content(admin.every("secrets", "-l", MANAGED)) == secrets, "its Secret is collected")
    del declared[Key("ServiceIdentity", NAMESPACE, "zerotrust-bundle-server")]
    assert admin.every("td,svid,tp,zkey").keys() == declared.keys()
    left = admin.every(KINDS, "-l", PART_OF).values()
    assert left
    assert all(KEEP in one["metadata"]["labels"].items() for one in left)

    admin.install()
    admin.kubelet.start("zerotrust-controller", replicas=1)
    admin.kubelet.until(lambda: admin.ready("svid") == IDENTITIES, "the operator is back")
    again = content(admin.every("secrets", "-l", MANAGED))
    assert {name: again[name] for name in secrets} == secrets, "nothing was issued anew"
    assert content(admin.every("networkpolicies", "-l", MANAGED)) == networks


def generations(admin: Admin) -> dict[Key, Any]:
    """Which version of its spec each object of the installation has."""
    found = {key: one["metadata"] for key, one in admin.every(KINDS, "-l", PART_OF).items()}
    return {key: metadata.get("generation", metadata["uid"]) for key, metadata in found.items()}


def settled(admin: Admin) -> None:
    """Wait until nothing has been written for a while."""
    seen = [-1.0, time.monotonic()]

    def quiet() -> bool:
        if (now := admin.writes()) != seen[0]:
            seen[:] = [now, time.monotonic()]
        return time.monotonic() - seen[1] > QUIET_SECONDS

    admin.kubelet.until(quiet, "nothing more is written")


def a_pod(account: str) -> Manifest:
    spec = {"serviceAccountName": account, "containers": [{"name": "main", "image": "none"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": account, "namespace": "shop"}, "spec": spec}


def nothing_is_open(admin: Admin, networks: dict[Key, Any]) -> None:
    """The same NetworkPolicies, which nobody may change, select by labels that nobody may forge."""
    assert content(admin.every("networkpolicies", "-l", MANAGED)) == networks
    refused = admin.plane.kubectl("delete", "networkpolicy", "zt-orders", "-n", "shop", check=False)
    assert "is kept by the zerotrust-operator" in refused
    forged = a_pod("payments")
    forged["metadata"] |= {"name": "forged", "labels": {"zerotrust.dev/service-account": "orders"}}
    refused = admin.plane.kubectl("create", "-f", "-", stdin=json.dumps(forged), check=False)
    assert "the pod runs as ServiceAccount" in refused


@pytest.mark.parametrize("admin", ["kubectl"], indirect=True)
def test_remove_everything(admin: Admin) -> None:
    declared, domains, templates, *rest = under(UNINSTALL, "Remove everything")
    admin.run(declared)
    admin.run(domains)
    admin.kubelet.until(lambda: not admin.every("td,svid,tp,zkey"), "what users declared is gone")
    svids = ("secrets", "-l", "zerotrust.dev/component=svid")
    admin.kubelet.until(lambda: not admin.every(*svids), "and so are its Secrets")
    assert not admin.every("networkpolicies", "-l", MANAGED)[CLOSED]["spec"].get("ingress")

    admin.uninstall()
    *lifting, opening = under(UNINSTALL, "Open what is isolated")
    for text in lifting:
        admin.run(text)
    admin.kubelet.until(lambda: admin.shell.run(opening).code == 0, "the admission policies are out of force")
    assert "the server doesn't have a resource type" in admin.shell.run(templates).errors
    for text in rest:
        admin.run(text)
    everything = "all,secrets,configmaps,networkpolicies,controllerrevisions"
    assert not [key for label in (PART_OF, MANAGED) for key in admin.every(f"{everything},{KINDS}", "-l", label)]
