"""Durations in Go syntax, as `time.ParseDuration` reads them (https://pkg.go.dev/time#ParseDuration)."""

from datetime import timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerotrust.common import durations

WHOLE = st.integers(0, 10**9).map(lambda seconds: timedelta(seconds=seconds))
MILLISECONDS = {"h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
PARTS = st.lists(
    st.tuples(st.integers(0, 9999), st.none() | st.from_regex(r"[0-9]{1,3}", fullmatch=True), st.sampled_from([*MILLISECONDS])),
    min_size=1,
    max_size=3,
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("24h", timedelta(hours=24)),
        ("1h30m", timedelta(minutes=90)),
        ("90m", timedelta(minutes=90)),
        ("1.5h", timedelta(minutes=90)),
        ("1h1h", timedelta(hours=2)),
        ("30m1h", timedelta(minutes=90)),
        ("0s", timedelta()),
        ("007s", timedelta(seconds=7)),
        ("250ms", timedelta(milliseconds=250)),
        ("0.001ms", timedelta(microseconds=1)),
        ("8760h", timedelta(days=365)),
        ("175200h", timedelta(days=7300)),
    ],
)
def test_parse(text: str, duration: timedelta) -> None:
    assert durations.parse(text) == duration


@pytest.mark.parametrize(
    "text",
    ["", "24", "h", "-1h", "+1h", " 1h", "1h ", "1 h", "1H", "1d", "1w", "1us", "1ns", ".5h", "1.h", "1,5h", "1e3h", "1h30"],
)  # fmt: skip
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration; write for example 24h, 90m or 1h30m"):
        durations.parse(text)


@pytest.mark.parametrize("text", ["\u0661h", "\uff11h"])
def test_only_ascii_digits_count(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        durations.parse(text)


def test_a_newline_is_not_part_of_a_duration() -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        durations.parse("24h\n")


def test_length_is_bounded_and_a_long_text_is_not_repeated() -> None:
    assert durations.parse("0" * (durations.MAX_LENGTH - 2) + "1h") == timedelta(hours=1)
    with pytest.raises(ValueError, match="is not a duration") as caught:
        durations.parse("1h" * 10_000)
    assert len(str(caught.value)) < 120


def test_a_number_beyond_every_calendar_is_refused() -> None:
    with pytest.raises(ValueError, match="is longer than any duration that can be used; write for example 8760h"):
        durations.parse("9" * 31 + "h")


@given(WHOLE)
def test_what_is_rendered_reads_the_same(duration: timedelta) -> None:
    assert durations.parse(durations.render(duration)) == duration


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        durations.parse(text)
    except ValueError as error:
        refusal = str(error)
    else:
        return
    assert "write for example" in refusal


@given(PARTS)
def test_parts_add_up_exactly(parts: list[tuple[int, str | None, str]]) -> None:
    text = "".join(f"{whole}.{decimals}{unit}" if decimals else f"{whole}{unit}" for whole, decimals, unit in parts)
    exact = sum(
        (Fraction(f"{whole}.{decimals or 0}") * MILLISECONDS[unit] for whole, decimals, unit in parts), Fraction()
    )
    assert durations.parse(text) / timedelta(microseconds=1) == exact * 1000


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(), "0s"),
        (timedelta(hours=24), "24h"),
        (timedelta(days=365), "8760h"),
        (timedelta(minutes=90), "1h30m"),
        (timedelta(seconds=3601), "1h1s"),
        (timedelta(seconds=59), "59s"),
        (timedelta(minutes=-90), "-1h30m"),
        (timedelta(milliseconds=1600), "2s"),
    ],
)
def test_render_is_the_shortest_form(duration: timedelta, text: str) -> None:
    assert durations.render(duration) == text
