"""Authorities, the record that remembers them, and the key ring that signs."""

import json
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from tests.support.builders import (
    NOW,
    a_brought_chain,
    a_brought_secret,
    a_key,
    a_key_ring,
    a_record,
    an_authority,
    an_authority_secret,
    days,
    hours,
    key_of,
    minutes,
    seconds,
)
from tests.support.certificates import a_leaf, a_root, an_intermediate, pem
from tests.support.plans import shows_key
from zerotrust.pki import x509 as profiles
from zerotrust.pki.spiffe import SpiffeID
from zerotrust.pki.x509 import LeafProfile
from zerotrust.trustdomain.authority import (
    KeyRing,
    NotSignable,
    Record,
    RecordUnreadable,
    SystemEntropy,
    first_record,
    from_secret,
)

FIRST, SECOND, THIRD = (an_authority(number=number) for number in range(3))


def a_profile(**changes: Any) -> LeafProfile:
    orders = SpiffeID("example.org", "/ns/shop/sa/orders")
    return replace(LeafProfile(orders, a_key(100).public_key(), 7, NOW, NOW + hours(24)), **changes)


# --- the record ---


def test_a_record_comes_back_as_it_was_written() -> None:
    record = a_record(FIRST, SECOND, refresh_hint=60)
    assert Record.from_json(record.to_json()) == record
    assert Record.from_json(record.to_json().encode()).to_json() == record.to_json()


def test_a_record_of_a_brought_authority_keeps_chain_and_roots_apart() -> None:
    issuer, root = a_brought_chain()
    record = a_record(from_secret(a_brought_secret(issuer, roots=[root.certificate])))
    (authority,) = Record.from_json(record.to_json()).authorities
    assert (authority.chain, authority.roots) == ((issuer.certificate,), (root.certificate,))


def test_the_first_authority_is_active_at_once() -> None:
    record = first_record(replace(FIRST, state="Prepared"), 300)
    assert record.active == FIRST
    assert (record.sequence, record.refresh_hint) == (1, 300)


def test_a_second_authority_signs_and_the_first_stays_trusted() -> None:
    record = a_record(FIRST, SECOND)
    assert record.active == SECOND
    assert [one.state for one in record.authorities] == ["Active", "Retiring"]
    assert set(record.bundle().roots) == {*FIRST.roots, *SECOND.roots}


def test_there_is_one_active_authority_however_often_it_changes() -> None:
    record = a_record(FIRST, SECOND, THIRD, FIRST, SECOND)
    assert [one.id for one in record.authorities if one.state == "Active"] == [SECOND.id]
    assert len(record.authorities) == 3


@pytest.mark.parametrize("state", ["Prepared", "Pruned"])
def test_an_authority_that_is_not_published_is_not_in_the_bundle(state: Any) -> None:
    record = replace(a_record(FIRST), authorities=(FIRST, replace(SECOND, state=state)))
    assert record.bundle().roots == FIRST.roots


@pytest.mark.parametrize("state", ["Published", "Active", "Retiring"])
def test_an_authority_that_is_published_is_in_the_bundle(state: Any) -> None:
    record = replace(a_record(FIRST), authorities=(replace(SECOND, state=state),))
    assert record.bundle().roots == SECOND.roots


def test_the_sequence_grows_exactly_when_the_content_changes() -> None:
    record = a_record(FIRST)
    assert record.settled(300) is record
    assert record.settled(301).sequence == 2
    assert record.activated(SECOND).sequence == 2
    assert record.activated(SECOND).activated(FIRST).sequence == 2, "the bundle is the same, only the signer is not"
    assert record.activated(SECOND).activated(THIRD).sequence == 3
    assert record.settled(301).settled(300).sequence == 3, "going back is a change as well"


def test_the_sequence_does_not_depend_on_the_order_of_authorities() -> None:
    both = a_record(FIRST, SECOND)
    turned = replace(both, authorities=both.authorities[::-1])
    assert turned.settled(300).sequence == both.sequence
    assert turned.bundle().document == both.bundle().document


UNREADABLE: dict[str, str] = {
    "nothing": "",
    "no JSON": "{",
    "null": "null",
    "a list": "[]",
    "a number": "1",
    "no version": "{}",
    "authorities of another type": '{"version": 1, "authorities": 7, "sequence": 1}',
    "an authority without a chain": '{"version": 1, "authorities": [{"id": "a"}]}',
}


@pytest.mark.parametrize("text", UNREADABLE.values(), ids=UNREADABLE)
def test_what_is_no_record_is_said_to_be_none(text: str) -> None:
    with pytest.raises(RecordUnreadable):
        Record.from_json(text)


