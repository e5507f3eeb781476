"""`zerotrust diff`: what a change of manifests means for who may call whom."""

import json
import os
from itertools import product
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from zerotrust.cli.edges import path_covers
from zerotrust.cli.main import zerotrust
from zerotrust.policy.paths import matches

ROOT = Path(__file__).resolve().parents[3]
GOLDEN = Path(__file__).parent / "golden"
SHOP = str(ROOT / "examples" / "shop")
FRONTEND = {"workload": {"name": "frontend", "namespace": "web"}}
NIGHT = {"days": ["Mon", "Tue"], "from": "22:00", "to": "04:00", "timeZone": "UTC"}


def diff(*arguments: str) -> Result:
    return CliRunner(env={"NO_COLOR": "1"}).invoke(zerotrust, ["diff", *arguments])


def identity(namespace: str, name: str, **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "zerotrust.dev/v1alpha1", "kind": "ServiceIdentity", "metadata": metadata, "spec": spec}


def side(path: Path, *rules: dict[str, Any], client: dict[str, Any] | None = None, **spec: Any) -> str:
    """A file with one policy of these rules, and return its name."""
    policy = {
        "apiVersion": "zerotrust.dev/v1alpha1",
        "kind": "TrustPolicy",
        "metadata": {"name": "orders", "namespace": "shop"},
        "spec": {"target": {"identities": ["orders"]}, "rules": list(rules), **spec},
    }
    bodies = [identity("web", "frontend", **(client or {})), identity("shop", "orders"), policy]
    path.write_text(yaml.safe_dump_all(bodies))
    return str(path)


def rule(name: str = "r", effect: str = "Allow", peer: dict[str, Any] = FRONTEND, **more: Any) -> dict[str, Any]:
    to = {key: more.pop(key) for key in ("methods", "paths") if key in more}
    return {"name": name, "effect": effect, "from": [peer], "to": [{"port": 8443, **to}], **more}


def compared(tmp_path: Path, old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    result = diff("-f", side(tmp_path / "old.yaml", old), "-f", side(tmp_path / "new.yaml", new), "-o", "json")
    answer: dict[str, Any] = json.loads(result.stdout)
    assert result.exit_code == (0 if answer["equal"] else 1)
    return answer


def test_golden(tmp_path: Path) -> None:
    changed = Path(copytree(SHOP, tmp_path / "shop"))
    for name, old, new in (
        ("42-policies-orders.yaml", "methods: [GET, POST]", "methods: [GET, POST, DELETE]"),
        ("43-policies-payments.yaml", "2030-01-01T00:00:00Z", "2029-06-01T00:00:00Z"),
        ("44-policies-inventory.yaml", 'from: "22:00"', 'from: "20:00"'),
        ("45-policies-shop.yaml", "- anyWorkload: {}", "- workload: {name: batch, namespace: ops}"),
        ("30-service-identities.yaml", "- {name: payments, namespace: shop}", ""),
        ("40-policies-edge.yaml", "  target:", "  layers: [NetworkPolicy]\n  target:"),
    ):
        text = (changed / name).read_text()
        assert old in text
        (changed / name).write_text(text.replace(old, new))
    (changed / "46-policies-ops.yaml").unlink()
    result = diff("-f", SHOP, "-f", str(changed))
    if os.environ.get("UPDATE_GOLDEN"):
        (GOLDEN / "diff-shop.txt").write_text(result.output)
    assert result.output == (GOLDEN / "diff-shop.txt").read_text()
    assert result.exit_code == 1


def test_the_same_manifests_in_other_files_are_equal(tmp_path: Path) -> None:
    bodies = [body for file in sorted(Path(SHOP).glob("*.yaml")) for body in yaml.safe_load_all(file.read_text())]
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all(reversed(bodies)))
    assert diff("-f", SHOP, "-f", str(tmp_path)).output == "no differences\n"
    assert diff("-f", SHOP, "-f", str(tmp_path)).exit_code == 0
    files = sorted(str(file) for file in Path(SHOP).glob("*.yaml"))
    given = [argument for file in files for argument in ("--new", file)]
    assert diff("--old", SHOP, *given).exit_code == 0


def test_names_of_rules_and_policies_are_no_difference(tmp_path: Path) -> None:
    assert compared(tmp_path, rule("a"), rule("b"))["equal"]
    both = rule(methods=["GET", "POST"])
    assert compared(tmp_path, both, {**both, "to": [*rule(methods=["POST"])["to"], *rule(methods=["GET"])["to"]]})[
        "equal"
    ]


def test_candidates_are_no_difference(tmp_path: Path) -> None:
    old = side(tmp_path / "old.yaml", rule(), mode="Observe")
    new = side(tmp_path / "new.yaml", rule(methods=["GET"]), mode="Observe")
    assert diff("-f", old, "-f", new).exit_code == 0


