"""Prometheus's own judgement: rules, queries of the dashboard, and what alerts make of metrics over time."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.monitoring import MANIFESTS, alerts, promtool, rule_file
from tests.support.proving import only_in_prove

CASES = yaml.safe_load((Path(__file__).parent / "alerts.yaml").read_text())
# Without these, a test of anything else would be a test of missing leaders.
LEADERS = {
    'zerotrust_leading{namespace="zt",pod="a"}': "1+0x130",
    'zerotrust_leading{namespace="zt",pod="b"}': "0+0x130",
}
EVERY = 5  # minutes between looks at what should stay silent


def expectations(case: dict[str, Any]) -> list[dict[str, Any]]:
    """One look for each alert that fires, one before it does, and many for all that stay silent."""
    found, expected = [], {one["alert"]: one for one in case.get("fires", ())}
    for name, one in expected.items():
        labels = one["labels"] if isinstance(one["labels"], list) else [one["labels"]]
        looks = [(one["at"], [{"exp_labels": each} for each in labels])]
        looks += [(one["silent_at"], [])] if "silent_at" in one else []
        found += [{"eval_time": f"{at}m", "alertname": name, "exp_alerts": exp} for at, exp in looks]
    for minute in range(0, case.get("minutes", 60) + 1, EVERY):
        for name in {rule["alert"] for rule in alerts()} - expected.keys():
            found.append({"eval_time": f"{minute}m", "alertname": name, "exp_alerts": []})
    return found


def test_every_alert_is_seen_to_fire_and_to_stay_silent() -> None:
    fired = [one for case in CASES for one in case.get("fires", ())]
    assert {one["alert"] for one in fired} == {rule["alert"] for rule in alerts()}
    severities = [
        (one["alert"], labels["severity"])
        for one in fired
        for labels in (one["labels"] if isinstance(one["labels"], list) else [one["labels"]])
    ]
    assert {(rule["alert"], rule["labels"]["severity"]) for rule in alerts()} == set(severities)
    assert {one["alert"] for one in fired if "silent_at" in one} == {rule["alert"] for rule in alerts()}
    assert any(not case.get("fires") and case.get("minutes", 0) >= 60 for case in CASES)


@only_in_prove
def test_prometheus_accepts_every_rule_without_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump(rule_file()))
    count = sum(len(group["rules"]) for group in rule_file()["groups"])
    assert f"{count} rules found" in promtool("check", "rules", "--lint=all", "--lint-fatal", file)


@only_in_prove
@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["name"]).replace(" ", "-"))
def test_alerts_over_time(case: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rule_file(annotated=False)))
    alone = case.get("leaders") == "none" or "zerotrust_leading" in str(case["series"])
    series = case["series"] if alone else case["series"] | LEADERS
    document = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": str(values)} for name, values in series.items()],
                "alert_rule_test": expectations(case),
            }
        ],
    }
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(document))
    assert "SUCCESS" in promtool("test", "rules", tmp_path / "test.yaml")


@only_in_prove
def test_prometheus_reads_every_query_of_the_dashboard() -> None:
    dashboard = json.loads((MANIFESTS / "dashboard.json").read_text())
    queries = {target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())}
    assert len(queries) > 10
    for query in sorted(queries):
        promtool("promql", "format", "--experimental", query.replace("$__rate_interval", "5m"))
