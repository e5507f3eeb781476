"""NetworkPolicies become TrustPolicies and isolated egress where the meaning is the same, and stay where it is not."""

from typing import Any

import pytest

from tests.support.old_objects import (
    Body,
    a_deployment,
    a_namespace,
    a_network_policy,
    an_object,
    imported,
    left,
    the,
    the_left,
)
from zerotrust.common.errors import SpecError
from zerotrust.policy import reading

PLACES = [a_namespace("shop"), a_namespace("web", team="web"), a_namespace("kube-system")]
WORLD = [*PLACES, a_deployment("orders"), a_deployment("payments"), a_deployment("frontend", "web")]
DNS = {
    "to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}],
    "ports": [{"port": 53}, {"port": 53, "protocol": "UDP"}],
}
FROM_FRONTEND = {
    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "web"}},
    "podSelector": {"matchLabels": {"app": "frontend"}},
}
PORTS = [{"port": 8443}]


def let_in(*peers: Body, ports: Any = PORTS, app: str | None = "orders") -> Body:
    return a_network_policy("old", app=app, ingress=[{"from": list(peers), "ports": ports}], policyTypes=["Ingress"])


def rules(outcome: Any, name: str = "old") -> list[Body]:
    spec = the(outcome, "TrustPolicy", name)["spec"]
    assert reading.read(spec).problem is None
    assert spec["layers"] == ["NetworkPolicy"]
    found: list[Body] = spec["rules"]
    return found


def clients(*peers: Body) -> list[Body]:
    outcome = imported(*WORLD, let_in(*peers))
    assert not outcome.left
    (rule,) = rules(outcome)
    assert rule["to"] == [{"port": 8443}]
    found: list[Body] = rule["from"]
    return found


def test_pods_that_are_all_of_an_account_are_named_by_it() -> None:
    assert clients(FROM_FRONTEND) == [{"workload": {"name": "frontend", "namespace": "web"}}]
    assert clients({"podSelector": {"matchLabels": {"app": "payments"}}}) == [
        {"workload": {"name": "payments", "namespace": "shop"}}
    ]


@pytest.mark.parametrize(
    ("peer", "pods"),
    [
        ({"podSelector": {"matchLabels": {"app": "nobody"}}}, {"podSelector": {"matchLabels": {"app": "nobody"}}}),
        ({"podSelector": {}}, {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}}}),
        (
            {"namespaceSelector": {"matchLabels": {"team": "web"}}},
            {"namespaceSelector": {"matchLabels": {"team": "web"}}},
        ),
        (
            {"namespaceSelector": {}, "podSelector": {"matchLabels": {"pod-template-hash": "x"}}},
            {
                "namespaceSelector": {
                    "matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "Exists"}]
                },
                "podSelector": {"matchLabels": {"pod-template-hash": "x"}},
            },
        ),
    ],
    ids=["nobody-known", "own-namespace", "namespaces-by-label", "labels-of-controllers"],
)
def test_other_pods_are_named_by_their_labels(peer: Body, pods: Body) -> None:
    assert clients(peer) == [{"pods": pods}]


def test_pods_in_a_namespace_whose_labels_were_not_read_are_named_by_their_labels() -> None:
    peer = {"namespaceSelector": {"matchLabels": {"team": "web"}}, "podSelector": {"matchLabels": {"app": "frontend"}}}
    assert clients(peer) == [{"workload": {"name": "frontend", "namespace": "web"}}]
    outcome = imported(a_deployment("orders"), a_deployment("frontend", "web"), let_in(peer))
    assert rules(outcome)[0]["from"] == [{"pods": peer}]


def test_address_ranges_are_written_without_except() -> None:
    block = {"ipBlock": {"cidr": "198.51.100.0/24", "except": ["198.51.100.64/26"]}}
    assert clients(block) == [{"cidr": "198.51.100.0/26"}, {"cidr": "198.51.100.128/25"}]


