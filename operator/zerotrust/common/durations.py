"""Durations in Go syntax (`24h`, `1h30m`, `90s`), as kubectl users and CEL's `duration()` write them.

Go: https://pkg.go.dev/time#ParseDuration. Units finer than a millisecond are left out on purpose: no lifetime needs them.
"""

import re
from datetime import timedelta

PATTERN = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"
MAX_LENGTH = 32

_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")
_WHOLE = re.compile(PATTERN)
_UNITS = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
}


def parse(text: str) -> timedelta:
    """Return the duration that `text` (Go syntax) names; ValueError says what to write instead."""
    if len(text) > MAX_LENGTH or not _WHOLE.fullmatch(text):
        raise ValueError(f"{text[:MAX_LENGTH]!r} is not a duration; write for example 24h, 90m or 1h30m")
    try:
        return sum((float(number) * _UNITS[unit] for number, unit in _PART.findall(text)), timedelta())
    except OverflowError:
        raise ValueError(f"{text!r} is longer than any duration that can be used; write for example 8760h") from None


def render(duration: timedelta) -> str:
    """Return the shortest Go form of `duration`, rounded to whole seconds: `24h`, `1h30m`, `0s`."""
    seconds = round(duration.total_seconds())
    sign, seconds = ("-", -seconds) if seconds < 0 else ("", seconds)
    hours, rest = divmod(seconds, 3600)
    minutes, seconds = divmod(rest, 60)
    parts = [f"{value}{unit}" for value, unit in ((hours, "h"), (minutes, "m"), (seconds, "s")) if value]
    return sign + ("".join(parts) or "0s")
