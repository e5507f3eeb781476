"""Why a new key is made: a chain of small pure checks. The first that speaks is what a user reads in the event."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from zerotrust.apikey.memory import Key
from zerotrust.apikey.resource import ApiKeySpec
from zerotrust.apikey.snapshot import SecretView
from zerotrust.common import times
from zerotrust.identity.renewal import Reason

SPREAD = 0.1
BY_TIME = ("RotationRequested", "RotationDue")


@dataclass(frozen=True)
class Evidence:
    """What a check looks at; `current` is the newest key that was delivered, `requests` are times at which to rotate."""

    spec: ApiKeySpec
    uid: str
    current: Key | None
    secret: SecretView | None
    requests: Sequence[datetime]
    now: datetime


Check = Callable[[Evidence], Reason | None]


def lifetime_end(key: Key, spec: ApiKeySpec) -> datetime:
    """When a key expires by its age; a shorter `maxKeyAge` counts for older keys too, a longer one does not."""
    return min(key.expires, key.issued + spec.max_key_age)


def good_until(key: Key, spec: ApiKeySpec) -> datetime:
    """When a key ends, by whatever comes first: its age, its overlap, or the grant."""
    ends = (lifetime_end(key, spec), key.retires, spec.not_after)
    return min(end for end in ends if end is not None)


def rotation_time(uid: str, key: Key, interval: timedelta) -> datetime:
    """When a key is replaced: up to a tenth of `interval` early, never late.

    The jitter comes from a hash of uid and key: the same key always has the same time, and keys made together spread out.
    """
    fraction = int.from_bytes(hashlib.sha256(f"{uid}/{key.id}".encode()).digest()[:8], "big") / 2**64
    return times.whole_seconds(key.issued + interval - interval * SPREAD * fraction)


def no_key(evidence: Evidence) -> Reason | None:
    """Nobody was given a key yet, or nothing is remembered of it."""
    return Reason("NoKey", "there is no key yet") if evidence.current is None else None


def key_revoked(evidence: Evidence) -> Reason | None:
    """The key in use is revoked."""
    current = evidence.current
    if current is None or current.revoked is None:
        return None
    return Reason("KeyRevoked", f"key {current.id} is revoked")


def expired(evidence: Evidence) -> Reason | None:
    """The key in use is too old."""
    current = evidence.current
    if current is None or evidence.now < lifetime_end(current, evidence.spec):
        return None
    return Reason("Expired", f"key {current.id} expired at {times.render(lifetime_end(current, evidence.spec))}")


def secret_lost(evidence: Evidence) -> Reason | None:
    """The Secret is gone, and with it the only plaintext: it cannot be made again."""
    if evidence.secret is not None:
        return None
    return Reason("SecretLost", "the Secret was deleted, and its key cannot be made again")


def secret_changed(evidence: Evidence) -> Reason | None:
    """Somebody has written another text into the Secret."""
    current, secret = evidence.current, evidence.secret
    if current is None or secret is None:
        return None
    held = secret.current
    if held is not None and (held.id, held.digest) == (current.id, current.digest):
        return None
    return Reason("SecretChanged", f"the Secret does not hold key {current.id}")


def rotation_requested(evidence: Evidence) -> Reason | None:
    """Somebody asked for a rotation after the last one."""
    current = evidence.current
    if current is None:
        return None
    requested = max((one for one in evidence.requests if current.issued < one <= evidence.now), default=None)
    if requested is None:
        return None
    return Reason("RotationRequested", f"a rotation was requested at {times.render(requested)}")


def rotation_due(evidence: Evidence) -> Reason | None:
    """The rotation time has come."""
    current = evidence.current
    if current is None:
        return None
    due = rotation_time(evidence.uid, current, evidence.spec.rotation.interval)
    return Reason("RotationDue", f"the rotation was due at {times.render(due)}") if evidence.now >= due else None


CAUSES: tuple[Check, ...] = (
    no_key,
    key_revoked,
    expired,
    secret_lost,
    secret_changed,
    rotation_requested,
    rotation_due,
)


def cause(evidence: Evidence) -> Reason | None:
    """Return why a new key is needed, None while none is."""
    return next((reason for check in CAUSES if (reason := check(evidence)) is not None), None)
