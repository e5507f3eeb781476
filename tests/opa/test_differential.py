"""Real OPA with the shipped modules and projected tables decides every random case as the reference evaluator does."""

import json
import os
from collections import Counter
from typing import Any, get_args

import pytest

from tests.support import differential
from tests.support.differential import Case
from tests.support.rego import answers, nanoseconds
from zerotrust.policy.evaluate import Reason

PROVING = os.environ.get("ZEROTRUST_PROVE") == "1"
TABLES, OF_EACH = (240, 100) if PROVING else (30, 80)

Answer = dict[str, Any]
Answered = tuple[list[Case], list[Answer]]


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> Answered:
    targets = differential.targets(TABLES)
    asked = list(differential.cases(targets, OF_EACH))
    given = [(case.given, nanoseconds(case.now)) for case in asked]
    return asked, answers(tmp_path_factory.mktemp("opa"), differential.documents(targets, asked), given)


def test_opa_decides_as_the_evaluator_does(answered: Answered) -> None:
    wrong = [(case, answer) for case, answer in zip(*answered, strict=True) if not case.right(answer)]
    assert not wrong, (
        f"{len(wrong)} of {len(answered[0])}: {[(c.seed, c.now, c.given, c.decision, a) for c, a in wrong[:3]]}"
    )


def test_the_cases_meet_every_reason_and_every_kind_of_report(answered: Answered) -> None:
    asked, _ = answered
    reasons = Counter(case.decision.verdict.reason for case in asked)
    assert set(reasons) == set(get_args(Reason))
    assert reasons["allowed"] > len(asked) / 10
    observed = [case.decision for case in asked if case.decision.observed is not None]
    assert {one.observed.allowed for one in observed if one.observed} == {True, False}
    candidates = [case.decision.candidate for case in asked if case.decision.candidate is not None]
    assert {one.allowed for one in candidates} == {True, False}


def test_keys_are_named_by_their_ids(answered: Answered) -> None:
    named = [
        (case, answer) for case, answer in zip(*answered, strict=True) if {"key_id", "unknown_key_id"} & set(answer)
    ]
    assert {"allowed", "bad_key", "expired_key", "revoked_key", "missing_scope"} <= {one["reason"] for _, one in named}
    for case, answer in named:
        (identifier,) = {answer[name] for name in ("key_id", "unknown_key_id") if name in answer}
        assert identifier in json.dumps(case.given)
        if "key_id" in answer:
            assert set(case.api_keys) == {identifier}


def test_every_answer_is_complete(answered: Answered) -> None:
    for case, answer in zip(*answered, strict=True):
        assert set(answer) - {"observed", "candidate", "key_id", "unknown_key_id"} == {
            "allowed", "reason", "policy", "rule", "status", "headers", "server", "client", "revision",
        }  # fmt: skip
        assert (answer["status"] == 200) is answer["allowed"] is case.decision.verdict.allowed
        assert answer["headers"] == ({} if answer["allowed"] else {"x-zerotrust-reason": answer["reason"]})
        assert answer["revision"] == "r"
