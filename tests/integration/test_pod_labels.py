"""The pod label zerotrust.dev/service-account says which ServiceAccount a pod runs as, whoever writes what into it."""

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest

from hack import components
from hack.controlplane import EXISTING_CLUSTER, ControlPlane, ControlPlaneError
from hack.gotools import find_or_build

# The policies reach every pod of the cluster, so they get a control plane of their own, with controllers that make pods.
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(EXISTING_CLUSTER in os.environ, reason="installs cluster-wide policies"),
]

Body = dict[str, Any]
T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]
MANIFESTS = ROOT / "manifests" / "admission"
GUIDE = ROOT / "docs" / "guides" / "pod-labels.md"
LABEL = "zerotrust.dev/service-account"
ANNOTATION = "zerotrust.dev/labelled-as"
LONGEST = "a" * 63
TOO_LONG = "b" * 64
BEFORE = "before"
MAKE_PODS = ("deployment-controller", "job-controller", "replicaset-controller", "statefulset-controller")
SECONDS = 60.0
MIRROR: Body = {"annotations": {"kubernetes.io/config.mirror": "static"}, "node": "nowhere"}


@pytest.fixture(scope="module")
def control_plane() -> Iterator[ControlPlane]:
    """A control plane with controllers that make pods, with pods from before, and then the policies."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(components, "CONTROLLERS", (*components.CONTROLLERS, *MAKE_PODS))
        with ControlPlane() as plane:
            plane.kubectl("create", "namespace", BEFORE)
            plane.kubectl("wait", "--for=create", "serviceaccount/default", "-n", BEFORE, "--timeout=60s")
            for account in ("orders", TOO_LONG):
                plane.kubectl("create", "serviceaccount", account, "-n", BEFORE)
            for name in ("edited", "adopted", "swept"):
                create(plane, a_pod(name, BEFORE, account="orders"))
            for name in ("spoofed", "swept-spoofed"):
                create(plane, a_pod(name, BEFORE, account="orders", label="payments"))
            create(plane, a_pod("spoofed-long", BEFORE, account=TOO_LONG, label="payments"))
            create(plane, a_pod("mirror", BEFORE, **MIRROR))
            install(plane)
            yield plane


@pytest.fixture
def shop(control_plane: ControlPlane, namespace: str) -> str:
    """A namespace with ServiceAccounts."""
    for account in ("orders", "team.orders", LONGEST, TOO_LONG):
        control_plane.kubectl("create", "serviceaccount", account, "-n", namespace)
    return namespace


@pytest.fixture
def without_mutation(control_plane: ControlPlane, shop: str) -> Iterator[str]:
    """As before Kubernetes 1.36: the label is guarded, but nobody sets it."""
    control_plane.kubectl("delete", "mutatingadmissionpolicybinding", "zerotrust-pod-labels")
    wait_until(lambda: label(dry_run(control_plane, a_pod("probe", shop))) is None, "the label is not set any more")
    yield shop
    install(control_plane)


@pytest.mark.parametrize("account", ["orders", "team.orders", LONGEST])
def test_a_new_pod_is_labelled_with_its_service_account(control_plane: ControlPlane, shop: str, account: str) -> None:
    made = create(control_plane, a_pod("pod", shop, account=account))
    assert label(made) == account
    assert label(stored(control_plane, "pod", shop)) == account


def test_a_pod_that_names_no_service_account_runs_as_default(control_plane: ControlPlane, shop: str) -> None:
    made = create(control_plane, a_pod("pod", shop))
    assert (made["spec"]["serviceAccountName"], label(made)) == ("default", "default")


def test_a_generated_name_makes_no_difference(control_plane: ControlPlane, shop: str) -> None:
    pod = a_pod("", shop, account="orders")
    pod["metadata"] = {"generateName": "pod-", "namespace": shop}
    assert label(create(control_plane, pod)) == "orders"


def test_a_dry_run_shows_the_label_and_refuses_another(control_plane: ControlPlane, shop: str) -> None:
    assert label(dry_run(control_plane, a_pod("pod", shop, account="orders"))) == "orders"
    assert "denied" in refusal(lambda: dry_run(control_plane, a_pod("pod", shop, label="orders")))


def test_other_labels_and_annotations_are_kept(control_plane: ControlPlane, shop: str) -> None:
    pod = a_pod("pod", shop, account="orders")
    pod["metadata"] |= {"labels": {"app": "orders"}, "annotations": {"note": "mine"}}
    made = create(control_plane, pod)["metadata"]
    assert made["labels"] == {"app": "orders", LABEL: "orders"}
    assert made["annotations"] == {"note": "mine", ANNOTATION: "orders"}


@pytest.mark.parametrize("place", ["kube-system", "default"])
def test_no_namespace_is_left_out(control_plane: ControlPlane, place: str) -> None:
    control_plane.kubectl("wait", "--for=create", "serviceaccount/default", "-n", place, "--timeout=60s")
    assert label(dry_run(control_plane, a_pod("pod", place))) == "default"
    assert "denied" in refusal(lambda: dry_run(control_plane, a_pod("pod", place, label="orders")))


@pytest.mark.parametrize("value", ["payments", "", "Orders", "orders.team"])
def test_another_value_is_refused(control_plane: ControlPlane, shop: str, value: str) -> None:
    message = refusal(lambda: create(control_plane, a_pod("pod", shop, account="orders", label=value)))
    assert f'is "{value}", but the pod runs as ServiceAccount "orders": remove the label' in message


def test_the_right_value_is_accepted(control_plane: ControlPlane, shop: str) -> None:
    assert label(create(control_plane, a_pod("pod", shop, account="orders", label="orders"))) == "orders"


def test_a_planted_annotation_gains_nothing(control_plane: ControlPlane, shop: str) -> None:
    """Who pretends that the policy wrote the label gets the right one."""
    pod = a_pod("pod", shop, account="orders", label="payments", annotations={ANNOTATION: "payments"})
    assert label(create(control_plane, pod)) == "orders"


def test_a_service_account_that_is_set_later_is_followed(control_plane: ControlPlane, shop: str) -> None:
    """Another policy here, a webhook elsewhere: whoever changes the ServiceAccount last, the label follows."""
    apply(control_plane, *sets_the_service_account("orders"))
    try:
        probe = a_pod("pod", shop, annotations={"test/late": "yes"})
        changed = wait_for(
            lambda: dry_run(control_plane, probe),
            lambda pod: pod["spec"]["serviceAccountName"] == "orders",
            "the other policy is active",
        )
        assert label(changed) == "orders"
    finally:
        control_plane.kubectl("delete", "mutatingadmissionpolicy,mutatingadmissionpolicybinding", "test-late")


def test_a_long_name_leaves_the_pod_unlabelled(control_plane: ControlPlane, shop: str) -> None:
    made = create(control_plane, a_pod("pod", shop, account=TOO_LONG))
    assert label(made) is None
    assert ANNOTATION not in made["metadata"].get("annotations", {})
    for value in ("orders", TOO_LONG[:63], ""):
        message = refusal(lambda value=value: create(control_plane, a_pod("x", shop, account=TOO_LONG, label=value)))
        assert "over 63 characters, cannot have it: remove the label" in message
        assert "cannot have the label" in refusal(lambda value=value: relabel(control_plane, "pod", shop, value))


def test_mirror_pods_are_let_through_without_the_label(control_plane: ControlPlane, shop: str) -> None:
    """A kubelet makes them for its static pods, such as the control plane's; they have no ServiceAccount."""
    made = create(control_plane, a_pod("mirror", shop, **MIRROR))
    assert label(made) is None
    assert made["metadata"]["annotations"] == MIRROR["annotations"]
    assert "pod without ServiceAccount" in refusal(
        lambda: create(control_plane, a_pod("spoofed", shop, label="orders", **MIRROR))
    )


