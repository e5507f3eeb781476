"""Signed OPA bundles as bytes: written so that equal input gives equal bytes, read so that nothing unexpected passes.

Source: OPA v1/bundle (bundle.go, file.go, verify.go), POSIX.1-1988 ustar, RFC 1952 (gzip).
"""

import re
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NewType

from cryptography.hazmat.primitives.asymmetric import ec

from zerotrust.common.errors import ZerotrustError
from zerotrust.opabundle import canonical, signing
from zerotrust.opabundle.document import content_hash

Kind = Literal["policy", "revocations"]
Scope = NewType("Scope", str)

# What each bundle owns of `data`; no two may overlap, because one OPA loads both.
ROOTS: Mapping[Kind, tuple[str, ...]] = {
    "policy": ("system/log", "zerotrust/authz", "zerotrust_data/policy"),
    "revocations": ("zerotrust_data/revocations",),
}
MANIFEST = ".manifest"
SIGNATURES = ".signatures.json"
DATA = "data.json"

MAX_ARCHIVE = 32 * 1024 * 1024
MAX_CONTENT = 128 * 1024 * 1024
MAX_FILES = 256

_META = {"schema": int, "serial": int, "revision": str, "issued_at": int, "not_after": int, "namespace": str}
_BLOCK = 512
_END = 2 * _BLOCK
_GZIP = 31  # zlib's word for a gzip header and trailer around a window of 32 KiB
_MODULE = re.compile(r"[a-z0-9_]+(/[a-z0-9_]+)+\.rego")
_PACKAGE = re.compile(r"(?:[ \t]*(?:#[^\n]*)?\n)*package[ \t]+([a-z_][a-z0-9_]*(?:\.[a-z_][a-z0-9_]*)*)[ \t]*(?:\n|$)")


class BadBundle(ZerotrustError):
    """A bundle is not one that may be published; the message names the file and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a bundle says, once it is verified: `modules` is Rego text by path, `document` is all of its data."""

    scope: Scope
    kind: Kind
    revision: str
    key_id: str
    document: Mapping[str, Any]
    modules: Mapping[str, str]


def scope_of(instance: str, namespace: str, kind: Kind) -> Scope:
    """What a bundle is for, as its signature says it; `instance` is the operator's own namespace."""
    return Scope(f"{instance}/{namespace}/{kind}")


def build(document: Mapping[str, Any], modules: Mapping[str, str], scope: Scope, key: signing.SigningKey) -> bytes:
    """Write and sign the bundle of a document (`{zerotrust_data: {<kind>: …}}` with its `meta`) and Rego modules by path.

    The same arguments always give the same bytes. NotCanonical names a value that JSON cannot spell in one way only,
    BadBundle names whatever `read` would refuse.
    """
    kind, revision = _kind(scope), _meta(document, scope)["revision"]
    manifest = {"revision": revision, "roots": list(ROOTS[kind]), "rego_version": 1, "metadata": {"scope": scope}}
    files = {
        MANIFEST: canonical.encode(manifest),
        DATA: canonical.encode(document),
        **{path: text.encode() for path, text in modules.items()},
    }
    _check_owned(kind, document, modules)
    _check_revision(kind, document, modules)
    files[SIGNATURES] = canonical.encode({"signatures": [key.sign(_claims(files, scope))]})
    return _compress(b"".join(_entry(name, files[name]) for name in sorted(files)) + bytes(_END))


def read(archive: bytes, public_keys: Mapping[str, ec.EllipticCurvePublicKey], scope: Scope) -> Contents:
    """Read a bundle for `scope` that one of `public_keys` (by key id) signed; BadBundle says why it is not one.

    Stricter than OPA: whatever `build` would not have written is refused, whoever signed it.
    """
    files = _unpack(_decompress(archive))
    claims, key_id = _signed(files, public_keys)
    if claims.get("scope") != scope:
        raise BadBundle(f"{SIGNATURES}: the scope is {claims.get('scope')!r}, not {scope!r}")
    signed = {name: content for name, content in files.items() if name != SIGNATURES}
    _check_listed(claims, signed)
    kind, manifest, document = _kind(scope), _parsed(files, MANIFEST), _parsed(files, DATA)
    revision = _meta(document, scope)["revision"]
    wanted = {"revision": revision, "roots": list(ROOTS[kind]), "rego_version": 1, "metadata": {"scope": scope}}
    if files[MANIFEST] != canonical.encode(wanted):
        wrong = [field for field in {*wanted, *manifest} if manifest.get(field) != wanted.get(field)]
        raise BadBundle(f"{MANIFEST}: {', '.join(sorted(wrong))} is not what a bundle for {scope} has")
    modules = {name: _text(name, content) for name, content in signed.items() if name not in (MANIFEST, DATA)}
    _check_owned(kind, document, modules)
    _check_revision(kind, document, modules)
    return Contents(scope, kind, revision, key_id, document, modules)


