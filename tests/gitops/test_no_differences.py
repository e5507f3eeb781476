"""What is applied from Git stays as it is there: nobody but the owner of a manifest writes its fields, and no field is filled in
where a comparison would find it."""

import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from hack.controlplane import EXISTING_CLUSTER, ControlPlane
from tests.support.argocd import by_argo_cd
from tests.support.deployment import ROOT, Running, deployed
from tests.support.proving import PROVING, only_in_prove
from zerotrust.common import naming, times

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(EXISTING_CLUSTER in os.environ, reason="installs cluster-wide objects"),
]

# Together they have every example; those of one set do not contradict each other.
SETS = {
    "quickstart": ("examples/quickstart", "examples/api-keys", "examples/opa/10-sidecar.yaml"),
    "shop": ("examples/shop", "examples/nginx/10-sidecar.yaml"),
}
ELSEWHERE = {"argocd", "migration", "namespaced"}  # Applications, what is migrated from, and an installation's rights
INSTALLATION = "manifests/overlays/argocd"
KINDS = ("trustdomains", "serviceidentities", "trustpolicies", "apikeys")
MODES = {"client-side": (), "server-side": ("--server-side", "--field-manager=argocd-controller")}

Body = dict[str, Any]


@dataclass(frozen=True)
class Applied:
    """Manifests that were applied in one of the modes, and the cluster that has them."""

    plane: ControlPlane
    mode: str
    sources: Sequence[str]

    def apply(self) -> None:
        for one in self.sources:
            self.plane.kubectl("apply", *MODES[self.mode], *_source(one))

    def assert_same(self) -> None:
        """`kubectl diff` fails where there is a difference; Argo CD's own comparison is asked in `make prove`."""
        for one in self.sources:
            self.plane.kubectl("diff", *MODES[self.mode], *_source(one))
        if PROVING:
            asked = [{"target": target, "live": self._live(target)} for target in self.targets()]
            answers = by_argo_cd("diff", asked)
            if self.mode == "server-side":
                with tempfile.NamedTemporaryFile("w", suffix=".json") as schemas:
                    schemas.write(self.plane.kubectl("get", "--raw", "/openapi/v2"))
                    schemas.flush()
                    answers += by_argo_cd("diff", asked, Path(schemas.name))
            assert [(one["predicted"], one["live"]) for one in answers if one["modified"]] == []

    def targets(self) -> list[Body]:
        """The manifests one by one."""
        found = []
        for one in self.sources:
            if _source(one)[0] == "-k":
                texts = [self.plane.kubectl("kustomize", str(ROOT / one))]
            else:
                path = ROOT / one
                texts = [each.read_text() for each in (sorted(path.glob("*.yaml")) if path.is_dir() else [path])]
            found += [body for text in texts for body in yaml.load_all(text, Loader=_JsonLike) if body]
        return found

    def _live(self, target: Body) -> Body:
        name, place = target["metadata"]["name"], target["metadata"].get("namespace")
        group, _, version = target["apiVersion"].rpartition("/")
        kind = f"{target['kind']}.{version}.{group}"
        text = self.plane.kubectl(
            "get", kind, name, *(("-n", place) if place else ()), "-o", "json", "--show-managed-fields"
        )
        found: Body = json.loads(text)
        return found


class _JsonLike(yaml.SafeLoader):
    """Leaves times as they are written."""


_JsonLike.yaml_implicit_resolvers = {
    key: [one for one in resolvers if one[0] != "tag:yaml.org,2002:timestamp"]
    for key, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _source(name: str) -> tuple[str, str]:
    path = ROOT / name
    return ("-k" if (path / "kustomization.yaml").exists() else "-f", str(path))


def test_every_example_is_in_a_set() -> None:
    examples = {path.name for path in (ROOT / "examples").iterdir() if path.is_dir()}
    assert {Path(one).parts[1] for found in SETS.values() for one in found} == examples - ELSEWHERE


# Each set and each mode once; the rest in `make prove`.
CASES = [
    pytest.param((name, mode), id=f"{name}-{mode}", marks=() if (name == "shop") == bool(how) else only_in_prove)
    for name in SETS
    for mode, how in MODES.items()
]


@pytest.fixture(scope="module", params=CASES)
def stage(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Running, Applied]]:
    """A set of examples, applied while no controller runs."""
    name, mode = request.param
    with deployed(tmp_path_factory.mktemp("differences")) as running:
        running.controller.stop(30)
        applied = Applied(running.plane, mode, SETS[name])
        applied.apply()
        yield running, applied


