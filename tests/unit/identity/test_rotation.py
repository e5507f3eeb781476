"""A renewal before its time: asked for in the spec or by annotation, done once, never by going back."""

from datetime import datetime

import pytest

from tests.support.builders import (
    NOW,
    Identity,
    an_identity,
    an_issued_body,
    an_issued_secret,
    days,
    hours,
    minutes,
    the_secret_that,
)
from tests.support.decisions import decide
from tests.support.plans import conditions, has_issued, issue_reason, message, ready, value
from zerotrust.common import naming
from zerotrust.pki import secret
from zerotrust.pki.secret import observe

BY_SPEC_AND_BY_ANNOTATION = pytest.mark.parametrize("by", ["spec", "annotation"])


def rotating(by: str, moment: datetime) -> Identity:
    text = moment.isoformat().replace("+00:00", "Z")
    if by == "spec":
        return an_identity(rotation={"requestedAt": text})
    return an_identity(annotations={naming.ROTATE_REQUESTED: text})


@BY_SPEC_AND_BY_ANNOTATION
def test_a_rotation_that_is_requested_is_done_once(by: str) -> None:
    identity, body = rotating(by, NOW + minutes(5)), an_issued_body()
    plan = decide(identity=identity, secret=observe(body), now=NOW + minutes(5))
    assert issue_reason(plan) == "RotationRequested"
    assert value(plan, "tls.key") != secret.value_of(body, "tls.key")
    rotated = the_secret_that(plan, before=body)
    assert not has_issued(decide(identity=identity, secret=rotated, now=NOW + minutes(5)))
    assert not has_issued(decide(identity=identity, secret=rotated, now=NOW + minutes(6)))


@BY_SPEC_AND_BY_ANNOTATION
def test_an_older_request_does_nothing_so_that_a_revert_is_harmless(by: str) -> None:
    body = an_issued_body()
    newer = decide(identity=rotating(by, NOW + minutes(5)), secret=observe(body), now=NOW + minutes(6))
    rotated = the_secret_that(newer, before=body)
    for older in (NOW + minutes(4), NOW - days(9)):
        assert not has_issued(decide(identity=rotating(by, older), secret=rotated, now=NOW + minutes(7)))
    assert not has_issued(decide(identity=an_identity(), secret=rotated, now=NOW + minutes(7)))


@BY_SPEC_AND_BY_ANNOTATION
def test_a_request_for_the_future_is_done_when_its_time_has_come(by: str) -> None:
    identity, issued = rotating(by, NOW + hours(3)), an_issued_secret()
    waiting = decide(identity=identity, secret=issued, now=NOW + minutes(1))
    assert not has_issued(waiting)
    assert waiting.requeue_at == NOW + hours(3)
    assert issue_reason(decide(identity=identity, secret=issued, now=NOW + hours(3))) == "RotationRequested"


def test_a_request_for_the_future_survives_a_renewal_before_it() -> None:
    identity, body = rotating("spec", NOW + hours(30)), an_issued_body()
    plan = decide(identity=identity, secret=observe(body), now=NOW + hours(20))
    assert issue_reason(plan) == "NearExpiry"
    renewed = the_secret_that(plan, before=body)
    assert issue_reason(decide(identity=identity, secret=renewed, now=NOW + hours(30))) == "RotationRequested"


def test_the_later_of_two_requests_counts() -> None:
    identity = an_identity(
        rotation={"requestedAt": "2026-11-01T00:00:00Z"},
        annotations={naming.ROTATE_REQUESTED: "2026-11-22T12:05:00Z"},
    )
    assert (
        issue_reason(decide(identity=identity, secret=an_issued_secret(), now=NOW + minutes(6))) == "RotationRequested"
    )


def test_a_request_for_the_future_does_not_hide_one_that_is_due() -> None:
    identity = an_identity(
        rotation={"requestedAt": "2027-01-01T00:00:00Z"},
        annotations={naming.ROTATE_REQUESTED: "2026-11-22T12:05:00Z"},
    )
    assert has_issued(decide(identity=identity, secret=an_issued_secret(), now=NOW + minutes(6)))


@pytest.mark.parametrize(
    "text", ["", "now", "2026-13-01T00:00:00Z", "9999-99-99T99:99:99Z", "2026-11-22", "0001-01-01T00:00:00Z"]
)
@pytest.mark.parametrize("name", [naming.ROTATE_REQUESTED, naming.REVOKE_BEFORE])
def test_an_annotation_that_is_no_time_does_nothing_and_is_told(text: str, name: str) -> None:
    plan = decide(identity=an_identity(annotations={name: text}), secret=an_issued_secret(), now=NOW + minutes(6))
    assert not has_issued(plan)
    assert ready(plan)[0] == "True"
    assert conditions(plan)["RequestUnreadable"] == ("True", "NotATime")
    assert name in message(plan, "RequestUnreadable")


def test_annotations_that_are_times_are_not_told() -> None:
    identity = an_identity(annotations={naming.ROTATE_REQUESTED: "2026-11-22T12:05:00Z"})
    plan = decide(identity=identity, secret=an_issued_secret(), now=NOW + minutes(6))
    assert "RequestUnreadable" not in conditions(plan)
