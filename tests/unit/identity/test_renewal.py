"""Why and when a certificate is issued anew: each check alone, their order, and the schedule."""

from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache

import pytest

from tests.support.builders import (
    NOW,
    FixedEntropy,
    a_key_ring,
    a_record,
    an_authority,
    an_identity,
    an_identity_snapshot,
    an_issued_secret,
    days,
    hours,
    minutes,
    seconds,
)
from tests.support.plans import has_issued
from tests.support.world import World
from zerotrust.identity import renewal
from zerotrust.identity.reconcile import reconcile
from zerotrust.identity.renewal import ISSUE, UNUSABLE, Check, Evidence, Issuer, Reason, Schedule, Wanted
from zerotrust.pki.secret import CertificateFacts
from zerotrust.pki.spiffe import SpiffeID
from zerotrust.trustdomain.authority import Authority

ORDERS = SpiffeID("example.org", "/ns/shop/sa/orders")


@cache
def _issued() -> CertificateFacts:
    observed = an_issued_secret().certificate
    assert observed is not None
    return observed


def facts(**changes: object) -> CertificateFacts:
    """What is observed of the certificate issued at NOW, for 24 hours."""
    return replace(_issued(), **changes)  # type: ignore[arg-type]


def issuer(authority: Authority | None = None) -> Issuer:
    authority = authority or an_authority()
    return Issuer(authority.id, authority.certificate, authority.not_after, authority.roots)


def wanted(**changes: object) -> Wanted:
    usual = Wanted(ORDERS, (), "ECDSA-P256", hours(24), hours(8), None)
    return replace(usual, **changes)  # type: ignore[arg-type]


def evidence(**changes: object) -> Evidence:
    """A certificate with which all is well."""
    certificate = facts()
    due = renewal.schedule("uid", 1, certificate, hours(8))
    usual = Evidence(wanted(), certificate, "", issuer(), due, None, NOW)
    return replace(usual, **changes)  # type: ignore[arg-type]


def word(reason: Reason | None) -> str:
    return reason.word if reason is not None else ""


@pytest.mark.parametrize("check", ISSUE, ids=lambda check: check.__name__)
def test_no_check_speaks_about_a_certificate_with_which_all_is_well(check: Check) -> None:
    assert check(evidence()) is None


def test_does_not_exist_says_what_is_wrong_with_the_secret() -> None:
    assert renewal.does_not_exist(evidence(certificate=None)) == Reason("DoesNotExist", "there is no Secret yet")
    broken = evidence(certificate=None, problem="tls.crt holds no readable PEM certificate")
    assert renewal.does_not_exist(broken) == Reason("DoesNotExist", "tls.crt holds no readable PEM certificate")


def test_key_mismatch_when_the_key_is_not_the_certificates() -> None:
    assert word(renewal.key_mismatch(evidence(certificate=facts(key_matches=False)))) == "KeyMismatch"


@pytest.mark.parametrize(
    ("late", "speaks"), [(-seconds(1), False), (timedelta(), True), (days(400), True)], ids=["before", "at", "after"]
)
def test_expired_from_the_very_end_on(late: timedelta, speaks: bool) -> None:
    assert bool(renewal.expired(evidence(now=facts().not_after + late))) is speaks


def test_chain_broken_when_the_certificate_does_not_lead_to_the_bundle() -> None:
    other = issuer(an_authority(number=1))
    assert word(renewal.chain_broken(evidence(issuer=other))) == "ChainBroken"


def test_chain_is_not_judged_while_there_is_no_bundle() -> None:
    assert renewal.chain_broken(evidence(issuer=None)) is None


def test_chain_is_judged_at_the_certificates_own_start_while_the_clock_is_behind_it() -> None:
    assert renewal.chain_broken(evidence(now=NOW - hours(3))) is None


