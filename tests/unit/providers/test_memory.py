"""What is remembered of a provider's keys: exactly what was known, for its own source only, and written only for news."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.tokens import ISSUER, jwk
from zerotrust.common import naming
from zerotrust.common.merge import without_nulls
from zerotrust.common.observed import ConfigMap, config_map
from zerotrust.common.plan import Plan
from zerotrust.providers import memory
from zerotrust.providers.jwks import KeySet
from zerotrust.providers.lifecycle import Failed, Fetched, State, Unchanged, Validators, accepted, after
from zerotrust.trustdomain.resource import IdentityProvider

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
PLACE = memory.place("zerotrust-system", "example.org", "corp")


def a_provider(**changes: Any) -> IdentityProvider:
    spec = {"name": "corp", "issuer": ISSUER, "algorithms": ["ES256"], "jwksURI": f"{ISSUER}/keys", **changes}
    return IdentityProvider.model_validate({name: value for name, value in spec.items() if value is not None})


CORP = a_provider()


def fetched(*kids: str) -> Fetched:
    usable = {kid: {**jwk(f"ES256 {kid}", kid), "use": "sig"} for kid in kids}
    return Fetched(KeySet(usable), HOUR, Validators('"e"', "", f"{ISSUER}/keys"))


KNOWN = after(after(State(), NOW, fetched("one", "two")), NOW + MINUTE, fetched("two"))
DOWN = State(failures=1, message="login.example.org cannot be reached", next_fetch=NOW)


def planned(state: State, observed: ConfigMap | None = None, now: datetime = NOW + MINUTE) -> Plan:
    return memory.reconcile_memory(PLACE, "example.org", CORP, state, observed, now)


def remembered(state: State, now: datetime = NOW + MINUTE) -> ConfigMap:
    (apply,) = planned(state, None, now).applies
    return config_map(without_nulls(apply.manifest))


def test_a_restart_knows_what_was_known() -> None:
    assert memory.restored(remembered(KNOWN), memory.source_of(CORP)) == KNOWN
    assert planned(KNOWN).requeue_at == NOW + MINUTE + HOUR, "the retired key's last moment"


def test_a_restart_goes_on_with_failures_that_were_told_and_fetches_at_once() -> None:
    failing = KNOWN
    for _ in range(memory.TOLD_AFTER):
        failing = after(failing, NOW + 2 * MINUTE, Failed("down"))
    assert memory.restored(remembered(failing), memory.source_of(CORP)) == replace(failing, next_fetch=None)
    assert memory.restored(remembered(DOWN), memory.source_of(CORP)) == replace(DOWN, next_fetch=None)


@pytest.mark.parametrize(
    "changes",
    [{"issuer": "https://other.example.org"}, {"jwksURI": None}, {"jwksURI": f"{ISSUER}/new"}, {"caBundle": "PEM"}],
    ids=str,
)
def test_keys_of_another_source_count_for_nothing(changes: dict[str, Any]) -> None:
    moved = a_provider(**changes)
    assert memory.restored(remembered(KNOWN), memory.source_of(moved)) == State()
    assert memory.published(remembered(KNOWN), moved) is None
    (apply,) = memory.reconcile_memory(PLACE, "example.org", moved, DOWN, remembered(KNOWN), NOW).applies
    assert json.loads(apply.manifest["data"][memory.JWKS]) == {"keys": []}


def test_decision_points_get_what_is_remembered() -> None:
    entry = memory.published(remembered(KNOWN), CORP)
    assert entry is not None
    assert entry.jwks == accepted(KNOWN, NOW + MINUTE).text()
    assert [key["kid"] for key in json.loads(entry.jwks)["keys"]] == ["one", "two"]
    assert NOW + 18 * HOUR < datetime.fromtimestamp(entry.not_after, UTC) <= NOW + MINUTE + HOUR + 24 * HOUR
    assert memory.published(remembered(DOWN), CORP) is None
    assert memory.published(None, CORP) is None


@pytest.mark.parametrize(
    ("state", "writes"),
    [
        (after(KNOWN, NOW + 10 * MINUTE, Unchanged(HOUR)), False),
        (after(KNOWN, NOW + 10 * MINUTE, replace(fetched("two"), validators=Validators('"new"'))), False),
        (after(KNOWN, NOW + 10 * MINUTE, Failed("down")), False),
        (after(KNOWN, NOW + 10 * MINUTE, fetched("three")), True),
        (after(KNOWN, NOW + 10 * MINUTE, fetched("one", "two")), True),
        (replace(KNOWN, failures=memory.TOLD_AFTER - 1, message="down"), False),
        (replace(KNOWN, failures=memory.TOLD_AFTER, message="down"), True),
        (replace(KNOWN, confirmed=NOW + 7 * HOUR), True),
    ],
    ids=[
        "unchanged",
        "new ETag",
        "failed once",
        "new key",
        "retired key is back",
        "failed twice",
        "failed three times",
        "the end has moved",
    ],
)
def test_only_news_is_written(state: State, writes: bool) -> None:
    assert bool(planned(state, remembered(KNOWN), NOW + 10 * MINUTE).applies) is writes


def test_a_key_whose_time_is_over_is_taken_away() -> None:
    observed = remembered(KNOWN)
    assert planned(KNOWN, observed, NOW + HOUR).applies == ()
    (apply,) = planned(KNOWN, observed, NOW + MINUTE + HOUR).applies
    assert [key["kid"] for key in json.loads(apply.manifest["data"][memory.JWKS])["keys"]] == ["two"]


def test_nothing_is_written_before_anything_is_known() -> None:
    assert planned(State()) == Plan()


def test_somebody_elses_object_is_made_ours() -> None:
    observed = remembered(KNOWN)
    unlabelled = replace(observed, meta=replace(observed.meta, labels={}))
    assert planned(KNOWN, unlabelled).applies
    assert memory.is_memory(observed, "zerotrust-system")
    assert not memory.is_memory(observed, "elsewhere")
    assert not memory.is_memory(unlabelled, "zerotrust-system")


@pytest.mark.parametrize(
    "data",
    [
        {},
        {memory.STATE: "{"},
        {memory.STATE: "[]"},
        {memory.JWKS: "{}"},
        {memory.JWKS: '{"keys":[]}'},
        {memory.STATE: {"retired": []}},
        {memory.STATE: {"confirmed": "x"}},
        {memory.STATE: {"confirmed": 1e30}},
        {memory.STATE: {"version": 2}},
    ],
    ids=str,
)
def test_what_cannot_be_read_counts_for_nothing_and_is_written_anew(data: dict[str, Any]) -> None:
    good = remembered(KNOWN)
    state = (
        {**json.loads(good.data[memory.STATE]), **data.get(memory.STATE, {})}
        if isinstance(data.get(memory.STATE), dict)
        else None
    )
    spoiled = {**good.data, **data, **({memory.STATE: json.dumps(state)} if state else {})} if data else {}
    assert memory.restored(replace(good, data=spoiled), memory.source_of(CORP)) == State()


def test_names_fit_and_tell_trust_domains_apart() -> None:
    longest = memory.place("zerotrust-system", "a" * 200, "b" * 63)
    assert len(longest.name) <= naming.MAX_NAME
    assert memory.place("n", "a.b", "c") != memory.place("n", "b", "c.a")
    assert memory.place("n", "a", "c") != memory.place("n", "b", "c")
