"""ServiceIdentity: this ServiceAccount is a workload identity. The CRD is generated from these models."""

import re
from datetime import timedelta
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from zerotrust.common.kind import Column, Kind, age_column, ready_column, reason_column
from zerotrust.common.naming import MANAGED_BY
from zerotrust.common.resource import (
    AccountName,
    AsMap,
    Between,
    LabelValue,
    OnlyTrue,
    Resource,
    Rule,
    SubdomainName,
    Timestamp,
    is_address_range,
)
from zerotrust.common.selectors import LabelSelector, Port, WorkloadReference
from zerotrust.common.status import Conditions, ViolationsStatus, conditions_field
from zerotrust.pki.keys import KeyAlgorithm
from zerotrust.trustdomain.resource import MAX_NAME as MAX_TRUST_DOMAIN
from zerotrust.trustdomain.resource import Cidr, LeafDuration

RenewBefore = Annotated[timedelta, Between("10s", "8760h")]
DnsName = Annotated[
    str,
    Field(
        max_length=253,
        pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?\.[a-z0-9]([-a-z0-9]*[a-z0-9])?\.svc(\.cluster\.local)?$",
    ),
]

_LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_RESERVED = "k.startsWith('zerotrust.dev/') || k.contains('.zerotrust.dev/')"


def _is_reserved(key: str) -> bool:
    return key.startswith("zerotrust.dev/") or ".zerotrust.dev/" in key


class Certificate(Resource):
    """How the workload's X.509-SVID is issued."""

    duration: LeafDuration | None = Field(
        default=None,
        description="Lifetime of each certificate; default: the TrustDomain's. Never beyond the authority's end.",
    )
    renew_before: RenewBefore | None = Field(
        default=None, description="Renew when this much of the lifetime is left, or a little earlier."
    )
    renew_before_percentage: Annotated[int, Field(ge=1, le=99)] | None = Field(
        default=None, description="Renew when this share of the lifetime is left; default: the TrustDomain's."
    )
    key_algorithm: KeyAlgorithm | None = Field(
        default=None, description="Kind of private key; default: the first that the TrustDomain allows."
    )
    key_rotation: Literal["Always", "Never"] = Field(
        default="Always", description="Always makes a new private key at each renewal; Never keeps the key."
    )
    dns_names: Annotated[list[DnsName], Field(max_length=16)] | None = Field(
        default=None,
        description="DNS names of Services of this namespace: <service>.<namespace>.svc or ….svc.cluster.local.",
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.renewBefore) || !has(self.duration) || duration(self.renewBefore) < duration(self.duration)",
            "renewBefore must be shorter than duration",
            lambda self: self.renew_before is None or self.duration is None or self.renew_before < self.duration,
        ),
        Rule(
            "!has(self.renewBefore) || !has(self.renewBeforePercentage)",
            "write renewBefore or renewBeforePercentage, not both",
            lambda self: self.renew_before is None or self.renew_before_percentage is None,
        ),
    )


class SecretTemplate(Resource):
    """The Secret that holds the SVID."""

    name: SubdomainName | None = Field(default=None, description="Name of the Secret; default: <name>-svid.")
    labels: Annotated[dict[str, LabelValue], Field(max_length=16), AsMap] = Field(
        default={}, description="Further labels of the Secret."
    )
    annotations: Annotated[dict[str, Annotated[str, Field(max_length=4096)]], Field(max_length=16), AsMap] = Field(
        default={}, description="Further annotations of the Secret."
    )
    formats: list[Literal["PKCS12"]] = Field(default=[], max_length=1, description="Further formats beside PEM.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"!has(self.labels) || !self.labels.exists(k, {_RESERVED} || k == '{MANAGED_BY}')",
            f"labels must not use zerotrust.dev/ or {MANAGED_BY}, which the operator sets itself",
            lambda self: not any(_is_reserved(key) or key == MANAGED_BY for key in self.labels),
        ),
        Rule(
            f"!has(self.annotations) || !self.annotations.exists(k, {_RESERVED})",
            "annotations must not use zerotrust.dev/, which the operator sets itself",
            lambda self: not any(_is_reserved(key) for key in self.annotations),
        ),
        Rule(
            "!has(self.labels) || self.labels.all(k, k.size() <= 317 &&"
            " k.matches('^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$'))",
            "labels must have valid label keys, for example team or example.org/team",
            lambda self: all(_LABEL_KEY.fullmatch(key) and len(key) <= 317 for key in self.labels),
        ),
        Rule(
            "!has(self.annotations) || self.annotations.all(k, k.size() <= 317 &&"
            " k.matches('^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$'))",
            "annotations must have valid keys, for example team or example.org/team",
            lambda self: all(_LABEL_KEY.fullmatch(key) and len(key) <= 317 for key in self.annotations),
        ),
    )


