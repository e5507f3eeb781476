"""The controller beside a real Gatekeeper: templates, constraints, what their status does to ours, repairs, and absences.

The tests run in order over one cluster: the last ones take Gatekeeper away.
"""

import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hack.controlplane import ControlPlane
from hack.gatekeeper import Gatekeeper
from tests.support.deployment import AT_ONCE, Running, keep_metrics
from tests.support.gatekeeper import constraint_kind, reads, running_gatekeeper
from zerotrust.gatekeeper.templates import BINDING, CREDENTIALS, HOST_ACCESS, IMAGES, LABELS, SERVICES, TEMPLATES

pytestmark = pytest.mark.cluster

NAMESPACE = "shop"
ENFORCE, OBSERVE, WARN = (f"{NAMESPACE}.{word}" for word in ("enforce", "observe", "warn"))
WRITES = re.compile(r'^zerotrust_api_writes_total\{.*kind="(?!Lease)[^"]*".*\} (\S+)$', re.MULTILINE)
FAILURES = re.compile(r"^zerotrust_reconcile_failures_total\{.*\} (\S+)$", re.MULTILINE)


class World:
    """A cluster with Gatekeeper and the controller, and a namespace with two identities."""

    def __init__(self, plane: ControlPlane, gatekeeper: Gatekeeper, folder: Path) -> None:
        self.plane, self.gatekeeper = plane, gatekeeper
        self.running = Running(plane, folder, *AT_ONCE)
        plane.kubectl("create", "namespace", NAMESPACE)
        for name in ("orders", "batch", "legacy"):
            plane.kubectl("create", "serviceaccount", name, "-n", NAMESPACE)
        domain = {"apiVersion": "zerotrust.dev/v1alpha1", "kind": "TrustDomain", "metadata": {"name": "example.org"}}
        self.running.apply({**domain, "spec": {"default": True}}, *(identity(name) for name in ("orders", "batch")))

    def constraint(self, kind: str, name: str = ENFORCE) -> dict[str, Any]:
        return reads(self.plane, constraint_kind(kind), name)

    def parameters(self, kind: str, name: str = ENFORCE) -> dict[str, Any]:
        found: dict[str, Any] = self.constraint(kind, name).get("spec", {}).get("parameters", {})
        return found

    def condition(self, type_: str, policy: str = "orders") -> tuple[str, str, str]:
        return self.running.conditions("trustpolicy", policy, NAMESPACE).get(type_, ("", "", ""))

    def until_enforced(self, policy: str = "orders") -> None:
        self.running.until(
            lambda: self.condition("ConstraintsEnforced", policy)[:2] == ("True", "Enforced"), "constraints enforced"
        )

    def pod(self, name: str, account: str, labels: dict[str, str] | None = None, **spec: Any) -> str:
        """What the API server says to a pod; the pod label policies are not installed here, so it labels itself."""
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": NAMESPACE,
                "labels": {"zerotrust.dev/service-account": account} if labels is None else labels,
            },
            "spec": {"serviceAccountName": account, "containers": [{"name": "main", "image": "app"}], **spec},
        }
        return self.plane.kubectl("create", "-f", "-", stdin=json.dumps(body), check=False)

    def metrics(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.running.port}/metrics", timeout=30) as answer:
            return str(answer.read().decode())

    def doctor(self) -> tuple[str, str]:
        """What `zerotrust doctor` says of Gatekeeper: its verdict and the last words."""
        command = (
            sys.executable,
            "-m",
            "zerotrust",
            "doctor",
            "-o",
            "json",
            "--kubeconfig",
            str(self.plane.kubeconfig),
        )
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        (found,) = (one for one in json.loads(done.stdout)["checks"] if one["check"] == "Gatekeeper")
        return found["verdict"], re.split("[,:] ", found["found"])[-1]

    def writes(self) -> float:
        return sum(map(float, WRITES.findall(self.metrics())))


def identity(name: str, **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "zerotrust.dev/v1alpha1", "kind": "ServiceIdentity", "metadata": metadata, "spec": spec}


