"""JSON schemas of what an API server serves, as kubeconform reads them."""

import json
from pathlib import Path
from typing import Any

DEFINITIONS = "definitions.json"
# What the document calls a string, and the API server also takes as a number.
LOOSE = ("io.k8s.apimachinery.pkg.api.resource.Quantity", "io.k8s.apimachinery.pkg.util.intstr.IntOrString")
NUMBER = {"type": ["string", "number"]}
KEPT = (
    "$ref",
    "type",
    "enum",
    "required",
    "pattern",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
)


def write_schemas(document: dict[str, Any], folder: Path) -> str:
    """Write a schema for each kind of /openapi/v2, and return the location to give to kubeconform.

    Fields that no schema names are refused, unlike by default (Kubernetes prunes or warns about them).
    """
    definitions = {name: _strict(one) for name, one in document["definitions"].items()} | dict.fromkeys(LOOSE, NUMBER)
    (folder / DEFINITIONS).write_text(json.dumps({"definitions": definitions}))
    for name, one in document["definitions"].items():
        for kind in one.get("x-kubernetes-group-version-kind", ()):
            schema = {"$ref": f"{(folder / DEFINITIONS).as_uri()}#/definitions/{name}"}
            group = kind["group"] or kind["version"]  # kubeconform knows no core group
            (folder / f"{kind['kind'].lower()}-{group}-{kind['version']}.json").write_text(json.dumps(schema))
    return f"{folder}/{{{{ .ResourceKind }}}}-{{{{ .Group }}}}-{{{{ .ResourceAPIVersion }}}}.json"


def _strict(part: dict[str, Any]) -> dict[str, Any]:
    if part.get("format") == "int-or-string":
        return {"type": ["string", "integer"]}
    found = {key: part[key] for key in KEPT if key in part}
    if "properties" in part:
        found["properties"] = {name: _strict(one) for name, one in part["properties"].items()}
        found["additionalProperties"] = bool(part.get("x-kubernetes-preserve-unknown-fields"))
    for key in ("items", "additionalProperties"):
        if isinstance(part.get(key), dict):
            found[key] = _strict(part[key])
    return found
