"""Keeps the cache true: our own paged LIST first, then kopf's watch, and a comparison whenever kopf has listed again.

The only module that imports kopf, and of kopf only events, login and settings. kopf re-lists after a 410 without telling which
objects are gone; an object kept by mistake is a security bug here, so each re-list is followed by an authoritative comparison
(metadata only), and one is made every few minutes in any case. What is in single namespaces is followed without kopf, which would
watch every kind in every one of them, and end where one of them may not be read (docs/adr/0013).
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, cast

import kopf
from kubernetes.aio.client import Configuration

from zerotrust.common import naming
from zerotrust.common.errors import ZerotrustError
from zerotrust.common.naming import Ref
from zerotrust.common.observed import meta_of
from zerotrust.engine.cache import Cache
from zerotrust.engine.clock import Clock
from zerotrust.engine.scheduler import Scheduler
from zerotrust.engine.scope import Scope
from zerotrust.kube.client import Client
from zerotrust.kube.errors import Forbidden, Gone, KubeError, NotFound
from zerotrust.kube.resources import WATCHED, ResourceType
from zerotrust.telemetry.metrics import Metrics, Sample

logger = logging.getLogger(__name__)

Observe = Callable[[str, Mapping[str, Any]], Any]

SETTLE = timedelta(seconds=2)
COMPARE_EVERY = timedelta(minutes=5)
RETRY = timedelta(seconds=10)
PAUSE = 1.0  # seconds from one watch to the next at least, lest one that ends at once becomes a tight loop
KOPF_END = 5.0  # seconds; kopf may be slow to let go of its streams, and nothing of ours waits for that


class WatchEnded(ZerotrustError):
    """kopf has stopped watching; the process must be restarted, which is cheap and writes nothing."""


Source = tuple[str, str]
"""A kind, and the namespace in which it is listed; empty for the whole cluster."""


class Watch:
    """The read side of the controller."""

    def __init__(
        self,
        client: Client,
        cache: Cache,
        observe: Observe,
        clock: Clock,
        metrics: Metrics,
        scope: Scope,
        resources: Iterable[ResourceType] = WATCHED,
        compare_every: timedelta = COMPARE_EVERY,
    ) -> None:
        self._client, self._cache, self._observe = client, cache, observe
        self._clock, self._metrics = clock, metrics
        self.compare_every = compare_every
        self._scope = scope
        self._resources = {resource.kind: resource for resource in resources}
        self._sources: list[Source] = [
            (kind, place) for kind, resource in self._resources.items() for place in resource.places(scope)
        ]
        client.reserve(sum(bool(place) for _, place in self._sources))
        self._confirmed: dict[Source, datetime] = {}
        self._unread = {source for source in self._sources if self._may_be_refused(source)}
        self._due: asyncio.Queue[Source] = asyncio.Queue()
        self._comparisons = Scheduler(clock, lambda source: self._due.put_nowait(cast("Source", source)))
        self.watching = asyncio.Event()
        metrics.watch(
            "cache_confirmed_timestamp_seconds",
            "Up to when the cache is known to miss nothing of a kind, in seconds since 1970.",
            ["kind"],
            self._confirmations,
        )
        metrics.gauge(
            "namespaces_unread",
            "Namespaces to be watched of which not everything may be read.",
            lambda: len(scope.unread),
        )

    def _may_be_refused(self, source: Source) -> bool:
        """Whether all else goes on while a source may not be read: the rights in watched namespaces come and go."""
        return source[1] in self._scope.namespaces and source[1] != self._scope.operator_namespace

    async def fill(self) -> None:
        """List every kind into the cache; waits for CRDs that are not installed yet."""
        for source in self._sources:
            resource, said = self._resources[source[0]], False
            while True:
                try:
                    await self._fill(source)
                    break
                except Gone:
                    continue
                except NotFound:
                    if resource.optional:
                        self._confirmed[source] = self._clock.now()
                        break
                    if not said:
                        logger.warning("%s are not served yet: apply crds/ to the cluster", resource.plural)
                        said = True
                    await asyncio.sleep(2)
                except KubeError as error:
                    logger.warning("cannot list %s, trying again: %s", resource.plural, error)
                    if isinstance(error, Forbidden) and (resource.optional or self._may_be_refused(source)):
                        break  # an older role; what needs it says so
                    await asyncio.sleep(2)

    async def _fill(self, source: Source) -> str:
        """List one source into the cache; returns the list's resourceVersion."""
        (kind, place), began, version = source, self._clock.now(), ""
        async for page, version in self._client.list(self._resources[kind], namespace=place):  # noqa: B007 - read below
            for body in page:
                self._cache.put(self._observe(kind, body))
            await asyncio.sleep(0)
        self._answered(source, began)
        return version

    def _answered(self, source: Source, began: datetime) -> None:
        """Note that a source was read; once a namespace is read completely, decisions about it begin."""
        self._confirmed[source] = began
        self._unread.discard(source)
        namespace = source[1]
        if namespace in self._scope.unread and not any(place == namespace for _, place in self._unread):
            self._scope.unread.discard(namespace)
            logger.info("namespace %s is read", namespace)
            self._cache.retell(lambda ref: self._scope.about(ref) == namespace)

    def _refused(self, source: Source, error: KubeError) -> None:
        """Note that a source may not be read: what is known of its namespace stays as it is, and nothing is decided there."""
        namespace = source[1]
        self._unread.add(source)
        self._comparisons.set(source, self._clock.now() + RETRY)
        if namespace not in self._scope.unread:
            self._scope.unread.add(namespace)
            logger.warning("namespace %s cannot be read any more: %s", namespace, error)

    def confirmed(self, namespace: str) -> datetime | None:
        """The time up to which the cache is known to miss nothing, None before everything was listed once.

        A watch that is stuck looks like a quiet one; only a list that the API server answers anew tells them apart. A namespace
        that may not be read holds up nobody else.
        """
        asked = [one for one in self._sources if one[1] not in self._scope.unread or one[1] == namespace]
        return min(self._confirmed[one] for one in asked) if all(one in self._confirmed for one in asked) else None

    def _confirmations(self) -> Iterable[Sample]:
        for kind in [kind for kind, resource in self._resources.items() if not resource.optional]:
            asked = [one for one in self._sources if one[0] == kind and one[1] not in self._scope.unread]
            if asked and all(one in self._confirmed for one in asked):
                yield (kind,), min(self._confirmed[one] for one in asked).timestamp()

    async def run(self, configuration: Configuration) -> None:
        """Watch until cancelled; WatchEnded when kopf gives up."""
        required = [source for source in self._sources if not self._resources[source[0]].optional]
        for source in required:
            self._comparisons.no_later_than(source, self._clock.now() + self.compare_every)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._comparisons.run(), name="comparison-timer")
            tasks.create_task(self._compare_when_due(), name="comparisons")
            for source in required:
                if source[1]:
                    tasks.create_task(self._follow(source), name=f"watch-{'-'.join(source)}")
            tasks.create_task(self._run_kopf(configuration), name="kopf")

    async def _follow(self, source: Source) -> None:
        """List and watch one kind in one namespace, and again when the watch ends, until cancelled."""
        kind, place = source
        while True:
            began = time.monotonic()
            try:
                first = source not in self._confirmed
                version = await self._fill(source) if first else await self.compare(kind, place)
                async for what, body in self._client.watch(self._resources[kind], str(version), place):
                    self.take(kind, what, body)
            except KubeError as error:
                logger.debug("the watch of %s in %s has ended: %s", kind, place, error)
            least = RETRY.total_seconds() if source in self._unread else PAUSE
            await asyncio.sleep(max(0.0, began + least - time.monotonic()))

    async def _run_kopf(self, configuration: Configuration) -> None:
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry, id="login")(_login(configuration, self._client))
        everywhere = {kind for kind, place in self._sources if not place}
        watched = [one for one in self._resources.values() if one.kind in everywhere and not one.optional]
        for resource in watched:
            handler = self._handler(resource)
            kopf.on.event(resource.group, resource.version, resource.plural, registry=registry, id="cache")(handler)
        # Not kopf.operator(): at its end that cancels every younger task of the loop, ours included.
        settings = _settings(watched)
        # An identity, or kopf would look up the user's name, which a container's uid may not have.
        identity = cast("Any", naming.OPERATOR)
        tasks = await kopf.spawn_tasks(registry=registry, settings=settings, clusterwide=True, identity=identity)
        self.watching.set()
        try:
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=KOPF_END)
        errors = [str(error) for task in ended if not task.cancelled() and (error := task.exception())]
        raise WatchEnded(f"the watch has ended: {'; '.join(errors) or 'stopped by kopf'}")

    def _handler(self, resource: ResourceType) -> Callable[..., Any]:
        kind = resource.kind

        async def handle(event: Mapping[str, Any], **_: Any) -> None:
            self.take(kind, event["type"], event["object"])

        return handle

    def take(self, kind: str, what: str | None, body: Mapping[str, Any]) -> None:
        """Take in one event; `what` is None for an object that kopf has listed."""
        metadata = body["metadata"]
        ref = Ref(kind, metadata.get("namespace", ""), metadata["name"])
        if what is None:
            self._comparisons.set((kind, ""), self._clock.now() + SETTLE)
        if what == "DELETED":
            self._cache.drop(ref, metadata.get("resourceVersion", ""))
            return
        known = self._cache.get(ref)
        if known is None or known.meta.resource_version != metadata.get("resourceVersion"):
            self._cache.put(self._observe(kind, body))

    @property
    def comparing(self) -> bool:
        """Whether a comparison is due within moments, or under way."""
        soon = self._clock.now() + 2 * SETTLE
        times = [self._comparisons.when(one) for one in self._sources if not self._resources[one[0]].optional]
        return any(when is None or when < soon for when in times)

    async def _compare_when_due(self) -> None:
        while True:
            source = await self._due.get()
            try:
                if source in self._confirmed:  # others are still to be listed by who follows them
                    await self.compare(*source)
            except KubeError as error:
                if source not in self._unread:
                    logger.warning("comparison of %s failed: %s", source[0], error)
                self._comparisons.set(source, self._clock.now() + RETRY)
            else:
                self._comparisons.no_later_than(source, self._clock.now() + self.compare_every)

    async def compare(self, kind: str, place: str = "") -> int | None:
        """Compare the cache with an authoritative list, of the cluster or of a namespace: drop what is gone, read what is newer.

        Returns the list's resourceVersion, None for an optional kind that is not served.
        """
        resource, began = self._resources[kind], self._clock.now()
        seen: dict[Ref, int] = {}
        version: int | None = None
        try:
            seen, version = await self._list(resource, place)
        except NotFound:
            if not resource.optional:
                raise
        except Forbidden as error:
            if self._may_be_refused((kind, place)):
                self._refused((kind, place), error)
            raise
        gone = 0
        for ref in self._cache.refs(kind):
            known = self._cache.get(ref)
            if known is None or ref in seen or (place and ref.namespace != place):
                continue
            if not _selected(resource, known.meta.labels):
                continue
            if version is None:
                gone += self._cache.drop(ref) is not None
            elif int(known.meta.resource_version) <= version:
                gone += self._cache.drop(ref, str(version + 1)) is not None
        changed = 0
        for ref, newest in seen.items():
            known = self._cache.get(ref)
            if known is None or int(known.meta.resource_version) < newest:
                changed += await self._read(ref)
        self._answered((kind, place), began)
        self._metrics.compared(kind, (("deleted", gone), ("changed", changed)))
        if (gone or changed) and not resource.optional:  # there it is how a watch begins
            logger.info(
                "comparison of %s found %d deletions and %d changes that the watch had not told", kind, gone, changed
            )
        return version

    async def _list(self, resource: ResourceType, place: str) -> tuple[dict[Ref, int], int]:
        """The resourceVersion of each object there is, and the one that they are all shown at."""
        seen: dict[Ref, int] = {}
        version = ""
        async for page, version in self._client.list(resource, metadata_only=True, namespace=place):  # noqa: B007
            for body in page:
                meta = meta_of(resource.kind, body)
                seen[meta.ref] = int(meta.resource_version)
            await asyncio.sleep(0)
        return seen, int(version)

    async def _read(self, ref: Ref) -> bool:
        try:
            body = await self._client.get(ref)
        except NotFound:
            return False
        return self._cache.put(self._observe(ref.kind, body)) is not None


