"""Controllers for TrustDomains and for the trust bundle in each namespace: from the cache to pure decisions."""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta

from zerotrust.common import naming
from zerotrust.common.errors import SpecError
from zerotrust.common.naming import Ref
from zerotrust.common.observed import CustomResource, Plain
from zerotrust.common.plan import Plan
from zerotrust.engine.cache import Cache, Change
from zerotrust.engine.controller import Failure, Statusless, Touched
from zerotrust.identity.resource import ServiceIdentitySpec
from zerotrust.identity.snapshot import TrustDomainView
from zerotrust.pki.keys import is_slow
from zerotrust.pki.secret import RECORD, ObservedSecret
from zerotrust.pki.x509 import subject_key_id
from zerotrust.trustdomain import distribution, reconcile
from zerotrust.trustdomain.authority import Entropy, Record, RecordUnreadable
from zerotrust.trustdomain.distribution import BundleSnapshot
from zerotrust.trustdomain.providers import ProviderKeys
from zerotrust.trustdomain.reconcile import BundleTargets, TrustDomainSnapshot
from zerotrust.trustdomain.resource import TrustDomainSpec

SOON = timedelta(seconds=1)
COUNTS = timedelta(seconds=5)

BY_TRUST_DOMAIN = "identities-by-trust-domain"
BY_NAMESPACE = "identities-by-namespace"
BY_PLACE = "identities-by-namespace-and-trust-domain"
READY = "ready-identities-by-trust-domain"
AUTHORITIES = "authority-secrets-by-trust-domain"
BUNDLES = "trust-bundles-by-trust-domain"
LEAVES = "svid-secrets-by-issuer-key-id"

Domain = CustomResource[TrustDomainSpec]
Identity = CustomResource[ServiceIdentitySpec]


class TrustDomains:
    """Reads TrustDomains, their authorities and who belongs to them out of the cache."""

    def __init__(self, cache: Cache, operator_namespace: str, watches: Callable[[str], bool] = lambda _: True) -> None:
        """`watches` tells whether what is in a namespace is known."""
        self._cache, self.watches = cache, watches
        self.operator_namespace = operator_namespace
        self._views: dict[str, tuple[tuple[str, str], TrustDomainView]] = {}
        cache.index(BY_TRUST_DOMAIN, "ServiceIdentity", lambda one: [named_trust_domain(one)])
        cache.index(READY, "ServiceIdentity", lambda one: [named_trust_domain(one)] if one.ready[0] == "True" else [])
        cache.index(BY_PLACE, "ServiceIdentity", lambda one: [(one.meta.namespace, named_trust_domain(one))])
        cache.index(BY_NAMESPACE, "ServiceIdentity", lambda one: [one.meta.namespace])
        cache.index(AUTHORITIES, "Secret", self._authority_of)
        cache.index(LEAVES, "Secret", _issuer_of)

    def _authority_of(self, secret: ObservedSecret) -> list[str]:
        ours = secret.meta.labels.get(naming.COMPONENT) == naming.COMPONENT_AUTHORITY
        domain = secret.meta.annotations.get(naming.TRUST_DOMAIN, "")
        return [domain] if ours and secret.meta.namespace == self.operator_namespace else []

    def get(self, name: str) -> Domain | None:
        """The TrustDomain of that name."""
        domain: Domain | None = self._cache.get(Ref("TrustDomain", "", name))
        return domain

    def all(self) -> Iterator[Domain]:
        """Every TrustDomain."""
        return self._cache.of_kind("TrustDomain")

    def default(self) -> Domain | None:
        """The oldest TrustDomain that is marked default."""
        marked = [one for one in self.all() if not isinstance(one.spec, SpecError) and one.spec.default]
        return min(marked, key=lambda one: one.meta.seniority, default=None)

    def of(self, identity: Identity) -> Domain | None:
        """The TrustDomain that an identity belongs to."""
        named = named_trust_domain(identity)
        return self.get(named) if named else self.default()

    def record_secret(self, name: str) -> ObservedSecret | None:
        """The Secret that remembers the authorities' states."""
        secret: ObservedSecret | None = self._cache.get(
            Ref("Secret", self.operator_namespace, naming.authority_record_name(name))
        )
        return secret

    def view(self, domain: Domain) -> TrustDomainView:
        """What identities need to know of a TrustDomain; computed once for each change of it."""
        secret = self.record_secret(domain.meta.name)
        versions = (domain.meta.resource_version, secret.meta.resource_version if secret else "")
        known = self._views.get(domain.meta.name)
        if known is None or known[0] != versions:
            known = self._views[domain.meta.name] = (versions, _view(domain, secret))
        return known[1]

    def leaf_ends(self, view: TrustDomainView) -> dict[str, list[datetime]]:
        """When the leaves of each of a trust domain's authorities end, by the authority's key id."""
        key_ids = [subject_key_id(root) for root in view.bundle.roots] if view.bundle else []
        key_ids += [subject_key_id(view.active.certificate)] if view.active else []
        return {
            key_id: [secret.certificate.not_after for secret in self._cache.find(LEAVES, key_id)] for key_id in key_ids
        }

    def names_of(self, domain: Domain) -> tuple[str, ...]:
        """What identities of a TrustDomain write as its name: the default one's may write none."""
        default = self.default()
        is_default = default is not None and default.meta.ref == domain.meta.ref
        return (domain.meta.name, "") if is_default else (domain.meta.name,)

    def count(self, index: str, domain: Domain) -> int:
        """How many identities of a TrustDomain an index by trust domain has."""
        return sum(self._cache.size(index, name) for name in self.names_of(domain))

    def selects(self, domain: Domain, namespace: Plain) -> bool:
        """Tell whether the trust bundle goes to a namespace."""
        return self.watches(namespace.meta.name) and self.is_meant(domain, namespace)

    def is_meant(self, domain: Domain, namespace: Plain) -> bool:
        """Tell whether the trust bundle should go to a namespace, be it watched or not."""
        if isinstance(domain.spec, SpecError) or namespace.meta.deleting:
            return False
        if namespace.meta.name == self.operator_namespace:
            return True  # decision points are told the authorities as they are there, where no tenant edits
        selection = domain.spec.bundle.namespaces
        if selection.all:
            return True
        if selection.selector is not None:
            return selection.selector.matches(namespace.meta.labels)
        return self.has_identities(domain, namespace.meta.name)

    def has_identities(self, domain: Domain, namespace: str) -> bool:
        """Tell whether a namespace has identities of a TrustDomain."""
        return any(self._cache.size(BY_PLACE, (namespace, name)) for name in self.names_of(domain))


