"""Short texts out of foreign bodies: bounded, printable, or nothing."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from zerotrust.common import times
from zerotrust.pki.spiffe import InvalidSpiffeID, SpiffeID

_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]{0,251}[A-Za-z0-9])?")
_REVISION = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_KEY_ID = re.compile(r"[A-Za-z0-9]{8,32}")
_METHOD = re.compile(r"[A-Z]{1,16}")


def code(value: object) -> str:
    """A stable code such as `no_grant`, else nothing."""
    return value if isinstance(value, str) and _CODE.fullmatch(value) else ""


def name(value: object) -> str:
    """The name of an object or a bundle, else nothing."""
    return value if isinstance(value, str) and _NAME.fullmatch(value) else ""


def revision(value: object) -> str:
    """A revision or an identifier of at most 128 characters, else nothing."""
    return value if isinstance(value, str) and _REVISION.fullmatch(value) else ""


def key_id(value: object) -> str:
    """The public part of an API key, else nothing; a whole key has a dot in it and is none."""
    return value if isinstance(value, str) and _KEY_ID.fullmatch(value) else ""


def method(value: object) -> str:
    """An HTTP method, else nothing."""
    return value if isinstance(value, str) and _METHOD.fullmatch(value) else ""


def spiffe_id(value: object) -> SpiffeID | None:
    """A SPIFFE ID of a workload, else None."""
    try:
        found = SpiffeID.parse(value) if isinstance(value, str) else None
    except InvalidSpiffeID:
        return None
    return found if found and found.path else None


def moment(value: object) -> datetime | None:
    """An RFC 3339 time, else None; Go's zero time counts as none."""
    found = times.parse_or_none(value)
    return found if found and found.year > 1970 else None


def member(value: object, key: str) -> Any:
    """A member of a mapping; None when it is not there, or when this is no mapping."""
    return value.get(key) if isinstance(value, Mapping) else None
