"""From a kind's models to its CustomResourceDefinition.

pydantic writes JSON Schema with references and null alternatives; Kubernetes wants structural OpenAPI v3 schemas: inlined,
typed, without `title`, `const` or `anyOf` (Kubernetes docs, "Specifying a structural schema").
"""

import json
from collections.abc import Mapping
from typing import Any

from zerotrust.common.kind import Kind
from zerotrust.common.merge import without_nulls
from zerotrust.common.naming import GROUP, VERSION
from zerotrust.common.resource import Resource

_KEPT = (
    "description", "type", "format", "pattern", "enum", "default", "required",
    "minLength", "maxLength", "minimum", "maximum", "nullable", "minItems", "maxItems", "minProperties", "maxProperties",
)  # fmt: skip

_UNQUOTED = {ord('"'): None}


def custom_resource_definition(kind: Kind) -> dict[str, Any]:
    """Return the CRD of a kind: schema, CEL rules, defaults, columns, short name, category and status subresource."""
    spec = schema_of(kind.spec)
    if kind.keeps_unknown_fields:
        _keep_unknown_fields(spec)
    root: dict[str, Any] = {
        "description": kind.description,
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": "Version of the API that the object is written in."},
            "kind": {"type": "string", "description": "Kind of the object."},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": schema_of(kind.status),
        },
    }
    _leave_lists_as_written(spec)
    if not spec.get("required"):  # an object without a spec is written `kubectl create`-style: everything defaulted
        root.pop("required")
        spec["default"] = kind.spec().model_dump(mode="json", by_alias=True, exclude_none=True)
    _leave_alternatives_as_written(spec)
    if kind.rules:
        root["x-kubernetes-validations"] = [rule.as_validation() for rule in kind.rules]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "plural": kind.plural,
                "singular": kind.name.lower(),
                "shortNames": [kind.short_name],
                "categories": ["zerotrust"],
            },
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [
                        {
                            "name": column.name,
                            "type": column.type,
                            "jsonPath": column.json_path,
                            "description": column.description,
                            **({"priority": column.priority} if column.priority else {}),
                        }
                        for column in kind.columns
                    ],
                    "schema": {"openAPIV3Schema": root},
                }
            ],
        },
    }


def _leave_lists_as_written(node: dict[str, Any], inside: bool = False) -> None:
    """Take the defaults out of what is below lists, where only the description tells them: the models know them.

    Who compares an object with its manifest compares lists whole, as JSON merge patches do (RFC 7386), so a default that the
    API server filled in there would be a difference for ever: Argo CD would show it, and sync again and again.
    """
    default = node.pop("default", None) if inside else None
    if isinstance(default, str | bool):
        _describe(node, default)
    for child in node.get("properties", {}).values():
        _leave_lists_as_written(child, inside)
    if "items" in node:
        _leave_lists_as_written(node["items"], inside=True)


def _leave_alternatives_as_written(node: dict[str, Any]) -> None:
    """Take defaults out that are not the sum of their fields' defaults, and say them in the description: the models know them.

    An API server keeps what it filled in and merges later changes into it (RFC 7386), so `all: true` would stand beside the
    selector that somebody writes instead of it, and the labels of a default selector beside theirs.
    """
    for child in node.get("properties", {}).values():
        _leave_alternatives_as_written(child)
    if (default := node.get("default")) and "properties" in node:
        node["default"] = _without_alternatives(default, node)
        if not node["default"]:
            del node["default"]
            _describe(node, default)


def _without_alternatives(default: Any, node: dict[str, Any]) -> Any:
    fields = node.get("properties")
    if not fields or not isinstance(default, dict):
        return default
    return {
        name: _without_alternatives(part, fields[name]) for name, part in default.items() if "default" in fields[name]
    }


def _describe(node: dict[str, Any], default: Any) -> None:
    node["description"] += f" Default: {json.dumps(default).translate(_UNQUOTED)}."


def _keep_unknown_fields(node: dict[str, Any]) -> None:
    if node.get("type") == "object" and "additionalProperties" not in node:
        node["x-kubernetes-preserve-unknown-fields"] = True
    for child in (*node.get("properties", {}).values(), node.get("items")):
        if child is not None:
            _keep_unknown_fields(child)


def schema_of(model: type[Resource]) -> dict[str, Any]:
    """Return the structural schema of one model."""
    raw = model.model_json_schema(by_alias=True)
    definitions = raw.pop("$defs", {})
    return _structural(raw, definitions)


def _structural(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    node = _resolved(node, definitions)
    result: dict[str, Any] = {key: node[key] for key in _KEPT if key in node}
    if "const" in node:
        result["enum"] = [node["const"]]
    if "default" in result:
        # CEL sees a parent's default before nested ones are filled in, so defaults are written complete, without nulls.
        result["default"] = without_nulls(result["default"])
        if result["default"] is None:
            result.pop("default")
    if "properties" in node:
        result["properties"] = {name: _structural(child, definitions) for name, child in node["properties"].items()}
    if "items" in node:
        result["items"] = _structural(node["items"], definitions)
    if isinstance(node.get("additionalProperties"), Mapping):
        result["additionalProperties"] = _structural(node["additionalProperties"], definitions)
    result.update({key: value for key, value in node.items() if key.startswith("x-kubernetes-")})
    return result


def _resolved(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """Follow a reference and drop the null alternative of an optional field; the outer node's own words win."""
    outer = dict(node)
    if "anyOf" in outer:
        (inner,) = [choice for choice in outer.pop("anyOf") if choice.get("type") != "null"]
        return {**_resolved(inner, definitions), **outer}
    if "$ref" in outer:
        inner = definitions[outer.pop("$ref").rpartition("/")[2]]
        return {**_resolved(inner, definitions), **outer}
    return outer
