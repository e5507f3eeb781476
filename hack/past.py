"""Older revisions of this repository at work: their CRDs, examples and programs, from git's history.

`python -m hack.past REVISION` records what one writes, for tests/upgrade: it runs that revision on a control plane of its own,
with its examples, and stores every object below `tests/upgrade/recorded`. The keys in there were made for this and are nobody's.
"""

import argparse
import base64
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import yaml

from hack.children import Child
from hack.controlplane import ControlPlane

ROOT = Path(__file__).resolve().parent.parent
RECORDED = ROOT / "tests" / "upgrade" / "recorded"
NAMESPACE = "zerotrust-system"
SECONDS = 180.0
QUIET_SECONDS = 6.0
EXAMPLES = ("quickstart", "shop", "api-keys")
KINDS = ("trustdomains", "serviceidentities", "trustpolicies", "apikeys")
MANAGED = "app.kubernetes.io/managed-by=zerotrust-operator"
BUNDLE_SERVER = "zerotrust-bundle-server"
# What an API server sets anew, or what no decision may depend on.
LEFT_OUT = ("managedFields", "resourceVersion")


class Past:
    """The files of an older revision, unpacked inside a `with` block; `program` are the words that start its command line."""

    def __init__(self, revision: str) -> None:
        self.revision = revision

    def __enter__(self) -> "Past":
        self._folder = tempfile.TemporaryDirectory(prefix="zerotrust-past-")
        self.root = Path(self._folder.name)
        archive = subprocess.run(["git", "archive", self.revision], cwd=ROOT, capture_output=True, check=True).stdout
        with tarfile.open(fileobj=BytesIO(archive)) as packed:
            packed.extractall(self.root, filter="data")
        self.program = (sys.executable, "-m", "zerotrust")
        self.environment = {**os.environ, "PYTHONPATH": str(self.root / "operator")}
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    @property
    def examples(self) -> list[Path]:
        """Those of its examples that its objects are made from."""
        return [path for name in EXAMPLES if (path := self.root / "examples" / name).is_dir()]

    @contextmanager
    def controller(self, plane: ControlPlane, log: Path) -> Iterator[Child]:
        """Its controller at work, stopped in order at the end."""
        command = [*self.program, "controller", "--kubeconfig", str(plane.kubeconfig), "--namespace", NAMESPACE]
        command += ["--metrics-host", "127.0.0.1", "--metrics-port", "0"]
        child = Child("the older controller", command, log, directory=self.root, environment=self.environment)
        try:
            yield child
        finally:
            child.stop(30)

    @contextmanager
    def bundle_server(self, plane: ControlPlane, folder: Path) -> Iterator[None]:
        """Its bundle server, with an identity of its own, so that API keys get delivered."""
        place = {"name": BUNDLE_SERVER, "namespace": NAMESPACE}
        identity = {"apiVersion": "zerotrust.dev/v1alpha1", "kind": "ServiceIdentity", "metadata": place}
        host = f"{BUNDLE_SERVER}.{NAMESPACE}.svc"
        plane.kubectl(
            "apply",
            "-f",
            "-",
            stdin=yaml.safe_dump_all(
                [
                    {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": place},
                    {**identity, "spec": {"certificate": {"dnsNames": [host]}}},
                ]
            ),
        )
        wait = ("wait", "--for=condition=Ready", "svid", BUNDLE_SERVER, "-n", NAMESPACE, f"--timeout={SECONDS:.0f}s")
        plane.kubectl(*wait)
        secret = json.loads(plane.kubectl("get", "secret", f"{BUNDLE_SERVER}-svid", "-n", NAMESPACE, "-o", "json"))
        for name, value in secret["data"].items():
            (folder / name).write_bytes(base64.b64decode(value))
        command = [*self.program, "bundle-server", "--kubeconfig", str(plane.kubeconfig), "--namespace", NAMESPACE]
        command += ["--svid", str(folder), "--pod", "replica-0", "--host", "127.0.0.1", "--port", "0"]
        command += ["--metrics-host", "127.0.0.1", "--metrics-port", "0"]
        log = folder / "bundle-server.log"
        child = Child("the older bundle server", command, log, directory=self.root, environment=self.environment)
        try:
            yield
        finally:
            child.stop(5)

    @contextmanager
    def at_work(self, plane: ControlPlane, folder: Path) -> Iterator[None]:
        """All of it, until it has done what its examples ask for; at the end nothing of it runs any more."""
        plane.kubectl("apply", "-f", str(self.root / "crds"))
        plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        plane.kubectl("create", "namespace", NAMESPACE)
        with self.controller(plane, folder / "older-controller.log"):
            for example in self.examples:
                plane.kubectl("apply", "-f", str(example))
            if "apikeys" not in served_kinds(plane):
                settled(plane)
                yield
                return
            svid = folder / "older-svid"
            svid.mkdir()
            with self.bundle_server(plane, svid):
                settled(plane)
                yield


def served_kinds(plane: ControlPlane) -> list[str]:
    """Our kinds that the API server knows, the authorities first."""
    known = plane.kubectl("api-resources", "--api-group=zerotrust.dev", "-o", "name").split()
    return [kind for kind in KINDS if f"{kind}.zerotrust.dev" in known]


def settled(plane: ControlPlane) -> list[dict[str, Any]]:
    """Wait until every resource of ours tells whether it is Ready and nothing has changed for a while; returns `written`."""
    deadline = time.monotonic() + SECONDS
    before, since = written(plane), time.monotonic()
    while time.monotonic() < deadline:
        time.sleep(0.5)
        now = written(plane)
        if now != before or not all(_is_told(one) for one in now if one["apiVersion"].startswith("zerotrust.dev/")):
            before, since = now, time.monotonic()
        elif time.monotonic() - since > QUIET_SECONDS:
            return now
    raise TimeoutError(f"still changing after {SECONDS:.0f} s")


def every(plane: ControlPlane, kind: str, *selection: str) -> list[dict[str, Any]]:
    """All objects of a kind, without what an API server sets anew."""
    items = json.loads(plane.kubectl("get", kind, "-A", *selection, "-o", "json"))["items"]
    for item in items:
        for field in LEFT_OUT:
            item["metadata"].pop(field, None)
    return list(items)


def written(plane: ControlPlane) -> list[dict[str, Any]]:
    """Everything that a user and the operator have written, namespaces first."""
    ours = {"default", "kube-node-lease", "kube-public", "kube-system"}
    found = [one for one in every(plane, "namespaces") if one["metadata"]["name"] not in ours]
    accounts = every(plane, "serviceaccounts")
    named = [
        one for one in accounts if one["metadata"]["namespace"] not in ours and one["metadata"]["name"] != "default"
    ]
    found += named
    for kind in served_kinds(plane):
        found += every(plane, kind)
    for kind in ("secrets", "configmaps", "networkpolicies", "controllerrevisions"):
        found += every(plane, kind, "-l", MANAGED)
    return found


def _is_told(body: dict[str, Any]) -> bool:
    return any(one["type"] == "Ready" for one in body.get("status", {}).get("conditions", ()))


def record(revision: str) -> Path:
    """Run a revision and store what it writes; returns the folder."""
    short = subprocess.run(
        ["git", "rev-parse", "--short=7", revision], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    folder = RECORDED / short
    with tempfile.TemporaryDirectory() as name, Past(revision) as past, ControlPlane() as plane:
        with past.at_work(plane, Path(name)):
            crds = [yaml.safe_load(path.read_text()) for path in sorted((past.root / "crds").glob("*.yaml"))]
        objects = written(plane)
    folder.mkdir(parents=True, exist_ok=True)
    header = f"# Recorded by `python -m hack.past {short}`: what that revision wrote. The keys are nobody's.\n"
    for file, documents in (("crds.yaml", crds), ("objects.yaml", objects)):
        (folder / file).write_text(header + yaml.safe_dump_all(documents, sort_keys=False, width=10_000))
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(description="Records what an older revision writes, for tests/upgrade.")
    parser.add_argument("revision", help="a commit of this repository")
    print(f"wrote {record(parser.parse_args().revision).relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