@pytest.mark.parametrize("value", ["payments", "", None])
@pytest.mark.parametrize("subresource", ["", "status"])
def test_a_pod_is_not_relabelled(control_plane: ControlPlane, shop: str, value: str | None, subresource: str) -> None:
    create(control_plane, a_pod("pod", shop, account="orders"))
    message = refusal(lambda: relabel(control_plane, "pod", shop, value, subresource))
    assert 'may only become "orders", the ServiceAccount that it runs as, and then stays' in message
    assert label(stored(control_plane, "pod", shop)) == "orders"


def test_a_pod_is_not_replaced_by_one_without_the_label(control_plane: ControlPlane, shop: str) -> None:
    made = create(control_plane, a_pod("pod", shop, account="orders"))
    del made["metadata"]["labels"]
    assert "denied" in refusal(lambda: control_plane.kubectl("replace", "-f", "-", stdin=json.dumps(made)))


def test_everything_else_of_a_pod_stays_free(control_plane: ControlPlane, shop: str) -> None:
    create(control_plane, a_pod("pod", shop, account="orders"))
    metadata = {"labels": {"app": "orders"}, "annotations": {"note": "mine"}}
    patch(control_plane, "pod", shop, {"metadata": metadata, "spec": {"activeDeadlineSeconds": 60}})
    patch(
        control_plane, "pod", shop, {"metadata": {"labels": {"tier": "web"}}, "status": {"phase": "Running"}}, "status"
    )
    debugger = {"name": "debug", "image": "registry.example.org/debug:1"}
    patch(control_plane, "pod", shop, {"spec": {"ephemeralContainers": [debugger]}}, "ephemeralcontainers")
    resources = {"requests": {"cpu": "10m"}}
    patch(control_plane, "pod", shop, {"spec": {"containers": [{"name": "app", "resources": resources}]}}, "resize")
    patch(control_plane, "pod", shop, {"metadata": {"labels": {"app": None}}})
    pod = stored(control_plane, "pod", shop)
    assert pod["metadata"]["labels"] == {"tier": "web", LABEL: "orders"}
    assert pod["status"]["phase"] == "Running"
    assert pod["spec"]["ephemeralContainers"]
    assert pod["spec"]["containers"][0]["resources"] == resources
    control_plane.kubectl("delete", "pod", "pod", "-n", shop, "--wait=false")


