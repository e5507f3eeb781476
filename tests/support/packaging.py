"""What Kustomize and Helm make of manifests/, with the real programs."""

import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from hack.gotools import find_or_build

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "manifests" / "base"
OVERLAYS = ROOT / "manifests" / "overlays"
CHART = ROOT / "manifests" / "chart"
RELEASE = "zerotrust"
NAMESPACE = "zerotrust-system"
KEEP = ("zerotrust.dev/uninstall", "keep")
Manifest = dict[str, Any]


class Key(NamedTuple):
    """What tells two objects apart."""

    kind: str
    namespace: str
    name: str


class Refused(Exception):
    """Helm does not render these values; the message is its own."""


def key_of(manifest: Manifest) -> Key:
    metadata = manifest["metadata"]
    return Key(manifest["kind"], metadata.get("namespace", ""), metadata["name"])


def objects(text: str) -> dict[Key, Manifest]:
    """The objects of a stream of YAML; none may come twice."""
    found = [one for one in yaml.load_all(text, Loader=yaml.CSafeLoader) if one is not None]
    named = {key_of(one): one for one in found}
    assert len(named) == len(found), "an object is there twice"
    return named


@cache
def kustomized(folder: Path) -> str:
    """What `kubectl kustomize` prints."""
    done = subprocess.run([find_or_build("kubectl"), "kustomize", folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@cache
def templated(*arguments: str | Path, namespace: str = NAMESPACE) -> str:
    """What `helm template` prints, CRDs included. Raises Refused."""
    command = [
        find_or_build("helm"),
        "template",
        RELEASE,
        CHART,
        "--namespace",
        namespace,
        "--include-crds",
        *arguments,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Refused(done.stderr)
    return done.stdout


def sets(*values: str) -> list[str]:
    """Values as options of Helm: `controller.replicas=3`."""
    return [part for value in values for part in ("--set", value)]


def without_keep(manifests: Iterable[Manifest]) -> dict[Key, Manifest]:
    """Without what only Helm reads: the annotation that has it leave an object at an uninstall."""
    found = {}
    for manifest in manifests:
        metadata = dict(manifest["metadata"])
        rest = {
            name: text for name, text in metadata.pop("annotations", {}).items() if name != "helm.sh/resource-policy"
        }
        found[key_of(manifest)] = {**manifest, "metadata": {**metadata, **({"annotations": rest} if rest else {})}}
    return found