def _selected(resource: ResourceType, labels: Mapping[str, str]) -> bool:
    key, _, value = resource.selector.partition("=")
    return not resource.selector or labels.get(key) == value


def _login(configuration: Configuration, client: Client) -> Callable[..., Any]:
    async def login(**_: Any) -> kopf.ConnectionInfo:
        """Give kopf the same credentials as our own client; asked again whenever they are refused."""
        scheme, token = (*(await client.authorization() or "").split(" ", 1), "", "")[:2]
        return kopf.ConnectionInfo(
            server=configuration.host,
            ca_path=configuration.ssl_ca_cert,
            ca_data=configuration.ca_cert_data,
            insecure=not configuration.verify_ssl,
            certificate_path=configuration.cert_file,
            private_key_path=configuration.key_file,
            scheme=scheme or None,
            token=token or None,
        )

    return login


class _NoDiff(kopf.DiffBaseStorage):
    """kopf compares a copy of each object with the last one for handlers that we do not have: half of its CPU per event."""

    def build(self, **_: Any) -> Any:
        return {}

    def fetch(self, **_: Any) -> Any:
        return None

    def store(self, **_: Any) -> None:
        return None


class _NoProgress(kopf.ProgressStorage):
    """Progress is kept for handlers that we do not have."""

    def fetch(self, **_: Any) -> Any:
        return None

    def store(self, **_: Any) -> None:
        return None

    def purge(self, **_: Any) -> None:
        return None

    def touch(self, **_: Any) -> None:
        return None

    def clear(self, *, essence: Any) -> Any:
        return essence


def _settings(resources: Iterable[ResourceType]) -> kopf.OperatorSettings:
    """kopf in its narrow shape; the reasons are in docs/adr/0002."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.queueing.worker_limit = None
    settings.queueing.idle_timeout = 0.5
    settings.watching.chunk_size = 500
    settings.watching.initial_streaming = False
    settings.watching.server_timeout = 300
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    settings.networking.enforce_retry_after = True
    settings.networking.error_backoffs = (1, 2, 4)
    settings.persistence.diffbase_storage = _NoDiff()
    settings.persistence.progress_storage = _NoProgress()
    settings.persistence.finalizer = f"{naming.GROUP}/unused"
    settings.process.ultimate_exiting_timeout = None  # kopf would kill a process that goes on without it
    for resource in resources:
        if resource.selector:
            key = (resource.group, resource.version, resource.plural)
            settings.watching.label_selectors[key] = resource.selector
    return settings
