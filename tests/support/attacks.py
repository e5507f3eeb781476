"""Attacks on admission: what is asked of the API server, by whom, what it is to answer, and how long that took."""

import http.client
import json
import re
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hack.controlplane import ControlPlane
from hack.kubeconfig import read

Body = dict[str, Any]

CORE, ADMISSION = "api/v1", "apis/admissionregistration.k8s.io/v1"
NETWORKING, RBAC = "apis/networking.k8s.io/v1", "apis/rbac.authorization.k8s.io/v1"
CONSTRAINTS = "apis/constraints.gatekeeper.sh/v1beta1"
# Kinds whose plural is not their name and an s, or that are in no namespace.
PLURALS = {
    "NetworkPolicy": "networkpolicies",
    "Endpoints": "endpoints",
    "Ingress": "ingresses",
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
}
CLUSTER_SCOPED = (
    "Namespace",
    "PersistentVolume",
    "ConstraintTemplate",
    "ValidatingWebhookConfiguration",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
)
PATCH, MERGE = "application/strategic-merge-patch+json", "application/merge-patch+json"
POLICY = re.compile(r"ValidatingAdmissionPolicy '([^']+)' with binding '[^']+' denied request: ")
WEBHOOK = re.compile(r'admission webhook "([^"]+)" denied the request: ')
GROUPS = {
    "Pod": CORE,
    "Service": CORE,
    "Endpoints": CORE,
    "Namespace": CORE,
    "Secret": CORE,
    "ServiceAccount": CORE,
    "PersistentVolume": CORE,
    "EndpointSlice": "apis/discovery.k8s.io/v1",
    "NetworkPolicy": NETWORKING,
    "Deployment": "apps/v1",
    "ConstraintTemplate": "apis/templates.gatekeeper.sh/v1",
    "ValidatingWebhookConfiguration": ADMISSION,
    "ValidatingAdmissionPolicy": ADMISSION,
    "ValidatingAdmissionPolicyBinding": ADMISSION,
}


@dataclass(frozen=True)
class Answer:
    """The API server's answer; `milliseconds` are without the handshake of the connection."""

    status: int
    body: Body
    warnings: tuple[str, ...]
    milliseconds: float

    @property
    def accepted(self) -> bool:
        """Whether it did what it was asked for."""
        return self.status < http.HTTPStatus.BAD_REQUEST

    @property
    def message(self) -> str:
        """What it says to a refusal."""
        return str(self.body.get("message", ""))

    @property
    def outcome(self) -> str:
        """Who refused it, or that nobody did."""
        if self.accepted:
            return "ACCEPTED"
        if found := POLICY.search(self.message):
            return f"denied by policy {found[1]}"
        if found := WEBHOOK.search(self.message):
            return f"denied by webhook {found[1]}"
        by_rights = self.status == http.HTTPStatus.FORBIDDEN and 'User "' in self.message
        return "denied by RBAC" if by_rights else f"invalid ({self.status})"


class Api:
    """The API server for one user; `acting_as` is whom an administrator impersonates."""

    def __init__(self, plane: ControlPlane, folder: Path, kubeconfig: Path | None = None, acting_as: str = "") -> None:
        access = read(kubeconfig or plane.kubeconfig)
        address = urlsplit(access.url)
        self._host, self._port = str(address.hostname), address.port
        self._tls = ssl.create_default_context(cadata=access.authority.decode())
        assert access.credential
        # The module reads certificates from files only.
        pem = folder / "client.pem"
        pem.touch(mode=0o600)
        pem.write_bytes(access.credential.certificate + access.credential.key)
        self._tls.load_cert_chain(pem)
        pem.unlink()
        self._headers = {"Impersonate-User": acting_as, "Impersonate-Group": "system:masters"} if acting_as else {}

    def ask(self, method: str, path: str, body: Body | None = None, content: str = "application/json") -> Answer:
        """Send one request and read its answer."""
        connection = http.client.HTTPSConnection(self._host, self._port, timeout=30, context=self._tls)
        try:
            connection.connect()
            text = json.dumps(body) if body is not None else None
            began = time.monotonic()
            connection.request(method, f"/{path}", text, {**self._headers, "Content-Type": content})
            response = connection.getresponse()
            answer = json.loads(response.read())
            took = (time.monotonic() - began) * 1000
            return Answer(response.status, answer, tuple(response.headers.get_all("Warning") or ()), took)
        finally:
            connection.close()

    def create(self, body: Body, subresource: str = "") -> Answer:
        """Create an object in the namespace that it names."""
        path = path_of(body["apiVersion"], body["kind"], body["metadata"].get("namespace", ""))
        return self.ask("POST", path + subresource, body)


def path_of(version: str, kind: str, namespace: str, name: str = "", subresource: str = "") -> str:
    """The path of an object, or of all of its kind; `version` may also be the path of its group."""
    group = version if version.startswith("api") else f"apis/{version}" if "/" in version else f"api/{version}"
    plural = PLURALS.get(kind, kind.lower() + "s")
    if group == CONSTRAINTS:
        plural, namespace = kind.lower(), ""
    place = f"namespaces/{namespace}/" if namespace and kind not in CLUSTER_SCOPED else ""
    return f"{group}/{place}{plural}" + (f"/{name}" if name else "") + (f"/{subresource}" if subresource else "")


