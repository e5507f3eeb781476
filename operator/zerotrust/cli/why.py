"""`zerotrust why`: how one resource came to stand as it does, what is in its way, what happens next, and what to do."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn

import click

from zerotrust.cli.advice import Advice, advice
from zerotrust.cli.cluster import Body, Cluster, Refused, in_cluster
from zerotrust.cli.kinds import Target, TargetType
from zerotrust.cli.leader import ago, read_leader
from zerotrust.cli.options import (
    EXIT_DONE,
    EXIT_NOT_YET,
    cluster_options,
    emit,
    namespace_option,
    operator_option,
    output_option,
)
from zerotrust.cli.policies import say
from zerotrust.cli.standing import Problem, Standing, Step, is_wrong, standing_of, steps
from zerotrust.cli.status import describe
from zerotrust.cli.tables import cell, paragraph, show, table
from zerotrust.common import times
from zerotrust.common.naming import Ref
from zerotrust.common.selectors import LabelSelector

EVENTS_SHOWN, LINKS = 3, 3


@dataclass(frozen=True)
class Decision:
    """Something that the operator has decided and told."""

    at: datetime
    reason: str
    message: str


@dataclass(frozen=True)
class Account:
    """All that is told of one resource; `chain` are problems of what it depends on, `unread` says what could not be read."""

    standing: Standing
    body: Body
    now: datetime
    decisions: Sequence[Decision]
    coming: Sequence[Step]
    chain: Sequence[tuple[Ref | str, Problem | str]]
    unread: Sequence[str]

    @property
    def advice(self) -> Advice | None:
        """What the guide says of the problem."""
        problem = self.standing.problem
        if problem is None:
            return None
        return advice(self.standing.ref.kind, problem.condition, problem.status, problem.reason)


@click.command()
@click.argument("target", type=TargetType())
@namespace_option
@output_option
@operator_option
@cluster_options
def why(
    target: Target,
    namespace: str | None,
    output: str,
    operator_namespace: str,
    kubeconfig: str | None,
    kube_context: str | None,
) -> NoReturn:
    """Explain how KIND/NAME stands: the last decision, what is in its way and since when, what comes next, what to do.

    KIND is td, svid, tp or zkey, or the whole name: `zerotrust why svid/orders -n shop`.

    Exits with 0 when all is well with it, with 1 when something is wrong, with 2 when it could not be read.
    """

    async def run(cluster: Cluster) -> int:
        found = await account_of(cluster, target.ref(namespace or cluster.namespace), operator_namespace)
        if output == "text":
            tell(found)
        else:
            emit(output, document(found), "")
        return EXIT_DONE if found.standing.problem is None else EXIT_NOT_YET

    raise SystemExit(in_cluster(kubeconfig, kube_context, run, Cluster))


async def account_of(cluster: Cluster, ref: Ref, operator_namespace: str) -> Account:
    """Read a resource, what was told of it, and what it depends on."""
    from zerotrust.kube.errors import KubeError

    body = await cluster.read(ref)
    now, unread = cluster.now, list[str]()
    standing = standing_of(ref.kind, body, now)
    try:
        decisions = await _decisions(cluster, body, ref)
    except KubeError as error:
        decisions = []
        unread.append(f"its events: {error}")
    chain: list[tuple[Ref | str, Problem | str]] = []
    if standing.problem is not None:
        if standing.problem.reason == "NotObserved":
            leader = await read_leader(cluster, operator_namespace)
            chain += [("the controller", leader.text)] if not leader.works else []
        for needed in await _needs(cluster, ref, body, unread):
            other = standing_of(needed["kind"], needed, now)
            if other.problem is not None and len(chain) < LINKS:
                chain.append((other.ref, other.problem))
    coming = sorted(step for step in steps(ref.kind, body) if step.at > now)
    return Account(standing, body, now, decisions, coming, chain, unread)


async def _decisions(cluster: Cluster, body: Body, ref: Ref) -> list[Decision]:
    """The newest events about the very object, the newest first; the API server keeps them for an hour."""
    from zerotrust.kube.resources import EVENTS

    fields = f"regarding.kind={ref.kind},regarding.name={ref.name}"
    told = await cluster.every(EVENTS, lambda event: event, ref.namespace or "default", fields=fields)
    own = [one for one in told if (one.get("regarding") or {}).get("uid") == body["metadata"].get("uid")]
    found = [Decision(at, str(one.get("reason")), str(one.get("note", ""))) for one in own if (at := _seen(one))]
    return sorted(found, key=lambda one: one.at, reverse=True)[:EVENTS_SHOWN]


def _seen(event: Mapping[str, Any]) -> datetime | None:
    series = event.get("series") or {}
    return times.parse_or_none(series.get("lastObservedTime")) or times.parse_or_none(event.get("eventTime"))


async def _needs(cluster: Cluster, ref: Ref, body: Body, unread: list[str]) -> list[Body]:
    """What a resource depends on, of our kinds, as far as it may be read."""
    from zerotrust.kube.errors import Forbidden, NotFound

    found: list[Body] = []
    try:
        for needed in await _named(cluster, ref, body):
            try:
                found.append({**await cluster.client.get(needed), "kind": needed.kind})
            except NotFound:
                continue  # the condition's own message says so
    except (Forbidden, Refused) as error:
        unread.append(f"what it depends on: {error}")
    return found


async def _named(cluster: Cluster, ref: Ref, body: Body) -> list[Ref]:
    from zerotrust.kube.resources import SERVICE_IDENTITIES, TRUST_DOMAINS

    spec = body.get("spec") or {}
    match ref.kind:
        case "ServiceIdentity" if spec.get("trustDomain"):
            return [Ref("TrustDomain", "", spec["trustDomain"])]
        case "ServiceIdentity":
            domains = await cluster.every(TRUST_DOMAINS, lambda one: (_name(one), bool(one["spec"].get("default"))))
            return [Ref("TrustDomain", "", name) for name, default in domains if default]
        case "ApiKey":
            return [Ref("ServiceIdentity", ref.namespace, name) for name in spec.get("audience") or ()]
        case "TrustPolicy":
            there = await cluster.every(SERVICE_IDENTITIES, lambda one: one["metadata"], ref.namespace)
            return [Ref("ServiceIdentity", ref.namespace, one["name"]) for one in there if _is_target(spec, one)]
    return []


def _name(body: Body) -> str:
    return str(body["metadata"]["name"])


def _is_target(spec: Mapping[str, Any], metadata: Mapping[str, Any]) -> bool:
    target = spec.get("target") or {}
    if selector := target.get("selector"):
        return LabelSelector.model_validate(selector).matches(metadata.get("labels") or {})
    return bool(target.get("all")) or metadata["name"] in (target.get("identities") or ())


def tell(found: Account) -> None:
    """Print it for people."""
    one = found.standing
    say(paragraph(f"{one.ref} is {_state_in_words(one)}"))
    if one.problem is not None:
        since = _since(found)
        say(paragraph(f"{one.problem.condition}={one.problem.status}/{one.problem.reason}{since}", 2))
        if one.problem.message:
            say(paragraph(one.problem.message, 2))
    _section("BECAUSE", [f"{what}: {problem}" for what, problem in found.chain])
    _section("WHAT TO DO", _todo(found))
    further = [_beside(other, one.problem) for other in _wrong(found) if other != one.problem]
    _section("ALSO", further)
    decided = [
        f"{times.render(one.at)} ({ago(found.now - one.at)} ago) {one.reason}: {one.message}" for one in found.decisions
    ]
    _section("LAST DECISIONS", decided or [_last_change(found)])
    coming = [f"{times.render(step.at)} (in {ago(step.at - found.now)}) {step.what}" for step in found.coming]
    _section("NEXT", coming or ["nothing by the clock alone; it is looked at again when something changes"])
    say("\nCONDITIONS")
    rows = table("CONDITION", "STATUS", "REASON", "FOR", folding=("REASON",))
    for condition in (found.body.get("status") or {}).get("conditions") or ():
        at = times.parse_or_none(condition.get("lastTransitionTime"))
        age = ago(found.now - at) if at is not None else ""
        told = (str(condition.get(name, "")) for name in ("type", "status", "reason"))
        rows.add_row(*map(cell, told), cell(age))
    show(rows)
    for text in found.unread:
        say(f"Warning: not read: {text}", err=True)


def _state_in_words(one: Standing) -> str:
    match one.state:
        case "ready":
            return "ready, and all is well"
        case "attention":
            return "ready, and something needs attention"
        case "not judged":
            return "not judged"
        case _:
            return "not ready"


def _since(found: Account) -> str:
    problem = found.standing.problem
    for condition in (found.body.get("status") or {}).get("conditions") or ():
        at = times.parse_or_none(condition.get("lastTransitionTime"))
        if problem is not None and condition.get("type") == problem.condition and at is not None:
            return f" since {times.render(at)} ({ago(found.now - at)})"
    return ""


def _todo(found: Account) -> list[str]:
    known, problem = found.advice, found.standing.problem
    if problem is None:
        return []
    if problem.reason == "NotObserved":
        return ["see whether a controller runs: `zerotrust doctor`"]
    found_remedies = [known.remedy] if known is not None else ["see docs/guides/troubleshooting.md"]
    for needed, why_not in found.chain:
        if isinstance(needed, Ref) and isinstance(why_not, Problem):
            deeper = advice(needed.kind, why_not.condition, why_not.status, why_not.reason)
            found_remedies += [f"{needed}: {deeper.remedy}"] if deeper is not None else []
    return found_remedies


def _beside(other: Problem, first: Problem | None) -> str:
    """Another problem; a message that was printed already is not printed again."""
    if first is not None and other.message and other.message == first.message:
        return f"{other.condition}={other.status}/{other.reason}: the same"
    return str(other)


def _wrong(found: Account) -> Iterator[Problem]:
    for condition in (found.body.get("status") or {}).get("conditions") or ():
        told = Problem(*(str(condition.get(name, "")) for name in ("type", "status", "reason", "message")))
        if is_wrong(found.standing.ref.kind, told):
            yield told


def _last_change(found: Account) -> str:
    """Where no event is left: the condition that changed last."""
    told = [
        (str(one.get("lastTransitionTime")), f"{one.get('type')}={one.get('status')}/{one.get('reason')}")
        for one in (found.body.get("status") or {}).get("conditions") or ()
    ]
    return " ".join(max(told)) if told else "none is known"


def _section(title: str, lines: Sequence[str]) -> None:
    if lines:
        say(f"\n{title}")
    for line in lines:
        say(paragraph(line, 2))


def document(found: Account) -> dict[str, Any]:
    """What scripts get."""
    known = found.advice
    return {
        **describe(found.standing),
        "because": [{"object": str(what), "problem": str(problem)} for what, problem in found.chain],
        "meaning": known.meaning if known is not None else None,
        "whatToDo": _todo(found),
        "also": [vars(other) for other in _wrong(found) if other != found.standing.problem],
        "decisions": [
            {"at": times.render(one.at), "reason": one.reason, "message": one.message} for one in found.decisions
        ],
        "coming": [{"at": times.render(step.at), "what": step.what} for step in found.coming],
        "unread": list(found.unread),
    }
