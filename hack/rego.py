"""`make rego`: format, strict check, tests with coverage and lint of the Rego modules, with the pinned OPA and Regal.

The tests' certificates and tokens are made anew for each run, as `data.fixtures`.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from hack.gotools import ToolError, find_or_build

ROOT = Path(__file__).resolve().parent.parent
MODULES = ROOT / "operator" / "zerotrust" / "rego"
REGAL = ROOT / ".regal" / "config.yaml"
MINIMUM_COVERAGE = 95.0


def run(*command: str | Path) -> bool:
    return subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def covered(opa: Path, loaded: Path) -> bool:
    """Tell whether the tests pass and execute enough of the modules; say what they leave out otherwise."""
    if not run(opa, "test", MODULES, loaded):
        return False
    ran = subprocess.run([opa, "test", "--coverage", MODULES, loaded], capture_output=True, text=True, check=True)
    files = {
        Path(name): one for name, one in json.loads(ran.stdout)["files"].items() if not name.endswith("_test.rego")
    }
    hit = sum(one.get("covered_lines", 0) for one in files.values())
    missed = sum(one.get("not_covered_lines", 0) for one in files.values())
    share = 100 * hit / (hit + missed)
    print(f"coverage: {share:.1f} % of {hit + missed} lines in {len(files)} modules")
    if share >= MINIMUM_COVERAGE:
        return True
    for name, one in files.items():
        ranges = [f"{part['start']['row']}-{part['end']['row']}" for part in one.get("not_covered", [])]
        if ranges:
            print(f"  {name.name}: {', '.join(ranges)} not covered")
    print(f"error: at least {MINIMUM_COVERAGE} % must be covered", file=sys.stderr)
    return False


def main() -> int:
    """Run every check, also behind one that fails; 1 when one did."""
    try:
        opa, regal = find_or_build("opa"), find_or_build("regal")
    except ToolError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        loaded = Path(folder) / "fixtures.json"
        with loaded.open("w") as file:  # what tests make is no part of this program, whose types are checked
            subprocess.run([sys.executable, "-m", "tests.support.rego_fixtures"], cwd=ROOT, stdout=file, check=True)
        checks = [
            run(opa, "fmt", "--diff", "--fail", MODULES, ROOT / "tests" / "opa"),
            run(opa, "check", "--strict", MODULES, ROOT / "tests" / "opa"),
            covered(opa, loaded),
            run(regal, "lint", "--format", "compact", "--config-file", REGAL, MODULES),
        ]
    return 0 if all(checks) else 1


if __name__ == "__main__":
    sys.exit(main())
