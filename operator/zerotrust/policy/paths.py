"""Request paths and the patterns that match them.

A path that a server could read in two ways is refused, because a Deny for one reading would not stop the other: escapes that
decode to another escape or to a separator, dot segments, empty segments, backslashes, matrix parameters, control characters.
"""

import re
from functools import lru_cache

_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
_BROKEN_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_ESCAPED_SEPARATOR = re.compile(rb"%(2[Ff]|5[Cc]|00)")
# U+FFFD is what other readers make of octets that are no UTF-8.
_AMBIGUOUS = re.compile(r"[\x00-\x20\x7f-\x9f\\;#%?\ufffd]")
MAX_PATH = 8192


def segments(path: str) -> tuple[str, ...] | None:
    """Return the decoded segments of a request's path (RFC 3986 §3.3), or None when it is ambiguous and must be denied.

    The query, from the first `?` on, takes no part; neither does one slash at the end.
    """
    raw = path.partition("?")[0]
    if not raw.startswith("/") or len(raw) > MAX_PATH:
        return None
    try:
        octets = raw.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return None
    if _BROKEN_ESCAPE.search(octets) or _ESCAPED_SEPARATOR.search(octets):
        return None
    try:
        decoded = _ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), octets).decode()
    except UnicodeDecodeError:
        return None
    if _AMBIGUOUS.search(decoded):
        return None
    parts = tuple(decoded.removesuffix("/").split("/")[1:])
    return None if any(part in ("", ".", "..") for part in parts) else parts


@lru_cache(maxsize=65536)
def _pattern(pattern: str) -> tuple[str, ...]:
    return tuple(pattern.removesuffix("/").split("/")[1:])


def matches(pattern: str, parts: tuple[str, ...]) -> bool:
    """Tell whether a pattern matches decoded segments: `*` stands for one segment, `**` for any number of them."""
    wanted = _pattern(pattern)
    if "**" not in wanted:
        return len(wanted) == len(parts) and all(one in ("*", part) for one, part in zip(wanted, parts, strict=True))
    # After reading some segments, `reached` holds every position in the pattern where the match may stand.
    reached = _skip(wanted, {0})
    for part in parts:
        moved = set()
        for position in reached:
            if position < len(wanted):
                if wanted[position] == "**":
                    moved.add(position)
                elif wanted[position] in ("*", part):
                    moved.add(position + 1)
        reached = _skip(wanted, moved)
    return len(wanted) in reached


def _skip(wanted: tuple[str, ...], positions: set[int]) -> set[int]:
    """Also stand behind each `**`, which may match nothing."""
    reached = set(positions)
    for position in sorted(positions):
        while position < len(wanted) and wanted[position] == "**":
            position += 1
            reached.add(position)
    return reached
