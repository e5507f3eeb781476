"""The order of a namespace's bundles: one authority, the leader; every replica serves only what is recorded here."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, get_args

from zerotrust.common import naming
from zerotrust.common.naming import Ref
from zerotrust.common.observed import ConfigMap
from zerotrust.common.plan import Apply, Delete, Plan
from zerotrust.opabundle.archive import Kind

KINDS: tuple[Kind, ...] = get_args(Kind)


class Entry(NamedTuple):
    """The content that is to be served: its place in the order, and its hash."""

    serial: int
    revision: str


@dataclass(frozen=True)
class RecordSnapshot:
    """What a namespace's record depends on; `revisions` are the contents' hashes, empty where no bundle was ever needed."""

    ref: Ref
    observed: ConfigMap | None
    namespace_exists: bool
    revisions: Mapping[Kind, str]


def read(record: ConfigMap | None) -> dict[Kind, Entry]:
    """Return what is recorded; an entry that cannot be read is left out, and so nothing new is served for it."""
    found: dict[Kind, Entry] = {}
    for kind in KINDS:
        try:
            entry: Any = json.loads(record.data.get(kind, "")) if record is not None else None
        except ValueError:
            continue
        if isinstance(entry, dict) and type(entry.get("serial")) is int and isinstance(entry.get("revision"), str):
            found[kind] = Entry(entry["serial"], entry["revision"])
    return found


def reconcile_record(snapshot: RecordSnapshot, now: datetime) -> Plan:
    """Return what to do for the record: a new serial for each new content.

    A serial is at least the time in seconds since 1970, so that it grows even after the record was lost.
    """
    if not snapshot.namespace_exists:
        gone = snapshot.observed
        return Plan(deletes=(Delete(gone.meta.ref, gone.meta.uid),)) if gone is not None else Plan()
    if not snapshot.revisions:
        return Plan()
    recorded = read(snapshot.observed)
    data = {kind: _entry(recorded.get(kind), revision, now) for kind, revision in snapshot.revisions.items()}
    manifest = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": snapshot.ref.name,
            "namespace": snapshot.ref.namespace,
            "labels": {naming.MANAGED_BY: naming.OPERATOR, naming.COMPONENT: naming.COMPONENT_BUNDLE_RECORD},
        },
        "data": data,
    }
    return Plan(applies=(Apply(manifest),))


def _entry(before: Entry | None, revision: str, now: datetime) -> str:
    if before is None or before.revision != revision:
        floor = int(now.timestamp())
        before = Entry(floor if before is None else max(floor, before.serial + 1), revision)
    return json.dumps(before._asdict(), sort_keys=True, separators=(",", ":"))
