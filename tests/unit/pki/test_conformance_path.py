"""The rules that only a whole path shows: X12, X13, S9, and our own K1 and I2."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support.certificates import (
    LEAF,
    NOW,
    Svid,
    a_leaf,
    a_root,
    an_intermediate,
    an_svid,
    as_version_1,
    issue,
    new_key,
)
from tests.support.verdicts import failures, judge
from zerotrust.pki.conformance import Outcome


def test_s9_the_signature_covers_id_and_key() -> None:
    root = a_root()
    impostor = a_root()  # the same name, another key
    forged = a_leaf(impostor, authority_key_id=None)
    assert failures(Svid((forged.certificate,), (root.certificate,), forged.key)) == {"S9", "X13"}


def test_x12_constraints_on_uri_names_are_allowed_but_end_the_path_here() -> None:
    constraints = x509.NameConstraints([x509.UniformResourceIdentifier("example.org")], None)
    results = judge(an_svid(root={"extra": ((constraints, True),)}))
    assert results["X12"].outcome is Outcome.PASS
    assert "refuse such a path" in results["X12"].message
    assert results["X13"].outcome is Outcome.FAIL
    assert "name constraints on URIs" in results["X13"].message


def constrained_to(name: str) -> dict[str, Any]:
    return {"extra": ((x509.NameConstraints([x509.DNSName(name)], None), True),)}


UNKNOWN_CRITICAL = (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00"), True)
CRITICAL_KEY_ID = (x509.SubjectKeyIdentifier(b"x" * 20), True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"leaf": {"not_after": NOW - timedelta(seconds=1)}}, "leaf expired at 2026-11-22T11:59:59Z"),
        ({"leaf": {"not_before": NOW + timedelta(seconds=1)}}, "leaf is not valid before 2026-11-22T12:00:01Z"),
        ({"intermediate": {"not_after": NOW + timedelta(hours=-1)}}, "chain certificate 2 expired"),
        ({"root": {"not_after": NOW + timedelta(hours=-1)}}, "bundle certificate 1 expired"),
        ({"root": {"path_length": 0}}, "path length constraint violated"),
        ({"leaf": {"issuer_name": "stranger"}}, "'CN=stranger', which is neither in the chain nor in the bundle"),
        ({"leaf": {"authority_key_id": b"other"}}, "the two key identifiers must match"),
        ({"leaf": {"authority_key_id": None}}, "no authority key identifier"),
        ({"intermediate": {"subject_key_id": None}}, "no subject key identifier"),
        ({"root": {"subject_key_id": None, "extra": (CRITICAL_KEY_ID,)}}, "criticality"),
        ({"leaf": {"extra": (UNKNOWN_CRITICAL,)}}, "critical extensions"),
        ({"root": {"extra": (UNKNOWN_CRITICAL,)}}, "critical extensions"),
        ({"intermediate": {"constraints_critical": False}}, "criticality"),
        ({"leaf": {"hash": hashes.SHA224()}}, "Forbidden signature algorithm"),
        ({"root": {"key": ec.generate_private_key(ec.SECP256K1())}}, "Forbidden public key algorithm"),
        (
            {"root": constrained_to("other.org"), "leaf": {"other_names": (x509.DNSName("orders.shop.svc"),)}},
            "name constraints",
        ),
    ],
)
def test_x13_a_valid_path_leads_to_the_bundle(changes: dict[str, Any], words: str) -> None:
    svid = an_svid(**changes)
    result = judge(svid)["X13"]
    assert result.outcome is Outcome.FAIL
    assert words in result.message
    assert failures(svid) - {"X13"} <= {"I2", "S9"}


def test_x13_half_a_second_after_the_end_is_too_late() -> None:
    svid = an_svid(leaf={"not_after": NOW})
    assert failures(svid, at=NOW) == set()
    assert failures(svid, at=NOW + timedelta(milliseconds=500)) == {"X13"}


def test_x13_the_first_instant_is_not_too_early() -> None:
    svid = an_svid(leaf={"not_before": NOW})
    assert failures(svid, at=NOW) == set()
    assert failures(svid, at=NOW - timedelta(microseconds=1)) == {"X13"}


def test_x13_a_chain_of_another_authority_is_refused() -> None:
    stranger = an_svid()
    svid = replace(an_svid(), bundle=stranger.bundle)
    assert failures(svid) == {"X13"}
    wanted = "the signature on chain certificate 2 is not by the key of bundle certificate 1, although the names match"
    assert judge(svid)["X13"].message == wanted


def test_x13_a_signature_that_ends_within_an_octet_is_refused() -> None:
    # One unused bit is readable only where the last bit is 0, which is so for every second signature.
    svid = next(svid for svid in iter(an_svid, None) if svid.chain[0].signature[-1] & 1 == 0)
    whole = b"\0" + svid.chain[0].signature
    ragged = svid.chain[0].public_bytes(Encoding.DER).removesuffix(whole) + b"\1" + svid.chain[0].signature
    changed = replace(svid, chain=(x509.load_der_x509_certificate(ragged), *svid.chain[1:]))
    assert failures(changed) == {"X13"}
    assert judge(changed)["X13"].message.startswith("the signature on leaf ends within an octet")


def test_x13_a_missing_intermediate_is_named() -> None:
    svid = an_svid()
    results = judge(replace(svid, chain=svid.chain[:1]))
    assert results["X13"].message.startswith("leaf was issued by 'CN=intermediate', which is neither in the chain nor")
    assert results["S9"].outcome is Outcome.NOT_APPLICABLE
    assert results["I2"].outcome is Outcome.NOT_APPLICABLE


def test_x13_an_empty_bundle_trusts_nobody() -> None:
    svid = replace(an_svid(), bundle=())
    assert failures(svid, spiffe_bundle=None) == {"X13"}


def test_x13_a_leaf_in_the_bundle_does_not_vouch_for_itself() -> None:
    leaf = a_leaf(a_root())
    svid = Svid((leaf.certificate,), (leaf.certificate,), leaf.key)
    assert {"X5", "X6", "X13"} <= failures(svid, spiffe_bundle=None)


def test_x13_an_authority_of_version_1_is_refused() -> None:
    root = a_root(uris=())
    old = as_version_1(root, root.key)
    leaf = a_leaf(root)
    assert old.version is x509.Version.v1
    assert "X13" in failures(Svid((leaf.certificate,), (old,), leaf.key))


def test_x13_a_leaf_of_version_1_is_refused() -> None:
    root = a_root()
    old = as_version_1(a_leaf(root), root.key)
    assert {"X1", "X8", "X13"} <= failures(Svid((old,), (root.certificate,), new_key()))


def test_x13_the_root_in_the_chain_does_no_harm() -> None:
    svid = an_svid()
    assert failures(replace(svid, chain=(*svid.chain, *svid.bundle))) == set()


def test_x13_an_expired_root_beside_the_good_one_does_no_harm() -> None:
    svid = an_svid()
    retired = a_root(common_name="retired", not_after=NOW - timedelta(days=1)).certificate
    assert failures(replace(svid, bundle=(retired, *svid.bundle))) == set()


def test_x13_rsa_chains_are_followed() -> None:
    key = rsa.generate_private_key(65537, 2048)
    assert failures(an_svid(root={"key": key})) == set()


def test_a_self_signed_leaf_is_refused() -> None:
    leaf = issue(replace(LEAF, common_name="me", key=new_key()), None)
    assert {"X13"} <= failures(Svid((leaf.certificate,), an_svid().bundle, leaf.key))


def test_an_intermediate_pinned_in_the_bundle_is_an_end_of_the_path() -> None:
    root = a_root()
    middle = an_intermediate(root)
    leaf = a_leaf(middle)
    svid = Svid((leaf.certificate,), (middle.certificate,), leaf.key)
    assert failures(svid) == set()
    assert "not self-signed" in judge(svid)["X15"].message


def test_k1_the_private_key_belongs_to_the_leaf() -> None:
    svid = an_svid()
    assert failures(svid, private_key=new_key()) == {"K1"}
    assert judge(svid, private_key=None)["K1"].outcome is Outcome.NOT_APPLICABLE


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"leaf": {"not_after": NOW + timedelta(days=31)}}, "leaf ends at 2026-12-23T12:00:00Z"),
        ({"intermediate": {"not_after": NOW + timedelta(days=31)}}, "chain certificate 2 ends"),
    ],
)
def test_i2_nothing_outlives_its_issuer(changes: dict[str, Any], words: str) -> None:
    assert failures(an_svid(**changes)) == {"I2"}
    assert words in judge(an_svid(**changes))["I2"].message


def test_i2_any_issuer_that_lasts_long_enough_will_do() -> None:
    root = a_root()
    renewed = a_root(key=root.key, not_after=NOW + timedelta(days=90))
    leaf = a_leaf(root, not_after=NOW + timedelta(days=60))
    assert failures(Svid((leaf.certificate,), (root.certificate, renewed.certificate), leaf.key)) == set()
