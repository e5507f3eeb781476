"""Which references an allowed registry lets through: whole path segments of what containerd would pull."""

from pathlib import Path

import pytest

from tests.support.gator import constraint, violations

DIGEST = "@sha256:" + "0123456789abcdef" * 4

ALLOWED = [
    ("example.org", "example.org/app"),
    ("example.org", "example.org/team/app:1"),
    ("example.org/", "example.org/app"),
    ("example.org:5000", "example.org:5000/app:1"),
    ("example.org/team", "example.org/team/app"),
    ("example.org/team/app", "example.org/team/app"),
    ("example.org/team/app", "example.org/team/app:1"),
    ("example.org/team/app", f"example.org/team/app{DIGEST}"),
    ("example.org/team/app", f"example.org/team/app:1{DIGEST}"),
    ("example.org/team/app/", "example.org/team/app:1"),
    ("localhost", "localhost/app"),
    ("localhost:5000", "localhost:5000/app"),
    ("docker.io", "nginx"),
    ("docker.io", "nginx:1.27"),
    ("docker.io/library", "nginx"),
    ("docker.io/library/nginx", "nginx:1.27"),
    ("docker.io/library/nginx", "docker.io/nginx"),
    ("docker.io/library/nginx", "index.docker.io/nginx"),
    ("docker.io/library/nginx", f"nginx{DIGEST}"),
    ("docker.io/grafana", "grafana/grafana"),
    ("docker.io/grafana", "index.docker.io/grafana/grafana:1"),
    ("192.0.2.1:5000", "192.0.2.1:5000/app"),
]
REFUSED = [
    ("example.org", "example.org:5000/app"),
    ("example.org", "example.org.evil/app"),
    ("example.org", "example.organic/app"),
    ("example.org", "evil/example.org/app"),
    ("example.org", "evil.example/example.org/app"),
    ("example.org", "docker.io/example.org/app"),
    ("example.org", "example.org"),
    ("example.org", "example.org:5000"),
    ("example.org", "sub.example.org/app"),
    ("example.org", "EXAMPLE.org/app"),
    ("example.org:5000", "example.org/app"),
    ("example.org:5000", "example.org:50000/app"),
    ("example.org/team", "example.org/teams/app"),
    ("example.org/team", "example.org/team-evil/app"),
    ("example.org/team", "example.org/app"),
    ("example.org/team", "example.org/team/../app"),
    ("example.org/team", "example.org//team/app"),
    ("example.org/team", "example.org/team:5000/app"),
    ("example.org/team", "example.org/team@evil.example/app"),
    ("example.org/team", "example.org/team/app@evil.example/x"),
    ("example.org/team/app", "example.org/team/app2:1"),
    ("example.org/team/app", "example.org/team/app-debug"),
    ("docker.io/library", "grafana/grafana"),
    ("docker.io/library", "docker.io/grafana/grafana"),
    ("docker.io/library/nginx", "nginx-evil"),
    ("docker.io", "example.org/nginx"),
    ("docker.io", "localhost/nginx"),
    ("docker.io", "example:5000/nginx"),
    ("library", "nginx"),
    ("example.org", "example.org/app "),
    ("example.org", " example.org/app"),
    ("example.org", "example.org/app\nexample.org/app"),
    ("example.org", "http://example.org/app"),
    ("example.org", "example.org/app:"),
    ("example.org", "example.org/app@sha256:"),
    ("example.org", "example.org/"),
    ("/", "example.org/app"),
    (".", "example.org/app"),
]


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names of the pods, one for each line above, that are refused."""
    folder: Path = tmp_path_factory.mktemp("images")
    rules = {}
    pods = []
    for number, (entry, image) in enumerate(ALLOWED + REFUSED):
        rules[f"sa-{number}"] = {"rules": [{"policy": "images", "registries": [entry, "registry.invalid"]}]}
        pods.append(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": f"pod-{number}", "namespace": "shop"},
                "spec": {"serviceAccountName": f"sa-{number}", "containers": [{"name": "app", "image": image}]},
            }
        )
    found = violations(folder, [constraint("ZeroTrustImages", {"serviceAccounts": rules})], pods)
    assert all(one.message.startswith("TrustPolicy images: spec.containers[app].image is ") for one in found)
    return {one.object_name for one in found}


@pytest.mark.parametrize("number", range(len(ALLOWED)), ids=lambda number: f"{number}-{ALLOWED[number][1][:40]}")
def test_is_let_through(refused: set[str], number: int) -> None:
    assert f"pod-{number}" not in refused


@pytest.mark.parametrize("number", range(len(REFUSED)), ids=lambda number: f"{number}-{REFUSED[number][1][:40]}")
def test_is_refused(refused: set[str], number: int) -> None:
    assert f"pod-{len(ALLOWED) + number}" in refused
