"""Peers in namespaces of which the operator knows nothing: what is unknown is denied."""

from typing import Any

from tests.support.policies import a_policy, spec_of
from zerotrust.policy import table
from zerotrust.policy.directory import Identity, PlainDirectory, Workload, default_selector
from zerotrust.policy.table import ANY_WORKLOAD, Resolution

ORDERS, STOCK = Workload("shop", "orders"), Workload("shop", "stock")
PROD = {"env": "prod"}
EVERYWHERE = {"workloads": {"namespaceSelector": {"matchLabels": PROD}, "selector": {"matchLabels": {"app": "stock"}}}}
HERE = {"workloads": {"selector": {"matchLabels": {"app": "stock"}}}}


def resolved(peer: dict[str, Any], effect: str, *unwatched: str) -> Resolution:
    identities = {one: Identity(one, {"app": one.name}, default_selector(one.name)) for one in (ORDERS, STOCK)}
    directory = PlainDirectory(identities, {"shop": PROD, "web": PROD}, unwatched=frozenset(unwatched))
    rule = {"name": "rule", "effect": effect, "from": [peer], "to": [{"port": 8443}]}
    policy = a_policy("policy", target={"identities": ["orders"]}, rules=[rule])
    return table.resolve("policy", "shop", spec_of(policy), directory, identities[ORDERS])


def test_a_named_peer_is_unknown_and_is_granted_nothing() -> None:
    peer = {"workload": {"name": "front", "namespace": "web"}}
    found = resolved(peer, "Allow", "web")
    assert found.rows == ()
    assert found.unresolved == (
        (
            "spec.rules[0].from[0].workload",
            "ServiceIdentity web/front is unknown: the operator does not watch its namespace",
        ),
    )
    ((_, absent),) = resolved(peer, "Allow").unresolved
    assert absent == "ServiceIdentity web/front does not exist"


def test_an_allow_of_selected_workloads_grants_to_those_that_are_known() -> None:
    found = resolved(EVERYWHERE, "Allow", "web")
    assert [str(row.client) for row in found.rows] == ["shop/stock"]
    assert found.unresolved == ()


def test_a_deny_of_workloads_that_cannot_be_known_denies_every_workload() -> None:
    found = resolved(EVERYWHERE, "Deny", "web")
    assert [(row.effect, row.client) for row in found.rows] == [("Deny", ANY_WORKLOAD)]
    ((path, why),) = found.unresolved
    assert path == "spec.rules[0].from[0].workloads.namespaceSelector"
    assert why == "the operator does not watch web, so who is denied is unknown"


def test_a_deny_of_workloads_that_are_known_is_about_them() -> None:
    for found in (resolved(EVERYWHERE, "Deny"), resolved(HERE, "Deny", "web")):
        assert [str(row.client) for row in found.rows] == ["shop/stock"]
        assert found.unresolved == ()
