"""From entries to Constraints: names, shards, and what is added, changed and taken away."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerotrust.gatekeeper import observed
from zerotrust.gatekeeper.constraints import MAX_BYTES, MAX_NAME, ConstraintsSnapshot, manifests, name_of, reconcile
from zerotrust.gatekeeper.observed import Constraint
from zerotrust.gatekeeper.projection import Action, Entries, Place
from zerotrust.gatekeeper.templates import BINDING, CREDENTIALS, SERVICES, TEMPLATES

SECRET = {"owner": "ServiceIdentity orders", "serviceAccounts": ["orders"]}
NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True)


def secrets(count: int, action: Action = "deny") -> Entries:
    return {Place(CREDENTIALS, action, f"workload-{number:05d}-svid"): SECRET for number in range(count)}


def there(manifest: dict[str, Any], number: int = 1, **changed: Any) -> Constraint:
    """A constraint as the API server has it, or with another spec."""
    metadata = {**manifest["metadata"], "uid": f"uid-{number}", "resourceVersion": str(number), "generation": 1}
    return observed.constraint({**manifest, "metadata": metadata, "spec": {**manifest["spec"], **changed}})


def snapshot(entries: Entries, *present: Constraint, **changed: Any) -> ConstraintsSnapshot:
    given = {"served": True, "ready": True, **changed}
    return ConstraintsSnapshot(CREDENTIALS, "shop", entries=entries, observed=present, **given)


def test_a_constraint_is_about_one_namespace_by_a_label_that_the_api_server_sees() -> None:
    (one,) = manifests(CREDENTIALS, "shop", secrets(1))
    assert one["metadata"]["name"] == "shop.enforce"
    assert one["spec"] == {
        "enforcementAction": "deny",
        "match": {
            "kinds": [{"apiGroups": [""], "kinds": ["Pod"]}],
            "scope": "Namespaced",
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}},
        },
        "parameters": {"secrets": {"workload-00000-svid": SECRET}},
    }


def test_each_action_has_a_constraint_and_other_kinds_have_theirs() -> None:
    entries: Entries = {**secrets(2), **secrets(1, "dryrun"), Place(BINDING, "deny", "orders"): {"derived": True}}
    assert [one["metadata"]["name"] for one in manifests(CREDENTIALS, "shop", entries)] == [
        "shop.enforce",
        "shop.observe",
    ]
    (binding,) = manifests(BINDING, "shop", entries)
    assert binding["spec"]["parameters"] == {"identities": {"orders": {"derived": True}}, "otherwise": []}


def test_selectors_of_their_own_are_listed_and_the_warning_is_strict() -> None:
    entries: Entries = {
        Place(BINDING, "deny", "orders"): {"identity": "orders", "derived": False, "selector": []},
        Place(SERVICES, "deny", "orders"): {"identity": "orders"},
        Place(SERVICES, "warn", "orders"): {"identity": "orders"},
    }
    assert manifests(BINDING, "shop", entries)[0]["spec"]["parameters"]["otherwise"] == ["orders"]
    found = {
        one["spec"]["enforcementAction"]: one["spec"]["parameters"] for one in manifests(SERVICES, "shop", entries)
    }
    assert (found["deny"]["strict"], found["warn"]["strict"]) == (False, True)


@given(NAMES, NAMES)
def test_names_fit_into_a_label_and_tell_namespaces_apart(one: str, other: str) -> None:
    names = {
        (place, action, shard): name_of(place, action, shard)
        for place in {one, other}
        for action in ("deny", "warn")
        for shard in (0, 1, 1023)
    }  # type: ignore[arg-type]
    assert all(len(name) <= MAX_NAME for name in names.values())
    assert len(set(names.values())) == len(names)


def test_many_entries_are_spread_below_the_limit_of_an_object_and_none_is_lost() -> None:
    entries = secrets(20_000)
    found = manifests(CREDENTIALS, "shop", entries)
    assert len(found) > 4
    assert max(len(json.dumps(one)) for one in found) < MAX_BYTES
    keys = [key for one in found for key in one["spec"]["parameters"]["secrets"]]
    assert sorted(keys) == sorted(place.key for place in entries)


def test_one_more_entry_changes_one_constraint() -> None:
    before = {one["metadata"]["name"]: one for one in manifests(CREDENTIALS, "shop", secrets(20_000))}
    after = {one["metadata"]["name"]: one for one in manifests(CREDENTIALS, "shop", secrets(20_001))}
    assert sum(before[name] != after[name] for name in after) == 1


def test_what_nobody_asks_for_any_more_goes() -> None:
    left = there(manifests(CREDENTIALS, "shop", secrets(1))[0])
    plan = reconcile(snapshot({}, left))
    assert [one.ref for one in plan.deletes] == [left.meta.ref]
    assert not plan.applies


def test_nothing_is_added_while_a_pod_does_not_know_the_template_and_nothing_done_without_the_kind() -> None:
    left = there(manifests(CREDENTIALS, "shop", secrets(1, "dryrun"))[0])
    plan = reconcile(snapshot(secrets(1), left, ready=False))
    assert not plan.applies
    assert [one.ref for one in plan.deletes] == [left.meta.ref]
    assert not reconcile(snapshot(secrets(1), left, served=False)).deletes


def test_only_a_foreign_edit_is_a_repair() -> None:
    (wanted,) = manifests(CREDENTIALS, "shop", secrets(1))
    edited = there(wanted, enforcementAction="dryrun")
    assert reconcile(snapshot(secrets(1), edited)).applies[0].repairs
    assert not reconcile(snapshot(secrets(2), there(wanted))).applies[0].repairs
    assert not edited.as_written
    assert there(wanted).as_written


def test_templates_are_named_by_their_kind() -> None:
    assert all(one.name == kind.lower() == one.kind.lower() for kind, one in TEMPLATES.items())


@pytest.mark.parametrize("kind", sorted(TEMPLATES))
def test_the_parameter_is_in_the_templates_schema(kind: str) -> None:
    from zerotrust.gatekeeper.templates import manifests as templates

    schema = templates()[kind.lower()]["spec"]["crd"]["spec"]["validation"]["openAPIV3Schema"]
    assert TEMPLATES[kind].parameter in schema["properties"]
