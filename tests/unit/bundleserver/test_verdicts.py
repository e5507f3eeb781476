import asyncio
from datetime import datetime, timedelta

import pytest

from tests.support.clock import FakeClock
from tests.support.waiting import eventually, quiet
from zerotrust.bundleserver.refusals import Refused
from zerotrust.bundleserver.verdicts import ReviewGate, Verdicts


class Oracle:
    """Answers when it is let, and counts how often it was asked."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock, self.asked, self.most, self._inside = clock, 0, 0, 0
        self.open = asyncio.Event()

    async def __call__(self) -> tuple[str, datetime]:
        self.asked += 1
        self._inside += 1
        self.most = max(self.most, self._inside)
        await self.open.wait()
        self._inside -= 1
        return f"answer {self.asked}", self.clock.now() + timedelta(seconds=10)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def verdicts(clock: FakeClock, size: int = 3, at_once: int = 2, waiting: int = 100) -> Verdicts[str]:
    return Verdicts(clock, ReviewGate(at_once, waiting), size)


async def test_an_answer_holds_until_its_time(clock: FakeClock) -> None:
    known, oracle = verdicts(clock), Oracle(clock)
    oracle.open.set()
    assert await known.get("a", oracle) == "answer 1"
    clock.advance(timedelta(seconds=9.9))
    assert await known.get("a", oracle) == "answer 1"
    clock.advance(timedelta(seconds=0.1))
    assert await known.get("a", oracle) == "answer 2"


async def test_one_flight_for_all_and_it_survives_its_first_passenger(clock: FakeClock) -> None:
    known, oracle = verdicts(clock), Oracle(clock)
    first, *others = [asyncio.create_task(known.get("a", oracle)) for _ in range(5)]
    await eventually(lambda: oracle.asked)
    first.cancel()
    await quiet()
    oracle.open.set()
    assert await asyncio.gather(*others) == ["answer 1"] * 4
    assert first.cancelled()
    assert oracle.asked == 1


async def test_the_least_used_goes_first(clock: FakeClock) -> None:
    known, oracle = verdicts(clock, size=3), Oracle(clock)
    oracle.open.set()
    for key in ("a", "b", "c", "a", "d"):
        await known.get(key, oracle)
    assert len(known) == 3
    asked = oracle.asked
    await known.get("a", oracle)
    assert oracle.asked == asked
    await known.get("b", oracle)
    assert oracle.asked == asked + 1


async def test_an_error_reaches_everybody_and_is_not_kept(clock: FakeClock) -> None:
    known, oracle = verdicts(clock), Oracle(clock)

    async def fails() -> tuple[str, datetime]:
        raise Refused(503, "unavailable", "no answer")

    outcomes = await asyncio.gather(*(known.get("a", fails) for _ in range(3)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Refused] * 3
    oracle.open.set()
    assert await known.get("a", oracle) == "answer 1"


async def test_questions_are_bounded(clock: FakeClock) -> None:
    known, oracle = verdicts(clock, at_once=2, waiting=3), Oracle(clock)
    tasks = [asyncio.create_task(known.get(key, oracle)) for key in "abcdefg"]
    await eventually(lambda: sum(task.done() for task in tasks) == 2)
    refused = [task.exception() for task in tasks if task.done()]
    assert [error.status for error in refused if isinstance(error, Refused)] == [503, 503]
    oracle.open.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (oracle.asked, oracle.most) == (5, 2)


async def test_closing_gives_up_what_is_asked(clock: FakeClock) -> None:
    known, oracle = verdicts(clock), Oracle(clock)
    task = asyncio.create_task(known.get("a", oracle))
    await eventually(lambda: oracle.asked)
    await known.close()
    with pytest.raises(asyncio.CancelledError):
        await task
