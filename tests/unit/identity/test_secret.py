"""The Secret around the certificate: whose it is, what it carries, and what happens when somebody edits it."""

from typing import Any

import pytest

from tests.support.builders import (
    MINE,
    NAMESPACE,
    NOW,
    SOMEBODY,
    a_record,
    a_secret,
    a_view_without_authority,
    an_authority,
    an_identity,
    an_issued_body,
    an_issued_secret,
    hours,
    owner_of,
    the_body_that,
)
from tests.support.decisions import changes, decide
from tests.support.plans import (
    has_issued,
    manifest,
)
from zerotrust.common import naming
from zerotrust.common.naming import Ref
from zerotrust.common.plan import Delete
from zerotrust.pki import secret
from zerotrust.pki.secret import observe

PAUSED = an_identity(issuance="Paused")


def test_the_secret_is_written_in_one_go() -> None:
    plan = decide()
    (apply,) = plan.applies
    assert apply.ref == Ref("Secret", NAMESPACE, "orders-svid")
    assert apply.manifest["type"] == "kubernetes.io/tls"
    assert set(apply.manifest["data"]) == {"tls.crt", "tls.key", "ca.crt", "bundle.spiffe.json"}
    assert plan.deletes == ()


def test_the_secret_says_whose_it_is() -> None:
    metadata = manifest(decide())["metadata"]
    assert metadata["labels"] == MINE
    assert metadata["annotations"] == {naming.REVISION: "1", naming.BUNDLE_SEQUENCE: "1"}
    assert metadata["ownerReferences"] == [owner_of(an_identity())]


def test_the_secret_carries_the_users_labels_and_annotations() -> None:
    identity = an_identity(secret={"name": "svid", "labels": {"team": "a"}, "annotations": {"example.org/on": "call"}})
    metadata = manifest(decide(identity=identity))["metadata"]
    assert metadata["name"] == "svid"
    assert metadata["labels"] == {**MINE, "team": "a"}
    assert metadata["annotations"]["example.org/on"] == "call"


def test_with_deletion_policy_delete_the_secret_goes_with_the_identity() -> None:
    assert manifest(decide())["metadata"]["ownerReferences"] == [owner_of(an_identity())]


def test_with_deletion_policy_retain_the_secret_has_no_owner() -> None:
    retained = an_identity(deletionPolicy="Retain")
    assert manifest(decide(identity=retained))["metadata"]["ownerReferences"] is None


def test_the_deletion_policy_may_change_at_any_time_without_a_new_certificate() -> None:
    body = an_issued_body()
    retain = decide(identity=an_identity(deletionPolicy="Retain"), secret=observe(body))
    assert changes(observe(body), retain) == {"metadata": {"ownerReferences": None}}
    retained = the_body_that(retain, before=body)
    delete = decide(secret=observe(retained))
    assert changes(observe(retained), delete) == {"metadata": {"ownerReferences": [owner_of(an_identity())]}}
    assert not has_issued(retain)
    assert not has_issued(delete)


def test_retaining_keeps_the_owners_that_others_have_added() -> None:
    body = an_issued_body()
    body["metadata"]["ownerReferences"].insert(0, SOMEBODY)
    plan = decide(identity=an_identity(deletionPolicy="Retain"), secret=observe(body))
    assert changes(observe(body), plan) == {"metadata": {"ownerReferences": [SOMEBODY]}}


RENAMED = an_identity(secret={"name": "new"})


def test_a_renamed_secret_is_issued_first_and_the_old_one_removed_after_it() -> None:
    old = an_issued_secret()
    plan = decide(identity=RENAMED, stale_secrets=(old,))
    assert has_issued(plan)
    assert manifest(plan)["metadata"]["name"] == "new"
    assert plan.deletes == (Delete(old.meta.ref, old.meta.uid),)


def test_the_old_secret_stays_while_the_new_one_cannot_be_made() -> None:
    old = an_issued_secret()
    for parts in (
        {"secret": a_secret("new")},
        {"view": a_view_without_authority()},
        {"identity": an_identity(secret={"name": "new"}, issuance="Paused")},
    ):
        assert decide(**{"identity": RENAMED, "stale_secrets": (old,), **parts}).deletes == ()


