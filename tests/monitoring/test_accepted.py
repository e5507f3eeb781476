"""The monitoring manifests are accepted by an API server that has the Prometheus Operator's kinds."""

from pathlib import Path

import pytest
import yaml

from hack.controlplane import ControlPlane
from hack.gotools import module_files
from tests.support.monitoring import MANIFESTS
from tests.support.proving import only_in_prove

pytestmark = [pytest.mark.cluster, only_in_prove]


def test_the_prometheus_operator_accepts_the_component(control_plane: ControlPlane, tmp_path: Path) -> None:
    crds = module_files("prometheus-operator", "github.com/prometheus-operator/prometheus-operator")
    folder = crds / "example" / "prometheus-operator-crd"
    for kind in ("prometheusrules", "servicemonitors"):
        control_plane.kubectl("apply", "--server-side", "-f", str(folder / f"monitoring.coreos.com_{kind}.yaml"))
    control_plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "default",
        "components": ["monitoring"],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    (tmp_path / "monitoring").symlink_to(MANIFESTS)
    built = control_plane.kubectl("kustomize", "--load-restrictor=LoadRestrictionsNone", str(tmp_path))
    said = control_plane.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=built)
    assert sorted(line.split()[0].split(".")[0].split("/")[0] for line in said.splitlines()) == [
        "configmap",
        "prometheusrule",
        "servicemonitor",
    ]
