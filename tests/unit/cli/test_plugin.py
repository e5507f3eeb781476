"""What the plugin's commands decide without a cluster: names of kinds, guesses about pods, entry points, completion."""

import importlib
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest

from zerotrust.cli.checks_workloads import point_of
from zerotrust.cli.completion import for_kubectl
from zerotrust.cli.kinds import KINDS, Target, TargetType, kind_called
from zerotrust.cli.leader import ago, judge
from zerotrust.cli.main import zerotrust
from zerotrust.common import naming, times

ROOT = Path(__file__).resolve().parents[3]
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
OPA = {"name": "opa", "image": "openpolicyagent/opa:1.22.0", "args": ["run", "--server"]}
LABELS = {naming.SERVICE_ACCOUNT: "orders"}
CONFIGURED = {"name": "opa", "configMap": {"name": "zerotrust-opa-config"}}
MOUNT = [{"name": "opa", "mountPath": "/etc/opa"}]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("svid", "ServiceIdentity"),
        ("ServiceIdentities", "ServiceIdentity"),
        ("serviceidentity.zerotrust.dev", "ServiceIdentity"),
        ("TD", "TrustDomain"),
        ("apikey", "ApiKey"),
        ("zkey", "ApiKey"),
        ("tp", "TrustPolicy"),
    ],
)
def test_kinds_by_every_name(text: str, kind: str) -> None:
    found = kind_called(text)
    assert found is not None
    assert found.name == kind


def test_a_target_is_a_kind_and_a_name() -> None:
    td, *_ = KINDS
    convert = TargetType().convert
    assert convert("td/example.org", None, None) == Target(td, "example.org")
    assert convert("td/example.org", None, None).ref("shop").namespace == ""
    assert convert("svid/orders", None, None).ref("shop").namespace == "shop"
    with pytest.raises(click.BadParameter, match="write one of td"):
        TargetType(td).convert("svid/orders", None, None)


def test_a_key_in_the_wrong_place_is_not_repeated() -> None:
    key = "sk_" + "a1B2" * 10
    with pytest.raises(click.BadParameter) as refused:
        TargetType().convert(key, None, None)
    assert key not in refused.value.message


def test_the_entry_points_are_there() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert {"zerotrust", "kubectl-zerotrust", "kubectl_complete-zerotrust"} <= scripts.keys()
    for place in scripts.values():
        module, _, name = place.partition(":")
        assert callable(getattr(importlib.import_module(module), name))


def test_completion_for_kubectl() -> None:
    assert for_kubectl(zerotrust, ["sta"]).splitlines()[-1] == ":4"
    assert for_kubectl(zerotrust, ["sta"]).startswith("status\t")
    assert for_kubectl(zerotrust, ["renew", ""]).splitlines() == ["svid/", "td/", ":4"]
    assert for_kubectl(zerotrust, ["status", "-o", "j"]).splitlines() == ["json", ":4"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (119, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h"), (86400 * 3, "3d")]
)
def test_spans(seconds: int, text: str) -> None:
    assert ago(timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(
    ("spec", "works", "said"),
    [
        (
            {"holderIdentity": "a", "renewTime": times.render(NOW - timedelta(seconds=3))},
            True,
            "a leads, renewed 3s ago",
        ),
        ({"holderIdentity": "a", "renewTime": times.render(NOW - timedelta(minutes=9))}, False, "renewed by a 9m ago"),
        ({"holderIdentity": "", "renewTime": times.render(NOW)}, False, "is free"),
        ({}, False, "is free"),
    ],
)
def test_who_leads(spec: dict[str, Any], works: bool, said: str) -> None:
    found = judge({"leaseDurationSeconds": 15, **spec}, NOW, "Lease x/y")
    assert found.works is works
    assert said in found.text


def a_pod(*boxes: dict[str, Any], volumes: tuple[dict[str, Any], ...] = (), labels: Any = LABELS) -> dict[str, Any]:
    metadata = {"name": "orders-1", "namespace": "shop", "labels": labels}
    return {"metadata": metadata, "spec": {"containers": list(boxes), "volumes": list(volumes)}}


def test_a_safe_decision_point_has_no_problem() -> None:
    box = {
        **OPA,
        "args": ["run", "--server", "--addr=127.0.0.1:8181", "--diagnostic-addr=:8282"],
        "volumeMounts": MOUNT,
    }
    found = point_of(a_pod(box, volumes=(CONFIGURED,)))
    assert found is not None
    assert found.problems == ()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"args": ["run", "--skip-verify"]}, "--skip-verify"),
        ({"args": ["run", "-a", ":8181"]}, "OPA listens on :8181"),
        ({"args": ["run", "--addr", "0.0.0.0:8181"]}, "OPA listens on 0.0.0.0:8181"),
        ({"volumeMounts": []}, "does not read ConfigMap zerotrust-opa-config"),
    ],
)
def test_unsafe_settings_of_opa(change: dict[str, Any], problem: str) -> None:
    found = point_of(a_pod({**OPA, "volumeMounts": MOUNT, **change}, volumes=(CONFIGURED,)))
    assert found is not None
    assert [text for _, text in found.problems if problem in text]


def test_pods_that_are_none_of_our_business() -> None:
    gatekeeper = {"name": "manager", "image": "openpolicyagent/gatekeeper:v3.23.0"}
    assert point_of(a_pod(gatekeeper)) is None
    assert point_of(a_pod(OPA, labels={})) is None
    assert point_of(a_pod({"name": "web", "image": "nginx"})) is None


def test_what_envoy_mounts_is_looked_at() -> None:
    envoy = {"name": "envoy", "image": "envoyproxy/envoy:v1.36.0", "volumeMounts": [{"name": "conf"}]}
    volumes = ({"name": "conf", "configMap": {"name": "orders-envoy"}}, {"name": "x", "configMap": {"name": "other"}})
    found = point_of(a_pod(OPA, envoy, volumes=volumes))
    assert found is not None
    assert found.configurations == ("orders-envoy",)
