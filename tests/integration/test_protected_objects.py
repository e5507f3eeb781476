"""What the operator writes, nobody else changes: attacks are refused, and everything that people and controllers do works."""

import json
import os
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hack.controlplane import EXISTING_CLUSTER, ControlPlane
from hack.gatekeeper import USER as GATEKEEPER
from hack.gatekeeper import module_folder
from tests.support.deployment import OPERATOR_NAMESPACE, ROOT
from tests.support.keyholder import read_secret
from tests.support.protected import (
    CONTROLLER,
    DENIED,
    OURS,
    REFUSED,
    Protected,
    config_map,
    constraint_of_gatekeeper,
    kind_of_constraints,
    namespace,
    network_policy,
    secret,
    template_of_gatekeeper,
)
from zerotrust.common import naming, times

# The policies reach everybody's objects, so they get a control plane of their own.
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(EXISTING_CLUSTER in os.environ, reason="installs cluster-wide policies"),
]

Body = dict[str, Any]

POLICIES = ("zerotrust-protected-objects", "zerotrust-protected-records", "zerotrust-isolation-exempt")
NETWORK = {naming.COMPONENT: naming.COMPONENT_NETWORK_POLICY}
SVID = {naming.COMPONENT: naming.COMPONENT_SVID}
FOREIGN_OWNER = {"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "00000000-0000-4000-8000-000000000000"}
GARBAGE_COLLECTOR = "system:serviceaccount:kube-system:generic-garbage-collector"
NAMESPACE_CONTROLLER = "system:serviceaccount:kube-system:namespace-controller"
# A TrustDomain with a default-deny of its own everywhere but where a namespace is exempt.
TRUST_DOMAIN = {"default": True, "isolation": {"mode": "All"}}
BY_LABEL = ("-l", f"{naming.MANAGED_BY}={naming.OPERATOR}")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Protected]:
    with ControlPlane() as plane:
        running = Protected(plane, tmp_path_factory.mktemp("protected"))
        try:
            running.apply(ROOT / "examples" / "quickstart")
            running.apply(ours("TrustDomain", "example.org", TRUST_DOMAIN, place=""))
            running.apply(a_trust_policy(8443))
            running.until(lambda: running.read("secret", f"{naming.BUNDLE_SERVER}-svid", OPERATOR_NAMESPACE), "an SVID")
            running.bundle_server.start()
            running.apply(an_api_key())
            running.until(lambda: ready(running, "svid", "orders"), "the identity is issued")
            running.until(lambda: opens(running, 8443), "the policy is in force")
            running.until(lambda: running.read("networkpolicy", naming.DEFAULT_DENY), "the namespace is closed")
            running.until(lambda: ready(running, "zkey", "partner"), "the key is delivered")
            yield running
        finally:
            running.bundle_server.stop()
            running.controller.stop(30)


@pytest.fixture(scope="module")
def gatekeeper_kinds(cluster: Protected) -> None:
    """The kinds of Gatekeeper, one of its constraints' included, with an object of each that the operator has made."""
    crds = module_folder() / "charts" / "gatekeeper" / "crds"
    cluster.apply(crds / "constrainttemplate-customresourcedefinition.yaml")
    cluster.apply(kind_of_constraints())
    cluster.plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    for kind in ("constrainttemplate", "kept"):
        cluster.until(lambda kind=kind: not cluster.refusal("get", kind), "the kind is served")
    for body in (template_of_gatekeeper(OURS), constraint_of_gatekeeper("ours", OURS)):
        cluster.plane.kubectl(
            "create", "-f", "-", f"--as={CONTROLLER}", "--as-group=system:masters", stdin=json.dumps(body)
        )