@pytest.mark.parametrize(
    ("ports", "numbers"),
    [
        ([{"port": "https"}], [{"port": 8443}]),
        ([{"port": 9000, "endPort": 9002}], [{"port": 9000}, {"port": 9001}, {"port": 9002}]),
        ([{"port": 53, "protocol": "UDP"}], [{"port": 53, "protocol": "UDP"}]),
    ],
    ids=["name", "range", "udp"],
)
def test_ports_are_numbers(ports: list[Body], numbers: list[Body]) -> None:
    outcome = imported(*WORLD, let_in(FROM_FRONTEND, ports=ports))
    assert not outcome.left
    assert rules(outcome)[0]["to"] == numbers


@pytest.mark.parametrize(
    ("rule", "path", "why", "numbers"),
    [
        ({"ports": [{"port": 1, "endPort": 60000}]}, "ports[0].endPort", "more than 64 ports", [8443]),
        ({"ports": [{"port": "nothing"}]}, "ports[0].port", "the name nothing is not the same port", None),
        ({"ports": [{"protocol": "TCP"}]}, "ports[0].port", "every port of TCP", [8443]),
        ({}, "", "every port: taken over are those that the pods declare, 8443/TCP", [8443]),
    ],
    ids=["range", "name", "protocol", "all"],
)
def test_ports_that_cannot_be_said(rule: Body, path: str, why: str, numbers: list[int] | None) -> None:
    old = a_network_policy("old", app="orders", ingress=[{"from": [FROM_FRONTEND], **rule}])
    outcome = imported(*WORLD, old)
    assert the_left(outcome).path == "spec.ingress[0]" + (f".{path}" if path else "")
    assert why in the_left(outcome).why
    assert not the_left(outcome).opens
    assert [[one["port"] for one in rule["to"]] for rule in rules(outcome)] == ([numbers] if numbers else [])
    assert not outcome.replaced


def test_everybody_and_every_address_are_left_over() -> None:
    outcome = imported(*WORLD, a_network_policy("old", app="orders", ingress=[{"ports": PORTS}]))
    assert left(outcome).keys() == {"spec.ingress[0].from"}
    outcome = imported(*WORLD, let_in({"ipBlock": {"cidr": "0.0.0.0/0"}}))
    assert left(outcome).keys() == {"spec.ingress[0].from[0].ipBlock"}
    outcome = imported(*WORLD, a_network_policy("old", app="orders", ingress=[{}]))
    assert "nothing to protect" in the_left(outcome).why
    assert not [made for made in outcome.made if made.body["kind"] == "TrustPolicy"]


def test_a_selector_for_some_pods_of_an_account_is_kept() -> None:
    world = [*PLACES, a_deployment("orders"), a_deployment("batch", account="orders")]
    outcome = imported(*world, let_in(FROM_FRONTEND))
    assert "also has Deployment shop/batch, which is not selected" in the_left(outcome).why
    assert the_left(outcome).opens


@pytest.mark.parametrize(
    ("old", "why"),
    [
        (let_in(FROM_FRONTEND, app="nobody"), "selects no pod that was read"),
        (
            a_network_policy(
                "old", podSelector={"matchExpressions": [{"key": "job-name", "operator": "DoesNotExist"}]}
            ),
            "set",
        ),
    ],
    ids=["no-pod", "labels-of-controllers"],
)
def test_a_selector_whose_pods_are_not_certain_is_kept(old: Body, why: str) -> None:
    outcome = imported(*WORLD, old)
    assert all(why in one.why and one.opens for one in outcome.left)
    assert outcome.left
    assert not outcome.replaced


def test_a_default_deny_is_a_policy_for_all_and_isolates_the_namespace() -> None:
    outcome = imported(*WORLD, a_network_policy("deny", policyTypes=["Ingress"]))
    assert not outcome.left
    assert the(outcome, "TrustPolicy", "deny")["spec"]["target"] == {"all": True}
    assert rules(outcome, "deny") == []
    isolation = the(outcome, "TrustDomain", "cluster.local")["spec"]["isolation"]
    assert isolation["selector"]["matchExpressions"][0]["values"] == ["shop"]


