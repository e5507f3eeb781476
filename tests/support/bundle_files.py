"""Bundles for tests: documents in the shape of ADR 0009, and archives as an attacker would make them.

Archives are packed with tarfile and signed with joserfc, not by the operator's own code, which is what they judge.
"""

import gzip
import hashlib
import io
import json
import tarfile
import time
from collections.abc import Iterable, Mapping
from typing import Any

from joserfc import jws
from joserfc.jwk import ECKey

from zerotrust.opabundle.archive import Kind, Scope, scope_of
from zerotrust.opabundle.document import content_hash
from zerotrust.opabundle.signing import SigningKey
from zerotrust.pki import keys

INSTANCE = "zerotrust-system"
NAMESPACE = "shop"
SERVER = "spiffe://example.org/ns/shop/sa/orders"
CLIENT = "spiffe://example.org/ns/web/sa/frontend"
STRANGER = "spiffe://example.org/ns/web/sa/stranger"
POLICY = scope_of(INSTANCE, NAMESPACE, "policy")
REVOCATIONS = scope_of(INSTANCE, NAMESPACE, "revocations")
RULE = {"zerotrust/authz/tiny.rego": "package zerotrust.authz\n\nanswer := 42\n"}

Entry = tuple[str, bytes] | tarfile.TarInfo


def policy(
    *clients: str,
    modules: Mapping[str, str] | None = None,
    serial: int = 1,
    valid: int = 60,
    namespace: str = NAMESPACE,
    api_keys: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A document in which these clients may call `SERVER` on port 8443, for `valid` seconds from now."""
    row = {"policy": "callers", "rule": "all", "effect": "Allow", "port": 8443, "protocol": "TCP"}
    server = {
        "name": "orders",
        "trust_domain": "example.org",
        "enforcement": "Enforce",
        "on_stale_revocations": "Deny",
        "grants": {client: [row] for client in clients},
    }
    content = {"authorities": {}, "providers": {}, "servers": {SERVER: server}, "api_keys": api_keys or {}}
    return _document("policy", content, modules or RULE, serial, valid, namespace)


def revocations(
    cutoffs: Mapping[str, int] | None = None, *, serial: int = 1, valid: int = 60, namespace: str = NAMESPACE
) -> dict[str, Any]:
    """A document in which certificates from before these times are revoked."""
    return _document("revocations", {"identities": dict(cutoffs or {}), "keys": {}}, {}, serial, valid, namespace)


def _document(
    kind: Kind, content: dict[str, Any], modules: Mapping[str, str], serial: int, valid: int, namespace: str
) -> dict[str, Any]:
    now = int(time.time())
    meta = {
        "schema": 1,
        "serial": serial,
        "revision": content_hash(content, modules),
        "issued_at": now,
        "not_after": now + valid,
        "namespace": namespace,
    }
    return {"zerotrust_data": {kind: {**content, "meta": meta}}}


def unpacked(archive: bytes) -> dict[str, bytes]:
    """The files of an archive by name, in its order, as Python's tarfile reads them."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        found = {}
        for member in tar.getmembers():
            file = tar.extractfile(member)
            assert file is not None
            found[member.name] = file.read()
        return found


def packed(entries: Iterable[Entry]) -> bytes:
    """An archive of anything: files as (name, content), everything else as its header."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                tar.addfile(entry)
            else:
                info = tarfile.TarInfo(entry[0])
                info.size = len(entry[1])
                tar.addfile(info, io.BytesIO(entry[1]))
    # tarfile fills up to 20 blocks; the last two empty ones are the end.
    return gzip.compress(content.getvalue().rstrip(b"\0").ljust(_ends(content.getvalue()), b"\0"), mtime=0)


def _ends(content: bytes) -> int:
    used = len(content.rstrip(b"\0"))
    return (used + 511) // 512 * 512 + 1024


def signed(files: Mapping[str, bytes], key: SigningKey, scope: Scope, *, key_id: str | None = None) -> bytes:
    """A `.signatures.json` over these files: with `key`, in the name of `key_id`."""
    listed = [
        {"name": name, "hash": hashlib.sha256(content).hexdigest(), "algorithm": "SHA-256"}
        for name, content in sorted(files.items())
        if name != ".signatures.json"
    ]
    return signatures(token({"files": listed, "scope": scope}, key, {"kid": key_id or key.id}))


def token(claims: Mapping[str, Any], key: SigningKey, header: Mapping[str, Any] | None = None) -> str:
    """A compact JWS by joserfc."""
    payload = json.dumps(claims, sort_keys=True, separators=(",", ":"))
    private = ECKey.import_key(keys.to_pkcs8(key.private))
    protected = {"alg": "ES256", "typ": "JWT", "kid": key.id, **(header or {})}
    return jws.serialize_compact(protected, payload, private, algorithms=["ES256"])


def signatures(*tokens: str) -> bytes:
    """A `.signatures.json` of these tokens."""
    return json.dumps({"signatures": list(tokens)}, separators=(",", ":")).encode()


def resigned(files: Mapping[str, bytes], key: SigningKey, scope: Scope, *, key_id: str | None = None) -> bytes:
    """An archive of these files with a new signature over them."""
    whole = {**files, ".signatures.json": signed(files, key, scope, key_id=key_id)}
    return packed(sorted(whole.items()))
