"""What the emitted network policies mean for one connection, read from the manifests as Kubernetes reads them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from zerotrust.cli.manifests import Body
from zerotrust.cli.policies import Intent
from zerotrust.common import naming
from zerotrust.identity.resource import ServiceIdentitySpec
from zerotrust.policy import network
from zerotrust.policy.directory import Identity, Workload
from zerotrust.policy.network import PortOf
from zerotrust.policy.podset import NAMESPACE_NAME, Selector, from_kubernetes, selects

Side = Literal["ingress", "egress"]


@dataclass(frozen=True)
class Gate:
    """What one side of a connection says: whether it lets it through, and why in a sentence."""

    side: Side
    open: bool
    message: str


@dataclass(frozen=True)
class _Pod:
    """A pod as network policies see it."""

    namespace: Mapping[str, str]
    labels: Mapping[str, str]


def gates(
    intent: Intent, client: Workload, client_identity: Identity | None, server: Identity, port: PortOf, now: datetime
) -> tuple[Gate, Gate]:
    """Return what the client's egress and the server's ingress say about a connection between a pod of each."""
    callee = _Pod(intent.namespace_labels(server.workload.namespace), _labels(server))
    place = intent.namespace_labels(client.namespace) or {NAMESPACE_NAME: client.namespace}
    if client_identity is None:
        caller = _Pod(place, {naming.SERVICE_ACCOUNT: client.name})
        out = Gate("egress", True, f"{client} is no identity, so nothing of it is isolated")
    else:
        caller = _Pod(place, _labels(client_identity))
        out = _egress(intent.network_policies(client_identity, now), client_identity, server, caller, callee, port)
    return out, _ingress(intent.network_policies(server, now), server, caller, callee, port)


def _labels(identity: Identity) -> dict[str, str]:
    """The labels of a pod of the identity that has no others than it must have."""
    spec = identity.spec
    account = spec.service_account_name if isinstance(spec, ServiceIdentitySpec) else None
    return {naming.SERVICE_ACCOUNT: account or identity.workload.name} | _fewest(identity.pods)


def _fewest(selector: Selector) -> dict[str, str]:
    labels: dict[str, str] = {}
    excluded = {one.key: set(one.values) for one in selector if one.operator == "NotIn"}
    for one in selector:
        allowed = [value for value in one.values if value not in excluded.get(one.key, ())]
        if one.operator == "In" and allowed:
            labels[one.key] = allowed[0]
        elif one.operator == "Exists":
            labels.setdefault(one.key, "any")
    return labels


def _ingress(policies: Sequence[Body], server: Identity, caller: _Pod, callee: _Pod, port: PortOf) -> Gate:
    if server.enforcement == "Observe":
        return Gate("ingress", True, f"{server.workload} is in enforcement: Observe, so nothing of it is isolated")
    closing = _closing(policies, "Ingress", callee.labels)
    if not closing:
        return Gate("ingress", True, f"{server.workload} is not isolated: no policy with this layer protects it")
    opening = _first(closing, "ingress", "from", caller, port)
    where = f"to {server.workload}:{port.port}/{port.protocol}"
    if opening:
        return Gate("ingress", True, f"{opening} lets the client in {where}")
    return Gate("ingress", False, f"{' and '.join(map(_name, closing))} lets the client not in {where}")


def _egress(
    policies: Sequence[Body], client: Identity, server: Identity, caller: _Pod, callee: _Pod, port: PortOf
) -> Gate:
    closing = _closing(policies, "Egress", caller.labels)
    if not closing:
        return Gate("egress", True, f"{client.workload} may leave for anywhere: its egress is not isolated")
    opening = _first(closing, "egress", "to", callee, port)
    if opening:
        return Gate("egress", True, f"{opening} lets {client.workload} out")
    advice = ""
    if not network.consents(client, server.workload):
        advice = f"; name {server.workload} in spec.egress.calls of ServiceIdentity {client.workload}"
    return Gate("egress", False, f"{' and '.join(map(_name, closing))} lets {client.workload} not out{advice}")


def _name(policy: Body) -> str:
    return f"NetworkPolicy {policy['metadata']['namespace']}/{policy['metadata']['name']}"


def _closing(policies: Iterable[Body], direction: str, labels: Mapping[str, str]) -> list[Body]:
    """Those that select the pod and close the direction; together they allow what any of them does."""
    return [
        one
        for one in policies
        if direction in one["spec"]["policyTypes"] and selects(from_kubernetes(one["spec"]["podSelector"]), labels)
    ]


def _first(policies: Iterable[Body], side: Side, peers: str, pod: _Pod, port: PortOf) -> str:
    for policy in policies:
        if any(_opens(rule, peers, pod, port) for rule in policy["spec"].get(side) or ()):
            return _name(policy)
    return ""


def _opens(rule: Mapping[str, Any], peers: str, pod: _Pod, port: PortOf) -> bool:
    """Absent peers and absent ports mean every one; an ipBlock is about addresses, which are not known here."""
    ports = rule.get("ports")
    if ports is not None and not any((one["port"], one["protocol"]) == tuple(port) for one in ports):
        return False
    listed = rule.get(peers)
    return listed is None or any(_is(peer, pod) for peer in listed if "ipBlock" not in peer)


def _is(peer: Mapping[str, Any], pod: _Pod) -> bool:
    return selects(from_kubernetes(peer.get("namespaceSelector")), pod.namespace) and selects(
        from_kubernetes(peer.get("podSelector")), pod.labels
    )
