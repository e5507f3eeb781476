"""Built-ins of Rego that OPA's WebAssembly modules take from their host, in Python: those that decisions need.

Source: OPA docs/docs/policy-reference, and v1/topdown for what is undefined.
"""

import base64
import hashlib
import hmac
import json
import re
import urllib.parse
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry


class Undefined(Exception):
    """The built-in has no value for these arguments."""


class Builtins:
    """All of them at one time; what is missing fails loudly."""

    def __init__(self) -> None:
        self.now_ns = 0
        self._known: dict[str, Callable[..., Any]] = {
            "base64url.encode_no_pad": _base64url,
            "crypto.hmac.equal": lambda one, other: hmac.compare_digest(_bytes(one), _bytes(other)),
            "crypto.sha256": lambda text: hashlib.sha256(_bytes(text)).hexdigest(),
            "io.jwt.decode_verify": _decode_verify,
            "object.subset": _is_subset,
            "regex.find_n": _find_n,
            "regex.replace": _replace,
            "strings.count": lambda text, part: text.count(part),
            "time.clock": lambda when: [(at := _moment(when)).hour, at.minute, at.second],
            "time.now_ns": lambda: self.now_ns,
            "time.weekday": lambda when: f"{_moment(when):%A}",
            "urlquery.decode": _decoded,
        }

    def call(self, name: str, *arguments: Any) -> Any:
        """The value of a built-in; Undefined where it has none, NotImplementedError where there is no such built-in here."""
        if name not in self._known:
            raise NotImplementedError(f"the host has no {name}: write it in tests/support/wasm_builtins.py")
        return self._known[name](*arguments)


def _bytes(text: str) -> bytes:
    """A text of Rego, which may be any bytes (wasm.py)."""
    return text.encode(errors="surrogateescape")


def _base64url(text: str) -> str:
    return base64.urlsafe_b64encode(_bytes(text)).rstrip(b"=").decode()


def _decoded(text: str) -> str:
    """Go's url.QueryUnescape, which refuses a lone percent sign."""
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise Undefined
    return urllib.parse.unquote_plus(text, errors="replace")


def _find_n(pattern: str, text: str, most: int) -> list[str]:
    found = [one[0] for one in re.finditer(pattern, text, re.ASCII)]
    return found if most < 0 else found[:most]


def _replace(text: str, pattern: str, template: str) -> str:
    """Go's ReplaceAllString, whose templates have groups as `$1`."""
    return re.sub(
        pattern, lambda found: re.sub(r"\$(\d)", lambda group: found[int(group[1])], template), text, flags=re.ASCII
    )


def _is_subset(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(
        key in one and (_is_subset(one[key], value) if isinstance(value, dict) else one[key] == value)
        for key, value in other.items()
    )


def _moment(when: list[Any]) -> datetime:
    nanoseconds, zone = when
    try:
        place = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError):
        raise Undefined from None
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=nanoseconds // 1000)).astimezone(place)


def _decode_verify(raw: str, constraints: dict[str, Any]) -> list[Any]:
    """The signature only: the rules have judged audience and times before they ask."""
    try:
        key = JWKRegistry.import_key(json.loads(constraints["cert"]))
        found = jws.deserialize_compact(raw, key, algorithms=[constraints["alg"]])
    except (JoseError, ValueError):
        return [False, {}, {}]
    return [True, found.headers(), json.loads(found.payload)]
