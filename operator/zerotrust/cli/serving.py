"""The bundle server process put together: it watches, compiles by itself, and serves only what the leader has recorded."""

import asyncio
import contextlib
import gc
import logging
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from kubernetes.aio.client import Configuration

from zerotrust.bundleserver.app import Parts
from zerotrust.bundleserver.auth import Authenticator
from zerotrust.bundleserver.auth_api import KubeReviews
from zerotrust.bundleserver.counts import Counts
from zerotrust.bundleserver.decisions import LogReader
from zerotrust.bundleserver.limits import Limits
from zerotrust.bundleserver.publisher import STEPS, Publisher
from zerotrust.bundleserver.reporting import Reporting
from zerotrust.bundleserver.server import BundleServer
from zerotrust.bundleserver.shelf import Kind, Shelf
from zerotrust.bundleserver.sources import DecisionMetrics, PublicDocuments, Resolver, SigningKeys
from zerotrust.bundleserver.tls import TlsIdentity, TlsSource
from zerotrust.common import naming
from zerotrust.common.naming import Ref
from zerotrust.engine.cache import Cache
from zerotrust.engine.clock import Clock, SystemClock
from zerotrust.engine.contents import BundleContents
from zerotrust.engine.policybook import PolicyBook
from zerotrust.engine.scope import Scope
from zerotrust.engine.trustdomains import TrustDomains
from zerotrust.kube import resources
from zerotrust.kube.client import Client
from zerotrust.kube.observe import Observer
from zerotrust.kube.watch import COMPARE_EVERY, Watch
from zerotrust.opabundle.signing import SigningKey
from zerotrust.telemetry.health import TelemetryServer, Watchdog
from zerotrust.telemetry.metrics import Metrics
from zerotrust.trustdomain.authority import KeyRing

logger = logging.getLogger(__name__)

# No Secrets: the keys that sign bundles are read by name, its own SVID is mounted, and authorities' keys are out of reach.
WATCHED = (
    resources.NAMESPACES,
    resources.RECORDS,
    resources.CONTROLLER_REVISIONS,
    resources.TRUST_DOMAINS,
    resources.SERVICE_IDENTITIES,
    resources.API_KEYS,
    resources.TRUST_POLICIES,
)
LEAST_PERIOD = timedelta(seconds=2)


@dataclass(frozen=True)
class ServingOptions:
    """How a bundle server runs; port 0 takes any free one. `pod` and `pod_uid` name the replica and own its report.

    `watch_namespaces` are the controller's.
    """

    tls: TlsSource
    namespace: str = "zerotrust-system"
    watch_namespaces: tuple[str, ...] = ()
    host: str = "0.0.0.0"  # noqa: S104 - decision points come from other hosts
    port: int = 8443
    metrics_host: str = "0.0.0.0"  # noqa: S104 - probes and Prometheus, too
    metrics_port: int = 8080
    pod: str = field(default_factory=socket.gethostname)
    pod_uid: str = ""
    limits: Limits = field(default_factory=Limits)


class BundleServing:
    """One replica."""

    def __init__(self, configuration: Configuration, options: ServingOptions, clock: Clock | None = None) -> None:
        self._configuration, self._options = configuration, options
        clock = clock or SystemClock()
        self.metrics, self.cache, self.shelf = Metrics(), Cache(), Shelf()
        self._client = Client(configuration, self.metrics)
        scope = Scope(options.namespace, options.watch_namespaces)
        domains = TrustDomains(self.cache, options.namespace, scope.covers)
        self.contents = BundleContents(self.cache, PolicyBook(self.cache, domains, clock), domains, clock)
        observe = Observer(options.namespace, KeyRing())
        self.watch = Watch(self._client, self.cache, observe, clock, self.metrics, scope, WATCHED)
        self.keys = SigningKeys(self._client, options.namespace)
        self.publisher = Publisher(self.contents, self.shelf, self._keys, self.watch.confirmed, options.namespace)
        report = Ref("ConfigMap", options.namespace, naming.REPORT_PREFIX + options.pod)
        self._reporting = Reporting(self._client, clock, report, self.publisher, options.pod_uid)
        tls, resolver, limits = TlsIdentity(options.tls), Resolver(self.cache, self.contents), options.limits
        parts = Parts(
            shelf=self.shelf,
            authenticator=Authenticator(
                KubeReviews(self._client, limits.review_seconds), resolver, clock, tls.current.trust_domain, limits
            ),
            documents=PublicDocuments(self.cache, options.namespace),
            reports=self._reporting,
            logs=DecisionMetrics(self.metrics, self._reporting.decisions),
            log_reader=LogReader(resolver, limits.log_entries, limits.label_sets, limits.denials),
            clock=clock,
            counts=Counts(self.metrics),
            limits=limits,
        )
        self.server = BundleServer(parts, tls, options.host, options.port)
        self.telemetry = TelemetryServer(self.metrics, self._not_ready, options.metrics_host, options.metrics_port)
        self.synced = asyncio.Event()
        self.metrics.synced.set(0)

    def _keys(self) -> Mapping[str, SigningKey]:
        return self.keys.current

    def _not_ready(self) -> str:
        if not self.synced.is_set():
            return "caches are being filled"
        if self.contents.namespaces() and not self.keys.current:
            return "there is no signing key yet"
        return self.server.not_ready()

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then drain; raises when the watch is lost."""
        await self.telemetry.start()
        try:
            async with self._client:
                await self._run(stop)
        finally:
            await self.telemetry.stop()

    async def _run(self, stop: asyncio.Event) -> None:
        stopping = asyncio.create_task(stop.wait(), name="stop")
        work = asyncio.create_task(self._work(), name="bundle-server")
        try:
            await asyncio.wait({stopping, work}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done() and self.synced.is_set():
                await self.server.drain()
        finally:
            stopping.cancel()
            work.cancel()
            outcome = (await asyncio.gather(work, return_exceptions=True))[0]
            with contextlib.suppress(Exception):
                await self.server.stop()
        if isinstance(outcome, Exception):
            raise outcome
        logger.info("stopped")

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(Watchdog(self.metrics).run(), name="watchdog")
            tasks.create_task(self.keys.run(), name="signing-keys")
            await self.watch.fill()
            gc.freeze()
            self.cache.listen(self.publisher.changed)
            self._pace()
            self.synced.set()
            self.metrics.synced.set(1)
            await self.server.start()
            logger.info("serving bundles of %d namespaces", len(self.contents.namespaces()))
            tasks.create_task(self.publisher.run(), name="publisher")
            tasks.create_task(self._reporting.run(), name="reporting")
            tasks.create_task(self._keep_pace(), name="pace")
            tasks.create_task(self.watch.run(self._configuration), name="watch")

    async def _keep_pace(self) -> None:
        while True:
            await asyncio.sleep(LEAST_PERIOD.total_seconds())
            self._pace()

    def _pace(self) -> None:
        """Confirm the cache at least twice as often as bundles get new times."""
        shortest = min(
            (self.contents.validity(place, kind.value) for place in self.contents.namespaces() for kind in Kind),
            default=COMPARE_EVERY,
        )
        self.watch.compare_every = max(LEAST_PERIOD, min(COMPARE_EVERY, shortest / (2 * STEPS)))
