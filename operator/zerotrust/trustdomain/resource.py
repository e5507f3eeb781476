"""TrustDomain: which authority vouches for workloads, with which defaults. The CRD is generated from these models."""

from datetime import timedelta
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from zerotrust.common.kind import Column, Kind, age_column, ready_column, reason_column
from zerotrust.common.resource import (
    Between,
    DnsLabel,
    OnlyTrue,
    Resource,
    Rule,
    SubdomainName,
    Timestamp,
    count_of,
    exactly_one,
    is_address_range,
)
from zerotrust.common.selectors import LabelSelector, Port
from zerotrust.common.status import Conditions, conditions_field
from zerotrust.pki.keys import KeyAlgorithm

AuthorityDuration = Annotated[timedelta, Between("1h", "175200h")]
LeafDuration = Annotated[timedelta, Between("1m", "8760h")]
MAX_NAME = 200  # leaves room for the names of the children, which are at most 253 long

Cidr = Annotated[str, Field(max_length=43, pattern=r"^[0-9a-fA-F.:]+/[0-9]{1,3}$")]
# The characters of RFC 3986 without user, query and fragment, listed because regular expressions differ on what a space is.
HTTPS_URL = r"^https://[-A-Za-z0-9._~%:\[\]]+(/[-A-Za-z0-9._~%:\[\]@!$&'()*+,;=/]*)?$"
HttpsUrl = Annotated[str, Field(max_length=2048, pattern=HTTPS_URL)]


class NamespaceSelection(Resource):
    """Which namespaces: all of them, or those with certain labels."""

    all: OnlyTrue | None = Field(default=None, description="Every namespace; the only value is true.")
    selector: LabelSelector | None = Field(default=None, description="Namespaces with these labels.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            exactly_one("all", "selector"),
            "write exactly one of all: true and selector",
            lambda self: count_of(self.all, self.selector) == 1,
        ),
    )


class BundleNamespaces(Resource):
    """Which namespaces get the trust bundle."""

    with_identities: OnlyTrue | None = Field(
        default=None, description="Namespaces that have a ServiceIdentity of this trust domain; the only value is true."
    )
    all: OnlyTrue | None = Field(default=None, description="Every namespace; the only value is true.")
    selector: LabelSelector | None = Field(default=None, description="Namespaces with these labels.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            exactly_one("withIdentities", "all", "selector"),
            "write exactly one of withIdentities: true, all: true and selector",
            lambda self: count_of(self.with_identities, self.all, self.selector) == 1,
        ),
    )


class AuthorityRotation(Resource):
    """A rotation of the certificate authority."""

    requested_at: Timestamp | None = Field(
        default=None, description="Rotate once this time has come, if it is later than the last rotation."
    )


class CertificateAuthority(Resource):
    """Which certificate authority signs the trust domain's identities."""

    source: Literal["SelfSigned", "Secret"] = Field(
        default="SelfSigned",
        description="SelfSigned makes and keeps its own authority; Secret uses an intermediate that you bring.",
    )
    secret_name: SubdomainName | None = Field(
        default=None,
        description="Secret of type kubernetes.io/tls in the operator's namespace: tls.crt, tls.key, ca.crt (the root).",
    )
    duration: AuthorityDuration = Field(
        default=timedelta(hours=17520), description="Lifetime of a self-signed authority."
    )
    key_algorithm: KeyAlgorithm = Field(default="ECDSA-P256", description="Key of a self-signed authority.")
    rotation: AuthorityRotation = Field(default=AuthorityRotation(), description="When to replace the authority.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.secretName) == (has(self.source) && self.source == 'Secret')",
            "secretName belongs to source: Secret, and only to it",
            lambda self: (self.secret_name is not None) == (self.source == "Secret"),
        ),
    )


class IdentityDefaults(Resource):
    """What identities of the trust domain get and may ask for."""

    duration: LeafDuration = Field(default=timedelta(hours=24), description="Default lifetime of a certificate.")
    max_duration: LeafDuration = Field(default=timedelta(hours=2160), description="Longest lifetime that is signed.")
    renew_before_percentage: int = Field(
        default=33, ge=1, le=99, description="Renew when this share of the lifetime is left."
    )
    key_algorithms: list[KeyAlgorithm] = Field(
        default=["ECDSA-P256"],
        min_length=1,
        max_length=5,
        description="Key algorithms that a ServiceIdentity may ask for; the first is the default.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    enforcement: Literal["Observe", "Enforce"] = Field(default="Enforce", description="Default for identities.")
    egress: Literal["Open", "Isolated"] = Field(default="Open", description="Default egress mode of identities.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.duration) || !has(self.maxDuration) || duration(self.duration) <= duration(self.maxDuration)",
            "duration must not be longer than maxDuration",
            lambda self: self.duration <= self.max_duration,
        ),
        Rule(
            "!has(self.keyAlgorithms) || self.keyAlgorithms.all(a, self.keyAlgorithms.exists_one(b, b == a))",
            "keyAlgorithms names each algorithm once",
            lambda self: len(set(self.key_algorithms)) == len(self.key_algorithms),
        ),
    )