def policy(name: str = "orders", **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": NAMESPACE}
    rule = {"name": "batch", "from": [{"workload": {"name": "batch", "namespace": NAMESPACE}}], "to": [{"port": 8443}]}
    given = {"target": {"identities": ["orders"]}, "rules": [rule], **spec}
    return {"apiVersion": "zerotrust.dev/v1alpha1", "kind": "TrustPolicy", "metadata": metadata, "spec": given}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("constraints")
    with running_gatekeeper(folder) as (plane, gatekeeper):
        world = World(plane, gatekeeper, folder)
        try:
            yield world
        finally:
            keep_metrics(world.running.port, folder / "controller.metrics")
            world.running.controller.stop(10)


def test_templates_and_constraints_come_by_themselves_and_are_enforced(world: World) -> None:
    world.running.apply(policy())
    world.until_enforced()
    templates = json.loads(world.plane.kubectl("get", "constrainttemplates", "-o", "json"))["items"]
    assert {one["metadata"]["name"] for one in templates} == {one.name for one in TEMPLATES.values()}
    assert set(world.parameters(CREDENTIALS)["secrets"]) == {"orders-svid", "batch-svid"}
    assert world.parameters(HOST_ACCESS)["serviceAccounts"] == {"orders": {"policies": "orders"}}
    assert world.condition("LayersAgree")[:2] == ("True", "OneTable")
    assert world.condition("Enforced")[0] == "True"
    assert world.doctor() == ("ok", "our 6 templates compiled")

    volume = {"name": "svid", "secret": {"secretName": "orders-svid"}}
    answer = world.pod("thief", "batch", volumes=[volume])
    assert "ServiceIdentity orders: " in answer, answer
    assert "created" in world.pod("orders-0", "orders", volumes=[volume])


def test_the_api_server_is_asked_only_once_it_knows_the_kinds(world: World) -> None:
    """A policy whose paramKind is not known yet refuses every write there is, bound or not."""
    templates = json.loads(world.plane.kubectl("get", "constrainttemplates", "-o", "json"))["items"]
    policies = json.loads(world.plane.kubectl("get", "validatingadmissionpolicies", "-o", "json"))["items"]
    crds = json.loads(world.plane.kubectl("get", "crds", "-l", "gatekeeper.sh/constraint=yes", "-o", "json"))["items"]
    assert {one["metadata"]["generation"] for one in templates} == {2}, "first without, and then with generateVAP"
    last = max(one["metadata"]["creationTimestamp"] for one in crds)
    assert len(crds) == len(policies) == len(TEMPLATES)
    assert all(one["metadata"]["creationTimestamp"] > last for one in policies)


def test_a_wave_is_followed_by_no_write_at_all(world: World) -> None:
    """Audits write into every constraint every two seconds; that is none of our business."""
    world.running.until(lambda: "queue_depth 0.0" in world.metrics(), "an empty queue")
    time.sleep(6)  # longer than the delay after which changes of pods are looked at
    before = world.writes()
    stamp = world.constraint(BINDING)["status"]["auditTimestamp"]
    world.running.until(lambda: world.constraint(BINDING)["status"]["auditTimestamp"] > stamp, "another audit")
    time.sleep(3)
    assert world.writes() == before


def test_what_a_policy_asks_of_admission_comes_with_it_and_goes_with_it(world: World) -> None:
    world.running.apply(policy("images", admission={"allowedRegistries": ["registry.example.org"]}))
    world.until_enforced("images")
    rules = world.parameters(IMAGES)["serviceAccounts"]["orders"]["rules"]
    assert rules == [{"policy": "images", "digest": False, "registries": ["registry.example.org"]}]
    assert "TrustPolicy images: " in world.pod("stranger", "orders")
    world.running.apply(policy("images", admission={"allowedRegistries": ["another.example.org"]}))
    world.running.until(
        lambda: "another.example.org" in str(world.parameters(IMAGES)), "the constraint follows an edit"
    )
    world.plane.kubectl("delete", "trustpolicy", "images", "-n", NAMESPACE)
    world.running.until(lambda: not world.constraint(IMAGES), "the constraint has gone")
    assert world.parameters(HOST_ACCESS)["serviceAccounts"] == {"orders": {"policies": "orders"}}


def test_what_only_observes_is_told_and_not_refused(world: World) -> None:
    world.running.apply(identity("legacy", enforcement="Observe"))
    world.running.until(lambda: "legacy-svid" in world.parameters(CREDENTIALS, OBSERVE).get("secrets", {}), "observed")
    assert world.constraint(CREDENTIALS, OBSERVE)["spec"]["enforcementAction"] == "dryrun"
    assert "created" in world.pod("curious", "batch", volumes=[{"name": "v", "secret": {"secretName": "legacy-svid"}}])
    told = world.running.until(
        lambda: reads(world.plane, "svid", "legacy", NAMESPACE)["status"].get("violations"), "told"
    )
    assert (told["total"], told["examples"][0]["object"]) == (1, "Pod curious")
    world.running.until(
        lambda: any(one["reason"] == "Violation" for one in world.running.every("events", "-n", NAMESPACE)), "an event"
    )
    world.plane.kubectl("delete", "pod", "curious", "-n", NAMESPACE, "--force", "--grace-period=0")
    world.running.until(
        lambda: "violations" not in reads(world.plane, "svid", "legacy", NAMESPACE)["status"], "found no more"
    )
    world.plane.kubectl("delete", "svid", "legacy", "-n", NAMESPACE)
    world.running.until(lambda: not world.constraint(CREDENTIALS, OBSERVE), "the constraint has gone")


def test_a_webhook_that_is_not_asked_any_more_is_missed(world: World) -> None:
    world.until_enforced()
    world.gatekeeper.remove_webhook_configuration()
    world.running.until(
        lambda: world.condition("ConstraintsEnforced")[:2] == ("False", "WebhookMissing"), "it is missed"
    )
    assert "but for ephemeral containers" in world.condition("ConstraintsEnforced")[2]
    assert world.condition("Enforced")[:2] == ("False", "WebhookMissing")
    assert world.doctor() == ("fail", "the API server does not ask them")
    world.gatekeeper.restore_webhook_configuration()
    world.until_enforced()


def test_pods_that_should_not_be_are_named_and_new_ones_refused_once_all_were_right(world: World) -> None:
    def match(name: str) -> tuple[str, str]:
        return world.running.conditions("svid", name, NAMESPACE).get("PodsMatch", ("", "", ""))[:2]

    world.running.until(lambda: match("orders") == ("True", "Matching"), "orders-0 is as it should be")
    world.running.until(lambda: "orders" in world.parameters(LABELS).get("identities", {}), "labels are demanded")
    world.until_enforced()
    assert "ServiceIdentity orders: " in world.pod("bare", "orders", labels={})

    world.running.apply(identity("legacy"))
    world.running.until(lambda: "legacy" in world.parameters(LABELS, WARN).get("identities", {}), "a warning only")
    time.sleep(1)  # no status of ours tells how far a constraint is that no policy is about
    assert "Warning" in (answer := world.pod("legacy-bare", "legacy", labels={})), answer
    assert "created" in answer
    world.running.until(lambda: match("legacy") == ("False", "UnlabelledPods"), "legacy-bare is named")
    world.plane.kubectl("delete", "pod", "legacy-bare", "-n", NAMESPACE, "--force", "--grace-period=0")
    world.running.until(lambda: match("legacy") == ("Unknown", "NoPods"), "legacy has no pods")
    world.plane.kubectl("delete", "svid", "legacy", "-n", NAMESPACE)


def test_the_service_of_an_identity_is_captured_by_nobody(world: World) -> None:
    world.running.apply(identity("orders", certificate={"dnsNames": [f"orders.{NAMESPACE}.svc"]}))
    world.running.until(lambda: world.parameters(SERVICES, ENFORCE).get("services"), "the Service is guarded")
    world.until_enforced()

    def service(**spec: Any) -> str:
        body = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "orders", "namespace": NAMESPACE}}
        return world.plane.kubectl("create", "-f", "-", stdin=json.dumps({**body, "spec": spec}), check=False)

    ports = [{"port": 8443}]
    assert "ServiceIdentity orders: " in service(type="ExternalName", externalName="evil.example.org")
    assert "ServiceIdentity orders: " in service(ports=ports)
    answer = service(ports=ports, selector={"zerotrust.dev/service-account": "batch"})
    assert "ServiceIdentity orders: " in answer, answer
    assert "created" in service(ports=ports, selector={"zerotrust.dev/service-account": "orders"})
    world.running.apply(identity("orders", certificate={"dnsNames": [f"other.{NAMESPACE}.svc"]}))
    world.running.until(lambda: "other" in world.parameters(SERVICES)["services"], "the constraint follows an edit")
    world.running.apply(identity("orders"))
    world.running.until(lambda: not world.constraint(SERVICES), "the constraint has gone")


