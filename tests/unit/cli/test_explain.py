"""`zerotrust explain` over the shop, over small manifests, and over what nobody should write."""

import json
import os
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from zerotrust.cli.main import zerotrust
from zerotrust.cli.manifests import UnreadableManifest, documents, read
from zerotrust.cli.policies import Intent
from zerotrust.cli.reach import gates
from zerotrust.kube import client
from zerotrust.kube.errors import Forbidden
from zerotrust.kube.resources import ResourceType
from zerotrust.policy.network import PortOf, admits

ROOT = Path(__file__).resolve().parents[3]
GOLDEN = Path(__file__).parent / "golden"
SHOP = str(ROOT / "examples" / "shop")
MONDAY_NOON, MONDAY_NIGHT = "2026-11-23T12:00:00Z", "2026-11-23T23:00:00Z"

ORDERS = """
apiVersion: zerotrust.dev/v1alpha1
kind: ServiceIdentity
metadata: {name: orders, namespace: shop}
---
apiVersion: zerotrust.dev/v1alpha1
kind: ServiceIdentity
metadata: {name: frontend, namespace: shop}
---
apiVersion: zerotrust.dev/v1alpha1
kind: TrustPolicy
metadata: {name: orders, namespace: shop}
spec:
  target: {identities: [orders]}
  rules:
    - name: reads
      from: [{workload: {name: frontend, namespace: shop}}]
      to: [{port: 8443}]
"""


def explain(*arguments: str, stdin: str | None = None, **environment: str) -> Result:
    return CliRunner(env={"NO_COLOR": "1", **environment}).invoke(zerotrust, ["explain", *arguments], input=stdin)


def ask(client: str, server: str, *arguments: str, at: str = MONDAY_NOON, port: int = 8443) -> Result:
    return explain("-f", SHOP, "--from", client, "--to", server, "--port", f"{port}", "--at", at, *arguments)


def request(method: str, path: str) -> tuple[str, ...]:
    return "--method", method, "--path", path


def document(result: Result) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


def opinions(result: Result) -> dict[str, str]:
    return {layer["layer"]: layer["opinion"] for layer in document(result)["layers"]}


def inline(text: str, *arguments: str, client: str = "shop/frontend", server: str = "shop/orders") -> Result:
    return explain("-f", "-", "--from", client, "--to", server, "--port", "8443", *arguments, stdin=text)


def edited(change: dict[str, Any], kind: str = "TrustPolicy") -> str:
    """The small manifests with other values in the spec of one kind."""
    bodies = list(yaml.safe_load_all(ORDERS))
    for body in bodies:
        if body["kind"] == kind:
            body["spec"] = {**body.get("spec", {}), **change}
    return yaml.safe_dump_all(bodies)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("explain-allowed", ("web/frontend", "shop/orders", *request("GET", "/api/orders/7"))),
        ("explain-denied", ("web/frontend", "shop/orders", *request("GET", "/api/orders/7/card"))),
        ("explain-egress", ("ops/batch", "shop/orders")),
        ("explain-json", ("edge/gateway", "shop/orders", *request("POST", "/api/orders/7/refunds"), "-o", "json")),
    ],
)
def test_golden(name: str, arguments: tuple[str, ...]) -> None:
    port = 8081 if name == "explain-egress" else 8443
    result = ask(*arguments, port=port)
    file = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(result.output)
    assert result.output == file.read_text()
    assert result.exit_code == (0 if name == "explain-allowed" else 1)


@pytest.mark.parametrize(
    ("client", "server", "arguments", "at", "reason"),
    [
        ("web/frontend", "shop/orders", request("GET", "/api/orders/7"), MONDAY_NOON, "allowed"),
        ("web/frontend", "shop/orders", request("DELETE", "/api/orders/7"), MONDAY_NOON, "no_grant"),
        ("web/frontend", "shop/orders", request("GET", "/api/../orders"), MONDAY_NOON, "malformed_request"),
        ("shop/orders", "shop/payments", request("POST", "/api/payments"), MONDAY_NOON, "allowed"),
        ("ops/batch", "shop/inventory", request("POST", "/api/stock/count"), MONDAY_NIGHT, "allowed"),
        ("ops/batch", "shop/inventory", request("POST", "/api/stock/count"), MONDAY_NOON, "outside_hours"),
        ("ops/batch", "shop/payments", request("GET", "/api/payments/1"), MONDAY_NOON, "allowed"),
        ("ops/batch", "shop/payments", request("GET", "/api/payments/1"), "2030-01-01T00:00:00Z", "no_grant"),
        ("web/frontend", "shop/payments", (), MONDAY_NOON, "denied_by_rule"),
        ("ops/nobody", "shop/orders", request("GET", "/api/orders/7"), MONDAY_NOON, "no_identity"),
    ],
)
def test_the_verdict_is_the_evaluator_s(
    client: str, server: str, arguments: Iterable[str], at: str, reason: str
) -> None:
    result = ask(client, server, *arguments, "-o", "json", at=at)
    assert document(result)["verdict"]["reason"] == reason
    assert result.exit_code == (0 if reason == "allowed" else 1)


