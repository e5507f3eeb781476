"""The conformance rules under random input: nothing that is changed passes, nothing that is malformed crashes."""

import json
import warnings
from dataclasses import replace
from datetime import timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.certificates import (
    BOTH_PURPOSES,
    NOW,
    TRUST_DOMAIN,
    USAGES,
    Svid,
    an_svid,
    new_key,
    pem,
)
from tests.support.verdicts import failures
from zerotrust.pki.conformance import UnreadableInput, check_svid, is_spiffe_id, passes, read_certificates

GOOD = an_svid()

TRUST_DOMAIN_CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789.-_"
SEGMENT_CHARACTERS = TRUST_DOMAIN_CHARACTERS + "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def literally_a_spiffe_id(raw: bytes) -> bool:
    """SPIFFE-ID §2 read word by word and character by character, in no way that the rules share."""
    if len(raw) > 2048:
        return False
    try:
        text = raw.decode("ascii")
    except UnicodeDecodeError:
        return False
    if text[:9] != "spiffe://":
        return False
    name, *segments = text[9:].split("/")
    if not 1 <= len(name) <= 255:
        return False
    for character in name:
        if character not in TRUST_DOMAIN_CHARACTERS:
            return False
    for segment in segments:
        if segment in ("", ".", ".."):
            return False
        for character in segment:
            if character not in SEGMENT_CHARACTERS:
                return False
    return True


pieces = st.sampled_from(
    [*"/.:@?#%[]\\ ~-_aZ0é\x00\u212a", "//", "..", "%2f", "%41", "spiffe", "SPIFFE", "://", "ns"],
)
near_ids = st.builds(
    lambda head, tail: (head + "".join(tail)).encode(),
    st.sampled_from(["", "spiffe://", "spiffe://example.org", "spiffe://example.org/", "SPIFFE://example.org/a"]),
    st.lists(pieces, max_size=12),
)
long_ids = st.builds(
    lambda name, path: f"spiffe://{'a' * name}/{'b' * path}".encode(),
    st.integers(250, 260),
    st.integers(1770, 1800),
)
good_ids = st.builds(
    lambda name, segments: "/".join([f"spiffe://{name}", *segments]).encode(),
    st.text(TRUST_DOMAIN_CHARACTERS, min_size=1, max_size=20),
    st.lists(st.text(SEGMENT_CHARACTERS, min_size=1, max_size=8), max_size=5),
)
some_ids = st.one_of(near_ids, long_ids, good_ids, st.binary(max_size=60))


@given(some_ids)
@example(b"spiffe://example.org/ns/shop/sa/orders")
@example(b"spiffe://[::1]/a")
@example(b"spiffe:///a")
def test_the_id_rules_accept_exactly_what_the_specification_describes(raw: bytes) -> None:
    assert is_spiffe_id(raw) == literally_a_spiffe_id(raw)


@given(near_ids | good_ids)
def test_an_id_is_judged_the_same_inside_a_certificate(raw: bytes) -> None:
    broken = failures(an_svid(leaf={"uris": (raw,)}), trust_domain=None)
    refused_by_grammar = bool(broken & {"S1", "S2", "S3", "S5", "S6", "S7"})
    assert refused_by_grammar == (not literally_a_spiffe_id(raw))


seconds = st.integers(1, 10**8).map(lambda n: timedelta(seconds=n))
other_usages = st.frozensets(st.sampled_from(USAGES), min_size=1)
one_purpose_short = st.sampled_from(
    [
        BOTH_PURPOSES[:1],
        BOTH_PURPOSES[1:],
        (ExtendedKeyUsageOID.EMAIL_PROTECTION, BOTH_PURPOSES[0]),
        (ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,),
    ]
)
unknown_critical = st.integers(1, 10**6).map(
    lambda n: ((x509.UnrecognizedExtension(x509.ObjectIdentifier(f"1.3.6.1.4.1.99999.{n}"), b"\x05\x00"), True),)
)
wrong_key_id = st.binary(min_size=1, max_size=32)


def change(where: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[str, dict[str, Any]]]:
    return st.tuples(st.just(where), st.fixed_dictionaries(fields))


single_changes = st.one_of(
    change("leaf", uris=st.just(())),
    change("leaf", uris=near_ids.filter(lambda raw: not literally_a_spiffe_id(raw)).map(lambda raw: (raw,))),
    change("leaf", uris=st.lists(good_ids, min_size=2, max_size=5).map(tuple)),
    change("leaf", uris=good_ids.filter(lambda raw: not raw.startswith(b"spiffe://example.org/")).map(lambda u: (u,))),
    change("leaf", names_critical=st.just(False)),
    change("leaf", ca=st.just(True)),
    change("leaf", usage=other_usages.filter(lambda u: "digital_signature" not in u and good_usage(u))),
    change("leaf", usage=other_usages.filter(lambda u: u & {"key_cert_sign", "crl_sign"} and good_usage(u))),
    change("leaf", usage=st.none()),
    change("leaf", purposes=one_purpose_short),
    change("leaf", hash=st.just(hashes.SHA224())),
    change("leaf", issuer_name=st.text("abcxyz", min_size=1, max_size=10)),
    change("leaf", authority_key_id=st.none() | wrong_key_id),
    change("intermediate", ca=st.just(False)),
    change("intermediate", path_length=st.just(None), usage=other_usages.filter(lambda u: not_signing(u))),
    change("intermediate", constraints_critical=st.just(False)),
    change("intermediate", subject_key_id=st.none()),
    change("intermediate", authority_key_id=st.none() | wrong_key_id),
    change("root", ca=st.just(False)),
    change("root", path_length=st.just(0)),
    change("root", usage=other_usages.filter(lambda u: not_signing(u))),
    *(change(where, not_before=seconds.map(lambda late: NOW + late)) for where in ("leaf", "intermediate", "root")),
    *(change(where, not_after=seconds.map(lambda early: NOW - early)) for where in ("leaf", "intermediate", "root")),
    *(change(where, usage_critical=st.just(False)) for where in ("leaf", "intermediate", "root")),
    *(change(where, extra=unknown_critical) for where in ("leaf", "intermediate", "root")),
)


