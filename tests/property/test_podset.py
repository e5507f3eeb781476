"""Subtraction of pod sets against brute force over every pod of a small universe."""

from itertools import combinations, product

from hypothesis import given
from hypothesis import strategies as st

from zerotrust.policy.podset import (
    PodSet,
    Requirement,
    Selector,
    contradictory,
    from_kubernetes,
    selects,
    to_kubernetes,
)

KEYS, VALUES = ("k", "l"), ("a", "b", "c")
# `z` is a value that no requirement names: what a NotIn leaves when it excludes all others.
LABELS = [
    {key: value for key, value in zip(KEYS, chosen, strict=True) if value is not None}
    for chosen in product((*VALUES, "z", None), repeat=len(KEYS))
]
PODS = [(namespace, pod) for namespace in LABELS for pod in LABELS]

values = st.lists(st.sampled_from(VALUES), min_size=1, max_size=3, unique=True).map(lambda found: tuple(sorted(found)))
requirements = st.builds(Requirement, st.sampled_from(KEYS), st.sampled_from(["In", "NotIn"]), values) | st.builds(
    Requirement, st.sampled_from(KEYS), st.sampled_from(["Exists", "DoesNotExist"])
)
selectors = st.lists(requirements, max_size=4).map(lambda found: tuple(sorted(set(found))))
pod_sets = st.builds(PodSet, selectors, selectors)


def members(pods: PodSet) -> set[int]:
    return {number for number, pod in enumerate(PODS) if pods.contains(*pod)}


@given(selectors)
def test_a_selector_is_contradictory_when_no_labels_meet_it(selector: Selector) -> None:
    assert contradictory(selector) is not any(selects(selector, labels) for labels in LABELS)


@given(pod_sets)
def test_a_set_is_empty_when_no_pod_is_in_it(pods: PodSet) -> None:
    assert pods.is_empty is not bool(members(pods))


@given(pod_sets, pod_sets)
def test_subtraction_leaves_exactly_the_others_in_disjoint_parts(first: PodSet, second: PodSet) -> None:
    parts = [members(part) for part in first.minus(second)]
    assert set().union(*parts) == members(first) - members(second)
    assert not any(one & two for one, two in combinations(parts, 2))


@given(pod_sets, st.lists(pod_sets, max_size=4))
def test_repeated_subtraction_leaves_what_none_of_them_holds(first: PodSet, others: list[PodSet]) -> None:
    left = [first]
    for other in others:
        left = [rest for part in left for rest in part.minus(other)]
    parts = [members(part) for part in left]
    assert set().union(*parts) == members(first).difference(*(members(other) for other in others))
    assert not any(one & two for one, two in combinations(parts, 2))
    if others and not first.is_empty:
        assert not any(part.is_empty for part in left), "an empty peer would only make the network policy longer"


@given(selectors)
def test_a_selector_means_the_same_to_kubernetes(selector: Selector) -> None:
    read = from_kubernetes(to_kubernetes(selector))
    for labels in LABELS:
        assert selects(read, labels) is selects(selector, labels)
