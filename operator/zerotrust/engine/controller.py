"""The generic loop: change -> keys -> snapshot -> plan -> carried out -> next time.

Knows neither kopf nor Kubernetes. A `Controller` says which keys a change touches and decides purely; an `Executor` acts.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar, Protocol

from zerotrust.common.errors import ZerotrustError
from zerotrust.common.naming import Ref
from zerotrust.common.plan import Plan
from zerotrust.engine.cache import Cache, Change
from zerotrust.engine.clock import Clock
from zerotrust.engine.scheduler import Scheduler
from zerotrust.engine.workqueue import Backoff, Workqueue
from zerotrust.telemetry.metrics import Metrics, Sample

logger = logging.getLogger(__name__)

REPORT_AFTER = 2
FAILING_AFTER = 5  # by then it has gone on for some seconds, and is no conflict of two writers
BATCH = 100


@dataclass(frozen=True, slots=True)
class Key:
    """A unit of work: one object of one controller."""

    controller: str
    ref: Ref

    def __str__(self) -> str:
        return str(self.ref)


@dataclass(frozen=True, slots=True)
class Touched:
    """A change touches this object, at the latest after `within`; many changes in that time become one reconcile."""

    ref: Ref
    within: timedelta = timedelta()


@dataclass(frozen=True)
class Failure:
    """A plan could not be made or carried out; `attempts` counts since the last success."""

    message: str
    attempts: int
    next_attempt: datetime


class Superseded(Exception):
    """What the plan assumed has turned out otherwise; the cache knows better now and the key will come again."""


class Controller(Protocol):
    """One kind of work."""

    @property
    def name(self) -> str:
        """The controller's name in keys, logs and metrics."""

    def touched_by(self, change: Change) -> Iterable[Touched]:
        """Which objects a change makes due."""

    def snapshot(self, ref: Ref) -> Any:
        """Collect what a decision needs from the cache; None when there is nothing to decide."""

    def is_slow(self, snapshot: Any) -> bool:
        """Tell whether the decision would hold up the event loop."""

    def reconcile(self, snapshot: Any, now: datetime) -> Plan:
        """Decide; pure."""

    def failed(self, snapshot: Any, failure: Failure, now: datetime) -> Plan:
        """Decide what to show after failures; pure."""

    def priority(self, ref: Ref) -> float:
        """Smaller is more urgent."""


class Statusless:
    """A controller of objects without a status of their own: cheap to decide, and of failures the log tells."""

    urgency: ClassVar[float] = 0.0

    def is_slow(self, snapshot: object) -> bool:  # noqa: ARG002
        """Never."""
        return False

    def failed(self, snapshot: object, failure: Failure, now: datetime) -> Plan:  # noqa: ARG002
        """Nothing to show."""
        return Plan()

    def priority(self, ref: Ref) -> float:  # noqa: ARG002
        """The same for every object."""
        return self.urgency


class Executor(Protocol):
    """Carries plans out."""

    async def carry_out(self, key: Key, snapshot: Any, plan: Plan) -> None:
        """Make the plan true; Superseded when the cache has learnt better meanwhile."""


