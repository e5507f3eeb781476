"""What the clock has made of an ApiKey's key, and that it says what the conditions say."""

from typing import Any

import pytest

from tests.support.apikeys import START, World, a_spec
from tests.support.builders import days, hours, seconds
from zerotrust.apikey.lifecycle import decide
from zerotrust.apikey.lifetime import state
from zerotrust.apikey.memory import Memory
from zerotrust.apikey.rotation import lifetime_end, rotation_time
from zerotrust.apikey.status import status_of
from zerotrust.common import times


def delivered(**changes: Any) -> tuple[World, Memory]:
    world = World(a_spec(**changes))
    world.settle(5)
    world.now += hours(2)
    world.settle(2)
    assert world.memory is not None
    return world, world.memory


def test_nobody_has_a_key_yet() -> None:
    assert state("uid-1", a_spec(), None, START) == "missing"
    assert state("uid-1", a_spec(), Memory("partner-x"), START) == "missing"


def test_a_key_that_is_not_replaced() -> None:
    world, memory = delivered()
    (key,) = memory.keys
    end, overlap = lifetime_end(key, world.spec), world.spec.rotation.overlap
    due = max(end - overlap, rotation_time("uid-1", key, world.spec.rotation.interval))
    assert state("uid-1", world.spec, memory, START + days(1)) == "valid"
    assert state("uid-1", world.spec, memory, due - seconds(1)) == "valid"
    assert state("uid-1", world.spec, memory, due) == "expiring"
    assert state("uid-1", world.spec, memory, end) == "expired"


def test_a_key_that_was_replaced_in_time() -> None:
    world, memory = delivered()
    world.now = rotation_time("uid-1", memory.keys[0], world.spec.rotation.interval)
    world.settle(5)
    assert world.memory is not None
    assert len(world.memory.keys) == 2
    assert state("uid-1", world.spec, world.memory, lifetime_end(memory.keys[0], world.spec)) == "valid"


def test_a_grant_that_ends() -> None:
    end = START + days(30)
    world, memory = delivered(notAfter=times.render(end))
    overlap = world.spec.rotation.overlap
    assert state("uid-1", world.spec, memory, end - overlap - seconds(1)) == "valid"
    assert state("uid-1", world.spec, memory, end - overlap) == "ending"
    assert state("uid-1", world.spec, memory, end) == "ended"


def test_what_somebody_decided_is_no_failure() -> None:
    world, memory = delivered()
    assert state("uid-1", a_spec(state="Suspended"), memory, START + days(999)) == "suspended"
    revoked = world.spec.model_copy(update={"revoked_key_ids": [memory.keys[0].id]})
    world.spec = revoked
    world.foreign = True  # no successor is delivered
    world.settle(3)
    assert world.memory is not None
    assert state("uid-1", revoked, world.memory, world.now) == "missing"


@pytest.mark.parametrize("day", range(0, 400, 7))
def test_it_says_what_the_conditions_say(day: int) -> None:
    world, memory = delivered(maxKeyAge="2400h")
    world.clock_is_watched = False
    world.now = START + days(day) + hours(3)
    snapshot = world.snapshot()
    found = status_of(snapshot, decide(snapshot), 1, world.status)["conditions"]
    told = {one["type"]: one["status"] == "True" for one in found}
    said = state("uid-1", world.spec, memory, world.now)
    assert (told["ExpiringSoon"], told["Expired"]) == (said == "expiring", said == "expired")
