"""The bundles of a namespace with so many API keys: what `opa_keys` measures with."""

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from hack.bench.opa import SERVER, spiffe_id
from zerotrust.apikey import key as keys
from zerotrust.apikey.memory import Key, Memory
from zerotrust.apikey.projection import key_records
from zerotrust.apikey.resource import ApiKeySpec
from zerotrust.common import times
from zerotrust.common.resource import parse
from zerotrust.opabundle import signing
from zerotrust.opabundle.archive import Scope, build, scope_of
from zerotrust.opabundle.document import Server, content_hash, policy_document, revocations_document
from zerotrust.opabundle.modules import modules
from zerotrust.policy.directory import Workload
from zerotrust.policy.table import Client, KeyPrincipal, Row, Table

INSTANCE = "zerotrust-system"
VALIDITY, LIFETIME = 24 * 3600, timedelta(days=90)
SCOPES = ("orders:read",)
# One row asks for a key, the other does not: they are about different callers.
KEYED, KEYLESS = Workload("web", "partner"), Workload("web", "frontend")
KEPT = 2_000  # plaintexts that the benchmark presents


@dataclass(frozen=True)
class Offer:
    """A signed bundle. `built` is the CPU time, in seconds, of what the bundle server does for it: hash, build and sign."""

    archive: bytes
    revision: str
    built: float


class KeyBundles:
    """The documents of one namespace with `size` ApiKeys of one key each, and one revoked key for each hundred of them.

    `good` and `unknown` are plaintexts; they exist in this process only.
    """

    def __init__(self, size: int, signer: signing.SigningKey) -> None:
        self.size, self._signer = size, signer
        now = times.whole_seconds(datetime.now(UTC))
        spec = parse(
            ApiKeySpec, {"holder": {"name": "Partner"}, "audience": [SERVER.name], "scopes": list(SCOPES)}, "spec"
        )
        self.good: list[str] = []
        self._records: dict[str, dict[str, Any]] = {}
        for number in range(size):
            text = keys.generate(secrets.token_bytes)
            held = Key(text.id, keys.digest(text), now, now + LIFETIME, delivered=now)
            memory = Memory(f"partner-{number:06d}", (held,))
            self._records |= key_records(memory, spec, lambda _: str(spiffe_id(SERVER)), lambda _: None)
            if number % max(1, size // KEPT) == 0:
                self.good.append(text.reveal())
        self._first = min(self._records)
        self.unknown = [keys.generate(secrets.token_bytes).reveal() for _ in range(min(size, KEPT))]
        revoked = (str(keys.generate(secrets.token_bytes).id) for _ in range(size // 100))
        self._revoked = dict.fromkeys(revoked, int(now.timestamp()))

    def policy(self, serial: int) -> Offer:
        """The policy bundle; each serial's says of one key that it ends so many seconds later, as an edit of one ApiKey would."""
        records = dict(sorted(self._records.items()))
        first = records[self._first]
        records[self._first] = {**first, "not_after": first["not_after"] + serial}
        rows = (_row(KEYED, KeyPrincipal("", SCOPES)), _row(KEYLESS, None))
        table = Table(SERVER, "Enforce", frozenset({"OPA"}), tuple(sorted(rows, key=lambda one: one.order)))
        document = policy_document([Server(table, "example.org")], spiffe_id, {}, {}, records)
        return self._offer("policy", document, modules(), serial)

    def revocations(self, serial: int) -> Offer:
        """The revocations bundle; each serial's revokes another key."""
        revoked = {**self._revoked, f"{serial:012d}": int(time.time())}
        return self._offer("revocations", revocations_document({}, revoked), {}, serial)

    def _offer(self, kind: str, document: dict[str, Any], rules: Mapping[str, str], serial: int) -> Offer:
        begun, now = time.process_time(), int(time.time())
        revision = content_hash(document, rules)
        meta = {
            "schema": 1,
            "serial": serial,
            "revision": revision,
            "issued_at": now,
            "not_after": now + VALIDITY,
            "namespace": SERVER.namespace,
        }
        archive = build({"zerotrust_data": {kind: {**document, "meta": meta}}}, rules, scope(kind), self._signer)
        return Offer(archive, revision, time.process_time() - begun)


def scope(kind: str) -> Scope:
    """The scope of the namespace's bundle of a kind."""
    return scope_of(INSTANCE, SERVER.namespace, "policy" if kind == "policy" else "revocations")


def mistyped(text: str) -> str:
    """A key whose check is wrong."""
    return text[:-1] + ("0" if text[-1] != "0" else "1")


def _row(workload: Workload, principal: KeyPrincipal | None) -> Row:
    return Row(
        client=Client.of(workload),
        port=8443,
        protocol="TCP",
        effect="Allow",
        observe=False,
        methods=("GET", "POST"),
        paths=("/api/orders/**", "/health"),
        principal=principal,
        scopes=(),
        require_mtls=True,
        window=None,
        until=None,
        policy="partners",
        rule=workload.name,
    )
