"""A control plane with a real Gatekeeper, and what tests ask it: is a constraint in force, what has the audit found."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from hack.controlplane import ControlPlane, ControlPlaneError
from hack.gatekeeper import Gatekeeper

PATIENCE_SECONDS = 60.0
TEMPLATES = "constrainttemplates.templates.gatekeeper.sh"

Body = dict[str, Any]
T = TypeVar("T")


@contextmanager
def running_gatekeeper(folder: Path, audit_seconds: int = 2) -> Iterator[tuple[ControlPlane, Gatekeeper]]:
    """A control plane of its own with a Gatekeeper; both are stopped at the end."""
    with ControlPlane() as plane, Gatekeeper(plane, folder, audit_seconds) as gatekeeper:
        yield plane, gatekeeper


def until(condition: Callable[[], T], what: str) -> T:
    """Wait for a condition and return what it says."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (value := condition()):
        assert time.monotonic() < deadline, f"it never came to this: {what}"
        time.sleep(0.05)
    return value


def apply(plane: ControlPlane, *documents: Body, kubeconfig: Path | None = None) -> None:
    """`kubectl apply` of some objects, by the administrator or somebody else."""
    documents_text = json.dumps({"apiVersion": "v1", "kind": "List", "items": documents})
    plane.kubectl("apply", "-f", "-", stdin=documents_text, kubeconfig=kubeconfig)


def reads(plane: ControlPlane, kind: str, name: str, namespace: str = "") -> Body:
    """An object; empty when there is none, or no such kind."""
    place = ("-n", namespace) if namespace else ()
    text = plane.kubectl("get", kind, name, *place, "-o", "json", "--ignore-not-found", check=False)
    found: Body = json.loads(text) if text.startswith("{") else {}
    return found


def refusal(plane: ControlPlane, document: Body, kubeconfig: Path | None = None) -> str:
    """Why an object may not be created; empty when it may be. Nothing is stored in either case."""
    try:
        plane.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(document), kubeconfig=kubeconfig)
    except ControlPlaneError as error:
        return str(error)
    return ""


def enforce(
    plane: ControlPlane, gatekeeper: Gatekeeper, template: Body, constraint: Body, kubeconfig: Path | None = None
) -> None:
    """Apply a template and its constraint in the order that Gatekeeper needs, and wait until every pod enforces it."""
    apply(plane, template, kubeconfig=kubeconfig)
    name = template["metadata"]["name"]
    until(lambda: is_current(plane, TEMPLATES, name, gatekeeper.pods()), f"template {name} is known to every pod")
    kind, name = constraint["kind"].lower(), constraint["metadata"]["name"]
    # What the API server answers while it learns of a kind is no reason to give up.
    until(lambda: not refusal(plane, constraint, kubeconfig), f"the kind {kind} is served")
    apply(plane, constraint, kubeconfig=kubeconfig)
    until(lambda: is_current(plane, constraint_kind(kind), name, gatekeeper.pods()), f"constraint {name} is enforced")


def constraint_kind(kind: str) -> str:
    """How kubectl names a kind of constraints without mistaking it for another group's."""
    return f"{kind.lower()}.constraints.gatekeeper.sh"


def is_current(plane: ControlPlane, kind: str, name: str, pods: list[str]) -> bool:
    """Tell whether these pods, and no others, say that they work with what is written there now (gatekeeper#1499)."""
    body = reads(plane, kind, name)
    reports = {one["id"]: one for one in body.get("status", {}).get("byPod", [])}
    uid, generation = body.get("metadata", {}).get("uid"), body.get("metadata", {}).get("generation")
    return set(reports) == set(pods) and all(
        one.get("observedGeneration") == generation
        and uid in (one.get("templateUID"), one.get("constraintUID"))
        and one.get("enforced", True)
        for one in reports.values()
    )


def violations(plane: ControlPlane, kind: str, name: str) -> list[Body]:
    """What the last audit found: `kind`, `name`, `namespace`, `message`, `enforcementAction` of each violator."""
    found: list[Body] = reads(plane, constraint_kind(kind), name).get("status", {}).get("violations", [])
    return found
