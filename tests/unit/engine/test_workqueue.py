"""The queue of keys: no key twice at once, no key lost, the urgent ones first; and how long failures wait."""

import asyncio
import contextlib
import random
from collections.abc import Iterable
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.waiting import eventually, quiet
from zerotrust.engine.workqueue import Backoff, Workqueue


def take(queue: Workqueue[str]) -> str | None:
    """The next key, or None when one would have to wait."""
    getting = queue.get()
    try:
        getting.send(None)
    except StopIteration as taken:
        return str(taken.value)
    getting.close()
    return None


def take_all(queue: Workqueue[str]) -> list[str]:
    return [key for key in iter(lambda: take(queue), None) if key is not None]


# The helper above leaves a waiter behind when it must wait, so nothing here waits and then adds without an event loop.
@pytest.fixture
async def queue() -> Workqueue[str]:
    return Workqueue()


def add_all(queue: Workqueue[str], keys: Iterable[str]) -> Workqueue[str]:
    for key in keys:
        queue.add(key)
    return queue


# --- order ---


async def test_first_come_first_served(queue: Workqueue[str]) -> None:
    assert take_all(add_all(queue, "cab")) == ["c", "a", "b"]


async def test_the_urgent_come_first(queue: Workqueue[str]) -> None:
    queue.add("leaf", 5)
    queue.add("other leaf", 4)
    queue.add("authority", -2)
    assert take_all(queue) == ["authority", "other leaf", "leaf"]


async def test_a_key_that_becomes_urgent_moves_forward_and_not_back_again(queue: Workqueue[str]) -> None:
    queue.add("a", 2)
    queue.add("b", 1)
    queue.add("a", 0)
    queue.add("a", 9)
    assert take_all(queue) == ["a", "b"]


# --- once ---


async def test_a_key_waits_once_however_often_it_is_added(queue: Workqueue[str]) -> None:
    add_all(queue, "aaaa")
    assert len(queue) == 1
    assert take_all(queue) == ["a"]


async def test_a_key_that_moved_forward_is_not_handed_out_twice(queue: Workqueue[str]) -> None:
    for priority in (5, 3, 1):
        queue.add("a", priority)
    assert take(queue) == "a"
    queue.done("a")
    assert take_all(queue) == []


async def test_a_key_is_not_handed_out_while_somebody_works_on_it(queue: Workqueue[str]) -> None:
    queue.add("a")
    assert take(queue) == "a"
    queue.add("a")
    assert take_all(queue) == []
    queue.done("a")
    assert take_all(queue) == ["a"]


async def test_whatever_happens_during_the_work_leads_to_one_more_turn(queue: Workqueue[str]) -> None:
    queue.add("a")
    take(queue)
    for priority in (7, 3, 5):
        queue.add("a", priority)
    assert len(queue) == 1
    queue.add("b", 4)
    queue.done("a")
    assert take_all(queue) == ["a", "b"], "with the most urgent of the priorities"
    queue.done("a")
    assert take_all(queue) == []


async def test_a_key_can_be_added_again_after_it_was_done(queue: Workqueue[str]) -> None:
    for _ in range(3):
        queue.add("a")
        assert take_all(queue) == ["a"]
        queue.done("a")


async def test_idle_means_that_nothing_waits_and_nobody_works(queue: Workqueue[str]) -> None:
    assert queue.idle
    queue.add("a")
    assert not queue.idle
    take(queue)
    assert not queue.idle
    queue.done("a")
    assert queue.idle


# --- waiting ---


async def test_a_getter_waits_for_a_key(queue: Workqueue[str]) -> None:
    getting = asyncio.create_task(queue.get())
    await quiet()
    assert not getting.done()
    queue.add("a")
    assert await getting == "a"


async def test_every_waiting_getter_gets_its_own_key(queue: Workqueue[str]) -> None:
    getters = [asyncio.create_task(queue.get()) for _ in range(3)]
    await quiet()
    add_all(queue, "abc")
    assert sorted(await asyncio.gather(*getters)) == ["a", "b", "c"]


async def test_one_key_wakes_one_getter(queue: Workqueue[str]) -> None:
    getters = [asyncio.create_task(queue.get()) for _ in range(3)]
    await quiet()
    queue.add("a")
    await eventually(lambda: any(getter.done() for getter in getters))
    await quiet()
    assert sum(getter.done() for getter in getters) == 1
    await stop(getters)


async def test_a_getter_that_was_woken_and_then_cancelled_passes_the_wake_up_on(queue: Workqueue[str]) -> None:
    first, second = asyncio.create_task(queue.get()), asyncio.create_task(queue.get())
    await quiet()
    queue.add("a")  # wakes the first one, which is cancelled before it can take the key
    first.cancel()
    assert await second == "a"
    assert first.cancelled()


