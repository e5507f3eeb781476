"""Every manifest that we ship: its schema, what the real API server says, and Pod Security."""

import json
import os
import subprocess
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from pathlib import Path

import pytest

from hack.controlplane import EXISTING_CLUSTER, ControlPlane
from hack.gotools import find_or_build
from tests.support.openapi import write_schemas
from tests.support.packaging import (
    BASE,
    NAMESPACE,
    OVERLAYS,
    ROOT,
    Key,
    Manifest,
    key_of,
    kustomized,
    objects,
    sets,
    templated,
)

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(EXISTING_CLUSTER in os.environ, reason="installs cluster-wide objects"),
]

NAMES = sorted(path.name for path in OVERLAYS.iterdir())
FOREIGN = ("argoproj.io", "cert-manager.io")  # groups of what is not installed here
EVERYTHING = sets(
    "imagePullSecrets[0].name=registry",
    "commonAnnotations.contact=platform",
    "controller.allowPrivateIssuers={10.0.0.0/8}",
    "controller.tolerations[0].operator=Exists",
    "bundleServer.nodeSelector.pool=system",
    "priorityClassName=system-cluster-critical",
)


def examples() -> list[Path]:
    """Folders whose manifests `kubectl apply -f` takes."""
    return sorted({path.parent for path in (ROOT / "examples").rglob("[0-9]*.yaml")})


def folder(path: Path) -> str:
    return "---\n".join(one.read_text() for one in sorted(path.glob("[0-9]*.yaml")))


SOURCES: dict[str, Callable[[], str]] = {
    "base": partial(kustomized, BASE),
    "namespaced": partial(kustomized, ROOT / "manifests" / "namespaced"),
    **{f"overlay-{name}": partial(kustomized, OVERLAYS / name) for name in NAMES},
    # With other values the chart renders these: test_chart.py.
    "chart-everything": partial(templated, *EVERYTHING),
    "chart-namespaces": partial(templated, *sets("namespaces={shop,web}")),
    **{f"example-{path.name}": partial(folder, path) for path in examples()},
}


@cache
def manifests() -> list[Manifest]:
    """Everything, but what is the same in two sources only once."""
    found = (one for source in SOURCES.values() for one in objects(source()).values())
    served = (one for one in found if one["apiVersion"].split("/")[0] not in FOREIGN)
    return list({json.dumps(one, sort_keys=True): one for one in served}.values())


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """With our kinds, every namespace that the manifests name, and the accounts of our pods."""
    with ControlPlane() as running:
        running.kubectl("apply", "-k", str(ROOT / "crds"))
        running.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        running.kubectl("apply", "-f", str(BASE / "namespace.yaml"))
        named = {key_of(one).namespace for one in manifests()} - {"", NAMESPACE, "default"}
        namespaces = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in sorted(named)]
        accounts = [one for key, one in objects(kustomized(BASE)).items() if key.kind == "ServiceAccount"]
        running.kubectl("apply", "-f", "-", stdin=json_stream([*namespaces, *accounts]))
        yield running


@pytest.fixture(scope="module")
def schemas(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> str:
    document = json.loads(plane.kubectl("get", "--raw", "/openapi/v2"))
    return write_schemas(document, tmp_path_factory.mktemp("schemas"))


def test_every_manifest_fits_its_schema(schemas: str) -> None:
    told = kubeconform(schemas, manifests())
    assert told["resources"] == []
    assert told["summary"] == {"valid": len(manifests()), "invalid": 0, "errors": 0, "skipped": 0}


def test_kubeconform_would_find_a_fault(schemas: str) -> None:
    base = objects(kustomized(BASE))
    identity = base[Key("ServiceIdentity", NAMESPACE, "zerotrust-bundle-server")]
    deployment = base[Key("Deployment", NAMESPACE, "zerotrust-controller")]
    wrong = [
        {**identity, "spec": {"certificate": {"dnsName": []}}},
        {**deployment, "spec": {**deployment["spec"], "replicas": "two"}},
        {**deployment, "spec": {**deployment["spec"], "replica": 2}},
    ]
    assert kubeconform(schemas, wrong)["summary"]["invalid"] == len(wrong)


def json_stream(documents: Iterable[Manifest]) -> str:
    return "\n---\n".join(map(json.dumps, documents))


def kubeconform(schemas: str, documents: list[Manifest]) -> Manifest:
    command: list[str | Path] = [
        find_or_build("kubeconform"),
        "-strict",
        "-summary",
        "-output",
        "json",
        "-schema-location",
        schemas,
        "-",
    ]
    text = json_stream(documents)
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    told: Manifest = json.loads(done.stdout)
    return told


def test_the_api_server_takes_every_manifest(plane: ControlPlane) -> None:
    """Warnings count too: unknown and duplicate fields, deprecated kinds, pods that would be refused."""
    command: list[str | Path] = [
        find_or_build("kubectl"),
        "--kubeconfig",
        plane.kubeconfig,
        "apply",
        "--dry-run=server",
        "-f",
        "-",
    ]
    text = json_stream(manifests())
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    # kube-system is in an example, and was not made by `kubectl apply`.
    warnings = [line for line in done.stderr.splitlines() if "namespaces/kube-system is missing" not in line]
    assert (done.returncode, warnings) == (0, [])
    assert len(done.stdout.splitlines()) == len(manifests())


def test_pods_are_admitted_where_pods_are_restricted(plane: ControlPlane) -> None:
    """Real Pods, in the namespace that the base makes."""
    deployments = [one for one in manifests() if one["kind"] == "Deployment" and key_of(one).namespace == NAMESPACE]
    assert {"zerotrust-controller", "zerotrust-bundle-server"} == {key_of(one).name for one in deployments}
    templates = [one["spec"]["template"] for one in deployments]
    pods = [a_pod(f"pod-{at}", one["metadata"], one["spec"]) for at, one in enumerate(templates)]
    plane.kubectl("create", "-f", "-", stdin=json_stream(pods))


def a_pod(name: str, metadata: Manifest, spec: Manifest) -> Manifest:
    place = {**metadata, "name": name, "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": place, "spec": spec}


@pytest.mark.parametrize(
    "change",
    [
        {"hostNetwork": True},
        {"securityContext": {"runAsUser": 0}},
        {"securityContext": {"seccompProfile": {"type": "Unconfined"}, "runAsNonRoot": True}},
        {"volumes": [{"name": "svid", "hostPath": {"path": "/"}}]},
    ],
    ids=["hostNetwork", "root", "unconfined", "hostPath"],
)
def test_other_pods_are_refused_there(plane: ControlPlane, change: Manifest) -> None:
    (one,) = [
        one for key, one in objects(kustomized(BASE)).items() if key[::2] == ("Deployment", "zerotrust-bundle-server")
    ]
    pod = a_pod("refused", {}, {**one["spec"]["template"]["spec"], **change})
    told = plane.kubectl("create", "-f", "-", stdin=json.dumps(pod), check=False)
    assert 'violates PodSecurity "restricted:latest"' in told
