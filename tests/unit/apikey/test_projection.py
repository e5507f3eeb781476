"""What decision points get: terms by key id, revoked ones apart, nothing that cannot be resolved."""

from dataclasses import replace
from typing import Any

import pytest

from tests.support.apikeys import START, a_spec
from tests.support.builders import days, hours
from zerotrust.apikey.key import Digest, KeyID
from zerotrust.apikey.memory import Key, Memory
from zerotrust.apikey.projection import key_records, revoked_keys
from zerotrust.common.selectors import WorkloadReference
from zerotrust.opabundle import canonical

KEY = Key(KeyID("a" * 12), Digest("sha256:" + "0" * 64), START, START + days(365))
OLD = replace(KEY, id=KeyID("b" * 12), delivered=START, retires=START + days(7))
REVOKED = replace(KEY, id=KeyID("c" * 12), revoked=START + days(1))
MEMORY = Memory("partner-x", (OLD, REVOKED, KEY))
SERVERS = {"orders": "spiffe://example.org/ns/shop/sa/orders", "stock": "spiffe://example.org/ns/shop/sa/stock"}
BOUND = {"holder": {"workload": {"name": "batch", "namespace": "web"}}}


def second(moment: Any) -> int:
    return int(moment.timestamp())


def projected(memory: Memory = MEMORY, **changes: Any) -> dict[str, dict[str, Any]]:
    def workload(reference: WorkloadReference) -> str | None:
        return (
            f"spiffe://example.org/ns/{reference.namespace}/sa/{reference.name}" if reference.name == "batch" else None
        )

    return key_records(memory, a_spec(**changes), SERVERS.get, workload)


def test_every_field() -> None:
    found = projected(audience=["stock", "orders", "gone"], scopes=["b", "a"])
    assert found == {
        "a" * 12: {
            "hash": "sha256:" + "0" * 64,
            "name": "partner-x",
            "scopes": ["a", "b"],
            "audience": [SERVERS["orders"], SERVERS["stock"]],
            "not_before": second(START - hours(24)),
            "not_after": second(START + days(365)),
        },
        "b" * 12: {**found["a" * 12], "not_after": second(START + days(7))},
        "c" * 12: {**found["a" * 12], "suspended": True},
    }
    assert list(found) == sorted(found)
    assert canonical.encode(found)


@pytest.mark.parametrize(
    ("changes", "end"),
    [
        ({}, days(365)),
        ({"maxKeyAge": "2400h"}, days(100)),
        ({"maxKeyAge": "20000h"}, days(365)),
        ({"notAfter": "2026-06-11T00:00:00Z"}, days(10)),
        ({"notAfter": "2036-06-11T00:00:00Z"}, days(365)),
    ],
    ids=["own", "shorter age", "longer age", "grant", "later grant"],
)
def test_the_earliest_end_counts(changes: dict[str, Any], end: Any) -> None:
    assert projected(Memory("x", (KEY,)), **changes)[KEY.id]["not_after"] == second(START + end)


def test_a_suspended_key_says_so_and_others_do_not() -> None:
    assert all(one["suspended"] is True for one in projected(state="Suspended").values())
    assert [key_id for key_id, one in projected().items() if "suspended" in one] == [REVOKED.id]


def test_a_bound_key_names_its_workload() -> None:
    assert {one["workload"] for one in projected(**BOUND).values()} == {"spiffe://example.org/ns/web/sa/batch"}
    assert not any("workload" in one for one in projected().values())


def test_a_key_bound_to_nobody_is_left_out() -> None:
    assert projected(holder={"workload": {"name": "gone", "namespace": "web"}}) == {}


def test_an_audience_of_nobody_accepts_nowhere() -> None:
    assert [one["audience"] for one in projected(audience=["gone"]).values()] == [[], [], []]


def test_the_same_for_any_order() -> None:
    assert projected(audience=["orders", "stock"]) == projected(audience=["stock", "orders"])


def test_revoked_keys_of_all_api_keys_deleted_ones_too() -> None:
    gone = Memory("y", (replace(REVOKED, id=KeyID("0" * 12)),), gone=START)
    assert revoked_keys([MEMORY, gone]) == {"0" * 12: second(START + days(1)), "c" * 12: second(START + days(1))}
    assert list(revoked_keys([MEMORY, gone])) == ["0" * 12, "c" * 12]
