"""ApiKeys and what is remembered of their keys, looked up in the cache: the same in the controller and in every bundle server."""

from collections.abc import Callable, Hashable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from zerotrust.apikey import records
from zerotrust.apikey.memory import Memory
from zerotrust.apikey.projection import key_records, revoked_keys
from zerotrust.apikey.resource import ApiKeySpec
from zerotrust.common import naming
from zerotrust.common.errors import SpecError
from zerotrust.common.naming import Ref
from zerotrust.common.observed import ConfigMap, CustomResource
from zerotrust.common.selectors import WorkloadReference
from zerotrust.engine.cache import Cache, Change
from zerotrust.pki.spiffe import SpiffeID
from zerotrust.policy.directory import Workload

API_KEYS = "api-keys-by-namespace"
SHARDS = "api-key-records-by-namespace"
HOLDERS = "api-keys-by-holder"

ApiKey = CustomResource[ApiKeySpec]


class _Read(NamedTuple):
    versions: tuple[str, ...]
    memories: dict[str, Memory]
    owners: dict[str, Ref]
    named: dict[str, dict[str, Memory]]


class ApiKeyBook:
    """Memories are read once for each change of a namespace's record."""

    def __init__(self, cache: Cache, operator_namespace: str, spiffe_id: Callable[[Workload], SpiffeID | None]) -> None:
        self._cache, self._operator_namespace, self._spiffe_id = cache, operator_namespace, spiffe_id
        self._known: dict[str, _Read] = {}
        cache.index(API_KEYS, "ApiKey", lambda one: [one.meta.namespace])
        cache.index(HOLDERS, "ApiKey", _holders)
        cache.index(SHARDS, "ConfigMap", self._shard_of)

    def _shard_of(self, one: ConfigMap) -> list[Hashable]:
        ours = one.meta.labels.get(naming.COMPONENT) == naming.COMPONENT_API_KEYS
        if not ours or one.meta.namespace != self._operator_namespace or naming.api_keys_shard(one.meta.name) is None:
            return []
        return [record_namespace(one.meta.name)]

    def api_keys(self, namespace: str) -> list[ApiKey]:
        """The ApiKeys of a namespace."""
        return self._cache.find(API_KEYS, namespace)

    def has_keys(self, namespace: str) -> bool:
        """Whether a namespace has ApiKeys, or remembers some."""
        return bool(self._cache.size(API_KEYS, namespace) or self._cache.size(SHARDS, namespace))

    def shards(self, namespace: str) -> tuple[ConfigMap, ...]:
        """The record of a namespace's keys."""
        return tuple(self._cache.find(SHARDS, namespace))

    def memories(self, namespace: str) -> dict[str, Memory]:
        """What is remembered, by the ApiKeys' UIDs."""
        shards = self.shards(namespace)
        versions = tuple(one.meta.resource_version for one in shards)
        known = self._known.get(namespace)
        if known is None or known.versions != versions:
            memories = records.read(shards)
            owners = {str(key.id): Ref("ApiKey", namespace, one.name) for one in memories.values() for key in one.keys}
            named: dict[str, dict[str, Memory]] = {}
            for uid, one in memories.items():
                named.setdefault(one.name, {})[uid] = one
            known = self._known[namespace] = _Read(versions, memories, owners, named)
        return known.memories

    def orphans(self, namespace: str, name: str) -> dict[str, Memory]:
        """What is remembered of ApiKeys of this name that do not exist any more, by their UIDs."""
        self.memories(namespace)
        named = self._known[namespace].named.get(name, {})
        present: ApiKey | None = self._cache.get(Ref("ApiKey", namespace, name))
        return records.adoptable(named, {present.meta.uid} if present is not None else set(), name)

    def owner(self, namespace: str, key_id: str) -> Ref | None:
        """The ApiKey that a key is of, or was of."""
        self.memories(namespace)
        return self._known[namespace].owners.get(key_id)

    def good(self, namespace: str) -> dict[str, dict[str, Any]]:
        """What the policy bundle says of keys, by their ids; a key counts only while its ApiKey exists."""
        memories = self.memories(namespace)
        found: dict[str, dict[str, Any]] = {}
        server = lru_cache(maxsize=None)(lambda name: self._named(Workload(namespace, name)))
        for one in self.api_keys(namespace):
            memory = memories.get(one.meta.uid)
            if memory is None or memory.gone is not None or one.meta.deleting or isinstance(one.spec, SpecError):
                continue
            found |= key_records(memory, one.spec, server, self._holder)
        return dict(sorted(found.items()))

    def revoked(self, namespace: str) -> dict[str, int]:
        """Which keys are revoked, and since when, in seconds since 1970."""
        return revoked_keys(self.memories(namespace).values())

    def _holder(self, reference: WorkloadReference) -> str | None:
        return self._named(Workload(reference.namespace, reference.name))

    def _named(self, workload: Workload) -> str | None:
        name = self._spiffe_id(workload)
        return str(name) if name is not None else None

    def concerned(self, change: Change) -> Iterator[str]:
        """The namespaces whose keys a change may be about."""
        match change.ref.kind:
            case "ApiKey" if _grants(change.old) != _grants(change.new):
                yield change.ref.namespace
            case "ConfigMap" if (
                change.ref.namespace == self._operator_namespace and naming.api_keys_shard(change.ref.name) is not None
            ):
                yield record_namespace(change.ref.name)
            case "ServiceIdentity":
                yield from (
                    one.meta.namespace for one in self._held_by(Workload(change.ref.namespace, change.ref.name))
                )
            case "TrustDomain":
                yield from (str(namespace) for namespace, _ in self._cache.sizes(API_KEYS))

    def _held_by(self, workload: Workload) -> list[ApiKey]:
        return self._cache.find(HOLDERS, workload)


def record_ref(operator_namespace: str, namespace: str) -> Ref:
    """Where the first part of a namespace's record is."""
    return Ref("ConfigMap", operator_namespace, naming.api_keys_name(namespace))


def record_namespace(name: str) -> str:
    """The namespace whose keys a record is about."""
    return name.rpartition(naming.API_KEYS_SUFFIX)[0]


def _grants(one: ApiKey | None) -> object:
    return (one.meta.uid, one.meta.deleting, one.spec) if one is not None else None


def _holders(one: ApiKey) -> list[Hashable]:
    workload = one.spec.holder.workload if isinstance(one.spec, ApiKeySpec) else None
    return [Workload(workload.namespace, workload.name)] if workload is not None else []
