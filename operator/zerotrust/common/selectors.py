"""Label selectors as users write them, which never mean "everything" by being empty."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from zerotrust.common.resource import LABEL_KEY, AccountName, AsMap, DnsLabel, LabelValue, Resource, Rule

LabelKey = Annotated[str, Field(min_length=1, max_length=317, pattern=LABEL_KEY)]
Labels = Annotated[dict[str, LabelValue], Field(max_length=16), AsMap]


class LabelExpression(Resource):
    """One requirement on a label."""

    key: LabelKey = Field(description="Label that the requirement is about.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = Field(description="How the label relates to values.")
    values: list[LabelValue] | None = Field(
        default=None, max_length=16, description="Values for In and NotIn; absent otherwise."
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(self.operator in ['In', 'NotIn']) == (has(self.values) && self.values.size() > 0)",
            "values belongs to In and NotIn, with at least one entry, and to nothing else",
            lambda self: (self.operator in ("In", "NotIn")) == bool(self.values),
        ),
    )

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Tell whether the labels meet the requirement (Kubernetes: NotIn also holds where the label is absent)."""
        values = self.values or []
        match self.operator:
            case "In":
                return labels.get(self.key) in values
            case "NotIn":
                return labels.get(self.key) not in values
            case "Exists":
                return self.key in labels
            case _:
                return self.key not in labels


class LabelSelector(Resource):
    """A non-empty selection by labels; all requirements hold together."""

    match_labels: Labels | None = Field(
        default=None, description="Labels that must be there with exactly these values."
    )
    match_expressions: list[LabelExpression] | None = Field(
        default=None, max_length=16, description="Further requirements on labels."
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(has(self.matchLabels) && self.matchLabels.size() > 0) ||"
            " (has(self.matchExpressions) && self.matchExpressions.size() > 0)",
            "an empty selector is refused, because it would mean everything; write matchLabels or matchExpressions",
            lambda self: bool(self.match_labels) or bool(self.match_expressions),
        ),
    )

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Tell whether an object with these labels is selected."""
        wanted = self.match_labels or {}
        return all(labels.get(key) == value for key, value in wanted.items()) and all(
            expression.matches(labels) for expression in self.match_expressions or []
        )


class Port(Resource):
    """A destination port."""

    port: int = Field(ge=1, le=65535, description="Port number.")
    protocol: Literal["TCP", "UDP", "SCTP"] = Field(default="TCP", description="Transport protocol.")


class WorkloadReference(Resource):
    """A ServiceIdentity, by name and namespace."""

    name: AccountName = Field(description="Name of the ServiceIdentity.")
    namespace: DnsLabel = Field(description="Its namespace.")
