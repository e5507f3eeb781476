"""The rig for real packets shows what a policy says, and it is the policy that it shows."""

import time
from collections.abc import Callable

import pytest

from hack.controlplane import ControlPlane
from tests.support.clusters import Cluster, Flow, Manifest, Pod
from tests.support.packets import LABEL, wired
from tests.support.proving import only_in_prove

pytestmark = [pytest.mark.cluster, only_in_prove]


def a_policy(namespace: str) -> Manifest:
    """Pods of blue teams may connect to port 8080 of orders, and nobody to anything else of it."""
    rule = {"from": [{"namespaceSelector": {"matchLabels": {"team": "blue"}}}], "ports": [{"port": 8080}]}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "orders", "namespace": namespace},
        "spec": {"podSelector": {"matchLabels": {"app": "orders"}}, "policyTypes": ["Ingress"], "ingress": [rule]},
    }


def test_packets_go_where_the_policy_lets_them(control_plane: ControlPlane, namespace: str) -> None:
    web = f"{namespace}-web"
    orders = Pod(namespace, "orders", {"app": "orders"}, (8080, 9090))
    batch = Pod(namespace, "batch", {"app": "batch"})
    frontend = Pod(web, "frontend", ports=(8080,))
    cluster = Cluster({namespace: {}, web: {"team": "blue"}}, [orders, batch, frontend], [a_policy(namespace)])
    with wired(control_plane, cluster) as wire:
        assert wire.reachable(frontend, orders, 8080)
        assert not wire.reachable(batch, orders, 8080)
        assert not wire.reachable(frontend, orders, 9090)
        assert wire.flows() == {
            Flow(frontend.key, orders.key, "TCP", 8080),
            Flow(orders.key, frontend.key, "TCP", 8080),
            Flow(batch.key, frontend.key, "TCP", 8080),
        }
        control_plane.kubectl("delete", "networkpolicy", "orders", "-n", namespace)
        until(lambda: wire.reachable(batch, orders, 8080))
    assert ours(control_plane) == ""
    assert control_plane.kubectl("get", "namespace", namespace, "-o", "jsonpath={.status.phase}") == "Active"


def test_whatever_happens_inside_nothing_stays(control_plane: ControlPlane, namespace: str) -> None:
    cluster = Cluster({namespace: {}}, [Pod(namespace, "orders")])

    def interrupted() -> None:
        with wired(control_plane, cluster):
            assert ours(control_plane) == "pod/orders\n"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert ours(control_plane) == ""


def ours(plane: ControlPlane) -> str:
    return plane.kubectl("get", "pods,networkpolicies", "-A", "-l", LABEL, "-o", "name")


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "that never happened"
