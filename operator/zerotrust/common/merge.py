"""JSON merge patches (RFC 7396)."""

from collections.abc import Mapping
from typing import Any


def without_nulls(value: Any) -> Any:
    """Return what a merge patch leaves when it is applied to nothing: the same value without its nulls."""
    if isinstance(value, Mapping):
        return {key: without_nulls(part) for key, part in value.items() if part is not None}
    if isinstance(value, list):
        return [without_nulls(part) for part in value]
    return value
