"""Write what is generated: crds/*.yaml and docs/reference/*.md from the resource models, and manifests/gatekeeper, which
copies the ConstraintTemplates that the operator installs."""

import sys
from pathlib import Path
from typing import Any

import yaml

from zerotrust.apikey.resource import KIND as API_KEY
from zerotrust.common.crd import custom_resource_definition
from zerotrust.common.kind import Kind
from zerotrust.identity.resource import KIND as SERVICE_IDENTITY
from zerotrust.policy.resource import KIND as TRUST_POLICY
from zerotrust.trustdomain.resource import KIND as TRUST_DOMAIN

KINDS = (TRUST_DOMAIN, SERVICE_IDENTITY, TRUST_POLICY, API_KEY)
ROOT = Path(__file__).resolve().parent.parent
HEADER = "# Generated from the resource models by `make generate`; do not edit.\n"
TEMPLATES = ROOT / "operator" / "zerotrust" / "gatekeeper" / "templates"
COPY_HEADER = "# Generated from {source} by `make generate`; do not edit.\n"


def main() -> int:
    for kind in KINDS:
        definition = custom_resource_definition(kind)
        _write(ROOT / "crds" / f"{kind.plural}.yaml", HEADER + _yaml(definition))
        _write(ROOT / "docs" / "reference" / f"{kind.name.lower()}.md", reference_page(kind, definition))
    copy_templates(ROOT / "manifests" / "gatekeeper")
    return 0


def copy_templates(folder: Path) -> None:
    """Copy the ConstraintTemplates, and list them for `kubectl apply -k`; a copy that has no source is removed."""
    sources = sorted(TEMPLATES.glob("*.yaml"))
    for stale in folder.glob("*.yaml"):
        if stale.name not in {"kustomization.yaml", *(source.name for source in sources)}:
            stale.unlink()
    for source in sources:
        _write(folder / source.name, _copied(source) + source.read_text())
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [source.name for source in sources],
    }
    usage = "# To be read. The operator installs them in two steps; docs/adr/0011-constraint-templates.md says why.\n"
    _write(folder / "kustomization.yaml", _copied(TEMPLATES) + usage + _yaml(kustomization))


def _copied(source: Path) -> str:
    return COPY_HEADER.format(source=source.relative_to(TEMPLATES.parents[3]).as_posix())


class _Plain(yaml.SafeDumper):
    """Writes equal parts out instead of as anchors, which reviewers and diff tools cannot follow."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True


def _yaml(document: dict[str, Any]) -> str:
    return yaml.dump(document, Dumper=_Plain, sort_keys=False, width=120)


def reference_page(kind: Kind, definition: dict[str, Any]) -> str:
    """Return the Markdown reference of a kind: every field with its type, default, bounds and rules."""
    version = definition["spec"]["versions"][0]
    schema = version["schema"]["openAPIV3Schema"]
    scope = "namespaced" if kind.namespaced else "cluster-scoped"
    lines = [
        f"# {kind.name}",
        "",
        f"<!-- {HEADER.strip('# ').strip()} -->",
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


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    print(f"wrote {path.relative_to(ROOT)}", file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(main())
