"""From what is observed of a TrustDomain to what should be done: authority, record, status.

Distribution of the bundle to namespaces is a key of its own (`reconcile_bundle`), so that one edited ConfigMap costs one write.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from zerotrust.common import naming, times
from zerotrust.common.conditions import Condition, false, find, merge, true, unknown
from zerotrust.common.errors import SpecError
from zerotrust.common.naming import Ref
from zerotrust.common.observed import ConfigMap, CustomResource, controller_uid
from zerotrust.common.plan import Apply, Delete, Event, Plan
from zerotrust.pki import secret as secrets
from zerotrust.pki import x509 as profiles
from zerotrust.pki.keys import to_pkcs8
from zerotrust.pki.secret import ObservedSecret
from zerotrust.trustdomain import authority as authorities
from zerotrust.trustdomain.authority import Authority, Entropy, Record, RecordUnreadable
from zerotrust.trustdomain.bundle import PEM_KEY, SPIFFE_KEY, TrustBundle
from zerotrust.trustdomain.resource import TrustDomainSpec

MAX_SKEW = timedelta(seconds=30)
REFRESH = timedelta(seconds=30)
MAX_BLOCKED = 64


@dataclass(frozen=True)
class BundleTargets:
    """How far the trust bundle has come: selected namespaces, those that carry it, and those that cannot."""

    selected: int = 0
    carrying: int = 0
    blocked: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class TrustDomainSnapshot:
    """Everything a decision about one TrustDomain depends on.

    `authority_secrets` are ours in the operator's namespace; `brought` is the one that `secretName` names.
    `clock_skew` is local time minus the API server's, None while unknown. `leaf_ends` has the notAfter of every leaf in a
    Secret, by the key id of its issuer.
    """

    resource: CustomResource[TrustDomainSpec]
    operator_namespace: str
    record: ObservedSecret | None
    authority_secrets: tuple[ObservedSecret, ...]
    brought: ObservedSecret | None
    other_default: str | None
    targets: BundleTargets
    identities_total: int
    identities_ready: int
    clock_skew: timedelta | None
    leaf_ends: Mapping[str, Sequence[datetime]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The trust domain's name, which is the resource's."""
        return self.resource.meta.name


@dataclass(frozen=True)
class _Step:
    """What was decided about the authority: the record to keep, what to write for it, and the condition."""

    record: Record | None
    condition: Condition
    applies: tuple[Apply, ...] = ()
    events: tuple[Event, ...] = ()
    refresh: tuple[Ref, ...] = ()


def reconcile(snapshot: TrustDomainSnapshot, now: datetime, entropy: Entropy) -> Plan:
    """Return what to do for a TrustDomain; the authority's Secret comes before the record that names it."""
    resource = snapshot.resource
    if resource.meta.deleting:
        return Plan()
    if isinstance(resource.spec, SpecError):
        message = str(resource.spec)
        problem = false("Ready", "InvalidSpec", message)
        return _plan(
            snapshot,
            now,
            _Step(_read_record(snapshot)[0], unknown("CertificateAuthorityHealthy", "InvalidSpec")),
            problem,
        )
    spec = resource.spec
    step = _authority(snapshot, spec, now, entropy)
    step = _healthy(step, spec, now)
    return _plan(snapshot, now, step, None)


def failed(snapshot: TrustDomainSnapshot, message: str, now: datetime) -> Plan:
    """Return the status that tells of failing writes."""
    record, _ = _read_record(snapshot)
    step = _Step(record, unknown("CertificateAuthorityHealthy", "WriteFailed", message))
    plan = _plan(snapshot, now, step, None if record else false("Ready", "WriteFailed", message))
    return Plan(status=plan.status)


def _read_record(snapshot: TrustDomainSnapshot) -> tuple[Record | None, str]:
    if snapshot.record is None:
        return None, ""
    try:
        return Record.from_json(snapshot.record.public.get(secrets.RECORD, b"")), ""
    except RecordUnreadable as error:
        return None, f"Secret {snapshot.record.meta.namespace}/{snapshot.record.meta.name} {error}"


