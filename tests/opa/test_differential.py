"""Real OPA with the shipped modules and projected tables decides every random case as the reference evaluator does."""

import json
import os
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pytest

from hack.gotools import find_or_build
from tests.support import differential
from tests.support.differential import Case
from zerotrust.opabundle.modules import modules
from zerotrust.policy.evaluate import Reason

PROVING = os.environ.get("ZEROTRUST_PROVE") == "1"
TABLES, OF_EACH = (240, 100) if PROVING else (30, 50)
BATCH = Path(__file__).with_name("batch.rego")

Answer = dict[str, Any]
Answered = tuple[list[Case], list[Answer]]


def written_modules(folder: Path) -> Path:
    """A folder with the modules as a bundle has them."""
    for name, text in modules().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def decide(folder: Path, data: dict[str, Any], asked: Sequence[Case]) -> list[Answer]:
    """What OPA answers to each case."""
    given = {"cases": [{"input": case.given, "now_ns": case.now_ns} for case in asked]}
    (folder / "input.json").write_text(json.dumps(given))
    (folder / "data.json").write_text(json.dumps(data))
    loaded = ["--data", written_modules(folder / "modules"), "--data", folder / "data.json", "--data", BATCH]
    command = [find_or_build("opa"), "eval", "--format", "raw", "--input", folder / "input.json", *loaded]
    ran = subprocess.run([*command, "data.differential.answers"], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    answers: list[Answer] = json.loads(ran.stdout)
    return answers


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> Answered:
    targets = differential.targets(TABLES)
    asked = list(differential.cases(targets, OF_EACH))
    return asked, decide(tmp_path_factory.mktemp("opa"), differential.documents(targets), asked)


def test_opa_decides_as_the_evaluator_does(answered: Answered) -> None:
    asked, answers = answered
    wrong = [(case, answer) for case, answer in zip(asked, answers, strict=True) if not case.right(answer)]
    assert not wrong, f"{len(wrong)} of {len(asked)}: {[(c.seed, c.now, c.given, c.decision, a) for c, a in wrong[:3]]}"


def test_the_cases_meet_every_reason_and_every_kind_of_report(answered: Answered) -> None:
    asked, _ = answered
    reasons = Counter(case.decision.verdict.reason for case in asked)
    assert set(reasons) == set(get_args(Reason))
    assert reasons["allowed"] > len(asked) / 10
    observed = [case.decision for case in asked if case.decision.observed is not None]
    assert {one.observed.allowed for one in observed if one.observed} == {True, False}
    candidates = [case.decision.candidate for case in asked if case.decision.candidate is not None]
    assert {one.allowed for one in candidates} == {True, False}


def test_every_answer_is_complete(answered: Answered) -> None:
    asked, answers = answered
    for case, answer in zip(asked, answers, strict=True):
        assert set(answer) - {"observed", "candidate"} == {
            "allowed", "reason", "policy", "rule", "status", "headers", "server", "client", "revision",
        }  # fmt: skip
        assert (answer["status"] == 200) is answer["allowed"] is case.decision.verdict.allowed
        assert answer["headers"] == ({} if answer["allowed"] else {"x-zerotrust-reason": answer["reason"]})
        assert answer["revision"] == "r"
