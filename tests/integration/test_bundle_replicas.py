"""Two bundle server processes and one OPA: a replica that is stuck, or lags, never takes a decision point back."""

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from hack.controlplane import EXISTING_CLUSTER
from tests.integration.test_bundles import allow, enforced, policy, request
from tests.support.decision_points import Replica
from tests.support.deployment import ROOT, Running, deployed
from tests.support.opa import Opa
from tests.support.two_replicas import RULE, Served, TwoReplicas

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(EXISTING_CLUSTER in os.environ, reason="installs cluster-wide objects"),
]

ACKNOWLEDGED = ("True", "Acknowledged")
SHORTEST = json.dumps({"spec": {"policyBundles": {"validity": "1m", "revocationValidity": "1m"}}})
LATE_SECONDS = 3.0
EDITS = 5


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with deployed(tmp_path_factory.mktemp("replicas")) as running:
        running.apply(ROOT / "examples" / "quickstart")
        running.plane.kubectl("patch", "td", "example.org", "--type=merge", "-p", SHORTEST)
        yield running


class Sample(NamedTuple):
    """What an OPA runs and decides: the recorded serial, which edit of the policy, and whether the first edit's grant holds."""

    serial: int
    edit: int
    allowed: bool


class Observed:
    """An OPA that is looked at all the time, and a policy whose n-th generation allows the one path `/edit-<n>`."""

    def __init__(self, cluster: Running, opa: Opa) -> None:
        self._cluster, self._opa = cluster, opa
        self.samples: list[Sample] = []
        self.claims: list[tuple[int, int]] = []

    @contextlib.asynccontextmanager
    async def always(self) -> AsyncIterator["Observed"]:
        """Look until the end, and then hold what was seen against the rules."""
        looking = [asyncio.create_task(self._decisions()), asyncio.create_task(self._statuses())]
        try:
            yield self
            await self._status()
        finally:
            for task in looking:
                task.cancel()
            ends = await asyncio.gather(*looking, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ends), ends
        serials, edits, allowed = (list(column) for column in zip(*self.samples, strict=True))
        assert serials == sorted(serials), "a decision point was rolled back"
        assert edits == sorted(edits), "a decision point was rolled back"
        assert allowed == sorted(allowed, reverse=True), "a grant came back after it was withdrawn"
        unfounded = [(claimed, ran) for claimed, ran in self.claims if ran < claimed]
        assert not unfounded, f"Enforced=True for (claimed, run): {unfounded}"

    async def now(self) -> Sample:
        """One look."""
        running = await self._opa.data("zerotrust_data/policy")
        allowed = (await self._opa.ask(request("/edit-1")))["allowed"]
        [edit] = {int(number) for number in RULE.findall(json.dumps(running["servers"]))}
        return Sample(running["meta"]["serial"], edit, allowed)

    async def _decisions(self) -> None:
        while True:
            self.samples.append(await self.now())
            await asyncio.sleep(0.03)

    async def _statuses(self) -> None:
        while True:
            await self._status()
            await asyncio.sleep(0.2)

    async def _status(self) -> None:
        """The status is read first and the OPA asked afterwards, so a claim that is not yet true would be seen."""
        text = await asyncio.to_thread(self._cluster.plane.kubectl, "get", "tp/orders", "-n", "shop", "-o", "json")
        ran = (await self.now()).edit
        for one in json.loads(text).get("status", {}).get("conditions", []):
            if (one["type"], one["status"]) == ("Enforced", "True"):
                self.claims.append((one["observedGeneration"], ran))


def edited(number: int) -> dict[str, Any]:
    return policy({**allow(f"/edit-{number}"), "name": f"edit-{number}"})


