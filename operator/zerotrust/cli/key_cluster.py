"""ApiKeys and what is remembered of their keys, as the commands of `zerotrust keys` read and change them in a cluster."""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple

from zerotrust.apikey import records
from zerotrust.apikey.memory import Memory
from zerotrust.apikey.resource import ApiKeySpec
from zerotrust.cli import cluster
from zerotrust.cli.cluster import Refused
from zerotrust.common import naming, times
from zerotrust.common.errors import SpecError
from zerotrust.common.naming import Ref
from zerotrust.common.observed import ConfigMap, CustomResource, config_map, custom_resource

ApiKey = CustomResource[ApiKeySpec]


class Remembered(NamedTuple):
    """What a record says of one ApiKey's keys, by its UID; `place` is the ConfigMap that says so."""

    namespace: str
    uid: str
    memory: Memory
    place: Ref


@dataclass(frozen=True)
class Records:
    """What could be read of the records in the namespace `place`, or why nothing could be."""

    entries: tuple[Remembered, ...] = ()
    unreadable: str = ""
    place: str = "zerotrust-system"

    def of(self, one: ApiKey) -> Memory | None:
        """What is remembered of an ApiKey; None where nothing is, or nothing could be read."""
        found = (
            entry.memory for entry in self.entries if (entry.namespace, entry.uid) == (one.meta.namespace, one.meta.uid)
        )
        return next(found, None)

    def gap(self, one: ApiKey) -> str:
        """Why nothing is known of an ApiKey from here; empty where its record was read."""
        if self.unreadable or self.of(one) is not None:
            return self.unreadable
        return f"the namespace {self.place} has no record of this ApiKey; if the operator is elsewhere, give --operator-namespace"


@dataclass(frozen=True)
class Found:
    """An ApiKey as it is now; `body` is what the API server has."""

    resource: ApiKey
    body: Mapping[str, Any]

    @property
    def spec(self) -> ApiKeySpec:
        """What the user wants; Refused where it cannot be read."""
        spec = self.resource.spec
        if isinstance(spec, SpecError):
            raise Refused(f"{self.resource.meta.ref}: {spec}; correct it first, its keys are refused meanwhile")
        return spec

    @property
    def place(self) -> str:
        """`namespace/name`."""
        return f"{self.resource.meta.namespace}/{self.resource.meta.name}"


class Cluster(cluster.Cluster):
    """The API server, in the words of these commands."""

    async def api_key(self, namespace: str, name: str) -> Found:
        """Read one; Refused when there is none."""
        return _found(await self.read(Ref("ApiKey", namespace, name)))

    async def again(self, found: Found) -> Found:
        """Read one anew; Refused when it is gone, or another of the same name."""
        meta = found.resource.meta
        fresh = await self.api_key(meta.namespace, meta.name)
        if fresh.resource.meta.uid != meta.uid:
            raise Refused(f"ApiKey {found.place} was deleted and made anew meanwhile; look at it again")
        return fresh

    async def api_keys(self, namespace: str = "") -> list[ApiKey]:
        """Read those of a namespace, or without one of all."""
        from zerotrust.kube.resources import API_KEYS

        return await self.every(API_KEYS, lambda body: custom_resource("ApiKey", ApiKeySpec, body), namespace)

    async def records(self, operator_namespace: str, namespace: str = "") -> Records:
        """Read what is remembered, of a namespace or of all; where that is not allowed, the answer says so."""
        from zerotrust.kube import resources
        from zerotrust.kube.errors import Forbidden

        selector = f"{naming.MANAGED_SELECTOR},{naming.COMPONENT}={naming.COMPONENT_API_KEYS}"
        shards: dict[str, list[ConfigMap]] = defaultdict(list)
        try:
            pages = self.client.list(replace(resources.CONFIG_MAPS, selector=selector), namespace=operator_namespace)
            async for items, _ in pages:
                for shard in map(config_map, items):
                    place = shard.meta.name.rpartition(naming.API_KEYS_SUFFIX)[0]
                    if naming.api_keys_shard(shard.meta.name) is not None and namespace in ("", place):
                        shards[place].append(shard)
        except Forbidden:
            problem = f"the records in the namespace {operator_namespace} may not be read with these rights"
            return Records(unreadable=problem, place=operator_namespace)
        return Records(
            tuple(
                Remembered(place, uid, memory, _place(parts, uid))
                for place, parts in sorted(shards.items())
                for uid, memory in sorted(records.read(parts).items())
            ),
            place=operator_namespace,
        )

    async def change_key(self, found: Found, patch: Mapping[str, Any]) -> Found:
        """Merge into an ApiKey; Conflict when it was changed since it was read."""
        return _found(await self.change(found.body, patch))


def in_cluster(kubeconfig: str | None, context: str | None, task: Callable[[Cluster], Awaitable[int]]) -> int:
    """Carry out a task on the cluster and return its exit code; 2 with an error on standard error where it fails."""
    return cluster.in_cluster(kubeconfig, context, task, Cluster)


def moment(one: ApiKey, name: str) -> datetime | None:
    """A time of the status, None where it is absent."""
    return times.parse_or_none(one.status.get(name))


def _found(body: Mapping[str, Any]) -> Found:
    return Found(custom_resource("ApiKey", ApiKeySpec, body), {**body, "kind": "ApiKey"})


def _place(shards: list[ConfigMap], uid: str) -> Ref:
    """The first part of a record that has the entry, which is the one that counts."""
    parts = sorted(shards, key=lambda one: naming.api_keys_shard(one.meta.name) or 0)
    return next(one.meta.ref for one in parts if uid in one.data)
