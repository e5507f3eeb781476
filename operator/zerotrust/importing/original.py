"""The NetworkPolicies that are imported, and what they allow (Kubernetes docs, "Network Policies")."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from pydantic import Field

from zerotrust.common import naming
from zerotrust.common.errors import SpecError
from zerotrust.common.naming import Ref
from zerotrust.common.resource import Resource, parse
from zerotrust.importing.objects import ANYWHERE, Pod, Protocol, World, by_label
from zerotrust.policy.network import Direction, PortOf
from zerotrust.policy.podset import PodSet, Selector, from_kubernetes, selects


class _Expression(Resource):
    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: list[str] | None = None


class _Selector(Resource):
    match_labels: dict[str, str] | None = None
    match_expressions: list[_Expression] | None = None


class _IpBlock(Resource):
    cidr: str
    except_: list[str] = Field(default=[], alias="except")


class _Peer(Resource):
    pod_selector: _Selector | None = None
    namespace_selector: _Selector | None = None
    ip_block: _IpBlock | None = None


class PortEntry(Resource):
    """An entry of `ports`: a number, a name, a range, or every port of a protocol."""

    port: int | str | None = None
    end_port: int | None = None
    protocol: Protocol = "TCP"

    def admits(self, port: PortOf, server: Pod) -> bool:
        """Whether a port of a pod is meant."""
        if isinstance(self.port, str):
            return server.numbers(self.port, self.protocol) == {port}
        if port.protocol != self.protocol:
            return False
        return self.port is None or self.port <= port.port <= (self.end_port or self.port)


class _Rule(Resource):
    from_: list[_Peer] | None = Field(default=None, alias="from")
    to: list[_Peer] | None = None
    ports: list[PortEntry] | None = None


class _Spec(Resource):
    pod_selector: _Selector = _Selector()
    policy_types: list[Direction] | None = None
    ingress: list[_Rule] | None = None
    egress: list[_Rule] | None = None


@dataclass(frozen=True)
class OldPeer:
    """Pods, or an address range without some parts; `path` is the field."""

    path: str
    pods: PodSet | None
    cidr: str = ""
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class OldRule:
    """Peers and ports; None for every one."""

    path: str
    side: Literal["from", "to"]
    peers: tuple[OldPeer, ...] | None
    ports: tuple[PortEntry, ...] | None

    @property
    def is_everything(self) -> bool:
        """Whether nothing is closed where this rule holds."""
        return self.peers is None and self.ports is None

    def has_peer(self, world: World, pod: Pod) -> bool:
        """Whether a pod is certainly among its peers; addresses are those outside the cluster."""
        labels, unread = world.labels(pod.namespace), pod.namespace in world.unread
        return self.peers is None or any(
            one.pods is not None
            and one.pods.contains(labels, pod.labels)
            and not (unread and by_label(one.pods.namespace))
            for one in self.peers
        )

    def has_port(self, port: PortOf, server: Pod) -> bool:
        """Whether a port of the server is among its ports."""
        return self.ports is None or any(one.admits(port, server) for one in self.ports)


@dataclass(frozen=True)
class OldPolicy:
    """A NetworkPolicy: its pods, and the rules of the directions that it closes."""

    ref: Ref
    pods: PodSet
    rules: dict[Direction, tuple[OldRule, ...]]

    @property
    def is_about_all(self) -> bool:
        """Whether it selects every pod of its namespace."""
        return not self.pods.pod


def read_policies(world: World) -> list[OldPolicy]:
    """The NetworkPolicies that were read, without the operator's own; SpecError names a field that cannot be read."""
    found = []
    for _, ref, body in world.others.get("NetworkPolicy", ()):
        if (body["metadata"].get("labels") or {}).get(naming.MANAGED_BY) != naming.OPERATOR:
            found.append(_policy(ref, parse(_Spec, body.get("spec") or {}, f"{ref}: spec")))
    return found


def _policy(ref: Ref, spec: _Spec) -> OldPolicy:
    implied: list[Direction] = ["Ingress", "Egress"] if spec.egress else ["Ingress"]
    directions = spec.policy_types or implied
    written: dict[Direction, list[_Rule]] = {"Ingress": spec.ingress or [], "Egress": spec.egress or []}
    return OldPolicy(
        ref=ref,
        pods=PodSet.within(ref.namespace, _requirements(spec.pod_selector)),
        rules={
            one: tuple(_rule(ref, f"spec.{one.lower()}[{number}]", rule) for number, rule in enumerate(written[one]))
            for one in dict.fromkeys(directions)
        },
    )


def _requirements(selector: _Selector) -> Selector:
    return from_kubernetes(selector.model_dump(by_alias=True, exclude_none=True))


def _rule(ref: Ref, path: str, rule: _Rule) -> OldRule:
    side: Literal["from", "to"] = "to" if path.startswith("spec.egress") else "from"
    written = rule.to if side == "to" else rule.from_
    peers = None if not written else tuple(_peer(ref, f"{path}.{side}[{n}]", one) for n, one in enumerate(written))
    return OldRule(path, side, peers, tuple(rule.ports) if rule.ports else None)


def _peer(ref: Ref, path: str, peer: _Peer) -> OldPeer:
    if peer.ip_block is not None:
        return OldPeer(path, None, peer.ip_block.cidr, tuple(peer.ip_block.except_))
    if peer.pod_selector is None and peer.namespace_selector is None:
        raise SpecError(f"{ref}: {path}", "names nobody; write podSelector, namespaceSelector or ipBlock")
    pods = _requirements(peer.pod_selector) if peer.pod_selector is not None else ()
    if peer.namespace_selector is None:
        return OldPeer(path, PodSet.within(ref.namespace, pods))
    return OldPeer(path, PodSet(_requirements(peer.namespace_selector) or ANYWHERE, pods))


@dataclass(frozen=True)
class Original:
    """What the NetworkPolicies that were read allow together."""

    world: World
    policies: Sequence[OldPolicy]

    def isolating(self, direction: Direction, pod: Pod) -> list[OldPolicy]:
        """The policies that close a direction of a pod."""
        mine = self._by_namespace.get(pod.namespace, ())
        return [one for one in mine if direction in one.rules and selects(one.pods.pod, pod.labels)]

    @cached_property
    def _by_namespace(self) -> dict[str, list[OldPolicy]]:
        found: dict[str, list[OldPolicy]] = {}
        for policy in self.policies:
            found.setdefault(policy.ref.namespace, []).append(policy)
        return found

    def lets_out(self, clients: Iterable[Pod], servers: Sequence[Pod], port: PortOf) -> bool:
        """Whether the clients' side lets every one of them connect to every server."""
        return all(self._passes("Egress", client, server, port, server) for client in clients for server in servers)

    def lets_in(self, client: Pod, server: Pod, port: PortOf) -> bool:
        """Whether the server's side lets a client in."""
        return self._passes("Ingress", server, client, port, server)

    def _passes(self, direction: Direction, pod: Pod, peer: Pod, port: PortOf, server: Pod) -> bool:
        isolating = self.isolating(direction, pod)
        return not isolating or any(
            rule.has_peer(self.world, peer) and rule.has_port(port, server)
            for policy in isolating
            for rule in policy.rules[direction]
        )
