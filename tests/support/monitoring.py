"""The monitoring manifests as tests read them, and PromQL taken apart far enough to name its metrics and labels."""

import re
import subprocess
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from hack.gotools import find_or_build
from hack.reference.metrics import processes
from zerotrust.telemetry.metrics import Family

ROOT = Path(__file__).resolve().parents[2]
MANIFESTS = ROOT / "manifests" / "monitoring"
RUNBOOKS = ROOT / "docs" / "runbooks"
# What Prometheus adds to every sample when it scrapes by a ServiceMonitor.
TARGET = frozenset({"namespace", "pod", "service", "endpoint", "container", "instance", "job"})
ENDINGS = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}

_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\]|\\.)*")|(?P<duration>\[[0-9smhdw:$_a-z]+\])|(?P<number>[0-9]+(?:\.[0-9]+)?)"""
    r"""|(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)|(?P<operator>=~|!~|!=|==|>=|<=|[-+*/%^<>=(){},]))"""
)
_WORDS = frozenset(
    ["by", "without", "and", "or", "unless", "on", "ignoring", "group_left", "group_right", "bool", "offset"]
)
_GROUPING = frozenset(["by", "without", "on", "ignoring", "group_left", "group_right"])


@dataclass
class Usage:
    """What an expression reads: metrics with the labels that select them, and labels by which it groups."""

    metrics: dict[str, set[str]] = field(default_factory=dict)
    grouped: set[str] = field(default_factory=set)


def tokens(expression: str) -> list[tuple[str, str]]:
    """Kinds and texts; ValueError says where it cannot be read on."""
    found, at = [], 0
    text = expression.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ValueError(f"cannot read on at {text[at : at + 20]!r}")
        found.append((str(match.lastgroup), match[str(match.lastgroup)]))
        at = match.end()
    return found


def usage(expression: str) -> Usage:
    """Name the metrics and labels of an expression; ValueError when brackets do not match."""
    found, rest = Usage(), tokens(expression)
    open_brackets: list[str] = []
    metric, grouping = "", False
    for number, (kind, text) in enumerate(rest):
        following = rest[number + 1][1] if number + 1 < len(rest) else ""
        if text in "({" and kind == "operator":
            open_brackets.append(text)
        elif text in ")}" and kind == "operator":
            if not open_brackets or open_brackets.pop() != {")": "(", "}": "{"}[text]:
                raise ValueError(f"{text} without its counterpart in {expression!r}")
            grouping = False
        elif kind == "name" and text in _WORDS:
            grouping = text in _GROUPING and following == "("
        elif kind == "name" and open_brackets and open_brackets[-1] == "{":
            found.metrics[metric].add(text)
        elif kind == "name" and grouping:
            found.grouped.add(text)
        elif kind == "name" and following not in ("(", "by", "without"):
            metric = text
            found.metrics.setdefault(metric, set())
    if open_brackets:
        raise ValueError(f"{open_brackets[-1]} is not closed in {expression!r}")
    return found


def rule_file(*, annotated: bool = True) -> dict[str, Any]:
    """The PrometheusRule as a rule file; without annotations its alerts are compared by labels alone."""
    found: dict[str, Any] = yaml.safe_load((MANIFESTS / "prometheus-rule.yaml").read_text())["spec"]
    if not annotated:
        for group in found["groups"]:
            for rule in group["rules"]:
                rule.pop("annotations", None)
    return found


def promtool(*arguments: str | Path, text: str = "") -> str:
    """What promtool says, which must agree."""
    command = [find_or_build("promtool"), *arguments]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@cache
def rules() -> list[dict[str, Any]]:
    """Every rule of the PrometheusRule."""
    return [rule for group in rule_file()["groups"] for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    """Every alert; two of one name differ in severity."""
    return [rule for rule in rules() if "alert" in rule]


@cache
def samples() -> dict[str, frozenset[str]]:
    """Every name that a scrape of the controller or a bundle server can show, with its labels."""
    found: dict[str, frozenset[str]] = {}
    for process, families in processes().items():
        if process != "forward-auth":
            for family in families:
                found |= _of(family)
    return found


def _of(family: Family) -> dict[str, frozenset[str]]:
    labels = frozenset(family.labels)
    return {family.name + ending: labels | {"le"} if ending == "_bucket" else labels for ending in ENDINGS[family.type]}


def known() -> dict[str, frozenset[str]]:
    """`samples` with target labels, and what recording rules make of them."""
    found = {name: labels | TARGET for name, labels in samples().items()}
    for rule in rules():
        if "record" in rule:
            found[rule["record"]] = frozenset(usage(rule["expr"]).grouped) or _inherited(rule["expr"], found)
    return found


def _inherited(expression: str, found: dict[str, frozenset[str]]) -> frozenset[str]:
    return frozenset().union(*(found.get(name, frozenset()) for name in usage(expression).metrics))


def mistakes(expression: str) -> list[str]:
    """What an expression asks for and nothing shows."""
    everything, read = known(), usage(expression)
    unknown = [f"no metric {name}" for name in read.metrics if name not in everything]
    reachable = frozenset().union(*(everything.get(name, frozenset()) for name in read.metrics))
    wrong = [
        f"{name} has no label {label}"
        for name, labels in read.metrics.items()
        for label in labels - everything.get(name, frozenset())
    ]
    return unknown + wrong + [f"nothing here has the label {label}" for label in read.grouped - reachable]
