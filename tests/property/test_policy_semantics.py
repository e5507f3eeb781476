"""What must hold of every table, over random small clusters: nothing widens but by an accepted Allow."""

import copy
from collections.abc import Iterable
from dataclasses import replace
from random import Random
from typing import Any

from hypothesis import assume, event, given
from hypothesis import strategies as st

from tests.support.policies import (
    MISSING,
    Body,
    World,
    a_policy,
    changed,
    random_moment,
    random_policy,
    random_request,
    random_rule,
    random_world,
    randoms,
    shuffled,
    spec_of,
    tables_of,
    worlds,
)
from zerotrust.policy import acceptance, reading, table
from zerotrust.policy.acceptance import Accepted
from zerotrust.policy.directory import Identity, PlainDirectory
from zerotrust.policy.evaluate import Verdict, evaluate
from zerotrust.policy.network import PortOf, admits
from zerotrust.policy.reading import Policy
from zerotrust.policy.table import Row, Table

REQUESTS = 12


def verdicts(tables: Iterable[Table], world: World, random: Random) -> list[list[Verdict]]:
    """What each of these tables of one server says to the same requests at the same times."""
    listed = list(tables)
    asked = [(random_request(random, world, listed[0].server), random_moment(random)) for _ in range(REQUESTS)]
    return [[evaluate(one, request, moment) for one in listed] for request, moment in asked]


def table_of(server: Identity, *rows: Row) -> Table:
    return table.compile_table(server, [table.Contribution("policy", frozenset(), rows)])


def with_rule(world: World, random: Random, effect: str) -> tuple[World, int]:
    """The world with one more rule in one of its policies."""
    rule = random_rule(random, world.directory, "added")
    while rule["effect"] != effect:
        rule = random_rule(random, world.directory, "added")
    number = random.randrange(len(world.manifests))

    def add(spec: Body) -> None:
        spec["rules"].insert(random.randint(0, len(spec["rules"])), rule)
        spec.pop("layers", None)

    return changed(world, number, add), number


def test_a_seed_is_a_world() -> None:
    assert all(random_world(seed) == random_world(seed) for seed in range(50))
    assert len({repr(random_world(seed)) for seed in range(50)}) == 50


@given(worlds, randoms)
def test_adding_an_allow_removes_nothing(world: World, random: Random) -> None:
    more, _ = with_rule(world, random, "Allow")
    before, after = world.tables(), more.tables()
    for server in before:
        for old, new in verdicts((before[server], after[server]), world, random):
            assert new.allowed or not old.allowed


@given(worlds, randoms)
def test_adding_a_deny_adds_nothing(world: World, random: Random) -> None:
    more, _ = with_rule(world, random, "Deny")
    before, after = world.tables(), more.tables()
    for server in before:
        for old, new in verdicts((before[server], after[server]), world, random):
            assert old.allowed or not new.allowed


@given(worlds, randoms)
def test_a_candidate_changes_no_verdict(world: World, random: Random) -> None:
    homes = sorted({one.workload.namespace for one in world.directory.identities()})
    candidate = random_policy(random, world.directory, "candidate", random.choice(homes))
    candidate["spec"]["mode"] = "Observe"
    more = replace(world, manifests=(*world.manifests, candidate))
    before, after = world.tables(), more.tables()
    for server in before:
        assert before[server].layers == after[server].layers
        for old, new in verdicts((before[server], after[server]), world, random):
            assert (old.allowed, old.reason, old.policy, old.rule) == (new.allowed, new.reason, new.policy, new.rule)


@given(worlds, randoms)
def test_no_order_of_anything_changes_a_byte(world: World, random: Random) -> None:
    other = shuffled(world, random)
    assert sorted(map(str, other.tables())) == sorted(map(str, world.tables()))
    mixed = other.tables()
    for server, whole in world.tables().items():
        assert mixed[server].content == whole.content
        assert mixed[server].rows == whole.rows


