"""Where each kind lives in the Kubernetes API."""

from dataclasses import dataclass, replace
from typing import Literal

from zerotrust.common import naming
from zerotrust.common.naming import Ref
from zerotrust.engine.scope import Scope
from zerotrust.gatekeeper.templates import TEMPLATES


@dataclass(frozen=True)
class ResourceType:
    """One resource of the API; `selector` limits what is watched, on the server's side.

    `optional` is one that a cluster may lack: it is then as if there were none. `home` says where all of its objects are that
    matter: in the operator's own namespace or in default; empty when they can be anywhere.
    """

    kind: str
    group: str
    version: str
    plural: str
    namespaced: bool
    selector: str = ""
    optional: bool = False
    home: Literal["", "operator", "default"] = ""

    @property
    def prefix(self) -> str:
        """Path of the API version."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    def collection(self, namespace: str = "") -> str:
        """Path of the collection, of one namespace or of the whole cluster."""
        middle = f"/namespaces/{namespace}" if namespace else ""
        return f"{self.prefix}{middle}/{self.plural}"

    def path(self, ref: Ref) -> str:
        """Path of one object."""
        return f"{self.collection(ref.namespace)}/{ref.name}"

    def places(self, scope: Scope) -> tuple[str, ...]:
        """The namespaces in which it is listed and watched; one empty name stands for the whole cluster."""
        match self.home:
            case "operator":
                return (scope.operator_namespace,)
            case "default":
                return ("default",)
        return (scope.namespaces if self.namespaced else ()) or ("",)


TRUST_DOMAINS = ResourceType("TrustDomain", naming.GROUP, naming.VERSION, "trustdomains", namespaced=False)
SERVICE_IDENTITIES = ResourceType("ServiceIdentity", naming.GROUP, naming.VERSION, "serviceidentities", namespaced=True)
API_KEYS = ResourceType("ApiKey", naming.GROUP, naming.VERSION, "apikeys", namespaced=True)
NAMESPACES = ResourceType("Namespace", "", "v1", "namespaces", namespaced=False)
SERVICE_ACCOUNTS = ResourceType("ServiceAccount", "", "v1", "serviceaccounts", namespaced=True)
# Only what carries our label is watched: a cluster's other Secrets and ConfigMaps are none of our business.
SECRETS = ResourceType("Secret", "", "v1", "secrets", namespaced=True, selector=naming.MANAGED_SELECTOR)
CONFIG_MAPS = ResourceType("ConfigMap", "", "v1", "configmaps", namespaced=True, selector=naming.MANAGED_SELECTOR)
RECORDS = replace(CONFIG_MAPS, home="operator")
TRUST_POLICIES = ResourceType("TrustPolicy", naming.GROUP, naming.VERSION, "trustpolicies", namespaced=True)
# All of them: a policy that is not ours may open what we close.
NETWORK_POLICIES = ResourceType("NetworkPolicy", "networking.k8s.io", "v1", "networkpolicies", namespaced=True)
CONTROLLER_REVISIONS = ResourceType(
    "ControllerRevision",
    "apps",
    "v1",
    "controllerrevisions",
    namespaced=True,
    selector=naming.MANAGED_SELECTOR,
    home="operator",
)
# The API server's own: kubernetes.io/service-name is the label of every slice of a Service.
ENDPOINT_SLICES = ResourceType(
    "EndpointSlice",
    "discovery.k8s.io",
    "v1",
    "endpointslices",
    namespaced=True,
    selector="kubernetes.io/service-name=kubernetes",
    home="default",
)
SERVICES = ResourceType("Service", "", "v1", "services", namespaced=True)
INGRESSES = ResourceType("Ingress", "networking.k8s.io", "v1", "ingresses", namespaced=True)
HTTP_ROUTES = ResourceType("HTTPRoute", "gateway.networking.k8s.io", "v1", "httproutes", namespaced=True)
PODS = ResourceType("Pod", "", "v1", "pods", namespaced=True)
EVENTS = ResourceType("Event", "events.k8s.io", "v1", "events", namespaced=True)
TOKEN_REVIEWS = ResourceType("TokenReview", "authentication.k8s.io", "v1", "tokenreviews", namespaced=False)
SUBJECT_ACCESS_REVIEWS = ResourceType(
    "SubjectAccessReview", "authorization.k8s.io", "v1", "subjectaccessreviews", namespaced=False
)
LEASES = ResourceType("Lease", "coordination.k8s.io", "v1", "leases", namespaced=True)

CONSTRAINT_TEMPLATES = ResourceType(
    "ConstraintTemplate",
    "templates.gatekeeper.sh",
    "v1",
    "constrainttemplates",
    namespaced=False,
    selector=naming.MANAGED_SELECTOR,
    optional=True,
)
CONSTRAINTS = tuple(
    ResourceType(
        one.kind,
        "constraints.gatekeeper.sh",
        "v1beta1",
        one.name,
        namespaced=False,
        selector=naming.MANAGED_SELECTOR,
        optional=True,
    )
    for one in TEMPLATES.values()
)
# Gatekeeper's is among them, under a name of the admin's choice. `optional`, because it matters with Gatekeeper only.
WEBHOOK_CONFIGURATIONS = ResourceType(
    "ValidatingWebhookConfiguration",
    "admissionregistration.k8s.io",
    "v1",
    "validatingwebhookconfigurations",
    namespaced=False,
    optional=True,
)

# Read and deleted by name, where Gatekeeper has left them behind.
ADMISSION_POLICIES = ResourceType(
    "ValidatingAdmissionPolicy",
    "admissionregistration.k8s.io",
    "v1",
    "validatingadmissionpolicies",
    namespaced=False,
)

# Dependencies come before what depends on them, so that the first reconcile already sees everything.
WATCHED = (
    NAMESPACES,
    SERVICE_ACCOUNTS,
    SECRETS,
    CONFIG_MAPS,
    CONTROLLER_REVISIONS,
    ENDPOINT_SLICES,
    NETWORK_POLICIES,
    TRUST_DOMAINS,
    SERVICE_IDENTITIES,
    API_KEYS,
    TRUST_POLICIES,
    CONSTRAINT_TEMPLATES,
    *CONSTRAINTS,
    WEBHOOK_CONFIGURATIONS,
    PODS,
)
# Questions, not objects: they are posted and answered, and exist nowhere.
REVIEWS = (TOKEN_REVIEWS, SUBJECT_ACCESS_REVIEWS)
BY_KIND = {resource.kind: resource for resource in (*WATCHED, ADMISSION_POLICIES, EVENTS, LEASES, *REVIEWS)}
