"""ApiKeys and what is remembered of their keys, as the commands of `zerotrust keys` read and change them in a cluster."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from zerotrust.apikey import records
from zerotrust.apikey.memory import Memory
from zerotrust.apikey.resource import ApiKeySpec
from zerotrust.cli.policies import EXIT_PROBLEM, say
from zerotrust.common import naming, times
from zerotrust.common.errors import SpecError, ZerotrustError
from zerotrust.common.naming import Ref
from zerotrust.common.observed import ConfigMap, CustomResource, config_map, custom_resource

if TYPE_CHECKING:  # imported where it is needed: the other commands start in a tenth of the time without it
    from zerotrust.kube.client import Client

ApiKey = CustomResource[ApiKeySpec]
OUR_MANAGER = "zerotrust-operator"


class Refused(ZerotrustError):
    """A command cannot do what it was asked; the message says what to do instead."""


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
    """An ApiKey as it is now; `writers` are the field managers that set `spec.rotation.requestedAt` or the revoked ids."""

    resource: ApiKey
    writers: Mapping[str, frozenset[str]] = field(default_factory=dict)

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


class Cluster:
    """The API server, in the words of these commands."""

    def __init__(self, client: "Client") -> None:
        self._client = client

    @property
    def now(self) -> datetime:
        """The present time by the API server's clock, as far as it has answered; else by the local one."""
        return datetime.now(UTC) - self._client.skew if self._client.skew is not None else datetime.now(UTC)

    async def api_key(self, namespace: str, name: str) -> Found:
        """Read one; Refused when there is none."""
        from zerotrust.kube.errors import NotFound

        try:
            return _found(await self._client.get(Ref("ApiKey", namespace, name)))
        except NotFound:
            raise Refused(
                f"there is no ApiKey {namespace}/{name}; `zerotrust keys list -A` shows those that there are"
            ) from None

    async def again(self, found: Found) -> Found:
        """Read one anew; Refused when it is gone, or another of the same name."""
        meta = found.resource.meta
        fresh = await self.api_key(meta.namespace, meta.name)
        if fresh.resource.meta.uid != meta.uid:
            raise Refused(f"ApiKey {found.place} was deleted and made anew meanwhile; look at it again")
        return fresh

    async def api_keys(self, namespace: str = "") -> list[ApiKey]:
        """Read those of a namespace, or without one of all."""
        from zerotrust.kube import resources
        from zerotrust.kube.errors import NotFound

        found: list[ApiKey] = []
        try:
            async for items, _ in self._client.list(resources.BY_KIND["ApiKey"], namespace=namespace):
                found += [custom_resource("ApiKey", ApiKeySpec, body) for body in items]
        except NotFound:
            raise Refused("this cluster has no ApiKeys; `kubectl apply -f crds/` makes them known to it") from None
        return found

    async def records(self, operator_namespace: str, namespace: str = "") -> Records:
        """Read what is remembered, of a namespace or of all; where that is not allowed, the answer says so."""
        from zerotrust.kube import resources
        from zerotrust.kube.errors import Forbidden

        selector = f"{naming.MANAGED_SELECTOR},{naming.COMPONENT}={naming.COMPONENT_API_KEYS}"
        shards: dict[str, list[ConfigMap]] = defaultdict(list)
        try:
            pages = self._client.list(replace(resources.CONFIG_MAPS, selector=selector), namespace=operator_namespace)
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

    async def change(self, found: Found, spec: Mapping[str, Any]) -> Found:
        """Merge into an ApiKey's spec; Conflict when it was changed since it was read."""
        from zerotrust.kube.errors import Unreachable

        meta = found.resource.meta
        precondition = {"uid": meta.uid, "resourceVersion": meta.resource_version}
        try:
            return _found(await self._client.patch(meta.ref, {"metadata": precondition, "spec": dict(spec)}))
        except Unreachable as error:
            raise Refused(
                f"{error}, so nobody knows whether it was written; run the command again, it does nothing twice"
            ) from None


def in_cluster(kubeconfig: str | None, context: str | None, task: Callable[[Cluster], Awaitable[int]]) -> int:
    """Carry out a task on the cluster and return its exit code; 2 with an error on standard error where it fails."""

    async def connected() -> int:
        from zerotrust.kube.client import Client, load_configuration
        from zerotrust.telemetry.metrics import Metrics

        async with Client(await load_configuration(kubeconfig, context), Metrics()) as client:
            return await task(Cluster(client))

    try:
        return asyncio.run(connected())
    except (ZerotrustError, OSError) as error:
        say(f"Error: {error}", err=True)
        return EXIT_PROBLEM


def moment(one: ApiKey, name: str) -> datetime | None:
    """A time of the status, None where it is absent."""
    return times.parse_or_none(one.status.get(name))


def is_judged(one: ApiKey) -> bool:
    """Whether the status is about the spec as it is now."""
    observed = one.status.get("observedGeneration")
    return isinstance(observed, int) and observed >= one.meta.generation


def _found(body: Mapping[str, Any]) -> Found:
    fields = {"requestedAt": ("f:rotation", "f:requestedAt"), "revokedKeyIDs": ("f:revokedKeyIDs",)}
    writers: dict[str, set[str]] = defaultdict(set)
    for entry in body["metadata"].get("managedFields") or ():
        for name, path in fields.items():
            owned: Any = (entry.get("fieldsV1") or {}).get("f:spec") or {}
            for part in path:
                owned = owned.get(part) if isinstance(owned, Mapping) else None
            if owned is not None and entry.get("manager") != OUR_MANAGER:
                writers[name].add(str(entry.get("manager")))
    return Found(
        custom_resource("ApiKey", ApiKeySpec, body), {name: frozenset(found) for name, found in writers.items()}
    )


def _place(shards: list[ConfigMap], uid: str) -> Ref:
    """The first part of a record that has the entry, which is the one that counts."""
    parts = sorted(shards, key=lambda one: naming.api_keys_shard(one.meta.name) or 0)
    return next(one.meta.ref for one in parts if uid in one.data)