@contextlib.asynccontextmanager
async def observed(cluster: Running, folder: Path, pod: str) -> AsyncIterator[tuple[TwoReplicas, Observed, Opa]]:
    """Two replicas of which the far one serves an OPA that runs the first edit, and this is acknowledged."""
    cluster.apply(edited(1))
    try:
        two = TwoReplicas(cluster, folder)
        async with two.serving():
            two.front.turn_to(two.far.port)
            async with two.points.opa("shop", "orders", pod) as opa:
                await two.points.decided(opa, request("/edit-1"), "allowed")
                await two.points.until(lambda: enforced(cluster)[:2] == ACKNOWLEDGED, "it is acknowledged")
                await two.is_held(two.far)
                assert await two.served(two.far) is not None  # which asks the API server who is asking, for a minute
                async with Observed(cluster, opa).always() as looking:
                    yield two, looking, opa
    finally:
        cluster.plane.kubectl("delete", "tp", "orders", "-n", "shop", "--ignore-not-found")


async def served_after(two: TwoReplicas, replica: Replica, since: float) -> Served:
    """What a replica serves once it is from after a time."""
    async with asyncio.timeout(30):
        while True:
            found = await two.served(replica)
            if found is not None and found.issued_at > since:
                return found
            await asyncio.sleep(0.2)


async def test_a_replica_whose_watch_is_stuck_confirms_nothing_and_rolls_nobody_back(
    cluster: Running, tmp_path: Path
) -> None:
    async with observed(cluster, tmp_path, "orders-0") as (two, looking, opa):
        before = await two.served(two.far)
        assert before is not None
        two.line.freeze()
        frozen = time.time()
        cluster.apply(edited(2))
        await two.points.until(lambda: enforced(cluster)[1] == "Lagging", "the decision point that it serves is named")
        assert "orders-0" in enforced(cluster)[2]
        assert (await looking.now()).edit == 1
        fresh = await served_after(two, two.near, frozen)
        stuck = await two.served(two.far)
        assert stuck is not None, "it still knows who is asking"
        assert (stuck.serial, stuck.revision) == (before.serial, before.revision)
        assert stuck.issued_at <= frozen < fresh.issued_at
        assert stuck.not_after < fresh.not_after
        assert (stuck.serial, stuck.revision) in two.recorded()
        assert (fresh.serial, fresh.revision) == two.recorded()[-1]
        assert stuck.serial < fresh.serial

        two.front.turn_to(two.near.port)
        await two.points.decided(opa, request("/edit-1"), "no_grant", 20)
        await two.points.until(lambda: enforced(cluster)[:2] == ACKNOWLEDGED, "the withdrawal is acknowledged")
        two.front.turn_to(two.far.port)
        await two.is_held(two.far)
        assert await looking.now() == (fresh.serial, 2, False)
        assert await two.served(two.far) in (stuck, None)  # nothing, once it would have to ask again who is asking

        two.line.release()
        cluster.apply(edited(3))
        await two.points.decided(opa, request("/edit-3"), "allowed", 30)
        caught_up = await served_after(two, two.far, frozen)
        assert (caught_up.serial, caught_up.revision) == two.recorded()[-1]
        await two.points.until(lambda: enforced(cluster)[:2] == ACKNOWLEDGED, "it is acknowledged through it")
    assert {claimed for claimed, _ in looking.claims} == {1, 2, 3}


async def test_an_opa_between_a_replica_that_lags_and_one_that_does_not_only_goes_forward(
    cluster: Running, tmp_path: Path
) -> None:
    async with observed(cluster, tmp_path, "orders-1") as (two, looking, opa):
        two.line.late = LATE_SECONDS
        seen: list[tuple[int, int]] = []
        for edit in range(2, EDITS + 1):
            two.front.turn_to(two.near.port)
            await asyncio.to_thread(cluster.apply, edited(edit))
            await two.points.decided(opa, request(f"/edit-{edit}"), "allowed", 20)
            two.front.turn_to(two.far.port)
            behind = await two.served(two.far)
            assert behind is not None
            assert (behind.serial, behind.revision) in two.recorded()
            seen.append((behind.serial, (await looking.now()).serial))
        assert sum(served < run for served, run in seen) >= 2, f"the replica did not lag: {seen}"
        await two.points.until(lambda: enforced(cluster)[:2] == ACKNOWLEDGED, "the last edit is acknowledged")
        await two.is_held(two.far)
        cluster.apply(edited(EDITS + 1))
        await two.points.decided(opa, request(f"/edit-{EDITS + 1}"), "allowed", 20)
    assert len(looking.samples) > 50
