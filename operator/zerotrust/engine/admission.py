"""What Gatekeeper is asked for, looked up in the cache: from identities, policies and API keys to entries of constraints."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta

from zerotrust.apikey.resource import ApiKeySpec
from zerotrust.apikey.resource import secret_name as key_secret_name
from zerotrust.common import naming
from zerotrust.common.errors import SpecError
from zerotrust.common.naming import Ref
from zerotrust.common.observed import CustomResource, Meta
from zerotrust.common.plan import Apply
from zerotrust.common.status import Finding
from zerotrust.engine.apikeybook import ApiKeyBook
from zerotrust.engine.cache import Cache, Change
from zerotrust.engine.clock import Clock
from zerotrust.engine.difference import missing
from zerotrust.engine.pods import Pods
from zerotrust.engine.policybook import PolicyBook
from zerotrust.engine.trustdomains import BY_NAMESPACE, same_generation
from zerotrust.engine.trustdomains import Identity as ObservedIdentity
from zerotrust.gatekeeper import standing, templates
from zerotrust.gatekeeper.constraints import holding
from zerotrust.gatekeeper.observed import Constraint, ConstraintTemplate, Installation
from zerotrust.gatekeeper.projection import (
    Demand,
    Entries,
    Entry,
    KeySecret,
    Place,
    Subject,
    merged,
    of_key,
    of_subject,
)
from zerotrust.gatekeeper.templates import LABELS, TEMPLATES, Template
from zerotrust.identity.pods import PodMatch
from zerotrust.identity.resource import ServiceIdentitySpec
from zerotrust.identity.snapshot import secret_name, service_account
from zerotrust.pki.secret import ObservedSecret
from zerotrust.policy import acceptance
from zerotrust.policy.admission import AdmissionState, Violation
from zerotrust.policy.directory import Identity, Workload
from zerotrust.policy.resource import Admission

INSTALLATION = Ref("Gatekeeper", "", "gatekeeper")
WEBHOOK_CONFIGURATION = "ValidatingWebhookConfiguration"
MAX_NOTED = 10_000


class AdmissionBook:
    """Which constraints there should be, which there are, and how far Gatekeeper is with them."""

    def __init__(
        self, cache: Cache, book: PolicyBook, keys: ApiKeyBook, pods: Pods, clock: Clock, native_after: timedelta
    ) -> None:
        self._cache, self._book, self._keys, self.pods = cache, book, keys, pods
        self._clock, self._native_after = clock, native_after
        self._created: datetime | None = None
        self._waits: dict[str, tuple[ConstraintTemplate | None, bool, list[str]]] = {}
        self._first: dict[Ref, tuple[str, dict[tuple[str, str], int]]] = {}
        self._appeared: dict[Ref, dict[Violation, datetime]] = {}
        self._entries: dict[str, Entries] = {}
        cache.listen(self._changed)
        for kind in TEMPLATES:
            cache.index(_by_namespace(kind), kind, lambda one: [_namespace_of(one)])

    def _changed(self, change: Change) -> None:
        """Forget what follows from the change: entries are put together once for all kinds and many edits."""
        concerned = self.concerned(change)
        if change.ref.kind == "ConstraintTemplate":
            all_created = all(one is not None and one.created for one in map(self._template, TEMPLATES.values()))
            self._created = (self._created or self._clock.now()) if all_created else None
        if change.ref.kind in TEMPLATES:
            concerned |= self.namespaces_of(change) if change.ref.kind == LABELS else set()
            self._note_violations(change)
            if change.new is None or not change.new.as_written:
                self._first.pop(change.ref, None)  # what somebody else wrote was in force meanwhile
        for namespace in concerned:
            self._entries.pop(namespace, None)

    def _note_violations(self, change: Change) -> None:
        """When each appeared; those that were there when a constraint was first seen may have been there for long."""
        old, new = (frozenset(one.violations) if one is not None else frozenset() for one in (change.old, change.new))
        if change.old is not None and old != new:
            known, now = self._appeared.get(change.ref, {}), self._clock.now()
            kept = {one: at for one, at in known.items() if one in new} | dict.fromkeys(new - old, now)
            self._appeared[change.ref] = kept
            if not kept:
                del self._appeared[change.ref]

    @property
    def asked_by_api_server(self) -> bool:
        """Whether a ValidatingWebhookConfiguration of Gatekeeper is there."""
        return any(one.is_gatekeeper for one in self._cache.of_kind(WEBHOOK_CONFIGURATION))

    @property
    def installed(self) -> bool:
        """Whether the cluster has Gatekeeper's API."""
        found: Installation | None = self._cache.get(INSTALLATION)
        return found is not None and found.installed

    def waits(self, kind: str) -> list[str]:
        """What the template of a kind still waits for; nothing when its constraints can be made and count."""
        template = TEMPLATES[kind]
        observed, native = self._template(template), self.is_native(template)
        known = self._waits.get(kind)
        if known is None or known[0] is not observed or known[1] != native:
            current = observed is not None and not missing(observed, self.wanted_template(template))
            known = self._waits[kind] = (observed, native, standing.awaited_of_template(template, observed, current))
        return known[2]

    def _template(self, template: Template) -> ConstraintTemplate | None:
        observed: ConstraintTemplate | None = self._cache.get(Ref("ConstraintTemplate", "", template.name))
        return observed

    @property
    def native_from(self) -> datetime | None:
        """When every API server must know the kinds of all templates; None while Gatekeeper has not made them all."""
        return self._created + self._native_after if self._created is not None else None

    def is_native(self, template: Template) -> bool:
        """Whether the API server shall enforce a template by itself: from then on, and for ever once it did."""
        observed, due = self._template(template), self.native_from
        return (due is not None and due <= self._clock.now()) or (
            observed is not None and observed.created and templates.is_native(observed.spec)
        )

    def wanted_template(self, template: Template) -> Apply:
        """A ConstraintTemplate as it should be now."""
        manifest = templates.manifest(template.name, native=self.is_native(template))
        return Apply(manifest, exact=("spec",), shared=True)

    def is_served(self, kind: str) -> bool:
        """Whether constraints of a kind can be written: Gatekeeper has made the kind from its template."""
        observed = self._template(TEMPLATES[kind])
        return self.installed and observed is not None and observed.created

    def constraints(self, namespace: str, kind: str) -> list[Constraint]:
        """The operator's constraints of a kind about a namespace."""
        return self._cache.find(_by_namespace(kind), namespace)

    def namespaces(self) -> set[str]:
        """The namespaces that ask for something, or have constraints."""
        asking = {one.meta.namespace for kind in ("ServiceIdentity", "ApiKey") for one in self._cache.of_kind(kind)}
        return asking | {_namespace_of(one) for kind in TEMPLATES for one in self._cache.of_kind(kind)}

    def namespaces_of(self, change: Change) -> set[str]:
        """The namespaces that a changed constraint is, or was, about."""
        return {_namespace_of(one) for one in (change.old, change.new) if one is not None}

    def entries(self, namespace: str) -> Entries:
        """Everything that a namespace asks for."""
        if (known := self._entries.get(namespace)) is not None:
            return known
        identities: list[ObservedIdentity] = sorted(
            self._cache.find(BY_NAMESPACE, namespace), key=lambda one: one.meta.seniority
        )
        subjects = (self.subject(Workload(namespace, one.meta.name)) for one in identities)
        keys = sorted(self._keys.api_keys(namespace), key=lambda one: one.meta.seniority)
        found = [of_subject(one) for one in subjects if one is not None]
        secrets = (self._key_secret(one, one.spec) for one in keys if not isinstance(one.spec, SpecError))
        found += [of_key(one) for one in secrets if one is not None]
        self._entries[namespace] = merged(found)
        return self._entries[namespace]

    def _key_secret(self, key: CustomResource[ApiKeySpec], spec: ApiKeySpec) -> KeySecret | None:
        name = key_secret_name(spec, key.meta.name)
        if self._is_foreign(key.meta.namespace, name, naming.API_KEY, key.meta.name):
            return None
        holder, accounts = spec.holder.workload, tuple[str, ...]()
        if holder is not None and holder.namespace == key.meta.namespace:
            identity: ObservedIdentity | None = self._cache.get(Ref("ServiceIdentity", holder.namespace, holder.name))
            accounts = (service_account(identity),) if identity is not None else ()
        return KeySecret(key.meta.name, name, accounts)

    def _is_foreign(self, namespace: str, secret: str, label: str, owner: str) -> bool:
        """Whether a Secret of that name is known to be somebody else's; one that is not there yet will be ours."""
        observed: ObservedSecret | None = self._cache.get(Ref("Secret", namespace, secret))
        return observed is not None and observed.meta.labels.get(label) != owner

    def subject(self, workload: Workload) -> Subject | None:
        """An identity as admission sees it; None for one that is refused, being deleted, or cannot be read."""
        identity = self._book.identity(workload)
        observed: ObservedIdentity | None = self._cache.get(Ref("ServiceIdentity", *workload))
        if identity is None or observed is None or not identity.resolved:
            return None
        account, secret = service_account(observed), secret_name(observed)
        foreign = self._is_foreign(workload.namespace, secret, naming.IDENTITY, workload.name)
        return Subject(
            name=workload.name,
            account=account,
            pods=identity.pods,
            enforced=identity.enforcement == "Enforce",
            secret=secret if not foreign else None,
            labelled=self._is_labelled(identity, account),
            services=_services(observed),
            demands=tuple(self._demands(identity)),
        )

    def _is_labelled(self, identity: Identity, account: str) -> bool:
        """Whether a pod without the labels would be the first one: once that was so, it stays so."""
        there = self.constraints(identity.workload.namespace, LABELS)
        if holding(there, Place(LABELS, "deny", account)):
            return True
        match = self.pods.match(identity, account)
        return match is not None and match.holds

    def _demands(self, identity: Identity) -> Iterator[Demand]:
        for policy in self._book.targeting(identity.workload):
            accepted = self._book.accepted(policy)
            if accepted is None or policy.meta.deleting or "Gatekeeper" not in accepted.spec.layers:
                continue
            if acceptance.targets(accepted.spec, identity):
                admission = accepted.spec.admission or Admission()
                yield Demand(policy.meta.name, accepted.spec.mode == "Enforce", admission)

    def state(self, policy: str, identities: Iterable[Identity]) -> AdmissionState:
        """How far Gatekeeper is with what these targets of a policy ask for."""
        if not self.installed:
            return AdmissionState()
        subjects = [one for one in (self.subject(each.workload) for each in identities) if one is not None]
        namespaces = {each.workload.namespace for each in identities}
        there = [one for place in namespaces for kind in TEMPLATES for one in self.constraints(place, kind)]
        whose = {f"TrustPolicy {policy}", *(f"ServiceIdentity {one.name}" for one in subjects)}
        asked = merged(of_subject(_only(one, policy)) for one in subjects)
        state = standing.state(asked, there, self.waits, self._since)
        found = standing.violations(there, whose, self._seen)
        return replace(state, violations=found, webhook=self.asked_by_api_server)

    def _seen(self, constraint: Ref, violation: Violation) -> datetime | None:
        return self._appeared.get(constraint, {}).get(violation)

    def _since(self, constraint: Constraint, place: Place, entry: Entry) -> int:
        """The first generation of a constraint that was seen to say this; after a restart a later one, never an earlier."""
        ref, uid = constraint.meta.ref, constraint.meta.uid
        known = self._first.get(ref)
        if known is None or known[0] != uid or len(known[1]) > MAX_NOTED:
            known = self._first[ref] = (uid, {})
        return known[1].setdefault((place.key, json.dumps(entry, sort_keys=True)), constraint.meta.generation)

    def violations(self, workload: Workload) -> tuple[Finding, ...]:
        """What Gatekeeper's audit found against what an identity asks for."""
        there = (one for kind in TEMPLATES for one in self.constraints(workload.namespace, kind))
        return standing.violations(there, {f"ServiceIdentity {workload.name}"}, self._seen)

    def match(self, workload: Workload, account: str) -> PodMatch | None:
        """Whether an identity's pods are the ones that its labels select; None while pods are not watched."""
        identity = self._book.identity(workload)
        return self.pods.match(identity, account) if identity is not None else PodMatch()

    def accused(self, change: Change) -> set[Workload]:
        """The identities about which a changed constraint tells other violations than before."""
        old, new = (set(one.violations) if one is not None else set() for one in (change.old, change.new))
        names = {one.by.removeprefix("ServiceIdentity ") for one in old ^ new if one.by.startswith("ServiceIdentity ")}
        return {Workload(place, name) for place in self.namespaces_of(change) for name in names}

    def concerned(self, change: Change) -> set[str]:
        """The namespaces whose constraints a change may change."""
        match change.ref.kind:
            case "ApiKey" if not same_generation(change):
                return {change.ref.namespace}
            case "Secret" if _labels(change.old) != _labels(change.new):
                return {change.ref.namespace}
            case "ServiceIdentity" | "TrustPolicy" | "ControllerRevision" | "TrustDomain":
                return {one.namespace for one in self._book.servers_of(change)}
            case "Pod":
                return {ref.namespace for ref in self.pods.concerned(change)}
        return set()