class Engine:
    """Runs controllers over a cache."""

    def __init__(
        self,
        cache: Cache,
        controllers: Sequence[Controller],
        executor: Executor,
        clock: Clock,
        metrics: Metrics,
        *,
        workers: int = 48,
        retry_base: timedelta = timedelta(seconds=1),
        retry_longest: timedelta = timedelta(minutes=5),
        decides: Callable[[Ref], bool] = lambda _: True,
    ) -> None:
        """`decides` tells whether enough is known about what a key is about; others are passed over."""
        self._cache, self._executor, self._clock, self._metrics = cache, executor, clock, metrics
        self._decides = decides
        self._controllers = {controller.name: controller for controller in controllers}
        self._workers = workers
        self.queue: Workqueue[Key] = Workqueue()
        self.scheduler = Scheduler(clock, self._due)
        self._backoff: Backoff[Key] = Backoff(retry_base, retry_longest)
        self._held = False
        cache.listen(self._changed)
        metrics.gauge("queue_depth", "Keys that wait for a worker.", lambda: len(self.queue))
        metrics.gauge("timers", "Times at which something is due.", lambda: len(self.scheduler))
        metrics.watch(
            "failing_keys", f"Keys that failed {FAILING_AFTER} times in a row and more.", ["controller"], self._failing
        )

    def touch(self, controller: str, ref: Ref) -> None:
        """Ask for a reconcile now."""
        self.queue.add(Key(controller, ref), self._controllers[controller].priority(ref))

    def hold(self) -> None:
        """Look at no change until `catch_up`: what is listed at the start is looked at in one go."""
        self._held = True

    async def catch_up(self) -> None:
        """Look at everything that the cache has; other tasks have their turns in between."""
        self._held = False
        for number, change in enumerate(self._cache.everything()):
            self._changed(change)
            if number % BATCH == 0:
                await asyncio.sleep(0)

    @property
    def idle(self) -> bool:
        """Tell whether nothing waits for work, be it now or for another attempt."""
        return self.queue.idle and not self._backoff

    def _failing(self) -> Iterable[Sample]:
        found = Counter(key.controller for key in self._backoff.failing(FAILING_AFTER))
        return [((controller,), number) for controller, number in found.items()]

    def _changed(self, change: Change) -> None:
        if self._held:
            return
        for controller in self._controllers.values():
            for touched in controller.touched_by(change):
                key = Key(controller.name, touched.ref)
                if change.by == key:
                    continue
                if touched.within:
                    self.scheduler.no_later_than(("soon", key), self._clock.now() + touched.within)
                else:
                    self.queue.add(key, controller.priority(touched.ref))

    def _due(self, name: Any) -> None:
        _, key = name
        self.queue.add(key, self._controllers[key.controller].priority(key.ref))

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.scheduler.run(), name="scheduler")
            for number in range(self._workers):
                tasks.create_task(self._work(), name=f"worker-{number}")

    async def _work(self) -> None:
        while True:
            key = await self.queue.get()
            try:
                await self._reconcile(key)
            finally:
                self.queue.done(key)
            await asyncio.sleep(
                0
            )  # thousands of decisions that write nothing await nothing, and probes want their turn

    async def _reconcile(self, key: Key) -> None:
        controller = self._controllers[key.controller]
        started = time.perf_counter()
        try:
            snapshot = controller.snapshot(key.ref) if self._decides(key.ref) else None
            if snapshot is None:
                self._settle(key, None)
                return
            plan = await self._decide(controller, snapshot)
            await self._executor.carry_out(key, snapshot, plan)
        except Superseded:
            self._backoff.forget(key)
            self.queue.add(key, controller.priority(key.ref))
        except Exception as error:  # noqa: BLE001 - the worker loop is the one place that must survive anything
            await self._failed(key, controller, error)
        else:
            self._settle(key, plan.requeue_at)
            for touch in plan.touches:
                after = Key(touch.controller, touch.ref)
                self.scheduler.no_later_than(("soon", after), self._clock.now() + touch.within)
            self._metrics.reconciled(key.controller, time.perf_counter() - started, plan.outcomes)

    async def _decide(self, controller: Controller, snapshot: Any) -> Plan:
        now = self._clock.now()
        if controller.is_slow(snapshot):
            return await asyncio.to_thread(controller.reconcile, snapshot, now)
        return controller.reconcile(snapshot, now)

    def _settle(self, key: Key, requeue_at: datetime | None) -> None:
        self._backoff.forget(key)
        self.scheduler.set(("retry", key), None)
        self.scheduler.set(("requeue", key), requeue_at)

    async def _failed(self, key: Key, controller: Controller, error: Exception) -> None:
        """Back off, and after the second failure in a row tell it in the status."""
        now = self._clock.now()
        delay = self._backoff.next(key)
        retry_after = getattr(error, "retry_after", None)
        if isinstance(retry_after, timedelta):
            delay = max(delay, retry_after)
        attempts = self._backoff.failures(key)
        self.scheduler.set(("retry", key), now + delay)
        reason = type(error).__name__
        self._metrics.failed(key.controller, reason)
        known = isinstance(error, ZerotrustError)
        logger.warning(
            "reconcile failed, next attempt in %.1f s: %s",
            delay.total_seconds(),
            error if known else reason,
            extra={"object": str(key), "attempts": attempts},
            exc_info=None if known else error,
        )
        if attempts < REPORT_AFTER:
            return
        message = str(error) if known else f"internal error {reason}"
        try:
            snapshot = controller.snapshot(key.ref)
            if snapshot is None:
                return
            plan = controller.failed(snapshot, Failure(message, attempts, now + delay), now)
            await self._executor.carry_out(key, snapshot, plan)
        except Exception as second:  # noqa: BLE001 - telling of a failure may fail for the same cause; the retry is set
            logger.debug("status of a failure not written: %s", type(second).__name__, extra={"object": str(key)})
