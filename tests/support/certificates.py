"""Certificates for tests, good by default, with every part switchable.

Written with cryptography directly, and without the operator's own code, which is what they judge.
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
TRUST_DOMAIN = "example.org"
SPIFFE_ID = "spiffe://example.org/ns/shop/sa/orders"

BOTH_PURPOSES = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)

JWK_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521", "secp256k1": "secp256k1"}

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
Change = dict[str, Any]


def new_key() -> Key:
    return ec.generate_private_key(ec.SECP256R1())


@dataclass(frozen=True)
class Template:
    """What one certificate says. An extension whose field is None is left out."""

    common_name: str | None = None
    uris: tuple[bytes, ...] = ()
    other_names: tuple[x509.GeneralName, ...] = ()
    names_critical: bool = False
    ca: bool | None = False
    path_length: int | None = None
    constraints_critical: bool = True
    usage: frozenset[str] | None = frozenset()
    usage_critical: bool = True
    purposes: tuple[x509.ObjectIdentifier, ...] | None = None
    not_before: datetime = NOW - timedelta(hours=1)
    not_after: datetime = NOW + timedelta(hours=1)
    subject_key_id: bytes | None = b"derive"
    authority_key_id: bytes | None = b"derive"
    extra: tuple[tuple[x509.ExtensionType, bool], ...] = ()
    key: Key = field(default_factory=new_key)
    hash: hashes.SHA224 | hashes.SHA256 = field(default_factory=hashes.SHA256)
    issuer_name: str | None = None


LEAF = Template(
    uris=(SPIFFE_ID.encode(),),
    names_critical=True,
    usage=frozenset({"digital_signature"}),
    purposes=BOTH_PURPOSES,
)
AUTHORITY = Template(
    ca=True,
    uris=(b"spiffe://example.org",),
    usage=frozenset({"key_cert_sign", "crl_sign"}),
    not_before=NOW - timedelta(days=30),
    not_after=NOW + timedelta(days=30),
)


@dataclass(frozen=True)
class Issued:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: Key


@dataclass(frozen=True)
class Svid:
    """All that a workload has: leaf first in `chain`, the authorities in `bundle`."""

    chain: tuple[x509.Certificate, ...]
    bundle: tuple[x509.Certificate, ...]
    key: Key

    @property
    def spiffe_bundle(self) -> bytes:
        return bundle_document(self.bundle)


def a_root(**changes: Any) -> Issued:
    """A self-signed authority."""
    return issue(_fresh(AUTHORITY, {"common_name": "root", **changes}), None)


def an_intermediate(issuer: Issued, **changes: Any) -> Issued:
    return issue(_fresh(AUTHORITY, {"common_name": "intermediate", "path_length": 0, **changes}), issuer)


def a_leaf(issuer: Issued, **changes: Any) -> Issued:
    return issue(_fresh(LEAF, changes), issuer)


def an_svid(*, leaf: Change | None = None, intermediate: Change | None = None, root: Change | None = None) -> Svid:
    """A good SVID of two levels (root in the bundle, one intermediate in the chain), but for the given changes."""
    top = a_root(**(root or {}))
    middle = an_intermediate(top, **(intermediate or {}))
    end = a_leaf(middle, **(leaf or {}))
    return Svid((end.certificate, middle.certificate), (top.certificate,), end.key)


def _fresh(template: Template, changes: Change) -> Template:
    return replace(template, **{"key": new_key(), **changes})


def issue(template: Template, issuer: Issued | None) -> Issued:
    """Sign what the template says; without an issuer, with its own key."""
    subject = _name(template.common_name)
    issuer_name = subject if issuer is None else issuer.certificate.subject
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer_name if template.issuer_name is None else _name(template.issuer_name))
        .public_key(template.key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(template.not_before)
        .not_valid_after(template.not_after)
    )
    for value, critical in _extensions(template, issuer):
        builder = builder.add_extension(value, critical)
    signer = template.key if issuer is None else issuer.key
    return Issued(builder.sign(signer, template.hash), template.key)


def _name(common_name: str | None) -> x509.Name:
    return x509.Name([] if common_name is None else [x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _extensions(template: Template, issuer: Issued | None) -> list[tuple[x509.ExtensionType, bool]]:
    found: list[tuple[x509.ExtensionType, bool]] = []
    if template.uris or template.other_names:
        found.append((_names(template), template.names_critical))
    if template.ca is not None:
        constraints = x509.BasicConstraints(template.ca, template.path_length if template.ca else None)
        found.append((constraints, template.constraints_critical))
    if template.usage is not None:
        found.append((key_usage(template.usage), template.usage_critical))
    if template.purposes is not None:
        found.append((x509.ExtendedKeyUsage(template.purposes), False))
    if template.subject_key_id is not None:
        found.append((_subject_key_id(template), False))
    if template.authority_key_id is not None and issuer is not None:
        found.append((_authority_key_id(template.authority_key_id, issuer), False))
    return [*found, *template.extra]


def _names(template: Template) -> x509.ExtensionType:
    """Encode the SAN by hand: cryptography refuses to write some URIs that an attacker could."""
    others = x509.SubjectAlternativeName(template.other_names).public_bytes() if template.other_names else b"\x30\x00"
    uris = b"".join(der(0x86, uri) for uri in template.uris)
    return x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, der(0x30, uris + contents(others)))


def key_usage(usages: frozenset[str]) -> x509.KeyUsage:
    return x509.KeyUsage(**{usage: usage in usages for usage in USAGES})


def _subject_key_id(template: Template) -> x509.SubjectKeyIdentifier:
    if template.subject_key_id == b"derive":
        return x509.SubjectKeyIdentifier.from_public_key(template.key.public_key())
    assert template.subject_key_id is not None
    return x509.SubjectKeyIdentifier(template.subject_key_id)


def _authority_key_id(wanted: bytes, issuer: Issued) -> x509.AuthorityKeyIdentifier:
    if wanted == b"derive":
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
    return x509.AuthorityKeyIdentifier(wanted, None, None)


def as_version_1(issued: Issued, signer: Key) -> x509.Certificate:
    """The same certificate as X.509 v1: without version and extensions, signed again. No builder writes one."""
    body = contents(issued.certificate.tbs_certificate_bytes)
    fields = [encoded for tag, encoded in _elements(body) if tag not in (0xA0, 0xA3)]
    signed = der(0x30, b"".join(fields))
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    signature = signer.sign(signed, ec.ECDSA(hashes.SHA256()))
    outer = issued.certificate.public_bytes(serialization.Encoding.DER)
    algorithm = _elements(contents(outer))[1][1]
    return x509.load_der_x509_certificate(der(0x30, signed + algorithm + der(0x03, b"\x00" + signature)))


def der(tag: int, content: bytes) -> bytes:
    """One DER element."""
    length = len(content)
    if length < 0x80:
        return bytes([tag, length]) + content
    size = length.to_bytes((length.bit_length() + 7) // 8)
    return bytes([tag, 0x80 | len(size)]) + size + content


def contents(element: bytes) -> bytes:
    return element[_header(element) :]


def _header(element: bytes) -> int:
    return 2 if element[1] < 0x80 else 2 + (element[1] & 0x7F)


def _elements(content: bytes) -> list[tuple[int, bytes]]:
    found = []
    while content:
        header = _header(content)
        length = content[1] if header == 2 else int.from_bytes(content[2:header])
        found.append((content[0], content[: header + length]))
        content = content[header + length :]
    return found


def bundle_document(authorities: Sequence[x509.Certificate], **members: Any) -> bytes:
    """A `bundle.spiffe.json` of these authorities; `members` are set beside `keys`, or replace it. None drops one."""
    document = {
        "spiffe_sequence": 1,
        "spiffe_refresh_hint": 300,
        "keys": [jwk(authority) for authority in authorities],
        **members,
    }
    return json.dumps({name: value for name, value in document.items() if value is not None}).encode()


def jwk(authority: x509.Certificate) -> dict[str, Any]:
    """The x509-svid entry of an authority."""
    encoded = base64.b64encode(authority.public_bytes(serialization.Encoding.DER)).decode()
    key = authority.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        members = {"kty": "RSA", "n": _base64url(numbers.n, key.key_size // 8), "e": _base64url(numbers.e, 3)}
    else:
        assert isinstance(key, ec.EllipticCurvePublicKey)
        point, size = key.public_numbers(), (key.key_size + 7) // 8
        curve = JWK_CURVES[key.curve.name]
        members = {"kty": "EC", "crv": curve, "x": _base64url(point.x, size), "y": _base64url(point.y, size)}
    return {"use": "x509-svid", **members, "x5c": [encoded]}


def _base64url(number: int, size: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes(size)).rstrip(b"=").decode()


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in certificates)


def key_pem(key: Key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
