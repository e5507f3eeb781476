"""The layer-4 shadow of the decision table, and the NetworkPolicy that says it.

A network policy knows pods, ports and address ranges; so the shadow lets through every connection on which some request could be
allowed, and nothing that no row mentions. A Deny that a network policy can express takes its pods out of the peers.
Source: Kubernetes docs, "Network Policies"; the pitfalls that are handled are listed in docs/guides/network-policies.md.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple

from zerotrust.common import naming
from zerotrust.identity.resource import EgressRule
from zerotrust.policy.directory import Directory, Identity, Workload, default_selector
from zerotrust.policy.podset import (
    NAMESPACE_NAME,
    PodSet,
    Requirement,
    equal,
    from_kubernetes,
    selector_of,
    to_kubernetes,
)
from zerotrust.policy.table import ANY_WORKLOAD, Client, Row, Table
from zerotrust.trustdomain.resource import Dns

LABELLED = PodSet((), (Requirement(naming.SERVICE_ACCOUNT, "Exists"),))
# Taking away n sets of pods with two labels each can leave 2 to the power of n parts; 256 take a tenth of a second.
MAX_PARTS = 256
Direction = Literal["Ingress", "Egress"]
DIRECTIONS: tuple[Direction, ...] = ("Ingress", "Egress")


class PortOf(NamedTuple):
    """A port with its protocol."""

    port: int
    protocol: str


class Address(NamedTuple):
    """An address range, in CIDR notation."""

    cidr: str


NetworkPeer = PodSet | Address
Openings = dict[NetworkPeer, set[PortOf]]


BUNDLE_SERVER_PORT = PortOf(8443, "TCP")


@dataclass(frozen=True)
class Surroundings:
    """What beside tables decides about an identity's network policy; `api_server` are its addresses and ports.

    `isolated` are the directions that the namespace's own default-deny closes for every pod; `bundle_server` are the pods from
    which decision points of the namespace get their bundles, where they have any.
    """

    dns: Dns = field(default_factory=Dns)
    api_server: tuple[tuple[str, PortOf], ...] = ()
    isolated: frozenset[Direction] = frozenset()
    bundle_server: PodSet | None = None


def pods_of(client: Client, directory: Directory) -> list[PodSet]:
    """The pods that a client stands for; none for an address range."""
    if client.workload is not None:
        identity = directory.identity(client.workload)
        return [identity.pod_set if identity is not None else _presumed(client.workload)]
    if client == ANY_WORKLOAD:
        return [LABELLED, *sorted(one.pod_set for one in directory.selected_otherwise())]
    return [client.pods] if client.pods is not None else []


def _presumed(workload: Workload) -> PodSet:
    """The pods of an identity that does not exist yet, as a Deny by name must know them."""
    return PodSet.within(workload.namespace, default_selector(workload.name))


def deciding(rows: Iterable[Row], now: datetime) -> list[Row]:
    """The rows that count at layer 4 now."""
    return [row for row in rows if not row.observe and (row.until is None or now < row.until)]


def admits(
    table: Table,
    directory: Directory,
    namespace_labels: Mapping[str, str],
    pod_labels: Mapping[str, str],
    port: PortOf,
    now: datetime,
) -> bool:
    """Tell whether the shadow lets a pod connect: the meaning that the emitted rules are tested against."""

    def speaks_of(row: Row) -> bool:
        return (row.port, row.protocol) == port and any(
            pods.contains(namespace_labels, pod_labels) for pods in pods_of(row.client, directory)
        )

    rows = [row for row in deciding(table.rows, now) if speaks_of(row)]
    if any(row.effect == "Deny" and row.decides_connections for row in rows):
        return False
    return any(row.effect == "Allow" for row in rows)


def ingress(table: Table, directory: Directory, now: datetime) -> list[dict[str, Any]]:
    """Return the ingress rules that let in exactly whom the shadow admits."""
    return _rules(openings(table, directory, now), "from")


def openings(table: Table, directory: Directory, now: datetime) -> Openings:
    """Return who is let in to which ports; the pods of one entry are in no other of the same client."""
    found: Openings = {}
    rows = deciding(table.rows, now)
    denied = _denied(rows, directory)
    for client, port in _edges(row for row in rows if row.effect == "Allow"):
        if client.kind == "cidr":
            found.setdefault(Address(client.name), set()).add(port)
            continue
        for pods in _without(pods_of(client, directory), denied.get(port, ())) or ():
            found.setdefault(pods, set()).add(port)
    return found


def too_complex(table: Table, directory: Directory, now: datetime) -> list[PortOf]:
    """Return the ports that stay closed to a client because what Deny rules leave of it has more than MAX_PARTS parts."""
    rows = deciding(table.rows, now)
    denied = _denied(rows, directory)
    if not denied:
        return []
    allowed = _edges(row for row in rows if row.effect == "Allow" and row.client.kind != "cidr")
    return sorted(
        {port for client, port in allowed if _without(pods_of(client, directory), denied.get(port, ())) is None}
    )


def _denied(rows: Iterable[Row], directory: Directory) -> dict[PortOf, list[PodSet]]:
    denied: dict[PortOf, list[PodSet]] = {}
    for client, port in _edges(row for row in rows if row.effect == "Deny" and row.decides_connections):
        denied.setdefault(port, []).extend(pods_of(client, directory))
    return denied


def _edges(rows: Iterable[Row]) -> list[tuple[Client, PortOf]]:
    return sorted({(row.client, PortOf(row.port, row.protocol)) for row in rows}, key=repr)


def _without(allowed: Iterable[PodSet], denied: Sequence[PodSet]) -> list[PodSet] | None:
    left = list(dict.fromkeys(allowed))
    for one in dict.fromkeys(denied):
        left = [rest for pods in left for rest in pods.minus(one)]
        if len(left) > MAX_PARTS:
            return None
    return left


def egress(
    identity: Identity,
    servers: Iterable[tuple[Identity, Table]],
    surroundings: Surroundings,
    allow: Iterable[EgressRule],
    now: datetime,
    held: Set[tuple[Workload, PortOf]] = frozenset(),
) -> list[dict[str, Any]]:
    """Return the egress rules of an isolated client: rows it is a client of, but for what is `held` back, its own
    spec.egress.allow, DNS, and the bundle server for the decision point beside it.

    Servers in other namespaces count only when the client names them in spec.egress.calls: no policy opens another namespace's
    egress by itself.
    """
    found: Openings = {}
    for server, table in servers:
        if consents(identity, server.workload):
            for port in callable_ports(table, identity.workload, now):
                if (server.workload, port) not in held:
                    found.setdefault(server.pod_set, set()).add(port)
    for rule in allow:
        ports = {PortOf(port.port, port.protocol) for port in rule.ports or ()}
        if rule.cidr is not None:
            found.setdefault(Address(rule.cidr), set()).update(ports)
        elif rule.kubernetes_api:
            for cidr, port in surroundings.api_server:
                found.setdefault(Address(cidr), set()).add(port)
        elif rule.pods is not None:
            place = rule.pods.namespace_selector
            namespace = (equal(NAMESPACE_NAME, identity.workload.namespace),) if place is None else selector_of(place)
            found.setdefault(PodSet(namespace, selector_of(rule.pods.pod_selector)), set()).update(ports)
    if surroundings.bundle_server is not None:
        found.setdefault(surroundings.bundle_server, set()).add(BUNDLE_SERVER_PORT)
    _open_dns(found, surroundings.dns)
    return _rules(found, "to")


def resolvers(dns: Dns) -> list[dict[str, Any]]:
    """Return the egress rules for name resolution alone."""
    found: Openings = {}
    _open_dns(found, dns)
    return _rules(found, "to")


def _open_dns(found: Openings, dns: Dns) -> None:
    servers: list[NetworkPeer] = [PodSet(selector_of(dns.namespace_selector), selector_of(dns.pod_selector))]
    servers += [Address(cidr) for cidr in dns.cidrs]
    for peer in servers:
        found.setdefault(peer, set()).update(PortOf(port.port, port.protocol) for port in dns.ports)


def consents(client: Identity, server: Workload) -> bool:
    """Tell whether an isolated client agrees to call a server: its own namespace's, or one of spec.egress.calls."""
    return server.namespace == client.workload.namespace or server in client.calls


