"""What installing a tool with pip comes to, whichever tool it is: run a command, and tell a person where the tool is."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from hack.gotools import ToolError

PIP = ("-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet", "--require-hashes")


def run(tool: str, *command: str | Path) -> None:
    """Run a command that installs a tool; ToolError with the command's words when it fails."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        words = " ".join(map(str, command))
        raise ToolError(f"{tool} cannot be installed: `{words}` failed:\n{done.stdout}{done.stderr}")


def tell(find_or_install: Callable[[], Path]) -> int:
    """Print where a tool is, or on standard error why it is nowhere; returns the exit code."""
    try:
        print(find_or_install())
    except ToolError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0
