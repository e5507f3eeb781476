"""Revoked certificates are replaced at once, by ones that begin at the cut-off at the earliest; no cut-off is ever lowered."""

from datetime import datetime, timedelta

import pytest

from tests.support.builders import (
    NOW,
    Identity,
    a_key_ring,
    a_record,
    a_trust_domain,
    a_view_without_authority,
    an_authority,
    an_identity,
    an_identity_snapshot,
    an_issued_body,
    an_issued_secret,
    hours,
    minutes,
    seconds,
    the_secret_that,
    with_status,
)
from tests.support.decisions import decide
from tests.support.plans import conditions, events, has_issued, issue_reason, leaf, message, ready
from zerotrust.common import naming, times
from zerotrust.common.plan import Plan
from zerotrust.identity import renewal
from zerotrust.pki.secret import observe

LATER = NOW + hours(1)


def revoking(before: datetime, reason: str = "Unspecified", **spec: object) -> Identity:
    text = before.isoformat().replace("+00:00", "Z")
    return an_identity(revocation={"before": text, "reason": reason}, **spec)


def status(plan: Plan) -> dict[str, object]:
    assert plan.status is not None
    return dict(plan.status)


def test_a_certificate_from_before_the_cutoff_is_replaced_at_once() -> None:
    identity, issued = revoking(LATER - seconds(5)), an_issued_secret()
    plan = decide(identity=identity, secret=issued, now=LATER)
    assert issue_reason(plan) == "Revoked"
    assert ready(plan) == ("True", "Issued")
    renewed = the_secret_that(plan, before=an_issued_body())
    again = decide(identity=with_status(identity, plan), secret=renewed, now=LATER + seconds(1))
    assert not has_issued(again)
    assert again.events == ()


def test_an_annotation_revokes_as_the_spec_does_and_the_later_one_counts() -> None:
    early, late = times.render(LATER - minutes(30)), times.render(LATER - seconds(5))
    for written, annotated in ((early, late), (late, early), (None, late)):
        spec = {"revocation": {"before": written}} if written is not None else {}
        identity = an_identity(annotations={naming.REVOKE_BEFORE: annotated}, **spec)
        plan = decide(identity=identity, secret=an_issued_secret(), now=LATER)
        assert issue_reason(plan) == "Revoked"
        assert status(plan)["revokedBefore"] == late


def test_an_annotation_revokes_although_the_spec_cannot_be_used() -> None:
    identity = an_identity(annotations={naming.REVOKE_BEFORE: times.render(LATER)}, certificate={"duration": "1s"})
    plan = decide(identity=identity, secret=an_issued_secret(), now=LATER)
    assert ready(plan) == ("False", "InvalidSpec")
    assert status(plan)["revokedBefore"] == times.render(LATER)


def test_the_cutoff_itself_and_what_is_later_is_not_revoked() -> None:
    certificate = an_issued_secret().certificate
    assert certificate is not None
    at = certificate.not_before
    assert not has_issued(decide(identity=revoking(at), secret=an_issued_secret(), now=LATER))
    assert issue_reason(decide(identity=revoking(at + seconds(1)), secret=an_issued_secret(), now=LATER)) == "Revoked"


def test_a_cutoff_with_a_fraction_counts_from_the_next_whole_second() -> None:
    at = LATER.replace(microsecond=1)
    waiting = decide(identity=revoking(at), secret=an_issued_secret(), now=LATER.replace(microsecond=900_000))
    assert not has_issued(waiting)
    assert waiting.requeue_at == LATER + seconds(1)
    plan = decide(identity=revoking(at), secret=an_issued_secret(), now=LATER + seconds(1))
    assert issue_reason(plan) == "Revoked"
    assert leaf(plan).not_valid_before_utc == LATER + seconds(1)
    assert status(plan)["revokedBefore"] == "2026-11-22T13:00:01Z"


@pytest.mark.parametrize("late", [0, 1, 30, 59, 60, 61, 3600])
def test_a_new_certificate_is_back_dated_but_never_past_the_cutoff(late: int) -> None:
    now = LATER + seconds(late)
    plan = decide(identity=revoking(LATER), secret=an_issued_secret(), now=now)
    begins, ends = leaf(plan).not_valid_before_utc, leaf(plan).not_valid_after_utc
    assert begins == max(now - minutes(1), LATER)
    assert begins <= now, "it is valid at once"
    assert ends - begins == hours(24) + minutes(1), "as long as any other"


