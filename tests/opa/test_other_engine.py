"""The shipped modules in another engine, compiled to WebAssembly: every random case as the reference evaluator decides it.

Parser and type checker are OPA's, evaluator and regular expressions are those of its Wasm library, and what that takes from
its host is Python (tests/support/wasm_builtins.py), so a fault of OPA's evaluator in Go would be seen here.
"""

import os
from pathlib import Path
from typing import get_args

from tests.support import differential
from tests.support.rego import nanoseconds
from tests.support.wasm import WasmPolicy, compiled
from zerotrust.policy.evaluate import Reason

PROVING = os.environ.get("ZEROTRUST_PROVE") == "1"
TABLES, OF_EACH = (240, 50) if PROVING else (80, 12)


def test_another_engine_decides_as_the_evaluator_does(tmp_path: Path) -> None:
    targets = differential.targets(TABLES)
    asked = list(differential.cases(targets, OF_EACH))
    policy = WasmPolicy(compiled(tmp_path), differential.documents(targets, asked))
    answers = [policy.decide(case.given, nanoseconds(case.now)) for case in asked]
    wrong = [(case, answer) for case, answer in zip(asked, answers, strict=True) if not case.right(answer or {})]
    assert not wrong, f"{len(wrong)} of {len(asked)}: {[(c.seed, c.now, c.given, c.decision, a) for c, a in wrong[:3]]}"
    assert {answer["reason"] for answer in answers} == set(get_args(Reason))
