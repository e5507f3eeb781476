"""Who is let out: egress rules as `spec.egress` of ServiceIdentities."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any

from zerotrust.importing.domain import Domain
from zerotrust.importing.drafts import Drafts
from zerotrust.importing.incoming import WHOLE
from zerotrust.importing.objects import ANYWHERE, World
from zerotrust.importing.original import OldPeer, OldPolicy, OldRule, Original
from zerotrust.importing.ports import BY_HAND, numbers
from zerotrust.importing.ranges import ranges
from zerotrust.importing.report import Report
from zerotrust.importing.resolvers import Resolvers
from zerotrust.importing.selection import can_be_said, identities, select, selection
from zerotrust.policy.directory import Workload
from zerotrust.policy.network import PortOf
from zerotrust.policy.podset import PodSet

MAX_ALLOW, MAX_PORTS, MAX_CALLS = 64, 16, 64
EVERY_ADDRESS = ("0.0.0.0/0", "::/0")

Peers = dict[PodSet | str, set[PortOf]]


@dataclass
class Outgoing:
    """Translates the egress of NetworkPolicies.

    `closed` are the ServiceAccounts whose egress will be isolated, with the policies that close it; `open` those whose egress a
    policy closes and opens again altogether.
    """

    world: World
    original: Original
    drafts: Drafts
    domain: Domain
    report: Report
    closed: dict[Workload, list[OldPolicy]] = field(default_factory=dict)
    open: set[Workload] = field(default_factory=set)

    def decide(self, policies: Iterable[OldPolicy]) -> None:
        """Find out whose egress can be isolated with nothing opened, and where names are resolved then."""
        closing: dict[Workload, list[OldPolicy]] = {}
        for policy in policies:
            if "Egress" in policy.rules:
                selected = select(self.world, policy.pods)
                for _, reason in selected.unclear:
                    self.report.leave(policy.ref, "spec.podSelector", reason, WHOLE, opens=True)
                if not selected.whole and not selected.unclear and not policy.is_about_all:
                    why = "selects no pod that was read"
                    instead = "add what makes its pods, or delete it"
                    self.report.leave(policy.ref, "spec.podSelector", why, instead, opens=True)
                for one in selected.whole:
                    closing.setdefault(one, []).append(policy)
        for one, its in closing.items():
            self.drafts.of(one, *(policy.ref for policy in its))
        self.open = {one for one, its in closing.items() if any(rule.is_everything for rule in _rules(its))}
        rest = {one: its for one, its in closing.items() if one not in self.open}
        resolvers = Resolvers(self.world, self.domain)
        resolvers.propose({one: list(_rules(its)) for one, its in rest.items()})
        for one, its in rest.items():
            missing = resolvers.missing(list(_rules(its)))
            if not missing:
                self.closed[one] = its
            for policy in its if missing else ():
                why = f"isolated egress always resolves names, and {one} may not reach {missing}"
                instead = "allow that for all of its pods, or correct spec.dns of the TrustDomain; then import again"
                self.report.leave(policy.ref, "spec.egress", why, instead, opens=True)

    def write(self, named: Mapping[tuple[Workload, Workload], set[PortOf]]) -> None:
        """Write the egress of every draft; `named` are the ports on which servers name their clients."""
        for one, its in sorted(self.closed.items()):
            found: Peers = {}
            calls: set[Workload] = set()
            for policy in its:
                for rule in policy.rules["Egress"]:
                    self._rule(one, policy, rule, named, found, calls)
            self._write(one, its, found, calls)
        for one, draft in self.drafts.by_owner.items():
            if one not in self.closed and self.domain.closes_egress:
                draft.spec["egress"] = {"mode": "Open"}

    def judge(self) -> None:
        """An opening is needed for as long as another policy that closes the same pods is kept."""
        kept = {one.ref for one in self.report.left}
        for owner in sorted(self.open):
            mine = {one.ref: one for pod in self.world.pods_of(owner) for one in self.original.isolating("Egress", pod)}
            for ref, policy in mine.items() if kept & mine.keys() else ():
                if ref in kept:
                    continue
                for rule in policy.rules["Egress"]:
                    if rule.is_everything:
                        why = f"opens again what {', '.join(map(str, sorted(kept & mine.keys())))} closes for {owner}"
                        self.report.leave(ref, rule.path, why, "correct that one first, then import again")

    def _rule(
        self,
        client: Workload,
        policy: OldPolicy,
        rule: OldRule,
        named: Mapping[tuple[Workload, Workload], set[PortOf]],
        found: Peers,
        calls: set[Workload],
    ) -> None:
        everybody = (
            OldPeer(f"{rule.path}.to", PodSet(ANYWHERE, ())),
            *(OldPeer(rule.path, None, one) for one in EVERY_ADDRESS),
        )
        for peer in rule.peers or everybody:
            ports = self._ports(policy, rule, peer)
            if peer.pods is None:
                for cidr in self._ranges(policy, peer) if ports else ():
                    found.setdefault(cidr, set()).update(ports)
                continue
            servers = identities(self.world, peer.pods)
            if servers and all(self._is_named(client, server, ports, named) for server in servers):
                calls.update(servers)
            elif problem := can_be_said(peer.pods, client.namespace):
                self.report.leave(policy.ref, peer.path, problem, "name the pods that are meant in spec.egress.allow")
            elif ports:
                found.setdefault(peer.pods, set()).update(ports)

    def _ports(self, policy: OldPolicy, rule: OldRule, peer: OldPeer) -> frozenset[PortOf]:
        servers = self.world.matching(peer.pods) if peer.pods is not None else []
        answer = numbers(rule, servers)
        ports, problems = answer.ports, list(answer.problems)
        by_name = any(isinstance(entry.port, str) for entry in rule.ports or ())
        if by_name and peer.pods is not None and not self.world.knows_all_of(peer.pods):
            numbered = OldRule(
                rule.path,
                rule.side,
                rule.peers,
                tuple(one for one in rule.ports or () if not isinstance(one.port, str)),
            )
            ports = numbers(numbered, servers).ports if numbered.ports else frozenset()
            problems.append((f"{rule.path}.ports", "a name of a port, of pods that were not all read"))
        for path, why in problems:
            self.report.leave(policy.ref, path, f"{why} (towards {peer.path.rpartition('.')[2]})", BY_HAND)
        return ports

    def _ranges(self, policy: OldPolicy, peer: OldPeer) -> list[str]:
        try:
            return ranges(peer.cidr, peer.without)
        except ValueError as error:
            instead = "write the ranges into spec.egress.allow"
            self.report.leave(policy.ref, f"{peer.path}.ipBlock", f"{peer.cidr} {error}", instead)
            return []

    def _is_named(
        self,
        client: Workload,
        server: Workload,
        ports: Iterable[PortOf],
        named: Mapping[tuple[Workload, Workload], set[PortOf]],
    ) -> bool:
        """Whether the server's policies open all that both sides allow, as those of a workload."""
        known = named.get((client, server))
        if not known:
            return False
        clients, servers = self.world.pods_of(client), self.world.pods_of(server)
        if not all(self.original.isolating("Ingress", pod) for pod in servers):
            return False
        both = {port for port in ports if any(self.original.lets_in(a, b, port) for a in clients for b in servers)}
        return both <= known

    def _write(self, client: Workload, policies: Sequence[OldPolicy], found: Peers, calls: set[Workload]) -> None:
        egress: dict[str, Any] = {"mode": "Isolated"}
        abroad = sorted(one for one in calls if one.namespace != client.namespace)
        if abroad:
            egress["calls"] = [self.drafts.of(one).reference for one in abroad[:MAX_CALLS]]
        allow = [
            {**_peer(peer, client.namespace), "ports": [_port(one) for one in some]}
            for peer, ports in sorted(found.items(), key=repr)
            for some in _chunks(sorted(ports))
        ]
        if allow:
            egress["allow"] = allow[:MAX_ALLOW]
        if len(allow) > MAX_ALLOW or len(abroad) > MAX_CALLS:
            for policy in policies:
                why = f"{client} has more destinations than spec.egress holds"
                self.report.leave(policy.ref, "spec.egress", why, "join some of them into wider ones")
        self.drafts.of(client).spec["egress"] = egress


def _rules(policies: Iterable[OldPolicy]) -> Iterable[OldRule]:
    return (rule for policy in policies for rule in policy.rules["Egress"])


def _peer(peer: PodSet | str, own: str) -> dict[str, Any]:
    return {"pods": selection(peer, own)} if isinstance(peer, PodSet) else {"cidr": str(ip_network(peer))}


def _port(port: PortOf) -> dict[str, Any]:
    return {"port": port.port} if port.protocol == "TCP" else {"port": port.port, "protocol": port.protocol}


def _chunks(ports: Sequence[PortOf]) -> Iterable[Sequence[PortOf]]:
    return (ports[start : start + MAX_PORTS] for start in range(0, len(ports), MAX_PORTS))
