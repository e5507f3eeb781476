"""The rules of X509-SVID.md on single certificates: the leaf's, and those of the certificates that sign."""

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from zerotrust.pki.conformance.rule import (
    Advice,
    Evidence,
    Finding,
    NotApplicable,
    Rule,
    Verdict,
    cannot_show,
    extension,
    is_authority,
    quote,
    uri_names,
)
from zerotrust.pki.conformance.spiffe_id import is_root, is_spiffe_scheme, signing_ids, split

_BOTH_DIRECTIONS = {
    ExtendedKeyUsageOID.SERVER_AUTH: "serverAuth",
    ExtendedKeyUsageOID.CLIENT_AUTH: "clientAuth",
}


def one_uri_name(evidence: Evidence) -> Verdict:
    """X1: the leaf has exactly one URI SAN; a signing certificate, which may go without an ID, at most one."""
    names = uri_names(evidence.leaf)
    if not names:
        return Finding("the leaf has no URI SAN; required is exactly one, its SPIFFE ID")
    if len(names) > 1:
        return Finding(f"the leaf has {len(names)} URI SANs ({_listed(names)}); required is exactly one, its SPIFFE ID")
    for name, certificate in evidence.signing:
        names = uri_names(certificate)
        if len(names) > 1:
            return Finding(f"{name} has {len(names)} URI SANs ({_listed(names)}); at most one is allowed")
    return None


def _listed(names: tuple[bytes, ...]) -> str:
    """The first few; how many there are is said beside."""
    return ", ".join(map(quote, names[:3]))


def leaf_id_has_a_path(evidence: Evidence) -> Verdict:
    """X3: the leaf's ID names something in the trust domain, not the trust domain itself."""
    names = uri_names(evidence.leaf)
    if not names:
        return NotApplicable("the leaf has no URI SAN (see X1)")
    for raw in names:
        if is_root(split(raw)):
            return Finding(f"the leaf's ID {quote(raw)} has no path; only a signing certificate may carry that")
    return None


def names_are_critical_without_subject(evidence: Evidence) -> Verdict:
    """X4: a SAN that stands for an empty Subject must not be ignorable (RFC 5280 §4.1.2.6)."""
    names = extension(evidence.leaf, x509.SubjectAlternativeName)
    if names is None:
        return NotApplicable("the leaf has no SAN extension (see X1)")
    if len(evidence.leaf.subject) > 0:
        return NotApplicable("the leaf's Subject is not empty")
    if not names.critical:
        return Finding("the leaf's Subject is empty and its SAN extension is not critical; mark it critical")
    return None


def signing_certificates_may_sign(evidence: Evidence) -> Verdict:
    """X5: whatever is there to sign has cA and keyCertSign; an ID that it carries has no path."""
    for name, certificate in evidence.signing:
        constraints = extension(certificate, x509.BasicConstraints)
        if constraints is None or not constraints.value.ca:
            return Finding(f"{name} has not cA=true; required of every certificate behind the leaf and in the bundle")
        usage = extension(certificate, x509.KeyUsage)
        if usage is not None and not usage.value.key_cert_sign:
            return Finding(f"{name} has a key usage without keyCertSign; required of a signing certificate")
    for name, parts in signing_ids(evidence):
        if not is_root(parts):
            return Finding(f"{name} carries the ID {quote(parts.raw)}; a signing certificate's ID has no path")
    return _foreign_authority(evidence)


def _foreign_authority(evidence: Evidence) -> Advice | None:
    homes = {split(raw).host for raw in uri_names(evidence.leaf)}
    for name, parts in signing_ids(evidence):
        if homes and parts.host not in homes:
            return Advice(f"{name} carries {quote(parts.raw)}, an ID outside the leaf's trust domain")
    return None


def signing_keys_never_authenticate(evidence: Evidence) -> Verdict:
    """X6: what authenticates here, the leaf, is no signing certificate and does not share a key with one."""
    if is_authority(evidence.leaf):
        return Finding("the leaf has cA=true and keyCertSign; a signing certificate must not authenticate anybody")
    for name, certificate in evidence.signing:
        if _spki(certificate) == _spki(evidence.leaf):
            return Finding(f"the leaf has the same key as {name}; a signing key must not authenticate anybody")
    for name, certificate in evidence.signing:
        usage = extension(certificate, x509.KeyUsage)
        if usage is not None and usage.value.digital_signature:
            return Advice(f"{name} sets digitalSignature; without it no TLS stack takes it for a leaf (Appendix A)")
    return None


