"""The three oracles for NetworkPolicies agree with each other and with what these cases say by hand.

Where nca does not, the case is in DIFFERENCES, with the words of the documentation that decide it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import pytest

from tests.support.clusters import Cluster, Flow, Manifest, Pod, Port
from tests.support.proving import only_in_prove
from tests.support.reachability import Oracle, OracleError, by_nca, by_netpol_analyzer, documented

NAMESPACES = {"shop": {"team": "red"}, "web": {"team": "blue"}, "ops": {}}
ORDERS = Pod("shop", "orders", {"app": "orders", "tier": "back"})
PAYMENTS = Pod("shop", "payments", {"app": "payments", "tier": "back"})
FRONTEND = Pod("web", "frontend", {"app": "frontend"})
BATCH = Pod("ops", "batch")
OTHERS = (PAYMENTS, FRONTEND, BATCH)

HTTP, ADMIN, DNS = Port("TCP", 8080), Port("TCP", 9090), Port("UDP", 8080)
ASKED = (HTTP, ADMIN, DNS)
EVERYBODY: Manifest = {"namespaceSelector": {}}


def policy(
    namespace: str = "shop",
    app: str | None = "orders",
    **spec: Any,
) -> Manifest:
    """A NetworkPolicy for the pods of an app, or for all pods of the namespace."""
    selector = {"matchLabels": {"app": app}} if app else {}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "-".join([app or "all", *spec]).lower(), "namespace": namespace},
        "spec": {"podSelector": selector, **spec},
    }


def ingress(*rules: Manifest, **of: Any) -> Manifest:
    return policy(policyTypes=["Ingress"], ingress=list(rules), **of)


def egress(*rules: Manifest, **of: Any) -> Manifest:
    return policy(policyTypes=["Egress"], egress=list(rules), **of)


def by(*clients: Manifest) -> Manifest:
    return {"from": list(clients)}


def labelled(**labels: str) -> Manifest:
    return {"matchLabels": labels}


def expressed(key: str, operator: str, *values: str) -> Manifest:
    return {"matchExpressions": [{"key": key, "operator": operator, **({"values": list(values)} if values else {})}]}


@dataclass(frozen=True)
class Case:
    """Policies, and who may then still connect to which ports of orders."""

    policies: list[Manifest]
    orders: Mapping[Pod, Sequence[Port]]


def open_to(*clients: Pod, ports: Sequence[Port] = ASKED) -> dict[Pod, Sequence[Port]]:
    return dict.fromkeys(clients, ports)


CASES = {
    "no policy": Case([], open_to(*OTHERS)),
    "default deny": Case([ingress()], {}),
    "default deny, not written out": Case([policy()], {}),
    "a policy for other pods": Case([ingress(app="nobody")], open_to(*OTHERS)),
    "a policy of another namespace": Case([ingress(namespace="ops")], open_to(*OTHERS)),
    "only egress is isolated": Case([egress()], open_to(*OTHERS)),
    "an empty rule": Case([ingress({})], open_to(*OTHERS)),
    "an empty from": Case([ingress(by())], open_to(*OTHERS)),
    "every namespace": Case([ingress(by(EVERYBODY))], open_to(*OTHERS)),
    "the own namespace": Case([ingress(by({"podSelector": {}}))], open_to(PAYMENTS)),
    "a pod of the own namespace only": Case([ingress(by({"podSelector": labelled(app="frontend")}))], {}),
    "a namespace by name": Case(
        [ingress(by({"namespaceSelector": labelled(**{"kubernetes.io/metadata.name": "web"})}))], open_to(FRONTEND)
    ),
    "both selectors in one peer": Case(
        [ingress(by({"namespaceSelector": labelled(team="red"), "podSelector": labelled(app="frontend")}))], {}
    ),
    "each selector in a peer of its own": Case(
        [ingress(by({"namespaceSelector": labelled(team="blue")}, {"podSelector": labelled(app="payments")}))],
        open_to(FRONTEND, PAYMENTS),
    ),
    "In": Case([ingress(by({"namespaceSelector": expressed("team", "In", "blue", "green")}))], open_to(FRONTEND)),
    "NotIn, met by a missing label": Case(
        [ingress(by({"namespaceSelector": expressed("team", "NotIn", "blue")}))], open_to(PAYMENTS, BATCH)
    ),
    "NotIn for pods": Case(
        [ingress(by({"namespaceSelector": {}, "podSelector": expressed("app", "NotIn", "frontend")}))],
        open_to(PAYMENTS, BATCH),
    ),
    "Exists": Case([ingress(by({"namespaceSelector": expressed("team", "Exists")}))], open_to(PAYMENTS, FRONTEND)),
    "DoesNotExist": Case([ingress(by({"namespaceSelector": expressed("team", "DoesNotExist")}))], open_to(BATCH)),
    "labels and expressions": Case(
        [ingress(by({"namespaceSelector": labelled(team="red") | expressed("team", "NotIn", "red")}))], {}
    ),
    "policies add up": Case(
        [
            ingress(by({"podSelector": labelled(app="payments")})),
            ingress(by({"namespaceSelector": labelled(team="blue")}), app=None),
            ingress(by({"podSelector": {}}), {"from": [EVERYBODY]}, app="payments"),
        ],
        open_to(PAYMENTS, FRONTEND),
    ),
    "one port": Case([ingress({"from": [EVERYBODY], "ports": [{"port": 8080}]})], open_to(*OTHERS, ports=[HTTP])),
    "a port for one and all ports for another": Case(
        [
            ingress(
                {"from": [{"podSelector": {}}], "ports": [{"protocol": "TCP", "port": 9090}]},
                by({"namespaceSelector": labelled(team="blue")}),
            )
        ],
        {PAYMENTS: [ADMIN], FRONTEND: ASKED},
    ),
    "UDP is not TCP": Case([ingress({"ports": [{"protocol": "UDP", "port": 8080}]})], open_to(*OTHERS, ports=[DNS])),
    "different ports of both": Case(
        [ingress({"ports": [{"protocol": "UDP", "port": 8080}, {"protocol": "TCP", "port": 9090}]})],
        open_to(*OTHERS, ports=[DNS, ADMIN]),
    ),
    "a protocol without a port": Case(
        [ingress({"ports": [{"protocol": "TCP"}]})], open_to(*OTHERS, ports=[HTTP, ADMIN])
    ),
    "endPort": Case([ingress({"ports": [{"port": 8081, "endPort": 9090}]})], open_to(*OTHERS, ports=[ADMIN])),
    "an address block is not for pods": Case([ingress(by({"ipBlock": {"cidr": "0.0.0.0/0"}}))], {}),
    "egress and ingress must share a port": Case(
        [
            ingress({"from": [EVERYBODY], "ports": [{"port": 8080}, {"port": 8080, "protocol": "UDP"}]}),
            egress({"to": [EVERYBODY], "ports": [{"port": 8080}, {"port": 9090}]}, namespace="web", app=None),
            egress({"to": [EVERYBODY], "ports": [{"port": 9090}]}, namespace="ops", app=None),
        ],
        {PAYMENTS: [HTTP, DNS], FRONTEND: [HTTP]},
    ),
}


@dataclass(frozen=True)
class Difference:
    """A case that nca reads otherwise than the documentation, and what it says."""

    case: Case
    by_nca: Mapping[Pod, Sequence[Port]]


NO_TYPES = policy(namespace="ops", app=None, ingress=[{}], egress=[])
ANY_APP = ingress(by({"namespaceSelector": {}, "podSelector": expressed("app", "Exists")}))
DIFFERENCES = {
    # "Egress will be set if the NetworkPolicy has any egress rules": an empty list has none.
    "an empty egress list isolates": Difference(Case([NO_TYPES], open_to(*OTHERS)), open_to(PAYMENTS, FRONTEND)),
    # "A single to/from entry that specifies both namespaceSelector and podSelector selects particular Pods within
    # particular namespaces", but nca looks for the key in the policy's own namespace only.
    "a key of pods in other namespaces": Difference(Case([ANY_APP], open_to(PAYMENTS, FRONTEND)), open_to(PAYMENTS)),
}
BY_TOOL = [
    pytest.param(documented, id="documented"),
    pytest.param(by_nca, id="nca"),
    pytest.param(by_netpol_analyzer, id="netpol-analyzer", marks=only_in_prove),
]


def cluster(case: Case) -> Cluster:
    return Cluster(NAMESPACES, [ORDERS, *OTHERS], case.policies)


def said_of_orders(oracle: Oracle, cases: Iterable[Case]) -> list[set[Flow]]:
    answers = oracle([cluster(case) for case in cases], ASKED)
    return [{flow for flow in answer if flow.server == ORDERS.key} for answer in answers]


def to_orders(clients: Mapping[Pod, Sequence[Port]]) -> set[Flow]:
    return {Flow(client.key, ORDERS.key, *port) for client, ports in clients.items() for port in ports}


@pytest.mark.parametrize("oracle", BY_TOOL)
def test_they_say_what_the_documentation_says(oracle: Oracle) -> None:
    said = dict(zip(CASES, said_of_orders(oracle, CASES.values()), strict=True))
    assert said == {name: to_orders(case.orders) for name, case in CASES.items()}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_where_nca_differs_from_the_documentation(name: str) -> None:
    """A difference that has gone fails too, so that whoever updates nca can use it for more."""
    case, said = DIFFERENCES[name].case, DIFFERENCES[name].by_nca
    assert said_of_orders(documented, [case]) == [to_orders(case.orders)]
    assert said_of_orders(by_nca, [case]) == [to_orders(said)]


@only_in_prove
@pytest.mark.parametrize("name", DIFFERENCES)
def test_where_netpol_analyzer_agrees_with_the_documentation(name: str) -> None:
    case = DIFFERENCES[name].case
    assert said_of_orders(by_netpol_analyzer, [case]) == [to_orders(case.orders)]


@pytest.mark.parametrize("oracle", BY_TOOL)
def test_isolating_one_pod_changes_nothing_for_the_others_and_nobody_talks_to_itself(oracle: Oracle) -> None:
    (answer,) = oracle([cluster(CASES["default deny"])], [HTTP])
    pairs = permutations([ORDERS, *OTHERS], 2)
    assert answer == {Flow(client.key, server.key, *HTTP) for client, server in pairs if server != ORDERS}


def test_named_ports_are_refused() -> None:
    case = Case([ingress({"ports": [{"port": "http"}]})], {})
    with pytest.raises(OracleError, match="port 'http': named ports are not supported, write its number"):
        documented([cluster(case)], [HTTP])
