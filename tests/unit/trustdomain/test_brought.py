"""A trust domain whose authority is an intermediate that somebody brings in a Secret."""

from dataclasses import replace
from typing import Any

import pytest

from tests.support.builders import (
    NOW,
    OPERATOR_NAMESPACE,
    FixedEntropy,
    a_brought_chain,
    a_brought_secret,
    a_record,
    a_secret,
    a_trust_domain,
    a_trust_domain_snapshot,
    an_authority,
    an_authority_secret,
    an_identity_snapshot,
    days,
    key_of,
    the_body_that,
    with_status,
)
from tests.support.certificates import Issued, a_root, an_intermediate
from tests.support.plans import certificates, conditions, events, leaf, message, ready, value
from zerotrust.common.naming import Ref
from zerotrust.common.plan import Plan
from zerotrust.identity import reconcile as identities
from zerotrust.pki import x509 as profiles
from zerotrust.pki.secret import ObservedSecret, observe
from zerotrust.trustdomain import reconcile as module
from zerotrust.trustdomain.authority import KeyRing, Record, from_secret

DOMAIN = a_trust_domain(certificateAuthority={"source": "Secret", "secretName": "our-ca"})
PLACE = Ref("Secret", OPERATOR_NAMESPACE, "our-ca")
ISSUER, ROOT = a_brought_chain()
BROUGHT = a_brought_secret(ISSUER, roots=[ROOT.certificate])


def decide(brought: ObservedSecret | None, record: Record | None = None, **parts: Any) -> Plan:
    parts = {"domain": DOMAIN, **parts}
    return module.reconcile(a_trust_domain_snapshot(record=record, brought=brought, **parts), NOW, FixedEntropy())


def record_after(plan: Plan) -> Record:
    return Record.from_json(value(plan, "record.json"))


def healthy(plan: Plan) -> tuple[str, str]:
    return conditions(plan)["CertificateAuthorityHealthy"]


def a_ring_of(issuer: Issued) -> KeyRing:
    ring = KeyRing()
    ring.load(issuer.certificate, issuer.key)
    return ring


def test_a_brought_intermediate_signs_and_its_root_is_the_bundle() -> None:
    plan = decide(BROUGHT)
    record = record_after(plan)
    assert record.active == replace(from_secret(BROUGHT), source="Secret")
    assert record.bundle().roots == (ROOT.certificate,)
    assert healthy(plan) == ("True", "Active")
    assert [apply.ref.name for apply in plan.applies] == ["example.org.authorities"]


def test_a_leaf_carries_the_intermediate_and_ca_crt_the_root() -> None:
    record = record_after(decide(BROUGHT))
    plan = identities.reconcile(an_identity_snapshot(record=record), NOW, a_ring_of(ISSUER), FixedEntropy())
    assert certificates(plan)[1:] == [ISSUER.certificate]
    assert certificates(plan, "ca.crt") == [ROOT.certificate]
    profiles.verify_chain(certificates(plan), certificates(plan, "ca.crt"), NOW)


def test_a_leaf_ends_with_the_shortest_of_its_chain() -> None:
    top = a_root(uris=(), not_before=NOW - days(300), not_after=NOW + days(900))
    middle = an_intermediate(top, uris=(), path_length=1, not_after=NOW + days(1) / 2)
    issuer = an_intermediate(middle, uris=(), not_after=NOW + days(300))
    secret = a_brought_secret(issuer, chain=[middle.certificate], roots=[top.certificate])
    record = record_after(decide(secret))
    plan = identities.reconcile(an_identity_snapshot(record=record), NOW, a_ring_of(issuer), FixedEntropy())
    assert leaf(plan).not_valid_after_utc == NOW + days(1) / 2


def test_the_secret_is_read_again_every_minute_because_nobody_watches_it() -> None:
    for brought in (None, BROUGHT, a_secret("our-ca")):
        plan = decide(brought)
        assert plan.refresh == (PLACE,)
        assert plan.requeue_at == NOW + module.REFRESH


