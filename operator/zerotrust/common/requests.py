"""What annotations of a resource ask for, beside its spec: a tool that deploys the spec from git does not take them back."""

from collections.abc import Iterator
from datetime import datetime

from zerotrust.common import times
from zerotrust.common.conditions import Condition, true
from zerotrust.common.observed import Meta
from zerotrust.common.resource import EARLIEST


def asked_at(meta: Meta, annotation: str) -> datetime | None:
    """Return the time that an annotation names; None where it is absent or names none (see `unreadable`)."""
    moment = times.parse_or_none(meta.annotations.get(annotation))
    return moment if moment is not None and moment >= EARLIEST else None


def unreadable(meta: Meta, *annotations: str) -> Iterator[Condition]:
    """Tell of the first annotation that names no time and so does nothing; nothing while all is well."""
    for name in annotations:
        if name in meta.annotations and asked_at(meta, name) is None:
            text = f"metadata.annotations: {name} is no time, and does nothing; write for example 2026-12-31T00:00:00Z"
            yield true("RequestUnreadable", "NotATime", text)
            return
