"""Who is let in: ingress rules as TrustPolicies with the same meaning at layer 4."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from zerotrust.common.naming import Ref
from zerotrust.importing.drafts import IMPORTED_FROM, Drafts, manifest
from zerotrust.importing.objects import ANYWHERE, World
from zerotrust.importing.original import OldPeer, OldPolicy, OldRule, Original
from zerotrust.importing.ports import BY_HAND, numbers
from zerotrust.importing.ranges import ranges
from zerotrust.importing.report import Made, Report
from zerotrust.importing.selection import can_be_said, identities, select, selection
from zerotrust.policy.directory import Workload
from zerotrust.policy.network import PortOf
from zerotrust.policy.peers import MAX_DESTINATIONS, MAX_PEERS
from zerotrust.policy.podset import PodSet
from zerotrust.policy.resource import MAX_RULES

MAX_TARGETS = 64
OUTSIDE = "write a rule with the cidr from which your load balancers, nodes or callers connect"
WHOLE = "give its pods a ServiceAccount of their own, or select all pods of the ServiceAccount"

Rules = list[dict[str, Any]]


@dataclass
class Incoming:
    """Translates the ingress of NetworkPolicies.

    `closed` are the ServiceAccounts whose egress will be isolated. A rule that names one of them as a workload opens its way out
    as well, so it does that only where the way out was open on these ports; one of `unnamed` it never names. `named` are the
    ports on which servers name clients.
    """

    world: World
    original: Original
    drafts: Drafts
    closed: frozenset[Workload]
    unnamed: frozenset[Workload]
    report: Report
    named: dict[tuple[Workload, Workload], set[PortOf]] = field(default_factory=dict)
    _taken: set[tuple[str, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        for _, ref, body in self.world.others.get("TrustPolicy", ()):
            if IMPORTED_FROM not in (body["metadata"].get("annotations") or {}):
                self._taken.add((ref.namespace, ref.name))

    def translate(self, policies: Iterable[OldPolicy]) -> list[Made]:
        """Return the TrustPolicies."""
        return [made for policy in policies if "Ingress" in policy.rules for made in self._policy(policy)]

    def _policy(self, policy: OldPolicy) -> list[Made]:
        everything = [rule for rule in policy.rules["Ingress"] if rule.is_everything]
        for rule in everything:
            self.report.leave(
                policy.ref,
                rule.path,
                "everybody may connect to every port, so there is nothing to protect",
                "name who may connect; or keep it, or delete it where no other policy closes the same pods",
            )
        if everything:
            return []
        targets = self._targets(policy)
        if not targets and not policy.is_about_all:
            return []
        by_rules: dict[str, list[Workload]] = {}
        written = {target: self._rules(policy, target, targets) for target in targets}
        for target, rules in written.items():
            by_rules.setdefault(json.dumps(rules), []).append(target)
        if policy.is_about_all and len(by_rules) <= 1:
            rules = next(iter(written.values()), [])
            return [self._made(policy, policy.ref.name, {"all": True}, rules)]
        made = []
        for text, group in by_rules.items():
            for start in range(0, len(group), MAX_TARGETS):
                some = group[start : start + MAX_TARGETS]
                alone = len(by_rules) == 1 and len(group) <= MAX_TARGETS
                name = policy.ref.name if alone else f"{policy.ref.name}-{some[0].name}"
                chosen = {"identities": [self.drafts.of(one).name for one in some]}
                made.append(self._made(policy, name, chosen, json.loads(text)))
        return made

    def _targets(self, policy: OldPolicy) -> tuple[Workload, ...]:
        selected = select(self.world, policy.pods)
        for _, reason in selected.unclear:
            self.report.leave(policy.ref, "spec.podSelector", reason, WHOLE, opens=True)
        if not selected.whole and not selected.unclear and not policy.is_about_all:
            why = "selects no pod that was read"
            self.report.leave(policy.ref, "spec.podSelector", why, "add what makes its pods, or delete it", opens=True)
        for one in selected.whole:
            self.drafts.of(one, policy.ref)
        return selected.whole

    def _made(self, policy: OldPolicy, name: str, target: dict[str, Any], rules: Rules) -> Made:
        while (policy.ref.namespace, name) in self._taken:
            name += "-imported"
        self._taken.add((policy.ref.namespace, name))
        if len(rules) > MAX_RULES:
            why = f"its rules come to {len(rules)}, and a TrustPolicy has at most {MAX_RULES}"
            self.report.leave(policy.ref, "spec.ingress", why, "divide it")
            rules = rules[:MAX_RULES]
        spec = {"target": target, "layers": ["NetworkPolicy"], "rules": rules}
        return Made(manifest(Ref("TrustPolicy", policy.ref.namespace, name), spec, [policy.ref]), (policy.ref,))

    def _rules(self, policy: OldPolicy, target: Workload, targets: Sequence[Workload]) -> Rules:
        found: Rules = []
        for number, rule in enumerate(policy.rules["Ingress"]):
            ports = self._ports(policy, rule, target)
            peers = self._peers(policy, rule, targets) if ports else []
            if peers:
                found += _chunks(f"ingress-{number}", peers, sorted(ports))
        return found

    def _ports(self, policy: OldPolicy, rule: OldRule, target: Workload) -> frozenset[PortOf]:
        found = numbers(rule, self.world.pods_of(target))
        for path, why in found.problems:
            self.report.leave(policy.ref, path, f"{why} ({target})", BY_HAND)
        return found.ports

    def _peers(self, policy: OldPolicy, rule: OldRule, targets: Sequence[Workload]) -> Rules:
        place = policy.ref.namespace
        if rule.peers is None:
            why = "everybody may connect, also from outside the cluster, which a TrustPolicy refuses to say"
            self.report.leave(policy.ref, f"{rule.path}.from", why, OUTSIDE)
            return [{"pods": selection(PodSet(ANYWHERE, ()), place)}]
        found: Rules = []
        for peer in rule.peers:
            if peer.pods is None:
                found += [{"cidr": one} for one in self._ranges(policy, peer)]
            elif named := self._workloads(rule, peer.pods, targets):
                found += [{"workload": self.drafts.of(one, policy.ref).reference} for one in named]
            elif problem := can_be_said(peer.pods, place):
                self.report.leave(policy.ref, peer.path, problem, "name the workloads that are meant")
            else:
                found.append({"pods": selection(peer.pods, place)})
        return [one for number, one in enumerate(found) if one not in found[:number]]

    def _ranges(self, policy: OldPolicy, peer: OldPeer) -> list[str]:
        path = f"{peer.path}.ipBlock"
        try:
            found = ranges(peer.cidr, peer.without)
        except ValueError as error:
            self.report.leave(policy.ref, path, f"{peer.cidr} {error}", OUTSIDE)
            return []
        if any(one.endswith("/0") for one in found):
            self.report.leave(policy.ref, path, "every address, which a TrustPolicy refuses to say", OUTSIDE)
            return []
        if peer.without:
            self.report.note(policy.ref, path, f"written without except, as {len(found)} ranges")
        return found

    def _workloads(self, rule: OldRule, pods: PodSet, targets: Sequence[Workload]) -> tuple[Workload, ...]:
        """The clients by name, where that means the same; remembers on which ports."""
        clients = identities(self.world, pods) or ()
        pairs = [(client, target) for client in clients for target in targets]
        ports = {target: numbers(rule, self.world.pods_of(target)).ports for target in targets}
        if not all(self._is_let_out(client, target, ports[target]) for client, target in pairs):
            return ()
        for client, target in pairs:
            self.named.setdefault((client, target), set()).update(ports[target])
        return clients

    def _is_let_out(self, client: Workload, target: Workload, ports: Iterable[PortOf]) -> bool:
        if client in self.unnamed or client not in self.closed:
            return client not in self.unnamed
        clients, servers = self.world.pods_of(client), self.world.pods_of(target)
        return all(self.original.lets_out(clients, servers, port) for port in ports)


def _chunks(name: str, peers: Rules, ports: Sequence[PortOf]) -> Rules:
    """The same in as many rules as are needed."""
    parts = [
        (peers[first : first + MAX_PEERS], ports[start : start + MAX_DESTINATIONS])
        for first in range(0, len(peers), MAX_PEERS)
        for start in range(0, len(ports), MAX_DESTINATIONS)
    ]
    return [
        {
            "name": name if len(parts) == 1 else f"{name}-{number}",
            "from": some,
            "to": [_destination(port) for port in few],
        }
        for number, (some, few) in enumerate(parts)
    ]


def _destination(port: PortOf) -> dict[str, Any]:
    return {"port": port.port} if port.protocol == "TCP" else {"port": port.port, "protocol": port.protocol}