def test_the_key_stays_where_it_was_brought() -> None:
    plan = decide(BROUGHT)
    assert b"PRIVATE" not in value(plan, "record.json")


def test_a_settled_trust_domain_is_not_written() -> None:
    first = decide(BROUGHT)
    again = decide(BROUGHT, record_after(first), domain=with_status(DOMAIN, first))
    assert again.applies == ()
    assert again.status == first.status
    assert again.events == ()


# --- what is wrong with it ---


def test_a_missing_secret_is_asked_for() -> None:
    plan = decide(None)
    assert healthy(plan) == ("False", "SecretNotFound")
    assert message(plan) == "Secret zerotrust-system/our-ca does not exist; create it with tls.crt, tls.key and ca.crt"
    assert events(plan) == [("Warning", "SecretNotFound")]
    assert plan.applies == ()


@pytest.mark.parametrize(
    ("brought", "told"),
    [
        (a_brought_secret(ISSUER), "the root is missing: put it into ca.crt, or at the end of tls.crt"),
        (a_brought_secret(ISSUER, roots=[a_root().certificate]), "the chain does not lead to a certificate of the"),
        (
            a_brought_secret(a_brought_chain(ca=False, path_length=None)[0]),
            "the first certificate of tls.crt is no authority: it needs cA=true and keyCertSign",
        ),
        (
            a_brought_secret(Issued(ISSUER.certificate, ROOT.key), roots=[ROOT.certificate]),
            "tls.key does not belong to the certificate in tls.crt",
        ),
        (a_brought_secret(ISSUER, tls_key=None), "tls.key does not belong to the certificate in tls.crt"),
        (a_brought_secret(ISSUER, tls_crt=None), "tls.crt is missing or empty"),
        (a_brought_secret(ISSUER, tls_crt=b"nonsense"), "tls.crt holds no readable PEM certificate"),
        (a_brought_secret(ISSUER, ca_crt=b"nonsense"), "holds no readable PEM certificate"),
    ],
    ids=[
        "no root",
        "another root",
        "no authority",
        "another key",
        "no key",
        "no certificate",
        "corrupt certificate",
        "corrupt root",
    ],
)
def test_a_secret_of_no_use_is_refused_with_what_is_wrong(brought: ObservedSecret, told: str) -> None:
    plan = decide(brought)
    assert healthy(plan) == ("False", "AuthorityUnreadable")
    assert message(plan).startswith(f"Secret zerotrust-system/our-ca: {told}")
    assert ready(plan) == ("False", "AuthorityUnreadable")
    assert plan.applies == ()


@pytest.mark.parametrize("brought", [None, a_brought_secret(ISSUER, tls_crt=b"nonsense")])
def test_when_it_is_lost_the_bundle_stays(brought: ObservedSecret | None) -> None:
    record = record_after(decide(BROUGHT))
    plan = decide(brought, record)
    assert healthy(plan)[0] == "False"
    assert plan.applies == ()
    assert plan.status is not None
    assert plan.status["bundle"]["hash"] == record.bundle().hash


# --- renewed and replaced ---


def renewed(**changes: Any) -> Issued:
    """The same key, certified again by the same root."""
    return an_intermediate(ROOT, **{"uris": (), "key": ISSUER.key, "not_after": NOW + days(800), **changes})


def test_a_renewed_intermediate_signs_from_then_on_and_the_bundle_does_not_change() -> None:
    before = record_after(decide(BROUGHT))
    again = renewed()
    after = record_after(decide(a_brought_secret(again, roots=[ROOT.certificate]), before))
    assert after.active is not None
    assert after.active.certificate == again.certificate
    assert len(after.authorities) == 1, "the same key is the same authority"
    assert after.sequence == before.sequence