def _authority(snapshot: TrustDomainSnapshot, spec: TrustDomainSpec, now: datetime, entropy: Entropy) -> _Step:
    record, unreadable = _read_record(snapshot)
    hint = round(spec.bundle.refresh_hint.total_seconds())
    if spec.certificate_authority.source == "Secret":
        return _brought(snapshot, spec, record, hint)
    own, broken = _own_authorities(snapshot)
    if record is not None:
        kept = record.settled(hint)
        active = record.active
        if active is None or active.id not in own:
            return _lost(snapshot, spec, kept, broken, now, entropy)
        return _Step(kept, true("CertificateAuthorityHealthy", "Active"), _record_apply(snapshot, record, kept))
    if unreadable and not own:
        return _Step(None, false("CertificateAuthorityHealthy", "RecordUnreadable", unreadable))
    if broken and not own:
        return _Step(None, false("CertificateAuthorityHealthy", "AuthorityUnreadable", broken))
    if own:  # the record was lost, or a crash came between the two first writes: nothing is made anew, no key is lost
        newest = max(own.values(), key=lambda one: one.certificate.not_valid_before_utc)
        adopted = authorities.first_record(newest, hint)
        event = Event("Normal", "AuthorityAdopted", f"adopted the existing authority {newest.id}")
        return _Step(
            adopted, true("CertificateAuthorityHealthy", "Active"), _record_apply(snapshot, None, adopted), (event,)
        )
    return _created(snapshot, spec, None, now, entropy)


def _own_authorities(snapshot: TrustDomainSnapshot) -> tuple[dict[str, Authority], str]:
    """Return the readable authorities in the operator's own Secrets, and what is wrong with an unreadable one."""
    own, broken = {}, ""
    for observed in snapshot.authority_secrets:
        try:
            one = authorities.from_secret(observed)
            own[one.id] = one
        except ValueError as error:
            broken = f"Secret {observed.meta.namespace}/{observed.meta.name}: {error}"
    return own, broken


def _lost(
    snapshot: TrustDomainSnapshot,
    spec: TrustDomainSpec,
    record: Record,
    broken: str,
    now: datetime,
    entropy: Entropy,
) -> _Step:
    """The record names an authority whose key is gone: leaves keep working, and only a person may start a new one."""
    active = record.active
    requested = spec.certificate_authority.rotation.requested_at
    since = active.certificate.not_valid_before_utc + authorities.BACKDATE if active else None
    if requested is not None and requested <= now and (since is None or requested > since):
        return _created(snapshot, spec, record, now, entropy)
    name = naming.authority_secret_name(snapshot.name, active.id if active else "…")
    message = broken or (
        f"Secret {snapshot.operator_namespace}/{name} is missing, so nothing can be signed; what was signed keeps"
        " working. Restore the Secret, or set spec.certificateAuthority.rotation.requestedAt to the present time"
        " to make a new authority"
    )
    reason = "AuthorityUnreadable" if broken else "AuthorityMissing"
    return _Step(record, false("CertificateAuthorityHealthy", reason, message), _record_apply(snapshot, record, record))


def _created(
    snapshot: TrustDomainSnapshot, spec: TrustDomainSpec, record: Record | None, now: datetime, entropy: Entropy
) -> _Step:
    wanted = spec.certificate_authority
    key = entropy.private_key(wanted.key_algorithm)
    start = times.whole_seconds(now) - authorities.BACKDATE
    certificate = profiles.self_signed_authority(
        snapshot.name, key, entropy.serial_number(), start, times.whole_seconds(now) + wanted.duration
    )
    made = Authority(profiles.authority_id(key.public_key()), "Active", (certificate,), (certificate,))
    hint = round(spec.bundle.refresh_hint.total_seconds())
    after = record.activated(made).settled(hint) if record else authorities.first_record(made, hint)
    pem = profiles.write_pem(certificate)
    key_secret = Apply(
        {
            **_secret(
                snapshot,
                naming.authority_secret_name(snapshot.name, made.id),
                naming.COMPONENT_AUTHORITY,
                {
                    secrets.CERTIFICATE: pem,
                    secrets.PRIVATE_KEY: to_pkcs8(key),
                    secrets.AUTHORITIES: pem,
                },
            ),
            "type": "kubernetes.io/tls",
        }
    )
    event = Event(
        "Normal", "AuthorityCreated", f"created authority {made.id}, valid until {times.render(made.not_after)}"
    )
    return _Step(
        after,
        true("CertificateAuthorityHealthy", "Active"),
        (key_secret, *_record_apply(snapshot, record, after)),
        (event,),
    )


