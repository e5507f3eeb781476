"""What a status says, and which of its changes are worth an event."""

from dataclasses import replace
from typing import Any

import pytest

from tests.support.builders import (
    NOW,
    a_key_ring,
    a_record,
    a_secret,
    a_view_without_authority,
    an_authority,
    an_identity,
    an_identity_snapshot,
    an_issued_secret,
    hours,
    minutes,
    the_secret_that,
    with_status,
)
from tests.support.decisions import changes, decide
from tests.support.plans import (
    conditions,
    events,
    has_issued,
    leaf,
    message,
    ready,
)
from tests.support.world import status_patch
from zerotrust.common.conditions import MAX_MESSAGE
from zerotrust.common.plan import Plan
from zerotrust.identity.reconcile import failed
from zerotrust.identity.renewal import Reason
from zerotrust.identity.resource import ServiceIdentityStatus
from zerotrust.identity.snapshot import Failure
from zerotrust.identity.status import Standing, status_of


def a_standing(**parts: Any) -> Standing:
    """Nothing issued, and nothing known to be wrong."""
    return replace(Standing(None, None, None, 0, None, None), **parts)


def told(standing: Standing) -> dict[str, tuple[str, str]]:
    return conditions(Plan(status=status_of(an_identity(), standing, "orders-svid", NOW)))


BROKEN = Reason("ChainBroken", "the chain is broken")
IN_THE_WAY = {
    "InvalidSpec": "Stalled",
    "DuplicateIdentity": "Stalled",
    "NamespaceNotAllowed": "Stalled",
    "SecretConflict": "Stalled",
    "TrustDomainNotFound": "Reconciling",
    "TrustDomainInvalid": "Reconciling",
    "ServiceAccountNotFound": "Reconciling",
    "AuthorityNotReady": "Reconciling",
    "AuthorityExpired": "Reconciling",
    "WriteFailed": "Reconciling",
    "Paused": "",
}


@pytest.mark.parametrize(("reason", "abnormal"), IN_THE_WAY.items())
def test_what_only_a_person_can_mend_is_stalled_and_what_will_mend_itself_is_reconciling(
    reason: str, abnormal: str
) -> None:
    seen = told(a_standing(blocked=Reason(reason, "why"), unusable=BROKEN))
    assert {name for name in ("Stalled", "Reconciling") if name in seen} == ({abnormal} if abnormal else set())
    assert seen["Ready"] == ("False", reason)
    if abnormal:
        assert seen[abnormal] == ("True", reason)


@pytest.mark.parametrize("reason", IN_THE_WAY)
def test_while_the_certificate_is_good_nothing_is_stalled_or_reconciling(reason: str) -> None:
    good = an_issued_secret().certificate
    seen = told(a_standing(certificate=good, blocked=Reason(reason, "why")))
    assert seen["Ready"] == ("True", "Issued")
    assert not {"Stalled", "Reconciling"} & set(seen)


def test_who_has_an_expired_certificate_reads_expired_first() -> None:
    seen = a_standing(blocked=Reason("AuthorityNotReady", "no key"), unusable=Reason("Expired", "it is over"))
    assert told(seen)["Ready"] == ("False", "Expired")
    assert message(Plan(status=status_of(an_identity(), seen, "s", NOW))) == "it is over; no key"


def test_what_does_not_apply_is_left_out() -> None:
    status = status_of(an_identity(generation=4), a_standing(unusable=BROKEN), "orders-svid", NOW)
    assert set(status) == {"observedGeneration", "secretName", "conditions"}
    assert status["observedGeneration"] == 4
    assert {one["observedGeneration"] for one in status["conditions"]} == {4}


def test_a_long_message_fits_into_a_condition() -> None:
    status = status_of(an_identity(), a_standing(unusable=Reason("ChainBroken", "x" * 5000)), "s", NOW)
    assert max(len(one["message"]) for one in status["conditions"]) == MAX_MESSAGE


