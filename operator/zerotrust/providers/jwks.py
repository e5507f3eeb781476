"""JSON Web Key Sets (RFC 7517 §5) of identity providers: read once, kept only as far as decision points can use them.

OPA refuses a whole set for one key that it does not know, and reads a secret as readily as a public key; so what goes into a
bundle is written anew: public signature keys, known members, one order.
"""

import base64
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry

from zerotrust.common.errors import ZerotrustError

MAX_BYTES = 65_536
MAX_KEYS = 64
MAX_KID = 256
MIN_RSA_BITS, MAX_RSA_BITS = 2048, 8192

# RFC 7518 §3.1 and RFC 8037 §3.1: each algorithm's key. There is no entry for `none` and none for shared secrets.
KEYS: Mapping[str, Mapping[str, str]] = {
    "ES256": {"kty": "EC", "crv": "P-256"},
    "ES384": {"kty": "EC", "crv": "P-384"},
    "ES512": {"kty": "EC", "crv": "P-521"},
    "EdDSA": {"kty": "OKP", "crv": "Ed25519"},
    **{f"{family}{bits}": {"kty": "RSA"} for family in ("RS", "PS") for bits in (256, 384, 512)},
}
# What makes a public key (RFC 7518 §6, RFC 8037 §2). An RSA key that has `d`, `p`, … is published without them.
_MATERIAL = {"EC": ("crv", "x", "y"), "OKP": ("crv", "x"), "RSA": ("n", "e")}
# The octets of a coordinate: a shorter one is another text of the same key, which not every reader takes.
_COORDINATE = {"P-256": 32, "P-384": 48, "P-521": 66, "Ed25519": 32}
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")

Jwk = Mapping[str, object]


class UnusableKeys(ZerotrustError):
    """The bytes are no JWK Set with a key that can be used; the message says why and quotes none of it."""


@dataclass(frozen=True)
class KeySet:
    """The usable keys of a provider by key ID, in order of their IDs, and how many entries were left out."""

    keys: Mapping[str, Jwk]
    dropped: int = 0

    def text(self) -> str:
        """The set as canonical JSON: the same keys give the same text."""
        return json.dumps({"keys": list(self.keys.values())}, sort_keys=True, separators=(",", ":"))


def parse(raw: bytes) -> KeySet:
    """Read a JWK Set of at most 64 KiB and 64 keys and keep the public signature keys that an algorithm of ours can use.

    Shared secrets, keys for encryption, keys without an ID, weak RSA keys and unknown kinds are left out. Raises UnusableKeys
    when it is no JWK Set, when a member or a usable key ID stands in it twice, and when nothing is left.
    """
    entries = _entries(raw)
    usable = [key for key in map(_usable, entries) if key is not None]
    for kid, times in Counter(str(key["kid"]) for key in usable).items():
        if times > 1:
            raise UnusableKeys(f"the JWK Set has {times} keys with the kid of keys[{_position(entries, kid)}]")
    if not usable:
        raise UnusableKeys(f"none of the JWK Set's {len(entries)} keys is a public signature key with a kid")
    keys = {str(key["kid"]): key for key in sorted(usable, key=lambda key: str(key["kid"]))}
    return KeySet(keys, len(entries) - len(keys))


def join(current: KeySet, retired: Mapping[str, Jwk]) -> KeySet:
    """The current keys and those retired ones whose ID is free, as far as they fit into one set, the current ones first."""
    free = {kid: key for kid, key in sorted(retired.items()) if kid not in current.keys}
    room = max(0, MAX_KEYS - len(current.keys))
    joined = {**current.keys, **dict(list(free.items())[:room])}
    return KeySet(dict(sorted(joined.items())), current.dropped)


def _entries(raw: bytes) -> list[object]:
    if len(raw) > MAX_BYTES:
        raise UnusableKeys(f"the JWK Set is longer than {MAX_BYTES} bytes")
    try:
        document = json.loads(raw.decode("utf-8"), object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
    except UnusableKeys:
        raise
    except (ValueError, RecursionError):
        raise UnusableKeys("the JWK Set is not JSON in UTF-8") from None
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list):
        raise UnusableKeys("the JWK Set is not a JSON object with a list `keys`")
    if len(keys) > MAX_KEYS:
        raise UnusableKeys(f"the JWK Set has {len(keys)} keys; at most {MAX_KEYS} are read")
    return keys


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise UnusableKeys("the JWK Set names a member twice in one object; readers differ in which they take")
    return members


def _no_constant(_: str) -> NoReturn:
    raise UnusableKeys("the JWK Set is not JSON in UTF-8")


def _usable(entry: object) -> Jwk | None:
    """The public part of a signature key with the members that a verifier judges; None for anything else."""
    if not isinstance(entry, dict) or not _is_for_signatures(entry):
        return None
    kid, kind, algorithm = entry.get("kid"), entry.get("kty"), entry.get("alg")
    if not isinstance(kid, str) or not 0 < len(kid) <= MAX_KID or not kid.isprintable():
        return None
    if not isinstance(kind, str) or kind not in _MATERIAL:
        return None
    material = {"kty": kind, **{member: entry.get(member) for member in _MATERIAL[kind]}}
    fitting = [name for name, wanted in KEYS.items() if wanted.items() <= material.items()]
    if not fitting or (algorithm is not None and algorithm not in fitting) or not _is_sound(material):
        return None
    return {**material, "kid": kid, "use": "sig"} | ({"alg": algorithm} if algorithm is not None else {})


def _is_for_signatures(entry: Mapping[str, object]) -> bool:
    operations = entry.get("key_ops", ["verify"])
    return entry.get("use", "sig") == "sig" and isinstance(operations, list) and "verify" in operations


def _is_sound(material: Mapping[str, object]) -> bool:
    """Tell whether the numbers are written as RFC 7518 §6 says and make a key that is strong enough."""
    numbers: dict[str, bytes] = {}
    for member in set(material) - {"kty", "crv"}:
        octets = _octets(material[member])
        if octets is None:
            return False
        numbers[member] = octets
    if material["kty"] == "RSA":
        exponent, modulus = (int.from_bytes(numbers[member]) for member in ("e", "n"))
        if not (MIN_RSA_BITS <= modulus.bit_length() <= MAX_RSA_BITS and 2 < exponent < 2**31 and exponent % 2):
            return False
        if numbers["n"][0] == 0 or numbers["e"][0] == 0:
            return False
    elif any(len(octets) != _COORDINATE[str(material["crv"])] for octets in numbers.values()):
        return False
    try:
        return not JWKRegistry.import_key(dict(material)).is_private  # type: ignore[arg-type]
    except (JoseError, ValueError):  # a point that is not on its curve
        return False


def _octets(text: object) -> bytes | None:
    if not isinstance(text, str) or not _BASE64URL.fullmatch(text) or len(text) % 4 == 1:
        return None
    octets = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    return octets if base64.urlsafe_b64encode(octets).rstrip(b"=").decode() == text else None


def _position(entries: list[object], kid: str) -> int:
    return next(at for at, entry in enumerate(entries) if isinstance(entry, dict) and entry.get("kid") == kid)
