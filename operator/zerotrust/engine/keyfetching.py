"""Fetches identity providers' keys when they are due, or when a decision point has seen one that it does not know."""

import asyncio
import logging
from collections.abc import Collection
from itertools import count
from typing import Protocol

from zerotrust.common import times
from zerotrust.common.naming import Ref
from zerotrust.common.observed import Meta
from zerotrust.engine.cache import Cache, Change
from zerotrust.engine.clock import Clock
from zerotrust.engine.providers import FetchedKeys, Providers, fetched_of
from zerotrust.engine.scheduler import Scheduler
from zerotrust.engine.trustdomains import same_generation
from zerotrust.opabundle import reports
from zerotrust.opabundle.reports import UnknownKid
from zerotrust.providers import lifecycle, memory
from zerotrust.providers.addresses import Network
from zerotrust.providers.fetch import KeyFetcher, Source
from zerotrust.providers.lifecycle import Failed, Outcome, State, Validators
from zerotrust.trustdomain.resource import IdentityProvider

logger = logging.getLogger(__name__)

AT_ONCE = 32  # fetches; each takes 10 seconds at most


class Fetcher(Protocol):
    """Asks a provider for its keys."""

    async def fetch(self, source: Source, known: Validators) -> Outcome:
        """What came of it; never raises for what a server or a network does."""


class KeyFetching:
    """Fetches keys when they are due, each provider's apart from the others', and puts what came of it into the cache.

    `private` are address ranges that are not public, from which keys are fetched nevertheless.
    """

    def __init__(
        self,
        cache: Cache,
        providers: Providers,
        clock: Clock,
        private: Collection[Network] = (),
        fetcher: Fetcher | None = None,
    ) -> None:
        self._cache, self._providers, self._clock = cache, providers, clock
        self._fetcher = fetcher or KeyFetcher(private)
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._due = Scheduler(clock, self._begin)
        self._running: dict[Ref, asyncio.Task[None]] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._versions = count(1)
        cache.listen(self._changed)

    @property
    def busy(self) -> bool:
        """Tell whether anything is being fetched."""
        return bool(self._running)

    async def run(self) -> None:
        """Fetch until cancelled; only the leader does."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            for ref in self._providers.all():
                self._schedule(ref)
            await self._due.run()

    def _changed(self, change: Change) -> None:
        if self._tasks is None:
            return
        match change.ref.kind:
            case "TrustDomain" if not same_generation(change):
                for ref in {ref for one in (change.old, change.new) for ref in fetched_of(one)}:
                    self._schedule(ref)
            case "ConfigMap" if change.new is not None:
                if reports.is_report(change.new, self._providers.operator_namespace):
                    self._reported(change)

    def _schedule(self, ref: Ref) -> None:
        provider = self._providers.get(ref)
        if provider is None:
            self._due.set(ref, None)
            if not self._providers.is_undecided(ref):
                self._cache.drop(ref)
            return
        self._due.set(ref, self._providers.state(ref, provider).next_fetch or self._clock.now())

    def _begin(self, name: object) -> None:
        assert isinstance(name, Ref)
        if self._tasks is not None and name not in self._running:
            self._running[name] = self._tasks.create_task(self._fetch(name), name=f"keys of {name.name}")

    async def _fetch(self, ref: Ref) -> None:
        try:
            async with self._slots:
                provider = self._providers.get(ref)
                if provider is None:
                    return
                outcome = await self._ask(ref, provider)
            still = self._providers.get(ref)
            if still is not None and memory.source_of(still) == memory.source_of(provider):
                self._came(ref, provider, outcome)
        finally:
            del self._running[ref]
            self._schedule(ref)

    async def _ask(self, ref: Ref, provider: IdentityProvider) -> Outcome:
        source = Source(provider.issuer, provider.jwks_uri, provider.ca_bundle)
        try:
            return await self._fetcher.fetch(source, self._providers.state(ref, provider).validators)
        except Exception as error:  # one provider's surprise must not end the others' fetches
            logger.warning("fetching keys failed", extra={"object": str(ref)}, exc_info=error)
            return Failed(f"internal error {type(error).__name__}")

    def _came(self, ref: Ref, provider: IdentityProvider, outcome: Outcome) -> None:
        before = self._providers.state(ref, provider)
        after = lifecycle.after(before, times.whole_seconds(self._clock.now()), outcome)
        if after.message and after.message != before.message:
            logger.warning("keys not fetched, trying again: %s", after.message, extra={"object": str(ref)})
        self._put(ref, provider, after)

    def _put(self, ref: Ref, provider: IdentityProvider, state: State) -> None:
        meta = Meta(ref, "", str(next(self._versions)), 0, None, {}, {}, (), deleting=False)
        self._cache.put(FetchedKeys(meta, memory.source_of(provider), state))

    def _reported(self, change: Change) -> None:
        for namespace, text in change.new.data.items():
            if '"unknown"' not in text or (change.old is not None and change.old.data.get(namespace) == text):
                continue
            for one in reports.read(change.new, namespace).unknown:
                for ref in self._providers.named(namespace, one.provider):
                    self._seen(ref, one)

    def _seen(self, ref: Ref, unknown: UnknownKid) -> None:
        """A decision point has seen a key ID that it does not know; what was fetched since then has answered that."""
        provider = self._providers.get(ref)
        if provider is None:
            return
        now = times.whole_seconds(self._clock.now())
        state = self._providers.state(ref, provider)
        answered = state.confirmed is not None and unknown.at <= state.confirmed
        if answered or unknown.kid in lifecycle.accepted(state, now).keys:
            return
        sooner = lifecycle.unknown_kid(state, now)
        if sooner is not state:
            self._put(ref, provider, sooner)
            self._schedule(ref)
