"""The dashboard is JSON that Grafana can show, and asks for nothing that nobody tells."""

import itertools
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from hack.gotools import find_or_build
from tests.support.monitoring import MANIFESTS, mistakes

DASHBOARD: dict[str, Any] = json.loads((MANIFESTS / "dashboard.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
CHARTS = [panel for panel in PANELS if panel["type"] != "row"]
UNITS = {"short", "s", "ops", "reqps", "percentunit"}


def plain(query: str) -> str:
    """Without Grafana's variables."""
    return query.replace("$__rate_interval", "5m")


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    ids = [panel["id"] for panel in PANELS]
    assert len(set(ids)) == len(ids)
    for one, other in itertools.combinations((panel["gridPos"] for panel in PANELS), 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or apart, (one, other)
    assert all(0 <= panel["gridPos"]["x"] <= 24 - panel["gridPos"]["w"] for panel in PANELS)


def test_it_works_with_any_data_source_and_any_number_of_installations() -> None:
    variables = {one["name"]: one for one in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert "zerotrust_leading" in variables["namespace"]["query"]["query"]
    text = json.dumps(DASHBOARD)
    assert set(re.findall(r'"uid": "([^"]*)"', text)) == {"${datasource}", "-- Grafana --", "zerotrust-operator"}
    assert DASHBOARD["schemaVersion"] >= 36
    assert "id" not in DASHBOARD  # Grafana gives it; one that is written down takes another dashboard's place


@pytest.mark.parametrize("panel", CHARTS, ids=lambda panel: str(panel["title"]).replace(" ", "-"))
def test_a_panel_explains_itself_and_asks_for_what_there_is(panel: dict[str, Any]) -> None:
    assert panel["type"] in ("stat", "timeseries", "table")
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    references = [target["refId"] for target in panel["targets"]]
    assert len(set(references)) == len(references) > 0
    for target in panel["targets"]:
        assert not mistakes(plain(target["expr"]))
        assert 'namespace=~"$namespace"' in target["expr"]
        for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
            assert re.search(rf"by \([^)]*\b{label}\b[^)]*\)", target["expr"])


def test_the_component_ships_it_where_grafanas_sidecar_looks(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text(
        yaml.safe_dump(
            {
                "apiVersion": "kustomize.config.k8s.io/v1beta1",
                "kind": "Kustomization",
                "components": ["monitoring"],
            }
        )
    )
    (tmp_path / "monitoring").symlink_to(MANIFESTS)
    built = subprocess.run(
        [find_or_build("kubectl"), "kustomize", "--load-restrictor=LoadRestrictionsNone", tmp_path],
        capture_output=True,
        text=True,
        check=True,
    )
    found = {one["kind"]: one for one in yaml.safe_load_all(built.stdout)}
    assert set(found) == {"PrometheusRule", "ServiceMonitor", "ConfigMap"}
    shipped = found["ConfigMap"]
    assert shipped["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(shipped["data"]["zerotrust.json"]) == DASHBOARD
    assert len(built.stdout) < 1_000_000
