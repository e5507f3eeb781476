"""The network policies that follow from the table: one for each identity, a default-deny for isolated namespaces, and the memory
of who is isolated.

Nothing here opens by accident: an isolated identity stays isolated when its last policy, its TrustDomain or it itself goes.
What is left over denies everything until no pod matches it, or until an admin says `zerotrust.dev/allow-open`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from zerotrust.common import naming
from zerotrust.common.merge import without_nulls
from zerotrust.common.naming import Ref
from zerotrust.common.observed import ConfigMap, NetworkPolicy, Plain
from zerotrust.common.plan import Apply, Delete, Plan
from zerotrust.identity.resource import ServiceIdentitySpec
from zerotrust.policy import network
from zerotrust.policy.directory import Directory, Identity, Workload
from zerotrust.policy.network import Direction, PortOf, Surroundings
from zerotrust.policy.podset import from_kubernetes, to_kubernetes
from zerotrust.policy.survey import Survey, survey_ref
from zerotrust.policy.table import Table
from zerotrust.trustdomain.resource import Dns

PATIENCE = timedelta(seconds=30)  # how often pods are looked at, for as long as something waits for them to go


class Awaited(NamedTuple):
    """Policies of servers that are accepted and not in force everywhere yet; nobody waits for them longer than `until`."""

    policies: Mapping[Workload, frozenset[str]] = {}
    until: datetime | None = None


@dataclass(frozen=True)
class NetworkSnapshot:
    """What one identity's network policy depends on; `identity` is None once it is gone.

    `remembered` is what the namespace's record says of it, `servers` are those that may mention it as a client, with their
    tables, `awaited` is what must be in force there before its own way out opens, and `survey` is None until the namespace's
    pods were looked at.
    """

    ref: Ref
    namespace: Plain | None
    identity: Identity | None
    table: Table | None
    observed: NetworkPolicy | None
    record: Ref
    remembered: Mapping[str, Any] | None
    directory: Directory
    servers: tuple[tuple[Identity, Table], ...] = ()
    awaited: Awaited = field(default_factory=Awaited)
    surroundings: Surroundings = field(default_factory=Surroundings)
    survey: Survey | None = None

    @property
    def name(self) -> str:
        """Name of the identity."""
        return self.ref.name.removeprefix(naming.NETWORK_POLICY_PREFIX)


def is_ours(observed: NetworkPolicy | None, remembered: Mapping[str, Any] | None = None) -> bool:
    """Tell whether the operator made a network policy, even if somebody took some of its labels off."""
    if observed is None:
        return False
    labels = observed.meta.labels
    marks = (naming.MANAGED_BY, naming.OPERATOR), (naming.COMPONENT, naming.COMPONENT_NETWORK_POLICY)
    return any(labels.get(key) == value for key, value in marks) or naming.IDENTITY in labels or remembered is not None


def conflicts(snapshot: NetworkSnapshot) -> bool:
    """Tell whether somebody else's network policy has the name that ours should have; it is reported and never touched."""
    return snapshot.observed is not None and not is_ours(snapshot.observed, snapshot.remembered)


def reconcile_network(snapshot: NetworkSnapshot, now: datetime) -> Plan:
    """Return what to do for one identity's network policy."""
    place = snapshot.namespace
    if place is None or place.meta.deleting or conflicts(snapshot):
        return Plan()
    if snapshot.identity is None:
        return _orphaned(snapshot, now)
    manifest = wanted(snapshot, now)
    if manifest is None:
        return _removed(snapshot)
    ends = [end for end in (snapshot.table.ends() if snapshot.table else []) if end > now]
    ends += [end for _, table in snapshot.servers for end in table.ends() if end > now]
    if snapshot.awaited.until is not None:
        ends.append(snapshot.awaited.until)
    return Plan(
        applies=(Apply(manifest, exact=("spec",), repairs=_was_right(snapshot, manifest)),),
        requeue_at=min(ends, default=None),
    )


def _was_right(snapshot: NetworkSnapshot, manifest: Mapping[str, Any]) -> bool:
    """Tell whether this very content was written before, so that whatever differs is somebody else's doing."""
    if snapshot.observed is None:
        return snapshot.remembered is not None
    digest = manifest["metadata"]["annotations"][naming.CONTENT_HASH]
    return bool(snapshot.observed.meta.annotations.get(naming.CONTENT_HASH) == digest)


