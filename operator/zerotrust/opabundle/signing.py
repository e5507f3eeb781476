"""Keys that sign bundles, and the signature itself: ES256 without randomness, so that equal input gives equal bytes.

Source: RFC 7515 (compact JWS), RFC 7518 §3.4 (ES256), RFC 6979 (deterministic ECDSA), RFC 7638 (thumbprint); OPA
v1/bundle/verify.go. joserfc signs with fresh randomness only, so the JWS is put together here and joserfc verifies it.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from zerotrust.common.errors import ZerotrustError
from zerotrust.pki import keys

ALGORITHM = "ES256"
PRIVATE_KEY = "key.pem"
PUBLIC_KEY = "public.pem"
KEY_ID = "key-id"

_ID_LENGTH = 16
_COORDINATE = 32
_KEY_ID_PATTERN = re.compile(r"[0-9a-f]{16}")


class UnusableSigningKey(ZerotrustError):
    """A Secret does not hold a signing key; the message names the field and never quotes it."""


class BadSignature(ZerotrustError):
    """A JWS is not one that the known keys made; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A P-256 key that signs bundles; `id` names it in OPA's configuration and in the path of its bundles."""

    id: str
    private: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def public(self) -> ec.EllipticCurvePublicKey:
        """What verifies this key's signatures."""
        return self.private.public_key()

    def sign(self, payload: bytes) -> str:
        """A compact JWS over the payload; the same payload always gives the same text (RFC 6979)."""
        header = json.dumps(_header(self.id), sort_keys=True, separators=(",", ":")).encode()
        signed = _base64url(header) + b"." + _base64url(payload)
        encoded = self.private.sign(signed, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
        r, s = utils.decode_dss_signature(encoded)
        signature = r.to_bytes(_COORDINATE) + s.to_bytes(_COORDINATE)
        return (signed + b"." + _base64url(signature)).decode("ascii")


def create() -> SigningKey:
    """Make a new key from the operating system's randomness."""
    private = ec.generate_private_key(ec.SECP256R1())
    return SigningKey(key_id(private.public_key()), private)


def key_id(public_key: ec.EllipticCurvePublicKey) -> str:
    """The first 16 hex digits of the key's RFC 7638 thumbprint: short, and plain in paths and object names."""
    thumbprint = ECKey.import_key(public_pem(public_key)).thumbprint()
    return base64.urlsafe_b64decode(thumbprint + "=").hex()[:_ID_LENGTH]


def is_key_id(text: str) -> bool:
    """Tell whether a text could name a signing key."""
    return _KEY_ID_PATTERN.fullmatch(text) is not None


def public_pem(public_key: ec.EllipticCurvePublicKey) -> str:
    """The key as PEM SubjectPublicKeyInfo, as OPA's configuration wants it."""
    return public_key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode(
        "ascii"
    )


def to_secret(key: SigningKey) -> dict[str, bytes]:
    """The key as a Secret's data, not yet in base64."""
    return {
        PRIVATE_KEY: keys.to_pkcs8(key.private),
        PUBLIC_KEY: public_pem(key.public).encode(),
        KEY_ID: key.id.encode(),
    }


def from_secret(data: Mapping[str, bytes]) -> SigningKey:
    """Read what `to_secret` wrote; UnusableSigningKey names the field that does not fit."""
    try:
        private = keys.from_pem(data.get(PRIVATE_KEY, b""))
    except keys.UnreadableKey:
        raise UnusableSigningKey(f"{PRIVATE_KEY} is not an unencrypted PEM private key") from None
    if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(private.curve, ec.SECP256R1):
        raise UnusableSigningKey(f"{PRIVATE_KEY} must hold an ECDSA key on P-256")
    key = SigningKey(key_id(private.public_key()), private)
    if data.get(KEY_ID) != key.id.encode():
        raise UnusableSigningKey(f"{KEY_ID} does not name the key in {PRIVATE_KEY}")
    if data.get(PUBLIC_KEY) != public_pem(key.public).encode():
        raise UnusableSigningKey(f"{PUBLIC_KEY} does not belong to the key in {PRIVATE_KEY}")
    return key


def verify(token: str, public_keys: Mapping[str, ec.EllipticCurvePublicKey]) -> tuple[str, bytes]:
    """The id of the key that made a compact JWS, and its payload; BadSignature when none of `public_keys` did.

    The header must say exactly what `SigningKey.sign` writes; its `kid` chooses the key and nothing else does.
    """
    try:
        parsed = jws.extract_compact(token.encode())
        header = parsed.headers()
        name = header.get("kid")
        if not isinstance(name, str) or header != _header(name):
            raise BadSignature(f"the signature's header must say alg {ALGORITHM}, typ JWT, a kid and nothing else")
        public_key = public_keys.get(name)
        if public_key is None:
            raise BadSignature(f"the signature is by an unknown key {name!r}")
        genuine = jws.validate_compact(parsed, ECKey.import_key(public_pem(public_key)), algorithms=[ALGORITHM])
    except (JoseError, ValueError, TypeError, RecursionError):
        raise BadSignature("the signature is not a compact JWS") from None
    if not genuine:
        raise BadSignature(f"the signature was not made by the key {name}")
    return name, parsed.payload


def digest(content: bytes) -> str:
    """SHA-256 in lower hex, as a signature lists it."""
    return hashlib.sha256(content).hexdigest()


def _header(key: str) -> dict[str, str]:
    return {"alg": ALGORITHM, "kid": key, "typ": "JWT"}


def _base64url(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b"=")
