"""The keys that sign bundles, together in one Secret: public halves and times in its record, private ones beside it."""

import json
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from zerotrust.common import naming, times
from zerotrust.common.naming import Ref
from zerotrust.common.plan import Apply, Plan
from zerotrust.opabundle import rotation, signing
from zerotrust.opabundle.rotation import KeyRecord, Rotation, Schedule
from zerotrust.pki import keys as private_keys
from zerotrust.pki.secret import RECORD, ObservedSecret, encode

SUFFIX = ".pem"
_TIMES = ("created", "activated", "replaced")


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key as it is remembered; the private half is in the same Secret, under `<id>.pem`."""

    record: KeyRecord
    public_pem: str


@dataclass(frozen=True)
class KeysSnapshot:
    """What the keys depend on; `named` are those that decision points report, None while nobody has reported yet."""

    ref: Ref
    observed: ObservedSecret | None
    named: Set[str] | None


def stored(secret: ObservedSecret | None) -> tuple[StoredKey, ...]:
    """Return the keys that a Secret has, oldest first; what cannot be read, or lacks its private half, is none."""
    if secret is None:
        return ()
    try:
        entries = json.loads(secret.public.get(RECORD, b""))["keys"]
        found = [_stored(entry) for entry in entries]
    except (ValueError, KeyError, TypeError):
        return ()
    return tuple(one for one in found if one.record.id + SUFFIX in secret.digests)


def offered(secret: ObservedSecret | None) -> StoredKey | None:
    """The key that configurations name: the newest that is active."""
    active = [one for one in stored(secret) if one.record.activated is not None and one.record.replaced is None]
    return max(active, key=lambda one: (one.record.activated, one.record.id), default=None)


def reconcile_keys(
    snapshot: KeysSnapshot, now: datetime, make: Callable[[], signing.SigningKey], schedule: Schedule | None = None
) -> Plan:
    """Return what to do for the keys: make the first, rotate with an overlap, and drop what nobody uses any more."""
    schedule = schedule or Schedule()
    known = {one.record.id: one for one in stored(snapshot.observed)}
    planned = rotation.plan((one.record for one in known.values()), now, snapshot.named, schedule)
    fresh: dict[str, str] = {}
    if planned.create:
        key = make()
        known[key.id] = StoredKey(KeyRecord(key.id, times.whole_seconds(now)), signing.public_pem(key.public))
        fresh[key.id + SUFFIX] = encode(private_keys.to_pkcs8(key.private))
        planned = rotation.plan((one.record for one in known.values()), now, snapshot.named, schedule)
    return Plan(applies=(Apply(_manifest(snapshot, planned, known.values(), fresh)),), requeue_at=planned.at)


def _manifest(
    snapshot: KeysSnapshot, planned: Rotation, known: Iterable[StoredKey], fresh: dict[str, str]
) -> dict[str, Any]:
    public = {one.record.id: one.public_pem for one in known}
    kept = [plan.record for plan in planned.keys if plan.record.id not in planned.retired]
    entries = [{"id": one.id, "public": public[one.id], **_rendered(one)} for one in kept]
    record = json.dumps({"version": 1, "keys": entries}, sort_keys=True, separators=(",", ":"))
    wanted = {RECORD, *(one.id + SUFFIX for one in kept)}
    gone = {name: None for name in (snapshot.observed.digests if snapshot.observed else ()) if name not in wanted}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": {
            "name": snapshot.ref.name,
            "namespace": snapshot.ref.namespace,
            "labels": {naming.MANAGED_BY: naming.OPERATOR, naming.COMPONENT: naming.COMPONENT_BUNDLE_KEYS},
        },
        "data": {RECORD: encode(record.encode()), **fresh, **gone},
    }


def _rendered(record: KeyRecord) -> dict[str, str]:
    values = {name: getattr(record, name) for name in _TIMES}
    return {name: times.render(value) for name, value in values.items() if value is not None}


def _stored(entry: Any) -> StoredKey:
    created, activated, replaced = (times.parse(entry[name]) if name in entry else None for name in _TIMES)
    if created is None or not signing.is_key_id(entry["id"]) or not isinstance(entry["public"], str):
        raise ValueError("not a key")
    return StoredKey(KeyRecord(entry["id"], created, activated, replaced), entry["public"])