def test_the_first_certificate_of_an_identity_that_already_revokes_begins_at_the_cutoff() -> None:
    plan = decide(identity=revoking(NOW - seconds(10)))
    assert issue_reason(plan) == "DoesNotExist"
    assert leaf(plan).not_valid_before_utc == NOW - seconds(10)


def test_a_cutoff_in_the_future_waits_until_its_time() -> None:
    identity, issued = revoking(NOW + hours(3)), an_issued_secret()
    waiting = decide(identity=identity, secret=issued, now=NOW + minutes(1))
    assert not has_issued(waiting)
    assert waiting.requeue_at == NOW + hours(3)
    assert "revokedBefore" not in status(waiting)
    assert issue_reason(decide(identity=identity, secret=issued, now=NOW + hours(3))) == "Revoked"


def test_a_first_issue_also_waits_for_a_cutoff_in_the_future() -> None:
    assert decide(identity=revoking(NOW + minutes(5))).requeue_at == NOW + minutes(5)


# --- what the operator remembers ---


@pytest.mark.parametrize("identity", [an_identity(), revoking(NOW - hours(9))], ids=["removed", "lowered"])
def test_what_is_remembered_counts_whatever_the_spec_says(identity: Identity) -> None:
    plan = decide(identity=identity, secret=an_issued_secret(), now=LATER, remembered_cutoff=LATER - seconds(5))
    assert issue_reason(plan) == "Revoked"
    assert leaf(plan).not_valid_before_utc == LATER - seconds(5)
    assert status(plan)["revokedBefore"] == "2026-11-22T12:59:55Z"


def test_the_later_of_what_is_asked_and_what_is_remembered_counts() -> None:
    plan = decide(identity=revoking(LATER), secret=an_issued_secret(), now=LATER, remembered_cutoff=NOW)
    assert leaf(plan).not_valid_before_utc == LATER


def test_one_to_come_does_not_hide_one_that_is_in_force() -> None:
    identity = revoking(LATER + hours(1))
    plan = decide(identity=identity, secret=an_issued_secret(), now=LATER, remembered_cutoff=LATER - minutes(2))
    assert issue_reason(plan) == "Revoked"
    assert plan.requeue_at == LATER + hours(1)


# --- the key ---


@pytest.mark.parametrize(
    ("reason", "keeps"),
    [
        ("KeyCompromise", False),
        ("Unspecified", False),
        ("Superseded", True),
        ("CessationOfOperation", True),
        ("PrivilegeWithdrawn", True),
    ],
)
def test_keyrotation_never_keeps_a_key_only_if_the_reason_says_that_it_is_not_in_doubt(
    reason: str, keeps: bool
) -> None:
    before = an_identity(certificate={"keyRotation": "Never"})
    body = an_issued_body(before)
    identity = revoking(LATER, reason, certificate={"keyRotation": "Never"})
    plan = decide(identity=identity, secret=observe(body), now=LATER)
    assert issue_reason(plan) == "Revoked"
    assert ("tls.key" not in plan.applies[0].manifest["data"]) is keeps


def test_keyrotation_never_keeps_no_key_of_which_only_the_memory_tells() -> None:
    identity = an_identity(certificate={"keyRotation": "Never"})
    plan = decide(identity=identity, secret=an_issued_secret(identity), now=LATER, remembered_cutoff=LATER)
    assert "tls.key" in plan.applies[0].manifest["data"]


def test_a_compromised_key_goes_although_another_reason_is_told() -> None:
    before = an_identity(certificate={"keyRotation": "Never"})
    identity = revoking(LATER, "KeyCompromise", certificate={"keyRotation": "Never"})
    plan = decide(identity=identity, secret=an_issued_secret(before), now=NOW + hours(30))
    assert issue_reason(plan) == "Expired"
    assert "tls.key" in plan.applies[0].manifest["data"]


# --- what is told ---


def test_a_revocation_is_told_once() -> None:
    identity = revoking(LATER)
    plan = decide(identity=identity, secret=an_issued_secret(), now=LATER)
    assert sorted(events(plan)) == [("Normal", "Issued"), ("Warning", "Revoked")]
    assert "NotImplementedYet" not in conditions(plan)
    raised = with_status(revoking(LATER + minutes(5)), plan)
    renewed = the_secret_that(plan, before=an_issued_body())
    assert ("Warning", "Revoked") in events(decide(identity=raised, secret=renewed, now=LATER + minutes(5)))