# Each is what an administrator tries, the strongest of those who might: the kind, the name, and what kubectl is told.
PATCHES: dict[str, tuple[str, str, Body]] = {
    "a rule is added": ("networkpolicy", "zt-orders", {"spec": {"ingress": [{}]}}),
    "other pods are selected": ("networkpolicy", "zt-orders", {"spec": {"podSelector": {"matchLabels": {"a": "b"}}}}),
    "the operator's label goes": ("networkpolicy", "zt-orders", {"metadata": {"labels": {naming.MANAGED_BY: None}}}),
    "the component's label goes": ("networkpolicy", "zt-orders", {"metadata": {"labels": {naming.COMPONENT: None}}}),
    "it is called orphaned": ("networkpolicy", "zt-orders", {"metadata": {"labels": {naming.ORPHANED: "true"}}}),
    "its digest is forged": ("networkpolicy", "zt-orders", {"metadata": {"annotations": {naming.CONTENT_HASH: "0"}}}),
    "a dead owner is named": ("networkpolicy", "zt-orders", {"metadata": {"ownerReferences": [FOREIGN_OWNER]}}),
    "the default-deny is opened": ("networkpolicy", naming.DEFAULT_DENY, {"spec": {"ingress": [{}]}}),
    "the key is changed": ("secret", "orders-svid", {"data": {"tls.key": "b29wcw=="}}),
    "something is added": ("secret", "orders-svid", {"stringData": {"more": "oops"}}),
    "it is frozen": ("secret", "orders-svid", {"immutable": True}),
    "it is disowned": ("secret", "orders-svid", {"metadata": {"ownerReferences": None}}),
    "it is given away": ("secret", "orders-svid", {"metadata": {"labels": {naming.IDENTITY: "payments"}}}),
    "it is unlabelled": ("secret", "orders-svid", {"metadata": {"labels": {naming.COMPONENT: None}}}),
    "its revision is forged": ("secret", "orders-svid", {"metadata": {"annotations": {naming.REVISION: "900"}}}),
}


@pytest.mark.parametrize(("kind", "name", "change"), PATCHES.values(), ids=PATCHES)
def test_an_object_of_the_operator_is_not_changed(cluster: Protected, kind: str, name: str, change: Body) -> None:
    before = cluster.read(kind, name)
    answer = cluster.refusal("patch", kind, name, "-n", "shop", "--type=merge", "-p", json.dumps(change))
    assert DENIED.search(answer), answer
    assert f" shop/{name} is kept by the zerotrust-operator" in answer
    assert "Forbidden" in answer
    assert cluster.read(kind, name)["metadata"]["uid"] == before["metadata"]["uid"]


def test_another_way_of_writing_is_no_way_around(cluster: Protected) -> None:
    stolen = cluster.read("networkpolicy", "zt-orders")
    stolen["metadata"] = {"name": "zt-orders", "namespace": "shop"}
    stolen["spec"]["ingress"] = [{}]
    text = json.dumps(stolen)
    for command in (("replace",), ("apply", "--server-side", "--force-conflicts"), ("replace", "--force")):
        answer = cluster.refusal(*command, "-f", "-", stdin=text)
        assert DENIED.search(answer), answer


@pytest.mark.parametrize(
    ("kind", "name", "instead"),
    [
        ("networkpolicy", "zt-orders", "annotate it with zerotrust.dev/allow-open"),
        ("networkpolicy", naming.DEFAULT_DENY, "change spec.isolation of the TrustDomain"),
        ("secret", "orders-svid", "to renew it now, set spec.rotation.requestedAt of its ServiceIdentity"),
    ],
)
def test_an_object_of_the_operator_is_not_deleted(cluster: Protected, kind: str, name: str, instead: str) -> None:
    answer = cluster.refusal("delete", kind, name, "-n", "shop")
    assert DENIED.search(answer), answer
    assert instead in answer


def test_not_even_with_many_others(cluster: Protected) -> None:
    cluster.apply(network_policy("mine"), network_policy("mine-too"))
    address = "/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies"
    assert DENIED.search(cluster.refusal("delete", "--raw", address))
    assert DENIED.search(cluster.refusal("delete", "networkpolicies", "--all", "-n", "shop"))
    assert cluster.read("networkpolicy", "zt-orders")
    assert cluster.read("networkpolicy", naming.DEFAULT_DENY)


