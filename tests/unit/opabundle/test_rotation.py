"""How bundle keys follow one another: by the clock and the reports, in one direction only, and never without an overlap."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from zerotrust.opabundle.rotation import KeyRecord, Rotation, Schedule, State, plan

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
SCHEDULE = Schedule()
DAY = timedelta(days=1)
ACTIVE = KeyRecord("a" * 16, NOW - 30 * DAY, activated=NOW - 30 * DAY)
NEXT = KeyRecord("b" * 16, NOW - timedelta(hours=1))
RETIRING = KeyRecord("c" * 16, NOW - 100 * DAY, activated=NOW - 100 * DAY, replaced=NOW - 10 * DAY)


def states(rotation: Rotation) -> dict[str, str]:
    return {one.record.id[0]: f"{one.state}/{one.reason}" for one in rotation.keys}


def old(days: int) -> KeyRecord:
    return KeyRecord("a" * 16, NOW - days * DAY, activated=NOW - days * DAY)


def test_without_a_key_one_is_wanted() -> None:
    rotation = plan([], NOW, frozenset(), SCHEDULE)
    assert (rotation.create, rotation.offered, rotation.signing) == ("NoActiveKey", None, ())


def test_the_first_key_is_active_at_once() -> None:
    rotation = plan([KeyRecord("a" * 16, NOW)], NOW, frozenset(), SCHEDULE)
    assert states(rotation) == {"a": "Active/Active"}
    assert rotation.keys[0].record.activated == NOW
    assert (rotation.create, rotation.offered) == ("", "a" * 16)


def test_nothing_happens_before_its_time() -> None:
    rotation = plan([ACTIVE], NOW, frozenset(), SCHEDULE)
    assert rotation.keys[0].record == ACTIVE
    assert (rotation.create, rotation.at) == ("", ACTIVE.created + SCHEDULE.lifetime)


def test_a_key_at_the_end_of_its_life_wants_a_successor_and_goes_on_meanwhile() -> None:
    rotation = plan([old(90)], NOW, frozenset(), SCHEDULE)
    assert states(rotation) == {"a": "Active/Active"}
    assert rotation.create == "Lifetime"


def test_a_successor_signs_but_is_not_offered_until_every_replica_has_it() -> None:
    fresh = KeyRecord("b" * 16, NOW - timedelta(minutes=9))
    rotation = plan([old(91), fresh], NOW, frozenset(), SCHEDULE)
    assert states(rotation) == {"a": "Active/Active", "b": "Next/Settling"}
    assert rotation.signing == ("a" * 16, "b" * 16)
    assert (rotation.create, rotation.offered, rotation.at) == ("", "a" * 16, NOW + timedelta(minutes=1))


def test_a_settled_successor_takes_over() -> None:
    rotation = plan([old(91), NEXT], NOW, frozenset(), SCHEDULE)
    assert states(rotation) == {"a": "Retiring/Overlap", "b": "Active/Active"}
    assert [one.record.replaced for one in rotation.keys] == [NOW, None]
    assert (rotation.signing, rotation.offered) == (("a" * 16, "b" * 16), "b" * 16)


def test_a_rotation_that_is_asked_for_counts_once() -> None:
    asked = NOW - timedelta(minutes=5)
    assert plan([ACTIVE], NOW, frozenset(), SCHEDULE, asked).create == "Requested"
    turned = plan([ACTIVE, NEXT], NOW, frozenset(), SCHEDULE, asked)
    assert turned.offered == NEXT.id
    again = plan([one.record for one in turned.keys], NOW, frozenset(), SCHEDULE, asked)
    assert (again.create, again.offered) == ("", NEXT.id)


def test_a_request_from_before_the_last_rotation_or_for_the_future_does_nothing() -> None:
    for asked in (ACTIVE.created - DAY, NOW + DAY):
        assert plan([ACTIVE], NOW, frozenset(), SCHEDULE, asked).create == ""


def test_a_key_that_reports_name_is_served_however_long_ago_it_was_replaced() -> None:
    rotation = plan([RETIRING, ACTIVE], NOW, {RETIRING.id}, SCHEDULE)
    assert states(rotation)["c"] == "Retiring/InUse"
    assert RETIRING.id in rotation.signing


def test_silence_is_not_agreement() -> None:
    """Reports that nobody has read yet retire nothing."""
    assert states(plan([RETIRING, ACTIVE], NOW, None, SCHEDULE))["c"] == "Retiring/ReportsUnknown"


def test_a_key_that_nobody_names_goes_after_the_overlap() -> None:
    replaced = KeyRecord("c" * 16, NOW - 100 * DAY, NOW - 100 * DAY, NOW - SCHEDULE.overlap + timedelta(seconds=1))
    waiting = plan([replaced, ACTIVE], NOW, frozenset(), SCHEDULE)
    assert states(waiting)["c"] == "Retiring/Overlap"
    assert waiting.at == NOW + timedelta(seconds=1)
    gone = plan([replaced, ACTIVE], NOW + timedelta(seconds=1), frozenset(), SCHEDULE)
    assert gone.retired == ("c" * 16,)
    assert gone.signing == (ACTIVE.id,)


def test_of_two_active_keys_the_newer_stays() -> None:
    """A crash between the two writes of a rotation leaves both active."""
    newer = KeyRecord("b" * 16, NOW - DAY, activated=NOW - timedelta(hours=1))
    rotation = plan([ACTIVE, newer], NOW, frozenset(), SCHEDULE)
    assert states(rotation) == {"a": "Retiring/Overlap", "b": "Active/Active"}


def test_an_active_key_that_was_lost_is_replaced_at_once_by_whoever_waits() -> None:
    fresh = KeyRecord("b" * 16, NOW)
    assert plan([RETIRING, fresh], NOW, frozenset({RETIRING.id}), SCHEDULE).offered == fresh.id
    assert plan([RETIRING], NOW, frozenset({RETIRING.id}), SCHEDULE).create == "NoActiveKey"


ORDER = list(State)
STEPS = st.lists(
    st.tuples(st.integers(0, 60 * 24 * 40), st.sampled_from(["all", "none", "unknown", "active"]), st.booleans()),
    min_size=1,
    max_size=40,
)


@given(STEPS)
def test_over_any_history_there_is_always_one_key_to_offer_and_no_key_goes_back_or_goes_early(
    steps: list[tuple[int, str, bool]],
) -> None:
    now, records, requested, created = NOW, list[KeyRecord](), None, 0
    seen: dict[str, State] = {}
    for minutes, reports, ask in steps:
        now += timedelta(minutes=minutes)
        requested = now if ask else requested
        named = {"all": {r.id for r in records}, "none": set(), "unknown": None, "active": {r.id for r in records[-1:]}}
        rotation = plan(records, now, named[reports], SCHEDULE, requested)
        assert rotation == plan(reversed(records), now, named[reports], SCHEDULE, requested)
        for one in rotation.keys:
            assert ORDER.index(one.state) >= ORDER.index(seen.get(one.record.id, State.NEXT))
            seen[one.record.id] = one.state
            if one.state is State.RETIRED:
                assert named[reports] is not None
                assert one.record.replaced is not None
                assert now - one.record.replaced >= SCHEDULE.overlap
        assert len([one for one in rotation.keys if one.state is State.ACTIVE]) == (1 if records else 0)
        assert rotation.at is None or rotation.at > now
        records = [one.record for one in rotation.keys if one.state is not State.RETIRED]
        if rotation.create:
            created += 1
            records.append(KeyRecord(f"{created:016x}", now))
        assert len([record for record in records if record.activated is None]) <= 1
