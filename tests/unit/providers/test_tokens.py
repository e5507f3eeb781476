"""Why the Python verifier refuses a token. What it accepts and refuses is judged together with OPA in tests/opa."""

import pytest

from tests.support.tokens import ISSUER, NOW, SECONDS, jwk, provider, token
from zerotrust.providers.tokens import Provider, TokenRefused, verify

USUAL = (provider(),)


@pytest.mark.parametrize(
    ("reason", "raw", "providers"),
    [
        ("malformed", "a.b.c", USUAL),
        ("issuer", token({"iss": ISSUER + "/"}), USUAL),
        ("issuer", token(), ()),
        ("issuer", token(), (provider(), provider(name="twin"))),
        ("stale_keys", token(), (provider(not_after=SECONDS),)),
        ("header", token(typ="dpop+jwt"), USUAL),
        ("unknown_key", token(kid="new"), USUAL),
        ("key", token(), (provider(jwk("ES256", "ES256", use="enc")),)),
        ("times", token({"exp": None}), USUAL),
        ("claims", token({"aud": []}), USUAL),
        ("signature", token(kind="ES256 other", kid="ES256"), USUAL),
    ],
)
def test_a_refusal_says_why_and_does_not_quote_the_token(
    reason: str, raw: str, providers: tuple[Provider, ...]
) -> None:
    with pytest.raises(TokenRefused) as refusal:
        verify(raw, providers, NOW)
    assert refusal.value.reason == reason
    assert str(refusal.value).startswith("the token is refused: ")
    assert not [part for part in raw.split(".") if len(part) > 1 and part in str(refusal.value)]


def test_what_a_good_token_says() -> None:
    verified = verify(token({"aud": ["a", "b"], "level": 3, "flags": [True, "x", 1]}), USUAL, NOW)
    assert verified.provider == "corp"
    assert verified.audiences == {"a", "b"}
    assert verified.scopes == {"orders:read", "orders:write"}
    assert verified.claims["flags"] == ("true", "x")
    assert not {"level", "exp", "iat"} & set(verified.claims)
