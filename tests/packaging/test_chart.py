"""The Helm chart and the kustomizations are the same installation, and the chart's values do what they say and nothing else."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from hack.gotools import find_or_build
from tests.support.packaging import (
    BASE,
    CHART,
    KEEP,
    NAMESPACE,
    OVERLAYS,
    ROOT,
    Key,
    Manifest,
    Refused,
    kustomized,
    objects,
    sets,
    templated,
    without_keep,
)
from zerotrust import __version__
from zerotrust.cli.main import zerotrust

NAMES = sorted(path.name for path in OVERLAYS.iterdir())
DEPLOYMENTS = ("zerotrust-controller", "zerotrust-bundle-server")


def rendered(*values: str, namespace: str = NAMESPACE) -> dict[Key, Manifest]:
    return without_keep(objects(templated(*sets(*values), namespace=namespace)).values())


def container(manifests: dict[Key, Manifest], name: str) -> dict[str, Any]:
    (one,) = manifests[Key("Deployment", NAMESPACE, name)]["spec"]["template"]["spec"]["containers"]
    return dict(one)


def test_there_are_the_overlays_of_the_guide() -> None:
    assert NAMES == ["argocd", "dev", "ha", "restricted"]


def test_the_chart_renders_the_base() -> None:
    assert rendered("createNamespace=true") == objects(kustomized(BASE))


def test_by_default_all_but_the_namespace() -> None:
    """`helm install` wants the release's namespace to be there before."""
    expected = objects(kustomized(BASE))
    del expected[Key("Namespace", "", NAMESPACE)]
    assert rendered() == expected


@pytest.mark.parametrize("name", NAMES)
def test_values_render_the_overlay(name: str) -> None:
    values = ("--values", OVERLAYS / name / "values.yaml", *sets("createNamespace=true"))
    ours, theirs = without_keep(objects(templated(*values)).values()), objects(kustomized(OVERLAYS / name))
    if name == "argocd":  # Helm does not template CRDs, so they have no annotations
        for manifest in theirs.values():
            if manifest["kind"] == "CustomResourceDefinition":
                assert manifest["metadata"].pop("annotations")
    assert ours == theirs


def test_named_namespaces_are_those_of_the_example() -> None:
    """Rights that the example takes from outside the base lack the label of its parts."""

    def unlabelled(manifests: dict[Key, Manifest]) -> dict[Key, Manifest]:
        for manifest in manifests.values():
            if "Role" in manifest["kind"]:
                manifest["metadata"].pop("labels", None)
        return manifests

    example = objects(kustomized(ROOT / "examples" / "namespaced"))
    assert unlabelled(rendered("createNamespace=true", "namespaces={shop}")) == unlabelled(example)


def test_another_namespace_is_meant_everywhere() -> None:
    """Also in what admission policies know the operator by, and in the bundle server's names."""
    elsewhere = objects(kustomized(BASE).replace(NAMESPACE, "elsewhere"))
    assert rendered("createNamespace=true", namespace="elsewhere") == elsewhere


