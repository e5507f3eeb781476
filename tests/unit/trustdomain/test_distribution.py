"""The trust bundle's ConfigMap in one namespace: made, repaired, removed, and left alone where it is somebody else's."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.support.builders import (
    NAMESPACE,
    NOW,
    SOMEBODY,
    Body,
    a_bundle_snapshot,
    a_config_map,
    a_record,
    a_trust_domain,
    an_authority,
    owner_of,
    the_config_map_that,
)
from tests.support.plans import manifest
from zerotrust.common import naming
from zerotrust.common.naming import Ref
from zerotrust.common.observed import ConfigMap
from zerotrust.common.plan import Delete, Plan
from zerotrust.engine.difference import difference, owned_fields
from zerotrust.trustdomain import distribution as module
from zerotrust.trustdomain.distribution import BundleSnapshot

PLACE = Ref("ConfigMap", NAMESPACE, "example.org.trust-bundle")
LABELS = {naming.MANAGED_BY: naming.OPERATOR, naming.COMPONENT: naming.COMPONENT_TRUST_BUNDLE}
OWNER = owner_of(a_trust_domain())


def decide(snapshot: BundleSnapshot | None = None, **parts: Any) -> Plan:
    return module.reconcile_bundle(snapshot or a_bundle_snapshot(**parts), NOW)


def changes(observed: ConfigMap, plan: Plan) -> Body:
    return difference(owned_fields(observed), manifest(plan))


GOOD = the_config_map_that(decide())


def test_a_selected_namespace_gets_the_bundle() -> None:
    plan = decide()
    bundle = a_record().bundle()
    made = the_config_map_that(plan)
    assert made.meta.ref == PLACE
    assert made.data == {"bundle.pem": bundle.pem, "bundle.spiffe.json": bundle.document}
    assert made.meta.labels == LABELS
    assert made.meta.annotations == {naming.TRUST_DOMAIN: "example.org", naming.BUNDLE_SEQUENCE: "1"}
    assert made.meta.owners == (OWNER,)


def test_a_bundle_that_is_there_is_not_written() -> None:
    plan = decide(observed=GOOD)
    assert changes(GOOD, plan) == {}
    assert (plan.deletes, plan.requeue_at, plan.refresh) == ((), None, ())


@pytest.mark.parametrize(
    "edit",
    [
        {"data": {**GOOD.data, "bundle.pem": "evil"}},
        {"data": {**GOOD.data, "more.pem": "evil"}},
        {"data": {"bundle.pem": GOOD.data["bundle.pem"]}},
        {"data": {}},
        {"owners": [], "labels": LABELS},
        {"labels": {}, "owners": [OWNER]},
        {"owners": [{**OWNER, "uid": "uid-of-its-predecessor"}]},
    ],
    ids=["changed", "added", "dropped", "emptied", "disowned", "unlabelled", "owned by a predecessor"],
)
def test_what_somebody_edited_is_put_right(edit: Mapping[str, Any]) -> None:
    right: dict[str, Any] = {
        "labels": GOOD.meta.labels,
        "annotations": GOOD.meta.annotations,
        "owners": GOOD.meta.owners,
        "data": GOOD.data,
    }
    edited = a_config_map(**{**right, **edit})
    plan = decide(observed=edited)
    (apply,) = plan.applies
    assert apply.repairs, "counted as a foreign edit"
    body = {
        "metadata": {
            "name": PLACE.name,
            "namespace": NAMESPACE,
            "labels": edited.meta.labels,
            "annotations": edited.meta.annotations,
            "ownerReferences": list(edited.meta.owners),
            "resourceVersion": "1",
        },
        "data": dict(edited.data),
    }
    mended = the_config_map_that(plan, before=body)
    assert (mended.data, mended.meta.labels, mended.meta.owners) == (GOOD.data, GOOD.meta.labels, GOOD.meta.owners)


def test_a_new_bundle_is_an_update_and_no_repair() -> None:
    plan = decide(record=a_record(an_authority(), an_authority(number=1)), observed=GOOD)
    patch = changes(GOOD, plan)
    assert set(patch["data"]) == {"bundle.pem", "bundle.spiffe.json"}
    assert patch["metadata"] == {"annotations": {naming.BUNDLE_SEQUENCE: "2"}}
    assert not plan.applies[0].repairs


def test_labels_that_others_added_are_left_alone() -> None:
    labelled = replace(GOOD, meta=replace(GOOD.meta, labels={**GOOD.meta.labels, "team": "a"}))
    assert changes(labelled, decide(observed=labelled)) == {}


def test_a_namespace_that_is_not_selected_any_more_loses_the_bundle() -> None:
    assert decide(observed=GOOD, selected=False) == Plan(deletes=(Delete(PLACE, GOOD.meta.uid),))


def test_a_namespace_that_never_was_selected_is_left_alone() -> None:
    assert decide(selected=False) == Plan()


FOREIGN = [
    a_config_map(),
    a_config_map(data=GOOD.data),
    a_config_map(labels={naming.MANAGED_BY: naming.OPERATOR}),
    a_config_map(labels={naming.COMPONENT: naming.COMPONENT_SVID}),
    a_config_map(labels=LABELS, owners=[{**SOMEBODY, "controller": True}]),
    a_config_map(owners=[SOMEBODY]),
]


@pytest.mark.parametrize("foreign", FOREIGN)
def test_a_config_map_of_somebody_else_is_not_touched_and_looked_at_again(foreign: ConfigMap) -> None:
    assert decide(observed=foreign) == Plan(refresh=(PLACE,), requeue_at=NOW + module.REFRESH)
    assert decide(observed=foreign, selected=False) == Plan()


def test_a_config_map_that_somebody_else_controls_is_theirs_whoever_else_owns_it() -> None:
    theirs = a_config_map(owners=[OWNER, {**SOMEBODY, "controller": True}])
    assert decide(observed=theirs).applies == ()


@pytest.mark.parametrize("observed", [None, GOOD, FOREIGN[0]])
def test_without_its_trust_domain_the_garbage_collector_does_the_work(observed: ConfigMap | None) -> None:
    gone = replace(a_bundle_snapshot(observed=observed), trust_domain=None)
    leaving = a_bundle_snapshot(a_trust_domain(deleting=True), observed=observed)
    assert decide(gone) == decide(leaving) == Plan()


def test_a_spec_that_cannot_be_used_takes_no_bundle_away() -> None:
    broken = a_trust_domain(bundle={"refreshHint": "never"})
    assert decide(domain=broken, observed=GOOD, selected=False) == Plan()
    assert decide(domain=broken, observed=GOOD) == Plan()


def test_without_an_authority_nothing_is_published_and_nothing_taken_away() -> None:
    for observed in (None, GOOD):
        assert decide(replace(a_bundle_snapshot(observed=observed), bundle=None)) == Plan()
