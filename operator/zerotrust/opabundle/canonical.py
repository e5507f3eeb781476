"""JSON with one spelling: equal values give equal bytes, and OPA's structured digest of them is the digest of the bytes.

Source: OPA v1/bundle/hash.go `walk`: keys sorted by UTF-8 bytes, no white space, Go's `encoding/json` without HTML escaping.
"""

import json
from typing import Any

from zerotrust.common.errors import ZerotrustError

# Go escapes these two even with HTML escaping off, because JavaScript takes them for line ends.
_LINE_ENDS = str.maketrans({"\u2028": "\\u2028", "\u2029": "\\u2029"})


class NotCanonical(ZerotrustError):
    """A value has no single spelling, or bytes are not the single spelling of theirs; the message names the place."""


def encode(value: Any) -> bytes:
    """Write objects with text keys, lists, tuples, text, whole numbers, booleans and None.

    NotCanonical names the path of anything else: a float (1e3 and 1000 would be equal but hash differently), a key that
    is not text, half a surrogate pair.
    """
    try:
        _check(value, ())
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    except (ValueError, RecursionError):
        raise NotCanonical("the document is too long or too deep to be written") from None
    try:
        return text.translate(_LINE_ENDS).encode() if not text.isascii() else text.encode()
    except UnicodeEncodeError as error:
        place = text[max(0, error.start - 20) : error.start]
        raise NotCanonical(f"half a surrogate pair after {place!r}") from None


def decode(text: bytes) -> Any:
    """Read what `encode` wrote, and nothing else: other spellings, duplicate keys and floats raise NotCanonical."""
    try:
        value = json.loads(text.decode())
        canonical = encode(value)
    except (ValueError, RecursionError) as error:
        raise NotCanonical(f"not JSON in UTF-8: {type(error).__name__}") from None
    if canonical != text:
        raise NotCanonical("not the canonical spelling of its value")
    return value


def _check(value: Any, path: tuple[str, ...]) -> None:
    match value:
        case str() | bool() | int() | None:
            return
        case dict():
            for key, inner in value.items():
                if not isinstance(key, str):
                    raise NotCanonical(f"{_named(path)}: the key {key!r} is not text")
                if not isinstance(inner, str):
                    _check(inner, (*path, key))
        case list() | tuple():
            for index, inner in enumerate(value):
                if not isinstance(inner, str):
                    _check(inner, (*path, str(index)))
        case _:
            raise NotCanonical(f"{_named(path)}: {type(value).__name__} has no canonical form")


def _named(path: tuple[str, ...]) -> str:
    return ".".join(path) or "the document"
