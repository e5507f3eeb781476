"""The cache of observed objects, with secondary indexes and listeners.

Objects come in trimmed (`common.observed`, `pki.secret`). resourceVersions of one kind are ordered integers (Kubernetes 1.35,
KEP-5504; true of etcd before it): older news is ignored, and a deletion is remembered so that late news does not undo it.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from zerotrust.common.naming import Ref
from zerotrust.common.observed import Meta

MAX_TOMBSTONES = 20_000


class Observed(Protocol):
    """Anything with metadata."""

    @property
    def meta(self) -> Meta:
        """The object's metadata."""


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to one object; `old` is None for a new one, `new` for one that is gone.

    `by` names whoever wrote it when that was this process, so that they need not look at their own work again.
    """

    ref: Ref
    old: Any
    new: Any
    by: Hashable = None


Listener = Callable[[Change], None]
IndexKeys = Callable[[Any], Iterable[Hashable]]


class Cache:
    """Every watched object, by place and by index."""

    def __init__(self) -> None:
        self._objects: dict[str, dict[Ref, Any]] = defaultdict(dict)
        self._tombstones: OrderedDict[Ref, int] = OrderedDict()
        self._indexes: dict[str, tuple[str, IndexKeys, dict[Hashable, dict[Ref, None]]]] = {}
        self._listeners: list[Listener] = []

    def index(self, name: str, kind: str, keys: IndexKeys) -> None:
        """Keep an index over a kind; must be called before the first object of that kind comes in."""
        self._indexes[name] = (kind, keys, {})

    def listen(self, listener: Listener) -> None:
        """Call the listener after each change."""
        self._listeners.append(listener)

    def get(self, ref: Ref) -> Any:
        """Return the object, or None."""
        return self._objects[ref.kind].get(ref)

    def of_kind(self, kind: str) -> Iterator[Any]:
        """Every object of a kind; the kind must not change while this runs."""
        return iter(self._objects[kind].values())

    def count(self, kind: str) -> int:
        """How many objects of a kind there are."""
        return len(self._objects[kind])

    def refs(self, kind: str) -> list[Ref]:
        """The places of every object of a kind, as a copy."""
        return list(self._objects[kind])

    def find(self, index: str, key: Hashable) -> list[Any]:
        """Every object that the index has under this key, in the order of arrival."""
        kind, _, table = self._indexes[index]
        objects = self._objects[kind]
        return [objects[ref] for ref in table.get(key, ())]

    def everything(self) -> list[Change]:
        """Every object as the news that it is there."""
        return [Change(ref, None, one) for objects in self._objects.values() for ref, one in objects.items()]

    def retell(self, concerned: Callable[[Ref], bool]) -> None:
        """Tell every listener of these objects as if they had just come."""
        for change in self.everything():
            if concerned(change.ref):
                self._tell(change)

    def size(self, index: str, key: Hashable) -> int:
        """How many objects the index has under this key."""
        return len(self._indexes[index][2].get(key, ()))

    def sizes(self, index: str) -> list[tuple[Hashable, int]]:
        """Every key of an index with the number of its objects."""
        return [(key, len(refs)) for key, refs in self._indexes[index][2].items()]

    def put(self, observed: Observed, by: Hashable = None) -> Change | None:
        """Take in news of an object; None when it is no news."""
        ref = observed.meta.ref
        version = _number(observed.meta.resource_version)
        if version < self._tombstones.get(ref, 0):
            return None
        old = self._objects[ref.kind].get(ref)
        if old is not None and version <= _number(old.meta.resource_version):
            return None
        self._tombstones.pop(ref, None)
        self._objects[ref.kind][ref] = observed
        self._reindex(ref, old, observed)
        return self._tell(Change(ref, old, observed, by))

    def drop(self, ref: Ref, version: str = "", by: Hashable = None) -> Change | None:
        """Take in that an object is gone; None when that is no news, or when newer news has come.

        `version` is the resourceVersion of the deletion. An object that a watch by labels has told as deleted may live on
        with that very version, outside the selection, so only older news is refused afterwards. Without a version, the
        one that is cached is gone.
        """
        old = self._objects[ref.kind].get(ref)
        cached = _number(old.meta.resource_version) if old is not None else -1
        floor = _number(version) if version else cached + 1
        if floor < cached:
            return None
        if floor:
            self._tombstones[ref] = max(floor, self._tombstones.get(ref, 0))
            self._tombstones.move_to_end(ref)
            while len(self._tombstones) > MAX_TOMBSTONES:
                self._tombstones.popitem(last=False)
        if old is None:
            return None
        del self._objects[ref.kind][ref]
        self._reindex(ref, old, None)
        return self._tell(Change(ref, old, None, by))

    def _reindex(self, ref: Ref, old: Any, new: Any) -> None:
        for kind, keys, table in self._indexes.values():
            if kind != ref.kind:
                continue
            before = set(keys(old)) if old is not None else set()
            after = set(keys(new)) if new is not None else set()
            for key in before - after:
                table[key].pop(ref, None)
                if not table[key]:
                    del table[key]
            for key in after - before:
                table.setdefault(key, {})[ref] = None

    def _tell(self, change: Change) -> Change:
        for listener in self._listeners:
            listener(change)
        return change


def _number(version: str) -> int:
    return int(version) if version.isdecimal() else 0