def test_authority_changed_although_the_old_one_is_still_trusted() -> None:
    old, new = an_authority(), an_authority(number=1)
    both = Issuer(new.id, new.certificate, new.not_after, (*old.roots, *new.roots))
    assert renewal.chain_broken(evidence(issuer=both)) is None
    assert renewal.authority_changed(evidence(issuer=both)) == Reason(
        "AuthorityChanged", f"authority {new.id} signs now"
    )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"spiffe_id": SpiffeID("example.org", "/ns/shop/sa/other")}, "spiffe://example.org/ns/shop/sa/other"),
        ({"dns_names": ("orders.shop.svc",)}, "orders.shop.svc"),
        ({"key_algorithm": "ECDSA-P384"}, "the key should be ECDSA-P384, it is ECDSA-P256"),
        ({"duration": hours(12)}, "the lifetime should be 12h at most"),
    ],
)
def test_spec_changed_when_the_certificate_says_something_else(change: dict[str, object], told: str) -> None:
    reason = renewal.spec_changed(evidence(wanted=wanted(**change)))
    assert word(reason) == "SpecChanged"
    assert told in (reason.message if reason else "")


def test_a_certificate_with_several_ids_is_none_of_ours() -> None:
    two = facts(spiffe_ids=(str(ORDERS), "spiffe://example.org/ns/shop/sa/other"))
    assert word(renewal.spec_changed(evidence(certificate=two))) == "SpecChanged"


def test_the_order_of_dns_names_is_no_change() -> None:
    names = ("a.shop.svc", "b.shop.svc")
    swapped = evidence(certificate=facts(dns_names=names), wanted=wanted(dns_names=names[::-1]))
    assert renewal.spec_changed(swapped) is None


def test_a_longer_duration_waits_for_the_next_renewal() -> None:
    assert renewal.spec_changed(evidence(wanted=wanted(duration=hours(48)))) is None


def test_a_certificate_cut_short_by_its_authority_is_as_the_spec_wants_it() -> None:
    assert renewal.spec_changed(evidence(certificate=facts(not_after=NOW + hours(2)))) is None


@pytest.mark.parametrize(
    ("requested", "handled", "speaks"),
    [
        (None, None, False),
        (NOW + minutes(5), None, True),
        (NOW, None, False),
        (NOW - days(1), None, False),
        (NOW + minutes(5), NOW + minutes(5), False),
        (NOW + minutes(6), NOW + minutes(5), True),
        (NOW + hours(2), None, False),
    ],
    ids=["none", "after the issue", "at the issue", "before it", "handled", "later than handled", "not yet"],
)
def test_rotation_requested_only_when_later_than_the_last_act(
    requested: datetime | None, handled: datetime | None, speaks: bool
) -> None:
    asked = evidence(wanted=wanted(rotation_requested_at=requested), rotation_handled_at=handled, now=NOW + hours(1))
    assert bool(renewal.rotation_requested(asked)) is speaks


def test_a_rotation_requested_before_the_last_issue_does_nothing_even_if_an_older_one_was_handled() -> None:
    asked = evidence(
        wanted=wanted(rotation_requested_at=NOW - days(2)), rotation_handled_at=NOW - days(9), now=NOW + hours(1)
    )
    assert renewal.rotation_requested(asked) is None


@pytest.mark.parametrize("fraction", [0, 1, 700_000])
def test_a_rotation_that_was_handled_within_its_own_second_is_not_handled_again(fraction: int) -> None:
    moment = NOW.replace(microsecond=fraction)
    asked = evidence(wanted=wanted(rotation_requested_at=moment), rotation_handled_at=moment, now=NOW + seconds(1))
    assert renewal.rotation_requested(asked) is None


def test_near_expiry_from_the_renewal_time_on() -> None:
    due = evidence().schedule
    assert due is not None
    assert renewal.near_expiry(evidence(now=due.renewal - seconds(1))) is None
    reason = renewal.near_expiry(evidence(now=due.renewal))
    assert word(reason) == "NearExpiry"


def test_near_expiry_only_when_a_new_certificate_would_live_longer() -> None:
    end = facts().not_after
    ends_with_it = issuer(an_authority(not_after=end))
    assert renewal.near_expiry(evidence(now=end - minutes(5), issuer=ends_with_it)) is None
    lives_on = issuer(an_authority(not_after=end + seconds(1)))
    assert word(renewal.near_expiry(evidence(now=end - minutes(5), issuer=lives_on))) == "NearExpiry"


def test_near_expiry_speaks_also_while_nobody_can_sign() -> None:
    assert word(renewal.near_expiry(evidence(now=facts().not_after - minutes(5), issuer=None))) == "NearExpiry"


