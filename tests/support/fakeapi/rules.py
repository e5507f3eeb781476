"""What the API fills in and refuses, kind by kind, as far as an operator can run into it: pure functions."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from .refusals import Cause, Refused
from .resources import (
    CONFIG_MAPS,
    CUSTOM_RESOURCE_DEFINITIONS,
    EVENTS,
    LEASES,
    NAMESPACES,
    SECRETS,
    Object,
    ResourceType,
)
from .versions import same

_LABEL = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
_SUBDOMAIN = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
_QUALIFIED_NAME = re.compile(r"^([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$")
_MICRO_TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d)$")
_MEBIBYTE = 1024 * 1024
_MAX_ANNOTATIONS = 256 * 1024

SUBDOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
    "and must start and end with an alphanumeric character"
)
LABEL_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
    "and must start and end with an alphanumeric character"
)


def invalid_value(field: str, value: object, why: str) -> Cause:
    return Cause(field, "FieldValueInvalid", f"Invalid value: {json.dumps(value)}: {why}")


def required(field: str, why: str = "") -> Cause:
    return Cause(field, "FieldValueRequired", f"Required value{f': {why}' if why else ''}")


def too_long(field: str, limit: int) -> Cause:
    return Cause(field, "FieldValueTooLong", f"Too long: may not be more than {limit} bytes")


def forbidden_value(field: str, why: str) -> Cause:
    return Cause(field, "FieldValueForbidden", f"Forbidden: {why}")


# Decoding: what never reaches validation, because it does not fit the type (400), and what is filled in.


def decode(resource: ResourceType, body: Object) -> None:
    """Bring a proposed object into the form in which it is stored; raises 400 where it does not fit the type."""
    metadata = body["metadata"]
    for field in ("labels", "annotations", "ownerReferences", "finalizers"):
        if not metadata.get(field, True):
            del metadata[field]
    for field in ("managedFields", "selfLink"):
        metadata.pop(field, None)
    for field in ("labels", "annotations"):
        if not all(isinstance(value, str) for value in metadata.get(field, {}).values()):
            raise Refused(400, f"{resource.kind} in version {resource.version}: metadata.{field} holds a non-string")
    if decoder := _DECODERS.get(resource):
        decoder(body)


def _decode_secret(body: Object) -> None:
    written = {
        key: base64.b64encode(text.encode()).decode() for key, text in (body.pop("stringData", None) or {}).items()
    }
    _drop_if_empty(body, "data")
    if written:
        body["data"] = {**body.get("data", {}), **written}
    if "data" in body:
        body["data"] = {key: value or "" for key, value in body["data"].items()}
    for key, value in body.get("data", {}).items():
        try:
            base64.b64decode(value, validate=True)
        except (binascii.Error, TypeError, ValueError) as error:
            raise Refused(400, f"Secret in version v1 cannot be handled as a Secret: data.{key}: {error}") from error
    body.setdefault("type", "Opaque")


def _decode_config_map(body: Object) -> None:
    for field in ("data", "binaryData"):
        _drop_if_empty(body, field)
    if not all(isinstance(value, str) for value in body.get("data", {}).values()):
        raise Refused(400, "ConfigMap in version v1 cannot be handled as a ConfigMap: data holds a non-string")


def _decode_namespace(body: Object) -> None:
    body["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = body["metadata"]["name"]
    body.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])
    body.setdefault("status", {}).setdefault("phase", "Active")


def _decode_lease(body: Object) -> None:
    if spec := body.get("spec"):
        body["spec"] = _with_micro_times(spec, "acquireTime", "renewTime")


def _decode_event(body: Object) -> None:
    body.update(_with_micro_times(body, "eventTime"))
    if series := body.get("series"):
        body["series"] = _with_micro_times(series, "lastObservedTime")
    for field in ("deprecatedFirstTimestamp", "deprecatedLastTimestamp"):
        body.setdefault(field, None)
    for field in ("deprecatedSource", "regarding"):
        body.setdefault(field, {})


def _with_micro_times(values: Object, *fields: str) -> Object:
    """Times with exactly six digits after the point, as these kinds take them, in UTC."""
    given = {field: values[field] for field in fields if values.get(field) is not None}
    for field, value in given.items():
        if not _MICRO_TIME.match(value):
            raise Refused(400, f"cannot parse {field}: {value!r}")
        given[field] = datetime.fromisoformat(value).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {**values, **given}


def _drop_if_empty(body: Object, field: str) -> None:
    if not body.get(field, True):
        del body[field]


_DECODERS: dict[ResourceType, Callable[[Object], None]] = {
    SECRETS: _decode_secret,
    CONFIG_MAPS: _decode_config_map,
    NAMESPACES: _decode_namespace,
    LEASES: _decode_lease,
    EVENTS: _decode_event,
}


# Validation: what a request is refused for with 422.


def wrong(resource: ResourceType, body: Object) -> list[Cause]:
    """Everything that is wrong with an object by itself."""
    causes = list(_wrong_metadata(resource, body["metadata"]))
    if validator := _VALIDATORS.get(resource):
        causes.extend(validator(body))
    return causes


def wrong_change(resource: ResourceType, old: Object, new: Object) -> list[Cause]:
    """Everything that is wrong with replacing `old` by `new`."""
    causes = list(_wrong_metadata_change(old["metadata"], new["metadata"]))
    if validator := _CHANGE_VALIDATORS.get(resource):
        causes.extend(validator(old, new))
    return causes


def _wrong_metadata(resource: ResourceType, metadata: Mapping[str, Any]) -> Iterator[Cause]:
    name = metadata.get("name", "")
    if resource == NAMESPACES:
        if len(name) > 63 or not _LABEL.match(name):
            yield invalid_value("metadata.name", name, LABEL_RULE)
    elif len(name) > 253 or not _SUBDOMAIN.match(name):
        yield invalid_value("metadata.name", name, SUBDOMAIN_RULE)
    for key, value in metadata.get("labels", {}).items():
        if not _is_qualified(key):
            yield invalid_value(
                "metadata.labels", key, "name part must consist of alphanumeric characters, '-', '_' or '.'"
            )
        if len(value) > 63 or (value and not _QUALIFIED_NAME.match(value)):
            yield invalid_value(
                "metadata.labels",
                value,
                "a label is empty or consists of at most 63 alphanumeric characters, '-', '_' or '.'",
            )
    for key in metadata.get("annotations", {}):
        if not _is_qualified(key.lower()):
            yield invalid_value(
                "metadata.annotations", key, "name part must consist of alphanumeric characters, '-', '_' or '.'"
            )
    if sum(len(key) + len(value) for key, value in metadata.get("annotations", {}).items()) > _MAX_ANNOTATIONS:
        yield too_long("metadata.annotations", _MAX_ANNOTATIONS)
    yield from _wrong_owners(metadata.get("ownerReferences", []))


def _wrong_owners(references: list[Mapping[str, Any]]) -> Iterator[Cause]:
    for index, reference in enumerate(references):
        for field in ("apiVersion", "kind", "name", "uid"):
            if not reference.get(field):
                yield required(f"metadata.ownerReferences[{index}].{field}", f"{field} must not be empty")
    if sum(bool(reference.get("controller")) for reference in references) > 1:
        yield invalid_value("metadata.ownerReferences", None, "Only one reference can have Controller set to true")


def _is_qualified(key: str) -> bool:
    prefix, slash, name = key.rpartition("/")
    return bool(len(name) <= 63 and _QUALIFIED_NAME.match(name) and (not slash or _SUBDOMAIN.match(prefix)))


def _wrong_metadata_change(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Cause]:
    for field in ("uid", "deletionTimestamp", "deletionGracePeriodSeconds"):
        if new.get(field) != old.get(field):
            yield invalid_value(f"metadata.{field}", new.get(field), "field is immutable")
    added = set(new.get("finalizers", [])) - set(old.get("finalizers", []))
    if "deletionTimestamp" in old and added:
        yield forbidden_value(
            "metadata.finalizers",
            f"no new finalizers can be added if the object is being deleted, found new finalizers {sorted(added)}",
        )


def _wrong_secret(body: Object) -> Iterator[Cause]:
    data = body.get("data", {})
    if body["type"] == "kubernetes.io/tls":
        yield from (required(f"data[{key}]") for key in ("tls.crt", "tls.key") if key not in data)
    yield from _wrong_data_keys(data)
    if sum(len(base64.b64decode(value)) for value in data.values()) > _MEBIBYTE:
        yield too_long("data", _MEBIBYTE)


def _wrong_config_map(body: Object) -> Iterator[Cause]:
    text, binary = body.get("data", {}), body.get("binaryData", {})
    yield from _wrong_data_keys({**text, **binary})
    if (
        sum(len(value.encode()) for value in text.values()) + sum(len(value) * 3 // 4 for value in binary.values())
        > _MEBIBYTE
    ):
        yield too_long("", _MEBIBYTE)


def _wrong_data_keys(data: Mapping[str, Any]) -> Iterator[Cause]:
    for key in data:
        if not re.fullmatch(r"[-._a-zA-Z0-9]{1,253}", key) or key == "." or key.startswith(".."):
            yield invalid_value(
                f"data[{key}]", key, "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
            )


def _wrong_event(body: Object) -> Iterator[Cause]:
    """The rules of events.k8s.io/v1, which are stricter than those of core events."""
    if not body.get("eventTime"):
        yield required("eventTime")
    for field in ("reportingController", "reportingInstance", "reason", "action"):
        if not body.get(field):
            yield required(field)
        elif len(body[field]) > 128:
            yield invalid_value(field, "", "can have at most 128 characters")
    if body.get("type") not in ("Normal", "Warning"):
        yield invalid_value("type", body.get("type", ""), "has invalid value")
    if len(body.get("note", "")) > 1024:
        yield invalid_value("message", "", "can have at most 1024 characters")
    if (series := body.get("series")) and series.get("count", 0) < 2:
        yield invalid_value("series.count", "", "should be at least 2")
    if (series := body.get("series")) and not series.get("lastObservedTime"):
        yield required("series.lastObservedTime")
    if not _is_qualified(body.get("reportingController") or ""):
        yield invalid_value("reportingController", body.get("reportingController"), "must be a qualified name")
    about = (body.get("regarding") or {}).get("namespace")
    if not about and body["metadata"]["namespace"] not in ("default", "kube-system"):
        yield invalid_value("involvedObject.namespace", about, "does not match event.namespace")


def _wrong_lease(body: Object) -> Iterator[Cause]:
    spec = body.get("spec") or {}
    if spec.get("leaseDurationSeconds", 1) <= 0:
        yield invalid_value("spec.leaseDurationSeconds", spec["leaseDurationSeconds"], "must be greater than 0")
    if spec.get("leaseTransitions", 0) < 0:
        yield invalid_value("spec.leaseTransitions", spec["leaseTransitions"], "must be greater than or equal to 0")


def _wrong_definition(body: Object) -> Iterator[Cause]:
    expected = f"{body['spec']['names']['plural']}.{body['spec']['group']}"
    if body["metadata"]["name"] != expected:
        yield invalid_value("metadata.name", body["metadata"]["name"], 'must be spec.names.plural+"."+spec.group')


def _wrong_data_change(old: Object, new: Object) -> Iterator[Cause]:
    if old.get("immutable"):
        if not new.get("immutable"):
            yield forbidden_value("immutable", "field is immutable when `immutable` is set")
        for field in ("data", "binaryData"):
            if not same(old.get(field), new.get(field)):
                yield forbidden_value(field, "field is immutable when `immutable` is set")


def _wrong_secret_change(old: Object, new: Object) -> Iterator[Cause]:
    if old["type"] != new["type"]:
        yield invalid_value("type", new["type"], "field is immutable")
    yield from _wrong_data_change(old, new)


def _wrong_event_change(old: Object, new: Object) -> Iterator[Cause]:
    for field in sorted((old.keys() | new.keys()) - {"metadata", "series"}):
        if not same(old.get(field), new.get(field)):
            yield invalid_value({"note": "message"}.get(field, field), new.get(field), "field is immutable")


_VALIDATORS: dict[ResourceType, Callable[[Object], Iterator[Cause]]] = {
    SECRETS: _wrong_secret,
    CONFIG_MAPS: _wrong_config_map,
    EVENTS: _wrong_event,
    LEASES: _wrong_lease,
    CUSTOM_RESOURCE_DEFINITIONS: _wrong_definition,
}
_CHANGE_VALIDATORS: dict[ResourceType, Callable[[Object, Object], Iterator[Cause]]] = {
    SECRETS: _wrong_secret_change,
    CONFIG_MAPS: _wrong_data_change,
    EVENTS: _wrong_event_change,
}
