"""What is in force while a change is not accepted, how tests are run, and what makes two versions the same."""

import copy
import json
from random import Random
from typing import Any

import pytest

from tests.support.certificates import NOW
from tests.support.policies import Body, a_policy, a_policy_body, random_world, shuffled, spec_of
from zerotrust.common.resource import parse
from zerotrust.policy import acceptance, reading, table
from zerotrust.policy.acceptance import Accepted, rows_in_force, run_tests
from zerotrust.policy.directory import Identity, PlainDirectory, Workload, default_selector
from zerotrust.policy.reading import Policy
from zerotrust.policy.resource import TrustPolicySpec
from zerotrust.policy.table import Contribution, Table

ORDERS, STOCK, FRONT, BACK = (
    Workload(*place) for place in (("shop", "orders"), ("shop", "stock"), ("web", "front"), ("web", "back"))
)
FROM_FRONT: Body = {"workload": {"name": "front", "namespace": "web"}}
FROM_BACK: Body = {"workload": {"name": "back", "namespace": "web"}}
Ran = acceptance.TestRun  # under a name that pytest does not collect
AT_ORDERS: Body = {"identities": ["orders"]}


def a_directory(*changed: Identity) -> PlainDirectory:
    directory = PlainDirectory(
        {
            place: Identity(place, {"app": place.name}, default_selector(place.name), providers=frozenset({"corp"}))
            for place in (ORDERS, STOCK, FRONT, BACK)
        },
        {"shop": {}, "web": {}},
        {Workload("shop", "partner"): frozenset({"read"})},
    )
    directory.by_workload |= {one.workload: one for one in changed}
    return directory


def a_rule(name: str = "rule", *peers: Body, **more: Any) -> Body:
    return {"name": name, "from": list(peers) or [FROM_FRONT], "to": [{"port": 8443}], **more}


def a_spec(*rules: Body, target: Body | None = None, **more: Any) -> Body:
    return {"target": target or AT_ORDERS, "rules": list(rules), **more}


def accepted(spec: Body | None) -> Accepted | None:
    """The version that is remembered of a spec, the way it is written and found again."""
    if spec is None:
        return None
    policy = a_policy(**spec)
    body = acceptance.remember(policy, spec_of(policy), 1, "zerotrust-system").manifest
    return acceptance.newest([reading.observe_revision(json.loads(json.dumps(body)))])


def in_force(
    new: Body, old: Body | None, server: Workload = ORDERS, directory: PlainDirectory | None = None
) -> tuple[list[str], list[str], str, list[str]] | None:
    """Clients that are allowed, clients that are denied, the mode, and the layers of what is in force for a server."""
    directory = directory or a_directory()
    policy = reading.observe(a_policy_body("policy", "shop", **new))
    found = rows_in_force(policy, accepted(old), directory, directory.by_workload[server])
    if found is None:
        return None
    spec, rows = found
    named = [
        [str(row.client) for row in rows if row.effect == effect and not row.observe] for effect in ("Allow", "Deny")
    ]
    return sorted(named[0]), sorted(named[1]), spec.mode, list(spec.layers)


EVERY_LAYER = ["NetworkPolicy", "OPA", "Gatekeeper"]
ALLOW, BOTH, DENY = a_rule(), a_rule("both", FROM_FRONT, FROM_BACK), a_rule("deny", FROM_BACK, effect="Deny")


# --- rows in force ---


def test_without_an_accepted_version_only_denies_are_in_force() -> None:
    assert in_force(a_spec(ALLOW, DENY), None) == ([], ["web/back"], "Enforce", EVERY_LAYER)
    assert in_force(a_spec(ALLOW), None) == ([], [], "Enforce", EVERY_LAYER)
    assert in_force(a_spec(ALLOW), None, STOCK) is None


def test_the_accepted_version_is_in_force_whole() -> None:
    spec = a_spec(BOTH, DENY)
    assert in_force(spec, spec) == (["web/back", "web/front"], ["web/back"], "Enforce", EVERY_LAYER)
    assert in_force(spec, spec, STOCK) is None


