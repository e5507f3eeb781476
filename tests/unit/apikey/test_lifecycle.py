"""The life of keys, step by step: why one is made, when it is delivered, when it ends, what a crash loses."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.support.apikeys import NAME, SKEW, START, VALIDITY, World, a_spec
from tests.support.builders import days, hours, minutes, seconds
from zerotrust.apikey import key as keys
from zerotrust.apikey.key import Digest, KeyID
from zerotrust.apikey.lifecycle import Contents, decide
from zerotrust.apikey.memory import MAX_KEYS, Key, Memory, encode
from zerotrust.apikey.records import RETENTION
from zerotrust.apikey.rotation import rotation_time
from zerotrust.apikey.snapshot import Fingerprint
from zerotrust.common import times


def ready(**changes: Any) -> World:
    """A world with a delivered key, two days after."""
    world = World(a_spec(**changes))
    world.settle(5)
    world.now += days(2)
    world.settle(2)
    return world


def events(world: World, rounds: int = 6) -> list[str]:
    """The reasons of the events while the world settles."""
    found = []
    for _ in range(rounds):
        world.reconcile()
        assert world.decision is not None
        found += [one.reason for one in world.decision.events]
        world.serve()
        for number in range(len(world.points)):
            world.fetch(number)
        world.now += seconds(1)
    return found


def current(world: World) -> Key:
    assert world.decision is not None
    assert world.decision.standing.current is not None
    return world.decision.standing.current


def accepted(world: World, text: str | None) -> bool:
    assert text is not None
    return all(point.accepts(text, world.now) for point in world.points)


def poll(world: World) -> None:
    world.serve()
    for number in range(len(world.points)):
        world.fetch(number)


def cause_of(world: World) -> str | None:
    world.restart()
    found = decide(world.snapshot()).standing.cause
    return found.word if found is not None else None


# --- issue ---


def test_the_first_key_is_published_before_it_is_delivered() -> None:
    world = World()
    world.reconcile()
    assert world.memory is not None
    (key,) = world.memory.keys
    assert (key.issued, key.expires, key.delivered) == (START, START + days(365), None)
    world.serve()
    world.fetch(0)
    world.reconcile()
    assert world.secret is None, "one decision point does not know it"
    world.fetch(1, reports=False)
    world.reconcile()
    assert world.secret is None, "silence is not agreement"
    world.fetch(1)
    world.reconcile()
    assert accepted(world, world.text)


def test_a_key_costs_two_writes_beside_the_shared_record() -> None:
    world = World()
    writes = []
    for _ in range(6):
        writes.append(world.reconcile())
        poll(world)
        world.now += timedelta(milliseconds=300)
    assert writes == [1, 1, 2, 0, 0, 0]  # record; Secret; record and status


def test_a_lagging_decision_point_holds_a_key_up_until_it_denies_everything() -> None:
    world = World()
    world.reconcile()
    world.serve()
    world.fetch(0)
    for late in (hours(1), hours(12), VALIDITY, VALIDITY + SKEW - seconds(1)):
        world.now = START + late
        world.reconcile()
        assert world.secret is None
    assert world.decision is not None
    assert world.decision.wake == START + VALIDITY + SKEW
    world.now = START + VALIDITY + SKEW
    world.reconcile()
    assert world.secret is not None
    assert not any(point.is_fresh(world.now) for point in world.points if point.content.records == {})


def test_a_wrong_clock_never_opens_the_gate() -> None:
    world = World()
    world.reconcile()
    world.offset = days(3)
    world.reconcile()
    assert world.secret is None


def test_too_many_steps_are_not_worth_a_status_each() -> None:
    world = World()
    world.reconcile()
    assert world.decision is not None
    assert world.decision.quiet
    assert world.decision.wake == START + seconds(5)
    world.now += seconds(5)
    world.reconcile()
    assert not world.decision.quiet
    assert world.status["phase"] == "Pending"


# --- rotation ---


def test_an_old_key_is_good_until_its_overlap_ends_and_no_longer() -> None:
    world = ready()
    old = world.text
    world.rotation(requestedAt=times.render(world.now))
    assert events(world) == ["KeyIssued"]
    assert world.secret is not None
    assert world.secret["api-key-previous"] == old != world.text
    delivered = current(world).delivered
    assert delivered is not None
    world.now = delivered + days(7) - seconds(1)
    poll(world)
    assert accepted(world, old)
    assert accepted(world, world.text)
    world.now += seconds(1)
    assert not accepted(world, old)
    assert accepted(world, world.text)


def test_an_overlap_never_goes_past_the_old_keys_own_end() -> None:
    world = ready(maxKeyAge="49h", rotation={"interval": "48h30m", "overlap": "10h"})
    world.settle()
    assert world.decision is not None
    (old,) = world.decision.standing.older
    assert old.retires == old.expires == START + hours(49)


@pytest.mark.parametrize("uid", [f"uid-{number}" for number in range(5)])
def test_rotation_comes_a_little_early_and_always_at_the_same_time(uid: str) -> None:
    key = Key(KeyID("0" * 12), Digest("sha256:" + "0" * 64), START, START + days(365))
    due = rotation_time(uid, key, days(90))
    assert START + days(81) <= due <= START + days(90)
    assert due == rotation_time(uid, key, days(90))


def test_rotations_spread_out() -> None:
    key = Key(KeyID("0" * 12), Digest("sha256:" + "0" * 64), START, START + days(365))
    due = sorted(rotation_time(f"uid-{number}", key, days(90)) for number in range(500))
    assert due[-1] - due[0] > days(8)
    assert due[250] - due[0] > days(3)


def test_rotation_comes_at_its_time() -> None:
    world = ready()
    key = current(world)
    due = rotation_time("uid-1", key, days(90))
    world.now = due - seconds(1)
    assert cause_of(world) is None
    assert decide(world.snapshot()).wake == due
    world.now = due
    assert cause_of(world) == "RotationDue"


def test_a_request_rotates_once_and_a_revert_not_at_all() -> None:
    world = ready()
    first = times.render(world.now)
    world.rotation(requestedAt=first)
    assert events(world).count("KeyIssued") == 1
    world.rotation(requestedAt=times.render(world.now + hours(1)))
    assert events(world) == []
    assert world.decision is not None
    assert world.decision.wake is not None
    assert world.decision.wake <= world.now + hours(1)
    world.now += hours(1)
    assert events(world).count("KeyIssued") == 1
    for again in (first, None, times.render(START)):
        world.rotation(requestedAt=again)
        assert events(world) == []


def test_a_request_by_annotation_rotates_once_and_an_older_one_not_at_all() -> None:
    world = ready(rotation={"requestedAt": times.render(START - days(1))})
    asked = world.annotated_rotation = world.now + hours(1)
    assert events(world) == []
    assert decide(world.snapshot()).wake == asked
    world.now += hours(1)
    assert events(world).count("KeyIssued") == 1
    for older in (asked, asked - hours(2), None):
        world.annotated_rotation = older
        assert events(world) == []


def test_a_request_within_a_second_is_met_once() -> None:
    world = ready()
    world.now += timedelta(milliseconds=700)
    world.rotation(requestedAt=(world.now - timedelta(milliseconds=100)).isoformat().replace("+00:00", "Z"))
    assert events(world, 10).count("KeyIssued") == 1


def test_several_old_keys_and_the_secret_shows_the_newest_two() -> None:
    world = ready()
    texts = [world.text]
    for _ in range(4):
        world.now += minutes(10)
        world.rotation(requestedAt=times.render(world.now))
        world.settle(6)
        texts.append(world.text)
    assert len(set(texts)) == 5
    assert all(accepted(world, text) for text in texts)
    assert world.secret == {"api-key": texts[-1], "api-key-previous": texts[-2]}
    assert world.decision is not None
    assert len(world.decision.standing.older) == 4


@pytest.mark.parametrize(
    ("happens", "word"),
    [
        (lambda world: setattr(world, "secret", None), "SecretLost"),
        (lambda world: setattr(world, "secret", {}), "SecretChanged"),
        (lambda world: setattr(world, "secret", {"api-key": "x"}), "SecretChanged"),
        (lambda world: setattr(world, "secret", {"api-key": keys.generate(world.random).reveal()}), "SecretChanged"),
        (lambda world: world.edit(revokedKeyIDs=[world.held()]), "KeyRevoked"),
        (lambda world: setattr(world, "now", START + days(365)), "Expired"),
        (lambda world: world.edit(maxKeyAge="47h", rotation={"interval": "46h", "overlap": "1h"}), "Expired"),
        (lambda world: world.rotation(requestedAt=times.render(world.now)), "RotationRequested"),
        (lambda world: world.shards.clear(), "NoKey"),
        (lambda world: world.shards.update({"shop.api-keys": {"uid-1": "garbage"}}), "NoKey"),
    ],
    ids=["lost", "empty", "garbage", "planted", "revoked", "expired", "shorter age", "requested", "no record", "bad record"],
)  # fmt: skip
def test_causes(happens: Callable[[World], object], word: str) -> None:
    world = ready()
    old = world.text
    happens(world)
    assert cause_of(world) == word
    assert "KeyIssued" in events(world)
    assert world.text not in (None, old)
    assert accepted(world, world.text)
    assert accepted(world, old) == (word in ("SecretLost", "SecretChanged", "RotationRequested"))


@pytest.mark.parametrize(
    "change",
    [{"scopes": ["a"]}, {"audience": ["a", "b"]}, {"holder": {"workload": {"name": "a", "namespace": "b"}}},
     {"delivery": {"secretName": "other", "format": "Env"}}, {"unusedAfter": "1h"}, {"maxKeyAge": "17520h"},
     {"notAfter": "2027-01-01T00:00:00Z"}, {"rotation": {"interval": "1000h", "overlap": "1h"}}, {"state": "Suspended"},
     {"revokedKeyIDs": ["0" * 12]}],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_nothing_else_makes_a_key(change: dict[str, Any]) -> None:
    world = ready()
    world.edit(**change)
    world.restart()
    world.status = {}
    assert "KeyIssued" not in events(world)
    assert len(world.made) == 1


def test_an_unreadable_secret_of_ours_keeps_no_planted_previous_key() -> None:
    world = ready()
    mine = keys.generate(world.random)
    world.secret = {**(world.secret or {}), "api-key-previous": mine.reveal()}
    world.settle(3)
    assert list(world.secret or {}) == ["api-key"]
    assert mine.id not in world.content().records


# --- what stands in the way ---


@pytest.mark.parametrize(
    ("happens", "word"),
    [
        (lambda world: world.edit(state="Suspended"), "Suspended"),
        (lambda world: world.edit(notAfter=times.render(world.now)), "GrantEnded"),
        (lambda world: setattr(world, "foreign", True), "SecretConflict"),
        (lambda world: setattr(world, "offset", hours(-3)), "ClockSkew"),
    ],
    ids=["suspended", "ended", "foreign", "clock"],
)
def test_what_keeps_a_key_from_being_made(happens: Callable[[World], object], word: str) -> None:
    world = ready()
    world.rotation(requestedAt=times.render(world.now - hours(4)))
    happens(world)
    made, secret = len(world.made), world.secret
    world.settle(4)
    assert world.decision is not None
    assert world.decision.standing.blocked is not None
    assert world.decision.standing.blocked.word == word
    assert len(world.made) == made
    assert world.secret == secret


def test_a_wrong_clock_does_not_keep_a_lost_secret_from_being_replaced() -> None:
    world = ready()
    world.offset, world.secret = hours(-3), None
    world.settle(6)
    assert accepted(world, world.text)


def test_a_suspension_in_between_delivers_nothing_until_it_ends() -> None:
    world = World()
    world.reconcile()
    world.edit(state="Suspended")
    world.settle(5)
    assert world.secret is None
    world.edit(state="Active")
    world.settle(5)
    assert accepted(world, world.text)
    assert len(world.made) == 1


def many(count: int, **changes: Any) -> tuple[Key, ...]:
    key = Key(KeyID("x" * 12), Digest("sha256:" + "0" * 64), START, START + days(365), START, START + days(300))
    return tuple(replace(key, id=KeyID(f"{number:012d}"), **changes) for number in range(count))


def with_keys(*others: Key) -> World:
    world = ready()
    memory = world.memory
    assert memory is not None
    world.shards["shop.api-keys"]["uid-1"] = encode(replace(memory, keys=(*others, *memory.keys)))
    world.rotation(requestedAt=times.render(world.now))
    return world


def test_there_are_never_too_many_keys_to_remember() -> None:
    world = with_keys(*many(MAX_KEYS - 1))
    assert events(world) == []
    assert world.decision is not None
    assert world.decision.standing.blocked is not None
    assert world.decision.standing.blocked.word == "TooManyKeys"
    assert not world.decision.generate


@pytest.mark.parametrize(
    "changes",
    [{"retires": START + days(2)}, {"revoked": START, "retires": None}],
    ids=["ended", "revoked long ago"],
)
def test_what_is_of_no_use_makes_room(changes: dict[str, Any]) -> None:
    world = with_keys(*many(MAX_KEYS - 2), replace(many(1, **changes)[0], id=KeyID("y" * 12)))
    assert events(world) == ["KeyIssued"]
    assert world.memory is not None
    assert world.memory.key("y" * 12) is None
    assert len(world.memory.keys) == MAX_KEYS


def test_what_was_revoked_lately_makes_no_room() -> None:
    world = with_keys(*many(MAX_KEYS - 1, revoked=START + days(1, ) + hours(2)))  # fmt: skip
    assert events(world) == []


def test_no_room_in_the_record_is_no_key() -> None:
    world = ready()
    world.rotation(requestedAt=times.render(world.now))
    decision = decide(replace(world.snapshot(), room=False))
    assert not decision.generate
    assert decision.standing.blocked is not None
    assert decision.standing.blocked.word == "TooManyKeys"


# --- revocation ---


def test_a_revoked_key_stays_revoked_when_it_leaves_the_list() -> None:
    world = ready()
    old = world.held()
    assert old is not None
    world.edit(revokedKeyIDs=[old])
    assert events(world) == ["KeyRevoked", "KeyIssued"]
    world.edit(revokedKeyIDs=[])
    world.settle()
    assert old not in world.content().usable
    assert old in world.content().revoked
    world.now = START + days(365) + RETENTION - minutes(1)
    world.settle(1)
    assert old in world.content().revoked
    world.now += minutes(1)
    world.settle(1)
    assert old not in world.content().revoked


def test_a_pending_key_that_is_revoked_is_never_delivered() -> None:
    world = World()
    world.reconcile()
    pending = world.made[0].id
    world.edit(revokedKeyIDs=[pending])
    world.settle()
    assert world.held() not in (None, pending)


def test_a_key_revoked_between_delivery_and_its_record_is_replaced() -> None:
    world = ready()
    old = world.text
    world.rotation(requestedAt=times.render(world.now))
    for _ in range(2):
        world.reconcile()
        poll(world)
    revoked = world.held()
    assert revoked is not None
    world.edit(revokedKeyIDs=[revoked])
    world.settle()
    assert world.held() != revoked
    assert accepted(world, old)
    assert accepted(world, world.text)


def test_ids_of_others_are_told() -> None:
    world = ready()
    world.edit(revokedKeyIDs=["0" * 12, world.held()])
    world.settle(1)
    assert world.decision is not None
    assert world.decision.standing.unknown == ("0" * 12,)


def test_ten_thousand_ids_are_no_work() -> None:
    spec = a_spec(revokedKeyIDs=[f"{number:012d}" for number in range(1000)])
    world = World(spec)
    world.settle(6)
    assert accepted(world, world.text)


# --- crashes ---


@pytest.mark.parametrize("after", [0, 1, 2])
@pytest.mark.parametrize("step", range(5))
def test_a_crash_anywhere_costs_one_key_at_most(step: int, after: int) -> None:
    world = ready()
    old = world.text
    world.rotation(requestedAt=times.render(world.now))
    for number in range(8):
        world.reconcile(after if number == step else None)
        poll(world)
        assert accepted(world, world.text), "the Secret holds a key that is refused"
        assert accepted(world, old)
    assert len(world.made) <= 3
    assert world.held() == world.made[-1].id
    assert world.reconcile() == 0
    assert world.memory is not None
    assert len(world.memory.keys) == 2


def test_an_undelivered_key_is_replaced_after_a_crash() -> None:
    world = World()
    world.reconcile()
    lost = world.made[0].id
    world.restart()
    world.settle()
    assert world.held() == world.made[1].id
    assert lost not in world.content().records


def test_a_lost_key_is_forgotten_when_nothing_is_asked_for_any_more() -> None:
    world = ready()
    world.rotation(requestedAt=times.render(world.now))
    world.reconcile()
    world.restart()
    world.rotation(requestedAt=None)
    world.settle(2)
    assert world.memory is not None
    assert len(world.memory.keys) == 1


def test_a_candidate_that_does_not_match_the_record_is_not_delivered() -> None:
    world = World()
    world.reconcile()
    snapshot = world.snapshot()
    assert snapshot.candidate is not None
    forged = replace(snapshot, candidate=Fingerprint(snapshot.candidate.id, Digest("sha256:" + "f" * 64)))
    assert decide(forged).deliver is None


# --- adoption ---


def test_a_re_created_api_key_goes_on_with_the_key_in_its_secret() -> None:
    world = ready()
    text = world.text
    world.delete()
    world.reconcile()
    poll(world)
    assert not accepted(world, text)
    world.now += days(1)
    world.create()
    assert events(world) == ["Adopted"]
    assert world.text == text
    assert accepted(world, text)
    assert list(world.shards["shop.api-keys"]) == ["uid-2"]


def test_nothing_planted_is_adopted() -> None:
    world = World()
    mine = keys.generate(world.random)
    world.secret = {"api-key": mine.reveal()}
    world.settle()
    assert world.held() not in (None, mine.id)
    assert mine.id not in world.content().records


@pytest.mark.parametrize(
    "spoil",
    [
        lambda key: replace(key, revoked=START),
        lambda key: replace(key, retires=START + days(5)),
        lambda key: replace(key, expires=START + days(2)),
        lambda key: replace(key, digest=Digest("sha256:" + "f" * 64)),
    ],
    ids=["revoked", "in overlap", "expired", "another digest"],
)
def test_what_is_not_good_any_more_is_not_adopted(spoil: Callable[[Key], Key]) -> None:
    world = ready()
    held, memory = world.held(), world.memory
    assert memory is not None
    world.delete()
    world.shards["shop.api-keys"]["uid-1"] = encode(replace(memory, keys=(spoil(memory.keys[0]),)))
    world.create()
    assert "Adopted" not in events(world)
    assert world.held() not in (None, held)


def test_a_key_revoked_under_any_of_its_uids_is_not_adopted() -> None:
    world = ready()
    memory = world.memory
    assert memory is not None
    world.delete()
    world.shards["shop.api-keys"]["uid-0"] = encode(replace(memory, keys=(replace(memory.keys[0], revoked=START),)))
    world.create()
    assert "Adopted" not in events(world)


def test_revocations_outlive_the_api_key() -> None:
    world = ready()
    old = world.held()
    assert old is not None
    world.edit(revokedKeyIDs=[old])
    world.settle()
    text = world.text
    world.delete()
    world.reconcile()
    world.edit(revokedKeyIDs=[])
    world.create()
    assert events(world) == ["Adopted"]
    assert world.text == text
    assert old in world.content().revoked
    assert old not in world.content().usable


def test_another_api_keys_memory_is_not_adopted() -> None:
    world = ready()
    memory = world.memory
    assert memory is not None
    world.delete()
    world.shards["shop.api-keys"]["uid-1"] = encode(replace(memory, name="somebody-else"))
    world.create()
    assert "Adopted" not in events(world)


# --- retirement ---


def used(world: World, old: KeyID, new: KeyID, *, last_old: timedelta | None, last_new: timedelta | None) -> None:
    """Say when keys were used, counted from the delivery of the new one."""
    delivered = current(world).delivered
    assert delivered is not None
    for key_id, after in ((old, last_old), (new, last_new)):
        if after is not None:
            world.used[key_id] = delivered + after


@pytest.mark.parametrize(
    ("last_old", "last_new", "since", "early"),
    [
        (None, hours(5), hours(-1), True),
        (hours(1), hours(5), hours(-1), True),
        (hours(4), hours(5), hours(-1), False),
        (None, None, hours(-1), False),
        (None, hours(1), hours(-1), False),
        (None, hours(5), None, False),
        (None, hours(5), hours(4), False),
    ],
    ids=["unused", "once", "lately", "new unused", "logs stopped", "no logs", "logs since lately"],
)
def test_an_old_key_ends_early_where_the_logs_show_that_nobody_uses_it(
    last_old: timedelta | None, last_new: timedelta | None, since: timedelta | None, early: bool
) -> None:
    world = ready(rotation={"retireUnusedAfter": "3h"})
    old, old_text = world.held(), world.text
    world.rotation(requestedAt=times.render(world.now))
    world.settle(6)
    new, delivered = world.held(), current(world).delivered
    assert old is not None
    assert new is not None
    assert delivered is not None
    used(world, old, new, last_old=last_old, last_new=last_new)
    world.logs_since = delivered + since if since is not None else None
    world.now = delivered + hours(5)
    assert ("RetiredEarly" in events(world)) == early
    assert accepted(world, old_text) != early
    assert accepted(world, world.text)


def test_without_being_asked_for_no_key_ends_early() -> None:
    world = ready()
    old, text = world.held(), world.text
    world.rotation(requestedAt=times.render(world.now))
    world.settle(6)
    new = world.held()
    assert old is not None
    assert new is not None
    world.logs_since = START
    used(world, old, new, last_old=None, last_new=days(5))
    world.now += days(5)
    world.settle(2)
    assert accepted(world, text)


def test_an_ended_key_is_remembered_for_a_day() -> None:
    """A clock that ran ahead comes back before anything is lost."""
    world = ready()
    text = world.text
    world.rotation(requestedAt=times.render(world.now))
    world.settle(6)
    retires = world.now + days(7)
    world.clock_is_watched = False
    world.offset = days(7) + hours(12)
    world.settle(4)
    world.offset = timedelta()
    world.settle(4)
    assert accepted(world, text)
    assert world.secret is not None
    assert world.secret["api-key-previous"] == text
    world.now = retires + RETENTION
    world.settle(3)
    assert world.memory is not None
    assert len(world.memory.keys) == 1
    assert list(world.secret) == ["api-key"]


def test_nothing_is_forgotten_by_a_clock_that_is_known_to_be_wrong() -> None:
    world = ready()
    world.rotation(requestedAt=times.render(world.now))
    world.settle(6)
    before = world.memory
    world.offset = days(60)
    world.settle(4)
    assert world.memory == before


def test_a_decision_without_any_key_remembers_nothing() -> None:
    world = World(a_spec(state="Suspended"))
    decision = decide(world.snapshot())
    assert (decision.memory, decision.deliver, decision.generate) == (None, None, False)
    assert decide(replace(world.snapshot(), memory=Memory(NAME))).memory == Memory(NAME)


def test_what_the_secret_should_hold_is_told_by_id() -> None:
    world = World()
    world.reconcile()
    poll(world)
    decision = decide(world.snapshot())
    assert decision.deliver == Contents(world.made[0].id, None)
    assert world.texts[world.made[0].id] not in repr(decision)