def edited(**changes: Any) -> str:
    """The record of one authority with these members changed; None drops one."""
    content = {**json.loads(a_record(FIRST).to_json()), **changes}
    return json.dumps({name: value for name, value in content.items() if value is not None})


@pytest.mark.parametrize("member", ["version", "sequence", "bundleHash", "refreshHintSeconds", "authorities"])
def test_a_record_without_one_of_its_members_is_none(member: str) -> None:
    with pytest.raises(RecordUnreadable):
        Record.from_json(edited(**{member: None}))


@pytest.mark.parametrize("chain", ["", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", 7])
def test_a_record_with_a_corrupt_certificate_is_none(chain: Any) -> None:
    (entry,) = json.loads(a_record(FIRST).to_json())["authorities"]
    with pytest.raises(RecordUnreadable):
        Record.from_json(edited(authorities=[{**entry, "chain": chain}]))


def test_a_record_of_a_newer_version_says_so() -> None:
    with pytest.raises(RecordUnreadable, match="newer version"):
        Record.from_json(edited(version=2))


@pytest.mark.parametrize("text", [edited().replace('"sequence": 1', '"sequence": 1e999'), "[" * 200_000])
def test_a_record_that_makes_the_parser_stumble_is_none(text: str) -> None:
    with pytest.raises(RecordUnreadable):
        Record.from_json(text)


@pytest.mark.parametrize("state", ["Bogus", None, 7])
def test_a_record_with_an_unknown_state_is_none(state: Any) -> None:
    (entry,) = json.loads(a_record(FIRST).to_json())["authorities"]
    with pytest.raises(RecordUnreadable):
        Record.from_json(edited(authorities=[{**entry, "state": state}]))


# --- an authority ---


def test_an_authority_ends_with_the_shortest_lived_certificate_of_its_chain() -> None:
    top = a_root(uris=())
    middle = an_intermediate(top, uris=(), path_length=1, not_after=NOW + days(3))
    issuer = an_intermediate(middle, uris=(), not_after=NOW + days(9))
    authority = from_secret(a_brought_secret(issuer, chain=[middle.certificate], roots=[top.certificate]))
    assert authority.not_after == NOW + days(3)


def test_an_authority_ends_with_its_root() -> None:
    root = a_root(uris=(), not_after=NOW + days(3))
    issuer = an_intermediate(root, uris=(), not_after=NOW + days(9))
    authority = from_secret(a_brought_secret(issuer, roots=[root.certificate]))
    assert authority.not_after == NOW + days(3)


@pytest.mark.parametrize(
    ("authority", "usable"),
    [
        (an_authority(not_before=NOW), True),
        (an_authority(not_before=NOW + seconds(1)), False),
        (an_authority(not_after=NOW + minutes(1) + seconds(1)), True),
        (an_authority(not_after=NOW + minutes(1)), False),
    ],
)
def test_an_authority_is_usable_while_a_leaf_is_worth_it(authority: Any, usable: bool) -> None:
    assert authority.usable(NOW) is usable


def test_a_leaf_is_followed_by_the_intermediates_and_not_by_the_root() -> None:
    issuer, root = a_brought_chain()
    whole = from_secret(a_brought_secret(issuer, chain=[root.certificate]))
    assert whole.intermediates == (issuer.certificate,)
    assert FIRST.intermediates == ()


# --- an authority in a Secret ---


def test_our_own_secret_gives_the_authority_back() -> None:
    assert from_secret(an_authority_secret(FIRST)) == FIRST


def test_a_root_is_taken_from_ca_crt_or_from_the_end_of_tls_crt() -> None:
    issuer, root = a_brought_chain()
    for secret in (
        a_brought_secret(issuer, roots=[root.certificate]),
        a_brought_secret(issuer, chain=[root.certificate]),
        a_brought_secret(issuer, chain=[root.certificate], roots=[root.certificate]),
    ):
        assert from_secret(secret).roots == (root.certificate,)


@pytest.mark.parametrize(
    ("secret", "told"),
    [
        (a_brought_secret(a_brought_chain()[0]), "the root is missing"),
        (a_brought_secret(a_brought_chain()[0], roots=[a_root().certificate]), "does not lead to"),
        (a_brought_secret(a_leaf(a_root())), "is no authority"),
        (a_brought_secret(a_brought_chain(usage=frozenset({"crl_sign"}))[0]), "is no authority"),
        (an_authority_secret(FIRST, tls_key=None), "tls.key does not belong"),
        (an_authority_secret(FIRST, tls_key=b"nonsense"), "tls.key does not belong"),
        (an_authority_secret(FIRST, tls_crt=None), "tls.crt is missing or empty"),
        (an_authority_secret(FIRST, tls_crt=b"nonsense"), "tls.crt holds no readable PEM certificate"),
        (an_authority_secret(FIRST, ca_crt=b"nonsense"), "holds no readable PEM certificate"),
        (an_authority_secret(FIRST, tls_crt=pem(SECOND.certificate)), "tls.key does not belong"),
    ],
    ids=[
        "no root",
        "another root",
        "a leaf",
        "may not sign certificates",
        "no key",
        "no readable key",
        "no certificate",
        "no readable certificate",
        "no readable root",
        "the certificate of another key",
    ],
)
def test_a_secret_that_is_of_no_use_says_why(secret: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        from_secret(secret)


def test_a_root_that_was_renewed_after_the_intermediate_was_made_is_a_root() -> None:
    root = a_root(uris=(), not_before=NOW - days(300))
    issuer = an_intermediate(root, uris=(), not_before=NOW - days(200))
    renewed = a_root(uris=(), key=root.key, not_before=NOW - days(1), not_after=NOW + days(900))
    assert from_secret(a_brought_secret(issuer, roots=[renewed.certificate])).roots == (renewed.certificate,)


def test_only_authorities_become_roots() -> None:
    issuer, root = a_brought_chain()
    secret = a_brought_secret(issuer, roots=[root.certificate, a_leaf(root).certificate])
    try:
        roots = from_secret(secret).roots
    except ValueError:
        return  # to refuse it is as good
    assert all(profiles.is_authority(one) for one in roots)


def test_an_authority_whose_bundle_cannot_be_written_is_refused_with_a_reason() -> None:
    root = a_root(uris=(), key=ed25519.Ed25519PrivateKey.generate(), hash=None)
    issuer = an_intermediate(root, uris=(), hash=None)
    try:
        authority = from_secret(a_brought_secret(issuer, roots=[root.certificate]))
    except ValueError:
        return
    a_record(authority).bundle().document  # noqa: B018 - made when asked for


# --- the key ring ---


def test_the_key_ring_signs_with_the_key_that_was_loaded() -> None:
    leaf = a_key_ring(FIRST, SECOND).sign(SECOND.id, a_profile())
    leaf.verify_directly_issued_by(SECOND.certificate)


def test_the_key_ring_never_signs_beyond_its_authority() -> None:
    ring = a_key_ring(FIRST)
    end = FIRST.certificate.not_valid_after_utc
    assert ring.sign(FIRST.id, a_profile(not_after=end)).not_valid_after_utc == end
    with pytest.raises(NotSignable, match="outlive"):
        ring.sign(FIRST.id, a_profile(not_after=end + seconds(1)))


def test_the_key_ring_signs_for_nobody_whose_key_it_has_not() -> None:
    ring = a_key_ring(FIRST)
    assert ring.holds(FIRST.id)
    assert not ring.holds(SECOND.id)
    with pytest.raises(NotSignable, match="not at hand"):
        ring.sign(SECOND.id, a_profile())


def test_the_key_ring_forgets() -> None:
    ring = a_key_ring(FIRST)
    ring.forget(FIRST.id)
    ring.forget(FIRST.id)
    with pytest.raises(NotSignable):
        ring.sign(FIRST.id, a_profile())


@pytest.mark.parametrize("certificate", [SECOND.certificate, a_leaf(a_root(), key=key_of(FIRST)).certificate])
def test_the_key_ring_takes_only_a_key_with_its_own_signing_certificate(certificate: Any) -> None:
    with pytest.raises(NotSignable):
        KeyRing().load(certificate, key_of(FIRST))


def test_a_leaf_always_has_a_path() -> None:
    with pytest.raises(ValueError, match="path"):
        a_key_ring(FIRST).sign(FIRST.id, a_profile(spiffe_id=SpiffeID("example.org")))


def test_nothing_shows_a_key() -> None:
    ring = a_key_ring(FIRST)
    shown = repr([ring, str(ring), f"{ring}", FIRST, a_record(FIRST), an_authority_secret(FIRST)])
    assert not shows_key(shown + a_record(FIRST).to_json(), key_of(FIRST))


def test_serial_numbers_are_positive_and_at_most_twenty_bytes() -> None:
    entropy = SystemEntropy()
    numbers = {entropy.serial_number() for _ in range(100)}
    assert len(numbers) == 100
    assert all(0 < number < 1 << 159 for number in numbers)