def brought_secret(domain: Domain) -> str | None:
    """Name of the Secret with an authority that the admin brings, in the operator's namespace."""
    return None if isinstance(domain.spec, SpecError) else domain.spec.certificate_authority.secret_name


def named_trust_domain(identity: Identity) -> str:
    """The trust domain that an identity names, empty for the default one."""
    return (identity.spec.trust_domain or "") if isinstance(identity.spec, ServiceIdentitySpec) else ""


def _issuer_of(secret: ObservedSecret) -> list[str]:
    leaf = secret.meta.labels.get(naming.COMPONENT) == naming.COMPONENT_SVID and secret.certificate
    return [secret.certificate.issuer_key_id] if leaf and secret.certificate else []


def _view(domain: Domain, secret: ObservedSecret | None) -> TrustDomainView:
    try:
        record = Record.from_json(secret.public.get(RECORD, b"")) if secret is not None else None
    except RecordUnreadable:
        record = None
    return TrustDomainView(
        domain.meta.name,
        domain.spec,
        record.active if record else None,
        record.bundle() if record else None,
        domain.meta.created,
    )


class TrustDomainController:
    """Keeps each TrustDomain's authority, record and status."""

    name = "TrustDomain"

    def __init__(
        self,
        cache: Cache,
        domains: TrustDomains,
        entropy: Entropy,
        skew: Callable[[], timedelta | None],
        providers: Callable[[Domain], tuple[ProviderKeys, ...]] = lambda _: (),
    ) -> None:
        self._cache, self._domains = cache, domains
        self._entropy, self._skew, self._providers = entropy, skew, providers
        cache.index(BUNDLES, "ConfigMap", lambda one: [one.meta.annotations.get(naming.TRUST_DOMAIN, "")])

    def touched_by(self, change: Change) -> Iterable[Touched]:
        """Which TrustDomains a change makes due; counts may lag by seconds, so that a wave of identities is one write."""
        seen = change.new or change.old
        match change.ref.kind:
            case "TrustDomain":
                yield Touched(change.ref)
                if _default_moved(change):
                    yield from (Touched(one.meta.ref) for one in self._domains.all() if one.meta.ref != change.ref)
            case "Secret" if change.ref.namespace == self._domains.operator_namespace:
                for domain in self._domains.all():
                    if self._concerns(domain, seen):
                        yield Touched(domain.meta.ref)
            case "Secret":
                issuers = [_issuer_of(one) if one is not None else [] for one in (change.old, change.new)]
                if issuers[0] != issuers[1]:
                    yield from (Touched(one.meta.ref, COUNTS) for one in self._domains.all())
            case "ServiceIdentity":
                both = [one for one in (change.old, change.new) if one is not None]
                if len({(named_trust_domain(one), _ready(one)) for one in both}) == 1 and len(both) == 2:
                    return
                owners = [own for one in both if (own := self._domains.of(one)) is not None]
                yield from (Touched(own.meta.ref, COUNTS) for own in owners)
            case "ConfigMap":
                name = change.ref.name.removesuffix(naming.TRUST_BUNDLE_SUFFIX)
                if name != change.ref.name:
                    yield Touched(Ref("TrustDomain", "", name), SOON)
            case "Namespace":
                yield from (Touched(one.meta.ref, SOON) for one in self._domains.all())
            case "IdentityProvider":
                yield Touched(Ref("TrustDomain", "", change.ref.namespace))

    def _concerns(self, domain: Domain, secret: ObservedSecret) -> bool:
        return secret.meta.annotations.get(
            naming.TRUST_DOMAIN
        ) == domain.meta.name or secret.meta.name == brought_secret(domain)

    def snapshot(self, ref: Ref) -> TrustDomainSnapshot | None:
        """Collect what a decision needs."""
        domain = self._domains.get(ref.name)
        if domain is None:
            return None
        brought, other_default = None, None
        if not isinstance(domain.spec, SpecError):
            secret_name = brought_secret(domain)
            if secret_name is not None:
                brought = self._cache.get(Ref("Secret", self._domains.operator_namespace, secret_name))
            default = self._domains.default()
            if domain.spec.default and default is not None and default.meta.ref != ref:
                other_default = default.meta.name
        return TrustDomainSnapshot(
            resource=domain,
            operator_namespace=self._domains.operator_namespace,
            record=self._domains.record_secret(ref.name),
            authority_secrets=tuple(self._cache.find(AUTHORITIES, ref.name)),
            brought=brought,
            other_default=other_default,
            targets=self._targets(domain),
            identities_total=self._domains.count(BY_TRUST_DOMAIN, domain),
            identities_ready=self._domains.count(READY, domain),
            clock_skew=self._skew(),
            published_sequence=self._published_sequence(ref.name),
            leaf_ends=self._domains.leaf_ends(self._domains.view(domain)),
            providers=self._providers(domain),
        )

    def _published_sequence(self, name: str) -> int:
        bundles = self._cache.find(BUNDLES, name)
        shown = [one.meta.annotations.get(naming.BUNDLE_SEQUENCE, "") for one in bundles]
        # Namespaces' users can edit these: a number that leaves no room to grow is none of ours.
        return max((int(text) for text in shown if text.isdecimal() and len(text) < 12), default=0)

    def _targets(self, domain: Domain) -> BundleTargets:
        bundle = self._domains.view(domain).bundle
        selected = carrying = unwatched = 0
        blocked = []
        for namespace in self._cache.of_kind("Namespace"):
            if not self._domains.is_meant(domain, namespace):
                continue
            if not self._domains.watches(namespace.meta.name):
                unwatched += 1
                continue
            selected += 1
            name = naming.trust_bundle_name(domain.meta.name)
            observed = self._cache.get(Ref("ConfigMap", namespace.meta.name, name))
            if observed is not None and not distribution.is_ours(observed):
                blocked.append((namespace.meta.name, f"ConfigMap {name} was not made by this operator"))
            elif observed is not None and bundle is not None and observed.data.get("bundle.pem") == bundle.pem:
                carrying += 1
        return BundleTargets(selected, carrying, tuple(sorted(blocked)), unwatched)

    def is_slow(self, snapshot: TrustDomainSnapshot) -> bool:
        """An RSA authority takes long to make."""
        spec = snapshot.resource.spec
        return (
            not isinstance(spec, SpecError)
            and is_slow(spec.certificate_authority.key_algorithm)
            and not snapshot.authority_secrets
        )

    def reconcile(self, snapshot: TrustDomainSnapshot, now: datetime) -> Plan:
        """Decide; pure."""
        return reconcile.reconcile(snapshot, now, self._entropy)

    def failed(self, snapshot: TrustDomainSnapshot, failure: Failure, now: datetime) -> Plan:
        """Tell in the conditions that writing does not succeed."""
        return reconcile.failed(snapshot, failure.message, now)

    def priority(self, ref: Ref) -> float:  # noqa: ARG002 - authorities come before everything that they sign
        """Before any leaf."""
        return -2.0


