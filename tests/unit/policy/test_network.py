"""The network policies that follow from a table: what is hard to meet in random clusters."""

from typing import Any

import pytest

from tests.support.certificates import NOW
from tests.support.policies import a_policy, spec_of
from zerotrust.policy import network, table
from zerotrust.policy.directory import Identity, PlainDirectory, Workload, default_selector
from zerotrust.policy.reading import read
from zerotrust.policy.table import Table

ORDERS = Workload("shop", "orders")
PORT = [{"port": 8443}]


def directory() -> PlainDirectory:
    names = ("orders", "front")
    identities = {
        Workload("shop", name): Identity(Workload("shop", name), {}, default_selector(name)) for name in names
    }
    return PlainDirectory(identities, {"shop": {"kubernetes.io/metadata.name": "shop"}})


def compiled(known: PlainDirectory, *rules: dict[str, Any]) -> Table:
    server = known.by_workload[ORDERS]
    spec = spec_of(a_policy(target={"identities": ["orders"]}, rules=list(rules)))
    rows = table.resolve("policy", "shop", spec, known, server).rows
    return table.compile_table(server, [table.contribution("policy", spec, rows)])


def ingress(*rules: dict[str, Any]) -> list[dict[str, Any]]:
    known = directory()
    return network.ingress(compiled(known, *rules), known, NOW)


def too_complex(*rules: dict[str, Any]) -> list[network.PortOf]:
    known = directory()
    return network.too_complex(compiled(known, *rules), known, NOW)


def denies(count: int) -> list[dict[str, Any]]:
    """Deny rules for pods, each of two labels that no other rule names."""
    return [
        {
            "name": f"deny-{number}",
            "effect": "Deny",
            "from": [{"pods": {"podSelector": {"matchLabels": {f"a{number}": "x", f"b{number}": "x"}}}}],
            "to": PORT,
        }
        for number in range(count)
    ]


ALLOW = {"name": "all", "from": [{"pods": {"podSelector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}}}],
         "to": PORT}  # fmt: skip


def test_a_few_denied_sets_of_pods_are_taken_out_exactly() -> None:
    (rule,) = ingress(ALLOW, *denies(3))
    assert len(rule["from"]) == 8
    assert too_complex(ALLOW, *denies(3)) == []


def test_so_many_denied_sets_that_nobody_could_write_them_down_let_nobody_in() -> None:
    assert ingress(ALLOW, *denies(60)) == []
    assert too_complex(ALLOW, *denies(60)) == [(8443, "TCP")]


@pytest.mark.parametrize(
    "change",
    [
        {"until": None},
        {"when": None},
        {"effect": None},
        {"to": [{"port": 1, "paths": None}]},
        {"to": [{"port": 1, "methods": None}]},
        {"from": [{"anyWorkload": {}, "user": None}]},
        {"from": [{"anyWorkload": {}, "apiKey": None}]},
        {"when": {"requireMTLS": True, "time": None}},
        {"from": [{"workloads": {"namespaceSelector": {"matchLabels": {"a": "b"}}, "selector": None}}]},
    ],
    ids=str,
)
def test_a_field_with_nothing_after_it_is_refused_where_it_would_widen(change: dict[str, Any]) -> None:
    """An empty value of a template must not make a grant permanent, or open every path."""
    rule = {"name": "one", "from": [{"anyWorkload": {}}], "to": PORT, **change}
    reading = read({"target": {"identities": ["orders"]}, "rules": [rule]})
    assert reading.problem is not None
    assert "has nothing after it" in reading.problem.message
    assert reading.problem.path.startswith("spec.rules[0]")
    assert reading.spec is not None
    assert reading.spec.policy_rules == []
