"""What a TrustDomain tells about the keys of its identity providers."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from zerotrust.common import times
from zerotrust.common.conditions import Condition, false, true, unknown

CONDITION = "IdentityProvidersReady"


@dataclass(frozen=True)
class ProviderKeys:
    """What is known of one provider's keys.

    `until` is when decision points cease to accept them, None while there are none; `problem` says why they cannot be
    fetched, without anything secret; `unusable` says what is wrong with keys that stand in the resource.
    """

    name: str
    until: datetime | None = None
    problem: str = ""
    unusable: str = ""


def condition(providers: Sequence[ProviderKeys], now: datetime) -> Condition:
    """Tell of the worst that is wrong with any provider, of the first in the spec's order."""
    for check in (_unusable, _stale, _failing, _fetching):
        for one in providers:
            found = check(one, now)
            if found is not None:
                return found
    return true(CONDITION, "KeysKnown", f"decision points have the keys of {', '.join(one.name for one in providers)}")


def ends(providers: Sequence[ProviderKeys]) -> list[datetime]:
    """When the clock alone changes the condition."""
    return [one.until for one in providers if one.until is not None]


def _unusable(one: ProviderKeys, _: datetime) -> Condition | None:
    return false(CONDITION, "UnusableKeys", f"{one.name}: {one.unusable}") if one.unusable else None


def _stale(one: ProviderKeys, now: datetime) -> Condition | None:
    if one.until is None or now < one.until:
        return None
    why = f": {one.problem}" if one.problem else ""
    message = f"{one.name}: none of its tokens is accepted since {times.render(one.until)}, its keys are too old{why}"
    return false(CONDITION, "Stale", message)


def _failing(one: ProviderKeys, _: datetime) -> Condition | None:
    if not one.problem:
        return None
    left = f"its last keys are used until {times.render(one.until)}" if one.until else "none of its tokens is accepted"
    return false(CONDITION, "FetchFailed", f"{one.name}: {one.problem}; {left}")


def _fetching(one: ProviderKeys, _: datetime) -> Condition | None:
    if one.unusable or one.problem or one.until is not None:
        return None
    return unknown(CONDITION, "Fetching", f"{one.name}: its keys are being fetched for the first time")