def callable_ports(table: Table, client: Workload, now: datetime, without: Set[str] = frozenset()) -> set[PortOf]:
    """The ports of a server on which something may be allowed to an identity, if these policies allowed nothing."""
    rows = deciding(table.about(client), now)
    denied = {PortOf(row.port, row.protocol) for row in rows if row.effect == "Deny" and row.decides_connections}
    return {
        PortOf(row.port, row.protocol) for row in rows if row.effect == "Allow" and row.policy not in without
    } - denied


def lets_out(spec: Mapping[str, Any], namespace: str, pods: PodSet, port: PortOf) -> bool:
    """Tell whether an egress rule that we wrote into a network policy of a namespace covers all of these pods."""
    for rule in spec.get("egress") or ():
        if {"port": port.port, "protocol": port.protocol} not in (rule.get("ports") or ()):
            continue
        for peer in rule.get("to") or ():
            place = peer.get("namespaceSelector")
            within = (equal(NAMESPACE_NAME, namespace),) if place is None else from_kubernetes(place)
            if "ipBlock" not in peer and not pods.minus(PodSet(within, from_kubernetes(peer.get("podSelector")))):
                return True
    return False


def _rules(found: Openings, side: Literal["from", "to"]) -> list[dict[str, Any]]:
    """Peers with the same ports share a rule, and ServiceAccounts of one namespace a peer; everything sorted."""
    by_ports: dict[tuple[PortOf, ...], list[NetworkPeer]] = {}
    for peer, ports in found.items():
        by_ports.setdefault(tuple(sorted(ports)), []).append(peer)
    return [
        {
            side: [_peer(peer) for peer in _merged(peers)],
            "ports": [{"port": one.port, "protocol": one.protocol} for one in ports],
        }
        for ports, peers in sorted(by_ports.items(), key=lambda item: item[0])
    ]


