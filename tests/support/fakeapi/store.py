"""The objects and their history: what etcd and the API server's registry do, in one synchronous place."""

from __future__ import annotations

import base64
import json
import secrets
import uuid
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from . import refusals, rules
from .garbage import Ownership, Place
from .refusals import Refused
from .resources import CUSTOM_RESOURCE_DEFINITIONS, NAMESPACES, Object, ResourceType, defined_by, established
from .selectors import Selection
from .versions import Change, Key, Version, encode, merge, same, with_status_of

_NAME_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_SNAPSHOTS_KEPT = 64
# What a client may send back unchanged, but only the API server sets.
_SERVER_OWNED = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation")
# What is kept whatever the client sends.
_NOT_FOR_CLIENTS = (
    "creationTimestamp",
    "generation",
    "resourceVersion",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
)


@dataclass(frozen=True)
class Page:
    versions: list[Version]
    revision: int
    token: str = ""
    remaining: int | None = None


class Store:
    """Everything the fake API server remembers. Every method is synchronous and atomic, and refuses by `Refused`."""

    def __init__(
        self,
        resources: Iterable[ResourceType],
        *,
        clock: Callable[[], datetime],
        garbage_collection: bool = True,
        history_limit: int = 100_000,
    ) -> None:
        self.garbage_collection = garbage_collection
        self.revision = 1
        self.compacted = 0
        self._clock = clock
        self._history_limit = history_limit
        self._tables: dict[ResourceType, dict[Key, Version]] = {}
        self._history: dict[ResourceType, deque[Change]] = {}
        self._forgotten: dict[ResourceType, int] = {}
        self._snapshots: OrderedDict[tuple[ResourceType, int], list[Version]] = OrderedDict()
        self._ownership = Ownership(lambda: self._tables)
        self._listeners: list[Callable[[Change], None]] = [self._ownership.note]
        for resource in resources:
            self.serve(resource)

    @property
    def resources(self) -> list[ResourceType]:
        return list(self._tables)

    def serve(self, resource: ResourceType) -> None:
        self._tables.setdefault(resource, {})
        self._history.setdefault(resource, deque())

    def serves(self, resource: ResourceType) -> bool:
        return resource in self._tables

    def type_called(self, name: str) -> ResourceType:
        """The type that a test means by a kind, plural, short or qualified name."""
        found = [resource for resource in self._tables if resource.answers_to(name)]
        if len(found) != 1:
            raise LookupError(f"{name!r} means {[it.qualified for it in found] or 'nothing that this server serves'}")
        return found[0]

    def subscribe(self, listener: Callable[[Change], None]) -> None:
        self._listeners.append(listener)

    def find(self, resource: ResourceType, key: Key) -> Version | None:
        return self._tables.get(resource, {}).get(key)

    def get(self, resource: ResourceType, key: Key) -> Version:
        if found := self.find(resource, key):
            return found
        raise refusals.not_found(resource, key[1])

    def all(self, resource: ResourceType) -> list[Version]:
        """All objects in the order of a LIST: by namespace, then name."""
        table = self._tables[resource]
        return [table[key] for key in sorted(table)]

    def page(self, resource: ResourceType, selection: Selection, limit: int = 0, token: str = "") -> Page:
        """One chunk of a LIST; the chunks after the first come from the state that the first one saw."""
        revision, position, versions = self.revision, 0, None
        if token:
            revision, after = _read_token(token)
            versions = self._snapshots.get((resource, revision))
            if versions is None:
                raise refusals.expired_continue()
            position = bisect_right(versions, after, key=lambda version: version.key)
        versions = versions if versions is not None else self.all(resource)
        chosen: list[Version] = []
        while position < len(versions) and not (limit and len(chosen) == limit):
            if selection.matches(versions[position].body):
                chosen.append(versions[position])
            position += 1
        rest = versions[position:]
        remaining = len(rest) if selection == Selection() else sum(selection.matches(it.body) for it in rest)
        if not remaining:
            return Page(chosen, revision)
        self._snapshots[resource, revision] = versions
        while len(self._snapshots) > _SNAPSHOTS_KEPT:
            self._snapshots.popitem(last=False)
        next_token = _write_token(revision, chosen[-1].key)
        return Page(chosen, revision, next_token, remaining=None if selection.is_filtered else remaining)

    def changes_since(self, resource: ResourceType, revision: int) -> list[Change]:
        """What happened after `revision`; refuses with 410 when that is no longer known."""
        oldest = max(self.compacted, self._forgotten.get(resource, 0))
        if revision < oldest:
            raise refusals.too_old(revision, oldest)
        return [change for change in self._history[resource] if change.revision > revision]

    def compact(self) -> None:
        """Forget the past, as etcd does every few minutes: older resourceVersions and continue tokens are gone."""
        self.revision += 1  # as if something else was written; otherwise whoever is up to date could still resume
        self.compacted = self.revision
        self._snapshots.clear()
        for history in self._history.values():
            history.clear()

    def create(
        self, resource: ResourceType, body: Object, namespace: str = "", *, keep_status: bool = False
    ) -> Version:
        """POST. `body` becomes the store's own. A client's status is dropped; tests may keep it."""
        metadata = _address(resource, body, namespace)
        if metadata.get("resourceVersion"):
            raise Refused(500, "resourceVersion should not be set on objects to be created", reason="")
        for field in (*_SERVER_OWNED, "resourceVersion"):
            metadata.pop(field, None)
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = metadata["generateName"] + "".join(secrets.choice(_NAME_ALPHABET) for _ in range(5))
        name = metadata.get("name", "")
        if resource.namespaced:
            self._check_namespace(resource, namespace, name)
        if not name:
            missing = rules.required("metadata.name", "name or generateName is required")
            raise refusals.invalid(resource, "", [missing])
        if resource.status_subresource and not keep_status:
            body.pop("status", None)
        metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": self._now()}
        if resource.counts_generations:
            metadata["generation"] = 1
        rules.decode(resource, body)
        if causes := rules.wrong(resource, body):
            raise refusals.invalid(resource, name, causes)
        if (namespace, name) in self._tables[resource]:
            raise refusals.already_exists(resource, name)
        if resource == CUSTOM_RESOURCE_DEFINITIONS:
            body["status"] = established(body, self._now())
            self.serve(defined_by(body))
        version = self._commit(resource, body, before=None)
        if self.garbage_collection and self._ownership.is_orphan(version):
            self.delete(resource, version.key)
        return version

    def restore(self, resource: ResourceType, body: Object) -> Version:
        """What a backup of etcd brings back: the object as it was, with its uid, times and status."""
        metadata = body["metadata"]
        key = (metadata.get("namespace", ""), metadata["name"])
        return self._commit(resource, body, before=self._tables[resource].get(key))

    def replace(self, resource: ResourceType, key: Key, body: Object, subresource: str = "") -> Version:
        """PUT: the whole object, or its status only. `body` becomes the store's own."""
        metadata = _address(resource, body, key[0], key[1])
        if resource.creates_on_put and not self.find(resource, key):
            return self.create(resource, body, key[0])
        old = self.get(resource, key)
        _check_preconditions(resource, old, {"uid": metadata.get("uid")})
        return self._update(resource, old, body, subresource)

    def merge_patch(self, resource: ResourceType, key: Key, patch: Mapping[str, Any], subresource: str = "") -> Version:
        """PATCH by RFC 7386; a resourceVersion in the patch makes it conditional."""
        old = self.get(resource, key)
        body = merge(old.body, patch)
        if body.get("kind") != resource.kind and resource.custom:
            cause = rules.invalid_value("kind", body.get("kind"), f"must be {resource.kind}")
            raise refusals.invalid(resource, key[1], [cause], body.get("kind"))
        if not resource.custom:
            _check_patched(resource, body)
        _address(resource, body, key[0], key[1])
        return self._update(resource, old, body, subresource)

    def _update(self, resource: ResourceType, old: Version, proposed: Object, subresource: str) -> Version:
        name = old.key[1]
        seen = proposed["metadata"].get("resourceVersion") or "0"
        if seen == "0" and resource.needs_version_on_put:
            unconditional = rules.invalid_value("metadata.resourceVersion", 0, "must be specified for an update")
            raise refusals.invalid(resource, name, [unconditional], resource.plural)
        if seen not in ("0", old.metadata["resourceVersion"]):
            raise refusals.stale(resource, name)
        new = proposed
        if resource.status_subresource:
            new = with_status_of(proposed, old.body) if subresource else with_status_of(old.body, proposed)
        new["metadata"] = _settled(new["metadata"], old.metadata)
        rules.decode(resource, new)
        if causes := [*rules.wrong_change(resource, old.body, new), *rules.wrong(resource, new)]:
            raise refusals.invalid(resource, name, causes)
        if same(new, old.body):
            return old
        if resource.counts_generations and not same(_counted(resource, new), _counted(resource, old.body)):
            new["metadata"]["generation"] = old.metadata["generation"] + 1
        if self._is_finished(resource, new):
            return Version(new, self._remove(resource, old).revision)
        return self._commit(resource, new, before=old)

    def delete(
        self, resource: ResourceType, key: Key, options: Mapping[str, Any] | None = None
    ) -> tuple[Version, bool]:
        """DELETE: returns the object and whether it is gone; finalizers and contents make it wait."""
        options = options or {}
        old = self.get(resource, key)
        _check_preconditions(resource, old, options.get("preconditions") or {}, resource.kind)
        match options.get("propagationPolicy"):
            case "Orphan":
                self._release_dependents(old)
            case "Foreground":
                self._delete_dependents(old)
        contents = sorted(self._contents(resource, old.body), key=lambda place: (place[0].qualified, place[1]))
        if not contents and not old.metadata.get("finalizers") and not self._waits_for_controller(resource):
            return self._remove(resource, old), True
        marked = self._mark_for_deletion(resource, old)
        for place in contents:
            if self.find(*place):
                self.delete(*place)
        self._remove_if_finished(resource, key)
        left = self.find(resource, key)
        return left or marked, left is None

    def _mark_for_deletion(self, resource: ResourceType, old: Version) -> Version:
        if "deletionTimestamp" in old.metadata:
            return old
        if resource == NAMESPACES:
            terminating = {**old.with_metadata(deletionTimestamp=self._now()), "status": {"phase": "Terminating"}}
            return self._commit(resource, terminating, before=old)
        body = old.with_metadata(deletionTimestamp=self._now(), deletionGracePeriodSeconds=0)
        if "generation" in old.metadata:
            body["metadata"]["generation"] += 1
        return self._commit(resource, body, before=old)

    def _contents(self, resource: ResourceType, body: Object) -> Iterator[Place]:
        """What must be gone before this object can go: a namespace's objects, a definition's instances."""
        if resource == NAMESPACES:
            name = body["metadata"]["name"]
            yield from ((it, key) for it, table in self._tables.items() for key in table if key[0] == name)
        if resource == CUSTOM_RESOURCE_DEFINITIONS:
            defined = defined_by(body)
            yield from ((defined, key) for key in self._tables.get(defined, ()))

    def _waits_for_controller(self, resource: ResourceType) -> bool:
        """Namespaces are finished by kube-controller-manager, as garbage is collected by it."""
        return resource == NAMESPACES and not self.garbage_collection

    def _is_finished(self, resource: ResourceType, body: Object) -> bool:
        metadata = body["metadata"]
        if "deletionTimestamp" not in metadata or metadata.get("finalizers") or self._waits_for_controller(resource):
            return False
        return next(self._contents(resource, body), None) is None

    def _remove_if_finished(self, resource: ResourceType, key: Key) -> None:
        version = self.find(resource, key)
        if version and self._is_finished(resource, version.body):
            self._remove(resource, version)

    def _delete_dependents(self, owner: Version) -> None:
        """Delete what only this owner kept, and drop the reference to it where another owner remains."""
        for resource, key in self._ownership.dependents(owner) if self.garbage_collection else ():
            dependent = self.find(resource, key)
            if dependent and self._ownership.is_orphan(dependent, besides=owner):
                self.delete(resource, key)
            elif dependent:
                self._commit(resource, dependent.with_metadata(ownerReferences=_others(dependent, owner)), dependent)

    def _release_dependents(self, owner: Version) -> None:
        for resource, key in self._ownership.dependents(owner):
            dependent = self.get(resource, key)
            self._commit(resource, dependent.with_metadata(ownerReferences=_others(dependent, owner)), dependent)

    def _commit(self, resource: ResourceType, body: Object, before: Version | None) -> Version:
        self.revision += 1
        body["metadata"]["resourceVersion"] = str(self.revision)
        version = Version(body, self.revision)
        self._tables[resource][version.key] = version
        self._publish(Change(resource, self.revision, before, version))
        return version

    def _remove(self, resource: ResourceType, version: Version) -> Version:
        self.revision += 1
        del self._tables[resource][version.key]
        if resource == CUSTOM_RESOURCE_DEFINITIONS:
            self._tables.pop(defined_by(version.body), None)
        change = Change(resource, self.revision, version, None)
        self._publish(change)
        self._delete_dependents(version)
        if resource.namespaced:
            self._remove_if_finished(NAMESPACES, ("", version.key[0]))
        if resource.custom:
            self._remove_if_finished(CUSTOM_RESOURCE_DEFINITIONS, ("", resource.qualified))
        return change.removed

    def _publish(self, change: Change) -> None:
        history = self._history[change.resource]
        history.append(change)
        while len(history) > self._history_limit:
            self._forgotten[change.resource] = history.popleft().revision
        for listener in self._listeners:
            listener(change)

    def _now(self) -> str:
        return self._clock().strftime("%Y-%m-%dT%H:%M:%SZ")

    def _check_namespace(self, resource: ResourceType, namespace: str, name: str) -> None:
        if "deletionTimestamp" in self.get(NAMESPACES, ("", namespace)).metadata:
            raise refusals.terminating(resource, name, namespace)


