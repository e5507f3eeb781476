"""The Markdown reference of a kind: every field with its type, default, bounds and rules."""

from typing import Any

import yaml

from zerotrust.common.kind import Kind


def page(kind: Kind, definition: dict[str, Any], header: str) -> str:
    """Return the Markdown reference of a kind: every field with its type, default, bounds and rules."""
    version = definition["spec"]["versions"][0]
    schema = version["schema"]["openAPIV3Schema"]
    scope = "namespaced" if kind.namespaced else "cluster-scoped"
    lines = [
        f"# {kind.name}",
        "",
        f"<!-- {header} -->",
        "",
        kind.description,
        "",
        f"`{definition['spec']['group']}/{version['name']}`, {scope}, short name `{kind.short_name}`.",
        "",
    ]
    for part in ("spec", "status"):
        lines += [f"## {part}", "", "| Field | Type | Default | Meaning |", "|---|---|---|---|"]
        lines += _rows(schema["properties"][part], part)
        lines.append("")
    rules = list(_rules(schema, "")) or [("", "none")]
    lines += ["## Rules", "", "| Where | The API server refuses an object unless |", "|---|---|"]
    lines += [f"| `{path or '(object)'}` | {_cell(message)} |" for path, message in rules]
    lines += ["", "## Columns", "", "| Column | Shows |", "|---|---|"]
    lines += [
        f"| {column.name} | {_cell(column.description)}{' (`-o wide`)' if column.priority else ''} |"
        for column in kind.columns
    ]
    return "\n".join(lines) + "\n"


def _rows(schema: dict[str, Any], path: str) -> list[str]:
    rows = []
    required = schema.get("required", [])
    for name, field in schema.get("properties", {}).items():
        place = f"{path}.{name}"
        default = "required" if name in required else _default(field)
        rows.append(f"| `{place}` | {_type(field)} | {default} | {_cell(field.get('description', ''))} |")
        inner = field.get("items", field)
        rows += _rows(inner, f"{place}[]" if "items" in field else place)
    return rows


def _default(field: dict[str, Any]) -> str:
    value = field.get("default")
    if value is None or isinstance(value, dict):
        return ""
    return f"`{yaml.safe_dump(value, default_flow_style=True, width=10_000).splitlines()[0]}`"


def _type(field: dict[str, Any]) -> str:
    if "enum" in field:
        return " \\| ".join(f"`{str(value).lower() if isinstance(value, bool) else value}`" for value in field["enum"])
    if field.get("type") == "array":
        return f"list of {_type(field['items'])}"
    if "additionalProperties" in field:
        return "map of strings"
    low, high = field.get("minimum"), field.get("maximum")
    bounds = f" {low}..{high}" if low is not None and high is not None else ""
    return f"{field.get('format', field.get('type', ''))}{bounds}"


def _rules(schema: dict[str, Any], path: str) -> Any:
    for rule in schema.get("x-kubernetes-validations", []):
        yield path, rule["message"]
    for name, field in schema.get("properties", {}).items():
        yield from _rules(field, f"{path}.{name}".lstrip("."))
    if isinstance(schema.get("items"), dict):
        yield from _rules(schema["items"], f"{path}[]")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