def _brought(snapshot: TrustDomainSnapshot, spec: TrustDomainSpec, record: Record | None, hint: int) -> _Step:
    name = spec.certificate_authority.secret_name or ""
    ref = Ref("Secret", snapshot.operator_namespace, name)
    place = f"Secret {ref.namespace}/{ref.name}"
    if snapshot.brought is None:
        message = f"{place} does not exist; create it with tls.crt, tls.key and ca.crt"
        return _Step(record, false("CertificateAuthorityHealthy", "SecretNotFound", message), refresh=(ref,))
    try:
        brought = authorities.from_secret(snapshot.brought)
    except ValueError as error:
        condition = false("CertificateAuthorityHealthy", "AuthorityUnreadable", f"{place}: {error}")
        return _Step(record, condition, refresh=(ref,))
    if record is None:
        after = authorities.first_record(brought, hint)
    elif record.active is not None and record.active.chain == brought.chain and record.active.roots == brought.roots:
        after = record.settled(hint)
    else:
        after = record.activated(brought).settled(hint)
    condition = true("CertificateAuthorityHealthy", "Active")
    return _Step(after, condition, _record_apply(snapshot, record, after), refresh=(ref,))


def _record_apply(snapshot: TrustDomainSnapshot, before: Record | None, after: Record) -> tuple[Apply, ...]:
    if before == after and snapshot.record is not None:
        return ()
    name = naming.authority_record_name(snapshot.name)
    data = {secrets.RECORD: after.to_json().encode()}
    return (Apply(_secret(snapshot, name, naming.COMPONENT_AUTHORITY_RECORD, data)),)


