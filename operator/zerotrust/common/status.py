"""The parts of a status that every kind shares."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Literal, NamedTuple

from pydantic import Field

from zerotrust.common import times
from zerotrust.common.plan import Event
from zerotrust.common.resource import Resource, Timestamp

MAX_EXAMPLES = 3


class ConditionStatus(Resource):
    """One observation about the object (Kubernetes API conventions)."""

    type: str = Field(max_length=316, description="What the condition is about.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    reason: str = Field(default="", max_length=1024, description="Why, as one CamelCase word.")
    message: str = Field(default="", max_length=32768, description="Why, for people.")
    observed_generation: int | None = Field(default=None, description="Generation of the spec that was judged.")
    last_transition_time: Timestamp | None = Field(default=None, description="When status last changed.")


class ViolationExample(Resource):
    """An object that is there although a Gatekeeper constraint is against it."""

    object: str = Field(max_length=317, description="Kind and name.")
    message: str = Field(default="", max_length=512, description="What is wrong with it, and what to write instead.")
    found_at: Timestamp | None = Field(
        default=None,
        description="When the controller first saw it; absent for what was there before the controller started.",
    )


class ViolationsStatus(Resource):
    """What Gatekeeper's audit found; it keeps 20 violations of each constraint."""

    total: int = Field(default=0, ge=0, description="How many it names.")
    examples: list[ViolationExample] = Field(default=[], max_length=3, description="The newest of them.")


class Finding(NamedTuple):
    """Something that is against a constraint; `since` is when it was seen to appear, None when it was there already."""

    object: str
    message: str
    since: datetime | None = None


def violations_of(found: Iterable[Finding], told: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the status of violations, newest first; the same ones make the same status, also after a restart.

    `told` is what the status says now: Gatekeeper tells no times, so they are kept there.
    """
    known = {(one["object"], one["message"]): one.get("foundAt") for one in (told or {}).get("examples") or ()}
    listed = []
    for one in sorted(found, key=lambda one: one[:2]):
        at = known.get(one[:2]) or (times.render(one.since) if one.since is not None else "")
        example = {"object": one.object, "message": one.message, **({"foundAt": at} if at else {})}
        listed.append((at, one[:2] in known, example))
    listed.sort(key=lambda one: one[:2], reverse=True)  # whose time nobody knows: those that were told, then by name
    return {"total": len(listed), "examples": [example for _, _, example in listed[:MAX_EXAMPLES]]}


def news_of_violations(told: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> Iterator[Event]:
    """One event for each example that the status did not name before."""
    before = [(one["object"], one["message"]) for one in (told or {}).get("examples") or ()]
    for one in (now or {}).get("examples") or ():
        if (one["object"], one["message"]) not in before:
            yield Event("Warning", "Violation", f"{one['object']}: {one['message']}")


Conditions = list[ConditionStatus]


def conditions_field() -> Conditions:
    """The field for a status' conditions: a list keyed by type, so that several writers could merge it."""
    field: Conditions = Field(
        default=[],
        max_length=32,
        description="What is true about the resource now.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    return field
