"""RFC 3339 times, as Kubernetes writes them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerotrust.common import times

ZONES = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes)))
MOMENTS = st.datetimes(datetime(1000, 1, 2), datetime(9999, 12, 30), timezones=ZONES)  # noqa: DTZ001 - timezones= adds it
NOON = datetime(2026, 12, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-12-31T12:00:00Z", NOON),
        ("2026-12-31T12:00:00+00:00", NOON),
        ("2026-12-31T12:00:00-00:00", NOON),
        ("2026-12-31T14:30:00+02:30", NOON),
        ("2027-01-01T02:00:00+14:00", NOON),
        ("2026-12-31T12:00:00.5Z", NOON + timedelta(milliseconds=500)),
        ("2026-12-31T12:00:00.123456789+00:00", NOON + timedelta(microseconds=123456)),
        ("2026-12-31T12:00:00.0000009Z", NOON),
        ("2028-02-29T00:00:00Z", datetime(2028, 2, 29, tzinfo=UTC)),
        ("9999-12-31T23:59:59Z", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
    ],
)
def test_parse(text: str, moment: datetime) -> None:
    assert times.parse(text) == moment
    assert times.parse(text).tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    [
        *("", "now", "2026-12-31", "2026-12-31T12:00Z", "2026-12-31T12:00:00", "2026-12-31 12:00:00Z", "20261231T120000Z"),
        *("2026-12-31t12:00:00Z", "2026-12-31T12:00:00z", " 2026-12-31T12:00:00Z", "2026-12-31T12:00:00.Z"),
        *("2026-12-31T12:00:00,5Z", "2026-12-31T12:00:00.1234567890Z", "2026-12-31T12:00:00+0100", "2026-W53-4T12:00:00Z"),
        *("12026-12-31T12:00:00Z", "-2026-12-31T12:00:00Z", "\u0662026-12-31T12:00:00Z"),
    ],
)  # fmt: skip
def test_what_is_no_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="is not an RFC 3339 time; write for example 2026-12-31T00:00:00Z"):
        times.parse(text)
    assert times.parse_or_none(text) is None


@pytest.mark.parametrize(
    "text",
    [
        *("2026-02-30T00:00:00Z", "2027-02-29T00:00:00Z", "2026-13-01T00:00:00Z", "2026-00-01T00:00:00Z"),
        *("2026-12-31T25:00:00Z", "2026-12-31T23:60:00Z", "2026-12-31T23:59:60Z", "2026-12-31T00:00:00+24:00"),
        *("0000-01-01T00:00:00Z", "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"),
    ],
)
def test_what_is_on_no_calendar_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="is not a date of the calendar; write for example 2026-12-31T00:00:00Z"):
        times.parse(text)
    assert times.parse_or_none(text) is None


@given(MOMENTS)
def test_what_is_rendered_reads_the_same_to_the_second(moment: datetime) -> None:
    assert times.parse(times.render(moment)) == times.whole_seconds(moment)


@given(MOMENTS)
def test_the_form_is_that_of_kubernetes(moment: datetime) -> None:
    text = times.render(moment)
    assert len(text) == len("2026-12-31T00:00:00Z")
    assert text.endswith("Z")
    assert times.render(times.parse(text)) == text


@given(MOMENTS, MOMENTS)
def test_the_order_of_texts_is_the_order_of_times(one: datetime, other: datetime) -> None:
    if times.render(one) < times.render(other):
        assert one < other


@given(MOMENTS)
def test_every_digit_of_a_fraction_and_every_zone_is_understood(moment: datetime) -> None:
    # Python writes the same syntax; two zeros more make the nine digits that Go writes.
    zone = moment.strftime("%z")
    text = f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond:06}000{zone[:3]}:{zone[3:5]}"
    assert times.parse(text) == moment


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        times.parse(text)
    except ValueError as error:
        refusal = str(error)
    else:
        return
    assert "write for example 2026-12-31T00:00:00Z" in refusal


@pytest.mark.parametrize("value", [None, 0, 1.5, [], {}, NOON])
def test_what_is_no_text_is_no_time(value: object) -> None:
    assert times.parse_or_none(value) is None


def test_whole_seconds_drops_the_fraction_and_never_rounds_up() -> None:
    assert times.whole_seconds(NOON + timedelta(microseconds=999_999)) == NOON


def test_the_end_of_all_years_is_not_rounded_up() -> None:
    assert times.next_whole_second(times.parse("9999-12-31T23:59:59.5Z")) == times.parse("9999-12-31T23:59:59Z")
