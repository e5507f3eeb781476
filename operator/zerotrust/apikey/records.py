"""The record of a namespace's API keys: ConfigMaps in the operator's namespace, one data entry for each ApiKey's UID.

They are ConfigMaps because bundle servers read them: SHA-256 of 256 random bits tells nobody anything, and stands in every
bundle. Whoever may write here decides which keys are good, so only the controller may.
"""

import itertools
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from zerotrust.apikey.memory import Memory, decode, encode
from zerotrust.common import naming
from zerotrust.common.observed import ConfigMap
from zerotrust.common.plan import Apply, Delete, Plan

MAX_ENTRIES = 500
MAX_BYTES = 512 * 1024
FULL_BYTES = 900 * 1024  # what an object takes for certain: the API server's limit is 1 MiB
MAX_GONE = 1000
RETENTION = timedelta(hours=24)


@dataclass(frozen=True)
class RecordsSnapshot:
    """What the writes to one namespace's record depend on; `place` is the operator's namespace.

    `shards` are the ConfigMaps of `namespace`, `wanted` what the ApiKeys' reconciles want to be remembered, by UID, `existing`
    the UIDs of the ApiKeys that there are, `adopted` the UIDs of deleted ApiKeys whose entries become those of new ones, by the
    new UIDs.
    """

    place: str
    namespace: str
    shards: tuple[ConfigMap, ...]
    wanted: Mapping[str, Memory]
    existing: Set[str]
    adopted: Mapping[str, str] = field(default_factory=dict)
    namespace_exists: bool = True


def read(shards: Iterable[ConfigMap]) -> dict[str, Memory]:
    """Return what is remembered, by UID; what cannot be read is left out, and so its keys are denied.

    An entry that stands in two shards is believed in the first, and a key that is revoked in either is revoked.
    """
    found: dict[str, Memory] = {}
    for shard in sorted(shards, key=_number):
        for uid, text in shard.data.items():
            memory = decode(text)
            if memory is not None:
                found[uid] = _stricter(found[uid], memory) if uid in found else memory
    return found


def has_room(shards: Iterable[ConfigMap], uid: str) -> bool:
    """Tell whether one more key can be remembered for an ApiKey where its entry is."""
    return all(_size(shard.data) < FULL_BYTES for shard in shards if uid in shard.data)


def adoptable(remembered: Mapping[str, Memory], existing: Set[str], name: str) -> dict[str, Memory]:
    """Return what is remembered of ApiKeys of this name that do not exist any more, by their UIDs."""
    return {uid: one for uid, one in remembered.items() if uid not in existing and one.name == name}


def reconcile_records(snapshot: RecordsSnapshot, now: datetime) -> Plan:
    """Return what to write: only what differs, and many ApiKeys' changes in one write.

    Who is deleted is marked so; what is left of it goes once every key of it has expired.
    """
    if not snapshot.namespace_exists:
        return Plan(deletes=tuple(Delete(shard.meta.ref, shard.meta.uid) for shard in snapshot.shards))
    remembered = read(snapshot.shards)
    wanted: dict[str, Memory | None] = {uid: one for uid, one in snapshot.wanted.items() if uid in snapshot.existing}
    for uid, memory in remembered.items():
        if uid not in snapshot.existing:
            wanted[uid] = buried(memory, now)
    wanted |= _forgotten(wanted, now)
    wanted |= dict.fromkeys(old for new, old in snapshot.adopted.items() if new in wanted)
    unreadable = {uid for shard in snapshot.shards for uid in shard.data} - remembered.keys() - snapshot.existing
    wanted |= dict.fromkeys(unreadable)
    changes = _placed(snapshot, {uid: encode(one) if one is not None else None for uid, one in wanted.items()})
    applies = [Apply(_manifest(snapshot, shard, data)) for shard, data in sorted(changes.items())]
    ends = [_end(one) for one in wanted.values() if one is not None and one.gone is not None]
    return Plan(tuple(applies), requeue_at=min((end for end in ends if end > now), default=None))


def buried(memory: Memory, now: datetime) -> Memory:
    """What is kept of a deleted ApiKey: keys that somebody may hold, and those that are revoked."""
    if memory.gone is not None:
        return memory
    held = tuple(key for key in memory.keys if key.delivered is not None or key.revoked is not None)
    latest = max((key.issued for key in memory.keys), default=now)
    return replace(memory, keys=held, gone=max(now, latest).replace(microsecond=0))


def _forgotten(wanted: Mapping[str, Memory | None], now: datetime) -> dict[str, None]:
    """Entries of deleted ApiKeys that have ended, and the oldest of those that are too many."""
    gone = {uid: one for uid, one in wanted.items() if one is not None and one.gone is not None}
    ended = [uid for uid, one in gone.items() if not one.keys or _end(one) <= now]
    left = sorted((str(one.gone), uid) for uid, one in gone.items() if uid not in ended)
    return dict.fromkeys([*ended, *(uid for _, uid in left[: max(0, len(left) - MAX_GONE)])])


def _end(memory: Memory) -> datetime:
    """When a deleted ApiKey's memory is of no use: its last key has expired, with room for a clock that is ahead."""
    assert memory.gone is not None
    return max((key.expires for key in memory.keys), default=memory.gone) + RETENTION


def _placed(snapshot: RecordsSnapshot, texts: Mapping[str, str | None]) -> dict[int, dict[str, str | None]]:
    """Return the changes by the number of the shard: an entry stays where it is, and a new one goes where there is room.

    An adopted one stays where it was under its old UID, so that one write moves it.
    """
    shards = {_number(shard): dict(shard.data) for shard in snapshot.shards}
    changes: dict[int, dict[str, str | None]] = {}
    new: dict[str, str] = {}
    for uid, text in sorted(texts.items()):
        places = [number for number, data in sorted(shards.items()) if uid in data]
        for place in places[1:]:  # left by a write that never was finished
            changes.setdefault(place, {})[uid] = None
        if places and shards[places[0]][uid] != text:
            changes.setdefault(places[0], {})[uid] = text
        if not places and text is not None:
            new[uid] = text
    sizes = {number: (len(data), _size(data)) for number, data in shards.items()}
    for uid, text in new.items():
        cost, old = len(uid) + len(text), snapshot.adopted.get(uid)
        kept = (number for number, data in sorted(shards.items()) if old is not None and old in data)
        free = (
            number
            for number in range(len(sizes) + 1)
            if sizes.get(number, (0, 0))[0] < MAX_ENTRIES and sizes.get(number, (0, 0))[1] + cost <= MAX_BYTES
        )
        place = next(itertools.chain(kept, free))
        entries, size = sizes.get(place, (0, 0))
        sizes[place] = (entries + 1, size + cost)
        changes.setdefault(place, {})[uid] = text
    return changes


def _stricter(first: Memory, second: Memory) -> Memory:
    revoked = {key.id: key.revoked for key in second.keys if key.revoked is not None}
    keys = (replace(key, revoked=key.revoked or revoked.get(key.id)) for key in first.keys)
    return replace(first, keys=tuple(keys))


def _number(shard: ConfigMap) -> int:
    return naming.api_keys_shard(shard.meta.name) or 0


def _size(data: Mapping[str, str]) -> int:
    return sum(len(uid) + len(text.encode()) for uid, text in data.items())


def _manifest(snapshot: RecordsSnapshot, number: int, data: Mapping[str, str | None]) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": naming.api_keys_name(snapshot.namespace, number),
            "namespace": snapshot.place,
            "labels": {naming.MANAGED_BY: naming.OPERATOR, naming.COMPONENT: naming.COMPONENT_API_KEYS},
        },
        "data": dict(data),
    }
