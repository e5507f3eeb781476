"""RFC 3339 timestamps as Kubernetes writes them: UTC, whole seconds, `Z`."""

import re
from datetime import UTC, datetime, timedelta

PATTERN = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})$"
_WHOLE = re.compile(PATTERN)
_LAST = datetime.max.replace(microsecond=0, tzinfo=UTC)


def parse(text: str) -> datetime:
    """Return the aware UTC time that the RFC 3339 `text` names; ValueError says what to write instead."""
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is not an RFC 3339 time; write for example 2026-12-31T00:00:00Z")
    whole, _, fraction = text.partition(".")
    if fraction:  # Python takes six digits of a fraction, RFC 3339 allows any number
        digits = re.match(r"[0-9]+", fraction)
        assert digits is not None
        text = f"{whole}.{digits.group()[:6]:0<6}{fraction[digits.end() :]}"
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(
            f"{text[:40]!r} is not a date of the calendar; write for example 2026-12-31T00:00:00Z"
        ) from None


def parse_or_none(text: object) -> datetime | None:
    """Return the time that `text` names, or None when it names none."""
    try:
        return parse(text) if isinstance(text, str) else None
    except ValueError:
        return None


def render(moment: datetime) -> str:
    """Return `moment` as Kubernetes' `metav1.Time`: `2026-12-31T00:00:00Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def whole_seconds(moment: datetime) -> datetime:
    """Drop the fraction: certificates and Kubernetes times count whole seconds (RFC 5280 §4.1.2.5)."""
    return moment.replace(microsecond=0)


def next_whole_second(moment: datetime) -> datetime:
    """Round up to a whole second; what is one already stays, and so does the last one of year 9999."""
    whole = whole_seconds(moment)
    return whole if whole in (moment, _LAST) else whole + timedelta(seconds=1)
