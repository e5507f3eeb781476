"""Path validation (RFC 5280 §6, X509-SVID §5.1), and what only a whole path shows.

cryptography's verifier builds and judges the path; what it leaves open (key identifiers, parts of a second) is checked
on the path that it found. It follows RSA keys from 2048 bits and the NIST curves, and refuses name constraints on URIs:
in both it is stricter than RFC 5280.
"""

import itertools
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from zerotrust.pki.conformance.rule import (
    Advice,
    Evidence,
    Finding,
    Named,
    NotApplicable,
    Rule,
    Verdict,
    extension,
    quote,
    uri_names,
)
from zerotrust.pki.conformance.spiffe_id import name_bytes, split

MAX_INTERMEDIATES = 8
_FRAMES = ("validation failed: ", "candidates exhausted: ", "Python extension validator failed: ", "ValueError: ")


def path_leads_to_the_bundle(evidence: Evidence) -> Verdict:
    """X13: there is a valid path from the leaf to an authority of the bundle at the time in question."""
    if not evidence.bundle:
        return Finding("the trust bundle is empty, so no SVID of its trust domain is trusted")
    if evidence.leaf in evidence.bundle:
        # The verifier would stop here without looking at a single signature.
        return Finding("the leaf itself is in the trust bundle; required are signing certificates only")
    verifier = (
        PolicyBuilder()
        .time(evidence.at.astimezone(UTC).replace(microsecond=0))
        .store(Store(list(evidence.bundle)))
        .max_chain_depth(MAX_INTERMEDIATES)
        .extension_policies(ca_policy=_signing_policy(), ee_policy=_leaf_policy())
        .build_client_verifier()
    )
    try:
        path = verifier.verify(evidence.leaf, list(evidence.chain[1:])).chain
    except VerificationError as error:
        return Finding(_explanation(evidence) or f"{_cause(error)}; required is a path as RFC 5280 §6 describes it")
    return (
        _expired_within_the_second(evidence, path)
        or _key_identifier_mismatch(evidence, path)
        or _broken_octet(evidence, path)
    )


def _signing_policy() -> ExtensionPolicy:
    """RFC 5280 §4.2.1 for certificates that sign others."""
    return (
        ExtensionPolicy.permit_all()
        .require_present(x509.BasicConstraints, Criticality.CRITICAL, _has_ca)
        .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _has_key_cert_sign)
        .may_be_present(x509.SubjectKeyIdentifier, Criticality.NON_CRITICAL, _names_its_own_key)
        .may_be_present(x509.AuthorityKeyIdentifier, Criticality.NON_CRITICAL, _names_the_key_of_its_issuer)
    )


def _leaf_policy() -> ExtensionPolicy:
    """RFC 5280 §4.2.1 for the leaf; what SPIFFE asks of it has rules of its own."""
    return (
        ExtensionPolicy.permit_all()
        .may_be_present(x509.SubjectKeyIdentifier, Criticality.NON_CRITICAL, None)
        .may_be_present(x509.AuthorityKeyIdentifier, Criticality.NON_CRITICAL, _names_the_key_of_its_issuer)
    )


def _has_ca(_policy: Policy, _certificate: x509.Certificate, constraints: x509.BasicConstraints) -> None:
    if not constraints.ca:
        raise ValueError("an issuer has not cA=true")


