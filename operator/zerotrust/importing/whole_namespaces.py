"""NetworkPolicies for every pod of a namespace: pods without an identity are closed by the TrustDomain's isolation."""

from collections.abc import Iterable, Sequence

from zerotrust.importing.domain import MAX_NAMES, Domain
from zerotrust.importing.objects import World
from zerotrust.importing.original import OldPolicy
from zerotrust.importing.report import Report
from zerotrust.importing.resolvers import Resolvers
from zerotrust.policy.network import Direction


class WholeNamespaces:
    """Decides which namespaces a proposed TrustDomain isolates, and says what is left over."""

    def __init__(self, world: World, domain: Domain, policies: Iterable[OldPolicy], report: Report) -> None:
        self._world, self._domain, self._report = world, domain, report
        self._policies = [one for one in policies if one.is_about_all]
        self._resolvers = Resolvers(world, domain)

    def propose(self) -> None:
        """Fill in the isolation of a proposal."""
        if self._domain.given:
            return
        places = sorted({one.ref.namespace for one in self._about("Ingress")})
        allowed = [name for name in places if self._domain.may_isolate(self._world, name)][:MAX_NAMES]
        self._domain.isolated = set(allowed)
        out = {name for name in {one.ref.namespace for one in self._about("Egress")} if self._resolves(name)}
        self._domain.egress_isolated = bool(allowed) and out >= set(allowed)
        self._domain.sources |= {one.ref for one in self._about("Ingress") if one.ref.namespace in allowed}

    def judge(self) -> None:
        """Report what nothing closes for pods without an identity, and what is closed more for them."""
        for policy in self._policies:
            if any(policy.rules.values()):
                text = "its rules are for identities; pods to come without one are closed altogether, but for DNS"
                self._report.note(policy.ref, "spec.podSelector", text)
        for policy in self._about("Ingress"):
            if not self._domain.isolates(self._world, policy.ref.namespace):
                self._leave(policy)
        for policy in self._about("Egress"):
            place = policy.ref.namespace
            closed = self._domain.isolates(self._world, place) and self._domain.closes_egress
            if not closed or not self._resolves(place):
                self._leave(policy)

    def _about(self, direction: Direction) -> Sequence[OldPolicy]:
        """Those that close a direction for a whole namespace, and that none opens again altogether."""
        mine = [one for one in self._policies if direction in one.rules]
        open_again = {one.ref.namespace for one in mine if any(rule.is_everything for rule in one.rules[direction])}
        return [one for one in mine if one.ref.namespace not in open_again]

    def _resolves(self, namespace: str) -> bool:
        rules = [
            rule for one in self._about("Egress") if one.ref.namespace == namespace for rule in one.rules["Egress"]
        ]
        return not self._resolvers.missing(rules)

    def _leave(self, policy: OldPolicy) -> None:
        place = policy.ref.namespace
        if self._domain.may_isolate(self._world, place):
            why = (
                f"also closes pods without an identity, for which {self._domain.ref} does not isolate {place} that way"
            )
            instead = "select the namespace in its spec.isolation; for egress set identities.egress: Isolated as well"
        else:
            why, instead = f"also closes pods without an identity, and {place} is never isolated as a whole", "keep it"
        self._report.leave(policy.ref, "spec.podSelector", why, instead, opens=True)
