"""`zerotrust diff`: what a change of manifests means: edges gained and lost, and who is protected by what."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import click

from zerotrust.cli.edges import Edge, edges
from zerotrust.cli.policies import EXIT_PROBLEM, Intent, file_options, load, report, say
from zerotrust.policy.directory import Workload

EXIT_EQUAL, EXIT_DIFFERENT = 0, 1


@dataclass(frozen=True, order=True)
class Protection:
    """A layer that enforces the table of a workload; without any, nothing about it is enforced."""

    server: Workload
    layer: str

    def __str__(self) -> str:
        return f"protect {self.server} by {self.layer}"


@dataclass(frozen=True)
class Difference:
    """What one side has and the other has not.

    `opening` are the lines that may let something through that was stopped: an Allow that no other covered, a Deny that no
    other replaces, a layer that is taken off. A workload that no policy protects any more stays isolated, so that opens nothing.
    """

    gained: tuple[Edge, ...]
    lost: tuple[Edge, ...]
    protected: tuple[Protection, ...]
    unprotected: tuple[Protection, ...]
    opening: frozenset[Edge | Protection]

    @property
    def is_empty(self) -> bool:
        """Whether both sides mean the same."""
        return not (self.gained or self.lost or self.protected or self.unprotected)


def compare(old: Intent, new: Intent) -> Difference:
    """Return what changes from one set of manifests to another."""
    before, after = edges(old), edges(new)
    gained, lost = after - before, before - after
    guards_before, guards_after = set(_protections(old)), set(_protections(new))
    unprotected = guards_before - guards_after
    layers = {server.workload: table.layers for server, table in new.tables()}
    taken_off = frozenset(one for one in unprotected if layers.get(one.server))
    return Difference(
        gained=_sorted(gained),
        lost=_sorted(lost),
        protected=tuple(sorted(guards_after - guards_before)),
        unprotected=tuple(sorted(unprotected)),
        opening=_uncovered(gained, before, "Allow") | _uncovered(lost, after, "Deny") | taken_off,
    )


def _sorted(found: Iterable[Edge]) -> tuple[Edge, ...]:
    return tuple(sorted(found, key=lambda edge: edge.order))


def _uncovered(found: Iterable[Edge], others: Iterable[Edge], effect: str) -> frozenset[Edge]:
    by_server: dict[Workload, list[Edge]] = {}
    for other in others:
        by_server.setdefault(other.server, []).append(other)
    return frozenset(
        edge
        for edge in found
        if edge.row.effect == effect and not any(one.covers(edge) for one in by_server.get(edge.server, ()))
    )


def _protections(intent: Intent) -> Iterable[Protection]:
    for server, table in intent.tables():
        if server.enforcement == "Enforce":
            yield from (Protection(server.workload, layer) for layer in table.layers)


@click.command()
@click.option(
    "-f", "--filename", "files", multiple=True, metavar="FILE", help="Twice: the old manifests, then the new."
)
@click.option("--old", "old_files", multiple=True, metavar="FILE", help="Old manifests; may be given several times.")
@click.option("--new", "new_files", multiple=True, metavar="FILE", help="New manifests; may be given several times.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@file_options
@click.pass_context
def diff(
    context: click.Context,
    /,
    files: Sequence[str],
    old_files: Sequence[str],
    new_files: Sequence[str],
    output: str,
    **surroundings: Any,
) -> None:
    """Show which edges a change of manifests gains (+) and loses (-).

    Give both sides as `-f OLD -f NEW`, each a file or folder, or, where a side has several, with --old and --new. An edge
    is a client, a server, a port, a method, a path and the conditions. A `!` marks what opens something that was closed
    before. What policies in mode Observe would change is not shown, because nothing of it is in force.

    Exits with 0 when both sides mean the same, with 1 when they differ, with 2 when a side cannot be read or a policy in
    it is not accepted.
    """
    sides = _sides(files, old_files, new_files)
    old, new = (load(side, **surroundings) for side in sides)
    broken = [report(intent.problems) for intent in (old, new)]
    if any(broken):
        context.exit(EXIT_PROBLEM)
    difference = compare(old, new)
    if output == "json":
        click.echo(json.dumps(_document(difference), indent=2))
    else:
        say(_text(difference))
    context.exit(EXIT_EQUAL if difference.is_empty else EXIT_DIFFERENT)


def _sides(files: Sequence[str], old: Sequence[str], new: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    if files and (old or new):
        raise click.UsageError("Give -f twice, or --old and --new, not both.")
    if old and new:
        return old, new
    if len(files) != 2:
        raise click.UsageError("Give two sides: -f OLD -f NEW, or --old FILE... --new FILE...")
    return files[:1], files[1:]


def _text(difference: Difference) -> str:
    if difference.is_empty:
        return "no differences"
    lines = [*((edge, "+") for edge in difference.gained), *((edge, "-") for edge in difference.lost)]
    said = [
        f"{sign}{'!' if edge in difference.opening else ' '} {edge}"
        for edge, sign in sorted(lines, key=lambda line: (line[0].order, line[1]))
    ]
    said += [f"+  {one}" for one in difference.protected]
    said += [f"-{'!' if one in difference.opening else ' '} {one}" for one in difference.unprotected]
    verdict = "what is marked ! opens something" if difference.opening else "nothing is opened"
    counts = f"{_count(len(difference.gained))} gained, {len(difference.lost)} lost"
    return "\n".join([*said, "", f"{counts}; {verdict}"])


def _count(number: int) -> str:
    return "1 edge" if number == 1 else f"{number} edges"


def _document(difference: Difference) -> dict[str, Any]:
    def listed(found: Iterable[Edge]) -> list[dict[str, Any]]:
        return [{**edge.to_document(), "opens": edge in difference.opening} for edge in found]

    return {
        "equal": difference.is_empty,
        "opens": bool(difference.opening),
        "gained": listed(difference.gained),
        "lost": listed(difference.lost),
        "protected": [{"server": str(one.server), "layer": one.layer} for one in difference.protected],
        "unprotected": [
            {"server": str(one.server), "layer": one.layer, "opens": one in difference.opening}
            for one in difference.unprotected
        ],
    }