@pytest.mark.parametrize("route", ["pods/pod/binding", "bindings"])
def test_a_binding_brings_no_such_label(control_plane: ControlPlane, shop: str, route: str) -> None:
    """The API server copies a Binding's labels onto the pod, and no policy sees the result."""
    create(control_plane, a_pod("pod", shop, account="orders"))
    for value in ("payments", "orders", ""):
        message = refusal(lambda value=value: bind(control_plane, shop, route, {LABEL: value}))
        assert "a Binding cannot carry the label" in message
    bind(control_plane, shop, route, {"rack": "7"})
    pod = stored(control_plane, "pod", shop)
    assert pod["spec"]["nodeName"] == "nowhere"
    assert pod["metadata"]["labels"] == {"rack": "7", LABEL: "orders"}


@pytest.mark.parametrize(
    ("api", "kind", "more"),
    [
        ("apps/v1", "Deployment", {}),
        ("apps/v1", "ReplicaSet", {}),
        ("apps/v1", "StatefulSet", {"serviceName": "none"}),
        ("batch/v1", "Job", {}),
    ],
)
def test_pods_of_controllers_are_labelled(
    control_plane: ControlPlane, shop: str, api: str, kind: str, more: Body
) -> None:
    apply(control_plane, a_workload(api, kind, shop, {"app": "orders"}, **more))
    (pod,) = wait_for(lambda: pods(control_plane, shop), len, "the controller has made a pod")
    assert pod["metadata"]["ownerReferences"]
    assert label(pod) == "orders"


def test_a_workload_may_select_by_the_right_value(control_plane: ControlPlane, shop: str) -> None:
    apply(control_plane, a_workload("apps/v1", "ReplicaSet", shop, {"app": "orders", LABEL: "orders"}))
    wait_until(lambda: workload(control_plane, shop)["status"].get("replicas") == 1, "the pod is recognised")
    assert [label(pod) for pod in pods(control_plane, shop)] == ["orders"]