@pytest.mark.parametrize(
    "body",
    [
        network_policy("forged", OURS),
        network_policy("forged", NETWORK),
        network_policy("forged", {naming.COMPONENT: naming.COMPONENT_DEFAULT_DENY}),
        secret("forged", SVID),
        secret("forged", OURS | SVID),
    ],
    ids=["managed-by", "network-policy", "default-deny", "svid", "svid-and-managed-by"],
)
def test_nobody_else_makes_or_adopts_such_objects(cluster: Protected, body: Body) -> None:
    answer = cluster.refuses(body)
    assert DENIED.search(answer), answer
    assert "shop/forged cannot carry the labels" in answer
    plain = {**body, "metadata": {"name": "plain", "namespace": "shop"}}
    cluster.apply(plain)
    labels = [f"{key}={value}" for key, value in body["metadata"]["labels"].items()]
    assert DENIED.search(cluster.refusal("label", body["kind"], "plain", "-n", "shop", *labels))
    cluster.plane.kubectl("delete", body["kind"], "plain", "-n", "shop")


@pytest.mark.usefixtures("gatekeeper_kinds")
@pytest.mark.parametrize("kind", ["constrainttemplate", "kept"])
def test_gatekeepers_objects_of_ours_are_kept(cluster: Protected, kind: str) -> None:
    def attack(*arguments: str) -> None:
        answer = cluster.refusal(*arguments)
        assert DENIED.search(answer), answer
        assert "change the TrustPolicies that it follows from" in answer

    spec = {"spec": {"targets": [], "enforcementAction": "dryrun"}}
    attack("patch", kind, "ours", "--type=merge", "-p", json.dumps(spec))
    attack("label", kind, "ours", f"{naming.MANAGED_BY}-")
    attack("delete", kind, "ours")
    attack("delete", kind, "--all")
    gatekeeper = (f"--as={GATEKEEPER}", "--as-group=system:masters")
    attack("patch", kind, "ours", "--type=merge", "-p", json.dumps(spec), *gatekeeper)
    attack("delete", kind, "ours", *gatekeeper)
    cluster.plane.kubectl("annotate", kind, "ours", "gatekeeper.sh/vapb-generation-state=unblocked", *gatekeeper)
    status = json.dumps({"status": {"byPod": []}})
    cluster.plane.kubectl("patch", kind, "ours", "--subresource=status", "--type=merge", "-p", status)
    theirs = template_of_gatekeeper({}) if kind == "constrainttemplate" else constraint_of_gatekeeper("theirs", {})
    theirs["metadata"]["name"] = "theirs"
    cluster.apply(theirs)
    assert DENIED.search(cluster.refusal("label", kind, "theirs", f"{naming.MANAGED_BY}={naming.OPERATOR}"))
    cluster.plane.kubectl("delete", kind, "theirs")


def records(cluster: Protected) -> dict[str, str]:
    """Something of every component that the operator keeps in its namespace: the component, and kind and name."""
    found = cluster.every("secrets,configmaps,controllerrevisions", "-n", OPERATOR_NAMESPACE, *BY_LABEL)
    return {one["metadata"]["labels"][naming.COMPONENT]: f"{one['kind']}/{one['metadata']['name']}" for one in found}