class BundleDistribution(Resource):
    """Where the trust bundle goes and how often consumers read it again."""

    namespaces: BundleNamespaces = Field(
        default=BundleNamespaces(with_identities=True), description="Namespaces that get the ConfigMap."
    )
    refresh_hint: Annotated[timedelta, Between("1m", "24h")] = Field(
        default=timedelta(minutes=5), description="How often consumers should read the bundle again."
    )


class Isolation(Resource):
    """Which namespaces get a default-deny NetworkPolicy."""

    mode: Literal["None", "Selected", "All"] = Field(default="None", description="None, Selected or All.")
    selector: LabelSelector | None = Field(default=None, description="The namespaces, with mode: Selected.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.selector) == (has(self.mode) && self.mode == 'Selected')",
            "selector belongs to mode: Selected, and only to it",
            lambda self: (self.selector is not None) == (self.mode == "Selected"),
        ),
    )


class Dns(Resource):
    """Where isolated workloads resolve names."""

    namespace_selector: LabelSelector = Field(
        default=LabelSelector(match_labels={"kubernetes.io/metadata.name": "kube-system"}),
        description="Namespaces of the DNS servers.",
    )
    pod_selector: LabelSelector = Field(
        default=LabelSelector(match_labels={"k8s-app": "kube-dns"}), description="Pods of the DNS servers."
    )
    cidrs: list[Cidr] = Field(
        default=["169.254.20.10/32"], max_length=16, description="Addresses of node-local caches."
    )
    ports: list[Port] = Field(
        default=[Port(port=53, protocol="UDP"), Port(port=53, protocol="TCP")],
        min_length=1,
        max_length=8,
        description="Ports of the DNS servers.",
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.cidrs) || self.cidrs.all(one, isCIDR(one))",
            "cidrs must be address ranges, for example 169.254.20.10/32 or fd00:10::10/128",
            lambda self: all(map(is_address_range, self.cidrs)),
        ),
    )


class IdentityProvider(Resource):
    """An OIDC issuer that TrustPolicies may name."""

    name: DnsLabel = Field(description="Name that TrustPolicies use.")
    issuer: HttpsUrl = Field(description="The exact `iss` claim of its tokens.")
    algorithms: list[
        Literal["RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "EdDSA"]
    ] = Field(min_length=1, max_length=10, description="Signature algorithms that are accepted.")
    jwks_uri: HttpsUrl | None = Field(
        default=None, alias="jwksURI", description="Where its keys are read; default: as its discovery document says."
    )
    jwks: Annotated[str, Field(min_length=2, max_length=65536)] | None = Field(
        default=None, description="Its keys, inline (a JWK Set as JSON)."
    )
    ca_bundle: Annotated[str, Field(max_length=65536)] | None = Field(
        default=None, description="PEM certificates that its servers are verified against; default: the system's."
    )
    leeway: Annotated[timedelta, Between("0s", "5m")] = Field(
        default=timedelta(seconds=60), description="Clock difference that is forgiven."
    )
    max_stale: Annotated[timedelta, Between("1m", "168h")] = Field(
        default=timedelta(hours=24), description="How long keys that cannot be read again stay in use."
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!(has(self.jwksURI) && has(self.jwks))",
            "write at most one of jwksURI and jwks; without either, the issuer's discovery document says where its keys are",
            lambda self: count_of(self.jwks_uri, self.jwks) <= 1,
        ),
    )


class PolicyBundles(Resource):
    """How long decision points may use what they downloaded."""

    validity: Annotated[timedelta, Between("1m", "720h")] = Field(
        default=timedelta(hours=24), description="How long policy data may be used without news."
    )
    revocation_validity: Annotated[timedelta, Between("1m", "720h")] = Field(
        default=timedelta(hours=1), description="How long revocations may be used without news."
    )
    on_stale_revocations: Literal["Deny", "Allow"] = Field(
        default="Deny", description="What is decided when revocations are too old."
    )