def test_a_connection_without_mutual_tls() -> None:
    payment = request("POST", "/api/payments")
    result = ask("shop/orders", "shop/payments", *payment, "--no-mtls", "-o", "json")
    assert document(result)["verdict"]["reason"] == "mtls_required"


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ({"audiences": ["orders"], "claims": {"groups": ["support"]}, "scopes": ["orders:refund"]}, "allowed"),
        ({"audiences": ["orders"], "claims": {"groups": "support"}, "scopes": ["orders:refund"]}, "allowed"),
        ({"audiences": ["orders"], "claims": {"groups": "support"}}, "missing_scope"),
        ({"audiences": ["orders"], "claims": {"groups": "sales"}}, "bad_token"),
    ],
)
def test_claims_come_from_a_file(tmp_path: Path, token: dict[str, Any], reason: str) -> None:
    file = tmp_path / "claims.json"
    file.write_text(json.dumps({"provider": "corp", **token}))
    refund = request("POST", "/api/orders/7/refunds")
    result = ask("edge/gateway", "shop/orders", *refund, "--claims", str(file), "-o", "json")
    assert document(result)["verdict"]["reason"] == reason


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "must be an object"),
        ("{}", "provider: is required"),
        ('{"provider": "corp", "group": "x"}', "group: is not a field"),
        ('{"provider": "corp", "claims": {"groups": [1]}}', "claims.groups[0]:"),
        ("[" * 100_000, "is no JSON"),
    ],
)
def test_claims_that_cannot_be_read(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "claims.json"
    file.write_text(text)
    result = ask("edge/gateway", "shop/orders", *request("GET", "/"), "--claims", str(file))
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: --claims: ")
    assert message in result.stderr


def test_what_each_layer_says() -> None:
    denied = ask("web/frontend", "shop/orders", *request("GET", "/api/orders/7/card"), "-o", "json")
    assert opinions(denied) == {"NetworkPolicy": "allow", "OPA": "deny", "Gatekeeper": "none"}
    by_both = ask("web/frontend", "shop/payments", *request("GET", "/"), "-o", "json")
    assert opinions(by_both) == {"NetworkPolicy": "deny", "OPA": "deny", "Gatekeeper": "none"}
    connection = ask("web/frontend", "shop/orders", "-o", "json")
    assert opinions(connection) == {"NetworkPolicy": "allow", "OPA": "none", "Gatekeeper": "none"}


@pytest.mark.parametrize("port", [PortOf(number, "TCP") for number in (8443, 8081, 9090, 1)])
def test_the_server_s_side_agrees_with_the_table_s_shadow(port: PortOf) -> None:
    at = datetime(2026, 11, 23, 12, tzinfo=UTC)
    intent = Intent(read([SHOP], "default"), "zerotrust-system")
    for server, table in intent.tables():
        for one in intent.identities:
            labels = {"zerotrust.dev/service-account": one.workload.name}
            place = intent.namespace_labels(one.workload.namespace)
            _, entrance = gates(intent, one.workload, one, server, port, at)
            assert entrance.open == admits(table, intent.book, place, labels, port, at), (one.workload, server.workload)


def test_an_isolated_client_must_name_whom_it_calls() -> None:
    result = ask("ops/batch", "shop/orders", "-o", "json", port=8081)
    answer = document(result)
    assert answer["verdict"]["allowed"]
    assert not answer["allowed"]
    assert "name shop/orders in spec.egress.calls" in answer["layers"][0]["messages"][0]
    assert document(ask("ops/batch", "shop/inventory", "-o", "json", port=8081))["allowed"]


def test_nobody_is_isolated_before_a_policy_protects_it() -> None:
    result = inline(ORDERS, "-o", "json", client="shop/orders", server="shop/frontend")
    assert document(result)["verdict"]["reason"] == "no_grant"
    assert opinions(result) == {"NetworkPolicy": "allow", "OPA": "none", "Gatekeeper": "none"}


def test_observe_isolates_nothing() -> None:
    text = edited({"enforcement": "Observe"}, "ServiceIdentity")
    result = inline(text, *request("GET", "/"), "-o", "json", client="shop/orders")
    assert document(result)["verdict"]["reason"] == "no_grant"
    assert opinions(result) == {"NetworkPolicy": "allow", "OPA": "allow", "Gatekeeper": "none"}


def test_a_namespace_s_default_deny_counts() -> None:
    domain = """
apiVersion: zerotrust.dev/v1alpha1
kind: TrustDomain
metadata: {name: example.org}
spec: {default: true, isolation: {mode: All}}
---"""
    result = inline(domain + ORDERS, "-o", "json", client="shop/orders", server="shop/frontend")
    assert opinions(result)["NetworkPolicy"] == "deny"
    assert "zt.default-deny" in document(result)["layers"][0]["messages"][1]


def test_pods_by_other_labels() -> None:
    selector = {
        "matchLabels": {"app": "x"},
        "matchExpressions": [
            {"key": "tier", "operator": "Exists"},
            {"key": "canary", "operator": "DoesNotExist"},
            {"key": "app", "operator": "NotIn", "values": ["y"]},
        ],
    }
    result = inline(edited({"selector": selector}, "ServiceIdentity"), "-o", "json", client="shop/frontend")
    assert opinions(result)["NetworkPolicy"] == "allow"


def test_a_policy_whose_tests_fail_counts_as_accepted() -> None:
    tests = [{"name": "wrong", "request": {"from": "shop/frontend", "port": 8443}, "expect": "Deny"}]
    assert inline(edited({"tests": tests})).exit_code == 0


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        ({"target": {"identities": ["ghost"]}}, "spec.target.identities[0]: ServiceIdentity shop/ghost does not exist"),
        ({"untill": "2030-01-01T00:00:00Z"}, "spec.untill: is not a field"),
        ({"rules": [{"name": "r", "from": [{"workload": {"name": "x", "namespace": "y"}}], "to": [{"port": 1}]}]},
         "spec.rules[0].from[0].workload: ServiceIdentity y/x does not exist"),
    ],
)  # fmt: skip
def test_a_policy_that_does_not_count_is_warned_about(change: dict[str, Any], warning: str) -> None:
    result = inline(edited(change))
    assert f"Warning: standard input: TrustPolicy shop/orders: {warning}" in result.stderr
    assert result.exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--from", "frontend", "--to", "shop/orders", "--port", "1"), "is no NAMESPACE/NAME"),
        (("--from", "a/b/c", "--to", "shop/orders", "--port", "1"), "is no NAMESPACE/NAME"),
        (("--from", "A/b", "--to", "shop/orders", "--port", "1"), "--from: must match"),
        (("--from", "web/frontend", "--to", "shop/Orders", "--port", "1"), "--to: must match"),
        (("--from", "web/frontend", "--to", "shop/ghost", "--port", "1"), "there is no ServiceIdentity shop/ghost"),
        (("--from", "web/frontend", "--to", "shop/orders", "--port", "0"), "0 is not in the range"),
        (("--from", "web/frontend", "--to", "shop/orders", "--port", "1", "--method", "GET"), "--method and --path"),
        (("--from", "web/frontend", "--to", "shop/orders", "--port", "1", "--claims", "x"), "--claims belongs to"),
        (("--from", "web/frontend", "--to", "shop/orders", "--port", "1", "--at", "noon"), "not an RFC 3339 time"),
        (
            ("--from", "web/frontend", "--to", "shop/orders", "--port", "1", "--at", "0001-01-01T00:00:00Z"),
            "years 1000",
        ),
        (("--from", "web/frontend", "--to", "shop/orders", "--port", "1", "--at", "2026-02-30T00:00:00Z"), "calendar"),
        (
            ("--from", "web/frontend", "--to", "shop/orders", "--port", "1", "--method", "get", "--path", "/"),
            "--method:",
        ),
    ],
)
def test_a_question_that_is_none(arguments: tuple[str, ...], message: str) -> None:
    result = explain("-f", SHOP, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


def test_the_end_of_time() -> None:
    text = edited({"tests": [], "rules": [{
        "name": "r", "from": [{"anyWorkload": {}}], "to": [{"port": 8443}],
        "when": {"time": {"days": ["Fri"], "timeZone": "Asia/Tokyo"}},
    }]})  # fmt: skip
    assert inline(text, *request("GET", "/"), "--at", "9999-12-31T23:59:59Z").exit_code in (0, 1)
    assert inline(text, *request("GET", "/"), "--at", "1000-01-01T00:00:00Z").exit_code == 1


def test_nothing_in_a_manifest_reaches_the_terminal_as_it_is() -> None:
    result = inline(edited({"\x1b[31m\u202e": 1}))
    assert "\\x1b[31m\\u202e" in result.stderr
    assert "\x1b" not in result.output


def test_a_path_reaches_the_terminal_escaped() -> None:
    result = ask("web/frontend", "shop/orders", *request("GET", "/\x1b[2J\n"))
    assert "GET /\\x1b[2J" in result.stdout
    assert "\x1b" not in result.stdout


def test_colours_are_never_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b" not in ask("web/frontend", "shop/orders", *request("GET", "/api/orders/7")).output


# Files


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "line 1 is no YAML"),
        ("\x00", "is no YAML"),
        ("kind: TrustPolicy", "every document needs kind and metadata.name"),
        ("text", "every document needs kind and metadata.name"),
        ("kind: [a]\nmetadata: {name: a}", "every document needs kind and metadata.name"),
        ("kind: Namespace\napiVersion: v2\nmetadata: {name: a}", "Namespace a: apiVersion must be v1"),
        ("kind: Namespace\napiVersion: v1\nmetadata: {name: A b}", "metadata.name must be of small letters"),
        ("kind: Namespace\napiVersion: v1\nmetadata: {name: a, labels: {b: true}}", "metadata.labels must be texts"),
        (
            "kind: TrustPolicy\napiVersion: zerotrust.dev/v1alpha1\nmetadata: {name: a}\nspec: []",
            "a: spec must be an object",
        ),
        ("kind: List\nitems: {}", None),
        ("kind: List\nitems: text", "items of a List must be a list"),
        ("a: 1\na: 2", "line 2 has 'a' twice"),
        ("1: a\nkind: Namespace", "has a key that is no text"),
        ("a: !!binary aGk=", "has a value that JSON does not know"),
        ("a: &a [*a]", "too large or too deep"),
        ("a: " + "[" * 100 + "]" * 100, "too large or too deep"),
        ("a: " + "[" * 5000 + "]" * 5000, "is no YAML"),
        ("a: !!python/object:os.system {}", "line 1"),
        ("a: 9" + "9" * 5000, "is no YAML"),
    ],
)
def test_files_that_cannot_be_read(text: str, message: str | None) -> None:
    if message is None:
        assert list(documents("x", text.encode(), "default")) == []
        return
    result = inline(text)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Error: standard input:" in result.stderr
    assert message in result.stderr


