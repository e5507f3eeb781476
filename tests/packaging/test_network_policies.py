"""Who reaches the operator's own pods, and whom they reach, under the NetworkPolicies of the base."""

import pytest

from tests.support.clusters import Cluster, Flow, Manifest, Pod, Port
from tests.support.packaging import BASE, NAMESPACE, OVERLAYS, kustomized, objects
from tests.support.reachability import Oracle, by_nca, documented
from zerotrust.policy import network

CONTROLLER, SERVER = (
    Pod(
        NAMESPACE,
        name,
        {"app.kubernetes.io/name": f"zerotrust-{name}", "zerotrust.dev/service-account": f"zerotrust-{name}"},
    )
    for name in ("controller", "bundle-server")
)
INTRUDER = Pod(NAMESPACE, "intruder", {"app": "intruder"})
ORDERS = Pod("shop", "orders", {"app": "orders"})
PROMETHEUS = Pod("monitoring", "prometheus", {"app": "prometheus"})
API_SERVER, NAMES = Pod("kube-system", "api-server", {"app": "api"}), Pod("kube-system", "names", {"app": "names"})
OTHERS = (ORDERS, PROMETHEUS, API_SERVER, NAMES)
SERVES, TELLS, HTTPS, SECURE, QUERY, LONG_QUERY = (
    Port(*one) for one in (("TCP", 8443), ("TCP", 8080), ("TCP", 443), ("TCP", 6443), ("UDP", 53), ("TCP", 53))
)
ASKED = [SERVES, TELLS, HTTPS, SECURE, QUERY, LONG_QUERY]


def policies(text: str) -> list[Manifest]:
    return [one for one in objects(text).values() if one["kind"] == "NetworkPolicy"]


def flows_of_the_operator(oracle: Oracle, found: list[Manifest], labels: dict[str, str] | None = None) -> set[Flow]:
    """What is allowed from and to the operator's namespace; `labels` are those of namespace shop."""
    namespaces = {NAMESPACE: {}, "shop": labels or {}, "monitoring": {}, "kube-system": {}}
    cluster = Cluster(namespaces, (CONTROLLER, SERVER, INTRUDER, *OTHERS), found)
    (allowed,) = oracle([cluster], ASKED)
    return {flow for flow in allowed if NAMESPACE in (flow.client.split("/")[0], flow.server.split("/")[0])}


def expected(served: tuple[Pod, ...], observers: tuple[Pod, ...]) -> set[Flow]:
    needed = {CONTROLLER: (HTTPS, SECURE, QUERY, LONG_QUERY), SERVER: (HTTPS, SECURE)}
    return {
        *(Flow(client.key, SERVER.key, *SERVES) for client in served),
        *(Flow(client.key, server.key, *TELLS) for client in observers for server in (CONTROLLER, SERVER)),
        *(
            Flow(client.key, server.key, *port)
            for client, ports in needed.items()
            for port in ports
            for server in OTHERS
        ),
    }


@pytest.mark.parametrize("oracle", [documented, by_nca], ids=["documentation", "nca"])
def test_nothing_is_open_but_what_is_needed(oracle: Oracle) -> None:
    assert flows_of_the_operator(oracle, policies(kustomized(BASE))) == expected(OTHERS, (PROMETHEUS,))


@pytest.mark.parametrize("oracle", [documented, by_nca], ids=["documentation", "nca"])
def test_an_isolated_bundle_server_works_as_before(oracle: Oracle) -> None:
    """Its ServiceIdentity may be isolated like any other: the operator's NetworkPolicy for it takes nothing away."""
    selector = {"matchLabels": {"zerotrust.dev/service-account": "zerotrust-bundle-server"}}
    isolated = network.manifest(NAMESPACE, "zt-zerotrust-bundle-server", {}, selector, {"Ingress": [], "Egress": []})
    found = [*policies(kustomized(BASE)), isolated]
    assert flows_of_the_operator(oracle, found) == expected(OTHERS, (PROMETHEUS,))


def test_the_restricted_overlay_lets_in_labelled_namespaces_only() -> None:
    found = policies(kustomized(OVERLAYS / "restricted"))
    assert flows_of_the_operator(documented, found) == expected((), ())
    labelled = {"zerotrust.dev/decision-points": "allowed"}
    assert flows_of_the_operator(documented, found, labelled) == expected((ORDERS,), ())
