"""Who may have what: an SVID over mTLS or a projected token, then a SubjectAccessReview in the namespace asked for."""

import hashlib
from datetime import datetime, timedelta
from typing import Protocol

from zerotrust.bundleserver.caller import (
    AUDIENCE,
    POD_NAME,
    POD_UID,
    Caller,
    IdentityResolver,
    NotACredential,
    PeerCertificate,
    Subject,
    expiry_of,
    subject_of,
    token_of,
)
from zerotrust.bundleserver.limits import Limits
from zerotrust.bundleserver.refusals import Refused, unavailable
from zerotrust.bundleserver.verdicts import ReviewGate, Verdicts
from zerotrust.common.errors import ZerotrustError
from zerotrust.engine.clock import Clock

POSITIVE = timedelta(seconds=60)
NEGATIVE = timedelta(seconds=5)


class ReviewFailed(ZerotrustError):
    """The API server could not be asked, or did not answer the question."""


class Reviews(Protocol):
    """The two questions to the API server; both raise ReviewFailed when there is no answer."""

    async def authenticate(self, token: str, audience: str) -> Subject | None:
        """Whose token this is; None when it is nobody's, or not for this audience (TokenReview)."""

    async def may_get_bundles(self, subject: Subject, namespace: str) -> bool:
        """Whether the subject may `get policybundles.zerotrust.dev` in the namespace (SubjectAccessReview)."""


class Authenticator:
    """Decides over requests; positive answers hold for 60 s (never longer than the token), negative ones for 5 s.

    `trust_domain` is the server's own: certificates of any other are refused, whoever has signed them.
    """

    def __init__(
        self,
        reviews: Reviews,
        resolver: IdentityResolver,
        clock: Clock,
        trust_domain: str,
        limits: Limits = Limits(),  # noqa: B008 - frozen
    ) -> None:
        self._reviews, self._resolver, self._clock, self._trust_domain = reviews, resolver, clock, trust_domain
        gate = ReviewGate(limits.reviews_at_once, limits.reviews_waiting)
        self._tokens: Verdicts[Subject | None] = Verdicts(clock, gate, limits.verdicts)
        self._rights: Verdicts[bool] = Verdicts(clock, gate, limits.verdicts)

    async def authenticate(self, certificate: PeerCertificate | None, authorization: str) -> Caller:
        """Return who calls; Refused with 401, or with 503 when the API server cannot be asked.

        A bad credential is never made up for by a good one beside it; a token and an SVID must be the same account's.
        """
        try:
            by_certificate = self._by_certificate(certificate) if certificate else None
            by_token = await self._by_token(token_of(authorization)) if authorization else None
        except NotACredential as error:
            raise Refused(401, "unauthenticated", str(error)) from None
        caller = by_token or by_certificate
        if caller is None:
            raise Refused(401, "unauthenticated", "send an SVID as client certificate or a ServiceAccount token")
        if by_token and by_certificate:
            if by_token.workload != by_certificate.workload:
                raise Refused(401, "unauthenticated", "the token and the client certificate are of different accounts")
            until = min(by_token.valid_until, by_certificate.valid_until)
            return Caller(by_token.subject, until, by_token.pod, by_token.pod_uid, by_certificate.spiffe_id)
        return caller

    async def authorise(self, caller: Caller, namespace: str) -> None:
        """Return when the caller may have this namespace's bundles; Refused with 403, or 503 when it cannot be known."""

        async def question() -> tuple[bool, datetime]:
            try:
                allowed = await self._reviews.may_get_bundles(caller.subject, namespace)
            except ReviewFailed as error:
                raise unavailable(str(error)) from None
            return allowed, self._clock.now() + (POSITIVE if allowed else NEGATIVE)

        if not await self._rights.get((caller.subject, namespace), question):
            raise Refused(
                403,
                "forbidden",
                f"not allowed to get policybundles.zerotrust.dev in namespace {namespace}: bind a Role",
            )

    async def close(self) -> None:
        """Give up what is being asked."""
        await self._tokens.close()
        await self._rights.close()

    def _by_certificate(self, certificate: PeerCertificate) -> Caller:
        now = self._clock.now()
        if not certificate.not_before <= now < certificate.not_after:
            raise NotACredential("the client certificate is not valid now")
        if certificate.spiffe_id.trust_domain != self._trust_domain:
            raise NotACredential("the client certificate is of another trust domain")
        workload = self._resolver.resolve(certificate.spiffe_id, certificate.not_before)
        if workload is None:
            raise NotACredential("the client certificate's SPIFFE ID is unknown or revoked")
        return Caller(subject_of(workload), certificate.not_after, spiffe_id=certificate.spiffe_id)

    async def _by_token(self, token: str) -> Caller:
        expiry = expiry_of(token, AUDIENCE, self._clock.now())

        async def question() -> tuple[Subject | None, datetime]:
            try:
                subject = await self._reviews.authenticate(token, AUDIENCE)
            except ReviewFailed as error:
                raise unavailable(str(error)) from None
            now = self._clock.now()
            return subject, now + NEGATIVE if subject is None else min(expiry, now + POSITIVE)

        subject = await self._tokens.get(hashlib.sha256(token.encode()).hexdigest(), question)
        if subject is None:
            raise NotACredential("the API server does not accept the token")
        return Caller(subject, expiry, subject.sole(POD_NAME), subject.sole(POD_UID))
