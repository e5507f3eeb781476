"""What a status says, and that it says it by the clock."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.support.apikeys import START, World, a_spec, parse_spec
from tests.support.builders import days, hours, minutes, seconds
from zerotrust.apikey.lifecycle import decide
from zerotrust.apikey.resource import KIND, ApiKeySpec, ApiKeyStatus
from zerotrust.apikey.snapshot import Lagging
from zerotrust.apikey.status import key_phase, refused_status, status_of
from zerotrust.common import times
from zerotrust.common.errors import SpecError


def ready(**changes: Any) -> World:
    world = World(a_spec(**changes))
    world.settle(5)
    world.now += hours(2)
    world.settle(2)
    return world


def status(world: World, **changes: Any) -> dict[str, Any]:
    snapshot = replace(world.snapshot(), **changes)
    found = status_of(snapshot, decide(snapshot), 3, world.status)
    parse_spec(ApiKeyStatus, found, "status")
    return found


def condition(found: dict[str, Any], type_: str) -> tuple[str, str]:
    (one,) = (one for one in found["conditions"] if one["type"] == type_)
    return one["status"], one["reason"]


def message(found: dict[str, Any], type_: str) -> str:
    return next(str(one["message"]) for one in found["conditions"] if one["type"] == type_)


def test_a_good_key() -> None:
    world = ready()
    found = status(world)
    assert {name: value for name, value in found.items() if name not in ("conditions", "nextRotationTime")} == {
        "observedGeneration": 3,
        "phase": "Delivered",
        "secretName": "partner-x-api-key",
        "keyID": world.held(),
        "issuedAt": times.render(START),
        "expiresAt": times.render(START + days(365)),
    }
    due = times.parse(found["nextRotationTime"])
    assert START + days(81) < due <= START + days(90)
    assert [(one["type"], one["status"], one["reason"]) for one in found["conditions"]] == [
        ("Ready", "True", "Delivered"),
        ("Published", "True", "Acknowledged"),
        ("Delivered", "True", "Delivered"),
        ("OverlapActive", "False", "NoOldKey"),
        ("ExpiringSoon", "False", "NotSoon"),
        ("Expired", "False", "NotExpired"),
        ("Suspended", "False", "NotSuspended"),
        ("Unused", "False", "New"),
        ("Revoked", "False", "NoRevokedKey"),
    ]


def test_every_condition_of_the_design_is_there_and_every_column_has_a_field() -> None:
    world = ready()
    world.rotation(requestedAt=times.render(world.now))
    world.settle(6)
    held = world.held()
    assert held is not None
    world.used[held] = world.now
    found = status(world)
    for column in KIND.columns:
        name = column.json_path.removeprefix(".status.")
        assert "conditions" in name or "metadata" in name or name in found, name


@pytest.mark.parametrize(
    ("happens", "ready_is", "phase"),
    [
        (lambda world: world.edit(state="Suspended"), ("False", "Suspended"), "Suspended"),
        (lambda world: world.edit(notAfter=times.render(world.now)), ("False", "GrantEnded"), "Expired"),
        (lambda world: world.edit(revokedKeyIDs=[world.held()]), ("False", "KeyRevoked"), "Revoked"),
        (lambda world: setattr(world, "now", START + days(365)), ("False", "Expired"), "Expired"),
        (lambda world: setattr(world, "secret", None), ("False", "SecretLost"), "Delivered"),
        (lambda world: setattr(world, "secret", {}), ("False", "SecretChanged"), "Delivered"),
        (lambda world: world.rotation(requestedAt=times.render(world.now)), ("True", "Delivered"), "Delivered"),
        (lambda world: world.used.update({world.held(): world.now}), ("True", "Delivered"), "Active"),
    ],
    ids=["suspended", "grant ended", "revoked", "expired", "lost", "changed", "requested", "used"],
)
def test_ready_and_phase(happens: Callable[[World], object], ready_is: tuple[str, str], phase: str) -> None:
    world = ready()
    happens(world)
    found = status(world)
    assert condition(found, "Ready") == ready_is
    assert found["phase"] == phase
    kinds = {one["type"] for one in found["conditions"]} & {"Reconciling", "Stalled"}
    expected = {"Stalled"} if ready_is[1] == "GrantEnded" else {"Reconciling"}
    assert kinds == (set() if ready_is[0] == "True" or ready_is[1] == "Suspended" else expected)


def test_a_rotation_stays_ready() -> None:
    world = ready()
    world.rotation(requestedAt=times.render(world.now))
    phases = []
    for number in range(14):
        found = status(world)
        assert condition(found, "Ready") == ("True", "Delivered")
        phases.append(found["phase"])
        if number % 2 == 0:
            world.reconcile()
            continue
        world.serve()
        world.fetch(0)
        world.fetch(1)
    assert list(dict.fromkeys(phases)) == ["Delivered", "Pending", "Published", "Overlap"]


def test_the_phases_of_one_key() -> None:
    world = ready()
    world.rotation(requestedAt=times.render(world.now))
    world.settle(6)
    standing = decide(world.snapshot()).standing
    assert standing.current is not None
    (old,) = standing.older
    snapshot = world.snapshot()
    assert key_phase(snapshot, standing, old) == "Overlap"
    later = replace(snapshot, now=old.retires)
    assert key_phase(later, standing, old) == "Retired"
    assert key_phase(snapshot, standing, replace(old, revoked=START)) == "Revoked"
    alone = replace(standing, older=())
    assert key_phase(replace(snapshot, now=standing.current.expires), alone, standing.current) == "Expired"


def test_who_lags_is_named() -> None:
    world = World()
    world.reconcile()
    found = status(world)
    assert condition(found, "Published") == condition(found, "Ready") == ("False", "NotServed")
    names = tuple(f"opa-{number}" for number in range(9))
    found = status(world, published=lambda _: Lagging(names))
    assert condition(found, "Ready") == condition(found, "Published") == ("False", "Lagging")
    assert "opa-0, opa-1, opa-2, opa-3, opa-4 and 4 more" in message(found, "Published")
    assert "2026-06-02T00:00:30Z at the latest" in message(found, "Published")
    assert condition(found, "Delivered") == ("False", "WaitingForDecisionPoints")


def test_an_overlap_names_the_old_keys_and_their_ends() -> None:
    world = ready()
    old = world.held()
    world.rotation(requestedAt=times.render(world.now))
    world.settle(6)
    found = status(world)
    assert condition(found, "OverlapActive") == ("True", "OldKeysAccepted")
    assert found["previousKeyID"] == old
    assert f"{old} until {found['overlapEndsAt']}" in message(found, "OverlapActive")
    world.now = times.parse(found["overlapEndsAt"])
    assert condition(status(world), "OverlapActive") == ("False", "NoOldKey")
    assert "previousKeyID" not in status(world)


def test_ends_are_announced() -> None:
    world = ready()
    world.foreign, world.now = True, START + days(365) - days(7) - seconds(1)
    assert condition(status(world), "ExpiringSoon") == ("False", "NotSoon")
    world.now += seconds(1)
    found = status(world)
    assert condition(found, "ExpiringSoon") == ("True", "RotationStuck")
    assert "name is taken" in message(found, "ExpiringSoon")
    world.edit(notAfter=times.render(world.now + days(7)))
    assert condition(status(world), "ExpiringSoon") == ("True", "GrantEndsSoon")
    world.now += days(7)
    found = status(world)
    assert condition(found, "Expired") == ("True", "GrantEnded")
    assert condition(found, "ExpiringSoon")[0] == "False"


def test_a_grant_that_ends_first_has_no_next_rotation() -> None:
    world = ready(notAfter="2026-07-01T00:00:00Z")
    found = status(world)
    assert "nextRotationTime" not in found
    assert found["expiresAt"] == "2026-07-01T00:00:00Z"


def test_use_and_disuse() -> None:
    world = ready()
    held = world.held()
    assert held is not None
    world.now = START + days(90) - minutes(1)
    assert condition(status(world), "Unused") == ("False", "New")
    world.now = START + days(90)
    assert condition(status(world), "Unused") == ("Unknown", "NoDecisionLogs")
    world.logs_since = START
    assert condition(status(world), "Unused") == ("True", "NotUsed")
    world.used[held] = START + days(89)
    found = status(world)
    assert condition(found, "Unused") == ("False", "InUse")
    assert found["lastUsedTime"] == times.render(START + days(89))
    world.now = START + days(89 + 90)
    assert condition(status(world), "Unused") == ("True", "NotUsed")


def test_a_revocation_takes_effect_once_everybody_has_reported_it() -> None:
    world = ready()
    held = world.held()
    world.edit(revokedKeyIDs=[held])
    requested = times.render(world.now)
    world.reconcile()
    found = status(world)
    assert found["revocation"] == {"requestedAt": requested, "acknowledged": False}
    assert condition(found, "Revoked") == ("False", "NotServed")
    world.serve()
    world.fetch(0)
    assert condition(status(world), "Revoked") == ("False", "Lagging")
    assert "opa-1" in message(status(world), "Revoked")
    world.now += seconds(3)
    world.fetch(1)
    world.settle(4)
    effective = world.status["revocation"]["effectiveAt"]
    assert effective >= requested
    world.now += days(3)
    world.settle(3)
    assert world.status["revocation"] == {"requestedAt": requested, "effectiveAt": effective, "acknowledged": True}
    assert condition(world.status, "Revoked") == ("True", "Acknowledged")


def test_ids_of_nobody_are_reported() -> None:
    world = ready()
    world.edit(revokedKeyIDs=["0" * 12])
    found = status(world)
    assert condition(found, "Revoked") == ("False", "UnknownKeyIDs")
    assert "0" * 12 in message(found, "Revoked")
    assert "revocation" not in found
    world.edit(revokedKeyIDs=["0" * 12, world.held()])
    world.settle(6)
    assert "ignored: 000000000000" in message(status(world), "Revoked")


def test_a_spec_that_cannot_be_used() -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(ApiKeySpec, {"holder": {"name": "x"}, "audience": []}, "spec")
    found = refused_status(caught.value, 3, {}, START)
    assert condition(found, "Ready") == ("False", "InvalidSpec")
    assert condition(found, "Stalled") == ("True", "InvalidSpec")
    assert "spec.audience" in message(found, "Ready")
