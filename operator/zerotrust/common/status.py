"""The parts of a status that every kind shares."""

from typing import Literal

from pydantic import Field

from zerotrust.common.resource import Resource, Timestamp


class ConditionStatus(Resource):
    """One observation about the object (Kubernetes API conventions)."""

    type: str = Field(max_length=316, description="What the condition is about.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    reason: str = Field(default="", max_length=1024, description="Why, as one CamelCase word.")
    message: str = Field(default="", max_length=32768, description="Why, for people.")
    observed_generation: int | None = Field(default=None, description="Generation of the spec that was judged.")
    last_transition_time: Timestamp | None = Field(default=None, description="When status last changed.")


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
