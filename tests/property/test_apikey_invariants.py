"""I10 and I11 for API keys, over random schedules of edits, time, lost reports, restarts and crashes between any two writes.

The schedules drive the real decisions and the real record against a small world (tests/support/apikeys.py); what must hold is
computed here from what happened, not from what the decisions say.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any

from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from tests.support.apikeys import NAME, SKEW, World, a_spec, fingerprint
from tests.support.examples import examples
from zerotrust.apikey import key as keys
from zerotrust.apikey.key import KeyID
from zerotrust.apikey.snapshot import ApiKeySnapshot
from zerotrust.common import times

INTERVAL, OVERLAP, AGE = timedelta(hours=100), timedelta(hours=20), timedelta(hours=150)
SPEC: dict[str, Any] = {"maxKeyAge": "150h", "rotation": {"interval": "100h", "overlap": "20h"}}


def moment(when: datetime) -> str:
    return times.render(when)


def listed(world: World, wanted: KeyID | None) -> list[str]:
    found = world.spec.revoked_key_ids
    return [*found, wanted] if wanted is not None and wanted not in found else found


def previous(world: World) -> KeyID | None:
    found = fingerprint((world.secret or {}).get("api-key-previous"))
    return found.id if found is not None else None


def planted(world: World) -> None:
    """Somebody with write access to the Secret puts a key of their own into it."""
    mine = keys.generate(world.random)
    world.secret = {**(world.secret or {}), "api-key": mine.reveal()}


def rolled_back(world: World) -> None:
    """Somebody restores an older version of the Secret."""
    old = (world.secret or {}).get("api-key-previous")
    if old is not None:
        world.secret = {"api-key": old}


ACTIONS: dict[str, Callable[[World, int], object]] = {
    "reconcile": lambda world, _: world.reconcile(),
    "reconcile again": lambda world, _: world.reconcile(),
    "reconcile and die": lambda world, number: world.reconcile(number % 3),
    "restart": lambda world, _: world.restart(),
    "serve": lambda world, _: world.serve(),
    "fetch": lambda world, number: world.fetch(number),
    "fetch, no report": lambda world, number: world.fetch(number, reports=False),
    "settle": lambda world, _: world.settle(6),
    "seconds": lambda world, number: wait(world, seconds=number % 60),
    "hours": lambda world, number: wait(world, hours=number % 24),
    "days": lambda world, number: wait(world, days=number % 5),
    "request": lambda world, _: world.rotation(requestedAt=moment(world.clock)),
    "request later": lambda world, number: world.rotation(requestedAt=moment(world.clock + timedelta(hours=number % 9))),
    "request of old": lambda world, number: world.rotation(requestedAt=moment(world.clock - timedelta(hours=number))),
    "revoke current": lambda world, _: world.edit(revokedKeyIDs=listed(world, world.held())),
    "revoke previous": lambda world, _: world.edit(revokedKeyIDs=listed(world, previous(world))),
    "revoke unknown": lambda world, number: world.edit(revokedKeyIDs=listed(world, KeyID(f"{number:012d}"))),
    "empty the list": lambda world, _: world.edit(revokedKeyIDs=[]),
    "suspend": lambda world, _: world.edit(state="Suspended"),
    "resume": lambda world, _: world.edit(state="Active"),
    "other fields": lambda world, number: world.edit(scopes=[f"scope-{number}"], unusedAfter=f"{number + 1}h"),
    "delete the secret": lambda world, _: setattr(world, "secret", None),
    "garbage in the secret": lambda world, _: setattr(world, "secret", {"api-key": "garbage"}),
    "plant a key": lambda world, _: planted(world),
    "roll the secret back": lambda world, _: rolled_back(world),
    "take the name": lambda world, _: setattr(world, "foreign", True),
    "free the name": lambda world, _: setattr(world, "foreign", False),
    "delete": lambda world, _: world.delete(),
    "create": lambda world, _: world.create(),
    "clock ahead": lambda world, number: setattr(world, "offset", timedelta(hours=number % 20)),
    "clock behind": lambda world, number: setattr(world, "offset", -timedelta(hours=number % 20)),
    "clock right": lambda world, _: setattr(world, "offset", timedelta()),
}  # fmt: skip
CLOCK = {"clock ahead", "clock behind", "clock right"}
# What follows an action, because a random order alone would hardly ever bring a rotation to its end.
FOLLOWS: dict[str, Callable[[World], object]] = {
    "": lambda _: None,
    "settle": lambda world: world.settle(5),
    "settle, once more": lambda world: world.settle(5),
    "reconcile": lambda world: world.reconcile(),
    "one point lags": lambda world: [(world.reconcile(), world.serve(), world.fetch(0)) for _ in range(5)],
    "reports are lost": lambda world: [(world.reconcile(), world.serve(), world.fetch(1, reports=False)) for _ in range(5)],
    "dies after one write": lambda world: [(world.reconcile(1), catch_up(world)) for _ in range(5)],
    "dies in the first write": lambda world: [(world.reconcile(0), catch_up(world)) for _ in range(5)],
    "nobody is served": lambda world: [world.reconcile() for _ in range(5)],
}  # fmt: skip
Step = tuple[str, int, str]


def catch_up(world: World) -> None:
    world.serve()
    for number in range(len(world.points)):
        world.fetch(number)


def schedules_of(names: list[str]) -> st.SearchStrategy[list[Step]]:
    """Schedules in which every action is as likely as any other; drawn one by one, most would hardly ever come."""

    def schedule(seed: int) -> list[Step]:
        random = Random(seed)
        steps = range(random.randint(3, 14))
        return [(random.choice(names), random.randrange(60), random.choice(sorted(FOLLOWS))) for _ in steps]

    return st.integers(0, 2**32).map(schedule)


OFTEN = ["request", "request", "hours", "hours", "revoke current", "delete", "create", "settle"]
schedules = schedules_of([*sorted(ACTIONS), *OFTEN])
honest_clocks = schedules_of([*sorted(ACTIONS.keys() - CLOCK), *OFTEN])


def wait(world: World, **amount: int) -> None:
    """Time passes; decision points go on polling only when the schedule says so."""
    world.now += timedelta(**amount)


@dataclass
class Promise:
    """A key that somebody may hold: it must be accepted until `until`."""

    id: KeyID
    text: str
    until: datetime


@dataclass
class Witness:
    """Remembers what was promised and what was taken back, by looking at the world after each step."""

    world: World
    promises: dict[KeyID, Promise] = field(default_factory=dict)
    revoked: set[str] = field(default_factory=set)
    current: KeyID | None = None

    def look(self) -> None:
        world = self.world
        self.revoked |= set(world.content().revoked)
        for key_id in self.revoked:
            self.promises.pop(KeyID(key_id), None)
        if world.uid is None:
            self.promises.clear()
            self.current = None
            return
        held = world.held()
        if held is not None and held in world.texts and held != self.current and self._is_newest(held):
            for promise in self.promises.values():
                promise.until = min(promise.until, world.now + OVERLAP)
            issued = next(one.snapshot.now for one in world.made if one.id == held)
            if held not in self.revoked and held not in self.promises and self._is_recorded(held):
                self.promises[held] = Promise(held, world.texts[held], issued + AGE)
            self.current = held

    def _is_newest(self, held: KeyID) -> bool:
        """Not an old one that somebody has put back."""
        order, memory = [one.id for one in self.world.made], self.world.memory
        delivered = [one.id for one in memory.keys if one.delivered is not None] if memory is not None else []
        return all(order.index(held) >= order.index(one) for one in (*self.promises, *delivered))

    def _is_recorded(self, held: KeyID) -> bool:
        memory = self.world.memory
        return memory is not None and memory.key(held) is not None

    def judge(self) -> None:
        world = self.world
        content, bundles = world.content(), [point for point in world.points if point.is_fresh(world.now)]
        for promise in self.promises.values():
            if world.now >= promise.until:
                continue
            record = content.records.get(promise.id)
            assert record is not None, f"key {promise.id} is gone before its overlap has ended"
            found = fingerprint(promise.text)
            assert found is not None
            assert record["hash"] == found.digest
            assert record["not_before"] <= world.now.timestamp() < record["not_after"], "a good key is out of its time"
            for point in bundles:
                assert promise.id in point.content.records, "a fresh decision point does not know a delivered key"
                assert promise.id not in point.content.revoked
        assert not self.revoked & content.usable, "a revoked key is back"


def is_a_cause(snapshot: ApiKeySnapshot) -> bool:
    """Whether there was a reason to make a key, said once more and in other words."""
    memory = snapshot.memory
    delivered = [key for key in memory.keys if key.delivered is not None] if memory is not None else []
    held = snapshot.secret.current if snapshot.secret is not None else None
    if not delivered:
        return True
    newest = delivered[-1]
    requested = snapshot.spec.rotation.requested_at
    return (
        newest.id in snapshot.spec.revoked_key_ids
        or newest.revoked is not None
        or snapshot.now >= newest.issued + min(AGE, INTERVAL * 0.9)
        or held is None
        or held.digest != newest.digest
        or (requested is not None and newest.issued < requested <= snapshot.now)
    )


def played(steps: list[Step], *, promises: bool = False, shows: bool = False) -> World:
    """Play a schedule in a world that has its first key, and look at it after each step."""
    world = World(a_spec(**SPEC))
    world.shows = shows
    witness = Witness(world)
    world.settle(5)
    witness.look()
    for name, number, follow in steps:
        made = len(world.made)
        for part in (
            lambda name=name, number=number: ACTIONS[name](world, number),
            lambda follow=follow: FOLLOWS[follow](world),
        ):
            part()
            witness.look()
            if promises:
                witness.judge()
            assert not witness.revoked & world.content().usable, "a revoked key is back"
        for one in world.made[made:]:
            event("made a key")
            assert is_a_cause(one.snapshot), f"key {one.id} was made without a cause, by {name}"
    return world


SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]


@settings(examples(150), suppress_health_check=SLOW, deadline=None)
@given(honest_clocks)
def test_i11_a_delivered_key_is_accepted_until_its_overlap_ends_and_a_revoked_one_never(
    steps: list[Step],
) -> None:
    played(steps, promises=True)


@settings(examples(150), suppress_health_check=SLOW, deadline=None)
@given(schedules)
def test_i11_whatever_the_clock_does_no_revoked_key_returns_and_none_is_made_without_cause(
    steps: list[Step],
) -> None:
    played(steps)


@settings(examples(40), suppress_health_check=SLOW, deadline=None)
@given(schedules)
def test_i10_no_plaintext_is_anywhere_but_in_the_secret(steps: list[Step]) -> None:
    world = played(steps, shows=True)
    world.settle(3)
    seen = "\n".join([*world.visible, repr(world.served), repr(world.decision), repr(world.status), repr(world.shards)])
    for text in world.texts.values():
        assert text[16:59] not in seen
        assert text[-30:] not in seen


@settings(examples(120), suppress_health_check=SLOW, deadline=None)
@given(schedules)
def test_i9_whatever_happened_the_holder_has_a_good_key_in_the_end_and_nothing_is_written_any_more(
    steps: list[Step],
) -> None:
    world = played(steps)
    world.offset, world.foreign = timedelta(), False
    world.create()
    world.edit(state="Active", revokedKeyIDs=[])
    world.rotation(requestedAt=None)
    world.now += timedelta(hours=40)  # a clock that was ahead has been caught up with
    world.settle()
    text = world.text
    assert text is not None
    assert all(point.accepts(text, world.now) for point in world.points)
    assert world.status["keyID"] == world.held()
    assert [one["status"] for one in world.status["conditions"] if one["type"] == "Ready"] == ["True"]
    made = len(world.made)
    for _ in range(3):
        assert world.reconcile() == 0
        world.restart()
    assert len(world.made) == made


@settings(examples(50), deadline=None)
@given(st.lists(st.integers(-19, 19), min_size=2, max_size=12), st.booleans(), st.integers(0, 100))
def test_a_clock_that_jumps_back_and_forth_rotates_once_at_most(
    jumps: list[int], watched: bool, age: int
) -> None:  # fmt: skip
    world = World(a_spec(**SPEC))
    world.clock_is_watched = watched
    world.settle(5)
    wait(world, hours=min(age, 89))
    world.settle(3)
    before, held = len(world.made), world.text
    assert held is not None
    for jump in jumps:
        world.offset = timedelta(hours=jump)
        world.settle(4)
    assert len(world.made) - before <= (0 if watched and world.offset > SKEW else 1)
    world.offset = timedelta()
    world.settle(4)
    for text in (held, world.text):
        assert text is not None
        assert all(point.accepts(text, world.now) for point in world.points), "a jump has ended a key"


@settings(examples(40), suppress_health_check=SLOW, deadline=None)
@given(schedules, st.data())
def test_what_is_deleted_and_made_again_adopts_what_it_remembers_and_nothing_else(
    steps: list[Step], data: st.DataObject
) -> None:
    world = played(steps)
    world.offset, world.foreign = timedelta(), False
    world.create()
    world.edit(state="Active", revokedKeyIDs=[])
    world.rotation(requestedAt=None)
    world.now += timedelta(hours=40)
    world.settle()
    held, made = world.held(), len(world.made)
    assert held is not None
    assert world.memory is not None
    key = world.memory.key(held)
    assert key is not None
    assume(world.now + timedelta(hours=1) < key.issued + INTERVAL * 0.9)  # another UID has another jitter
    world.delete()
    if data.draw(st.booleans(), "noticed"):
        world.reconcile()
    assert not world.content().records, "a deleted ApiKey's keys are still good"
    if data.draw(st.booleans(), "planted"):
        planted(world)
        held = None
    world.create()
    world.settle()
    assert (world.held() == held) == (held is not None)
    assert len(world.made) == made + (held is None)
    assert world.status["keyID"] == world.held()
    assert world.memory is not None
    assert world.memory.name == NAME
