"""SPIFFE IDs: parsing, building and the one derivation that turns a ServiceAccount into an identity.

Source: SPIFFE-ID.md sections 2.1 to 2.4 (rules S1 to S7 of the conformance suite).
"""

import re
from dataclasses import dataclass
from typing import Self

MAX_ID_BYTES = 2048
MAX_TRUST_DOMAIN_BYTES = 255

_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]+")
_SEGMENT = re.compile(r"[a-zA-Z0-9._-]+")


class InvalidSpiffeID(ValueError):
    """The text is not a SPIFFE ID; the message says which rule it breaks."""


@dataclass(frozen=True, slots=True, order=True)
class SpiffeID:
    """A SPIFFE ID; `path` is empty for a trust domain's own ID, otherwise it starts with `/`."""

    trust_domain: str
    path: str = ""

    def __post_init__(self) -> None:
        _check_trust_domain(self.trust_domain)
        _check_path(self.path)
        if len(str(self)) > MAX_ID_BYTES:
            raise InvalidSpiffeID(f"a SPIFFE ID has at most {MAX_ID_BYTES} bytes")

    def __str__(self) -> str:
        return f"spiffe://{self.trust_domain}{self.path}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a SPIFFE ID; scheme and trust domain are case-insensitive, the path is not (section 2.4)."""
        if not text.isascii():
            raise InvalidSpiffeID("a SPIFFE ID is ASCII")
        scheme, separator, rest = text.partition("://")
        if scheme.lower() != "spiffe" or not separator:
            raise InvalidSpiffeID("a SPIFFE ID starts with spiffe://")
        trust_domain, slash, path = rest.partition("/")
        return cls(trust_domain.lower(), slash + path)

    @classmethod
    def of_service_account(cls, trust_domain: str, namespace: str, service_account: str, cluster: str = "") -> Self:
        """Derive a workload's ID: `spiffe://<td>/ns/<ns>/sa/<sa>`, with `/cluster/<name>` before it where one is set.

        There is no other way to an ID: nobody can type one.
        """
        for name in (namespace, service_account, cluster or "-"):
            _check_segment(name)
        prefix = f"/cluster/{cluster}" if cluster else ""
        return cls(trust_domain, f"{prefix}/ns/{namespace}/sa/{service_account}")


def _check_trust_domain(name: str) -> None:
    if len(name) > MAX_TRUST_DOMAIN_BYTES:
        raise InvalidSpiffeID(f"a trust domain has at most {MAX_TRUST_DOMAIN_BYTES} bytes")
    if not _TRUST_DOMAIN.fullmatch(name):
        raise InvalidSpiffeID("a trust domain is made of a-z, 0-9, dot, dash and underscore, and is not empty")


def _check_path(path: str) -> None:
    if not path:
        return
    if not path.startswith("/"):
        raise InvalidSpiffeID("a path begins with a slash")
    for segment in path[1:].split("/"):
        _check_segment(segment)


def _check_segment(segment: str) -> None:
    if segment in (".", "..") or not _SEGMENT.fullmatch(segment):
        raise InvalidSpiffeID(
            "path segments are made of letters, digits, dot, dash and underscore, and are not empty, '.' or '..'"
        )