def good_usage(usage: frozenset[str]) -> bool:
    """RFC 5280 §4.2.1.3 leaves the two encipher-only bits undefined without keyAgreement; no builder writes that."""
    return "key_agreement" in usage or not usage & {"encipher_only", "decipher_only"}


def not_signing(usage: frozenset[str]) -> bool:
    return "key_cert_sign" not in usage and good_usage(usage)


def consistent(fields: dict[str, Any]) -> dict[str, Any]:
    """A certificate ends after it begins, however its times were changed."""
    if "not_before" in fields:
        return {**fields, "not_after": fields["not_before"] + timedelta(days=1)}
    if "not_after" in fields:
        return {**fields, "not_before": fields["not_after"] - timedelta(days=1)}
    return fields


@settings(suppress_health_check=[HealthCheck.filter_too_much])
@given(single_changes)
def test_every_single_change_of_a_good_svid_is_rejected(mutation: tuple[str, dict[str, Any]]) -> None:
    where, fields = mutation
    assert failures(an_svid(**{where: consistent(fields)})) != set()


@given(st.integers(0, 1), st.integers(0), st.integers(1, 255))
def test_every_changed_byte_of_a_chain_is_rejected(which: int, where: int, flip: int) -> None:
    raw = bytearray(GOOD.chain[which].public_bytes(serialization.Encoding.DER))
    raw[where % len(raw)] ^= flip
    with warnings.catch_warnings(action="ignore"):
        try:
            certificate = x509.load_der_x509_certificate(bytes(raw))
            chain = (*GOOD.chain[:which], certificate, *GOOD.chain[which + 1 :])
            results = check_svid(chain, GOOD.bundle, NOW, trust_domain=TRUST_DOMAIN)
        except (ValueError, x509.InvalidVersion):
            return  # unreadable is rejected, UnreadableInput included
    assert not passes(results)


@given(st.permutations([*GOOD.chain, *GOOD.bundle]), st.integers(1, 3), st.booleans())
def test_no_other_arrangement_of_a_good_svid_passes(order: list[x509.Certificate], length: int, trusted: bool) -> None:
    chain, bundle = order[:length], order[length:] if trusted else []
    good = chain[0] == GOOD.chain[0] and bundle and set(bundle) <= {GOOD.chain[1], GOOD.bundle[0]}
    assert passes(check_svid(chain, bundle, NOW)) == bool(good)


@given(st.sampled_from(["key", "bundle", "domain"]))
def test_parts_of_two_svids_do_not_mix(part: str) -> None:
    other = an_svid()
    mixed = {
        "key": lambda: failures(GOOD, private_key=new_key()),
        "bundle": lambda: failures(Svid(GOOD.chain, other.bundle, GOOD.key)),
        "domain": lambda: failures(GOOD, trust_domain="example.com"),
    }
    assert mixed[part]() != set()


@given(st.integers(0), st.binary(max_size=4), st.integers(0, 3))
def test_a_changed_bundle_document_never_crashes_a_rule(where: int, inserted: bytes, removed: int) -> None:
    raw = GOOD.spiffe_bundle
    at = where % len(raw)
    failures(GOOD, spiffe_bundle=raw[:at] + inserted + raw[at + removed :])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["x5c", "use", "kty", "d"]), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["keys", "spiffe_sequence", "spiffe_refresh_hint", "x"]), json_values))
def test_any_json_in_a_bundle_document_is_judged(members: dict[str, Any]) -> None:
    failures(GOOD, spiffe_bundle=json.dumps(members).encode())


@given(st.integers(0), st.binary(max_size=4), st.integers(0, 40))
def test_changed_pem_is_read_whole_or_not_at_all(where: int, inserted: bytes, removed: int) -> None:
    text = pem(*GOOD.chain)
    at = where % len(text)
    with warnings.catch_warnings(action="ignore"):
        try:
            chain = read_certificates("chain.pem", text[:at] + inserted + text[at + removed :])
        except UnreadableInput:
            return
        assert chain == GOOD.chain[: len(chain)] or not passes(check_svid(chain, GOOD.bundle, NOW))


@given(st.datetimes().map(lambda moment: moment.replace(tzinfo=NOW.tzinfo)))
def test_an_svid_passes_exactly_while_every_certificate_of_its_path_is_valid(moment: Any) -> None:
    path = (*GOOD.chain, *GOOD.bundle)
    valid = all(c.not_valid_before_utc <= moment <= c.not_valid_after_utc for c in path)
    assert passes(check_svid(GOOD.chain, GOOD.bundle, moment)) == valid


@given(st.integers(-3, 3), st.integers(-999_999, 999_999))
def test_validity_ends_to_the_microsecond(seconds_off: int, microseconds: int) -> None:
    svid = replace(GOOD)
    moment = svid.chain[0].not_valid_after_utc + timedelta(seconds=seconds_off, microseconds=microseconds)
    assert passes(check_svid(svid.chain, svid.bundle, moment)) == (moment <= svid.chain[0].not_valid_after_utc)
