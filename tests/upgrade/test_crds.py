"""The present CRDs read what was stored under older ones: on a real API server, without a controller."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from hack.controlplane import EXISTING_CLUSTER, ControlPlane
from tests.upgrade.recorded import RECORDINGS, Recording

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(EXISTING_CLUSTER in os.environ, reason="installs older CRDs"),
]

CRDS = Path(__file__).resolve().parents[2] / "crds"
OURS = ("TrustDomain", "ServiceIdentity", "TrustPolicy", "ApiKey")
NOT_FOR_CLIENTS = ("uid", "creationTimestamp", "generation", "ownerReferences", "finalizers")


@pytest.fixture(params=RECORDINGS, ids=str)
def recording(request: pytest.FixtureRequest) -> Recording:
    found: Recording = request.param
    return found


@pytest.fixture
def control_plane() -> Iterator[ControlPlane]:
    """One of its own: the CRDs are the cluster's."""
    with ControlPlane() as plane:
        yield plane


def test_every_stored_object_is_read_and_can_be_written_again(
    recording: Recording, control_plane: ControlPlane
) -> None:
    kubectl = control_plane.kubectl
    kubectl("apply", "-f", "-", stdin=recording.crds)
    kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    bodies = [as_a_client_writes(one) for one in recording.of("Namespace", *OURS)]
    resources = [one for one in bodies if one["kind"] in OURS]
    apply = ("apply", "--server-side", "--force-conflicts", "-f", "-")
    kubectl(*apply, stdin=yaml.safe_dump_all(bodies))
    kubectl(*apply, "--subresource=status", stdin=yaml.safe_dump_all(resources))

    kubectl("apply", "-f", str(CRDS))
    kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")

    kinds = sorted({one["kind"] for one in resources})
    read = {
        place_of(one): one for kind in kinds for one in json.loads(kubectl("get", kind, "-A", "-o", "json"))["items"]
    }
    for body in resources:
        found = read[place_of(body)]
        assert not [one for part in ("spec", "status") for one in missing(body[part], found[part], part)], place_of(
            body
        )
    for kind in kinds:
        # Whoever edits a label must not be refused for what was accepted before.
        scope = () if kind == "TrustDomain" else ("-A",)
        kubectl("label", kind, "--all", *scope, "upgraded=yes")


def place_of(body: Mapping[str, Any]) -> tuple[str, str, str]:
    return body["kind"], body["metadata"].get("namespace", ""), body["metadata"]["name"]


def as_a_client_writes(body: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {name: value for name, value in body["metadata"].items() if name not in NOT_FOR_CLIENTS}
    return {**body, "metadata": metadata}


def missing(stored: Any, found: Any, path: str) -> list[str]:
    """What was stored and is not read any more; what is read in addition are defaults."""
    if isinstance(stored, Mapping) and isinstance(found, Mapping):
        lost = [f"{path}.{name}" for name in stored if name not in found]
        return lost + [
            one for name in stored if name in found for one in missing(stored[name], found[name], f"{path}.{name}")
        ]
    if isinstance(stored, list) and isinstance(found, list) and len(stored) == len(found):
        pairs = enumerate(zip(stored, found, strict=True))
        return [one for number, (old, new) in pairs for one in missing(old, new, f"{path}[{number}]")]
    return [] if stored == found else [f"{path}: {stored!r} is {found!r}"]
