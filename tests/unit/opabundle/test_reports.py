"""What a replica reports: read back as it was written, junk counts as silence, and of one decision point the newest counts."""

import json
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.builders import NOW, hours, minutes, seconds
from zerotrust.common import naming
from zerotrust.common.observed import ConfigMap, config_map
from zerotrust.opabundle.record import KINDS
from zerotrust.opabundle.reports import (
    MAX_POINTS,
    NamespaceReport,
    Point,
    is_report,
    manifest,
    merged,
    read,
)

SYSTEM = "zerotrust-system"
REVISION = "a" * 64


def a_point(uid: str = "uid-0", *, at: datetime = NOW, until: datetime | None = None, **more: Any) -> Point:
    end = until or at + hours(24)
    usual = Point(uid, f"orders-{uid}", "orders", {"policy": REVISION}, {"policy": 7}, ("0123456789abcdef",), end, at)
    return usual._replace(**more)


def observed(body: dict[str, Any], namespace: str = SYSTEM) -> ConfigMap:
    metadata = {**body["metadata"], "namespace": namespace, "uid": "uid", "resourceVersion": "1"}
    return config_map({**body, "metadata": metadata})


def written(**reports: NamespaceReport) -> ConfigMap:
    return observed(manifest("zt-reports-pod", SYSTEM, reports))


def test_what_is_written_is_read() -> None:
    report = NamespaceReport({"policy": 7, "revocations": 9}, (a_point("a"), a_point("b", at=NOW + seconds(1))))
    assert read(written(shop=report), "shop") == report


def test_of_a_namespace_that_is_not_named_nothing_is_said() -> None:
    assert read(written(shop=NamespaceReport({"policy": 7})), "web") == NamespaceReport()


def test_the_same_report_is_written_byte_for_byte_the_same() -> None:
    one, two = NamespaceReport({"policy": 7, "revocations": 8}), NamespaceReport({"revocations": 8, "policy": 7})
    first = manifest("zt-reports-pod", SYSTEM, {"shop": one, "web": one})
    assert json.dumps(first) == json.dumps(manifest("zt-reports-pod", SYSTEM, {"web": two, "shop": two}))


def test_a_report_is_ours_by_its_label_and_its_place() -> None:
    body = manifest("zt-reports-pod", SYSTEM, {})
    assert is_report(observed(body), SYSTEM)
    assert not is_report(observed(body, "shop"), SYSTEM), "a tenant's object counts for nothing"
    other = {**body, "metadata": {**body["metadata"], "labels": {naming.COMPONENT: naming.COMPONENT_BUNDLE_RECORD}}}
    assert not is_report(observed(other), SYSTEM)


POINT = {
    "uid": "a", "pod": "p", "account": "o", "revisions": {}, "serials": {}, "keys": [], "until": 1, "at": 1,
}  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "7", "[]", "null", '"text"', '{"points": 7}', '{"points": [7]}', '{"points": [{}]}', '{"served": 7}',
        '{"served": {"policy": "soon"}}', '{"served": {"policy": null}}',
        *(json.dumps({"points": [{**POINT, **change}]}) for change in (
            {"until": 10**20}, {"at": "now"}, {"at": None}, {"revisions": 7}, {"serials": {"policy": "x"}}, {"keys": 7},
        )),
    ],
)  # fmt: skip
def test_what_cannot_be_read_counts_as_nothing_said(text: str) -> None:
    report = observed({"metadata": {"name": "zt-reports-pod"}, "data": {"shop": text}})
    assert read(report, "shop") == NamespaceReport()


@given(st.text(max_size=30) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["points", "served", *POINT]), inner),
    max_leaves=12,
).map(json.dumps))  # fmt: skip
def test_no_report_stops_the_reader(text: str) -> None:
    assert isinstance(read(observed({"metadata": {"name": "x"}, "data": {"shop": text}}), "shop"), NamespaceReport)


def test_of_one_decision_point_what_was_heard_last_counts_and_whatever_was_sent_to_it() -> None:
    old = a_point(at=NOW, until=NOW + hours(48), revisions={"policy": "old"})
    new = a_point(at=NOW + minutes(1), until=NOW + hours(24))
    for order in ((old, new), (new, old)):
        (point,) = merged(NamespaceReport({}, (one,)) for one in order)
        assert point == new._replace(until=NOW + hours(48)), "older content may still be believed until then"


def test_decision_points_of_all_replicas_count_in_one_order() -> None:
    points = merged([NamespaceReport({}, (a_point("b"), a_point("c"))), NamespaceReport({}, (a_point("a"),))])
    assert [one.uid for one in points] == ["a", "b", "c"]
    assert merged([]) == ()


def test_the_largest_report_fits_into_an_object() -> None:
    """The API server takes a mebibyte of data in a ConfigMap; a fifth of it is left for whatever else is reported."""
    names = [f"{number:08d}-0000-4000-8000-000000000000" for number in range(MAX_POINTS)]
    usual = {"pod": "orders-7d9f8b6c5d-abcde", "account": "orders", "revisions": dict.fromkeys(KINDS, REVISION)}
    points = tuple(a_point(one, **usual, serials=dict.fromkeys(KINDS, 2**31)) for one in names)
    report = manifest("zt-reports-pod", SYSTEM, {"shop": NamespaceReport({"policy": 2**31}, points)})
    assert len(report["data"]["shop"]) < 2**20 * 4 / 5
