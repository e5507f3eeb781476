"""What a namespace runs and exposes, read on demand and never watched: it matters at a few moments only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from zerotrust.common.naming import Ref
from zerotrust.common.observed import Meta
from zerotrust.policy.podset import Selector, selects


@dataclass(frozen=True)
class Survey:
    """The label sets and uids of a namespace's running pods, and what brings traffic from outside: `(what it is, its pods'
    labels)`; `at` is when it was looked at.
    """

    meta: Meta
    pods: tuple[Mapping[str, str], ...]
    exposed: tuple[tuple[str, Mapping[str, str]], ...]
    uids: frozenset[str] = frozenset()
    at: datetime | None = None

    def says_the_same(self, other: "Survey") -> bool:
        """Tell whether nothing has changed but the time."""
        return (self.pods, self.exposed, self.uids) == (other.pods, other.exposed, other.uids)

    def has_pods(self, selector: Selector) -> bool:
        """Tell whether any running pod is selected."""
        return any(selects(selector, labels) for labels in self.pods)

    def exposing(self, pods: Selector) -> list[str]:
        """What brings outside traffic to these pods."""
        mine = [labels for labels in self.pods if selects(pods, labels)]
        return [what for what, wanted in self.exposed if any(wanted.items() <= labels.items() for labels in mine)]


def survey_ref(namespace: str) -> Ref:
    """Where a namespace's survey is kept in the cache."""
    return Ref("Survey", namespace, namespace)


def exposed(services: Sequence[Mapping[str, Any]], routes: Sequence[Mapping[str, Any]]) -> tuple[Any, ...]:
    """Return what brings traffic from outside: LoadBalancer and NodePort Services, and backends of Ingresses and routes."""
    fronted: dict[str, str] = {}  # name of a Service -> what leads to it
    for route in routes:
        title = f"{route.get('kind', 'Ingress')} {route['metadata']['name']}"
        for name in _backends(route.get("spec") or {}):
            fronted.setdefault(name, title)
    found = []
    for service in services:
        name, spec = service["metadata"]["name"], service.get("spec") or {}
        kind = spec.get("type")
        leads = f"Service {name} of type {kind}" if kind in ("LoadBalancer", "NodePort") else fronted.get(name)
        if leads is not None and spec.get("selector"):
            found.append((leads, spec["selector"]))
    return tuple(sorted(found, key=repr))


def _backends(node: Any) -> set[str]:
    """Names of Services in an Ingress' `service: {name}` and a route's `backendRefs: [{name}]`, wherever they stand."""
    if isinstance(node, list):
        return set().union(*(_backends(one) for one in node)) if node else set()
    if not isinstance(node, Mapping):
        return set()
    found: set[str] = set()
    for key, value in node.items():
        if key == "service" and isinstance(value, Mapping) and "name" in value:
            found.add(value["name"])
        elif key == "backendRefs" and isinstance(value, list):
            found |= {one["name"] for one in value if one.get("kind", "Service") == "Service" and "name" in one}
        else:
            found |= _backends(value)
    return found