def _has_key_cert_sign(_policy: Policy, _certificate: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    if usage is None or not usage.key_cert_sign:
        raise ValueError("an issuer's key usage lacks keyCertSign")


def _names_its_own_key(
    _policy: Policy, _certificate: x509.Certificate, identifier: x509.SubjectKeyIdentifier | None
) -> None:
    if identifier is None:
        raise ValueError("an issuer has no subject key identifier")


def _names_the_key_of_its_issuer(
    _policy: Policy, certificate: x509.Certificate, identifier: x509.AuthorityKeyIdentifier | None
) -> None:
    self_issued = certificate.subject == certificate.issuer
    if not self_issued and (identifier is None or identifier.key_identifier is None):
        raise ValueError("a certificate has no authority key identifier")


def _cause(error: VerificationError) -> str:
    """Reduce the verifier's words to the cause: its own frame names no certificate that a reader could find."""
    text = str(error).split(" (encountered processing ")[0]
    for frame in _FRAMES:
        text = text.removeprefix(frame)
    return "name constraints on URIs are not understood here" if text == "unsupported name constraint" else text


def _explanation(evidence: Evidence) -> str | None:
    """Say what stops the path, for the causes that the verifier's words leave in the dark: time, issuer, signature."""
    named = Named("leaf", evidence.leaf)
    for _ in range(MAX_INTERMEDIATES + 2):
        if problem := _outside_validity(evidence, named):
            return problem
        if named.certificate in evidence.bundle:
            return None
        issuers = [other for other in evidence.signing if other.certificate.subject == named.certificate.issuer]
        if not issuers:
            wanted = quote(named.certificate.issuer.rfc4514_string())
            return f"{named.name} was issued by {wanted}, which is neither in the chain nor in the bundle; add it"
        signers = [other for other in issuers if signed_by(named.certificate, other.certificate)]
        if not signers:
            return f"the signature on {named.name} is not by the key of {issuers[0].name}, although the names match"
        named = signers[0]
    return None


def _outside_validity(evidence: Evidence, named: Named) -> str | None:
    certificate = named.certificate
    if evidence.at > certificate.not_valid_after_utc:
        return f"{named.name} expired at {_time(certificate.not_valid_after_utc)}, judged at {_time(evidence.at)}"
    if evidence.at < certificate.not_valid_before_utc:
        start = _time(certificate.not_valid_before_utc)
        return f"{named.name} is not valid before {start}, judged at {_time(evidence.at)}"
    return None


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _expired_within_the_second(evidence: Evidence, path: list[x509.Certificate]) -> Finding | None:
    """The verifier counts whole seconds; notAfter is an instant (RFC 5280 §4.1.2.5): half a second later is late."""
    for named in _named(evidence, path):
        if problem := _outside_validity(evidence, named):
            return Finding(problem)
    return None


def _key_identifier_mismatch(evidence: Evidence, path: list[x509.Certificate]) -> Finding | None:
    """RFC 5280 §4.2.1.1: the two identifiers match; the verifier takes them only as a hint."""
    named = _named(evidence, path)
    for child, parent in itertools.pairwise(named):
        wanted = extension(child.certificate, x509.AuthorityKeyIdentifier)
        offered = extension(parent.certificate, x509.SubjectKeyIdentifier)
        identifier = wanted.value.key_identifier if wanted else None
        if identifier is not None and offered is not None and identifier != offered.value.digest:
            return Finding(
                f"{child.name} names the issuing key {identifier.hex()}, but {parent.name} "
                f"has {offered.value.digest.hex()}; the two key identifiers must match"
            )
    return None


def _broken_octet(evidence: Evidence, path: list[x509.Certificate]) -> Finding | None:
    """X.690 §8.6.2: a signature is whole octets, so its BIT STRING has 0 unused bits; the verifier ignores the count."""
    for named in _named(evidence, path):
        whole = b"\0" + named.certificate.signature
        if not named.certificate.public_bytes(serialization.Encoding.DER).endswith(whole):
            return Finding(f"the signature on {named.name} ends within an octet; it was changed after it was signed")
    return None


def _named(evidence: Evidence, path: list[x509.Certificate]) -> list[Named]:
    names = {named.certificate: named for named in reversed(evidence.every)}
    return [names[certificate] for certificate in path]


def signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Tell whether the issuer's name and key are those that issued the certificate."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        return False
    return True


def id_and_key_are_signed(evidence: Evidence) -> Verdict:
    """S9: ID and public key stand in the part that is signed, and a signature over that part verifies."""
    issuers = [named for named in evidence.signing if named.certificate.subject == evidence.leaf.issuer]
    if not issuers:
        return NotApplicable("the leaf's issuer is not among the inputs (see X13)")
    if not any(signed_by(evidence.leaf, named.certificate) for named in issuers):
        return Finding("no issuer's signature covers the leaf's ID and key; required is a signature that verifies")
    return None


def name_constraints_are_used_with_caution(evidence: Evidence) -> Verdict:
    """X12: signing certificates may constrain URI names; many validators, this one included, then refuse the path."""
    for name, certificate in evidence.signing:
        constraints = extension(certificate, x509.NameConstraints)
        if constraints is None:
            continue
        subtrees = [*(constraints.value.permitted_subtrees or ()), *(constraints.value.excluded_subtrees or ())]
        if any(isinstance(subtree, x509.UniformResourceIdentifier) for subtree in subtrees):
            return Advice(f"{name} constrains URI names; many validators, this one included, refuse such a path")
    return NotApplicable("no signing certificate constrains URI names")


def key_belongs_to_the_leaf(evidence: Evidence) -> Verdict:
    """K1: the private key is the one whose public half the leaf certifies."""
    if evidence.private_key is None:
        return NotApplicable("no private key was given")
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if evidence.private_key.public_key().public_bytes(*form) != evidence.leaf.public_key().public_bytes(*form):
        return Finding("the private key is not the leaf's; give the key that the certificate was issued for")
    return None


def nothing_outlives_its_issuer(evidence: Evidence) -> Verdict:
    """I2: every certificate of the chain ends before an issuer that signed it, or with it."""
    certificates = (Named("leaf", evidence.leaf), *evidence.signing[: len(evidence.chain) - 1])
    signed = [
        (named, issuers)
        for named in certificates
        if (issuers := [other for other in evidence.signing if signed_by(named.certificate, other.certificate)])
    ]
    if not signed:
        return NotApplicable("no issuer is among the inputs (see X13)")
    for (name, certificate), issuers in signed:
        last = max(issuers, key=lambda other: other.certificate.not_valid_after_utc)
        if certificate.not_valid_after_utc > last.certificate.not_valid_after_utc:
            return Finding(
                f"{name} ends at {_time(certificate.not_valid_after_utc)}, its issuer, {last.name}, "
                f"already at {_time(last.certificate.not_valid_after_utc)}; clamp it to the issuer's end"
            )
    return None


def leaf_belongs_to_the_bundle(evidence: Evidence) -> Verdict:
    """B8: which trust domain a bundle speaks for is known from outside, and it speaks for no other."""
    if evidence.trust_domain is None:
        return NotApplicable("no trust domain was given, and the bundle must not name its own")
    names = uri_names(evidence.leaf)
    if not names:
        return NotApplicable("the leaf has no URI SAN (see X1)")
    for raw in names:
        if split(raw).host.lower() != name_bytes(evidence.trust_domain):
            wanted = quote(evidence.trust_domain)
            return Finding(f"the leaf's ID {quote(raw)} is not in {wanted}, the trust domain of the bundle")
    return None


RULES = (
    Rule("S9", "SPIFFE-ID §3.2", "ID and public key are in the part that is signed", id_and_key_are_signed),
    Rule(
        "X12",
        "X509-SVID §4.2",
        "name constraints on URIs are optional and used with caution",
        name_constraints_are_used_with_caution,
    ),
    Rule("X13", "X509-SVID §5.1", "a valid path leads from the leaf to the bundle", path_leads_to_the_bundle),
    Rule(
        "B8",
        "SPIFFE-Bundle §3",
        "the bundle is the one of the leaf's trust domain",
        leaf_belongs_to_the_bundle,
    ),
    Rule("K1", "SPIFFE-ID §3.2", "the private key belongs to the leaf", key_belongs_to_the_leaf),
    Rule("I2", "own rule", "no certificate outlives its issuer", nothing_outlives_its_issuer),
)
