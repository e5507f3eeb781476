"""What the operator remembers of one ApiKey's keys: digests and times, never a plaintext.

Written as one line of canonical JSON: `{"keys":[{"expires":…,"hash":"sha256:…","id":…,"issued":…}],"name":…}`, with
`delivered`, `retires`, `revoked` once they are known, and `gone` once the ApiKey is deleted. Times are whole seconds since 1970.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from zerotrust.apikey.key import Digest, KeyID, is_digest, is_key_id
from zerotrust.common import times

MAX_KEYS = 32
_LAST = int(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp())


@dataclass(frozen=True, slots=True)
class Key:
    """One key. A time that is None has not come yet; all are whole seconds.

    `delivered` is when the key was seen in the consumer's Secret, `retires` the end of its overlap with the keys after it,
    `revoked` when it was found on the list of revoked keys.
    """

    id: KeyID
    digest: Digest
    issued: datetime
    expires: datetime
    delivered: datetime | None = None
    retires: datetime | None = None
    revoked: datetime | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """The keys of one ApiKey, in the order of their issue; `gone` is when the ApiKey was found to be deleted."""

    name: str
    keys: tuple[Key, ...] = ()
    gone: datetime | None = None

    def key(self, key_id: str) -> Key | None:
        """The key with this id."""
        return next((one for one in self.keys if one.id == key_id), None)

    @property
    def newest_delivered(self) -> Key | None:
        """The key in use: the newest that was delivered, whatever became of it."""
        return next((one for one in reversed(self.keys) if one.delivered is not None), None)

    def with_key(self, changed: Key) -> "Memory":
        """The same memory with another version of one key."""
        return replace(self, keys=tuple(changed if one.id == changed.id else one for one in self.keys))

    def without(self, *key_ids: str) -> "Memory":
        """The same memory without these keys."""
        return replace(self, keys=tuple(one for one in self.keys if one.id not in key_ids))


def encode(memory: Memory) -> str:
    """Write a memory; equal memories give equal texts."""
    entry: dict[str, Any] = {"name": memory.name, "keys": [_key_entry(key) for key in memory.keys]}
    if memory.gone is not None:
        entry["gone"] = _seconds(memory.gone)
    return json.dumps(entry, sort_keys=True, separators=(",", ":"))


@lru_cache(maxsize=32_768)
def decode(text: str) -> Memory | None:
    """Read what `encode` wrote. What cannot be read in full is None, as if it were not there: its keys are denied."""
    try:
        entry = json.loads(text)
        keys = tuple(_read_key(one) for one in _list(entry["keys"]))
        memory = Memory(_name(entry["name"]), keys, _time(entry, "gone"))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return memory if len({key.id for key in keys}) == len(keys) else None


def seconds(moment: datetime) -> datetime:
    """The whole second at or before a moment, as the record keeps it."""
    return times.whole_seconds(moment)


def _key_entry(key: Key) -> dict[str, Any]:
    optional = {"delivered": key.delivered, "retires": key.retires, "revoked": key.revoked}
    return {
        "id": key.id,
        "hash": key.digest,
        "issued": _seconds(key.issued),
        "expires": _seconds(key.expires),
        **{name: _seconds(moment) for name, moment in optional.items() if moment is not None},
    }


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())


def _read_key(entry: Mapping[str, Any]) -> Key:
    key_id, stored = entry["id"], entry["hash"]
    issued, expires = _time(entry, "issued"), _time(entry, "expires")
    if not is_key_id(key_id) or not is_digest(stored) or issued is None or expires is None or expires < issued:
        raise ValueError
    others = (_time(entry, name) for name in ("delivered", "retires", "revoked"))
    return Key(KeyID(key_id), Digest(stored), issued, expires, *others)


def _time(entry: Mapping[str, Any], name: str) -> datetime | None:
    value = entry.get(name)
    if value is None:
        return None
    if type(value) is not int or not 0 <= value <= _LAST:
        raise ValueError
    return datetime.fromtimestamp(value, UTC)


def _list(value: object) -> list[Any]:
    if not isinstance(value, list) or len(value) > 4 * MAX_KEYS:
        raise ValueError
    return value


def _name(value: object) -> str:
    if not isinstance(value, str) or not value or len(value) > 253:
        raise ValueError
    return value
