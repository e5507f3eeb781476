"""The rules of a trust bundle document, one test each: X15, X16 and B1 to B9."""

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support.certificates import (
    Svid,
    a_leaf,
    a_root,
    an_intermediate,
    an_svid,
    bundle_document,
    jwk,
)
from tests.support.verdicts import failures, judge
from zerotrust.pki.conformance import Outcome, Result, UnusableBundle, x509_authorities


@pytest.fixture(scope="module")
def svid() -> Svid:
    return an_svid()


def of(svid: Svid, document: bytes) -> dict[str, Result]:
    return judge(svid, spiffe_bundle=document)


def broken(svid: Svid, document: bytes) -> set[str]:
    return failures(svid, spiffe_bundle=document)


def with_entry(svid: Svid, **members: Any) -> bytes:
    """The good document with the first key changed; None drops a member."""
    entry = {**jwk(svid.bundle[0]), **members}
    return bundle_document((), keys=[{name: value for name, value in entry.items() if value is not None}])


def test_without_a_document_its_rules_are_not_applicable(svid: Svid) -> None:
    results = judge(svid, spiffe_bundle=None)
    for number in ("X15", "X16", "B1", "B2", "B3", "B4", "B5", "B6"):
        assert results[number].outcome is Outcome.NOT_APPLICABLE, number


def test_an_rsa_authority_is_described_right() -> None:
    assert failures(an_svid(root={"key": rsa.generate_private_key(65537, 2048)})) == set()


def test_x15_an_entry_has_no_kid(svid: Svid) -> None:
    assert broken(svid, with_entry(svid, kid="one")) == {"X15"}


@pytest.mark.parametrize("x5c", [None, [], "text", {}])
def test_x15_an_entry_has_a_certificate(svid: Svid, x5c: Any) -> None:
    good = jwk(svid.bundle[0])
    lacking = {name: value for name, value in {**good, "x5c": x5c}.items() if value is not None}
    assert broken(svid, bundle_document((), keys=[good, lacking])) == {"X15"}


def test_x15_an_entry_has_only_one_certificate(svid: Svid) -> None:
    assert broken(svid, with_entry(svid, x5c=jwk(svid.bundle[0])["x5c"] * 2)) == {"X15"}


@pytest.mark.parametrize("value", ["!", "", "AAAA", 5, None, ["AAAA"]])
def test_x15_an_entrys_certificate_can_be_read(svid: Svid, value: Any) -> None:
    assert broken(svid, with_entry(svid, x5c=[value])) == {"X15", "X16"}


def test_x15_base64url_is_not_base64(svid: Svid) -> None:
    # RFC 7517 §4.7 is explicit: x5c is not base64url, unlike every other member.
    text = next(text for text in (jwk(a_root().certificate)["x5c"][0] for _ in range(50)) if "+" in text or "/" in text)
    assert broken(svid, with_entry(svid, x5c=[text.replace("+", "-").replace("/", "_")])) == {"X15", "X16"}


def test_x15_an_entrys_certificate_is_an_authority() -> None:
    root = a_root()
    leaf = a_leaf(root)
    svid = Svid((leaf.certificate,), (root.certificate,), leaf.key)
    document = bundle_document((root.certificate, leaf.certificate))
    assert "X15" in broken(svid, document)
    assert "is no CA" in of(svid, document)["X15"].message


def test_x15_a_certificate_that_is_not_self_signed_is_advised_against() -> None:
    middle = an_intermediate(a_root())
    leaf = a_leaf(middle)
    svid = Svid((leaf.certificate,), (middle.certificate,), leaf.key)
    assert failures(svid) == set()
    assert judge(svid)["X15"].message.startswith("advised")


def test_x16_entries_of_other_kinds_are_ignored(svid: Svid) -> None:
    other = {"kty": "EC", "use": "jwt-svid", "kid": "one", "crv": "P-256", "x": "AA", "y": "AA"}
    assert broken(svid, bundle_document((), keys=[other, jwk(svid.bundle[0])])) == set()


