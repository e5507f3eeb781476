"""What the fake serves: resource types, the built-in ones, and the CRD objects that stand behind the custom ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]


@dataclass(frozen=True)
class ResourceType:
    """One kind in one version, and where the API server treats it differently from the others.

    The fields left at None take what the API server does for a kind of that group: see the properties below.
    """

    group: str
    version: str
    plural: str
    singular: str
    kind: str
    namespaced: bool
    status_subresource: bool = False
    short_names: tuple[str, ...] = ()
    generation: bool | None = None
    conditional_put: bool | None = None
    creates_on_put: bool = False
    returns_deleted: bool = False
    fields: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """The name in error messages and of the CRD: `trustdomains.zerotrust.dev`, or `secrets` in the core group."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def custom(self) -> bool:
        """Served from a CRD; `*.k8s.io` is kept for the API server's own groups."""
        return "." in self.group and not self.group.endswith(".k8s.io")

    @property
    def counts_generations(self) -> bool:
        return self.generation if self.generation is not None else self.custom or self.status_subresource

    @property
    def needs_version_on_put(self) -> bool:
        """A PUT without metadata.resourceVersion is refused instead of overwriting what is there."""
        return self.conditional_put if self.conditional_put is not None else self.custom

    def answers_to(self, name: str) -> bool:
        """Whether `name`, in whatever form a test finds natural, means this type."""
        return name in (self.kind, self.plural, self.singular, self.qualified, *self.short_names)


SECRETS = ResourceType("", "v1", "secrets", "secret", "Secret", namespaced=True)
CONFIG_MAPS = ResourceType("", "v1", "configmaps", "configmap", "ConfigMap", namespaced=True, short_names=("cm",))
SERVICE_ACCOUNTS = ResourceType(
    "", "v1", "serviceaccounts", "serviceaccount", "ServiceAccount", True, short_names=("sa",), returns_deleted=True
)
NAMESPACES = ResourceType("", "v1", "namespaces", "namespace", "Namespace", False, True, ("ns",), generation=False)
EVENTS = ResourceType(
    "events.k8s.io",
    "v1",
    "events",
    "event",
    "Event",
    namespaced=True,
    short_names=("ev",),
    creates_on_put=True,
    fields=("regarding.kind", "regarding.name"),
)
LEASES = ResourceType(
    "coordination.k8s.io", "v1", "leases", "lease", "Lease", True, conditional_put=True, creates_on_put=True
)
CUSTOM_RESOURCE_DEFINITIONS = ResourceType(
    "apiextensions.k8s.io",
    "v1",
    "customresourcedefinitions",
    "customresourcedefinition",
    "CustomResourceDefinition",
    namespaced=False,
    status_subresource=True,
    short_names=("crd", "crds"),
    conditional_put=True,
)
TRUST_DOMAINS = ResourceType(
    "zerotrust.dev", "v1alpha1", "trustdomains", "trustdomain", "TrustDomain", False, True, ("td",)
)
SERVICE_IDENTITIES = ResourceType(
    "zerotrust.dev", "v1alpha1", "serviceidentities", "serviceidentity", "ServiceIdentity", True, True, ("svid",)
)
TRUST_POLICIES = ResourceType(
    "zerotrust.dev", "v1alpha1", "trustpolicies", "trustpolicy", "TrustPolicy", True, True, ("tp",)
)
API_KEYS = ResourceType("zerotrust.dev", "v1alpha1", "apikeys", "apikey", "ApiKey", True, True, ("zkey",))
NETWORK_POLICIES = ResourceType(
    "networking.k8s.io", "v1", "networkpolicies", "networkpolicy", "NetworkPolicy", True, False, ("netpol",), True
)
CONTROLLER_REVISIONS = ResourceType(
    "apps", "v1", "controllerrevisions", "controllerrevision", "ControllerRevision", namespaced=True
)
ENDPOINT_SLICES = ResourceType(
    "discovery.k8s.io", "v1", "endpointslices", "endpointslice", "EndpointSlice", namespaced=True
)
PODS = ResourceType("", "v1", "pods", "pod", "Pod", True, True, ("po",), fields=("status.phase",))
SERVICES = ResourceType("", "v1", "services", "service", "Service", True, True, ("svc",))
INGRESSES = ResourceType("networking.k8s.io", "v1", "ingresses", "ingress", "Ingress", True, True, ("ing",))

BUILT_IN = (SECRETS, CONFIG_MAPS, SERVICE_ACCOUNTS, NAMESPACES, EVENTS, LEASES, CUSTOM_RESOURCE_DEFINITIONS)
BUILT_IN += (NETWORK_POLICIES, CONTROLLER_REVISIONS, ENDPOINT_SLICES, PODS, SERVICES, INGRESSES)
OURS = (TRUST_DOMAINS, SERVICE_IDENTITIES, TRUST_POLICIES, API_KEYS)


def definition_of(resource: ResourceType) -> Object:
    """A CustomResourceDefinition that accepts anything, as a client would POST it."""
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    served = {
        "name": resource.version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": anything, "status": anything}}},
        "subresources": {"status": {}} if resource.status_subresource else {},
    }
    return {
        "apiVersion": CUSTOM_RESOURCE_DEFINITIONS.api_version,
        "kind": CUSTOM_RESOURCE_DEFINITIONS.kind,
        "metadata": {"name": resource.qualified},
        "spec": {
            "group": resource.group,
            "scope": "Namespaced" if resource.namespaced else "Cluster",
            "names": {
                "plural": resource.plural,
                "singular": resource.singular,
                "kind": resource.kind,
                "listKind": f"{resource.kind}List",
                "shortNames": list(resource.short_names),
            },
            "versions": [served],
        },
    }


def defined_by(definition: Mapping[str, Any]) -> ResourceType:
    """The type that a CustomResourceDefinition makes the API server serve (its storage version)."""
    spec = definition["spec"]
    names = spec["names"]
    stored = next(version for version in spec["versions"] if version.get("storage"))
    return ResourceType(
        group=spec["group"],
        version=stored["name"],
        plural=names["plural"],
        singular=names.get("singular") or names["kind"].lower(),
        kind=names["kind"],
        namespaced=spec["scope"] == "Namespaced",
        status_subresource="status" in (stored.get("subresources") or {}),
        short_names=tuple(names.get("shortNames") or ()),
    )


def established(definition: Mapping[str, Any], at: str) -> Object:
    """The status that the API server gives a definition as soon as it serves the resource."""

    def condition(kind: str, reason: str, message: str) -> Object:
        return {"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": at}

    return {
        "acceptedNames": dict(definition["spec"]["names"]),
        "conditions": [
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        ],
        "storedVersions": [defined_by(definition).version],
    }
