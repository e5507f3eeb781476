"""The README and the quickstart, from their first command to their last, on a control plane on which nothing is installed."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

import pytest

from hack.controlplane import ControlPlane
from tests.docs.commands import Command, commands
from tests.docs.exceptions import FIRST_STEPS
from tests.docs.sandbox import SECONDS, Sandbox

pytestmark = pytest.mark.cluster

STEPS = {page: list(steps) for page, steps in groupby(commands(), lambda one: one.block.page) if page in FIRST_STEPS}


@pytest.mark.parametrize("page", FIRST_STEPS)
def test_first_steps(page: str, tmp_path: Path) -> None:
    steps = [one for one in STEPS[page] if one.reason is None]
    stay = [one for one in steps if one.calls[0][1:] == ("controller",)]
    assert len(stay) == 1
    with ControlPlane() as plane:
        sandbox = Sandbox(tmp_path, plane)
        number = steps.index(stay[0])
        for command in steps[:number]:
            sandbox.check(command)
        with in_the_foreground(stay[0], sandbox):
            for command in steps[number + 1 :]:
                sandbox.check(command)


@contextmanager
def in_the_foreground(command: Command, sandbox: Sandbox) -> Iterator[None]:
    """A command that stays, as in a terminal of its own; at the end it gets a Ctrl-C and must leave in order."""
    log = sandbox.folder / "controller.log"
    # Its metrics' port may be taken on a machine that does other things as well.
    text = f"exec {command.text.partition('#')[0]} --metrics-host 127.0.0.1 --metrics-port 0"
    with log.open("wb") as file:
        process = subprocess.Popen(["bash", "-c", text], cwd=sandbox.folder, env=sandbox.environment, stderr=file)
    try:
        yield
        assert process.poll() is None, log.read_text()
    finally:
        process.terminate()
        assert process.wait(SECONDS) == 0, log.read_text()