def _secret(snapshot: TrustDomainSnapshot, name: str, component: str, data: dict[str, bytes]) -> dict[str, Any]:
    """A Secret of the operator's namespace, without an owner: deleting the TrustDomain by mistake loses no key."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "namespace": snapshot.operator_namespace,
            "labels": {naming.MANAGED_BY: naming.OPERATOR, naming.COMPONENT: component},
            "annotations": {naming.TRUST_DOMAIN: snapshot.name},
        },
        "data": {key: secrets.encode(value) for key, value in data.items()},
    }


def _healthy(step: _Step, spec: TrustDomainSpec, now: datetime) -> _Step:
    """Judge the Active authority by the clock."""
    active = step.record.active if step.record else None
    if active is None or step.condition.status != "True":
        return step
    end = times.render(active.not_after)
    if now >= active.not_after:
        message = f"authority {active.id} expired at {end}; nothing can be signed"
        condition = false("CertificateAuthorityHealthy", "AuthorityExpired", message)
    elif active.not_after - now < spec.identities.max_duration:
        message = f"authority {active.id} expires at {end}; certificates are cut short at that time"
        condition = true("CertificateAuthorityHealthy", "ExpiringSoon", message)
    else:
        message = f"authority {active.id} signs until {end}"
        condition = true("CertificateAuthorityHealthy", "Active", message)
    return _Step(step.record, condition, step.applies, step.events, step.refresh)


def _plan(snapshot: TrustDomainSnapshot, now: datetime, step: _Step, refused: Condition | None) -> Plan:
    conditions = [_ready(snapshot, step, refused), step.condition, _published(snapshot, step), _skew(snapshot)]
    conditions += _not_implemented(snapshot)
    if conditions[0].status == "False" and conditions[0].reason == "InvalidSpec":
        conditions.append(true("Stalled", "InvalidSpec", conditions[0].message))
    observed = snapshot.resource.conditions
    status: dict[str, Any] = {
        "observedGeneration": snapshot.resource.meta.generation,
        "conditions": merge(observed, conditions, snapshot.resource.meta.generation, now),
        "identities": {"total": snapshot.identities_total, "ready": snapshot.identities_ready},
    }
    if step.record is not None:
        bundle = step.record.bundle()
        status["certificateAuthorities"] = [_authority_status(one, snapshot, now) for one in step.record.authorities]
        status["bundle"] = {
            "sequence": bundle.sequence,
            "hash": bundle.hash,
            "namespaces": snapshot.targets.carrying,
            "blocked": [
                {"namespace": name, "reason": reason} for name, reason in snapshot.targets.blocked[:MAX_BLOCKED]
            ],
        }
    events = (*step.events, *_transitions(observed, conditions))
    return Plan(step.applies, status=status, events=events, requeue_at=_wake(snapshot, step, now), refresh=step.refresh)


def _ready(snapshot: TrustDomainSnapshot, step: _Step, refused: Condition | None) -> Condition:
    if refused is not None:
        return refused
    if snapshot.other_default is not None:
        message = f"TrustDomain {snapshot.other_default} is older and is the default already; set spec.default to false"
        return false("Ready", "DuplicateDefault", message)
    if step.condition.status != "True":
        return false("Ready", step.condition.reason, step.condition.message)
    return true("Ready", "Operational", "the authority signs and the trust bundle is published")


def _published(snapshot: TrustDomainSnapshot, step: _Step) -> Condition:
    targets = snapshot.targets
    if step.record is None:
        return unknown("BundlePublished", "NoBundle", "there is no trust bundle yet")
    if targets.blocked:
        name, reason = targets.blocked[0]
        return false(
            "BundlePublished", "Blocked", f"{len(targets.blocked)} namespaces do not get it, first {name}: {reason}"
        )
    if targets.carrying < targets.selected:
        return false("BundlePublished", "Publishing", f"{targets.carrying} of {targets.selected} namespaces carry it")
    return true("BundlePublished", "Published", f"all {targets.selected} selected namespaces carry it")


def _skew(snapshot: TrustDomainSnapshot) -> Condition:
    skew = snapshot.clock_skew
    if skew is None:
        return unknown("ClockSkew", "NotMeasured", "the API server's clock was not seen yet")
    if abs(skew) > MAX_SKEW:
        side = "ahead of" if skew > timedelta() else "behind"
        message = f"the operator's clock is more than {MAX_SKEW.seconds} s {side} the API server's"
        return true("ClockSkew", "ClocksDisagree", message)
    return false("ClockSkew", "ClocksAgree")


def _not_implemented(snapshot: TrustDomainSnapshot) -> list[Condition]:
    spec = snapshot.resource.spec
    if isinstance(spec, SpecError):
        return []
    fields = [
        name
        for name, used in (
            ("spec.identities.enforcement", spec.identities.enforcement == "Observe"),
            ("spec.identities.egress", spec.identities.egress == "Isolated"),
            ("spec.isolation", spec.isolation.mode != "None"),
            ("spec.identityProviders", bool(spec.identity_providers)),
            (
                "spec.certificateAuthority.rotation",
                spec.certificate_authority.rotation.requested_at is not None
                and _rotation_is_pending(snapshot, spec.certificate_authority.rotation.requested_at),
            ),
        )
        if used
    ]
    if not fields:
        return []
    return [true("NotImplementedYet", "FieldsWithoutEffect", f"have no effect in this version: {', '.join(fields)}")]


def _rotation_is_pending(snapshot: TrustDomainSnapshot, requested: datetime) -> bool:
    """A rotation replaces a lost authority already; of a healthy one it does not yet."""
    record, _ = _read_record(snapshot)
    active = record.active if record else None
    return active is not None and requested > active.certificate.not_valid_before_utc + authorities.BACKDATE


def _authority_status(one: Authority, snapshot: TrustDomainSnapshot, now: datetime) -> dict[str, Any]:
    key_id = profiles.subject_key_id(one.certificate)
    return {
        "id": one.id,
        "state": one.state,
        "notBefore": times.render(one.certificate.not_valid_before_utc),
        "notAfter": times.render(one.not_after),
        "subjectKeyId": key_id,
        "liveLeaves": sum(end > now for end in snapshot.leaf_ends.get(key_id, ())),
    }


def _transitions(observed: Sequence[Any], conditions: Sequence[Condition]) -> tuple[Event, ...]:
    """Warn once about each condition that turned bad, and tell once that Ready came back."""
    events = []
    for condition in conditions:
        before = find(observed, condition.type)
        if before is not None and (before.get("status"), before.get("reason")) == (condition.status, condition.reason):
            continue
        bad = (condition.type in ("Ready", "CertificateAuthorityHealthy") and condition.status == "False") or (
            condition.type in ("ClockSkew", "NotImplementedYet") and condition.status == "True"
        )
        if bad and not (
            condition.type == "Ready" and condition.reason == _reason_of(conditions, "CertificateAuthorityHealthy")
        ):
            events.append(Event("Warning", condition.reason, condition.message))
        elif condition.type == "Ready" and condition.status == "True" and before is not None:
            events.append(Event("Normal", "Ready", condition.message))
    return tuple(events)


def _reason_of(conditions: Sequence[Condition], type_: str) -> str:
    return next((condition.reason for condition in conditions if condition.type == type_), "")


def _wake(snapshot: TrustDomainSnapshot, step: _Step, now: datetime) -> datetime | None:
    """The next time at which the clock alone changes a condition, or a Secret outside the watch is read again."""
    spec = snapshot.resource.spec
    moments: list[datetime] = [now + REFRESH] if step.refresh else []
    active = step.record.active if step.record else None
    if active is not None and not isinstance(spec, SpecError):
        moments += [active.not_after - spec.identities.max_duration, active.not_after]
        requested = spec.certificate_authority.rotation.requested_at
        moments += [requested] if requested is not None else []
    return min((moment for moment in moments if moment > now), default=None)


@dataclass(frozen=True)
class BundleSnapshot:
    """What a decision about one namespace's trust bundle depends on; `trust_domain` is None once it is gone."""

    trust_domain: CustomResource[TrustDomainSpec] | None
    bundle: TrustBundle | None
    selected: bool
    ref: Ref
    observed: ConfigMap | None


