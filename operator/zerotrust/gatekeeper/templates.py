"""The fixed ConstraintTemplates, as they are shipped with the package; what users write only ever enters as parameters.

The manifests are next to this file; docs/adr/0011 says why they are CEL. Source: Gatekeeper's documentation of
`templates.gatekeeper.sh/v1` and of its K8sNativeValidation engine.
"""

from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any, NamedTuple

import yaml

from zerotrust.common import naming

Manifest = Mapping[str, Any]
Body = dict[str, Any]

BINDING = "ZeroTrustIdentityBinding"
LABELS = "ZeroTrustIdentityLabels"
CREDENTIALS = "ZeroTrustCredentialAccess"
HOST_ACCESS = "ZeroTrustHostAccess"
IMAGES = "ZeroTrustImages"
SERVICES = "ZeroTrustServiceCapture"

_PODS: tuple[Body, ...] = ({"apiGroups": [""], "kinds": ["Pod"]},)


class Template(NamedTuple):
    """What a template's constraints look at, and which of their parameters is the map that entries stand in."""

    kind: str
    parameter: str
    match: tuple[Body, ...] = _PODS

    @property
    def name(self) -> str:
        """Name of the ConstraintTemplate, and of the resource of its constraints."""
        return self.kind.lower()


TEMPLATES: Mapping[str, Template] = MappingProxyType(
    {
        one.kind: one
        for one in (
            Template(BINDING, "identities"),
            Template(LABELS, "identities"),
            Template(CREDENTIALS, "secrets"),
            Template(HOST_ACCESS, "serviceAccounts"),
            Template(IMAGES, "serviceAccounts"),
            Template(
                SERVICES,
                "services",
                (
                    {"apiGroups": [""], "kinds": ["Service", "Endpoints"]},
                    {"apiGroups": ["discovery.k8s.io"], "kinds": ["EndpointSlice"]},
                ),
            ),
        )
    }
)


def manifest(name: str, *, native: bool) -> Manifest:
    """Return a ConstraintTemplate; `native` asks Gatekeeper to have it enforced by the API server itself as well.

    That must not be asked for too early. A ValidatingAdmissionPolicy whose paramKind the API server does not know yet refuses
    every write that it matches, bound or not, and Gatekeeper's match nearly all there are; admission looks for new kinds every
    30 s (k8s.io/apiserver, pkg/server/options/admission.go).
    """
    body = deepcopy(dict(manifests()[name]))
    for target in body["spec"]["targets"]:
        for code in target["code"]:
            code["source"]["generateVAP"] = native
    return body


def is_native(spec: Mapping[str, Any]) -> bool:
    """Tell whether a template's spec asks for the API server's own enforcement."""
    sources = [code.get("source") or {} for target in spec.get("targets") or () for code in target.get("code") or ()]
    return bool(sources) and all(source.get("generateVAP") is True for source in sources)


@cache
def manifests() -> Mapping[str, Manifest]:
    """Return each ConstraintTemplate by its name, with the operator's labels."""
    found = {}
    for entry in (files("zerotrust.gatekeeper") / "templates").iterdir():
        if entry.name.endswith(".yaml"):
            body = yaml.safe_load(entry.read_text(encoding="utf-8"))
            labels = {naming.MANAGED_BY: naming.OPERATOR, naming.COMPONENT: naming.COMPONENT_CONSTRAINT_TEMPLATE}
            found[body["metadata"]["name"]] = {**body, "metadata": {**body["metadata"], "labels": labels}}
    return MappingProxyType(dict(sorted(found.items())))
