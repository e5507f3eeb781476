"""The kinds of cert-manager in a control plane: its own CRDs from its pinned Go module, or simple ones with the same names."""

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hack.gotools import ToolError, toolchain

MODULE = "github.com/cert-manager/cert-manager"
VERSION = "v1.21.2"
SUM = "h1:UWgoYM+KLNtRlqmoWOKjKBOBUPVHeepQ6/ac3ERJW68="  # as in go.sum
KINDS = {"Certificate": "Namespaced", "Issuer": "Namespaced", "ClusterIssuer": "Cluster"}


def crd_folder() -> Path:
    """Where Go keeps cert-manager's CRDs, fetched when they are not there yet. Raises ToolError."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [toolchain().program, "mod", "download", "-json", f"{MODULE}@{VERSION}"],
            cwd=folder,
            env={**os.environ, "GOWORK": "off"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        raise ToolError(f"cert-manager's CRDs cannot be had: {done.stdout or done.stderr}")
    answer = json.loads(done.stdout)
    if answer["Sum"] != SUM:
        raise ToolError(f"{MODULE}@{VERSION} is not what was pinned: {answer['Sum']}")
    return Path(answer["Dir"], "deploy", "crds")


def simple_crds() -> list[dict[str, Any]]:
    """CRDs that accept any spec."""
    return [_crd(kind, scope) for kind, scope in KINDS.items()]


def _crd(kind: str, scope: str) -> dict[str, Any]:
    plural = f"{kind.lower()}s"
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.cert-manager.io"},
        "spec": {
            "group": "cert-manager.io",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "scope": scope,
            "versions": [version],
        },
    }
