"""The conditions of a status: what they say now, and since when."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerotrust.common import conditions, times
from zerotrust.common.conditions import Condition, false, merge, true, unknown
from zerotrust.common.resource import parse
from zerotrust.common.status import ConditionStatus

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
BEFORE = times.render(NOW - timedelta(days=3))

TYPES = st.sampled_from(["Ready", "Isolated", "PodsMatch", "Stalled"])
STATUSES = st.sampled_from(["True", "False", "Unknown"])
WANTED = st.lists(
    st.builds(Condition, TYPES, STATUSES, st.sampled_from(["Issued", "Expired"]), st.text(max_size=30)),
    unique_by=lambda condition: condition.type,
)
GENERATIONS = st.integers(1, 1000)
OBSERVED = st.builds(
    lambda wanted, generation, age: merge([], wanted, generation, NOW - timedelta(seconds=age)),
    WANTED,
    GENERATIONS,
    st.integers(1, 10**6),
)

Observed = list[dict[str, Any]]


def of(entries: Observed) -> dict[str, dict[str, Any]]:
    return {entry["type"]: entry for entry in entries}


@given(OBSERVED, WANTED, GENERATIONS)
def test_the_list_says_what_is_wanted_and_nothing_else(
    observed: Observed, wanted: list[Condition], now_at: int
) -> None:
    merged = merge(observed, wanted, now_at, NOW)
    said = [(entry["type"], entry["status"], entry["reason"], entry["message"]) for entry in merged]
    assert said == [(one.type, one.status, one.reason, one.message) for one in wanted]
    assert all(entry["observedGeneration"] == now_at for entry in merged)


@given(OBSERVED, WANTED, GENERATIONS)
def test_the_transition_time_changes_with_the_status_only(
    observed: Observed, wanted: list[Condition], now_at: int
) -> None:
    before = of(observed)
    for entry in merge(observed, wanted, now_at, NOW):
        old = before.get(entry["type"])
        stays = old is not None and old["status"] == entry["status"]
        assert entry["lastTransitionTime"] == (old["lastTransitionTime"] if old and stays else times.render(NOW))


@given(OBSERVED, WANTED, GENERATIONS)
def test_nothing_new_changes_nothing(observed: Observed, wanted: list[Condition], now_at: int) -> None:
    merged = merge(observed, wanted, now_at, NOW)
    assert merge(merged, wanted, now_at, NOW + timedelta(hours=1)) == merged


@given(OBSERVED, WANTED, GENERATIONS)
def test_what_is_merged_fits_the_crd(observed: Observed, wanted: list[Condition], now_at: int) -> None:
    for entry in merge(observed, wanted, now_at, NOW):
        assert parse(ConditionStatus, entry, "status.conditions[]").type == entry["type"]


def test_a_condition_that_is_not_wanted_any_more_is_dropped() -> None:
    observed = merge([], [true("Ready", "Issued"), true("Reconciling", "Progressing")], 1, NOW)
    assert [entry["type"] for entry in merge(observed, [true("Ready", "Issued")], 2, NOW)] == ["Ready"]
    assert merge(observed, [], 2, NOW) == []


def test_a_condition_that_comes_back_is_new() -> None:
    observed = merge([], [true("Ready", "Issued")], 1, NOW)
    gone = merge(observed, [], 1, NOW)
    (back,) = merge(gone, [true("Ready", "Issued")], 1, NOW + timedelta(hours=1))
    assert back["lastTransitionTime"] == times.render(NOW + timedelta(hours=1))


def test_a_new_reason_or_message_is_no_transition() -> None:
    observed = [{"type": "Ready", "status": "False", "reason": "Pending", "message": "a", "lastTransitionTime": BEFORE}]
    (entry,) = merge(observed, [false("Ready", "Failed", "b")], 7, NOW)
    assert (entry["reason"], entry["message"], entry["lastTransitionTime"]) == ("Failed", "b", BEFORE)


@pytest.mark.parametrize("observed", [{"type": "Ready", "status": "True"}, {"type": "Ready"}, {}, {"status": "True"}])
def test_a_damaged_condition_counts_as_none(observed: dict[str, Any]) -> None:
    # Anybody who may edit the status can write it.
    (entry,) = merge([observed], [true("Ready", "Issued")], 1, NOW)
    assert entry["lastTransitionTime"] == times.render(NOW)


def test_a_long_message_is_cut() -> None:
    (entry,) = merge([], [false("Ready", "Failed", "x" * 5000)], 1, NOW)
    assert entry["message"] == "x" * conditions.MAX_MESSAGE


@pytest.mark.parametrize(("build", "status"), [(true, "True"), (false, "False"), (unknown, "Unknown")])
def test_builders(build: Any, status: conditions.Status) -> None:
    assert build("Ready", "Issued", "serving") == Condition("Ready", status, "Issued", "serving")
    assert build("Ready", "Issued").message == ""


def test_find() -> None:
    observed = merge(
        [], [true("Ready", "Issued"), false("Isolated", "Observed"), unknown("PodsMatch", "Waiting")], 1, NOW
    )
    found = conditions.find(observed, "Isolated")
    assert found is not None
    assert found["status"] == "False"
    assert conditions.find(observed, "Absent") is None
