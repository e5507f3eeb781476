"""Bundles as bytes: reproducible, read back whole, and refused for whatever `build` would not have written."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.bundle_files import (
    CLIENT,
    INSTANCE,
    POLICY,
    REVOCATIONS,
    RULE,
    packed,
    policy,
    resigned,
    revocations,
    signatures,
    signed,
    token,
    unpacked,
)
from zerotrust.opabundle import archive, canonical, signing
from zerotrust.opabundle.archive import BadBundle, Scope, build, read, scope_of
from zerotrust.opabundle.canonical import NotCanonical
from zerotrust.opabundle.modules import modules as shipped

KEY = signing.create()
OTHER = signing.create()
KEYS = {KEY.id: KEY.public}
DOCUMENT = policy(CLIENT)
GOOD = build(DOCUMENT, RULE, POLICY, KEY)
FILES = unpacked(GOOD)
MODULE = next(iter(RULE))

Files = dict[str, bytes]


def test_equal_input_gives_equal_bytes() -> None:
    again = build(json.loads(json.dumps(DOCUMENT)), dict(reversed(list(RULE.items()))), POLICY, KEY)
    assert again == GOOD


def test_an_archive_says_nothing_about_when_where_and_by_whom_it_was_made() -> None:
    assert GOOD[:4] == b"\x1f\x8b\x08\x00"  # no name, no comment
    assert GOOD[4:8] == bytes(4)  # no time
    with tarfile.open(fileobj=io.BytesIO(GOOD)) as tar:
        members = tar.getmembers()
    assert [member.name for member in members] == sorted(FILES)
    facts = {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode, m.type) for m in members}
    assert facts == {(0, 0, 0, "", "", 0o644, tarfile.REGTYPE)}


def test_what_was_built_is_read() -> None:
    contents = read(GOOD, KEYS, POLICY)
    assert contents.document == DOCUMENT
    assert contents.modules == RULE
    assert (contents.scope, contents.kind, contents.key_id) == (POLICY, "policy", KEY.id)
    assert contents.revision == DOCUMENT["zerotrust_data"]["policy"]["meta"]["revision"]


def test_the_shipped_modules_make_a_bundle() -> None:
    document = policy(CLIENT, modules=shipped())
    assert read(build(document, shipped(), POLICY, KEY), KEYS, POLICY).modules == shipped()


def test_revocations_carry_data_only() -> None:
    document = revocations({CLIENT: 7})
    assert read(build(document, {}, REVOCATIONS, KEY), KEYS, REVOCATIONS).document == document
    with pytest.raises(BadBundle, match=r"zerotrust/authz/tiny\.rego: a bundle of revocations carries no rules"):
        build(document, RULE, REVOCATIONS, KEY)


def test_the_manifest_is_canonical_and_owns_its_roots() -> None:
    manifest = canonical.decode(FILES[".manifest"])
    assert manifest["roots"] == ["system/log", "zerotrust/authz", "zerotrust_data/policy"]
    assert manifest["rego_version"] == 1
    assert manifest["metadata"] == {"scope": POLICY}


def test_no_root_of_one_kind_lies_in_a_root_of_the_other() -> None:
    mine, others = archive.ROOTS["policy"], archive.ROOTS["revocations"]
    assert not [(a, b) for a in mine for b in others if (a + "/").startswith(b + "/") or (b + "/").startswith(a + "/")]


def test_the_signature_lists_every_other_file_by_the_digest_of_its_bytes() -> None:
    (one,) = json.loads(FILES[".signatures.json"])["signatures"]
    _, payload = signing.verify(one, KEYS)
    assert json.loads(payload) == {
        "scope": POLICY,
        "files": [
            {"name": name, "hash": hashlib.sha256(FILES[name]).hexdigest(), "algorithm": "SHA-256"}
            for name in sorted(FILES)
            if name != ".signatures.json"
        ],
    }


def with_files(change: Callable[[Files], object]) -> bytes:
    """The good archive with other files, signed again by the right key: only the reader's own rules are left."""
    files = dict(FILES)
    change(files)
    return resigned(files, KEY, POLICY)


def added(name: str, content: bytes = b"{}") -> bytes:
    return with_files(lambda files: files.update({name: content}))


def with_data(change: Callable[[dict[str, Any]], object]) -> bytes:
    document = json.loads(json.dumps(DOCUMENT))
    change(document)
    return added("data.json", canonical.encode(document))


def with_meta(**fields: Any) -> bytes:
    return with_data(lambda document: document["zerotrust_data"]["policy"]["meta"].update(fields))


def with_manifest(**fields: Any) -> bytes:
    return added(".manifest", canonical.encode({**canonical.decode(FILES[".manifest"]), **fields}))


