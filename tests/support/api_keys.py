"""API keys and their records, good by default; made without the operator's own code, which is what they judge."""

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

from tests.support.certificates import NOW
from tests.support.rego import SERVER

SECONDS = int(NOW.timestamp())
DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def an_id(number: int) -> str:
    """The ID of that number: 12 characters."""
    written = ""
    for _ in range(12):
        number, digit = divmod(number, len(DIGITS))
        written = DIGITS[digit] + written
    return written


def a_key(identifier: str = "Partner00001", secret: str = "a secret") -> str:
    """The key of that ID; its 32 octets are made of any text."""
    octets = base64.urlsafe_b64encode(hashlib.sha256(secret.encode()).digest()).rstrip(b"=").decode()
    return checked(f"sk_{identifier}.{octets}")


def checked(start: str) -> str:
    """With the check behind it that belongs there."""
    return start + hashlib.sha256(start.encode()).hexdigest()[:8]


def hash_of(key: str) -> str:
    return f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"


def a_record(key: str, **changes: Any) -> dict[str, Any]:
    """What a bundle says of a key that SERVER accepts for a day around NOW."""
    return {
        "hash": hash_of(key),
        "name": "partner",
        "scopes": ["read", "write"],
        "audience": [SERVER],
        "not_before": SECONDS - 43_200,
        "not_after": SECONDS + 43_200,
        **changes,
    }


def a_principal(name: str = "", *scopes: str) -> Mapping[str, Any]:
    """What a row that asks for a key has as `principal`."""
    return {"kind": "key", "name": name, "scopes": list(scopes)}
