"""Verifies tokens of identity providers as decision points do: the same rules as `zerotrust.authz.tokens` in Rego.

RFC 7519, RFC 8725 and, for ID tokens, OpenID Connect Core §3.1.3.6 and §3.1.3.7. One presented token is judged, and of an access
token beside it only whether the ID token speaks for it.
"""

import base64
import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry
from joserfc.jws import JWSRegistry

from zerotrust.common.errors import ZerotrustError
from zerotrust.policy.evaluate import Token
from zerotrust.providers.jwks import KEYS
from zerotrust.providers.parts import MAX_CHARACTERS, Malformed, Number, Object, Parts, decode, is_text, seconds

MAX_AUDIENCES = 64
MAX_LIFETIME = 31 * 24 * 3600
RSA_MODULUS_CHARACTERS = range(342, 1367)  # 2048 to 8192 bits in base64url

TYPES = frozenset({"JWT", "jwt", "at+jwt", "application/at+jwt"})
_ACCESS_TYPES = frozenset({"at+jwt", "application/at+jwt"})
_DIGESTED = frozenset({"ES256", "PS256", "RS256"})
_REFUSED_PARAMETERS = frozenset({"cty", "crit", "b64", "enc"})
_REFUSED_CLAIMS = frozenset({"cnf", "events"})
_ID_TOKEN_CLAIMS = frozenset({"nonce", "at_hash", "c_hash", "s_hash"})
_KEY_MEMBERS = ("kty", "crv", "x", "y", "n", "e")
_SUBJECT = re.compile(r"[ -~]{1,255}")
_ACCESS_TOKEN = re.compile(r"[!-~]+")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

RefusalReason = Literal[
    "malformed", "issuer", "stale_keys", "header", "unknown_key", "key", "times", "claims", "at_hash", "signature",
]  # fmt: skip
_MESSAGES: Mapping[str, str] = {
    "malformed": "it is no signed JWT in compact serialization, or readers could differ about it",
    "issuer": "no identity provider of the trust domain, or more than one, has its `iss`",
    "stale_keys": "the identity provider's keys are too old to be used",
    "header": "its header asks for an algorithm, a type or an extension that is not accepted",
    "unknown_key": "not exactly one of the identity provider's keys has its `kid`",
    "key": "the key that its `kid` names is not one for its algorithm",
    "times": "`exp` or `iat` is missing, or it is expired, not yet valid, from the future or valid for more than 31 days",
    "claims": "its `aud`, `azp` or `sub` is not acceptable, or it is bound to a key or reports an event",
    "at_hash": "it does not speak for the access token beside it: its `at_hash` is missing, wrong or not made with SHA-256",
    "signature": "its signature is not that of the key",
}


@dataclass
class TokenRefused(ZerotrustError):
    """A token is not accepted; `reason` says why, for people: decision points only say `bad_token`."""

    reason: RefusalReason

    def __str__(self) -> str:
        return f"the token is refused: {_MESSAGES[self.reason]}"


@dataclass(frozen=True)
class Provider:
    """An identity provider as decision points know it (ADR 0009); leeway in seconds, not_after in seconds since 1970."""

    name: str
    issuer: str
    algorithms: tuple[str, ...]
    jwks: str
    leeway: int
    not_after: int

    def document(self) -> dict[str, object]:
        """The entry under `zerotrust.policy.providers.<trust domain>.<name>`."""
        return {
            "issuer": self.issuer,
            "algorithms": list(self.algorithms),
            "jwks": self.jwks,
            "leeway": self.leeway,
            "not_after": self.not_after,
        }


def verify(raw: str, providers: Collection[Provider], now: datetime, beside: str | None = None) -> Token:
    """What a good token of one of the trust domain's identity providers says; TokenRefused for any other.

    `beside` is the access token that rides along, if one does: an ID token must speak for it.
    """
    try:
        parts = decode(raw)
    except Malformed:
        raise TokenRefused("malformed") from None
    provider = _issuer(parts.claims, providers)
    moment = (now - _EPOCH) // timedelta(microseconds=1)
    _require(moment < provider.not_after * 1_000_000, "stale_keys")
    _require(_header_is_good(parts.header, provider), "header")
    key = _known_key(parts.header, provider)
    _require(_key_is_good(key, str(parts.header["alg"])), "key")
    _require(_in_time(parts.claims, provider.leeway * 1_000_000, moment), "times")
    audiences = _audiences(parts.claims)
    _require(bool(audiences) and _claims_are_good(parts.claims), "claims")
    _require(beside is None or _speaks_for(parts, beside), "at_hash")
    _require(_is_authentic(parts, key), "signature")
    claims = {name: _texts(value) for name, value in parts.claims.items()}
    return Token(
        provider.name,
        audiences,
        {name: values for name, values in claims.items() if values is not None},
        frozenset(scope for name in ("scope", "scp") for text in claims.get(name) or () for scope in text.split(" "))
        - {""},
    )