def _check_patched(resource: ResourceType, body: Object) -> None:
    """What would be a bad request in a POST is an invalid patch in a PATCH, for typed kinds."""
    try:
        _check_type(resource, body)
        rules.decode(resource, {**body, "metadata": {**body.get("metadata", {})}})
    except Refused as undecodable:
        raise refusals.undecodable_patch(undecodable.status["message"]) from undecodable


def _check_type(resource: ResourceType, body: Object) -> None:
    """Typed kinds may leave out what they are; custom ones may not."""
    if not resource.custom:
        body.setdefault("apiVersion", resource.api_version)
        body.setdefault("kind", resource.kind)
    if (body.get("apiVersion"), body.get("kind")) != (resource.api_version, resource.kind):
        given = f"{body.get('apiVersion')} {body.get('kind')}"
        raise Refused(400, f"the object is {given}, the URL is of {resource.api_version} {resource.kind}")


def _address(resource: ResourceType, body: Object, namespace: str, name: str | None = None) -> Object:
    """Check that a body belongs to the URL it was sent to, and complete it. Returns its metadata."""
    _check_type(resource, body)
    metadata: Object = body.setdefault("metadata", {})
    if (metadata.get("namespace") or namespace) != namespace:
        raise Refused(400, "the namespace of the provided object does not match the namespace sent on the request")
    given = metadata.get("name") or ""
    if name not in (None, given):
        raise Refused(400, f"the name of the object ({given}) does not match the name on the URL ({name})")
    if resource.namespaced:
        metadata["namespace"] = namespace
    return metadata


