"""The controllers for bundles: their order, the keys that sign them, what OPA is told, and the memory of cut-offs."""

from collections.abc import Callable, Iterable, Set
from dataclasses import replace
from datetime import datetime, timedelta

from zerotrust.common import naming
from zerotrust.common.naming import Ref
from zerotrust.common.observed import ConfigMap
from zerotrust.common.plan import Apply, Plan, Touch
from zerotrust.engine.cache import Cache, Change
from zerotrust.engine.clock import Clock
from zerotrust.engine.contents import REVOKING, BundleContents
from zerotrust.engine.controller import Statusless, Touched
from zerotrust.engine.enforcement import Enforcement
from zerotrust.opabundle import configuration, keys, record, reports, revocations, signing
from zerotrust.opabundle.configuration import Service, Verification
from zerotrust.opabundle.keys import KeysSnapshot
from zerotrust.opabundle.record import KINDS, RecordSnapshot
from zerotrust.opabundle.reports import ReportSnapshot
from zerotrust.opabundle.revocations import RevocationsSnapshot

AT_ONCE = timedelta(milliseconds=20)
AT_MOST_EVERY = timedelta(seconds=1)
LOOK_AGAIN = timedelta(seconds=30)


class BundleRecordController(Statusless):
    """Keeps the order of each namespace's bundles; a key is the record's place."""

    name = "BundleRecord"
    urgency = -0.6  # a withdrawal is as urgent at decision points as in the network

    def __init__(self, cache: Cache, contents: BundleContents, enforcement: Enforcement, clock: Clock) -> None:
        self._cache, self._contents, self._enforcement, self._clock = cache, contents, enforcement, clock

    def touched_by(self, change: Change) -> Iterable[Touched]:
        """Which records a change makes due: a single edit at once, a wave of them once a second."""
        for namespace in self._contents.concerned(change):
            if self._contents.is_needed(namespace):
                yield Touched(self._contents.record_ref(namespace), self._pause(namespace))
        if change.ref.kind == "Namespace" and change.new is None:
            yield Touched(self._contents.record_ref(change.ref.name))

    def _pause(self, namespace: str) -> timedelta:
        """Serials are times (record.py): the last one says when the record was last written."""
        last = max((entry.serial for entry in self._contents.record(namespace).values()), default=0)
        return max(AT_ONCE, AT_MOST_EVERY - timedelta(seconds=max(0.0, self._clock.now().timestamp() - last)))

    def snapshot(self, ref: Ref) -> RecordSnapshot:
        """Collect what a decision needs."""
        namespace = ref.name.removesuffix(naming.BUNDLE_RECORD_SUFFIX)
        place = self._cache.get(Ref("Namespace", "", namespace))
        exists = place is not None
        needed = exists and self._contents.is_needed(namespace)
        revisions = {kind: self._contents.content(namespace, kind).revision for kind in KINDS} if needed else {}
        return RecordSnapshot(ref, self._cache.get(ref), exists, revisions)

    def reconcile(self, snapshot: RecordSnapshot, now: datetime) -> Plan:
        """Decide; and where the record says already what is computed anew, wake those who wait for what is in it."""
        plan = record.reconcile_record(snapshot, now)
        namespace = snapshot.ref.name.removesuffix(naming.BUNDLE_RECORD_SUFFIX)
        if not self._enforcement.note(namespace):
            return plan
        waiting = sorted(self._enforcement.waiting.get(namespace, ()))
        return replace(plan, touches=tuple(Touch(ref.kind, ref, timedelta()) for ref in waiting))


class SigningKeyController(Statusless):
    """Keeps the keys that sign bundles, from the first namespace on that needs them."""

    name = "SigningKeys"

    def __init__(
        self,
        cache: Cache,
        contents: BundleContents,
        operator_namespace: str,
        named: Callable[[], Set[str] | None],
        make: Callable[[], signing.SigningKey] = signing.create,
    ) -> None:
        self._cache, self._contents, self._named, self._make = cache, contents, named, make
        self.ref = Ref("Secret", operator_namespace, naming.BUNDLE_KEYS)

    def touched_by(self, change: Change) -> Iterable[Touched]:
        """The keys themselves, and the first record."""
        if change.ref == self.ref or (_is_record(change) and self._cache.get(self.ref) is None):
            yield Touched(self.ref)

    def snapshot(self, ref: Ref) -> KeysSnapshot | None:
        """Collect what a decision needs."""
        if not self._contents.namespaces():
            return None
        return KeysSnapshot(ref, self._cache.get(ref), self._named())

    def reconcile(self, snapshot: KeysSnapshot, now: datetime) -> Plan:
        """Decide."""
        return keys.reconcile_keys(snapshot, now, self._make)