def test_a_workload_with_another_value_gets_no_pods_and_hears_why(control_plane: ControlPlane, shop: str) -> None:
    """Corrected pods would not match its selector: it would make more and more of them."""
    apply(control_plane, a_workload("apps/v1", "ReplicaSet", shop, {"app": "orders", LABEL: "payments"}))
    status = wait_for(
        lambda: workload(control_plane, shop)["status"], lambda found: "conditions" in found, "it says what is wrong"
    )
    (condition,) = status["conditions"]
    assert (condition["type"], condition["reason"]) == ("ReplicaFailure", "FailedCreate")
    assert 'is "payments", but the pod runs as ServiceAccount "orders"' in condition["message"]
    assert not pods(control_plane, shop)


def test_a_pod_from_before_is_edited_as_ever(control_plane: ControlPlane) -> None:
    for name in ("edited", "mirror", "spoofed-long"):
        before = label(stored(control_plane, name, BEFORE))
        patch(control_plane, name, BEFORE, {"metadata": {"labels": {"edited": "yes"}}})
        patch(control_plane, name, BEFORE, {"status": {"phase": "Running"}}, "status")
        assert label(stored(control_plane, name, BEFORE)) == before
        assert "denied" in refusal(lambda name=name: relabel(control_plane, name, BEFORE, "catalogue"))


def test_a_pod_from_before_gets_the_right_label_and_keeps_it(control_plane: ControlPlane) -> None:
    relabel(control_plane, "adopted", BEFORE, "orders")
    assert "may only become" in refusal(lambda: relabel(control_plane, "adopted", BEFORE, None))
    assert "may only become" in refusal(lambda: relabel(control_plane, "adopted", BEFORE, "payments"))


def test_a_spoofed_pod_from_before_can_only_be_put_right(control_plane: ControlPlane) -> None:
    patch(control_plane, "spoofed", BEFORE, {"metadata": {"labels": {"edited": "yes"}}})
    for value in ("catalogue", None):
        assert "may only become" in refusal(lambda value=value: relabel(control_plane, "spoofed", BEFORE, value))
    relabel(control_plane, "spoofed", BEFORE, "orders")
    relabel(control_plane, "spoofed-long", BEFORE, None)
    assert label(stored(control_plane, "spoofed-long", BEFORE)) is None


def test_the_guides_commands_find_and_label_pods_from_before(control_plane: ControlPlane, tmp_path: Path) -> None:
    listing, labelling = (
        block.removeprefix("$ ")
        for block in re.findall(r"```console\n(.*?)```", GUIDE.read_text(), re.DOTALL)
        if "custom-columns" in block
    )
    (tmp_path / "kubectl").symlink_to(find_or_build("kubectl"))

    def run(script: str) -> str:
        search = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
        settings = {**os.environ, "PATH": search, "KUBECONFIG": str(control_plane.kubeconfig)}
        done = subprocess.run(["bash", "-c", script], env=settings, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    found = {tuple(line.split()) for line in run(listing).splitlines()}
    assert (BEFORE, "swept", "orders", "<none>") in found
    assert (BEFORE, "swept-spoofed", "orders", "payments") in found
    run(labelling)
    assert all(account == TOO_LONG for _, _, account, _ in (line.split() for line in run(listing).splitlines()))
    assert label(stored(control_plane, "swept-spoofed", BEFORE)) == "orders"
    assert label(stored(control_plane, "mirror", BEFORE)) is None


def test_other_kinds_carry_any_value(control_plane: ControlPlane, shop: str) -> None:
    others = [
        ("v1", "ConfigMap", {}),
        ("v1", "Secret", {}),
        ("v1", "ServiceAccount", {}),
        ("v1", "Service", {"spec": {"ports": [{"port": 80}]}}),
        ("v1", "PodTemplate", {"template": a_template({LABEL: "anything"})}),
        ("apps/v1", "Deployment", a_workload("apps/v1", "Deployment", shop, {LABEL: "anything"}, replicas=0)),
        ("networking.k8s.io/v1", "NetworkPolicy", {"spec": {"podSelector": {"matchLabels": {LABEL: "anything"}}}}),
    ]
    for value in ("payments", "catalogue"):
        metadata = {"name": "other", "namespace": shop, "labels": {LABEL: value}}
        apply(
            control_plane,
            *({**more, "apiVersion": api, "kind": kind, "metadata": metadata} for api, kind, more in others),
        )
    everything = ",".join(kind.lower() for _, kind, _ in others)
    items = json.loads(control_plane.kubectl("get", everything, "-n", shop, "-l", LABEL, "-o", "json"))["items"]
    assert [item["metadata"]["labels"] for item in items] == [{LABEL: "catalogue"}] * len(others)
    assert not [item for item in items if ANNOTATION in item["metadata"].get("annotations", {})]


def test_where_nothing_sets_the_label_it_is_guarded_all_the_same(
    control_plane: ControlPlane, without_mutation: str
) -> None:
    shop = without_mutation
    assert label(create(control_plane, a_pod("pod", shop, account="orders"))) is None
    assert label(create(control_plane, a_pod("labelled", shop, account="orders", label="orders"))) == "orders"
    assert "denied" in refusal(lambda: create(control_plane, a_pod("spoofed", shop, label="orders")))
    assert "denied" in refusal(lambda: relabel(control_plane, "pod", shop, "payments"))


def test_the_rest_is_applied_where_a_kind_is_unknown(control_plane: ControlPlane, shop: str) -> None:
    """As the guide says of Kubernetes before 1.36."""
    unknown = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "NoSuchPolicy", "metadata": {"name": "x"}}
    known = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "known", "namespace": shop}}
    with pytest.raises(ControlPlaneError, match='no matches for kind "NoSuchPolicy"'):
        apply(control_plane, unknown, known)
    control_plane.kubectl("get", "configmap", "known", "-n", shop)


