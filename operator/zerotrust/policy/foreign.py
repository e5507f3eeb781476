"""What network policies that are not ours let in and the table does not: they only add up, so it is found and told."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from zerotrust.common.observed import NetworkPolicy
from zerotrust.policy.directory import Directory, Identity, Workload
from zerotrust.policy.network import Address, Openings, PortOf, openings
from zerotrust.policy.podset import NAMESPACE_NAME, PodSet, contradictory, equal, from_kubernetes, selects
from zerotrust.policy.survey import Survey
from zerotrust.policy.table import Table


class Edge(NamedTuple):
    """A way in that somebody else's network policy opens: who reaches which workload, and where.

    `client` is an identity where all of its pods get in, and else what the policy itself says of its peer.
    """

    policy: str
    client: str
    server: Workload
    port: str

    def __str__(self) -> str:
        return f"NetworkPolicy {self.policy} lets {self.client} reach {self.server} at {self.port}"


def may_select(foreign: NetworkPolicy, identity: Identity, survey: Survey | None) -> bool | None:
    """Tell whether a network policy selects pods of an identity; None when that takes a look at the pods."""
    selector = from_kubernetes(foreign.spec.get("podSelector"))
    if contradictory((*selector, *identity.pods)):
        return False
    if set(selector) <= set(identity.pods):
        return True
    if survey is None:
        return None
    return any(selects(selector, labels) and selects(identity.pods, labels) for labels in survey.pods)


def widening(
    foreign: NetworkPolicy, server: Workload, table: Table, directory: Directory, now: datetime
) -> Edge | None:
    """Return the first way in that a network policy opens beyond the table, None when it opens none."""
    spec = foreign.spec
    if "Ingress" not in (spec.get("policyTypes") or ["Ingress"]):
        return None
    ours, name = openings(table, directory, now), f"{foreign.meta.namespace}/{foreign.meta.name}"
    for rule in spec.get("ingress") or ():
        for client, port in _beyond(rule, foreign.meta.namespace, ours):
            return Edge(name, _named(client, directory), server, port)
    return None


def _beyond(rule: Mapping[str, Any], namespace: str, ours: Openings) -> Iterator[tuple[PodSet | str, str]]:
    """Who gets in by a rule and not by the table, and at which port."""
    anything: list[Mapping[str, Any]] = [{}]
    for peer in rule.get("from") or anything:
        for port in rule.get("ports") or anything:
            known = _exactly(port)
            if "ipBlock" in peer:
                block = peer["ipBlock"]
                if block.get("except") or known not in ours.get(Address(block["cidr"]), ()):
                    yield _addresses(block), _port_in_words(port)
            elif not peer:
                yield "everybody", _port_in_words(port)
            else:
                yield from ((pods, _port_in_words(port)) for pods in _left(peer, namespace, known, ours))


def _left(peer: Mapping[str, Any], namespace: str, port: PortOf | None, ours: Openings) -> list[PodSet]:
    """The pods of a peer that the table does not let in at a port."""
    place = peer.get("namespaceSelector")
    within = (equal(NAMESPACE_NAME, namespace),) if place is None else from_kubernetes(place)
    left = [PodSet(within, from_kubernetes(peer.get("podSelector")))]
    for pods, open_ports in ours.items():
        if isinstance(pods, PodSet) and port in open_ports:
            left = [rest for part in left for rest in part.minus(pods)]
    return [one for one in left if not one.is_empty]


def _exactly(port: Mapping[str, Any]) -> PortOf | None:
    """The one port that is meant; None for all of them, a range, and a name, which is another number in each pod."""
    if not isinstance(port.get("port"), int) or port.get("endPort"):
        return None
    return PortOf(port["port"], port.get("protocol") or "TCP")


def _named(client: PodSet | str, directory: Directory) -> str:
    if isinstance(client, str):
        return client
    places = [
        place for one in client.namespace if one.key == NAMESPACE_NAME and one.operator == "In" for place in one.values
    ]
    surely = (one.workload for place in places for one in directory.identities(place) if one.pod_set.is_within(client))
    return str(min(surely, default=client))


def _addresses(block: Mapping[str, Any]) -> str:
    apart = " but ".join([block["cidr"], *filter(None, [", ".join(block.get("except") or ())])])
    return f"addresses {apart}"


def _port_in_words(port: Mapping[str, Any]) -> str:
    protocol, number, end = port.get("protocol") or "TCP", port.get("port"), port.get("endPort")
    if number is None:
        return f"every port/{protocol}" if port else "every port"
    return f"{number}-{end}/{protocol}" if end else f"{number}/{protocol}"
