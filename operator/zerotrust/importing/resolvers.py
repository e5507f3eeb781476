"""Where names are resolved: isolated egress always opens it, so it must have been open before."""

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_network
from typing import Any

from zerotrust.common.selectors import Port
from zerotrust.importing.domain import Domain
from zerotrust.importing.objects import World
from zerotrust.importing.original import OldRule
from zerotrust.importing.ranges import ranges
from zerotrust.importing.selection import covers
from zerotrust.policy.directory import Workload
from zerotrust.policy.network import PortOf
from zerotrust.policy.podset import PodSet, selector_of
from zerotrust.trustdomain.resource import Dns


class Resolvers:
    """Judges egress rules by the DNS of a TrustDomain."""

    def __init__(self, world: World, domain: Domain) -> None:
        self._world, self._domain = world, domain

    @property
    def _dns(self) -> Dns:
        return self._domain.spec.dns if self._domain.given else self._domain.dns or Dns()

    def propose(self, rules: Mapping[Workload, Sequence[OldRule]]) -> None:
        """Narrow the DNS of a proposal down to what everybody who may resolve names at all may use."""
        if self._domain.given:
            return
        default, ports, cidrs = Dns(), set[PortOf](), set(Dns().cidrs)
        for its in rules.values():
            mine = {one for one in map(_port, default.ports) if self._has_pods(its, default, one)}
            ports = ports & mine if ports and mine else ports | mine
        for its in rules.values():
            mine = {one for one in map(_port, default.ports) if self._has_pods(its, default, one)}
            if mine:
                cidrs = {one for one in cidrs if all(_has_cidr(its, one, port) for port in ports)}
        if ports:
            kept = [port for port in default.ports if _port(port) in ports]
            changed: dict[str, Any] = {"ports": kept} if len(kept) < len(default.ports) else {}
            self._domain.dns = Dns(**changed) if cidrs else Dns(**changed, cidrs=[])

    def missing(self, rules: Sequence[OldRule]) -> str:
        """What of the DNS these rules do not allow, empty when they allow all."""
        dns = self._dns
        for port in map(_port, dns.ports):
            if not self._has_pods(rules, dns, port):
                return f"the DNS pods on {port.port}/{port.protocol}"
            for cidr in dns.cidrs:
                if not _has_cidr(rules, cidr, port):
                    return f"{cidr} on {port.port}/{port.protocol}"
        return ""

    def _has_pods(self, rules: Iterable[OldRule], dns: Dns, port: PortOf) -> bool:
        servers = PodSet(selector_of(dns.namespace_selector), selector_of(dns.pod_selector))
        allowed: list[PodSet] = []
        for rule in _with_port(rules, port):
            if rule.peers is None:
                return True
            allowed += [peer.pods for peer in rule.peers if peer.pods is not None]
        return covers(self._world, servers, allowed)


def _port(port: Port) -> PortOf:
    return PortOf(port.port, port.protocol)


def _with_port(rules: Iterable[OldRule], port: PortOf) -> Iterable[OldRule]:
    """The rules that certainly hold for a port, whatever pods call it."""
    for rule in rules:
        if rule.ports is None or any(
            not isinstance(one.port, str)
            and one.protocol == port.protocol
            and (one.port is None or one.port <= port.port <= (one.end_port or one.port))
            for one in rule.ports
        ):
            yield rule


def _has_cidr(rules: Iterable[OldRule], cidr: str, port: PortOf) -> bool:
    wanted = ip_network(cidr, strict=False)
    for rule in _with_port(rules, port):
        if rule.peers is None:
            return True
        for peer in rule.peers:
            if peer.pods is not None:
                continue
            try:
                parts = [ip_network(one) for one in ranges(peer.cidr, peer.without)]
            except ValueError:
                continue
            if any(one.version == wanted.version and one.supernet_of(wanted) for one in parts):  # type: ignore[arg-type]
                return True
    return False
