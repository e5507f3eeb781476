"""The controller process put together: one place that knows every part."""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from ipaddress import IPv4Network, IPv6Network
from typing import Protocol
from uuid import uuid4

from kubernetes.aio.client import Configuration

from zerotrust.common import naming
from zerotrust.common.naming import Ref
from zerotrust.engine.admission import AdmissionBook
from zerotrust.engine.apikeys import ApiKeyController
from zerotrust.engine.bundles import (
    BundleRecordController,
    OpaConfigController,
    ReportController,
    RevocationController,
    SigningKeyController,
)
from zerotrust.engine.cache import Cache
from zerotrust.engine.clock import Clock, SystemClock
from zerotrust.engine.constraints import ConstraintController, LeftoverController, TemplateController
from zerotrust.engine.contents import BundleContents
from zerotrust.engine.controller import Engine
from zerotrust.engine.enforcement import Enforcement
from zerotrust.engine.identities import IdentityController
from zerotrust.engine.isolation import DefaultDenyController, NamespaceIsolation, RecordController
from zerotrust.engine.keydesk import Desk
from zerotrust.engine.keyfetching import KeyFetching
from zerotrust.engine.keyrecords import ApiKeyRecordController
from zerotrust.engine.keyuses import KeyUses
from zerotrust.engine.laggards import Laggards
from zerotrust.engine.lifetimes import Lifetimes
from zerotrust.engine.pods import Pods
from zerotrust.engine.policies import NetworkPolicyController, TrustPolicyController
from zerotrust.engine.policybook import PolicyBook
from zerotrust.engine.providers import ProviderMemoryController, Providers
from zerotrust.engine.scope import Scope
from zerotrust.engine.trustdomains import TrustBundleController, TrustDomainController, TrustDomains
from zerotrust.engine.widenings import Widenings
from zerotrust.kube.client import Client
from zerotrust.kube.executor import PlanExecutor
from zerotrust.kube.lease import DURATION, Lease
from zerotrust.kube.observe import Observer
from zerotrust.kube.optional import OptionalKinds
from zerotrust.kube.recorder import Recorder
from zerotrust.kube.resources import PODS, WATCHED
from zerotrust.kube.watch import Watch
from zerotrust.opabundle.configuration import Service
from zerotrust.telemetry.health import TelemetryServer, Watchdog
from zerotrust.telemetry.metrics import Metrics, Sample
from zerotrust.trustdomain.authority import Entropy, KeyRing, SystemEntropy
from zerotrust.trustdomain.reconcile import MAX_SKEW

logger = logging.getLogger(__name__)

LEASE = "zerotrust-controller"
READINESS = {
    "TrustDomain": "trust_domains",
    "ServiceIdentity": "identities",
    "TrustPolicy": "trust_policies",
    "ApiKey": "api_keys",
}
SKEW_CHECK = 30.0
HEAD_START = 10.0  # seconds


@dataclass(frozen=True)
class Options:
    """How the controller runs; `metrics_port` 0 takes any free port.

    `watch_namespaces` are those in which the operator works beside its own; without any, it works in the whole cluster.
    `private_issuers` are address ranges that are not public, from which identity providers' keys are fetched nevertheless.
    `native_policies_after` is how long after Gatekeeper has made the kinds of constraints the API server is asked to enforce them
    by itself: its admission looks for new kinds every 30 s.
    """

    namespace: str = "zerotrust-system"
    watch_namespaces: tuple[str, ...] = ()
    metrics_host: str = "0.0.0.0"  # noqa: S104 - probes and Prometheus come from other hosts
    metrics_port: int = 8080
    workers: int = 48
    retry_base: timedelta = timedelta(seconds=1)
    retry_longest: timedelta = timedelta(minutes=5)
    drain_seconds: float = 5.0
    request_timeout: float = 30.0
    lease_duration: timedelta = DURATION
    bundle_server: str = ""
    private_issuers: tuple[IPv4Network | IPv6Network, ...] = ()
    watch_pods: bool = True
    native_policies_after: timedelta = timedelta(seconds=45)

    @property
    def bundle_server_url(self) -> str:
        """Where decision points find the bundle server."""
        return self.bundle_server or f"https://{naming.BUNDLE_SERVER}.{self.namespace}.svc:8443"


