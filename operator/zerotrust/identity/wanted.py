"""What certificate an identity should have: its spec resolved against its TrustDomain, or the reason why it gets none."""

from datetime import datetime, timedelta

from zerotrust.common import durations, naming, times
from zerotrust.common.errors import SpecError
from zerotrust.common.observed import CustomResource, controller_uid
from zerotrust.common.requests import asked_at
from zerotrust.identity.renewal import Reason, Wanted
from zerotrust.identity.resource import ServiceIdentitySpec
from zerotrust.identity.snapshot import IdentitySnapshot, secret_name, service_account
from zerotrust.pki.secret import ObservedSecret
from zerotrust.pki.spiffe import SpiffeID
from zerotrust.trustdomain.resource import TrustDomainSpec


def resolve(snapshot: IdentitySnapshot, now: datetime) -> Wanted | Reason:
    """Return what the certificate should be, or why the identity gets none whatever its Secret looks like."""
    return _refused(snapshot) or _wanted(snapshot, now)


def _refused(snapshot: IdentitySnapshot) -> Reason | None:
    """Why this identity gets nothing at all, whatever its Secret looks like."""
    resource, view = snapshot.resource, snapshot.trust_domain
    if isinstance(resource.spec, SpecError):
        return Reason("InvalidSpec", str(resource.spec))
    account = service_account(resource)
    if snapshot.elder is not None:
        return Reason(
            "DuplicateIdentity",
            f"ServiceIdentity {snapshot.elder} is older and is for ServiceAccount {account} already; delete one of them",
        )
    if view is None:
        name = resource.spec.trust_domain
        text = (
            f"TrustDomain {name} does not exist; create it or correct spec.trustDomain"
            if name
            else "no TrustDomain is marked default: name one in spec.trustDomain, or set spec.default on one"
        )
        return Reason("TrustDomainNotFound", text)
    if isinstance(view.spec, SpecError):
        return Reason("TrustDomainInvalid", f"TrustDomain {view.name}: {view.spec}")
    if not _allowed(snapshot, view.spec):
        return Reason(
            "NamespaceNotAllowed",
            f"TrustDomain {view.name} does not allow namespace {resource.meta.namespace}; see its spec.allowedNamespaces",
        )
    if not snapshot.service_account_exists:
        return Reason("ServiceAccountNotFound", f"ServiceAccount {account} does not exist in this namespace; create it")
    return _conflict(snapshot)


def _conflict(snapshot: IdentitySnapshot) -> Reason | None:
    """The Secret belongs to somebody else: it is reported and never touched (invariants I12 and I14)."""
    name, secret = secret_name(snapshot.resource), snapshot.secret
    if snapshot.secret_elder is not None:
        return Reason("SecretConflict", f"Secret {name} belongs to the older ServiceIdentity {snapshot.secret_elder}")
    if secret is None or _is_ours(snapshot, secret):
        return None
    if secret.type != "kubernetes.io/tls":
        detail = f"has type {secret.type}"
    elif secret.meta.labels.get(naming.IDENTITY, snapshot.resource.meta.name) != snapshot.resource.meta.name:
        detail = f"belongs to ServiceIdentity {secret.meta.labels[naming.IDENTITY]}"
    else:
        detail = "was not made by this operator"
    return Reason("SecretConflict", f"Secret {name} exists and {detail}; delete it or choose another spec.secret.name")


def _is_ours(snapshot: IdentitySnapshot, secret: ObservedSecret) -> bool:
    """Ours is what we own by reference, or what carries our labels for this identity and nobody controls."""
    meta, resource = secret.meta, snapshot.resource.meta
    if secret.type != "kubernetes.io/tls" or controller_uid(meta) not in (None, resource.uid):
        return False
    if any(owner.get("uid") == resource.uid for owner in meta.owners):
        return True
    mine = {
        naming.MANAGED_BY: naming.OPERATOR,
        naming.COMPONENT: naming.COMPONENT_SVID,
        naming.IDENTITY: resource.name,
    }
    return all(meta.labels.get(key) == value for key, value in mine.items())


