"""Whether a program has the options and arguments that the documentation gives it."""

import re
from collections.abc import Sequence
from functools import cache

import click

from tests.docs.blocks import ROOT
from tests.docs.sandbox import Sandbox
from zerotrust.cli.main import zerotrust

TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
# Folders of the repository: an argument that begins with one of them names a file that must be there.
FOLDERS = tuple(f"{path.name}/" for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith("."))
GLOBAL_FLAGS = {"-n", "-A", "-h", "--help", "-v"}


def missing_files(arguments: Sequence[str]) -> list[str]:
    """Arguments that name a file of this repository which does not exist."""
    named = [part for argument in arguments for part in argument.split("=")[-1:]]
    return [name for name in named if name.startswith(FOLDERS) and not (ROOT / name).exists()]


def misread_by_us(arguments: Sequence[str]) -> str | None:
    """What `zerotrust` has against some arguments; files that only the reader has are no objection."""
    command: click.Command = zerotrust
    context: click.Context | None = None
    rest = list(arguments)
    try:
        while isinstance(command, click.Group):
            context = command.make_context(command.name, rest, parent=context)
            name, found, rest = command.resolve_command(context, [*context._protected_args, *context.args])
            assert found is not None, name
            command = found
        command.make_context(command.name, rest, parent=context)
    except click.exceptions.Exit:  # --help, --version
        return None
    except click.UsageError as error:
        text = error.format_message()
        return None if "does not exist" in text else text
    return None


def misread_by_make(arguments: Sequence[str]) -> str | None:
    targets = [word for word in arguments if not re.match(r"[A-Z]+=", word)]
    unknown = [target for target in targets if target not in TARGETS]
    return f"no such target: {', '.join(unknown)}" if unknown else None


def misread_by_kubectl(arguments: Sequence[str], sandbox: Sandbox) -> str | None:
    """What kubectl does not have, by its own --help."""
    words = [word for word in arguments if re.fullmatch(r"[a-z][a-z-]*", word)]
    flags = [word.partition("=")[0] for word in arguments if re.match(r"--?[A-Za-z]", word)]
    verb = next((word for word in words if word in _verbs(sandbox)), None)
    if verb is None:
        return f"no such command: {words[:1]}"
    named = words[words.index(verb) :][:3]
    known = {flag for number in range(len(named)) for flag in _flags(" ".join(named[: number + 1]), sandbox)}
    unknown = [flag for flag in flags if flag not in known | GLOBAL_FLAGS and flag[:2] not in known]
    return f"kubectl {verb} has no {', '.join(unknown)}" if unknown else None


@cache
def _verbs(sandbox: Sandbox) -> frozenset[str]:
    return frozenset(re.findall(r"^  ([a-z-]+) {2,}", sandbox.run("kubectl --help").output, re.MULTILINE))


@cache
def _flags(command: str, sandbox: Sandbox) -> frozenset[str]:
    told = sandbox.run(f"kubectl {command} --help; kubectl options").output
    return frozenset(re.findall(r"(?<![\w-])(--?[A-Za-z][A-Za-z-]*)", told))
