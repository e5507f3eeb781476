"""When constraints count as enforced: every step and every pod, and nothing that an earlier object had reported."""

from dataclasses import replace
from typing import Any

import pytest

from tests.support.certificates import NOW
from zerotrust.common.conditions import Condition
from zerotrust.common.status import Finding
from zerotrust.gatekeeper import observed
from zerotrust.gatekeeper.constraints import manifests
from zerotrust.gatekeeper.observed import Constraint
from zerotrust.gatekeeper.projection import Entries, Entry, Place
from zerotrust.gatekeeper.standing import awaited_of_template, state, violations
from zerotrust.gatekeeper.templates import BINDING, CREDENTIALS, HOST_ACCESS, IMAGES, SERVICES, TEMPLATES
from zerotrust.policy.admission import AdmissionState, constraints_enforced
from zerotrust.policy.resource import TrustPolicySpec

SECRET: Entry = {"owner": "ServiceIdentity orders", "serviceAccounts": ["orders"]}
ASKED: Entries = {Place(CREDENTIALS, "deny", "orders-svid"): SECRET}
WHOSE = frozenset({"ServiceIdentity orders", "TrustPolicy orders"})
TEMPLATE = TEMPLATES[CREDENTIALS]


def report(pod: str, generation: int = 1, *operations: str, **more: Any) -> dict[str, Any]:
    return {"id": pod, "observedGeneration": generation, "operations": list(operations or ["webhook"]), **more}


NATIVE = {
    "enforcementPointsStatus": [{"enforcementPoint": "vap.k8s.io", "state": "generated", "observedGeneration": 1}]
}
WEBHOOK, AUDIT = report("webhook-0"), report("audit-0", 1, "audit", "generate", **NATIVE)


def template(*pods: dict[str, Any], created: bool = True, uid: str = "new") -> observed.ConstraintTemplate:
    metadata = {"name": TEMPLATE.name, "uid": "new", "generation": 1}
    reports = [{**one, "templateUID": uid} for one in pods]
    return observed.template({"metadata": metadata, "status": {"created": created, "byPod": reports}})


def constraint(
    *pods: dict[str, Any],
    entries: Entries = ASKED,
    uid: str = "new",
    violations: list[dict[str, str]] | None = None,
    edited: bool = False,
) -> Constraint:
    (manifest,) = manifests(next(iter(entries)).kind, "shop", entries)
    spec = {**manifest["spec"], "match": {}} if edited else manifest["spec"]
    metadata = {**manifest["metadata"], "uid": "new", "generation": 1}
    status = {"byPod": [{**one, "constraintUID": uid} for one in pods], "violations": violations or []}
    return observed.constraint({**manifest, "metadata": metadata, "spec": spec, "status": status})


def judge(*present: Constraint, waits: tuple[str, ...] = (), since: int = 1) -> AdmissionState:
    return state(ASKED, present, lambda _: list(waits), lambda *_: since)


def told(found: AdmissionState) -> Condition:
    spec = TrustPolicySpec.model_validate({"target": {"all": True}})
    return constraints_enforced(spec, found)


@pytest.mark.parametrize(
    ("present", "current", "words"),
    [
        (None, False, "is not installed yet"),
        (template(WEBHOOK), False, "is not updated yet"),
        (template(WEBHOOK, created=False), True, "has not made the kind"),
        (template(report("webhook-0", errors=[{"message": "bad CEL"}]), created=False), True, "webhook-0 says bad CEL"),
        (template(AUDIT), True, "no Gatekeeper webhook reports it"),
        (template(WEBHOOK, report("audit-0", 0)), True, "audit-0 has generation 0 of 1"),
        (template(WEBHOOK, AUDIT, uid="old"), True, "no Gatekeeper webhook reports it"),
    ],
    ids=["absent", "outdated", "not-created", "refused", "no-webhook", "behind", "another-object"],
)
def test_a_template_is_waited_for(present: observed.ConstraintTemplate | None, current: bool, words: str) -> None:
    assert words in " ".join(awaited_of_template(TEMPLATE, present, current))


def test_a_template_that_every_pod_knows_is_ready() -> None:
    assert awaited_of_template(TEMPLATE, template(WEBHOOK, AUDIT), is_current=True) == []


def test_everything_in_place_is_enforced_also_by_the_api_server() -> None:
    found = judge(constraint(WEBHOOK, AUDIT))
    assert found.enforced
    assert (told(found).status, told(found).reason) == ("True", "Enforced")
    assert (found.wanted, found.pods) == (1, 2)


@pytest.mark.parametrize(
    ("present", "waits", "words"),
    [
        ([], (), "has nothing about orders-svid yet"),
        ([constraint(WEBHOOK, AUDIT)], ("ConstraintTemplate x: wait",), "ConstraintTemplate x: wait"),
        ([constraint(AUDIT)], (), "no Gatekeeper webhook reports it yet"),
        ([constraint(WEBHOOK, report("webhook-1", 0))], (), "webhook-1 has generation 0 of 1"),
        ([constraint(report("webhook-0", errors=[{"message": "no such kind"}]))], (), "webhook-0 says no such kind"),
        ([constraint(report("webhook-0", enforced=False))], (), "webhook-0 does not enforce it yet"),
        ([constraint(WEBHOOK, AUDIT, uid="old")], (), "no Gatekeeper webhook reports it yet"),
        (
            [constraint(WEBHOOK, AUDIT, entries={Place(CREDENTIALS, "deny", "orders-svid"): {**SECRET, "owner": "x"}})],
            (),
            "is not updated about orders-svid yet",
        ),
    ],
    ids=["none", "template", "audit-only", "behind", "error", "not-enforced", "another-object", "outdated"],
)
def test_what_is_missing_is_named(present: list[Constraint], waits: tuple[str, ...], words: str) -> None:
    found = judge(*present, waits=waits)
    assert not found.enforced
    assert (told(found).status, told(found).reason) == ("False", "Awaited")
    assert words in told(found).message


