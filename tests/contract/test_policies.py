"""TrustPolicies against the fake API server: what is accepted, what is written for it, and what stays closed afterwards."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.support.fakeapi import FakeApi
from tests.support.rig import OPERATOR_NAMESPACE, Rig, resource, running
from zerotrust.common import naming

HTTPS = [{"port": 8443}]


@pytest.fixture
async def server():
    async with FakeApi(namespaces=[OPERATOR_NAMESPACE, "shop", "web"]) as server:
        yield server


def allow(name: str, *clients: str, **more: Any) -> dict[str, Any]:
    peers = [{"workload": dict(zip(("namespace", "name"), client.split("/"), strict=True))} for client in clients]
    return {"name": name, "from": peers, "to": HTTPS, **more}


def policy(server: FakeApi, *rules: dict[str, Any], name: str = "orders", **spec: Any) -> None:
    body = {"target": {"identities": ["orders"]}, "rules": list(rules), **spec}
    if server.get("TrustPolicy", name, "shop") is None:
        server.create(resource("TrustPolicy", name, "shop", body))
    else:
        removed = {key: None for key in server.get("TrustPolicy", name, "shop")["spec"] if key not in body}
        server.patch("TrustPolicy", name, {"spec": body | removed}, "shop")


def condition(server: FakeApi, type_: str, name: str = "orders") -> tuple[str, str, str]:
    body = server.get("TrustPolicy", name, "shop") or {}
    for one in body.get("status", {}).get("conditions", []):
        if one["type"] == type_ and one["observedGeneration"] == body["metadata"]["generation"]:
            return one["status"], one["reason"], one["message"]
    return "", "", ""


def network_policy(server: FakeApi, name: str = "zt-orders", namespace: str = "shop") -> dict[str, Any] | None:
    return server.get("NetworkPolicy", name, namespace)


def clients(server: FakeApi, name: str = "zt-orders", namespace: str = "shop") -> set[str] | None:
    """The ServiceAccounts that are let in, None when nothing is isolated."""
    body = network_policy(server, name, namespace)
    if body is None or "Ingress" not in body["spec"]["policyTypes"]:
        return None
    found = set()
    for rule in body["spec"].get("ingress") or []:
        assert rule["from"]
        for peer in rule["from"]:
            place = peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
            pods = peer["podSelector"]
            names = [pods["matchLabels"][naming.SERVICE_ACCOUNT]] if "matchLabels" in pods else []
            names += [value for one in pods.get("matchExpressions", []) for value in one["values"]]
            found |= {f"{place}/{one}" for one in names}
    return found


async def populated(rig: Rig, **orders: Any) -> None:
    rig.domain()
    rig.identity("orders", **orders)
    rig.identity("frontend", "web")
    rig.identity("batch", "web")
    await rig.until(lambda: rig.is_ready() and rig.is_ready("frontend", "web") and rig.is_ready("batch", "web"))
    await rig.watching()
    await rig.idle()


async def programmed(rig: Rig, name: str = "orders") -> None:
    await rig.until(lambda: condition(rig.server, "NetworkProgrammed", name)[0] == "True")
    await rig.idle()


async def test_a_policy_costs_its_version_its_network_policy_and_one_status(server: FakeApi, tmp_path: Path) -> None:
    async with running(server, tmp_path) as rig:
        await populated(rig)
        server.reset_counts()
        policy(server, allow("frontend", "web/frontend"))
        await programmed(rig)
        writes = Counter(
            (verb, what) for verb, what, namespace, name in rig.writes() if what not in ("events", "configmaps")
        )
        assert writes == Counter(
            [("create", "controllerrevisions"), ("create", "networkpolicies"), ("patch", "trustpolicies/status")]
        )
        assert clients(server) == {"web/frontend"}
        assert condition(server, "Ready")[:2] == ("True", "Programmed")
        assert condition(server, "Enforced")[:2] == ("True", "Programmed")


async def test_an_edit_changes_the_one_object_in_one_write(server: FakeApi, tmp_path: Path) -> None:
    async with running(server, tmp_path) as rig:
        await populated(rig)
        policy(server, allow("frontend", "web/frontend", "web/batch"))
        await programmed(rig)
        assert clients(server) == {"web/frontend", "web/batch"}
        server.reset_counts()
        policy(server, allow("frontend", "web/frontend"))
        await rig.until(lambda: clients(server) == {"web/frontend"})
        await programmed(rig)
        writes = Counter((verb, what) for verb, what, _, _ in rig.writes() if what == "networkpolicies")
        assert writes == Counter([("patch", "networkpolicies")])


async def test_a_restart_with_policies_writes_nothing(server: FakeApi, tmp_path: Path) -> None:
    async with running(server, tmp_path) as rig:
        await populated(rig, egress={"mode": "Isolated"})
        policy(server, allow("frontend", "web/frontend"))
        policy(server, allow("batch", "web/batch", "web/nobody"), name="broken")
        await programmed(rig)
        await rig.until(lambda: condition(server, "Accepted", "broken")[1] == "Unresolved")
        await rig.until(lambda: server.get("ConfigMap", "shop.isolation", OPERATOR_NAMESPACE))
        await rig.until(lambda: "ingress and egress" in str(server.get("ServiceIdentity", "orders", "shop")))
        await rig.idle()
    server.reset_counts()
    async with running(server, tmp_path) as rig:
        await rig.watching()
        await rig.until(lambda: server.count_writes(resource="leases") >= 4)
        await rig.idle()
        assert rig.writes() == []


async def test_what_does_not_resolve_is_not_accepted_until_it_does(server: FakeApi, tmp_path: Path) -> None:
    async with running(server, tmp_path) as rig:
        await populated(rig)
        policy(server, allow("frontend", "web/frontend"), allow("late", "web/late"))
        await rig.until(lambda: condition(server, "Accepted")[1] == "Unresolved")
        message = condition(server, "Accepted")[2]
        assert "spec.rules[1].from[0].workload: ServiceIdentity web/late does not exist" in message
        await rig.idle()
        assert clients(server) == set()
        rig.identity("late", "web")
        await rig.until(lambda: clients(server) == {"web/frontend", "web/late"})
        await programmed(rig)
        assert condition(server, "Accepted")[0] == "True"


async def test_a_failing_test_stops_what_widens_and_lets_withdrawals_through(server: FakeApi, tmp_path: Path) -> None:
    async with running(server, tmp_path) as rig:
        await populated(rig)
        policy(server, allow("both", "web/frontend", "web/batch"))
        await programmed(rig)
        test = {"name": "never-batch", "request": {"from": "web/batch", "port": 8443}, "expect": "Deny"}
        rig.identity("late", "web")
        await rig.until(lambda: rig.is_ready("late", "web"))
        policy(server, allow("both", "web/batch", "web/late"), tests=[test])
        await rig.until(lambda: condition(server, "Accepted")[1] == "TestsFailed")
        await rig.idle()
        assert "never-batch" in condition(server, "Accepted")[2]
        assert (server.get("TrustPolicy", "orders", "shop") or {})["status"]["tests"]["failed"] == ["never-batch"]
        assert clients(server) == {"web/batch"}, "frontend was withdrawn, late waits"
        policy(server, allow("both", "web/late"), tests=[test])
        await rig.until(lambda: clients(server) == {"web/late"})


async def test_unknown_fields_are_named_and_grant_nothing(server: FakeApi, tmp_path: Path) -> None:
    async with running(server, tmp_path) as rig:
        await populated(rig)
        policy(server, allow("frontend", "web/frontend"))
        await programmed(rig)
        policy(server, allow("frontend", "web/frontend"), allow("batch", "web/batch", untill="2027-01-01T00:00:00Z"))
        await rig.until(lambda: condition(server, "Accepted")[1] == "UnknownField")
        assert condition(server, "Accepted")[2].startswith("spec.rules[1].untill: ")
        await rig.idle()
        assert clients(server) == {"web/frontend"}


@pytest.mark.parametrize("gone", ["TrustPolicy", "ServiceIdentity", "TrustDomain"])
async def test_what_was_isolated_stays_so_when_resources_go(server: FakeApi, tmp_path: Path, gone: str) -> None:
    async with running(server, tmp_path) as rig:
        await populated(rig, egress={"mode": "Isolated"})
        policy(server, allow("frontend", "web/frontend"))
        await programmed(rig)
        pod = {"metadata": {"name": "orders-1", "namespace": "shop", "labels": {naming.SERVICE_ACCOUNT: "orders"}}}
        server.create({"apiVersion": "v1", "kind": "Pod", **pod})
        match gone:
            case "TrustPolicy":
                server.delete(gone, "orders", "shop")
                await rig.until(lambda: clients(server) == set())
            case "ServiceIdentity":
                server.delete(gone, "orders", "shop")
                await rig.until(lambda: clients(server) == set())
                body = network_policy(server)
                assert body is not None
                assert body["metadata"]["labels"][naming.ORPHANED] == "true"
                assert body["spec"]["policyTypes"] == ["Ingress", "Egress"]
                assert not body["spec"].get("egress")
            case _:
                server.delete(gone, "example.org")
                await rig.idle()
                assert clients(server) == {"web/frontend"}, "certificates and grants go on"
        await rig.idle()
        body = network_policy(server)
        assert body is not None
        assert body["spec"]["policyTypes"] == ["Ingress", "Egress"]
        assert body["spec"]["podSelector"] == {"matchLabels": {naming.SERVICE_ACCOUNT: "orders"}}
        assert "ownerReferences" not in body["metadata"]


async def test_a_leftover_goes_when_no_pod_is_left(server: FakeApi, tmp_path: Path) -> None:
    async with running(server, tmp_path) as rig:
        await populated(rig)
        policy(server, allow("frontend", "web/frontend"))
        await programmed(rig)
        await rig.until(lambda: server.get("ConfigMap", "shop.isolation", OPERATOR_NAMESPACE))
        server.delete("ServiceIdentity", "orders", "shop")
        await rig.until(lambda: network_policy(server) is None)
        record = server.get("ConfigMap", "shop.isolation", OPERATOR_NAMESPACE) or {}
        assert "orders" not in record.get("data", {})


async def test_what_layer_4_cannot_write_down_stays_closed_and_is_told(server: FakeApi, tmp_path: Path) -> None:
    async with running(server, tmp_path) as rig:
        await populated(rig)
        wide = {"podSelector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}}
        several = [{"podSelector": {"matchLabels": {f"a{one}": "x", f"b{one}": "x"}}} for one in range(16)]
        deny = allow("deny", effect="Deny") | {"from": [{"pods": pods} for pods in several]}
        policy(server, allow("wide") | {"from": [{"pods": wide}]}, deny)
        await rig.until(lambda: condition(server, "NetworkProgrammed")[1] == "TooComplex")
        assert "shop/orders port 8443/TCP" in condition(server, "NetworkProgrammed")[2]
        assert clients(server) == set()
        assert condition(server, "Ready")[0] == "False"


@pytest.mark.parametrize("damage", ["edit", "delete", "labels", "more"])
async def test_a_foreign_change_is_repaired_and_counted(server: FakeApi, tmp_path: Path, damage: str) -> None:
    async with running(server, tmp_path) as rig:
        await populated(rig)
        policy(server, allow("frontend", "web/frontend"))
        await programmed(rig)
        await rig.until(lambda: server.get("ConfigMap", "shop.isolation", OPERATOR_NAMESPACE))
        await rig.idle()
        before = network_policy(server)
        assert before is not None
        server.reset_counts()
        match damage:
            case "edit":
                server.patch("NetworkPolicy", "zt-orders", {"spec": {"ingress": [{}]}}, "shop")
            case "delete":
                server.delete("NetworkPolicy", "zt-orders", "shop")
            case "labels":
                server.patch("NetworkPolicy", "zt-orders", {"metadata": {"labels": None, "annotations": None}}, "shop")
            case _:
                selector = {"matchLabels": {"app": "nothing-has-this"}}
                server.patch("NetworkPolicy", "zt-orders", {"spec": {"podSelector": selector}}, "shop")

        def restored() -> bool:
            body = network_policy(server)
            same = body is not None and body["spec"] == before["spec"]
            return same and body["metadata"].get("labels") == before["metadata"]["labels"]  # type: ignore[index]

        await rig.until(restored)
        if damage != "labels":
            text = rig.controller.metrics.render().decode()
            assert 'zerotrust_repaired_total{kind="NetworkPolicy"} 1.0' in text
        await asyncio.sleep(1)  # longer than news of it waits to be looked at
        await rig.idle()
        assert [resource for _, resource, _, _ in rig.writes() if resource != "events"] == ["networkpolicies"]


async def test_isolation_is_remembered_while_the_controller_is_down(server: FakeApi, tmp_path: Path) -> None:
    async with running(server, tmp_path) as rig:
        await populated(rig)
        policy(server, allow("frontend", "web/frontend"))
        await programmed(rig)
        await rig.until(lambda: server.get("ConfigMap", "shop.isolation", OPERATOR_NAMESPACE))
    server.delete("NetworkPolicy", "zt-orders", "shop")
    server.delete("TrustPolicy", "orders", "shop")
    async with running(server, tmp_path) as rig:
        await rig.until(lambda: clients(server) == set())
        await rig.until(lambda: not server.list("ControllerRevision", OPERATOR_NAMESPACE))


async def test_an_admin_may_open_what_no_policy_closes(server: FakeApi, tmp_path: Path) -> None:
    async with running(server, tmp_path) as rig:
        await populated(rig)
        policy(server, allow("frontend", "web/frontend"))
        await programmed(rig)
        annotation = {"metadata": {"annotations": {naming.ALLOW_OPEN: "ticket 42"}}}
        server.patch("NetworkPolicy", "zt-orders", annotation, "shop")
        await rig.idle()
        assert clients(server) == {"web/frontend"}, "a policy closes it still"
        server.delete("TrustPolicy", "orders", "shop")
        await rig.until(lambda: network_policy(server) is None)


async def test_somebody_elses_object_of_that_name_is_left_alone(server: FakeApi, tmp_path: Path) -> None:
    theirs = {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{}]}
    metadata = {"name": "zt-orders", "namespace": "shop"}
    server.create({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": theirs})
    async with running(server, tmp_path) as rig:
        await populated(rig)
        policy(server, allow("frontend", "web/frontend"))
        await rig.until(lambda: condition(server, "NetworkProgrammed")[1] == "Conflict")
        body = network_policy(server)
        assert body is not None
        assert body["spec"] == theirs
        assert condition(server, "Shadowed")[1] == "ForeignPolicy"


@pytest.mark.parametrize("disguise", [{}, {naming.MANAGED_BY: naming.OPERATOR, naming.IDENTITY: "orders"}])
async def test_a_foreign_policy_that_widens_is_named(server: FakeApi, tmp_path: Path, disguise: dict[str, str]) -> None:
    labels = {"app": "orders", naming.SERVICE_ACCOUNT: "orders"}
    server.create(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one", "namespace": "shop", "labels": labels}}
    )
    async with running(server, tmp_path) as rig:
        await populated(rig)
        policy(server, allow("frontend", "web/frontend"))
        await programmed(rig)
        assert condition(server, "Shadowed")[:2] == ("False", "NotShadowed")
        spec = {"podSelector": {"matchLabels": {"app": "orders"}}, "ingress": [{"ports": [{"port": 80}]}]}
        metadata = {"name": "broad", "namespace": "shop", "labels": disguise}
        server.create(
            {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}
        )
        await rig.until(lambda: condition(server, "Shadowed")[1] == "ForeignPolicy")
        edge = "NetworkPolicy shop/broad lets everybody reach shop/orders at 80/TCP"
        assert edge in condition(server, "Shadowed")[2]
        assert condition(server, "LayersAgree")[0] == "False"
        assert edge in condition(server, "LayersAgree")[2]
        server.delete("NetworkPolicy", "broad", "shop")
        await rig.until(lambda: condition(server, "Shadowed")[1] == "NotShadowed")


async def test_observe_enforces_nothing(server: FakeApi, tmp_path: Path) -> None:
    async with running(server, tmp_path) as rig:
        await populated(rig)
        policy(server, allow("frontend", "web/frontend"), mode="Observe")
        await rig.until(lambda: condition(server, "Enforced")[1] == "ObserveMode")
        await rig.idle()
        assert network_policy(server) is None


async def test_an_observed_identity_is_not_isolated(server: FakeApi, tmp_path: Path) -> None:
    async with running(server, tmp_path) as rig:
        await populated(rig, enforcement="Observe", egress={"mode": "Isolated"})
        policy(server, allow("frontend", "web/frontend"))
        await rig.until(lambda: condition(server, "Ready")[0] == "True")
        await rig.idle()
        assert network_policy(server) is None
        server.patch("ServiceIdentity", "orders", {"spec": {"enforcement": "Enforce"}}, "shop")
        await rig.until(lambda: clients(server) == {"web/frontend"})


async def test_a_default_domain_isolates_nothing_and_an_isolating_one_spares_the_exempt(
    server: FakeApi, tmp_path: Path
) -> None:
    server.patch("Namespace", "default", {"metadata": {"labels": {naming.EXEMPT: "true"}}})
    async with running(server, tmp_path) as rig:
        await populated(rig)
        assert server.list("NetworkPolicy") == []
        server.patch("Namespace", "web", {"metadata": {"labels": {naming.EXEMPT: "true"}}})
        server.patch("TrustDomain", "example.org", {"spec": {"isolation": {"mode": "All"}}})
        await rig.until(lambda: network_policy(server, naming.DEFAULT_DENY))
        await rig.idle()
        assert [one["metadata"]["namespace"] for one in server.list("NetworkPolicy")] == ["shop"]
        body = network_policy(server, naming.DEFAULT_DENY)
        assert body is not None
        assert body["spec"] == {"podSelector": {}, "policyTypes": ["Ingress"]} or body["spec"]["ingress"] == []


async def test_the_target_of_a_load_balancer_is_warned_about_before_it_is_isolated(
    server: FakeApi, tmp_path: Path
) -> None:
    labels = {"app": "orders", naming.SERVICE_ACCOUNT: "orders"}
    server.create(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one", "namespace": "shop", "labels": labels}}
    )
    spec = {"type": "LoadBalancer", "selector": {"app": "orders"}}
    server.create(
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "front", "namespace": "shop"}, "spec": spec}
    )
    async with running(server, tmp_path) as rig:
        await populated(rig)
        policy(server, allow("frontend", "web/frontend"))
        await programmed(rig)
        await rig.until(lambda: any(one["reason"] == "ExposedTarget" for one in server.list("Event")))
        (event,) = [one for one in server.list("Event") if one["reason"] == "ExposedTarget"]
        assert "Service front of type LoadBalancer" in event["note"]


async def test_an_isolated_workload_reaches_the_bundle_server_where_it_has_bundles(
    server: FakeApi, tmp_path: Path
) -> None:
    async with running(server, tmp_path) as rig:
        await populated(rig, egress={"mode": "Isolated"})

        def peers() -> list[dict[str, Any]]:
            body = network_policy(server) or {"spec": {}}
            rules = [
                rule for rule in body["spec"].get("egress", []) if {"port": 8443, "protocol": "TCP"} in rule["ports"]
            ]
            return [peer for rule in rules for peer in rule["to"]]

        await rig.until(lambda: network_policy(server))
        assert peers() == []
        policy(server, allow("frontend", "web/frontend"))
        rig.identity(naming.BUNDLE_SERVER, OPERATOR_NAMESPACE)
        await rig.until(peers)
        place = {"matchLabels": {"kubernetes.io/metadata.name": OPERATOR_NAMESPACE}}
        pods = {"matchLabels": {naming.SERVICE_ACCOUNT: naming.BUNDLE_SERVER}}
        assert peers() == [{"namespaceSelector": place, "podSelector": pods}]


async def test_egress_opens_for_own_namespace_and_for_named_servers(server: FakeApi, tmp_path: Path) -> None:
    async with running(server, tmp_path) as rig:
        await populated(rig)
        server.patch("ServiceIdentity", "frontend", {"spec": {"egress": {"mode": "Isolated"}}}, "web")
        policy(server, allow("frontend", "web/frontend"))
        await programmed(rig)
        await rig.until(lambda: condition(server, "EgressAccepted")[0] == "False")
        assert "web/frontend has not named shop/orders" in condition(server, "EgressAccepted")[2]

        def opened() -> set[int]:
            body = network_policy(server, "zt-frontend", "web")
            return {one["port"] for rule in (body or {"spec": {}})["spec"].get("egress", []) for one in rule["ports"]}

        await rig.until(lambda: opened() == {53})
        calls = {"mode": "Isolated", "calls": [{"name": "orders", "namespace": "shop"}]}
        server.patch("ServiceIdentity", "frontend", {"spec": {"egress": calls}}, "web")
        await rig.until(lambda: opened() == {53, 8443})
        await rig.until(lambda: condition(server, "EgressAccepted")[0] == "True")
        server.delete("TrustPolicy", "orders", "shop")
        await rig.until(lambda: opened() == {53})


async def test_no_leftover_goes_by_an_old_look_at_the_pods(server: FakeApi, tmp_path: Path) -> None:
    """Several leftovers of one namespace look at its pods at the same time; none may decide by what was seen before."""
    names = [f"workload-{number}" for number in range(8)]
    async with running(server, tmp_path) as rig:
        rig.domain()
        for name in names:
            rig.identity(name)
        await rig.until(lambda: all(rig.is_ready(name) for name in names))
        body = {"target": {"all": True}, "rules": [{"name": "one", "from": [{"anyWorkload": {}}], "to": HTTPS}]}
        server.create(resource("TrustPolicy", "all", "shop", body))
        await programmed(rig, "all")
        for name in names:
            metadata = {"name": name, "namespace": "shop", "labels": {naming.SERVICE_ACCOUNT: name}}
            server.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata})
        for name in names:
            server.delete("ServiceIdentity", name, "shop")
        await rig.until(lambda: all(naming.ORPHANED in _labels(server, name) for name in names), seconds=5)
        await rig.idle()
        left = {one["metadata"]["name"] for one in server.list("NetworkPolicy", "shop")}
        assert left == {f"zt-{name}" for name in names}


def _labels(server: FakeApi, name: str) -> dict[str, str]:
    body = network_policy(server, f"zt-{name}") or {"metadata": {}}
    return dict(body["metadata"].get("labels", {}))
