"""The controller for ServiceIdentities: from the cache to pure decisions."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from zerotrust.common import naming
from zerotrust.common.naming import Ref
from zerotrust.common.observed import NetworkPolicy
from zerotrust.common.plan import Plan
from zerotrust.engine.admission import AdmissionBook
from zerotrust.engine.cache import Cache, Change
from zerotrust.engine.controller import Failure, Touched
from zerotrust.engine.cutoffs import CutoffMemory, changed_ids
from zerotrust.engine.policybook import BY_ACCOUNT
from zerotrust.engine.trustdomains import BY_NAMESPACE, Domain, Identity, TrustDomains, brought_secret, same_generation
from zerotrust.gatekeeper.templates import TEMPLATES
from zerotrust.identity import reconcile
from zerotrust.identity.snapshot import Failure as ToldFailure
from zerotrust.identity.snapshot import IdentitySnapshot, secret_name, service_account
from zerotrust.pki.secret import ObservedSecret
from zerotrust.pki.spiffe import SpiffeID
from zerotrust.policy.directory import Workload
from zerotrust.trustdomain.authority import Entropy, Signer
from zerotrust.trustdomain.resource import TrustDomainSpec

BY_SECRET = "identities-by-secret"  # noqa: S105 - a name of an index
ISOLATION = timedelta(seconds=5)  # so that a wave of policies is not also a wave of statuses at the same time
PODS = timedelta(seconds=5)  # a rollout is many changes of pods
SVIDS = "svid-secrets-by-identity"


class IdentityController:
    """Keeps each ServiceIdentity's Secret and status."""

    name = "ServiceIdentity"

    def __init__(
        self,
        cache: Cache,
        domains: TrustDomains,
        signer: Signer,
        entropy: Entropy,
        admission: AdmissionBook | None = None,
    ) -> None:
        self._cache, self._domains, self._signer, self._entropy = cache, domains, signer, entropy
        self._admission = admission
        self._cutoffs = CutoffMemory(cache, domains.operator_namespace)
        cache.index(BY_ACCOUNT, "ServiceIdentity", lambda one: [(one.meta.namespace, service_account(one))])
        cache.index(BY_SECRET, "ServiceIdentity", lambda one: [(one.meta.namespace, secret_name(one))])
        cache.index(SVIDS, "Secret", _identity_of)

    def touched_by(self, change: Change) -> Iterable[Touched]:
        """Which identities a change makes due."""
        match change.ref.kind:
            case "ServiceIdentity":
                yield Touched(change.ref)
                if not same_generation(change):
                    yield from self._rivals(change)
            case "Secret":
                yield from self._of_secret(change)
            case "ServiceAccount":
                if change.old is None or change.new is None:
                    found = self._cache.find(BY_ACCOUNT, (change.ref.namespace, change.ref.name))
                    yield from (Touched(one.meta.ref) for one in found)
            case "NetworkPolicy" if change.ref.name.startswith(naming.NETWORK_POLICY_PREFIX):
                if _closed(change.old) != _closed(change.new):
                    name = change.ref.name.removeprefix(naming.NETWORK_POLICY_PREFIX)
                    yield Touched(Ref("ServiceIdentity", change.ref.namespace, name), ISOLATION)
            case "ConfigMap" if change.ref == self._cutoffs.ref:
                for spiffe_id in changed_ids(change):
                    yield from self._of_id(spiffe_id)
            case "TrustDomain":
                if not same_generation(change):
                    yield from self._of_domain(change.ref.name)
            case "Pod" if self._admission is not None:
                yield from (Touched(ref, PODS) for ref in self._admission.pods.concerned(change))
            case kind if kind in TEMPLATES and self._admission is not None:
                yield from (Touched(Ref("ServiceIdentity", *place), PODS) for place in self._admission.accused(change))
            case "Namespace":
                if change.old is None or change.new is None or change.old.meta.labels != change.new.meta.labels:
                    yield from (Touched(one.meta.ref) for one in self._cache.find(BY_NAMESPACE, change.ref.name))

    def _rivals(self, change: Change) -> Iterable[Touched]:
        """Identities that claim, or claimed, the same ServiceAccount or Secret."""
        for one in (change.old, change.new):
            if one is None:
                continue
            namespace = one.meta.namespace
            rivals = [
                *self._cache.find(BY_ACCOUNT, (namespace, service_account(one))),
                *self._cache.find(BY_SECRET, (namespace, secret_name(one))),
            ]
            yield from (Touched(rival.meta.ref) for rival in rivals if rival.meta.ref != change.ref)

    def _of_secret(self, change: Change) -> Iterable[Touched]:
        seen: ObservedSecret = change.new or change.old
        component = seen.meta.labels.get(naming.COMPONENT)
        if component in (naming.COMPONENT_AUTHORITY_RECORD, naming.COMPONENT_AUTHORITY):
            if change.ref.namespace == self._domains.operator_namespace:
                yield from self._of_domain(seen.meta.annotations.get(naming.TRUST_DOMAIN, ""))
            return
        if change.ref.namespace == self._domains.operator_namespace:
            for domain in self._domains.all():
                if brought_secret(domain) == change.ref.name:
                    yield from self._of_domain(domain.meta.name)
        refs = {one.meta.ref for one in self._cache.find(BY_SECRET, (change.ref.namespace, change.ref.name))}
        for one in (change.old, change.new):
            if one is not None:
                refs |= {Ref("ServiceIdentity", *place) for place in _identity_of(one)}
        yield from (Touched(ref) for ref in refs)

    def _of_id(self, name: SpiffeID) -> Iterable[Touched]:
        """Identities that may have this ID: the end of its path is their place."""
        match name.path.split("/"):
            case [*_, "ns", namespace, "sa", account]:
                yield from (Touched(one.meta.ref) for one in self._cache.find(BY_ACCOUNT, (namespace, account)))

    def _of_domain(self, name: str) -> Iterable[Touched]:
        """Identities that name the trust domain, or none at all: the default may have moved."""
        for key in {name, ""}:
            yield from (Touched(one.meta.ref) for one in self._cache.find("identities-by-trust-domain", key))

    def snapshot(self, ref: Ref) -> IdentitySnapshot | None:
        """Collect what a decision needs."""
        identity: Identity | None = self._cache.get(ref)
        if identity is None:
            return None
        account, secret = service_account(identity), secret_name(identity)
        domain = self._domains.of(identity)
        mine = self._cache.find(SVIDS, (ref.namespace, ref.name))
        return IdentitySnapshot(
            resource=identity,
            namespace=self._cache.get(Ref("Namespace", "", ref.namespace)),
            service_account_exists=self._cache.get(Ref("ServiceAccount", ref.namespace, account)) is not None,
            trust_domain=self._domains.view(domain) if domain is not None and not domain.meta.deleting else None,
            secret=self._cache.get(Ref("Secret", ref.namespace, secret)),
            stale_secrets=tuple(
                one
                for one in mine
                if one.meta.name != secret and any(owner.get("uid") == identity.meta.uid for owner in one.meta.owners)
            ),
            elder=self._elder(identity, BY_ACCOUNT, account),
            isolated=_closed(
                self._cache.get(Ref("NetworkPolicy", ref.namespace, naming.network_policy_name(ref.name)))
            ),
            secret_elder=self._elder(identity, BY_SECRET, secret),
            remembered_cutoff=self._remembered(domain, ref.namespace, account),
            pods=self._admission.match(Workload(ref.namespace, ref.name), account) if self._admission else None,
            violations=self._admission.violations(Workload(ref.namespace, ref.name)) if self._admission else (),
        )

    def _remembered(self, domain: Domain | None, namespace: str, account: str) -> datetime | None:
        if domain is None or not isinstance(domain.spec, TrustDomainSpec):
            return None
        name = SpiffeID.of_service_account(domain.meta.name, namespace, account, domain.spec.cluster_name)
        return self._cutoffs.before(name)

    def _elder(self, identity: Identity, index: str, name: str) -> str | None:
        """The identity with the better claim: the older one, then the one with the lower uid."""
        rivals = [one for one in self._cache.find(index, (identity.meta.namespace, name)) if not one.meta.deleting]
        if len(rivals) < 2:
            return None
        first = min(rivals, key=lambda one: one.meta.seniority)
        return None if first.meta.ref == identity.meta.ref else str(first.meta.name)

    def is_slow(self, snapshot: IdentitySnapshot) -> bool:
        """RSA keys take long to make."""
        return reconcile.key_is_slow(snapshot)

    def reconcile(self, snapshot: IdentitySnapshot, now: datetime) -> Plan:
        """Decide; pure."""
        return reconcile.reconcile(snapshot, now, self._signer, self._entropy)

    def failed(self, snapshot: IdentitySnapshot, failure: Failure, now: datetime) -> Plan:
        """Tell in the status that writing does not succeed."""
        told = ToldFailure(failure.message, failure.attempts, failure.next_attempt)
        return reconcile.failed(snapshot, told, now)

    def priority(self, ref: Ref) -> float:
        """What has no certificate comes first, then what expires first (seconds since 1970)."""
        identity = self._cache.get(ref)
        if identity is None:
            return 0.0
        secret = self._cache.get(Ref("Secret", ref.namespace, secret_name(identity)))
        if not isinstance(secret, ObservedSecret) or secret.certificate is None:
            return 0.0
        return secret.certificate.not_after.timestamp()


def _identity_of(secret: ObservedSecret) -> list[tuple[str, str]]:
    name = secret.meta.labels.get(naming.IDENTITY)
    return [(secret.meta.namespace, name)] if name else []


def _closed(policy: NetworkPolicy | None) -> tuple[str, ...]:
    """The directions that an identity's network policy closes; one of somebody else does not count."""
    if policy is None or policy.meta.labels.get(naming.COMPONENT) != naming.COMPONENT_NETWORK_POLICY:
        return ()
    return tuple(policy.spec.get("policyTypes") or ())
