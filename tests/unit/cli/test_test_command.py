"""`zerotrust test`: the policies' own tests, for people and for CI."""

import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from zerotrust.cli.main import zerotrust

ROOT = Path(__file__).resolve().parents[3]
GOLDEN = Path(__file__).parent / "golden"
SHOP = str(ROOT / "examples" / "shop")

IDENTITIES = """
apiVersion: zerotrust.dev/v1alpha1
kind: ServiceIdentity
metadata: {name: orders, namespace: shop}
---
apiVersion: zerotrust.dev/v1alpha1
kind: ServiceIdentity
metadata: {name: frontend, namespace: shop}
---
"""
READS = {"name": "reads", "from": [{"workload": {"name": "frontend", "namespace": "shop"}}], "to": [{"port": 8443}]}


def a_test(name: str, expect: str, port: int = 8443, **more: Any) -> dict[str, Any]:
    return {"name": name, "request": {"from": "shop/frontend", "port": port}, "expect": expect, **more}


def policy(*tests: dict[str, Any], name: str = "orders", **spec: Any) -> str:
    body = {
        "apiVersion": "zerotrust.dev/v1alpha1",
        "kind": "TrustPolicy",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"target": {"identities": ["orders"]}, "rules": [READS], "tests": list(tests), **spec},
    }
    return yaml.safe_dump(body) + "---\n"


def run(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner(env={"NO_COLOR": "1"}).invoke(zerotrust, ["test", *arguments], input=stdin)


def inline(*parts: str, arguments: tuple[str, ...] = ()) -> Result:
    return run("-f", "-", *arguments, stdin=IDENTITIES + "".join(parts))


def golden(name: str, text: str) -> None:
    file = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(text)
    assert text == file.read_text()


def test_the_shop_passes() -> None:
    result = run("-f", SHOP)
    golden("test-shop.txt", result.output)
    assert result.exit_code == 0


def test_what_fails_says_what_was_expected_and_what_came() -> None:
    result = inline(policy(a_test("good", "Allow"), a_test("bad", "Deny"), a_test("worse", "Allow", port=1)))
    assert result.stdout.splitlines() == [
        "shop/orders: 1 passed, 2 failed",
        "  FAIL bad: expects Deny from shop/frontend to shop/orders, gets Allow (allowed) by rule reads of TrustPolicy orders",
        "  FAIL worse: expects Allow from shop/frontend to shop/orders, gets Deny (no_grant)",
        "3 tests of one policy: 1 passed, 2 failed",
    ]
    assert result.exit_code == 1


def test_other_policies_count() -> None:
    deny = {**READS, "name": "no", "effect": "Deny"}
    result = inline(policy(a_test("a", "Allow")), policy(name="other", rules=[deny]))
    assert "gets Deny (denied_by_rule) by rule no of TrustPolicy other" in result.stdout
    assert "shop/other: has no tests" in result.stdout
    assert result.exit_code == 1


def test_a_candidate_is_tested_as_if_it_were_enforced() -> None:
    assert inline(policy(a_test("a", "Allow"), mode="Observe")).exit_code == 0


def test_a_test_that_names_no_target() -> None:
    stray = a_test("a", "Deny")
    stray["request"]["to"] = "frontend"
    result = inline(policy(stray))
    assert "FAIL a: no target of the policy is called frontend" in result.stdout
    assert result.exit_code == 1


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"untill": 1}, "spec.untill: is not a field"),
        ({"target": {}}, "spec.target: write exactly one of"),
        ({"rules": [{**READS, "until": "2030-01-01T00:00:00Z"}]}, "spec: every test needs `at`"),
        ({"rules": [{**READS, "until": "soon"}]}, "spec.rules[0].until: 'soon' is not an RFC 3339 time"),
    ],
)
def test_a_policy_that_cannot_be_read(spec: dict[str, Any], message: str) -> None:
    result = inline(policy(a_test("a", "Allow"), **spec), policy(a_test("b", "Deny"), name="other"))
    assert "shop/orders: not accepted as it stands" in result.stdout
    assert f"Error: standard input: TrustPolicy shop/orders: {message}" in result.stderr
    assert result.exit_code == 2


def test_a_reference_that_does_not_resolve() -> None:
    unknown = {**READS, "from": [{"workload": {"name": "ghost", "namespace": "web"}}]}
    result = inline(policy(a_test("a", "Deny"), rules=[unknown]))
    assert "spec.rules[0].from[0].workload: ServiceIdentity web/ghost does not exist" in result.stderr
    assert "shop/orders: 1 passed, not accepted as it stands" in result.stdout
    assert result.exit_code == 2


def test_no_policy_at_all() -> None:
    result = inline()
    assert (result.exit_code, result.stderr) == (2, "Error: there is no TrustPolicy to test\n")


def test_junit(tmp_path: Path) -> None:
    file = tmp_path / "junit.xml"
    ugly = policy(a_test("a", "Allow"), name="ugly", **{"<&\x1b\ud800": 1})
    result = inline(policy(a_test("good", "Allow"), a_test("bad", "Deny")), ugly, arguments=("--junit", str(file)))
    assert result.exit_code == 2
    golden("test-junit.xml", file.read_text())
    root = ElementTree.fromstring(file.read_text())
    assert [suite.attrib["failures"] for suite in root] == ["1", "0"]
    assert [(case.attrib["name"], [child.tag for child in case]) for case in root.iter("testcase")] == [
        ("good", []), ("bad", ["failure"]), ("spec", ["error"]),
    ]  # fmt: skip


def test_junit_that_cannot_be_written(tmp_path: Path) -> None:
    result = inline(policy(a_test("a", "Allow")), arguments=("--junit", str(tmp_path / "no" / "file")))
    assert result.exit_code == 2
    assert result.stderr.startswith(f"Error: {tmp_path}/no/file: ")
