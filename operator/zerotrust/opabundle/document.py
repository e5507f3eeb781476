"""The decision tables of one namespace as OPA data: a pure projection, in the shape of ADR 0009."""

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from zerotrust.opabundle import canonical
from zerotrust.pki.spiffe import SpiffeID
from zerotrust.policy.directory import Workload
from zerotrust.policy.table import Client, KeyPrincipal, Principal, Row, Table

Document = dict[str, Any]

ANY_WORKLOAD = "*"


@dataclass(frozen=True)
class Server:
    """A ServiceIdentity that is called: its table, and what its TrustDomain says."""

    table: Table
    trust_domain: str
    on_stale_revocations: Literal["Deny", "Allow"] = "Deny"


def policy_document(
    servers: Iterable[Server],
    spiffe_id: Callable[[Workload], SpiffeID | None],
    providers: Mapping[str, Mapping[str, Mapping[str, object]]],
    authorities: Mapping[str, Sequence[str]],
    api_keys: Mapping[str, Mapping[str, Any]] | None = None,
) -> Document:
    """Return the `zerotrust_data.policy` document of a namespace, without `meta`.

    `providers` are entries `{issuer, algorithms, jwks, leeway, not_after}` by trust domain and name, `authorities` PEM
    certificates by trust domain, `api_keys` what `apikey.projection.key_records` gives. Who has no SPIFFE ID yet is left out, as
    server and as client; so are pods and address ranges, which only layer 4 knows.
    """
    documents = {str(name): _server(one, spiffe_id) for one in servers if (name := spiffe_id(one.table.server))}
    return {
        "authorities": {domain: sorted(set(certificates)) for domain, certificates in sorted(authorities.items())},
        "providers": {
            domain: {name: dict(one) for name, one in sorted(named.items())}
            for domain, named in sorted(providers.items())
        },
        "servers": dict(sorted(documents.items())),
        "api_keys": dict(api_keys or {}),
    }


def revocations_document(cutoffs: Mapping[SpiffeID, datetime], keys: Mapping[str, Any] | None = None) -> Document:
    """Return the `zerotrust_data.revocations` document, without `meta`: certificates from before the cut-off are revoked.

    Certificates count whole seconds: one that begins in the second of a cut-off with a fraction may be from before it.
    """
    identities = {str(name): math.ceil(cutoff.timestamp()) for name, cutoff in cutoffs.items()}
    return {"identities": dict(sorted(identities.items())), "keys": dict(sorted((keys or {}).items()))}


def content_hash(document: Mapping[str, Any], modules: Mapping[str, str]) -> str:
    """SHA-256, in hex, of a document without `meta` and of the modules (name and text): the bundle's revision."""
    content = {"document": dict(document), "modules": dict(modules)}
    return hashlib.sha256(canonical.encode(content)).hexdigest()


def _server(server: Server, spiffe_id: Callable[[Workload], SpiffeID | None]) -> Document:
    grants: dict[str, list[Document]] = {}
    for client, rows in server.table.by_client.items():
        if (key := _key(client, spiffe_id)) is not None:
            grants.setdefault(key, []).extend(map(row_document, rows))
    return {
        "name": server.table.server.name,
        "trust_domain": server.trust_domain,
        "enforcement": server.table.enforcement,
        "on_stale_revocations": server.on_stale_revocations,
        "grants": dict(sorted(grants.items())),
    }


def _key(client: Client, spiffe_id: Callable[[Workload], SpiffeID | None]) -> str | None:
    if client.kind == "anyWorkload":
        return ANY_WORKLOAD
    name = spiffe_id(client.workload) if client.workload is not None else None
    return str(name) if name is not None else None


def row_document(row: Row) -> Document:
    """Return a row as the Rego modules read it; what it does not ask for is left out."""
    optional = {
        "observe": row.observe,
        "methods": list(row.methods) if row.methods is not None else None,
        "paths": [_segments(pattern) for pattern in row.paths] if row.paths is not None else None,
        "principal": _principal(row.principal) if row.principal is not None else None,
        "scopes": list(row.scopes) or None,
        "require_mtls": row.require_mtls,
        "window": row.window._asdict() | {"days": list(row.window.days)} if row.window is not None else None,
        "until": int(row.until.timestamp()) if row.until is not None else None,
    }
    return {
        "policy": row.policy,
        "rule": row.rule,
        "effect": row.effect,
        "port": row.port,
        "protocol": row.protocol,
        **{key: value for key, value in optional.items() if value is not None and value is not False},
    }


def _segments(pattern: str) -> list[str]:
    return pattern.removesuffix("/").split("/")[1:]


def _principal(principal: Principal) -> Document:
    if isinstance(principal, KeyPrincipal):
        return {"kind": "key", "name": principal.name, "scopes": list(principal.scopes)}
    claims = {name: list(values) for name, values in principal.claims}
    return {
        "kind": "user",
        "provider": principal.provider,
        "audiences": list(principal.audiences),
        "claims": claims,
    }