def test_helm_finds_no_fault() -> None:
    done = subprocess.run(
        [find_or_build("helm"), "lint", "--strict", CHART], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert "[WARNING]" not in done.stdout


def test_versions_agree() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (__version__, __version__)
    for name in DEPLOYMENTS:
        assert container(objects(kustomized(BASE)), name)["image"] == f"zerotrust-operator:{__version__}"


def test_helm_keeps_what_kustomize_marks() -> None:
    """CRDs are in crds/, which Helm never deletes."""
    for key, manifest in objects(templated(*sets("createNamespace=true"))).items():
        metadata = manifest["metadata"]
        kept = metadata.get("annotations", {}).get("helm.sh/resource-policy") == "keep"
        marked = KEEP in metadata["labels"].items()
        assert kept == (marked and key.kind != "CustomResourceDefinition"), key
        assert marked == (
            key.kind in {"CustomResourceDefinition", "Namespace"}
            or ("Admission" in key.kind and key.name != "zerotrust-bundle-server-reports")
        ), key


@pytest.mark.parametrize(
    ("value", "gone"),
    [
        ("networkPolicy.enabled=false", "NetworkPolicy"),
        ("admissionPolicies.enabled=false", "Admission"),
        ("admissionPolicies.setPodLabels=false", "Mutating"),
    ],
)
def test_a_switch_takes_away_what_it_names(value: str, gone: str) -> None:
    before = rendered()
    expected = {
        key: one for key, one in before.items() if gone not in key.kind or key.name == "zerotrust-bundle-server-reports"
    }
    assert len(expected) < len(before)
    assert rendered(value) == expected


def test_monitoring_is_the_component(tmp_path: Path) -> None:
    where = {"resources": [BASE], "components": [ROOT / "manifests" / "monitoring"]}
    overlay = {part: [os.path.relpath(one, tmp_path) for one in found] for part, found in where.items()}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    expected = objects(kustomized(tmp_path).replace(NAMESPACE, "elsewhere"))
    assert rendered("createNamespace=true", "monitoring.enabled=true", namespace="elsewhere") == expected


def test_the_metrics_services_are_scraped() -> None:
    values = ("monitoring.enabled=true", "monitoring.labels.release=prometheus", "networkPolicy.metricsFrom={observed}")
    after = rendered(*values)
    monitor = after[Key("ServiceMonitor", NAMESPACE, "zerotrust-operator")]
    assert labels(monitor)["release"] == "prometheus"
    assert labels(after[Key("PrometheusRule", NAMESPACE, "zerotrust-operator")])["release"] == "prometheus"
    selector = monitor["spec"]["selector"]["matchLabels"]
    services = [one for one in after.values() if one["kind"] == "Service" and selector.items() <= labels(one).items()]
    assert {one["metadata"]["name"] for one in services} == {f"{name}-metrics" for name in DEPLOYMENTS}
    for name in DEPLOYMENTS:
        (port,) = [
            one for one in container(after, name)["ports"] if one["name"] == monitor["spec"]["endpoints"][0]["port"]
        ]
        ingress = after[Key("NetworkPolicy", NAMESPACE, name)]["spec"]["ingress"][-1]
        assert [one["port"] for one in ingress["ports"]] == [port["containerPort"]]
        (peer,) = ingress["from"]
        assert peer["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "observed"}


def labels(manifest: Manifest) -> dict[str, str]:
    found: dict[str, str] = manifest["metadata"]["labels"]
    return found


def test_own_labels_and_annotations_are_on_everything_but_the_crds() -> None:
    for manifest in rendered("commonLabels.team=platform", "commonAnnotations.contact=platform").values():
        if manifest["kind"] != "CustomResourceDefinition":
            assert labels(manifest)["team"] == "platform"
            assert manifest["metadata"]["annotations"]["contact"] == "platform"


def test_where_pods_run_and_what_from() -> None:
    digest = "sha256:" + "0" * 64
    values = [f"image.digest={digest}", "image.repository=registry.example.org/zt", "image.pullPolicy=Always"]
    values += ["imagePullSecrets[0].name=registry", "priorityClassName=important"]
    for one in ("controller", "bundleServer"):
        values += [f"{one}.nodeSelector.pool=system", f"{one}.tolerations[0].operator=Exists"]
        values += [f"{one}.antiAffinity=none", f"{one}.podLabels.team=platform", f"{one}.podAnnotations.note=x"]
        values += [f"{one}.affinity.nodeAffinity.x=y", f"{one}.resources.limits.memory=2Gi"]
    for name in DEPLOYMENTS:
        manifests = rendered(*values)
        template = manifests[Key("Deployment", NAMESPACE, name)]["spec"]["template"]
        spec = template["spec"]
        assert container(manifests, name)["image"] == f"registry.example.org/zt@{digest}"
        assert container(manifests, name)["imagePullPolicy"] == "Always"
        assert container(manifests, name)["resources"]["limits"]["memory"] == "2Gi"
        assert spec["imagePullSecrets"] == [{"name": "registry"}]
        assert (spec["priorityClassName"], spec["nodeSelector"]) == ("important", {"pool": "system"})
        assert (spec["tolerations"], spec["affinity"]) == ([{"operator": "Exists"}], {"nodeAffinity": {"x": "y"}})
        assert template["metadata"] == {
            "labels": {"app.kubernetes.io/name": name, "team": "platform"},
            "annotations": {"note": "x"},
        }


OPTIONS = (
    "logLevel=WARNING",
    "controller.watchPods=false",
    "controller.nativePoliciesAfter=60",
    "controller.allowPrivateIssuers={10.0.0.0/8,fd00::/8}",
    "namespaces={shop,web}",
)


@pytest.mark.parametrize("values", [(), OPTIONS], ids=["defaults", "options"])
@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_the_program_takes_its_arguments(name: str, values: tuple[str, ...]) -> None:
    arguments = container(rendered(*values), name)["args"]
    result = CliRunner().invoke(zerotrust, [*arguments, "--help"])
    assert result.exit_code == 0, result.output
    if values:
        watched = {"name": "ZEROTRUST_WATCH_NAMESPACES", "value": "shop web"}
        assert watched in container(rendered(*values), name)["env"]
        assert "--log-level=WARNING" in arguments
        own = {"--no-watch-pods", "--native-policies-after=60", "--allow-private-issuers=fd00::/8"}
        assert own <= set(arguments) or name != "zerotrust-controller"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("replicas=3", "replicas"),
        ("controller.replica=3", "replica"),
        ("bundleServer.watchPods=false", "watchPods"),
        ("controller.replicas=0", "controller"),
        ("controller.replicas=two", "integer"),
        ("logLevel=TRACE", "logLevel"),
        ("image.digest=latest", "digest"),
        ("namespaces={Shop}", "namespaces"),
        ("controller.nativePoliciesAfter=-1", "nativePoliciesAfter"),
        ("controller.allowPrivateIssuers={intern}", "allowPrivateIssuers"),
        ("networkPolicy.apiServerPorts={}", "apiServerPorts"),
        ("networkPolicy.metricsFrom={Monitoring}", "metricsFrom"),
        ("commonLabels.app\\.kubernetes\\.io/managed-by=zerotrust-operator", "propertyName"),
        ("controller.antiAffinity=sometimes", "antiAffinity"),
    ],
)
def test_a_wrong_value_is_refused(value: str, said: str) -> None:
    with pytest.raises(Refused, match=said):
        templated(*sets(value))


def schema() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((CHART / "values.schema.json").read_text())
    return document


def test_the_schema_describes_every_value_and_no_other() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    compare(schema, yaml.safe_load((CHART / "values.yaml").read_text()))


def compare(schema: dict[str, Any], values: dict[str, Any]) -> None:
    assert schema["additionalProperties"] is False
    assert schema["properties"].keys() - {"claims"} == values.keys()  # claims of devices: nobody's default
    for name, inner in schema["properties"].items():
        assert inner["description"].endswith("."), name
        if "properties" in inner:
            compare(inner, values[name])


def test_the_notes_fit_a_terminal() -> None:
    notes = (CHART / "templates" / "NOTES.txt").read_text().splitlines()
    assert not [line for line in notes if "{{" not in line and len(line) > 80]


def test_what_is_copied_needs_python_only() -> None:
    """`make generate` runs without Go."""
    done = subprocess.run(
        [sys.executable, "-c", "from hack import chart; print(len(dict(chart.copies({}))))"],
        cwd=Path(CHART).parents[1],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": ""},
    )
    assert int(done.stdout) > 8, done.stderr