# --- the chain ---

SPEAKING: list[tuple[str, dict[str, object]]] = [
    ("DoesNotExist", {"certificate": None}),
    ("KeyMismatch", {"certificate": facts(key_matches=False)}),
    ("Expired", {"now": NOW + days(2)}),
    ("ChainBroken", {"issuer": issuer(an_authority(number=1))}),
    (
        "AuthorityChanged",
        {"issuer": replace(issuer(an_authority(number=1)), roots=an_authority().roots)},
    ),
    ("SpecChanged", {"wanted": wanted(dns_names=("orders.shop.svc",))}),
    ("RotationRequested", {"wanted": wanted(rotation_requested_at=NOW + minutes(1)), "now": NOW + minutes(2)}),
    ("NearExpiry", {"now": NOW + hours(23)}),
]


@pytest.mark.parametrize(("reason", "change"), SPEAKING, ids=[reason for reason, _ in SPEAKING])
def test_the_chain_gives_the_reason_of_the_check_that_speaks(reason: str, change: dict[str, object]) -> None:
    assert word(renewal.first(ISSUE, evidence(**change))) == reason


def test_the_first_check_that_speaks_is_the_reason_that_users_read() -> None:
    everything = evidence(
        certificate=facts(key_matches=False),
        issuer=issuer(an_authority(number=1)),
        wanted=wanted(dns_names=("orders.shop.svc",), rotation_requested_at=NOW + minutes(1)),
        now=NOW + days(2),
    )
    told = [reason.word for check in ISSUE if (reason := check(everything)) is not None]
    assert told == [name for name, _ in SPEAKING if name != "DoesNotExist"]
    assert word(renewal.first(ISSUE, everything)) == told[0]


def test_what_makes_a_certificate_unusable_makes_it_issued_anew() -> None:
    assert set(UNUSABLE) < set(ISSUE)


def test_a_certificate_stays_usable_while_its_renewal_is_merely_due() -> None:
    for change in ({"now": NOW + hours(23)}, dict(SPEAKING)["AuthorityChanged"], dict(SPEAKING)["RotationRequested"]):
        assert renewal.first(UNUSABLE, evidence(**change)) is None


# --- the schedule ---


EIGHT_HOURS = hours(8)


def a_schedule(
    uid: str = "uid", revision: int = 1, renew_before: timedelta = EIGHT_HOURS, **change: object
) -> Schedule:
    return renewal.schedule(uid, revision, facts(**change), renew_before)


def test_the_same_certificate_always_has_the_same_renewal_time() -> None:
    assert a_schedule() == a_schedule()


@pytest.mark.parametrize(
    "other", [a_schedule(uid="other"), a_schedule(revision=2)], ids=["another identity", "another revision"]
)
def test_another_certificate_has_another_renewal_time(other: Schedule) -> None:
    assert other.renewal != a_schedule().renewal
    assert other.threshold == a_schedule().threshold


def test_the_threshold_is_what_the_spec_says() -> None:
    assert a_schedule().threshold == NOW + hours(16)


@pytest.mark.parametrize("renew_before", [seconds(10), minutes(30), hours(8), hours(23), hours(23.99)])
@pytest.mark.parametrize("lifetime", [hours(24), days(90)])
def test_jitter_only_ever_makes_a_renewal_earlier(renew_before: timedelta, lifetime: timedelta) -> None:
    for number in range(200):
        due = a_schedule(f"uid-{number}", renew_before=renew_before, not_after=NOW + lifetime)
        assert NOW < due.renewal <= due.threshold < NOW + lifetime
        assert due.threshold - due.renewal <= renew_before / 5 + seconds(1)


def test_a_thousand_certificates_issued_in_the_same_second_are_renewed_all_over_the_spread() -> None:
    due = [a_schedule(f"uid-{number}") for number in range(1000)]
    spread = hours(8) / 5
    earliest = due[0].threshold - spread
    buckets = Counter(int((one.renewal - earliest) / (spread / 10)) for one in due)
    assert set(buckets) == set(range(10))
    assert max(buckets.values()) < 2 * 100, "no tenth of the time gets twice its share"


