"""Which key signs, which one new configurations name, and which may go: a rotation with an overlap, by key id in the path.

An OPA verifies with the one key that its configuration pins, so two keys never share a path. Every key that is served
signs the same content at its own path; only the newest active one is written into configurations.
"""

from collections.abc import Iterable, Set
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum


class State(StrEnum):
    """Where a key is on its way; a key only ever moves down this list."""

    NEXT = "Next"
    ACTIVE = "Active"
    RETIRING = "Retiring"
    RETIRED = "Retired"


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What is remembered of a key, beside the key itself. A time that is None has not come yet."""

    id: str
    created: datetime
    activated: datetime | None = None
    replaced: datetime | None = None


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long each state lasts at least.

    `settle`: until every replica has read a new key. `overlap`: longer than any bundle is valid, so that a client that
    could not report meanwhile has stopped allowing before its path goes.
    """

    lifetime: timedelta = timedelta(days=90)
    settle: timedelta = timedelta(minutes=10)
    overlap: timedelta = timedelta(hours=48)


@dataclass(frozen=True, slots=True)
class KeyPlan:
    """What becomes of one key; `record` is what to remember of it now."""

    record: KeyRecord
    state: State
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Rotation:
    """What becomes of all keys. `create` says why a new key is wanted, or is empty; `at` is when to look again."""

    keys: tuple[KeyPlan, ...]
    create: str
    at: datetime | None

    @property
    def signing(self) -> tuple[str, ...]:
        """The keys whose paths are served."""
        return tuple(plan.record.id for plan in self.keys if plan.state is not State.RETIRED)

    @property
    def offered(self) -> str | None:
        """The key that configurations name; None while there is none."""
        return next((plan.record.id for plan in self.keys if plan.state is State.ACTIVE), None)

    @property
    def retired(self) -> tuple[str, ...]:
        """The keys that may be deleted."""
        return tuple(plan.record.id for plan in self.keys if plan.state is State.RETIRED)


def plan(
    records: Iterable[KeyRecord],
    now: datetime,
    named: Set[str] | None,
    schedule: Schedule,
    requested: datetime | None = None,
) -> Rotation:
    """Move every key as far as its time has come.

    `named` are the key ids that status reports name, None while the reports are unknown: then nothing is retired.
    `requested` asks for a rotation and counts when it is later than the last activation (and not in the future).
    """
    keys = sorted(records, key=lambda record: (record.created, record.id))
    served = [record for record in keys if record.activated is not None and record.replaced is None]
    active = max(served, key=lambda record: (_time(record.activated), record.id), default=None)
    waiting = [record for record in keys if record.activated is None]
    due = _due(active, now, schedule, requested)
    successor = _successor(active, waiting, now, schedule, due)
    if successor is not None:
        active = replace(successor, activated=now)
    plans = tuple(_planned(record, active, now, named, schedule) for record in keys)
    create = due if due and successor is None and not waiting else ""
    return Rotation(plans, create, _next_time(plans, active, now, schedule, waiting=bool(due) and successor is None))


def _due(active: KeyRecord | None, now: datetime, schedule: Schedule, requested: datetime | None) -> str:
    if active is None:
        return "NoActiveKey"
    activated = _time(active.activated)
    if requested is not None and activated < requested <= now:
        return "Requested"
    return "Lifetime" if now >= activated + schedule.lifetime else ""


def _successor(
    active: KeyRecord | None, waiting: list[KeyRecord], now: datetime, schedule: Schedule, due: str
) -> KeyRecord | None:
    """The oldest key in waiting, once every replica has it; without an active key nobody is served, so at once."""
    if not due or not waiting:
        return None
    return waiting[0] if active is None or now >= waiting[0].created + schedule.settle else None


def _planned(
    record: KeyRecord, active: KeyRecord | None, now: datetime, named: Set[str] | None, schedule: Schedule
) -> KeyPlan:
    if active is not None and record.id == active.id:
        return KeyPlan(active, State.ACTIVE, "Active", "configurations name this key")
    if record.activated is None:
        return KeyPlan(record, State.NEXT, "Settling", "its path is served; no configuration names it yet")
    gone = replace(record, replaced=record.replaced or now)
    ends = _time(gone.replaced) + schedule.overlap
    if named is None:
        return KeyPlan(gone, State.RETIRING, "ReportsUnknown", "kept: nobody knows yet which keys are in use")
    if record.id in named:
        return KeyPlan(gone, State.RETIRING, "InUse", "decision points still report bundles of this key")
    if now < ends:
        return KeyPlan(gone, State.RETIRING, "Overlap", f"kept until {ends:%Y-%m-%dT%H:%M:%SZ}")
    return KeyPlan(gone, State.RETIRED, "Unused", "no decision point reports bundles of this key")


def _next_time(
    plans: tuple[KeyPlan, ...], active: KeyRecord | None, now: datetime, schedule: Schedule, *, waiting: bool
) -> datetime | None:
    times = [_time(plan.record.replaced) + schedule.overlap for plan in plans if plan.state is State.RETIRING]
    if active is not None:
        times.append(_time(active.activated) + schedule.lifetime)
    if waiting:
        times += [plan.record.created + schedule.settle for plan in plans if plan.state is State.NEXT]
    return min((time for time in times if time > now), default=None)


def _time(time: datetime | None) -> datetime:
    assert time is not None, "a key in this state has this time"
    return time
