"""The memory of cut-offs: never lowered, kept as long as anything from before could be valid, and then forgotten."""

import json
from collections.abc import Mapping
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.builders import NOW, days, hours, seconds
from zerotrust.common import naming
from zerotrust.common.naming import Ref
from zerotrust.common.observed import ConfigMap, config_map
from zerotrust.common.plan import Plan
from zerotrust.identity.renewal import BACKDATE
from zerotrust.opabundle.document import revocations_document
from zerotrust.opabundle.revocations import (
    LONGEST_LEAF,
    Cutoff,
    RevocationsSnapshot,
    in_force,
    read,
    reconcile_revocations,
)
from zerotrust.pki.spiffe import SpiffeID
from zerotrust.trustdomain.resource import IdentityDefaults

REF = Ref("ConfigMap", "zerotrust-system", naming.REVOCATIONS)
ORDERS = SpiffeID.of_service_account("example.org", "shop", "orders")
FRONT = SpiffeID.of_service_account("example.org", "web", "front")


def plan(asked: Mapping[SpiffeID, datetime], memory: ConfigMap | None = None, now: datetime = NOW) -> Plan:
    return reconcile_revocations(RevocationsSnapshot(REF, memory, asked), now)


def memory_of(made: Plan, before: ConfigMap | None = None) -> ConfigMap:
    (apply,) = made.applies
    data = {**(before.data if before else {}), **apply.manifest["data"]}
    return observed({key: value for key, value in data.items() if value is not None})


def observed(data: Mapping[str, str]) -> ConfigMap:
    metadata = {"name": REF.name, "namespace": REF.namespace, "uid": "uid", "resourceVersion": "1"}
    return config_map({"metadata": metadata, "data": dict(data)})


def test_what_is_asked_is_remembered_with_the_time_when_it_may_be_forgotten() -> None:
    made = plan({ORDERS: NOW - hours(1)})
    assert read(memory_of(made)) == {ORDERS: Cutoff(NOW - hours(1), NOW - hours(1) + LONGEST_LEAF)}
    assert made.applies[0].ref == REF
    assert made.applies[0].manifest["metadata"]["labels"][naming.COMPONENT] == naming.COMPONENT_REVOCATIONS


def test_nothing_asked_and_nothing_remembered_writes_nothing() -> None:
    assert plan({}) == Plan()


def test_no_leaf_is_valid_longer_than_its_cutoff_is_remembered() -> None:
    """A leaf that begins a second before the cut-off, with the longest lifetime that a TrustDomain may ask for."""
    schema = IdentityDefaults(max_duration=timedelta(hours=8760))
    assert schema.max_duration + BACKDATE <= LONGEST_LEAF
    with pytest.raises(ValueError, match="8760h"):
        IdentityDefaults(max_duration=timedelta(hours=8761))


@pytest.mark.parametrize("later", [None, NOW - hours(2)], ids=["removed", "lowered"])
def test_what_is_remembered_is_not_lowered(later: datetime | None) -> None:
    memory = memory_of(plan({ORDERS: NOW - hours(1)}))
    again = plan({} if later is None else {ORDERS: later}, memory)
    assert read(memory_of(again, memory)) == read(memory)


def test_a_later_cutoff_replaces_an_earlier_one() -> None:
    memory = memory_of(plan({ORDERS: NOW - hours(1)}))
    again = memory_of(plan({ORDERS: NOW}, memory), memory)
    assert read(again)[ORDERS].before == NOW
    assert len(again.data) == 1


def test_a_fraction_is_rounded_up_and_stays_when_the_identity_is_gone() -> None:
    asked = {ORDERS: NOW - seconds(9.5)}
    memory = memory_of(plan(asked))
    told = revocations_document({name: one.before for name, one in in_force({}, asked, NOW).items()})
    kept = revocations_document({name: one.before for name, one in in_force(read(memory), {}, NOW).items()})
    assert told == kept
    assert told["identities"] == {str(ORDERS): int(NOW.timestamp()) - 9}


