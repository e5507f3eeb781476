"""Names, labels and annotations of what the operator makes."""

from dataclasses import dataclass

GROUP = "zerotrust.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

MANAGED_BY = "app.kubernetes.io/managed-by"
OPERATOR = "zerotrust-operator"
MANAGED_SELECTOR = f"{MANAGED_BY}={OPERATOR}"

COMPONENT = f"{GROUP}/component"
COMPONENT_SVID = "svid"
COMPONENT_AUTHORITY = "certificate-authority"
COMPONENT_AUTHORITY_RECORD = "certificate-authority-record"
COMPONENT_TRUST_BUNDLE = "trust-bundle"
COMPONENT_NETWORK_POLICY = "network-policy"
COMPONENT_DEFAULT_DENY = "default-deny"
COMPONENT_ISOLATION_RECORD = "isolation-record"
COMPONENT_ACCEPTED_POLICY = "accepted-policy"
COMPONENT_BUNDLE_RECORD = "bundle-record"
COMPONENT_BUNDLE_KEYS = "bundle-keys"
COMPONENT_BUNDLE_REPORT = "bundle-report"
COMPONENT_OPA_CONFIG = "opa-config"
COMPONENT_REVOCATIONS = "revocations"
COMPONENT_IDENTITY_PROVIDER = "identity-provider"
COMPONENT_API_KEYS = "api-keys"
COMPONENT_API_KEY = "api-key"
COMPONENT_CONSTRAINT_TEMPLATE = "constraint-template"
COMPONENT_CONSTRAINT = "constraint"

IDENTITY = f"{GROUP}/service-identity"
SERVICE_ACCOUNT = f"{GROUP}/service-account"

NAMESPACE = f"{GROUP}/namespace"

ORPHANED = f"{GROUP}/orphaned"
EXEMPT = f"{GROUP}/isolation-exempt"
POLICY_UID = f"{GROUP}/trust-policy-uid"

# Annotations, because trust domain names may be longer than a label value.
TRUST_DOMAIN = f"{GROUP}/trust-domain"
REVISION = f"{GROUP}/revision"
BUNDLE_SEQUENCE = f"{GROUP}/bundle-sequence"
ROTATION_HANDLED = f"{GROUP}/rotation-handled-at"
ROTATE_REQUESTED = f"{GROUP}/rotate-requested-at"
REVOKE_BEFORE = f"{GROUP}/revoke-before"
ALLOW_OPEN = f"{GROUP}/allow-open"
POLICY = f"{GROUP}/trust-policy"
CONTENT_HASH = f"{GROUP}/content-hash"
IDENTITY_PROVIDER = f"{GROUP}/identity-provider"

RESERVED_PREFIXES = (f"{GROUP}/", MANAGED_BY)

MAX_LABEL_VALUE = 63
MAX_NAME = 253


@dataclass(frozen=True, slots=True, order=True)
class Ref:
    """An object's place in the cluster; `namespace` is empty for cluster-scoped kinds."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


TRUST_BUNDLE_SUFFIX = ".trust-bundle"


def trust_bundle_name(trust_domain: str) -> str:
    """Name of the ConfigMap that carries the trust bundle in each selected namespace."""
    return trust_domain + TRUST_BUNDLE_SUFFIX


def authority_secret_name(trust_domain: str, authority_id: str) -> str:
    """Name of the Secret that holds one authority's key, in the operator's namespace."""
    return f"{trust_domain}.ca-{authority_id}"


def authority_record_name(trust_domain: str) -> str:
    """Name of the Secret that remembers the states of a trust domain's authorities, in the operator's namespace."""
    return f"{trust_domain}.authorities"


NETWORK_POLICY_PREFIX = "zt-"
DEFAULT_DENY = "zt.default-deny"  # an identity's own policy cannot have this name: its prefix ends in a hyphen
ISOLATION_RECORD_SUFFIX = ".isolation"


def network_policy_name(identity: str) -> str:
    """Name of the NetworkPolicy of a ServiceIdentity, in the identity's namespace."""
    return NETWORK_POLICY_PREFIX + identity


def isolation_record_name(namespace: str) -> str:
    """Name of the ConfigMap that remembers who is isolated in a namespace, in the operator's namespace."""
    return namespace + ISOLATION_RECORD_SUFFIX


BUNDLE_RECORD_SUFFIX = ".bundles"
BUNDLE_KEYS = "policy-bundle-keys"
REVOCATIONS = "zerotrust-revocations"
REPORT_PREFIX = "zt-reports-"
API_KEY = f"{GROUP}/api-key"
POD_UID = f"{GROUP}/pod-uid"
IDENTITY_PROVIDER_SUFFIX = ".identity-provider"
BUNDLE_SERVER = "zerotrust-bundle-server"


def bundle_record_name(namespace: str) -> str:
    """Name of the ConfigMap that records the order of a namespace's bundles, in the operator's namespace."""
    return namespace + BUNDLE_RECORD_SUFFIX


API_KEYS_SUFFIX = ".api-keys"


def api_keys_name(namespace: str, shard: int = 0) -> str:
    """Name of a ConfigMap that remembers the API keys of a namespace, in the operator's namespace."""
    return namespace + API_KEYS_SUFFIX + (f"-{shard}" if shard else "")


def api_keys_shard(name: str) -> int | None:
    """The number of the shard that has this name, None for a name that is none's."""
    _, found, number = name.rpartition(API_KEYS_SUFFIX)
    if not found or not number:
        return 0 if found else None
    digits = number.removeprefix("-")
    return int(digits) if api_keys_name("", int(digits) if digits.isdecimal() else -1) == found + number else None


def accepted_policy_name(uid: str, number: int) -> str:
    """Name of the ControllerRevision that keeps an accepted version of a TrustPolicy, in the operator's namespace."""
    return f"tp-{uid}-{number}"
