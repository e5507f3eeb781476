"""The real gator: its suites, and the ConstraintTemplates on objects that are made while testing."""

import json
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hack.gotools import find_or_build

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = ROOT / "operator" / "zerotrust" / "gatekeeper" / "templates"
# How a failed evaluation reads where a violation's message should be (k8s.io/apiserver, policy/validating/validator.go).
EVALUATION_FAILED = r"resulted in error|failed expression|failed messageExpression|cost budget|compilation"

Body = Mapping[str, Any]


@dataclass(frozen=True)
class Violation:
    """What a constraint of this kind and enforcement action says of an object."""

    kind: str
    object_name: str
    message: str
    action: str = "deny"


def constraint(kind: str, parameters: Body, name: str = "shop", kinds: tuple[str, ...] = ("Pod",)) -> dict[str, Any]:
    """Return a denying Constraint for all objects of these kinds, whatever their API group."""
    match = {"kinds": [{"apiGroups": ["*"], "kinds": list(kinds)}]}
    metadata = {"name": name}
    spec = {"match": match, "parameters": parameters}
    return {"apiVersion": "constraints.gatekeeper.sh/v1beta1", "kind": kind, "metadata": metadata, "spec": spec}


def violations(folder: Path, constraints: Iterable[Body], objects: Iterable[Body]) -> list[Violation]:
    """Ask `gator test` for what the shipped templates, with these constraints, say of the objects, as in an audit."""
    objects_file = folder / "objects.yaml"
    objects_file.write_text("\n---\n".join(json.dumps(one) for one in (*constraints, *objects)))
    command: list[str | Path] = [find_or_build("gator"), "test", "-f", TEMPLATES, "-f", objects_file, "-o", "json"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode in (0, 1), ran.stderr
    found = json.loads(ran.stdout) or []
    return [
        Violation(
            one["constraint"]["kind"],
            one["violatingObject"]["metadata"]["name"],
            one["msg"],
            one["enforcementAction"],
        )
        for one in found
    ]


def verify(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run `gator verify` on every suite below the folder."""
    command: list[str | Path] = [find_or_build("gator"), "verify", f"{folder}/..."]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def review(new: Body, old: Body | None = None) -> dict[str, Any]:
    """Return the AdmissionReview of a pod's creation, or of its update from `old`."""
    request: dict[str, Any] = {
        "uid": "5f6e1b1c-0000-4000-8000-000000000001",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "name": new["metadata"]["name"],
        "namespace": new["metadata"]["namespace"],
        "operation": "UPDATE" if old else "CREATE",
        "userInfo": {"username": "system:serviceaccount:shop:deployer"},
        "object": new,
    }
    if old:
        request["oldObject"] = old
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
