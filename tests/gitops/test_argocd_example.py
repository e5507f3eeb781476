"""The example for Argo CD: what it names exists, its waves fit the overlay's, and Argo CD's own schemas accept it."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from hack.controlplane import ControlPlane
from hack.gotools import MODULES_FOLDER, find_or_build
from tests.support.argocd import MANIFEST
from tests.support.deployment import ROOT
from tests.support.gatekeeper import until
from tests.support.proving import only_in_prove

EXAMPLE = ROOT / "examples" / "argocd"
ESTABLISHED = 'jsonpath={.items[*].status.conditions[?(@.type=="Established")].status}'
WAVE, OPTIONS = "argocd.argoproj.io/sync-wave", "argocd.argoproj.io/sync-options"

Body = dict[str, Any]


def documents() -> list[Body]:
    return [body for path in sorted(EXAMPLE.glob("*.yaml")) for body in yaml.safe_load_all(path.read_text())]


def named(kind: str) -> dict[str, Body]:
    return {body["metadata"]["name"]: body for body in documents() if body["kind"] == kind}


def kustomize(folder: Path) -> list[Body]:
    done = subprocess.run([find_or_build("kubectl"), "kustomize", folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [body for body in yaml.safe_load_all(done.stdout) if body]


def wave(body: Body) -> int:
    return int(body["metadata"].get("annotations", {}).get(WAVE, "0"))


def test_what_the_applications_name_is_there() -> None:
    operator = named("Application")["zerotrust-operator"]["spec"]
    assert (ROOT / operator["sources"][0]["path"] / "kustomization.yaml").is_file()
    teams = named("ApplicationSet")["teams"]["spec"]["template"]["spec"]
    assert {operator["project"], teams["project"]} == set(named("AppProject"))
    for spec in (operator, teams):
        assert "ServerSideApply=true" in spec["syncPolicy"]["syncOptions"]


def test_the_operator_and_its_trust_domain_share_a_wave_after_the_crds() -> None:
    # The bundle server's pods wait for an SVID: in a later wave, the TrustDomain would wait for them.
    found = kustomize(ROOT / "manifests" / "overlays" / "argocd")
    crds = [one for one in found if one["kind"] == "CustomResourceDefinition"]
    assert len(crds) == 4
    assert {wave(one) for one in crds} == {-1}
    assert {wave(one) for one in found if one["kind"] in ("Deployment", "ServiceIdentity")} == {0}
    for one in crds:
        assert set(one["metadata"]["annotations"][OPTIONS].split(",")) >= {"Prune=false", "Delete=false"}


def test_a_teams_waves_are_identities_then_policies(tmp_path: Path) -> None:
    example = tmp_path / "examples"
    shutil.copytree(ROOT / "examples" / "shop", example / "shop")
    shutil.copytree(EXAMPLE / "waves", example / "waves")
    resources = sorted(path.name for path in (example / "shop").glob("*.yaml"))
    kustomization = {"resources": resources, "components": ["../waves"]}
    (example / "shop" / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    waves: dict[str, set[int]] = {}
    for body in kustomize(example / "shop"):
        waves.setdefault(body["kind"], set()).add(wave(body))
    assert waves == {
        "Namespace": {0},
        "ServiceAccount": {0},
        "TrustDomain": {0},
        "ServiceIdentity": {1},
        "TrustPolicy": {2},
    }


def test_the_customizations_merge_into_an_argocd_cm(tmp_path: Path) -> None:
    own = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "argocd-cm"},
        "data": {"url": "https://cd.example.org"},
    }
    (tmp_path / "argocd-cm.yaml").write_text(yaml.safe_dump(own))
    shutil.copy(MANIFEST, tmp_path / "zerotrust.yaml")
    kustomization = {"resources": ["argocd-cm.yaml"], "patches": [{"path": "zerotrust.yaml"}]}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    (merged,) = kustomize(tmp_path)
    assert merged["data"] == {**own["data"], **yaml.safe_load(MANIFEST.read_text())["data"]}


def test_actions_that_a_role_may_take_exist() -> None:
    keys = set(yaml.safe_load(MANIFEST.read_text())["data"])
    for role in named("AppProject")["teams"]["spec"]["roles"]:
        for policy in role["policies"]:
            found = re.search(r"action/(zerotrust\.dev)/(\w+)/(\w+)", policy)
            assert found is not None
            assert f"resource.customizations.actions.{found[1]}_{found[2]}" in keys


@only_in_prove
@pytest.mark.cluster
def test_argo_cds_own_schemas_accept_the_example() -> None:
    answer = subprocess.run(
        ["go", "mod", "download", "-json", "github.com/argoproj/argo-cd/v3"],
        cwd=MODULES_FOLDER / "argocd-lua",
        capture_output=True,
        text=True,
        check=True,
    )
    crds = Path(json.loads(answer.stdout)["Dir"]) / "manifests" / "crds"
    with ControlPlane() as plane:
        for kind in ("application", "applicationset", "appproject"):
            plane.kubectl("create", "-f", str(crds / f"{kind}-crd.yaml"))
        until(
            lambda: plane.kubectl("get", "crd", "-o", ESTABLISHED, check=False).split() == ["True"] * 3,
            "they are served",
        )
        plane.kubectl("create", "namespace", "argocd")
        plane.kubectl("create", "--validate=strict", "-f", str(EXAMPLE))
