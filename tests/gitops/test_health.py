"""The health checks for Argo CD, verdict by verdict. That real statuses get the right ones, the sequences show."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.argocd import Customizations

ARGO = Customizations()
GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "troubleshooting.md"
KINDS = ("TrustDomain", "ServiceIdentity", "TrustPolicy", "ApiKey")

# What Ready=False means to somebody who looks at Argo CD: it is on its way, or somebody must do something.
NOT_READY = {
    "ServiceIdentity": {
        "InvalidSpec": "Degraded",
        "DuplicateIdentity": "Degraded",
        "NamespaceNotAllowed": "Degraded",
        "SecretConflict": "Degraded",
        "Expired": "Degraded",
        "Revoked": "Degraded",
        "Paused": "Suspended",
        "TrustDomainNotFound": "Progressing",
        "TrustDomainInvalid": "Progressing",
        "ServiceAccountNotFound": "Progressing",
        "AuthorityNotReady": "Progressing",
        "AuthorityExpired": "Progressing",
        "WriteFailed": "Progressing",
        "DoesNotExist": "Progressing",
    },
    "TrustDomain": {
        "InvalidSpec": "Degraded",
        "DuplicateDefault": "Degraded",
        "AuthorityExpired": "Degraded",
        "AuthorityMissing": "Degraded",
        "AuthorityUnreadable": "Degraded",
        "RecordUnreadable": "Degraded",
        "AuthorityNotYetValid": "Progressing",
        "SecretNotFound": "Progressing",
        "WriteFailed": "Progressing",
    },
    "TrustPolicy": {
        "InvalidSpec": "Degraded",
        "UnknownField": "Degraded",
        "TestsFailed": "Degraded",
        "Conflict": "Degraded",
        "TooComplex": "Degraded",
        "Unresolved": "Progressing",
        "WriteFailed": "Progressing",
        "Programming": "Progressing",
    },
    "ApiKey": {
        "InvalidSpec": "Degraded",
        "UnknownField": "Degraded",
        "SecretConflict": "Degraded",
        "GrantEnded": "Degraded",
        "Expired": "Degraded",
        "Suspended": "Suspended",
        "NoKey": "Progressing",
        "NotServed": "Progressing",
        "Lagging": "Progressing",
        "Delivering": "Progressing",
        "KeyRevoked": "Progressing",
        "SecretLost": "Progressing",
        "SecretChanged": "Progressing",
        "TooManyKeys": "Progressing",
    },
}
# Where the operator says Stalled with it: only a person can solve it. Of other kinds, the reason alone says so.
STALLED = {"InvalidSpec", "UnknownField", "DuplicateIdentity", "NamespaceNotAllowed", "SecretConflict", "GrantEnded"}


def resource(kind: str, *conditions: tuple[str, str, str], spec: dict[str, Any] | None = None) -> dict[str, Any]:
    """An object whose status is about its present generation."""
    listed = [
        {"type": type_, "status": status, "reason": reason, "message": f"{type_} because of {reason}"}
        for type_, status, reason in conditions
    ]
    return {
        "apiVersion": "zerotrust.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": "it", "generation": 3},
        "spec": spec or {},
        "status": {"observedGeneration": 3, "conditions": listed},
    }


@pytest.mark.parametrize(("kind", "reason"), [(kind, reason) for kind, found in NOT_READY.items() for reason in found])
def test_what_is_not_ready_is_on_its_way_or_needs_somebody(kind: str, reason: str) -> None:
    conditions = [("Ready", "False", reason)]
    if reason in STALLED:
        conditions.append(("Stalled", "True", reason))
    found = ARGO.health(resource(kind, *conditions))
    assert found == (NOT_READY[kind][reason], f"{reason}: Ready because of {reason}")


@pytest.mark.parametrize("kind", KINDS)
def test_every_reason_of_the_troubleshooting_guide_has_a_verdict(kind: str) -> None:
    sections = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", GUIDE.read_text(), re.MULTILINE | re.DOTALL))
    rows = re.findall(r"^\| False \| (`.+?) \|", sections[f"{kind}: Ready"], re.MULTILINE)
    named = {reason for row in rows for reason in re.findall(r"`(\w+)`", row)}
    others = sections[f"{kind}: other conditions"]
    cause = {"TrustDomain": "CertificateAuthorityHealthy", "TrustPolicy": "(?:Accepted|NetworkProgrammed)"}.get(kind)
    if cause is not None:  # Ready takes its reasons from there
        rows = re.findall(rf"^\| `{cause}` \| (?:False|Unknown) \| (.+?) \|", others, re.MULTILINE)
        named |= {reason for row in rows for reason in re.findall(r"`(\w+)`", row)}
        named -= {"ObserveMode", "NotSelected", "NoTargets", cause, "Accepted", "NetworkProgrammed"}
    assert named == set(NOT_READY[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_operator_has_not_looked_at_is_progressing(kind: str) -> None:
    seen = resource(kind, ("Ready", "True", "Fine"))
    assert ARGO.health(seen).status == "Healthy"
    for status in (None, {}, {"conditions": []}, {"conditions": None}, {**seen["status"], "observedGeneration": 2}):
        found = ARGO.health({**seen, "status": status})
        assert found == ("Progressing", "the operator has not looked at this version yet")
    bare = {key: value for key, value in seen.items() if key not in ("status", "spec")}
    assert ARGO.health(bare).status == "Progressing"


@pytest.mark.parametrize(
    ("kind", "conditions", "told"),
    [
        ("TrustDomain", [("CertificateAuthorityHealthy", "True", "ExpiringSoon")], "ExpiringSoon"),
        ("TrustDomain", [("IdentityProvidersReady", "False", "Stale")], "Stale"),
        ("TrustDomain", [("ClockSkew", "True", "ClocksDisagree")], "ClocksDisagree"),
        ("TrustDomain", [("BundlePublished", "False", "Blocked")], "Blocked"),
        ("ServiceIdentity", [("RenewalOverdue", "True", "WriteFailed")], "WriteFailed"),
        ("ServiceIdentity", [("PodsMatch", "False", "ForeignPods")], "ForeignPods"),
        ("ServiceIdentity", [("RequestUnreadable", "True", "NotATime")], "NotATime"),
        ("TrustPolicy", [("Enforced", "False", "NoDecisionPoint")], "NoDecisionPoint"),
        ("TrustPolicy", [("Enforced", "False", "ObserveMode")], "ObserveMode"),
        ("TrustPolicy", [("Shadowed", "True", "ForeignPolicy"), ("Enforced", "False", "ObserveMode")], "ForeignPolicy"),
        ("TrustPolicy", [("EgressAccepted", "False", "NotNamed")], "NotNamed"),
        ("ApiKey", [("ExpiringSoon", "True", "GrantEndsSoon")], "GrantEndsSoon"),
        ("ApiKey", [("Revoked", "False", "UnknownKeyIDs")], "UnknownKeyIDs"),
        ("ApiKey", [("Unused", "True", "NotUsed")], "NotUsed"),
    ],
    ids=lambda value: value[-1][2] if isinstance(value, list) else None,
)
def test_what_works_is_healthy_and_the_message_is_what_to_look_at(
    kind: str, conditions: list[tuple[str, str, str]], told: str
) -> None:
    found = ARGO.health(resource(kind, ("Ready", "True", "Fine"), *conditions))
    assert found.status == "Healthy"
    assert found.message.startswith(f"{told}: ")


@pytest.mark.parametrize("reason", ["Publishing", "Lagging", "Awaited", "ConstraintsDiffer"])
def test_a_policy_is_progressing_until_it_is_enforced(reason: str) -> None:
    found = ARGO.health(resource("TrustPolicy", ("Ready", "True", "Programmed"), ("Enforced", "False", reason)))
    assert found == ("Progressing", f"{reason}: Enforced because of {reason}")


@pytest.mark.parametrize("reason", ["Lagging", "NotServed"])
def test_a_key_is_progressing_until_its_revocation_is_known_everywhere(reason: str) -> None:
    found = ARGO.health(resource("ApiKey", ("Ready", "True", "Delivered"), ("Revoked", "False", reason)))
    assert found.status == "Progressing"


@pytest.mark.parametrize("reason", ["KeyRevoked", "SecretLost", "SecretChanged"])
def test_a_key_that_nothing_follows_is_degraded(reason: str) -> None:
    conditions = ("Ready", "False", reason), ("Delivered", "False", "TooManyKeys")
    assert ARGO.health(resource("ApiKey", *conditions)).status == "Degraded"


def test_tests_that_have_no_target_yet_are_waited_for() -> None:
    body = resource("TrustPolicy", ("Ready", "False", "TestsFailed"))
    body["status"]["targets"] = 0
    assert ARGO.health(body).status == "Progressing"
    body["status"]["targets"] = 1
    assert ARGO.health(body).status == "Degraded"


def test_a_paused_identity_is_suspended_until_its_certificate_ends() -> None:
    paused = resource("ServiceIdentity", ("Ready", "True", "Issued"), spec={"issuance": "Paused"})
    assert ARGO.health(paused) == ("Suspended", "Paused: Ready because of Issued")
    ended = resource("ServiceIdentity", ("Ready", "False", "Expired"), spec={"issuance": "Paused"})
    assert ARGO.health(ended).status == "Degraded"


def test_a_suspended_key_says_so_whatever_else_is_wrong() -> None:
    found = ARGO.health(
        resource(
            "ApiKey", ("Ready", "False", "Suspended"), ("Suspended", "True", "Suspended"), spec={"state": "Suspended"}
        )
    )
    assert found == ("Suspended", "Suspended: Suspended because of Suspended")


@pytest.mark.parametrize(("kind", "action"), [("ServiceIdentity", "renew"), ("ApiKey", "rotate")])
def test_an_action_asks_by_annotation_and_changes_nothing_else(kind: str, action: str) -> None:
    body = resource(kind, ("Ready", "True", "Fine"), spec={"audience": ["orders"]})
    body["metadata"]["annotations"] = {"example.org/mine": "kept"}
    (after,) = ARGO.actions(body).values()
    assert list(ARGO.actions(body)) == [action]
    assert after is not None
    asked = after["metadata"]["annotations"].pop("zerotrust.dev/rotate-requested-at")
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", asked)
    assert after == body
    del body["metadata"]["annotations"]
    (after,) = ARGO.actions(body).values()
    assert after is not None
    assert list(after["metadata"]["annotations"]) == ["zerotrust.dev/rotate-requested-at"]


@pytest.mark.parametrize(
    ("kind", "spec"), [("ServiceIdentity", {"issuance": "Paused"}), ("ApiKey", {"state": "Suspended"})]
)
def test_no_action_where_it_would_do_nothing(kind: str, spec: dict[str, str]) -> None:
    assert list(ARGO.actions(resource(kind, spec=spec)).values()) == [None]


def test_the_scripts_get_no_more_than_argo_cd_gives_them() -> None:
    scripts = [text for key, text in ARGO.data.items() if ".health." in key]
    assert len(scripts) == len(KINDS)
    for name in ("io", "string", "math", "debug", "os", "package", "python", "load", "dofile"):
        spied = Customizations()
        spied.data = dict.fromkeys(ARGO.data, f'return {{status = "Healthy", message = type({name})}}')
        assert spied.health(resource("ApiKey")).message == "nil", name
