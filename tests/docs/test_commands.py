"""Commands of the documentation: what `zerotrust` and `make` are given is right, and what needs no cluster is run."""

import shlex
from pathlib import Path

import pytest

from tests.docs.commands import Command, commands
from tests.docs.exceptions import CHECKED_ONLY
from tests.docs.options import misread_by_make, misread_by_us, missing_files
from tests.docs.sandbox import Sandbox
from tests.docs.summary import summary

OURS = [(one, call) for one in commands() for call in one.calls if call[0].endswith("zerotrust")]
ALONE = [one for one in commands() if one.treatment == "without a cluster"]
MAKE = [(one, call) for one in commands() for call in one.calls if call[0] == "make"]


def test_summary() -> None:
    counted = summary()
    assert sum(counted.commands.values()) == len(commands()) > 70
    assert counted.commands["checked"] < len(commands()) / 2


def test_no_exception_is_stale() -> None:
    """An entry that nothing matches, or that an earlier one hides, is an untruth."""
    used = {one.exception for one in commands()}
    assert not [one for one in CHECKED_ONLY if one not in used]


@pytest.mark.parametrize("command", commands(), ids=str)
def test_files_that_are_named_exist(command: Command) -> None:
    assert not [name for call in command.calls for name in missing_files(call)]


@pytest.mark.parametrize(("command", "call"), OURS, ids=lambda one: str(one) if isinstance(one, Command) else "")
def test_our_options(command: Command, call: tuple[str, ...]) -> None:
    assert misread_by_us(call[1:]) is None


@pytest.mark.parametrize(("command", "call"), MAKE, ids=lambda one: str(one) if isinstance(one, Command) else "")
def test_targets(command: Command, call: tuple[str, ...]) -> None:
    assert misread_by_make(call[1:]) is None


@pytest.mark.parametrize("wrong", ["verify --outpt json x", "keys rotat x -n shop", "explain --from a/b", "render -f"])
def test_a_wrong_command_is_noticed(wrong: str) -> None:
    assert misread_by_us(shlex.split(wrong)) is not None


def test_a_wrong_file_and_a_wrong_target_are_noticed() -> None:
    assert missing_files(["-f", "examples/shopp", "--from-file=examples/nginx/none.conf"])
    assert misread_by_make(["tset"])


@pytest.mark.parametrize("page", list(dict.fromkeys(one.block.page for one in ALONE)))
def test_without_a_cluster(page: str, tmp_path: Path) -> None:
    """One after the other, because the next reads what the one before has written."""
    sandbox = Sandbox(tmp_path)
    for command in ALONE:
        if command.block.page == page:
            sandbox.check(command)