@given(worlds)
def test_rows_have_one_order_only(world: World) -> None:
    for one in world.tables().values():
        orders = [row.order for row in one.rows]
        assert orders == sorted(orders)
        assert len(set(orders)) == len(orders)


@given(worlds, randoms)
def test_layer_4_lets_through_whatever_a_request_may(world: World, random: Random) -> None:
    for server, whole in world.tables().items():
        for _ in range(REQUESTS):
            request, moment = random_request(random, world, server), random_moment(random)
            if not evaluate(whole, request, moment).allowed:
                continue
            event("allowed")
            connection = replace(request, method=None, path=None, token=None, key=None)
            assert evaluate(whole, connection, moment).allowed
            for pod in world.pods:
                identities = world.identities_of(pod)
                if [one.workload for one in identities] != [request.client]:
                    continue
                port = PortOf(request.port, request.protocol)
                labels = world.directory.labels[pod.namespace]
                if not admits(whole, world.directory, labels, pod.labels, port, moment):
                    # Only a Deny about pods, which requests know nothing of, may close what a request could pass.
                    denying = [row for row in whole.rows if row.effect == "Deny" and row.client.pods is not None]
                    assert any(row.client.pods.contains(labels, pod.labels) for row in denying if row.client.pods)


@given(worlds, randoms)
def test_who_is_not_resolved_is_granted_nothing(world: World, random: Random) -> None:
    gone = random.choice(sorted(world.directory.by_workload))
    refused = replace(world.directory.by_workload[gone], resolved=False)
    directory = replace(world.directory, by_workload={**world.directory.by_workload, gone: refused})
    before, after = world.tables(), replace(world, directory=directory).tables()
    for server, whole in after.items():
        allowing = [row for row in whole.rows if row.effect == "Allow"]
        assert not [row for row in allowing if server == gone or row.client.workload == gone]
        assert {row for row in before[server].rows if row.effect == "Deny"} == {
            row for row in whole.rows if row.effect == "Deny"
        }
        assert set(allowing) <= set(before[server].rows)


@given(worlds, randoms)
def test_who_does_not_exist_is_granted_nothing_and_denied_by_name(world: World, random: Random) -> None:
    gone = random.choice(sorted(world.directory.by_workload))
    rest = {place: one for place, one in world.directory.by_workload.items() if place != gone}
    directory = replace(world.directory, by_workload=rest)
    before, after, named = world.tables(), replace(world, directory=directory).tables(), deny_by_name(world)
    for server, whole in after.items():
        mine = [row for row in whole.rows if row.client.workload == gone]
        assert all(row.effect == "Deny" for row in mine)
        denied = {row for row in before[server].rows if row.effect == "Deny" and row.client.workload == gone}
        assert {row for row in denied if (row.policy, row.rule) in named} <= set(mine)
        assert {row for row in whole.rows if row.effect == "Allow"} <= set(before[server].rows)


def deny_by_name(world: World) -> set[tuple[str, str]]:
    """Policy and name of the rules that deny nobody by label."""
    return {
        (policy.meta.name, rule.name)
        for policy in world.policies
        for rule in spec_of(policy).policy_rules
        if rule.effect == "Deny" and not any(peer.workloads for peer in rule.from_)
    }


def test_every_random_world_has_somebody_missing_now_and_then() -> None:
    found = [seed for seed in range(60) if MISSING in str(random_world(seed).manifests)]
    assert found


# --- changes that are not accepted ---


