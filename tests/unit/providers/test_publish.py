"""From a TrustDomain's identity provider to the entry of the bundle."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.tokens import ISSUER, jwk, jwks, token
from zerotrust.common.errors import SpecError
from zerotrust.providers.jwks import KeySet
from zerotrust.providers.lifecycle import Failed, Fetched, State, after
from zerotrust.providers.publish import ALWAYS, fetched, inline
from zerotrust.providers.tokens import TokenRefused, verify
from zerotrust.trustdomain.resource import IdentityProvider

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def a_provider(**changes: Any) -> IdentityProvider:
    spec = {"name": "corp", "issuer": ISSUER, "algorithms": ["RS256", "ES256"], "jwksURI": f"{ISSUER}/keys", **changes}
    return IdentityProvider.model_validate({name: value for name, value in spec.items() if value is not None})


def test_inline_keys_are_sanitised_and_do_not_become_stale() -> None:
    text = jwks(jwk("ES256", "ES256", x5c=["MIIB"]), {"kty": "oct", "kid": "s", "k": "c2VjcmV0"})
    entry = inline(a_provider(jwksURI=None, jwks=text), "spec.identityProviders[0]")
    assert "c2VjcmV0" not in entry.jwks
    assert entry.algorithms == ("ES256", "RS256")
    assert (entry.leeway, entry.not_after) == (60, int(ALWAYS.timestamp()))
    assert verify(token(), [entry], NOW).provider == "corp"


def test_unusable_inline_keys_name_the_field() -> None:
    with pytest.raises(SpecError, match=r"^spec\.identityProviders\[0\]\.jwks: the JWK Set is not JSON"):
        inline(a_provider(jwksURI=None, jwks="{}x"), "spec.identityProviders[0]")


def test_a_provider_without_keys_is_not_published() -> None:
    assert fetched(a_provider(), State(), NOW) is None
    assert fetched(a_provider(), after(State(), NOW, Failed("down")), NOW) is None


def test_fetched_keys_end_with_max_stale_rounded_down() -> None:
    state = after(State(), NOW, Fetched(KeySet({"ES256": jwk("ES256", "ES256")}), HOUR))
    entry = fetched(a_provider(maxStale="24h"), state, NOW)
    assert entry is not None
    end = datetime.fromtimestamp(entry.not_after, UTC)
    assert NOW + HOUR + 18 * HOUR < end <= NOW + HOUR + 24 * HOUR
    assert verify(token(), [entry], NOW).audiences == {"orders"}
    later = fetched(a_provider(maxStale="24h"), after(state, NOW + HOUR, Fetched(state.keys, HOUR)), NOW + HOUR)
    assert later == entry, "a fetch that changes nothing gives no new bundle"
    with pytest.raises(TokenRefused, match="too old"):
        verify(token(), [entry], end)


def test_the_entry_is_what_the_contract_says() -> None:
    entry = inline(a_provider(jwksURI=None, jwks=jwks(jwk("ES256", "a"))), "spec")
    document = entry.document()
    assert sorted(document) == ["algorithms", "issuer", "jwks", "leeway", "not_after"]
    assert json.loads(json.dumps(document)) == document
