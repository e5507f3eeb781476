"""From what is observed of a TrustDomain to what should be done: authority, record, status.

Distribution of the bundle to namespaces is in `distribution`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from zerotrust.common import naming, times
from zerotrust.common.conditions import Condition, false, find, merge, true, unknown
from zerotrust.common.errors import SpecError
from zerotrust.common.naming import Ref
from zerotrust.common.observed import CustomResource
from zerotrust.common.plan import Apply, Event, Plan
from zerotrust.pki import secret as secrets
from zerotrust.pki import x509 as profiles
from zerotrust.pki.keys import to_pkcs8
from zerotrust.pki.secret import ObservedSecret
from zerotrust.trustdomain import authority as authorities
from zerotrust.trustdomain import providers
from zerotrust.trustdomain.authority import Authority, Entropy, NewerRecord, Record, RecordUnreadable
from zerotrust.trustdomain.providers import ProviderKeys
from zerotrust.trustdomain.resource import TrustDomainSpec

MAX_SKEW = timedelta(seconds=30)
REFRESH = timedelta(seconds=30)
MAX_BLOCKED = 64


@dataclass(frozen=True)
class BundleTargets:
    """How far the trust bundle has come: selected namespaces, those that carry it, those that cannot, and how many more would be
    selected if they were watched.
    """

    selected: int = 0
    carrying: int = 0
    blocked: tuple[tuple[str, str], ...] = ()
    unwatched: int = 0


@dataclass(frozen=True)
class TrustDomainSnapshot:
    """Everything a decision about one TrustDomain depends on.

    `authority_secrets` are ours in the operator's namespace; `brought` is the one that `secretName` names.
    `clock_skew` is local time minus the API server's, None while unknown. `leaf_ends` has the notAfter of every leaf in a
    Secret, by the key id of its issuer. `published_sequence` is the highest that any namespace's trust bundle shows.
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
    published_sequence: int = 0
    providers: tuple[ProviderKeys, ...] = ()

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
    record = _read_record(snapshot)[0]
    step = _Step(record, unknown("CertificateAuthorityHealthy", "WriteFailed", message))
    plan = _plan(snapshot, now, step, None if record else false("Ready", "WriteFailed", message))
    return Plan(status=plan.status)


def _read_record(snapshot: TrustDomainSnapshot) -> tuple[Record | None, str, bool]:
    """Return the record, or what is wrong with it, and whether it is one of a newer version."""
    if snapshot.record is None:
        return None, "", False
    try:
        return Record.from_json(snapshot.record.public.get(secrets.RECORD, b"")), "", False
    except RecordUnreadable as error:
        problem = f"Secret {snapshot.record.meta.namespace}/{snapshot.record.meta.name} {error}"
        return None, problem, isinstance(error, NewerRecord)


def _authority(snapshot: TrustDomainSnapshot, spec: TrustDomainSpec, now: datetime, entropy: Entropy) -> _Step:
    record, unreadable, newer = _read_record(snapshot)
    hint = round(spec.bundle.refresh_hint.total_seconds())
    if spec.certificate_authority.source == "Secret":
        return _brought(snapshot, spec, record, hint)
    own, broken = _own_authorities(snapshot)
    if record is not None:
        kept = record.settled(hint)
        active = record.active
        if active is not None and active.source == "Secret":
            if not own:
                return _created(snapshot, spec, record, now, entropy)
            newest = max(own.values(), key=lambda one: one.certificate.not_valid_before_utc)
            kept = record.activated(newest).settled(hint)
        elif active is None or active.id not in own:
            return _lost(snapshot, spec, kept, broken, now, entropy)
        return _Step(kept, true("CertificateAuthorityHealthy", "Active"), _record_apply(snapshot, record, kept))
    if unreadable and (not own or newer):
        return _Step(None, false("CertificateAuthorityHealthy", "RecordUnreadable", unreadable))
    if broken and not own:
        return _Step(None, false("CertificateAuthorityHealthy", "AuthorityUnreadable", broken))
    if own:  # the record was lost, or a crash came between the two first writes: nothing is made anew, no key is lost
        newest = max(own.values(), key=lambda one: one.certificate.not_valid_before_utc)
        others = tuple(replace(one, state="Retiring") for one in own.values() if one.id != newest.id)
        adopted = authorities.adopted_record((newest, *others), hint, snapshot.published_sequence)
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
        brought = replace(authorities.from_secret(snapshot.brought), source="Secret")
    except ValueError as error:
        condition = false("CertificateAuthorityHealthy", "AuthorityUnreadable", f"{place}: {error}")
        return _Step(record, condition, refresh=(ref,))
    if record is None:
        after = authorities.first_record(brought, hint)
    elif _is_active(record, brought):
        after = record.settled(hint)
    else:
        after = record.activated(brought).settled(hint)
    condition = true("CertificateAuthorityHealthy", "Active")
    return _Step(after, condition, _record_apply(snapshot, record, after), refresh=(ref,))


