"""What an observed object lacks of what a plan says, as a merge patch (RFC 7396)."""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from zerotrust.common import naming
from zerotrust.common.observed import ConfigMap, ControllerRevision, NetworkPolicy
from zerotrust.common.plan import Apply
from zerotrust.gatekeeper.observed import Constraint, ConstraintTemplate
from zerotrust.pki.secret import ObservedSecret, digest

Body = dict[str, Any]


def owned_fields(observed: Any) -> dict[str, Any]:
    """Return the fields of a cached object that plans may speak of."""
    meta = observed.meta
    fields: dict[str, Any] = {
        "metadata": {
            "labels": dict(meta.labels),
            "annotations": dict(meta.annotations),
            "ownerReferences": [dict(owner) for owner in meta.owners],
        }
    }
    match observed:
        case ObservedSecret():
            fields["type"] = observed.type
            fields["data"] = {name: _Digest(value) for name, value in observed.digests.items()}
        case ConfigMap():
            fields["data"] = dict(observed.data)
        case NetworkPolicy() | ConstraintTemplate() | Constraint():
            fields["spec"] = observed.spec
        case ControllerRevision():
            fields |= {"revision": observed.revision, "data": observed.data}
    return fields


def missing(observed: Any, apply: Apply) -> Body:
    """Return the merge patch that makes the applied fields true, empty when they are."""
    fields = owned_fields(observed)
    manifest = {
        name: _exactly(fields.get(name), value) if name in apply.exact else value
        for name, value in apply.manifest.items()
    }
    return difference(fields, manifest)


def _exactly(present: Any, wanted: Any) -> Any:
    """The wanted value, with a null for each key that is present and not wanted."""
    if not isinstance(wanted, Mapping) or not isinstance(present, Mapping):
        return wanted
    kept = {name: _exactly(present.get(name), value) for name, value in wanted.items()}
    return kept | {name: None for name in present if name not in wanted}


class _Digest:
    """A Secret's value as the cache knows it: equal to the base64 text of the same value."""

    def __init__(self, value: bytes) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        return is_value(other, self._value)

    __hash__ = None  # type: ignore[assignment]


def is_value(text: object, expected: bytes) -> bool:
    """Tell whether a text is the base64 of the value with this SHA-256."""
    try:
        return isinstance(text, str) and digest(base64.b64decode(text, validate=True)) == expected
    except (binascii.Error, ValueError):
        return False


_IDENTIFYING = ("apiVersion", "kind")
_PLACE = ("name", "namespace")


def difference(observed: Mapping[str, Any], wanted: Mapping[str, Any]) -> Body:
    """Return the merge patch (RFC 7396) that makes `wanted` true, empty when it is; lists count as one value."""
    patch: Body = {}
    for name, value in wanted.items():
        if name in _IDENTIFYING:
            continue
        present = observed.get(name)
        if isinstance(value, Mapping):
            inner = difference(present if isinstance(present, Mapping) else {}, value)
            if name == "metadata":
                inner = {key: part for key, part in inner.items() if key not in _PLACE}
            if inner:
                patch[name] = inner
            elif not value and not isinstance(present, Mapping):
                patch[name] = {}
        elif value is None:
            if present is not None and present not in ([], {}):
                patch[name] = None
        elif not _same(present, value):
            patch[name] = value
    return patch


def _same(present: Any, value: Any) -> bool:
    if value == [] and present is None:  # the API server does not store empty lists
        return True
    return bool(present == value) if isinstance(present, _Digest) else bool(value == present)


def is_complete(manifest: Mapping[str, Any]) -> bool:
    """Tell whether an object can be created from the manifest: a Secret cannot without the key that it is for."""
    if manifest["metadata"].get("labels", {}).get(naming.COMPONENT) == naming.COMPONENT_API_KEY:
        return any(manifest["data"].get(name) is not None for name in ("api-key", "API_KEY"))
    return manifest.get("type") != "kubernetes.io/tls" or "tls.key" in manifest.get("data", {})


def paths(patch: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Name the fields of a patch, without their values."""
    names: list[str] = []
    for name, value in patch.items():
        if prefix == "metadata." and name in ("resourceVersion", "uid"):
            continue
        names += paths(value, f"{prefix}{name}.") if isinstance(value, Mapping) and value else [prefix + name]
    return names