def test_applying_leaves_no_difference(stage: tuple[Running, Applied]) -> None:
    """Before the controller worked, after it, and after a renewal that was asked for by annotation."""
    running, applied = stage
    applied.assert_same()
    running.restart_controller()
    running.until(lambda: all(_is_ready(one) for one in running.every("td,svid,tp")), "everything is Ready")
    running.until(lambda: all(one.get("status") for one in running.every("zkey")), "keys are looked at")
    applied.assert_same()

    before = {one["metadata"]["name"]: one["status"]["revision"] for one in running.every("svid", "-n", "shop")}
    time.sleep(1.1)
    asked = f"{naming.ROTATE_REQUESTED}={times.render(datetime.now(UTC))}"
    running.plane.kubectl("annotate", "svid,zkey", "--all", "-n", "shop", asked)
    running.until(
        lambda: all(
            one["status"]["revision"] > before[one["metadata"]["name"]] for one in running.every("svid", "-n", "shop")
        ),
        "everything is renewed",
    )
    applied.assert_same()
    applied.apply()  # no conflict: nobody else owns a field of theirs
    kept = [one["metadata"]["annotations"] for one in running.every("svid,zkey", "-n", "shop")]
    assert all(naming.ROTATE_REQUESTED in one for one in kept), "and what was asked for by annotation stays"


def test_the_operator_writes_nothing_of_our_resources_but_their_status(stage: tuple[Running, Applied]) -> None:
    running, _ = stage
    seen = set()
    for one in running.every(",".join(KINDS), "-A", "--show-managed-fields"):
        for entry in one["metadata"]["managedFields"]:
            if not entry["manager"].startswith(("kubectl", "argocd")):
                seen.add((entry["manager"].split("/")[0], entry.get("subresource"), *entry["fieldsV1"]))
    assert seen == {("zerotrust-operator", "status", "f:status")}


def test_applying_again_and_a_restart_change_nothing(stage: tuple[Running, Applied]) -> None:
    running, applied = stage
    time.sleep(6)  # counts in the TrustDomain's status follow within seconds
    before = _versions(running)
    assert len(before) > 10
    applied.apply()
    running.controller.stop(30)
    running.restart_controller()
    running.until(lambda: "leading" in running.controller.tail(3), "it leads")
    time.sleep(3)
    assert _versions(running) == before


def _is_ready(body: Body) -> bool:
    conditions = body.get("status", {}).get("conditions", [])
    return any((one["type"], one["status"]) == ("Ready", "True") for one in conditions)


def _versions(running: Running) -> dict[tuple[str, str, str], str]:
    """Every object of our kinds and every one that the operator made, with its resourceVersion.

    But for what is remembered of API keys: without a bundle server none is delivered, and a restart takes its plaintext along.
    """
    found = running.every(",".join([*KINDS, "secrets", "configmaps", "networkpolicies", "controllerrevisions"]))
    return {
        (one["kind"], one["metadata"].get("namespace", ""), one["metadata"]["name"]): one["metadata"]["resourceVersion"]
        for one in found
        if naming.api_keys_shard(one["metadata"]["name"]) is None
        and (
            one["apiVersion"] == naming.API_VERSION
            or one["metadata"].get("labels", {}).get(naming.MANAGED_BY) == naming.OPERATOR
        )
    }


@pytest.mark.parametrize("mode", MODES)
def test_the_installation_has_no_difference(mode: str) -> None:
    with ControlPlane() as plane:
        plane.kubectl("apply", "-f", str(ROOT / "crds"))
        plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        applied = Applied(plane, mode, [INSTALLATION])
        applied.apply()
        applied.assert_same()
