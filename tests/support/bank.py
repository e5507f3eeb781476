"""The installation as shipped beside a real Gatekeeper, with a namespace that is worth attacking, and those who attack it."""

import json
from pathlib import Path
from typing import Any

import yaml

from hack.controlplane import ControlPlane
from hack.gatekeeper import Gatekeeper
from tests.support.attacks import Api, a_pod
from tests.support.deployment import ROOT
from tests.support.gatekeeper import constraint_kind, reads
from tests.support.protected import Protected
from zerotrust.common.naming import API_VERSION
from zerotrust.gatekeeper.templates import CREDENTIALS, LABELS, SERVICES

NAMESPACE = "bank"
# `teller` and `clerk` are selected by the derived label, `ledger` by a label of its own; `intruder` is no identity.
ACCOUNTS = ("teller", "clerk", "ledger", "intruder")
SELECTOR = {"app": "ledger"}
REPLICA_SETS = "system:serviceaccount:kube-system:replicaset-controller"
EXAMPLES = ("quickstart", "api-keys", "opa", "nginx", "shop")
# What tenants are often given besides the ClusterRole `admin`, which has none of it.
MORE_RIGHTS = (
    {"apiGroups": [""], "resources": ["pods/ephemeralcontainers"], "verbs": ["patch", "update"]},
    {"apiGroups": [""], "resources": ["endpoints"], "verbs": ["*"]},
    {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["*"]},
)

Body = dict[str, Any]


class Bank:
    """A cluster with everything in it; `api` has a connection for each of those who try something."""

    def __init__(self, plane: ControlPlane, gatekeeper: Gatekeeper, folder: Path) -> None:
        self.plane, self.gatekeeper = plane, gatekeeper
        self.cluster = Protected(plane, folder)
        try:
            self._fill()
            tenant, labeller = plane.kubeconfig_for("tenant"), self.cluster.labeller
            self.api = {
                "admin": Api(plane, folder),
                "tenant": Api(plane, folder, tenant),
                "labeller": Api(plane, folder, labeller),
                "replica sets": Api(plane, folder, acting_as=REPLICA_SETS),
            }
            self._populate()
            self.until_enforced()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the controller."""
        self.cluster.controller.stop(10)

    def _fill(self) -> None:
        self.plane.kubectl("create", "namespace", NAMESPACE)
        # A TrustDomain comes first.
        for name in EXAMPLES:
            self.cluster.apply(*example(name))
        self.cluster.apply(
            *(ours("ServiceAccount", name, version="v1") for name in ACCOUNTS),
            ours("ServiceIdentity", "teller", {"certificate": {"dnsNames": [f"teller.{NAMESPACE}.svc"]}}),
            ours("ServiceIdentity", "clerk"),
            ours(
                "ServiceIdentity",
                "ledger",
                {"selector": {"matchLabels": SELECTOR}, "certificate": {"dnsNames": [f"ledger.{NAMESPACE}.svc"]}},
            ),
            ours("ApiKey", "partner", an_api_key({"workload": {"name": "clerk", "namespace": NAMESPACE}})),
            ours("ApiKey", "outside", an_api_key({"name": "somebody elsewhere"})),
            ours("TrustPolicy", "everything", a_policy()),
            *rights(),
        )

    def _populate(self) -> None:
        """What runs there rightly, made by the tenant: no refusal and no warning."""
        may = lambda: self.plane.kubectl(  # noqa: E731
            "auth", "can-i", "create", "pods", "-n", NAMESPACE, "--as=tenant", check=False
        ).startswith("yes")
        self.cluster.until(may, "the ClusterRole admin has its rights")
        volume = {"name": "svid", "secret": {"secretName": "teller-svid"}}
        selector = {"zerotrust.dev/service-account": "teller"}
        for body in (
            a_pod("teller-0", "teller", volumes=[volume]),
            a_pod("ledger-0", "ledger", SELECTOR),
            a_pod("clerk-0", "clerk"),
            a_pod("intruder-0", "intruder"),
            ours("Service", "teller", {"selector": selector, "ports": [{"port": 8443}]}, version="v1"),
            ours("Service", "other", {"ports": [{"port": 8443}]}, version="v1"),
        ):
            body["metadata"]["namespace"] = NAMESPACE
            answer = self.api["tenant"].create(body)
            assert answer.accepted, answer.message
            assert not answer.warnings

    def until_enforced(self) -> None:
        """Everything that was asked for, here and by the examples, is enforced by Gatekeeper and the API server."""
        self.cluster.until(
            lambda: {"teller", "ledger", "clerk"} <= set(self.parameters(LABELS).get("identities", {})),
            "labels demanded",
        )
        self.cluster.until(
            lambda: "partner-api-key" in self.parameters(CREDENTIALS).get("secrets", {}), "the key is guarded"
        )
        self.cluster.until(lambda: "ledger" in self.parameters(SERVICES).get("services", {}), "Services are guarded")
        self.cluster.until(self._all_enforced, "every policy's constraints are enforced", every=0.5)

    def _all_enforced(self) -> bool:
        found = [
            self.cluster.conditions("trustpolicy", one["metadata"]["name"], one["metadata"]["namespace"])
            for one in self.cluster.every("trustpolicies")
            if one["spec"].get("mode") != "Observe"
        ]
        return all(one.get("ConstraintsEnforced", ("", ""))[:2] == ("True", "Enforced") for one in found)

    def constraint(self, kind: str) -> Body:
        """The Constraint of a kind that denies in the namespace; empty when there is none."""
        return reads(self.plane, constraint_kind(kind), f"{NAMESPACE}.enforce")

    def parameters(self, kind: str) -> Body:
        """The Constraint's parameters."""
        found: Body = self.constraint(kind).get("spec", {}).get("parameters", {})
        return found


def ours(kind: str, name: str, spec: Body | None = None, *, version: str = API_VERSION) -> Body:
    """An object in the namespace."""
    body = {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}}
    return body if kind == "ServiceAccount" else {**body, "spec": spec or {}}


def example(name: str) -> list[Body]:
    """The manifests of an example in their order."""
    files = sorted((ROOT / "examples" / name).glob("[0-9]*.yaml"))
    return [one for file in files for one in yaml.safe_load_all(file.read_text()) if one]


def a_policy() -> Body:
    """What holds for every identity of the namespace."""
    caller = {"workload": {"name": "clerk", "namespace": NAMESPACE}}
    rule = {"name": "clerks", "from": [caller], "to": [{"port": 8443}]}
    return {"target": {"all": True}, "rules": [rule], "admission": {"allowedRegistries": ["registry.example.org"]}}


def an_api_key(holder: Body) -> Body:
    """A key that `teller` accepts."""
    return {"holder": holder, "audience": ["teller"], "scopes": ["read"]}


def rights() -> list[Body]:
    """The tenant's."""
    group = "rbac.authorization.k8s.io"
    role = {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": {"name": "more", "namespace": NAMESPACE}}
    given = {"more": "Role", "admin": "ClusterRole"}
    return [
        {**role, "rules": list(json.loads(json.dumps(MORE_RIGHTS)))},
        *(
            {
                "apiVersion": f"{group}/v1",
                "kind": "RoleBinding",
                "metadata": {"name": f"tenant-{name}", "namespace": NAMESPACE},
                "roleRef": {"apiGroup": group, "kind": kind, "name": name},
                "subjects": [{"apiGroup": group, "kind": "User", "name": "tenant"}],
            }
            for name, kind in given.items()
        ),
    ]
