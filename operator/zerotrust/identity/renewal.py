"""Why a certificate is issued anew: a chain of small pure checks, and the time at which the last of them speaks.

Each check looks at one thing and returns a `Reason` or None. The first that speaks is what a user reads in the event.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

from cryptography import x509

from zerotrust.common import durations, times
from zerotrust.pki import x509 as profiles
from zerotrust.pki.secret import CertificateFacts
from zerotrust.pki.spiffe import SpiffeID

BACKDATE = timedelta(seconds=60)
SPREAD = 0.2
QUIET = timedelta(minutes=1)


@dataclass(frozen=True)
class Reason:
    """Why something is done: a CamelCase word for machines, a message for people."""

    word: str
    message: str


@dataclass(frozen=True)
class Wanted:
    """What the certificate should be, resolved from the ServiceIdentity and its TrustDomain.

    Of the requests for a rotation, the latest that is due counts, and the earliest that is still to come; of cut-offs
    likewise. Cut-offs are whole seconds.
    """

    spiffe_id: SpiffeID
    dns_names: tuple[str, ...]
    key_algorithm: str
    duration: timedelta
    renew_before: timedelta
    rotation_requested_at: datetime | None
    rotation_scheduled_at: datetime | None = None
    revoked_before: datetime | None = None
    revocation_scheduled_at: datetime | None = None


@dataclass(frozen=True)
class Issuer:
    """The authority that would sign now, and the roots that verifiers in the namespace trust."""

    id: str
    certificate: x509.Certificate
    not_after: datetime
    roots: tuple[x509.Certificate, ...]


@dataclass(frozen=True)
class Evidence:
    """What a check looks at; `issuer` is None while nothing can be signed."""

    wanted: Wanted
    certificate: CertificateFacts | None
    problem: str
    issuer: Issuer | None
    schedule: "Schedule | None"
    rotation_handled_at: datetime | None
    now: datetime

    @cached_property
    def chain_problem(self) -> str:
        """Why the certificate does not lead to the trust bundle; empty when it does, or while there is nothing to ask.

        Kept, because more than one check asks and the signatures are the dearest part of a reconcile that changes nothing.
        """
        if self.certificate is None or self.issuer is None:
            return ""
        try:
            at = max(self.certificate.not_before, self.now)
            profiles.verify_chain(self.certificate.chain(), self.issuer.roots, at)
        except (profiles.ChainError, profiles.UnreadableCertificate) as error:
            return str(error)
        return ""


@dataclass(frozen=True)
class Schedule:
    """When a certificate is due: `renewal` is this one's own time, `threshold` the latest that the spec allows."""

    renewal: datetime
    threshold: datetime


Check = Callable[[Evidence], Reason | None]


def schedule(uid: str, revision: int, certificate: CertificateFacts, renew_before: timedelta) -> Schedule:
    """Return when to renew; never later than the threshold, so jitter only ever makes it earlier.

    The jitter is a fifth of `renew_before` at most, and half of the time before the threshold at most. It comes from a hash
    of uid and revision: the same certificate always has the same time, and certificates issued together spread out.
    """
    issued = issued_at(certificate)
    lifetime = certificate.not_after - issued
    if renew_before >= lifetime:  # cut short by the authority's end: keep the proportion of a usual certificate
        renew_before = lifetime / 3
    # However long renewBefore is, a certificate is left alone for a while: nothing may be due the moment it is issued.
    quiet = min(lifetime / 10, QUIET)
    threshold = max(certificate.not_after - renew_before, issued + quiet)
    spread = min(renew_before * SPREAD, (threshold - issued) / 2)
    fraction = int.from_bytes(hashlib.sha256(f"{uid}/{revision}".encode()).digest()[:8], "big") / 2**64
    return Schedule(times.whole_seconds(threshold - spread * fraction), times.whole_seconds(threshold))


def issued_at(certificate: CertificateFacts) -> datetime:
    """When the certificate was signed: its notBefore without the back-dating. After a revocation, up to a minute later."""
    return min(certificate.not_before + BACKDATE, certificate.not_after)


def validity(wanted: Wanted, issuer: Issuer, now: datetime) -> tuple[datetime, datetime]:
    """Return notBefore and notAfter for a certificate signed now; it never outlives its authority (invariant I2).

    notBefore is back-dated even past the authority's own: verifiers judge each certificate at the present time. It is
    never before a cut-off; then notAfter moves with it, so that `issued_at` can still be read from the certificate.
    """
    moment = times.whole_seconds(now)
    if wanted.revoked_before is not None:
        moment = max(moment, wanted.revoked_before + BACKDATE)
    return moment - BACKDATE, min(moment + wanted.duration, issuer.not_after)


