"""Carries a plan out with the fewest writes: POST what is absent, merge-patch what differs, nothing that is already so.

Children first, then deletions, then at most one status write, then events (DESIGN section 4).
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from zerotrust.common.merge import without_nulls
from zerotrust.common.naming import Ref
from zerotrust.common.observed import Own
from zerotrust.common.plan import Apply, Delete, Plan
from zerotrust.engine.cache import Cache
from zerotrust.engine.controller import Key, Superseded
from zerotrust.engine.difference import difference, is_complete, is_value, missing, paths
from zerotrust.kube.client import Client
from zerotrust.kube.errors import AlreadyExists, Conflict, NotFound
from zerotrust.kube.recorder import Recorder
from zerotrust.kube.survey import read_survey
from zerotrust.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

Observe = Callable[[str, Mapping[str, Any]], Any]


class Subject(Protocol):
    """A snapshot about one of our resources, which has a status and can have events."""

    @property
    def resource(self) -> Own[Any]:
        """The resource."""


class PlanExecutor:
    """Makes plans true, and tells the cache at once what it wrote."""

    def __init__(self, client: Client, cache: Cache, observe: Observe, recorder: Recorder, metrics: Metrics) -> None:
        self._client, self._cache, self._observe = client, cache, observe
        self._recorder, self._metrics = recorder, metrics

    async def carry_out(self, key: Key, snapshot: Any, plan: Plan) -> None:
        """Make the plan true; Superseded when the cache has learnt better meanwhile."""
        if [ref for ref in plan.refresh if await self.refresh(ref) or self._is_outdated(snapshot, ref)]:
            raise Superseded  # the plan was made without what was read just now
        for apply in plan.applies:
            await self._apply(key, apply)
        for delete in plan.deletes:
            await self._delete(key, delete)
        resource = getattr(snapshot, "resource", None)
        if resource is None:
            return
        if plan.status is not None:
            await self._write_status(key, resource, plan.status)
        for event in plan.events:
            self._recorder.record(resource.meta, event)

    async def refresh(self, ref: Ref, by: Key | None = None) -> bool:
        """Read one object into the cache; tell whether that was news."""
        if ref.kind == "Survey":
            return await self._look_around(ref)
        try:
            body = await self._client.get(ref)
        except NotFound:
            return self._cache.drop(ref, by=by) is not None
        return self._cache.put(self._observe(ref.kind, body), by) is not None

    def _is_outdated(self, snapshot: Any, ref: Ref) -> bool:
        """Tell whether another key has read news of the same surroundings since this snapshot was taken."""
        return ref.kind == "Survey" and self._cache.get(ref) is not getattr(snapshot, "survey", None)

    async def _look_around(self, ref: Ref) -> bool:
        found, known = await read_survey(self._client, ref), self._cache.get(ref)
        if known is not None and known.says_the_same(found):
            return False
        return self._cache.put(found) is not None

    async def _apply(self, key: Key, apply: Apply) -> None:
        if apply.copies:
            apply = await self._with_copies(apply)
        observed = self._cache.get(apply.ref)
        if observed is None:
            await self._create(key, apply)
            return
        patch = missing(observed, apply)
        if not patch:
            return
        same = {"uid": observed.meta.uid} if apply.shared else {"resourceVersion": observed.meta.resource_version}
        patch.setdefault("metadata", {}).update(same)
        try:
            body = await self._client.patch(apply.ref, patch)
        except NotFound:
            self._cache.drop(apply.ref)
            raise
        except Conflict:
            await self.refresh(apply.ref)  # a watch that lags must not make the same conflict again
            raise
        self._cache.put(self._observe(apply.ref.kind, body), key)
        if apply.repairs:
            self._metrics.repaired(apply.ref.kind)
            logger.info("repaired a foreign edit", extra={"object": str(apply.ref), "fields": ", ".join(paths(patch))})

    async def _with_copies(self, apply: Apply) -> Apply:
        """Read what is to be copied; Superseded when it is no longer what the plan was made for."""
        data = dict(apply.manifest["data"])
        for data_key, copy in apply.copies.items():
            try:
                text = (await self._client.get(copy.ref)).get("data", {}).get(copy.data_key, "")
            except NotFound:
                text = ""
            if not is_value(text, copy.digest):
                await self.refresh(copy.ref)
                raise Superseded
            data[data_key] = text
        return replace(apply, manifest={**apply.manifest, "data": data}, copies={})

    async def _create(self, key: Key, apply: Apply) -> None:
        if not is_complete(apply.manifest):
            raise Superseded  # only a correction was planned, and its object is gone
        try:
            body = await self._client.create(without_nulls(apply.manifest))
        except AlreadyExists as error:
            # Outside our watch: a foreign object, or ours without its label. The decision is made anew with it in the cache.
            if await self.refresh(apply.ref):
                raise Superseded from error
            raise
        self._cache.put(self._observe(apply.ref.kind, body), key)
        if apply.repairs:
            self._metrics.repaired(apply.ref.kind)
            logger.info("restored what somebody deleted", extra={"object": str(apply.ref)})

    async def _delete(self, key: Key, delete: Delete) -> None:
        observed = self._cache.get(delete.ref)
        if observed is not None and observed.meta.uid != delete.uid:
            return
        try:
            await self._client.delete(delete.ref, delete.uid)
        except NotFound:
            pass
        except Conflict:
            await self.refresh(delete.ref)
            return
        self._cache.drop(delete.ref, by=key)

    async def _write_status(self, key: Key, resource: Own[Any], status: Mapping[str, Any]) -> None:
        current = self._cache.get(resource.meta.ref)
        if current is None or current.meta.uid != resource.meta.uid:
            return
        stale = {name: None for name in current.status if name not in status}
        patch = difference(current.status, {**status, **stale})
        if not patch:
            return
        # The uid keeps the status of a deleted object off its successor; a resourceVersion would only lose races with spec edits.
        body = {"metadata": {"uid": current.meta.uid}, "status": patch}
        try:
            answer = await self._client.patch(resource.meta.ref, body, "status")
        except (NotFound, Conflict) as error:
            if await self.refresh(resource.meta.ref) or self._cache.get(resource.meta.ref) is None:
                raise Superseded from error  # deleted, or deleted and made again, before the watch has told
            raise
        observed = self._observe(resource.meta.ref.kind, answer)
        # The answer may be the first to tell of somebody's edit of the spec: then it is not only our own change.
        own = observed.meta.generation == resource.meta.generation
        self._cache.put(observed, key if own else None)