class TrustDomainSpec(Resource):
    """Which authority vouches for workloads, and with which defaults."""

    default: bool = Field(default=False, description="Used where a ServiceIdentity names no trust domain; at most one.")
    cluster_name: Annotated[str, Field(max_length=63, pattern=r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$")] = Field(
        default="", description="Puts /cluster/<name> into every ID, for several clusters in one domain; immutable."
    )
    allowed_namespaces: NamespaceSelection = Field(
        default=NamespaceSelection(all=True), description="Namespaces that may have identities."
    )
    certificate_authority: CertificateAuthority = Field(
        default=CertificateAuthority(), description="The certificate authority."
    )
    identities: IdentityDefaults = Field(default=IdentityDefaults(), description="Defaults and limits for identities.")
    bundle: BundleDistribution = Field(default=BundleDistribution(), description="Distribution of the trust bundle.")
    isolation: Isolation = Field(default=Isolation(), description="Default-deny NetworkPolicies.")
    dns: Dns = Field(default=Dns(), description="Where isolated workloads resolve names.")
    identity_providers: list[IdentityProvider] = Field(
        default=[],
        max_length=16,
        description="OIDC issuers that TrustPolicies may name.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    policy_bundles: PolicyBundles = Field(default=PolicyBundles(), description="Freshness of policy data.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.certificateAuthority) || !has(self.certificateAuthority.duration) || !has(self.identities) ||"
            " !has(self.identities.maxDuration) || duration(self.certificateAuthority.duration) >= "
            + " + ".join(6 * ["duration(self.identities.maxDuration)"]),  # CEL cannot multiply a duration
            "certificateAuthority.duration must be at least 6 times identities.maxDuration,"
            " or leaves would be cut short by the authority's end",
            lambda self: self.certificate_authority.duration >= 6 * self.identities.max_duration,
        ),
        Rule(
            "(has(self.clusterName) ? self.clusterName : '') == (has(oldSelf.clusterName) ? oldSelf.clusterName : '')",
            "clusterName is immutable, because every SPIFFE ID contains it; create another TrustDomain instead",
        ),
        Rule(
            "!has(self.identityProviders) ||"
            " self.identityProviders.all(a, self.identityProviders.exists_one(b, b.name == a.name))",
            "identityProviders have unique names",
            lambda self: len({provider.name for provider in self.identity_providers}) == len(self.identity_providers),
        ),
        Rule(
            "!has(self.identityProviders) ||"
            " self.identityProviders.all(a, self.identityProviders.exists_one(b, b.issuer == a.issuer))",
            "identityProviders have unique issuers, or nobody could tell which of them vouches for a token",
            lambda self: len({provider.issuer for provider in self.identity_providers}) == len(self.identity_providers),
        ),
    )


class AuthorityStatus(Resource):
    """One certificate authority of the trust domain."""

    id: str = Field(max_length=64, description="Short name, from the hash of its public key.")
    state: Literal["Prepared", "Published", "Active", "Retiring", "Pruned"] = Field(description="Where its life is.")
    not_before: Timestamp | None = Field(default=None, description="When it became valid.")
    not_after: Timestamp | None = Field(default=None, description="When it expires.")
    subject_key_id: str = Field(default="", max_length=128, description="Subject key identifier, in hex.")
    live_leaves: int = Field(default=0, ge=0, description="Unexpired certificates that chain to it.")


class BlockedNamespace(Resource):
    """A selected namespace that cannot get the bundle."""

    namespace: str = Field(max_length=63, description="The namespace.")
    reason: str = Field(default="", max_length=1024, description="Why.")


class BundleStatus(Resource):
    """The distributed trust bundle."""

    sequence: int = Field(default=0, ge=0, description="spiffe_sequence: grows with every change.")
    hash: str = Field(default="", max_length=64, description="SHA-256 of bundle.pem.")
    namespaces: int = Field(default=0, ge=0, description="Namespaces that carry this bundle.")
    blocked: list[BlockedNamespace] = Field(default=[], max_length=64, description="Namespaces that do not, and why.")


class IdentityCounts(Resource):
    """Identities of the trust domain."""

    total: int = Field(default=0, ge=0, description="All of them.")
    ready: int = Field(default=0, ge=0, description="Those that are Ready.")


class TrustDomainStatus(Resource):
    """What is true about the trust domain; written by the operator only, never read by it."""

    observed_generation: int | None = Field(default=None, description="Generation of the spec that was judged.")
    certificate_authorities: list[AuthorityStatus] = Field(
        default=[], max_length=16, description="Every authority that is part of the trust domain."
    )
    bundle: BundleStatus | None = Field(default=None, description="The trust bundle.")
    identities: IdentityCounts | None = Field(default=None, description="How many identities there are.")
    conditions: Conditions = conditions_field()


KIND = Kind(
    name="TrustDomain",
    plural="trustdomains",
    short_name="td",
    namespaced=False,
    description="A SPIFFE trust domain: its name is metadata.name, its authority signs the identities in it.",
    spec=TrustDomainSpec,
    status=TrustDomainStatus,
    columns=(
        ready_column(),
        Column("Default", "boolean", ".spec.default", "Used where an identity names none."),
        Column("Identities", "integer", ".status.identities.total", "Identities in the trust domain."),
        Column("Identities-Ready", "integer", ".status.identities.ready", "Those that are Ready."),
        Column("CA-Expires", "string", ".status.certificateAuthorities[0].notAfter", "End of the active authority.", 1),
        reason_column(),
        age_column(),
    ),
    rules=(
        Rule(
            f"self.metadata.name.size() <= {MAX_NAME}",
            f"a trust domain's name has at most {MAX_NAME} characters, so that its children's names fit",
        ),
    ),
)
