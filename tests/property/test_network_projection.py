"""The network policies that are emitted let through exactly the table's layer-4 shadow, say three who share no code with us."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings

from tests.support.certificates import NOW
from tests.support.clusters import Cluster, Flow, Port
from tests.support.policies import PORTS, World, random_request, random_world, seeds
from tests.support.proving import only_in_prove
from tests.support.reachability import by_nca, by_netpol_analyzer, documented
from tests.support.shadow import closes, shadow
from zerotrust.policy import network
from zerotrust.policy.evaluate import evaluate
from zerotrust.policy.isolation import network_policies
from zerotrust.policy.network import PortOf

PROVING = os.environ.get("ZEROTRUST_PROVE") == "1"
SEEDS = range(500 if PROVING else 50)


def emitted(world: World) -> list[dict[str, Any]]:
    return network_policies(world.directory, world.tables(), NOW)


@pytest.fixture(scope="module")
def cases() -> list[tuple[World, Cluster, set[Flow]]]:
    worlds = [random_world(seed) for seed in SEEDS]
    return [(world, world.cluster(emitted(world)), shadow(world, PORTS, NOW)) for world in worlds]


def compare(
    oracle: Callable[[Sequence[Cluster], Sequence[Port]], list[set[Flow]]],
    cases: list[tuple[World, Cluster, set[Flow]]],
) -> None:
    answers = oracle([cluster for _, cluster, _ in cases], PORTS)
    for (world, _, expected), answer in zip(cases, answers, strict=True):
        assert answer == expected, f"seed {world.seed}: {sorted(answer ^ expected)[:5]}"


def test_some_of_the_random_clusters_are_interesting(cases: list[tuple[World, Cluster, set[Flow]]]) -> None:
    with_policies = [case for case in cases if case[1].policies]
    assert len(with_policies) > len(cases) / 2
    everything = sum(len(world.pods) * (len(world.pods) - 1) * len(PORTS) for world, _, _ in cases)
    let_through = sum(len(expected) for _, _, expected in cases)
    assert 0.1 < let_through / everything < 0.9


def test_the_documentation_read_literally_agrees(cases: list[tuple[World, Cluster, set[Flow]]]) -> None:
    compare(documented, cases)


def test_network_config_analyzer_agrees(cases: list[tuple[World, Cluster, set[Flow]]]) -> None:
    compare(by_nca, [(world, _without_exists(cluster), expected) for world, cluster, expected in cases])


def _without_exists(cluster: Cluster) -> Cluster:
    """The same policies without Exists and DoesNotExist, which network-config-analyzer misreads beside a namespaceSelector.

    In a cluster of which every pod is known, they mean any of the values there are, and none of them.
    """

    def rewritten(node: Any) -> Any:
        if isinstance(node, list):
            return [rewritten(one) for one in node]
        if not isinstance(node, dict):
            return node
        if node.get("operator") in ("Exists", "DoesNotExist"):
            values = sorted({labels[node["key"]] for labels in everything if node["key"] in labels})
            operator = "In" if node["operator"] == "Exists" else "NotIn"
            return {"key": node["key"], "operator": operator, "values": values or ["nobody-has-it"]}
        return {key: rewritten(value) for key, value in node.items()}

    everything = [pod.labels for pod in cluster.pods] + [cluster.labels_of(name) for name in cluster.namespaces]
    return replace(cluster, policies=rewritten(list(cluster.policies)))


@only_in_prove
def test_netpol_analyzer_agrees(cases: list[tuple[World, Cluster, set[Flow]]]) -> None:
    compare(by_netpol_analyzer, cases)


@given(seeds)
def test_the_shadow_lets_through_whatever_a_decision_point_may_allow(seed: int) -> None:
    world, random = random_world(seed), Random(seed)
    tables = world.tables()
    flows = shadow(world, PORTS, NOW)
    for server in world.directory.identities():
        table = tables[server.workload]
        told_by_pods = any(row.client.kind == "pods" and row.effect == "Deny" for row in table.rows)
        if told_by_pods:  # a Deny for pods is layer 4's alone
            continue
        for _ in range(20):
            request = random_request(random, world, server.workload)
            if request.client is None or not evaluate(table, request, NOW).allowed:
                continue
            client = world.directory.identity(request.client)
            if client is None or (client.egress == "Isolated" and not network.consents(client, server.workload)):
                continue
            for pod in world.pods:
                for target in world.pods:
                    # A pod that several identities select is also whoever else it is.
                    if (
                        pod != target
                        and world.identities_of(pod) == [client]
                        and world.identities_of(target) == [server]
                    ):
                        assert Flow(pod.key, target.key, request.protocol, request.port) in flows


@given(seeds)
@settings(max_examples=50)
def test_nobody_enters_an_isolated_workload_whom_no_row_mentions(seed: int) -> None:
    world = random_world(seed)
    tables = world.tables()
    for flow in shadow(world, PORTS, NOW):
        target = next(pod for pod in world.pods if pod.key == flow.server)
        client = next(pod for pod in world.pods if pod.key == flow.client)
        closed = [one for one in world.identities_of(target) if closes(one, tables[one.workload])]
        place = world.cluster().labels_of(client.namespace)
        assert not closed or any(
            (row.port, row.protocol, row.effect) == (flow.port, flow.protocol, "Allow")
            and any(pods.contains(place, client.labels) for pods in network.pods_of(row.client, world.directory))
            for one in closed
            for row in tables[one.workload].rows
        )


@given(seeds)
@settings(max_examples=50)
def test_no_peer_is_empty_and_both_directions_are_written(seed: int) -> None:
    for policy in emitted(random_world(seed)):
        spec = policy["spec"]
        assert spec["podSelector"]
        assert spec["policyTypes"]
        assert {one.lower() for one in spec["policyTypes"]} == set(spec) - {"podSelector", "policyTypes"}
        for rule in (*spec.get("ingress", ()), *spec.get("egress", ())):
            peers = rule.get("from") or rule.get("to")
            assert peers
            assert rule["ports"]
            assert all(PortOf(one["port"], one["protocol"]) for one in rule["ports"])
            assert all("ipBlock" in peer or {"namespaceSelector", "podSelector"} == set(peer) for peer in peers)
        assert "ownerReferences" not in policy["metadata"]
