"""From a TrustDomain's identity provider and the state of its keys to the entry that decision points get (ADR 0009)."""

from datetime import UTC, datetime, timedelta

from zerotrust.common.errors import SpecError
from zerotrust.providers import lifecycle
from zerotrust.providers.jwks import KeySet, UnusableKeys, parse
from zerotrust.providers.lifecycle import State
from zerotrust.providers.tokens import Provider
from zerotrust.trustdomain.resource import IdentityProvider

ALWAYS = datetime(9999, 12, 31, tzinfo=UTC)  # keys that stand in the TrustDomain do not become stale
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def inline(provider: IdentityProvider, path: str) -> Provider:
    """The entry of a provider whose keys stand in the resource; SpecError names `<path>.jwks` when they cannot be used."""
    try:
        keys = parse((provider.jwks or "").encode())
    except UnusableKeys as error:
        raise SpecError(f"{path}.jwks", str(error)) from None
    return _entry(provider, keys, ALWAYS)


def fetched(provider: IdentityProvider, state: State, now: datetime) -> Provider | None:
    """The entry of a provider whose keys are fetched; None while there never were any.

    Its end is rounded down to a quarter of maxStale: it would otherwise give every bundle a new revision with every fetch.
    """
    end = lifecycle.not_after(state, provider.max_stale)
    if end is None:
        return None
    step = max(provider.max_stale / 4, timedelta(seconds=15))
    return _entry(provider, lifecycle.accepted(state, now), _EPOCH + (end - _EPOCH) // step * step)


def ambiguous(providers: list[IdentityProvider]) -> frozenset[str]:
    """Names of the providers that share their issuer with another: decision points take no token of theirs."""
    issuers = [provider.issuer for provider in providers]
    return frozenset(provider.name for provider in providers if issuers.count(provider.issuer) > 1)


def _entry(provider: IdentityProvider, keys: KeySet, end: datetime) -> Provider:
    return Provider(
        name=provider.name,
        issuer=provider.issuer,
        algorithms=tuple(sorted(provider.algorithms)),
        jwks=keys.text(),
        leeway=int(provider.leeway.total_seconds()),
        not_after=int((end - _EPOCH).total_seconds()),
    )
