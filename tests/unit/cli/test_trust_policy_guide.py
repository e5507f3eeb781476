"""The guide's examples are read by the models, and its commands print what it says."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from zerotrust.cli.main import zerotrust
from zerotrust.cli.manifests import documents
from zerotrust.common.resource import parse
from zerotrust.identity.resource import ServiceIdentitySpec
from zerotrust.policy.resource import TrustPolicySpec

ROOT = Path(__file__).resolve().parents[3]
GUIDE = (ROOT / "docs" / "guides" / "trust-policies.md").read_text()
BLOCKS = re.findall(r"^```yaml\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
CONSOLE = re.findall(
    r"^```console\n\$ zerotrust ((?:.*\\\n)*.*)\n((?:.*\n)*?)```", GUIDE, re.MULTILINE
)  # a command may go on behind a backslash
# What is shown in part stands in a policy of the simplest kind.
FRAME = "apiVersion: zerotrust.dev/v1alpha1\nkind: TrustPolicy\nmetadata: {name: part}\nspec:\n  target: {all: true}\n"
MODELS = {"TrustPolicy": TrustPolicySpec, "ServiceIdentity": ServiceIdentitySpec}


def whole(block: str) -> list[dict[str, Any]]:
    text = block if "\nkind:" in block else FRAME + "".join(f"  {line}\n" for line in block.splitlines())
    return list(documents("guide", text.encode(), "default"))


def test_the_guide_has_examples() -> None:
    assert len(BLOCKS) == 7
    assert len(CONSOLE) == 4


@pytest.mark.parametrize("block", BLOCKS)
def test_yaml(block: str) -> None:
    (body,) = whole(block)
    parse(MODELS[body["kind"]], body["spec"], "spec")


@pytest.mark.parametrize(("command", "output"), CONSOLE)
def test_commands(command: str, output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    result = CliRunner().invoke(zerotrust, shlex.split(command.partition(" > ")[0].replace("\\\n", "")))
    assert result.exit_code in (0, 1)
    assert result.stderr == ""
    assert " > " in command or result.stdout == output