@pytest.mark.parametrize("name", ["zerotrust-pod-labels", "zerotrust-pod-bindings"])
def test_the_api_server_finds_no_fault_with_the_expressions(control_plane: ControlPlane, name: str) -> None:
    def read() -> Body:
        return kubectl_json(control_plane, "get", "validatingadmissionpolicy", name)

    status = wait_for(
        lambda: read().get("status", {}), lambda found: found.get("observedGeneration"), "the expressions are checked"
    )
    assert not status.get("typeChecking", {}).get("expressionWarnings")


def test_a_second_installation_changes_nothing(control_plane: ControlPlane) -> None:
    answers = control_plane.kubectl("apply", "-k", str(MANIFESTS)).splitlines()
    assert len(answers) == 12
    assert all(answer.endswith(" unchanged") for answer in answers), answers


def install(plane: ControlPlane) -> None:
    """Applies the manifests and returns when all of them are active."""
    plane.kubectl("apply", "-k", str(MANIFESTS))
    wait_until(lambda: label(dry_run(plane, a_pod("probe", BEFORE))) == "default", "the label is set")
    spoofed = a_pod("probe", BEFORE, label="orders")
    wait_until(lambda: fails_with("denied", lambda: dry_run(plane, spoofed)), "another value is refused")
    binding = partial(bind, plane, BEFORE, "pods/pod/binding", {LABEL: "orders"})  # of a pod that is not there
    wait_until(lambda: fails_with("a Binding cannot carry", binding), "Bindings are looked at")


def wait_until(condition: Callable[[], object], what: str) -> None:
    wait_for(condition, bool, what)


def wait_for(read: Callable[[], T], good: Callable[[T], object], what: str) -> T:
    deadline = time.monotonic() + SECONDS
    while not good(value := read()):
        assert time.monotonic() < deadline, f"not within {SECONDS} s: {what}; last seen: {value}"
        time.sleep(0.1)
    return value


def refusal(request: Callable[[], object]) -> str:
    with pytest.raises(ControlPlaneError) as raised:
        request()
    message = str(raised.value)
    assert "Forbidden" in message or "forbidden" in message, message
    return message


def fails_with(text: str, request: Callable[[], object]) -> bool:
    try:
        request()
    except ControlPlaneError as error:
        return text in str(error)
    return False


def kubectl_json(plane: ControlPlane, *arguments: str, stdin: str | None = None) -> Body:
    document: Body = json.loads(plane.kubectl(*arguments, "-o", "json", stdin=stdin))
    return document