def test_a_bomb_of_aliases() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    with pytest.raises(UnreadableManifest, match="too large"):
        list(documents("x", "\n".join(lines).encode(), "default"))


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(UnreadableManifest, match="is not UTF-8 text"):
        read([str(tmp_path)], "default")


def test_yaml_means_what_it_means_to_kubernetes() -> None:
    """A time without quotes stays text, and 22:00 is no number of base 60."""
    text = (
        "{kind: TrustPolicy, apiVersion: zerotrust.dev/v1alpha1, metadata: {name: a},"
        " spec: {a: 2030-01-01T00:00:00Z, b: 22:00, c: 0x10, d: 1.5, e: yes, f: 1e3, g: 8443, h: -1:30.5}}"
    )
    (body,) = documents("x", text.encode(), "default")
    assert body["spec"] == {
        "a": "2030-01-01T00:00:00Z", "b": "22:00", "c": 16, "d": 1.5, "e": True, "f": 1000.0, "g": 8443, "h": "-1:30.5",
    }  # fmt: skip


def test_a_list_and_other_kinds() -> None:
    listed = {"kind": "List", "items": [*yaml.safe_load_all(ORDERS), {"kind": "Pod", "metadata": {}}, None]}
    assert inline(json.dumps(listed)).exit_code == 0