def test_the_status_is_what_the_resource_definition_allows() -> None:
    identity = an_identity(enforcement="Observe")
    failing = failed(an_identity_snapshot(identity), FAILURE, NOW)
    refused = decide(identity=identity, secret=a_secret())
    for plan in (decide(identity=identity), failing, refused):
        assert plan.status is not None
        ServiceIdentityStatus.model_validate(plan.status, by_alias=True, by_name=False)


def test_the_status_says_what_was_issued() -> None:
    plan = decide()
    certificate = leaf(plan)
    assert plan.status is not None
    assert {name: plan.status[name] for name in plan.status if name != "conditions"} == {
        "observedGeneration": 1,
        "spiffeID": "spiffe://example.org/ns/shop/sa/orders",
        "serialNumber": f"{certificate.serial_number:x}",
        "notBefore": "2026-11-22T11:59:00Z",
        "notAfter": "2026-11-23T12:00:00Z",
        "renewalTime": f"{plan.requeue_at:%Y-%m-%dT%H:%M:%SZ}",
        "revision": 1,
        "authorityID": an_authority().id,
        "secretName": "orders-svid",
    }


def test_a_good_identity_is_ready_and_nothing_else_is_wrong() -> None:
    assert conditions(decide()) == {
        "Ready": ("True", "Issued"),
        "RenewalOverdue": ("False", "OnTime"),
        "SecretConflict": ("False", "NoConflict"),
        "PodsMatch": ("Unknown", "NotWatched"),
        "Isolated": ("False", "Open"),
    }
    assert message(decide()) == "valid until 2026-11-23T12:00:00Z"


def test_the_status_after_an_issue_is_the_one_that_a_second_look_would_write() -> None:
    first = decide()
    second = decide(identity=with_status(an_identity(), first), secret=the_secret_that(first))
    assert second.status == first.status
    assert second.events == ()
    assert second.requeue_at == first.requeue_at
    assert changes(the_secret_that(first), second) == {}


def test_a_certificate_cut_short_by_its_authority_says_so() -> None:
    authority = an_authority(not_after=NOW + hours(2))
    plan = decide(record=a_record(authority), signer=a_key_ring(authority))
    assert leaf(plan).not_valid_after_utc == NOW + hours(2)
    assert ready(plan) == ("True", "Issued")
    assert "cut short by the end of its authority" in message(plan)


def test_the_authority_of_an_older_certificate_is_not_guessed() -> None:
    old, new = an_authority(), an_authority(number=1)
    plan = decide(
        identity=an_identity(issuance="Paused"),
        record=a_record(old, new),
        secret=an_issued_secret(authority=old),
    )
    assert plan.status is not None
    assert "authorityID" not in plan.status


def test_transition_times_stay_while_the_status_stays() -> None:
    first = decide()
    later = decide(identity=with_status(an_identity(), first), secret=the_secret_that(first), now=NOW + hours(1))
    assert later.status == first.status


def test_an_issue_is_told_with_its_reason() -> None:
    (event,) = decide().events
    assert (event.type, event.reason, event.action) == ("Normal", "Issued", "Issue")
    assert event.message == "there is no Secret yet; issued revision 1, valid until 2026-11-23T12:00:00Z"


def test_a_refusal_is_told_once() -> None:
    first = decide(service_account_exists=False)
    assert events(first) == [("Warning", "ServiceAccountNotFound")]
    again = decide(identity=with_status(an_identity(), first), service_account_exists=False, now=NOW + hours(1))
    assert events(again) == []


def test_another_reason_is_told_again() -> None:
    first = decide(service_account_exists=False)
    other = decide(identity=with_status(an_identity(), first), secret=a_secret())
    assert events(other) == [("Warning", "SecretConflict")]