def create(plane: ControlPlane, document: Body) -> Body:
    return kubectl_json(plane, "create", "-f", "-", stdin=json.dumps(document))


def dry_run(plane: ControlPlane, document: Body) -> Body:
    return kubectl_json(plane, "create", "--dry-run=server", "-f", "-", stdin=json.dumps(document))


def apply(plane: ControlPlane, *documents: Body) -> None:
    plane.kubectl("apply", "-f", "-", stdin="\n---\n".join(json.dumps(document) for document in documents))


def stored(plane: ControlPlane, name: str, namespace: str) -> Body:
    return kubectl_json(plane, "get", "pod", name, "-n", namespace)


def pods(plane: ControlPlane, namespace: str) -> list[Body]:
    found: list[Body] = kubectl_json(plane, "get", "pods", "-n", namespace)["items"]
    return found


def workload(plane: ControlPlane, namespace: str) -> Body:
    found = kubectl_json(plane, "get", "replicaset", "orders", "-n", namespace)
    return {"status": {}, **found}


def patch(plane: ControlPlane, name: str, namespace: str, changes: Body, subresource: str = "") -> None:
    where = [f"--subresource={subresource}"] if subresource else []
    plane.kubectl("patch", "pod", name, "-n", namespace, *where, "--type=strategic", "-p", json.dumps(changes))


def relabel(plane: ControlPlane, name: str, namespace: str, value: str | None, subresource: str = "") -> None:
    patch(plane, name, namespace, {"metadata": {"labels": {LABEL: value}}}, subresource)


def bind(plane: ControlPlane, namespace: str, route: str, labels: dict[str, str]) -> None:
    document = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": "pod", "labels": labels},
        "target": {"name": "nowhere"},
    }
    address = f"/api/v1/namespaces/{namespace}/{route}"
    plane.kubectl("create", "--raw", address, "-f", "-", stdin=json.dumps(document))


def label(pod: Body) -> str | None:
    value: str | None = pod["metadata"].get("labels", {}).get(LABEL)
    return value


def a_pod(
    name: str,
    namespace: str,
    *,
    account: str | None = None,
    label: str | None = None,
    annotations: dict[str, str] | None = None,
    node: str | None = None,
) -> Body:
    metadata: Body = {"name": name, "namespace": namespace, "annotations": annotations or {}}
    if label is not None:
        metadata["labels"] = {LABEL: label}
    spec = a_spec()
    if account:
        spec["serviceAccountName"] = account
    if node:
        spec["nodeName"] = node
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def a_spec() -> Body:
    requests = {"cpu": "5m"}
    return {"containers": [{"name": "app", "image": "registry.example.org/app:1", "resources": {"requests": requests}}]}


def a_template(labels: dict[str, str]) -> Body:
    return {"metadata": {"labels": labels}, "spec": {**a_spec(), "serviceAccountName": "orders"}}


def a_workload(api: str, kind: str, namespace: str, labels: dict[str, str], **more: object) -> Body:
    spec: Body = {"template": a_template(labels), **more}
    if kind == "Job":
        spec["template"]["spec"]["restartPolicy"] = "Never"
    else:
        spec["selector"] = {"matchLabels": labels}
    return {"apiVersion": api, "kind": kind, "metadata": {"name": "orders", "namespace": namespace}, "spec": spec}


def sets_the_service_account(account: str) -> tuple[Body, Body]:
    """A mutating policy for pods with the annotation test/late."""
    late = "has(object.metadata.annotations) && 'test/late' in object.metadata.annotations"
    change = f'Object{{spec: Object.spec{{serviceAccountName: "{account}", serviceAccount: "{account}"}}}}'
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    policy = {
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "matchConstraints": {"resourceRules": [rule]},
        "matchConditions": [{"name": "late", "expression": late}],
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": change}}],
    }
    api, named = "admissionregistration.k8s.io/v1", {"name": "test-late"}
    return (
        {"apiVersion": api, "kind": "MutatingAdmissionPolicy", "metadata": named, "spec": policy},
        {
            "apiVersion": api,
            "kind": "MutatingAdmissionPolicyBinding",
            "metadata": named,
            "spec": {"policyName": "test-late"},
        },
    )
