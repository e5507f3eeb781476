"""The base of every resource model: what a user may write, in one place.

From a model come the CRD's schema, its CEL rules, the reference page, and the parser that the controller and the offline
commands use. A rule is written once, with its CEL text and the same check in Python side by side.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv6Address, ip_address
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from zerotrust.common import durations, times
from zerotrust.common.errors import SpecError
from zerotrust.common.merge import without_nulls


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


def exactly_one(*names: str) -> str:
    """The CEL text for `exactly one of these fields is there`."""
    return " + ".join(f"(has(self.{name}) ? 1 : 0)" for name in names) + " == 1"


def count_of(*values: object) -> int:
    """How many of the values are there."""
    return sum(value is not None for value in values)


def is_address_range(text: str) -> bool:
    """Like Kubernetes' isCIDR: no IPv4 address in IPv6 clothes, and no zeros before the length."""
    address, _, length = text.partition("/")
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    mapped = isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None
    return not mapped and length == str(int(length)) and int(length) <= parsed.max_prefixlen


class Resource(BaseModel):
    """A frozen object of the API; unknown fields are refused, because a typo must never widen anything."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,  # the API server reads neither "443" as a number nor "yes" as a boolean
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
    )
    rules: ClassVar[tuple[Rule, ...]] = ()
    refuses_null: ClassVar[bool] = False

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, body: Any) -> Any:
        """Drop the nulls of known fields like the API server, for which `duration:` with nothing after it is unset.

        Where that would widen something, as `until:` does with nothing after it, `refuses_null` makes it an error; the CRD then
        says `nullable`, or the API server would drop the null before anybody sees it.
        """
        if not isinstance(body, Mapping):
            return body
        known = {field.alias for field in cls.model_fields.values()}
        empty = sorted(str(key) for key, value in body.items() if value is None and key in known)
        if empty and cls.refuses_null:
            raise _rule_broken(f"{empty[0]} has nothing after it; write a value, or leave the field out")
        return {key: value for key, value in body.items() if value is not None or key not in known}

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
        if cls.refuses_null:
            for field in described["properties"].values():
                field["nullable"] = True
        if cls.rules:
            described["x-kubernetes-validations"] = [rule.as_validation() for rule in cls.rules]
        return described


# Go counts nanoseconds and Python microseconds: with three decimals of any unit both read exactly the same duration.
DURATION = r"^([0-9]+(\.[0-9]{1,3})?(ms|s|m|h))+$"
_DURATION = re.compile(DURATION)

# The API server takes any two digits for the parts of an offset.
TIMESTAMP = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?"
    r"(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$"
)
_TIMESTAMP = re.compile(TIMESTAMP)


@dataclass(frozen=True)
class Between:
    """Makes a `timedelta` a duration in Go syntax between two bounds: `Annotated[timedelta, Between("1h", "24h")]`."""

    shortest: str
    longest: str

    def read(self, value: Any) -> timedelta:
        """Read a duration; the error says what to write."""
        if isinstance(value, timedelta):
            duration = value
        elif isinstance(value, str):
            try:
                duration = durations.parse(value)
            except ValueError as error:
                raise _rule_broken(str(error)) from None
            if not _DURATION.fullmatch(value):
                raise _rule_broken("must have at most three decimals and nothing after the unit, for example 1.5h")
        else:
            raise _rule_broken("must be a duration in quotes, for example 24h")
        if not durations.parse(self.shortest) <= duration <= durations.parse(self.longest):
            raise _rule_broken(self.message)
        return duration

    @property
    def message(self) -> str:
        """What a user is told."""
        return f"must be between {self.shortest} and {self.longest}"

    def __get_pydantic_core_schema__(self, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        serialization = core_schema.plain_serializer_function_ser_schema(durations.render)
        return core_schema.no_info_plain_validator_function(self.read, serialization=serialization)

    def __get_pydantic_json_schema__(self, _schema: CoreSchema, _handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        pattern = DURATION.replace("\\", "\\\\")
        return {
            "type": "string",
            "pattern": DURATION,
            "maxLength": durations.MAX_LENGTH,
            "x-kubernetes-validations": [
                {
                    "rule": f"!self.matches('{pattern}') ||"
                    f" (duration(self) >= duration('{self.shortest}') && duration(self) <= duration('{self.longest}'))",
                    "message": self.message,
                }
            ],
        }


# Python has the years 1 to 9999 only, and year 9999 is how a certificate says that it never expires (RFC 5280 §4.1.2.5).
# The API server checks no type where there is a format and takes a list; a rule refuses that too, as it cannot compare it.
EARLIEST = datetime(1000, 1, 1, tzinfo=UTC)
TIME_RANGE = Rule(
    "self >= timestamp('1000-01-01T00:00:00Z') && self <= timestamp('9999-12-31T23:59:59.999999999Z')",
    "must be a time between the years 1000 and 9999, for example 2026-12-31T00:00:00Z",
    lambda moment: moment >= EARLIEST,
)


class _TimestampSchema:
    def __get_pydantic_json_schema__(self, _schema: CoreSchema, _handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {
            "type": "string",
            "format": "date-time",
            "pattern": TIMESTAMP,
            "maxLength": 64,
            "x-kubernetes-validations": [TIME_RANGE.as_validation()],
        }


def _read_time(value: Any) -> datetime:
    if isinstance(value, datetime) and value.tzinfo is not None:
        moment = value
    elif isinstance(value, str):
        try:
            moment = times.parse(value)
        except ValueError as error:
            raise _rule_broken(str(error)) from None
        if not _TIMESTAMP.fullmatch(value):
            raise _rule_broken("must have hours up to 23 and nothing after the zone, for example 2026-12-31T00:00:00Z")
    else:
        raise _rule_broken("must be an RFC 3339 time in quotes, for example 2026-12-31T00:00:00Z")
    if moment < EARLIEST:
        raise _rule_broken(TIME_RANGE.message)
    return moment


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):  # to Python, and so to a Literal, 1 is True
        raise _rule_broken("must be true")
    return value


OnlyTrue = Annotated[Literal[True], BeforeValidator(_boolean)]
AsMap = BeforeValidator(without_nulls)
"""Reads a map of strings like the API server, which drops the keys whose value is null."""

Timestamp = Annotated[datetime, BeforeValidator(_read_time), PlainSerializer(times.render), _TimestampSchema()]

LABEL_VALUE = r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"
LABEL_KEY = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
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
        return model.model_validate(body, by_alias=True, by_name=False)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        reason = "UnknownField" if first["type"] == "extra_forbidden" else "InvalidSpec"
        raise SpecError(_path(path, first["loc"]), _sentence(first, model), reason) from None


def _path(base: str, location: tuple[int | str, ...]) -> str:
    text = base
    for part in location:
        if part == "[key]":
            continue
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text


def _sentence(error: Any, model: type[Resource]) -> str:
    context = error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            fields = ", ".join(sorted(_fields(_model_at(model, error["loc"][:-1]))))
            return f"is not a field of this resource; remove it or correct its name: there are {fields}"
        case "missing":
            return "is required"
        case "literal_error":
            return f"must be one of {context['expected']}"
        case "string_pattern_mismatch":
            return f"must match {context['pattern']}"
        case _:
            text = str(error["msg"])
            return text[:1].lower() + text[1:]


def _fields(model: type[Resource]) -> dict[str, Any]:
    """The fields of a model as users write them, with their types."""
    return {field.alias or name: field.annotation for name, field in model.model_fields.items()}


def _model_at(model: type[Resource], location: tuple[int | str, ...]) -> type[Resource]:
    """The model of the object at a place; places in lists and maps are those of the field that has them."""
    for part in location:
        model = next(_models(_fields(model).get(str(part))), model)
    return model


def _models(annotation: Any) -> Iterator[type[Resource]]:
    """The models in a type such as `list[Peer] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, Resource):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)
