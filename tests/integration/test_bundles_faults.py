"""Processes die at any time: decisions go on from the last good bundle, and no status claims more than was reported."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hack.controlplane import EXISTING_CLUSTER
from tests.integration.test_bundles import allow, enforced, policy, request
from tests.support.decision_points import DecisionPoints, Replica
from tests.support.deployment import ROOT, Running, deployed

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(EXISTING_CLUSTER in os.environ, reason="installs cluster-wide objects"),
]

ACKNOWLEDGED = ("True", "Acknowledged")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with deployed(tmp_path_factory.mktemp("faults")) as running:
        running.apply(ROOT / "examples" / "quickstart")
        yield running


async def test_decisions_outlive_the_bundle_server_the_controller_and_opa(cluster: Running, tmp_path: Path) -> None:
    points = DecisionPoints(cluster, tmp_path)
    async with points.serving():
        cluster.apply(policy(allow("/a")))
        async with points.opa("shop", "orders", "orders-0") as opa:
            await points.decided(opa, request("/a"), "allowed")
            await points.until(lambda: enforced(cluster)[:2] == ACKNOWLEDGED, "it is acknowledged")

            points.server.stop(grace=0)
            assert (await opa.ask(request("/a")))["allowed"] is True
            cluster.apply(policy(allow("/b")))
            await points.until(lambda: enforced(cluster)[1] == "Publishing", "nobody serves the edit")
            assert (await opa.ask(request("/a")))["allowed"] is True
            opa.stop(grace=0)
            opa.start(points.environment)
            await points.decided(opa, request("/a"), "allowed")  # from its own disk
            points.server.start()
            await points.decided(opa, request("/b"), "allowed", 30)
            await points.until(lambda: enforced(cluster)[:2] == ACKNOWLEDGED, "the edit is acknowledged")

            cluster.controller.stop(0)
            cluster.apply(policy(allow("/c")))
            assert (await opa.ask(request("/b")))["allowed"] is True
            assert enforced(cluster) == ("", "", "")  # nothing is said about the new generation
            cluster.restart_controller()
            await points.decided(opa, request("/c"), "allowed", 60)
            await points.until(lambda: enforced(cluster)[:2] == ACKNOWLEDGED, "the edit is acknowledged again")


async def test_a_second_replica_takes_over_and_both_serve_the_same(cluster: Running, tmp_path: Path) -> None:
    points = DecisionPoints(cluster, tmp_path)
    async with points.serving():
        second = Replica(cluster, tmp_path / "second", "replica-1")
        second.start()
        try:
            cluster.apply(policy(allow("/x")))
            async with points.opa("shop", "orders", "orders-1") as opa:
                await points.decided(opa, request("/x"), "allowed")
                points.send_to(second)
                points.server.stop(grace=0)
                cluster.apply(policy(allow("/y")))
                await points.decided(opa, request("/y"), "allowed", 30)
                assert (await opa.ask(request("/x")))["allowed"] is False
        finally:
            second.stop()
