"""Sets of pods by labels: membership, contradiction, and what subtraction leaves."""

from typing import Any

import pytest

from zerotrust.common.resource import parse
from zerotrust.common.selectors import LabelSelector
from zerotrust.policy.podset import (
    NAMESPACE_NAME,
    PodSet,
    Requirement,
    contradictory,
    equal,
    from_kubernetes,
    selector_of,
    selects,
    to_kubernetes,
)

A, B, AB = equal("k", "a"), equal("k", "b"), equal("k", "b", "a")
NOT_A, NOT_AB = Requirement("k", "NotIn", ("a",)), Requirement("k", "NotIn", ("a", "b"))
THERE, GONE = Requirement("k", "Exists"), Requirement("k", "DoesNotExist")
OTHER = equal("other", "a")


@pytest.mark.parametrize(
    ("one", "meets"),
    [
        (A, ["a"]),
        (AB, ["a", "b"]),
        (NOT_A, ["b", "c", "", None]),
        (NOT_AB, ["c", "", None]),
        (THERE, ["a", "b", "c", ""]),
        (GONE, [None]),
        (equal("k", ""), [""]),
    ],
)
def test_requirements_mean_what_kubernetes_says(one: Requirement, meets: list[str | None]) -> None:
    for value in ("a", "b", "c", "", None):
        assert one.holds({} if value is None else {"k": value, "other": "x"}) is (value in meets)


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ((), False),
        ((A, B), True),
        ((A, AB), False),
        ((AB, NOT_A), False),
        ((AB, NOT_AB), True),
        ((NOT_AB, A), True),
        ((NOT_A, NOT_AB), False),
        ((NOT_AB, THERE), False),
        ((NOT_AB, GONE), False),
        ((A, GONE), True),
        ((GONE, A), True),
        ((A, THERE), False),
        ((THERE, GONE), True),
        ((A, OTHER), False),
        ((AB, Requirement("k", "NotIn", ("a",)), Requirement("k", "NotIn", ("b",))), True),
        ((equal("k", "a", "b"), equal("k", "b", "c"), equal("k", "a", "c")), True),
        ((equal("k", ""), GONE), True),
    ],
)
def test_contradictions_are_found(selector: tuple[Requirement, ...], expected: bool) -> None:
    assert contradictory(selector) is expected
    assert contradictory(iter(reversed(selector))) is expected


def test_both_halves_must_hold() -> None:
    pods = PodSet((equal("env", "prod"),), (A,))
    assert pods.contains({"env": "prod"}, {"k": "a"})
    assert not pods.contains({"env": "test"}, {"k": "a"})
    assert not pods.contains({"env": "prod"}, {"k": "b"})
    assert not pods.contains({"k": "a"}, {"env": "prod"})
    assert PodSet.within("shop", ()).contains({NAMESPACE_NAME: "shop"}, {})
    assert not PodSet.within("shop", ()).contains({}, {})


def test_nothing_is_left_of_what_is_taken_away_whole() -> None:
    everything, one = PodSet((), ()), PodSet.within("shop", (A,))
    assert one.minus(one) == []
    assert one.minus(everything) == []
    assert everything.minus(everything) == []


def test_what_does_not_meet_is_left_as_it_is() -> None:
    one = PodSet.within("shop", (A,))
    assert one.minus(PodSet.within("web", (A,))) == [one]
    assert one.minus(PodSet.within("shop", (B,))) == [one]


def test_taking_one_account_of_a_namespace_leaves_the_others_of_it_and_every_other_namespace() -> None:
    everything = PodSet((), (THERE,))
    left = everything.minus(PodSet.within("shop", (A,)))
    assert left == [
        PodSet((Requirement(NAMESPACE_NAME, "NotIn", ("shop",)),), (THERE,)),
        PodSet((equal(NAMESPACE_NAME, "shop"),), (THERE, Requirement("k", "NotIn", ("a",)))),
    ]


def test_what_is_taken_away_one_by_one_is_gone() -> None:
    left = [PodSet.within("shop", (AB,))]
    for gone in (A, B):
        left = [rest for part in left for rest in part.minus(PodSet.within("shop", (gone,)))]
    assert left == []


def test_a_set_that_holds_nobody_leaves_nobody() -> None:
    nobody = PodSet((A, B), ())
    assert nobody.is_empty
    assert not any(part.contains({"k": "a"}, {}) for part in nobody.minus(PodSet.within("shop", ())))
    assert PodSet((), ()).minus(nobody) == [PodSet((), ())]


SELECTORS: list[dict[str, Any]] = [
    {"matchLabels": {"a": "1", "b": "2"}},
    {"matchLabels": {"a": ""}},
    {"matchExpressions": [{"key": "a", "operator": "In", "values": ["2", "1", "2"]}]},
    {"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["2"]}, {"key": "a", "operator": "Exists"}]},
    {"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}], "matchLabels": {"b": "1"}},
    {"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "a", "operator": "In", "values": ["1"]}]},
    {"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "a", "operator": "In", "values": ["2"]}]},
    {"matchExpressions": [{"key": "a", "operator": "In", "values": ["1"]}, {"key": "a", "operator": "In", "values": ["2"]}]},
]  # fmt: skip
UNIVERSE = [
    {key: value for key, value in (("a", first), ("b", second)) if value is not None}
    for first in ("1", "2", "", None)
    for second in ("1", "2", None)
]


@pytest.mark.parametrize("body", SELECTORS)
def test_selectors_survive_the_way_to_kubernetes_and_back(body: dict[str, Any]) -> None:
    model = parse(LabelSelector, body, "selector")
    selector = selector_of(model)
    written = to_kubernetes(selector)
    for labels in UNIVERSE:
        expected = model.matches(labels)
        assert selects(selector, labels) is expected
        assert selects(from_kubernetes(body), labels) is expected
        assert selects(from_kubernetes(written), labels) is expected


def test_an_absent_selector_has_no_requirement() -> None:
    assert selector_of(None) == from_kubernetes(None) == from_kubernetes({}) == ()
    assert to_kubernetes(()) == {}