def with_revision(revision: str) -> bytes:
    document, manifest = json.loads(FILES["data.json"]), json.loads(FILES[".manifest"])
    document["zerotrust_data"]["policy"]["meta"]["revision"] = manifest["revision"] = revision
    changed = {"data.json": canonical.encode(document), ".manifest": canonical.encode(manifest)}
    return with_files(lambda files: files.update(changed))


def with_signatures(content: bytes) -> bytes:
    return packed(sorted({**FILES, ".signatures.json": content}.items()))


def a_token(**claims: Any) -> str:
    (one,) = json.loads(FILES[".signatures.json"])["signatures"]
    _, payload = signing.verify(one, KEYS)
    return token({**json.loads(payload), **claims}, KEY)


def with_entry(name: str, **fields: Any) -> bytes:
    """The good files and one more entry with these header fields."""
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return packed([*sorted(FILES.items()), info])


def with_header(**fields: Any) -> bytes:
    """The good archive in which data.json's header has other fields."""
    info = tarfile.TarInfo("data.json")
    info.size = len(FILES["data.json"])
    for field, value in fields.items():
        setattr(info, field, value)
    inner = gzip.decompress(GOOD)
    place = inner.index(b"data.json\0")
    header = info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")
    return gzip.compress(inner[:place] + header + inner[place + 512 :])


def test_the_tests_own_archive_is_good() -> None:
    """Otherwise every refusal below could be for another reason than the one it tests."""
    assert read(resigned(FILES, KEY, POLICY), KEYS, POLICY).document == DOCUMENT
    assert read(with_header(), KEYS, POLICY).document == DOCUMENT


