"""Tokens of identity providers: real OPA with the shipped rules, and the Python verifier, say the same of every token."""

from pathlib import Path

import pytest

from tests.support.bad_tokens import GOOD, bad, good, good_beside
from tests.support.proving import only_in_prove
from tests.support.tokens import Answer, Case, jwk, provider, python_answer, rego_answers, token
from zerotrust.opabundle.modules import modules

CASES = [*good(), *good_beside(), *bad()]
TEXTS = [case for case in CASES if isinstance(case.raw, str)]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answer]:
    """What OPA says to each case, by its name."""
    found = rego_answers(CASES, tmp_path_factory.mktemp("tokens"))
    return {case.name: answer for case, answer in zip(CASES, found, strict=True)}


def test_every_case_has_a_name_of_its_own() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("number", range(1, 23))
def test_every_attack_of_the_list_is_among_the_cases(number: int) -> None:
    assert [case for case in bad() if case.name.startswith(f"N{number} ")]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_opa_and_python_give_the_verdict_that_is_right(case: Case, answers: dict[str, Answer]) -> None:
    in_opa, in_python = answers[case.name], python_answer(case)
    assert (in_opa is not None) == case.accepted
    assert in_opa == in_python


@pytest.mark.parametrize(
    "raw", [None, 7, True, [], [GOOD], {"raw": GOOD}], ids=lambda raw: type(raw).__name__ + str(bool(raw))
)
def test_what_is_no_text_is_no_token(raw: object, tmp_path: Path) -> None:
    assert rego_answers([Case("", raw)], tmp_path) == [None]


def test_no_shipped_rule_decodes_what_nobody_has_verified() -> None:
    """`io.jwt.decode` ends OPA for a header such as {"cty": 5}, which needs no signature."""
    calls = [
        line
        for text in modules().values()
        for line in text.splitlines()
        if "io.jwt." in line and not line.startswith("#")
    ]
    assert calls == ["\t[true, _, _] = io.jwt.decode_verify(raw, {"]


KNOWN, OTHERS = provider(), provider(jwk("ES256", "x"), name="partner", issuer="https://partner.example.org")


@pytest.mark.parametrize(
    ("raw", "hint"),
    [
        (token(kid="new"), {"provider": "corp", "kid": "new"}),
        (token({"iss": OTHERS.issuer}), {"provider": "partner", "kid": "ES256"}),
        (token(kid="new", kind="ES256 other")[:-4] + "AAAA", {"provider": "corp", "kid": "new"}),
        (GOOD, None),
        (token({"iss": "https://evil.example"}, kid="new"), None),
        (token(kid="new", algorithm="RS512"), None),
        (token(kid=7), None),
        (token(kid=None), None),
        ("no token", None),
        (None, None),
    ],
)
def test_a_key_that_is_not_known_is_told(raw: object, hint: object, tmp_path: Path) -> None:
    """The signature is not looked at: there is no key for it."""
    case = Case("", raw, providers=(KNOWN, OTHERS))
    assert rego_answers([case], tmp_path, rule="unknown_key(one.raw, one.domain)") == [hint]


@only_in_prove
def test_the_envoy_plugins_older_opa_says_the_same(answers: dict[str, Answer], tmp_path: Path) -> None:
    found = rego_answers(CASES, tmp_path, tool="opa-envoy-plugin")
    assert {case.name: answer for case, answer in zip(CASES, found, strict=True)} == answers
