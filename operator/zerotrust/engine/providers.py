"""Identity providers in the controller: what is known of their keys, and the ConfigMap that remembers it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from zerotrust.common.errors import SpecError
from zerotrust.common.naming import Ref
from zerotrust.common.observed import ConfigMap, Meta
from zerotrust.common.plan import Delete, Plan
from zerotrust.engine.cache import Cache, Change
from zerotrust.engine.controller import Statusless, Touched
from zerotrust.engine.trustdomains import BY_NAMESPACE, Domain, TrustDomains, same_generation
from zerotrust.providers import memory, publish
from zerotrust.providers.lifecycle import State
from zerotrust.trustdomain.providers import ProviderKeys
from zerotrust.trustdomain.resource import IdentityProvider

KIND = "IdentityProvider"
MEMORIES = "identity-provider-memories"


@dataclass(frozen=True, slots=True)
class FetchedKeys:
    """What this process knows of a provider's keys, which were fetched from `source`; only in the cache, never in the API."""

    meta: Meta
    source: str
    state: State


class Providers:
    """Reads identity providers and what is known of their keys out of the cache; a provider's place is (trust domain, name)."""

    def __init__(self, cache: Cache, domains: TrustDomains) -> None:
        self._cache, self._domains = cache, domains
        self.operator_namespace = domains.operator_namespace
        cache.index(MEMORIES, "ConfigMap", self._is_memory)

    def _is_memory(self, observed: ConfigMap) -> list[str]:
        return [""] if memory.is_memory(observed, self.operator_namespace) else []

    def all(self) -> Iterator[Ref]:
        """The places of every provider whose keys are fetched."""
        for domain in list(self._domains.all()):
            yield from fetched_of(domain)

    def get(self, ref: Ref) -> IdentityProvider | None:
        """The provider at a place, if its keys are fetched."""
        domain = self._domains.get(ref.namespace)
        spec = domain.spec if domain is not None and not domain.meta.deleting else None
        if spec is None or isinstance(spec, SpecError):
            return None
        return next((one for one in spec.identity_providers if one.name == ref.name and one.jwks is None), None)

    def is_undecided(self, ref: Ref) -> bool:
        """Tell whether the TrustDomain's spec cannot be read, so that nobody knows what it wants."""
        domain = self._domains.get(ref.namespace)
        return domain is not None and isinstance(domain.spec, SpecError)

    def memory_ref(self, ref: Ref) -> Ref:
        """Where what is known of a provider's keys is remembered."""
        return memory.place(self.operator_namespace, ref.namespace, ref.name)

    def memory(self, ref: Ref) -> ConfigMap | None:
        """What is remembered of a provider's keys."""
        observed: ConfigMap | None = self._cache.get(self.memory_ref(ref))
        return observed

    def memories(self) -> list[ConfigMap]:
        """Everything that is remembered, also of providers that are no more."""
        return self._cache.find(MEMORIES, "")

    def state(self, ref: Ref, provider: IdentityProvider) -> State:
        """What is known of its keys: by this process, or by the one before."""
        source = memory.source_of(provider)
        known: FetchedKeys | None = self._cache.get(ref)
        if known is not None and known.source == source:
            return known.state
        return memory.restored(self.memory(ref), source)

    def named(self, namespace: str, provider: str) -> set[Ref]:
        """Every provider of that name, of the trust domains that a namespace has identities of."""
        domains = {
            domain.meta.name for one in self._cache.find(BY_NAMESPACE, namespace) if (domain := self._domains.of(one))
        }
        places = [Ref(KIND, name, provider) for name in domains]
        return {ref for ref in places if self.get(ref) is not None}

    def keys_of(self, domain: Domain) -> tuple[ProviderKeys, ...]:
        """What is known of the keys of a TrustDomain's providers, in the order of its spec."""
        if isinstance(domain.spec, SpecError):
            return ()
        return tuple(self._keys(domain, position, one) for position, one in enumerate(domain.spec.identity_providers))

    def ends(self) -> Iterator[tuple[tuple[str, str], float]]:
        """Trust domain and name of each provider whose keys are fetched, with the time at which its keys end; 0 without any."""
        for ref in self.all():
            provider = self.get(ref)
            if provider is not None:
                end = publish.end(provider, self.state(ref, provider))
                yield (ref.namespace, ref.name), end.timestamp() if end is not None else 0.0

    def _keys(self, domain: Domain, position: int, provider: IdentityProvider) -> ProviderKeys:
        if provider.jwks is not None:
            try:
                publish.inline(provider, f"spec.identityProviders[{position}]")
            except SpecError as error:
                return ProviderKeys(provider.name, unusable=str(error))
            return ProviderKeys(provider.name, publish.ALWAYS)
        state = self.state(Ref(KIND, domain.meta.name, provider.name), provider)
        return ProviderKeys(provider.name, publish.end(provider, state), memory.complaint(state))


def fetched_of(domain: Domain | None) -> Iterator[Ref]:
    """The places of a TrustDomain's providers whose keys are fetched."""
    if domain is not None and not isinstance(domain.spec, SpecError):
        for one in domain.spec.identity_providers:
            if one.jwks is None:
                yield Ref(KIND, domain.meta.name, one.name)


@dataclass(frozen=True)
class MemorySnapshot:
    """What a provider's ConfigMap depends on; `provider` is None for one that is no more."""

    ref: Ref
    trust_domain: str
    provider: IdentityProvider | None
    state: State
    observed: ConfigMap | None


class ProviderMemoryController(Statusless):
    """Keeps the ConfigMap of each provider whose keys are fetched; a key is the ConfigMap's place."""

    name = "IdentityProvider"

    def __init__(self, cache: Cache, providers: Providers) -> None:
        self._cache, self._providers = cache, providers

    def touched_by(self, change: Change) -> Iterable[Touched]:
        """Which ConfigMaps a change makes due."""
        match change.ref.kind:
            case "IdentityProvider":
                yield Touched(self._providers.memory_ref(change.ref))
            case "TrustDomain" if not same_generation(change):
                places = {ref for one in (change.old, change.new) for ref in fetched_of(one)}
                yield from (Touched(self._providers.memory_ref(ref)) for ref in sorted(places))
            case "ConfigMap":
                both = [one for one in (change.old, change.new) if one is not None]
                if any(memory.is_memory(one, self._providers.operator_namespace) for one in both):
                    yield Touched(change.ref)

    def snapshot(self, ref: Ref) -> MemorySnapshot | None:
        """Collect what a decision needs."""
        observed: ConfigMap | None = self._cache.get(ref)
        place = next((one for one in self._providers.all() if self._providers.memory_ref(one) == ref), None)
        provider = self._providers.get(place) if place is not None else None
        if provider is None or place is None:
            named = memory.named(observed)
            undecided = named is not None and self._providers.is_undecided(Ref(KIND, *named))
            return None if observed is None or undecided else MemorySnapshot(ref, "", None, State(), observed)
        return MemorySnapshot(ref, place.namespace, provider, self._providers.state(place, provider), observed)

    def reconcile(self, snapshot: MemorySnapshot, now: datetime) -> Plan:
        """Decide; pure."""
        observed = snapshot.observed
        if snapshot.provider is None:
            return Plan(deletes=(Delete(observed.meta.ref, observed.meta.uid),)) if observed is not None else Plan()
        return memory.reconcile_memory(
            snapshot.ref, snapshot.trust_domain, snapshot.provider, snapshot.state, observed, now
        )
