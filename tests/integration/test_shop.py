"""The shop example on a real API server: accepted as it is, isolated as its policies say, and left alone after that."""

import json
import os
from collections.abc import Iterator

import pytest
import yaml

from hack.controlplane import EXISTING_CLUSTER
from tests.support.clusters import Cluster, Flow, Pod, Port
from tests.support.deployment import ROOT, Running, deployed
from tests.support.reachability import by_nca, documented
from zerotrust.common import naming

# It needs a control plane of its own: the example has a default TrustDomain.
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(EXISTING_CLUSTER in os.environ, reason="installs cluster-wide objects"),
]

SHOP = ROOT / "examples" / "shop"
ASKED = (Port("TCP", 8443), Port("TCP", 9090), Port("TCP", 8080), Port("TCP", 9100), Port("UDP", 53))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with deployed(tmp_path_factory.mktemp("shop")) as running:
        running.apply(SHOP)
        running.until(lambda: all(map(settled, running.every("tp"))), "every TrustPolicy is settled")
        yield running


def settled(policy: dict) -> bool:
    found = {one["type"]: one["status"] for one in policy.get("status", {}).get("conditions", [])}
    return found.get("Ready") == "True" and found.get("NetworkProgrammed") in ("True", "Unknown")


def condition(policy: dict, type_: str) -> str:
    return next(one["status"] for one in policy["status"]["conditions"] if one["type"] == type_)


def test_every_policy_is_accepted_and_its_tests_pass(shop: Running) -> None:
    policies = shop.every("tp")
    assert len(policies) >= 5
    for policy in policies:
        title = policy["metadata"]["name"]
        assert condition(policy, "Accepted") == "True", title
        assert condition(policy, "TestsPassed") == "True", title
        assert policy["status"]["tests"]["passed"] == len(policy["spec"]["tests"])
        assert condition(policy, "Shadowed") == "False", title
        assert policy["status"]["revision"], title


def pods_of(shop: Running) -> list[Pod]:
    """A pod of each identity, one of nobody in each namespace."""
    identities = shop.every("svid")
    found = [
        Pod(
            body["metadata"]["namespace"],
            body["metadata"]["name"],
            {naming.SERVICE_ACCOUNT: body["spec"].get("serviceAccountName", body["metadata"]["name"])},
        )
        for body in identities
    ]
    return [*found, *(Pod(name, "nobody", {"app": "nobody"}) for name in sorted({pod.namespace for pod in found}))]


def cluster_of(shop: Running) -> Cluster:
    pods = pods_of(shop)
    places = {pod.namespace for pod in pods}
    labels = {body["metadata"]["name"]: body["metadata"]["labels"] for body in shop.every("namespaces", "-A")}
    return Cluster({name: labels[name] for name in places}, pods, shop.network_policies())


def test_the_network_policies_in_the_cluster_allow_what_the_example_means(shop: Running) -> None:
    cluster = cluster_of(shop)
    (flows,) = documented([cluster], ASKED)
    (theirs,) = by_nca([cluster], ASKED)
    isolated = {"orders", "payments", "inventory", "frontend"}
    mine = {flow for flow in flows if flow.server.split("/")[1] in isolated}
    assert mine == {flow for flow in theirs if flow.server.split("/")[1] in isolated}
    orders = {(flow.client, flow.port) for flow in mine if flow.server == "shop/orders" and flow.port == 8443}
    assert ("web/frontend", 8443) in orders
    assert not any(client.endswith("/nobody") for client, port in orders)
    assert Flow("web/frontend", "shop/payments", "TCP", 8443) not in mine


def test_applying_the_same_again_changes_nothing(shop: Running) -> None:
    before = [
        (body["metadata"]["uid"], body["metadata"]["resourceVersion"]) for body in shop.every("networkpolicies,tp")
    ]
    shop.apply(SHOP)
    assert before == [
        (body["metadata"]["uid"], body["metadata"]["resourceVersion"]) for body in shop.every("networkpolicies,tp")
    ]