async def test_a_getter_that_was_cancelled_while_it_waited_is_passed_over(queue: Workqueue[str]) -> None:
    first, second = asyncio.create_task(queue.get()), asyncio.create_task(queue.get())
    await quiet()
    first.cancel()
    await quiet()
    queue.add("a")
    assert await second == "a"


async def test_a_key_whose_getter_was_cancelled_waits_for_the_next_one(queue: Workqueue[str]) -> None:
    only = asyncio.create_task(queue.get())
    await quiet()
    queue.add("a")
    only.cancel()
    await quiet()
    assert await queue.get() == "a"


async def test_a_getter_whose_key_was_snatched_waits_on(queue: Workqueue[str]) -> None:
    waiting = asyncio.create_task(queue.get())
    await quiet()
    queue.add("a")
    assert take(queue) == "a"  # comes first, although the other one was woken
    await quiet()
    assert not waiting.done()
    queue.add("b")
    assert await waiting == "b"


async def test_however_getters_come_and_go_no_key_is_lost() -> None:
    for seed in range(50):
        chance, queue, taken = random.Random(seed), Workqueue[int](), []
        getters: list[asyncio.Task[int]] = []
        for key in range(30):
            getters += [asyncio.create_task(queue.get()) for _ in range(chance.randrange(3))]
            await quiet(chance.randrange(3))
            queue.add(key)
            if getters and chance.random() < 0.5:
                chance.choice(getters).cancel()
        await quiet()
        await stop(getters)
        taken = [getter.result() for getter in getters if not getter.cancelled()]
        rest = [await queue.get() for _ in range(len(queue))]
        assert sorted([*taken, *rest]) == list(range(30)), f"seed {seed}"


async def stop(tasks: list[asyncio.Task[int]] | list[asyncio.Task[str]]) -> None:
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from("abcd"), st.integers(-2, 2)),
        st.tuples(st.just("take"), st.just(""), st.just(0)),
        st.tuples(st.just("done"), st.sampled_from("abcd"), st.just(0)),
    ),
    max_size=60,
)


@given(steps)
def test_the_queue_behaves_like_its_description(steps: list[tuple[str, str, int]]) -> None:
    """A key is due when it was added since it was last taken; it is handed out when due and not worked on."""
    queue: Workqueue[str] = Workqueue()
    due: set[str] = set()
    working: set[str] = set()
    for step, key, priority in steps:
        if step == "add":
            queue.add(key, priority)
            due.add(key)
        elif step == "done" and key in working:
            queue.done(key)
            working.discard(key)
        elif step == "take" and due - working:
            taken = take(queue)
            assert taken in due - working
            due.discard(taken)
            working.add(taken)
        assert len(queue) == len(due)
        assert queue.idle == (not due and not working)


# --- back-off ---


class Extreme(random.Random):
    """Always gives the same end of the range."""

    def __init__(self, *, high: bool) -> None:
        super().__init__()
        self._high = high

    def uniform(self, a: float, b: float) -> float:
        return b if self._high else a


BASE, LONGEST = timedelta(seconds=1), timedelta(minutes=5)


def delays(source: random.Random, number: int) -> list[float]:
    backoff: Backoff[str] = Backoff(BASE, LONGEST, source)
    return [backoff.next("a").total_seconds() for _ in range(number)]


def test_the_bound_of_the_back_off_doubles_up_to_the_longest() -> None:
    assert delays(Extreme(high=True), 11) == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


def test_a_retry_is_never_at_once() -> None:
    assert delays(Extreme(high=False), 3) == [0.1, 0.2, 0.4]


@given(st.integers(), st.integers(1, 200))
def test_the_jitter_is_full_and_within_its_bounds(seed: int, failures: int) -> None:
    waited = delays(random.Random(seed), failures)[-1]
    bound = min(300.0, 2.0 ** (failures - 1))
    assert bound / 10 <= waited <= bound


def test_those_who_fail_together_come_back_all_over_the_range() -> None:
    backoff: Backoff[int] = Backoff(BASE, LONGEST, random.Random(1))
    waited = [backoff.next(key).total_seconds() for key in range(1000)]
    tenths = {int((one - 0.1) / 0.09) for one in waited}
    assert tenths >= set(range(10))


def test_a_success_is_a_new_start_and_every_key_counts_for_itself() -> None:
    backoff: Backoff[str] = Backoff(BASE, LONGEST, Extreme(high=True))
    for _ in range(4):
        backoff.next("a")
    assert (backoff.failures("a"), backoff.failures("b")) == (4, 0)
    assert backoff.next("b") == BASE
    backoff.forget("a")
    backoff.forget("never failed")
    assert backoff.failures("a") == 0
    assert backoff.next("a") == BASE
