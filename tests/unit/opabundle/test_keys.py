"""The keys that sign bundles in their one Secret: made once, rotated with an overlap, and only whole ones count."""

import base64
import json
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.support.builders import NOW, Body, days, hours, merged, minutes
from zerotrust.common import naming
from zerotrust.common.naming import Ref
from zerotrust.common.plan import Plan
from zerotrust.engine.difference import difference, owned_fields
from zerotrust.opabundle import signing
from zerotrust.opabundle.keys import KeysSnapshot, offered, reconcile_keys, stored
from zerotrust.opabundle.rotation import Schedule
from zerotrust.opabundle.signing import SigningKey
from zerotrust.pki import keys as private_keys
from zerotrust.pki import secret

REF = Ref("Secret", "zerotrust-system", naming.BUNDLE_KEYS)
FIRST, SECOND, THIRD = (signing.create() for _ in range(3))
UNCHANGED = Schedule()


def refuse() -> SigningKey:
    raise AssertionError("no key is to be made")


def plan(body: Body | None, now: datetime = NOW, *, named: set[str] | None = None, make: Any = refuse) -> Plan:
    observed = secret.observe(body) if body is not None else None
    return reconcile_keys(KeysSnapshot(REF, observed, named), now, make)


def applied(made: Plan, before: Body | None = None) -> Body:
    (apply,) = made.applies
    fresh = {"metadata": {"uid": "uid-of-keys", "resourceVersion": "1"}}
    return merged(before or fresh, apply.manifest)


def the_first(now: datetime = NOW) -> Body:
    return applied(plan(None, now, make=lambda: FIRST))


def rotated() -> Body:
    """The first key retiring, the second one active."""
    first = the_first()
    waiting = applied(plan(first, NOW + UNCHANGED.lifetime, make=lambda: SECOND), first)
    return applied(plan(waiting, NOW + UNCHANGED.lifetime + UNCHANGED.settle), waiting)


def record(body: Body) -> Any:
    return json.loads(base64.b64decode(body["data"]["record.json"]))


def damaged(body: Body, text: str) -> Body:
    return merged(body, {"data": {"record.json": base64.b64encode(text.encode()).decode()}})


def ids(body: Body) -> list[str]:
    return [one.record.id for one in stored(secret.observe(body))]


def test_the_first_key_is_active_at_once_and_whole() -> None:
    body = the_first()
    (known,) = stored(secret.observe(body))
    assert (known.record.id, known.record.created, known.record.activated) == (FIRST.id, NOW, NOW)
    assert offered(secret.observe(body)) == known
    assert known.public_pem == signing.public_pem(FIRST.public)
    pem = secret.value_of(body, f"{FIRST.id}.pem")
    assert private_keys.from_pem(pem).private_numbers() == FIRST.private.private_numbers()
    labels = body["metadata"]["labels"]
    assert labels[naming.COMPONENT] == naming.COMPONENT_BUNDLE_KEYS
    assert labels[naming.MANAGED_BY] == naming.OPERATOR


def test_a_second_look_makes_no_key_and_writes_nothing() -> None:
    body = the_first()
    again = plan(body, NOW + hours(1))
    assert difference(owned_fields(secret.observe(body)), again.applies[0].manifest) == {}
    assert again.requeue_at == NOW + UNCHANGED.lifetime


def test_no_private_key_is_in_what_is_observed_or_said() -> None:
    body = the_first()
    pem = secret.value_of(body, f"{FIRST.id}.pem")
    shown = repr(secret.observe(body)) + repr(stored(secret.observe(body))) + json.dumps(record(body))
    assert "PRIVATE" not in shown
    assert pem.decode().splitlines()[1] not in shown


def test_a_rotation_serves_both_keys_and_offers_the_new_one_only_once_it_is_settled() -> None:
    first = the_first()
    due = NOW + UNCHANGED.lifetime
    waiting = applied(plan(first, due, make=lambda: SECOND), first)
    assert set(ids(waiting)) == {FIRST.id, SECOND.id}
    for moment in (due, due + UNCHANGED.settle - timedelta(seconds=1)):
        held = applied(plan(waiting, moment), waiting)
        known = offered(secret.observe(held))
        assert known is not None
        assert known.record.id == FIRST.id
    settled = rotated()
    known = offered(secret.observe(settled))
    assert known is not None
    assert known.record.id == SECOND.id
    assert set(ids(settled)) == {FIRST.id, SECOND.id}, "the old one's path is still served"


@pytest.mark.parametrize(
    ("named", "after", "stays"),
    [
        (None, days(60), True),
        ({FIRST.id}, days(60), True),
        (set(), hours(47), True),
        (set(), hours(49), False),
        ({SECOND.id}, hours(49), False),
    ],
    ids=["reports unknown", "in use", "overlap", "unused", "only the new one in use"],
)
def test_an_old_key_goes_when_nobody_uses_it(named: set[str] | None, after: timedelta, stays: bool) -> None:
    body = rotated()
    later = applied(plan(body, NOW + UNCHANGED.lifetime + UNCHANGED.settle + after, named=named), body)
    assert (FIRST.id in ids(later)) is stays
    assert (f"{FIRST.id}.pem" in later["data"]) is stays, "the private half goes with it"
    assert SECOND.id in ids(later)


@pytest.mark.parametrize(
    "text",
    ["", "x", "[]", "{}", "7", '{"keys": 7}', '{"keys": [7]}', '{"keys": ["created"]}', '{"keys": [{}]}'],
)
def test_a_record_that_cannot_be_read_is_none_and_a_new_key_is_made(text: str) -> None:
    body = damaged(the_first(), text)
    assert stored(secret.observe(body)) == ()
    assert offered(secret.observe(body)) is None
    later = applied(plan(body, NOW + minutes(1), make=lambda: THIRD), body)
    assert ids(later) == [THIRD.id]
    assert set(later["data"]) == {"record.json", f"{THIRD.id}.pem"}, "nothing is left that no record names"


@pytest.mark.parametrize(
    "change",
    [{"id": "short"}, {"id": 7}, {"created": "soon"}, {"created": 7}, {"public": 7}, {"activated": ""}],
    ids=str,
)
def test_a_damaged_entry_is_no_key(change: dict[str, Any]) -> None:
    body = the_first()
    entries = record(body)
    entries["keys"][0] |= change
    assert stored(secret.observe(damaged(body, json.dumps(entries)))) == ()


def test_a_key_without_its_private_half_is_none() -> None:
    body = merged(rotated(), {"data": {f"{SECOND.id}.pem": None}})
    assert ids(body) == [FIRST.id]
    assert offered(secret.observe(body)) is None, "what is retiring is never offered"
    later = applied(plan(body, NOW + days(91), make=lambda: THIRD), body)
    known = offered(secret.observe(later))
    assert known is not None
    assert known.record.id == THIRD.id
    assert set(ids(later)) == {FIRST.id, THIRD.id}


def test_no_secret_has_no_keys() -> None:
    assert stored(None) == ()
    assert offered(None) is None
