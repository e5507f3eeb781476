"""The trust bundle as verifiers read it: PEM, and the SPIFFE bundle document by rules B1 to B6 and X15."""

import base64
import hashlib
import json
from itertools import count
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.builders import NOW, a_record, an_authority, days
from tests.support.certificates import a_leaf, a_root
from zerotrust.pki.conformance import Outcome, check_svid, x509_authorities
from zerotrust.trustdomain.bundle import TrustBundle, canonical_order, content_hash

ELLIPTIC = an_authority()
LONGER = an_authority(number=1, algorithm="ECDSA-P384", not_before=NOW - days(20))
RSA = an_authority(number=2, algorithm="RSA-2048", not_before=NOW - days(10))
EVERY_KIND = pytest.mark.parametrize("authority", [ELLIPTIC, LONGER, RSA], ids=["P-256", "P-384", "RSA"])


def document(*authorities: Any, hint: int = 300) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(a_record(*authorities, refresh_hint=hint).bundle().document)
    return parsed


@pytest.mark.parametrize("authorities", [(ELLIPTIC,), (LONGER,), (RSA,), (ELLIPTIC, RSA, LONGER)])
def test_the_document_keeps_every_rule_by_the_judgement_of_the_conformance_suite(authorities: Any) -> None:
    bundle = a_record(*authorities).bundle()
    anything = a_leaf(a_root()).certificate
    results = check_svid([anything], bundle.roots, NOW, spiffe_bundle=bundle.document.encode())
    judged = {one.rule.id: one.outcome for one in results if one.rule.id in BUNDLE_RULES}
    assert set(judged) == BUNDLE_RULES
    assert Outcome.FAIL not in judged.values()
    assert set(x509_authorities(bundle.document.encode())) == set(bundle.roots)


BUNDLE_RULES = {"X15", "X16", "B1", "B2", "B3", "B4", "B5", "B6"}


def test_b1_the_document_is_a_jwk_set() -> None:
    assert set(document(ELLIPTIC)) == {"keys", "spiffe_sequence", "spiffe_refresh_hint"}


def test_b2_the_sequence_is_the_records() -> None:
    assert document(ELLIPTIC)["spiffe_sequence"] == 1
    assert document(ELLIPTIC, RSA)["spiffe_sequence"] == 2


def test_b3_the_refresh_hint_is_in_whole_seconds() -> None:
    assert document(ELLIPTIC, hint=61)["spiffe_refresh_hint"] == 61


def test_b4_keys_are_there_even_when_there_are_none() -> None:
    assert json.loads(TrustBundle((), 1, 300).document)["keys"] == []
    assert TrustBundle((), 1, 300).pem == ""


@EVERY_KIND
def test_b5_and_b6_an_entry_has_the_members_of_its_kind_and_no_others(authority: Any) -> None:
    (entry,) = document(authority)["keys"]
    members = {"EC": {"crv", "x", "y"}, "RSA": {"n", "e"}}[entry["kty"]]
    assert set(entry) == {"kty", "use", "x5c"} | members


@EVERY_KIND
def test_x15_an_entry_is_one_authority_without_a_kid(authority: Any) -> None:
    (entry,) = document(authority)["keys"]
    assert entry["use"] == "x509-svid"
    assert "kid" not in entry
    (encoded,) = entry["x5c"]
    assert x509.load_der_x509_certificate(base64.b64decode(encoded, validate=True)) == authority.certificate


@EVERY_KIND
def test_the_members_of_an_entry_are_the_certificates_key(authority: Any) -> None:
    (entry,) = document(authority)["keys"]
    numbers = authority.certificate.public_key().public_numbers()
    for member in {"x", "y", "n", "e"} & set(entry):
        value = base64.urlsafe_b64decode(entry[member] + "==")
        assert int.from_bytes(value) == getattr(numbers, member)


def test_coordinates_keep_their_leading_zeroes() -> None:
    """RFC 7518 §6.2.1.2: the full size of the curve, of which one key in 256 needs a zero in front."""
    keys = (ec.derive_private_key(number, ec.SECP256R1()) for number in count(1))
    key = next(key for key in keys if key.public_key().public_numbers().x >> 248 == 0)
    root = a_root(key=key).certificate
    (entry,) = json.loads(TrustBundle((root,), 1, 300).document)["keys"]
    assert len(base64.urlsafe_b64decode(entry["x"] + "==")) == 32


def test_the_document_never_holds_a_private_member() -> None:
    for entry in document(ELLIPTIC, RSA, LONGER)["keys"]:
        assert not {"d", "p", "q", "dp", "dq", "qi", "oth", "k"} & set(entry)


def test_the_same_roots_give_the_same_bytes_in_whatever_order_they_come() -> None:
    roots = (*ELLIPTIC.roots, *LONGER.roots, *RSA.roots)
    assert canonical_order(roots) == canonical_order(roots[::-1]) == canonical_order(roots * 2)
    assert canonical_order(roots) == roots, "the oldest comes first"


def test_roots_of_the_same_age_have_an_order_too() -> None:
    twins = [an_authority(number=number).certificate for number in range(5)]
    assert canonical_order(twins) == canonical_order(reversed(twins))


def test_the_pem_holds_the_roots_and_its_hash_identifies_it() -> None:
    bundle = a_record(ELLIPTIC, RSA).bundle()
    assert tuple(x509.load_pem_x509_certificates(bundle.pem.encode())) == bundle.roots
    assert bundle.hash == hashlib.sha256(bundle.pem.encode()).hexdigest()


def test_the_content_hash_changes_with_what_the_document_says_and_with_nothing_else() -> None:
    roots = ELLIPTIC.roots
    assert content_hash(roots, 300) == content_hash(roots, 300)
    assert content_hash(roots, 300) != content_hash(roots, 301)
    assert content_hash(roots, 300) != content_hash((*roots, *RSA.roots), 300)
    assert content_hash((), 300) != content_hash((), 30), "a hint of 30 and something is not one of 300"


def test_a_root_is_written_as_it_is() -> None:
    (entry,) = document(ELLIPTIC)["keys"]
    der = ELLIPTIC.certificate.public_bytes(serialization.Encoding.DER)
    assert base64.b64decode(entry["x5c"][0]) == der
