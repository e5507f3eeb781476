"""How many identities, authorities and API keys end soon, counted for the metrics from the cache and the clock.

Statuses are not asked: they stop being true when nobody can write them, and that is when these numbers matter.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import get_args

from zerotrust.apikey import lifetime as keys
from zerotrust.common import naming
from zerotrust.common.errors import SpecError
from zerotrust.common.naming import Ref
from zerotrust.engine.apikeybook import ApiKey, ApiKeyBook
from zerotrust.engine.cache import Cache
from zerotrust.engine.clock import Clock
from zerotrust.engine.trustdomains import Identity, TrustDomains, named_trust_domain
from zerotrust.identity import lifetime as certificates
from zerotrust.identity.lifetime import Lifetime
from zerotrust.identity.snapshot import secret_name
from zerotrust.pki.secret import ObservedSecret
from zerotrust.telemetry.metrics import Metrics, Sample
from zerotrust.trustdomain.authority import Authority
from zerotrust.trustdomain.resource import TrustDomainSpec


class Lifetimes:
    """Counts when asked; of ten thousand identities that takes some hundredths of a second."""

    def __init__(self, cache: Cache, domains: TrustDomains, book: ApiKeyBook, clock: Clock) -> None:
        self._cache, self._domains, self._book, self._clock = cache, domains, book, clock
        self._known: dict[Ref, tuple[object, Lifetime]] = {}

    def announce(self, metrics: Metrics) -> None:
        """Show the numbers."""
        metrics.watch(
            "identity_certificates",
            f"ServiceIdentities by what the clock has made of their certificate: {', '.join(get_args(certificates.State))}.",
            ["state"],
            self.certificates,
        )
        metrics.watch(
            "api_key_lifetimes",
            f"ApiKeys by what the clock has made of their key: {', '.join(get_args(keys.State))}.",
            ["state"],
            self.api_keys,
        )
        metrics.watch(
            "authority_expiry_timestamp_seconds",
            "When a trust domain's active authority expires, in seconds since 1970.",
            ["trust_domain"],
            lambda: [((name,), one.not_after.timestamp()) for name, one in self._authorities()],
        )
        metrics.watch(
            "authority_lifetime_seconds",
            "How long a trust domain's active authority lives as a whole.",
            ["trust_domain"],
            lambda: [((name,), _life(one)) for name, one in self._authorities()],
        )

    def certificates(self) -> Iterable[Sample]:
        """Every ServiceIdentity in exactly one state; states without any are told as 0."""
        now, counts, known = self._clock.now(), Counter[str](), dict[Ref, tuple[object, Lifetime]]()
        limits = lru_cache(maxsize=None)(self._limits)
        for identity in self._cache.of_kind("ServiceIdentity"):
            if not identity.meta.deleting:
                found = self._lifetime(identity, limits)
                if found is not None:
                    known[identity.meta.ref] = found
                counts[found[1].state(now) if found is not None else "missing"] += 1
        self._known = known
        return [((state,), counts[state]) for state in get_args(certificates.State)]

    def _limits(self, name: str) -> TrustDomainSpec | None:
        domain = self._domains.get(name) if name else self._domains.default()
        return None if domain is None or isinstance(domain.spec, SpecError) else domain.spec

    def _lifetime(
        self, identity: Identity, limits: Callable[[str], TrustDomainSpec | None]
    ) -> tuple[object, Lifetime] | None:
        """Computed once for each change of what it follows from."""
        secret = self._cache.get(Ref("Secret", identity.meta.namespace, secret_name(identity)))
        if not isinstance(secret, ObservedSecret) or secret.certificate is None:
            return None
        if secret.meta.labels.get(naming.IDENTITY) != identity.meta.name:
            return None
        spec = None if isinstance(identity.spec, SpecError) else identity.spec
        basis = (secret.certificate, spec, limits(named_trust_domain(identity)))
        known = self._known.get(identity.meta.ref)
        return known if known is not None and known[0] == basis else (basis, certificates.lifetime(*basis))

    def api_keys(self) -> Iterable[Sample]:
        """Every ApiKey with a usable spec in exactly one state; states without any are told as 0."""
        now, counts = self._clock.now(), Counter[str]()
        for one in self._cache.of_kind("ApiKey"):
            resource: ApiKey = one
            if resource.meta.deleting or isinstance(resource.spec, SpecError):
                continue
            memory = self._book.memories(resource.meta.namespace).get(resource.meta.uid)
            counts[keys.state(resource.meta.uid, resource.spec, memory, now)] += 1
        return [((state,), counts[state]) for state in get_args(keys.State)]

    def _authorities(self) -> Iterator[tuple[str, Authority]]:
        for domain in self._domains.all():
            active = self._domains.view(domain).active
            if active is not None:
                yield domain.meta.name, active


def _life(authority: Authority) -> float:
    return (authority.not_after - authority.certificate.not_valid_before_utc).total_seconds()
