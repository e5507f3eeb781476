"""Network policies of others: the way in that they open is named, and what the table opens anyway is none."""

from typing import Any

import pytest

from tests.support.certificates import NOW
from tests.unit.policy.test_network import ORDERS, compiled, directory
from zerotrust.common.observed import network_policy
from zerotrust.policy.foreign import widening

FRONT = {"podSelector": {"matchLabels": {"zerotrust.dev/service-account": "front"}}}
LETS_FRONT_IN = {
    "name": "front",
    "from": [{"workload": {"namespace": "shop", "name": "front"}}],
    "to": [{"port": 8443}],
}


def way_in(**spec: Any) -> str | None:
    known = directory()
    metadata = {"name": "broad", "namespace": "shop"}
    policy = network_policy({"metadata": metadata, "spec": {"podSelector": {}, **spec}})
    found = widening(policy, ORDERS, compiled(known, LETS_FRONT_IN), known, NOW)
    return str(found) if found is not None else None


@pytest.mark.parametrize(
    ("rule", "who", "where"),
    [
        ({}, "everybody", "every port"),
        ({"ports": [{"port": 8443}]}, "everybody", "8443/TCP"),
        ({"from": [FRONT]}, "shop/front", "every port"),
        ({"from": [FRONT], "ports": [{"port": 9090}]}, "shop/front", "9090/TCP"),
        ({"from": [FRONT], "ports": [{"port": 8443, "protocol": "UDP"}]}, "shop/front", "8443/UDP"),
        ({"from": [FRONT], "ports": [{"port": 8000, "endPort": 9000}]}, "shop/front", "8000-9000/TCP"),
        ({"from": [FRONT], "ports": [{"port": "https"}]}, "shop/front", "https/TCP"),
        ({"from": [FRONT], "ports": [{"protocol": "UDP"}]}, "shop/front", "every port/UDP"),
        ({"from": [{"podSelector": {}}], "ports": [{"port": 8443}]}, "shop/orders", "8443/TCP"),
        (
            {"from": [{"podSelector": {"matchLabels": {"app": "x"}}}], "ports": [{"port": 8443}]},
            "pods app=x,zerotrust.dev/service-account notin (front) in shop",
            "8443/TCP",
        ),
        (
            {"from": [{"namespaceSelector": {}}], "ports": [{"port": 1}]},
            "pods",
            "1/TCP",
        ),
        (
            {"from": [{"namespaceSelector": {"matchLabels": {"team": "a"}}}], "ports": [{"port": 1}]},
            "pods in namespaces with team=a",
            "1/TCP",
        ),
        ({"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}, "addresses 10.0.0.0/8", "every port"),
        (
            {"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}], "ports": [{"port": 1}]},
            "addresses 10.0.0.0/8 but 10.1.0.0/16",
            "1/TCP",
        ),
    ],
    ids=range(14),
)
def test_the_way_in_is_named(rule: dict[str, Any], who: str, where: str) -> None:
    assert way_in(ingress=[rule]) == f"NetworkPolicy shop/broad lets {who} reach shop/orders at {where}"


def test_what_comes_first_does_not_hide_what_comes_later() -> None:
    same, more = {"from": [FRONT], "ports": [{"port": 8443}]}, {"from": [FRONT], "ports": [{"port": 8443}, {"port": 2}]}
    assert way_in(ingress=[same, more]) == "NetworkPolicy shop/broad lets shop/front reach shop/orders at 2/TCP"


@pytest.mark.parametrize(
    "spec",
    [
        {"ingress": []},
        {"policyTypes": ["Egress"], "ingress": [{}]},
        {"ingress": [{"from": [FRONT], "ports": [{"port": 8443}]}]},
        {"ingress": [{"from": [{**FRONT, "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}}}],
                      "ports": [{"port": 8443, "protocol": "TCP"}]}]},
    ],
    ids=range(4),
)  # fmt: skip
def test_what_the_table_opens_too_is_no_way_in(spec: dict[str, Any]) -> None:
    assert way_in(**spec) is None
