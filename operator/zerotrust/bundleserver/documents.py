"""Public documents: SPIFFE trust bundles and JWKS, as somebody else provides them."""

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Protocol


class DocumentKind(StrEnum):
    """What there is for each trust domain."""

    SPIFFE_BUNDLE = "spiffe-bundle"
    JWKS = "jwks"


@dataclass(frozen=True)
class Document:
    """A public document; `max_age` is for how many seconds a client may keep it without asking again."""

    body: bytes
    max_age: int
    content_type: str = "application/json"

    @cached_property
    def etag(self) -> str:
        """Its entity tag, from its content."""
        return f'"{hashlib.sha256(self.body).hexdigest()}"'


class DocumentProvider(Protocol):
    """Has the documents."""

    def document(self, kind: DocumentKind, trust_domain: str) -> Document | None:
        """The document of a trust domain, or None when there is none."""


def matches(header: str, etag: str) -> bool:
    """Whether If-None-Match names this tag (RFC 9110 §13.1.2, weak comparison)."""
    return any(member.strip().removeprefix("W/") in ("*", etag) for member in header.split(",")[:64])
