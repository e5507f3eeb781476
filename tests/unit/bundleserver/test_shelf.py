import asyncio
from dataclasses import replace

import pytest

from tests.support.bundleserver import POLICY, REVOCATIONS, a_bundle
from tests.support.waiting import eventually, quiet
from zerotrust.bundleserver.conditional import Known
from zerotrust.bundleserver.shelf import Bundle, Kind, NotPublishable, Place, Shelf


def having(bundle: Bundle, place: Place = POLICY) -> Known:
    return Known(frozenset({bundle.tag(place.key_id)}))


def waiter(shelf: Shelf, place: Place, known: Known, seconds: float = 60) -> asyncio.Task[None]:
    return asyncio.create_task(shelf.wait(place, known, seconds))


async def test_a_publish_wakes_the_waiters_of_its_place_and_no_others() -> None:
    shelf = Shelf()
    other_key, other_namespace = Place("k2", "shop", Kind.POLICY), Place("k1", "web", Kind.POLICY)
    places = (POLICY, REVOCATIONS, other_key, other_namespace)
    tasks = {}
    for place in places:
        shelf.publish(place, a_bundle(1))
        tasks[place] = [waiter(shelf, place, having(a_bundle(1), place)) for _ in range(3)]
    await eventually(lambda: shelf.waiting() == 12)
    assert shelf.publish(POLICY, a_bundle(2))
    await asyncio.gather(*tasks.pop(POLICY))
    await quiet()
    assert shelf.waiting() == 9
    assert not any(task.done() for group in tasks.values() for task in group)
    for place in tasks:
        shelf.drop(place)
    await asyncio.gather(*(task for group in tasks.values() for task in group))


async def test_who_is_ahead_sleeps_until_we_have_caught_up() -> None:
    shelf = Shelf()
    shelf.publish(POLICY, a_bundle(1))
    ahead = waiter(shelf, POLICY, having(a_bundle(3)))
    await eventually(lambda: shelf.waiting() == 1)
    for serial in (2, 3):
        shelf.publish(POLICY, a_bundle(serial))
        await quiet()
        assert not ahead.done()
    shelf.publish(POLICY, a_bundle(4))
    await ahead


async def test_whoever_lacks_something_or_asks_for_nothing_there_does_not_wait() -> None:
    shelf = Shelf()
    await shelf.wait(POLICY, Known(), 60)
    shelf.publish(POLICY, a_bundle(2))
    await shelf.wait(POLICY, Known(), 60)
    await shelf.wait(POLICY, having(a_bundle(1)), 60)
    assert shelf.waiting() == 0


async def test_a_wait_ends_in_time_and_leaves_nothing_behind() -> None:
    shelf = Shelf()
    shelf.publish(POLICY, a_bundle(1))
    await shelf.wait(POLICY, having(a_bundle(1)), 0.01)
    cancelled = waiter(shelf, POLICY, having(a_bundle(1)))
    await eventually(lambda: shelf.waiting() == 1)
    cancelled.cancel()
    await eventually(lambda: shelf.waiting() == 0)


def test_nothing_goes_back() -> None:
    shelf = Shelf()
    shelf.publish(POLICY, a_bundle(5, epoch=2))
    for older in (a_bundle(4, epoch=9), a_bundle(5, epoch=1)):
        with pytest.raises(NotPublishable, match="older"):
            shelf.publish(POLICY, older)
    with pytest.raises(NotPublishable, match="another content"):
        shelf.publish(POLICY, a_bundle(5, epoch=3, content="something else"))
    assert shelf.get(POLICY) == a_bundle_like(shelf, 5, 2)


def a_bundle_like(shelf: Shelf, serial: int, epoch: int) -> Bundle:
    there = shelf.get(POLICY)
    assert there is not None
    return replace(a_bundle(serial, epoch), not_after=there.not_after)


def test_the_same_again_is_no_change() -> None:
    shelf, bundle = Shelf(), a_bundle(1)
    assert shelf.publish(POLICY, bundle)
    assert not shelf.publish(POLICY, bundle)
    assert shelf.publish(POLICY, a_bundle(1, epoch=1))


def test_a_held_place_serves_what_it_has_until_it_is_told() -> None:
    shelf = Shelf()
    shelf.publish(POLICY, a_bundle(1))
    shelf.hold(POLICY, "the recorded content is another")
    assert shelf.get(POLICY) is not None
    assert [held for _, _, held in shelf.places()] == ["the recorded content is another"]
    shelf.publish(POLICY, a_bundle(2))
    assert [held for _, _, held in shelf.places()] == [""]
    shelf.hold(POLICY, "again")
    shelf.drop(POLICY)
    assert shelf.get(POLICY) is None


async def test_a_retired_key_is_gone_and_its_waiters_are_told() -> None:
    shelf = Shelf()
    old, new = Place("k1", "shop", Kind.POLICY), Place("k2", "shop", Kind.POLICY)
    for place in (old, new, REVOCATIONS):
        shelf.publish(place, a_bundle(1))
    told = waiter(shelf, old, having(a_bundle(1)))
    await eventually(lambda: shelf.waiting() == 1)
    assert shelf.retire("k1") == 2
    await told
    assert [place for place, _, _ in shelf.places()] == [new]


@pytest.mark.parametrize(
    ("place", "bundle", "message"),
    [
        (Place("k.1", "shop", Kind.POLICY), a_bundle(), "key id"),
        (POLICY, replace(a_bundle(), content_hash="A" * 64), "SHA-256"),
        (POLICY, replace(a_bundle(), serial=-1), "serial"),
        (POLICY, replace(a_bundle(), epoch=10**18), "epoch"),
        (POLICY, replace(a_bundle(), body=b""), "empty"),
    ],
)
def test_what_has_no_place_is_refused(place: Place, bundle: Bundle, message: str) -> None:
    with pytest.raises(NotPublishable, match=message):
        Shelf().publish(place, bundle)


async def test_letting_go_spreads_those_who_wait_and_those_who_come() -> None:
    shelf = Shelf()
    shelf.publish(POLICY, a_bundle(1))
    loop = asyncio.get_running_loop()
    ends: list[float] = []

    async def one() -> None:
        await shelf.wait(POLICY, having(a_bundle(1)), 60)
        ends.append(loop.time())

    tasks = [asyncio.create_task(one()) for _ in range(200)]
    await eventually(lambda: shelf.waiting() == 200)
    started = loop.time()
    shelf.let_go(0.5)
    tasks += [asyncio.create_task(one()) for _ in range(50)]
    await asyncio.gather(*tasks)
    after = [end - started for end in ends]
    assert max(after) < 2
    quarters = [sum(low <= end < low + 0.125 for end in after) for low in (0, 0.125, 0.25, 0.375)]
    assert min(quarters) > 20, quarters