class OpaConfigController(Statusless):
    """Keeps the ConfigMap from which a namespace's OPAs are started; a key is its place."""

    name = "OpaConfig"

    def __init__(self, cache: Cache, contents: BundleContents, operator_namespace: str, service: Service) -> None:
        self._cache, self._contents = cache, contents
        self._operator_namespace, self._service = operator_namespace, service

    def touched_by(self, change: Change) -> Iterable[Touched]:
        """Which configurations a change makes due."""
        if change.ref.kind == "ConfigMap" and change.ref.name == configuration.CONFIG_MAP:
            yield Touched(change.ref)
        elif _is_record(change):
            yield Touched(_config_ref(change.ref.name.removesuffix(naming.BUNDLE_RECORD_SUFFIX)))
        elif change.ref == Ref("Secret", self._operator_namespace, naming.BUNDLE_KEYS):
            yield from (Touched(_config_ref(namespace)) for namespace in self._contents.namespaces())

    def snapshot(self, ref: Ref) -> tuple[Ref, ConfigMap | None, Verification] | None:
        """Collect what a decision needs."""
        key = keys.offered(self._cache.get(Ref("Secret", self._operator_namespace, naming.BUNDLE_KEYS)))
        place = self._cache.get(Ref("Namespace", "", ref.namespace))
        if key is None or place is None or place.meta.deleting or not self._contents.record(ref.namespace):
            return None
        return ref, self._cache.get(ref), Verification(key.record.id, key.public_pem, self._operator_namespace)

    def reconcile(self, snapshot: tuple[Ref, ConfigMap | None, Verification], now: datetime) -> Plan:
        """Decide; a ConfigMap of somebody else under that name is left alone, and looked at again: no watch tells of it."""
        ref, observed, verification = snapshot
        labels = {naming.MANAGED_BY: naming.OPERATOR, naming.COMPONENT: naming.COMPONENT_OPA_CONFIG}
        if observed is not None and observed.meta.labels.get(naming.COMPONENT) != naming.COMPONENT_OPA_CONFIG:
            return Plan(refresh=(ref,), requeue_at=now + LOOK_AGAIN)
        manifest = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": ref.name, "namespace": ref.namespace, "labels": labels},
            "data": configuration.files(ref.namespace, self._service, verification),
        }
        return Plan(applies=(Apply(manifest, exact=("data",)),))


class RevocationController(Statusless):
    """Remembers cut-offs beyond the ServiceIdentities that asked for them."""

    name = "Revocations"

    def __init__(self, cache: Cache, contents: BundleContents) -> None:
        self._cache, self._contents = cache, contents

    def touched_by(self, change: Change) -> Iterable[Touched]:
        """The memory itself, and identities that revoke: by themselves, or once their TrustDomain gives them an ID."""
        ref, kinds = self._contents.revocations_ref, ("ServiceIdentity", "TrustDomain")
        if change.ref == ref or (change.ref.kind in kinds and self._cache.size(REVOKING, "")):
            yield Touched(ref)

    def snapshot(self, ref: Ref) -> RevocationsSnapshot:
        """Collect what a decision needs."""
        return RevocationsSnapshot(ref, self._cache.get(ref), self._contents.asked_cutoffs())

    def reconcile(self, snapshot: RevocationsSnapshot, now: datetime) -> Plan:
        """Decide; pure."""
        return revocations.reconcile_revocations(snapshot, now)


class ReportController(Statusless):
    """Removes what replicas that are gone have reported, once it has no meaning any more."""

    name = "BundleReport"

    def __init__(self, enforcement: Enforcement) -> None:
        self._enforcement = enforcement

    def touched_by(self, change: Change) -> Iterable[Touched]:
        """Reports that are new; then they are looked at by the clock."""
        new = change.old is None and change.ref.kind == "ConfigMap"
        if new and change.ref.name.startswith(naming.REPORT_PREFIX):
            yield Touched(change.ref, reports.LOOK_AGAIN)

    def snapshot(self, ref: Ref) -> ReportSnapshot | None:
        """Collect what a decision needs."""
        return self._enforcement.report(ref)

    def reconcile(self, snapshot: ReportSnapshot, now: datetime) -> Plan:
        """Decide; pure."""
        return reports.reconcile_report(snapshot, now)


def _is_record(change: Change) -> bool:
    return change.ref.kind == "ConfigMap" and change.ref.name.endswith(naming.BUNDLE_RECORD_SUFFIX)


def _config_ref(namespace: str) -> Ref:
    return Ref("ConfigMap", namespace, configuration.CONFIG_MAP)
