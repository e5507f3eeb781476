"""What is kept of a JWK Set."""

import json
from typing import Any

import pytest

from tests.support.tokens import encoded, jwk, jwks
from zerotrust.providers.jwks import MAX_BYTES, MAX_KEYS, KeySet, UnusableKeys, join, parse

GOOD = jwk("ES256", "good")


def kept(*keys: dict[str, Any]) -> list[str]:
    return list(parse(jwks(GOOD, *keys).encode()).keys)


@pytest.mark.parametrize("kind", ["ES256", "ES384", "ES512", "RSA", "EdDSA"])
def test_public_signature_keys_are_kept(kind: str) -> None:
    assert kept(jwk(kind, "b", x5c=["MIIB"], x5t="AA", exp=1)) == ["b", "good"]


def test_only_known_members_are_kept_and_use_is_said() -> None:
    keys = parse(jwks(jwk("ES256", "a", alg="ES256", x5c=["MIIB"], iss="x", use=None)).encode())
    assert sorted(keys.keys["a"]) == ["alg", "crv", "kid", "kty", "use", "x", "y"]


@pytest.mark.parametrize(
    "key",
    [
        {"kty": "oct", "kid": "b", "k": encoded(b"secret" * 8)},
        {"kty": "oct", "kid": "b", "k": encoded(b"secret" * 8), "alg": "HS256"},
        jwk("ES256", "b", use="enc"),
        jwk("ES256", "b", use=7),
        jwk("ES256", "b", key_ops=["deriveBits"]),
        jwk("ES256", "b", key_ops="verify"),
        jwk("ES256", None),
        jwk("ES256", ""),
        jwk("ES256", "b" * 257),
        jwk("ES256", "b\u0000"),
        jwk("ES256", "b", kty="RSA"),
        jwk("ES256", "b", kty="AKP"),
        jwk("ES256", "b", kty=["EC"]),
        jwk("ES256", "b", crv="secp256k1"),
        jwk("ES256", "b", crv="P-384"),
        jwk("ES256", "b", alg="ES384"),
        jwk("ES256", "b", alg="HS256"),
        jwk("ES256", "b", alg="none"),
        jwk("ES256", "b", alg=["ES256"]),
        jwk("RSA", "b", alg="RSA-OAEP"),
        jwk("ES256", "b", y=encoded(b"\x01" * 32)),
        jwk("ES256", "b", x=encoded(b"\x00" + b"\x01" * 32)),
        jwk("ES256", "b", x=None),
        jwk("ES256", "b", x=7),
        jwk("ES256", "b", x="!"),
        jwk("RSA 1024", "b"),
        jwk("RSA", "b", e="AA"),
        jwk("RSA", "b", e="Ag"),
        jwk("RSA", "b", n=encoded(b"\x00" + b"\xff" * 256)),
        jwk("RSA", "b", n=encoded(b"\xff" * 1025)),
        jwk("EdDSA", "b", crv="X25519"),
        jwk("EdDSA", "b", crv="Ed448"),
        "a text",
        None,
        [],
    ],
)
def test_everything_else_is_left_out(key: Any) -> None:
    assert kept(key) == ["good"]
    assert parse(jwks(GOOD, key).encode()).dropped == 1


def test_a_private_key_is_published_without_its_secret() -> None:
    keys = parse(jwks(jwk("ES256", "a", d=encoded(b"\x01" * 32))).encode())
    assert "d" not in keys.keys["a"]
    assert encoded(b"\x01" * 32) not in keys.text()


def test_the_text_depends_on_the_keys_alone() -> None:
    one, two = jwk("ES256", "a"), jwk("RSA", "b", alg="RS256")
    spaced = json.dumps({"more": 1, "keys": [dict(reversed(two.items())), one]}, indent=3)
    assert parse(jwks(one, two).encode()).text() == parse(spaced.encode()).text()
    assert parse(parse(spaced.encode()).text().encode()).text() == parse(spaced.encode()).text()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 60_000, "not JSON"),
        (b'{"keys": NaN}', "not JSON"),
        (b"[]", "list `keys`"),
        (b"{}", "list `keys`"),
        (b'{"keys": {}}', "list `keys`"),
        (b'{"keys": [], "keys": []}', "twice"),
        (jwks(GOOD).replace('"kty"', '"kty": "oct", "kty"').encode(), "twice"),
        (jwks().encode(), "none of the JWK Set's 0 keys"),
        (jwks({"kty": "oct", "kid": "a", "k": "c2VjcmV0"}).encode(), "none of the JWK Set's 1 keys"),
        (jwks(GOOD, jwk("RSA", "good")).encode(), "2 keys with the kid"),
        (jwks(GOOD, GOOD).encode(), "2 keys with the kid"),
        (jwks(*[jwk("ES256", str(number)) for number in range(MAX_KEYS + 1)]).encode(), f"at most {MAX_KEYS}"),
        (jwks(GOOD).encode() + b" " * MAX_BYTES, f"longer than {MAX_BYTES}"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_no_usable_set_is_refused_by_name(raw: bytes, message: str) -> None:
    with pytest.raises(UnusableKeys, match=message) as refusal:
        parse(raw)
    assert "c2VjcmV0" not in str(refusal.value)


def test_an_encryption_key_may_have_the_id_of_a_signature_key() -> None:
    assert kept(jwk("RSA", "good", use="enc")) == ["good"]


def test_as_many_keys_as_are_allowed() -> None:
    assert len(parse(jwks(*[jwk("ES256", f"{number:02}") for number in range(MAX_KEYS)]).encode()).keys) == MAX_KEYS


def test_retired_keys_fill_up_the_rest() -> None:
    current = KeySet({f"a{number:02}": jwk("ES256", f"a{number:02}") for number in range(MAX_KEYS - 1)})
    joined = join(current, {kid: jwk("ES256 other", kid) for kid in ("a00", "z", "y")})
    assert len(joined.keys) == MAX_KEYS
    assert joined.keys["a00"] == current.keys["a00"]
    assert "y" in joined.keys
    assert "z" not in joined.keys