def test_what_the_operator_remembers_is_kept(cluster: Protected) -> None:
    cluster.until(lambda: naming.COMPONENT_BUNDLE_REPORT in records(cluster), "the bundle server reports")
    found = records(cluster)
    assert {
        naming.COMPONENT_AUTHORITY,
        naming.COMPONENT_AUTHORITY_RECORD,
        naming.COMPONENT_ACCEPTED_POLICY,
        naming.COMPONENT_API_KEYS,
        naming.COMPONENT_BUNDLE_KEYS,
        naming.COMPONENT_BUNDLE_RECORD,
        naming.COMPONENT_ISOLATION_RECORD,
    } <= set(found)
    for component, place in found.items():
        answers = [
            cluster.refusal("label", place, "-n", OPERATOR_NAMESPACE, f"{naming.MANAGED_BY}-"),
            cluster.refusal("annotate", place, "-n", OPERATOR_NAMESPACE, "note=mine"),
        ]
        if component not in (naming.COMPONENT_AUTHORITY, naming.COMPONENT_AUTHORITY_RECORD):
            answers.append(cluster.refusal("delete", place, "-n", OPERATOR_NAMESPACE))
        if not place.startswith("ControllerRevision/"):
            change = json.dumps({"data": {"planted": "b29wcw=="}})
            answers.append(cluster.refusal("patch", place, "-n", OPERATOR_NAMESPACE, "--type=merge", "-p", change))
        for answer in answers:
            assert DENIED.search(answer), (place, answer)
    assert set(found) <= set(records(cluster))


@pytest.mark.parametrize("make", [config_map, secret])
def test_nobody_plants_a_record(cluster: Protected, make: Callable[..., Body]) -> None:
    assert DENIED.search(cluster.refuses(make("shop.api-keys-1", OURS, namespace=OPERATOR_NAMESPACE)))
    cluster.apply(make("mine", namespace=OPERATOR_NAMESPACE))
    kind = make("mine")["kind"]
    planted = cluster.refusal("label", kind, "mine", "-n", OPERATOR_NAMESPACE, f"{naming.MANAGED_BY}={naming.OPERATOR}")
    assert DENIED.search(planted)
    cluster.plane.kubectl("delete", kind, "mine", "-n", OPERATOR_NAMESPACE)


def test_authorities_are_restored_by_those_who_decide_about_them(cluster: Protected) -> None:
    """As docs/guides/trust-domains.md says: delete one, and put it back from a backup."""
    name = records(cluster)[naming.COMPONENT_AUTHORITY].removeprefix("Secret/")
    backup = cluster.read("secret", name, OPERATOR_NAMESPACE)
    for field in ("uid", "resourceVersion", "creationTimestamp", "managedFields"):
        backup["metadata"].pop(field, None)
    who = ("--as=backup", "--as-group=test:secrets")
    role = ("clusterrole", "secrets-only", "--verb=*", "--resource=secrets")
    cluster.plane.kubectl("create", *role)
    cluster.plane.kubectl("create", "clusterrolebinding", "secrets-only", "--clusterrole=secrets-only", "--user=backup")
    answer = cluster.refusal("delete", "secret", name, "-n", OPERATOR_NAMESPACE, *who)
    assert DENIED.search(answer), answer
    assert "by those who may update TrustDomains" in answer
    cluster.plane.kubectl("delete", "secret", name, "-n", OPERATOR_NAMESPACE)
    cluster.plane.kubectl("create", "-f", "-", stdin=json.dumps(backup))
    cluster.until(lambda: ready(cluster, "td", "example.org", ""), "the authority is there again")


def test_a_namespace_is_not_exempted_by_whoever_may_label_it(cluster: Protected) -> None:
    label = ("label", "namespace", "web", f"{naming.EXEMPT}=yes")
    closed = lambda: cluster.read("networkpolicy", naming.DEFAULT_DENY, "web")  # noqa: E731
    cluster.until(closed, "the namespace is closed")
    change = json.dumps({"metadata": {"labels": {naming.EXEMPT: "yes"}}})
    status = ("patch", "namespace", "web", "--subresource=status", "--type=merge", "-p", change)
    for attack in (label, status):
        assert "by those who may update TrustDomains" in cluster.refusal(*attack, kubeconfig=cluster.labeller)
    assert DENIED.search(cluster.refuses(namespace("fresh", {naming.EXEMPT: ""}), cluster.labeller))
    cluster.plane.kubectl("label", "namespace", "web", "team=a", kubeconfig=cluster.labeller)
    cluster.plane.kubectl(*label)
    cluster.until(lambda: not closed(), "who may update TrustDomains exempts it")
    undo = ("label", "namespace", "web", f"{naming.EXEMPT}-")
    assert DENIED.search(cluster.refusal(*undo, kubeconfig=cluster.labeller))
    cluster.plane.kubectl("label", "namespace", "web", "team=b", "--overwrite", kubeconfig=cluster.labeller)
    cluster.plane.kubectl(*undo)
    cluster.until(closed, "and takes that back")


