"""Pods in the cache: whose they are, whose they say that they are, and whom a change of one concerns."""

from typing import Any

import pytest

from zerotrust.common import naming
from zerotrust.common.naming import Ref
from zerotrust.common.observed import custom_resource, pod
from zerotrust.engine.cache import Cache, Change
from zerotrust.engine.pods import Pods
from zerotrust.engine.policybook import BY_ACCOUNT
from zerotrust.identity.pods import PodMatch
from zerotrust.identity.resource import ServiceIdentitySpec
from zerotrust.identity.snapshot import service_account
from zerotrust.policy.directory import Identity, Workload, default_selector
from zerotrust.policy.podset import Selector, equal

ORDERS = Ref("ServiceIdentity", "shop", "orders")
BATCH = Ref("ServiceIdentity", "shop", "batch")
OWN: Selector = (equal("app", "batch"),)


class World:
    """Identity orders has the derived label, identity batch a selector of its own."""

    def __init__(self, *, watched: bool = True) -> None:
        self.cache, self.version, self.news = Cache(), 0, list[list[Ref]]()
        self.cache.index(BY_ACCOUNT, "ServiceIdentity", lambda one: [(one.meta.namespace, service_account(one))])
        self.pods = Pods(self.cache, watched=watched)
        self.cache.listen(self._note)
        self.identity("orders")
        self.identity("batch", selector={"matchLabels": {"app": "batch"}})
        self.news.clear()

    def _note(self, change: Change) -> None:
        self.news.append(list(self.pods.concerned(change)))

    def metadata(self, name: str, namespace: str = "shop", **more: Any) -> dict[str, Any]:
        self.version += 1
        return {"name": name, "namespace": namespace, "resourceVersion": str(self.version), **more}

    def identity(self, name: str, **spec: Any) -> None:
        body = {"metadata": self.metadata(name), "spec": spec}
        self.cache.put(custom_resource("ServiceIdentity", ServiceIdentitySpec, body))

    def pod(
        self,
        name: str,
        account: str | None,
        labels: dict[str, str],
        phase: str = "Running",
        namespace: str = "shop",
        **spec: Any,
    ) -> list[Ref]:
        """Put a pod in; whom that concerns."""
        spec |= {"serviceAccountName": account} if account else {}
        body = {"metadata": self.metadata(name, namespace, labels=labels), "spec": spec, "status": {"phase": phase}}
        self.cache.put(pod(body))
        return self.news[-1]

    def match(self, name: str = "orders", pods: Selector | None = None) -> PodMatch | None:
        selector = pods or default_selector(name)
        return self.pods.match(Identity(Workload("shop", name), {}, selector), name)


def derived(account: str) -> dict[str, str]:
    return {naming.SERVICE_ACCOUNT: account}


def test_right_foreign_and_unlabelled_pods_are_told_apart() -> None:
    world = World()
    world.pod("orders-0", "orders", derived("orders"))
    world.pod("spy", "batch", derived("orders"))
    world.pod("bare", "orders", {})
    world.pod("elsewhere", "batch", derived("orders"), namespace="web")
    assert world.match() == PodMatch(1, (("spy", "batch"),), ("bare",))


def test_a_selector_of_its_own_is_compared_with_every_pod_of_the_namespace() -> None:
    world = World()
    world.pod("batch-0", "batch", {"app": "batch"})
    world.pod("spy", None, {"app": "batch"})
    assert world.match("batch", OWN) == PodMatch(1, (("spy", "default"),))


def test_a_label_that_looks_derived_is_not_when_it_names_another() -> None:
    world = World()
    world.pod("orders-0", "orders", derived("batch"))
    assert world.match("orders", default_selector("batch")) == PodMatch(1)


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_pods_that_never_run_again_do_not_count(phase: str) -> None:
    world = World()
    world.pod("spy", "batch", derived("orders"))
    world.pod("spy", "batch", derived("orders"), phase)
    assert world.match() == PodMatch()


def test_pods_on_the_hosts_network_are_told_and_a_change_to_it_is_news() -> None:
    world = World()
    world.pod("agent", "orders", derived("orders"))
    assert world.pod("agent", "orders", derived("orders"), hostNetwork=True) == [ORDERS]
    assert world.match() == PodMatch(1, (), (), ("agent",))


def test_unwatched_pods_are_not_compared() -> None:
    assert World(watched=False).match() is None


def test_a_change_concerns_whose_pod_it_is_and_whose_it_says_it_is() -> None:
    world = World()
    assert world.pod("p", "orders", derived("orders")) == [ORDERS]
    assert world.pod("p", "orders", derived("orders")) == []
    assert world.pod("p", "orders", {**derived("orders"), "app": "batch"}) == [BATCH, ORDERS]
    assert world.pod("p", "orders", derived("orders")) == [BATCH, ORDERS]
    assert world.pod("p", "orders", derived("orders"), "Failed") == [ORDERS]
    assert world.pod("q", "nobody", {}) == []
    world.cache.drop(Ref("Pod", "shop", "q"))
    assert world.news[-1] == []
