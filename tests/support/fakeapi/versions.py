"""Immutable versions of objects, the changes between them, and the two ways in which a new version is put together."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .resources import Object, ResourceType
from .selectors import Selection

Key = tuple[str, str]
"""Namespace ("" for cluster-scoped objects) and name."""


def encode(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def same(one: object, other: object) -> bool:
    """Equality as JSON sees it: unlike Python's, it tells 1 from true."""
    return one == other and json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


@dataclass(frozen=True)
class Version:
    """One version of one object. `body` is shared and must never be changed in place."""

    body: Object
    revision: int

    @cached_property
    def encoded(self) -> bytes:
        return encode(self.body)

    @cached_property
    def encoded_item(self) -> bytes:
        """As in a typed list, whose items have no kind and apiVersion of their own."""
        return encode({field: value for field, value in self.body.items() if field not in ("kind", "apiVersion")})

    @property
    def metadata(self) -> Object:
        metadata: Object = self.body["metadata"]
        return metadata

    @property
    def key(self) -> Key:
        return self.metadata.get("namespace", ""), self.metadata["name"]

    @property
    def owners(self) -> list[Object]:
        owners: list[Object] = self.metadata.get("ownerReferences", [])
        return owners

    def at(self, revision: int) -> Version:
        """The same content under another revision: what a DELETED event carries."""
        return Version({**self.body, "metadata": {**self.metadata, "resourceVersion": str(revision)}}, revision)

    def with_metadata(self, **fields: object) -> Object:
        """A body that differs in these metadata fields; empty values remove a field."""
        metadata = {**self.metadata, **fields}
        return {**self.body, "metadata": {name: value for name, value in metadata.items() if value != []}}


@dataclass(frozen=True)
class Change:
    """One write: created (`before` is None), changed, or removed (`after` is None)."""

    resource: ResourceType
    revision: int
    before: Version | None
    after: Version | None

    @cached_property
    def removed(self) -> Version:
        assert self.before is not None
        return self.before.at(self.revision)

    def seen_through(self, selection: Selection) -> tuple[str, Version] | None:
        """The watch event for one selector; an object that leaves the selector is DELETED for it."""
        was = self.before is not None and selection.matches(self.before.body)
        if self.after is not None and selection.matches(self.after.body):
            return ("MODIFIED" if was else "ADDED"), self.after
        return ("DELETED", self.removed) if was else None


def merge(target: Any, patch: Any) -> Any:
    """RFC 7386: objects are merged, everything else replaces, null deletes. The arguments stay untouched."""
    if not isinstance(patch, Mapping):
        return copy.deepcopy(patch)
    merged = dict(target) if isinstance(target, Mapping) else {}
    for field, value in patch.items():
        if value is None:
            merged.pop(field, None)
        else:
            merged[field] = merge(merged.get(field), value)
    return merged


def with_status_of(source: Object, body: Object) -> Object:
    """A `body` that has `source`'s status, or none if that has none."""
    rest = {field: value for field, value in body.items() if field != "status"}
    return {**rest, "status": source["status"]} if "status" in source else rest
