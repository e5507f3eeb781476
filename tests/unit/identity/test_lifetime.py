"""What the clock has made of a certificate."""

from datetime import timedelta

import pytest

from tests.support.builders import NOW, a_trust_domain, an_identity, an_issued_secret, hours, minutes, seconds, spec_of
from zerotrust.identity import renewal
from zerotrust.identity.lifetime import lifetime

DAY = {"duration": "24h", "renewBefore": "8h"}


@pytest.mark.parametrize(
    ("after", "state"),
    [
        (hours(0), "valid"),
        (hours(16) - seconds(1), "valid"),
        (hours(16), "overdue"),
        (hours(20) - seconds(1), "overdue"),
        (hours(20), "expiring"),
        (hours(24) - seconds(1), "expiring"),
        (hours(24), "expired"),
    ],
)
def test_states_follow_the_clock(after: timedelta, state: str) -> None:
    identity = an_identity(certificate=DAY)
    certificate = an_issued_secret(identity).certificate
    assert certificate is not None
    found = lifetime(certificate, spec_of(identity), spec_of(a_trust_domain()))
    assert found.state(NOW + after) == state


def test_no_jitter_makes_a_renewal_later_than_what_counts_as_due() -> None:
    identity = an_identity(certificate=DAY)
    certificate = an_issued_secret(identity).certificate
    assert certificate is not None
    due = lifetime(certificate, spec_of(identity), spec_of(a_trust_domain())).due
    times = [renewal.schedule(f"uid-{number}", number, certificate, hours(8)).renewal for number in range(200)]
    assert max(times) <= due
    assert max(times) > due - minutes(10)


def test_the_trust_domain_says_what_the_identity_does_not() -> None:
    certificate = an_issued_secret().certificate
    assert certificate is not None
    domain = spec_of(a_trust_domain(identities={"duration": "24h", "renewBeforePercentage": 50}))
    assert lifetime(certificate, spec_of(an_identity()), domain).due == certificate.not_after - hours(12)


def test_without_a_usable_spec_a_third_is_for_the_renewal() -> None:
    certificate = an_issued_secret(an_identity(certificate=DAY)).certificate
    assert certificate is not None
    for found in (lifetime(certificate, None, None), lifetime(certificate, spec_of(an_identity()), None)):
        assert found.due == certificate.not_after - hours(8)