def does_not_exist(evidence: Evidence) -> Reason | None:
    """There is no readable certificate yet."""
    if evidence.certificate is None:
        return Reason("DoesNotExist", evidence.problem or "there is no Secret yet")
    return None


def key_mismatch(evidence: Evidence) -> Reason | None:
    """The private key in the Secret is not the certificate's."""
    if evidence.certificate is not None and not evidence.certificate.key_matches:
        return Reason("KeyMismatch", "tls.key does not belong to the certificate in tls.crt")
    return None


def spec_changed(evidence: Evidence) -> Reason | None:
    """The certificate says something else than the spec asks for; judged by the certificate itself, not by a memory of it."""
    certificate, wanted = evidence.certificate, evidence.wanted
    if certificate is None:
        return None
    if certificate.spiffe_ids != (str(wanted.spiffe_id),):
        return Reason("SpecChanged", f"the SPIFFE ID should be {wanted.spiffe_id}")
    if set(certificate.dns_names) != set(wanted.dns_names):
        return Reason("SpecChanged", f"the DNS names should be {', '.join(wanted.dns_names) or 'none'}")
    if certificate.key_algorithm != wanted.key_algorithm:
        return Reason("SpecChanged", f"the key should be {wanted.key_algorithm}, it is {certificate.key_algorithm}")
    if certificate.not_after - issued_at(certificate) > wanted.duration + timedelta(seconds=1):
        return Reason("SpecChanged", f"the lifetime should be {durations.render(wanted.duration)} at most")
    return None


def expired(evidence: Evidence) -> Reason | None:
    """The certificate's time is over."""
    certificate = evidence.certificate
    if certificate is not None and evidence.now >= certificate.not_after:
        return Reason("Expired", f"the certificate expired at {times.render(certificate.not_after)}")
    return None


def revoked(evidence: Evidence) -> Reason | None:
    """The certificate begins before the cut-off that is in force for its ID; judged by whole seconds, as certificates are."""
    certificate, before = evidence.certificate, evidence.wanted.revoked_before
    if certificate is None or before is None or certificate.not_before >= before:
        return None
    return Reason("Revoked", f"certificates from before {times.render(before)} are revoked")


def chain_broken(evidence: Evidence) -> Reason | None:
    """The certificate does not lead to the trust bundle."""
    return Reason("ChainBroken", evidence.chain_problem) if evidence.chain_problem else None


def authority_changed(evidence: Evidence) -> Reason | None:
    """Another authority signs now."""
    certificate, issuer = evidence.certificate, evidence.issuer
    if certificate is None or issuer is None:
        return None
    if certificate.issuer_key_id != profiles.key_id_in_children(issuer.certificate):
        return Reason("AuthorityChanged", f"authority {issuer.id} signs now")
    return None


def rotation_requested(evidence: Evidence) -> Reason | None:
    """Somebody asked for a renewal after the last one."""
    requested, certificate = evidence.wanted.rotation_requested_at, evidence.certificate
    if requested is None or certificate is None or requested > evidence.now:
        return None
    # One that begins at the cut-off was not back-dated by the full minute, and may have been signed at its very begin.
    begins_at_cutoff = certificate.not_before == evidence.wanted.revoked_before
    issued = certificate.not_before if begins_at_cutoff else issued_at(certificate)
    last = max(evidence.rotation_handled_at or issued, issued)
    if requested > last:
        return Reason("RotationRequested", f"a renewal was requested at {times.render(requested)}")
    return None


def near_expiry(evidence: Evidence) -> Reason | None:
    """The renewal time has come, and a new certificate would live longer than this one."""
    certificate, due = evidence.certificate, evidence.schedule
    if certificate is None or due is None or evidence.now < due.renewal:
        return None
    if evidence.issuer is not None:
        _, not_after = validity(evidence.wanted, evidence.issuer, evidence.now)
        if not_after <= certificate.not_after:
            return None
    end, renewal = times.render(certificate.not_after), times.render(due.renewal)
    return Reason("NearExpiry", f"the certificate expires at {end}, its renewal was due at {renewal}")


ISSUE: tuple[Check, ...] = (
    does_not_exist,
    key_mismatch,
    expired,
    revoked,
    chain_broken,
    authority_changed,
    spec_changed,
    rotation_requested,
    near_expiry,
)
UNUSABLE: tuple[Check, ...] = (does_not_exist, key_mismatch, expired, revoked, chain_broken, spec_changed)


def first(checks: Sequence[Check], evidence: Evidence) -> Reason | None:
    """Return what the first check that speaks has to say."""
    return next((reason for check in checks if (reason := check(evidence)) is not None), None)