def test_a_certificate_cut_short_keeps_a_usual_certificates_proportion() -> None:
    cut = a_schedule(renew_before=hours(8), not_after=NOW + hours(3))
    assert cut.threshold == NOW + hours(2)
    assert NOW + hours(1) <= cut.renewal <= cut.threshold


@pytest.mark.parametrize("renew_before", [seconds(59.2), seconds(59.9)])
def test_a_certificate_is_never_due_at_the_moment_it_is_issued(renew_before: timedelta) -> None:
    assert a_schedule(renew_before=renew_before, not_after=NOW + minutes(1)).renewal > NOW


# --- validity ---


def test_a_certificate_is_backdated_by_a_minute_and_ends_when_the_spec_says() -> None:
    assert renewal.validity(wanted(), issuer(), NOW) == (NOW - minutes(1), NOW + hours(24))


def test_validity_is_in_whole_seconds() -> None:
    start, end = renewal.validity(wanted(), issuer(), NOW.replace(microsecond=999_999))
    assert (start, end) == (NOW - minutes(1), NOW + hours(24))


def test_a_leaf_never_outlives_its_authority() -> None:
    _, end = renewal.validity(wanted(), issuer(an_authority(not_after=NOW + hours(2))), NOW)
    assert end == NOW + hours(2)


def test_a_leaf_is_back_dated_even_past_the_start_of_its_authority() -> None:
    start, _ = renewal.validity(wanted(), issuer(an_authority(not_before=NOW - seconds(5))), NOW)
    assert start == NOW - renewal.BACKDATE, "when it was issued can always be read from it"


def test_a_rotation_requested_just_after_an_issue_by_a_fresh_authority_is_heard() -> None:
    fresh = an_authority(not_before=NOW - seconds(5))
    secret = an_issued_secret(authority=fresh)
    identity = an_identity(rotation={"requestedAt": "2026-11-22T12:00:20Z"})
    snapshot = an_identity_snapshot(identity, record=a_record(fresh), secret=secret)
    assert has_issued(reconcile(snapshot, NOW + seconds(30), a_key_ring(fresh), FixedEntropy(2)))


# --- the end of an authority's life ---


@pytest.mark.parametrize("duration", ["1m", "10m", "1h", "24h", "720h"])
@pytest.mark.parametrize("renew_before_percentage", [1, 33, 60, 90])
def test_certificates_cut_short_by_the_authoritys_end_never_lead_to_a_tight_loop(
    duration: str, renew_before_percentage: int
) -> None:
    lifetime = {"1m": minutes(1), "10m": minutes(10), "1h": hours(1), "24h": hours(24), "720h": days(30)}[duration]
    end = NOW + 4 * lifetime
    issues, reconciles = _until_the_end_of(
        an_authority(not_after=end),
        certificate={"duration": duration, "renewBeforePercentage": renew_before_percentage},
    )
    shortest = lifetime * (100 - renew_before_percentage) / 100 / 2
    assert 4 <= issues <= 4 * lifetime / shortest + 1
    assert reconciles <= 4 * issues + 4


def _until_the_end_of(authority: Authority, **spec: object) -> tuple[int, int]:
    """Reconcile at each requeue time until nothing is planned any more; return (certificates issued, reconciles)."""
    identity, world, ring, entropy = an_identity(**spec), World(), a_key_ring(authority), FixedEntropy()
    now: datetime | None = NOW
    reconciles = 0
    while now is not None:
        secret = world.secret("shop", "orders-svid")
        plan = reconcile(an_identity_snapshot(identity, record=a_record(authority), secret=secret), now, ring, entropy)
        identity = world.carry_out(identity, plan)
        reconciles += 1
        assert reconciles < 2_000, "a tight loop"
        assert plan.requeue_at is None or plan.requeue_at > now
        now = plan.requeue_at
    return world.issues, reconciles


def test_a_certificate_that_ends_with_its_authority_is_not_issued_again_for_that() -> None:
    authority = an_authority(not_after=NOW + hours(20))
    snapshot = an_identity_snapshot(record=a_record(authority), secret=an_issued_secret(authority=authority))
    for hour in range(19):
        assert not has_issued(reconcile(snapshot, NOW + hours(hour), a_key_ring(authority), FixedEntropy(2)))
