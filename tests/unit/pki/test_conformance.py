"""One test per rule: a good SVID passes it, and one that breaks it fails that rule and no other.

Where the specification states one requirement twice (X14 restates parts of S1, X1, X3, X7 and X9; a broken signing
certificate also breaks the path of X13) the test names every rule that says so.
"""

from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.support.certificates import (
    NOW,
    Svid,
    a_leaf,
    a_root,
    an_svid,
    bundle_document,
    der,
)
from tests.support.verdicts import failures, judge
from zerotrust.pki.conformance import RULES, Outcome, UnreadableInput, check_svid, passes


def test_a_good_svid_passes_every_rule_without_advice() -> None:
    results = judge(an_svid())
    assert {
        r.rule.id for r in results.values() if r.outcome is Outcome.FAIL or r.message.startswith("advised")
    } == set()
    waived = {number for number, result in results.items() if result.outcome is Outcome.NOT_APPLICABLE}
    assert waived == {"S4", "X2", "X10", "X12", "B7", "B9"}


def test_every_rule_is_listed_once_and_in_order() -> None:
    numbers = [rule.id for rule in RULES]
    wanted = {"S": 9, "X": 16, "B": 9}
    assert numbers == [f"{kind}{at}" for kind, last in wanted.items() for at in range(1, last + 1)] + ["K1", "I2"]


def test_x1_no_uri_name() -> None:
    assert failures(an_svid(leaf={"uris": (), "other_names": (x509.DNSName("orders.shop.svc"),)})) == {"X1", "X14"}


def test_x1_no_names_at_all() -> None:
    assert failures(an_svid(leaf={"uris": (), "common_name": "orders"})) == {"X1", "X14"}


def test_x1_more_than_one_uri_name() -> None:
    two = (b"spiffe://example.org/a", b"spiffe://example.org/b")
    assert failures(an_svid(leaf={"uris": two})) == {"X1", "X14"}


def test_x1_the_same_uri_name_twice() -> None:
    assert failures(an_svid(leaf={"uris": (b"spiffe://example.org/a",) * 2})) == {"X1", "X14"}


def test_x1_a_signing_certificate_has_at_most_one_uri_name() -> None:
    two = (b"spiffe://example.org", b"https://example.org")
    assert failures(an_svid(root={"uris": two})) == {"X1"}


def test_x2_other_names_are_allowed_in_any_number() -> None:
    others = (*(x509.DNSName(f"{at}.shop.svc") for at in range(50)), x509.RFC822Name("a@b.example"))
    assert failures(an_svid(leaf={"other_names": others})) == set()


def test_x3_the_leaf_id_has_a_path() -> None:
    assert failures(an_svid(leaf={"uris": (b"spiffe://example.org",)})) == {"X3", "X14"}


def test_x3_a_lone_slash_is_no_path() -> None:
    assert failures(an_svid(leaf={"uris": (b"spiffe://example.org/",)})) == {"S5", "X3", "X14"}


def test_x4_names_are_critical_without_a_subject() -> None:
    assert failures(an_svid(leaf={"names_critical": False})) == {"X4"}


def test_x4_names_need_not_be_critical_beside_a_subject() -> None:
    assert failures(an_svid(leaf={"names_critical": False, "common_name": "orders"})) == set()


@pytest.mark.parametrize("where", ["root", "intermediate"])
def test_x5_a_signing_certificate_has_ca(where: str) -> None:
    assert failures(an_svid(**{where: {"ca": False}})) == {"X5", "X13"} | ({"X15"} if where == "root" else set())


@pytest.mark.parametrize("where", ["root", "intermediate"])
def test_x5_a_signing_certificate_has_key_cert_sign(where: str) -> None:
    changes = {where: {"usage": frozenset({"crl_sign"}), "path_length": None}}
    assert failures(an_svid(**changes)) == {"X5", "X13"} | ({"X15"} if where == "root" else set())


@pytest.mark.parametrize("where", ["root", "intermediate"])
def test_x5_a_signing_certificates_id_has_no_path(where: str) -> None:
    assert failures(an_svid(**{where: {"uris": (b"spiffe://example.org/ca",)}})) == {"X5"}


def test_x5_an_authority_of_another_trust_domain_is_only_advised_against() -> None:
    svid = an_svid(root={"uris": (b"spiffe://other.org",)})
    assert failures(svid) == set()
    assert "outside the leaf's trust domain" in judge(svid)["X5"].message


def test_x6_a_signing_key_does_not_authenticate() -> None:
    root = a_root()
    leaf = a_leaf(root, key=root.key)
    assert failures(Svid((leaf.certificate,), (root.certificate,), leaf.key)) == {"X6"}


def test_x6_a_signing_certificate_does_not_authenticate() -> None:
    usage = frozenset({"digital_signature", "key_cert_sign"})
    assert failures(an_svid(leaf={"ca": True, "usage": usage})) == {"X6", "X7", "X9", "X14"}


def test_x6_digital_signature_on_an_authority_is_advised_against() -> None:
    svid = an_svid(root={"usage": frozenset({"key_cert_sign", "digital_signature"})})
    assert failures(svid) == set()
    assert "digitalSignature" in judge(svid)["X6"].message


def test_x7_the_leaf_is_no_ca() -> None:
    assert failures(an_svid(leaf={"ca": True})) == {"X7", "X14"}