def test_what_a_change_adds_waits_and_what_it_takes_goes_at_once() -> None:
    assert in_force(a_spec(BOTH), a_spec(ALLOW)) == (["web/front"], [], "Enforce", EVERY_LAYER)
    assert in_force(a_spec(ALLOW), a_spec(BOTH)) == (["web/front"], [], "Enforce", EVERY_LAYER)
    assert in_force(a_spec(), a_spec(BOTH)) == ([], [], "Enforce", EVERY_LAYER)
    assert in_force(a_spec(BOTH, DENY), a_spec(ALLOW)) == (["web/front"], ["web/back"], "Enforce", EVERY_LAYER)
    assert in_force(a_spec(BOTH), a_spec(ALLOW, DENY)) == (["web/front"], ["web/back"], "Enforce", EVERY_LAYER)


def test_a_target_that_moves_is_closed_where_it_was_and_not_open_where_it_goes() -> None:
    old, new = a_spec(ALLOW, DENY), a_spec(ALLOW, target={"identities": ["stock"]})
    assert in_force(new, old) == ([], ["web/back"], "Enforce", EVERY_LAYER)
    assert in_force(new, old, STOCK) == ([], [], "Enforce", EVERY_LAYER)
    wider = a_spec(ALLOW, target={"all": True})
    assert in_force(wider, old) == (["web/front"], ["web/back"], "Enforce", EVERY_LAYER)
    assert in_force(wider, old, STOCK) == ([], [], "Enforce", EVERY_LAYER)


def test_a_version_that_is_to_observe_goes_on_enforcing_until_it_is_accepted() -> None:
    old = a_spec(ALLOW, DENY, layers=["NetworkPolicy"])
    assert in_force(a_spec(ALLOW, mode="Observe"), old) == ([], ["web/back"], "Enforce", ["NetworkPolicy"])
    observing = a_spec(ALLOW, DENY, mode="Observe")
    assert in_force(observing, observing) == ([], [], "Observe", EVERY_LAYER)


def test_a_version_that_is_to_enforce_allows_nothing_until_it_is_accepted() -> None:
    assert in_force(a_spec(ALLOW, DENY), a_spec(ALLOW, mode="Observe")) == ([], ["web/back"], "Enforce", EVERY_LAYER)


def test_a_layer_that_a_change_leaves_out_goes_on_until_it_is_accepted() -> None:
    old, new = a_spec(ALLOW, DENY), a_spec(ALLOW, layers=["OPA"])
    assert in_force(new, old) == (["web/front"], ["web/back"], "Enforce", EVERY_LAYER)
    assert in_force(new, new) == (["web/front"], [], "Enforce", ["OPA"])
    assert in_force(a_spec(ALLOW), new) == (["web/front"], [], "Enforce", EVERY_LAYER)
    assert in_force(new, a_spec(ALLOW, mode="Observe")) == ([], [], "Enforce", ["OPA"])


BROKEN: list[tuple[str, Body]] = [
    ("no target", a_spec(BOTH) | {"target": None}),
    ("two targets", a_spec(BOTH, target={"all": True, "identities": ["orders"]})),
    ("target with a typo", a_spec(BOTH, target={"identites": ["orders"]})),
    ("empty selector", a_spec(BOTH, target={"selector": {}})),
]


@pytest.mark.parametrize(("_", "spec"), BROKEN)
def test_a_target_that_cannot_be_read_leaves_the_denies_of_the_accepted_one(_: str, spec: Body) -> None:
    assert in_force(spec, a_spec(ALLOW, DENY)) == ([], ["web/back"], "Enforce", EVERY_LAYER)
    assert in_force(spec, a_spec(ALLOW, DENY), STOCK) is None
    assert in_force(spec, None) is None


