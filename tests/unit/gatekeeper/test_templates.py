"""What Gatekeeper and the API server take for granted of the ConstraintTemplates, without either of them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
TEMPLATES = sorted((ROOT / "operator" / "zerotrust" / "gatekeeper" / "templates").glob("*.yaml"))
COPIES = ROOT / "manifests" / "gatekeeper"
KINDS = {
    "ZeroTrustCredentialAccess",
    "ZeroTrustHostAccess",
    "ZeroTrustIdentityBinding",
    "ZeroTrustIdentityLabels",
    "ZeroTrustImages",
    "ZeroTrustServiceCapture",
}
# What a messageExpression begins with: who demands it.
DEMANDED_BY = re.compile(
    r"\(?('(ServiceIdentity|TrustPolicy) ' \+|variables\.secrets\[.+\]\.owner \+ ': '|variables\.)"
)
MAX_EXPRESSION_LINE = 125
# Words that CEL reserves (cel-spec, doc/langdef.md, RESERVED and literals): the API server refuses them as names.
RESERVED = {"as", "break", "const", "continue", "else", "false", "for", "function", "if", "import", "in", "let", "loop"}
RESERVED |= {"namespace", "null", "package", "return", "true", "var", "void", "while"}

Body = dict[str, Any]


def read(path: Path) -> Body:
    body: Body = yaml.safe_load(path.read_text())
    return body


def source(template: Body) -> Body:
    ((target,), (code,)) = (template["spec"]["targets"], template["spec"]["targets"][0]["code"])
    assert target["target"] == "admission.k8s.gatekeeper.sh"
    assert code["engine"] == "K8sNativeValidation"
    body: Body = code["source"]
    return body


def schema(template: Body) -> Body:
    body: Body = template["spec"]["crd"]["spec"]["validation"]["openAPIV3Schema"]
    return body


def parts(part: Body, path: str = "") -> Iterator[tuple[str, Body]]:
    """Every schema in a schema, with its path."""
    yield path, part
    for name, field in part.get("properties", {}).items():
        yield from parts(field, f"{path}.{name}")
    for word in ("items", "additionalProperties"):
        if word in part:
            yield from parts(part[word], f"{path}[]")


def expressions(template: Body) -> Iterator[str]:
    body = source(template)
    yield from (one["expression"] for one in (*body["matchCondition"], *body["variables"], *body["validations"]))
    yield from (one["messageExpression"] for one in body["validations"])


def test_the_templates_are_these() -> None:
    assert {read(path)["spec"]["crd"]["spec"]["names"]["kind"] for path in TEMPLATES} == KINDS


def test_the_copies_for_gitops_are_complete() -> None:
    """That they are equal is `make check-generate`'s business, and the next test's."""
    assert {path.name for path in COPIES.glob("*.yaml")} == {"kustomization.yaml", *(path.name for path in TEMPLATES)}
    assert read(COPIES / "kustomization.yaml")["resources"] == [path.name for path in TEMPLATES]


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
class TestTemplate:
    def test_is_named_by_its_kind(self, path: Path) -> None:
        """Gatekeeper refuses any other name."""
        template = read(path)
        assert template["apiVersion"] == "templates.gatekeeper.sh/v1"
        assert path.stem == template["metadata"]["name"] == template["spec"]["crd"]["spec"]["names"]["kind"].lower()

    def test_is_cel_alone_and_fails_closed(self, path: Path) -> None:
        template = read(path)
        body = source(template)
        assert body["generateVAP"] is True
        assert body["failurePolicy"] == "Fail"
        assert template["spec"]["targets"][0]["operations"] == ["CREATE", "UPDATE"]
        assert not re.search(r"^\s*-?\s*(rego|libs):", path.read_text(), re.MULTILINE)

    def test_skips_other_kinds_before_it_reads_them(self, path: Path) -> None:
        (condition,) = source(read(path))["matchCondition"]
        assert "object != null" in condition["expression"]
        assert "request.kind.kind" in condition["expression"]

    def test_uses_what_every_supported_api_server_has(self, path: Path) -> None:
        """No authorizer (Gatekeeper has none), no list or two-variable functions of CEL that are younger than 1.30."""
        for expression in expressions(read(path)):
            assert not re.search(r"\bauthorizer\b|\.flatten\(|\.distinct\(|transform(List|Map)|\.sort\(", expression)
            assert not re.search(r"(?<!variables\.)\bparams\b", expression), "only variables.params exists in both"

    def test_uses_each_variable_and_no_other(self, path: Path) -> None:
        template = read(path)
        names = [one["name"] for one in source(template)["variables"]]
        assert not [
            name for name in names if name.startswith("gatekeeper_internal_") or name in ("params", "anyObject")
        ]
        used = {name for text in expressions(template) for name in re.findall(r"\bvariables\.(\w+)", text)}
        assert used - {"params", "anyObject"} == set(names)

    def test_uses_no_variable_before_it_is_defined(self, path: Path) -> None:
        defined = {"params", "anyObject"}
        for one in source(read(path))["variables"]:
            assert set(re.findall(r"\bvariables\.(\w+)", one["expression"])) <= defined
            defined.add(one["name"])

    def test_says_who_demands_it_first(self, path: Path) -> None:
        for one in source(read(path))["validations"]:
            assert DEMANDED_BY.match(one["messageExpression"])
            assert "': '" in one["messageExpression"] or ": " in one["messageExpression"]
            assert one["message"]

    def test_has_a_structural_schema_that_describes_and_bounds_each_field(self, path: Path) -> None:
        for place, part in parts(schema(read(path))):
            assert part.get("type") in ("object", "array", "string", "boolean"), place
            assert not {"x-kubernetes-preserve-unknown-fields", "x-kubernetes-int-or-string"} & set(part), place
            if part["type"] == "string":
                assert "maxLength" in part or "enum" in part, place
            if part["type"] == "array":
                assert "items" in part, place
            if part["type"] == "object":
                assert ("properties" in part) != ("additionalProperties" in part), place
            if place and not place.endswith("[]"):
                assert re.match(r"[A-Z].+\.$", part["description"]), place

    def test_requires_only_what_it_describes(self, path: Path) -> None:
        for place, part in parts(schema(read(path))):
            assert set(part.get("required", [])) <= set(part.get("properties", {})), place

    def test_can_be_read(self, path: Path) -> None:
        assert not [line for line in path.read_text().splitlines() if len(line) > MAX_EXPRESSION_LINE]
        assert read(path)["metadata"]["annotations"]["description"]

    def test_its_copy_is_equal(self, path: Path) -> None:
        header, _, copy = (COPIES / path.name).read_text().partition("\n")
        assert header.startswith("# Generated from operator/zerotrust/gatekeeper/templates/")
        assert copy == path.read_text()


def test_selectors_have_the_same_schema_everywhere() -> None:
    items = [
        part["items"] for path in TEMPLATES for place, part in parts(schema(read(path))) if place.endswith(".selector")
    ]
    assert len(items) == 3
    assert items[0] == items[1] == items[2]
