"""Write what is generated: crds/*.yaml and docs/reference/*.md from the resource models and the code, a picture of the shop
example, and copies: manifests/gatekeeper of the templates that the operator installs, the Helm chart of the base."""

import sys
from pathlib import Path
from typing import Any

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import yaml
from click.testing import CliRunner

from hack import chart
from hack.reference import cli, conditions, kinds, metrics
from zerotrust.apikey.resource import KIND as API_KEY
from zerotrust.cli.main import zerotrust
from zerotrust.common.crd import custom_resource_definition
from zerotrust.identity.resource import KIND as SERVICE_IDENTITY
from zerotrust.policy.resource import KIND as TRUST_POLICY
from zerotrust.trustdomain.resource import KIND as TRUST_DOMAIN

KINDS = (TRUST_DOMAIN, SERVICE_IDENTITY, TRUST_POLICY, API_KEY)
ROOT = Path(__file__).resolve().parent.parent
HEADER = "# Generated from the resource models by `make generate`; do not edit.\n"
TEMPLATES = ROOT / "operator" / "zerotrust" / "gatekeeper" / "templates"
GUIDE = ROOT / "docs" / "guides" / "troubleshooting.md"
GATEKEEPER = ROOT / "manifests" / "gatekeeper"
COPIES = (GATEKEEPER, chart.CRDS, chart.FILES, chart.TEMPLATES)
COPY_HEADER = "# Generated from {source} by `make generate`; do not edit.\n"


def main() -> int:
    wanted = generated()
    for folder in COPIES:
        for stale in folder.glob("*.yaml"):
            if stale not in wanted:
                stale.unlink()
    for path, text in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        print(f"wrote {path.relative_to(ROOT)}", file=sys.stderr)
    return 0


def generated() -> dict[Path, str]:
    """Return the text of each file that is generated."""
    reference = ROOT / "docs" / "reference"
    found = {}
    for kind in KINDS:
        definition = custom_resource_definition(kind)
        found[ROOT / "crds" / f"{kind.plural}.yaml"] = HEADER + _yaml(definition)
        found[reference / f"{kind.name.lower()}.md"] = kinds.page(kind, definition, HEADER.strip("# \n"))
    found[reference / "conditions.md"] = conditions.page(GUIDE.read_text())
    found[reference / "cli.md"] = cli.page(zerotrust)
    found[reference / "metrics.md"] = metrics.page()
    packaged = ROOT / "operator" / "zerotrust" / "cli"
    found[packaged / "advice.json"] = cli.advice(conditions.rows_of(GUIDE.read_text()))
    found[packaged / "install.json"] = cli.install(ROOT / "manifests")
    found[ROOT / "docs" / "concepts" / "images" / "shop.svg"] = drawing(ROOT / "examples" / "shop")
    return found | templates(GATEKEEPER) | dict(chart.copies(found))


def drawing(example: Path) -> str:
    """Who may call whom in an example, as `zerotrust graph` draws it."""
    result = CliRunner().invoke(zerotrust, ["graph", "-f", str(example), "-o", "svg"], catch_exceptions=False)
    if result.exit_code != 0:
        raise RuntimeError(f"zerotrust graph -f {example}: {result.stderr}")
    return result.stdout


def templates(folder: Path) -> dict[Path, str]:
    """Copies of the ConstraintTemplates, and a list of them for `kubectl apply -k`."""
    sources = sorted(TEMPLATES.glob("*.yaml"))
    found = {folder / source.name: _copied(source) + source.read_text() for source in sources}
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [source.name for source in sources],
    }
    usage = "# To be read. The operator installs them in two steps; docs/adr/0011-constraint-templates.md says why.\n"
    found[folder / "kustomization.yaml"] = _copied(TEMPLATES) + usage + _yaml(kustomization)
    return found


def _copied(source: Path) -> str:
    return COPY_HEADER.format(source=source.relative_to(TEMPLATES.parents[3]).as_posix())


class _Plain(yaml.SafeDumper):
    """Writes equal parts out instead of as anchors, which reviewers and diff tools cannot follow."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True


def _yaml(document: dict[str, Any]) -> str:
    return yaml.dump(document, Dumper=_Plain, sort_keys=False, width=120)


if __name__ == "__main__":
    raise SystemExit(main())