@pytest.mark.parametrize(
    "broken",
    [
        {"untill": "2020-01-01T00:00:00Z"},
        {"to": []},
        {"from": [FROM_FRONT, {"workload": {"name": "back"}}]},
        {"to": [{"port": 8443, "path": ["/a"]}]},
        {"effect": "allow"},
    ],
)
def test_a_rule_that_cannot_be_read_allows_nothing_and_the_others_go_on(broken: Body) -> None:
    whole = a_spec(ALLOW, a_rule("other", FROM_BACK), a_rule("no", {"anyWorkload": {}}, effect="Deny"))
    damaged = copy.deepcopy(whole)
    damaged["rules"][0] |= broken
    assert in_force(damaged, whole) == (["web/back"], ["any workload"], "Enforce", EVERY_LAYER)
    damaged = copy.deepcopy(whole)
    damaged["rules"][2] |= {key: value for key, value in broken.items() if key != "effect"} | {"nmae": "x"}
    assert in_force(damaged, whole) == (["web/back", "web/front"], ["any workload"], "Enforce", EVERY_LAYER)


def test_a_new_deny_is_in_force_although_another_part_cannot_be_read() -> None:
    for damaged in (
        a_spec(ALLOW, DENY, a_rule("bad", to=[])),
        a_spec(ALLOW, DENY, layers=[]),
        a_spec(ALLOW, DENY, DENY),
    ):
        assert in_force(damaged, a_spec(ALLOW)) == (["web/front"], ["web/back"], "Enforce", EVERY_LAYER)
        assert in_force(damaged, None) == ([], ["web/back"], "Enforce", EVERY_LAYER)


def test_an_unknown_field_anywhere_keeps_a_change_from_being_accepted() -> None:
    spec = a_spec(ALLOW)
    for damaged in (spec | {"x": 1}, a_spec(ALLOW, admission={"x": 1}), a_spec(ALLOW, tests=[{"name": "t"}])):
        policy = reading.observe(a_policy_body("policy", "shop", **damaged))
        assert policy.spec.problem is not None
        assert not acceptance.is_accepted(policy, accepted(spec))
        assert in_force(damaged, spec) == (["web/front"], [], "Enforce", EVERY_LAYER)
        assert in_force(damaged, None) == ([], [], "Enforce", EVERY_LAYER)


def test_what_stops_resolving_after_it_was_accepted_grants_nothing() -> None:
    directory = a_directory()
    del directory.by_workload[BACK]
    spec = a_spec(BOTH, DENY)
    assert in_force(spec, spec, directory=directory) == (["web/front"], ["web/back"], "Enforce", EVERY_LAYER)


# --- what is remembered ---


def revision(number: int, spec: Any) -> Any:
    body = {
        "metadata": {"name": f"r{number}", "namespace": "zerotrust-system"},
        "revision": number,
        "data": {"spec": spec},
    }
    return reading.observe_revision(body)


def test_the_newest_version_that_can_be_read_counts() -> None:
    one, two = a_spec(ALLOW), a_spec(BOTH)
    found = acceptance.newest([revision(2, two), revision(10, one), revision(9, two)])
    assert found is not None
    assert (found.number, found.spec) == (10, spec_of(a_policy(**one)))
    for unreadable in (None, "x", [], {}, {"target": {}}, {**two, "x": 1}):
        found = acceptance.newest([revision(1, one), revision(2, unreadable)])
        assert found is not None
        assert found.number == 1
        assert acceptance.newest([revision(2, unreadable)]) is None
    assert acceptance.newest([]) is None


@pytest.mark.parametrize("seed", range(40))
def test_a_version_comes_back_from_memory_as_it_was(seed: int) -> None:
    for body in random_world(seed).manifests:
        policy = reading.observe(body)
        found = accepted(body["spec"])
        assert found is not None
        assert found.spec == spec_of(policy)
        assert acceptance.is_accepted(policy, found)


def test_the_digest_is_of_what_is_said_and_not_of_how() -> None:
    rule = a_rule(when={"time": {"days": ["Mon"], "timeZone": "UTC"}}, until="2026-12-31T00:00:00Z")
    spec = a_spec(rule)
    whole = a_spec(
        a_rule(
            effect="Allow",
            to=[{"protocol": "TCP", "port": 8443}],
            until="2026-12-31T01:00:00.0+01:00",
            when={"time": {"timeZone": "UTC", "days": ["Mon"]}},
        ),
        mode="Enforce",
        layers=EVERY_LAYER,
        tests=[],
    )
    digests = {
        reading.read(body).digest for body in (spec, whole, dict(reversed(whole.items())), spec | {"admission": None})
    }
    assert len(digests) == 1


