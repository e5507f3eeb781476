"""X.509 profiles for SVIDs and their authorities, by construction, and the check of a chain.

Sources: X509-SVID.md sections 2 to 5 (rules X1 to X14), RFC 5280 §4.2.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from zerotrust.pki.keys import PrivateKey, PublicKey, signature_hash, spki
from zerotrust.pki.spiffe import InvalidSpiffeID, SpiffeID


class UnreadableCertificate(ValueError):
    """The bytes hold no certificate that can be used; the message says what is wrong."""


class ChainError(ValueError):
    """A chain does not verify; the message says why."""


@dataclass(frozen=True)
class LeafProfile:
    """Everything that goes into a workload's certificate; times are aware and in whole seconds."""

    spiffe_id: SpiffeID
    public_key: PublicKey
    serial_number: int
    not_before: datetime
    not_after: datetime
    dns_names: tuple[str, ...] = ()


def sign_leaf(profile: LeafProfile, authority: x509.Certificate, key: PrivateKey) -> x509.Certificate:
    """Issue an X509-SVID: one URI SAN, no subject (so the SAN is critical), both TLS usages, never a CA."""
    if not profile.spiffe_id.path:
        raise ValueError("a leaf's SPIFFE ID has a path")
    uri = x509.UniformResourceIdentifier(str(profile.spiffe_id))
    names = x509.SubjectAlternativeName([uri, *(x509.DNSName(name) for name in profile.dns_names)])
    return (
        _builder(profile.public_key, profile.serial_number, profile.not_before, profile.not_after)
        .subject_name(x509.Name([]))
        .issuer_name(authority.subject)
        .add_extension(names, critical=True)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(digital_signature=True), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(_authority_key_identifier(authority), critical=False)
        .sign(key, signature_hash(key))
    )


def self_signed_authority(
    trust_domain: str, key: PrivateKey, serial_number: int, not_before: datetime, not_after: datetime
) -> x509.Certificate:
    """Make a signing certificate that carries the trust domain's own ID, may sign leaves and CRLs, and no further CA."""
    public_key = key.public_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"zerotrust authority {authority_id(public_key)}")])
    own_id = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(SpiffeID(trust_domain)))])
    return (
        _builder(public_key, serial_number, not_before, not_after)
        .subject_name(name)
        .issuer_name(name)
        .add_extension(own_id, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .sign(key, signature_hash(key))
    )


def authority_id(public_key: PublicKey) -> str:
    """A short stable name for an authority: the first 16 hex digits of its public key's SHA-256."""
    return hashlib.sha256(spki(public_key)).hexdigest()[:16]


def subject_key_id(certificate: x509.Certificate) -> str:
    """The certificate's subject key identifier in hex, empty when it has none."""
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest.hex()
    except x509.ExtensionNotFound:
        return ""


def key_id_in_children(authority: x509.Certificate) -> str:
    """The authority key identifier that certificates signed by this one carry, in hex."""
    identifier = _authority_key_identifier(authority).key_identifier
    return identifier.hex() if identifier else ""


def spiffe_ids(certificate: x509.Certificate) -> tuple[str, ...]:
    """Every URI SAN as it stands in the certificate."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    return tuple(names.get_values_for_type(x509.UniformResourceIdentifier))


def dns_names(certificate: x509.Certificate) -> tuple[str, ...]:
    """Every DNS SAN."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    return tuple(names.get_values_for_type(x509.DNSName))


def is_authority(certificate: x509.Certificate) -> bool:
    """Tell whether the certificate may sign others: cA=true and keyCertSign (rule X5)."""
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except (x509.ExtensionNotFound, ValueError):
        return False
    return constraints.ca and usage.key_cert_sign


def verify_chain(chain: Sequence[x509.Certificate], roots: Sequence[x509.Certificate], at: datetime) -> None:
    """Check that `chain` (leaf first) leads to one of `roots` at that time; ChainError says where it breaks.

    This is the operator's self-check of what it signed or finds in a Secret; the full rule set is in `conformance`.
    """
    if not chain:
        raise ChainError("there is no certificate")
    for certificate in chain:
        _check_validity(certificate, at)
    for child, parent in pairwise(chain):
        _check_signed(child, parent)
    last = chain[-1]
    problem = ChainError("the chain does not lead to a certificate of the trust bundle")
    for root in roots:
        if last == root:
            return
        try:
            _check_signed(last, root)
        except ChainError:
            continue
        try:
            _check_validity(root, at)
        except ChainError as error:
            problem = error  # a renewed root of the same key may stand beside it
            continue
        return
    raise problem


def _check_validity(certificate: x509.Certificate, at: datetime) -> None:
    if at < certificate.not_valid_before_utc:
        raise ChainError(f"a certificate is not valid before {certificate.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}")
    if at > certificate.not_valid_after_utc:
        raise ChainError(f"a certificate expired at {certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}")


def _check_signed(child: x509.Certificate, parent: x509.Certificate) -> None:
    if not is_authority(parent):
        raise ChainError("a certificate of the chain is signed by one that is no authority")
    try:
        child.verify_directly_issued_by(parent)
    except (ValueError, TypeError, InvalidSignature):
        raise ChainError("a certificate of the chain is not signed by the next one") from None


def read_pem(pem: bytes) -> list[x509.Certificate]:
    """Read every certificate of a PEM text; UnreadableCertificate when there is none or one cannot be parsed."""
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise UnreadableCertificate("holds no readable PEM certificate") from None


def write_pem(*certificates: x509.Certificate) -> bytes:
    """Write certificates as PEM, in the order given."""
    return b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in certificates)


def parsed_id(certificate: x509.Certificate) -> SpiffeID | None:
    """The certificate's one SPIFFE ID, or None when it has none, several, or a malformed one."""
    try:
        (text,) = spiffe_ids(certificate)
        return SpiffeID.parse(text)
    except (ValueError, InvalidSpiffeID):
        return None


def _builder(
    public_key: PublicKey, serial_number: int, not_before: datetime, not_after: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .public_key(public_key)
        .serial_number(serial_number)
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _authority_key_identifier(authority: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    try:
        own = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key())  # type: ignore[arg-type]
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