class PodPeer(Resource):
    """Pods that are no identity."""

    namespace_selector: LabelSelector | None = Field(default=None, description="Their namespaces; default: this one.")
    pod_selector: LabelSelector | None = Field(default=None, description="Their labels.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.namespaceSelector) || has(self.podSelector)",
            "write namespaceSelector, podSelector or both",
            lambda self: self.namespace_selector is not None or self.pod_selector is not None,
        ),
    )


class EgressRule(Resource):
    """A destination that is not an identity: exactly one of cidr, pods and kubernetesAPI."""

    cidr: Cidr | None = Field(default=None, description="An address range.")
    pods: PodPeer | None = Field(default=None, description="Pods without an identity.")
    kubernetes_api: OnlyTrue | None = Field(
        default=None, alias="kubernetesAPI", description="The Kubernetes API server; the only value is true."
    )
    ports: Annotated[list[Port], Field(max_length=16)] | None = Field(
        default=None, description="Ports; required with cidr and pods."
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(has(self.cidr) ? 1 : 0) + (has(self.pods) ? 1 : 0) + (has(self.kubernetesAPI) ? 1 : 0) == 1",
            "write exactly one of cidr, pods and kubernetesAPI: true",
            lambda self: sum(value is not None for value in (self.cidr, self.pods, self.kubernetes_api)) == 1,
        ),
        Rule(
            "!has(self.cidr) || isCIDR(self.cidr)",
            "cidr must be an address range, for example 10.20.0.0/16 or 2001:db8::/32",
            lambda self: self.cidr is None or is_address_range(self.cidr),
        ),
        Rule(
            "has(self.kubernetesAPI) || (has(self.ports) && self.ports.size() > 0)",
            "ports are required with cidr and pods; write for example ports: [{port: 443}]",
            lambda self: self.kubernetes_api is not None or bool(self.ports),
        ),
        Rule(
            "!has(self.kubernetesAPI) || !has(self.ports)",
            "kubernetesAPI takes no ports: they follow from the API server's endpoints",
            lambda self: self.kubernetes_api is None or self.ports is None,
        ),
    )


class Egress(Resource):
    """What the workload may connect to."""

    mode: Literal["Open", "Isolated"] | None = Field(default=None, description="Default: the TrustDomain's.")
    calls: Annotated[list[WorkloadReference], Field(max_length=64)] = Field(
        default=[], description="Servers in other namespaces that this workload agrees to call."
    )
    allow: Annotated[list[EgressRule], Field(max_length=64)] = Field(
        default=[], description="Destinations that are not identities."
    )


class Rotation(Resource):
    """A renewal before its time."""

    requested_at: Timestamp | None = Field(
        default=None, description="Renew once this time has come, if it is later than the last issue."
    )


class Revocation(Resource):
    """Certificates that must not be accepted any more."""

    before: Timestamp = Field(description="Every certificate that begins before this time is revoked; never lowered.")
    reason: Literal["Unspecified", "KeyCompromise", "Superseded", "CessationOfOperation", "PrivilegeWithdrawn"] = Field(
        default="Unspecified", description="Why (RFC 5280 §5.3.1)."
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.before >= oldSelf.before",
            "before is never lowered: certificates that are revoked stay revoked; write a later time",
        ),
    )