def test_x16_a_document_without_x509_entries_supports_no_x509_svid(svid: Svid) -> None:
    other = {"kty": "EC", "use": "jwt-svid", "kid": "one", "crv": "P-256", "x": "AA", "y": "AA"}
    assert broken(svid, bundle_document((), keys=[other])) == {"X16"}


@pytest.mark.parametrize("extra", ["document", "bundle"])
def test_x16_document_and_bundle_hold_the_same_authorities(svid: Svid, extra: str) -> None:
    other = a_root(common_name="other").certificate
    if extra == "document":
        assert broken(svid, bundle_document((*svid.bundle, other))) == {"X16"}
    else:
        assert failures(Svid(svid.chain, (*svid.bundle, other), svid.key), spiffe_bundle=svid.spiffe_bundle) == {"X16"}


def test_x16_entries_without_a_readable_certificate_are_ignored(svid: Svid) -> None:
    good = jwk(svid.bundle[0])
    keys = [{**good, "x5c": ["AAAA"]}, {**good, "x5c": []}, good]
    assert x509_authorities(bundle_document((), keys=keys)) == list(svid.bundle)


def test_x16_only_the_first_certificate_of_an_entry_counts(svid: Svid) -> None:
    other = a_root(common_name="other").certificate
    document = with_entry(svid, x5c=[*jwk(svid.bundle[0])["x5c"], *jwk(other)["x5c"]])
    assert x509_authorities(document) == list(svid.bundle)


DEEP = b'{"keys": [], "a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (b"", "not JSON"),
        (b"null", "not a JSON object"),
        (b"[]", "not a JSON object"),
        (b'{"keys": [}', "not JSON"),
        (b'\xef\xbb\xbf{"keys": []}', "not JSON"),
        (b'{"keys": ["\xff"]}', "not UTF-8"),
        (b'{"keys": [], "keys": []}', "'keys' stands twice"),
        (b'{"keys": [{"use": "jwt-svid", "use": "x509-svid"}]}', "'use' stands twice"),
        (b'{"keys": [], "x": {"\\u0061": 1, "a": 2}}', "'a' stands twice"),
        (b'{"keys": [], "spiffe_sequence": NaN}', "NaN, which is not JSON"),
        (b'{"keys": [1]}', "keys[0] is not a JSON object"),
        (b'{"keys": [], "spiffe_sequence": ' + b"9" * 5000 + b"}", "too long to read"),
        (DEEP, "nested too deeply"),
    ],
)
def test_b1_the_document_is_a_jwk_set(svid: Svid, document: bytes, words: str) -> None:
    assert broken(svid, document) == {"B1"}
    assert words in of(svid, document)["B1"].message
    with pytest.raises(UnusableBundle):
        x509_authorities(document)


@pytest.mark.parametrize("change", [{"x": "AAAA"}, {"crv": "P-384"}, {"kty": "RSA"}, {"y": None}])
def test_b1_a_keys_members_are_those_of_its_certificate(svid: Svid, change: dict[str, str]) -> None:
    assert broken(svid, with_entry(svid, **change)) == {"B1"}


@pytest.mark.parametrize("value", ["1", 1.0, -1, 2**64, True, None, [1]])
def test_b2_the_sequence_is_an_integer(svid: Svid, value: Any) -> None:
    document = json.loads(svid.spiffe_bundle)
    document["spiffe_sequence"] = value
    assert broken(svid, json.dumps(document).encode()) == {"B2"}


@pytest.mark.parametrize("value", [0, 2**64 - 1])
def test_b2_the_sequence_has_64_bits(svid: Svid, value: int) -> None:
    assert broken(svid, bundle_document(svid.bundle, spiffe_sequence=value)) == set()


def test_b2_a_missing_sequence_is_advised_against(svid: Svid) -> None:
    assert of(svid, bundle_document(svid.bundle, spiffe_sequence=None))["B2"].message.startswith("advised")