def _is_active(record: Record, brought: Authority) -> bool:
    active = record.active
    return (
        active is not None
        and (active.chain, active.source) == (brought.chain, brought.source)
        and set(brought.roots) <= set(active.roots)
    )


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
    start = active.certificate.not_valid_before_utc
    if now < start:
        message = f"authority {active.id} is not valid before {times.render(start)}; nothing can be signed until then"
        condition = false("CertificateAuthorityHealthy", "AuthorityNotYetValid", message)
    elif now >= active.not_after:
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
    if snapshot.providers:
        conditions.append(providers.condition(snapshot.providers, now))
    conditions += _not_implemented(snapshot, step.record)
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
    return true("Ready", "Operational", "the authority signs")


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
    rest = f"; {targets.unwatched} more are selected, and the operator does not watch them" if targets.unwatched else ""
    return true("BundlePublished", "Published", f"all {targets.selected} selected namespaces carry it{rest}")


def _skew(snapshot: TrustDomainSnapshot) -> Condition:
    skew = snapshot.clock_skew
    if skew is None:
        return unknown("ClockSkew", "NotMeasured", "the API server's clock was not seen yet")
    if abs(skew) > MAX_SKEW:
        side = "ahead of" if skew > timedelta() else "behind"
        message = f"the operator's clock is more than {MAX_SKEW.seconds} s {side} the API server's"
        return true("ClockSkew", "ClocksDisagree", message)
    return false("ClockSkew", "ClocksAgree")


def _not_implemented(snapshot: TrustDomainSnapshot, record: Record | None) -> list[Condition]:
    spec = snapshot.resource.spec
    if isinstance(spec, SpecError):
        return []
    fields = [
        name
        for name, used in (
            (
                "spec.certificateAuthority.rotation",
                spec.certificate_authority.rotation.requested_at is not None
                and _rotation_is_pending(record, spec.certificate_authority.rotation.requested_at),
            ),
        )
        if used
    ]
    if not fields:
        return []
    return [true("NotImplementedYet", "FieldsWithoutEffect", f"have no effect in this version: {', '.join(fields)}")]


def _rotation_is_pending(record: Record | None, requested: datetime) -> bool:
    """A rotation replaces a lost authority already; of a healthy one it does not yet."""
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
        watched = ("Ready", "CertificateAuthorityHealthy", providers.CONDITION)
        bad = (condition.type in watched and condition.status == "False") or (
            condition.type in ("ClockSkew", "NotImplementedYet") and condition.status == "True"
        )
        if bad and not (condition.type == "Ready" and condition.reason == _told_of_authority(conditions)):
            events.append(Event("Warning", condition.reason, condition.message))
        elif condition.type == "Ready" and condition.status == "True" and before is not None:
            events.append(Event("Normal", "Ready", condition.message))
        elif condition.type == providers.CONDITION and before is not None and before.get("status") == "False":
            events.append(Event("Normal", condition.reason, condition.message))
    return tuple(events)


def _told_of_authority(conditions: Sequence[Condition]) -> str:
    """The reason for which the authority's own condition is False: one warning is enough."""
    own = (one for one in conditions if (one.type, one.status) == ("CertificateAuthorityHealthy", "False"))
    return next((one.reason for one in own), "")


def _wake(snapshot: TrustDomainSnapshot, step: _Step, now: datetime) -> datetime | None:
    """The next time at which the clock alone changes a condition, or a Secret outside the watch is read again."""
    spec = snapshot.resource.spec
    moments = [*([now + REFRESH] if step.refresh else []), *providers.ends(snapshot.providers)]
    active = step.record.active if step.record else None
    if active is not None and not isinstance(spec, SpecError):
        start = active.certificate.not_valid_before_utc
        moments += [start, active.not_after - spec.identities.max_duration, active.not_after]
        requested = spec.certificate_authority.rotation.requested_at
        moments += [requested] if requested is not None else []
    return min((moment for moment in moments if moment > now), default=None)
