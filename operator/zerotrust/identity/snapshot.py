"""What a decision about one ServiceIdentity depends on."""

from dataclasses import dataclass
from datetime import datetime

from zerotrust.common.errors import SpecError
from zerotrust.common.observed import CustomResource, Plain
from zerotrust.common.status import Finding
from zerotrust.identity.pods import PodMatch
from zerotrust.identity.resource import ServiceIdentitySpec
from zerotrust.pki.secret import ObservedSecret
from zerotrust.trustdomain.authority import Authority
from zerotrust.trustdomain.bundle import TrustBundle
from zerotrust.trustdomain.resource import TrustDomainSpec


@dataclass(frozen=True)
class TrustDomainView:
    """What an identity needs to know of its TrustDomain; `active` is None when there is nothing to sign with."""

    name: str
    spec: TrustDomainSpec | SpecError
    active: Authority | None
    bundle: TrustBundle | None
    created: datetime | None = None


@dataclass(frozen=True)
class IdentitySnapshot:
    """Everything a decision about one ServiceIdentity depends on.

    `elder` is the older identity for the same ServiceAccount, `secret_elder` the older one that claims the same Secret.
    `stale_secrets` are Secrets of this identity under other names, from before `secret.name` was changed. `isolated` are the
    directions that its network policy closes. `remembered_cutoff` is the cut-off that the operator remembers for the identity's
    SPIFFE ID, whoever asked for it. `pods` is None while pods are not watched. `violations` are objects that Gatekeeper found
    to be against what the identity asks for.
    """

    resource: CustomResource[ServiceIdentitySpec]
    namespace: Plain | None
    service_account_exists: bool
    trust_domain: TrustDomainView | None
    secret: ObservedSecret | None
    stale_secrets: tuple[ObservedSecret, ...] = ()
    elder: str | None = None
    secret_elder: str | None = None
    isolated: tuple[str, ...] = ()
    remembered_cutoff: datetime | None = None
    pods: PodMatch | None = None
    violations: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Failure:
    """The last attempts to carry a plan out failed; `attempts` since the last success."""

    message: str
    attempts: int
    next_attempt: datetime


def secret_name(resource: CustomResource[ServiceIdentitySpec]) -> str:
    """Name of the Secret that holds the identity's SVID."""
    name = resource.spec.secret.name if isinstance(resource.spec, ServiceIdentitySpec) else None
    return name or f"{resource.meta.name}-svid"


def service_account(resource: CustomResource[ServiceIdentitySpec]) -> str:
    """Name of the ServiceAccount that the identity is of."""
    name = resource.spec.service_account_name if isinstance(resource.spec, ServiceIdentitySpec) else None
    return name or resource.meta.name
