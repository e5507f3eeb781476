"""Options and ways to answer that several commands share."""

import json
import re
import sys
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, TypeVar

import click
import yaml

from zerotrust.cli.policies import say
from zerotrust.common import durations
from zerotrust.common.resource import DNS_LABEL

EXIT_DONE, EXIT_NOT_YET = 0, 1
SHORTEST, LONGEST = timedelta(seconds=1), timedelta(hours=24)

Command = TypeVar("Command", bound=Callable[..., Any])


class ShapedText(click.ParamType[str]):
    """A text of a known shape. A wrong one is never repeated: it may be a key that was pasted in the wrong place."""

    def __init__(self, name: str, fits: Callable[[str], bool], advice: str) -> None:
        self.name, self._fits, self._advice = name, fits, advice

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text; a usage error says what to write."""
        text = str(value)
        if not self._fits(text):
            self.fail(self._advice, param, ctx)
        return text


class Wait(click.ParamType[timedelta]):
    """A duration in Go syntax."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Return the duration; a usage error says what to write."""
        if isinstance(value, timedelta):
            return value
        try:
            found = durations.parse(str(value))
        except ValueError:
            self.fail("is no duration; write for example 90s, 5m or 1h30m", param, ctx)
        if not SHORTEST <= found <= LONGEST:
            self.fail("must be between 1s and 24h", param, ctx)
        return found


def shape(pattern: str, longest: int) -> Callable[[str], bool]:
    """A text that a regular expression describes, and that is not too long."""
    return lambda text: len(text) <= longest and re.fullmatch(pattern, text) is not None


NAMESPACE = ShapedText(
    "namespace", shape(DNS_LABEL, 63), "is no name of a namespace; write at most 63 small letters, digits and hyphens"
)


def options(*parts: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator."""

    def add(command: Command) -> Command:
        for part in reversed(parts):
            command = part(command)
        return command

    return add


cluster_options = options(
    click.option("--kubeconfig", metavar="FILE", help="Cluster; default: KUBECONFIG."),
    click.option("--context", "kube_context", metavar="NAME", help="Context of the kubeconfig."),
)
namespace_option = click.option(
    "-n", "--namespace", type=NAMESPACE, help="Namespace. [default: the one of the kubeconfig's context]"
)
operator_option = click.option(
    "--operator-namespace",
    type=NAMESPACE,
    envvar="ZEROTRUST_NAMESPACE",
    default="zerotrust-system",
    show_default=True,
    help="The operator's namespace.",
)
output_option = click.option(
    "-o", "--output", type=click.Choice(["text", "json", "yaml"]), default="text", show_default=True
)
dry_run_option = click.option("--dry-run", is_flag=True, help="Say what would be written, and write nothing.")
timeout_option = click.option(
    "--timeout", type=Wait(), default="5m", show_default=True, metavar="DURATION", help="How long to wait."
)


def emit(output: str, document: Mapping[str, Any], words: str) -> None:
    """Print the one answer of a command: for scripts as JSON or YAML, for people as text."""
    match output:
        case "json":
            click.echo(json.dumps(document, indent=2))
        case "yaml":
            click.echo(yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=False).removesuffix("\n"))
        case _:
            say(words)


def emit_first(output: str, words: str) -> None:
    """Before a wait: part of the answer for people, and kept out of the one document for scripts."""
    say(words, err=output != "text")
    sys.stdout.flush()
