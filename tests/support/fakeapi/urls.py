"""From an HTTP request line to the Kubernetes verb and object it is about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .refusals import NoSuchPage, Refused, method_not_allowed, no_such_resource, not_found, unsupported
from .resources import ResourceType

_HARMLESS = frozenset({"pretty", "fieldManager", "fieldValidation", "timeout"})
_SELECTING = frozenset({"labelSelector", "fieldSelector", "resourceVersion", "resourceVersionMatch", "timeoutSeconds"})
_ON_COLLECTIONS = _SELECTING | {"limit", "continue", "watch", "allowWatchBookmarks"}
_UNDERSTOOD = {
    "get": frozenset({"resourceVersion"}),
    "list": _ON_COLLECTIONS,
    "watch": _ON_COLLECTIONS,
    "delete": frozenset({"propagationPolicy", "gracePeriodSeconds"}),
}
_ON_OBJECT = {"GET": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_ON_COLLECTION = {"GET": "list", "POST": "create"}


@dataclass(frozen=True)
class Target:
    """An object or a collection; `namespace` is None for a collection across all namespaces."""

    resource: ResourceType
    namespace: str | None
    name: str
    subresource: str


def locate(path: str, resources: Iterable[ResourceType]) -> Target | None:
    """What a URL path points at; None for what is not about a resource, or about one that nobody serves.

    Refuses where the API server has heard of the group, but not of this.
    """
    namespace: str | None = None
    match path.strip("/").split("/"):
        case ["api", version, *rest]:
            group = ""
        case ["apis", group, version, *rest]:
            pass
        case _:
            return None
    match rest:
        case ["namespaces", namespace, plural, *tail] if not (group == "" and plural == "status"):
            pass
        case [plural, *tail]:
            pass
        case _:
            return None
    siblings = {it.plural: it for it in resources if (it.group, it.version) == (group, version)}
    resource = siblings.get(plural)
    name, subresource = [*tail, "", ""][:2]
    if resource and _exists(resource, namespace, name, subresource) and len(tail) <= 2:
        return Target(resource, namespace, name, subresource)
    if resource and resource.custom and subresource:
        raise not_found(resource, name)
    if any(not sibling.custom for sibling in siblings.values()):
        raise no_such_resource()
    return None


def _exists(resource: ResourceType, namespace: str | None, name: str, subresource: str) -> bool:
    if subresource and not (subresource == "status" and resource.status_subresource):
        return False
    return resource.namespaced == (namespace is not None) or (resource.namespaced and not name)


def verb_of(method: str, target: Target, query: Mapping[str, str]) -> str:
    """The verb as RBAC and the audit log name it; 405 where the resource has none for this method."""
    verb = (_ON_OBJECT if target.name else _ON_COLLECTION).get(method)
    if verb == "list" and query.get("watch", "0").lower() in ("1", "true"):
        return "watch"
    no_namespace = verb == "create" and target.resource.namespaced and target.namespace is None
    if no_namespace and target.resource.custom:
        raise NoSuchPage
    if verb is None or no_namespace or (target.subresource and verb == "delete"):
        raise method_not_allowed()
    return verb


def check_query(verb: str, query: Mapping[str, str]) -> None:
    """Refuse parameters that would change the answer of the real server but not this one's."""
    if unknown := sorted(set(query) - _HARMLESS - _UNDERSTOOD.get(verb, frozenset())):
        raise unsupported(f"{', '.join(unknown)} on {verb}")
    if query.get("resourceVersionMatch") == "Exact":
        raise unsupported("resourceVersionMatch=Exact")


def whole_number(query: Mapping[str, str], name: str) -> int:
    """A non-negative integer parameter, 0 if absent."""
    text = query.get(name) or "0"
    if not text.isdecimal():
        raise Refused(400, f"{name}: Invalid value: {text!r}")
    return int(text)
