"""The suites in the folders beside this file, by the real gator; and what keeps them honest."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.gator import TEMPLATES, verify

SUITES = sorted(Path(__file__).parent.glob("*/suite.yaml"))


def valid_tests(suite: Path) -> list[dict[str, Any]]:
    """The suite's tests of constraints that are valid."""
    return [test for test in yaml.safe_load(suite.read_text())["tests"] if not test.get("invalid")]


def cases_of(suite: Path) -> list[dict[str, Any]]:
    return [case for test in valid_tests(suite) for case in test["cases"]]


def demands_a_violation(case: dict[str, Any]) -> bool:
    return any(one.get("violations") != "no" for one in case["assertions"])


def test_gator_agrees_with_every_suite() -> None:
    ran = verify(Path(__file__).parent)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert [line.split("\t")[0] for line in ran.stdout.split("\n") if line] == ["ok"] * len(SUITES) + ["PASS"]


def test_gator_notices_a_wrong_expectation(tmp_path: Path) -> None:
    """Without this, a gator that ran nothing would look like one that found nothing."""
    (source,) = [suite for suite in SUITES if suite.parent.name == "identity-binding"]
    suite = yaml.safe_load(source.read_text())
    test = suite["tests"][0] | {"template": str(TEMPLATES / "zerotrustidentitybinding.yaml").lstrip("/")}
    (case,) = [one for one in test["cases"] if one["name"] == "label-of-another"]
    case["assertions"] = [{"violations": "no"}]
    for name in (test["constraint"], case["object"]):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text((source.parent / name).read_text())
    (tmp_path / "template.yaml").write_text((TEMPLATES / "zerotrustidentitybinding.yaml").read_text())
    suite["tests"] = [test | {"template": "template.yaml", "cases": [case]}]
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(suite))
    ran = verify(tmp_path)
    assert ran.returncode != 0
    assert "got 1 violations but want none" in ran.stdout + ran.stderr


def test_every_template_has_a_suite() -> None:
    tested = {(suite.parent / test["template"]).resolve() for suite in SUITES for test in valid_tests(suite)}
    assert tested == set(TEMPLATES.glob("*.yaml"))


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.parent.name)
class TestSuite:
    def test_says_what_is_refused_and_what_is_not(self, suite: Path) -> None:
        for test in valid_tests(suite):
            if test["name"] == "without-parameters":
                continue
            verdicts = {demands_a_violation(case) for case in test["cases"]}
            assert verdicts == {True, False} or (suite.parent.name, test["name"]) == ("identity-labels", "update")

    def test_refuses_with_a_message_that_names_who_demands_it(self, suite: Path) -> None:
        for case in filter(demands_a_violation, cases_of(suite)):
            messages = [one["message"] for one in case["assertions"] if "message" in one]
            assert messages
            assert all(one.startswith(("^ServiceIdentity ", "^TrustPolicy ", "^ApiKey ")) for one in messages)

    def test_covers_creation_update_and_audit(self, suite: Path) -> None:
        asked = set()
        for case in cases_of(suite):
            given = yaml.safe_load((suite.parent / case["object"]).read_text())
            asked.add(given["request"]["operation"] if given["kind"] == "AdmissionReview" else "audit")
        assert asked == {"CREATE", "UPDATE", "audit"}

    def test_uses_each_of_its_files_once(self, suite: Path) -> None:
        tests = yaml.safe_load(suite.read_text())["tests"]
        objects = [case["object"] for case in cases_of(suite)]
        assert len(objects) == len(set(objects))
        there = {path.relative_to(suite.parent).as_posix() for path in suite.parent.rglob("*.yaml")}
        assert there == {"suite.yaml", *objects, *(test["constraint"] for test in tests)}
