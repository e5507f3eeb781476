"""What the command line knows of the repository and cannot ask a cluster: advice for each reason, and what the install makes; and
the reference of its commands."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from pathlib import Path
from typing import Any

import click
import yaml

from hack.reference.conditions import Row

NAMESPACES, DEFAULT = "-namespaces", "-default"  # how roles are called that need not be for the whole cluster
INTRODUCTION = """\
# Command line

<!-- Generated from the commands by `make generate`; do not edit. -->

`zerotrust` is also a plugin of kubectl: `kubectl zerotrust COMMAND` is the same as `zerotrust COMMAND`. The
[guide](../guides/cli.md) says which command is for what.
"""


def advice(rows: Iterable[Row]) -> str:
    """The guide's rows for `cli/advice.json`, with links as text."""
    found = [
        {
            "kind": row.kind,
            "types": list(row.types),
            "status": row.status,
            "reasons": list(row.reasons),
            "meaning": _plain(row.meaning),
            "remedy": _plain(row.remedy),
        }
        for row in rows
        if row.reasons and not row.refers
    ]
    return _lines(found)


def _plain(cell: str) -> str:
    """A cell of a Markdown table as a sentence for a terminal."""
    text = re.sub(r"\[([^]]*)\]\(([^)]*)\)", lambda link: _linked(*link.groups()), cell)
    return text.replace("`", "").replace("\\|", "|")


def _linked(text: str, address: str) -> str:
    path = address.partition("#")[0].removeprefix("../")
    return f"{text} (docs/{path})" if not address.startswith("https:") else f"{text} ({address})"


def install(manifests: Path) -> str:
    """For `cli/install.json`: what `manifests/base` makes, as far as `zerotrust doctor` compares a cluster with it.

    `rights` are what each of our ServiceAccounts must be allowed to do; their `scope` is `cluster`, `namespaces` (each that is
    watched), `default`, or `operator`, the operator's own namespace. `policies` are admission policies, which need a binding.
    """
    documents = [
        document
        for folder in (manifests / "admission", manifests / "base", manifests / "rights")
        for path in sorted(folder.rglob("*.yaml"))
        for document in yaml.safe_load_all(path.read_text())
        if isinstance(document, dict)
    ]
    roles = {(one["kind"], one["metadata"]["name"]): one for one in documents if one["kind"] in ("Role", "ClusterRole")}
    bindings = [one for one in documents if one["kind"] in ("RoleBinding", "ClusterRoleBinding")]
    found = {json.dumps(right): right for binding in bindings for right in _rights_of(binding, roles)}
    policies = [
        {"kind": one["kind"], "name": one["metadata"]["name"]}
        for one in documents
        if one["kind"] in ("ValidatingAdmissionPolicy", "MutatingAdmissionPolicy")
    ]
    parts = {"policies": _lines(policies), "rights": _lines(found[key] for key in sorted(found))}
    return "{" + ",\n".join(f'"{name}": {text.rstrip()}' for name, text in parts.items()) + "}\n"


def _rights_of(binding: Mapping[str, Any], roles: Mapping[tuple[str, str], Any]) -> Iterator[dict[str, str]]:
    role = roles.get((binding["roleRef"]["kind"], binding["roleRef"]["name"]))
    name = binding["metadata"]["name"]
    scope = "operator" if binding["kind"] == "RoleBinding" else "cluster"
    scope = "namespaces" if name.endswith(NAMESPACES) else "default" if name.endswith(DEFAULT) else scope
    for subject in binding["subjects"] if role is not None else ():
        for rule in role["rules"] if role is not None else ():
            for group in rule.get("apiGroups", ()):
                for resource in rule["resources"]:
                    for verb in rule["verbs"]:
                        for called in rule.get("resourceNames", [""]):
                            yield {
                                "account": subject["name"],
                                "scope": scope,
                                "verb": verb,
                                "group": group,
                                "resource": resource,
                                "name": called,
                            }


def _lines(found: Iterable[Mapping[str, Any]]) -> str:
    """JSON with a line for each entry, so that a change is read easily."""
    return "[\n" + ",\n".join(json.dumps(one, ensure_ascii=False) for one in found) + "\n]\n"


def page(program: click.Group) -> str:
    """Return the reference of all commands: what `--help` says, but for `--help` itself."""
    return "\n".join([INTRODUCTION, *_sections(program, "zerotrust")])


def _sections(command: click.Command, name: str) -> Iterator[str]:
    if isinstance(command, click.Group):
        for word in sorted(command.commands):
            yield from _sections(command.commands[word], f"{name} {word}")
        return
    command = copy(command)
    command.add_help_option = False  # how it looks depends on the first context that a command has ever had
    with click.Context(command, info_name=name, max_content_width=100, terminal_width=100) as context:
        text = command.get_help(context)
    yield from (f"## {name}", "", "```text", *(line.rstrip() for line in text.splitlines()), "```", "")