def _settled(metadata: Object, old: Object) -> Object:
    """Metadata as it will be stored: what only the server sets stays as it was."""
    left_out = {field: old[field] for field in _SERVER_OWNED if field in old and not metadata.get(field)}
    overruled = {field: old[field] for field in _NOT_FOR_CLIENTS if field in old}
    given = {field: value for field, value in metadata.items() if field != "generation"}
    return {**given, **left_out, **overruled}


def _counted(resource: ResourceType, body: Object) -> Object:
    """The part of an object whose change makes a new generation."""
    outside = ("metadata", "status") if resource.status_subresource else ("metadata",)
    return {field: value for field, value in body.items() if field not in outside}


def _others(dependent: Version, owner: Version) -> list[Object]:
    return [reference for reference in dependent.owners if reference["uid"] != owner.metadata["uid"]]


def _check_preconditions(
    resource: ResourceType, version: Version, preconditions: Mapping[str, Any], kind: str | None = None
) -> None:
    for field, title in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
        expected, actual = preconditions.get(field), version.metadata[field]
        if expected and expected != actual:
            why = f"Precondition failed: {title} in precondition: {expected}, {title} in object meta: {actual}"
            raise refusals.conflict(resource, version.key[1], why, kind)


def _write_token(revision: int, after: Key) -> str:
    return base64.urlsafe_b64encode(encode({"rv": revision, "start": after})).decode().rstrip("=")


def _read_token(token: str) -> tuple[int, Key]:
    try:
        content = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        namespace, name = content["start"]
        return int(content["rv"]), (namespace, name)
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(400, "continue key is not valid") from error
