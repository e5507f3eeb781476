"""A folder that looks like the repository's root, in which the documentation's commands run as they are printed."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hack.controlplane import ControlPlane
from hack.gotools import find_or_build
from tests.docs.blocks import ROOT
from tests.docs.commands import Command

SECONDS = 60.0
# Commands of `zerotrust` whose exit code 1 is an answer: denied, the sides differ, the key is not good, something is wrong.
SAY_NO = {"explain", "diff", "import", "keys", "status", "why"}
# What differs from one run to the next.
VARIABLE = (
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "<time>"),
    (r"(?m)(?<=\s)(?:\d+[dhms])+(?=\s|$)", "<age>"),
    (r"[ \t]+", " "),
)


@dataclass(frozen=True)
class Ran:
    """What a command has done."""

    code: int
    output: str
    errors: str


class Sandbox:
    """The repository's files by links, our programs and kubectl on the path, a control plane's kubeconfig if there is one."""

    def __init__(self, folder: Path, plane: ControlPlane | None = None) -> None:
        self.folder = folder / "repository"
        self.folder.mkdir()
        for entry in ROOT.iterdir():
            if entry.name not in (".git", ".venv"):
                (self.folder / entry.name).symlink_to(entry)
        programs = self.folder / ".venv" / "bin"
        programs.mkdir(parents=True)
        for program in Path(sys.executable).parent.glob("*zerotrust*"):
            (programs / program.name).symlink_to(program)
        self.environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "200"}
        self.environment.pop("KUBECONFIG", None)
        if plane is not None:
            (programs / "kubectl").symlink_to(find_or_build("kubectl"))
            self.environment["KUBECONFIG"] = str(plane.kubeconfig)

    def run(self, text: str) -> Ran:
        """Run a command line as a person's shell would."""
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", text],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS * 2,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    def check(self, command: Command, text: str | None = None) -> None:
        """Run a command, again until it prints what the page says, if the page says something."""
        deadline = time.monotonic() + SECONDS
        program, *arguments = command.calls[-1]
        may_say_no = program.endswith("zerotrust") and arguments[0] in SAY_NO
        while True:
            ran = self.run(text or command.text)
            right = ran.code == 0 or (ran.code == 1 and may_say_no)
            if right and (not command.output.strip() or shape(ran.output) == shape(command.output)):
                return
            if not right or time.monotonic() > deadline:
                break
            time.sleep(0.5)
        assert right, f"{command}: $ {command.text}\nended with {ran.code}:\n{(ran.output + ran.errors)[-2000:]}"
        assert shape(ran.output) == shape(command.output), f"{command}: $ {command.text}"


def shape(output: str) -> list[str]:
    """Lines of an output without what differs from one run to the next."""
    for pattern, replacement in VARIABLE:
        output = re.sub(pattern, replacement, output)
    return [line.strip() for line in output.strip().splitlines()]


def placeholders(files: Mapping[str, str | bytes], sandbox: Sandbox) -> None:
    """Put files where the documentation says that the reader has some."""
    for name, content in files.items():
        path = sandbox.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
