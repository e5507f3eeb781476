"""The life of an ApiKey's keys: recorded, published, delivered, in use, in overlap, retired; expired, suspended, revoked.

The order of a rotation never leaves a holder with a key that is refused: the new key's digest is recorded; decision points
report it, or whoever runs without it denies everything by now; the plaintext is delivered; only then do older keys end, after
their overlap. Every step is decided from what is observed, so each may be repeated and a crash between any two loses nothing
but an undelivered key, which is replaced.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from zerotrust.apikey import rotation
from zerotrust.apikey.adoption import adopted
from zerotrust.apikey.key import KeyID
from zerotrust.apikey.memory import MAX_KEYS, Key, Memory
from zerotrust.apikey.records import RETENTION
from zerotrust.apikey.resource import ApiKeySpec
from zerotrust.apikey.rotation import BY_TIME, Evidence, good_until, lifetime_end, rotation_time
from zerotrust.apikey.snapshot import Acknowledged, ApiKeySnapshot, Fingerprint
from zerotrust.common import times
from zerotrust.common.plan import Event
from zerotrust.identity.renewal import Reason

PATIENCE = timedelta(seconds=5)


@dataclass(frozen=True)
class Contents:
    """What the Secret should hold, by id: each is the candidate's, or stands in the Secret already."""

    current: KeyID
    previous: KeyID | None


@dataclass(frozen=True)
class Standing:
    """Where an ApiKey stands once the decision is carried out.

    `current` is the newest delivered key, whatever became of it, `pending` the one that waits for decision points or for the
    Secret, `older` are the keys in overlap that are still good, the newest first. `cause` is why a new key is needed, `blocked`
    why there is none. `revoked` are remembered keys that are revoked, `unknown` ids on the list that are no keys of this ApiKey.
    """

    current: Key | None
    pending: Key | None
    older: tuple[Key, ...]
    cause: Reason | None
    blocked: Reason | None
    revoked: tuple[Key, ...]
    unknown: tuple[str, ...]
    keys: tuple[Key, ...]


@dataclass(frozen=True)
class Decision:
    """What to do, in this order: write `memory` into the record (`adopted` is the UID of the entry that it replaces), make a
    fresh key and decide again where `generate` says so, write the Secret (None: leave it), then status and events.

    `memory` is None where there is nothing to remember. `quiet` says that a new key is on its way and its steps follow each other
    within seconds: not worth a status write each. `wake` is when time alone changes the answer.
    """

    memory: Memory | None
    adopted: str | None
    generate: bool
    deliver: Contents | None
    standing: Standing
    events: tuple[Event, ...]
    quiet: bool
    wake: datetime | None


def decide(snapshot: ApiKeySnapshot) -> Decision:
    """Return what to do for an ApiKey."""
    now, spec, events = snapshot.now, snapshot.spec, list[Event]()
    memory, old_uid = adopted(snapshot)
    if old_uid is not None:
        events.append(
            Event("Normal", "Adopted", "the Secret's key goes on: it was made for an ApiKey of this name", "Adopt")
        )
    memory, said = _revoked(snapshot, memory)
    events += said
    memory, said = _retired_early(snapshot, _delivered(snapshot, memory))
    events += said
    memory = _without_ended(snapshot, memory)
    current, pending = memory.newest_delivered, _pending(snapshot, memory)
    why = None
    if pending is None:
        why = rotation.cause(Evidence(spec, snapshot.uid, current, snapshot.secret, snapshot.rotation_requests, now))
    blocked = _blocked(snapshot, current, why) if why is not None or pending is not None else None
    generate = False
    if pending is None and (why is None or blocked is None):
        memory = memory.without(*(key.id for key in memory.keys if _is_lost(key)))
    if why is not None and blocked is None:
        relieved = _relieved(snapshot, memory)
        if len(relieved.keys) >= MAX_KEYS or not snapshot.room:
            blocked = Reason("TooManyKeys", f"{len(memory.keys)} keys are remembered; wait until the oldest have ended")
        elif snapshot.candidate is None or relieved.key(snapshot.candidate.id) is not None:
            generate = True
        else:
            pending = _issued(snapshot, snapshot.candidate)
            memory = replace(relieved, keys=(*relieved.keys, pending))
            replaces = current is not None or snapshot.secret is not None
            if replaces:  # a first key needs no explanation, and 10,000 of them would be 10,000 writes
                text = f"{why.message}; key {pending.id} is being published"
                events.append(Event("Normal", "KeyIssued", text, "Issue"))
    standing = Standing(
        current,
        pending,
        tuple(key for key in reversed(memory.keys) if _is_in_overlap(key, current) and good_until(key, spec) > now),
        why,
        blocked,
        tuple(key for key in memory.keys if key.revoked is not None),
        tuple(one for one in spec.revoked_key_ids if memory.key(one) is None),
        memory.keys,
    )
    return Decision(
        memory if memory.keys or snapshot.memory is not None else None,
        old_uid,
        generate,
        _contents(snapshot, memory, pending, blocked),
        standing,
        tuple(events),
        pending is not None and blocked is None and now < pending.issued + PATIENCE,
        _wake(snapshot, standing),
    )


