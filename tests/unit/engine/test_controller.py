"""The engine: a change becomes a key, a key a plan, and whatever happens the loop goes on."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.support.builders import NOW, hours, minutes, seconds
from tests.support.clock import FakeClock
from tests.support.waiting import eventually, quiet
from zerotrust.common.errors import ZerotrustError
from zerotrust.common.naming import Ref
from zerotrust.common.observed import Meta, meta_of
from zerotrust.common.plan import Outcome, Plan
from zerotrust.engine.cache import Cache, Change
from zerotrust.engine.controller import FAILING_AFTER, Engine, Failure, Key, Superseded, Touched
from zerotrust.telemetry.metrics import Metrics

LONGEST = minutes(5)


@dataclass(frozen=True)
class Thing:
    meta: Meta


def a_ref(name: str = "one") -> Ref:
    return Ref("Thing", "shop", name)


def a_thing(name: str = "one", version: int = 1) -> Thing:
    metadata = {"name": name, "namespace": "shop", "resourceVersion": str(version)}
    return Thing(meta_of("Thing", {"metadata": metadata}))


class Things:
    """A controller of things, and of nothing else; it does what the test has put in."""

    def __init__(self, cache: Cache, name: str = "Things") -> None:
        self.name = name
        self._cache = cache
        self.within = timedelta()
        self.kinds = {"Thing"}
        self.plan: Callable[[], Plan] = Plan
        self.slow = False
        self.decided: list[tuple[str, datetime]] = []
        self.threads: set[str] = set()
        self.failures: list[Failure] = []
        self.broken_snapshots = 0

    def touched_by(self, change: Change) -> Iterable[Touched]:
        if change.ref.kind in self.kinds:
            yield Touched(change.ref, self.within)

    def snapshot(self, ref: Ref) -> Any:
        if self.broken_snapshots:
            self.broken_snapshots -= 1
            raise RuntimeError("no snapshot")
        return self._cache.get(ref)

    def is_slow(self, snapshot: Any) -> bool:
        return self.slow

    def reconcile(self, snapshot: Thing, now: datetime) -> Plan:
        self.decided.append((snapshot.meta.name, now))
        self.threads.add(threading.current_thread().name)
        return self.plan()

    def failed(self, snapshot: Thing, failure: Failure, now: datetime) -> Plan:
        self.failures.append(failure)
        return Plan(status={"failed": failure.attempts})

    def priority(self, ref: Ref) -> float:
        return 0.0

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.decided]


class Hands:
    """An executor that fails as often as the test says, and then does what the test says."""

    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self.act: Callable[[Key], object] = str
        self.carried_out: list[tuple[Key, Plan]] = []
        self.gate: asyncio.Event | None = None
        self.busy: set[Key] = set()

    async def carry_out(self, key: Key, snapshot: Any, plan: Plan) -> None:
        assert key not in self.busy, "two workers on one key"
        self.busy.add(key)
        try:
            if self.gate is not None:
                await self.gate.wait()
            if self.errors:
                raise self.errors.pop(0)
            self.carried_out.append((key, plan))
            self.act(key)
        finally:
            self.busy.discard(key)


class Machine:
    """An engine over a cache, with a clock that stands still."""

    def __init__(self) -> None:
        self.cache, self.clock, self.hands, self.metrics = Cache(), FakeClock(), Hands(), Metrics()
        self.things, self.others = Things(self.cache), Things(self.cache, "Others")
        self.others.kinds = set()
        self.engine = Engine(
            self.cache,
            (self.things, self.others),
            self.hands,
            self.clock,
            self.metrics,
            workers=3,
            retry_base=seconds(1),
            retry_longest=LONGEST,
        )

    def when(self, timer: str, name: str = "one") -> datetime | None:
        return self.engine.scheduler.when((timer, Key("Things", a_ref(name))))

    def counted(self, sample: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"zerotrust_{sample}", labels) or 0.0

    async def idle(self) -> None:
        """Wait until nothing is left to do at the present time."""
        await eventually(lambda: self.engine.queue.idle and not self.hands.busy)
        await quiet()


@pytest.fixture
async def machine() -> AsyncIterator[Machine]:
    machine = Machine()
    running = asyncio.create_task(machine.engine.run())
    await eventually(lambda: machine.clock.sleepers)
    yield machine
    running.cancel()
    await asyncio.wait([running])


# --- from a change to a plan ---


async def test_a_change_leads_to_a_decision_that_is_carried_out(machine: Machine) -> None:
    plan = Plan(status={"ready": True})
    machine.things.plan = lambda: plan
    machine.cache.put(a_thing())
    await machine.idle()
    assert machine.things.decided == [("one", NOW)]
    assert machine.hands.carried_out == [(Key("Things", a_ref()), plan)]


async def test_many_changes_before_the_decision_are_one_decision(machine: Machine) -> None:
    for version in range(1, 9):
        machine.cache.put(a_thing(version=version))
    await machine.idle()
    assert machine.things.names == ["one"]


async def test_changes_of_different_objects_are_different_keys(machine: Machine) -> None:
    for name in ("one", "two", "three", "four"):
        machine.cache.put(a_thing(name))
    await machine.idle()
    assert sorted(machine.things.names) == ["four", "one", "three", "two"]


async def test_what_changes_during_the_work_is_decided_once_more(machine: Machine) -> None:
    machine.hands.gate = asyncio.Event()
    machine.cache.put(a_thing())
    await eventually(lambda: machine.hands.busy)
    machine.cache.put(a_thing(version=2))
    machine.cache.put(a_thing(version=3))
    await quiet()
    assert machine.things.names == ["one"], "nobody else works on it meanwhile"
    machine.hands.gate.set()
    await machine.idle()
    assert machine.things.names == ["one", "one"]


async def test_a_key_that_waits_for_its_writes_does_not_hold_up_the_others(machine: Machine) -> None:
    machine.hands.gate = asyncio.Event()
    machine.cache.put(a_thing("one"))
    machine.cache.put(a_thing("two"))
    await eventually(lambda: len(machine.hands.busy) == 2)
    machine.hands.gate.set()


async def test_nobody_looks_at_their_own_work_again(machine: Machine) -> None:
    machine.hands.act = lambda key: machine.cache.put(a_thing(version=2), by=key)
    machine.cache.put(a_thing())
    await machine.idle()
    assert machine.things.names == ["one"]


async def test_the_work_of_one_is_a_change_for_another(machine: Machine) -> None:
    machine.others.kinds = {"Thing"}
    machine.cache.put(a_thing(), by=Key("Things", a_ref()))
    await machine.idle()
    assert machine.things.names == []
    assert machine.others.names == ["one"]


async def test_the_work_on_one_object_is_a_change_of_another(machine: Machine) -> None:
    def act(key: Key) -> None:
        if key.ref == a_ref("one"):
            machine.cache.put(a_thing("two", 2), by=key)

    machine.hands.act = act
    machine.cache.put(a_thing("one"))
    await machine.idle()
    assert machine.things.names == ["one", "two"]


async def test_what_is_gone_is_nothing_to_decide(machine: Machine) -> None:
    machine.things.plan = lambda: Plan(requeue_at=NOW + hours(1))
    machine.cache.put(a_thing())
    await machine.idle()
    machine.cache.drop(a_ref())
    await machine.idle()
    assert machine.things.names == ["one"]
    assert machine.when("requeue") is None


async def test_a_reconcile_can_be_asked_for(machine: Machine) -> None:
    machine.cache.put(a_thing(), by=Key("Things", a_ref()))
    machine.engine.touch("Things", a_ref())
    await machine.idle()
    assert machine.things.names == ["one"]


async def test_a_slow_decision_does_not_hold_up_the_event_loop(machine: Machine) -> None:
    machine.things.slow = True
    machine.cache.put(a_thing())
    await machine.idle()
    assert machine.things.threads.isdisjoint({threading.main_thread().name})
    assert len(machine.hands.carried_out) == 1


# --- time ---


async def test_many_touches_within_a_time_become_one_decision(machine: Machine) -> None:
    machine.things.within = seconds(5)
    machine.cache.put(a_thing())
    machine.clock.advance(seconds(4))
    machine.cache.put(a_thing(version=2))
    await machine.idle()
    assert machine.things.names == []
    machine.clock.advance(seconds(1))
    await eventually(lambda: machine.things.decided == [("one", NOW + seconds(5))])
    machine.clock.advance(minutes(1))
    await machine.idle()
    assert machine.things.names == ["one"]


async def test_a_plan_is_looked_at_again_when_it_says_so(machine: Machine) -> None:
    machine.things.plan = lambda: Plan(requeue_at=machine.clock.now() + hours(1))
    machine.cache.put(a_thing())
    await machine.idle()
    for hour in (1, 2):
        machine.clock.advance(hours(1))
        await eventually(lambda hour=hour: len(machine.things.decided) == hour + 1)
        await machine.idle()
    assert [when for _, when in machine.things.decided] == [NOW, NOW + hours(1), NOW + hours(2)]


async def test_a_plan_without_a_time_takes_the_old_time_back(machine: Machine) -> None:
    machine.things.plan = lambda: Plan(requeue_at=NOW + hours(1))
    machine.cache.put(a_thing())
    await machine.idle()
    assert machine.when("requeue") == NOW + hours(1)
    machine.things.plan = Plan
    machine.cache.put(a_thing(version=2))
    await machine.idle()
    assert machine.when("requeue") is None


# --- failures ---


class Broken(ZerotrustError):
    """Something the operator reports by name."""


class Busy(ZerotrustError):
    """A server that says when to come back."""

    retry_after = minutes(9)


async def test_after_a_failure_there_is_a_pause_and_then_another_attempt(machine: Machine) -> None:
    machine.hands.errors = [Broken("no")]
    machine.cache.put(a_thing())
    await machine.idle()
    again = machine.when("retry")
    assert again is not None
    assert NOW + seconds(0.1) <= again <= NOW + seconds(1)
    assert machine.hands.carried_out == []
    machine.clock.set(again)
    await eventually(lambda: machine.hands.carried_out)
    await machine.idle()
    assert machine.when("retry") is None
    assert machine.things.failures == [], "one failure is not worth a status"


async def test_pauses_grow_and_never_become_a_tight_loop(machine: Machine) -> None:
    machine.hands.errors = [Broken("no") for _ in range(100)]
    machine.cache.put(a_thing())
    pauses = []
    for _ in range(12):
        await machine.idle()
        again = machine.when("retry")
        assert again is not None
        pauses.append(again - machine.clock.now())
        machine.clock.set(again)
    bounds = [min(LONGEST, seconds(2**attempt)) for attempt in range(12)]
    assert all(bound / 10 <= pause <= bound for pause, bound in zip(pauses, bounds, strict=True))


async def test_a_server_that_says_when_to_come_back_is_obeyed(machine: Machine) -> None:
    machine.hands.errors = [Busy("later")]
    machine.cache.put(a_thing())
    await machine.idle()
    assert machine.when("retry") == NOW + minutes(9)


async def test_the_second_failure_is_told_in_the_status_with_what_comes_next(machine: Machine) -> None:
    machine.hands.errors = [Broken("first"), Broken("second")]
    machine.cache.put(a_thing())
    await machine.idle()
    first = machine.when("retry")
    assert first is not None
    machine.clock.set(first)
    await eventually(lambda: machine.things.failures)
    await machine.idle()
    (told,) = machine.things.failures
    assert (told.message, told.attempts, told.next_attempt) == ("second", 2, machine.when("retry"))
    assert machine.hands.carried_out == [(Key("Things", a_ref()), Plan(status={"failed": 2}))]


async def test_what_was_not_foreseen_is_told_without_its_details(machine: Machine) -> None:
    machine.hands.errors = [RuntimeError("password=hunter2"), RuntimeError("password=hunter2")]
    machine.cache.put(a_thing())
    await machine.idle()
    await _retry(machine)
    assert [failure.message for failure in machine.things.failures] == ["internal error RuntimeError"]
    assert machine.counted("reconcile_errors_total", controller="Things", reason="RuntimeError") == 2


async def test_to_fail_at_telling_of_a_failure_is_survived(machine: Machine) -> None:
    machine.hands.errors = [Broken("first"), Broken("second"), Broken("the status as well")]
    machine.cache.put(a_thing())
    await machine.idle()
    await _retry(machine)
    assert machine.hands.carried_out == []
    await _retry(machine)
    assert len(machine.hands.carried_out) == 1


async def test_what_fails_again_and_again_is_shown_until_it_succeeds(machine: Machine) -> None:
    machine.hands.errors = [
        Broken("no") for _ in range(2 * FAILING_AFTER - 1)
    ]  # from the second on, the status fails too
    machine.cache.put(a_thing())
    await machine.idle()
    for _ in range(FAILING_AFTER - 2):
        await _retry(machine)
    assert machine.counted("failing_keys", controller="Things") == 0
    await _retry(machine)
    assert machine.counted("failing_keys", controller="Things") == 1
    await _retry(machine)
    assert machine.hands.errors == []
    assert machine.counted("failing_keys", controller="Things") == 0


async def test_a_success_is_a_new_start(machine: Machine) -> None:
    machine.hands.errors = [Broken("no") for _ in range(5)]
    machine.cache.put(a_thing())
    await machine.idle()
    while machine.when("retry") is not None:
        await _retry(machine)
    assert machine.hands.errors == []
    now = machine.clock.now()
    machine.hands.errors = [Broken("no")]
    machine.cache.put(a_thing(version=99))
    await machine.idle()
    again = machine.when("retry")
    assert again is not None
    assert again <= now + seconds(1)


async def test_what_is_gone_is_not_tried_again(machine: Machine) -> None:
    machine.hands.errors = [Broken("no")]
    machine.cache.put(a_thing())
    await machine.idle()
    machine.cache.drop(a_ref())
    await machine.idle()
    assert machine.when("retry") is None


async def test_a_failure_of_one_key_is_none_of_another(machine: Machine) -> None:
    machine.hands.errors = [Broken("no")]
    machine.cache.put(a_thing("one"))
    machine.cache.put(a_thing("two"))
    await machine.idle()
    assert [key.ref.name for key, _ in machine.hands.carried_out] == ["two"]
    assert machine.when("retry", "two") is None


async def test_an_error_in_the_decision_is_survived_too(machine: Machine) -> None:
    def stumble() -> Plan:
        raise ValueError("oops")

    machine.things.plan = stumble
    machine.cache.put(a_thing())
    await machine.idle()
    machine.things.plan = Plan
    await _retry(machine)
    assert len(machine.hands.carried_out) == 1


async def test_an_error_in_the_snapshot_is_survived_too(machine: Machine) -> None:
    machine.things.broken_snapshots = 1
    machine.cache.put(a_thing("one"))
    await quiet()
    machine.cache.put(a_thing("two"))
    await quiet()
    assert machine.things.names == ["two"]


async def _retry(machine: Machine) -> None:
    again = machine.when("retry")
    assert again is not None
    machine.clock.set(again)
    await eventually(lambda: machine.when("retry") != again)
    await machine.idle()


# --- superseded ---


async def test_a_plan_that_was_superseded_is_made_anew_at_once(machine: Machine) -> None:
    machine.hands.errors = [Superseded()]
    machine.cache.put(a_thing())
    await machine.idle()
    assert machine.things.names == ["one", "one"]
    assert len(machine.hands.carried_out) == 1
    assert machine.when("retry") is None


async def test_to_be_superseded_is_no_failure(machine: Machine) -> None:
    machine.hands.errors = [Broken("no"), Superseded(), Broken("no")]
    machine.cache.put(a_thing())
    await machine.idle()
    await _retry(machine)
    assert machine.things.failures == [], "the failure before it does not count any more"


# --- telemetry, and the end ---


async def test_reconciles_and_what_came_of_them_are_counted(machine: Machine) -> None:
    machine.things.plan = lambda: Plan(outcomes=(Outcome("issued", "DoesNotExist"), Outcome("issue_seconds", "", 3.0)))
    machine.cache.put(a_thing())
    await machine.idle()
    assert machine.counted("reconcile_seconds_count", controller="Things") == 1
    assert machine.counted("issued_total", reason="DoesNotExist") == 1
    assert machine.counted("issue_seconds_sum") == 3.0


async def test_outcomes_of_a_plan_that_failed_are_not_counted(machine: Machine) -> None:
    machine.things.plan = lambda: Plan(outcomes=(Outcome("issued", "DoesNotExist"),))
    machine.hands.errors = [Broken("no")]
    machine.cache.put(a_thing())
    await machine.idle()
    assert machine.counted("issued_total", reason="DoesNotExist") == 0
    assert machine.counted("reconcile_errors_total", controller="Things", reason="Broken") == 1


async def test_the_queue_and_the_timers_can_be_watched(machine: Machine) -> None:
    machine.hands.gate = asyncio.Event()
    for name in ("one", "two", "three", "four", "five"):
        machine.cache.put(a_thing(name))
    await eventually(lambda: len(machine.hands.busy) == 3)
    assert machine.counted("queue_depth") == 2
    machine.engine.scheduler.set(("soon", Key("Things", a_ref())), NOW + hours(1))
    assert machine.counted("timers") == 1
    machine.hands.gate.set()


async def test_to_stop_the_engine_stops_the_work_in_hand() -> None:
    machine = Machine()
    machine.hands.gate = asyncio.Event()
    running = asyncio.create_task(machine.engine.run())
    machine.cache.put(a_thing())
    await eventually(lambda: machine.hands.busy)
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()
    assert machine.hands.busy == set()
    assert machine.hands.carried_out == []