def test_a_fraction_counts_only_when_its_second_is_over() -> None:
    at = NOW + timedelta(microseconds=1)
    assert in_force({}, {ORDERS: at}, NOW + seconds(0.9)) == {}
    assert in_force({}, {ORDERS: at}, NOW + seconds(1))[ORDERS].before == NOW + seconds(1)
    assert plan({ORDERS: at}, now=NOW + seconds(0.9)) == Plan(requeue_at=NOW + seconds(1))


def test_a_cutoff_in_the_future_waits_and_hides_none_that_is_in_force() -> None:
    assert plan({ORDERS: NOW + hours(1)}) == Plan(requeue_at=NOW + hours(1))
    memory = memory_of(plan({ORDERS: NOW - hours(1)}))
    waiting = plan({ORDERS: NOW + hours(1), FRONT: NOW + hours(2)}, memory)
    assert read(memory_of(waiting, memory)) == read(memory)
    assert waiting.requeue_at == NOW + hours(1)


def test_a_cutoff_is_forgotten_when_nothing_from_before_can_be_valid() -> None:
    memory = memory_of(plan({ORDERS: NOW, FRONT: NOW + seconds(1)}, now=NOW + seconds(1)))
    end = NOW + LONGEST_LEAF
    made = plan({ORDERS: NOW}, memory, now=end)
    assert set(read(memory_of(made, memory))) == {FRONT}
    assert made.requeue_at == end + seconds(1)
    assert plan({}, memory, now=end - seconds(1)).requeue_at == end
    assert plan({ORDERS: NOW}, now=end) == Plan()


def test_the_last_one_that_is_forgotten_leaves_an_empty_memory() -> None:
    memory = memory_of(plan({ORDERS: NOW}))
    assert memory_of(plan({}, memory, now=NOW + days(400)), memory).data == {}


GOOD = {"id": str(ORDERS), "before": "2026-11-22T10:00:00Z", "until": "2027-11-22T11:00:00Z"}


@pytest.mark.parametrize(
    "text",
    ["", "x", "[]", "null", "7", json.dumps({**GOOD, "id": "orders"}), json.dumps({**GOOD, "before": "soon"}),
     json.dumps({**GOOD, "until": None}), json.dumps({"id": str(ORDERS)}), json.dumps({**GOOD, "id": 7})],
)  # fmt: skip
def test_an_entry_that_cannot_be_read_is_left_out_and_the_others_count(text: str) -> None:
    memory = observed({"a": text, "b": json.dumps({**GOOD, "id": str(FRONT)})})
    assert set(read(memory)) == {FRONT}
    made = plan({}, memory)
    assert made.applies[0].manifest["data"]["a"] is None, "what is unreadable is removed"


def test_nothing_remembered_reads_as_nothing() -> None:
    assert read(None) == {}


MOMENTS = st.integers(-40_000_000, 1_000_000).map(lambda milliseconds: NOW + timedelta(milliseconds=milliseconds))


@given(st.lists(st.dictionaries(st.sampled_from([ORDERS, FRONT]), MOMENTS), min_size=1, max_size=8))
def test_whatever_is_asked_in_whatever_order_no_cutoff_is_ever_lowered(history: list[dict[SpiffeID, datetime]]) -> None:
    memory: ConfigMap | None = None
    last: dict[SpiffeID, Cutoff] = {}
    for number, asked in enumerate(history):
        now = NOW + seconds(number)
        made = plan(asked, memory, now)
        memory = memory_of(made, memory) if made.applies else memory
        found = read(memory)
        assert found == in_force(found, asked, now), "what is remembered is what is in force"
        assert all(found[name].before >= one.before for name, one in last.items())
        assert all(one.before <= now and not one.before.microsecond for one in found.values())
        last = found