def _kind(scope: Scope) -> Kind:
    parts = scope.split("/")
    if len(parts) != 3 or not all(parts):
        raise BadBundle(f"the scope {scope!r} is not <instance>/<namespace>/<kind>")
    match parts[2]:
        case "policy" | "revocations" as kind:
            return kind
    raise BadBundle(f"the scope {scope!r} names no kind of bundle: policy or revocations")


def _meta(document: Any, scope: Scope) -> Mapping[str, Any]:
    _, namespace, kind = scope.split("/")
    place = f"{DATA}: zerotrust_data.{kind}.meta"
    try:
        meta: Mapping[str, Any] = document["zerotrust_data"][kind]["meta"]
        described = {field: type(value) for field, value in meta.items()}
    except (KeyError, TypeError, AttributeError):
        raise BadBundle(f"{place}: missing") from None
    if described != _META:
        raise BadBundle(f"{place}: must have {', '.join(_META)}, each of its type, and nothing else")
    if meta["schema"] != 1:
        raise BadBundle(f"{place}.schema: must be 1, is {meta['schema']}")
    if not 0 <= meta["issued_at"] < meta["not_after"]:
        raise BadBundle(f"{place}.not_after: must be later than issued_at")
    if meta["namespace"] != namespace:
        raise BadBundle(f"{place}.namespace: is {meta['namespace']!r}, but the scope is {scope!r}")
    return meta


def _check_owned(kind: Kind, document: Mapping[str, Any], modules: Mapping[str, str]) -> None:
    """Refuse data, paths and packages outside the roots: OPA would refuse to activate them, on every client."""
    if set(document) != {"zerotrust_data"} or set(document["zerotrust_data"]) != {kind}:
        raise BadBundle(f"{DATA}: a bundle of {kind} holds zerotrust_data.{kind} and nothing else")
    if modules and kind != "policy":
        raise BadBundle(f"{min(modules)}: a bundle of {kind} carries no rules")
    for path, text in modules.items():
        package = _PACKAGE.match(text)
        if not _MODULE.fullmatch(path) or path.endswith("_test.rego"):
            raise BadBundle(f"{path}: not the path of a shipped Rego module")
        if package is None:
            raise BadBundle(f"{path}: the package must be the first thing it says")
        for place in (path, package[1].replace(".", "/") + "/"):
            if not any(place.startswith(root + "/") for root in ROOTS[kind]):
                raise BadBundle(f"{path}: {place.rstrip('/')} is under none of the roots {', '.join(ROOTS[kind])}")


def _check_revision(kind: Kind, document: Mapping[str, Any], modules: Mapping[str, str]) -> None:
    """Refuse a revision that is not the content's hash: acknowledgements compare revisions only."""
    content = dict(document["zerotrust_data"][kind])
    revision = content.pop("meta")["revision"]
    if revision != content_hash(content, modules):
        raise BadBundle(f"{DATA}: zerotrust_data.{kind}.meta.revision is not the hash of the content")


def _claims(files: Mapping[str, bytes], scope: Scope) -> bytes:
    """What is signed. It says no time: freshness is in the data, where rules can read it, and equal bytes stay equal."""
    listed = [
        {"name": name, "hash": signing.digest(files[name]), "algorithm": "SHA-256"}
        for name in sorted(files)
        if name != SIGNATURES
    ]
    return canonical.encode({"files": listed, "scope": scope})


def _signed(
    files: Mapping[str, bytes], public_keys: Mapping[str, ec.EllipticCurvePublicKey]
) -> tuple[dict[str, Any], str]:
    document = _parsed(files, SIGNATURES)
    signatures = document.get("signatures")
    if set(document) != {"signatures"} or not isinstance(signatures, list):
        raise BadBundle(f"{SIGNATURES}: must hold signatures and nothing else")
    if len(signatures) != 1 or not isinstance(signatures[0], str):
        raise BadBundle(f"{SIGNATURES}: must hold exactly one signature, has {len(signatures)}")
    try:
        key_id, payload = signing.verify(signatures[0], public_keys)
        claims = canonical.decode(payload)
    except (signing.BadSignature, canonical.NotCanonical) as error:
        raise BadBundle(f"{SIGNATURES}: {error}") from None
    if not isinstance(claims, dict) or set(claims) != {"files", "scope"}:
        raise BadBundle(f"{SIGNATURES}: must sign files and scope and nothing else")
    return claims, key_id


