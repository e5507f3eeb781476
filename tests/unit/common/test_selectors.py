"""Label selectors mean what Kubernetes says (https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/)."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerotrust.common.errors import SpecError
from zerotrust.common.resource import parse
from zerotrust.common.selectors import LabelExpression, LabelSelector

LABELS = st.dictionaries(st.sampled_from("abc"), st.sampled_from(["", "x", "y"]))
VALUES = st.lists(st.sampled_from(["", "x", "y"]), min_size=1, max_size=3)


def selector(**body: Any) -> LabelSelector:
    return parse(LabelSelector, body, "selector")


def expression(operator: str, *values: str) -> LabelExpression:
    body = {"key": "environment", "operator": operator}
    return parse(LabelExpression, {**body, "values": list(values)} if values else body, "expression")


@pytest.mark.parametrize(
    ("operator", "values", "production", "test", "without_label"),
    [
        ("In", ["production", "qa"], True, False, False),
        ("NotIn", ["production", "qa"], False, True, True),
        ("Exists", [], True, True, False),
        ("DoesNotExist", [], False, False, True),
    ],
)
def test_operators(operator: str, values: list[str], production: bool, test: bool, without_label: bool) -> None:
    requirement = expression(operator, *values)
    assert requirement.matches({"environment": "production", "tier": "a"}) is production
    assert requirement.matches({"environment": "test"}) is test
    assert requirement.matches({"tier": "production"}) is without_label
    assert requirement.matches({}) is without_label


def test_an_empty_value_is_a_value() -> None:
    assert expression("In", "").matches({"environment": ""})
    assert not expression("In", "").matches({})
    assert expression("Exists").matches({"environment": ""})
    assert not selector(matchLabels={"environment": ""}).matches({})
    assert selector(matchLabels={"environment": ""}).matches({"environment": ""})


def test_all_requirements_hold_together() -> None:
    both = selector(
        matchLabels={"tier": "a", "team": "shop"},
        matchExpressions=[
            {"key": "environment", "operator": "In", "values": ["qa"]},
            {"key": "old", "operator": "DoesNotExist"},
        ],
    )
    fits = {"tier": "a", "team": "shop", "environment": "qa", "more": "labels"}
    assert both.matches(fits)
    for change in ({"tier": "b"}, {"team": "Shop"}, {"environment": "production"}, {"old": ""}):
        assert not both.matches({**fits, **change})
    for name in ("tier", "team", "environment"):
        assert not both.matches({key: value for key, value in fits.items() if key != name})


@given(LABELS, st.sampled_from("abc"), VALUES)
def test_operators_come_in_opposites(labels: dict[str, str], key: str, values: list[str]) -> None:
    def holds(operator: str, **more: Any) -> bool:
        return selector(matchExpressions=[{"key": key, "operator": operator, **more}]).matches(labels)

    assert holds("NotIn", values=values) is not holds("In", values=values)
    assert holds("DoesNotExist") is not holds("Exists")
    if holds("In", values=values):
        assert holds("Exists")


@given(LABELS, LABELS.filter(bool))
def test_a_match_label_is_an_in_with_one_value(labels: dict[str, str], wanted: dict[str, str]) -> None:
    expressions = [{"key": key, "operator": "In", "values": [value]} for key, value in wanted.items()]
    assert selector(matchLabels=wanted).matches(labels) is selector(matchExpressions=expressions).matches(labels)
    assert selector(matchLabels=wanted).matches(labels) is (wanted.items() <= labels.items())


@given(LABELS, LABELS.filter(bool), st.sampled_from(["Exists", "DoesNotExist"]), st.sampled_from("abc"))
def test_a_further_requirement_never_selects_more(
    labels: dict[str, str], wanted: dict[str, str], operator: str, key: str
) -> None:
    narrower = selector(matchLabels=wanted, matchExpressions=[{"key": key, "operator": operator}])
    assert selector(matchLabels=wanted).matches(labels) or not narrower.matches(labels)


@pytest.mark.parametrize(
    "body",
    [{}, {"matchLabels": {}}, {"matchExpressions": []}, {"matchLabels": None}, {"matchLabels": {"a": None}}],
)
def test_nothing_empty_means_everything(body: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=r"^selector: an empty selector is refused, because it would mean everything"):
        selector(**body)


@pytest.mark.parametrize(
    "body", [{"operator": "In"}, {"operator": "NotIn", "values": []}, {"operator": "Exists", "values": ["a"]}]
)
def test_values_belong_to_in_and_not_in(body: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=r"^selector.matchExpressions\[0\]: values belongs to In and NotIn"):
        selector(matchExpressions=[{"key": "a", **body}])


@pytest.mark.parametrize("key", ["", "-a", "a b", "a/", "/a", "A.example/a", "a/b/c", "b" * 64, "a\n"])
def test_keys_are_label_keys(key: str) -> None:
    with pytest.raises(SpecError, match=r"^selector.matchExpressions\[0\].key: "):
        selector(matchExpressions=[{"key": key, "operator": "Exists"}])
