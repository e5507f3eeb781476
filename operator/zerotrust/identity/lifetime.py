"""What the clock has made of a certificate, in one word: told by the certificate itself, not by a status."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from zerotrust.identity import renewal
from zerotrust.identity.resource import ServiceIdentitySpec
from zerotrust.identity.wanted import asked_times
from zerotrust.pki.secret import CertificateFacts
from zerotrust.trustdomain.resource import TrustDomainSpec

State = Literal["missing", "valid", "overdue", "expiring", "expired"]


@dataclass(frozen=True, slots=True)
class Lifetime:
    """When a certificate should have been renewed at the latest, when half of the time after that is over, when it ends."""

    due: datetime
    urgent: datetime
    end: datetime

    def state(self, now: datetime) -> State:
        """The word for it."""
        if now >= self.end:
            return "expired"
        if now >= self.urgent:
            return "expiring"
        return "overdue" if now >= self.due else "valid"


def lifetime(
    certificate: CertificateFacts, spec: ServiceIdentitySpec | None, domain: TrustDomainSpec | None
) -> Lifetime:
    """Read a certificate's times; where spec or TrustDomain cannot be used, a third of its life is for its renewal."""
    whole = certificate.not_after - certificate.not_before
    renew_before: timedelta = asked_times(spec, domain)[1] if spec is not None and domain is not None else whole
    due = renewal.schedule("", 0, certificate, renew_before).threshold
    return Lifetime(due, certificate.not_after - (certificate.not_after - due) / 2, certificate.not_after)
