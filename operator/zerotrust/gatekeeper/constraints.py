"""From entries to Constraints: one for each template, namespace and action, in as many parts as its size takes."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from zerotrust.common import naming
from zerotrust.common.plan import Apply, Delete, Plan
from zerotrust.gatekeeper.observed import Constraint, content_hash
from zerotrust.gatekeeper.projection import Action, Entries, Entry, Place
from zerotrust.gatekeeper.templates import BINDING, SERVICES, TEMPLATES
from zerotrust.policy.podset import NAMESPACE_NAME

API_VERSION = "constraints.gatekeeper.sh/v1beta1"
MAX_BYTES = (
    256 * 1024
)  # of entries; the API server's limit is 1.5 MiB, and Gatekeeper writes its findings into the same object
MAX_NAME = 63  # Gatekeeper makes a label value of it
WORDS: Mapping[Action, str] = {"deny": "enforce", "warn": "warn", "dryrun": "observe"}


@dataclass(frozen=True)
class ConstraintsSnapshot:
    """What the constraints of one kind about one namespace depend on.

    `served` is False while there is no such kind, `ready` while some Gatekeeper pod does not know the present template yet: then
    nothing is added or changed, because that pod would refuse it; what nobody asks for any more goes nevertheless.
    """

    kind: str
    namespace: str
    served: bool
    ready: bool
    entries: Entries
    observed: tuple[Constraint, ...]


def reconcile(snapshot: ConstraintsSnapshot) -> Plan:
    """Return what to do for the constraints of one kind about one namespace."""
    if not snapshot.served:
        return Plan()
    wanted = manifests(snapshot.kind, snapshot.namespace, snapshot.entries)
    names = {one["metadata"]["name"] for one in wanted}
    left = [one.meta for one in snapshot.observed if one.meta.name not in names]
    there = {one.meta.name: one.meta.annotations.get(naming.CONTENT_HASH) for one in snapshot.observed}
    return Plan(
        applies=tuple(
            Apply(one, exact=("spec",), repairs=_was_right(one, there), shared=True) for one in wanted if snapshot.ready
        ),
        deletes=tuple(Delete(meta.ref, meta.uid) for meta in left),
    )


def _was_right(manifest: Mapping[str, Any], there: Mapping[str, str | None]) -> bool:
    """Tell whether what differs can only be somebody else's edit: the object says that it was made from the same spec."""
    metadata = manifest["metadata"]
    return bool(there.get(metadata["name"]) == metadata["annotations"][naming.CONTENT_HASH])


def manifests(kind: str, namespace: str, entries: Entries) -> list[dict[str, Any]]:
    """Return the Constraints of a kind about a namespace, sorted by name."""
    by_action: dict[Action, dict[str, Entry]] = defaultdict(dict)
    for place, entry in entries.items():
        if place.kind == kind:
            by_action[place.action][place.key] = entry
    found = []
    for action in sorted(by_action):
        for number, part in enumerate(_shards(by_action[action])):
            if part:
                found.append(_manifest(kind, namespace, action, number, part))
    return sorted(found, key=lambda one: str(one["metadata"]["name"]))


def name_of(namespace: str, action: Action, shard: int = 0) -> str:
    """Name of a Constraint; a long namespace is cut and told apart by its SHA-256."""
    suffix = f".{WORDS[action]}" + (f"-{shard}" if shard else "")
    if len(namespace) + len(suffix) > MAX_NAME:
        digest = sha256(namespace.encode()).hexdigest()[:8]
        namespace = f"{namespace[: MAX_NAME - len(suffix) - 9].rstrip('-')}-{digest}"
    return namespace + suffix


def _shards(entries: Mapping[str, Entry]) -> list[dict[str, Entry]]:
    """Spread entries by the hash of their key, over a power of two: one more entry moves others at a doubling only."""
    size = sum(len(key) + len(json.dumps(entry)) for key, entry in entries.items())
    count = 1
    while size > MAX_BYTES and 2 * size > count * MAX_BYTES:
        count *= 2
    parts: list[dict[str, Entry]] = [{} for _ in range(count)]
    for key in sorted(entries):
        parts[int.from_bytes(sha256(key.encode()).digest()[:4]) % count][key] = entries[key]
    return parts


def _manifest(kind: str, namespace: str, action: Action, number: int, entries: Mapping[str, Entry]) -> dict[str, Any]:
    template = TEMPLATES[kind]
    parameters: dict[str, Any] = {template.parameter: dict(entries)}
    if kind == BINDING:
        parameters["otherwise"] = sorted(key for key, entry in entries.items() if not entry["derived"])
    if kind == SERVICES:
        parameters["strict"] = action == "warn"
    spec = {
        "enforcementAction": action,
        # By label: the API server then skips the constraints of all other namespaces before it evaluates anything.
        "match": {
            "kinds": [dict(one) for one in template.match],
            "scope": "Namespaced",
            "namespaceSelector": {"matchLabels": {NAMESPACE_NAME: namespace}},
        },
        "parameters": parameters,
    }
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": {
            "name": name_of(namespace, action, number),
            "labels": {
                naming.MANAGED_BY: naming.OPERATOR,
                naming.COMPONENT: naming.COMPONENT_CONSTRAINT,
                naming.NAMESPACE: namespace,
            },
            "annotations": {naming.CONTENT_HASH: content_hash(spec)},
        },
        "spec": spec,
    }


def holding(constraints: Iterable[Constraint], place: Place) -> list[Constraint]:
    """The constraints that have an entry at a place."""
    parameter = TEMPLATES[place.kind].parameter
    return [
        one
        for one in constraints
        if one.meta.ref.kind == place.kind
        and one.spec.get("enforcementAction") == place.action
        and place.key in (one.parameters.get(parameter) or {})
    ]