def test_the_old_secret_stays_while_the_new_one_is_no_good() -> None:
    body = an_issued_body(RENAMED)
    body["data"]["tls.crt"] = ""
    plan = decide(
        identity=an_identity(secret={"name": "new"}, issuance="Paused"),
        secret=observe(body),
        stale_secrets=(an_issued_secret(),),
    )
    assert plan.deletes == ()


def test_an_old_secret_left_behind_by_a_crash_is_removed_later() -> None:
    old = an_issued_secret()
    plan = decide(identity=RENAMED, secret=an_issued_secret(RENAMED), stale_secrets=(old,))
    assert not has_issued(plan)
    assert plan.deletes == (Delete(old.meta.ref, old.meta.uid),)


def test_with_deletion_policy_retain_the_old_secret_is_retained() -> None:
    retained = an_identity(secret={"name": "new"}, deletionPolicy="Retain")
    assert decide(identity=retained, stale_secrets=(an_issued_secret(),)).deletes == ()


def test_a_secret_with_which_all_is_well_is_not_written() -> None:
    issued = an_issued_secret()
    plan = decide(secret=issued, now=NOW + hours(1))
    assert changes(issued, plan) == {}
    assert "tls.crt" not in manifest(plan)["data"]
    assert "tls.key" not in manifest(plan)["data"]


@pytest.mark.parametrize(
    ("edit", "path"),
    [
        (lambda body: body["metadata"]["labels"].update({naming.MANAGED_BY: "me"}), ("metadata", "labels")),
        (lambda body: body["metadata"]["labels"].pop(naming.COMPONENT), ("metadata", "labels")),
        (lambda body: body["metadata"].pop("labels"), ("metadata", "labels")),
        (lambda body: body["metadata"].update(ownerReferences=None, labels=MINE), ("metadata", "ownerReferences")),
        (lambda body: body["data"].update({"ca.crt": secret.encode(b"evil")}), ("data", "ca.crt")),
        (lambda body: body["data"].pop("ca.crt"), ("data", "ca.crt")),
        (lambda body: body["data"].pop("bundle.spiffe.json"), ("data", "bundle.spiffe.json")),
        (
            lambda body: body["data"].update({"bundle.spiffe.json": "not base64!"}),
            ("data", "bundle.spiffe.json"),
        ),
    ],
)
def test_what_somebody_edited_is_put_right_without_touching_the_key(edit: Any, path: tuple[str, str]) -> None:
    good = an_issued_body()
    body = an_issued_body()
    body["data"] = dict(good["data"])
    edit(body)
    plan = decide(secret=observe(body))
    patch = changes(observe(body), plan)
    assert not has_issued(plan)
    assert set(patch) == {path[0]}
    assert set(patch[path[0]]) == {path[1]}
    (apply,) = plan.applies
    assert apply.repairs, "counted as a foreign edit"
    mended = the_body_that(plan, before=body)
    assert mended["data"] == good["data"]
    assert mended["metadata"]["labels"] == good["metadata"]["labels"]


def test_labels_and_data_that_others_added_are_left_alone() -> None:
    body = an_issued_body()
    body["metadata"]["labels"]["argocd.argoproj.io/instance"] = "shop"
    body["data"]["truststore.jks"] = secret.encode(b"theirs")
    assert changes(observe(body), decide(secret=observe(body))) == {}


def test_a_new_bundle_is_written_into_the_secret_without_a_new_certificate_and_is_no_repair() -> None:
    signing, later = an_authority(), an_authority(number=1)
    record = a_record(later, signing)
    issued = an_issued_secret(authority=signing)
    plan = decide(record=record, secret=issued)
    assert not has_issued(plan)
    patch = changes(issued, plan)
    assert set(patch["data"]) == {"ca.crt", "bundle.spiffe.json"}
    assert patch["metadata"]["annotations"] == {naming.BUNDLE_SEQUENCE: "2"}
    assert not plan.applies[0].repairs


def test_a_paused_identity_still_gets_the_bundle() -> None:
    record = a_record(an_authority(number=1), an_authority())
    patch = changes(an_issued_secret(), decide(identity=PAUSED, record=record, secret=an_issued_secret()))
    assert "ca.crt" in patch["data"]


def test_new_labels_of_the_template_are_written_without_a_new_certificate() -> None:
    issued = an_issued_secret()
    plan = decide(identity=an_identity(secret={"labels": {"team": "a"}}), secret=issued)
    assert changes(issued, plan) == {"metadata": {"labels": {"team": "a"}}}
