"""Which API keys decision points have seen, out of their logs: who is still used, and who is used although it should not be."""

from collections import OrderedDict
from collections.abc import Hashable
from datetime import datetime, timedelta
from typing import TypeVar

from zerotrust.bundleserver.decisions import LogSummary
from zerotrust.opabundle.reports import MAX_MISUSED, MAX_USED, KeyUse

Name = TypeVar("Name", bound=Hashable)
# A key in use is news six times an hour, so that reports stay small and few; the controller takes up what is told within minutes.
TOLD_EVERY, TOLD_FOR = timedelta(minutes=10), timedelta(minutes=15)
MISUSED_FOR = timedelta(hours=1)


class KeyUses:
    """The latest uses of each namespace's keys, as far as they are told."""

    def __init__(self) -> None:
        self._used: dict[str, OrderedDict[str, KeyUse]] = {}
        self._misused: dict[str, OrderedDict[tuple[str, str], KeyUse]] = {}
        self._logged: set[str] = set()

    def note(self, summary: LogSummary) -> None:
        """Take what a decision log says of keys."""
        self._logged.add(summary.namespace)
        used = self._used.setdefault(summary.namespace, OrderedDict())
        misused = self._misused.setdefault(summary.namespace, OrderedDict())
        for (key_id, reason), at in sorted(summary.key_uses.items()):
            use = KeyUse(key_id, reason, at)
            if reason:
                _tell(misused, (key_id, reason), use, MAX_MISUSED)
            else:
                _tell(used, key_id, use, MAX_USED)

    def logged(self, namespace: str) -> bool:
        """Whether decision points of a namespace send their logs here."""
        return namespace in self._logged

    def current(self, namespace: str, now: datetime) -> tuple[KeyUse, ...]:
        """What is to be told now."""
        used, misused = self._used.get(namespace), self._misused.get(namespace)
        told = [*_still(used, now - TOLD_FOR), *_still(misused, now - MISUSED_FOR)]
        return tuple(sorted(told))


def _tell(known: OrderedDict[Name, KeyUse], name: Name, use: KeyUse, most: int) -> None:
    told = known.get(name)
    if told is not None and use.at < told.at + TOLD_EVERY:
        return
    known[name] = use
    known.move_to_end(name)
    if len(known) > most:
        known.popitem(last=False)


def _still(known: OrderedDict[Name, KeyUse] | None, since: datetime) -> list[KeyUse]:
    for name in [name for name, use in (known or {}).items() if use.at < since]:
        assert known is not None
        del known[name]
    return list((known or {}).values())