def test_a_new_intermediate_signs_from_then_on_and_both_roots_are_trusted() -> None:
    before = record_after(decide(BROUGHT))
    issuer, root = a_brought_chain()
    after = record_after(decide(a_brought_secret(issuer, roots=[root.certificate]), before))
    assert after.active is not None
    assert after.active.certificate == issuer.certificate
    assert set(after.bundle().roots) == {ROOT.certificate, root.certificate}
    assert after.sequence == before.sequence + 1


def test_a_leaf_of_the_old_intermediate_is_issued_anew_by_the_new_one() -> None:
    before = record_after(decide(BROUGHT))
    first = identities.reconcile(an_identity_snapshot(record=before), NOW, a_ring_of(ISSUER), FixedEntropy())
    issuer, root = a_brought_chain()
    after = record_after(decide(a_brought_secret(issuer, roots=[root.certificate]), before))
    snapshot = an_identity_snapshot(record=after, secret=observe(the_body_that(first)))
    second = identities.reconcile(snapshot, NOW, a_ring_of(issuer), FixedEntropy(2))
    assert [one.label for one in second.outcomes if one.metric == "issued"] == ["AuthorityChanged"]
    profiles.verify_chain(certificates(first), certificates(second, "ca.crt"), NOW)


def test_a_root_added_to_ca_crt_joins_the_bundle() -> None:
    before = record_after(decide(BROUGHT))
    other = a_root(uris=())
    after = record_after(decide(a_brought_secret(ISSUER, roots=[ROOT.certificate, other.certificate]), before))
    assert set(after.bundle().roots) == {ROOT.certificate, other.certificate}
    assert after.sequence == before.sequence + 1


def test_an_old_root_stays_trusted_when_the_same_key_moves_below_a_new_one() -> None:
    before = record_after(decide(BROUGHT))
    root = a_root(uris=())
    moved = an_intermediate(root, uris=(), key=ISSUER.key)
    after = record_after(decide(a_brought_secret(moved, roots=[root.certificate]), before))
    assert set(after.bundle().roots) == {ROOT.certificate, root.certificate}


def test_to_change_from_self_signed_to_brought_keeps_the_old_root_trusted() -> None:
    own = an_authority()
    after = record_after(decide(BROUGHT, a_record(own), authorities=[own]))
    assert after.active == replace(from_secret(BROUGHT), source="Secret")
    assert set(after.bundle().roots) == {ROOT.certificate, *own.roots}


def test_to_change_back_to_self_signed_takes_our_own_authority_again() -> None:
    own = an_authority()
    brought = record_after(decide(BROUGHT, a_record(own), authorities=[own]))
    plan = decide(None, brought, domain=a_trust_domain(), authorities=[own])
    assert healthy(plan) == ("True", "Active")


# --- its end ---


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        (days(91), ("True", "Active")),
        (days(89), ("True", "ExpiringSoon")),
        (-days(1), ("False", "AuthorityExpired")),
    ],
)
def test_the_end_of_a_brought_authority_is_told(left: Any, expected: tuple[str, str]) -> None:
    issuer, root = a_brought_chain(not_after=NOW + left, not_before=NOW - days(100))
    plan = decide(a_brought_secret(issuer, roots=[root.certificate]))
    assert healthy(plan) == expected


def test_the_end_of_a_brought_root_is_told() -> None:
    root = a_root(uris=(), not_before=NOW - days(300), not_after=NOW - days(1))
    issuer = an_intermediate(root, uris=(), not_before=NOW - days(200), not_after=NOW + days(100))
    assert healthy(decide(a_brought_secret(issuer, roots=[root.certificate]))) == ("False", "AuthorityExpired")


def test_a_self_signed_authority_may_be_brought_too() -> None:
    own = an_authority(number=4)
    brought = replace(an_authority_secret(own), meta=replace(an_authority_secret(own).meta, ref=PLACE, labels={}))
    record = record_after(decide(brought))
    assert record.active == replace(own, source="Secret")
    plan = identities.reconcile(
        an_identity_snapshot(record=record), NOW, a_ring_of(Issued(own.certificate, key_of(own))), FixedEntropy()
    )
    assert certificates(plan)[1:] == []