def reconcile_bundle(snapshot: BundleSnapshot, now: datetime) -> Plan:
    """Return what to do for the trust bundle of one namespace: one ConfigMap, repaired when edited."""
    domain, observed, ref = snapshot.trust_domain, snapshot.observed, snapshot.ref
    ours = observed is not None and is_ours(observed)
    if domain is None or domain.meta.deleting:
        return Plan()  # the garbage collector removes what a TrustDomain owned
    if not snapshot.selected or isinstance(domain.spec, SpecError):
        if ours and observed is not None and not isinstance(domain.spec, SpecError):
            return Plan(deletes=(Delete(ref, observed.meta.uid),))
        return Plan()
    if observed is not None and not ours:
        return Plan(refresh=(ref,), requeue_at=now + REFRESH)
    if snapshot.bundle is None:
        return Plan()
    data: dict[str, str | None] = {PEM_KEY: snapshot.bundle.pem, SPIFFE_KEY: snapshot.bundle.document}
    data |= {key: None for key in (observed.data if observed else {}) if key not in data}
    manifest = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": ref.name,
            "namespace": ref.namespace,
            "labels": {naming.MANAGED_BY: naming.OPERATOR, naming.COMPONENT: naming.COMPONENT_TRUST_BUNDLE},
            "annotations": {
                naming.TRUST_DOMAIN: domain.meta.name,
                naming.BUNDLE_SEQUENCE: str(snapshot.bundle.sequence),
            },
            "ownerReferences": [owner_reference(domain)],
        },
        "data": data,
    }
    same = observed is not None and observed.meta.annotations.get(naming.BUNDLE_SEQUENCE) == str(
        snapshot.bundle.sequence
    )
    return Plan(applies=(Apply(manifest, repairs=same),))


def is_ours(observed: ConfigMap) -> bool:
    """Tell whether the operator made this ConfigMap, even if somebody took its labels off."""
    return (
        observed.meta.labels.get(naming.COMPONENT) == naming.COMPONENT_TRUST_BUNDLE
        and controller_uid(observed.meta) is None
    ) or any(owner.get("kind") == "TrustDomain" for owner in observed.meta.owners)


def owner_reference(resource: CustomResource[Any]) -> dict[str, Any]:
    """The owner reference by which the garbage collector removes a child with its owner."""
    return {
        "apiVersion": naming.API_VERSION,
        "kind": resource.meta.ref.kind,
        "name": resource.meta.name,
        "uid": resource.meta.uid,
    }
