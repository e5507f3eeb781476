"""The whole installation as shipped, admission policies included: controller and bundle server with their accounts' rights."""

import json
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hack.children import Child
from hack.controlplane import ControlPlane, ControlPlaneError
from tests.support.decision_points import Replica
from tests.support.deployment import AT_ONCE, OPERATOR_NAMESPACE, ROOT, Running
from zerotrust.common import naming

CONTROLLER = f"system:serviceaccount:{OPERATOR_NAMESPACE}:zerotrust-controller"
BUNDLE_SERVER = f"system:serviceaccount:{OPERATOR_NAMESPACE}:{naming.BUNDLE_SERVER}"
GROUPS = ("system:serviceaccounts", f"system:serviceaccounts:{OPERATOR_NAMESPACE}")
OURS = {naming.MANAGED_BY: naming.OPERATOR}
DENIED = re.compile(r"ValidatingAdmissionPolicy 'zerotrust-[a-z-]+' with binding 'zerotrust-[a-z-]+' denied request")
# May label every namespace, and knows nothing of TrustDomains.
LABELLER: Mapping[str, Any] = {
    "apiVersion": "v1",
    "kind": "List",
    "items": [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "labeller"},
            "rules": [{"apiGroups": [""], "resources": ["namespaces", "namespaces/status"], "verbs": ["*"]}],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "labeller"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "labeller"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "labeller"}],
        },
    ],
}
REFUSED = re.compile(r"forbidden|unauthorized|denied request|\b40[13]\b|permission", re.IGNORECASE)

Body = dict[str, Any]


class Protected(Running):
    """A running controller whose objects are kept from everybody else, the administrator included."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self.log, self.bundle_log = folder / "controller.log", folder / "bundle-server" / "bundle-server.log"
        super().__init__(plane, folder)
        self.bundle_server = Replica(self, folder / "bundle-server", f"{naming.BUNDLE_SERVER}-0")

    def restart_controller(self) -> None:
        """Apply the manifests, wait until the policies are in force, and start the controller with its account's rights."""
        for name in ("base", "admission"):
            self.plane.kubectl("apply", "-k", str(ROOT / "manifests" / name))
        self._until_protected()
        program = Path(sys.executable).with_name("zerotrust")
        place = ("--kubeconfig", self.rights, "--namespace", OPERATOR_NAMESPACE)
        listen = ("--metrics-host", "127.0.0.1", "--metrics-port", str(self.port))
        self.controller = Child("controller", [program, "controller", *place, *listen, *AT_ONCE], self.log)

    def read(self, kind: str, name: str, namespace: str = "shop") -> Body:
        """An object; empty when there is none."""
        text = self.plane.kubectl("get", kind, name, "-n", namespace, "-o", "json", "--ignore-not-found")
        found: Body = json.loads(text) if text else {}
        return found

    def refusal(self, *arguments: str, stdin: str | None = None, kubeconfig: Path | None = None) -> str:
        """Why kubectl fails; empty when it succeeds."""
        try:
            self.plane.kubectl(*arguments, stdin=stdin, kubeconfig=kubeconfig)
        except ControlPlaneError as error:
            return str(error)
        return ""

    def refuses(self, body: Body, who: Path | None = None) -> str:
        """Why somebody, or the administrator, may not create an object; empty when they may. It is not stored."""
        return self.refusal("create", "--dry-run=server", "-f", "-", stdin=json.dumps(body), kubeconfig=who)

    def _until_protected(self) -> None:
        """Each policy refuses something: until then the API server has not read it."""
        self.plane.kubectl("apply", "-f", "-", stdin=json.dumps(LABELLER))
        self.labeller = self.plane.kubeconfig_for("labeller")
        self.plane.kubectl("wait", "--for=create", "serviceaccount/default", "-n", "default", "--timeout=60s")
        probes = {
            "kept to the operator": (network_policy("probe", OURS, namespace="default"), None),
            "a record": (config_map("probe", OURS, namespace=OPERATOR_NAMESPACE), None),
            "an exempt namespace": (namespace("probe", {naming.EXEMPT: "yes"}), self.labeller),
        }
        deadline = time.monotonic() + 30
        for what, (body, who) in probes.items():
            while not DENIED.search(answer := self.refuses(body, who)):
                assert time.monotonic() < deadline, f"{what} is not refused: {answer}"
                time.sleep(0.1)


def network_policy(name: str, labels: Mapping[str, str] | None = None, *, namespace: str = "shop") -> Body:
    """One that lets everybody in."""
    metadata = {"name": name, "namespace": namespace, "labels": dict(labels or {})}
    spec = {"podSelector": {}, "ingress": [{}], "policyTypes": ["Ingress"]}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}


def secret(name: str, labels: Mapping[str, str] | None = None, *, namespace: str = "shop") -> Body:
    """One with something in it."""
    metadata = {"name": name, "namespace": namespace, "labels": dict(labels or {})}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": {"a": "Yg=="}}


def config_map(name: str, labels: Mapping[str, str] | None = None, *, namespace: str = "shop") -> Body:
    """One with something in it."""
    metadata = {"name": name, "namespace": namespace, "labels": dict(labels or {})}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a": "b"}}


def namespace(name: str, labels: Mapping[str, str] | None = None) -> Body:
    """One with these labels."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": dict(labels or {})}}


def template_of_gatekeeper(labels: Mapping[str, str]) -> Body:
    """One that refuses nothing."""
    names = {"spec": {"names": {"kind": "Ours"}, "validation": {"openAPIV3Schema": {"type": "object"}}}}
    validation = {"expression": "true", "message": "never"}
    code = [{"engine": "K8sNativeValidation", "source": {"validations": [validation]}}]
    return {
        "apiVersion": "templates.gatekeeper.sh/v1",
        "kind": "ConstraintTemplate",
        "metadata": {"name": "ours", "labels": dict(labels)},
        "spec": {"crd": names, "targets": [{"target": "admission.k8s.gatekeeper.sh", "code": code}]},
    }


def constraint_of_gatekeeper(name: str, labels: Mapping[str, str]) -> Body:
    """One of the kind that `kind_of_constraints` makes."""
    spec = {"enforcementAction": "deny"}
    metadata = {"name": name, "labels": dict(labels)}
    return {"apiVersion": "constraints.gatekeeper.sh/v1beta1", "kind": "Kept", "metadata": metadata, "spec": spec}


def kind_of_constraints() -> Body:
    """A kind of constraints, as Gatekeeper makes one for a template."""
    group, names = "constraints.gatekeeper.sh", {"kind": "Kept", "plural": "kept", "singular": "kept"}
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {"name": "v1beta1", "served": True, "storage": True, "schema": schema, "subresources": {"status": {}}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"kept.{group}"},
        "spec": {"group": group, "names": names, "scope": "Cluster", "versions": [version]},
    }