@pytest.mark.parametrize(
    ("old", "new", "opens"),
    [
        (rule(), rule(methods=["GET"]), False),
        (rule(methods=["GET"]), rule(), True),
        (rule(methods=["GET"]), rule(methods=["GET", "POST"]), True),
        (rule(paths=["/a/**"]), rule(paths=["/a/*"]), False),
        (rule(paths=["/a/*"]), rule(paths=["/a/**"]), True),
        (rule(paths=["/a"]), rule(), True),
        (rule(), rule(paths=["/a"]), False),
        (rule(), rule(when={"requireMTLS": True}), False),
        (rule(when={"requireMTLS": True}), rule(), True),
        (rule(), rule(until="2030-01-01T00:00:00Z"), False),
        (rule(until="2030-01-01T00:00:00Z"), rule(until="2029-01-01T00:00:00Z"), False),
        (rule(until="2030-01-01T00:00:00Z"), rule(until="2031-01-01T00:00:00Z"), True),
        (rule(until="2030-01-01T00:00:00Z"), rule(), True),
        (rule(), rule(when={"time": NIGHT}), False),
        (rule(when={"time": NIGHT}), rule(), True),
        (rule(when={"time": NIGHT}), rule(when={"time": {**NIGHT, "to": "03:00"}}), False),
        (rule(when={"time": NIGHT}), rule(when={"time": {**NIGHT, "to": "05:00"}}), True),
        (rule(when={"time": NIGHT}), rule(when={"time": {**NIGHT, "days": ["Mon"]}}), False),
        (rule(when={"time": {"days": ["Mon", "Tue", "Wed"], "timeZone": "UTC"}}), rule(when={"time": NIGHT}), False),
        (rule(when={"time": {"days": ["Mon", "Tue"], "timeZone": "UTC"}}), rule(when={"time": NIGHT}), True),
        (rule(when={"time": NIGHT}), rule(when={"time": {**NIGHT, "timeZone": "Asia/Tokyo"}}), True),
        (rule(peer={"anyWorkload": {}}), rule(), False),
        (rule(), rule(peer={"anyWorkload": {}}), True),
        (rule(effect="Deny"), rule(effect="Deny", methods=["GET"]), True),
        (rule(effect="Deny", methods=["GET"]), rule(effect="Deny"), False),
        (rule(effect="Deny"), rule(effect="Deny", peer={"anyWorkload": {}}), False),
        (rule(), rule(effect="Deny"), False),
        (rule(effect="Deny"), rule(), True),
        (rule(peer={"cidr": "10.0.0.0/8"}), rule(peer={"pods": {"podSelector": {"matchLabels": {"a": "b"}}}}), True),
    ],
)
def test_what_opens_something(tmp_path: Path, old: dict[str, Any], new: dict[str, Any], opens: bool) -> None:
    assert compared(tmp_path, old, new)["opens"] is opens


def test_an_isolated_client_that_does_not_agree(tmp_path: Path) -> None:
    agreed = {"egress": {"mode": "Isolated", "calls": [{"name": "orders", "namespace": "shop"}]}}
    old = side(tmp_path / "old.yaml", rule(), client=agreed)
    new = side(tmp_path / "new.yaml", rule(), client={"egress": {"mode": "Isolated"}})
    assert diff("-f", old, "-f", side(tmp_path / "open.yaml", rule())).exit_code == 0
    closed = diff("-f", old, "-f", new)
    assert "+  allow web/frontend -> shop/orders:8443/TCP [the client's egress is isolated" in closed.stdout
    assert "nothing is opened" in closed.stdout
    assert "+! allow web/frontend -> shop/orders:8443/TCP\n" in diff("-f", new, "-f", old).stdout


def test_layers_and_enforcement(tmp_path: Path) -> None:
    full = side(tmp_path / "old.yaml", rule())
    one = side(tmp_path / "new.yaml", rule(), layers=["NetworkPolicy"])
    assert "-! protect shop/orders by OPA" in diff("-f", full, "-f", one).stdout
    assert "+  protect shop/orders by OPA" in diff("-f", one, "-f", full).stdout
    bodies = [*yaml.safe_load_all(Path(full).read_text())]
    bodies[1]["spec"]["enforcement"] = "Observe"
    (tmp_path / "observe.yaml").write_text(yaml.safe_dump_all(bodies))
    observed = diff("-f", full, "-f", str(tmp_path / "observe.yaml"))
    assert "-! protect shop/orders by NetworkPolicy" in observed.stdout


def test_a_workload_without_policies_stays_isolated(tmp_path: Path) -> None:
    full = side(tmp_path / "old.yaml", rule())
    (tmp_path / "new.yaml").write_text(yaml.safe_dump_all([identity("web", "frontend"), identity("shop", "orders")]))
    result = diff("-f", full, "-f", str(tmp_path / "new.yaml"))
    assert "-  protect shop/orders by NetworkPolicy" in result.stdout
    assert "nothing is opened" in result.stdout


def test_patterns_against_every_short_path() -> None:
    parts = ("a", "b", "*", "**")
    patterns = [f"/{'/'.join(one)}" for length in range(4) for one in product(parts, repeat=length)]
    paths = [one for length in range(6) for one in product(("a", "b", "z"), repeat=length)]
    matched = {pattern: {path for path in paths if matches(pattern, path)} for pattern in patterns}
    wrong = [
        (first, second)
        for first in patterns
        for second in patterns
        if path_covers(first, second) != (matched[first] >= matched[second])
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "arguments",
    [(), ("-f", SHOP), ("-f", SHOP, "-f", SHOP, "-f", SHOP), ("--old", SHOP), ("-f", SHOP, "--new", SHOP)],
)
def test_sides_that_are_not_two(arguments: tuple[str, ...]) -> None:
    result = diff(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "-f OLD -f NEW" in result.stderr or "-f twice" in result.stderr


def test_a_side_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("a: [")
    assert diff("-f", SHOP, "-f", str(tmp_path / "broken.yaml")).exit_code == 2
    unknown = side(tmp_path / "new.yaml", rule(peer={"workload": {"name": "ghost", "namespace": "web"}}))
    result = diff("-f", SHOP, "-f", unknown)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"Error: {unknown}: TrustPolicy shop/orders: spec.rules[0].from[0].workload: " in result.stderr
