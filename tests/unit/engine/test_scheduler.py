"""What time alone makes due: each name has one time, the latest word counts, and the clock decides."""

import asyncio
from collections.abc import AsyncIterator, Hashable
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.builders import NOW, hours, minutes, seconds
from tests.support.clock import FakeClock
from tests.support.waiting import eventually, quiet
from zerotrust.engine.scheduler import Scheduler


class Alarms:
    """A scheduler, its clock, and the names that came due."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.rung: list[Hashable] = []
        self.scheduler = Scheduler(self.clock, self.rung.append)


@pytest.fixture
async def alarms() -> AsyncIterator[Alarms]:
    """A scheduler that runs."""
    alarms = Alarms()
    running = asyncio.create_task(alarms.scheduler.run())
    await eventually(lambda: alarms.clock.sleepers)
    yield alarms
    running.cancel()


async def test_a_timer_rings_when_its_time_has_come_and_not_before(alarms: Alarms) -> None:
    alarms.scheduler.set("a", NOW + minutes(1))
    await quiet()
    alarms.clock.advance(minutes(1) - timedelta(microseconds=1))
    await quiet()
    assert alarms.rung == []
    alarms.clock.advance(timedelta(microseconds=1))
    await eventually(lambda: alarms.rung == ["a"])
    alarms.clock.advance(hours(9))
    await quiet()
    assert alarms.rung == ["a"]
    assert len(alarms.scheduler) == 0


async def test_a_timer_of_the_past_rings_at_once(alarms: Alarms) -> None:
    alarms.scheduler.set("a", NOW - minutes(1))
    await eventually(lambda: alarms.rung == ["a"])


async def test_an_earlier_timer_wakes_the_sleeper(alarms: Alarms) -> None:
    alarms.scheduler.set("late", NOW + hours(9))
    await eventually(lambda: alarms.clock.next_alarm == NOW + hours(9))
    alarms.scheduler.set("early", NOW + seconds(1))
    await eventually(lambda: alarms.clock.next_alarm == NOW + seconds(1))
    alarms.clock.advance(seconds(1))
    await eventually(lambda: alarms.rung == ["early"])


async def test_timers_ring_in_the_order_of_their_times_even_when_the_clock_jumps(alarms: Alarms) -> None:
    for name, minute in (("c", 3), ("a", 1), ("b", 2)):
        alarms.scheduler.set(name, NOW + minutes(minute))
    alarms.clock.advance(hours(1))
    await eventually(lambda: alarms.rung == ["a", "b", "c"])


async def test_the_latest_word_counts(alarms: Alarms) -> None:
    alarms.scheduler.set("a", NOW + minutes(1))
    alarms.scheduler.set("a", NOW + minutes(5))
    alarms.clock.advance(minutes(4))
    await quiet()
    assert alarms.rung == []
    alarms.scheduler.set("a", NOW + minutes(4.5))
    alarms.clock.advance(minutes(1))
    await eventually(lambda: alarms.rung == ["a"])


async def test_a_removed_timer_does_not_ring(alarms: Alarms) -> None:
    alarms.scheduler.set("a", NOW + minutes(1))
    alarms.scheduler.set("a", None)
    alarms.scheduler.set("never was", None)
    alarms.clock.advance(hours(1))
    await quiet()
    assert alarms.rung == []
    assert alarms.scheduler.when("a") is None


async def test_a_clock_that_was_set_back_rings_later(alarms: Alarms) -> None:
    alarms.scheduler.set("a", NOW + minutes(1))
    await quiet()
    alarms.clock.advance(-hours(1))
    alarms.clock.advance(minutes(5))
    await quiet()
    assert alarms.rung == []
    alarms.clock.advance(hours(1))
    await eventually(lambda: alarms.rung == ["a"])


async def test_who_rings_may_set_its_next_timer() -> None:
    clock, rung = FakeClock(), list[datetime]()

    def again(name: Hashable) -> None:
        rung.append(clock.now())
        scheduler.set(name, clock.now() + minutes(1))

    scheduler = Scheduler(clock, again)
    running = asyncio.create_task(scheduler.run())
    scheduler.set("a", NOW)
    for turn in range(3):
        await eventually(lambda turn=turn: len(rung) == turn + 1)
        await eventually(lambda: clock.next_alarm == clock.now() + minutes(1))
        clock.advance(minutes(1))
    await eventually(lambda: rung == [NOW + minutes(turn) for turn in range(4)])
    running.cancel()


# --- no_later_than ---


def test_many_wishes_within_the_time_become_one() -> None:
    alarms = Alarms()
    for second in (5, 9, 7):
        alarms.scheduler.no_later_than("a", NOW + seconds(second))
    assert alarms.scheduler.when("a") == NOW + seconds(5)
    alarms.scheduler.no_later_than("a", NOW + seconds(1))
    alarms.clock.advance(seconds(20))
    alarms.scheduler.fire()
    assert alarms.rung == ["a"]


def test_a_wish_never_makes_a_timer_later_but_set_does() -> None:
    alarms = Alarms()
    alarms.scheduler.no_later_than("a", NOW + seconds(1))
    alarms.scheduler.no_later_than("a", NOW + seconds(2))
    assert alarms.scheduler.when("a") == NOW + seconds(1)
    alarms.scheduler.set("a", NOW + seconds(3))
    assert alarms.scheduler.when("a") == NOW + seconds(3)


def test_a_timer_set_back_to_a_former_time_rings_once() -> None:
    alarms = Alarms()
    for second in (1, 2, 1):
        alarms.scheduler.set("a", NOW + seconds(second))
    alarms.clock.advance(seconds(5))
    alarms.scheduler.fire()
    assert alarms.rung == ["a"]


moments = st.integers(0, 20)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.sampled_from("abc"), st.none() | moments),
        st.tuples(st.just("no later than"), st.sampled_from("abc"), moments),
        st.tuples(st.just("advance"), st.just(""), st.integers(-3, 6)),
    ),
    max_size=60,
)


@given(steps)
def test_the_scheduler_behaves_like_a_table_of_times(steps: list[tuple[str, str, int | None]]) -> None:
    alarms, table = Alarms(), dict[str, datetime]()
    for step, name, number in steps:
        moment = None if number is None else NOW + seconds(number)
        expected: list[str] = []
        if step == "set":
            alarms.scheduler.set(name, moment)
            table.pop(name, None)
            if moment is not None:
                table[name] = moment
        elif step == "no later than":
            assert moment is not None
            alarms.scheduler.no_later_than(name, moment)
            table[name] = min(moment, table.get(name, moment))
        else:
            assert number is not None
            now = alarms.clock.advance(seconds(number))
            alarms.scheduler.fire()
            expected = [one for one, when in table.items() if when <= now]
            table = {one: when for one, when in table.items() if when > now}
        assert sorted(map(str, alarms.rung)) == sorted(expected)
        alarms.rung.clear()
        assert len(alarms.scheduler) == len(table)
        assert {one: alarms.scheduler.when(one) for one in "abc"} == {one: table.get(one) for one in "abc"}
