"""The rules of a `bundle.spiffe.json`: SPIFFE_Trust_Domain_and_Bundle.md §4 and X509-SVID.md §6."""

import base64
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NoReturn

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from zerotrust.pki.conformance.path import signed_by
from zerotrust.pki.conformance.reading import UNPARSABLE
from zerotrust.pki.conformance.rule import (
    Advice,
    Evidence,
    Finding,
    NotApplicable,
    Rule,
    Verdict,
    cannot_show,
    is_authority,
    quote,
)

X509_USE = "x509-svid"
_KNOWN_USES = frozenset({X509_USE, "jwt-svid", "wit-svid"})
_KNOWN_KEY_TYPES = frozenset({"EC", "RSA", "OKP"})
_PUBLIC_MEMBERS = frozenset({"kty", "use", "alg", "kid", "x5c", "crv", "x", "y", "n", "e"})
_PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
_LARGEST_SEQUENCE = 2**64 - 1

Jwk = Mapping[str, object]


class UnusableBundle(ValueError):
    """The bytes are no JWK Set; the message says why."""


@dataclass(frozen=True)
class Document:
    """A parsed bundle: its members, and `keys` where that is an array of objects (otherwise None)."""

    members: Mapping[str, object]
    keys: tuple[Jwk, ...] | None


