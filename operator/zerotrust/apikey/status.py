"""What an ApiKey's status says: the phase, ids and times, and conditions that are true by the clock."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from zerotrust.apikey.lifecycle import Decision, Standing, gate_deadline
from zerotrust.apikey.memory import Key
from zerotrust.apikey.resource import Phase, secret_name
from zerotrust.apikey.rotation import good_until, lifetime_end, rotation_time
from zerotrust.apikey.snapshot import Acknowledged, ApiKeySnapshot, Lagging
from zerotrust.common import times
from zerotrust.common.conditions import Condition, false, merge, true, unknown
from zerotrust.common.errors import SpecError

STALLED = ("SecretConflict", "GrantEnded", "InvalidSpec")
SHOWN = 5  # names in a message


def status_of(
    snapshot: ApiKeySnapshot, decision: Decision, generation: int, observed: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the whole status; `observed` is the present one, of which only times of transitions are kept."""
    standing, spec, now = decision.standing, snapshot.spec, snapshot.now
    current = standing.current
    status: dict[str, Any] = {
        "observedGeneration": generation,
        "phase": phase(snapshot, standing),
        "secretName": secret_name(spec, snapshot.name),
        "conditions": merge(observed.get("conditions") or (), conditions(snapshot, standing), generation, now),
    }
    if current is not None:
        due = rotation_time(snapshot.uid, current, spec.rotation.interval)
        moments = {"issuedAt": current.issued, "expiresAt": good_until(current, spec)}
        if spec.state == "Active" and (spec.not_after is None or due < spec.not_after):
            moments["nextRotationTime"] = due
        status |= {"keyID": current.id, **{name: times.render(moment) for name, moment in moments.items()}}
    if standing.older:
        status["previousKeyID"] = standing.older[0].id
        status["overlapEndsAt"] = times.render(max(good_until(key, spec) for key in standing.older))
    if (used := _last_used(snapshot, standing)) is not None:
        status["lastUsedTime"] = times.render(used)
    if standing.revoked:
        status["revocation"] = _revocation(snapshot, standing, observed.get("revocation") or {})
    return status


