"""Which pods an identity's labels and its ServiceAccount have in common, from a trimmed watch that can be left out."""

from collections.abc import Iterator

from zerotrust.common import naming
from zerotrust.common.naming import Ref
from zerotrust.common.observed import CustomResource, Pod
from zerotrust.engine.cache import Cache, Change
from zerotrust.engine.policybook import BY_ACCOUNT
from zerotrust.identity.pods import PodMatch
from zerotrust.identity.resource import ServiceIdentitySpec
from zerotrust.policy.directory import Identity, Workload, default_selector
from zerotrust.policy.podset import selector_of, selects

PODS = "pods-by-namespace"
PODS_BY_ACCOUNT = "pods-by-service-account"
PODS_BY_LABEL = "pods-by-derived-label"
OWN_SELECTORS = "identities-with-a-selector-by-namespace"


class Pods:
    """Pods that may run, by who they are and by what they say that they are."""

    def __init__(self, cache: Cache, *, watched: bool) -> None:
        self._cache, self.watched = cache, watched
        cache.index(OWN_SELECTORS, "ServiceIdentity", lambda one: [one.meta.namespace] if _selects(one) else [])
        cache.index(PODS, "Pod", lambda one: [one.meta.namespace] if one.running else [])
        cache.index(PODS_BY_ACCOUNT, "Pod", lambda one: [(one.meta.namespace, one.account)] if one.running else [])
        cache.index(PODS_BY_LABEL, "Pod", lambda one: [_labelled(one)] if one.running else [])

    def match(self, identity: Identity, account: str) -> PodMatch | None:
        """Compare an identity's pods by label with its pods by ServiceAccount; None while pods are not watched."""
        if not self.watched:
            return None
        namespace = identity.workload.namespace
        own: list[Pod] = self._cache.find(PODS_BY_ACCOUNT, (namespace, account))
        derived = identity.pods == default_selector(account)
        near: list[Pod] = (
            self._cache.find(PODS_BY_LABEL, (namespace, account)) if derived else self._cache.find(PODS, namespace)
        )
        foreign = sorted(
            (one.meta.name, one.account)
            for one in near
            if one.account != account and selects(identity.pods, one.meta.labels)
        )
        unlabelled = sorted(one.meta.name for one in own if not selects(identity.pods, one.meta.labels))
        on_host = sorted(one.meta.name for one in own if one.on_host)
        return PodMatch(len(own) - len(unlabelled), tuple(foreign), tuple(unlabelled), tuple(on_host))

    def concerned(self, change: Change) -> Iterator[Ref]:
        """The ServiceIdentities whose comparison a change of a pod may change."""
        if change.ref.kind != "Pod" or _substance(change.old) == _substance(change.new):
            return
        namespace, places = change.ref.namespace, set[Workload]()
        for pod in (change.old, change.new):
            if pod is not None:
                for account in {pod.account, pod.meta.labels.get(naming.SERVICE_ACCOUNT, "")}:
                    found = self._cache.find(BY_ACCOUNT, (namespace, account))
                    places |= {Workload(namespace, one.meta.name) for one in found}
                for one in self._cache.find(OWN_SELECTORS, namespace):
                    if selects(selector_of(one.spec.selector), pod.meta.labels):
                        places.add(Workload(namespace, one.meta.name))
        yield from (Ref("ServiceIdentity", *place) for place in sorted(places))


def _labelled(pod: Pod) -> tuple[str, str]:
    return pod.meta.namespace, pod.meta.labels.get(naming.SERVICE_ACCOUNT, "")


def _selects(identity: CustomResource[ServiceIdentitySpec]) -> bool:
    return isinstance(identity.spec, ServiceIdentitySpec) and identity.spec.selector is not None


def _substance(pod: Pod | None) -> object:
    return (pod.meta.labels, pod.account, pod.on_host) if pod is not None and pod.running else None
