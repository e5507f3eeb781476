"""Keys that sign bundles: what their signatures mean to joserfc, and what a Secret must hold."""

import base64
import json
import re

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jws
from joserfc.jwk import ECKey, OctKey

from tests.support.bundle_files import token
from zerotrust.opabundle import signing
from zerotrust.opabundle.signing import BadSignature, SigningKey, UnusableSigningKey
from zerotrust.pki import keys

KEY = signing.create()
OTHER = signing.create()
KEYS = {KEY.id: KEY.public, OTHER.id: OTHER.public}
PAYLOAD = b'{"files":[],"scope":"a/b/policy"}'


def test_a_signature_is_the_same_every_time() -> None:
    assert KEY.sign(PAYLOAD) == KEY.sign(PAYLOAD)
    assert KEY.sign(PAYLOAD) != KEY.sign(PAYLOAD + b" ")
    assert KEY.sign(PAYLOAD) != OTHER.sign(PAYLOAD)


def test_joserfc_takes_our_signature_for_one_by_our_key() -> None:
    read = jws.deserialize_compact(KEY.sign(PAYLOAD), ECKey.import_key(signing.public_pem(KEY.public)), ["ES256"])
    assert read.payload == PAYLOAD
    assert read.headers() == {"alg": "ES256", "kid": KEY.id, "typ": "JWT"}


def test_every_signature_has_two_whole_coordinates() -> None:
    """One in 256 begins with a zero octet, which must not be dropped (RFC 7518 §3.4)."""
    for number in range(600):
        signature = KEY.sign(b"%d" % number).split(".")[2]
        assert len(base64.urlsafe_b64decode(signature + "==")) == 64


def test_the_key_id_is_the_beginning_of_the_thumbprint() -> None:
    jwk = ECKey.import_key(signing.public_pem(KEY.public))
    thumbprint = base64.urlsafe_b64decode(jwk.thumbprint() + "=").hex()
    assert KEY.id == thumbprint[:16]
    assert re.fullmatch("[0-9a-f]{16}", KEY.id)
    assert KEY.id != OTHER.id


def test_the_key_id_of_rfc_7638_is_known() -> None:
    """A fixed key has a fixed id: replicas, paths and configurations of every version agree on it."""
    public = ec.derive_private_key(1, ec.SECP256R1()).public_key()
    numbers = public.public_numbers()
    x, y = (base64.urlsafe_b64encode(n.to_bytes(32)).rstrip(b"=").decode() for n in (numbers.x, numbers.y))
    document = json.dumps({"crv": "P-256", "kty": "EC", "x": x, "y": y}, separators=(",", ":"))
    assert signing.key_id(public) == signing.digest(document.encode())[:16]


@pytest.mark.parametrize(
    ("text", "known"),
    [("0123456789abcdef", True), ("0123456789ABCDEF", False), ("../../../../etc/", False), ("", False)],
)
def test_a_key_id_is_sixteen_hex_digits(text: str, known: bool) -> None:
    assert signing.is_key_id(text) is known


def test_what_was_written_into_a_secret_is_read() -> None:
    data = signing.to_secret(KEY)
    assert set(data) == {"key.pem", "public.pem", "key-id"}
    assert signing.from_secret(data).sign(PAYLOAD) == KEY.sign(PAYLOAD)


FOREIGN = SigningKey("0" * 16, ec.generate_private_key(ec.SECP384R1()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key.pem": b""}, "key.pem is not an unencrypted PEM private key"),
        ({"key.pem": b"super secret"}, "key.pem is not an unencrypted PEM private key"),
        ({"key.pem": keys.to_pkcs8(FOREIGN.private)}, "key.pem must hold an ECDSA key on P-256"),
        ({"key.pem": keys.to_pkcs8(keys.generate("RSA-2048"))}, "key.pem must hold an ECDSA key on P-256"),
        ({"key.pem": keys.to_pkcs8(OTHER.private)}, "key-id does not name the key in key.pem"),
        ({"key-id": b"0" * 16}, "key-id does not name the key in key.pem"),
        ({"public.pem": signing.public_pem(OTHER.public).encode()}, "public.pem does not belong to the key in key.pem"),
        ({"public.pem": b""}, "public.pem does not belong to the key in key.pem"),
    ],
)
def test_a_secret_that_does_not_fit_is_refused_by_field_and_never_quoted(
    change: dict[str, bytes], message: str
) -> None:
    with pytest.raises(UnusableSigningKey) as caught:
        signing.from_secret({**signing.to_secret(KEY), **change})
    assert str(caught.value) == message
    assert caught.value.__cause__ is None


def test_a_key_does_not_show_itself() -> None:
    assert repr(KEY) == f"SigningKey(id='{KEY.id}')"


def test_the_kid_chooses_the_key_that_verifies() -> None:
    assert signing.verify(KEY.sign(PAYLOAD), KEYS) == (KEY.id, PAYLOAD)
    assert signing.verify(OTHER.sign(PAYLOAD), KEYS) == (OTHER.id, PAYLOAD)
    with pytest.raises(BadSignature, match="unknown key"):
        signing.verify(OTHER.sign(PAYLOAD), {KEY.id: KEY.public})


def hmac_with_the_public_key() -> str:
    """The classic confusion: what is public is taken for a shared secret."""
    secret = OctKey.import_key(base64.urlsafe_b64encode(signing.public_pem(KEY.public).encode()).decode())
    return jws.serialize_compact({"alg": "HS256", "typ": "JWT", "kid": KEY.id}, PAYLOAD, secret, algorithms=["HS256"])


def unsigned() -> str:
    header = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT","kid":"%s"}' % KEY.id.encode()).rstrip(b"=").decode()
    return f"{header}.{base64.urlsafe_b64encode(PAYLOAD).rstrip(b'=').decode()}."


def changed(part: int) -> str:
    parts = KEY.sign(PAYLOAD).split(".")
    other = KEY.sign(PAYLOAD + b" ").split(".")
    parts[part] = other[part]
    return ".".join(parts)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a compact JWS"),
        ("a.b", "not a compact JWS"),
        ("\u00e9.b.c", "not a compact JWS"),
        ("\ud800.b.c", "not a compact JWS"),
        (KEY.sign(PAYLOAD) + ".x", "not a compact JWS"),
        (KEY.sign(PAYLOAD) + "=", "not made by the key"),
        (KEY.sign(PAYLOAD)[:-4], "not made by the key"),
        (changed(1), "not made by the key"),
        (changed(2), "not made by the key"),
        (unsigned(), "header must say alg ES256"),
        (hmac_with_the_public_key(), "header must say alg ES256"),
        (token({}, KEY, {"jwk": {}}), "header must say alg ES256"),
        (token({}, KEY, {"typ": "JOSE"}), "header must say alg ES256"),
        (token({}, OTHER, {"kid": KEY.id}), "not made by the key"),
    ],
)
def test_what_is_no_signature_of_ours_is_refused(text: str, message: str) -> None:
    with pytest.raises(BadSignature, match=message):
        signing.verify(text, KEYS)