def test_what_does_not_change_it_is_free(cluster: Protected) -> None:
    """Notes of people and tools, finalizers, and applying what is there already."""
    for kind, name in (("networkpolicy", "zt-orders"), ("secret", "orders-svid")):
        place = (kind, name, "-n", "shop")
        cluster.plane.kubectl("annotate", *place, "note=mine", f"{naming.ALLOW_OPEN}=not yet")
        cluster.plane.kubectl("label", *place, "team=shop")
        finalizers = json.dumps({"metadata": {"finalizers": ["example.org/wait"]}})
        cluster.plane.kubectl("patch", *place, "--type=merge", "-p", finalizers)
        cluster.plane.kubectl("patch", *place, "--type=merge", "-p", '{"metadata": {"finalizers": null}}')
        cluster.plane.kubectl("replace", "-f", "-", stdin=json.dumps(cluster.read(kind, name)))
        cluster.plane.kubectl("annotate", *place, "note-", f"{naming.ALLOW_OPEN}-")


def test_who_clears_up_may(cluster: Protected) -> None:
    for account in (GARBAGE_COLLECTOR, NAMESPACE_CONTROLLER, "system:kube-controller-manager"):
        for place in ("networkpolicy/zt-orders", "secret/orders-svid"):
            # The rights are the group's; what is looked at is the name.
            who = (f"--as={account}", "--as-group=system:masters")
            cluster.plane.kubectl("delete", place, "-n", "shop", "--dry-run=server", *who)
    for account in ("system:serviceaccount:shop:zerotrust-controller", "system:serviceaccount:kube-system:default"):
        who = (f"--as={account}", "--as-group=system:masters")
        assert DENIED.search(cluster.refusal("delete", "secret", "orders-svid", "-n", "shop", "--dry-run=server", *who))


def test_a_bundle_server_writes_reports_and_no_other_record(cluster: Protected) -> None:
    who = (f"--as=system:serviceaccount:{OPERATOR_NAMESPACE}:{naming.BUNDLE_SERVER}", "--as-group=system:masters")
    labels = OURS | {naming.COMPONENT: naming.COMPONENT_BUNDLE_REPORT}
    for name, allowed in (("zt-reports-another", True), ("shop.bundles-1", False)):
        body = json.dumps(config_map(name, labels, namespace=OPERATOR_NAMESPACE))
        answer = cluster.refusal("create", "--dry-run=server", "-f", "-", *who, stdin=body)
        assert bool(DENIED.search(answer)) is not allowed, answer