def _check_listed(claims: Mapping[str, Any], signed: Mapping[str, bytes]) -> None:
    wanted = [
        {"name": name, "hash": signing.digest(content), "algorithm": "SHA-256"} for name, content in signed.items()
    ]
    if claims["files"] != wanted:
        listed = claims["files"] if isinstance(claims["files"], list) else []
        names = [entry.get("name") for entry in listed if isinstance(entry, dict)]
        if names == list(signed):
            changed = [entry["name"] for entry, true in zip(listed, wanted, strict=True) if entry != true]
            raise BadBundle(f"{', '.join(changed)}: the signature is for another content")
        raise BadBundle(f"{SIGNATURES}: signs {names}, but the files are {list(signed)}")


def _parsed(files: Mapping[str, bytes], name: str) -> dict[str, Any]:
    if name not in files:
        raise BadBundle(f"{name}: missing")
    try:
        value = canonical.decode(files[name])
    except canonical.NotCanonical as error:
        raise BadBundle(f"{name}: {error}") from None
    if not isinstance(value, dict):
        raise BadBundle(f"{name}: must be an object")
    return value


def _text(name: str, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise BadBundle(f"{name}: not UTF-8") from None


def _entry(name: str, content: bytes) -> bytes:
    return _header(name, len(content)) + content + bytes(-len(content) % _BLOCK)


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size, 0, 0o644
    return info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")


def _compress(content: bytes) -> bytes:
    packer = zlib.compressobj(wbits=_GZIP)  # its header has no name and the time 0
    return packer.compress(content) + packer.flush()


def _decompress(archive: bytes) -> bytes:
    if len(archive) > MAX_ARCHIVE:
        raise BadBundle(f"the archive has {len(archive)} bytes, more than {MAX_ARCHIVE}")
    unpacker = zlib.decompressobj(wbits=_GZIP)
    try:
        content = unpacker.decompress(archive, MAX_CONTENT)
    except zlib.error as error:
        raise BadBundle(f"the archive is not gzip: {error}") from None
    if unpacker.unconsumed_tail:
        raise BadBundle(f"the archive unpacks to more than {MAX_CONTENT} bytes")
    if not unpacker.eof:
        raise BadBundle("the archive is cut off")
    if unpacker.unused_data:
        raise BadBundle("the archive has bytes after its end")
    return content


def _unpack(content: bytes) -> dict[str, bytes]:
    """The regular files of a ustar archive, which must be the very bytes that `_entry` writes."""
    files: dict[str, bytes] = {}
    position = 0
    while (block := content[position : position + _BLOCK]) != bytes(_BLOCK):
        name, size = _described(block)
        if name in files:
            raise BadBundle(f"{name}: twice in the archive")
        if files and name < next(reversed(files)):
            raise BadBundle(f"{name}: the files are not in order")
        if len(files) == MAX_FILES:
            raise BadBundle(f"{name}: more than {MAX_FILES} files")
        end = position + _BLOCK + size
        files[name] = content[position + _BLOCK : end]
        position = end + -size % _BLOCK
        if position > len(content) or any(content[end:position]):
            raise BadBundle(f"{name}: cut off, or followed by something else than padding")
    if content[position:] != bytes(_END):
        raise BadBundle("the archive does not end with two empty blocks")
    return files


def _described(block: bytes) -> tuple[str, int]:
    try:
        info = tarfile.TarInfo.frombuf(block, "ascii", "strict")
    except (tarfile.HeaderError, UnicodeDecodeError) as error:
        raise BadBundle(f"the archive has a bad header: {error}") from None
    if not 0 <= info.size <= MAX_CONTENT:
        raise BadBundle(f"{info.name}: its header has an impossible size")
    if not info.isreg():
        raise BadBundle(f"{info.name}: not a regular file")
    if info.name not in (MANIFEST, SIGNATURES, DATA) and not _MODULE.fullmatch(info.name):
        raise BadBundle(f"{info.name}: no such file belongs into a bundle")
    if block != _header(info.name, info.size):
        raise BadBundle(f"{info.name}: its header says more than name and size")
    return info.name, info.size