@pytest.mark.parametrize(
    ("place", "asked", "present", "words"),
    [
        (
            Place(CREDENTIALS, "deny", "orders-svid"),
            SECRET,
            {**SECRET, "serviceAccounts": ["batch", "orders"]},
            "batch use Secret orders-svid: secrets.orders-svid.serviceAccounts is ['batch', 'orders'] instead of ['orders']",
        ),
        (
            Place(CREDENTIALS, "deny", "orders-svid"),
            SECRET,
            {**SECRET, "serviceAccounts": []},
            "keeps pods of ServiceAccount orders from Secret orders-svid",
        ),
        (
            Place(CREDENTIALS, "deny", "orders-svid"),
            SECRET,
            {**SECRET, "owner": "ApiKey x"},
            "says another owner for Secret orders-svid",
        ),
        (
            Place(HOST_ACCESS, "deny", "orders"),
            {"policies": "a, b"},
            {"policies": "b"},
            "does not say a, b about host access of pods of ServiceAccount orders",
        ),
        (
            Place(IMAGES, "deny", "orders"),
            {"rules": [{"policy": "a", "digest": True}, {"policy": "b", "digest": True}]},
            {"rules": [{"policy": "b", "digest": True}]},
            "lets pods of ServiceAccount orders run images that a refuses",
        ),
        (
            Place(SERVICES, "deny", "orders"),
            {"identity": "orders", "selector": [{"key": "app", "operator": "In", "values": ["a"]}]},
            {"identity": "orders", "selector": []},
            "lets Service orders select pods of others",
        ),
        (
            Place(BINDING, "deny", "orders"),
            {"identity": "orders", "derived": True},
            {"identity": "orders", "derived": False, "selector": []},
            "takes other pods for those of ServiceAccount orders",
        ),
    ],
    ids=["secret-opened", "secret-closed", "owner", "host", "images", "service", "binding"],
)
def test_somebody_elses_edit_is_a_difference_and_named_by_its_edge(
    place: Place, asked: Entry, present: Entry, words: str
) -> None:
    edited = constraint(WEBHOOK, AUDIT, entries={place: present}, edited=True)
    found = state({place: asked}, [edited], lambda _: [], lambda *_: 1)
    assert told(found).reason == "ConstraintsDiffer"
    assert words in told(found).message


@pytest.mark.parametrize(
    ("audit", "words"),
    [(AUDIT, "but for ephemeral containers"), (report("audit-0", 1, "audit"), "does not enforce by itself")],
    ids=["native", "webhook-only"],
)
def test_nothing_is_enforced_while_the_api_server_is_not_told_to_ask(audit: dict[str, Any], words: str) -> None:
    found = replace(judge(constraint(WEBHOOK, audit)), webhook=False)
    assert not found.enforced
    assert (told(found).status, told(found).reason) == ("False", "WebhookMissing")
    assert words in told(found).message


def test_the_edits_of_others_are_no_news() -> None:
    lagging = constraint(report("webhook-0", 4), report("audit-0", 4, "audit"))
    assert not judge(lagging, since=5).enforced
    assert judge(lagging, since=4).enforced


def test_without_the_api_servers_own_policy_it_is_said_what_is_open() -> None:
    waiting = report(
        "audit-0", 1, "audit", enforcementPointsStatus=[{"enforcementPoint": "vap.k8s.io", "state": "waiting"}]
    )
    found = told(judge(constraint(WEBHOOK, waiting)))
    assert (found.status, found.reason) == ("True", "WebhookOnly")


def test_violations_are_those_of_who_asks() -> None:
    listed = [
        {"kind": "Pod", "name": "a", "message": "ServiceIdentity orders: volumes[0]"},
        {"kind": "Pod", "name": "b", "message": "ServiceIdentity batch: volumes[0]"},
        {"kind": "Pod", "name": "c", "message": "TrustPolicy images, orders: hostNetwork"},
        {"kind": "Pod", "name": "d", "message": "no prefix at all"},
    ]
    found = violations([constraint(WEBHOOK, AUDIT, violations=listed)], WHOSE, lambda *_: NOW)
    assert [one.object for one in found] == ["Pod a", "Pod c"]
    assert found[0] == Finding("Pod a", "ServiceIdentity orders: volumes[0]", NOW)


@pytest.mark.parametrize(
    "body", [{}, {"status": {}}, {"status": {"byPod": [{}], "violations": [{}]}}], ids=["bare", "empty", "odd"]
)
def test_odd_objects_are_read(body: dict[str, Any]) -> None:
    metadata = {"name": "shop.enforce", "uid": ""}
    assert observed.constraint({"kind": CREDENTIALS, "metadata": metadata, **body}).parameters == {}
    assert not observed.template({"metadata": metadata, **body}).created
