"""The parts of a status that every kind shares."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from pydantic import Field

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


class ViolationsStatus(Resource):
    """What Gatekeeper's audit found; it keeps 20 violations of each constraint and tells no times."""

    total: int = Field(default=0, ge=0, description="How many it names.")
    examples: list[ViolationExample] = Field(default=[], max_length=3, description="Some of them.")


def violations_of(found: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Return the status of violations, `(object, message)`; the same ones always make the same status."""
    listed = sorted(found)
    examples = [{"object": thing, "message": text} for thing, text in listed[:MAX_EXAMPLES]]
    return {"total": len(listed), "examples": examples}


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
