"""What a provider's keys go through, on a clock of the test's own."""

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import examples
from tests.support.tokens import jwk
from zerotrust.providers.jwks import KeySet
from zerotrust.providers.lifecycle import (
    LONGEST,
    REPORT_INTERVAL,
    SHORTEST,
    USUAL,
    Failed,
    Fetched,
    Outcome,
    State,
    Unchanged,
    Validators,
    accepted,
    after,
    changes_at,
    not_after,
    unknown_kid,
)

START = datetime(2026, 11, 22, 12, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


def keys(*kids: str, kind: str = "ES256") -> KeySet:
    return KeySet({kid: jwk(kind, kid) for kid in kids})


def fetched(*kids: str, fresh_for: timedelta | None = HOUR) -> Fetched:
    return Fetched(keys(*kids), fresh_for, Validators('"e"'))


def test_a_new_provider_is_fetched_at_once_and_accepts_nothing() -> None:
    assert State().next_fetch is None
    assert not accepted(State(), START).keys
    assert not_after(State(), HOUR) is None


def test_keys_are_read_again_when_they_are_no_longer_fresh() -> None:
    state = after(State(), START, fetched("a"))
    assert state.next_fetch == START + HOUR
    assert state.validators == Validators('"e"')
    assert list(accepted(state, START).keys) == ["a"]


@pytest.mark.parametrize(
    ("said", "period"),
    [
        (None, USUAL),
        (timedelta(), SHORTEST),
        (timedelta(seconds=59), SHORTEST),
        (timedelta(seconds=61), timedelta(seconds=61)),
        (timedelta(hours=24), LONGEST),
        (timedelta(days=3650), LONGEST),
    ],
)
def test_how_long_an_answer_is_fresh_is_bounded(said: timedelta | None, period: timedelta) -> None:
    for outcome in (fetched("a", fresh_for=said), Unchanged(said)):
        state = after(after(State(), START, fetched("a")), START, outcome)
        assert state.next_fetch == START + period


def test_unchanged_keys_are_confirmed() -> None:
    state = after(after(State(), START, fetched("a")), START + HOUR, Unchanged(HOUR))
    assert state.confirmed == START + HOUR
    assert list(accepted(state, START + HOUR).keys) == ["a"]
    assert state.validators == Validators('"e"')


def test_unchanged_confirms_nothing_when_there_is_nothing() -> None:
    state = after(State(), START, Unchanged(HOUR))
    assert state.confirmed is None
    assert state.failures == 1


def test_the_last_good_keys_stay_while_fetches_fail_until_max_stale() -> None:
    good = after(State(), START, fetched("a"))
    state = good
    for number in range(20):
        state = after(state, START + HOUR + number * MINUTE, Failed("down"))
    assert state.keys == good.keys
    assert (state.message, state.failures) == ("down", 20)
    assert not_after(state, 2 * HOUR) == START + HOUR + 2 * HOUR
    recovered = after(state, START + 2 * HOUR, Unchanged(HOUR))
    assert (recovered.message, recovered.failures) == ("", 0)


def test_failures_are_tried_again_ever_more_rarely() -> None:
    state, waits = State(), []
    for _ in range(10):
        state = after(state, START, Failed("down"))
        assert state.next_fetch is not None
        waits.append((state.next_fetch - START).total_seconds())
    assert waits == [5, 10, 20, 40, 80, 160, 300, 300, 300, 300]


def test_a_retired_key_is_accepted_for_one_max_age() -> None:
    state = after(after(State(), START, fetched("a", "b")), START + HOUR, fetched("b", "c", fresh_for=MINUTE))
    gone = START + 2 * HOUR
    assert list(accepted(state, gone - MINUTE).keys) == ["a", "b", "c"]
    assert changes_at(state, gone - MINUTE) == gone
    assert list(accepted(state, gone).keys) == ["b", "c"]
    assert changes_at(state, gone) is None


def test_further_answers_do_not_keep_a_retired_key_alive() -> None:
    state = after(after(State(), START, fetched("a", "b")), START + HOUR, fetched("b"))
    for minutes in range(1, 61):
        state = after(state, START + HOUR + minutes * MINUTE, fetched("b") if minutes % 2 else Unchanged(HOUR))
    assert list(accepted(state, START + 2 * HOUR).keys) == ["b"]
    assert not state.retired


def test_a_key_that_comes_back_is_the_new_one() -> None:
    state = after(after(State(), START, fetched("a", "b")), START + HOUR, fetched("b"))
    state = after(state, START + HOUR + MINUTE, Fetched(keys("a", kind="ES256 other"), HOUR))
    assert accepted(state, START + HOUR + MINUTE).keys["a"] == jwk("ES256 other", "a")


def test_an_unknown_kid_brings_a_fetch_forward_once_a_minute() -> None:
    state = after(State(), START, fetched("a"))
    asked = unknown_kid(state, START + 10 * MINUTE)
    assert asked.next_fetch == START + 10 * MINUTE
    answered = after(asked, START + 10 * MINUTE, fetched("a"))
    again = unknown_kid(answered, START + 10 * MINUTE + timedelta(seconds=59))
    assert again == answered
    later = unknown_kid(answered, START + 11 * MINUTE)
    assert later.next_fetch == START + 11 * MINUTE


def test_an_unknown_kid_just_after_an_answer_waits_its_minute() -> None:
    state = unknown_kid(after(State(), START, fetched("a")), START + timedelta(seconds=1))
    assert state.next_fetch == START + MINUTE


def test_an_unknown_kid_does_not_hurry_a_provider_that_fails() -> None:
    state = after(after(State(), START, fetched("a")), START + HOUR, Failed("down"))
    assert unknown_kid(state, START + HOUR) == state
    assert unknown_kid(State(), START) == State()


OUTCOMES = st.one_of(
    st.builds(
        lambda kids, fresh: Fetched(keys(*kids), fresh),
        st.sets(st.sampled_from("abc"), min_size=1),
        st.none() | st.timedeltas(timedelta(), timedelta(days=2)),
    ),
    st.builds(Unchanged, st.none() | st.timedeltas(timedelta(), timedelta(days=2))),
    st.just(Failed("down")),
    st.none(),
)
STEPS = st.lists(st.tuples(st.timedeltas(timedelta(), timedelta(hours=3)), OUTCOMES), max_size=30)


@examples(200)
@given(STEPS)
def test_whatever_happens(steps: list[tuple[timedelta, Outcome | None]]) -> None:
    """Only what a provider published is accepted, never longer than a day after it last was; hints are rate-limited."""
    state, now, last_seen, brought_forward = State(), START, {}, []
    for passed, outcome in steps:
        now += passed
        if outcome is None:
            before, state = state, unknown_kid(state, now)
            if state != before:
                brought_forward.append(now)
        else:
            if isinstance(outcome, Unchanged) and state.confirmed is not None:
                last_seen |= dict.fromkeys(state.keys.keys, now)
            elif isinstance(outcome, Fetched):
                last_seen |= dict.fromkeys([*state.keys.keys, *outcome.keys.keys], now)
            state = after(state, now, outcome)
            assert state.next_fetch is not None
            assert timedelta(seconds=5) <= state.next_fetch - now <= LONGEST
        for kid in accepted(state, now).keys:
            assert kid in state.keys.keys or now < last_seen[kid] + LONGEST
    for earlier, later in itertools.pairwise(brought_forward):
        assert later - earlier >= REPORT_INTERVAL