def version(random: Random, directory: PlainDirectory, body: Body) -> Body:
    """Another version of a policy: edited in a place or two, or another one altogether."""
    namespace, name = body["metadata"]["namespace"], body["metadata"]["name"]
    if random.random() < 0.2:
        return random_policy(random, directory, name, namespace)
    new = copy.deepcopy(body)
    for _ in range(random.randint(1, 3)):
        rules = new["spec"]["rules"]
        match random.randrange(6):
            case 0:
                rules.append(random_rule(random, directory, f"added-{len(rules)}"))
            case 1 if len(rules) > 1:
                rules.pop(random.randrange(len(rules)))
            case 2:
                rule = random.choice(rules)
                rule.pop(random.choice(["when", "until"]), None)
            case 3:
                destination = random.choice(random.choice(rules)["to"])
                destination.pop(random.choice(["methods", "paths"]), None)
            case 4:
                new["spec"]["mode"] = random.choice(["Enforce", "Observe"])
            case _:
                new["spec"]["target"] = random_policy(random, directory, name, namespace)["spec"]["target"]
    names = [rule["name"] for rule in new["spec"]["rules"]]
    for number, rule in enumerate(new["spec"]["rules"]):
        rule["name"] = f"{rule['name']}-{number}" if names.count(rule["name"]) > 1 else rule["name"]
    new["spec"].pop("layers", None)
    return new


def rows_of(policy: Policy, directory: PlainDirectory, server: Identity) -> tuple[Row, ...]:
    return table.resolve(policy.meta.name, policy.meta.namespace, spec_of(policy), directory, server).rows


@given(worlds, randoms)
def test_what_is_withheld_allows_what_both_versions_allow_at_most(world: World, random: Random) -> None:
    body = random.choice(world.manifests)
    old = reading.observe(body)
    new = reading.observe(version(random, world.directory, body))
    assume(new.spec.problem is None)
    for server in world.directory.identities(old.meta.namespace):
        first, second = rows_of(old, world.directory, server), rows_of(new, world.directory, server)
        held = table.withheld(second, first)
        assert {row for row in (*first, *second) if row.effect == "Deny"} == {
            row for row in held if row.effect == "Deny"
        }
        tables = (table_of(server, *held), table_of(server, *first), table_of(server, *second))
        for mine, before, after in verdicts(tables, world, random):
            assert not mine.allowed or (before.allowed and after.allowed)
            if mine.allowed:
                event("allowed by both")


@given(worlds, randoms)
def test_an_unchanged_version_is_withheld_nothing(world: World, random: Random) -> None:
    policy = random.choice(world.policies)
    for server in world.directory.identities(policy.meta.namespace):
        rows = rows_of(policy, world.directory, server)
        tables = (table_of(server, *table.withheld(rows, rows)), table_of(server, *rows))
        for held, whole in verdicts(tables, world, random):
            assert held.allowed == whole.allowed


@given(worlds, randoms)
def test_a_version_that_only_takes_away_is_in_force_at_once(world: World, random: Random) -> None:
    body = random.choice(world.manifests)
    new = copy.deepcopy(body)
    rules = new["spec"]["rules"]
    rules[:] = [rule for rule in rules if rule["effect"] == "Deny" or random.random() < 0.5]
    old, policy = reading.observe(body), reading.observe(new)
    accepted = Accepted(1, spec_of(old), reading.digest(spec_of(old)))
    for server in table.targets_of(spec_of(policy), policy.meta.namespace, world.directory):
        found = acceptance.rows_in_force(policy, accepted, world.directory, server)
        assert found is not None
        tables = (table_of(server, *found[1]), table_of(server, *rows_of(policy, world.directory, server)))
        for held, wanted in verdicts(tables, world, random):
            assert held.allowed == wanted.allowed


@given(worlds, randoms)
def test_no_change_that_is_not_accepted_widens_a_world(world: World, random: Random) -> None:
    number = random.randrange(len(world.manifests))
    old = world.policies[number]
    new = reading.observe(version(random, world.directory, world.manifests[number]))
    assume(new.spec.problem is None and reading.digest(spec_of(new)) != reading.digest(spec_of(old)))
    others = [policy for policy in world.policies if policy is not old and policy.meta.ref != old.meta.ref]
    accepted = Accepted(1, spec_of(old), reading.digest(spec_of(old)))
    before, others_alone = world.tables(), tables_of(world.directory, others)
    for place, server in world.directory.by_workload.items():
        if place.namespace != old.meta.namespace:
            continue
        found = acceptance.rows_in_force(new, accepted, world.directory, server)
        mine = [table.contribution(new.meta.name, *found)] if found is not None else []
        rest = table.Contribution("others", others_alone[place].layers, others_alone[place].rows)
        now = table.compile_table(server, [rest, *mine])
        assert now.layers >= before[place].layers, "a layer that enforced it does so no more"
        for was, held in verdicts((before[place], now), world, random):
            assert was.allowed or not held.allowed


