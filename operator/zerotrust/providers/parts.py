"""The parts of a signed JWT as text and as JSON, read so strictly that no two readers can differ about them.

RFC 7515 §3.1 (compact serialization), RFC 8725 §2.4 and §3.2; the same rules as `zerotrust.authz.tokens` in Rego.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

MAX_CHARACTERS = 16_384
MAX_BRACKETS = 512

_NOT_UNICODE = re.compile("[\ud800-\udfff\ufffd]")
_SECONDS = re.compile(r"([0-9]{1,12})(?:\.[0-9]{1,9})?")

Object = Mapping[str, object]


class Number(str):
    """A JSON number as it is written: nobody has rounded it, and it is not as large as its exponent says."""

    __slots__ = ()


class Malformed(ValueError):
    """The text is no JWT in compact serialization that every reader would read the same."""


@dataclass(frozen=True)
class Parts:
    """A decoded JWT; nothing of it is verified. `signed` are the octets that the signature is over."""

    header: Object
    claims: Object
    signed: bytes
    signature: bytes


def decode(raw: str) -> Parts:
    """Take a JWT apart; Malformed does not quote it.

    Refused besides what is no JWT: base64url that could be written otherwise, a member that stands twice, the escape
    `\\u0022` and U+FFFD (for which Rego cannot tell the former two apart), and more than 512 brackets in a part.
    """
    segments = raw.split(".") if len(raw) <= MAX_CHARACTERS else []
    if len(segments) != 3:
        raise Malformed
    header, claims, signature = map(_octets, segments)
    return Parts(_object(header), _object(claims), raw.rpartition(".")[0].encode(), signature)


def seconds(value: object) -> int | None:
    """A NumericDate (RFC 7519 §2) in whole seconds since 1970; None for anything else, and for numbers with exponents."""
    written = _SECONDS.fullmatch(value) if isinstance(value, Number) else None
    return int(written[1]) if written else None


def is_text(value: object) -> bool:
    """Tell whether a value is a JSON string."""
    return isinstance(value, str) and not isinstance(value, Number)


def _octets(segment: str) -> bytes:
    try:
        octets = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except (binascii.Error, ValueError):
        raise Malformed from None
    if base64.urlsafe_b64encode(octets).rstrip(b"=") != segment.encode():
        raise Malformed
    return octets


def _object(octets: bytes) -> Object:
    try:
        text = octets.decode("utf-8")
        if text.count("{") + text.count("[") > MAX_BRACKETS or r"\u0022" in text:
            raise Malformed
        value = json.loads(
            text, object_pairs_hook=_once, parse_int=Number, parse_float=Number, parse_constant=_no_constant
        )
    except (ValueError, RecursionError):
        raise Malformed from None
    if not isinstance(value, dict) or _NOT_UNICODE.search(json.dumps(value, ensure_ascii=False)):
        raise Malformed
    return value


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise Malformed
    return members


def _no_constant(_: str) -> NoReturn:
    raise Malformed
