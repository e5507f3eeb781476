"""From models to CustomResourceDefinitions: what Kubernetes calls structural, and what the defaults must be."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Any, ClassVar, Literal

import pytest
from pydantic import Field

from hack import generate
from zerotrust.common.crd import custom_resource_definition, schema_of
from zerotrust.common.kind import Kind
from zerotrust.common.resource import DURATION, AsMap, Between, OnlyTrue, Resource, Rule, Timestamp
from zerotrust.identity.resource import KIND as SERVICE_IDENTITY
from zerotrust.trustdomain.resource import KIND as TRUST_DOMAIN

Schema = dict[str, Any]

ALLOWED = {
    *("type", "description", "default", "enum", "required", "properties", "items", "additionalProperties"),
    *("format", "pattern", "minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems"),
    *("minProperties", "maxProperties", "nullable"),
    *("x-kubernetes-validations", "x-kubernetes-list-type", "x-kubernetes-list-map-keys"),
}
# Which type a keyword limits; on another type the API server takes it and does nothing.
LIMITS = {
    "string": {"format", "pattern", "minLength", "maxLength"},
    "integer": {"minimum", "maximum"},
    "array": {"items", "minItems", "maxItems", "x-kubernetes-list-type", "x-kubernetes-list-map-keys"},
    "object": {"properties", "required", "additionalProperties", "minProperties", "maxProperties"},
}
EVERYWHERE = {"nullable", "type", "description", "default", "enum", "x-kubernetes-validations"}


def root_of(kind: Kind) -> Schema:
    schema: Schema = custom_resource_definition(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def nodes(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Every schema in a schema with its path."""
    yield path or "(object)", schema
    for name, field in schema.get("properties", {}).items():
        yield from nodes(field, f"{path}.{name}".lstrip("."))
    for key, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if key in schema:
            yield from nodes(schema[key], path + mark)


NODES = [(kind.name, path, node) for kind in generate.KINDS for path, node in nodes(root_of(kind))]


def test_only_keywords_of_structural_schemas_are_left() -> None:
    extras = {(kind, path): extra for kind, path, node in NODES if (extra := set(node) - ALLOWED)}
    keeping = {kind.name for kind in generate.KINDS if kind.keeps_unknown_fields}
    kept = {place for place, extra in extras.items() if extra == {"x-kubernetes-preserve-unknown-fields"}}
    assert {place[0] for place in kept} == keeping
    assert all(path.startswith("spec") for _, path in kept)
    assert extras.keys() == kept


def test_a_kind_that_keeps_unknown_fields_keeps_them_at_every_level_of_its_spec() -> None:
    for kind, path, node in NODES:
        if kind == "TrustPolicy" and path.startswith("spec") and node["type"] == "object":
            maps = "additionalProperties" in node
            assert node.get("x-kubernetes-preserve-unknown-fields", False) is not maps, path


def test_every_place_has_one_type_and_keywords_that_limit_it() -> None:
    misplaced = {
        (kind, path): extra
        for kind, path, node in NODES
        if (extra := set(node) - EVERYWHERE - LIMITS.get(node["type"], set()))
        and extra != {"x-kubernetes-preserve-unknown-fields"}
    }
    assert misplaced == {}


def test_no_default_contains_a_null() -> None:
    assert [(kind, path) for kind, path, node in NODES if "default" in node and has_null(node["default"])] == []


