"""Copies into the Helm chart what has no values: CRDs, rights, admission policies, monitoring. The rest is written by hand.

Copies are text, so that comments survive. The operator's namespace becomes the release's, and each object gets the labels that
Kustomize would put on it. tests/packaging/test_chart.py compares what the chart and the base render.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
BASE = ROOT / "manifests" / "base"
CHART = ROOT / "manifests" / "chart"
CRDS = CHART / "crds"
FILES = CHART / "files"
TEMPLATES = CHART / "templates" / "copied"
RIGHTS = ROOT / "manifests" / "rights"
# Read by templates/monitoring.yaml. Their braces are Prometheus' and Grafana's, so they are no templates themselves.
MONITORING = [
    ROOT / "manifests" / "monitoring" / name
    for name in ("dashboard.json", "prometheus-rule.yaml", "service-monitor.yaml")
]
OPERATOR_NAMESPACE = "zerotrust-system"
# What the chart has templates of its own for.
TEMPLATED = [BASE / f"{name}.yaml" for name in ("namespace", "deployment", "bundle-server", "network-policies")]
HEADER = "Generated from {source} by `make generate`; do not edit."
PART_OF = {"app.kubernetes.io/part-of": "zerotrust-operator"}
KEEP = {"zerotrust.dev/uninstall": "keep"}


@dataclass(frozen=True)
class Source:
    """A manifest of the base, and the labels that the kustomizations above it add."""

    path: Path
    labels: Mapping[str, str]
    text: str

    @property
    def name(self) -> str:
        """Where it is, from the repository's root."""
        return self.path.relative_to(ROOT).as_posix()


def copies(generated: Mapping[Path, str]) -> Iterator[tuple[Path, str]]:
    """Yield the path of each copy with its text; what is `generated` is not read from its file."""
    for path, labels in sources(BASE):
        if path in TEMPLATED:
            continue
        source = Source(path, labels, generated.get(path) or path.read_text())
        if path.parent == ROOT / "crds":
            yield CRDS / path.name, copied(source)
        else:
            prefix = f"rights-{path.parent.name}-" if path.parent.parent == RIGHTS else ""
            yield TEMPLATES / f"{prefix}{path.name}", template(source)
    for path in MONITORING:
        yield FILES / path.name, path.read_text()


def sources(folder: Path, labels: Mapping[str, str] | None = None) -> Iterator[tuple[Path, Mapping[str, str]]]:
    """Yield the manifests that a kustomization and those below it name, with the labels that these add."""
    (file,) = (one for one in folder.iterdir() if one.name in {"Kustomization", "kustomization.yaml"})
    kustomization = yaml.safe_load(file.read_text())
    if unknown := kustomization.keys() - {"apiVersion", "kind", "resources", "labels"}:
        raise ValueError(f"{file}: the chart's generator does not know {', '.join(sorted(unknown))}")
    own = {key: value for entry in kustomization.get("labels", ()) for key, value in entry["pairs"].items()}
    together = {**own, **(labels or {})}
    for name in kustomization["resources"]:
        path = (folder / name).resolve()
        if path.is_dir():
            yield from sources(path, together)
        else:
            yield path, together


def copied(source: Source) -> str:
    """A manifest with its labels, but as Helm takes it without templating: CRDs."""
    lines = [f"# {HEADER.format(source=source.name)}"]
    lines += [line for line in source.text.splitlines() if not line.startswith("# Generated")]
    return _text(_metadata(lines, [f"    {key}: {value}" for key, value in source.labels.items()], []))


def template(source: Source) -> str:
    """A manifest as template."""
    if "{{" in source.text:
        raise ValueError(f"{source.name} has braces that Helm would take for its own")
    text = source.text.replace(OPERATOR_NAMESPACE, "{{ $.Release.Namespace }}")
    labels = ['    {{- include "zerotrust.labels" $ | nindent 4 }}']
    labels += [f"    {key}: {value}" for key, value in source.labels.items() if key not in PART_OF]
    kept = KEEP.items() <= source.labels.items()
    annotations = [f'  {{{{- include "zerotrust.annotations{"-kept" if kept else ""}" $ | nindent 2 }}}}']
    documents = [_metadata(one.splitlines(), labels, annotations) for one in text.split("\n---\n")]
    if source.path.parent == ROOT / "manifests" / "admission":
        documents = [_optional(one) for one in documents]
    if source.path.parent.parent == RIGHTS:
        documents = [_in_namespaces(one, source.path.parent.name) for one in documents]
    body = "---\n".join(_text(one) for one in documents)
    return f"{{{{- /* {HEADER.format(source=source.name)} */}}}}\n{body}"


def _metadata(lines: list[str], labels: list[str], annotations: list[str]) -> list[str]:
    """Add labels and annotations to the one object in `lines`."""
    start = lines.index("metadata:") + 1
    end = next((at for at in range(start, len(lines)) if not lines[at].startswith(" ")), len(lines))
    inside = lines[start:end]
    if "  annotations:" in inside:
        raise ValueError(f"annotations of its own: {inside}")
    at = inside.index("  labels:") + 1 if "  labels:" in inside else 0
    added = [*labels] if at else ["  labels:", *labels]
    return [*lines[:start], *inside[:at], *added, *inside[at:], *annotations, *lines[end:]]


def _optional(lines: list[str]) -> list[str]:
    """Admission policies can be left out; those that change pods need a newer Kubernetes than the others."""
    mutating = any(line.startswith("kind: Mutating") for line in lines)
    values = "$.Values.admissionPolicies"
    asked = f"and {values}.enabled {values}.setPodLabels" if mutating else f"{values}.enabled"
    return [f"{{{{- if {asked} }}}}", *lines, "{{- end }}"]


def _in_namespaces(lines: list[str], where: str) -> list[str]:
    """Rights for the whole cluster, or the same as Roles in the namespaces that are watched (in default, for those)."""
    changed = []
    for line in lines:
        changed.append(line.replace("kind: ClusterRole", "kind: {{ if not $in }}Cluster{{ end }}Role"))
        if line == "metadata:":
            changed += ["  {{- with $in }}", "  namespace: {{ . }}", "  {{- end }}"]
    each = f'range $in := include "zerotrust.rights-{where}" $ | fromJsonArray'
    return [f"{{{{- {each} }}}}", *changed, "---", "{{- end }}"]


def _text(lines: list[str]) -> str:
    return "\n".join(lines).rstrip("\n") + "\n"