def test_the_same_object_twice(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(ORDERS)
    (tmp_path / "b.yaml").write_text(ORDERS)
    assert len(read([str(tmp_path)], "default")) == 3
    (tmp_path / "b.yaml").write_text(edited({"mode": "Observe"}))
    result = explain("-f", str(tmp_path), "--from", "shop/frontend", "--to", "shop/orders", "--port", "8443")
    assert result.exit_code == 2
    assert result.stderr == (
        f"Error: {tmp_path}/b.yaml: TrustPolicy shop/orders is there twice, also in {tmp_path}/a.yaml; keep one\n"
    )


def test_two_identities_of_one_service_account() -> None:
    result = inline(edited({"serviceAccountName": "both"}, "ServiceIdentity"))
    assert "ServiceIdentity shop/orders: spec.serviceAccountName: another ServiceIdentity has" in result.stderr


def test_unreadable_identities_are_warned_about() -> None:
    result = inline(edited({"egres": {}}, "ServiceIdentity"))
    assert "ServiceIdentity shop/orders: spec.egres: is not a field" in result.stderr
    assert "Error: --to: there is no ServiceIdentity shop/orders" in result.stderr
    assert result.exit_code == 2


@pytest.mark.parametrize("name", ["missing.yaml", "empty"])
def test_files_that_are_not_there(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    result = explain("-f", str(tmp_path / name), "--from", "a/b", "--to", "a/c", "--port", "1")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"Error: {tmp_path / name}: ")


# A cluster


class Cluster:
    """What a cluster answers to lists, a page for each object; a kind in `forbidden` is refused."""

    def __init__(self, text: str, *forbidden: str) -> None:
        self.bodies, self.forbidden = list(yaml.safe_load_all(text)), forbidden

    async def __aenter__(self) -> "Cluster":
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def list(self, resource: ResourceType) -> AsyncIterator[tuple[list[dict[str, Any]], str]]:
        if resource.kind in self.forbidden:
            raise Forbidden(f"list {resource.plural}: forbidden")
        for body in self.bodies:
            if body["kind"] == resource.kind:
                yield [{key: value for key, value in body.items() if key not in ("kind", "apiVersion")}], "1"


SURROUNDINGS = """
---
kind: Namespace
metadata: {name: shop, labels: null}
---
kind: TrustDomain
metadata: {name: example.org}
spec: {default: true}
---
kind: NetworkPolicy
metadata: {name: zt-frontend, namespace: shop}
spec: {podSelector: {}, policyTypes: [Ingress]}
"""


def in_cluster(monkeypatch: pytest.MonkeyPatch, cluster: Cluster) -> Result:
    async def configuration(*_: object) -> None:
        return None

    monkeypatch.setattr(client, "load_configuration", configuration)
    monkeypatch.setattr(client, "Client", lambda *_: cluster)
    return explain("--from", "shop/frontend", "--to", "shop/orders", "--port", "8443")


def test_a_cluster_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    result = in_cluster(monkeypatch, Cluster(ORDERS + SURROUNDINGS))
    assert result.exit_code == 0
    assert result.stderr == "Note: each policy is judged by its spec, as if that were accepted\n"


def test_a_cluster_s_policies_are_judged_by_their_spec(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(ORDERS + SURROUNDINGS)
    refused = {"type": "Accepted", "status": "False", "reason": "TestsFailed"}
    cluster.bodies[2]["status"] = {"conditions": [refused]}
    result = in_cluster(monkeypatch, cluster)
    assert result.exit_code == 0
    assert "Warning: the cluster: TrustPolicy shop/orders: is not accepted (TestsFailed)" in result.stderr


def test_what_not_everybody_may_read(monkeypatch: pytest.MonkeyPatch) -> None:
    result = in_cluster(monkeypatch, Cluster(ORDERS + SURROUNDINGS, "NetworkPolicy", "EndpointSlice"))
    assert result.exit_code == 0
    assert "Warning: list networkpolicies: forbidden; judged without\n" in result.stderr


def test_a_cluster_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    result = in_cluster(monkeypatch, Cluster(ORDERS, "TrustPolicy"))
    assert (result.exit_code, result.stderr) == (2, "Error: list trustpolicies: forbidden\n")


def test_no_cluster(tmp_path: Path) -> None:
    missing = ("--kubeconfig", str(tmp_path / "none"))
    result = explain(*missing, "--from", "shop/frontend", "--to", "shop/orders", "--port", "8443")
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: no cluster to talk to")
