"""Whether entries are in force: the template, the constraint and every Gatekeeper pod, in the order in which they come."""

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from datetime import datetime

from zerotrust.common.naming import Ref
from zerotrust.common.status import Finding
from zerotrust.gatekeeper import constraints, templates
from zerotrust.gatekeeper.observed import WEBHOOK, Constraint, ConstraintTemplate, PodReport
from zerotrust.gatekeeper.projection import Entries, Entry, Place, says
from zerotrust.gatekeeper.templates import TEMPLATES, Template
from zerotrust.policy.admission import AdmissionState, Violation


def awaited_of_template(template: Template, observed: ConstraintTemplate | None, is_current: bool) -> list[str]:
    """What is missing until constraints of a template can be made and count, in words; nothing when that is so.

    Gatekeeper's pods learn of a template one after the other, and refuse or overlook its constraints until then.
    """
    name = f"ConstraintTemplate {template.name}"
    if observed is None:
        return [f"{name} is not installed yet"]
    if not is_current:
        return [f"{name} is not updated yet"]
    if not observed.created:
        errors = [f"{name}: pod {one.pod} says {one.errors[0]}" for one in observed.pods if one.errors]
        return errors or [f"{name}: Gatekeeper has not made the kind {template.kind} yet"]
    return list(_behind(name, observed.pods, observed.meta.generation))


def state(
    asked: Entries,
    observed: Sequence[Constraint],
    ready: Callable[[str], list[str]],
    since: Callable[[Constraint, Place, Entry], int],
) -> AdmissionState:
    """Return how far what is asked for is in the observed constraints.

    `ready` tells what a kind's template still waits for, `since` from which generation on a constraint says what is asked: the
    edits of others, which make newer generations, are no news about it.
    """
    wanted: dict[str, Constraint] = {}
    awaited: dict[str, None] = {}
    differing: dict[str, None] = {}
    for place, entry in sorted(asked.items(), key=lambda one: one[0]):
        if waiting := ready(place.kind):
            awaited |= dict.fromkeys(waiting)
            continue
        found = constraints.holding(observed, place)
        if not found:
            awaited[f"{place.kind} of action {place.action} has nothing about {place.key} yet"] = None
        for one in found:
            name = str(one.meta.ref)
            wanted[name] = one
            present = one.parameters[TEMPLATES[place.kind].parameter][place.key]
            if says(place.kind, present, entry):
                awaited |= dict.fromkeys(_behind(name, one.pods, since(one, place, entry)))
            elif one.as_written:
                awaited[f"{name} is not updated about {place.key} yet"] = None
            else:
                differing[_difference(one, place, entry)] = None
    denying = [one for one in wanted.values() if one.spec.get("enforcementAction") == "deny"]
    return AdmissionState(
        installed=True,
        wanted=len(wanted),
        pods=len({report.pod for one in wanted.values() for report in one.pods}),
        awaited=tuple(awaited),
        differing=tuple(differing),
        by_webhook_only=tuple(str(one.meta.ref) for one in denying if not any(report.native for report in one.pods)),
    )


def violations(
    observed: Iterable[Constraint], whose: Set[str], since: Callable[[Ref, Violation], datetime | None]
) -> tuple[Finding, ...]:
    """What Gatekeeper's audit found against what these ask for; `since` tells when a constraint's violation appeared."""
    found = {
        (one.object, one.message): since(constraint.meta.ref, one)
        for constraint in observed
        for one in constraint.violations
        if _asks(one.by) & whose
    }
    return tuple(Finding(*named, at) for named, at in sorted(found.items(), key=lambda one: one[0]))


def _asks(by: str) -> set[str]:
    """`TrustPolicy a, b` is both of them."""
    kind, _, names = by.partition(" ")
    return {f"{kind} {name}" for name in names.split(", ")}


def _behind(name: str, pods: Sequence[PodReport], generation: int) -> Iterator[str]:
    if not any(WEBHOOK in one.operations for one in pods):
        yield f"{name}: no Gatekeeper webhook reports it yet"
    for one in pods:
        if one.errors:
            yield f"{name}: pod {one.pod} says {one.errors[0]}"
        elif one.generation < generation:
            yield f"{name}: pod {one.pod} has generation {one.generation} of {generation}"
        elif not one.enforced:
            yield f"{name}: pod {one.pod} does not enforce it yet"


def _difference(constraint: Constraint, place: Place, entry: Entry) -> str:
    """What a constraint lets through, or stops, otherwise than the table; and the field that says so."""
    parameter = TEMPLATES[place.kind].parameter
    present = constraint.parameters[parameter][place.key]
    field = next(one for one in sorted({*present, *entry}) if present.get(one) != entry.get(one))
    found = f"{parameter}.{place.key}.{field} is {present.get(field)!r} instead of {entry.get(field)!r}"
    return f"{constraint.meta.ref} {_edge(place, present, entry)}: {found}"


def _edge(place: Place, present: Entry, asked: Entry) -> str:
    match place.kind:
        case templates.CREDENTIALS:
            has, should = (set(one.get("serviceAccounts") or ()) for one in (present, asked))
            if more := sorted(has - should):
                return f"lets pods of ServiceAccount {', '.join(more)} use Secret {place.key}"
            if less := sorted(should - has):
                return f"keeps pods of ServiceAccount {', '.join(less)} from Secret {place.key}"
            return f"says another owner for Secret {place.key}"
        case templates.HOST_ACCESS:
            return f"does not say {asked['policies']} about host access of pods of ServiceAccount {place.key}"
        case templates.IMAGES:
            gone = sorted({one["policy"] for one in asked["rules"] if one not in (present.get("rules") or ())})
            return f"lets pods of ServiceAccount {place.key} run images that {', '.join(gone)} refuses"
        case templates.SERVICES:
            return f"lets Service {place.key} select pods of others"
        case _:
            return f"takes other pods for those of ServiceAccount {place.key}"