@pytest.mark.parametrize(
    "changed",
    [
        a_spec(a_rule("other")),
        a_spec(a_rule(effect="Deny")),
        a_spec(a_rule(to=[{"port": 8444}])),
        a_spec(a_rule(to=[{"port": 8443, "methods": ["GET"]}])),
        a_spec(a_rule(until="2026-12-31T00:00:00Z")),
        a_spec(ALLOW, mode="Observe"),
        a_spec(ALLOW, layers=["NetworkPolicy"]),
        a_spec(ALLOW, target={"all": True}),
        a_spec(ALLOW, admission={}),
        a_spec(ALLOW, admission={"requireDigest": True}),
        a_spec(ALLOW, tests=[{"name": "t", "request": {"from": "a/b", "port": 1}, "expect": "Deny"}]),
        a_spec(ALLOW, ALLOW | {"name": "twice"}),
    ],
)
def test_any_other_word_is_another_version(changed: Body) -> None:
    policy = a_policy(**changed)
    assert policy.spec.digest != reading.read(a_spec(ALLOW)).digest
    assert not acceptance.is_accepted(policy, accepted(a_spec(ALLOW)))


@pytest.mark.parametrize("seed", range(40))
def test_the_order_of_keys_makes_no_other_version(seed: int) -> None:
    for body in random_world(seed).manifests:
        mixed = json.loads(json.dumps(body["spec"]), object_pairs_hook=lambda pairs: dict(reversed(pairs)))
        assert list(mixed) != list(body["spec"])
        assert reading.read(mixed).digest == reading.read(body["spec"]).digest
        defaulted = parse(TrustPolicySpec, body["spec"], "spec").model_dump(
            mode="json", by_alias=True, exclude_none=True
        )
        assert reading.read(defaulted).digest == reading.read(body["spec"]).digest


def test_only_so_many_versions_are_kept() -> None:
    kept = [revision(number, a_spec(ALLOW)) for number in (3, 11, 2, 10)]
    assert [delete.ref.name for delete in acceptance.superseded(kept, 2)] == ["r3", "r2"]
    assert acceptance.superseded(kept, 4) == acceptance.superseded([], 2) == ()


# --- tests of a policy ---


def run(*tests: Body, rules: list[Body] | None = None, directory: PlainDirectory | None = None, **more: Any) -> Ran:
    directory = directory or a_directory()
    policy = a_policy("policy", "shop", **a_spec(*(rules if rules is not None else [ALLOW]), tests=list(tests), **more))

    def table_of(server: Identity, candidate: Contribution) -> Table:
        return table.compile_table(server, [candidate])

    return run_tests(policy, spec_of(policy), directory, table_of, NOW)


def a_test(
    name: str = "t", expect: str = "Allow", *, at: str | None = None, from_: str = "web/front", **request: Any
) -> Body:
    whole = {"from": from_, "port": 8443, "method": "GET", "path": "/a", **request}
    return {"name": name, "request": whole, "expect": expect, **({"at": at} if at else {})}


def test_tests_pass_or_fail_by_name_and_the_first_is_told() -> None:
    assert run() == Ran(0)
    assert run(a_test(), a_test("no", "Deny", from_="web/back")) == Ran(2)
    result = run(a_test("a", "Deny"), a_test("b"), a_test("c", from_="web/back"))
    assert (result.passed, result.failed) == (1, ("a", "c"))
    assert result.first == (
        "spec.tests[0] (a): expects Deny from web/front to shop/orders, gets Allow (allowed) by rule rule of TrustPolicy policy"
    )
    assert "gets Deny (no_grant)" in run(a_test("c", from_="web/back")).first


