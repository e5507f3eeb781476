"""The base of every resource model: what a user may write, in one place.

From a model come the CRD's schema, its CEL rules, the reference page, and the parser that the controller and the offline
commands use. A rule is written once, with its CEL text and the same check in Python side by side.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PlainSerializer,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from zerotrust.common import durations, times
from zerotrust.common.errors import SpecError


@dataclass(frozen=True)
class Rule:
    """A rule across fields, enforced by the API server (CEL) and by the model (`holds`).

    `holds` is None for a rule that compares with the old object: only the API server knows that one.
    """

    cel: str
    message: str
    holds: Callable[[Any], bool] | None = None

    def as_validation(self) -> dict[str, str]:
        """The rule as an entry of `x-kubernetes-validations`."""
        return {"rule": self.cel, "message": self.message}


def _rule_broken(message: str) -> PydanticCustomError:
    return PydanticCustomError("rule", "{message}", {"message": message})


class Resource(BaseModel):
    """A frozen object of the API; unknown fields are refused, because a typo must never widen anything."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, validate_by_name=True, validate_by_alias=True
    )
    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _keeps_its_rules(self) -> Self:
        for rule in self.rules:
            if rule.holds is not None and not rule.holds(self):
                raise _rule_broken(rule.message)
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Add the model's rules to its schema, where the CRD generator picks them up."""
        described = handler.resolve_ref_schema(handler(schema))
        for name, field in cls.model_fields.items():
            if isinstance(field.default, timedelta):  # pydantic would write ISO 8601
                described["properties"][field.alias or name]["default"] = durations.render(field.default)
        if cls.rules:
            described["x-kubernetes-validations"] = [rule.as_validation() for rule in cls.rules]
        return described


@dataclass(frozen=True)
class _DurationType:
    """A duration between two bounds; in the schema a string with a pattern and a CEL rule."""

    minimum: timedelta
    maximum: timedelta

    def read(self, value: Any) -> timedelta:
        if isinstance(value, timedelta):
            duration = value
        elif isinstance(value, str):
            try:
                duration = durations.parse(value)
            except ValueError as error:
                raise _rule_broken(str(error)) from None
        else:
            raise _rule_broken("must be a duration in quotes, for example 24h")
        if not self.minimum <= duration <= self.maximum:
            raise _rule_broken(self.message)
        return duration

    @property
    def message(self) -> str:
        return f"must be between {durations.render(self.minimum)} and {durations.render(self.maximum)}"

    def __get_pydantic_json_schema__(self, _schema: CoreSchema, _handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        low, high = durations.render(self.minimum), durations.render(self.maximum)
        return {
            "type": "string",
            "pattern": durations.PATTERN,
            "maxLength": durations.MAX_LENGTH,
            "x-kubernetes-validations": [
                {
                    "rule": f"!self.matches('{durations.PATTERN.replace(chr(92), chr(92) * 2)}') || "
                    f"(duration(self) >= duration('{low}') && duration(self) <= duration('{high}'))",
                    "message": self.message,
                }
            ],
        }


def duration_between(minimum: str, maximum: str) -> Any:
    """Return the annotated type of a duration field with these bounds (Go syntax)."""
    kind = _DurationType(durations.parse(minimum), durations.parse(maximum))
    return Annotated[timedelta, BeforeValidator(kind.read), PlainSerializer(durations.render), kind]


class _TimestampSchema:
    def __get_pydantic_json_schema__(self, _schema: CoreSchema, _handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "format": "date-time", "pattern": times.PATTERN, "maxLength": 64}


def _read_time(value: Any) -> datetime:
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str):
        raise _rule_broken("must be an RFC 3339 time in quotes, for example 2026-12-31T00:00:00Z")
    try:
        return times.parse(value)
    except ValueError as error:
        raise _rule_broken(str(error)) from None


Timestamp = Annotated[datetime, BeforeValidator(_read_time), PlainSerializer(times.render), _TimestampSchema()]

LABEL_VALUE = r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"
LABEL_KEY = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
DNS_SUBDOMAIN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"

LabelValue = Annotated[str, Field(max_length=63, pattern=LABEL_VALUE)]
DnsLabel = Annotated[str, Field(min_length=1, max_length=63, pattern=DNS_LABEL)]
AccountName = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
SubdomainName = Annotated[str, Field(min_length=1, max_length=253, pattern=DNS_SUBDOMAIN)]


Model = TypeVar("Model", bound=Resource)


def parse(model: type[Model], body: Mapping[str, Any], path: str) -> Model:
    """Return `body` as the model; a SpecError names the first field that cannot be used, below `path`."""
    try:
        return model.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise SpecError(_path(path, first["loc"]), _sentence(first)) from None


def _path(base: str, location: tuple[int | str, ...]) -> str:
    text = base
    for part in location:
        if part == "[key]":
            continue
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text


def _sentence(error: Any) -> str:
    context = error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            return "is not a field of this resource; remove it or correct its name"
        case "missing":
            return "is required"
        case "literal_error":
            return f"must be one of {context['expected']}"
        case "string_pattern_mismatch":
            return f"must match {context['pattern']}"
        case _:
            text = str(error["msg"])
            return text[:1].lower() + text[1:]