def test_an_edit_or_a_deletion_by_somebody_else_is_put_right(world: World) -> None:
    wanted = world.parameters(CREDENTIALS)
    opened = {"spec": {"parameters": {"secrets": {"orders-svid": {"serviceAccounts": ["batch", "orders"]}}}}}
    patch = ("patch", constraint_kind(CREDENTIALS), ENFORCE, "--type=merge", "-p", json.dumps(opened))
    began = time.monotonic()
    world.plane.kubectl(*patch)
    world.running.until(lambda: world.parameters(CREDENTIALS) == wanted, "put right")
    assert time.monotonic() - began < 10
    uid = world.constraint(BINDING)["metadata"]["uid"]
    world.plane.kubectl("delete", constraint_kind(BINDING), ENFORCE)
    world.running.until(lambda: world.constraint(BINDING).get("metadata", {}).get("uid", uid) != uid, "made again")
    world.plane.kubectl("delete", "constrainttemplate", TEMPLATES[IMAGES].name)
    world.running.until(lambda: reads(world.plane, "constrainttemplate", TEMPLATES[IMAGES].name), "installed again")
    world.until_enforced()


def test_with_the_webhook_away_the_api_server_denies_by_itself(world: World) -> None:
    world.gatekeeper.remove_webhook_configuration()
    try:
        answer = world.pod("thief", "batch", volumes=[{"name": "svid", "secret": {"secretName": "orders-svid"}}])
        assert "ServiceIdentity orders: " in answer, answer
        assert "ValidatingAdmissionPolicy" in answer
    finally:
        world.gatekeeper.restore_webhook_configuration()


