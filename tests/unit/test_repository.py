"""What holds for the repository as a whole: layers, purity, sizes, pins, documentation."""

import ast
import hashlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hack.reference.conditions import reasons

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "operator"
PACKAGE = SOURCE / "zerotrust"

# A package may import itself, the ones named here, and nothing else of ours (DESIGN section 4).
LAYERS = {
    "common": set[str](),
    "telemetry": {"common"},
    "pki": {"common"},
    "trustdomain": {"common", "pki"},
    "identity": {"common", "pki", "trustdomain"},
    "apikey": {"common", "pki", "trustdomain", "identity"},
    "policy": {"common", "pki", "trustdomain", "identity", "apikey"},
    "providers": {"common", "pki", "trustdomain", "identity", "policy"},
    "opabundle": {"common", "pki", "trustdomain", "identity", "apikey", "policy"},
    "gatekeeper": {"common", "pki", "trustdomain", "identity", "apikey", "policy"},
    "importing": {"common", "pki", "trustdomain", "identity", "policy"},
    "engine": {
        "common",
        "telemetry",
        "pki",
        "trustdomain",
        "identity",
        "apikey",
        "policy",
        "providers",
        "opabundle",
        "gatekeeper",
    },
    "kube": {"common", "telemetry", "pki", "trustdomain", "identity", "apikey", "policy", "gatekeeper", "engine"},
    "bundleserver": {"common", "telemetry", "pki", "trustdomain", "apikey", "policy", "opabundle", "engine", "kube"},
    "forwardauth": {"common", "telemetry", "pki"},
    "cli": {
        "common",
        "telemetry",
        "pki",
        "trustdomain",
        "identity",
        "apikey",
        "policy",
        "opabundle",
        "gatekeeper",
        "importing",
        "engine",
        "kube",
        "bundleserver",
        "forwardauth",
    },
    "rego": set(),
}
PURE = ("common", "pki", "trustdomain", "identity", "apikey", "policy", "opabundle", "gatekeeper", "importing")
PURE_MAY_USE = {"cryptography", "joserfc", "pydantic", "pydantic_core", "yaml"}
CLOCKS_AND_DICE = {"time", "random", "secrets", "uuid"}
INPUT_AND_OUTPUT = {"asyncio", "threading", "socket", "http", "subprocess", "os", "io", "pathlib", "tempfile", "shutil"}
READS_THE_CLOCK = re.compile(r"\b(datetime\.(now|utcnow|today)|date\.today)$")
MAX_LINES = 450


@dataclass(frozen=True)
class Module:
    """A parsed file of ours."""

    path: Path
    tree: ast.Module

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @property
    def package(self) -> str:
        parts = self.path.relative_to(PACKAGE).parts
        return parts[0] if len(parts) > 1 else ""

    def imports(self) -> Iterator[str]:
        """Dotted names of everything that is imported, also inside functions; relative imports are not used."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{self.name}:{node.lineno}: write imports in full"
                assert node.module
                yield node.module
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules(*packages: str) -> list[Module]:
    found = [Module(path, ast.parse(path.read_text())) for path in sorted(PACKAGE.rglob("*.py"))]
    return [module for module in found if not packages or module.package in packages]


def committed(*patterns: str) -> list[Path]:
    """Files that are in git, or would be after `git add`."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def test_the_source_root_never_shadows_the_standard_library() -> None:
    """`operator/` on sys.path is fine; as a package it would be found in place of the standard library's `operator`."""
    assert not (SOURCE / "__init__.py").exists()
    assert {path.name for path in SOURCE.iterdir() if path.suffix != ".egg-info"} == {"zerotrust"}


def test_every_package_has_a_layer() -> None:
    assert {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"} == set(LAYERS)


@pytest.mark.parametrize("package", LAYERS)
def test_imports_point_downwards(package: str) -> None:
    allowed = {"__version__", package, *LAYERS[package]}
    breaches = [
        f"{module.name} imports {name}"
        for module in modules(package)
        for name in module.imports()
        if name.startswith("zerotrust.") and name.split(".")[1] not in allowed
    ]
    assert not breaches


@pytest.mark.parametrize("package", PURE)
def test_the_core_is_pure(package: str) -> None:
    """Clock, randomness and I/O come in from outside; so a decision can be repeated and tested."""
    allowed = (PURE_MAY_USE | {"zerotrust"} | sys.stdlib_module_names) - CLOCKS_AND_DICE - INPUT_AND_OUTPUT
    foreign = [
        f"{module.name} imports {name}"
        for module in modules(package)
        for name in module.imports()
        if name.split(".")[0] not in allowed
    ]
    clocks = [
        f"{module.name}:{node.lineno} reads the clock"
        for module in modules(package)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute) and READS_THE_CLOCK.search(ast.unparse(node))
    ]
    assert not foreign + clocks


