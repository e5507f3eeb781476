"""Finds network-config-analyzer's `nca`, and installs it when it is missing, with the pins in requirements/nca.txt.

It gets a virtual environment of its own, because it pins another PyYAML than kubernetes takes. `python hack/nca.py`
prints where it is.
"""

import hashlib
import sys
from functools import partial
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from hack.gotools import cache_directory, only_builder
from hack.installing import PIP, run, tell

REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements" / "nca.txt"

_run = partial(run, "network-config-analyzer")


def find_or_install() -> Path:
    """The `nca` executable: from the cache, else newly installed. Raises ToolError when pip fails."""
    folder = cache_directory() / f"nca-{_key()}"
    if not _is_complete(folder):
        with only_builder("nca", "nca"):
            if not _is_complete(folder):
                _install(folder)
    return folder / "bin" / "nca"


def _key() -> str:
    """Names an installation by its pins and by the Python that it was made for."""
    inputs = f"{sys.version_info[:2]} {REQUIREMENTS.read_text()}"
    return hashlib.sha256(inputs.encode()).hexdigest()[:16]


def _complete(folder: Path) -> Path:
    """The mark that an installation was not interrupted."""
    return folder / ".complete"


def _is_complete(folder: Path) -> bool:
    # The environment's Python is a link, which dangles after the Python that it was made from has gone.
    return _complete(folder).exists() and (folder / "bin" / "python").exists()


def _install(folder: Path) -> None:
    print("installing network-config-analyzer (a few seconds)", file=sys.stderr)
    _run(sys.executable, "-m", "venv", "--clear", folder)
    _run(folder / "bin" / "python", *PIP, "-r", REQUIREMENTS)
    _complete(folder).touch()


if __name__ == "__main__":
    sys.exit(tell(find_or_install))
