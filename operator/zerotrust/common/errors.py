"""Errors that name the place and say what to write instead."""

from dataclasses import dataclass


class ZerotrustError(Exception):
    """Anything the operator reports by name; the message is fit for a user's eyes and never holds a secret value."""


@dataclass
class SpecError(ZerotrustError):
    """A field of a resource cannot be used as it stands.

    `path` is the field as a user would write it (`spec.certificate.duration`), `message` says what to write, `reason` is the
    word for it in a condition: InvalidSpec or UnknownField.
    """

    path: str
    message: str
    reason: str = "InvalidSpec"

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class SelfCheckFailed(ZerotrustError):
    """Something the operator made did not pass its own checks, so it was not written."""