def test_only_the_watch_knows_kopf() -> None:
    users = {module.name for module in modules() for name in module.imports() if name.split(".")[0] == "kopf"}
    assert users == {"operator/zerotrust/kube/watch.py"}


def test_a_file_is_a_room() -> None:
    """A long file holds a second concept that wants a file of its own."""
    lengths = {module.name: len(module.path.read_text().splitlines()) for module in modules()}
    assert not {name: length for name, length in lengths.items() if length > MAX_LINES}


def project() -> dict[str, list[str]]:
    """Names of what pyproject.toml depends on, by the file that pins it."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text())
    run_time = document["project"]["dependencies"]
    return {
        "build.txt": _names(document["build-system"]["requires"]),
        "runtime.txt": _names(run_time),
        "dev.txt": _names([*run_time, *document["project"]["optional-dependencies"]["dev"]]),
    }


def _names(requirements: list[str]) -> list[str]:
    return [re.split(r"[\s<>=!~;\[]", requirement)[0].lower() for requirement in requirements]


def test_every_dependency_says_why() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    blocks = re.findall(r"^(?:dependencies|dev) = \[\n(.*?)^\]", text, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()]
    assert len(lines) == len(project()["dev.txt"])
    assert not [line for line in lines if not re.fullmatch(r' +"[^"]+", +# \S.{5,}', line)]


@pytest.mark.parametrize("file", ["build.txt", "runtime.txt", "dev.txt"])
def test_every_dependency_is_pinned_with_hashes(file: str) -> None:
    text = (ROOT / "requirements" / file).read_text().replace("\\\n", " ")
    entries = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    loose = [
        line for line in entries if not re.match(r"[a-z0-9._-]+(\[[a-z,]+\])?==[^ ]+ .*--hash=sha256:", line, re.I)
    ]
    assert not loose
    pinned = {re.split(r"[=\[]", line)[0].lower() for line in entries}
    assert set(project()[file]) <= pinned


def test_what_runs_is_what_is_tested() -> None:
    """The development pins contain the run-time pins, version for version."""

    def pins(file: str) -> set[str]:
        return set(re.findall(r"^[\w.\[\]-]+==[^ \\]+", (ROOT / "requirements" / file).read_text(), re.MULTILINE))

    assert pins("runtime.txt") <= pins("dev.txt")


def test_the_readme_names_the_two_commands() -> None:
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    for command in ("demo", "test"):
        assert f"make {command}" in readme
        assert re.search(rf"^{command}:.*## \w", makefile, re.MULTILINE)
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_the_licence_is_the_standard_text() -> None:
    """Byte for byte what the Apache Software Foundation publishes as LICENSE-2.0.txt."""
    digest = hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest()
    assert digest == "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"


def test_no_file_depends_on_a_machine() -> None:
    folders = "|".join(("work", "root", "home", "Users"))
    machine = re.compile(rf"(?<![\w.}}/-])/(?:{folders})/[a-z]")
    found = []
    for path in committed():
        try:
            lines = path.read_text().splitlines()
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}:{number}" for number, line in enumerate(lines, 1) if machine.search(line)]
    assert not found


def test_every_link_in_the_documentation_resolves() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in committed("*.md")
        for target in links(page.read_text())
        if not resolves(page, target)
    ]
    assert not broken


def links(markdown: str) -> list[str]:
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", markdown, flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", prose)
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def resolves(page: Path, target: str) -> bool:
    place, _, anchor = target.partition("#")
    file = page.parent / place if place else page
    if not file.exists() or ROOT not in file.resolve().parents:
        return False
    return not anchor or anchor in anchors(file.read_text())


def anchors(markdown: str) -> set[str]:
    """The names that GitHub gives to headings."""
    without_code = re.sub(r"```.*?```", "", markdown, flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+?)\s*$", without_code, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_reason_is_explained() -> None:
    """A reason is what a user searches for: each that the code can put into a condition or an event is in the guide."""
    guide = (ROOT / "docs" / "guides" / "troubleshooting.md").read_text()
    words = {word for module in modules("trustdomain", "identity", "apikey", "policy") for word in reasons(module.tree)}
    assert {"Issued", "AuthorityMissing", "FieldsWithoutEffect", "NearExpiry"} <= words
    assert not [word for word in sorted(words) if f"`{word}`" not in guide]