@pytest.mark.parametrize(
    "metadata",
    [
        {"name": "odd"},
        {"name": "odd", "labels": {}},
        {"name": "odd", "labels": {naming.COMPONENT: ""}, "annotations": {}},
        {"name": "odd", "labels": {naming.MANAGED_BY: ""}, "ownerReferences": []},
        {"name": "odd", "labels": {naming.MANAGED_BY: "Helm", naming.IDENTITY: "orders"}},
        {"generateName": "odd-", "ownerReferences": [FOREIGN_OWNER | {"kind": "ServiceIdentity"}]},
    ],
    ids=["nothing", "no-labels", "empty-component", "empty-manager", "another-manager", "generated-name"],
)
@pytest.mark.parametrize("place", ["shop", OPERATOR_NAMESPACE])
@pytest.mark.usefixtures("gatekeeper_kinds")
def test_odd_objects_of_others_are_no_concern(cluster: Protected, place: str, metadata: Body) -> None:
    """Evaluation does not fail at what an object lacks: with failurePolicy Fail that would stop other people's work."""
    local = {**metadata, "namespace": place}
    bodies: list[Body] = [
        {"apiVersion": "v1", "kind": "Secret", "metadata": local},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": local},
        {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": local, "spec": {"podSelector": {}}},
        {"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": local, "revision": 1, "data": {"a": 1}},
        {"apiVersion": "constraints.gatekeeper.sh/v1beta1", "kind": "Kept", "metadata": metadata},
    ]
    for body in bodies:
        made = json.loads(cluster.plane.kubectl("create", "-o", "json", "-f", "-", stdin=json.dumps(body)))
        where = (f"{body['kind']}/{made['metadata']['name']}", "-n", place)
        cluster.plane.kubectl("patch", *where, "--type=merge", "-p", '{"metadata": {"labels": {"a": "b"}}}')
        cluster.plane.kubectl("patch", *where, "--type=merge", "-p", '{"metadata": {"labels": null}}')
        cluster.plane.kubectl("delete", *where)


@pytest.mark.parametrize("name", POLICIES)
def test_the_api_server_finds_no_fault_with_the_expressions(cluster: Protected, name: str) -> None:
    status = cluster.until(
        lambda: (
            cluster.read("validatingadmissionpolicy", name).get("status", {}).get("observedGeneration")
            and cluster.read("validatingadmissionpolicy", name)["status"]
        ),
        "the expressions are checked",
    )
    assert not status.get("typeChecking", {}).get("expressionWarnings")


def test_the_operators_namespace_is_the_one_of_the_manifests() -> None:
    text = (ROOT / "manifests" / "admission" / "protected-objects.yaml").read_text()
    base = (ROOT / "manifests" / "base" / "namespace.yaml").read_text()
    assert f"name: {OPERATOR_NAMESPACE}\n" in base
    assert text.count(f"system:serviceaccount:{OPERATOR_NAMESPACE}:zerotrust-controller") == 2
    assert f"kubernetes.io/metadata.name: {OPERATOR_NAMESPACE}" in text


def test_api_keys_are_made_anew(cluster: Protected) -> None:
    """Deleting the Secret stays the way to a new key, and rotation goes on."""
    before = read_secret(cluster, "partner-api-key")["key-id"]
    cluster.plane.kubectl("delete", "secret", "partner-api-key", "-n", "shop")
    cluster.until(
        lambda: read_secret(cluster, "partner-api-key").get("key-id", before) != before, "another key is there"
    )
    second = read_secret(cluster, "partner-api-key")["key-id"]
    cluster.apply(an_api_key(rotation={"interval": "2160h", "overlap": "168h", "requestedAt": soon()}))
    cluster.until(lambda: read_secret(cluster, "partner-api-key")["key-id"] != second, "it is rotated")


def test_a_retained_secret_is_the_users(cluster: Protected) -> None:
    cluster.apply(account("kept"), ours("ServiceIdentity", "kept", {"deletionPolicy": "Retain"}))
    cluster.until(lambda: ready(cluster, "svid", "kept"), "it is issued")
    cluster.plane.kubectl("delete", "svid", "kept", "-n", "shop")
    cluster.plane.kubectl("patch", "secret", "kept-svid", "-n", "shop", "--type=merge", "-p", '{"data": {"a": "Yg=="}}')
    cluster.plane.kubectl("label", "secret", "kept-svid", "-n", "shop", f"{naming.COMPONENT}-", f"{naming.MANAGED_BY}-")
    cluster.plane.kubectl("delete", "secret", "kept-svid", "-n", "shop")


def test_the_operator_does_all_its_work(cluster: Protected) -> None:
    """Renewals, edits, deletions of everything that people declare; after it, nobody was refused anything."""
    kubectl, first = cluster.plane.kubectl, cluster.read("secret", "orders-svid")["data"]["tls.crt"]
    kubectl("annotate", "svid", "orders", "-n", "shop", f"{naming.ROTATE_REQUESTED}={soon()}")
    cluster.until(lambda: cluster.read("secret", "orders-svid")["data"]["tls.crt"] != first, "it is renewed")
    for port in range(1, 6):
        cluster.apply(a_trust_policy(port))
        cluster.until(lambda port=port: opens(cluster, port), "the edit is in force")
    cluster.apply(ours("ServiceIdentity", "payments", {"revocation": {"before": soon()}}))
    cluster.until(
        lambda: cluster.read("configmap", naming.REVOCATIONS, OPERATOR_NAMESPACE), "the revocation is remembered"
    )

    kubectl("delete", "tp", "orders", "-n", "shop")
    cluster.until(lambda: ready(cluster, "svid", "orders") and not opens(cluster, 5), "nobody is let in")
    kubectl("annotate", "networkpolicy", "zt-orders", "-n", "shop", f"{naming.ALLOW_OPEN}=test")
    cluster.until(lambda: not cluster.read("networkpolicy", "zt-orders"), "it is open again")

    kubectl("delete", "svid", "payments", "-n", "shop")
    cluster.until(lambda: not cluster.read("secret", "payments-svid"), "the garbage collector takes the Secret")
    metrics = urllib.request.urlopen(f"http://127.0.0.1:{cluster.port}/metrics", timeout=30).read().decode()
    assert 'zerotrust_api_writes_total{code="200",kind="Secret",verb="patch"}' in metrics
    assert not [line for line in metrics.splitlines() if line.startswith("zerotrust_") and 'code="403"' in line]
    for log in (cluster.log, cluster.bundle_log):
        assert not [line for line in log.read_text().splitlines() if REFUSED.search(line)]

    # Of a namespace that ends, the API server refuses new events, which is none of our policies' doing.
    kubectl("delete", "namespace", "shop", "--timeout=60s")
    cluster.until(
        lambda: not cluster.read("configmap", naming.bundle_record_name("shop"), OPERATOR_NAMESPACE),
        "what was remembered of the namespace is forgotten",
    )
    assert not DENIED.search(cluster.log.read_text() + cluster.bundle_log.read_text())


def ready(cluster: Protected, kind: str, name: str, place: str = "shop") -> bool:
    return cluster.conditions(kind, name, place or "default").get("Ready", ("",))[0] == "True"


def opens(cluster: Protected, port: int) -> bool:
    return f'"port": {port}' in json.dumps(cluster.read("networkpolicy", "zt-orders"))


def soon() -> str:
    """Later than anything that was done already, by clocks that count whole seconds."""
    return times.render(datetime.now(UTC) + timedelta(seconds=1))


def ours(kind: str, name: str, spec: Body, *, place: str = "shop") -> Body:
    metadata = {"name": name, **({"namespace": place} if place else {})}
    return {"apiVersion": naming.API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}


def account(name: str) -> Body:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": "shop"}}


def a_trust_policy(port: int) -> Body:
    caller = {"workload": {"name": "frontend", "namespace": "web"}}
    rule = {"name": "frontend", "from": [caller], "to": [{"port": port}]}
    keys = {"name": "partners", "from": [{"anyWorkload": {}, "apiKey": {"name": "partner"}}], "to": [{"port": port}]}
    return ours("TrustPolicy", "orders", {"target": {"identities": ["orders"]}, "rules": [rule, keys]})


def an_api_key(**spec: Any) -> Body:
    return ours("ApiKey", "partner", {"holder": {"name": "partner"}, "audience": ["orders"], "scopes": ["a"], **spec})