@pytest.mark.parametrize("damage", ["edit", "delete", "labels"])
def test_a_damaged_network_policy_is_restored(shop: Running, damage: str) -> None:
    def read() -> dict:
        text = shop.plane.kubectl("get", "networkpolicy", "zt-orders", "-n", "shop", "-o", "json", "--ignore-not-found")
        return json.loads(text) if text else {}

    before = read()
    match damage:
        case "edit":
            patch = json.dumps({"spec": {"ingress": [{}]}})
            shop.plane.kubectl("patch", "networkpolicy", "zt-orders", "-n", "shop", "--type=merge", "-p", patch)
        case "delete":
            shop.plane.kubectl("delete", "networkpolicy", "zt-orders", "-n", "shop")
        case _:
            shop.plane.kubectl("label", "networkpolicy", "zt-orders", "-n", "shop", f"{naming.MANAGED_BY}-")
    shop.until(
        lambda: (
            (now := read())
            and (now["spec"], now["metadata"]["labels"]) == (before["spec"], before["metadata"]["labels"])
        ),
        "it is as it was",
    )


def test_a_typo_in_a_rule_grants_nothing_and_is_named(shop: Running) -> None:
    document = next(
        one
        for one in yaml.safe_load_all((SHOP / "42-policies-orders.yaml").read_text())
        if one["kind"] == "TrustPolicy"
    )
    good = yaml.safe_dump(document)
    document["spec"]["rules"][0]["form"] = document["spec"]["rules"][0].pop("from")
    document["spec"]["rules"][0]["from"] = [{"anyWorkload": {}, "usr": {}}]
    shop.plane.kubectl("apply", "--validate=false", "-f", "-", stdin=yaml.safe_dump(document))
    name, namespace = document["metadata"]["name"], document["metadata"]["namespace"]
    try:
        shop.until(
            lambda: shop.conditions("tp", name, namespace).get("Accepted", ("", "", ""))[1] == "UnknownField",
            "the typo is named",
        )
        assert "spec.rules[0]" in shop.conditions("tp", name, namespace)["Accepted"][2]
        assert not any(
            flow.server == "shop/orders" and flow.client.endswith("/nobody")
            for flow in documented([cluster_of(shop)], ASKED)[0]
        )
    finally:
        shop.plane.kubectl("apply", "-f", "-", stdin=good)
    shop.until(lambda: shop.conditions("tp", name, namespace).get("Ready", ("",))[0] == "True", "it is Ready again")


def test_a_field_with_nothing_after_it_grants_nothing(shop: Running) -> None:
    """The API server stores the null, so that the operator can refuse it: `until:` must not make a grant permanent."""
    rule = {"name": "empty", "from": [{"anyWorkload": {}}], "to": [{"port": 8443}], "until": None}
    spec = {"target": {"identities": ["inventory"]}, "rules": [rule]}
    body = {"apiVersion": "zerotrust.dev/v1alpha1", "kind": "TrustPolicy", "spec": spec}
    shop.plane.kubectl(
        "create", "-f", "-", stdin=json.dumps({**body, "metadata": {"name": "empty", "namespace": "shop"}})
    )
    shop.until(lambda: "Accepted" in shop.conditions("tp", "empty", "shop"), "it is judged")
    status, reason, message = shop.conditions("tp", "empty", "shop")["Accepted"]
    assert (status, reason) == ("False", "InvalidSpec")
    assert "until has nothing after it" in message
    shop.plane.kubectl("delete", "tp", "empty", "-n", "shop")


def test_deleting_every_resource_of_ours_opens_nothing(shop: Running) -> None:
    (before,) = documented([cluster_of(shop)], ASKED)
    for pod in pods_of(shop):
        shop.apply(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": pod.name, "namespace": pod.namespace, "labels": dict(pod.labels)},
                "spec": {"containers": [{"name": "main", "image": "none"}], "automountServiceAccountToken": False},
            }
        )
    cluster = cluster_of(shop)
    for kind in ("tp", "svid", "td"):
        shop.plane.kubectl("delete", kind, "--all", "-A") if kind != "td" else shop.plane.kubectl(
            "delete", kind, "--all"
        )
        (after,) = documented([Cluster(cluster.namespaces, cluster.pods, shop.network_policies())], ASKED)
        assert after <= before
    orphans = shop.until(
        lambda: (found := shop.every("networkpolicies", "-A", "-l", f"{naming.ORPHANED}=true")) and found,
        "leftovers are marked",
    )
    assert orphans
    (after,) = documented([Cluster(cluster.namespaces, cluster.pods, shop.network_policies())], ASKED)
    assert after <= before
