"""From what is observed of a ServiceIdentity to what should be done: one Secret, one status, the next time to look."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from zerotrust.common import naming, times
from zerotrust.common.errors import SelfCheckFailed, SpecError
from zerotrust.common.naming import Ref
from zerotrust.common.plan import Apply, Delete, Event, Outcome, Plan
from zerotrust.identity import renewal
from zerotrust.identity.renewal import Evidence, Issuer, Reason, Schedule, Wanted
from zerotrust.identity.resource import ServiceIdentitySpec
from zerotrust.identity.snapshot import Failure, IdentitySnapshot, TrustDomainView, secret_name
from zerotrust.identity.status import Standing, events_of, status_of
from zerotrust.identity.wanted import cutoffs, resolve
from zerotrust.pki import keys
from zerotrust.pki import secret as secrets
from zerotrust.pki import x509 as profiles
from zerotrust.pki.secret import ObservedSecret
from zerotrust.trustdomain.authority import Entropy, Signer
from zerotrust.trustdomain.bundle import TrustBundle
from zerotrust.trustdomain.distribution import owner_reference

REFRESH = timedelta(seconds=30)
PATIENCE = timedelta(seconds=5)
KEY_NOT_IN_DOUBT = ("Superseded", "CessationOfOperation", "PrivilegeWithdrawn")
FIRST_ISSUE = timedelta(hours=1)  # a Secret made for an older identity replaces one that was deleted, and is no latency


def key_is_slow(snapshot: IdentitySnapshot) -> bool:
    """Tell whether a new key would take so long that the plan must be made off the event loop."""
    wanted = resolve(snapshot, datetime.max.replace(tzinfo=UTC))
    return isinstance(wanted, Wanted) and keys.is_slow(wanted.key_algorithm)


def reconcile(snapshot: IdentitySnapshot, now: datetime, signer: Signer, entropy: Entropy) -> Plan:
    """Return what to do for a ServiceIdentity: issue or renew, repair the Secret, or say why not."""
    resource = snapshot.resource
    if resource.meta.deleting:
        return Plan()
    wanted = resolve(snapshot, now)
    if isinstance(wanted, Reason):
        return _refusal(snapshot, wanted, now)
    view = snapshot.trust_domain
    assert view is not None
    evidence = _evidence(snapshot, wanted, view, now)
    if evidence.issuer is None and _is_starting(snapshot, view, now):
        return Plan(requeue_at=now + PATIENCE)
    reason = renewal.first(renewal.ISSUE, evidence)
    blocked = _blocked(snapshot, view, evidence, now) if reason is not None else None
    if reason is not None and blocked is None:
        return _issue(snapshot, evidence, reason, signer, entropy)
    return _keep(snapshot, evidence, blocked, now)


def failed(snapshot: IdentitySnapshot, failure: Failure, now: datetime) -> Plan:
    """Return the status that tells of failing writes, judged by what is really there."""
    wanted = resolve(snapshot, now)
    view = snapshot.trust_domain
    if snapshot.resource.meta.deleting or isinstance(wanted, Reason) or view is None:
        return Plan()
    evidence = _evidence(snapshot, wanted, view, now)
    blocked = Reason("WriteFailed", failure.message)
    plan = _keep(snapshot, evidence, blocked, now)
    status = {
        **(plan.status or {}),
        "failedAttempts": failure.attempts,
        "nextAttemptTime": times.render(failure.next_attempt),
    }
    return replace(plan, applies=(), deletes=(), status=status, requeue_at=None)


def _evidence(snapshot: IdentitySnapshot, wanted: Wanted, view: TrustDomainView, now: datetime) -> Evidence:
    secret = snapshot.secret
    certificate = secret.certificate if secret is not None else None
    due = None
    if certificate is not None:
        due = renewal.schedule(snapshot.resource.meta.uid, _revision(secret), certificate, wanted.renew_before)
    issuer = None
    if view.active is not None and view.bundle is not None:
        active = view.active
        issuer = Issuer(active.id, active.certificate, active.not_after, view.bundle.roots)
    handled = times.parse_or_none(secret.meta.annotations.get(naming.ROTATION_HANDLED)) if secret is not None else None
    if handled is not None and handled > now:
        handled = None  # nothing was handled in the future: somebody has edited the annotation
    return Evidence(wanted, certificate, secret.problem if secret else "", issuer, due, handled, now)


def _is_starting(snapshot: IdentitySnapshot, view: TrustDomainView, now: datetime) -> bool:
    """A TrustDomain created a moment ago has no authority yet; that is not worth a status write and a warning."""
    return view.created is not None and now - view.created < PATIENCE and snapshot.secret is None


def _revision(secret: ObservedSecret | None) -> int:
    text = secret.meta.annotations.get(naming.REVISION, "") if secret is not None else ""
    return int(text) if text.isdecimal() and len(text) < 10 else 0


def _blocked(snapshot: IdentitySnapshot, view: TrustDomainView, evidence: Evidence, now: datetime) -> Reason | None:
    """Why nothing can be issued although something should be; what exists keeps working."""
    spec = snapshot.resource.spec
    if isinstance(spec, ServiceIdentitySpec) and spec.issuance == "Paused":
        return Reason("Paused", "spec.issuance is Paused")
    active = view.active
    if active is None or evidence.issuer is None:
        return Reason(
            "AuthorityNotReady", f"TrustDomain {view.name} has no authority that can sign; see its conditions"
        )
    if not active.usable(now):
        return Reason("AuthorityExpired", f"authority {active.id} of TrustDomain {view.name} is not valid now")
    return None


def _issue(snapshot: IdentitySnapshot, evidence: Evidence, reason: Reason, signer: Signer, entropy: Entropy) -> Plan:
    view, wanted, issuer = snapshot.trust_domain, evidence.wanted, evidence.issuer
    assert view is not None
    assert view.active is not None
    assert view.bundle is not None
    assert issuer is not None
    if not signer.holds(issuer.id):
        blocked = Reason(
            "AuthorityNotReady", f"the key of authority {issuer.id} is not readable; see TrustDomain {view.name}"
        )
        return _keep(snapshot, evidence, blocked, evidence.now)
    kept = _kept_key(snapshot, evidence)
    key = None if kept is not None else entropy.private_key(wanted.key_algorithm)  # type: ignore[arg-type]
    public_key = key.public_key() if key is not None else kept
    assert public_key is not None
    not_before, not_after = renewal.validity(wanted, issuer, evidence.now)
    profile = profiles.LeafProfile(
        wanted.spiffe_id, public_key, entropy.serial_number(), not_before, not_after, wanted.dns_names
    )
    leaf = signer.sign(issuer.id, profile)
    _self_check(leaf, profile, view, evidence.now)
    chain = profiles.write_pem(leaf, *view.active.intermediates)
    data = {secrets.CERTIFICATE: chain, **_bundle_data(view.bundle)}
    if key is not None:
        data[secrets.PRIVATE_KEY] = keys.to_pkcs8(key)
    revision = _revision(snapshot.secret) + 1
    annotations = {naming.REVISION: str(revision)}
    if wanted.rotation_requested_at is not None:
        annotations[naming.ROTATION_HANDLED] = wanted.rotation_requested_at.isoformat().replace("+00:00", "Z")
    facts = secrets.CertificateFacts(
        spiffe_ids=(str(wanted.spiffe_id),),
        dns_names=wanted.dns_names,
        serial_number=leaf.serial_number,
        not_before=not_before,
        not_after=not_after,
        key_algorithm=wanted.key_algorithm,
        issuer_key_id=profiles.key_id_in_children(issuer.certificate),
        key_matches=True,
        signs=False,
        pem=chain,
    )
    due = renewal.schedule(snapshot.resource.meta.uid, revision, facts, wanted.renew_before)
    standing = Standing(
        wanted.spiffe_id,
        facts,
        due,
        revision,
        issuer.id,
        None,
        cut_short=not_after == issuer.not_after,
        isolated=snapshot.isolated,
        pods=snapshot.pods,
        violations=snapshot.violations,
        revoked_before=wanted.revoked_before,
    )
    status = status_of(snapshot.resource, standing, secret_name(snapshot.resource), evidence.now)
    issued = Event(
        "Normal",
        "Issued",
        f"{reason.message}; issued revision {revision}, valid until {times.render(not_after)}",
        "Issue",
    )
    return Plan(
        applies=(Apply(_manifest(snapshot, view.bundle, data, annotations)),),
        deletes=_stale(snapshot),
        status=status,
        events=(issued, *events_of(snapshot.resource, status)),
        requeue_at=_wake(due, not_after, wanted, evidence.now),
        outcomes=_outcomes(snapshot, evidence, reason),
    )


def _outcomes(snapshot: IdentitySnapshot, evidence: Evidence, reason: Reason) -> tuple[Outcome, ...]:
    outcomes = [Outcome("issued", reason.word)]
    created = snapshot.resource.meta.created
    if reason.word == "DoesNotExist" and created is not None and evidence.now - created < FIRST_ISSUE:
        outcomes.append(Outcome("issue_seconds", "", max(0.0, (evidence.now - created).total_seconds())))
    if reason.word == "NearExpiry" and evidence.schedule is not None:
        lateness = (evidence.now - evidence.schedule.renewal).total_seconds()
        outcomes.append(Outcome("renewal_lateness_seconds", "", max(0.0, lateness)))
    return tuple(outcomes)


def _kept_key(snapshot: IdentitySnapshot, evidence: Evidence) -> keys.PublicKey | None:
    """With keyRotation Never, the present key is certified again; for that its public half is enough.

    Not when its certificate is revoked, unless the spec says that the key was not the reason.
    """
    spec, certificate = snapshot.resource.spec, evidence.certificate
    if isinstance(spec, SpecError) or spec.certificate.key_rotation == "Always" or certificate is None:
        return None
    if not certificate.key_matches or certificate.key_algorithm != evidence.wanted.key_algorithm:
        return None
    if renewal.revoked(evidence) is not None and not (spec.revocation and spec.revocation.reason in KEY_NOT_IN_DOUBT):
        return None
    return certificate.chain()[0].public_key()  # type: ignore[return-value]


def _self_check(leaf: Any, profile: profiles.LeafProfile, view: TrustDomainView, now: datetime) -> None:
    """Nothing is written that would not verify: right ID, right key, a chain to the bundle that goes with it."""
    assert view.active is not None
    assert view.bundle is not None
    try:
        profiles.verify_chain((leaf, *view.active.intermediates), view.bundle.roots, now)
    except profiles.ChainError as error:
        raise SelfCheckFailed(f"a new certificate does not verify: {error}") from None
    if profiles.parsed_id(leaf) != profile.spiffe_id or leaf.public_key() != profile.public_key:
        raise SelfCheckFailed("a new certificate does not certify what was asked for")


def _bundle_data(bundle: TrustBundle) -> dict[str, bytes]:
    return {secrets.AUTHORITIES: bundle.pem.encode(), secrets.SPIFFE_BUNDLE: bundle.document.encode()}


def _manifest(
    snapshot: IdentitySnapshot, bundle: TrustBundle, data: dict[str, bytes], annotations: dict[str, str]
) -> dict[str, Any]:
    resource = snapshot.resource
    assert isinstance(resource.spec, ServiceIdentitySpec)
    template, observed = resource.spec.secret, snapshot.secret
    owner = owner_reference(resource)
    owners = [dict(one) for one in observed.meta.owners if one.get("uid") != resource.meta.uid] if observed else []
    if resource.spec.deletion_policy == "Delete":
        owners.append(owner)
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {
            "name": secret_name(resource),
            "namespace": resource.meta.namespace,
            "labels": {
                **template.labels,
                naming.MANAGED_BY: naming.OPERATOR,
                naming.COMPONENT: naming.COMPONENT_SVID,
                naming.IDENTITY: resource.meta.name,
            },
            "annotations": {
                **template.annotations,
                naming.BUNDLE_SEQUENCE: str(bundle.sequence),
                **annotations,
            },
            "ownerReferences": owners or None,
        },
        "data": {key: secrets.encode(value) for key, value in data.items()},
    }


def _keep(snapshot: IdentitySnapshot, evidence: Evidence, blocked: Reason | None, now: datetime) -> Plan:
    """The certificate stays: keep what surrounds it true, and the status with it."""
    view, secret, certificate = snapshot.trust_domain, snapshot.secret, evidence.certificate
    assert view is not None
    applies: tuple[Apply, ...] = ()
    if secret is not None and view.bundle is not None:
        sequence = secret.meta.annotations.get(naming.BUNDLE_SEQUENCE)
        manifest = _manifest(snapshot, view.bundle, _bundle_data(view.bundle), {})
        applies = (Apply(manifest, repairs=sequence == str(view.bundle.sequence)),)
    unusable = renewal.first(renewal.UNUSABLE, evidence)
    standing = Standing(
        evidence.wanted.spiffe_id,
        certificate,
        evidence.schedule,
        _revision(secret),
        _authority_id(snapshot, certificate),
        blocked,
        unusable=unusable,
        cut_short=certificate is not None
        and evidence.issuer is not None
        and certificate.not_after == evidence.issuer.not_after,
        isolated=snapshot.isolated,
        pods=snapshot.pods,
        violations=snapshot.violations,
        revoked_before=evidence.wanted.revoked_before,
    )
    status = status_of(snapshot.resource, standing, secret_name(snapshot.resource), now)
    moments = [evidence.issuer.certificate.not_valid_before_utc] if evidence.issuer is not None else []
    if evidence.wanted.revocation_scheduled_at is not None:
        moments.append(evidence.wanted.revocation_scheduled_at)
    if certificate is not None and evidence.schedule is not None:
        due = _wake(evidence.schedule, certificate.not_after, evidence.wanted, now)
        moments += [due] if due is not None else []
    wake = min((moment for moment in moments if moment > now), default=None)
    return Plan(
        applies=applies,
        deletes=_stale(snapshot) if secret is not None and unusable is None else (),
        status=status,
        events=events_of(snapshot.resource, status),
        requeue_at=wake,
    )


def _authority_id(snapshot: IdentitySnapshot, certificate: secrets.CertificateFacts | None) -> str | None:
    view = snapshot.trust_domain
    if certificate is None or view is None or view.active is None:
        return None
    active = view.active
    return active.id if profiles.key_id_in_children(active.certificate) == certificate.issuer_key_id else None


def _refusal(snapshot: IdentitySnapshot, refused: Reason, now: datetime) -> Plan:
    known = cutoffs(snapshot)
    cutoff = max((moment for moment in known if moment <= now), default=None)
    standing = Standing(
        *(None, None, None, 0, None),
        blocked=refused,
        unusable=refused,
        isolated=snapshot.isolated,
        revoked_before=cutoff,
        pods=snapshot.pods,
        violations=snapshot.violations,
    )
    status = status_of(snapshot.resource, standing, secret_name(snapshot.resource), now)
    foreign = refused.word == "SecretConflict" and snapshot.secret is not None
    ref = Ref("Secret", snapshot.resource.meta.namespace, secret_name(snapshot.resource))
    moments = [moment for moment in known if moment > now] + ([now + REFRESH] if foreign else [])
    return Plan(
        status=status,
        events=events_of(snapshot.resource, status),
        refresh=(ref,) if foreign else (),
        requeue_at=min(moments, default=None),
    )


def _stale(snapshot: IdentitySnapshot) -> tuple[Delete, ...]:
    """Secrets under an earlier name go once the new one is there, unless the user wants Secrets retained."""
    spec = snapshot.resource.spec
    if isinstance(spec, SpecError) or spec.deletion_policy == "Retain":
        return ()
    return tuple(Delete(stale.meta.ref, stale.meta.uid) for stale in snapshot.stale_secrets)


def _wake(due: Schedule, not_after: datetime, wanted: Wanted, now: datetime) -> datetime | None:
    moments = [due.renewal, due.threshold, not_after]
    moments += [one for one in (wanted.rotation_scheduled_at, wanted.revocation_scheduled_at) if one is not None]
    return min((moment for moment in moments if moment > now), default=None)