def gate_deadline(key: Key, grace: timedelta) -> datetime:
    """When a recorded key may be delivered although decision points lag: by then they deny everything, or know it."""
    return key.issued + grace


def _revoked(snapshot: ApiKeySnapshot, memory: Memory) -> tuple[Memory, list[Event]]:
    """Remember which keys are revoked; taking one off the list changes nothing."""
    listed, events = set(snapshot.spec.revoked_key_ids), []
    for key in memory.keys:
        if key.revoked is None and key.id in listed:
            memory = memory.with_key(replace(key, revoked=times.whole_seconds(snapshot.now)))
            events.append(Event("Warning", "KeyRevoked", f"key {key.id} is revoked for good", "Revoke"))
    return memory, events


def _delivered(snapshot: ApiKeySnapshot, memory: Memory) -> Memory:
    """A key counts as delivered once it is seen in the Secret; then, and only then, the keys before it get an end."""
    key = next((one for one in memory.keys if one.delivered is None and _is_held(snapshot, one)), None)
    if key is None:
        return memory
    moment = max(times.next_whole_second(snapshot.now), key.issued)
    end = moment + snapshot.spec.rotation.overlap
    if key.revoked is None:
        for older in memory.keys:
            if older.delivered is not None and older.retires is None:
                memory = memory.with_key(replace(older, retires=min(end, older.expires)))
    return memory.with_key(replace(key, delivered=moment))


def _retired_early(snapshot: ApiKeySnapshot, memory: Memory) -> tuple[Memory, list[Event]]:
    """End the overlap of keys that nobody has used for `retireUnusedAfter`, where the logs would have shown it."""
    patience, events = snapshot.spec.rotation.retire_unused_after, []
    current = memory.newest_delivered
    if patience is None or current is None or not snapshot.clock_agrees:
        return memory, []
    for key in memory.keys:
        moment = _unused_since(snapshot, key, current)
        seen = snapshot.last_used(current.id)
        if moment is None or seen is None or not moment + patience <= min(seen, snapshot.now):
            continue
        if _is_in_overlap(key, current) and good_until(key, snapshot.spec) > snapshot.now:
            memory = memory.with_key(replace(key, retires=times.next_whole_second(snapshot.now)))
            text = f"key {key.id} ends early: unused since {times.render(moment)} while key {current.id} is in use"
            events.append(Event("Normal", "RetiredEarly", text, "Retire"))
    return memory, events


def _unused_since(snapshot: ApiKeySnapshot, key: Key, current: Key) -> datetime | None:
    """Since when an old key is known to be unused; None where nobody could know."""
    if snapshot.logs_since is None or current.delivered is None:
        return None
    return max(snapshot.logs_since, current.delivered, snapshot.last_used(key.id) or current.delivered)


def _without_ended(snapshot: ApiKeySnapshot, memory: Memory) -> Memory:
    """Forget keys a day after their end: long enough for a clock that ran ahead to come back."""
    if not snapshot.clock_agrees:
        return memory
    current = memory.newest_delivered
    ended = [key.id for key in memory.keys if key is not current and snapshot.now >= _forgotten_at(key, snapshot.spec)]
    return memory.without(*ended)


def _forgotten_at(key: Key, spec: ApiKeySpec) -> datetime:
    if key.revoked is not None or key.retires is None:
        return key.expires + RETENTION
    return min(lifetime_end(key, spec), key.retires) + RETENTION


def _relieved(snapshot: ApiKeySnapshot, memory: Memory) -> Memory:
    """Make room for one more key: what has ended goes first, then what was revoked before any bundle that knew it as good."""
    surplus = len(memory.keys) - MAX_KEYS + 1
    if surplus <= 0 or not snapshot.clock_agrees:
        return memory
    settled, current = snapshot.now - max(RETENTION, snapshot.grace), memory.newest_delivered
    ended = [
        key for key in memory.keys if key.revoked is None and key.retires is not None and key.retires <= snapshot.now
    ]
    revoked = [key for key in memory.keys if key.revoked is not None and key.revoked <= settled and key is not current]
    return memory.without(*(key.id for key in [*ended, *revoked][:surplus]))


