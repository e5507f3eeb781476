"""The guide's examples are read by the models, and its commands and names are those that there are."""

import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from zerotrust.apikey.key import LENGTH
from zerotrust.apikey.memory import MAX_KEYS
from zerotrust.apikey.resource import MAX_NAME, MAX_REVOKED, ApiKeySpec
from zerotrust.apikey.secret import FORMATS
from zerotrust.cli.keys import keys
from zerotrust.cli.manifests import Loader
from zerotrust.common.resource import parse
from zerotrust.policy.resource import TrustPolicySpec

ROOT = Path(__file__).resolve().parents[3]
GUIDE = (ROOT / "docs" / "guides" / "api-keys.md").read_text()
BLOCKS = re.findall(r"^```yaml\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"^\$ zerotrust keys (.*?)(?: +#.*)?$", GUIDE, re.MULTILINE)
# What is shown in part stands in an ApiKey of the simplest kind.
REST: dict[str, Any] = {"holder": {"name": "x"}, "audience": ["orders"]}
MODELS = {"ApiKey": ApiKeySpec, "TrustPolicy": TrustPolicySpec}


def test_the_guide_has_examples() -> None:
    assert len(BLOCKS) == 7
    assert len(COMMANDS) == 7


@pytest.mark.parametrize("number", range(7))
def test_yaml(number: int) -> None:
    body = yaml.load(BLOCKS[number], Loader=Loader)
    whole = "kind" in body
    parse(MODELS[body.get("kind", "ApiKey")], body["spec"] if whole else REST | body["spec"], "spec")


@pytest.mark.parametrize("number", range(7))
def test_commands(number: int) -> None:
    """They are read as they stand; nothing is run."""
    name, *rest = shlex.split(COMMANDS[number].partition(" < ")[0])
    command = keys.commands[name]
    with click.Context(keys) as parent:
        context = command.make_context(name, rest, parent=parent)
    assert context.params


def test_numbers_and_names_are_those_of_the_code() -> None:
    assert f"| {LENGTH} characters: `sk_`" in GUIDE
    assert f"| {MAX_KEYS}; more rotations" in GUIDE
    assert f"| {MAX_REVOKED:,}; old ones" in GUIDE
    assert f"| the name | {MAX_NAME} characters |" in GUIDE
    for plain, variable in zip(FORMATS["Opaque"], FORMATS["Env"], strict=True):
        assert f"| `{plain}` | `{variable}` |" in GUIDE
