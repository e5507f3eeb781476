"""`zerotrust graph`: who may call whom, as a document for Graphviz, Mermaid or a browser."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import click

from zerotrust.cli.edges import is_refused
from zerotrust.cli.policies import EXIT_PROBLEM, Intent, load, printable, report, say, source_options
from zerotrust.cli.rows import client_of, conditions_of, port_of, requests_of
from zerotrust.policy.table import Client, Row

MAX_ARROWS = 1000  # of an SVG: more take minutes, and nobody sees anything in them
Kind = Literal["allow", "deny", "refused"]
KINDS: dict[Kind, str] = {"allow": "may call", "deny": "must not call", "refused": "its own egress is closed"}


@dataclass(frozen=True, order=True)
class Node:
    """A box: an identity in its namespace, or, without one, whoever else a rule speaks of."""

    namespace: str
    name: str


@dataclass(frozen=True, order=True)
class Link:
    """An arrow from a client to a server; `lines` say which requests it stands for."""

    client: Node
    server: Node
    kind: Kind
    lines: tuple[str, ...]
    ports: tuple[str, ...]


@dataclass(frozen=True)
class Picture:
    """What is drawn, in canonical order."""

    nodes: tuple[Node, ...]
    links: tuple[Link, ...]

    @property
    def namespaces(self) -> list[str]:
        """Every namespace in it."""
        return sorted({node.namespace for node in self.nodes if node.namespace})


def picture(intent: Intent) -> Picture:
    """Return who may call whom; candidates in mode Observe are left out, and each two boxes have one arrow of a kind."""
    nodes = {Node(*one.workload) for one in intent.identities}
    found: dict[tuple[Node, Node, Kind], list[Row]] = {}
    for server, table in intent.tables():
        for row in table.rows:
            if not row.observe:
                client = _node(row.client)
                nodes.add(client)
                kind: Kind = "deny" if row.effect == "Deny" else "allow"
                if is_refused(intent, row, server):
                    kind = "refused"
                found.setdefault((client, Node(*server.workload), kind), []).append(row)
    links = [
        Link(client, server, kind, _unique(map(_line, rows)), _unique(map(port_of, rows)))
        for (client, server, kind), rows in found.items()
    ]
    return Picture(tuple(sorted(nodes)), tuple(sorted(links)))


def _node(client: Client) -> Node:
    return Node(client.namespace, client.name) if client.workload is not None else Node("", client_of(client))


def _line(row: Row) -> str:
    conditions = f"[{'; '.join(conditions_of(row))}]" if conditions_of(row) else ""
    return " ".join(part for part in (port_of(row), requests_of(row), conditions) if part)


def _unique(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({printable(text) for text in texts}))


def to_dot(drawn: Picture) -> str:
    """Return the picture in the language of Graphviz."""
    ids = _ids(drawn)
    lines = ["digraph calls {", "  rankdir=LR;", '  node [shape=box, style=rounded, fontname="sans-serif"];']
    lines.append('  edge [fontname="sans-serif", fontsize=10];')
    for number, namespace in enumerate(drawn.namespaces):
        inside = [node for node in drawn.nodes if node.namespace == namespace]
        lines += [f"  subgraph cluster_{number} {{", f"    label={_quoted(namespace)};"]
        lines += [f"    {ids[node]} [label={_quoted(node.name)}];" for node in inside]
        lines.append("  }")
    outside = [node for node in drawn.nodes if not node.namespace]
    lines += [f"  {ids[node]} [label={_quoted(node.name)}, style=dashed];" for node in outside]
    for link in drawn.links:
        label = _quoted(*_told(link))
        lines.append(f"  {ids[link.client]} -> {ids[link.server]} [label={label}{_DOT_STYLES[link.kind]}];")
    return "\n".join([*lines, "}", ""])


_DOT_STYLES = {
    "allow": "",
    "deny": ', color="#b00020", fontcolor="#b00020", style=dashed, arrowhead=tee',
    "refused": ', color="#777777", fontcolor="#777777", style=dotted',
}


def _told(link: Link) -> tuple[str, ...]:
    """The lines of an arrow's label; what is no plain permission says so in words."""
    return link.lines if link.kind == "allow" else (f"{KINDS[link.kind]}:", *link.lines)


def _ids(drawn: Picture) -> dict[Node, str]:
    return {node: f"n{number}" for number, node in enumerate(drawn.nodes)}


def _quoted(*lines: str) -> str:
    escaped = [printable(line).replace("\\", "\\\\").replace('"', '\\"') for line in lines]
    return '"' + "\\n".join(escaped) + '"'


def to_mermaid(drawn: Picture) -> str:
    """Return the picture as a Mermaid flowchart."""
    ids = _ids(drawn)
    lines = ["flowchart LR"]
    for number, namespace in enumerate(drawn.namespaces):
        lines.append(f'  subgraph s{number}["{_entities(namespace)}"]')
        inside = [node for node in drawn.nodes if node.namespace == namespace]
        lines += [f'    {ids[node]}["{_entities(node.name)}"]' for node in inside]
        lines.append("  end")
    outside = [node for node in drawn.nodes if not node.namespace]
    lines += [f'  {ids[node]}(["{_entities(node.name)}"])' for node in outside]
    styles = []
    for number, link in enumerate(drawn.links):
        label = "<br/>".join(_entities(line) for line in _told(link))
        lines.append(f'  {ids[link.client]} {_MERMAID_ARROWS[link.kind]}|"{label}"| {ids[link.server]}')
        if link.kind == "deny":
            styles.append(f"  linkStyle {number} stroke:#b00020,color:#b00020")
    return "\n".join([*lines, *styles, ""])


_MERMAID_ARROWS = {"allow": "-->", "deny": "--x", "refused": "-.->"}
_MERMAID_SPECIAL = {'"': "#quot;", "#": "#35;", "<": "#lt;", ">": "#gt;", "&": "#amp;", "`": "#96;", "\\": "#92;"}


def _entities(text: str) -> str:
    return "".join(_MERMAID_SPECIAL.get(one, one) for one in printable(text))


def to_svg(drawn: Picture) -> str:
    """Return the picture as SVG, drawn here."""
    from zerotrust.cli.drawing import draw

    return draw(drawn)


FORMATS: dict[str, Callable[[Picture], str]] = {"dot": to_dot, "mermaid": to_mermaid, "svg": to_svg}


@click.command()
@source_options
@click.option("-o", "--output", type=click.Choice(list(FORMATS)), default="dot", show_default=True)
@click.pass_context
def graph(context: click.Context, /, output: str, **source: Any) -> None:
    """Draw who may call whom: as DOT (for Graphviz), Mermaid or SVG.

    Policies come from files (-f) or from the cluster, which is only read. An arrow is what some rule allows; what a Deny
    forbids is marked, and so is what a client's own isolated egress does not let out. Policies in mode Observe are left
    out. The same manifests give the same document.

    Exits with 2 when manifests cannot be read or a policy is not accepted; what can be drawn is drawn all the same.
    """
    intent = load(**source)
    drawn = picture(intent)
    if not drawn.nodes:
        say("Error: there is no ServiceIdentity to draw", err=True)
        context.exit(EXIT_PROBLEM)
    if output == "svg" and len(drawn.links) > MAX_ARROWS:
        text = (
            f"{len(drawn.links)} arrows are too many for a picture; write -o dot, or give the files of fewer workloads"
        )
        say(f"Error: {text}", err=True)
        context.exit(EXIT_PROBLEM)
    click.echo(FORMATS[output](drawn), nl=False)
    context.exit(EXIT_PROBLEM if report(intent.problems) else 0)
