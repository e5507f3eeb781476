"""Label and field selectors in the API server's string syntax."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from .refusals import Refused

_SET_BASED = re.compile(r"^(?P<key>\S+)\s+(?P<operator>in|notin)\s*\((?P<values>[^()]*)\)$")
_EQUALITY = re.compile(r"^(?P<key>[^=!\s]+)\s*(?P<operator>==|=|!=)\s*(?P<value>[^=!\s]*)$")
_EXISTENCE = re.compile(r"^(?P<absent>!?)\s*(?P<key>[^=!\s(),]+)$")
_COMMA_OUTSIDE_PARENTHESES = re.compile(r",(?![^(]*\))")

_HOLDS: dict[str, Callable[[str | None, frozenset[str]], bool]] = {
    "in": lambda value, values: value in values,
    # An object without the key satisfies "is not one of", as everywhere in Kubernetes.
    "notin": lambda value, values: value not in values,
    "exists": lambda value, _: value is not None,
    "absent": lambda value, _: value is None,
}


@dataclass(frozen=True)
class Requirement:
    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def holds(self, values: Mapping[str, str]) -> bool:
        return _HOLDS[self.operator](values.get(self.key), self.values)


@dataclass(frozen=True)
class Selection:
    """Which objects of one type a LIST or WATCH is about."""

    namespace: str | None = None
    labels: tuple[Requirement, ...] = ()
    fields: tuple[Requirement, ...] = ()

    @property
    def is_filtered(self) -> bool:
        return bool(self.labels or self.fields)

    def matches(self, body: Mapping[str, Any]) -> bool:
        metadata = body["metadata"]
        if self.namespace is not None and metadata.get("namespace") != self.namespace:
            return False
        if not self.is_filtered:
            return True
        labels = metadata.get("labels") or {}
        phase = (body.get("status") or {}).get("phase", "")
        regarding = body.get("regarding") or {}
        fields = {
            "metadata.name": metadata["name"],
            "metadata.namespace": metadata.get("namespace", ""),
            "status.phase": phase,
            **{f"regarding.{name}": regarding.get(name, "") for name in ("kind", "name")},
        }
        return all(it.holds(labels) for it in self.labels) and all(it.holds(fields) for it in self.fields)


def parse_labels(text: str) -> tuple[Requirement, ...]:
    """Parse `a=b,c!=d,e in (f,g),h notin (i),j,!k`; raises 400 as the API server does."""
    return tuple(_parse_requirement(part.strip()) for part in _COMMA_OUTSIDE_PARENTHESES.split(text)) if text else ()


def _parse_requirement(text: str) -> Requirement:
    if found := _SET_BASED.match(text):
        return Requirement(
            found["key"], found["operator"], frozenset(value.strip() for value in found["values"].split(","))
        )
    if found := _EQUALITY.match(text):
        return Requirement(found["key"], "notin" if found["operator"] == "!=" else "in", frozenset({found["value"]}))
    if found := _EXISTENCE.match(text):
        return Requirement(found["key"], "absent" if found["absent"] else "exists")
    raise Refused(400, f"unable to parse requirement: {text!r}")


def parse_fields(text: str, further: Collection[str] = ()) -> tuple[Requirement, ...]:
    """Parse `metadata.name=x,metadata.namespace!=y`; other fields but the kind's further ones are refused with 400."""
    requirements = []
    for part in filter(None, text.split(",")):
        found = _EQUALITY.match(part.strip())
        if not found:
            raise Refused(400, f"invalid selector: {text!r}; can't understand {part!r}")
        if found["key"] not in ("metadata.name", "metadata.namespace", *further):
            raise Refused(400, f"field label not supported: {found['key']}")
        operator = "notin" if found["operator"] == "!=" else "in"
        requirements.append(Requirement(found["key"], operator, frozenset({found["value"]})))
    return tuple(requirements)
