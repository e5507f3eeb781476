"""Which ServiceAccounts a set of pods is, and how a TrustPolicy names a set of pods."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from zerotrust.common.errors import SpecError
from zerotrust.common.resource import parse
from zerotrust.importing.objects import World
from zerotrust.policy.directory import Workload
from zerotrust.policy.peers import PodSelection
from zerotrust.policy.podset import NAMESPACE_NAME, PodSet, equal, selects, to_kubernetes

_ACCOUNT = re.compile(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?")


@dataclass(frozen=True)
class Selected:
    """ServiceAccounts all of whose pods are in a set, and `(account, why not)` of those that are not so clear."""

    whole: tuple[Workload, ...]
    unclear: tuple[tuple[Workload, str], ...]


def select(world: World, pods: PodSet) -> Selected:
    """Which ServiceAccounts the known pods of a set have."""
    matching = world.matching(pods)
    whole, unclear = [], []
    for owner in sorted({pod.owner for pod in matching}):
        reason = _unclear(world, owner, pods)
        if reason:
            unclear.append((owner, reason))
        else:
            whole.append(owner)
    return Selected(tuple(whole), tuple(unclear))


def _unclear(world: World, owner: Workload, pods: PodSet) -> str:
    if not _ACCOUNT.fullmatch(owner.name):
        return f"ServiceAccount {owner} has a name that no label can hold"
    if not world.knows_all_of(PodSet(pods.namespace, pods.pod)):
        return "the selector asks for labels that controllers set, or for pods that were not read"
    labels = world.labels(owner.namespace)
    others = [pod for pod in world.pods_of(owner) if not pods.contains(labels, pod.labels)]
    if others:
        return f"ServiceAccount {owner} also has {others[0].origin}, which is not selected"
    return ""


def identities(world: World, pods: PodSet) -> tuple[Workload, ...] | None:
    """The ServiceAccounts that are exactly a set of pods; None where the set is better described by its labels.

    A whole namespace is: pods that come later belong to it as well.
    """
    if not pods.pod or not world.knows_all_of(pods):
        return None
    selected = select(world, pods)
    return selected.whole if selected.whole and not selected.unclear else None


def selection(pods: PodSet, own: str) -> dict[str, Any]:
    """The set as a TrustPolicy of namespace `own` names it; SpecError where it cannot."""
    namespace, pod = to_kubernetes(pods.namespace), to_kubernetes(pods.pod)
    found: dict[str, Any] = {}
    if not pod or pods.namespace != (equal(NAMESPACE_NAME, own),):
        found["namespaceSelector"] = namespace
    if pod:
        found["podSelector"] = pod
    parse(PodSelection, found, "")
    return found


def can_be_said(pods: PodSet, own: str) -> str:
    """Why a set cannot be named, empty where it can."""
    try:
        selection(pods, own)
    except SpecError as error:
        return f"the selector cannot be taken over: {error}"
    return ""


def covers(world: World, pods: PodSet, others: Iterable[PodSet]) -> bool:
    """Whether every pod of a set, of now or later, is in one of the others."""
    left = [pods]
    for other in others:
        left = [rest for one in left for rest in one.minus(_beside(world, one, other))]
    return not left


def _beside(world: World, pods: PodSet, other: PodSet) -> PodSet:
    """The other set, seen from the one namespace of the first: there its labels are known."""
    places = [
        one.values[0]
        for one in pods.namespace
        if one.key == NAMESPACE_NAME and one.operator == "In" and len(one.values) == 1
    ]
    known = bool(places) and places[0] in world.namespaces and places[0] not in world.unread
    if known and selects(other.namespace, world.labels(places[0])):
        return PodSet((), other.pod)
    return other