def _merged(peers: list[NetworkPeer]) -> list[NetworkPeer]:
    names: dict[tuple[Requirement, ...], set[str]] = {}
    rest: list[NetworkPeer] = []
    for peer in peers:
        if isinstance(peer, PodSet) and len(peer.pod) == 1 and _names_accounts(peer.pod[0]):
            names.setdefault(peer.namespace, set()).update(peer.pod[0].values)
        else:
            rest.append(peer)
    together = [PodSet(place, (equal(naming.SERVICE_ACCOUNT, *values),)) for place, values in names.items()]
    pods = sorted(one for one in (*rest, *together) if isinstance(one, PodSet))
    return [*pods, *sorted(one for one in rest if isinstance(one, Address))]


def _names_accounts(one: Requirement) -> bool:
    return (one.key, one.operator) == (naming.SERVICE_ACCOUNT, "In")


def _peer(peer: NetworkPeer) -> dict[str, Any]:
    """Both selectors in one peer, so that both must hold; two peers would mean either."""
    if isinstance(peer, Address):
        return {"ipBlock": {"cidr": peer.cidr}}
    return {"namespaceSelector": to_kubernetes(peer.namespace), "podSelector": to_kubernetes(peer.pod)}


def manifest(
    namespace: str,
    name: str,
    labels: Mapping[str, str | None],
    pods: Mapping[str, Any],
    rules: Mapping[Direction, list[dict[str, Any]]],
) -> dict[str, Any]:
    """Return a NetworkPolicy; each direction in `rules` is closed but for its rules, the others are left alone."""
    directions = [one for one in DIRECTIONS if one in rules]
    spec = {
        "podSelector": dict(pods),
        "policyTypes": directions,
        **{one.lower(): rules[one] for one in directions},
    }
    digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {naming.MANAGED_BY: naming.OPERATOR, naming.COMPONENT: naming.COMPONENT_NETWORK_POLICY, **labels},
            "annotations": {naming.CONTENT_HASH: digest},
        },
        "spec": spec,
    }
