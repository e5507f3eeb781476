"""Constraints and pods far larger than any that are met in practice stay below the evaluation's cost limit.

Gatekeeper allows 1,000,000 units for all expressions and messages of one constraint together (driver.go passes
PerCallLimit), the API server for each expression alone; what exceeds it is denied.
"""

from pathlib import Path
from typing import Any

from tests.support.gator import constraint, violations

IDENTITIES = 2_000  # 256 KiB of parameters
CONTAINERS = 200
DIGEST = "@sha256:" + "0" * 64


def a_pod(**spec: Any) -> dict[str, Any]:
    metadata = {"name": "large", "namespace": "shop", "labels": {"app": "app-7", "tier": "x"}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"serviceAccountName": "sa-7", **spec}}


def test_thousands_of_selectors(tmp_path: Path) -> None:
    identities = {
        f"sa-{number}": {
            "identity": f"id-{number}",
            "selector": [
                {"key": "tier", "operator": "Exists"},
                {"key": "app", "operator": "In", "values": [f"app-{number}"]},
            ],
        }
        for number in range(IDENTITIES)
    }
    binding = constraint("ZeroTrustIdentityBinding", {"identities": identities, "otherwise": list(identities)})
    labels = constraint("ZeroTrustIdentityLabels", {"identities": identities})
    stranger = a_pod(serviceAccountName="web")
    stranger["metadata"]["name"] = "stranger"
    (refused,) = violations(tmp_path, [binding, labels], [a_pod(), stranger])
    assert refused.object_name == "stranger"
    assert refused.message.startswith("ServiceIdentity id-7: ")


def test_thousands_of_variables_and_volumes(tmp_path: Path) -> None:
    secrets = {f"svid-{number}": {"owner": f"ServiceIdentity id-{number}"} for number in range(IDENTITIES)}
    secrets["svid-7"]["serviceAccounts"] = ["sa-7"]  # type: ignore[assignment]
    own = {"name": "OWN", "valueFrom": {"secretKeyRef": {"name": "svid-7", "key": "k"}}}
    other = {"name": "OTHER", "valueFrom": {"secretKeyRef": {"name": "settings", "key": "k"}}}
    plain = [{"name": f"E{number}", "value": "v"} for number in range(50)]
    pod = a_pod(
        containers=[{"name": f"c{number}", "env": [own, other, *plain]} for number in range(CONTAINERS)],
        volumes=[{"name": f"v{number}", "secret": {"secretName": f"s{number}"}} for number in range(1_000)],
    )
    assert violations(tmp_path, [constraint("ZeroTrustCredentialAccess", {"secrets": secrets})], [pod]) == []


def test_hundreds_of_containers(tmp_path: Path) -> None:
    rules = [{"policy": f"p{number}", "registries": ["other.example", "example.org/team"]} for number in range(3)]
    images = {"serviceAccounts": {"sa-7": {"rules": [*rules, {"policy": "d", "digest": True}]}}}
    constraints = [
        constraint("ZeroTrustImages", images),
        constraint("ZeroTrustHostAccess", {"serviceAccounts": {"sa-7": {"policies": "a"}}}),
    ]
    ports = [{"containerPort": number} for number in range(1, 21)]
    containers = [
        {"name": f"c{number}", "image": f"example.org/team/app-{number}:1{DIGEST}", "ports": ports}
        for number in range(CONTAINERS)
    ]
    assert violations(tmp_path, constraints, [a_pod(containers=containers)]) == []
