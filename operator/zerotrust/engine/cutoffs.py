"""The remembered cut-off of one SPIFFE ID, from the cache: the whole memory is read once for each of its versions."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from zerotrust.common import naming
from zerotrust.common.naming import Ref
from zerotrust.common.observed import ConfigMap
from zerotrust.engine.cache import Cache, Change
from zerotrust.opabundle import revocations
from zerotrust.opabundle.revocations import Cutoff
from zerotrust.pki.spiffe import SpiffeID


class CutoffMemory:
    """Looks cut-offs up in the ConfigMap of the operator's namespace."""

    def __init__(self, cache: Cache, operator_namespace: str) -> None:
        self._cache = cache
        self.ref = Ref("ConfigMap", operator_namespace, naming.REVOCATIONS)
        self._read: tuple[ConfigMap | None, Mapping[SpiffeID, Cutoff]] = (None, {})

    def before(self, name: SpiffeID) -> datetime | None:
        """The cut-off that is remembered for an ID; None when there is none."""
        memory: ConfigMap | None = self._cache.get(self.ref)
        if memory is not self._read[0]:
            self._read = (memory, revocations.read(memory))
        cutoff = self._read[1].get(name)
        return cutoff.before if cutoff is not None else None


def changed_ids(change: Change) -> Iterable[SpiffeID]:
    """The IDs whose remembered cut-off a change of the memory changes."""
    old, new = revocations.read(change.old), revocations.read(change.new)
    return [name for name in old.keys() | new.keys() if old.get(name) != new.get(name)]
