"""The order of a namespace's bundles: a serial for each new content, and never a smaller one."""

import json
from collections.abc import Mapping
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.builders import NOW, hours, seconds
from zerotrust.common import naming
from zerotrust.common.naming import Ref
from zerotrust.common.observed import ConfigMap, config_map
from zerotrust.common.plan import Delete, Plan
from zerotrust.opabundle.archive import Kind
from zerotrust.opabundle.record import Entry, RecordSnapshot, read, reconcile_record

REF = Ref("ConfigMap", "zerotrust-system", "shop.bundles")
SECOND = int(NOW.timestamp())
BOTH: dict[Kind, str] = {"policy": "a" * 64, "revocations": "b" * 64}


def observed(data: Mapping[str, str]) -> ConfigMap:
    metadata = {"name": REF.name, "namespace": REF.namespace, "uid": "uid-of-record", "resourceVersion": "1"}
    return config_map({"metadata": metadata, "data": dict(data)})


def plan(
    before: Mapping[str, str] | None = None,
    revisions: Mapping[Kind, str] | None = None,
    *,
    now: datetime = NOW,
    exists: bool = True,
) -> Plan:
    record = observed(before) if before is not None else None
    return reconcile_record(RecordSnapshot(REF, record, exists, BOTH if revisions is None else revisions), now)


def written(made: Plan) -> dict[str, str]:
    (apply,) = made.applies
    data: dict[str, str] = apply.manifest["data"]
    return data


def entries(made: Plan) -> dict[Kind, Entry]:
    return read(observed(written(made)))


def test_the_first_record_has_the_time_as_serial_and_our_labels() -> None:
    made = plan()
    assert entries(made) == {kind: Entry(SECOND, revision) for kind, revision in BOTH.items()}
    assert made.applies[0].ref == REF
    assert made.applies[0].manifest["metadata"]["labels"] == {
        naming.MANAGED_BY: naming.OPERATOR,
        naming.COMPONENT: naming.COMPONENT_BUNDLE_RECORD,
    }


def test_the_same_contents_are_recorded_byte_for_byte_the_same_at_any_time() -> None:
    first = written(plan())
    assert written(plan(first, now=NOW + hours(9))) == first
    assert written(plan(first, now=NOW - hours(9))) == first


def test_only_what_is_new_gets_a_new_serial() -> None:
    made = plan(written(plan()), {**BOTH, "policy": "c" * 64}, now=NOW + seconds(5))
    assert entries(made) == {"policy": Entry(SECOND + 5, "c" * 64), "revocations": Entry(SECOND, BOTH["revocations"])}


def test_a_content_that_comes_back_is_new_again() -> None:
    there = written(plan(written(plan()), {**BOTH, "policy": "c" * 64}, now=NOW + seconds(1)))
    assert entries(plan(there, now=NOW + seconds(2)))["policy"] == Entry(SECOND + 2, BOTH["policy"])


@given(st.lists(st.tuples(st.integers(-100_000, 100_000), st.sampled_from("abc")), min_size=1, max_size=12))
def test_serials_only_grow_whatever_the_clock_does(history: list[tuple[int, str]]) -> None:
    data: dict[str, str] | None = None
    last = Entry(0, "")
    for offset, content in history:
        made = plan(data, {"policy": content}, now=NOW + seconds(offset))
        data = written(made)
        entry = entries(made)["policy"]
        assert entry.serial > last.serial if content != last.revision else entry == last
        last = entry


def test_after_a_loss_of_the_record_serials_still_grow() -> None:
    before = written(plan())
    for number in range(3):
        before = written(plan(before, {"policy": str(number)}, now=NOW))
    lost = entries(plan(None, {"policy": "d"}, now=NOW + seconds(4)))
    assert lost["policy"].serial > read(observed(before))["policy"].serial


DAMAGES = [
    "",
    "x",
    "[]",
    "null",
    "{}",
    '{"serial": "7", "revision": "a"}',
    '{"serial": true, "revision": "a"}',
    '{"serial": 7.0, "revision": "a"}',
    '{"serial": 7}',
    '{"serial": 7, "revision": null}',
    '"serial"',
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_entry_that_cannot_be_read_is_none_and_is_written_anew(damage: str) -> None:
    data = {**written(plan()), "policy": damage}
    assert set(read(observed(data))) == {"revocations"}
    assert entries(plan(data, now=NOW + seconds(7)))["policy"] == Entry(SECOND + 7, BOTH["policy"])


def test_no_record_reads_as_nothing() -> None:
    assert read(None) == {}


def test_what_else_is_in_a_record_is_ignored() -> None:
    assert set(read(observed({**written(plan()), "discovery": json.dumps({"serial": 1, "revision": "x"})}))) == set(
        BOTH
    )


def test_a_namespace_that_needs_no_bundles_gets_no_record() -> None:
    assert plan(revisions={}) == Plan()
    assert plan(written(plan()), revisions={}) == Plan(), "and one that is there is left alone"


def test_the_record_goes_with_its_namespace() -> None:
    assert plan(written(plan()), {}, exists=False) == Plan(deletes=(Delete(REF, "uid-of-record"),))
    assert plan(exists=False) == Plan()