def _spki(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def leaf_is_no_authority(evidence: Evidence) -> Verdict:
    """X7: the leaf's cA is false."""
    constraints = extension(evidence.leaf, x509.BasicConstraints)
    if constraints is None:
        return Advice("the leaf has no basic constraints, which RFC 5280 §4.2.1.9 reads as cA=false; state it")
    if constraints.value.ca:
        return Finding("the leaf has cA=true; required is false")
    return None


def key_usage_is_present_and_critical(evidence: Evidence) -> Verdict:
    """X8: every SVID, leaf or signing, says what its key is for, and nobody may ignore it."""
    for name, certificate in evidence.every:
        usage = extension(certificate, x509.KeyUsage)
        if usage is None:
            return Finding(f"{name} has no key usage extension; required, and critical")
        if not usage.critical:
            return Finding(f"{name} has a key usage extension that is not critical; mark it critical")
    return None


def leaf_key_only_authenticates(evidence: Evidence) -> Verdict:
    """X9: the leaf's key makes digital signatures and signs neither certificates nor CRLs."""
    usage = extension(evidence.leaf, x509.KeyUsage)
    if usage is None:
        return NotApplicable("the leaf has no key usage (see X8)")
    if not usage.value.digital_signature:
        return Finding("the leaf's key usage lacks digitalSignature; required")
    return _signs_for_others(usage.value)


def _signs_for_others(usage: x509.KeyUsage) -> Finding | None:
    if usage.key_cert_sign:
        return Finding("the leaf's key usage has keyCertSign; only a signing certificate may")
    if usage.crl_sign:
        return Finding("the leaf's key usage has cRLSign; only a signing certificate may")
    return None


def extended_key_usage_names_both_directions(evidence: Evidence) -> Verdict:
    """X11: a leaf that restricts its key to purposes is good for both ends of a connection."""
    purposes = extension(evidence.leaf, x509.ExtendedKeyUsage)
    if purposes is None:
        return Advice("the leaf has no extended key usage; set serverAuth and clientAuth")
    missing = [name for oid, name in _BOTH_DIRECTIONS.items() if oid not in purposes.value]
    if missing:
        return Finding(f"the leaf's extended key usage lacks {' and '.join(missing)}; required are both")
    return None


def validator_accepts_the_leaf(evidence: Evidence) -> Verdict:
    """X14: what each validator must check before it believes a leaf; restates parts of X1, S1, X3, X7 and X9."""
    names = uri_names(evidence.leaf)
    if len(names) != 1:
        return Finding(f"a validator must reject the leaf: it has {len(names)} URI SANs; required is one")
    parts = split(names[0])
    if not is_spiffe_scheme(parts):
        return Finding(f"a validator must reject the leaf: {quote(names[0])} has not the scheme spiffe")
    if is_root(parts):
        return Finding(f"a validator must reject the leaf: {quote(names[0])} has no path")
    constraints = extension(evidence.leaf, x509.BasicConstraints)
    if constraints is not None and constraints.value.ca:
        return Finding("a validator must reject the leaf: it has cA=true")
    usage = extension(evidence.leaf, x509.KeyUsage)
    refused = None if usage is None else _signs_for_others(usage.value)
    return Finding(f"a validator must reject the leaf: {refused.message}") if refused else None


def trust_domain_has_an_authority_with_an_id(evidence: Evidence) -> Verdict:
    """S8: the trust domain's signing authority carries an SVID of its own.

    SPIFFE-ID §3.1 says MUST, X509-SVID §3.2 says SHOULD of the same certificate; the weaker one is judged, because
    the authorities of common issuers carry none.
    """
    if not signing_ids(evidence):
        return NotApplicable("no authority here carries an ID, which X509-SVID §3.2 recommends but does not require")
    homes = {split(raw).host for raw in uri_names(evidence.leaf)}
    if not any(parts.host in homes for _, parts in signing_ids(evidence)):
        return Advice("no authority here carries the ID of the leaf's trust domain")
    return None


RULES = (
    Rule(
        "S8",
        "SPIFFE-ID §3.1",
        "the trust domain's signing authority carries an ID of its own, without path",
        trust_domain_has_an_authority_with_an_id,
    ),
    Rule("X1", "X509-SVID §2", "exactly one URI SAN", one_uri_name),
    Rule(
        "X2",
        "X509-SVID §2",
        "other SANs are allowed, in any number",
        cannot_show("a permission: other names are neither required nor counted"),
    ),
    Rule("X3", "X509-SVID §3.1", "the leaf's ID has a path", leaf_id_has_a_path),
    Rule(
        "X4",
        "X509-SVID §3.1",
        "the SAN extension is critical when the Subject is empty",
        names_are_critical_without_subject,
    ),
    Rule(
        "X5",
        "X509-SVID §3.2, §4.1",
        "signing certificates have cA=true and keyCertSign, and an ID without path if any",
        signing_certificates_may_sign,
    ),
    Rule("X6", "X509-SVID §3.2", "signing certificates do not authenticate", signing_keys_never_authenticate),
    Rule("X7", "X509-SVID §4.1", "the leaf has cA=false", leaf_is_no_authority),
    Rule(
        "X8",
        "X509-SVID §4.3",
        "key usage is present and critical on every certificate",
        key_usage_is_present_and_critical,
    ),
    Rule(
        "X9",
        "X509-SVID §4.3",
        "the leaf sets digitalSignature, and neither keyCertSign nor cRLSign",
        leaf_key_only_authenticates,
    ),
    Rule(
        "X10",
        "X509-SVID §4.3",
        "a signing certificate may set cRLSign",
        cannot_show("a permission: a signing certificate that publishes no CRL needs none"),
    ),
    Rule(
        "X11",
        "X509-SVID §4.4",
        "extended key usage, if present, has serverAuth and clientAuth",
        extended_key_usage_names_both_directions,
    ),
    Rule("X14", "X509-SVID §5.2", "every validator accepts the leaf as one", validator_accepts_the_leaf),
)