BAD: Mapping[str, tuple[bytes, str]] = {
    "empty": (b"", "cut off"),
    "not gzip": (b"PK\x03\x04" + GOOD, "not gzip"),
    "truncated": (GOOD[:-20], "cut off"),
    "truncated inside": (gzip.compress(gzip.decompress(GOOD)[:-1024]), "does not end|cut off|bad header"),
    "two gzip members": (GOOD + GOOD, "bytes after its end"),
    "bytes after the end": (GOOD + b"x", "bytes after its end"),
    "more blocks after the end": (gzip.compress(gzip.decompress(GOOD) + bytes(512)), "does not end with two"),
    "no entries": (packed([]), r"\.signatures\.json: missing"),
    "garbage in the padding": (
        gzip.compress(gzip.decompress(GOOD)[:-1030] + b"x" + gzip.decompress(GOOD)[-1029:]),
        "something else than padding",
    ),
    "symbolic link": (with_entry("zerotrust/x.rego", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "not a regular"),
    "hard link": (with_entry("zerotrust/x.rego", type=tarfile.LNKTYPE, linkname="data.json"), "not a regular"),
    "folder": (with_entry("zerotrust", type=tarfile.DIRTYPE), "not a regular"),
    "device": (with_entry("zerotrust/x.rego", type=tarfile.CHRTYPE), "not a regular"),
    "old regular type": (with_header(type=tarfile.AREGTYPE), "header says more"),
    "another owner": (with_header(uid=1), "header says more"),
    "another time": (with_header(mtime=1), "header says more"),
    "an owner's name": (with_header(uname="root"), "header says more"),
    "executable": (with_header(mode=0o755), "header says more"),
    "file twice": (packed([*FILES.items(), ("zerotrust/authz/tiny.rego", b"")]), "twice"),
    "data twice": (packed([(".manifest", b"{}"), ("data.json", b"{}"), ("data.json", b"{}")]), "twice"),
    "not in order": (packed(sorted(FILES.items(), reverse=True)), "not in order"),
    "absolute path": (added("/data.json"), "no such file belongs"),
    "absolute module": (added("/zerotrust/authz/x.rego"), "no such file belongs"),
    "parent path": (added("zerotrust/../x.rego"), "no such file belongs"),
    "dot path": (added("./data.json"), "no such file belongs"),
    "data below": (added("zerotrust/data.json"), "no such file belongs"),
    "yaml data": (added("data.yaml"), "no such file belongs"),
    "delta": (added("patch.json"), "no such file belongs"),
    "wasm": (added("policy.wasm"), "no such file belongs"),
    "plan": (added("plan.json"), "no such file belongs"),
    "second signature file": (added("zerotrust/.signatures.json"), "no such file belongs"),
    "old signature name": (added("signatures.json"), "no such file belongs"),
    "binary manifest": (added(".manifest.pb"), "no such file belongs"),
    "macOS file": (added("._data.json"), "no such file belongs"),
    "test module": (added("zerotrust/authz/tiny_test.rego", b"package zerotrust.authz"), "not the path of a shipped"),
    "no manifest": (with_files(lambda files: files.pop(".manifest")), r"\.manifest: missing"),
    "no data": (with_files(lambda files: files.pop("data.json")), r"data\.json: missing"),
    "module elsewhere": (added("zerotrust/other/x.rego", b"package zerotrust.authz"), "under none of the roots"),
    "package elsewhere": (added("zerotrust/authz/x.rego", b"package system.authz"), "system/authz is under none"),
    "package that only begins alike": (added("zerotrust/authz/x.rego", b"package zerotrust.authzx"), "under none"),
    "no package": (added("zerotrust/authz/x.rego", b"# package zerotrust.authz\n"), "package must be the first"),
    "module not UTF-8": (added("zerotrust/authz/x.rego", b"package zerotrust.authz # \xff"), "not UTF-8"),
    "module not in the revision": (added("zerotrust/authz/x.rego", b"package zerotrust.authz"), "not the hash"),
    "data of another kind": (
        with_data(lambda document: document["zerotrust_data"].update(revocations={})),
        "zerotrust_data.policy and nothing else",
    ),
    "data beside ours": (with_data(lambda document: document.update(system={})), "and nothing else"),
    "data not canonical": (added("data.json", FILES["data.json"] + b"\n"), "not the canonical spelling"),
    "duplicate key": (added("data.json", b'{"zerotrust":1,"zerotrust":2}'), "not the canonical spelling"),
    "float": (added("data.json", b'{"zerotrust":1.5}'), "zerotrust: float"),
    "data not JSON": (added("data.json", b"{"), "not JSON"),
    "data not an object": (added("data.json", b"[]"), "must be an object"),
    "deep data": (added("data.json", b"[" * 100_000), "not JSON"),
    "no meta": (with_data(lambda document: document["zerotrust_data"]["policy"].pop("meta")), "meta: missing"),
    "other schema": (with_meta(schema=2), "schema: must be 1"),
    "schema true": (with_meta(schema=True), "each of its type"),
    "text for a time": (with_meta(not_after="1"), "each of its type"),
    "more meta": (with_meta(extra=1), "nothing else"),
    "never valid": (with_meta(not_after=1), "later than issued_at"),
    "another namespace": (with_meta(namespace="other"), "namespace: is 'other'"),
    "data's revision": (with_meta(revision="0" * 64), "manifest: revision is not"),
    "another revision": (with_revision("0" * 64), "meta.revision is not the hash"),
    "manifest's revision": (with_manifest(revision="0" * 64), "manifest: revision is not"),
    "roots that own everything": (with_manifest(roots=[""]), "manifest: roots is not"),
    "roots that do not cover": (with_manifest(roots=["zerotrust_data/policy"]), "manifest: roots is not"),
    "rego version 0": (with_manifest(rego_version=0), "rego_version is not"),
    "manifest with wasm": (with_manifest(wasm=[]), "manifest: wasm is not"),
    "manifest's scope": (with_manifest(metadata={"scope": REVOCATIONS}), "metadata is not"),
    "no signature file": (packed(sorted(f for f in FILES.items() if f[0] != ".signatures.json")), "missing"),
    "no signature": (with_signatures(signatures()), "exactly one signature, has 0"),
    "two signatures": (with_signatures(signatures(a_token(), a_token())), "exactly one signature, has 2"),
    "signature plugin": (with_signatures(b'{"plugin":"x","signatures":["x"]}'), "and nothing else"),
    "signature not text": (with_signatures(b'{"signatures":[1]}'), "exactly one signature"),
    "another key": (resigned(FILES, OTHER, POLICY), "unknown key"),
    "another key in our key's name": (resigned(FILES, OTHER, POLICY, key_id=KEY.id), "not made by the key"),
    "our key in another's name": (resigned(FILES, KEY, POLICY, key_id=OTHER.id), "unknown key"),
    "other claims": (with_signatures(signatures(a_token(iat=1))), "files and scope and nothing else"),
    "another scope": (
        resigned(FILES, KEY, scope_of(INSTANCE, "other", "policy")),
        "the scope is 'zerotrust-system/oth",
    ),
    "empty scope": (resigned(FILES, KEY, Scope("")), "the scope is ''"),
    "file not signed": (packed(sorted({**FILES, "zerotrust/authz/z.rego": b""}.items())), "but the files are"),
    "signed file missing": (packed(sorted(f for f in FILES.items() if f[0] != MODULE)), "but the files are"),
    "changed file": (packed(sorted({**FILES, MODULE: b"package zerotrust.authz"}.items())), "for another content"),
    "weaker digest": (
        with_signatures(signatures(a_token(files=[{"name": "data.json", "hash": "", "algorithm": "MD5"}]))),
        "but the files are",
    ),
    "files not a list": (with_signatures(signatures(a_token(files="all"))), "but the files are"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_build_would_not_have_written_is_refused(name: str) -> None:
    content, reason = BAD[name]
    with pytest.raises(BadBundle, match=reason):
        read(content, KEYS, POLICY)


def test_a_bundle_for_another_scope_is_refused() -> None:
    for scope in (scope_of(INSTANCE, "other", "policy"), REVOCATIONS, scope_of("elsewhere", "shop", "policy")):
        with pytest.raises(BadBundle, match="the scope is"):
            read(GOOD, KEYS, scope)


@pytest.mark.parametrize("scope", ["", "policy", "a/b/c", "a//policy", "/b/policy", "a/b/policy/c"])
def test_a_scope_names_instance_namespace_and_kind(scope: str) -> None:
    with pytest.raises(BadBundle, match="the scope"):
        build(DOCUMENT, RULE, Scope(scope), KEY)


def test_a_bomb_is_refused_before_it_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_CONTENT", 64 * 1024)
    with pytest.raises(BadBundle, match="unpacks to more than 65536 bytes"):
        read(gzip.compress(bytes(10_000_000)), KEYS, POLICY)


def test_a_large_archive_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_ARCHIVE", len(GOOD) - 1)
    with pytest.raises(BadBundle, match=f"more than {len(GOOD) - 1}"):
        read(GOOD, KEYS, POLICY)


def test_many_files_are_refused() -> None:
    many = packed([(f"zerotrust/authz/m{n:04d}.rego", b"") for n in range(archive.MAX_FILES + 1)])
    with pytest.raises(BadBundle, match="more than 256 files"):
        read(many, KEYS, POLICY)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["zerotrust_data"]["policy"].update(x=1.0), r"zerotrust_data\.policy\.x: float"),
        (lambda d: d["zerotrust_data"]["policy"].update(x=[{"y": b""}]), r"zerotrust_data\.policy\.x\.0\.y: bytes"),
        (
            lambda d: d["zerotrust_data"]["policy"].update({"x": {1: 2}}),
            r"zerotrust_data\.policy\.x: the key 1 is not text",
        ),
        (lambda d: d["zerotrust_data"]["policy"].update(x="\ud800"), "half a surrogate pair after"),
        (lambda d: d["zerotrust_data"]["policy"].update(x=10**5000), "too long or too deep"),
    ],
)
def test_what_has_no_single_spelling_is_not_written(change: Callable[[dict[str, Any]], object], message: str) -> None:
    document = json.loads(json.dumps(DOCUMENT))
    change(document)
    with pytest.raises(NotCanonical, match=message):
        build(document, RULE, POLICY, KEY)


