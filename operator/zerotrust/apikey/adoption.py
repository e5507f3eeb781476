"""A re-created ApiKey takes over the key that its predecessor left in the Secret.

Only what the operator itself remembers is taken over: a Secret that somebody plants never becomes a credential, and a key that
was revoked never becomes good again.
"""

from dataclasses import replace

from zerotrust.apikey.memory import Key, Memory
from zerotrust.apikey.snapshot import ApiKeySnapshot, Fingerprint


def adopted(snapshot: ApiKeySnapshot) -> tuple[Memory, str | None]:
    """Return what is remembered of an ApiKey, and the UID under which it was until now where that was another.

    Of the predecessor's keys, those that the Secret holds go on; revoked ones stay revoked; all others are forgotten.
    """
    if snapshot.memory is not None:
        return replace(snapshot.memory, name=snapshot.name, gone=None), None
    held = _held(snapshot)
    revoked = {
        key.id: key.revoked for orphan in snapshot.orphans.values() for key in orphan.keys if key.revoked is not None
    }
    for uid, orphan in sorted(
        snapshot.orphans.items(), key=lambda item: (str(item[1].gone or "9"), item[0]), reverse=True
    ):
        if not held or not any(_is_alive(key, held[0], snapshot) and key.id not in revoked for key in orphan.keys):
            continue
        kept = [key for key in orphan.keys if key.id in revoked or Fingerprint(key.id, key.digest) in held]
        return Memory(snapshot.name, tuple(replace(key, revoked=revoked.get(key.id)) for key in kept)), uid
    return Memory(snapshot.name), None


def _held(snapshot: ApiKeySnapshot) -> list[Fingerprint]:
    """The keys in the Secret, the current one first; none while it has no current one."""
    view = snapshot.secret
    if view is None or view.current is None:
        return []
    return [one for one in (view.current, view.previous) if one is not None]


def _is_alive(key: Key, held: Fingerprint, snapshot: ApiKeySnapshot) -> bool:
    """The newest key of its time, which nothing has ended; one in overlap would end without a successor."""
    return Fingerprint(key.id, key.digest) == held and key.retires is None and snapshot.now < key.expires
