"""The decision table: which rows a policy makes, in which order, and what is in force of a change that is not accepted."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.certificates import NOW
from tests.support.policies import Body, a_policy, spec_of, tables_of
from zerotrust.policy import table
from zerotrust.policy.directory import Identity, PlainDirectory, Workload, default_selector
from zerotrust.policy.evaluate import Request, evaluate
from zerotrust.policy.podset import NAMESPACE_NAME, PodSet, Requirement, equal
from zerotrust.policy.table import ANY_WORKLOAD, MAX_ROWS, Client, KeyPrincipal, Resolution, Row, Table, UserPrincipal

ORDERS, FRONT, BACK, OTHER = (
    Workload(*place) for place in (("shop", "orders"), ("web", "front"), ("web", "back"), ("shop", "other"))
)
FROM_FRONT: Body = {"workload": {"name": "front", "namespace": "web"}}
MISSING: Body = {"workload": {"name": "ghost", "namespace": "web"}}
USER: Body = {"provider": "corp", "audiences": ["orders"]}


def an_identity(place: Workload, **parts: Any) -> Identity:
    labels = parts.pop("labels", {"app": place.name})
    return Identity(place, labels, default_selector(place.name), providers=frozenset({"corp"}), **parts)


def a_directory(*changed: Identity) -> PlainDirectory:
    directory = PlainDirectory(
        {place: an_identity(place) for place in (ORDERS, FRONT, BACK, OTHER)},
        {
            "shop": {NAMESPACE_NAME: "shop", "env": "prod"},
            "web": {NAMESPACE_NAME: "web", "env": "prod"},
            "dev": {"env": "dev"},
        },
        {Workload("shop", "partner"): frozenset({"read"}), Workload("web", "theirs"): frozenset({"read"})},
    )
    directory.by_workload |= {one.workload: one for one in changed}
    return directory


def a_rule(name: str = "rule", *peers: Body, **more: Any) -> Body:
    return {"name": name, "from": list(peers) or [FROM_FRONT], "to": [{"port": 8443}], **more}


def resolved(
    *rules: Body, directory: PlainDirectory | None = None, server: Workload = ORDERS, **spec: Any
) -> Resolution:
    directory = directory or a_directory()
    policy = a_policy("policy", target={"all": True}, rules=[*rules], **spec)
    return table.resolve("policy", "shop", spec_of(policy), directory, directory.by_workload[server])


def clients(resolution: Resolution) -> list[str]:
    return [str(row.client) for row in resolution.rows]


# --- who a peer is ---


def test_a_workload_is_itself_and_any_workload_stands_for_all() -> None:
    rows = resolved(a_rule("a", FROM_FRONT, {"anyWorkload": {}})).rows
    assert [row.client for row in rows] == [Client.of(FRONT), ANY_WORKLOAD]


def test_workloads_are_those_of_the_own_namespace_without_a_namespace_selector() -> None:
    assert clients(
        resolved(a_rule("a", {"workloads": {"selector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}}}))
    ) == [
        "shop/orders",
        "shop/other",
    ]


def test_workloads_of_selected_namespaces_meet_both_selectors() -> None:
    everywhere = {"namespaceSelector": {"matchLabels": {"env": "prod"}}}
    assert clients(resolved(a_rule("a", {"workloads": everywhere}))) == [
        "shop/orders",
        "shop/other",
        "web/front",
        "web/back",
    ]
    both = everywhere | {"selector": {"matchLabels": {"app": "back"}}}
    assert clients(resolved(a_rule("a", {"workloads": both}))) == ["web/back"]
    assert resolved(a_rule("a", {"workloads": {"namespaceSelector": {"matchLabels": {"env": "none"}}}})).rows == ()


def test_pods_without_a_namespace_selector_are_of_the_own_namespace() -> None:
    (row,) = resolved(a_rule("a", {"pods": {"podSelector": {"matchLabels": {"app": "x"}}}})).rows
    assert row.client.pods == PodSet((equal(NAMESPACE_NAME, "shop"),), (equal("app", "x"),))
    (row,) = resolved(a_rule("a", {"pods": {"namespaceSelector": {"matchLabels": {"env": "prod"}}}})).rows
    assert row.client.pods == PodSet((equal("env", "prod"),), ())


def test_principals_and_conditions_are_sorted_into_the_row() -> None:
    user = USER | {"audiences": ["stock", "orders", "stock"], "claims": {"b": ["2", "1", "2"], "a": ["x"]}}
    to = [{"port": 8443, "methods": ["PUT", "GET", "PUT"], "paths": ["/b", "/a"]}]
    when = {"scopes": ["w", "r", "w"], "requireMTLS": True, "time": {"timeZone": "UTC", "days": ["Sun", "Mon", "Sun"]}}
    (row,) = resolved(a_rule("a", FROM_FRONT | {"user": user}, to=to, when=when)).rows
    assert row.principal == UserPrincipal("corp", ("orders", "stock"), (("a", ("x",)), ("b", ("1", "2"))))
    assert (row.methods, row.paths, row.scopes, row.require_mtls) == (("GET", "PUT"), ("/a", "/b"), ("r", "w"), True)
    assert row.window == table.Window((0, 6), 0, 1440, "UTC")
    (row,) = resolved(a_rule("a", FROM_FRONT | {"apiKey": {"scopes": ["w", "r"]}})).rows
    assert row.principal == KeyPrincipal("", ("r", "w"))


def test_an_end_is_as_exact_as_what_is_remembered_of_it() -> None:
    (row,) = resolved(a_rule(until="2026-12-31T00:00:00.9Z")).rows
    assert row.until == datetime(2026, 12, 31, tzinfo=UTC)
    assert row.to_document()["until"] == "2026-12-31T00:00:00Z"


# --- what does not resolve ---

UNRESOLVED: list[tuple[Body, str]] = [
    (MISSING, "workload"),
    (FROM_FRONT | {"user": USER | {"provider": "elsewhere"}}, "user.provider"),
    (FROM_FRONT | {"apiKey": {"name": "ghost"}}, "apiKey.name"),
    (FROM_FRONT | {"apiKey": {"name": "theirs"}}, "apiKey.name"),
]


@pytest.mark.parametrize(("peer", "place"), UNRESOLVED)
def test_what_does_not_resolve_allows_nothing_and_still_denies(peer: Body, place: str) -> None:
    good = a_rule("good", {"workload": {"name": "back", "namespace": "web"}})
    allow = resolved(good, a_rule("bad", FROM_FRONT, peer))
    assert clients(allow) == ["web/back", "web/front"]
    assert [path for path, _ in allow.unresolved] == [f"spec.rules[1].from[1].{place}"]
    deny = resolved(a_rule("bad", peer, effect="Deny"))
    assert [row.effect for row in deny.rows] == ["Deny"]
    assert [path for path, _ in deny.unresolved] == [f"spec.rules[0].from[0].{place}"]


def test_a_deny_by_name_holds_from_the_moment_its_identity_exists() -> None:
    deny = a_policy(
        "policy", target={"all": True}, rules=[a_rule("all", {"anyWorkload": {}}), a_rule("no", MISSING, effect="Deny")]
    )
    decided = tables_of(a_directory(), [deny])[ORDERS]
    assert evaluate(decided, Request(Workload("web", "ghost"), 8443), NOW).reason == "denied_by_rule"


def test_an_identity_that_is_refused_itself_is_granted_nothing() -> None:
    directory = a_directory(an_identity(FRONT, resolved=False))
    by_label: Body = {"workloads": {"namespaceSelector": {"matchLabels": {NAMESPACE_NAME: "web"}}}}
    by_name = resolved(a_rule(), directory=directory)
    assert by_name.rows == ()
    assert [path for path, _ in by_name.unresolved] == ["spec.rules[0].from[0].workload"]
    assert clients(resolved(a_rule("a", by_label), directory=directory)) == ["web/back"]
    assert clients(resolved(a_rule("a", by_label, effect="Deny"), directory=directory)) == ["web/front", "web/back"]


def test_nothing_is_granted_to_anybody_by_a_server_that_is_refused_itself() -> None:
    directory = a_directory(an_identity(ORDERS, resolved=False))
    policy = a_policy("policy", target={"all": True}, rules=[a_rule(), a_rule("deny", effect="Deny")])
    assert {row.effect for row in tables_of(directory, [policy])[ORDERS].rows} == {"Deny"}
    assert {row.effect for row in tables_of(directory, [policy])[OTHER].rows} == {"Allow", "Deny"}


def test_more_rows_than_the_bound_are_no_rows_and_said_so() -> None:
    many = {
        Workload("web", f"client-{number}"): an_identity(Workload("web", f"client-{number}"))
        for number in range(MAX_ROWS // 16 + 1)
    }
    directory = a_directory(*many.values())
    to = [{"port": port} for port in range(1, 17)]
    everybody: Body = {"workloads": {"namespaceSelector": {"matchLabels": {NAMESPACE_NAME: "web"}}}}
    allow = resolved(a_rule("many", everybody, to=to), a_rule("few"), directory=directory)
    assert clients(allow) == ["web/front"]
    assert [path for path, _ in allow.unresolved] == ["spec.rules[0].from[0]"]
    deny = resolved(a_rule("many", everybody, to=to, effect="Deny"), directory=directory)
    assert len(deny.rows) > MAX_ROWS
    assert deny.unresolved == ()


# --- targets and layers ---


def test_targets_are_named_selected_or_all_of_the_own_namespace() -> None:
    def targets(**target: Any) -> list[str]:
        spec = spec_of(a_policy(target=target))
        return [str(one.workload) for one in table.targets_of(spec, "shop", a_directory())]

    assert targets(all=True) == ["shop/orders", "shop/other"]
    assert targets(identities=["other", "ghost", "front", "other"]) == ["shop/other"]
    assert targets(selector={"matchLabels": {"app": "orders"}}) == ["shop/orders"]
    assert targets(selector={"matchLabels": {"app": "front"}}) == []


def test_a_candidate_enforces_in_no_layer() -> None:
    policies = [
        a_policy("one", target={"all": True}, rules=[a_rule()], layers=["OPA"]),
        a_policy("two", target={"all": True}, rules=[a_rule()], mode="Observe"),
    ]
    assert tables_of(a_directory(), policies)[ORDERS].layers == {"OPA"}
    assert tables_of(a_directory(), policies[1:])[ORDERS].layers == frozenset()


# --- content ---

(PLAIN,) = resolved(a_rule()).rows
PODS = Client("pods", pods=PodSet((equal("In", "x"),), ()))
VARIANTS: list[Row] = [
    PLAIN,
    replace(PLAIN, client=Client.of(BACK)),
    replace(PLAIN, client=ANY_WORKLOAD),
    replace(PLAIN, client=Client("cidr", name="10.0.0.0/8")),
    replace(PLAIN, client=Client("pods", pods=PodSet((), ()))),
    replace(PLAIN, client=Client("pods", pods=PodSet((), (equal("a", ""),)))),
    replace(PLAIN, client=Client("pods", pods=PodSet((equal("a", ""),), ()))),
    replace(PLAIN, client=Client("pods", pods=PodSet((Requirement("In", "Exists"),), ()))),
    replace(PLAIN, client=Client("pods", pods=PodSet((), (equal("namespace", "Exists"),)))),
    replace(PLAIN, port=8444),
    replace(PLAIN, protocol="UDP"),
    replace(PLAIN, effect="Deny"),
    replace(PLAIN, observe=True),
    replace(PLAIN, methods=("GET",)),
    replace(PLAIN, methods=("GET", "PUT")),
    replace(PLAIN, paths=("/",)),
    replace(PLAIN, principal=UserPrincipal("corp", ("a",), ())),
    replace(PLAIN, principal=UserPrincipal("corp", ("a",), (("a", ("b",)),))),
    replace(PLAIN, principal=KeyPrincipal("a", ())),
    replace(PLAIN, principal=KeyPrincipal("", ("a",))),
    replace(PLAIN, scopes=("a",)),
    replace(PLAIN, require_mtls=True),
    replace(PLAIN, window=table.Window((0,), 0, 1440, "UTC")),
    replace(PLAIN, window=table.Window((0,), 0, 1440, "Asia/Tokyo")),
    replace(PLAIN, until=NOW),
    replace(PLAIN, until=NOW + timedelta(seconds=1)),
    replace(PLAIN, policy="other"),
    replace(PLAIN, rule="other"),
]


def test_whatever_rows_differ_in_shows_in_the_content() -> None:
    contents = [Table(ORDERS, "Enforce", frozenset(), (row,)).content for row in VARIANTS]
    assert len(set(contents)) == len(VARIANTS)
    assert len({row.order for row in VARIANTS}) == len(VARIANTS), "rows that sort the same come in any order"
    tables = [
        Table(server, enforcement, frozenset(layers), ())
        for server in (ORDERS, FRONT)
        for enforcement in ("Enforce", "Observe")
        for layers in ((), ("OPA",), ("NetworkPolicy", "OPA"))
    ]
    assert len({one.digest for one in tables}) == len(tables)


def test_rows_of_every_kind_can_be_put_in_order_and_written() -> None:
    contribution = table.Contribution("policy", frozenset(), tuple(reversed(VARIANTS)))
    compiled = table.compile_table(an_identity(ORDERS), [contribution, contribution])
    assert len(compiled.rows) == len(VARIANTS)
    assert len(json.loads(compiled.content)["rows"]) == len(VARIANTS)
    assert compiled == table.compile_table(an_identity(ORDERS), [replace(contribution, rows=tuple(VARIANTS))])


def test_the_rows_about_a_client_are_its_own_and_those_about_everybody() -> None:
    compiled = table.compile_table(an_identity(ORDERS), [table.Contribution("policy", frozenset(), tuple(VARIANTS))])
    assert set(compiled.about(BACK)) == {VARIANTS[1], VARIANTS[2]}
    assert set(compiled.about(OTHER)) == {VARIANTS[2]}


def test_only_a_row_without_conditions_decides_connections() -> None:
    assert PLAIN.decides_connections
    conditions = VARIANTS[13:24]
    assert not any(row.decides_connections for row in conditions)
    assert replace(PLAIN, until=NOW).decides_connections


# --- what is in force of a change that is not accepted ---


def withheld(new: Body, old: Body) -> list[Row]:
    return list(table.withheld(resolved(new).rows, resolved(old).rows))


def test_the_same_row_stays_whatever_its_rule_is_called() -> None:
    (row,) = withheld(
        a_rule("new", to=[{"port": 8443, "paths": ["/a", "/b"]}]),
        a_rule("old", to=[{"port": 8443, "paths": ["/b", "/a"]}]),
    )
    assert (row.paths, row.rule) == (("/a", "/b"), "new")


def test_what_only_one_version_allows_is_not_allowed() -> None:
    for other in (
        a_rule("a", {"workload": {"name": "back", "namespace": "web"}}),
        a_rule("a", {"anyWorkload": {}}),
        a_rule(to=[{"port": 8444}]),
        a_rule(to=[{"port": 8443, "protocol": "UDP"}]),
        a_rule("a", FROM_FRONT | {"user": USER}),
    ):
        assert withheld(other, a_rule()) == withheld(a_rule(), other) == []


@pytest.mark.parametrize(
    ("one", "other", "met"),
    [
        ({}, {"to": [{"port": 8443, "methods": ["GET"]}]}, {"methods": ("GET",)}),
        ({}, {"to": [{"port": 8443, "paths": ["/a"]}]}, {"paths": ("/a",)}),
        (
            {"to": [{"port": 8443, "methods": ["GET", "PUT"]}]},
            {"to": [{"port": 8443, "methods": ["PUT", "POST"]}]},
            {"methods": ("PUT",)},
        ),
        (
            {"to": [{"port": 8443, "paths": ["/a", "/b"]}]},
            {"to": [{"port": 8443, "paths": ["/b", "/c"]}]},
            {"paths": ("/b",)},
        ),
        ({"to": [{"port": 8443, "paths": ["/a/**"]}]}, {"to": [{"port": 8443, "paths": ["/a/*"]}]}, None),
        ({"to": [{"port": 8443, "methods": ["GET"]}]}, {"to": [{"port": 8443, "methods": ["PUT"]}]}, None),
        ({}, {"when": {"requireMTLS": True}}, {"require_mtls": True}),
        ({}, {"until": "2026-12-31T00:00:00Z"}, {"until": datetime(2026, 12, 31, tzinfo=UTC)}),
        (
            {"until": "2027-12-31T00:00:00Z"},
            {"until": "2026-12-31T00:00:00Z"},
            {"until": datetime(2026, 12, 31, tzinfo=UTC)},
        ),
        ({}, {"when": {"time": {"days": ["Mon"], "timeZone": "UTC"}}}, {"window": table.Window((0,), 0, 1440, "UTC")}),
        (
            {"when": {"time": {"days": ["Tue"], "timeZone": "UTC"}}},
            {"when": {"time": {"days": ["Mon"], "timeZone": "UTC"}}},
            None,
        ),
    ],
)
def test_a_row_of_both_has_the_conditions_of_both(one: Body, other: Body, met: Body | None) -> None:
    for new, old in ((one, other), (other, one)):
        rows = withheld(a_rule(**new), a_rule(**old))
        if met is None:
            assert rows == []
        else:
            assert rows == [replace(PLAIN, **met)]


def test_scopes_of_both_are_needed() -> None:
    peer = FROM_FRONT | {"user": USER}
    (row,) = withheld(a_rule("a", peer, when={"scopes": ["r"]}), a_rule("a", peer, when={"scopes": ["w"]}))
    assert row.scopes == ("r", "w")


def test_a_deny_of_either_stands() -> None:
    deny, other = a_rule("deny", effect="Deny"), a_rule("other", {"anyWorkload": {}}, effect="Deny")
    assert [row.rule for row in withheld(deny, other)] == ["other", "deny"]
    assert [row.rule for row in withheld(deny, deny)] == ["deny"]
    assert [row.effect for row in withheld(deny, a_rule())] == ["Deny"]
    assert [row.effect for row in withheld(a_rule(), deny)] == ["Deny"]


def test_thousands_of_rows_about_one_client_meet_in_a_moment() -> None:
    # 256 rules of 16 destinations, as one policy may have them: pair by pair it would be 16 million rows.
    old = [replace(PLAIN, paths=(f"/{number}",), rule="old") for number in range(4096)]
    new = [replace(PLAIN, paths=(f"/{number}",), rule="new") for number in range(2048, 6144)]
    rows = table.withheld(new, old)
    assert [row.paths for row in rows] == [(f"/{number}",) for number in range(2048, 4096)]
    unbounded = [replace(row, paths=None, require_mtls=bool(number % 2)) for number, row in enumerate(new)]
    assert len(table.withheld(unbounded, old)) <= MAX_ROWS
