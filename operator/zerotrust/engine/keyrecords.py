"""The controller that writes what a namespace remembers of all its ApiKeys."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from zerotrust.apikey import records
from zerotrust.apikey.records import RecordsSnapshot
from zerotrust.common import naming
from zerotrust.common.naming import Ref
from zerotrust.common.observed import Plain
from zerotrust.common.plan import Plan, Touch
from zerotrust.engine.apikeybook import ApiKeyBook, record_namespace, record_ref
from zerotrust.engine.cache import Cache, Change
from zerotrust.engine.clock import Clock
from zerotrust.engine.controller import Statusless, Touched
from zerotrust.engine.keydesk import Desk
from zerotrust.engine.keyuses import KeyUses

RECORD = "ApiKeyRecord"


@dataclass(frozen=True)
class RecordWork(RecordsSnapshot):
    """What the writes to a namespace's record depend on; events are about the namespace itself."""

    resource: Plain | None = None


class ApiKeyRecordController(Statusless):
    """Writes what is remembered of a namespace's keys; a key is the place of the record's first part."""

    name = RECORD
    urgency = -0.65  # a revocation is as urgent as a withdrawal, and comes before the bundles that tell of it

    def __init__(
        self, cache: Cache, book: ApiKeyBook, operator_namespace: str, desk: Desk, uses: KeyUses, clock: Clock
    ) -> None:
        self._cache, self._book, self._desk, self._uses, self._clock = cache, book, desk, uses, clock
        self._operator_namespace = operator_namespace

    def touched_by(self, change: Change) -> Iterable[Touched]:
        """ApiKeys and namespaces that are gone, and edits of the record by others."""
        namespace = change.ref.namespace
        match change.ref.kind:
            case "ApiKey" if change.new is None or change.new.meta.deleting:
                if change.old is not None:
                    self._desk.forget(namespace, change.old.meta.uid)
                yield self._due(namespace)
            case "ConfigMap" if (
                namespace == self._operator_namespace and naming.api_keys_shard(change.ref.name) is not None
            ):
                if change.by is None and change.old is not None:
                    self._desk.miss(record_namespace(change.ref.name), change.old, change.new)
                yield self._due(record_namespace(change.ref.name))
            case "ConfigMap" if change.new is not None and change.ref.name.startswith(naming.REPORT_PREFIX):
                yield from (self._due(place) for place in change.new.data if self._uses.has_unknown(place))
            case "Namespace" if change.new is None:
                yield Touched(record_ref(self._operator_namespace, change.ref.name))

    def _due(self, namespace: str) -> Touched:
        return Touched(record_ref(self._operator_namespace, namespace), self._desk.pause(namespace, self._clock.now()))

    def snapshot(self, ref: Ref) -> RecordWork:
        """Collect what a decision needs."""
        namespace = record_namespace(ref.name)
        resource: Plain | None = self._cache.get(Ref("Namespace", "", namespace))
        return RecordWork(
            resource=resource,
            place=self._operator_namespace,
            namespace=namespace,
            shards=self._book.shards(namespace),
            wanted=self._desk.lost.get(namespace, {}) | self._desk.wanted.get(namespace, {}),
            existing={one.meta.uid for one in self._book.api_keys(namespace) if not one.meta.deleting},
            adopted=dict(self._desk.adopted.get(namespace, {})),
            namespace_exists=resource is not None,
        )

    def reconcile(self, snapshot: RecordWork, now: datetime) -> Plan:
        """Decide."""
        plan, touches = records.reconcile_records(snapshot, now), tuple[Touch, ...]()
        if plan.applies:
            self._desk.written[snapshot.namespace] = now
        else:
            # Who has decided by what was lost waits for a record that needs no write, and would never hear of it.
            there = self._desk.lost.pop(snapshot.namespace, {})
            found = (one.meta for one in self._book.api_keys(snapshot.namespace) if one.meta.uid in there)
            touches = tuple(Touch(meta.ref.kind, meta.ref, timedelta()) for meta in found)
        return replace(plan, touches=touches, events=tuple(self._uses.of_nobody(snapshot.namespace)))
