"""Follows kinds that a cluster may lack, and that come and go while we run: Gatekeeper's.

kopf finds new kinds by the events of CRDs, and misses one that the API server does not serve yet at that moment. So these few are
listed and watched here, with the same cache and comparisons (docs/adr/0012).
"""

import asyncio
import logging
from itertools import count

from zerotrust.engine.admission import INSTALLATION, installation
from zerotrust.engine.cache import Cache, Change
from zerotrust.engine.clock import Clock
from zerotrust.gatekeeper.templates import TEMPLATES
from zerotrust.kube.client import Client
from zerotrust.kube.errors import Forbidden, KubeError
from zerotrust.kube.resources import CONSTRAINT_TEMPLATES, CONSTRAINTS, WEBHOOK_CONFIGURATIONS, ResourceType
from zerotrust.kube.watch import Watch

logger = logging.getLogger(__name__)

LOOK_AGAIN = 10.0  # seconds between looks for Gatekeeper where it is not
ABSENT = 60.0  # the same for kinds of constraints; their template hints at them
HINTED = 2.0  # the API server takes a moment to serve a kind that Gatekeeper has just made
PAUSE = 1.0  # seconds between watches, lest one that ends at once becomes a tight loop


class OptionalKinds:
    """Keeps Gatekeeper's objects in the cache, and whether there is a Gatekeeper."""

    def __init__(self, client: Client, cache: Cache, watch: Watch, clock: Clock) -> None:
        self._client, self._cache, self._watch, self._clock = client, cache, watch, clock
        self._versions = count(1)
        self._hints = {resource.kind: asyncio.Event() for resource in CONSTRAINTS}
        cache.listen(self._changed)

    def _changed(self, change: Change) -> None:
        """A template that was made or changed may have brought the kind of its constraints."""
        if change.ref.kind == CONSTRAINT_TEMPLATES.kind:
            for template in TEMPLATES.values():
                if template.name == change.ref.name:
                    self._hints[template.kind].set()

    async def run(self) -> None:
        """Follow every kind until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for resource in (CONSTRAINT_TEMPLATES, *CONSTRAINTS, WEBHOOK_CONFIGURATIONS):
                tasks.create_task(self._follow(resource), name=f"watch-{resource.plural}")

    async def look(self) -> None:
        """Look once whether there is a Gatekeeper, before anything is decided."""
        try:
            self._note(await self._watch.compare(CONSTRAINT_TEMPLATES.kind) is not None)
        except KubeError as error:
            logger.warning("cannot look for Gatekeeper: %s", error)

    async def _follow(self, resource: ResourceType) -> None:
        hint = self._hints.get(resource.kind)
        while True:
            try:
                version = await self._watch.compare(resource.kind)
                if resource is CONSTRAINT_TEMPLATES:
                    self._note(version is not None)
                if version is not None:
                    async for what, body in self._client.watch(resource, str(version)):
                        self._watch.take(resource.kind, what, body)
            except KubeError as error:
                logger.debug("the watch of %s has ended: %s", resource.plural, error)
                await asyncio.sleep(LOOK_AGAIN if isinstance(error, Forbidden) else PAUSE)
                continue
            await self._pause(PAUSE if version is not None else self._patience(resource), hint)

    def _patience(self, resource: ResourceType) -> float:
        if resource is CONSTRAINT_TEMPLATES:
            return LOOK_AGAIN
        known = self._cache.get(INSTALLATION)
        return HINTED if known is not None and known.installed else ABSENT

    async def _pause(self, seconds: float, hint: asyncio.Event | None) -> None:
        if hint is None:
            await asyncio.sleep(seconds)
            return
        try:
            async with asyncio.timeout(seconds):
                await hint.wait()
        except TimeoutError:
            return
        hint.clear()

    def _note(self, installed: bool) -> None:
        known = self._cache.get(INSTALLATION)
        if known is not None and known.installed == installed:
            return
        if known is not None or installed:
            logger.info("Gatekeeper is %s", "there" if installed else "gone")
        self._cache.put(installation(installed=installed, version=next(self._versions), at=self._clock.now()))