def has_null(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(has_null(part) for part in (value.values() if isinstance(value, dict) else value))
    return value is None


def defaulted(schema: Schema, value: Any) -> Any:
    """The value as the API server completes it, from the outside to the inside."""
    if isinstance(value, dict):
        fields = schema.get("properties", {})
        value = {**{name: field["default"] for name, field in fields.items() if "default" in field}, **value}
        return {name: defaulted(fields.get(name, {}), part) for name, part in value.items()}
    if isinstance(value, list):
        return [defaulted(schema["items"], part) for part in value]
    return value


def test_defaults_are_complete() -> None:
    # CEL sees the default of a parent before those of its fields are filled in.
    incomplete = [
        (kind, path) for kind, path, node in NODES if defaulted(node, node.get("default")) != node.get("default")
    ]
    assert incomplete == []


def test_nothing_is_filled_in_below_lists() -> None:
    # Argo CD compares lists whole, and would find a difference to the manifest for ever.
    assert [(kind, path) for kind, path, node in NODES if "[]" in path and "default" in node and "spec" in path] == []
    protocol = next(node for kind, path, node in NODES if kind == "TrustPolicy" and path.endswith("to[].protocol"))
    assert protocol["description"].endswith("Default: TCP.")


@pytest.mark.parametrize("kind", generate.KINDS, ids=lambda kind: kind.name)
def test_an_object_may_be_written_without_a_spec_where_nothing_in_it_is_required(kind: Kind) -> None:
    root = root_of(kind)
    if root["properties"]["spec"].get("required"):
        assert root["required"] == ["spec"]
        return
    assert "required" not in root
    assert root["properties"]["spec"]["default"] == defaulted(root["properties"]["spec"], {})


def test_what_stands_for_alternatives_is_not_filled_in() -> None:
    # The API server keeps what it filled in, so that `all: true` would stand beside a selector that comes later.
    described = {path: node.get("description", "") for _, path, node in NODES if "default" not in node}
    found = [
        described.get(f"spec.{path}", "") for path in ("allowedNamespaces", "bundle.namespaces", "dns.podSelector")
    ]
    defaults = ("{all: true}", "{withIdentities: true}", "{matchLabels: {k8s-app: kube-dns}}")
    assert [text.partition(" Default: ")[2] for text in found] == [f"{one}." for one in defaults]


class Part(Resource):
    """A part."""

    size: int = Field(default=3, ge=1, le=9, description="How large.")
    lifetime: Annotated[timedelta, Between("1m", "1h")] = Field(default=timedelta(seconds=90), description="How long.")
    since: Timestamp | None = Field(default=None, description="Since when.")


class Whole(Resource):
    """A whole."""

    part_name: Annotated[str, Field(min_length=1, max_length=5, pattern="^a+$")] | None = Field(
        default=None, alias="partNAME", description="Its name."
    )
    mode: Literal["On", "Off"] = Field(default="On", description="On or Off.")
    all: OnlyTrue | None = Field(default=None, description="Everything.")
    part: Part = Field(default=Part(size=4), description="The part, said better here.")
    parts: list[Part] = Field(default=[Part()], max_length=2, description="More parts.")
    names: Annotated[dict[str, Annotated[str, Field(max_length=7)]], Field(max_length=2), AsMap] = Field(
        default={}, description="Names."
    )
    words: list[str] = Field(
        default=[], max_length=4, description="Words.", json_schema_extra={"x-kubernetes-list-type": "set"}
    )

    rules: ClassVar[tuple[Rule, ...]] = (Rule("self.mode == 'On'", "must be On"),)


class Demanding(Resource):
    """Something with a field that must be written."""

    size: int = Field(description="How large.")


def a_kind(spec: type[Resource], rules: tuple[Rule, ...] = ()) -> Kind:
    return Kind("Thing", "things", "th", True, "A thing.", spec, Demanding, (), rules)


def test_references_are_inlined_with_the_fields_own_words() -> None:
    part = schema_of(Whole)["properties"]["part"]
    assert part["description"] == "The part, said better here."
    assert part["properties"]["size"] == {
        "description": "How large.", "type": "integer", "default": 3, "minimum": 1, "maximum": 9,
    }  # fmt: skip
    assert part["default"] == {"size": 4, "lifetime": "1m30s"}


def test_an_optional_field_is_one_that_may_be_absent() -> None:
    fields = schema_of(Whole)["properties"]
    assert fields["partNAME"] == {
        "description": "Its name.", "type": "string", "minLength": 1, "maxLength": 5, "pattern": "^a+$",
    }  # fmt: skip
    assert fields["all"] == {"description": "Everything.", "type": "boolean", "enum": [True]}
    assert "required" not in schema_of(Whole)


def test_bounds_stay_with_lists_and_maps_and_with_what_they_hold() -> None:
    fields = schema_of(Whole)["properties"]
    assert fields["names"] == {
        "description": "Names.", "type": "object", "default": {}, "maxProperties": 2,
        "additionalProperties": {"type": "string", "maxLength": 7},
    }  # fmt: skip
    assert fields["words"]["maxItems"] == 4
    assert fields["words"]["x-kubernetes-list-type"] == "set"
    assert fields["parts"]["default"] == [{"size": 3, "lifetime": "1m30s"}]


def test_enums_and_rules_are_written() -> None:
    schema = schema_of(Whole)
    assert schema["properties"]["mode"]["enum"] == ["On", "Off"]
    assert schema["x-kubernetes-validations"] == [{"rule": "self.mode == 'On'", "message": "must be On"}]


def test_a_duration_is_a_string_whose_rule_waits_for_the_pattern() -> None:
    lifetime = schema_of(Part)["properties"]["lifetime"]
    assert (lifetime["type"], lifetime["pattern"], lifetime["default"]) == ("string", DURATION, "1m30s")
    escaped = DURATION.replace("\\", "\\\\")
    assert lifetime["x-kubernetes-validations"] == [
        {
            "rule": f"!self.matches('{escaped}') || (duration(self) >= duration('1m') && duration(self) <= duration('1h'))",
            "message": "must be between 1m and 1h",
        }
    ]


def test_a_time_is_a_string_in_a_format_that_cel_can_compare() -> None:
    since = schema_of(Part)["properties"]["since"]
    assert (since["type"], since["format"]) == ("string", "date-time")
    assert "timestamp(" in since["x-kubernetes-validations"][0]["rule"]


def test_a_spec_with_a_required_field_is_required() -> None:
    root = root_of(a_kind(Demanding))
    assert root["required"] == ["spec"]
    assert root["properties"]["spec"]["required"] == ["size"]
    assert "default" not in root["properties"]["spec"]


def test_rules_of_the_whole_object_are_at_its_root() -> None:
    root = root_of(a_kind(Whole, (Rule("self.metadata.name != 'a'", "must not be a"),)))
    assert root["x-kubernetes-validations"] == [{"rule": "self.metadata.name != 'a'", "message": "must not be a"}]


@pytest.mark.parametrize(
    ("kind", "scope", "names"),
    [
        (TRUST_DOMAIN, "Cluster", ("trustdomains", "trustdomain", "td")),
        (SERVICE_IDENTITY, "Namespaced", ("serviceidentities", "serviceidentity", "svid")),
    ],
    ids=["TrustDomain", "ServiceIdentity"],
)
def test_names_scope_and_subresource(kind: Kind, scope: str, names: tuple[str, str, str]) -> None:
    definition = custom_resource_definition(kind)
    spec = definition["spec"]
    assert definition["metadata"]["name"] == f"{names[0]}.zerotrust.dev"
    assert (spec["group"], spec["scope"]) == ("zerotrust.dev", scope)
    assert spec["names"] == {
        "kind": kind.name, "listKind": f"{kind.name}List", "plural": names[0], "singular": names[1],
        "shortNames": [names[2]], "categories": ["zerotrust"],
    }  # fmt: skip
    (version,) = spec["versions"]
    assert (version["name"], version["served"], version["storage"]) == ("v1alpha1", True, True)
    assert version["subresources"] == {"status": {}}


def test_wide_columns_have_a_priority_and_the_others_none() -> None:
    for kind in generate.KINDS:
        (version,) = custom_resource_definition(kind)["spec"]["versions"]
        written = {column["name"]: column.get("priority", 0) for column in version["additionalPrinterColumns"]}
        assert written == {column.name: column.priority for column in kind.columns}
        assert "Reason" in [name for name, priority in written.items() if priority == 1]
