"""Conditions: the list says what is true now, and the time at which each began to be so."""

from datetime import timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.support.builders import NOW, hours
from zerotrust.common import times
from zerotrust.common.conditions import MAX_MESSAGE, Condition, find, merge
from zerotrust.common.status import ConditionStatus

types = st.sampled_from(["Ready", "RenewalOverdue", "Stalled", "Reconciling"])
statuses = st.sampled_from(["True", "False", "Unknown"])
wanted_lists = st.lists(
    st.builds(Condition, types, statuses, st.sampled_from(["Issued", "Expired"]), st.text(max_size=30)),
    unique_by=lambda one: one.type,
    max_size=4,
)
long_messages = st.text(min_size=MAX_MESSAGE - 2, max_size=MAX_MESSAGE + 50, alphabet="aé")

EARLIER = times.render(NOW - hours(9))
observed_entries = st.fixed_dictionaries(
    {},
    optional={
        "type": types | st.text(max_size=5),
        "status": statuses | st.text(max_size=5),
        "reason": st.text(max_size=5),
        "lastTransitionTime": st.just(EARLIER) | st.none() | st.just(""),
        "observedGeneration": st.integers(0, 9),
        "more": st.text(max_size=5),
    },
)
observed_lists = st.lists(observed_entries, max_size=4, unique_by=lambda one: one.get("type"))


@given(observed_lists, wanted_lists)
def test_the_list_is_what_is_wanted_in_its_own_order(observed: list[dict[str, Any]], wanted: list[Condition]) -> None:
    merged = merge(observed, wanted, 3, NOW)
    assert [(one["type"], one["status"], one["reason"], one["message"]) for one in merged] == [
        (one.type, one.status, one.reason, one.message) for one in wanted
    ]
    assert {one["observedGeneration"] for one in merged} <= {3}


@given(observed_lists, wanted_lists)
def test_the_time_stays_exactly_while_the_status_stays(observed: list[dict[str, Any]], wanted: list[Condition]) -> None:
    for one in merge(observed, wanted, 1, NOW):
        old = next((entry for entry in observed if entry.get("type") == one["type"]), {})
        stays = old.get("status") == one["status"] and bool(old.get("lastTransitionTime"))
        assert one["lastTransitionTime"] == (EARLIER if stays else times.render(NOW))


@given(observed_lists, wanted_lists, st.integers(0, 10**6))
def test_to_merge_again_later_changes_nothing(
    observed: list[dict[str, Any]], wanted: list[Condition], later: int
) -> None:
    once = merge(observed, wanted, 2, NOW)
    assert merge(once, wanted, 2, NOW + timedelta(seconds=later)) == once


@given(wanted_lists, wanted_lists, wanted_lists)
def test_a_new_reason_or_message_alone_is_no_transition(
    first: list[Condition], second: list[Condition], third: list[Condition]
) -> None:
    moment, merged = NOW, merge([], first, 1, NOW)
    for wanted in (second, third):
        moment += hours(1)
        before, merged = merged, merge(merged, wanted, 1, moment)
        for one in merged:
            old = find(before, one["type"])
            flipped = old is None or old["status"] != one["status"]
            assert (one["lastTransitionTime"] == times.render(moment)) is flipped


@given(long_messages)
def test_a_message_fits(message: str) -> None:
    (merged,) = merge([], [Condition("Ready", "False", "Why", message)], 1, NOW)
    assert len(merged["message"]) <= MAX_MESSAGE
    assert message.startswith(merged["message"])


@given(observed_lists, wanted_lists)
def test_the_list_is_what_the_resource_definitions_allow(
    observed: list[dict[str, Any]], wanted: list[Condition]
) -> None:
    for one in merge(observed, wanted, 1, NOW):
        ConditionStatus.model_validate(one, by_alias=True, by_name=False)


@given(observed_lists, wanted_lists)
def test_nothing_that_was_given_is_changed(observed: list[dict[str, Any]], wanted: list[Condition]) -> None:
    before = [dict(one) for one in observed]
    merge(observed, wanted, 1, NOW)
    assert observed == before
