"""From a TrustDomain's identity provider and the state of its keys to the entry that decision points get (ADR 0009)."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache

from zerotrust.common import times
from zerotrust.common.errors import SpecError
from zerotrust.providers import lifecycle
from zerotrust.providers.jwks import KeySet, UnusableKeys, parse
from zerotrust.providers.lifecycle import State
from zerotrust.providers.tokens import Provider
from zerotrust.trustdomain.resource import IdentityProvider

ALWAYS = datetime(9999, 12, 31, tzinfo=UTC)  # keys that stand in the TrustDomain do not become stale
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@lru_cache(maxsize=64)
def usable(text: str) -> KeySet:
    """The usable keys of a JWK Set, read once for all bundles that carry it; UnusableKeys when there are none."""
    return parse(text.encode())


def inline(provider: IdentityProvider, path: str) -> Provider:
    """The entry of a provider whose keys stand in the resource; SpecError names `<path>.jwks` when they cannot be used."""
    try:
        keys = usable(provider.jwks or "")
    except UnusableKeys as error:
        raise SpecError(f"{path}.jwks", str(error)) from None
    return entry(provider, keys, int((ALWAYS - _EPOCH).total_seconds()))


def fetched(provider: IdentityProvider, state: State, now: datetime) -> Provider | None:
    """The entry of a provider whose keys are fetched; None while there never were any."""
    until = end(provider, state)
    return (
        None
        if until is None
        else entry(provider, lifecycle.accepted(state, now), int((until - _EPOCH).total_seconds()))
    )


def end(provider: IdentityProvider, state: State) -> datetime | None:
    """When fetched keys cease to be accepted; None while there never were any.

    It is rounded down to a quarter of maxStale: it would otherwise give every bundle a new revision with every fetch.
    """
    exact = lifecycle.not_after(state, provider.max_stale)
    step = max(provider.max_stale / 4, timedelta(seconds=15))
    return None if exact is None else times.whole_seconds(_EPOCH + (exact - _EPOCH) // step * step)


def entry(provider: IdentityProvider, keys: KeySet, not_after: int) -> Provider:
    """The entry of a provider with these keys, accepted before `not_after` (seconds since 1970)."""
    return Provider(
        name=provider.name,
        issuer=provider.issuer,
        algorithms=tuple(sorted(provider.algorithms)),
        jwks=keys.text(),
        leeway=int(provider.leeway.total_seconds()),
        not_after=not_after,
    )