@dataclass(frozen=True)
class Attack:
    """One request; `expected` is a regular expression that the refusal meets, `who` one of the users of the test."""

    method: str
    path: str
    expected: str
    body: Body | None = None
    who: str = "tenant"
    content: str = "application/json"

    def by(self, api: Mapping[str, Api]) -> Answer:
        """Try it."""
        return api[self.who].ask(self.method, self.path, self.body, self.content)


class AttackBook:
    """Makes attacks on the objects of one namespace."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace

    def creating(self, body: Body, expected: str, who: str = "tenant", subresource: str = "") -> Attack:
        """Somebody makes an object; it is put into the namespace."""
        body = {**body, "metadata": {**body["metadata"], "namespace": self.namespace}}
        path = path_of(body["apiVersion"], body["kind"], self.namespace)
        return Attack("POST", path + (f"/{subresource}" if subresource else ""), expected, body, who)

    def patching(
        self, kind: str, name: str, change: Body, expected: str, who: str = "tenant", subresource: str = ""
    ) -> Attack:
        """Somebody changes an object."""
        content = PATCH if kind == "Pod" else MERGE
        return Attack("PATCH", self._path(kind, name, subresource), expected, change, who, content)

    def deleting(self, kind: str, name: str, expected: str, who: str = "tenant") -> Attack:
        """Somebody deletes an object, or without a name all of its kind."""
        return Attack("DELETE", self._path(kind, name), expected, None, who)

    def reading(self, kind: str, name: str, expected: str, who: str = "tenant") -> Attack:
        """Somebody reads an object."""
        return Attack("GET", self._path(kind, name), expected, None, who)

    def _path(self, kind: str, name: str, subresource: str = "") -> str:
        group = CONSTRAINTS if kind.startswith("ZeroTrust") else GROUPS[kind]
        return path_of(group, kind, self.namespace, name, subresource)


def a_pod(name: str, account: str, labels: Mapping[str, str] | None = None, **spec: Any) -> Body:
    """A pod with one container, whose image is from a registry that is allowed."""
    metadata = {"name": name, "labels": dict(labels or {})}
    containers = [{"name": "main", "image": "registry.example.org/app:1"}]
    inner = {"serviceAccountName": account, "containers": containers, **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": inner}


def uses_of(secret: str) -> dict[str, Body]:
    """Every way in which a new pod can use a Secret (k8s.io/kubernetes/pkg/api/v1/pod VisitPodSecretNames): parts of a spec."""
    reference, monitors = {"name": secret}, ["192.0.2.1"]
    gateway = {"gateway": "https://192.0.2.1", "system": "s"}
    target = {"targetPortal": "192.0.2.1", "iqn": "iqn.2026-01.org.example:x", "lun": 0, "chapAuthSession": True}
    volumes: dict[str, Body] = {
        "secret": {"secretName": secret},
        "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}, {"secret": reference}]},
        "csi": {"driver": "csi.example.org", "nodePublishSecretRef": reference},
        "flexVolume": {"driver": "example.org/driver", "secretRef": reference},
        "iscsi": {**target, "secretRef": reference},
        "rbd": {"monitors": monitors, "image": "x", "secretRef": reference},
        "cephfs": {"monitors": monitors, "secretRef": reference},
        "cinder": {"volumeID": "x", "secretRef": reference},
        "scaleIO": {**gateway, "volumeName": "x", "secretRef": reference},
        "storageos": {"volumeName": "x", "secretRef": reference},
        "azureFile": {"secretName": secret, "shareName": "x"},
    }
    uses: dict[str, Body] = {
        f"volume {kind}": {"volumes": [{"name": "stolen", kind: source}]} for kind, source in volumes.items()
    }
    for kind in ("containers", "initContainers"):
        for form, given in environment_of(secret).items():
            uses[f"{form} in {kind}"] = {kind: [{"name": "main" if kind == "containers" else "first", **given}]}
    sidecar = {"name": "sidecar", "restartPolicy": "Always", **environment_of(secret)["envFrom"]}
    return uses | {
        "envFrom in a sidecar": {"initContainers": [sidecar]},
        "imagePullSecrets": {"imagePullSecrets": [reference]},
    }


def environment_of(secret: str) -> dict[str, Body]:
    """The two ways of a container to have a Secret in its environment."""
    value = {"secretKeyRef": {"name": secret, "key": "tls.key"}}
    image = {"image": "registry.example.org/app:1"}
    return {
        "env": {**image, "env": [{"name": "KEY", "valueFrom": value}]},
        "envFrom": {**image, "envFrom": [{"secretRef": {"name": secret}}]},
    }


@dataclass
class Scores:
    """What came of each attack, for people to read."""

    rows: list[tuple[str, str, float]] = field(default_factory=list)

    def note(self, attack: str, outcome: str, milliseconds: float) -> None:
        """One more."""
        self.rows.append((attack, outcome, milliseconds))

    def table(self) -> str:
        """A row for each attack, in the order in which they were made."""
        width = max((len(attack) for attack, _, _ in self.rows), default=0)
        wide = max((len(outcome) for _, outcome, _ in self.rows), default=0)
        lines = [f"{attack:<{width}} | {outcome:<{wide}} | {took:8.1f}" for attack, outcome, took in self.rows]
        return "\n".join([f"{'attack':<{width}} | {'outcome':<{wide}} | {'ms':>8}", *lines])
