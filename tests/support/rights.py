"""The rights that an installation gives to its two accounts, and what is done with them.

Tests start the controller and the bundle server with exactly the roles of manifests/base. The API servers' audit logs tell every
request of those processes: at the end of a session none of them may have been refused, and at the end of the whole suite every
right must have been used (`--every-right`).
"""

import json
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, Literal, Self

import yaml

from hack.controlplane import ControlPlane
from hack.gotools import find_or_build
from tests.support import audit

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "manifests" / "base"
CONTROLLER, BUNDLE_SERVER = "zerotrust-controller", "zerotrust-bundle-server"
# A test that lets the operator watch a namespace of this name takes care that it may not.
UNREADABLE = "unreadable"
RBAC_KINDS = ("ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
OURS = ("zerotrust-operator/", "kopf/")  # as the processes call themselves; kubectl, with the same rights, is a test's
ACCOUNT = re.compile(rf"system:serviceaccount:([^:]+):({CONTROLLER}|{BUNDLE_SERVER})")

Body = dict[str, Any]
Place = Literal["anywhere", "default", "own"]


@dataclass(frozen=True, order=True)
class Right:
    """One verb on one resource, as one rule gives it; `place` says in which namespaces."""

    account: str
    role: str
    group: str
    resource: str
    verb: str
    names: tuple[str, ...]
    place: Place

    def __str__(self) -> str:
        names = f" {' '.join(self.names)}" if self.names else ""
        return f"{self.role}: {self.verb} {self.resource}{f'.{self.group}' if self.group else ''}{names}"

    def covers(self, request: "Request") -> bool:
        """Tell whether a request needs this right."""
        where = {"anywhere": True, "default": request.namespace == "default", "own": request.namespace == request.own}
        return (
            (self.account, self.group, self.resource, self.verb)
            == (request.account, request.group, request.resource, request.verb)
            and (not self.names or request.name in self.names)
            and where[self.place]
        )


@dataclass(frozen=True)
class Request:
    """What one of the processes asked an API server for; `own` is the operator's namespace."""

    account: str
    own: str
    verb: str
    group: str
    resource: str
    name: str
    namespace: str
    allowed: bool

    def __str__(self) -> str:
        place = f" {self.namespace}/{self.name}" if self.namespace else f" {self.name}".rstrip()
        return f"{self.account}: {self.verb} {self.resource}{f'.{self.group}' if self.group else ''}{place}"


@dataclass
class Usage:
    """What was seen in audit logs; rights as texts, so that xdist can hand them on."""

    used: set[str] = field(default_factory=set)
    refused: list[str] = field(default_factory=list)
    requests: int = 0

    def add(self, other: "Usage") -> None:
        """Put together what several sessions have seen."""
        self.used |= other.used
        self.refused += other.refused
        self.requests += other.requests

    def to_json(self) -> str:
        """What `from_json` reads."""
        return json.dumps({"used": sorted(self.used), "refused": self.refused, "requests": self.requests})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        told = json.loads(text)
        return cls(set(told["used"]), told["refused"], told["requests"])

    @property
    def unused(self) -> list[str]:
        """The rights of manifests/base that nothing has used."""
        return sorted({str(one) for one in given(BASE)} - self.used)

    def summary(self) -> str:
        """One line for a person."""
        return (
            f"{self.requests} requests of the operator, {len(self.refused)} refused;"
            f" {len(self.used)} of {len({str(one) for one in given(BASE)})} rights used"
        )


@cache
def rendered(folder: Path) -> tuple[Body, ...]:
    """What `kubectl kustomize` makes of a folder."""
    command = (find_or_build("kubectl"), "kustomize", folder)
    done = subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    return tuple(one for one in yaml.safe_load_all(done.stdout) if one)


@cache
def given(folder: Path) -> tuple[Right, ...]:
    """The rights that the manifests of a folder give to the operator's accounts."""
    documents = rendered(folder)
    roles = {_key(one): one for one in documents if one["kind"] in ("Role", "ClusterRole")}
    found: list[Right] = []
    for binding in (one for one in documents if one["kind"] in ("RoleBinding", "ClusterRoleBinding")):
        reference, namespace = binding["roleRef"], binding["metadata"].get("namespace", "")
        role = roles[reference["kind"], namespace if reference["kind"] == "Role" else "", reference["name"]]
        for subject in binding["subjects"]:
            for rule in role["rules"]:
                found += _rights(subject["name"], role, rule)
    return tuple(sorted(found))


def _key(document: Mapping[str, Any]) -> tuple[str, str, str]:
    return document["kind"], document["metadata"].get("namespace", ""), document["metadata"]["name"]


def _rights(account: str, role: Body, rule: Mapping[str, Sequence[str]]) -> Iterable[Right]:
    kind, _, name = _key(role)
    place: Place = "own" if kind == "Role" else "default" if name.endswith("-default") else "anywhere"
    for group, resource, verb in product(rule["apiGroups"], rule["resources"], rule["verbs"]):
        yield Right(account, f"{kind} {name}", group, resource, verb, tuple(rule.get("resourceNames", ())), place)


def requests(log: Path) -> Iterable[Request]:
    """What the operator's processes asked one API server for."""
    for event in audit.events(log):
        account = ACCOUNT.fullmatch(event["user"].get("username", ""))
        reference = event.get("objectRef")
        if account is None or reference is None or not event.get("userAgent", "").startswith(OURS):
            continue
        resource = "/".join(part for part in (reference["resource"], reference.get("subresource")) if part)
        yield Request(
            account=account[2],
            own=account[1],
            verb=event["verb"],
            group=reference.get("apiGroup", ""),
            resource=resource,
            name=reference.get("name", ""),
            namespace=reference.get("namespace", ""),
            allowed=event.get("annotations", {}).get("authorization.k8s.io/decision") == "allow",
        )


def usage(folder: Path) -> Usage:
    """What all audit logs below a folder tell."""
    found, rights = Usage(), given(BASE)
    for log in sorted(folder.rglob(audit.AUDIT_LOG)):
        for request in set(asked := list(requests(log))):
            if request.allowed:
                found.used |= {str(right) for right in rights if right.covers(request)}
            elif request.namespace != UNREADABLE:
                found.refused.append(str(request))
        found.requests += len(asked)
    return found


def install(plane: ControlPlane, namespace: str) -> None:
    """Create the accounts and roles of manifests/base, and nothing else of it, with `namespace` as the operator's own."""
    documents = [one for one in rendered(BASE) if one["kind"] in RBAC_KINDS]
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": documents})
    plane.kubectl("apply", "-f", "-", stdin=text.replace('"zerotrust-system"', json.dumps(namespace)))


def kubeconfig_of(plane: ControlPlane, account: str, namespace: str) -> Path:
    """A kubeconfig of one of the accounts, whose namespace is the operator's."""
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
    return plane.kubeconfig_for(f"system:serviceaccount:{namespace}:{account}", groups)
