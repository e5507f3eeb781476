"""The TrustDomain of what is imported: the one that is there, which stays as it is, or a proposal."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from zerotrust.common import durations, naming
from zerotrust.common.naming import Ref
from zerotrust.common.resource import parse
from zerotrust.importing.drafts import manifest
from zerotrust.importing.objects import World
from zerotrust.importing.report import Made
from zerotrust.pki.keys import KeyAlgorithm
from zerotrust.policy.podset import NAMESPACE_NAME
from zerotrust.trustdomain.resource import Dns, IdentityDefaults, TrustDomainSpec

MAX_NAMES = 16  # values of one expression of a selector
AUTHORITY_TIMES = 6  # an authority lives at least so much longer than the longest certificate


@dataclass
class Domain:
    """What identities get by default, and which namespaces are closed; a proposal grows while the rest is imported."""

    name: str
    spec: TrustDomainSpec
    given: bool
    operator_namespace: str
    isolated: set[str] = field(default_factory=set)
    egress_isolated: bool = False
    key_algorithms: list[KeyAlgorithm] = field(default_factory=lambda: ["ECDSA-P256"])
    max_duration: timedelta = IdentityDefaults().max_duration
    dns: Dns | None = None
    sources: set[Ref] = field(default_factory=set)

    @property
    def ref(self) -> Ref:
        """Its place."""
        return Ref("TrustDomain", "", self.name)

    @property
    def must_be_named(self) -> bool:
        """Whether identities name it, because it is not the default."""
        return self.given and not self.spec.default

    def may_isolate(self, world: World, namespace: str) -> bool:
        """Whether a TrustDomain closes a namespace at all."""
        exempt = namespace.startswith("kube-") or namespace == self.operator_namespace
        return not exempt and naming.EXEMPT not in world.labels(namespace)

    def isolates(self, world: World, namespace: str) -> bool:
        """Whether pods of a namespace are closed whether they have an identity or not."""
        if not self.may_isolate(world, namespace):
            return False
        if not self.given:
            return namespace in self.isolated
        isolation = self.spec.isolation
        chosen = isolation.selector is not None and isolation.selector.matches(world.labels(namespace))
        return isolation.mode == "All" or (isolation.mode == "Selected" and chosen)

    @property
    def closes_egress(self) -> bool:
        """Whether egress is closed by default, in isolated namespaces and for identities."""
        return self.spec.identities.egress == "Isolated" if self.given else self.egress_isolated

    def made(self) -> Made:
        """The proposal."""
        spec: dict[str, Any] = {"default": True}
        identities: dict[str, Any] = {}
        if self.max_duration > IdentityDefaults().max_duration:
            identities["maxDuration"] = durations.render(self.max_duration)
            spec["certificateAuthority"] = {"duration": durations.render(self.max_duration * AUTHORITY_TIMES)}
        if self.key_algorithms != IdentityDefaults().key_algorithms:
            identities["keyAlgorithms"] = list(self.key_algorithms)
        if self.egress_isolated:
            identities["egress"] = "Isolated"
        if identities:
            spec["identities"] = identities
        if self.isolated:
            names = {"key": NAMESPACE_NAME, "operator": "In", "values": sorted(self.isolated)}
            spec["isolation"] = {"mode": "Selected", "selector": {"matchExpressions": [names]}}
        if self.dns is not None and self.dns != Dns():
            spec["dns"] = self.dns.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_unset=True)
        name = f"A proposal. The name {self.name} is part of every SPIFFE ID and cannot be changed later"
        comments = [f"{name}: choose it with --trust-domain."]
        if "dns" in spec:
            comments.append("spec.dns opens no more than the old NetworkPolicies did.")
        return Made(manifest(self.ref, spec, self.sources), tuple(sorted(self.sources)), tuple(comments))


def read_domain(world: World, name: str | None, operator_namespace: str) -> Domain:
    """The TrustDomain of that name, or the default one, or else a proposal; SpecError names a field that cannot be read."""
    found = {
        ref.name: parse(TrustDomainSpec, body.get("spec") or {}, f"{ref}: spec")
        for _, ref, body in world.others.get("TrustDomain", ())
    }
    chosen = name or next((one for one, spec in found.items() if spec.default), next(iter(found), None))
    if chosen in found:
        return Domain(chosen, found[chosen], given=True, operator_namespace=operator_namespace)
    return Domain(chosen or "cluster.local", TrustDomainSpec(), given=False, operator_namespace=operator_namespace)
