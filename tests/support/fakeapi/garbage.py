"""The garbage collector of kube-controller-manager, only synchronous: owners, dependents and who goes with whom."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .resources import ResourceType
from .versions import Change, Key, Version

Place = tuple[ResourceType, Key]


class Ownership:
    """Which objects exist by uid, and which depend on which. It only watches; the store does what it says."""

    def __init__(self, resources: Callable[[], Iterable[ResourceType]]) -> None:
        self._resources = resources
        self._alive: dict[str, Place] = {}
        self._dependents: dict[str, set[Place]] = {}

    def note(self, change: Change) -> None:
        if change.before:
            for reference in change.before.owners:
                self._dependents[reference["uid"]].discard((change.resource, change.before.key))
            self._alive.pop(change.before.metadata["uid"])
        if change.after:
            for reference in change.after.owners:
                self._dependents.setdefault(reference["uid"], set()).add((change.resource, change.after.key))
            self._alive[change.after.metadata["uid"]] = change.resource, change.after.key

    def dependents(self, owner: Version) -> list[Place]:
        places = self._dependents.get(owner.metadata["uid"], ())
        return sorted(places, key=lambda place: (place[0].qualified, place[1]))

    def is_orphan(self, version: Version, besides: Version | None = None) -> bool:
        """Whether none of the owners that an object names exists, `besides` not counted.

        An owner in another namespace does not count as one, and one of a kind that is not served is never presumed
        gone: both as the real garbage collector has it.
        """
        uid = besides.metadata["uid"] if besides else None
        others = [reference for reference in version.owners if reference["uid"] != uid]
        return bool(version.owners) and not any(self._may_exist(reference, version.key[0]) for reference in others)

    def _may_exist(self, reference: Mapping[str, Any], namespace: str) -> bool:
        if place := self._alive.get(reference["uid"]):
            return place[1][0] in ("", namespace)
        described = (reference["apiVersion"], reference["kind"])
        return all((resource.api_version, resource.kind) != described for resource in self._resources())