def test_a_trust_domain_that_is_there_must_isolate_the_namespace() -> None:
    domain = an_object("TrustDomain", "example.org", "", {"default": True})
    deny = a_network_policy("deny", policyTypes=["Ingress"])
    outcome = imported(*WORLD, domain, deny)
    assert "for which TrustDomain example.org does not isolate shop" in the_left(outcome).why
    assert the_left(outcome).opens
    domain["spec"]["isolation"] = {"mode": "All"}
    assert not imported(*WORLD, domain, deny).left


def test_a_namespace_of_the_cluster_is_never_isolated_as_a_whole() -> None:
    world = [*WORLD, a_deployment("dns", "kube-system")]
    outcome = imported(*world, a_network_policy("deny", "kube-system", policyTypes=["Ingress"]))
    assert "kube-system is never isolated as a whole" in the_left(outcome).why


def test_egress_is_that_of_the_identity() -> None:
    egress = [DNS, {"to": [{"ipBlock": {"cidr": "192.0.2.0/28"}}, FROM_FRONTEND], "ports": [{"port": 5432}]}]
    outcome = imported(*WORLD, a_network_policy("out", app="orders", policyTypes=["Egress"], egress=egress))
    assert not outcome.left
    found = the(outcome, "ServiceIdentity", "orders")["spec"]["egress"]
    assert found["mode"] == "Isolated"
    assert {"cidr": "192.0.2.0/28", "ports": [{"port": 5432}]} in found["allow"]
    assert {"pods": FROM_FRONTEND, "ports": [{"port": 5432}]} in found["allow"]
    assert the(outcome, "TrustDomain", "cluster.local")["spec"]["dns"] == {"cidrs": []}


def test_what_both_sides_agree_on_is_a_call() -> None:
    shop = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}}}
    out = [{"to": [{**shop, "podSelector": {"matchLabels": {"app": "orders"}}}], "ports": PORTS}, DNS]
    outcome = imported(
        *WORLD, let_in(FROM_FRONTEND), a_network_policy("out", "web", "frontend", policyTypes=["Egress"], egress=out)
    )
    assert the(outcome, "ServiceIdentity", "frontend")["spec"]["egress"]["calls"] == [
        {"name": "orders", "namespace": "shop"}
    ]
    assert rules(outcome)[0]["from"] == [{"workload": {"name": "frontend", "namespace": "web"}}]


def test_a_client_whose_own_egress_forbids_the_call_is_named_by_its_labels() -> None:
    closed = a_network_policy("out", "web", "frontend", policyTypes=["Egress"], egress=[DNS])
    outcome = imported(*WORLD, let_in(FROM_FRONTEND), closed)
    assert rules(outcome)[0]["from"] == [{"pods": FROM_FRONTEND}], "a workload would open its way out as well"


def test_a_client_that_somebody_isolated_is_named_by_its_labels() -> None:
    there = an_object("ServiceIdentity", "frontend", "web", {"egress": {"mode": "Isolated"}})
    assert rules(imported(*WORLD, there, let_in(FROM_FRONTEND)))[0]["from"] == [{"pods": FROM_FRONTEND}]
    there["spec"] = {"egress": {"mode": "Open"}}
    assert rules(imported(*WORLD, there, let_in(FROM_FRONTEND)))[0]["from"][0].keys() == {"workload"}


def test_egress_without_dns_is_kept_because_isolated_egress_opens_it() -> None:
    outcome = imported(*WORLD, a_network_policy("out", app="orders", policyTypes=["Egress"]))
    assert "isolated egress always resolves names" in the_left(outcome).why
    assert the_left(outcome).opens
    assert "egress" not in the(outcome, "ServiceIdentity", "orders").get("spec", {})


def test_egress_that_is_open_altogether_is_open() -> None:
    outcome = imported(*WORLD, a_network_policy("out", app="orders", policyTypes=["Egress"], egress=[{}]))
    assert not outcome.left
    assert "spec" not in the(outcome, "ServiceIdentity", "orders")