def test_an_overdue_renewal_is_told_once() -> None:
    parts: dict[str, Any] = {"view": a_view_without_authority(), "secret": an_issued_secret(), "now": NOW + hours(20)}
    first = decide(**parts)
    assert events(first) == [("Warning", "RenewalOverdue")]
    assert events(decide(identity=with_status(an_identity(), first), **parts)) == []


def test_a_quiet_look_tells_nothing() -> None:
    assert decide(secret=an_issued_secret(), now=NOW + hours(1)).events == ()


def test_a_field_without_effect_is_named() -> None:
    plan = decide(identity=an_identity(secret={"formats": ["PKCS12"]}))
    assert has_issued(plan)
    assert conditions(plan)["NotImplementedYet"] == ("True", "FieldsWithoutEffect")
    assert message(plan, "NotImplementedYet") == "have no effect in this version: spec.secret.formats"


def test_a_field_without_effect_is_told_once() -> None:
    identity = an_identity(secret={"formats": ["PKCS12"]})
    first = decide(identity=identity, secret=an_issued_secret())
    assert events(first) == [("Warning", "FieldsWithoutEffect")]
    assert events(decide(identity=with_status(identity, first), secret=an_issued_secret())) == []


def test_a_field_without_effect_is_told_although_a_certificate_is_issued() -> None:
    identity = an_identity(secret={"formats": ["PKCS12"]})
    first = decide(identity=identity)
    second = decide(identity=with_status(identity, first), secret=the_secret_that(first))
    assert ("Warning", "FieldsWithoutEffect") in [*events(first), *events(second)]


FAILURE = Failure("PATCH secrets/orders-svid: 503 error", 3, NOW + minutes(1))


def test_a_failing_write_is_told_by_what_is_really_there() -> None:
    nothing = failed(an_identity_snapshot(), FAILURE, NOW)
    assert ready(nothing) == ("False", "WriteFailed")
    assert message(nothing) == "there is no Secret yet; PATCH secrets/orders-svid: 503 error"
    assert conditions(nothing)["Reconciling"] == ("True", "WriteFailed")
    working = failed(an_identity_snapshot(secret=an_issued_secret()), FAILURE, NOW + hours(20))
    assert ready(working) == ("True", "Issued")
    assert conditions(working)["RenewalOverdue"] == ("True", "WriteFailed")


def test_a_failing_write_says_how_often_it_failed_and_when_it_is_tried_again() -> None:
    plan = failed(an_identity_snapshot(), FAILURE, NOW)
    assert plan.status is not None
    assert (plan.status["failedAttempts"], plan.status["nextAttemptTime"]) == (3, "2026-11-22T12:01:00Z")


def test_telling_of_a_failure_writes_nothing_else_and_leaves_the_retry_to_the_engine() -> None:
    stale = an_identity_snapshot(secret=an_issued_secret(), stale_secrets=(a_secret("old"),))
    plan = failed(stale, FAILURE, NOW)
    assert (plan.applies, plan.deletes, plan.requeue_at, plan.refresh) == ((), (), None, ())


def test_the_failure_is_forgotten_with_the_first_success() -> None:
    told = with_status(an_identity(), failed(an_identity_snapshot(), FAILURE, NOW))
    plan = decide(identity=told)
    assert plan.status is not None
    assert status_patch(told, plan.status) | {"failedAttempts": None, "nextAttemptTime": None} == status_patch(
        told, plan.status
    )


@pytest.mark.parametrize(
    "parts",
    [
        {"identity": an_identity(deleting=True)},
        {"identity": an_identity(certificate={"duration": "no"})},
        {"service_account_exists": False},
        {"secret": a_secret()},
    ],
)
def test_a_failure_to_write_a_refusal_changes_nothing_about_it(parts: dict[str, Any]) -> None:
    assert failed(an_identity_snapshot(**parts), FAILURE, NOW) == Plan()


def test_a_failure_before_there_is_a_trust_domain_changes_nothing() -> None:
    assert failed(replace(an_identity_snapshot(), trust_domain=None), FAILURE, NOW) == Plan()
