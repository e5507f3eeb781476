"""From what is observed of a ServiceIdentity to what is done: issue, renew, or say why not."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509

from tests.support.builders import (
    NOW,
    TRUST_DOMAIN,
    FixedEntropy,
    Identity,
    a_key_ring,
    a_record,
    a_trust_domain,
    a_view,
    a_view_without_authority,
    an_authority,
    an_identity,
    an_identity_snapshot,
    an_issued_body,
    an_issued_secret,
    days,
    hours,
    key_of,
    minutes,
    seconds,
    the_secret_that,
    with_status,
)
from tests.support.certificates import AUTHORITY, Issued, a_root, issue, pem
from tests.support.decisions import asked, decide
from tests.support.plans import (
    certificates,
    conditions,
    has_issued,
    issue_reason,
    leaf,
    manifest,
    message,
    ready,
    value,
)
from zerotrust.common import naming
from zerotrust.common.errors import SelfCheckFailed
from zerotrust.common.plan import Plan
from zerotrust.identity import reconcile as module
from zerotrust.pki import keys, secret
from zerotrust.pki import x509 as profiles
from zerotrust.pki.conformance import check_svid, passes
from zerotrust.pki.keys import PrivateKey
from zerotrust.pki.secret import observe
from zerotrust.pki.spiffe import SpiffeID
from zerotrust.trustdomain.authority import Authority, KeyRing

PAUSED = an_identity(issuance="Paused")


def test_the_first_certificate_is_a_good_svid_of_the_service_account() -> None:
    plan = decide()
    assert issue_reason(plan) == "DoesNotExist"
    assert profiles.parsed_id(leaf(plan)) == SpiffeID.parse("spiffe://example.org/ns/shop/sa/orders")
    results = check_svid(
        certificates(plan),
        certificates(plan, "ca.crt"),
        NOW,
        trust_domain=TRUST_DOMAIN,
        spiffe_bundle=value(plan, "bundle.spiffe.json"),
        private_key=keys.from_pem(value(plan, "tls.key")),
    )
    assert passes(results), [result for result in results if result.outcome.name == "FAIL"]


def test_a_cluster_name_becomes_part_of_the_id() -> None:
    plan = decide(domain=a_trust_domain(clusterName="east"))
    assert str(profiles.parsed_id(leaf(plan))) == "spiffe://example.org/cluster/east/ns/shop/sa/orders"


def test_the_service_account_defaults_to_the_name_and_can_be_another() -> None:
    plan = decide(identity=an_identity("orders-v2", serviceAccountName="orders"))
    assert str(profiles.parsed_id(leaf(plan))) == "spiffe://example.org/ns/shop/sa/orders"
    assert manifest(plan)["metadata"]["name"] == "orders-v2-svid"


def test_a_secret_that_was_lost_is_issued_anew() -> None:
    issued = decide()
    again = decide(identity=with_status(an_identity(), issued), secret=None)
    assert issue_reason(again) == "DoesNotExist"


def test_the_intermediates_of_the_authority_follow_the_leaf() -> None:
    root = a_root(uris=(), not_before=NOW - days(300), not_after=NOW + days(900))
    key = keys.generate("ECDSA-P256")
    authority = _below(root.certificate, root.key, key)
    ring = KeyRing()
    ring.load(authority.certificate, key)
    plan = decide(record=a_record(authority), signer=ring)
    assert certificates(plan)[1:] == [authority.certificate]
    assert certificates(plan, "ca.crt") == [root.certificate]


def _below(root: x509.Certificate, root_key: PrivateKey, key: PrivateKey) -> Any:
    template = replace(AUTHORITY, key=key, common_name="intermediate", path_length=0, uris=())
    certificate = issue(template, Issued(root, root_key)).certificate
    return Authority(profiles.authority_id(key.public_key()), "Active", (certificate,), (root,))


@pytest.mark.parametrize("algorithm", ["ECDSA-P256", "ECDSA-P384", "RSA-2048"])
def test_the_key_is_what_was_asked_for_among_what_is_allowed(algorithm: str) -> None:
    domain = a_trust_domain(identities={"keyAlgorithms": ["ECDSA-P256", "ECDSA-P384", "RSA-2048"]})
    plan = decide(identity=asked(keyAlgorithm=algorithm), domain=domain)
    assert keys.algorithm_of(leaf(plan).public_key()) == algorithm


def test_the_key_defaults_to_the_first_that_the_trust_domain_allows() -> None:
    domain = a_trust_domain(identities={"keyAlgorithms": ["ECDSA-P384", "ECDSA-P256"]})
    assert keys.algorithm_of(leaf(decide(domain=domain)).public_key()) == "ECDSA-P384"


def test_the_lifetime_is_the_trust_domains_unless_the_identity_says_otherwise() -> None:
    domain = a_trust_domain(identities={"duration": "12h"})
    assert leaf(decide(domain=domain)).not_valid_after_utc == NOW + hours(12)
    assert leaf(decide(domain=domain, identity=asked(duration="6h"))).not_valid_after_utc == NOW + hours(6)


def test_the_renewal_share_is_the_trust_domains_unless_the_identity_says_otherwise() -> None:
    domain = a_trust_domain(identities={"duration": "100h", "renewBeforePercentage": 10})

    def earliest_and_latest(identity: Identity, share: timedelta) -> bool:
        requeue_at = decide(domain=domain, identity=identity).requeue_at
        assert requeue_at is not None
        return NOW + hours(100) - share * 1.2 <= requeue_at <= NOW + hours(100) - share

    assert earliest_and_latest(an_identity(), hours(10))
    assert earliest_and_latest(asked(renewBeforePercentage=50), hours(50))
    assert earliest_and_latest(asked(renewBefore="20h"), hours(20))


def test_dns_names_of_services_of_its_own_namespace_are_signed() -> None:
    names = ["orders.shop.svc", "orders.shop.svc.cluster.local", "orders.shop.svc"]
    assert list(profiles.dns_names(leaf(decide(identity=asked(dnsNames=names))))) == names[:2]


def test_two_certificates_have_different_keys_and_serial_numbers() -> None:
    entropy = FixedEntropy()
    first, second = decide(entropy=entropy), decide(entropy=entropy)
    assert leaf(first).serial_number != leaf(second).serial_number
    assert leaf(first).public_key() != leaf(second).public_key()


def test_nothing_is_written_that_does_not_verify() -> None:
    class Confused(KeyRing):
        """Signs with the key of another authority."""

        def sign(self, authority_id: str, profile: profiles.LeafProfile) -> x509.Certificate:
            other = an_authority(number=3)
            return profiles.sign_leaf(profile, other.certificate, key_of(other))

        def holds(self, authority_id: str) -> bool:
            return True

    with pytest.raises(SelfCheckFailed, match="does not verify"):
        decide(signer=Confused())


@pytest.mark.parametrize("part", ["spiffe_id", "public_key"])
def test_nothing_is_written_that_certifies_something_else(part: str) -> None:
    others = {
        "spiffe_id": SpiffeID("example.org", "/ns/shop/sa/admin"),
        "public_key": keys.generate("ECDSA-P256").public_key(),
    }

    class Bent(KeyRing):
        """Signs something else than what it was asked for."""

        def sign(self, authority_id: str, profile: profiles.LeafProfile) -> x509.Certificate:
            return super().sign(authority_id, replace(profile, **{part: others[part]}))

    bent = Bent()
    bent.load(an_authority().certificate, key_of(an_authority()))
    with pytest.raises(SelfCheckFailed, match="does not certify"):
        decide(signer=bent)


def test_a_certificate_is_renewed_when_its_time_has_come_and_not_before() -> None:
    first = decide()
    assert first.requeue_at is not None
    issued = the_secret_that(first)
    assert not has_issued(decide(secret=issued, now=first.requeue_at - seconds(1)))
    assert issue_reason(decide(secret=issued, now=first.requeue_at)) == "NearExpiry"


def test_a_renewal_is_ready_all_the_time_and_counts_the_revision() -> None:
    first = decide()
    assert first.requeue_at is not None
    renewed = decide(identity=with_status(an_identity(), first), secret=the_secret_that(first), now=first.requeue_at)
    assert ready(renewed) == ("True", "Issued")
    assert manifest(renewed)["metadata"]["annotations"][naming.REVISION] == "2"
    assert renewed.status is not None
    assert renewed.status["revision"] == 2
    assert [event.reason for event in renewed.events] == ["Issued"]
    assert "Reconciling" not in conditions(renewed)


def test_an_expired_certificate_is_issued_anew() -> None:
    assert issue_reason(decide(secret=an_issued_secret(), now=NOW + days(2))) == "Expired"


def test_a_secret_edited_by_hand_is_issued_anew_at_once() -> None:
    body = an_issued_body()
    body["data"]["tls.key"] = an_issued_body(entropy=FixedEntropy(2))["data"]["tls.key"]
    assert issue_reason(decide(secret=observe(body))) == "KeyMismatch"
    body["data"]["tls.crt"] = secret.encode(b"-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n")
    assert issue_reason(decide(secret=observe(body))) == "DoesNotExist"


def test_a_new_authority_issues_anew_while_both_are_trusted() -> None:
    old, new = an_authority(), an_authority(number=1)
    plan = decide(record=a_record(old, new), secret=an_issued_secret(authority=old), signer=a_key_ring(new))
    assert issue_reason(plan) == "AuthorityChanged"
    assert len(certificates(plan, "ca.crt")) == 2


def test_a_change_of_the_spec_issues_anew() -> None:
    plan = decide(identity=asked(dnsNames=["orders.shop.svc"]), secret=an_issued_secret())
    assert issue_reason(plan) == "SpecChanged"


def test_how_late_a_renewal_was_is_measured() -> None:
    first = decide()
    assert first.requeue_at is not None
    late = decide(secret=the_secret_that(first), now=first.requeue_at + minutes(3))
    assert [(one.metric, one.value) for one in late.outcomes] == [("issued", 1.0), ("renewal_lateness_seconds", 180.0)]


def test_how_long_a_first_issue_took_is_measured() -> None:
    plan = decide(identity=an_identity(created=NOW - seconds(2)))
    assert [(one.metric, one.value) for one in plan.outcomes] == [("issued", 1.0), ("issue_seconds", 2.0)]


def test_an_authority_without_a_subject_key_identifier_signs_once() -> None:
    root = a_root(uris=(), subject_key_id=None, not_before=NOW - days(300), not_after=NOW + days(900))
    authority = Authority(
        profiles.authority_id(root.key.public_key()), "Active", (root.certificate,), (root.certificate,)
    )
    ring = KeyRing()
    ring.load(root.certificate, root.key)
    first = decide(record=a_record(authority), signer=ring)
    assert not has_issued(decide(record=a_record(authority), signer=ring, secret=the_secret_that(first)))


def test_a_renewal_makes_a_new_key() -> None:
    body = an_issued_body()
    plan = decide(secret=observe(body), now=NOW + hours(23))
    assert value(plan, "tls.key") != secret.value_of(body, "tls.key")


def test_with_key_rotation_never_the_key_is_certified_again_and_not_even_touched() -> None:
    identity = asked(keyRotation="Never")
    body = an_issued_body(identity)
    plan = decide(identity=identity, secret=observe(body), now=NOW + hours(23))
    assert issue_reason(plan) == "NearExpiry"
    assert "tls.key" not in manifest(plan)["data"]
    assert the_secret_that(plan, before=body).problem == ""
    assert leaf(plan).public_key() == observe(body).certificate.chain()[0].public_key()  # type: ignore[union-attr]


@pytest.mark.parametrize("why", ["mismatch", "other algorithm", "lost"])
def test_with_key_rotation_never_a_key_of_no_use_is_replaced(why: str) -> None:
    identity = asked(keyRotation="Never", keyAlgorithm="ECDSA-P384" if why == "other algorithm" else "ECDSA-P256")
    domain = a_trust_domain(identities={"keyAlgorithms": ["ECDSA-P256", "ECDSA-P384"]})
    body = an_issued_body()
    if why == "mismatch":
        body["data"]["tls.key"] = an_issued_body(entropy=FixedEntropy(2))["data"]["tls.key"]
    if why == "lost":
        del body["data"]["tls.key"]
    plan = decide(identity=identity, domain=domain, secret=observe(body))
    assert has_issued(plan)
    assert the_secret_that(plan, before=body).problem == ""


def test_paused_issues_nothing() -> None:
    plan = decide(identity=PAUSED)
    assert ready(plan) == ("False", "Paused")
    assert message(plan) == "there is no Secret yet; spec.issuance is Paused"
    assert (plan.applies, has_issued(plan)) == ((), False)
    assert not {"Reconciling", "Stalled"} & set(conditions(plan)), "nothing is going on and nothing is wrong"


def test_paused_keeps_what_exists_until_its_end() -> None:
    issued = an_issued_secret()
    assert issued.certificate is not None
    due = decide(identity=PAUSED, secret=issued, now=NOW + hours(20))
    assert ready(due) == ("True", "Issued")
    assert conditions(due)["RenewalOverdue"] == ("True", "Paused")
    assert due.requeue_at == issued.certificate.not_after
    over = decide(identity=PAUSED, secret=issued, now=issued.certificate.not_after)
    assert ready(over) == ("False", "Expired")
    assert message(over) == "the certificate expired at 2026-11-23T12:00:00Z; spec.issuance is Paused"


def test_renewal_goes_on_as_soon_as_it_is_not_paused_any_more() -> None:
    assert issue_reason(decide(secret=an_issued_secret(), now=NOW + hours(20))) == "NearExpiry"


def test_without_an_authority_nothing_is_issued_and_what_exists_keeps_working() -> None:
    nobody = a_view_without_authority()
    nothing = decide(view=nobody)
    assert ready(nothing) == ("False", "AuthorityNotReady")
    assert message(nothing) == (
        "there is no Secret yet; TrustDomain example.org has no authority that can sign; see its conditions"
    )
    assert conditions(nothing)["Reconciling"] == ("True", "AuthorityNotReady")
    working = decide(view=nobody, secret=an_issued_secret())
    assert ready(working) == ("True", "Issued")
    assert working.applies == (), "there is no bundle to compare with"


def test_an_authority_whose_key_is_not_at_hand_signs_nothing() -> None:
    plan = decide(signer=KeyRing())
    assert ready(plan) == ("False", "AuthorityNotReady")
    assert f"the key of authority {an_authority().id} is not readable" in message(plan)


@pytest.mark.parametrize(
    "authority",
    [
        an_authority(not_after=NOW - days(1)),
        an_authority(not_after=NOW + seconds(60)),
        an_authority(not_before=NOW + days(1)),
    ],
    ids=["expired", "about to expire", "not yet valid"],
)
def test_an_authority_that_is_not_valid_now_signs_nothing(authority: Authority) -> None:
    plan = decide(record=a_record(authority), signer=a_key_ring(authority))
    assert ready(plan) == ("False", "AuthorityExpired")
    assert f"authority {authority.id} of TrustDomain example.org is not valid now" in message(plan)


def test_an_identity_waits_for_an_authority_that_is_not_valid_yet() -> None:
    authority = an_authority(not_before=NOW + hours(1))
    plan = decide(record=a_record(authority), signer=a_key_ring(authority))
    assert plan.requeue_at == NOW + hours(1)


def test_a_trust_domain_that_has_just_been_created_is_given_a_moment() -> None:
    plan = decide(view=a_view_without_authority(created=NOW - seconds(1)))
    assert plan == Plan(requeue_at=NOW + module.PATIENCE)


def test_the_moment_does_not_delay_the_status_of_what_exists() -> None:
    plan = decide(view=a_view_without_authority(created=NOW - seconds(1)), secret=an_issued_secret())
    assert ready(plan) == ("True", "Issued")


def test_a_renewal_that_cannot_be_done_is_overdue_and_says_why() -> None:
    plan = decide(view=a_view_without_authority(), secret=an_issued_secret(), now=NOW + hours(20))
    assert ready(plan) == ("True", "Issued")
    assert conditions(plan)["RenewalOverdue"] == ("True", "AuthorityNotReady")
    assert "renewal was due at" in message(plan, "RenewalOverdue")
    assert "no authority that can sign" in message(plan, "RenewalOverdue")


def test_an_authority_that_ends_with_the_certificate_makes_its_renewal_overdue() -> None:
    authority = an_authority(not_after=NOW + hours(20))
    plan = decide(
        record=a_record(authority),
        signer=a_key_ring(authority),
        secret=an_issued_secret(authority=authority),
        now=NOW + hours(19),
    )
    assert not has_issued(plan)
    assert conditions(plan)["RenewalOverdue"] == ("True", "AuthorityEnds")
    assert plan.requeue_at == NOW + hours(20)


def test_ready_flips_at_not_after_although_nothing_happens() -> None:
    issued, nobody = an_issued_secret(), a_view_without_authority()
    assert issued.certificate is not None
    end = issued.certificate.not_after
    before = decide(view=nobody, secret=issued, now=end - seconds(1))
    assert (ready(before), before.requeue_at) == (("True", "Issued"), end)
    after = decide(view=nobody, secret=issued, now=end)
    assert ready(after) == ("False", "Expired")


@pytest.mark.parametrize(("text", "next_"), [("", 1), ("abc", 1), ("-4", 1), ("7", 8), ("9" * 40, 1), ("1.5", 1)])
def test_a_revision_that_somebody_edited_does_no_harm(text: str, next_: int) -> None:
    body = an_issued_body()
    body["metadata"]["annotations"][naming.REVISION] = text
    plan = decide(secret=observe(body), now=NOW + hours(23))
    assert manifest(plan)["metadata"]["annotations"][naming.REVISION] == str(next_)


def test_only_rsa_keys_are_worth_a_thread() -> None:
    domain = a_trust_domain(identities={"keyAlgorithms": ["ECDSA-P256", "RSA-2048"]})
    assert not module.key_is_slow(an_identity_snapshot(domain=domain))
    assert module.key_is_slow(an_identity_snapshot(asked(keyAlgorithm="RSA-2048"), domain=domain))
    assert not module.key_is_slow(replace(an_identity_snapshot(), trust_domain=None))


def test_a_secret_with_a_root_in_the_place_of_a_leaf_is_issued_anew() -> None:
    body = an_issued_body()
    body["data"]["tls.crt"] = secret.encode(pem(an_authority().certificate))
    body["data"]["tls.key"] = secret.encode(keys.to_pkcs8(key_of(an_authority())))
    assert has_issued(decide(secret=observe(body)))


def test_the_view_of_the_trust_domain_decides_which_authority_signs() -> None:
    other = an_authority(number=2)
    plan = decide(view=a_view(record=a_record(other)), signer=a_key_ring(other))
    assert plan.status is not None
    assert plan.status["authorityID"] == other.id