def test_a_rollout_of_gatekeeper_is_waited_for(world: World) -> None:
    world.gatekeeper.restart()
    world.running.apply(policy("later"))
    world.until_enforced("later")
    world.plane.kubectl("delete", "trustpolicy", "later", "-n", NAMESPACE)
    world.until_enforced()


def test_what_lost_its_source_while_the_controller_was_down_goes(world: World) -> None:
    world.running.controller.stop(10)
    world.plane.kubectl("delete", "svid", "batch", "-n", NAMESPACE)
    world.plane.kubectl("delete", "trustpolicy", "orders", "-n", NAMESPACE)
    world.running.restart_controller()
    world.running.until(lambda: not world.constraint(HOST_ACCESS), "no policy asks for it")
    world.running.until(
        lambda: set(world.parameters(CREDENTIALS)["secrets"]) == {"orders-svid"}, "batch asks for nothing"
    )


def test_gatekeeper_goes_and_comes_while_we_run(world: World) -> None:
    world.running.apply(identity("batch"), policy())
    world.until_enforced()
    world.gatekeeper.uninstall()
    world.running.until(lambda: world.condition("ConstraintsEnforced")[1] == "NotInstalled", "not installed")
    world.running.until(lambda: world.condition("Ready")[0] == "True", "that is no failure")
    policies = ("get", "validatingadmissionpolicies", "-o", "name")
    world.running.until(lambda: "zerotrust" not in world.plane.kubectl(*policies), "its policies are taken away")
    before, began = world.writes() + sum(map(float, FAILURES.findall(world.metrics()))), time.monotonic()
    time.sleep(8)
    after = world.writes() + sum(map(float, FAILURES.findall(world.metrics())))
    assert after - before <= 2, f"a tight loop: {after - before} attempts in {time.monotonic() - began:.1f} s"
    world.gatekeeper.install()
    world.until_enforced()
    assert world.running.controller.exit_code is None
