"""docs/reference/permissions.md has a row for every rule of the manifests, and no other."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reference" / "permissions.md"
MANIFESTS = (*(ROOT / "manifests" / "base").glob("*rbac.yaml"), *(ROOT / "manifests" / "rights").glob("*/*.yaml"))
SECTION = re.compile(r"^(Cluster)?Role `([a-z-]+)`, in `(manifests/[a-z/-]+\.yaml)`", re.MULTILINE)
CODE = re.compile(r"`([^`]+)`")

Row = tuple[list[str], list[str], list[str]]
"""Resources with their groups, names, verbs."""


def roles() -> dict[tuple[str, str, str], list[dict[str, Any]]]:
    """The rules of each role, by kind, name and file."""
    found = {}
    for path in MANIFESTS:
        for document in yaml.safe_load_all(path.read_text()):
            if document["kind"] in ("Role", "ClusterRole"):
                file = str(path.relative_to(ROOT))
                found[document["kind"], document["metadata"]["name"], file] = document["rules"]
    return found


def sections() -> dict[tuple[str, str, str], str]:
    """What the page says of each role."""
    found = {}
    for section in PAGE.read_text().split("\n## "):
        if (role := SECTION.search(section)) is not None:
            found[f"{role[1] or ''}Role", role[2], role[3]] = section
    return found


def rows(section: str) -> Iterator[Row]:
    for line in section.splitlines():
        if line.startswith("| `"):
            resources, verbs, why, without = (cell.strip() for cell in line.strip("|").split(" | "))
            assert why, line
            assert without, line
            what, _, names = resources.partition(" named ")
            yield CODE.findall(what), CODE.findall(names), verbs.split(", ")


def row_of(rule: dict[str, Any]) -> Row:
    (group,) = rule["apiGroups"]
    end = f".{group}" if group else ""
    return [f"{one}{end}" for one in rule["resources"]], rule.get("resourceNames", []), rule["verbs"]


def test_every_role_has_a_section() -> None:
    assert set(sections()) == set(roles())


@pytest.mark.parametrize("role", sorted(roles()), ids="-".join)
def test_every_rule_has_a_row(role: tuple[str, str, str]) -> None:
    assert list(rows(sections()[role])) == [row_of(rule) for rule in roles()[role]]


def test_no_rule_has_a_wildcard() -> None:
    for rules in roles().values():
        for rule in rules:
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
