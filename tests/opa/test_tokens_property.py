"""Random changes to a good token: real OPA and the Python verifier say the same of each."""

import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.support.bad_tokens import ACCESS, at_hash
from tests.support.examples import examples
from tests.support.tokens import SECONDS, Case, claims, jwk, provider, python_answer, rego_answers, token

BATCH = 40
PROVIDERS = (
    provider(),
    provider(jwk("ES256 other", "ES256"), name="partner", issuer="https://partner.example.org", leeway=0),
)

NAMES = (
    "iss",
    "sub",
    "aud",
    "exp",
    "iat",
    "nbf",
    "azp",
    "nonce",
    "at_hash",
    "scope",
    "scp",
    "groups",
    "cnf",
    "events",
    "n",
)
PARAMETERS = ("alg", "kid", "typ", "cty", "crit", "b64", "enc", "jku", "x")
WORDS = st.sampled_from(
    [
        "",
        "orders",
        "billing",
        "a b",
        "ES256",
        "RS256",
        "none",
        "JWT",
        "at+jwt",
        "https://partner.example.org",
        "é",
        "🦊",
        '"',
    ]
)
TIMES = st.one_of(
    st.integers(SECONDS - 120, SECONDS + 120),
    st.sampled_from([0, -1, SECONDS + 2678400, SECONDS + 2678401, 10**11, 10**12, 2**63, 2**64, 2**200]),
    st.integers(SECONDS * 8 - 1000, SECONDS * 8 + 1000).map(lambda eighths: eighths / 8),
    st.floats(allow_nan=False, allow_infinity=False),
)
SCALARS = st.one_of(WORDS, TIMES, st.booleans(), st.just("NULL"), st.text(max_size=5))
VALUES = st.one_of(SCALARS, st.lists(SCALARS, max_size=3), st.dictionaries(WORDS, SCALARS, max_size=2), st.none())


def without_null(value: Any) -> Any:
    """Null inside lists and objects; the builder of claims knows the word at the top only."""
    if isinstance(value, list):
        return [without_null(one) for one in value]
    if isinstance(value, dict):
        return {name: without_null(one) for name, one in value.items()}
    return None if value == "NULL" else value


def signed(changes: dict[str, Any], header: dict[str, Any]) -> str:
    given_claims = {name: value if value == "NULL" else without_null(value) for name, value in changes.items()}
    parameters = {"alg": "ES256", "kid": "ES256", "typ": "JWT", **header}
    written = json.dumps({name: without_null(value) for name, value in parameters.items() if value is not None})
    return token(given_claims, header_text=written)


def respelled(position: int, piece: str) -> str:
    """A token whose payload had a piece of JSON put in somewhere, properly signed."""
    text = json.dumps(claims())
    at = position % (len(text) + 1)
    return token(text=text[:at] + piece + text[at:])


def spoiled(position: int, piece: str, removed: int) -> str:
    """A token with some of its characters replaced after it was signed."""
    raw = token()
    at = position % len(raw)
    return raw[:at] + piece + raw[at + removed :]


CHANGES = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=3)
HEADERS = st.dictionaries(st.sampled_from(PARAMETERS), VALUES, max_size=2)
PIECES = st.sampled_from(
    [" ", "\n", "\\u0061", "\\ud800", "\\ud83e\\udd8a", "\\u0022", '"', "{}", "[", "]", ",", ":", '"sub": "b",', "0", "e1",
     ".5", "-", "é", "\ufffd", "\x00", "\ufeff", "true", "\\", "/", '"x": {"y": 1, "y": 2},']
)  # fmt: skip
TOKENS = st.one_of(
    st.builds(signed, CHANGES, st.just({})),
    st.builds(signed, CHANGES.map(lambda changes: {"at_hash": at_hash(ACCESS), **changes}), st.just({})),
    st.builds(signed, CHANGES, HEADERS),
    st.builds(respelled, st.integers(0, 1000), PIECES),
    st.builds(
        spoiled,
        st.integers(0, 1000),
        st.sampled_from(["", "A", "_", ".", "=", "\n", "é", "AAAA"]),
        st.integers(0, 4),
    ),
)


@examples(8)
@given(st.lists(TOKENS, min_size=BATCH, max_size=BATCH, unique=True))
def test_both_verifiers_agree_about_changed_tokens(tokens: list[str]) -> None:
    # Each is asked at a moment of its own: in one run OPA takes equal arguments, such as 1 and 1.0, for the same.
    cases = [
        Case("", raw, providers=PROVIDERS, moment=SECONDS + at / 1000, beside=ACCESS if at % 4 == 0 else None)
        for at, raw in enumerate(tokens)
    ]
    with tempfile.TemporaryDirectory() as folder:
        answers = rego_answers(cases, Path(folder))
    for case, answer in zip(cases, answers, strict=True):
        assert answer == python_answer(case), case.raw


def test_the_changes_leave_good_tokens_among_the_bad_ones() -> None:
    """Otherwise the property would compare refusals with refusals."""
    seen = set()

    @examples(60)
    @given(TOKENS)
    def collect(raw: str) -> None:
        seen.add(python_answer(Case("", raw, providers=PROVIDERS)) is not None)

    collect()
    assert seen == {True, False}