class ServiceIdentitySpec(Resource):
    """A ServiceAccount of this namespace is a workload identity."""

    service_account_name: AccountName | None = Field(
        default=None, description="The ServiceAccount; default: metadata.name; immutable."
    )
    trust_domain: Annotated[SubdomainName, Field(max_length=MAX_TRUST_DOMAIN)] | None = Field(
        default=None, description="The TrustDomain; default: the one marked default."
    )
    selector: LabelSelector | None = Field(
        default=None, description="The pods; default: zerotrust.dev/service-account with the ServiceAccount's name."
    )
    enforcement: Literal["Observe", "Enforce"] | None = Field(default=None, description="Default: the TrustDomain's.")
    certificate: Certificate = Field(default=Certificate(), description="How the certificate is issued.")
    secret: SecretTemplate = Field(default=SecretTemplate(), description="Where the SVID is kept.")
    egress: Egress | None = Field(default=None, description="What the workload may connect to.")
    rotation: Rotation = Field(default=Rotation(), description="Renewal before its time.")
    revocation: Revocation | None = Field(default=None, description="Revoke certificates.")
    issuance: Literal["Active", "Paused"] = Field(
        default="Active", description="Paused issues and renews nothing; what exists stays."
    )
    deletion_policy: Literal["Delete", "Retain"] = Field(
        default="Delete", description="What happens to the Secret when the ServiceIdentity is deleted."
    )


class ServiceIdentityStatus(Resource):
    """What is true about the identity; written by the operator only, never read by it."""

    observed_generation: int | None = Field(default=None, description="Generation of the spec that was judged.")
    spiffe_id: str | None = Field(default=None, alias="spiffeID", max_length=2048, description="The derived SPIFFE ID.")
    serial_number: str | None = Field(
        default=None, max_length=64, description="Serial number of the certificate, in hex."
    )
    not_before: Timestamp | None = Field(default=None, description="When the certificate became valid.")
    not_after: Timestamp | None = Field(default=None, description="When the certificate expires.")
    renewal_time: Timestamp | None = Field(default=None, description="When it will be renewed.")
    revoked_before: Timestamp | None = Field(
        default=None,
        description="Certificates from before this time are revoked, whether the spec still says so or not.",
    )
    revision: int | None = Field(default=None, ge=0, description="How many certificates were issued.")
    authority_id: str | None = Field(default=None, alias="authorityID", max_length=64, description="Who signed it.")
    secret_name: str | None = Field(default=None, max_length=253, description="The Secret that holds it.")
    next_attempt_time: Timestamp | None = Field(default=None, description="When a failed issue is tried again.")
    failed_attempts: int | None = Field(default=None, ge=0, description="Failures since the last success.")
    violations: ViolationsStatus | None = Field(
        default=None, description="Objects that Gatekeeper's audit found to be against what the identity asks for."
    )
    conditions: Conditions = conditions_field()


KIND = Kind(
    name="ServiceIdentity",
    plural="serviceidentities",
    short_name="svid",
    namespaced=True,
    description="A workload identity: an X.509-SVID for a ServiceAccount, kept in a Secret and renewed early.",
    spec=ServiceIdentitySpec,
    status=ServiceIdentityStatus,
    columns=(
        ready_column(),
        Column("SPIFFE-ID", "string", ".status.spiffeID", "The derived SPIFFE ID."),
        Column("Not-After", "string", ".status.notAfter", "When the certificate expires."),
        Column("Renewal", "string", ".status.renewalTime", "When it will be renewed."),
        reason_column(),
        age_column(),
    ),
    rules=(
        Rule(
            "self.metadata.name.size() <= 63",
            "metadata.name has at most 63 characters, because it is used as a label value",
        ),
        Rule(
            "(has(self.spec.serviceAccountName) ? self.spec.serviceAccountName : self.metadata.name) =="
            " (has(oldSelf.spec.serviceAccountName) ? oldSelf.spec.serviceAccountName : oldSelf.metadata.name)",
            "serviceAccountName is immutable, because the SPIFFE ID is derived from it; create another ServiceIdentity",
        ),
    ),
)
