"""From what is observed of a TrustDomain to what is done: its authority, the record of it, and the status."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.support.builders import (
    NOW,
    OPERATOR_NAMESPACE,
    Domain,
    FixedEntropy,
    a_record,
    a_settled_trust_domain,
    a_trust_domain,
    a_trust_domain_snapshot,
    an_authority,
    an_authority_secret,
    an_issued_secret,
    days,
    hours,
    minutes,
    seconds,
    the_body_that,
    the_secret_that,
    with_status,
)
from tests.support.plans import conditions, events, everything_visible, manifest, message, ready, shows_key, value
from tests.support.world import status_patch
from zerotrust.common import naming
from zerotrust.common.plan import Plan
from zerotrust.pki import keys, secret
from zerotrust.pki import x509 as profiles
from zerotrust.trustdomain import reconcile as module
from zerotrust.trustdomain.authority import BACKDATE, Authority, KeyRing, Record, from_secret
from zerotrust.trustdomain.providers import ProviderKeys
from zerotrust.trustdomain.reconcile import BundleTargets, TrustDomainSnapshot
from zerotrust.trustdomain.resource import TrustDomainStatus

RECORD = "example.org.authorities"
AUTHORITY, OTHER = an_authority(), an_authority(number=1)


def decide(snapshot: TrustDomainSnapshot | None = None, now: datetime = NOW, **parts: Any) -> Plan:
    """Reconcile a snapshot, or one made of these parts."""
    return module.reconcile(snapshot or a_trust_domain_snapshot(**parts), now, FixedEntropy())


def record_after(plan: Plan) -> Record:
    """The record that the plan writes."""
    return Record.from_json(value(plan, secret.RECORD, RECORD))


def authority_of(plan: Plan) -> Authority:
    """The new authority whose Secret the plan writes."""
    return from_secret(the_secret_that(plan, _key_secret(plan)))


def _key_secret(plan: Plan) -> str:
    (name,) = (apply.ref.name for apply in plan.applies if apply.ref.name != RECORD)
    return name


def healthy(plan: Plan) -> tuple[str, str]:
    return conditions(plan)["CertificateAuthorityHealthy"]


def rotating(moment: datetime, **spec: Any) -> Domain:
    text = f"{moment:%Y-%m-%dT%H:%M:%SZ}"
    return a_trust_domain(certificateAuthority={"rotation": {"requestedAt": text}}, **spec)


def written(plan: Plan) -> list[str]:
    return [apply.ref.name for apply in plan.applies]


# --- the first authority ---


def test_the_first_authority_is_made_at_once_its_key_before_the_record_that_names_it() -> None:
    plan = decide()
    made = authority_of(plan)
    assert written(plan) == [f"example.org.ca-{made.id}", RECORD]
    assert record_after(plan).active == made
    assert healthy(plan) == ("True", "Active")
    assert ready(plan) == ("True", "Operational")
    assert events(plan) == [("Normal", "AuthorityCreated")]


def test_a_self_signed_authority_vouches_for_its_trust_domain_only() -> None:
    certificate = authority_of(decide()).certificate
    assert profiles.is_authority(certificate)
    assert str(profiles.parsed_id(certificate)) == "spiffe://example.org"
    profiles.verify_chain([certificate], [certificate], NOW)


def test_a_self_signed_authority_is_what_the_spec_asks_for() -> None:
    domain = a_trust_domain(certificateAuthority={"duration": "13000h", "keyAlgorithm": "ECDSA-P384"})
    made = authority_of(decide(domain=domain))
    assert made.certificate.not_valid_before_utc == NOW - BACKDATE
    assert made.not_after == NOW + hours(13000)
    assert keys.algorithm_of(made.certificate.public_key()) == "ECDSA-P384"


def test_the_secrets_are_the_operators_own_and_survive_the_trust_domain() -> None:
    plan = decide()
    for name, component, type_ in (
        (_key_secret(plan), naming.COMPONENT_AUTHORITY, "kubernetes.io/tls"),
        (RECORD, naming.COMPONENT_AUTHORITY_RECORD, None),
    ):
        written_ = manifest(plan, name)
        assert written_["metadata"]["namespace"] == OPERATOR_NAMESPACE
        assert written_["metadata"]["labels"] == {naming.MANAGED_BY: naming.OPERATOR, naming.COMPONENT: component}
        assert written_["metadata"]["annotations"] == {naming.TRUST_DOMAIN: "example.org"}
        assert "ownerReferences" not in written_["metadata"]
        assert written_.get("type") == type_


def test_only_the_key_secret_holds_the_key() -> None:
    plan = decide()
    assert set(manifest(plan, _key_secret(plan))["data"]) == {"tls.crt", "tls.key", "ca.crt"}
    assert set(manifest(plan, RECORD)["data"]) == {"record.json"}
    assert b"PRIVATE" not in value(plan, "record.json", RECORD)


def test_a_settled_trust_domain_is_not_written() -> None:
    first = decide()
    settled = a_trust_domain_snapshot(
        with_status(a_trust_domain(), first),
        record=record_after(first),
        authority_secrets=(the_secret_that(first, _key_secret(first)),),
    )
    second = decide(settled, NOW + hours(1))
    assert (second.applies, second.deletes, second.events) == ((), (), ())
    assert second.status == first.status
    assert second.requeue_at == first.requeue_at


# --- what is lost, and what is found again ---


def test_after_a_crash_between_key_and_record_the_authority_is_adopted_and_not_made_again() -> None:
    plan = decide(authorities=[AUTHORITY])
    assert written(plan) == [RECORD]
    assert record_after(plan).active == AUTHORITY
    assert events(plan) == [("Normal", "AuthorityAdopted")]
    assert healthy(plan) == ("True", "Active")


def test_a_lost_record_is_written_again_from_the_newest_authority() -> None:
    newer = an_authority(number=1, not_before=NOW - days(1))
    plan = decide(authorities=[AUTHORITY, newer])
    assert written(plan) == [RECORD]
    active = record_after(plan).active
    assert active is not None
    assert active.id == newer.id


def test_a_lost_record_loses_no_root() -> None:
    newer = an_authority(number=1, not_before=NOW - days(1))
    plan = decide(authorities=[AUTHORITY, newer])
    assert set(record_after(plan).bundle().roots) == {*AUTHORITY.roots, *newer.roots}


def test_the_sequence_never_goes_back_when_the_record_is_lost() -> None:
    domain = a_trust_domain(bundle={"refreshHint": "10m"})
    known = record_after(decide(domain=domain, record=a_record(AUTHORITY), authorities=[AUTHORITY]))
    assert known.sequence == 2
    adopted = record_after(decide(domain=domain, authorities=[AUTHORITY], published_sequence=known.sequence))
    assert adopted.sequence >= known.sequence


@pytest.mark.parametrize("text", ["", "{", "null", '{"version": 1}'])
def test_a_corrupt_record_is_written_again_from_the_authority(text: str) -> None:
    plan = decide(record=text, authorities=[AUTHORITY])
    assert record_after(plan).active == AUTHORITY
    assert healthy(plan) == ("True", "Active")


def test_a_corrupt_record_without_an_authority_is_left_to_a_person() -> None:
    plan = decide(record="{")
    assert healthy(plan) == ("False", "RecordUnreadable")
    assert ready(plan) == ("False", "RecordUnreadable")
    assert message(plan) == "Secret zerotrust-system/example.org.authorities is not a record of authorities"
    assert plan.applies == ()


def test_a_record_of_a_newer_version_is_left_alone() -> None:
    newer = a_record(AUTHORITY).to_json().replace('"version":1', '"version":2')
    plan = decide(record=newer, authorities=[AUTHORITY])
    assert plan.applies == ()
    assert healthy(plan) == ("False", "RecordUnreadable")


def test_an_unreadable_authority_without_a_record_is_left_to_a_person() -> None:
    broken = an_authority_secret(AUTHORITY, tls_key=b"nonsense")
    plan = decide(authority_secrets=(broken,))
    assert healthy(plan) == ("False", "AuthorityUnreadable")
    assert message(plan) == (
        f"Secret zerotrust-system/example.org.ca-{AUTHORITY.id}: tls.key does not belong to the certificate in tls.crt"
    )
    assert plan.applies == ()


LOST = a_trust_domain_snapshot(record=a_record(AUTHORITY))


def test_a_lost_authority_is_missed_and_nothing_is_made_in_its_place() -> None:
    plan = decide(LOST)
    assert plan.applies == ()
    assert healthy(plan) == ("False", "AuthorityMissing")
    assert ready(plan) == ("False", "AuthorityMissing")
    assert message(plan) == (
        f"Secret zerotrust-system/example.org.ca-{AUTHORITY.id} is missing, so nothing can be signed; what was signed"
        " keeps working. Restore the Secret, or set spec.certificateAuthority.rotation.requestedAt to the present time"
        " to make a new authority"
    )
    assert events(plan) == [("Warning", "AuthorityMissing")]


def test_without_its_authority_a_trust_domain_still_tells_its_bundle() -> None:
    plan = decide(LOST)
    assert plan.status is not None
    assert plan.status["bundle"]["hash"] == a_record(AUTHORITY).bundle().hash
    assert [one["id"] for one in plan.status["certificateAuthorities"]] == [AUTHORITY.id]


def test_an_authority_that_cannot_be_read_any_more_is_no_reason_to_make_another() -> None:
    broken = an_authority_secret(AUTHORITY, tls_crt=b"nonsense")
    plan = decide(record=a_record(AUTHORITY), authority_secrets=(broken,))
    assert plan.applies == ()
    assert healthy(plan) == ("False", "AuthorityUnreadable")
    assert "tls.crt holds no readable PEM certificate" in message(plan)


def test_a_restored_authority_signs_again() -> None:
    plan = decide(
        replace(LOST, resource=with_status(LOST.resource, decide(LOST)), authority_secrets=(an_authority_secret(),))
    )
    assert ready(plan) == ("True", "Operational")
    assert events(plan) == [("Normal", "Ready")]


def test_an_explicit_rotation_replaces_a_lost_authority_and_keeps_the_old_root_in_the_bundle() -> None:
    plan = decide(replace(LOST, resource=rotating(NOW)))
    made, record = authority_of(plan), record_after(plan)
    assert record.active == made
    assert [one.state for one in record.authorities] == ["Active", "Retiring"]
    assert set(record.bundle().roots) == {*AUTHORITY.roots, *made.roots}
    assert record.sequence == 2
    assert healthy(plan) == ("True", "Active")


def test_a_lost_authority_is_replaced_once_for_each_request() -> None:
    domain = rotating(NOW)
    replaced = decide(replace(LOST, resource=domain))
    lost_again = a_trust_domain_snapshot(domain, record=record_after(replaced))
    assert healthy(decide(lost_again, NOW + minutes(1))) == ("False", "AuthorityMissing")


@pytest.mark.parametrize("moment", [NOW + seconds(1), AUTHORITY.certificate.not_valid_before_utc])
def test_a_request_for_the_future_or_from_before_the_authority_replaces_nothing(moment: datetime) -> None:
    assert healthy(decide(replace(LOST, resource=rotating(moment)))) == ("False", "AuthorityMissing")


def test_a_lost_authority_is_replaced_when_the_time_of_the_request_has_come() -> None:
    waiting = decide(replace(LOST, resource=rotating(NOW + hours(1))))
    assert waiting.requeue_at == NOW + hours(1)
    assert healthy(decide(replace(LOST, resource=rotating(NOW + hours(1))), NOW + hours(1))) == ("True", "Active")


def test_a_rotation_that_has_just_taken_effect_is_not_called_one_without_effect() -> None:
    plan = decide(replace(LOST, resource=rotating(NOW)))
    assert "NotImplementedYet" not in conditions(plan)
    assert ("Warning", "FieldsWithoutEffect") not in events(plan)


def test_a_rotation_of_a_healthy_authority_is_not_implemented_yet_and_says_so() -> None:
    plan = decide(a_settled_trust_domain(rotating(NOW)))
    assert plan.applies == ()
    assert conditions(plan)["NotImplementedYet"] == ("True", "FieldsWithoutEffect")
    assert "spec.certificateAuthority.rotation" in message(plan, "NotImplementedYet")


# --- the clock ---


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        (days(90), ("True", "Active")),
        (days(90) - seconds(1), ("True", "ExpiringSoon")),
        (seconds(1), ("True", "ExpiringSoon")),
        (timedelta(), ("False", "AuthorityExpired")),
        (-days(9), ("False", "AuthorityExpired")),
    ],
)
def test_the_authority_is_judged_by_the_clock(left: timedelta, expected: tuple[str, str]) -> None:
    plan = decide(a_settled_trust_domain(), AUTHORITY.not_after - left)
    assert healthy(plan) == expected
    assert ready(plan) == (("True", "Operational") if expected[0] == "True" else expected)


def test_the_trust_domain_wakes_when_the_clock_alone_changes_its_conditions() -> None:
    settled = a_settled_trust_domain()
    first = decide(settled)
    assert first.requeue_at == AUTHORITY.not_after - days(90)
    second = decide(settled, first.requeue_at)
    assert second.requeue_at == AUTHORITY.not_after
    assert decide(settled, second.requeue_at).requeue_at is None


def test_an_authority_that_is_not_valid_yet_is_not_healthy() -> None:
    future = an_authority(not_before=NOW + hours(1))
    plan = decide(record=a_record(future), authorities=[future])
    assert healthy(plan)[0] == "False"


@pytest.mark.parametrize(
    ("skew", "expected"),
    [
        (None, ("Unknown", "NotMeasured")),
        (timedelta(), ("False", "ClocksAgree")),
        (seconds(30), ("False", "ClocksAgree")),
        (-seconds(30), ("False", "ClocksAgree")),
        (seconds(31), ("True", "ClocksDisagree")),
        (-seconds(31), ("True", "ClocksDisagree")),
    ],
)
def test_clock_skew_is_told(skew: timedelta | None, expected: tuple[str, str]) -> None:
    plan = decide(a_settled_trust_domain(clock_skew=skew))
    assert conditions(plan)["ClockSkew"] == expected
    assert (("Warning", "ClocksDisagree") in events(plan)) is (expected[0] == "True")


def test_clock_skew_says_who_is_ahead() -> None:
    ahead, behind = (decide(a_settled_trust_domain(clock_skew=skew)) for skew in (minutes(1), -minutes(1)))
    assert message(ahead, "ClockSkew") == "the operator's clock is more than 30 s ahead of the API server's"
    assert message(behind, "ClockSkew") == "the operator's clock is more than 30 s behind the API server's"


# --- the rest of the status ---


def test_the_status_tells_of_authorities_bundle_and_identities() -> None:
    targets = BundleTargets(selected=3, carrying=2, blocked=(("bank", "ConfigMap x was not made by this operator"),))
    plan = decide(a_settled_trust_domain(targets=targets, identities_total=7, identities_ready=5))
    assert plan.status is not None
    bundle = a_record(AUTHORITY).bundle()
    assert {name: plan.status[name] for name in plan.status if name != "conditions"} == {
        "observedGeneration": 1,
        "identities": {"total": 7, "ready": 5},
        "certificateAuthorities": [
            {
                "id": AUTHORITY.id,
                "state": "Active",
                "notBefore": "2026-10-23T12:00:00Z",
                "notAfter": "2028-10-22T12:00:00Z",
                "subjectKeyId": profiles.subject_key_id(AUTHORITY.certificate),
                "liveLeaves": 0,
            }
        ],
        "bundle": {
            "sequence": 1,
            "hash": bundle.hash,
            "namespaces": 2,
            "blocked": [{"namespace": "bank", "reason": "ConfigMap x was not made by this operator"}],
        },
    }
    TrustDomainStatus.model_validate(plan.status, by_alias=True, by_name=False)


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (BundleTargets(), ("True", "Published")),
        (BundleTargets(3, 3), ("True", "Published")),
        (BundleTargets(3, 2), ("False", "Publishing")),
        (BundleTargets(3, 2, (("bank", "why"),)), ("False", "Blocked")),
    ],
)
def test_publication_is_told_by_what_is_seen(targets: BundleTargets, expected: tuple[str, str]) -> None:
    assert conditions(decide(a_settled_trust_domain(targets=targets)))["BundlePublished"] == expected


def test_without_a_record_nothing_is_published() -> None:
    broken = an_authority_secret(AUTHORITY, tls_crt=b"")
    plan = decide(authority_secrets=(broken,))
    assert conditions(plan)["BundlePublished"] == ("Unknown", "NoBundle")
    assert plan.status is not None
    assert "bundle" not in plan.status


def test_ready_does_not_claim_that_the_bundle_is_published_when_it_is_blocked() -> None:
    plan = decide(a_settled_trust_domain(targets=BundleTargets(3, 2, (("bank", "why"),))))
    assert "published" not in message(plan)


def test_many_blocked_namespaces_fit_into_the_status() -> None:
    blocked = tuple((f"ns-{number:03}", "why") for number in range(200))
    plan = decide(a_settled_trust_domain(targets=BundleTargets(200, 0, blocked)))
    assert plan.status is not None
    TrustDomainStatus.model_validate(plan.status, by_alias=True, by_name=False)
    assert message(plan, "BundlePublished").startswith("200 namespaces do not get it, first ns-000")


def test_a_second_default_is_not_ready() -> None:
    plan = decide(a_settled_trust_domain(a_trust_domain(default=True), other_default="older.org"))
    assert ready(plan) == ("False", "DuplicateDefault")
    assert message(plan) == "TrustDomain older.org is older and is the default already; set spec.default to false"
    assert healthy(plan) == ("True", "Active"), "it still signs for those who name it"
    assert events(plan) == [("Warning", "DuplicateDefault")]


INVALID = a_trust_domain(identities={"maxDuration": "1s"})


def test_a_spec_that_cannot_be_used_is_refused_and_what_is_there_stays() -> None:
    plan = decide(a_settled_trust_domain(INVALID))
    assert ready(plan) == ("False", "InvalidSpec")
    assert message(plan) == "spec.identities.maxDuration: must be between 1m and 8760h"
    assert conditions(plan)["Stalled"] == ("True", "InvalidSpec")
    assert plan.applies == ()
    assert plan.status is not None
    assert plan.status["bundle"]["sequence"] == 1


def test_no_authority_is_made_for_a_spec_that_cannot_be_used() -> None:
    assert decide(domain=INVALID).applies == ()


def test_a_spec_that_cannot_be_used_is_told_in_an_event() -> None:
    assert ("Warning", "InvalidSpec") in events(decide(a_settled_trust_domain(INVALID)))


def test_bad_news_are_told_once() -> None:
    first = decide(LOST)
    assert events(decide(replace(LOST, resource=with_status(LOST.resource, first)), NOW + hours(1))) == []


UNTIL = NOW + hours(1)
PROVIDERS = {
    "KeysKnown": ("True", ProviderKeys("a", UNTIL)),
    "Fetching": ("Unknown", ProviderKeys("a")),
    "FetchFailed": ("False", ProviderKeys("a", UNTIL, problem="down")),
    "Stale": ("False", ProviderKeys("a", NOW, problem="down")),
    "UnusableKeys": ("False", ProviderKeys("a", unusable="spec.identityProviders[0].jwks: not JSON")),
}


@pytest.mark.parametrize("reason", PROVIDERS)
def test_what_is_known_of_an_identity_providers_keys_is_told(reason: str) -> None:
    status, keys = PROVIDERS[reason]
    settled = a_settled_trust_domain()
    plan = decide(replace(settled, providers=(ProviderKeys("good", UNTIL), keys)))
    assert conditions(plan)["IdentityProvidersReady"] == (status, reason)
    assert ("a" if status == "True" else "a: ") in message(plan, "IdentityProvidersReady")
    assert ready(plan) == ("True", "Operational")
    assert events(plan) == ([("Warning", reason)] if status == "False" else [])
    assert plan.requeue_at == UNTIL


def test_the_first_provider_with_the_worst_trouble_is_named() -> None:
    troubles = [ProviderKeys("failing", UNTIL, problem="down"), *(ProviderKeys(name, NOW) for name in ("one", "two"))]
    plan = decide(replace(a_settled_trust_domain(), providers=tuple(troubles)))
    assert message(plan, "IdentityProvidersReady").startswith("one: none of its tokens is accepted since")


def test_without_identity_providers_nothing_is_told_of_them() -> None:
    assert "IdentityProvidersReady" not in conditions(decide(a_settled_trust_domain()))


def test_an_identity_provider_that_is_well_again_is_an_event() -> None:
    settled = a_settled_trust_domain()
    failing = decide(replace(settled, providers=(ProviderKeys("a", problem="down"),)))
    again = replace(settled, resource=with_status(settled.resource, failing))
    assert events(decide(replace(again, providers=(ProviderKeys("a", problem="down"),)))) == []
    assert events(decide(replace(again, providers=(ProviderKeys("a", UNTIL),)))) == [("Normal", "KeysKnown")]


def test_what_is_being_deleted_is_left_alone() -> None:
    assert decide(a_settled_trust_domain(a_trust_domain(deleting=True))) == Plan()


def test_a_new_refresh_hint_is_a_new_sequence() -> None:
    plan = decide(a_settled_trust_domain(a_trust_domain(bundle={"refreshHint": "10m"})))
    assert written(plan) == [RECORD]
    assert (record_after(plan).sequence, record_after(plan).refresh_hint) == (2, 600)


# --- failures of writing ---


def test_a_failing_write_is_told_and_nothing_else_is_tried() -> None:
    for snapshot in (a_trust_domain_snapshot(), a_settled_trust_domain()):
        plan = module.failed(snapshot, "POST secrets: 503 error", NOW)
        assert ready(plan) == ("False", "WriteFailed")
        assert message(plan) == "POST secrets: 503 error"
        assert healthy(plan) == ("Unknown", "WriteFailed")
        assert plan == Plan(status=plan.status)


def test_the_failure_is_forgotten_with_the_first_success() -> None:
    settled = a_settled_trust_domain()
    told = with_status(settled.resource, module.failed(settled, "POST secrets: 503 error", NOW))
    plan = decide(replace(settled, resource=told))
    assert ready(plan) == ("True", "Operational")
    assert plan.status is not None
    assert status_patch(told, plan.status)


# --- no key is shown ---


def test_neither_status_nor_events_nor_snapshots_show_a_key() -> None:
    plan = decide()
    key = keys.from_pem(value(plan, "tls.key", _key_secret(plan)))
    settled = a_trust_domain_snapshot(
        record=record_after(plan), authority_secrets=(the_secret_that(plan, _key_secret(plan)),)
    )
    assert not shows_key(everything_visible(plan) + repr(settled), key)


def test_the_new_authority_signs_identities() -> None:
    plan = decide()
    body = the_body_that(plan, _key_secret(plan))
    ring = KeyRing()
    ring.load(authority_of(plan).certificate, keys.from_pem(secret.value_of(body, secret.PRIVATE_KEY)))
    issued = an_issued_secret(authority=authority_of(plan), signer=ring).certificate
    assert issued is not None
    profiles.verify_chain(issued.chain(), record_after(plan).bundle().roots, NOW)