class TrustBundleController(Statusless):
    """Keeps the trust bundle's ConfigMap in each selected namespace; a key is (namespace, trust domain)."""

    name = "TrustBundle"
    urgency = -1.0  # verifiers first, then who is verified

    def __init__(self, cache: Cache, domains: TrustDomains) -> None:
        self._cache, self._domains = cache, domains

    def touched_by(self, change: Change) -> Iterable[Touched]:
        """Which namespaces' bundles a change makes due."""
        seen = change.new or change.old
        match change.ref.kind:
            case "ConfigMap":
                name = change.ref.name.removesuffix(naming.TRUST_BUNDLE_SUFFIX)
                if name != change.ref.name:
                    yield Touched(Ref(self.name, change.ref.namespace, name))
            case "Namespace":
                if change.old is None or change.new is None or change.old.meta.labels != change.new.meta.labels:
                    yield from (Touched(self._key(change.ref.name, one)) for one in self._domains.all())
            case "ServiceIdentity":
                if change.old is None or change.new is None or change.old.spec != change.new.spec:
                    for one in self._domains.all():
                        key = self._key(change.ref.namespace, one)
                        # A wave of new identities in a namespace that has the bundle already changes nothing for it.
                        if change.old is not None or self._cache.get(self._place(key)) is None:
                            yield Touched(key)
            case "TrustDomain":
                if not same_generation(change):
                    yield from self._everywhere(seen)
            case "Secret" if seen.meta.labels.get(naming.COMPONENT) == naming.COMPONENT_AUTHORITY_RECORD:
                domain = self._domains.get(seen.meta.annotations.get(naming.TRUST_DOMAIN, ""))
                if domain is not None:
                    yield from self._everywhere(domain)

    def _everywhere(self, domain: Domain) -> Iterable[Touched]:
        for namespace in self._cache.of_kind("Namespace"):
            yield Touched(self._key(namespace.meta.name, domain))

    def _place(self, key: Ref) -> Ref:
        return Ref("ConfigMap", key.namespace, naming.trust_bundle_name(key.name))

    def _key(self, namespace: str, domain: Domain) -> Ref:
        return Ref(self.name, namespace, domain.meta.name)

    def snapshot(self, ref: Ref) -> BundleSnapshot | None:
        """Collect what a decision needs."""
        namespace = self._cache.get(Ref("Namespace", "", ref.namespace))
        if namespace is None or namespace.meta.deleting:
            return None
        domain = self._domains.get(ref.name)
        place = self._place(ref)
        return BundleSnapshot(
            trust_domain=domain,
            bundle=self._domains.view(domain).bundle if domain else None,
            selected=domain is not None and self._domains.selects(domain, namespace),
            ref=place,
            observed=self._cache.get(place),
        )

    def reconcile(self, snapshot: BundleSnapshot, now: datetime) -> Plan:
        """Decide; pure."""
        return distribution.reconcile_bundle(snapshot, now)


def same_generation(change: Change) -> bool:
    """Tell whether only metadata or status changed, of one and the same object."""
    old, new = change.old, change.new
    return (
        old is not None
        and new is not None
        and old.meta.uid == new.meta.uid
        and old.meta.generation == new.meta.generation
        and old.meta.deleting == new.meta.deleting
    )


def _default_moved(change: Change) -> bool:
    marks = [
        one is not None and not isinstance(one.spec, SpecError) and one.spec.default for one in (change.old, change.new)
    ]
    return marks[0] != marks[1]


def _ready(identity: Identity | None) -> bool:
    return identity is not None and identity.ready[0] == "True"
