"""What decision logs have told of API keys: when each was used last, and which are used although they are refused."""

from collections.abc import Iterable
from datetime import UTC, datetime

from zerotrust.common.naming import Ref
from zerotrust.common.plan import Event
from zerotrust.engine.apikeybook import ApiKeyBook
from zerotrust.opabundle.reports import UNKNOWN_KEY, KeyUse

_NEVER = datetime.min.replace(tzinfo=UTC)


class KeyUses:
    """Of keys that nobody knows only the newest use is kept for each namespace: anybody can make them up."""

    def __init__(self, book: ApiKeyBook) -> None:
        self._book = book
        self.last: dict[str, datetime] = {}
        self._refused: dict[tuple[str, str], datetime] = {}
        self._untold: dict[str, set[str]] = {}
        self._unknown: dict[str, KeyUse] = {}
        self._untold_unknown: set[str] = set()

    def take(self, namespace: str, uses: Iterable[KeyUse]) -> set[Ref]:
        """Take what reports say of a namespace; return the ApiKeys of which that is news."""
        news = set()
        for one in uses:
            owner = self._book.owner(namespace, one.key_id)
            if one.reason == UNKNOWN_KEY:
                self._note_unknown(namespace, one)
            elif owner is not None and not one.reason:
                if self.last.get(one.key_id, _NEVER) < one.at:
                    self.last[one.key_id] = one.at
                    news.add(owner)
            elif owner is not None and self._refused.get((one.key_id, one.reason), _NEVER) < one.at:
                self._refused[one.key_id, one.reason] = one.at
                self._untold.setdefault(one.key_id, set()).add(one.reason)
                news.add(owner)
        return news

    def _note_unknown(self, namespace: str, use: KeyUse) -> None:
        known = self._unknown.get(namespace)
        if known is None or known.at < use.at:
            self._unknown[namespace] = use
            self._untold_unknown.add(namespace)

    def of_keys(self, key_ids: Iterable[str]) -> list[Event]:
        """What is to be said of an ApiKey's keys that were used although they are refused; each report of it is told once."""
        return [
            Event("Warning", "RefusedKeyUsed", f"key {key_id} was used and refused: {reason}", "Refuse")
            for key_id in key_ids
            for reason in sorted(self._untold.pop(key_id, ()))
        ]

    def has_unknown(self, namespace: str) -> bool:
        """Whether there is something to be said of keys that nobody knows."""
        return namespace in self._untold_unknown

    def of_nobody(self, namespace: str) -> list[Event]:
        """What is to be said of keys that nobody knows, told once."""
        if namespace not in self._untold_unknown:
            return []
        self._untold_unknown.discard(namespace)
        text = f"a key that is not known was used and refused: {self._unknown[namespace].key_id}"
        return [Event("Warning", "UnknownKeyUsed", text, "Refuse")]