def wanted(snapshot: NetworkSnapshot, now: datetime) -> dict[str, Any] | None:
    """Return the network policy that an identity should have, None when it needs none."""
    identity = snapshot.identity
    assert identity is not None
    rules: dict[Direction, list[dict[str, Any]]] = {}
    closed = isolated(snapshot)
    if "Ingress" in closed:
        rules["Ingress"] = network.ingress(snapshot.table, snapshot.directory, now) if snapshot.table else []
    elif "Ingress" in snapshot.surroundings.isolated and identity.enforcement == "Observe":
        rules["Ingress"] = [{}]  # the namespace closes it, and Observe means that nothing of this workload is closed
    if "Egress" in closed:
        allow = identity.spec.egress.allow if _has_egress(identity) else ()
        held = _held(snapshot, identity, now)
        rules["Egress"] = network.egress(identity, snapshot.servers, snapshot.surroundings, allow, now, held)
    elif "Egress" in snapshot.surroundings.isolated:
        rules["Egress"] = [{}]  # spec.egress.mode: Open stands above the namespace's default
    if not rules:
        return None
    labels = {naming.IDENTITY: snapshot.name, naming.ORPHANED: None}
    return network.manifest(snapshot.ref.namespace, snapshot.ref.name, labels, to_kubernetes(identity.pods), rules)


def _held(snapshot: NetworkSnapshot, client: Identity, now: datetime) -> frozenset[tuple[Workload, PortOf]]:
    """What stays closed until the server is ready for it; nothing that is open now is among it."""
    if snapshot.observed is None or "Egress" not in (snapshot.observed.spec.get("policyTypes") or ()):
        return frozenset()
    held = set()
    for server, table in snapshot.servers:
        awaited = snapshot.awaited.policies.get(server.workload)
        if awaited is not None:
            ready = network.callable_ports(table, client.workload, now, awaited)
            held |= {
                (server.workload, port)
                for port in network.callable_ports(table, client.workload, now) - ready
                if not network.lets_out(snapshot.observed.spec, client.workload.namespace, server.pod_set, port)
            }
    return frozenset(held)


def _has_egress(identity: Identity) -> bool:
    return isinstance(identity.spec, ServiceIdentitySpec) and identity.spec.egress is not None


def isolated(snapshot: NetworkSnapshot) -> frozenset[Direction]:
    """The directions in which an identity is closed by its own policy.

    Ingress is closed by the first enforcing policy, and stays so: what was isolated once is remembered by its network policy and
    by the namespace's record, and ends only by `enforcement: Observe` or by an admin's word. While the TrustDomain with the
    defaults is gone, nothing is closed anew and nothing opens.
    """
    identity = snapshot.identity
    if identity is None or identity.enforcement == "Observe":
        return frozenset()
    closed: set[Direction] = set()
    enforced = snapshot.table is not None and "NetworkPolicy" in snapshot.table.layers
    if enforced and identity.domain_known:
        closed.add("Ingress")
    if _was_closed(snapshot, "Ingress") and (enforced or not _may_open(snapshot)):
        closed.add("Ingress")
    if identity.egress == "Isolated" or (not identity.domain_known and _was_closed(snapshot, "Egress")):
        closed.add("Egress")
    return frozenset(closed)


def _was_closed(snapshot: NetworkSnapshot, direction: Direction) -> bool:
    observed = snapshot.observed.spec if snapshot.observed is not None else {}
    return any(direction in (spec.get("policyTypes") or ()) for spec in (observed, snapshot.remembered or {}))


def _may_open(snapshot: NetworkSnapshot) -> bool:
    return snapshot.observed is not None and naming.ALLOW_OPEN in snapshot.observed.meta.annotations


def _orphaned(snapshot: NetworkSnapshot, now: datetime) -> Plan:
    """The identity is gone: its pods stay closed for as long as there are any."""
    observed, before = snapshot.observed, snapshot.remembered
    if observed is None and before is None:
        return Plan()
    if _may_open(snapshot):
        return _removed(snapshot)
    spec: Mapping[str, Any] = observed.spec if observed is not None else before or {}
    selector = from_kubernetes(spec.get("podSelector"))
    if snapshot.survey is not None and not snapshot.survey.has_pods(selector):
        return replace(_removed(snapshot), refresh=(survey_ref(snapshot.ref.namespace),))
    rules: dict[Direction, list[dict[str, Any]]] = {
        direction: [] for direction in network.DIRECTIONS if direction in (spec.get("policyTypes") or ("Ingress",))
    }
    labels = {naming.IDENTITY: snapshot.name, naming.ORPHANED: "true"}
    manifest = network.manifest(snapshot.ref.namespace, snapshot.ref.name, labels, to_kubernetes(selector), rules)
    return Plan(
        applies=(Apply(manifest, exact=("spec",)),),
        refresh=(survey_ref(snapshot.ref.namespace),),
        requeue_at=now + PATIENCE,
    )


def _removed(snapshot: NetworkSnapshot) -> Plan:
    """Forget first, then delete: a crash in between only means that it is done once more."""
    applies: tuple[Apply, ...] = ()
    if snapshot.remembered is not None:
        applies = (Apply(_record_manifest(snapshot.record, {snapshot.name: None})),)
    observed = snapshot.observed
    return Plan(applies, (Delete(observed.meta.ref, observed.meta.uid),) if observed is not None else ())


