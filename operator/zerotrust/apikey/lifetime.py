"""What the clock has made of an ApiKey's key in use, in one word: told by what is remembered of it, not by a status."""

from datetime import datetime
from typing import Literal

from zerotrust.apikey.memory import Memory
from zerotrust.apikey.resource import ApiKeySpec
from zerotrust.apikey.rotation import lifetime_end, rotation_time

State = Literal["missing", "valid", "expiring", "expired", "ending", "ended", "suspended"]


def state(uid: str, spec: ApiKeySpec, memory: Memory | None, now: datetime) -> State:
    """Say where the newest delivered key stands.

    `expiring` and `expired` are of keys that should have been replaced; `ending` and `ended` follow from `notAfter`, the one an
    overlap before it.
    """
    if spec.state == "Suspended":
        return "suspended"
    if spec.not_after is not None and now >= spec.not_after:
        return "ended"
    current = memory.newest_delivered if memory is not None else None
    if current is None or current.revoked is not None:
        return "missing"
    end, overlap = lifetime_end(current, spec), spec.rotation.overlap
    if now >= end:
        return "expired"
    if spec.not_after is not None and now >= spec.not_after - overlap:
        return "ending"
    due = max(end - overlap, rotation_time(uid, current, spec.rotation.interval))
    return "expiring" if now >= due else "valid"
