"""`zerotrust status`: one screen of how everything stands; the worst first, and never longer than that."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from textwrap import shorten
from typing import Any, NoReturn

import click

from zerotrust.cli.cluster import Cluster, Refused, in_cluster, in_words
from zerotrust.cli.kinds import KINDS
from zerotrust.cli.leader import Leader, ago, read_leader
from zerotrust.cli.options import cluster_options, emit, namespace_option, operator_option, output_option
from zerotrust.cli.policies import EXIT_PROBLEM, say
from zerotrust.cli.standing import STATES, Standing, standing_of
from zerotrust.cli.tables import cell, paragraph, show, table
from zerotrust.common import times
from zerotrust.common.kind import Kind
from zerotrust.common.naming import Ref

EXIT_WELL, EXIT_WRONG = 0, 1
LONGEST = 200  # characters of a problem; `why` and -o json have all of it
SHOWN = 8  # rows of a section, unless more are asked for
_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass
class Overview:
    """What was read; `unread` says of kinds why they could not be."""

    now: datetime
    place: str
    leader: Leader
    standings: dict[str, list[Standing]] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)

    def everything(self) -> Iterable[Standing]:
        """Each resource."""
        return (one for found in self.standings.values() for one in found)

    @property
    def exit_code(self) -> int:
        """0 when all is well, 1 when something is wrong, 2 when something could not be read."""
        if self.unread:
            return EXIT_PROBLEM
        wrong = self.leader.works is False or any(one.problem is not None for one in self.everything())
        return EXIT_WRONG if wrong else EXIT_WELL


@click.command()
@namespace_option
@click.option("-A", "--all-namespaces", is_flag=True, help="Look at every namespace.")
@click.option(
    "--limit", default=SHOWN, show_default=True, type=click.IntRange(0), help="Rows of each section; 0: all of them."
)
@output_option
@operator_option
@cluster_options
def status(
    namespace: str | None,
    all_namespaces: bool,
    limit: int,
    output: str,
    operator_namespace: str,
    kubeconfig: str | None,
    kube_context: str | None,
) -> NoReturn:
    """Show how everything stands: counts, what is wrong and why, what ends next. TrustDomains are always shown.

    With -o json and yaml every resource is listed, or the --limit worst and next.

    Exits with 0 when all is well, with 1 when something is wrong, with 2 when something could not be read.
    """

    async def run(cluster: Cluster) -> int:
        place = "" if all_namespaces else namespace or cluster.namespace
        found = await survey(cluster, place, operator_namespace)
        if output == "text":
            show_overview(found, limit)
        else:
            emit(output, document(found, limit), "")
        for kind, why in found.unread.items():
            say(f"Error: {kind}: {why}", err=True)
        return found.exit_code

    raise SystemExit(in_cluster(kubeconfig, kube_context, run, Cluster))


async def survey(cluster: Cluster, namespace: str, operator_namespace: str) -> Overview:
    """Read and judge everything in a namespace, or without one everywhere."""
    from zerotrust.kube.errors import KubeError, Unreachable
    from zerotrust.kube.resources import BY_KIND

    leader = await read_leader(cluster, operator_namespace)
    found = Overview(cluster.now, namespace, leader)
    for kind in KINDS:
        try:
            found.standings[kind.name] = await cluster.every(
                BY_KIND[kind.name],
                lambda body, kind=kind: standing_of(kind.name, body, found.now),  # type: ignore[misc]
                namespace if kind.namespaced else "",
            )
        except Unreachable:
            raise
        except KubeError as error:
            found.unread[kind.name] = in_words(error)
        except Refused as error:
            found.unread[kind.name] = str(error)
    return found


def worst(found: Iterable[Standing]) -> list[Standing]:
    """Those with a problem: by how bad it is, then by what ends first."""
    wrong = (one for one in found if one.problem is not None)
    return sorted(wrong, key=lambda one: (STATES.index(one.state), one.ends or _NEVER, one.ref))


def ending(found: Iterable[Standing], now: datetime) -> list[Standing]:
    """What ends next, the soonest first."""
    alive = (one for one in found if one.ends is not None and one.ends > now)
    return sorted(alive, key=lambda one: (one.ends or _NEVER, one.ref))


def _limited(found: Sequence[Standing], limit: int) -> Sequence[Standing]:
    return found[:limit] if limit else found


def show_overview(found: Overview, limit: int) -> None:
    """Print the screen."""
    where = f"namespace {found.place}" if found.place else "every namespace"
    say(f"{where}, at {times.render(found.now)}")
    say(paragraph(f"Controller: {found.leader.text}") + "\n")
    counts = table("KIND", "TOTAL", *(state.upper() for state in reversed(STATES)))
    for kind in KINDS:
        if kind.name in found.standings:
            of = Counter(one.state for one in found.standings[kind.name])
            cells = (str(of[state]) for state in reversed(STATES))
            counts.add_row(cell(kind.name), cell(str(of.total())), *map(cell, cells))
        else:
            counts.add_row(cell(kind.name), cell("not readable"))
    show(counts)
    policies = worst(found.standings.get("TrustPolicy", ()))
    others = worst(one for one in found.everything() if one.ref.kind != "TrustPolicy")
    _show_wrong("WRONG", others, limit)
    _show_wrong("POLICIES NOT ENFORCED, OR NOT AS ASKED", policies, limit)
    _show_overlaps(found, limit)
    _show_ends(found, limit)
    _show_domains(found, limit)
    wrong = len(others) + len(policies)
    if found.exit_code == EXIT_WELL:
        say("\nAll is well.")
    elif wrong:
        say("\n`zerotrust why KIND/NAME` says more of one, and what to do.")


def _show_wrong(title: str, wrong: Sequence[Standing], limit: int) -> None:
    if not wrong:
        return
    say(f"\n{title} ({len(wrong)})")
    rows = table("OBJECT", "PROBLEM", folding=("OBJECT", "PROBLEM"))
    for one in _limited(wrong, limit):
        rows.add_row(cell(name_of(one.ref)), cell(shorten(str(one.problem), LONGEST, placeholder=" …")))
    show(rows)
    _say_rest(wrong, limit)


def _show_overlaps(found: Overview, limit: int) -> None:
    keys = [one for one in found.standings.get("ApiKey", ()) if "previousKeyID" in one.notes]
    keys.sort(key=lambda one: (str(one.notes.get("overlapEndsAt")), one.ref))
    if not keys:
        return
    say(f"\nKEYS IN OVERLAP ({len(keys)})")
    rows = table("OBJECT", "OLD KEY", "GOOD UNTIL", "IN", folding=("OBJECT",))
    for one in _limited(keys, limit):
        end = times.parse_or_none(one.notes.get("overlapEndsAt"))
        rows.add_row(cell(name_of(one.ref)), cell(str(one.notes["previousKeyID"])), *_moment(end, found.now))
    show(rows)
    _say_rest(keys, limit)


def _show_ends(found: Overview, limit: int) -> None:
    soon = ending((one for one in found.everything() if one.ref.kind != "TrustDomain"), found.now)
    if not soon:
        return
    say(f"\nENDS NEXT ({len(soon)})")
    rows = table("OBJECT", "ENDS", "IN", "BEFORE THAT", folding=("OBJECT", "BEFORE THAT"))
    for one in _limited(soon, limit):
        rows.add_row(cell(name_of(one.ref)), *_moment(one.ends, found.now), cell(before_the_end(one, found.now)))
    show(rows)
    _say_rest(soon, limit)


def before_the_end(one: Standing, now: datetime) -> str:
    """What comes before the end, and when; a hyphen where nothing does."""
    if one.next is None or one.next.at == one.ends:
        return ""
    return f"{one.next.what} in {ago(one.next.at - now)}"


def _show_domains(found: Overview, limit: int) -> None:
    domains = sorted(found.standings.get("TrustDomain", ()), key=lambda one: (one.ends or _NEVER, one.ref))
    if not domains:
        return
    say("\nTRUST DOMAINS")
    rows = table("NAME", "IDENTITIES", "BUNDLES IN", "AUTHORITY ENDS", "IN", folding=("NAME",))
    for one in _limited(domains, limit):
        identities, bundle = one.notes.get("identities") or {}, one.notes.get("bundle") or {}
        ready = f"{identities.get('ready', 0)} of {identities.get('total', 0)} ready"
        namespaces = f"{bundle.get('namespaces', 0)} namespaces"
        rows.add_row(cell(one.ref.name), cell(ready), cell(namespaces), *_moment(one.ends, found.now))
    show(rows)
    _say_rest(domains, limit)


def _moment(at: datetime | None, now: datetime) -> tuple[Any, Any]:
    return (cell(times.render(at)), cell(ago(at - now))) if at is not None else (cell(""), cell(""))


def _say_rest(found: Sequence[Standing], limit: int) -> None:
    if limit and len(found) > limit:
        say(f"… and {len(found) - limit} more; --limit 0 shows all")


def name_of(ref: Ref) -> str:
    """`svid shop/orders`: the short name of the kind, and the place."""
    short = next(kind.short_name for kind in KINDS if kind.name == ref.kind)
    return f"{short} {ref.namespace}/{ref.name}" if ref.namespace else f"{short} {ref.name}"


def document(found: Overview, limit: int) -> dict[str, Any]:
    """What scripts get."""
    return {
        "at": times.render(found.now),
        "namespace": found.place or None,
        "well": found.exit_code == EXIT_WELL,
        "controller": {
            "leads": found.leader.works,
            "holder": found.leader.holder or None,
            "message": found.leader.text,
        },
        "kinds": {kind.name: _counts(found, kind) for kind in KINDS},
        "wrong": [describe(one) for one in _limited(worst(found.everything()), limit)],
        "next": [describe(one) for one in _limited(ending(found.everything(), found.now), limit)],
        "inOverlap": [
            describe(one)
            for one in _limited([one for one in found.everything() if "previousKeyID" in one.notes], limit)
        ],
    }


def _counts(found: Overview, kind: Kind) -> Mapping[str, Any]:
    if kind.name not in found.standings:
        return {"error": found.unread[kind.name]}
    of = Counter(one.state for one in found.standings[kind.name])
    return {"total": of.total(), **{_camel(state): of[state] for state in STATES}}


def _camel(state: str) -> str:
    head, *rest = state.split()
    return head + "".join(word.capitalize() for word in rest)


def describe(one: Standing) -> dict[str, Any]:
    """One resource as plain data."""
    return {
        "kind": one.ref.kind,
        "namespace": one.ref.namespace or None,
        "name": one.ref.name,
        "state": one.state,
        "problem": vars(one.problem) if one.problem is not None else None,
        "next": {"at": times.render(one.next.at), "what": one.next.what} if one.next is not None else None,
        "ends": times.render(one.ends) if one.ends is not None else None,
        **one.notes,
    }