def test_a_revocation_of_older_certificates_is_told_although_the_present_one_stays() -> None:
    plan = decide(identity=revoking(NOW - hours(2)), secret=an_issued_secret(), now=LATER)
    assert events(plan) == [("Warning", "Revoked")]
    assert status(plan)["revokedBefore"] == "2026-11-22T10:00:00Z"


@pytest.mark.parametrize("hindrance", ["paused", "no authority"])
def test_a_revoked_certificate_that_cannot_be_replaced_is_not_ready(hindrance: str) -> None:
    identity = revoking(LATER, issuance="Paused" if hindrance == "paused" else "Active")
    more = {"view": a_view_without_authority()} if hindrance == "no authority" else {}
    plan = decide(identity=identity, secret=an_issued_secret(), now=LATER, **more)
    assert not has_issued(plan)
    assert ready(plan) == ("False", "Revoked")
    assert message(plan).startswith("certificates from before 2026-11-22T13:00:00Z are revoked; ")
    assert events(plan).count(("Warning", "Revoked")) == 1
    again = decide(identity=with_status(identity, plan), secret=an_issued_secret(), now=LATER + minutes(1), **more)
    assert again.events == ()


def test_an_identity_that_is_refused_still_tells_of_its_revocation() -> None:
    plan = decide(identity=revoking(LATER), now=LATER, service_account_exists=False)
    assert status(plan)["revokedBefore"] == "2026-11-22T13:00:00Z"


# --- the schedule of a certificate that was not back-dated in full ---


@pytest.mark.parametrize("duration", ["1m", "10m", "24h"])
@pytest.mark.parametrize("renew_before_percentage", [1, 33, 90])
@pytest.mark.parametrize("late", [0, 7, 50])
def test_a_certificate_after_a_revocation_never_leads_to_a_tight_loop(
    duration: str, renew_before_percentage: int, late: int
) -> None:
    certificate = {"duration": duration, "renewBeforePercentage": renew_before_percentage}
    plan = decide(identity=revoking(NOW - seconds(late), certificate=certificate))
    assert plan.requeue_at is not None
    assert plan.requeue_at > NOW
    identity = revoking(NOW - seconds(late), certificate=certificate)
    assert not has_issued(decide(identity=identity, secret=the_secret_that(plan), now=NOW + seconds(1)))


def test_a_leaf_after_a_revocation_does_not_outlive_its_authority() -> None:
    authority = an_authority(not_after=NOW + hours(2))
    snapshot = an_identity_snapshot(revoking(NOW), record=a_record(authority))
    plan = decide(snapshot, signer=a_key_ring(authority))
    assert leaf(plan).not_valid_after_utc == NOW + hours(2)


@pytest.mark.parametrize("after", [1, 30, 59])
def test_a_rotation_that_is_requested_just_after_a_revocation_is_done_once(after: int) -> None:
    body = an_issued_body()
    first = decide(identity=revoking(LATER), secret=observe(body), now=LATER)
    requested = (LATER + seconds(after)).strftime("%Y-%m-%dT%H:%M:%SZ")
    identity = revoking(LATER, rotation={"requestedAt": requested})
    present = the_secret_that(first, before=body)
    second = decide(identity=identity, secret=present, now=LATER + seconds(after))
    assert issue_reason(second) == "RotationRequested"
    for later in (seconds(after), seconds(after + 1), timedelta(minutes=2)):
        rotated = the_secret_that(second, before={"metadata": {"resourceVersion": "7"}})
        assert not has_issued(decide(identity=identity, secret=rotated, now=LATER + later))


def test_a_rotation_and_a_revocation_in_one_edit_are_one_certificate() -> None:
    now = LATER + seconds(10)
    identity = revoking(LATER, rotation={"requestedAt": (LATER + seconds(5)).strftime("%Y-%m-%dT%H:%M:%SZ")})
    plan = decide(identity=identity, secret=an_issued_secret(), now=now)
    assert issue_reason(plan) == "Revoked"
    renewed = the_secret_that(plan, before=an_issued_body())
    assert not has_issued(decide(identity=identity, secret=renewed, now=now + seconds(1)))


def test_a_domain_with_a_short_default_has_room_for_it() -> None:
    domain = a_trust_domain(identities={"duration": "1m"})
    plan = decide(identity=revoking(NOW), domain=domain)
    assert leaf(plan).not_valid_after_utc - leaf(plan).not_valid_before_utc == 2 * renewal.BACKDATE