@given(st.data())
def test_no_changed_byte_passes(data: st.DataObject) -> None:
    """Whatever single byte differs, compressed or not: refused, or the change was none of content."""
    inner = bytearray(gzip.decompress(GOOD))
    place = data.draw(st.integers(0, len(inner) - 1))
    inner[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(BadBundle):
        read(gzip.compress(bytes(inner)), KEYS, POLICY)


@given(st.binary(max_size=2048), st.booleans())
def test_bytes_of_any_kind_are_refused_by_name(content: bytes, compressed: bool) -> None:
    with pytest.raises(BadBundle):
        read(gzip.compress(content) if compressed else content, KEYS, POLICY)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_canonical_json_is_read_back_and_stays_the_same(value: Any) -> None:
    try:
        written = canonical.encode(value)
    except NotCanonical:
        assert any("\ud800" <= character <= "\udfff" for character in repr(value))
        return
    assert json.loads(written) == value
    assert canonical.encode(canonical.decode(written)) == written
    assert b"\xe2\x80\xa8" not in written
    assert b"\xe2\x80\xa9" not in written


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ({"b": 1, "a": [True, None, "x"]}, b'{"a":[true,null,"x"],"b":1}'),
        ("\u2028<>&\u2029é/\x7f", b'"\\u2028<>&\\u2029\xc3\xa9/\x7f"'),
        ('\b\f\n\r\t\x01"\\', rb'"\b\f\n\r\t\u0001\"\\"'),
        ({"\U0001f600": 1, "\uffff": 2}, '{"\uffff":2,"\U0001f600":1}'.encode()),
        (10**30, b"1" + b"0" * 30),
        ((), b"[]"),
    ],
)
def test_canonical_json_is_spelt_as_gos_encoder_spells_it(value: Any, written: bytes) -> None:
    assert canonical.encode(value) == written


def test_a_signature_by_the_tests_is_one_by_us() -> None:
    """The tests sign with joserfc, the operator by hand; both must mean the same."""
    assert read(packed(sorted({**FILES, ".signatures.json": signed(FILES, KEY, POLICY)}.items())), KEYS, POLICY)