def _allowed(snapshot: IdentitySnapshot, spec: TrustDomainSpec) -> bool:
    selection = spec.allowed_namespaces
    if selection.all:
        return True
    labels = snapshot.namespace.meta.labels if snapshot.namespace else {}
    return selection.selector is not None and selection.selector.matches(labels)


def _wanted(snapshot: IdentitySnapshot, now: datetime) -> Wanted | Reason:
    """Resolve the spec against the TrustDomain's defaults and limits."""
    resource, view = snapshot.resource, snapshot.trust_domain
    spec = resource.spec
    if isinstance(spec, SpecError) or view is None or isinstance(view.spec, SpecError):
        return Reason("InvalidSpec", str(spec))
    limits, asked = view.spec.identities, spec.certificate
    duration, renew_before = asked_times(spec, view.spec)
    if duration > limits.max_duration:
        return Reason(
            "InvalidSpec",
            f"spec.certificate.duration: {durations.render(duration)} is longer than the maxDuration"
            f" {durations.render(limits.max_duration)} of TrustDomain {view.name}",
        )
    if renew_before >= duration:
        return Reason(
            "InvalidSpec",
            f"spec.certificate.renewBefore: must be shorter than the lifetime {durations.render(duration)}"
            f" that TrustDomain {view.name} gives by default",
        )
    algorithm = asked.key_algorithm or limits.key_algorithms[0]
    if algorithm not in limits.key_algorithms:
        return Reason(
            "InvalidSpec",
            f"spec.certificate.keyAlgorithm: TrustDomain {view.name} allows {', '.join(limits.key_algorithms)}",
        )
    for name in asked.dns_names or ():
        if name.removesuffix(".cluster.local").split(".")[1] != resource.meta.namespace:
            return Reason(
                "InvalidSpec",
                f"spec.certificate.dnsNames: {name} is not in namespace {resource.meta.namespace};"
                f" write <service>.{resource.meta.namespace}.svc",
            )
    both = (spec.rotation.requested_at, asked_at(resource.meta, naming.ROTATE_REQUESTED))
    requests = [moment for moment in both if moment is not None]
    known = cutoffs(snapshot)
    return Wanted(
        spiffe_id=SpiffeID.of_service_account(
            view.name, resource.meta.namespace, service_account(resource), view.spec.cluster_name
        ),
        dns_names=tuple(dict.fromkeys(asked.dns_names or ())),
        key_algorithm=algorithm,
        duration=duration,
        renew_before=renew_before,
        rotation_requested_at=max((moment for moment in requests if moment <= now), default=None),
        rotation_scheduled_at=min((moment for moment in requests if moment > now), default=None),
        revoked_before=max((moment for moment in known if moment <= now), default=None),
        revocation_scheduled_at=min((moment for moment in known if moment > now), default=None),
    )


def asked_times(spec: ServiceIdentitySpec, domain: TrustDomainSpec) -> tuple[timedelta, timedelta]:
    """Return how long a certificate is to live, and how long before its end it is to be renewed; limits are not looked at."""
    asked, defaults = spec.certificate, domain.identities
    duration = asked.duration or defaults.duration
    percentage = asked.renew_before_percentage or defaults.renew_before_percentage
    return duration, asked.renew_before or duration * percentage / 100


def asked_cutoff(resource: CustomResource[ServiceIdentitySpec]) -> datetime | None:
    """Return the later of the cut-offs that the spec and the annotation `zerotrust.dev/revoke-before` ask for."""
    spec, annotated = resource.spec, asked_at(resource.meta, naming.REVOKE_BEFORE)
    written = spec.revocation.before if isinstance(spec, ServiceIdentitySpec) and spec.revocation is not None else None
    return max((one for one in (written, annotated) if one is not None), default=None)


def cutoffs(snapshot: IdentitySnapshot) -> tuple[datetime, ...]:
    """The cut-offs that are asked for and that the operator remembers, rounded up: certificates count whole seconds.

    Both count, so a revocation that was removed or lowered, or whose ServiceIdentity was created anew, stays in force.
    """
    known = (asked_cutoff(snapshot.resource), snapshot.remembered_cutoff)
    return tuple(times.next_whole_second(one) for one in known if one is not None)
