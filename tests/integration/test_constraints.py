"""The controller beside a real Gatekeeper: templates, constraints, their status in ours, and repairs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hack.controlplane import ControlPlane
from hack.gatekeeper import Gatekeeper
from tests.support.deployment import Running
from tests.support.gatekeeper import running_gatekeeper
from zerotrust.gatekeeper.templates import CREDENTIALS, TEMPLATES

pytestmark = pytest.mark.cluster

NAMESPACE = "shop"


class World:
    """A cluster with Gatekeeper and the controller, and a namespace with two identities."""

    def __init__(self, plane: ControlPlane, gatekeeper: Gatekeeper, folder: Path) -> None:
        self.plane, self.gatekeeper = plane, gatekeeper
        self.running = Running(plane, folder)
        plane.kubectl("create", "namespace", NAMESPACE)
        for name in ("orders", "batch"):
            plane.kubectl("create", "serviceaccount", name, "-n", NAMESPACE)
        domain = {"apiVersion": "zerotrust.dev/v1alpha1", "kind": "TrustDomain", "metadata": {"name": "example.org"}}
        self.running.apply({**domain, "spec": {"default": True}}, *(identity(name) for name in ("orders", "batch")))

    def constraints(self, kind: str) -> dict[str, Any]:
        text = self.plane.kubectl("get", kind.lower(), "-o", "json", check=False)
        return {one["metadata"]["name"]: one for one in json.loads(text)["items"]} if text.startswith("{") else {}

    def condition(self, type_: str, policy: str = "orders") -> tuple[str, str, str]:
        found = self.running.conditions("trustpolicy", policy, NAMESPACE)
        return found.get(type_, ("", "", ""))

    def pod(self, name: str, account: str, **spec: Any) -> str:
        """What kubectl says to a pod."""
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"serviceAccountName": account, "containers": [{"name": "main", "image": "app"}], **spec},
        }
        return self.plane.kubectl("create", "-f", "-", stdin=json.dumps(body), check=False)


def identity(name: str, **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "zerotrust.dev/v1alpha1", "kind": "ServiceIdentity", "metadata": metadata, "spec": spec}


def policy(**spec: Any) -> dict[str, Any]:
    metadata = {"name": "orders", "namespace": NAMESPACE}
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
            world.running.controller.stop(10)


def test_templates_and_constraints_come_by_themselves_and_are_enforced(world: World) -> None:
    world.running.apply(policy())
    world.running.until(lambda: world.condition("ConstraintsEnforced")[:2] == ("True", "Enforced"), "enforced")
    assert set(world.constraints(CREDENTIALS)) == {f"{NAMESPACE}.enforce"}
    assert len(TEMPLATES) == len(json.loads(world.plane.kubectl("get", "constrainttemplates", "-o", "json"))["items"])
    volume = {"name": "svid", "secret": {"secretName": "orders-svid"}}
    answer = world.pod("thief", "batch", volumes=[volume])
    assert "ServiceIdentity orders: " in answer, answer
    assert "created" in world.pod("orders-0", "orders", volumes=[volume])