def _pending(snapshot: ApiKeySnapshot, memory: Memory) -> Key | None:
    """The recorded key whose plaintext this leader has; there is one at most."""
    fresh = snapshot.candidate
    key = memory.key(fresh.id) if fresh is not None else None
    if key is None or fresh is None or key.digest != fresh.digest or not _is_lost(key):
        return None
    return key if snapshot.now < lifetime_end(key, snapshot.spec) else None


def _is_lost(key: Key) -> bool:
    """Recorded and never delivered; unless a leader still has its plaintext, nobody has."""
    return key.delivered is None and key.revoked is None


def _is_held(snapshot: ApiKeySnapshot, key: Key) -> bool:
    held = snapshot.secret.current if snapshot.secret is not None else None
    return held == Fingerprint(key.id, key.digest)


def _is_in_overlap(key: Key, current: Key | None) -> bool:
    return key.delivered is not None and key.revoked is None and current is not None and key.id != current.id


def _issued(snapshot: ApiKeySnapshot, fresh: Fingerprint) -> Key:
    """Rounded up, so that a request for a rotation is never later than the key that it led to."""
    moment = times.next_whole_second(snapshot.now)
    return Key(fresh.id, fresh.digest, moment, times.whole_seconds(moment + snapshot.spec.max_key_age))


def _blocked(snapshot: ApiKeySnapshot, current: Key | None, why: Reason | None) -> Reason | None:
    """Why no key is made or delivered, although one is needed."""
    spec = snapshot.spec
    if spec.state == "Suspended":
        return Reason("Suspended", "spec.state is Suspended")
    if spec.not_after is not None and spec.not_after <= snapshot.now:
        return Reason("GrantEnded", f"spec.notAfter was {times.render(spec.not_after)}")
    if snapshot.foreign:
        return Reason(
            "SecretConflict", "the Secret's name is taken; delete that Secret, or write another delivery.secretName"
        )
    works = current is not None and current.revoked is None and snapshot.now < lifetime_end(current, spec)
    in_use = works and current is not None and _is_held(snapshot, current)
    if not snapshot.clock_agrees and in_use and (why is None or why.word in BY_TIME):
        return Reason(
            "ClockSkew", "the clocks of the operator and the API server disagree, so no key is replaced by time"
        )
    return None


def _contents(snapshot: ApiKeySnapshot, memory: Memory, pending: Key | None, blocked: Reason | None) -> Contents | None:
    """Return what the Secret should hold: the newest two keys that somebody may use. None where it does."""
    view, recorded = snapshot.secret, snapshot.memory
    if snapshot.foreign:
        return None
    known = (
        [one.id for one in (view.current, view.previous) if one is not None and _is_usable(memory, one)] if view else []
    )
    if pending is not None and blocked is None and recorded is not None and recorded.key(pending.id) == pending:
        acknowledged = isinstance(snapshot.published(pending.id), Acknowledged)
        if acknowledged or (snapshot.clock_agrees and snapshot.now >= gate_deadline(pending, snapshot.grace)):
            return Contents(pending.id, next(iter(known), None))
    if view is None or view.current is None or view.previous is None or known != [view.current.id]:
        return None
    return Contents(view.current.id, None)


def _is_usable(memory: Memory, held: Fingerprint) -> bool:
    key = memory.key(held.id)
    return key is not None and key.digest == held.digest and key.revoked is None


def _wake(snapshot: ApiKeySnapshot, standing: Standing) -> datetime | None:
    """The next moment at which something changes by itself; what changes with reports and writes comes by itself."""
    spec, moments = snapshot.spec, list[datetime | None]()
    moments += [spec.not_after, *snapshot.rotation_requests]
    if spec.not_after is not None:
        moments.append(spec.not_after - spec.rotation.overlap)
    patience = spec.rotation.retire_unused_after
    for key in standing.keys:
        moments += [key.retires, lifetime_end(key, spec), _forgotten_at(key, spec)]
        if patience is not None and standing.current is not None and key is not standing.current:
            since = _unused_since(snapshot, key, standing.current)
            moments.append(since + patience if since is not None else None)
    if standing.current is not None:
        moments.append(rotation_time(snapshot.uid, standing.current, spec.rotation.interval))
        moments.append(lifetime_end(standing.current, spec) - spec.rotation.overlap)
    if standing.pending is not None:
        moments += [gate_deadline(standing.pending, snapshot.grace), standing.pending.issued + PATIENCE]
    used = [snapshot.last_used(key.id) for key in standing.keys]
    latest = max((one for one in (*used, snapshot.created) if one is not None), default=None)
    moments.append(latest + spec.unused_after if latest is not None else None)
    return min((moment for moment in moments if moment is not None and moment > snapshot.now), default=None)