def refused_status(error: SpecError, generation: int, observed: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """Return the status of an ApiKey whose spec cannot be used; its keys are denied meanwhile."""
    found = [false("Ready", error.reason, str(error)), true("Stalled", error.reason, str(error))]
    return {
        "observedGeneration": generation,
        "conditions": merge(observed.get("conditions") or (), found, generation, now),
    }


def phase(snapshot: ApiKeySnapshot, standing: Standing) -> Phase:
    """Where the newest key is on its way; what holds for all keys comes first."""
    if snapshot.spec.state == "Suspended":
        return "Suspended"
    if snapshot.spec.not_after is not None and snapshot.spec.not_after <= snapshot.now:
        return "Expired"
    key = standing.pending or standing.current
    return key_phase(snapshot, standing, key) if key is not None else "Pending"


def key_phase(snapshot: ApiKeySnapshot, standing: Standing, key: Key) -> Phase:
    """Where one key is: Pending, Published, Delivered (not used yet), Active, Overlap, Retired; or Revoked, Expired."""
    if key.revoked is not None:
        return "Revoked"
    if key.delivered is None:
        return "Published" if isinstance(snapshot.published(key.id), Acknowledged) else "Pending"
    if key.retires is not None:
        return "Overlap" if snapshot.now < good_until(key, snapshot.spec) else "Retired"
    if snapshot.now >= lifetime_end(key, snapshot.spec):
        return "Expired"
    if standing.older:
        return "Overlap"
    return "Delivered" if snapshot.last_used(key.id) is None else "Active"


def conditions(snapshot: ApiKeySnapshot, standing: Standing) -> list[Condition]:
    """Return every condition, in the order in which people read them."""
    found = [
        _ready(snapshot, standing),
        _published(snapshot, standing),
        _delivered(standing),
        _overlap(snapshot, standing),
        _expiring_soon(snapshot, standing),
        _expired(snapshot, standing),
        true("Suspended", "Suspended", "every key is refused")
        if _is_suspended(snapshot)
        else false("Suspended", "NotSuspended"),
        _unused(snapshot, standing),
        _revoked(snapshot, standing),
        *snapshot.unreadable,
    ]
    ready, because = found[0], standing.blocked
    if ready.status == "True" or ready.reason == "Suspended":
        return found
    if because is not None and because.word in STALLED:
        return [*found, true("Stalled", because.word, because.message)]
    if ready.reason in STALLED:
        return [*found, replace(ready, type="Stalled", status="True")]
    return [*found, true("Reconciling", ready.reason, ready.message)]


def _is_suspended(snapshot: ApiKeySnapshot) -> bool:
    return snapshot.spec.state == "Suspended"


def _ready(snapshot: ApiKeySnapshot, standing: Standing) -> Condition:
    """Whether who reads the Secret has a key that works."""
    current, because = standing.current, standing.blocked or standing.cause
    spec, now = snapshot.spec, snapshot.now
    if _is_suspended(snapshot):
        return false("Ready", "Suspended", "spec.state is Suspended")
    if spec.not_after is not None and spec.not_after <= now:
        return false("Ready", "GrantEnded", f"spec.notAfter was {times.render(spec.not_after)}")
    if current is None:
        return false("Ready", because.word, because.message) if because else _waiting(snapshot, standing)
    problem = None
    if current.revoked is not None:
        problem = false("Ready", "KeyRevoked", f"key {current.id} is revoked")
    elif now >= good_until(current, spec):
        problem = false("Ready", "Expired", f"key {current.id} expired at {times.render(good_until(current, spec))}")
    elif snapshot.secret is None:
        problem = false("Ready", "SecretLost", "the Secret is gone")
    elif snapshot.secret.current is None or snapshot.secret.current.digest not in (
        current.digest,
        _digest(standing.pending),
    ):
        problem = false("Ready", "SecretChanged", f"the Secret does not hold key {current.id}")
    if problem is None:
        return true("Ready", "Delivered", f"key {current.id} is good until {times.render(good_until(current, spec))}")
    wait = standing.blocked.message if standing.blocked else "a new key follows"
    return false("Ready", problem.reason, f"{problem.message}; {wait}")


def _digest(key: Key | None) -> str | None:
    return key.digest if key is not None else None


def _waiting(snapshot: ApiKeySnapshot, standing: Standing) -> Condition:
    published = _published(snapshot, standing)
    if published.status != "True":
        return replace(published, type="Ready")
    return false("Ready", "Delivering", published.message)


def _published(snapshot: ApiKeySnapshot, standing: Standing) -> Condition:
    """Whether decision points know the newest key."""
    key = standing.pending or standing.current
    if key is None:
        return false("Published", "NoKey", "there is no key yet")
    reach = snapshot.published(key.id)
    if isinstance(reach, Acknowledged):
        return true("Published", "Acknowledged", f"every decision point has reported key {key.id}")
    until = ""
    if key.delivered is None:
        until = f"; key {key.id} is delivered at {times.render(gate_deadline(key, snapshot.grace))} at the latest"
    if isinstance(reach, Lagging):
        return false("Published", "Lagging", f"not reported by {_names(reach.names)}{until}")
    return false("Published", "NotServed", f"no bundle server serves key {key.id} yet{until}")


def _names(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(sorted(names)[:SHOWN]) + more


def _delivered(standing: Standing) -> Condition:
    """Whether the newest key is in the Secret."""
    because = standing.blocked or standing.cause
    if standing.pending is not None:
        if standing.blocked is not None:
            return false("Delivered", standing.blocked.word, standing.blocked.message)
        return false(
            "Delivered", "WaitingForDecisionPoints", f"key {standing.pending.id} waits until it would be accepted"
        )
    if because is not None:
        return false("Delivered", because.word, because.message)
    if standing.current is None:
        return false("Delivered", "NoKey", "there is no key yet")
    return true("Delivered", "Delivered", f"key {standing.current.id} is in the Secret")


def _overlap(snapshot: ApiKeySnapshot, standing: Standing) -> Condition:
    if not standing.older:
        return false("OverlapActive", "NoOldKey")
    parts = [f"{key.id} until {times.render(good_until(key, snapshot.spec))}" for key in standing.older[:SHOWN]]
    return true("OverlapActive", "OldKeysAccepted", f"still good: {', '.join(parts)}")


def _expiring_soon(snapshot: ApiKeySnapshot, standing: Standing) -> Condition:
    """True from the time at which a holder needs to act: less than an overlap is left and nothing follows."""
    spec, now = snapshot.spec, snapshot.now
    if spec.not_after is not None and now < spec.not_after <= now + spec.rotation.overlap:
        return true("ExpiringSoon", "GrantEndsSoon", f"spec.notAfter is {times.render(spec.not_after)}")
    current = standing.current
    if current is None or current.revoked is not None:
        return false("ExpiringSoon", "NoKey")
    end = lifetime_end(current, spec)
    if now < end <= now + spec.rotation.overlap and rotation_time(snapshot.uid, current, spec.rotation.interval) <= now:
        because = f"; {standing.blocked.message}" if standing.blocked is not None else ""
        return true("ExpiringSoon", "RotationStuck", f"key {current.id} expires at {times.render(end)}{because}")
    return false("ExpiringSoon", "NotSoon")


def _expired(snapshot: ApiKeySnapshot, standing: Standing) -> Condition:
    spec, now, current = snapshot.spec, snapshot.now, standing.current
    if spec.not_after is not None and spec.not_after <= now:
        return true("Expired", "GrantEnded", f"spec.notAfter was {times.render(spec.not_after)}")
    if current is not None and current.revoked is None and lifetime_end(current, spec) <= now:
        return true("Expired", "Expired", f"key {current.id} expired at {times.render(lifetime_end(current, spec))}")
    return false("Expired", "NotExpired")


def _last_used(snapshot: ApiKeySnapshot, standing: Standing) -> datetime | None:
    return max((used for key in standing.keys if (used := snapshot.last_used(key.id)) is not None), default=None)


def _unused(snapshot: ApiKeySnapshot, standing: Standing) -> Condition:
    used = _last_used(snapshot, standing)
    since, patience = used or snapshot.created, snapshot.spec.unused_after
    if since is not None and snapshot.now >= since + patience:
        if used is None and snapshot.logs_since is None:
            return unknown("Unused", "NoDecisionLogs", "no decision point sends its logs, so nobody can say")
        text = f"last used at {times.render(used)}" if used is not None else "never used"
        return true("Unused", "NotUsed", f"{text}; delete the ApiKey if nobody needs it")
    return false("Unused", "InUse" if used is not None else "New")


def _revoked(snapshot: ApiKeySnapshot, standing: Standing) -> Condition:
    """Whether what is revoked is refused everywhere."""
    ignored = f"no keys of this ApiKey, ignored: {_names(standing.unknown)}" if standing.unknown else ""
    if not standing.revoked:
        return false("Revoked", "UnknownKeyIDs", ignored) if ignored else false("Revoked", "NoRevokedKey")
    ids = _names(tuple(key.id for key in standing.revoked))
    reaches = [snapshot.withdrawn(key.id) for key in standing.revoked]
    lagging = {name for reach in reaches if isinstance(reach, Lagging) for name in reach.names}
    if all(isinstance(reach, Acknowledged) for reach in reaches):
        message = f"every decision point refuses {ids}"
        return true("Revoked", "Acknowledged", f"{message}; {ignored}" if ignored else message)
    if lagging:
        return false("Revoked", "Lagging", f"{ids}: not reported by {_names(tuple(lagging))}")
    return false("Revoked", "NotServed", f"{ids}: no bundle server serves the revocation yet")


def _revocation(snapshot: ApiKeySnapshot, standing: Standing, before: Mapping[str, Any]) -> dict[str, Any]:
    """The newest revocation; when it took effect is kept from the status that first said so."""
    requested = times.render(max(key.revoked for key in standing.revoked if key.revoked is not None))
    done = all(isinstance(snapshot.withdrawn(key.id), Acknowledged) for key in standing.revoked)
    found: dict[str, Any] = {"requestedAt": requested, "acknowledged": done}
    if done:
        kept = before.get("effectiveAt") if before.get("requestedAt") == requested else None
        found["effectiveAt"] = kept or times.render(times.next_whole_second(snapshot.now))
    return found