def _require(holds: bool, reason: RefusalReason) -> None:
    if not holds:
        raise TokenRefused(reason)


def _issuer(claims: Object, providers: Collection[Provider]) -> Provider:
    """The one provider with the token's issuer: two would leave open which of them vouches."""
    issuer = claims.get("iss")
    named = [provider for provider in providers if is_text(issuer) and provider.issuer == issuer]
    _require(len(named) == 1, "issuer")
    return named[0]


def _header_is_good(header: Object, provider: Provider) -> bool:
    algorithm, kid = header.get("alg"), header.get("kid")
    return (
        is_text(algorithm)
        and algorithm in provider.algorithms
        and algorithm in KEYS
        and is_text(kid)
        and kid != ""
        and _is_accepted_type(header.get("typ", "JWT"))
        and header.keys().isdisjoint(_REFUSED_PARAMETERS)
    )


def _is_accepted_type(name: object) -> bool:
    return isinstance(name, str) and is_text(name) and name in TYPES


def _known_key(header: Object, provider: Provider) -> Object:
    document = json.loads(provider.jwks)
    found: list[Object] = [key for key in document["keys"] if key.get("kid") == header["kid"]]
    _require(len(found) == 1, "unknown_key")
    return found[0]


def _key_is_good(key: Object, algorithm: str) -> bool:
    modulus, operations = key.get("n"), key.get("key_ops", ["verify"])
    return (
        KEYS[algorithm].items() <= key.items()
        and key.get("alg", algorithm) == algorithm
        and key.get("use", "sig") == "sig"
        and isinstance(operations, list)
        and "verify" in operations
        and (key["kty"] != "RSA" or (isinstance(modulus, str) and len(modulus) in RSA_MODULUS_CHARACTERS))
    )


def _in_time(claims: Object, leeway: int, moment: int) -> bool:
    """Judge the times; `leeway` and `moment` (since 1970) are in microseconds."""
    expiry, issued = seconds(claims.get("exp")), seconds(claims.get("iat"))
    start = seconds(claims["nbf"]) if "nbf" in claims else issued
    if expiry is None or issued is None or start is None:
        return False
    latest = max(start, issued)
    return (
        expiry * 1_000_000 > moment - leeway
        and latest * 1_000_000 <= moment + leeway
        and expiry > latest + 1  # Rego verifies as of the second after it began
        and expiry - issued <= MAX_LIFETIME
    )


def _audiences(claims: Object) -> frozenset[str]:
    """For whom it is; nobody when `aud` is malformed, or when an ID token for several does not name its one party."""
    named = _named_audiences(claims.get("aud"))
    if claims.keys().isdisjoint(_ID_TOKEN_CLAIMS):
        return frozenset(named)
    if "azp" in claims:
        party = claims["azp"]
        return frozenset({str(party)}) if is_text(party) and party in named else frozenset()
    return frozenset(named) if len(named) == 1 else frozenset()


def _named_audiences(value: object) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    if len(values) > MAX_AUDIENCES or not all(is_text(one) and one for one in values):
        return ()
    return tuple(values)


def _claims_are_good(claims: Object) -> bool:
    subject = claims.get("sub", "absent")
    return (
        claims.keys().isdisjoint(_REFUSED_CLAIMS)
        and isinstance(subject, str)
        and is_text(subject)
        and _SUBJECT.fullmatch(subject) is not None
        and is_text(claims.get("at_hash", ""))
        and is_text(claims.get("azp", ""))
    )


def _speaks_for(parts: Parts, access: str) -> bool:
    """Compare `at_hash`, the left half of a SHA-256; an access token has none and speaks for itself."""
    if str(parts.header.get("typ")) in _ACCESS_TYPES:
        return True
    if parts.header["alg"] not in _DIGESTED or len(access) > MAX_CHARACTERS or not _ACCESS_TOKEN.fullmatch(access):
        return False
    half = hashlib.sha256(access.encode()).digest()[:16]
    return parts.claims.get("at_hash") == base64.urlsafe_b64encode(half).rstrip(b"=").decode()


def _texts(value: object) -> tuple[str, ...] | None:
    """What a policy can ask for: texts and booleans, and lists with some; None for numbers and objects."""
    if isinstance(value, list):
        return tuple(text for one in value if (text := _text(one)) is not None)
    text = _text(value)
    return None if text is None else (text,)


def _text(value: object) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) and not isinstance(value, Number) else None


def _is_authentic(parts: Parts, key: Object) -> bool:
    """Verify the signature with this one key: joserfc's own choice of keys takes a token without a kid."""
    name = str(parts.header["alg"])
    algorithm = JWSRegistry.algorithms["Ed25519" if name == "EdDSA" else name]  # one thing; RFC 9864 renamed it
    try:
        public = JWKRegistry.import_key({member: str(key[member]) for member in _KEY_MEMBERS if member in key})
        algorithm.check_key(public)
        return algorithm.verify(parts.signed, parts.signature, public)
    except (JoseError, ValueError):
        return False
