"""The controllers for what a namespace has as a whole: its default-deny, and the record of who is isolated in it."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from zerotrust.common import naming
from zerotrust.common.errors import SpecError
from zerotrust.common.naming import Ref
from zerotrust.common.plan import Plan
from zerotrust.engine.cache import Cache, Change
from zerotrust.engine.controller import Statusless, Touched
from zerotrust.engine.trustdomains import BY_NAMESPACE, TrustDomains
from zerotrust.policy import isolation
from zerotrust.policy.isolation import DefaultDenySnapshot, RecordSnapshot
from zerotrust.policy.network import Direction
from zerotrust.trustdomain.resource import Dns, TrustDomainSpec

OURS = "our-network-policies-by-namespace"
LATER = timedelta(seconds=1)


class NamespaceIsolation:
    """Which directions of which namespaces are closed for every pod."""

    def __init__(self, cache: Cache, domains: TrustDomains) -> None:
        self._cache, self._domains = cache, domains

    def record_ref(self, namespace: str) -> Ref:
        """Where the record of a namespace is."""
        return Ref("ConfigMap", self._domains.operator_namespace, naming.isolation_record_name(namespace))

    def selecting(self, namespace: str) -> list[TrustDomainSpec]:
        """The TrustDomains that isolate a namespace; never kube-*, the operator's own, or one that is labelled exempt."""
        place = self._cache.get(Ref("Namespace", "", namespace))
        if place is None or namespace.startswith("kube-") or namespace == self._domains.operator_namespace:
            return []
        if naming.EXEMPT in place.meta.labels:
            return []
        specs = [
            one.spec for one in self._domains.all() if not isinstance(one.spec, SpecError) and not one.meta.deleting
        ]
        return [spec for spec in specs if _isolates(spec, place.meta.labels)]

    def closed(self, namespace: str) -> frozenset[Direction]:
        """The directions that are closed: egress where identities are isolated in it by default."""
        directions: set[Direction] = set()
        for spec in self.selecting(namespace):
            directions.add("Ingress")
            if spec.identities.egress == "Isolated":
                directions.add("Egress")
        return frozenset(directions)

    def dns(self, namespace: str) -> Dns:
        """Where the pods of an isolated namespace resolve names."""
        return next((spec.dns for spec in self.selecting(namespace)), Dns())


def _isolates(spec: TrustDomainSpec, labels: object) -> bool:
    match spec.isolation.mode:
        case "All":
            return True
        case "Selected":
            return spec.isolation.selector is not None and spec.isolation.selector.matches(labels)  # type: ignore[arg-type]
        case _:
            return False


class DefaultDenyController(Statusless):
    """Keeps the default-deny of each isolated namespace."""

    name = "DefaultDeny"
    urgency = -0.25  # after the network policies of identities: what is allowed is in place before it

    def __init__(self, cache: Cache, isolation_of: NamespaceIsolation) -> None:
        self._cache, self._isolation = cache, isolation_of

    def touched_by(self, change: Change) -> Iterable[Touched]:
        """Which namespaces' default-denies a change makes due."""
        match change.ref.kind:
            case "Namespace":
                if change.old is None or change.new is None or change.old.meta.labels != change.new.meta.labels:
                    yield Touched(_default_deny(change.ref.name))
            case "NetworkPolicy" if change.ref.name == naming.DEFAULT_DENY:
                yield Touched(change.ref)
            case "TrustDomain":
                if _isolation_of(change.old) != _isolation_of(change.new):
                    for one in self._cache.of_kind("Namespace"):
                        yield Touched(_default_deny(one.meta.name))

    def snapshot(self, ref: Ref) -> DefaultDenySnapshot:
        """Collect what a decision needs."""
        identities = self._cache.find(BY_NAMESPACE, ref.namespace)
        return DefaultDenySnapshot(
            ref=ref,
            namespace=self._cache.get(Ref("Namespace", "", ref.namespace)),
            observed=self._cache.get(ref),
            closed=self._isolation.closed(ref.namespace),
            dns=self._isolation.dns(ref.namespace),
            waiting=any(not one.ready[0] for one in identities),
        )

    def reconcile(self, snapshot: DefaultDenySnapshot, now: datetime) -> Plan:
        """Decide; pure."""
        return isolation.reconcile_default_deny(snapshot, now)


class RecordController(Statusless):
    """Keeps the record of who is isolated; a key is the record's place."""

    name = "IsolationRecord"

    def __init__(self, cache: Cache, isolation_of: NamespaceIsolation) -> None:
        self._cache, self._isolation = cache, isolation_of
        cache.index(OURS, "NetworkPolicy", lambda one: [one.meta.namespace] if isolation.is_ours(one) else [])

    def touched_by(self, change: Change) -> Iterable[Touched]:
        """Which records a change makes due; a wave of network policies is one write."""
        match change.ref.kind:
            case "NetworkPolicy" if change.new is not None and isolation.is_ours(change.new):
                yield Touched(self._isolation.record_ref(change.ref.namespace), LATER)
            case "ConfigMap" if change.ref.name.endswith(naming.ISOLATION_RECORD_SUFFIX):
                yield Touched(change.ref, LATER)
            case "Namespace" if change.new is None:
                yield Touched(self._isolation.record_ref(change.ref.name), LATER)

    def snapshot(self, ref: Ref) -> RecordSnapshot:
        """Collect what a decision needs."""
        namespace = ref.name.removesuffix(naming.ISOLATION_RECORD_SUFFIX)
        return RecordSnapshot(
            namespace=namespace,
            ref=ref,
            record=self._cache.get(ref),
            policies=tuple(self._cache.find(OURS, namespace)),
            namespace_exists=self._cache.get(Ref("Namespace", "", namespace)) is not None,
        )

    def reconcile(self, snapshot: RecordSnapshot, now: datetime) -> Plan:  # noqa: ARG002 - no time in it
        """Decide; pure."""
        return isolation.reconcile_record(snapshot)


def _default_deny(namespace: str) -> Ref:
    return Ref("NetworkPolicy", namespace, naming.DEFAULT_DENY)


def _isolation_of(domain: object) -> object:
    spec = getattr(domain, "spec", None)
    return (spec.isolation, spec.dns, spec.identities.egress) if isinstance(spec, TrustDomainSpec) else None
