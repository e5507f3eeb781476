"""No expression fails at any pod: a failed evaluation would be a denial that nobody asked for."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.gator import EVALUATION_FAILED, TEMPLATES, Violation, constraint, review, verify, violations
from tests.support.random_pods import a_random_pod

PODS = 400
UPDATES = 60
DEMANDED_BY = re.compile(r"(ServiceIdentity|TrustPolicy|ApiKey) [a-z0-9, -]+: (spec|metadata)\.")

IDENTITIES = {
    "orders": {"identity": "orders", "derived": True},
    "billing": {
        "identity": "billing",
        "selector": [{"key": "app", "operator": "In", "values": ["billing"]}, {"key": "tier", "operator": "Exists"}],
    },
    "reports": {
        "identity": "reports",
        "selector": [{"key": "legacy", "operator": "DoesNotExist"}, {"key": "stage", "operator": "NotIn"}],
    },
}
SECRETS = {
    "orders-svid": {"owner": "ServiceIdentity orders", "serviceAccounts": ["orders"]},
    "partner-x-api-key": {"owner": "ApiKey partner-x", "serviceAccounts": ["web", "default"]},
    "archived": {"owner": "ApiKey archived"},
}
RULES = {
    "orders": {"rules": [{"policy": "a", "registries": ["example.org"]}, {"policy": "b", "digest": True}]},
    "default": {"rules": [{"policy": "a", "registries": ["docker.io/library/"], "digest": True}]},
}
CONSTRAINTS: dict[str, dict[str, Any]] = {
    "ZeroTrustIdentityBinding": {"identities": IDENTITIES, "otherwise": ["billing", "reports", "gone"]},
    "ZeroTrustIdentityLabels": {"identities": IDENTITIES},
    "ZeroTrustCredentialAccess": {"secrets": SECRETS},
    "ZeroTrustHostAccess": {"serviceAccounts": {"orders": {"policies": "a, b"}, "default": {"policies": "a"}}},
    "ZeroTrustImages": {"serviceAccounts": RULES},
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[Violation]:
    constraints = [constraint(kind, parameters) for kind, parameters in CONSTRAINTS.items()]
    return violations(tmp_path_factory.mktemp("pods"), constraints, map(a_random_pod, range(PODS)))


def test_pods_range_from_minimal_to_full() -> None:
    pods = [a_random_pod(seed) for seed in range(PODS)]
    assert any("spec" not in pod for pod in pods)
    volumes = {key for pod in pods for volume in pod.get("spec", {}).get("volumes", []) for key in volume}
    assert {"secret", "projected", "csi", "image", "storageos", "cinder", "azureFile"} <= volumes
    assert sum("ephemeralContainers" in pod.get("spec", {}) for pod in pods) > PODS / 10


def test_every_violation_says_who_demands_it(found: list[Violation]) -> None:
    assert not [one for one in found if not DEMANDED_BY.match(one.message)]


def test_pods_are_refused_and_let_through_by_every_template(found: list[Violation]) -> None:
    counts = Counter(one.kind for one in found)
    assert set(counts) == set(CONSTRAINTS)
    assert all(PODS / 50 < count < PODS * 0.9 for count in counts.values()), counts


def test_other_kinds_are_none_of_their_business(tmp_path: Path) -> None:
    kinds = ("Deployment", "ConfigMap", "PodTemplate")
    constraints = [constraint(kind, parameters, kinds=kinds) for kind, parameters in CONSTRAINTS.items()]
    services = {"services": {"orders": {"identity": "orders"}}}
    constraints.append(constraint("ZeroTrustServiceCapture", services, kinds=kinds))
    objects = [{**a_random_pod(seed), "kind": kinds[seed % 3]} for seed in range(60)]
    assert violations(tmp_path, constraints, objects) == []


def test_empty_parameters_demand_nothing(tmp_path: Path) -> None:
    constraints = [constraint(kind, {}) for kind in CONSTRAINTS]
    constraints.append(constraint("ZeroTrustServiceCapture", {}, kinds=("Service",)))
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "orders", "namespace": "shop"}}
    assert violations(tmp_path, constraints, [service, *map(a_random_pod, range(60))]) == []


@pytest.mark.parametrize("kind", CONSTRAINTS)
def test_no_update_makes_an_expression_fail(tmp_path: Path, kind: str) -> None:
    """Neither do creations as admission sees them, with every pair of one pod and the next."""
    (tmp_path / "template.yaml").write_text((TEMPLATES / f"{kind.lower()}.yaml").read_text())
    (tmp_path / "constraint.yaml").write_text(yaml.safe_dump(constraint(kind, CONSTRAINTS[kind])))
    cases = []
    for seed in range(UPDATES):
        old = a_random_pod(seed)
        new = {**a_random_pod(seed + 1), "metadata": {**a_random_pod(seed + 2)["metadata"], "name": "pod"}}
        given = review(new, old if seed % 6 else None)
        (tmp_path / f"{seed}.yaml").write_text(yaml.safe_dump(given))
        no_failure = {"violations": "no", "message": EVALUATION_FAILED}
        cases.append({"name": f"pod-{seed}", "object": f"{seed}.yaml", "assertions": [no_failure]})
    test = {"name": kind, "template": "template.yaml", "constraint": "constraint.yaml", "cases": cases}
    suite: dict[str, Any] = {"kind": "Suite", "apiVersion": "test.gatekeeper.sh/v1alpha1", "tests": [test]}
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(suite))
    ran = verify(tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