def test_a_test_holds_for_each_target_or_for_the_one_it_names() -> None:
    everything: Body = {"all": True}
    own = a_rule("own", {"workload": {"name": "orders", "namespace": "shop"}})
    assert run(a_test(), target=everything).failed == ()
    assert run(a_test(to="stock"), target=everything).failed == ()
    assert run(a_test(from_="shop/orders"), rules=[own], target=everything).failed == ()
    assert "no target of the policy is called stock" in run(a_test("x", "Deny", to="stock")).first
    assert "there is no target" in run(a_test("x", "Deny"), target={"identities": ["ghost"]}).first


def test_a_candidate_is_tested_as_if_it_were_enforced() -> None:
    assert run(a_test(), a_test("no", "Deny", from_="web/back"), mode="Observe") == Ran(2)


def test_a_caller_that_is_no_identity_is_denied() -> None:
    anybody = [a_rule("all", {"anyWorkload": {}})]
    assert run(a_test(), rules=anybody) == Ran(1)
    assert "no_identity" in run(a_test(from_="web/ghost"), rules=anybody).first
    refused = Identity(FRONT, {}, default_selector("front"), resolved=False)
    assert "no_identity" in run(a_test(), rules=anybody, directory=a_directory(refused)).first


def test_tests_bring_credentials_and_a_time() -> None:
    user: Body = {"provider": "corp", "audiences": ["orders"], "claims": {"groups": ["sre"]}}
    by_user = [a_rule("u", FROM_FRONT | {"user": user}, when={"scopes": ["read"]})]
    assert run(a_test(user=user | {"scopes": ["read", "x"]}), rules=by_user) == Ran(1)
    assert "missing_scope" in run(a_test(user=user), rules=by_user).first
    assert "bad_token" in run(a_test(), rules=by_user).first
    by_key = [a_rule("k", FROM_FRONT | {"apiKey": {"name": "partner"}}, when={"scopes": ["read"]})]
    assert run(a_test(apiKey="partner"), rules=by_key) == Ran(1)
    assert "bad_key" in run(a_test(apiKey="ghost"), rules=by_key).first
    ending = [a_rule(until="2030-01-01T00:00:00Z")]
    assert run(
        a_test("before", at="2029-12-31T23:59:59Z"), a_test("after", "Deny", at="2030-01-01T00:00:00Z"), rules=ending
    ) == Ran(2)
    insecure = [a_rule(when={"requireMTLS": True})]
    assert "mtls_required" in run(a_test(mtls=False), rules=insecure).first
    assert run(a_test(path="/a/%2e%2e"), rules=[ALLOW]).failed == ("t",)


def test_a_connection_is_tested_without_method_and_path() -> None:
    assert run({"name": "c", "request": {"from": "web/front", "port": 8443}, "expect": "Allow"}) == Ran(1)
    assert run(
        {"name": "c", "request": {"from": "web/front", "port": 8443, "protocol": "UDP"}, "expect": "Deny"}
    ) == Ran(1)


def test_tests_see_what_other_policies_say() -> None:
    directory, policy = a_directory(), a_policy("policy", "shop", **a_spec(ALLOW, tests=[a_test("t", "Deny")]))
    other = table.resolve(
        "other", "shop", spec_of(a_policy(**a_spec(a_rule(effect="Deny")))), directory, directory.by_workload[ORDERS]
    )

    def table_of(server: Identity, candidate: Contribution) -> Table:
        return table.compile_table(server, [candidate, Contribution("other", frozenset(), other.rows)])

    assert run_tests(policy, spec_of(policy), directory, table_of, NOW) == Ran(1)


def test_worlds_are_accepted_whatever_the_order_in_which_they_come() -> None:
    for seed in range(30):
        world = random_world(seed)
        mixed: dict[Any, Policy] = {policy.meta.ref: policy for policy in shuffled(world, Random(seed)).policies}
        for policy in world.policies:
            found = accepted(json.loads(json.dumps(world.manifests[world.policies.index(policy)]["spec"])))
            assert found is not None
            assert acceptance.is_accepted(policy, found)
            assert mixed[policy.meta.ref].spec.problem is None