def read_document(raw: bytes) -> Document:
    """Parse a JWK Set (RFC 7517 §5) strictly: UTF-8, one JSON object, no member named twice, anywhere."""
    try:
        members = json.loads(raw.decode("utf-8"), object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise UnusableBundle("the bundle document is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise UnusableBundle(f"the bundle document is not JSON: {error.msg} at line {error.lineno}") from None
    except RecursionError:
        raise UnusableBundle("the bundle document is nested too deeply") from None
    except UnusableBundle:
        raise
    except ValueError:
        raise UnusableBundle("the bundle document has a number that is too long to read") from None
    if not isinstance(members, dict):
        raise UnusableBundle("the bundle document is not a JSON object; required is a JWK Set")
    keys = members.get("keys")
    if not isinstance(keys, list):
        return Document(members, None)
    for at, key in enumerate(keys):
        if not isinstance(key, dict):
            raise UnusableBundle(f"keys[{at}] is not a JSON object; required is a JWK")
    return Document(members, tuple(keys))


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) < len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise UnusableBundle(f"the member {quote(twice)} stands twice in one object; readers differ in which they take")
    return members


def _no_constant(name: str) -> NoReturn:
    raise UnusableBundle(f"the bundle document has {name}, which is not JSON")


def x509_authorities(raw: bytes) -> list[x509.Certificate]:
    """Extract the authorities as a consumer does (X509-SVID §6.2): the first `x5c` value of each x509-svid entry.

    Entries without a certificate that can be read are ignored. Raises UnusableBundle when it is no JWK Set.
    """
    return _authorities(read_document(raw))


def _authorities(document: Document) -> list[x509.Certificate]:
    first_values = (_x5c(jwk)[:1] for _, jwk in _x509_entries(document))
    certificates = (_certificate(value) for values in first_values for value in values)
    return [certificate for certificate in certificates if certificate is not None]


def _x509_entries(document: Document) -> list[tuple[str, Jwk]]:
    return [(f"keys[{at}]", jwk) for at, jwk in enumerate(document.keys or ()) if jwk.get("use") == X509_USE]


def _x5c(jwk: Jwk) -> list[object]:
    values = jwk.get("x5c")
    return values if isinstance(values, list) else []


def _certificate(value: object) -> x509.Certificate | None:
    """Read one `x5c` value: standard base64 of DER (RFC 7517 §4.7), None when it is not a usable certificate."""
    try:
        certificate = x509.load_der_x509_certificate(base64.b64decode(value, validate=True))  # type: ignore[arg-type]
        certificate.extensions  # noqa: B018  parsed lazily, and what cannot be parsed cannot be judged
        certificate.public_key()
    except UNPARSABLE:
        return None
    return certificate


def is_a_jwk_set(raw: bytes) -> Verdict:
    """B1: the document is a JWK Set, and each key's own members agree with its certificate (RFC 7517 §4.7)."""
    try:
        document = read_document(raw)
    except UnusableBundle as error:
        return Finding(str(error))
    for name, jwk in _x509_entries(document):
        certificate = _certificate(_x5c(jwk)[0]) if _x5c(jwk) else None
        expected = None if certificate is None else _public_members(certificate)
        if expected is None:
            continue
        for member, value in expected.items():
            if jwk.get(member) != value:
                return Finding(f"{name}: {member} is not that of the certificate in x5c; the two must be the same key")
    return None


def _public_members(certificate: x509.Certificate) -> dict[str, str] | None:
    """Return the JWK members of the certificate's key (RFC 7518 §6), None for a kind of key that has none here."""
    match certificate.public_key():
        case rsa.RSAPublicKey() as key:
            n, e = key.public_numbers().n, key.public_numbers().e
            return {"kty": "RSA", "n": _base64url(n, n.bit_length()), "e": _base64url(e, e.bit_length())}
        case ec.EllipticCurvePublicKey() as key if key.curve.name in _CURVES:
            point, bits = key.public_numbers(), key.curve.key_size
            coordinates = {"x": _base64url(point.x, bits), "y": _base64url(point.y, bits)}
            return {"kty": "EC", "crv": _CURVES[key.curve.name], **coordinates}
    return None


def _base64url(number: int, bits: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes((bits + 7) // 8)).rstrip(b"=").decode()


def sequence_is_a_number(document: Document, _evidence: Evidence) -> Verdict:
    """B2: the sequence number is an integer that 64 bits hold; that it grows takes two documents to see."""
    if "spiffe_sequence" not in document.members:
        return Advice("spiffe_sequence is not set; set it, and raise it with every change")
    sequence = document.members["spiffe_sequence"]
    if type(sequence) is not int or not 0 <= sequence <= _LARGEST_SEQUENCE:
        return Finding("spiffe_sequence is not a whole number from 0 to 2^64-1")
    return None


def refresh_hint_is_in_seconds(document: Document, _evidence: Evidence) -> Verdict:
    """B3: the refresh hint is a whole number of seconds."""
    if "spiffe_refresh_hint" not in document.members:
        return Advice("spiffe_refresh_hint is not set; consumers then look every five minutes")
    hint = document.members["spiffe_refresh_hint"]
    if type(hint) is not int or hint < 0:
        return Finding("spiffe_refresh_hint is not a whole number of seconds")
    return Advice("spiffe_refresh_hint is 0, which names no interval") if hint == 0 else None


def keys_are_there(document: Document, _evidence: Evidence) -> Verdict:
    """B4: `keys` is an array; an empty one revokes everything, so no SVID passes with it."""
    if "keys" not in document.members:
        return Finding("the bundle document has no keys; required is an array of JWKs")
    if document.keys is None:
        return Finding("keys is not an array; required is an array of JWKs")
    if not document.keys:
        return Finding("keys is empty: the trust domain has revoked everything, no SVID of it is to be trusted")
    return None


def every_key_says_its_type_and_use(document: Document, _evidence: Evidence) -> Verdict:
    """B5: each JWK has kty and use; consumers ignore those whose kty or use they do not know."""
    for at, jwk in enumerate(document.keys or ()):
        for member in ("kty", "use"):
            if not isinstance(jwk.get(member), str):
                return Finding(f"keys[{at}] has no {member}; required, consumers ignore the key otherwise")
    for at, jwk in enumerate(document.keys or ()):
        for member, known in (("kty", _KNOWN_KEY_TYPES), ("use", _KNOWN_USES)):
            if jwk[member] not in known:
                value = quote(str(jwk[member]))
                return Advice(f"keys[{at}] has the {member} {value}, which is unknown here: the key is ignored")
    return None


def nothing_undefined_is_added(document: Document, _evidence: Evidence) -> Verdict:
    """B6: a JWK holds what the specifications define, and never the private half of its key."""
    for at, jwk in enumerate(document.keys or ()):
        private = sorted(_PRIVATE_MEMBERS & jwk.keys())
        if private:
            return Finding(f"keys[{at}] has {', '.join(private)}: private key material; replace that authority now")
    for at, jwk in enumerate(document.keys or ()):
        undefined = sorted(jwk.keys() - _PUBLIC_MEMBERS)
        if undefined:
            return Advice(f"keys[{at}] has {quote(', '.join(undefined))}, which no SPIFFE specification defines")
    return None


def each_entry_is_one_authority(document: Document, _evidence: Evidence) -> Verdict:
    """X15: an x509-svid entry has no kid, and an x5c with exactly one CA certificate, which should be self-signed."""
    for name, jwk in _x509_entries(document):
        if "kid" in jwk:
            return Finding(f"{name} has a kid; an {X509_USE} entry must not")
        if len(_x5c(jwk)) != 1:
            return Finding(f"{name} has {len(_x5c(jwk))} values in x5c; required is exactly one CA certificate")
        certificate = _certificate(_x5c(jwk)[0])
        if certificate is None:
            return Finding(f"{name}: x5c does not hold the base64 of a DER certificate")
        if not is_authority(certificate):
            return Finding(f"{name}: the certificate in x5c is no CA (cA=true and keyCertSign); required is one")
        if not signed_by(certificate, certificate):
            return Advice(f"{name}: the certificate in x5c is not self-signed, which some validators require of a root")
    return None


def document_yields_the_bundle(document: Document, evidence: Evidence) -> Verdict:
    """X16: what a consumer extracts from the document is the bundle that the SVID is judged by."""
    extracted = _authorities(document)
    if document.keys and not extracted:
        return Finding(f"the bundle document has no usable {X509_USE} entry: the trust domain has no X509-SVIDs")
    if not extracted:
        return NotApplicable("the bundle document has no keys (see B4)")
    if set(extracted) != set(evidence.bundle):
        only_document = len(set(extracted) - set(evidence.bundle))
        only_bundle = len(set(evidence.bundle) - set(extracted))
        return Finding(
            f"the bundle document and the PEM bundle differ: {only_document} certificates only in the document, "
            f"{only_bundle} only in the PEM; both must hold the same authorities"
        )
    return None


def _of_the_bytes(check: Callable[[bytes], Verdict]) -> Callable[[Evidence], Verdict]:
    def rule(evidence: Evidence) -> Verdict:
        if evidence.spiffe_bundle is None:
            return NotApplicable("no SPIFFE bundle document was given")
        return check(evidence.spiffe_bundle)

    return rule


def _of_the_document(check: Callable[[Document, Evidence], Verdict]) -> Callable[[Evidence], Verdict]:
    def rule(evidence: Evidence) -> Verdict:
        if evidence.spiffe_bundle is None:
            return NotApplicable("no SPIFFE bundle document was given")
        try:
            document = read_document(evidence.spiffe_bundle)
        except UnusableBundle:
            return NotApplicable("the bundle document cannot be read (see B1)")
        return check(document, evidence)

    return rule


RULES = (
    Rule(
        "X15",
        "X509-SVID §6.1",
        "an x509-svid entry has no kid and exactly one CA certificate",
        _of_the_document(each_entry_is_one_authority),
    ),
    Rule(
        "X16",
        "X509-SVID §6.2",
        "a consumer extracts the same authorities from the document",
        _of_the_document(document_yields_the_bundle),
    ),
    Rule("B1", "SPIFFE-Bundle §4", "the bundle document is a JWK Set", _of_the_bytes(is_a_jwk_set)),
    Rule(
        "B2",
        "SPIFFE-Bundle §4.1.1",
        "spiffe_sequence is an integer, and set",
        _of_the_document(sequence_is_a_number),
    ),
    Rule(
        "B3",
        "SPIFFE-Bundle §4.1.2",
        "spiffe_refresh_hint is a whole number of seconds, and set",
        _of_the_document(refresh_hint_is_in_seconds),
    ),
    Rule(
        "B4",
        "SPIFFE-Bundle §4.1.3",
        "keys is present, and not empty where an SVID is to pass",
        _of_the_document(keys_are_there),
    ),
    Rule(
        "B5",
        "SPIFFE-Bundle §4.2",
        "every key says its kty and use",
        _of_the_document(every_key_says_its_type_and_use),
    ),
    Rule(
        "B6",
        "SPIFFE-Bundle §4.2",
        "keys have no undefined parameters, and no private ones",
        _of_the_document(nothing_undefined_is_added),
    ),
    Rule(
        "B7",
        "SPIFFE-Bundle §5.1",
        "a bundle map has trust_domains, each name once",
        cannot_show("a bundle of one trust domain is no bundle map"),
    ),
    Rule(
        "B9",
        "SPIFFE-Bundle §6.2",
        "a root key serves one trust domain",
        cannot_show("only the bundles of all trust domains together show it"),
    ),
)
