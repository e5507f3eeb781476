"""What the two controllers for ApiKeys hand to each other: decisions that are to be remembered before they are acted upon."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from zerotrust.apikey.key import ApiKeyText
from zerotrust.apikey.memory import Memory, decode
from zerotrust.common.observed import ConfigMap

AT_ONCE, AT_MOST_EVERY = timedelta(milliseconds=20), timedelta(seconds=1)


@dataclass
class Desk:
    """What only this leader has: fresh keys that are not delivered yet, what it wants to be remembered, by UID, and what somebody
    else took out of the record.
    """

    candidates: dict[str, ApiKeyText] = field(default_factory=dict)
    wanted: dict[str, dict[str, Memory]] = field(default_factory=dict)
    basis: dict[str, object] = field(default_factory=dict)
    adopted: dict[str, dict[str, str]] = field(default_factory=dict)
    lost: dict[str, dict[str, Memory]] = field(default_factory=dict)
    written: dict[str, datetime] = field(default_factory=dict)

    def pause(self, namespace: str, now: datetime) -> timedelta:
        """A single change is written at once, a wave of them once a second."""
        last = self.written.get(namespace)
        return AT_ONCE if last is None else max(AT_ONCE, last + AT_MOST_EVERY - now)

    def miss(self, namespace: str, old: ConfigMap, new: ConfigMap | None) -> None:
        """Keep what somebody else has changed in a record as it was.

        The watch may be faster than the answer to our own write: what is wanted to be there is nobody else's doing.
        """
        wanted = self.wanted.get(namespace, {})
        for uid, text in old.data.items():
            now = new.data.get(uid) if new is not None else None
            if now == text or (now is not None and uid in wanted and decode(now) == wanted[uid]):
                continue
            memory = decode(text)
            if memory is not None:
                self.lost.setdefault(namespace, {}).setdefault(uid, memory)

    def forget(self, namespace: str, uid: str) -> None:
        """Drop everything about an ApiKey that is gone."""
        self.candidates.pop(uid, None)
        self.basis.pop(uid, None)
        for kept in (self.wanted, self.adopted, self.lost):
            kept.get(namespace, {}).pop(uid, None)
