"""Status conditions in Kubernetes' format, kstatus-compatible.

`Reconciling` and `Stalled` are abnormal-true: they are present only while they are true.
Source: Kubernetes API conventions, "Typical status properties"; kstatus' condition rules.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from zerotrust.common import times

Status = Literal["True", "False", "Unknown"]
MAX_MESSAGE = 1024
MAX_NAMED = 3


@dataclass(frozen=True, slots=True)
class Condition:
    """One observation about an object; `reason` is CamelCase vocabulary, `message` is for people."""

    type: str
    status: Status
    reason: str
    message: str = ""


def true(type_: str, reason: str, message: str = "") -> Condition:
    """The condition holds."""
    return Condition(type_, "True", reason, message)


def false(type_: str, reason: str, message: str = "") -> Condition:
    """The condition does not hold."""
    return Condition(type_, "False", reason, message)


def unknown(type_: str, reason: str, message: str = "") -> Condition:
    """Nobody can say yet."""
    return Condition(type_, "Unknown", reason, message)


def some(named: Sequence[str], separator: str = "; ") -> str:
    """Name the first few, and say how many more there are: a message is read by people."""
    more = f" (and {len(named) - MAX_NAMED} more)" if len(named) > MAX_NAMED else ""
    return separator.join(named[:MAX_NAMED]) + more


def merge(
    observed: Sequence[Mapping[str, Any]], wanted: Iterable[Condition], generation: int, now: datetime
) -> list[dict[str, Any]]:
    """Return the condition list to write: `wanted` in its own order, each keeping its transition time while its status stays.

    An observed condition that is not wanted any more is dropped: the list says what is true now and nothing else.
    """
    before = {condition.get("type"): condition for condition in observed}
    merged = []
    for condition in wanted:
        old = before.get(condition.type, {})
        same = old.get("status") == condition.status and old.get("lastTransitionTime")
        merged.append(
            {
                "type": condition.type,
                "status": condition.status,
                "reason": condition.reason,
                "message": condition.message[:MAX_MESSAGE],
                "observedGeneration": generation,
                "lastTransitionTime": old["lastTransitionTime"] if same else times.render(now),
            }
        )
    return merged


def find(observed: Sequence[Mapping[str, Any]], type_: str) -> Mapping[str, Any] | None:
    """Return the condition of that type, or None."""
    return next((condition for condition in observed if condition.get("type") == type_), None)
