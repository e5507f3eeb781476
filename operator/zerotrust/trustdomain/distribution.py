"""The trust bundle in each selected namespace: one ConfigMap, a key of its own, so that one edit costs one write."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from zerotrust.common import naming
from zerotrust.common.errors import SpecError
from zerotrust.common.naming import Ref
from zerotrust.common.observed import ConfigMap, CustomResource, controller_uid
from zerotrust.common.plan import Apply, Delete, Plan
from zerotrust.trustdomain.bundle import PEM_KEY, SPIFFE_KEY, TrustBundle
from zerotrust.trustdomain.resource import TrustDomainSpec

REFRESH = timedelta(seconds=30)


@dataclass(frozen=True)
class BundleSnapshot:
    """What a decision about one namespace's trust bundle depends on; `trust_domain` is None once it is gone."""

    trust_domain: CustomResource[TrustDomainSpec] | None
    bundle: TrustBundle | None
    selected: bool
    ref: Ref
    observed: ConfigMap | None


def reconcile_bundle(snapshot: BundleSnapshot, now: datetime) -> Plan:
    """Return what to do for the trust bundle of one namespace: one ConfigMap, repaired when edited."""
    domain, observed, ref = snapshot.trust_domain, snapshot.observed, snapshot.ref
    ours = observed is not None and is_ours(observed)
    if domain is None or domain.meta.deleting:
        return Plan()  # the garbage collector removes what a TrustDomain owned
    if not snapshot.selected or isinstance(domain.spec, SpecError):
        if ours and observed is not None and not isinstance(domain.spec, SpecError):
            return Plan(deletes=(Delete(ref, observed.meta.uid),))
        return Plan()
    if observed is not None and not ours:
        return Plan(refresh=(ref,), requeue_at=now + REFRESH)
    if snapshot.bundle is None:
        return Plan()
    data: dict[str, str | None] = {PEM_KEY: snapshot.bundle.pem, SPIFFE_KEY: snapshot.bundle.document}
    data |= {key: None for key in (observed.data if observed else {}) if key not in data}
    manifest = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": ref.name,
            "namespace": ref.namespace,
            "labels": {naming.MANAGED_BY: naming.OPERATOR, naming.COMPONENT: naming.COMPONENT_TRUST_BUNDLE},
            "annotations": {
                naming.TRUST_DOMAIN: domain.meta.name,
                naming.BUNDLE_SEQUENCE: str(snapshot.bundle.sequence),
            },
            "ownerReferences": [owner_reference(domain)],
        },
        "data": data,
    }
    same = observed is not None and observed.meta.annotations.get(naming.BUNDLE_SEQUENCE) == str(
        snapshot.bundle.sequence
    )
    return Plan(applies=(Apply(manifest, repairs=same),))


def is_ours(observed: ConfigMap) -> bool:
    """Tell whether the operator made this ConfigMap, even if somebody took its labels off."""
    if controller_uid(observed.meta) is not None:
        return False
    labelled = observed.meta.labels.get(naming.COMPONENT) == naming.COMPONENT_TRUST_BUNDLE
    return labelled or any(owner.get("kind") == "TrustDomain" for owner in observed.meta.owners)


def owner_reference(resource: CustomResource[Any]) -> dict[str, Any]:
    """The owner reference by which the garbage collector removes a child with its owner."""
    return {
        "apiVersion": naming.API_VERSION,
        "kind": resource.meta.ref.kind,
        "name": resource.meta.name,
        "uid": resource.meta.uid,
    }
