"""What the PrometheusRule and the ServiceMonitor say fits the code, the manifests and the runbooks."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.blocks import Block, blocks
from tests.support.monitoring import MANIFESTS, ROOT, RUNBOOKS, alerts, known, mistakes, rules, usage

ALERTS = sorted({rule["alert"] for rule in alerts()})
HEADINGS = ["Meaning", "What users feel", "Look", "Mend", "Escalate"]


def test_what_is_read_of_an_expression() -> None:
    found = usage('sum by (kind) (rate(a_total{code!~"2..", kind="x"}[5m])) / on (kind) group_left max(b) > 0.5')
    assert found.metrics == {"a_total": {"code", "kind"}, "b": set()}
    assert found.grouped == {"kind"}


@pytest.mark.parametrize("broken", ["sum(a", "sum a)", "a{b=}}", 'a{b="c}', "a ; b"])
def test_what_cannot_be_read_is_refused(broken: str) -> None:
    with pytest.raises(ValueError, match=r"cannot read|counterpart|not closed"):
        usage(broken)


@pytest.mark.parametrize(
    ("expression", "mistake"),
    [
        ("zerotrust_issues_total", "no metric zerotrust_issues_total"),
        ("zerotrust_issued", "no metric zerotrust_issued"),
        ('zerotrust_issued_total{why="x"}', "zerotrust_issued_total has no label why"),
        ("sum by (kind) (zerotrust_issued_total)", "nothing here has the label kind"),
    ],
)
def test_what_nothing_shows_is_found(expression: str, mistake: str) -> None:
    assert mistakes(expression) == [mistake]


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("alert") or rule["record"])
def test_every_metric_and_label_of_a_rule_exists(rule: dict[str, Any]) -> None:
    assert not mistakes(rule["expr"])


@pytest.mark.parametrize("rule", [rule for rule in rules() if "record" in rule], ids=lambda rule: rule["record"])
def test_recorded_series_are_bounded_and_named_by_convention(rule: dict[str, Any]) -> None:
    """level:metric:operation, and no label by which a cluster grows."""
    level, metric, operation = rule["record"].split(":")
    assert level == "namespace"
    assert metric.startswith("zerotrust_")
    assert operation
    assert known()[rule["record"]] <= {"namespace", "kind", "code", "state", "trust_domain"}


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: f"{rule['alert']}-{rule['labels']['severity']}")
def test_an_alert_says_what_is_lost_and_where_to_read_on(rule: dict[str, Any]) -> None:
    assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
    assert rule["alert"].startswith("Zerotrust")
    assert rule["labels"]["severity"] in ("warning", "critical")
    notes = rule["annotations"]
    assert set(notes) == {"summary", "description", "runbook_url"}
    assert notes["runbook_url"] == f"docs/runbooks/{rule['alert']}.md"
    assert len(notes["summary"]) <= 100
    assert notes["description"].endswith(".")
    labels = set(re.findall(r"\$labels\.(\w+)", notes["summary"] + notes["description"]))
    read = usage(rule["expr"])
    kept = read.grouped | frozenset().union(*(known()[name] for name in read.metrics))
    assert labels <= kept


def test_no_two_alerts_are_the_same() -> None:
    names = [(rule["alert"], rule["labels"]["severity"]) for rule in alerts()]
    assert len(set(names)) == len(names)


def test_each_alert_has_a_runbook_and_the_other_way_round() -> None:
    assert sorted(path.stem for path in RUNBOOKS.glob("Zerotrust*.md")) == ALERTS


@pytest.mark.parametrize("alert", ALERTS)
def test_a_runbook_answers_what_somebody_asks_at_three_in_the_morning(alert: str) -> None:
    text = (RUNBOOKS / f"{alert}.md").read_text()
    assert text.startswith(f"# {alert}\n")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == HEADINGS
    assert "```console" in text
    for metric in re.findall(r"\bzerotrust_[a-z_]+", text):
        assert metric in known(), f"{metric} is shown by nobody"


def test_each_alert_stands_in_the_guide() -> None:
    guide = (ROOT / "docs" / "guides" / "monitoring.md").read_text()
    assert sorted(set(re.findall(r"runbooks/(Zerotrust\w+)\.md", guide))) == ALERTS


def documents(path: Path) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(path.read_text()) if one]


@pytest.mark.parametrize(
    ("base", "job"), [("deployment", "zerotrust-controller"), ("bundle-server", "zerotrust-bundle-server")]
)
def test_the_service_monitor_finds_the_services_for_metrics(base: str, job: str) -> None:
    (monitor,) = documents(MANIFESTS / "service-monitor.yaml")
    wanted = monitor["spec"]["selector"]
    (endpoint,) = monitor["spec"]["endpoints"]
    found = []
    for one in documents(ROOT / "manifests" / "base" / f"{base}.yaml"):
        labels = one["metadata"].get("labels", {})
        names = wanted["matchExpressions"][0]["values"]
        chosen = wanted["matchLabels"].items() <= labels.items() and labels["app.kubernetes.io/name"] in names
        if one["kind"] == "Service" and chosen:
            found.append(one)
    (service,) = found
    assert service["metadata"]["labels"][monitor["spec"]["jobLabel"]] == job
    assert [port["name"] for port in service["spec"]["ports"]] == [endpoint["port"]]
    assert monitor["metadata"]["namespace"] == service["metadata"]["namespace"]


@pytest.mark.parametrize("block", blocks("promql"), ids=str)
def test_queries_of_the_documentation_ask_for_what_there_is(block: Block) -> None:
    assert not mistakes(block.text)
