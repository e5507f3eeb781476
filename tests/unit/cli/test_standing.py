"""How a resource stands, by its status and the clock: what is wrong, how bad that is, what comes next."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from zerotrust.cli.advice import advice
from zerotrust.cli.standing import STATES, Problem, Standing, is_wrong, standing_of
from zerotrust.cli.status import ending, worst
from zerotrust.common import naming, times

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
WELL = {
    "TrustDomain": {
        "Ready": "True",
        "CertificateAuthorityHealthy": "True",
        "BundlePublished": "True",
        "ClockSkew": "False",
    },
    "ServiceIdentity": {"Ready": "True", "RenewalOverdue": "False", "SecretConflict": "False", "PodsMatch": "Unknown"},
    "TrustPolicy": {
        "Ready": "True",
        "Accepted": "True",
        "Enforced": "True",
        "BundlePublished": "Unknown",
        "ConstraintsEnforced": "Unknown",
        "EgressAccepted": "True",
        "Shadowed": "False",
    },
    "ApiKey": {"Ready": "True", "Published": "True", "Delivered": "True", "ExpiringSoon": "False", "Unused": "Unknown"},
}
WELL["ApiKey"] |= {"Unused": "False", "Suspended": "False", "Expired": "False"}


def moment(**span: float) -> str:
    return times.render(NOW + timedelta(**span))


def an_object(kind: str, *changed: tuple[str, str, str], generation: int = 1, **more: Any) -> dict[str, Any]:
    """One of our resources whose status is well but for some conditions; `more` are spec, annotations and status."""
    conditions = [
        {"type": name, "status": status, "reason": "Word", "message": "why"}
        for name, status in WELL[kind].items()
        if name not in {one[0] for one in changed}
    ]
    conditions += [{"type": name, "status": status, "reason": word, "message": "why"} for name, status, word in changed]
    metadata = {
        "name": "one",
        "namespace": "shop",
        "generation": generation,
        "annotations": more.get("annotations", {}),
    }
    status = {"observedGeneration": 1, "conditions": conditions, **more.get("status", {})}
    return {"metadata": metadata, "spec": more.get("spec", {}), "status": status}


def standing(kind: str, *changed: tuple[str, str, str], **more: Any) -> Standing:
    return standing_of(kind, an_object(kind, *changed, **more), NOW)


@pytest.mark.parametrize("kind", list(WELL))
def test_all_is_well(kind: str) -> None:
    assert (standing(kind).state, standing(kind).problem) == ("ready", None)


@pytest.mark.parametrize(
    ("kind", "changed", "state"),
    [
        ("ServiceIdentity", ("Ready", "False", "Expired"), "not ready"),
        ("ServiceIdentity", ("RenewalOverdue", "True", "Paused"), "attention"),
        ("ServiceIdentity", ("PodsMatch", "False", "ForeignPods"), "attention"),
        ("ServiceIdentity", ("RequestUnreadable", "True", "NotATime"), "attention"),
        ("TrustDomain", ("CertificateAuthorityHealthy", "True", "ExpiringSoon"), "attention"),
        ("TrustDomain", ("ClockSkew", "True", "ClocksDisagree"), "attention"),
        ("TrustDomain", ("IdentityProvidersReady", "False", "Stale"), "attention"),
        ("TrustPolicy", ("Enforced", "False", "Lagging"), "attention"),
        ("TrustPolicy", ("Shadowed", "True", "ForeignPolicy"), "attention"),
        ("TrustPolicy", ("LayersAgree", "False", "ConstraintsDiffer"), "attention"),
        ("TrustPolicy", ("Ready", "False", "Unresolved"), "not ready"),
        ("ApiKey", ("Revoked", "False", "Lagging"), "attention"),
        ("ApiKey", ("Suspended", "True", "Suspended"), "attention"),
        ("ApiKey", ("RequestUnreadable", "True", "NotATime"), "attention"),
    ],
)
def test_what_is_wrong(kind: str, changed: tuple[str, str, str], state: str) -> None:
    found = standing(kind, changed)
    assert found.problem == Problem(*changed, "why")
    assert found.state == state


@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        ("TrustPolicy", ("Enforced", "False", "ObserveMode")),
        ("TrustPolicy", ("ConstraintsEnforced", "Unknown", "NotInstalled")),
        ("ServiceIdentity", ("PodsMatch", "Unknown", "NoPods")),
        ("ServiceIdentity", ("Isolated", "False", "Open")),
        ("ApiKey", ("Revoked", "False", "NoRevokedKey")),
        ("TrustDomain", ("NotImplementedYet", "True", "FieldsWithoutEffect")),
    ],
)
def test_what_is_wished_or_harmless_is_no_problem(kind: str, changed: tuple[str, str, str]) -> None:
    assert standing(kind, changed).problem is None


@pytest.mark.parametrize("kind", list(WELL))
def test_an_old_status_is_not_believed(kind: str) -> None:
    assert standing(kind, generation=2).state == "not judged"
    nothing = {"metadata": {"name": "one", "namespace": "shop"}, "spec": {}}
    assert standing_of(kind, nothing, NOW).state == "not judged"


def test_an_end_that_the_status_does_not_know_is_not_believed() -> None:
    found = standing("ServiceIdentity", status={"notAfter": moment(seconds=0)})
    assert found.problem is not None
    assert found.problem.reason == "NotObserved"
    assert "notAfter is over" in found.problem.message
    dead = {"certificateAuthorities": [{"id": "a", "state": "Active", "notAfter": moment(days=-1)}]}
    assert standing("TrustDomain", status=dead).state == "not judged"


@pytest.mark.parametrize(
    ("kind", "more", "next_"),
    [
        (
            "ServiceIdentity",
            {"status": {"renewalTime": moment(hours=1), "notAfter": moment(hours=2)}},
            ("renewal", 1),
        ),
        (
            "ServiceIdentity",
            {
                "spec": {"issuance": "Paused"},
                "status": {"renewalTime": moment(hours=1), "notAfter": moment(hours=2)},
            },
            ("certificate expires", 2),
        ),
        (
            "ServiceIdentity",
            {"annotations": {naming.ROTATE_REQUESTED: moment(hours=1)}, "status": {"renewalTime": moment(hours=3)}},
            ("requested renewal", 1),
        ),
        (
            "ServiceIdentity",
            {"status": {"nextAttemptTime": moment(hours=1), "notAfter": moment(hours=2)}},
            ("next attempt", 1),
        ),
        (
            "ApiKey",
            {"status": {"nextRotationTime": moment(hours=4), "overlapEndsAt": moment(hours=2)}},
            ("old key ends", 2),
        ),
        (
            "ApiKey",
            {"spec": {"notAfter": moment(hours=1)}, "status": {"expiresAt": moment(hours=3)}},
            ("grant ends", 1),
        ),
        ("TrustPolicy", {"spec": {"rules": [{"name": "guests", "until": moment(hours=5)}]}}, ("rule guests ends", 5)),
        (
            "TrustDomain",
            {"status": {"certificateAuthorities": [{"id": "a1", "state": "Active", "notAfter": moment(hours=9)}]}},
            ("authority a1 ends", 9),
        ),
        ("ServiceIdentity", {"status": {"renewalTime": moment(hours=-1)}}, None),
    ],
)
def test_what_comes_next(kind: str, more: dict[str, Any], next_: tuple[str, int] | None) -> None:
    found = standing(kind, **more).next
    expected = (next_[0], NOW + timedelta(hours=next_[1])) if next_ is not None else None
    assert ((found.what, found.at) if found is not None else None) == expected


def test_the_worst_is_first_and_then_what_ends_first() -> None:
    late = standing("ServiceIdentity", ("Ready", "False", "Paused"), status={"notAfter": moment(hours=2)})
    soon = standing("ServiceIdentity", ("Ready", "False", "Paused"), status={"notAfter": moment(hours=1)})
    mild = standing("ServiceIdentity", ("RenewalOverdue", "True", "Paused"), status={"notAfter": moment(minutes=1)})
    fine = standing("ServiceIdentity", status={"notAfter": moment(minutes=2)})
    assert worst([fine, mild, late, soon]) == [soon, late, mild]
    assert ending([late, fine, soon], NOW) == [fine, soon, late]
    assert STATES[0] == "not ready"


def test_every_reason_of_the_guide_that_is_wrong_has_something_to_do() -> None:
    for kind, condition, status, reason in (
        ("ServiceIdentity", "Ready", "False", "SecretConflict"),
        ("ServiceIdentity", "Stalled", "True", "InvalidSpec"),
        ("TrustDomain", "CertificateAuthorityHealthy", "False", "AuthorityMissing"),
        ("TrustPolicy", "Ready", "False", "Unresolved"),
        ("TrustPolicy", "Enforced", "False", "Lagging"),
        ("ApiKey", "Published", "False", "Lagging"),
    ):
        assert is_wrong(kind, Problem(condition, status, reason, "")) or condition == "Stalled"
        found = advice(kind, condition, status, reason)
        assert found is not None
        assert found.remedy not in ("", "nothing")
        assert "](" not in found.remedy
    assert advice("ServiceIdentity", "Ready", "False", "Unheard") is None