def test_x7_a_leaf_without_basic_constraints_is_advised_to_have_them() -> None:
    svid = an_svid(leaf={"ca": None})
    assert failures(svid) == set()
    assert judge(svid)["X7"].message.startswith("advised")


@pytest.mark.parametrize("where", ["root", "intermediate", "leaf"])
def test_x8_key_usage_is_present_and_critical(where: str) -> None:
    assert failures(an_svid(**{where: {"usage_critical": False}})) == {"X8"}


def test_x8_key_usage_is_present_on_the_leaf() -> None:
    assert failures(an_svid(leaf={"usage": None})) == {"X8"}


def test_x8_key_usage_is_present_on_a_signing_certificate() -> None:
    assert failures(an_svid(intermediate={"usage": None, "path_length": None})) == {"X8", "X13"}


def test_x9_the_leaf_sets_digital_signature() -> None:
    assert failures(an_svid(leaf={"usage": frozenset({"key_encipherment"})})) == {"X9"}


@pytest.mark.parametrize("usage", ["key_cert_sign", "crl_sign"])
def test_x9_the_leaf_signs_nothing_for_others(usage: str) -> None:
    assert failures(an_svid(leaf={"usage": frozenset({"digital_signature", usage})})) == {"X9", "X14"}


def test_x9_encipherment_and_agreement_are_allowed() -> None:
    usage = frozenset({"digital_signature", "key_encipherment", "key_agreement"})
    assert failures(an_svid(leaf={"usage": usage})) == set()


def test_x10_an_authority_may_or_may_not_sign_revocation_lists() -> None:
    assert failures(an_svid(root={"usage": frozenset({"key_cert_sign"})})) == set()


@pytest.mark.parametrize(
    "purposes",
    [
        (ExtendedKeyUsageOID.SERVER_AUTH,),
        (ExtendedKeyUsageOID.CLIENT_AUTH,),
        (ExtendedKeyUsageOID.CODE_SIGNING,),
        (ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,),
    ],
)
def test_x11_extended_key_usage_names_both_directions(purposes: tuple[x509.ObjectIdentifier, ...]) -> None:
    assert failures(an_svid(leaf={"purposes": purposes})) == {"X11"}


def test_x11_no_extended_key_usage_is_only_advised_against() -> None:
    svid = an_svid(leaf={"purposes": None})
    assert failures(svid) == set()
    assert judge(svid)["X11"].message.startswith("advised")


@pytest.mark.parametrize(
    "leaf",
    [
        {"uris": ()},
        {"uris": (b"https://example.org/a",)},
        {"uris": (b"spiffe://example.org",)},
        {"ca": True},
        {"usage": frozenset({"digital_signature", "key_cert_sign"})},
        {"usage": frozenset({"digital_signature", "crl_sign"})},
    ],
)
def test_x14_a_validator_rejects_the_leaf(leaf: dict[str, Any]) -> None:
    result = judge(an_svid(leaf={**leaf, "common_name": "orders"}))["X14"]
    assert result.outcome is Outcome.FAIL
    assert result.message.startswith("a validator must reject the leaf: ")


def test_an_empty_chain_is_unreadable() -> None:
    with pytest.raises(UnreadableInput, match="chain: holds no certificate; give the leaf"):
        check_svid([], an_svid().bundle, NOW)


def test_a_time_without_zone_is_unreadable() -> None:
    svid = an_svid()
    with pytest.raises(UnreadableInput, match="no time zone"):
        check_svid(svid.chain, svid.bundle, NOW.replace(tzinfo=None))


@pytest.mark.parametrize("name", ["spiffe://example.org", "example.org/x", "", "exa\udcffmple", "\u212aube.org"])
def test_a_trust_domain_that_is_none_is_unreadable(name: str) -> None:
    svid = an_svid()
    with pytest.raises(UnreadableInput, match=r"give a name such as example\.org"):
        check_svid(svid.chain, svid.bundle, NOW, trust_domain=name)


def test_more_certificates_than_anybody_needs_are_unreadable() -> None:
    svid = an_svid()
    with pytest.raises(UnreadableInput, match="at most 10 are judged"):
        check_svid([svid.chain[0]] * 11, svid.bundle, NOW)


def test_an_svid_passes_when_no_rule_fails() -> None:
    svid = an_svid()
    longest = [*svid.chain, *([svid.chain[1]] * 8)]
    assert passes(check_svid(longest, svid.bundle, NOW))
    assert not passes(check_svid(svid.chain, an_svid().bundle, NOW))


def test_a_huge_bundle_document_is_unreadable() -> None:
    svid = an_svid()
    with pytest.raises(UnreadableInput, match="at most 4194304 are read"):
        check_svid(svid.chain, svid.bundle, NOW, spiffe_bundle=bundle_document(svid.bundle, filler="x" * 2**22))


def test_a_certificate_with_a_malformed_extension_is_unreadable() -> None:
    broken = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.17"), der(0x30, der(0x86, b"\xff\xfe")))
    svid = an_svid(leaf={"uris": (), "extra": ((broken, True),)})
    with pytest.raises(UnreadableInput, match="chain certificate 1: has a name, key or extension that is malformed"):
        check_svid(svid.chain, svid.bundle, NOW)