@pytest.mark.parametrize("value", ["300", 300.0, -1, True, None])
def test_b3_the_refresh_hint_is_in_whole_seconds(svid: Svid, value: Any) -> None:
    document = json.loads(svid.spiffe_bundle)
    document["spiffe_refresh_hint"] = value
    assert broken(svid, json.dumps(document).encode()) == {"B3"}


@pytest.mark.parametrize("value", [None, 0])
def test_b3_a_missing_refresh_hint_is_advised_against(svid: Svid, value: int | None) -> None:
    assert of(svid, bundle_document(svid.bundle, spiffe_refresh_hint=value))["B3"].message.startswith("advised")


@pytest.mark.parametrize("keys", [None, {}, "all"])
def test_b4_keys_is_an_array(svid: Svid, keys: Any) -> None:
    assert broken(svid, bundle_document((), keys=keys)) == {"B4"}


def test_b4_no_keys_revoke_everything(svid: Svid) -> None:
    assert broken(svid, bundle_document(())) == {"B4"}
    assert "revoked everything" in of(svid, bundle_document(()))["B4"].message


@pytest.mark.parametrize("member", ["kty", "use"])
@pytest.mark.parametrize("value", [None, 5])
def test_b5_every_key_says_its_type_and_use(svid: Svid, member: str, value: Any) -> None:
    other = {"kty": "EC", "use": "jwt-svid", "kid": "one", member: value}
    keys = [jwk(svid.bundle[0]), {name: given for name, given in other.items() if given is not None}]
    assert broken(svid, bundle_document((), keys=keys)) == {"B5"}


@pytest.mark.parametrize("change", [{"use": "sig"}, {"use": "X509-SVID"}, {"kty": "PQC"}])
def test_b5_unknown_keys_are_ignored_and_said(svid: Svid, change: dict[str, str]) -> None:
    keys = [jwk(svid.bundle[0]), {"kty": "EC", "use": "jwt-svid", "kid": "one", **change}]
    document = bundle_document((), keys=keys)
    assert broken(svid, document) == set()
    assert "the key is ignored" in of(svid, document)["B5"].message


def test_b6_a_private_key_in_the_document_is_found_and_not_repeated(svid: Svid) -> None:
    document = with_entry(svid, d="c2VjcmV0")
    assert broken(svid, document) == {"B6"}
    assert all("c2VjcmV0" not in result.message for result in of(svid, document).values())


def test_b6_undefined_parameters_are_advised_against(svid: Svid) -> None:
    result = of(svid, with_entry(svid, comment="hello"))["B6"]
    assert (result.outcome, result.message) == (
        Outcome.PASS,
        "advised: keys[0] has 'comment', which no SPIFFE specification defines",
    )


def test_b6_undefined_parameters_of_the_set_are_allowed(svid: Svid) -> None:
    assert broken(svid, bundle_document(svid.bundle, vendor={"a": 1})) == set()


def test_b7_and_b9_cannot_be_seen_in_one_bundle(svid: Svid) -> None:
    results = judge(svid)
    assert {results[number].outcome for number in ("B7", "B9")} == {Outcome.NOT_APPLICABLE}


def test_b8_the_bundle_is_that_of_the_leafs_trust_domain(svid: Svid) -> None:
    assert failures(svid, trust_domain="other.org") == {"B8"}
    assert failures(svid, trust_domain="EXAMPLE.org") == set()
    assert judge(svid, trust_domain=None)["B8"].outcome is Outcome.NOT_APPLICABLE


@pytest.mark.parametrize(
    "change", [lambda raw: raw + b"\x00", lambda raw: raw.replace(b"\x02\x01\x02", b"\x02\x01\x03")]
)
def test_x15_a_certificate_with_trailing_bytes_or_of_version_4_cannot_be_read(
    svid: Svid, change: Callable[[bytes], bytes]
) -> None:
    changed = change(base64.b64decode(jwk(svid.bundle[0])["x5c"][0]))
    assert broken(svid, with_entry(svid, x5c=[base64.b64encode(changed).decode()])) == {"X15", "X16"}