@dataclass(frozen=True)
class RecordSnapshot:
    """What a namespace's record of isolation depends on."""

    namespace: str
    ref: Ref
    record: ConfigMap | None
    policies: tuple[NetworkPolicy, ...]
    namespace_exists: bool


def reconcile_record(snapshot: RecordSnapshot) -> Plan:
    """Return what to do for the record: add who is isolated now; only whoever opens an identity takes it out."""
    if not snapshot.namespace_exists:
        gone = snapshot.record
        return Plan(deletes=(Delete(gone.meta.ref, gone.meta.uid),)) if gone is not None else Plan()
    entries: dict[str, str | None] = {}
    for policy in snapshot.policies:
        if is_ours(policy) and policy.meta.name.startswith(naming.NETWORK_POLICY_PREFIX):
            entry = {"podSelector": policy.spec.get("podSelector") or {}, "policyTypes": policy.spec.get("policyTypes")}
            name = policy.meta.name.removeprefix(naming.NETWORK_POLICY_PREFIX)
            entries[name] = json.dumps(entry, sort_keys=True, separators=(",", ":"))
    if not entries:
        return Plan()
    return Plan(applies=(Apply(_record_manifest(snapshot.ref, entries)),))


def _record_manifest(ref: Ref, entries: Mapping[str, str | None]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": ref.name,
            "namespace": ref.namespace,
            "labels": {naming.MANAGED_BY: naming.OPERATOR, naming.COMPONENT: naming.COMPONENT_ISOLATION_RECORD},
        },
        "data": dict(entries),
    }


def remembered(record: ConfigMap | None, identity: str) -> Mapping[str, Any] | None:
    """What the record says of an identity; an entry that cannot be read counts as closed in both directions."""
    text = record.data.get(identity) if record is not None else None
    if text is None:
        return None
    try:
        entry = json.loads(text)
    except ValueError:
        entry = None
    if not isinstance(entry, dict) or not isinstance(entry.get("podSelector"), dict) or not entry["podSelector"]:
        selector = {"matchLabels": {naming.SERVICE_ACCOUNT: identity}}
        return {"podSelector": selector, "policyTypes": ["Ingress", "Egress"]}
    return entry


@dataclass(frozen=True)
class DefaultDenySnapshot:
    """What a namespace's default-deny depends on: the directions to close, and whether allows are still `waiting`."""

    ref: Ref
    namespace: Plain | None
    observed: NetworkPolicy | None
    closed: frozenset[Direction]
    dns: Dns
    waiting: bool


def reconcile_default_deny(snapshot: DefaultDenySnapshot, now: datetime) -> Plan:
    """Return what to do for a namespace's default-deny; what is allowed is in place before it."""
    place, observed = snapshot.namespace, snapshot.observed
    if place is None or place.meta.deleting:
        return Plan()
    ours = observed is not None and observed.meta.labels.get(naming.COMPONENT) == naming.COMPONENT_DEFAULT_DENY
    if observed is not None and not ours:
        return Plan()
    if not snapshot.closed:
        return Plan(deletes=(Delete(observed.meta.ref, observed.meta.uid),)) if observed is not None else Plan()
    if observed is None and snapshot.waiting:
        return Plan(requeue_at=now + timedelta(seconds=1))
    rules: dict[Direction, list[dict[str, Any]]] = {direction: [] for direction in sorted(snapshot.closed)}
    if "Egress" in rules:
        rules["Egress"] = network.resolvers(snapshot.dns)
    manifest = network.manifest(
        snapshot.ref.namespace, snapshot.ref.name, {naming.COMPONENT: naming.COMPONENT_DEFAULT_DENY}, {}, rules
    )
    return Plan(applies=(Apply(manifest, exact=("spec",), repairs=observed is not None),))


def network_policies(
    directory: Directory, tables: Mapping[Workload, Table], now: datetime, surroundings: Surroundings | None = None
) -> list[dict[str, Any]]:
    """Return the network policy of every identity, as if nothing had ever been isolated before; sorted by place."""
    manifests = []
    for identity in sorted(directory.identities(), key=lambda one: one.workload):
        place = Ref("NetworkPolicy", identity.workload.namespace, naming.network_policy_name(identity.workload.name))
        servers = [(server, tables[server.workload]) for server in directory.identities() if server.workload in tables]
        snapshot = NetworkSnapshot(
            ref=place,
            namespace=None,
            identity=identity,
            table=tables.get(identity.workload),
            observed=None,
            record=place,
            remembered=None,
            directory=directory,
            servers=tuple(servers) if identity.egress == "Isolated" else (),
            surroundings=surroundings or Surroundings(),
        )
        manifest = wanted(snapshot, now)
        if manifest is not None:
            manifests.append(without_nulls(manifest))
    return manifests