# --- lenient reading ---

BROKEN: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        65536,
        1.5,
        "",
        "x",
        "*",
        "Deny",
        "Observe",
        "OPA",
        "é",
        "\ud800",
        [],
        {},
        [None],
        [{}],
    ),
    *([[]], {"": None}, {"unknown": 1}, {"all": True}, ["OPA"], ["NetworkPolicy", 1], "/../x", "2020-01-01T00:00:00Z"),
)


def places(value: Any) -> list[tuple[Any, ...]]:
    keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    return [(), *((key, *rest) for key in keys for rest in places(value[key]))]


def broken(random: Random, spec: Body) -> Any:
    """The spec with one place that is something else, is gone, or has a field that nobody knows."""
    way = random.choice(places(spec)[1:])
    whole = copy.deepcopy(spec)
    inner: Any = whole
    for key in way[:-1]:
        inner = inner[key]
    match random.randrange(3):
        case 0 if isinstance(inner, dict):
            del inner[way[-1]]
        case 1 if isinstance(inner, dict):
            inner[f"{way[-1]}l"] = inner.pop(way[-1])
        case _:
            inner[way[-1]] = random.choice(BROKEN)
    return whole


@given(worlds, randoms)
def test_a_broken_part_widens_nothing(world: World, random: Random) -> None:
    body = random.choice(world.manifests)
    old = reading.observe(body)
    new = reading.observe({**body, "spec": broken(random, body["spec"])})
    assume(new.spec.problem is not None)
    accepted = Accepted(1, spec_of(old), reading.digest(spec_of(old)))
    for server in world.directory.identities(old.meta.namespace):
        targeted = server in table.targets_of(accepted.spec, old.meta.namespace, world.directory)
        rows = rows_of(old, world.directory, server) if targeted else ()
        whole = table.compile_table(server, [table.contribution("policy", accepted.spec, rows)] if targeted else [])
        found = acceptance.rows_in_force(new, accepted, world.directory, server)
        held = table.compile_table(server, [table.contribution("policy", *found)] if found else [])
        assert held.layers >= whole.layers
        for was, now in verdicts((whole, held), world, random):
            assert was.allowed or not now.allowed
        kept = {row for row in held.rows if row.effect == "Deny" and not row.observe}
        assert {row for row in whole.rows if row.effect == "Deny" and not row.observe} <= kept
        fresh = acceptance.rows_in_force(new, None, world.directory, server)
        assert fresh is None or not [row for row in fresh[1] if row.effect == "Allow"]


garbage = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["target", "rules", "layers", "mode", "all", "from", "to", "x"]), inner, max_size=5
        )
    ),
    max_leaves=12,
)


@given(garbage)
def test_whatever_is_in_a_file_is_told_and_not_raised(body: Any) -> None:
    assert (reading.read(body).problem is None) <= isinstance(body, dict)
    whole = reading.read({"target": {"all": True}, "rules": body, "layers": body, "mode": body})
    assert whole.problem is not None or body in ([], None)


def test_the_empty_policy_closes_its_targets_and_allows_nothing() -> None:
    world = random_world(1)
    homes = {place.namespace for place in world.directory.by_workload}
    policies = [a_policy("empty", home, target={"all": True}) for home in homes]
    for one in tables_of(world.directory, policies).values():
        assert one.rows == ()
        assert "NetworkPolicy" in one.layers
