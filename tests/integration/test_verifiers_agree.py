"""Our rules against two verifiers that share no code with them: go-spiffe, and `openssl verify -x509_strict`.

Whatever one of them refuses, we refuse. Where we refuse and they do not is listed here, case by case: a new difference
fails, and so does one that has gone.
"""

import itertools
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from hack.gotools import find_or_build
from tests.support.certificates import (
    NOW,
    SPIFFE_ID,
    TRUST_DOMAIN,
    Svid,
    a_leaf,
    a_root,
    an_intermediate,
    an_svid,
    as_version_1,
    bundle_document,
    jwk,
    pem,
)
from tests.support.verdicts import failures

Changes = Mapping[str, Mapping[str, Any]]

UNKNOWN_CRITICAL = (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00"), True)
CRITICAL_KEY_ID = (x509.SubjectKeyIdentifier(b"x" * 20), True)
DNS_NAME = (x509.DNSName("orders.shop.svc"),)


def constrained(*names: x509.GeneralName) -> dict[str, Any]:
    return {"extra": ((x509.NameConstraints(names, None), True),)}


def with_id(uri: bytes) -> Changes:
    return {"leaf": {"uris": (uri,)}}


GOOD: dict[str, Changes] = {
    "untouched": {},
    "leaf with a subject": {"leaf": {"common_name": "orders"}},
    "leaf with other names": {"leaf": {"other_names": DNS_NAME}},
    "leaf without EKU": {"leaf": {"purposes": None}},
    "leaf without basic constraints": {"leaf": {"ca": None}},
    "leaf without SKI": {"leaf": {"subject_key_id": None}},
    "root with P-384": {"root": {"key": ec.generate_private_key(ec.SECP384R1())}},
    "root with RSA": {"root": {"key": rsa.generate_private_key(65537, 2048)}},
    "root without ID": {"root": {"uris": ()}},
    "root for two levels": {"root": {"path_length": 1}},
    "root constrained to the right names": {"root": constrained(x509.DNSName("svc"))},
    "leaf outlives the root, still valid": {"leaf": {"not_after": NOW + timedelta(days=60)}},
    "ends now": {"leaf": {"not_after": NOW}},
    "begins now": {"leaf": {"not_before": NOW}},
}
BAD: dict[str, Changes] = {
    "leaf expired": {"leaf": {"not_after": NOW - timedelta(seconds=1)}},
    "leaf not yet valid": {"leaf": {"not_before": NOW + timedelta(seconds=1)}},
    "intermediate expired": {"intermediate": {"not_after": NOW - timedelta(seconds=1)}},
    "root expired": {"root": {"not_after": NOW - timedelta(seconds=1)}},
    "leaf without URI": {"leaf": {"uris": (), "common_name": "orders"}},
    "leaf with two URIs": {"leaf": {"uris": (b"spiffe://example.org/a", b"spiffe://example.org/b")}},
    "scheme https": with_id(b"https://example.org/a"),
    "scheme in upper case": with_id(b"SPIFFE://example.org/a"),
    "ID without path": with_id(b"spiffe://example.org"),
    "ID with a slash only": with_id(b"spiffe://example.org/"),
    "ID with query": with_id(b"spiffe://example.org/a?b"),
    "ID with fragment": with_id(b"spiffe://example.org/a#b"),
    "ID with port": with_id(b"spiffe://example.org:443/a"),
    "ID with user": with_id(b"spiffe://me@example.org/a"),
    "ID with encoded path": with_id(b"spiffe://example.org/%61"),
    "ID with encoded host": with_id(b"spiffe://ex%61mple.org/a"),
    "ID with upper case host": with_id(b"spiffe://Example.org/a"),
    "ID with empty segment": with_id(b"spiffe://example.org/a//b"),
    "ID with dot segment": with_id(b"spiffe://example.org/a/../b"),
    "ID with trailing slash": with_id(b"spiffe://example.org/a/"),
    "ID too long": with_id(b"spiffe://example.org/" + b"a" * 2048),
    "ID of another trust domain": with_id(b"spiffe://other.org/a"),
    "SAN not critical": {"leaf": {"names_critical": False}},
    "leaf with cA": {"leaf": {"ca": True}},
    "leaf with keyCertSign": {"leaf": {"usage": frozenset({"digital_signature", "key_cert_sign"})}},
    "leaf with cRLSign": {"leaf": {"usage": frozenset({"digital_signature", "crl_sign"})}},
    "leaf without digitalSignature": {"leaf": {"usage": frozenset({"key_encipherment"})}},
    "leaf without key usage": {"leaf": {"usage": None}},
    "leaf key usage not critical": {"leaf": {"usage_critical": False}},
    "intermediate key usage not critical": {"intermediate": {"usage_critical": False}},
    "root key usage not critical": {"root": {"usage_critical": False}},
    "leaf for servers only": {"leaf": {"purposes": (ExtendedKeyUsageOID.SERVER_AUTH,)}},
    "leaf for clients only": {"leaf": {"purposes": (ExtendedKeyUsageOID.CLIENT_AUTH,)}},
    "leaf from a stranger": {"leaf": {"issuer_name": "stranger"}},
    "leaf with SHA-224": {"leaf": {"hash": hashes.SHA224()}},
    "leaf names another issuing key": {"leaf": {"authority_key_id": b"other"}},
    "leaf without AKI": {"leaf": {"authority_key_id": None}},
    "leaf with an unknown critical extension": {"leaf": {"extra": (UNKNOWN_CRITICAL,)}},
    "root with an unknown critical extension": {"root": {"extra": (UNKNOWN_CRITICAL,)}},
    "intermediate without cA": {"intermediate": {"ca": False}},
    "root without cA": {"root": {"ca": False}},
    "intermediate without keyCertSign": {"intermediate": {"usage": frozenset({"crl_sign"}), "path_length": None}},
    "root without keyCertSign": {"root": {"usage": frozenset({"crl_sign"})}},
    "intermediate without key usage": {"intermediate": {"usage": None, "path_length": None}},
    "root without key usage": {"root": {"usage": None}},
    "intermediate without SKI": {"intermediate": {"subject_key_id": None}},
    "intermediate with critical SKI": {"intermediate": {"subject_key_id": None, "extra": (CRITICAL_KEY_ID,)}},
    "intermediate basic constraints not critical": {"intermediate": {"constraints_critical": False}},
    "intermediate ID with a path": {"intermediate": {"uris": (b"spiffe://example.org/ca",)}},
    "root with two URIs": {"root": {"uris": (b"spiffe://example.org", b"https://example.org")}},
    "root allows no intermediate": {"root": {"path_length": 0}},
    "root constrained to other names": {
        "root": constrained(x509.DNSName("other.org")),
        "leaf": {"other_names": DNS_NAME},
    },
    "root constrained to the right URIs": {"root": constrained(x509.UniformResourceIdentifier("example.org"))},
    "root constrained to other URIs": {"root": constrained(x509.UniformResourceIdentifier("other.org"))},
    "root with secp256k1": {"root": {"key": ec.generate_private_key(ec.SECP256K1())}},
}

# What go-spiffe v2.9.0 accepts although we refuse it, and the rule by which we do.
GO_SPIFFE_ACCEPTS = {
    # It does not look at these rules at all. (X3 is part of X509-SVID §5.2, which binds every validator.)
    "ID without path": "X3",
    "ID too long": "S6",
    "SAN not critical": "X4",
    "intermediate ID with a path": "X5",
    "leaf without key usage": "X8",
    "leaf key usage not critical": "X8",
    "intermediate key usage not critical": "X8",
    "root key usage not critical": "X8",
    "leaf without digitalSignature": "X9",
    "leaf for servers only": "X11",
    "leaf for clients only": "X11",
    "root with two URIs": "X1",
    # Go's URL parser folds the scheme before go-spiffe sees it.
    "scheme in upper case": "S7",
    # Go's path validation takes key identifiers as hints, lets an authority go without key usage and without marking
    # its basic constraints critical, and asks no constraints at all of an anchor of version 1.
    "leaf names another issuing key": "X13",
    "leaf without AKI": "X13",
    "intermediate without SKI": "X13",
    "intermediate without key usage": "X13",
    "root without key usage": "X13",
    "intermediate basic constraints not critical": "X13",
    "root of version 1": "X13",
    # The one thing that it can do and we cannot, so we fail closed.
    "root constrained to the right URIs": "X13",
    # Our own rule: RFC 5280 judges each certificate's validity by itself.
    "leaf outlives the root, still valid": "I2",
}
# OpenSSL knows nothing of SPIFFE, so it is compared by X13 alone. There it accepts these, which we refuse: weak or
# unusual algorithms, and URI constraints.
OPENSSL_ACCEPTS = {"leaf with SHA-224", "root with secp256k1", "root constrained to the right URIs"}
# And this one it refuses, which we and go-spiffe accept: RFC 5280 §4.1.2.5 counts notAfter itself as valid.
OPENSSL_REFUSES = {"ends now"}


@dataclass(frozen=True)
class Case:
    """A chain and its bundle, as files and as objects."""

    name: str
    svid: Svid
    chain: Path
    bundle: Path


def write(folder: Path, name: str, svid: Svid) -> Case:
    stem = "".join(character if character.isalnum() else "-" for character in name)
    chain, bundle = folder / f"{stem}.chain.pem", folder / f"{stem}.bundle.pem"
    chain.write_bytes(pem(*svid.chain))
    bundle.write_bytes(pem(*svid.bundle))
    return Case(name, svid, chain, bundle)


def built(changes: Changes) -> Svid:
    return an_svid(**{where: ordered(dict(fields)) for where, fields in changes.items()})


def ordered(fields: dict[str, Any]) -> dict[str, Any]:
    """Let a certificate begin before it ends, however early that is."""
    if fields.get("not_after", NOW) < NOW:
        return {**fields, "not_before": fields["not_after"] - timedelta(hours=1)}
    return fields


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    folder = tmp_path_factory.mktemp("cases")
    return [write(folder, name, svid) for name, svid in all_svids()]


def all_svids() -> Iterator[tuple[str, Svid]]:
    for name, changes in {**GOOD, **BAD}.items():
        yield name, built(changes)
    root = a_root()
    leaf = a_leaf(root)
    good, other = an_svid(), an_svid()
    yield "root signs the leaf", Svid((leaf.certificate,), (root.certificate,), leaf.key)
    yield "bundle of somebody else", replace(good, bundle=other.bundle)
    yield "intermediate missing", replace(good, chain=good.chain[:1])
    yield "root in the chain", replace(good, chain=(*good.chain, *good.bundle))
    yield "leaf by another key", Svid((other.chain[0], good.chain[1]), good.bundle, good.key)
    yield "root of version 1", Svid((leaf.certificate,), (as_version_1(root, root.key),), leaf.key)
    yield "leaf of version 1", Svid((as_version_1(leaf, root.key),), (root.certificate,), leaf.key)
    middle = an_intermediate(a_root())
    pinned = a_leaf(middle)
    yield "intermediate as the anchor", Svid((pinned.certificate,), (middle.certificate,), pinned.key)


@pytest.fixture(scope="module")
def spiffe_verify() -> Path:
    if shutil.which("go") is None:
        pytest.skip("needs Go, to build go-spiffe's verifier")
    return find_or_build("spiffe-verify")


@pytest.fixture(scope="module")
def openssl() -> str:
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("needs openssl")
    return program


def accepted_by_go_spiffe(program: Path, cases: list[Case]) -> set[str]:
    lines = "".join(f"{case.chain}\t{case.bundle}\t{TRUST_DOMAIN}\n" for case in cases)
    answers = subprocess.run(
        [program, "-batch", "-at", NOW.isoformat()], input=lines, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert len(answers) == len(cases)
    return {case.name for case, answer in zip(cases, answers, strict=True) if answer.startswith("ok ")}


def accepted_by_openssl(program: str, cases: list[Case]) -> set[str]:
    return {case.name for case in cases if openssl_accepts(program, case)}


def openssl_accepts(program: str, case: Case) -> bool:
    # The leaf is read from the same file that offers the intermediates; the first certificate counts.
    arguments = ["-x509_strict", "-partial_chain", "-no-CApath", "-no-CAstore", "-attime", str(int(NOW.timestamp()))]
    files = ["-CAfile", str(case.bundle), "-untrusted", str(case.chain), str(case.chain)]
    return subprocess.run([program, "verify", *arguments, *files], capture_output=True, check=False).returncode == 0


def refusals(cases: list[Case]) -> dict[str, set[str]]:
    verdicts = {case.name: failures(case.svid, spiffe_bundle=None) for case in cases}
    return {name: broken for name, broken in verdicts.items() if broken}


def test_good_svids_are_good_for_all(cases: list[Case], spiffe_verify: Path) -> None:
    refused = refusals(cases)
    assert GOOD.keys() & refused.keys() == {"leaf outlives the root, still valid"}
    assert BAD.keys() <= refused.keys()
    assert GOOD.keys() <= accepted_by_go_spiffe(spiffe_verify, cases)


def test_go_spiffe_refuses_nothing_that_we_accept(cases: list[Case], spiffe_verify: Path) -> None:
    refused = refusals(cases)
    accepted = accepted_by_go_spiffe(spiffe_verify, cases)
    assert {case.name for case in cases} <= accepted | refused.keys()
    assert accepted & refused.keys() == GO_SPIFFE_ACCEPTS.keys()
    for name, rule in GO_SPIFFE_ACCEPTS.items():
        assert rule in refused[name], name


def test_openssl_refuses_nothing_that_we_accept(cases: list[Case], openssl: str) -> None:
    refused = refusals(cases)
    accepted = accepted_by_openssl(openssl, cases)
    assert {case.name for case in cases} <= accepted | refused.keys() | OPENSSL_REFUSES
    assert OPENSSL_REFUSES.isdisjoint(accepted)
    assert {name for name in accepted if "X13" in refused.get(name, set())} == OPENSSL_ACCEPTS


def test_neither_refuses_a_pair_of_changes_that_we_accept(tmp_path: Path, spiffe_verify: Path, openssl: str) -> None:
    pairs = [*itertools.combinations(GOOD.items(), 2), *itertools.product(GOOD.items(), BAD.items())]
    cases = [
        write(tmp_path, f"{first} and {second}", built(changes))
        for (first, one), (second, two) in pairs
        if (changes := merged(one, two)) is not None and OPENSSL_REFUSES.isdisjoint({first, second})
    ]
    ours = [case for case in cases if not refusals([case])]
    assert len(ours) > 40
    everybody = {case.name for case in ours}
    assert accepted_by_go_spiffe(spiffe_verify, ours) == everybody
    assert accepted_by_openssl(openssl, ours) == everybody


def merged(one: Changes, two: Changes) -> Changes | None:
    """Both changes in one SVID; None when they change the same field."""
    together: dict[str, dict[str, Any]] = {where: dict(fields) for where, fields in one.items()}
    for where, fields in two.items():
        if together.setdefault(where, {}).keys() & fields.keys():
            return None
        together[where] |= fields
    return together


# go-spiffe's reading of a bundle document, where an entry is a fault of the document or is ignored.
DOCUMENTS: dict[str, tuple[dict[str, Any], bool]] = {
    "untouched": ({}, True),
    "without sequence": ({"spiffe_sequence": None}, True),
    "without refresh hint": ({"spiffe_refresh_hint": None}, True),
    "vendor's member": ({"vendor": 1}, True),
    "sequence as text": ({"spiffe_sequence": "1"}, False),
    "sequence negative": ({"spiffe_sequence": -1}, False),
    "sequence fractional": ({"spiffe_sequence": 1.5}, False),
    "sequence too large": ({"spiffe_sequence": 2**64}, False),
    "hint as text": ({"spiffe_refresh_hint": "300"}, False),
    "no keys": ({"keys": None}, False),
    "empty keys": ({"keys": []}, False),
    "keys as text": ({"keys": "x"}, False),
    "keys of numbers": ({"keys": [1]}, False),
}
ENTRIES: dict[str, tuple[dict[str, Any], bool]] = {
    "vendor's JWK member": ({"vendor": 1}, True),
    "with kid": ({"kid": "one"}, False),
    "two certificates": ({"x5c": "twice"}, False),
    "no certificate": ({"x5c": []}, False),
    "unreadable certificate": ({"x5c": ["AAAA"]}, False),
    "another x": ({"x": "AAAA"}, False),
    "another use": ({"use": "X509-SVID"}, False),
    "no use": ({"use": None}, False),
    "no kty": ({"kty": None}, False),
}
GO_SPIFFE_READS = {"with kid"}


def documents(svid: Svid) -> Iterator[tuple[str, bytes, bool]]:
    for name, (members, good) in DOCUMENTS.items():
        yield name, bundle_document(svid.bundle, **members), good
    for name, (members, good) in ENTRIES.items():
        entry = {**jwk(svid.bundle[0]), **members}
        if entry["x5c"] == "twice":
            entry["x5c"] = jwk(svid.bundle[0])["x5c"] * 2
        yield name, bundle_document((), keys=[{key: value for key, value in entry.items() if value is not None}]), good
    text = svid.spiffe_bundle.decode()
    yield "truncated", text[:-1].encode(), False
    yield "garbage behind", f"{text}x".encode(), False
    yield "not UTF-8", text.encode().replace(b"x509-svid", b"x509\xffsvid"), False


def test_bundle_documents_are_read_at_least_as_strictly_as_by_go_spiffe(tmp_path: Path, spiffe_verify: Path) -> None:
    svid = an_svid()
    cases = []
    for name, document, good in documents(svid):
        case = write(tmp_path, name, svid)
        case.bundle.write_bytes(document)
        cases.append(case)
        assert (failures(svid, spiffe_bundle=document) == set()) == good, name
    accepted = accepted_by_go_spiffe(spiffe_verify, cases)
    assert accepted == {name for name, _, good in documents(svid) if good} | GO_SPIFFE_READS


def test_the_verifier_answers_for_one_certificate_too(tmp_path: Path, spiffe_verify: Path) -> None:
    case = write(tmp_path, "one", an_svid())
    arguments = ["-cert", str(case.chain), "-bundle", str(case.bundle), "-trust-domain", TRUST_DOMAIN]
    arguments += ["-at", NOW.isoformat()]

    def answer(*more: str) -> tuple[int, str]:
        process = subprocess.run([spiffe_verify, *arguments, *more], capture_output=True, text=True, check=False)
        return process.returncode, process.stdout

    assert answer() == (0, f"ok {SPIFFE_ID}\n")
    assert answer("-id", SPIFFE_ID) == (0, f"ok {SPIFFE_ID}\n")
    assert answer("-id", "spiffe://example.org/other")[0] == 1
    assert answer("-trust-domain", "other.org")[0] == 1
    assert answer("-cert", str(tmp_path / "none"))[0] == 1
    assert answer("-trust-domain", "")[0] == 2
    assert answer("-at", "noon")[0] == 2