def test_an_opening_is_kept_as_long_as_what_it_opens() -> None:
    shut = a_network_policy("shut", app="orders", policyTypes=["Egress"], egress=[{"ports": [{"port": 443}]}])
    opened = a_network_policy("open", app="orders", policyTypes=["Egress"], egress=[{}])
    assert not imported(*WORLD, shut, opened).left
    some = a_network_policy("some", policyTypes=["Egress"])
    outcome = imported(*WORLD, some, opened)
    assert {one.ref.name for one in outcome.left} == {"some", "open"}
    assert left(outcome)["spec.egress[0]"] == "opens again what NetworkPolicy shop/some closes for shop/orders"


def test_a_pod_that_runs_without_the_label_keeps_its_policy() -> None:
    pod = an_object(
        "Pod", "orders-1", spec={"serviceAccountName": "orders", "containers": []}, labels={"app": "orders"}
    )
    outcome = imported(*WORLD, pod, let_in(FROM_FRONTEND))
    assert "run without the label zerotrust.dev/service-account" in the_left(outcome).why
    assert the_left(outcome).opens
    pod["metadata"]["labels"]["zerotrust.dev/service-account"] = "orders"
    assert not imported(*WORLD, pod, let_in(FROM_FRONTEND)).left
    pod["metadata"]["labels"] = {}
    pod["status"] = {"phase": "Succeeded"}
    assert not imported(*WORLD, pod, let_in(FROM_FRONTEND)).left


def test_our_own_network_policies_are_not_imported() -> None:
    ours = let_in(FROM_FRONTEND)
    ours["metadata"]["labels"] = {"app.kubernetes.io/managed-by": "zerotrust-operator"}
    assert not imported(*WORLD, ours).made


def test_a_trust_policy_of_the_same_name_is_not_overwritten_unless_it_was_imported() -> None:
    there = an_object("TrustPolicy", "old")
    assert the(imported(*WORLD, there, let_in(FROM_FRONTEND)), "TrustPolicy", "old-imported")
    there["metadata"]["annotations"] = {"zerotrust.dev/imported-from": "NetworkPolicy shop/old"}
    assert the(imported(*WORLD, there, let_in(FROM_FRONTEND)), "TrustPolicy", "old")


def test_many_peers_and_ports_come_in_several_rules() -> None:
    ports = [{"port": 9000, "endPort": 9019}]
    peers = [{"ipBlock": {"cidr": f"198.51.100.{number}/32"}} for number in range(0, 40, 2)]
    found = rules(imported(*WORLD, let_in(*peers, ports=ports)))
    assert [rule["name"] for rule in found] == [f"ingress-0-{number}" for number in range(4)]
    assert sum(len(rule["from"]) * len(rule["to"]) for rule in found) == 400


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"ingress": [{"from": [{}]}]}, r"spec\.ingress\[0\]\.from\[0\]"),
        ({"podSelector": {"matchLabel": {}}}, r"spec\.podSelector\.matchLabel"),
        ({"ingress": [{"ports": [{"port": 1.5}]}]}, r"spec\.ingress\[0\]\.ports\[0\]\.port"),
        ({"policyTypes": ["Both"]}, r"spec\.policyTypes\[0\]"),
    ],
    ids=["peer", "selector", "port", "types"],
)
def test_a_field_that_cannot_be_read_is_an_error(spec: Body, path: str) -> None:
    with pytest.raises(SpecError, match=f"NetworkPolicy shop/old: {path}"):
        imported(*WORLD, a_network_policy("old", **spec))


def test_the_order_of_the_input_changes_nothing() -> None:
    objects = [
        *WORLD,
        let_in(FROM_FRONTEND),
        a_network_policy("deny"),
        a_network_policy("out", "web", policyTypes=["Egress"]),
    ]
    assert imported(*objects) == imported(*reversed(objects))