def says_something_else(change: Change) -> bool:
    """Tell whether more than the times of an audit changed in one of Gatekeeper's objects."""
    old, new = change.old, change.new
    if old is None or new is None or old.meta.uid != new.meta.uid:
        return True
    fields = ("spec", "pods", "violations", "created", "is_gatekeeper")
    return any(getattr(old, one, None) != getattr(new, one, None) for one in fields)


def concerns_gatekeeper(change: Change) -> bool:
    """Tell whether a webhook configuration is, or was, Gatekeeper's."""
    return any(one is not None and one.is_gatekeeper for one in (change.old, change.new))


def installation(*, installed: bool, version: int, at: datetime) -> Installation:
    """What was found about Gatekeeper's API; versions only order such findings of this process."""
    meta = Meta(INSTALLATION, "", str(version), 0, at, {}, {}, (), deleting=False)
    return Installation(meta, installed)


def _labels(observed: ObservedSecret | None) -> object:
    return observed.meta.labels if observed is not None else None


def _only(subject: Subject, policy: str) -> Subject:
    """An identity with what this one policy asks of it."""
    return replace(subject, demands=tuple(one for one in subject.demands if one.policy == policy))


def _services(identity: ObservedIdentity) -> frozenset[str]:
    """The Services that an identity's certificate speaks for."""
    assert isinstance(identity.spec, ServiceIdentitySpec)
    ends = (f".{identity.meta.namespace}.svc", f".{identity.meta.namespace}.svc.cluster.local")
    names = identity.spec.certificate.dns_names or ()
    return frozenset(name.removesuffix(end) for name in names for end in ends if name.endswith(end))


def _by_namespace(kind: str) -> str:
    return f"{kind}-by-namespace"


def _namespace_of(constraint: Constraint) -> str:
    return constraint.meta.labels.get(naming.NAMESPACE, "")