class Controller:
    """The controller: fills its caches, waits to lead, works, and gives the lead back on the way out."""

    def __init__(
        self,
        configuration: Configuration,
        options: Options,
        clock: Clock | None = None,
        entropy: Entropy | None = None,
    ) -> None:
        self._configuration, self._options = configuration, options
        self._clock = clock or SystemClock()
        self.metrics = Metrics()
        self.cache = Cache()
        self._client = Client(configuration, self.metrics, timeout=options.request_timeout)
        key_ring, scope = KeyRing(), Scope(options.namespace, options.watch_namespaces)
        entropy = entropy or SystemEntropy()
        observe = Observer(options.namespace, key_ring)
        self.cache.listen(observe.forget)
        identity = f"{socket.gethostname()[:48]}-{os.getpid()}-{uuid4().hex[:8]}"
        watched = WATCHED if options.watch_pods else tuple(one for one in WATCHED if one is not PODS)
        self.watch = Watch(self._client, self.cache, observe, self._clock, self.metrics, scope, watched)
        self._recorder = Recorder(self._client, self._clock, self.metrics, identity)
        domains = TrustDomains(self.cache, options.namespace, scope.covers)
        book = PolicyBook(self.cache, domains, self._clock)
        isolation = NamespaceIsolation(self.cache, domains)
        self.contents = contents = BundleContents(self.cache, book, domains, self._clock)
        enforcement = Enforcement(self.cache, contents, options.namespace, self._clock)
        widenings = Widenings(self.cache, book, enforcement, self._clock)
        networks = NetworkPolicyController(self.cache, book, domains, isolation, self._clock, widenings)
        providers = Providers(self.cache, domains)
        self.key_fetching = KeyFetching(self.cache, providers, self._clock, options.private_issuers)
        desk, uses = Desk(), KeyUses(contents.keys)
        pods = Pods(self.cache, watched=options.watch_pods)
        admission = AdmissionBook(self.cache, book, contents.keys, pods, self._clock, options.native_policies_after)
        self.engine = Engine(
            self.cache,
            (
                TrustDomainController(self.cache, domains, entropy, lambda: self._client.skew, providers.keys_of),
                TrustBundleController(self.cache, domains),
                IdentityController(self.cache, domains, key_ring, entropy, admission),
                ApiKeyController(
                    self.cache,
                    contents.keys,
                    enforcement,
                    options.namespace,
                    lambda namespace: contents.validity(namespace, "policy"),
                    lambda: self._client.skew,
                    desk,
                    uses,
                ),
                ApiKeyRecordController(self.cache, contents.keys, options.namespace, desk, uses, self._clock),
                TrustPolicyController(self.cache, book, networks, enforcement, admission, self._clock),
                networks,
                DefaultDenyController(self.cache, isolation),
                RecordController(self.cache, isolation),
                BundleRecordController(self.cache, contents, enforcement, self._clock),
                SigningKeyController(self.cache, contents, options.namespace, enforcement.keys_in_use),
                OpaConfigController(self.cache, contents, options.namespace, Service(options.bundle_server_url)),
                RevocationController(self.cache, contents),
                ReportController(enforcement),
                TemplateController(admission),
                LeftoverController(self.cache),
                ConstraintController(admission, self._clock),
                ProviderMemoryController(self.cache, providers),
            ),
            PlanExecutor(self._client, self.cache, observe, self._recorder, self.metrics),
            self._clock,
            self.metrics,
            workers=options.workers,
            retry_base=options.retry_base,
            retry_longest=options.retry_longest,
            decides=scope.decides,
        )
        self._optional = OptionalKinds(self._client, self.cache, self.watch, self._clock)
        self.lease = Lease(
            self._client, self._clock, Ref("Lease", options.namespace, LEASE), identity, options.lease_duration
        )
        self.telemetry = TelemetryServer(self.metrics, self._not_ready, options.metrics_host, options.metrics_port)
        self._domains, self._providers = domains, providers
        Lifetimes(self.cache, domains, contents.keys, self._clock).announce(self.metrics)
        Laggards(self.cache, contents, enforcement, self._clock).announce(self.metrics)
        self.synced = asyncio.Event()
        self.metrics.leading.set(0)
        self.metrics.synced.set(0)
        self._register_gauges()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set; raises when the watch or the leadership is lost."""
        await self.telemetry.start()
        try:
            async with self._client:
                await self._run(stop)
        finally:
            await self.telemetry.stop()

    async def _run(self, stop: asyncio.Event) -> None:
        stopping = asyncio.create_task(stop.wait(), name="stop")
        work = asyncio.create_task(self._work(), name="controller")
        try:
            await asyncio.wait({stopping, work}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            work.cancel()
            outcome = (await asyncio.gather(work, return_exceptions=True))[0]
            await self.lease.release()
            self.metrics.leading.set(0)
        if isinstance(outcome, Exception):
            raise outcome
        logger.info("stopped")

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(Watchdog(self.metrics).run(), name="watchdog")
            self.engine.hold()
            gc.disable()  # nothing that is listed is garbage, and looking for some costs as much as reading it
            try:
                await self.watch.fill()
                await self._optional.look()
                gc.freeze()  # what a cluster has at the start mostly stays; full collections need not look at it again
            finally:
                gc.enable()
            gc.set_threshold(20_000, 20, 50)
            self.synced.set()
            self.metrics.synced.set(1)
            logger.info("caches filled: %s", ", ".join(f"{count} {kind}" for kind, count in self._counts()))
            await self.engine.catch_up()
            leading = tasks.create_task(self._lead(), name="lead")
            await self._first_pass(leading)
            tasks.create_task(self.watch.run(self._configuration), name="watch")
            tasks.create_task(self._optional.run(), name="gatekeeper")
            await leading

    async def _first_pass(self, leading: asyncio.Task[None]) -> None:
        """Give the first look at everything a head start: kopf's own listing wants the processor for as long again.

        Nothing is missed by it: kopf lists what has come meanwhile, and a comparison follows.
        """
        deadline = time.monotonic() + HEAD_START
        await asyncio.wait({leading}, timeout=0.1)
        while self.lease.held and not self.engine.idle and time.monotonic() < deadline:  # noqa: ASYNC110 - once only
            await asyncio.sleep(0.05)

    async def _lead(self) -> None:
        await self.lease.acquire()
        self.metrics.leading.set(1)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.lease.keep(), name="lease")
            tasks.create_task(self._recorder.run(), name="recorder")
            engine = tasks.create_task(self.engine.run(), name="engine")
            tasks.create_task(self._watch_skew(), name="clock-skew")
            tasks.create_task(self.key_fetching.run(), name="identity-providers")
            try:
                await engine
            except asyncio.CancelledError:
                # On a graceful stop what was decided is still told; after a lost lead the group is failing and this is cut.
                with contextlib.suppress(asyncio.CancelledError):
                    await self._recorder.drain(self._options.drain_seconds)
                raise

    async def _watch_skew(self) -> None:
        """Look at every TrustDomain again when the clocks begin or cease to disagree."""
        told: bool | None = None
        while True:
            await asyncio.sleep(1.0 if told is None else SKEW_CHECK)
            skew = self._client.skew
            apart = skew is not None and abs(skew) > MAX_SKEW
            if skew is not None and apart != told:
                told = apart
                for domain in list(self._domains.all()):
                    self.engine.touch("TrustDomain", domain.meta.ref)

    def _counts(self) -> Iterable[tuple[str, int]]:
        return [(kind, self.cache.count(kind)) for kind in ("TrustDomain", "ServiceIdentity", "Secret", "Namespace")]

    def _not_ready(self) -> str:
        return "" if self.synced.is_set() else "caches are being filled"

    def _register_gauges(self) -> None:
        for kind, name in READINESS.items():
            self.cache.index(name, kind, lambda one: [one.ready])
            self.metrics.watch(
                name, f"{kind} objects by readiness and reason.", ["ready", "reason"], partial(self._readiness, name)
            )
        self.metrics.watch(
            "identity_provider_keys_end_timestamp_seconds",
            "When an identity provider's keys cease to be accepted, in seconds since 1970; 0 while there are none.",
            ["trust_domain", "provider"],
            self._providers.ends,
        )

    def _readiness(self, index: str) -> Iterable[Sample]:
        for key, number in self.cache.sizes(index):
            status, reason = key if isinstance(key, tuple) else ("", "")
            yield (status or "Unknown", reason or "NotReconciled"), number


class Process(Protocol):
    """What runs until it is told to stop."""

    @property
    def watch(self) -> Watch:
        """Its watch, which brings kopf along."""

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set."""


async def run_until_signal(process: Process) -> None:
    """Run until SIGTERM or SIGINT; a second signal ends the process at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(130)
        stop.set()

    def install() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal)

    async def reinstall() -> None:
        await process.watch.watching.wait()  # kopf has put its own handlers in place by now
        install()

    install()
    again = asyncio.create_task(reinstall())
    try:
        await process.run(stop)
    finally:
        again.cancel()
