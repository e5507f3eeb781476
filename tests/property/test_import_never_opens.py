"""What is imported allows at most what the old NetworkPolicies allowed, say readers that share no code with the importer."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from tests.support.clusters import Cluster, Flow, Port
from tests.support.old_worlds import ASKED, OldWorld, kept, made, outside, random_old_world
from tests.support.proving import only_in_prove
from tests.support.reachability import by_nca, by_netpol_analyzer, documented
from zerotrust.importing.report import Outcome

PROVING = os.environ.get("ZEROTRUST_PROVE") == "1"
SEEDS = range(3_000 if PROVING else 200)
TOOLS = range(0, 200, 2)

Oracle = Callable[[Sequence[Cluster], Sequence[Port]], list[set[Flow]]]


@dataclass(frozen=True)
class Case:
    """A world and its pods before and after; `carefully` keeps every old policy of which something is left over."""

    world: OldWorld
    outcome: Outcome
    before: Cluster
    carefully: Cluster
    boldly: Cluster

    @property
    def left(self) -> bool:
        return any(one.ref.kind == "NetworkPolicy" for one in self.outcome.left)


def case_of(seed: int) -> Case:
    world = random_old_world(seed)
    outcome = world.imported()
    new = made(outcome, world)
    return Case(
        world,
        outcome,
        world.cluster(world.policies),
        world.cluster([*new, *kept(outcome, world)]),
        world.cluster([*new, *kept(outcome, world, only_what_opens=True)]),
    )


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return [case_of(seed) for seed in SEEDS]


def compare(cases: Sequence[Case], oracle: Oracle) -> None:
    befores, carefullies, boldlies = (
        oracle([getattr(case, name) for case in cases], ASKED) for name in ("before", "carefully", "boldly")
    )
    for case, before, carefully, boldly in zip(cases, befores, carefullies, boldlies, strict=True):
        seed = case.world.seed
        assert carefully <= before, f"seed {seed} opens {sorted(carefully - before)[:5]}"
        assert boldly <= before, f"seed {seed} opens when what closes is deleted {sorted(boldly - before)[:5]}"
        assert known(carefully) == known(before), f"seed {seed} closes {sorted(before - carefully)[:5]}"
        if not case.left:
            closed = known(before) - known(boldly)
            assert not closed, f"seed {seed} says nothing is left and closes {sorted(closed)[:5]}"


def known(flows: set[Flow]) -> set[Flow]:
    """Without pods of which the import could not know; for them, rules for a whole namespace are not taken over."""
    return {one for one in flows if "/stranger" not in one.client + one.server}


def test_the_random_worlds_are_interesting(cases: list[Case]) -> None:
    before = documented([case.before for case in cases], ASKED)
    pairs = sum(len(case.world.pods) * (len(case.world.pods) - 1) * len(ASKED) for case in cases)
    assert 0.1 < sum(map(len, before)) / pairs < 0.9
    assert 0.1 < sum(not case.left for case in cases) / len(cases) < 0.9
    replaced = sum(ref.kind == "NetworkPolicy" for case in cases for ref in case.outcome.replaced)
    assert replaced > sum(len(case.world.policies) for case in cases) / 4
    texts = [str([one.body for one in case.outcome.made]) for case in cases]
    for word in ("'workload'", "'pods'", "'cidr'", "'calls'", "'Isolated'", "'all': True", "'Selected'", "'dns'"):
        assert sum(word in text for text in texts) >= len(cases) / 50, word


def test_nothing_opens_by_the_documentation(cases: list[Case]) -> None:
    compare(cases, documented)


def test_nothing_opens_for_addresses_outside(cases: list[Case]) -> None:
    for case in cases:
        before, carefully, boldly = outside(case.before), outside(case.carefully), outside(case.boldly)
        assert carefully <= before, f"seed {case.world.seed} opens {sorted(carefully - before)[:5]}"
        assert boldly <= before, f"seed {case.world.seed} opens {sorted(boldly - before)[:5]}"
        closed = {one for one in before - carefully if not one[1].endswith("/stranger")}
        assert not closed, f"seed {case.world.seed} closes {sorted(closed)[:5]}"


@only_in_prove
@pytest.mark.parametrize("oracle", [by_nca, by_netpol_analyzer], ids=["nca", "netpol-analyzer"])
def test_nothing_opens_by_other_readers(oracle: Oracle) -> None:
    """Tidy worlds: what the readers are known to err about is not in them."""
    compare([case_of(seed) for seed in TOOLS], oracle)
