"""Everything the fake API server says no with: typed refusals that become `Status` objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .resources import Object, ResourceType

REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    406: "NotAcceptable",
    409: "Conflict",
    410: "Expired",
    413: "RequestEntityTooLarge",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


@dataclass(frozen=True)
class Cause:
    """One field that is wrong; `reason` is one of the API server's FieldValue… words."""

    field: str
    reason: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


class Refused(Exception):
    """The API server refuses a request; `code` is the HTTP status, `status` the body that says why."""

    def __init__(self, code: int, message: str, *, reason: str | None = None, details: Object | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.status: Object = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "code": code,
        }
        if reason := REASONS.get(code, "") if reason is None else reason:
            self.status["reason"] = reason
        if details is not None:
            self.status["details"] = details


class NoSuchPage(Refused):
    """404 outside of everything that knows Status objects: plain text."""

    def __init__(self) -> None:
        super().__init__(404, "404 page not found\n")


def _named(resource: ResourceType, name: str, kind: str | None = None) -> Object:
    """The details of a refusal. What `kind` means differs from one to the next: mostly it is the plural."""
    named = {"name": name, "group": resource.group, "kind": kind or resource.plural}
    return {field: value for field, value in named.items() if value}


def not_found(resource: ResourceType, name: str) -> Refused:
    return Refused(404, f'{resource.qualified} "{name}" not found', details=_named(resource, name))


def already_exists(resource: ResourceType, name: str) -> Refused:
    message = f'{resource.qualified} "{name}" already exists'
    return Refused(409, message, reason="AlreadyExists", details=_named(resource, name))


def conflict(resource: ResourceType, name: str, why: str, kind: str | None = None) -> Refused:
    message = f'Operation cannot be fulfilled on {resource.qualified} "{name}": {why}'
    return Refused(409, message, details=_named(resource, name, kind))


def stale(resource: ResourceType, name: str) -> Refused:
    """Optimistic locking: the writer has not seen the newest version."""
    return conflict(
        resource,
        name,
        "the object has been modified; please apply your changes to the latest version and try again",
    )


def terminating(resource: ResourceType, name: str, namespace: str) -> Refused:
    why = f"unable to create new content in namespace {namespace} because it is being terminated"
    cause = Cause("metadata.namespace", "NamespaceTerminating", f"namespace {namespace} is being terminated")
    details = {**_named(resource, name), "causes": _written([cause])}
    return Refused(403, f'{resource.qualified} "{name}" is forbidden: {why}', details=details)


def invalid(resource: ResourceType, name: str, causes: Sequence[Cause], kind: str | None = None) -> Refused:
    title = f"{resource.kind}.{resource.group}" if resource.group else resource.kind
    listed = str(causes[0]) if len(causes) == 1 else f"[{', '.join(map(str, causes))}]"
    details = {**_named(resource, name, kind or resource.kind), "causes": _written(causes)}
    return Refused(422, f'{title} "{name}" is invalid: {listed}', details=details)


def undecodable_patch(why: str) -> Refused:
    """What a patch makes of an object does not fit the type of the object."""
    cause = Cause("patch", "FieldValueInvalid", f"Invalid value: {why}")
    return Refused(422, f' "" is invalid: {cause}', details={"causes": _written([cause])})


def _written(causes: Sequence[Cause]) -> list[Object]:
    return [{"reason": cause.reason, "message": cause.message, "field": cause.field} for cause in causes]


def no_such_resource() -> Refused:
    return Refused(404, "the server could not find the requested resource", details={})


def method_not_allowed() -> Refused:
    return Refused(405, "the server does not allow this method on the requested resource", details={})


def expired_continue() -> Refused:
    return Refused(410, "The provided continue parameter is too old to display a consistent list result.")


def too_old(asked: int, oldest: int) -> Refused:
    return Refused(410, f"too old resource version: {asked} ({oldest})")


def unsupported(what: str) -> Refused:
    """Louder than guessing: the real server can do it, the fake does not, and the test should not rely on it."""
    return Refused(501, f"the fake API server does not implement {what}", reason="NotImplemented")
