"""Attacks on a whole installation beside a real Gatekeeper: each is refused, or found and repaired; and nobody else is refused.

The tests run in order over one cluster: the last ones take protections away. A table of all attacks, with who refused them and
after how many milliseconds, is printed at the end.
"""

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from hack.controlplane import EXISTING_CLUSTER
from tests.support.attack_table import ATTACKS, BOOK, OPEN, TELLERS, WITHOUT_WEBHOOK, slice_of
from tests.support.attacks import Answer, Attack, Body, Scores, a_pod, path_of
from tests.support.bank import EXAMPLES, NAMESPACE, SELECTOR, Bank, example, ours
from tests.support.deployment import OPERATOR_NAMESPACE, ROOT, keep_metrics
from tests.support.gatekeeper import constraint_kind, reads, running_gatekeeper
from tests.support.protected import network_policy
from tests.support.workloads import ACCOUNTS, pod_of, workloads
from zerotrust.common import naming
from zerotrust.gatekeeper.templates import BINDING, CREDENTIALS, TEMPLATES

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(EXISTING_CLUSTER in os.environ, reason="installs cluster-wide policies"),
]

Note = Callable[[str, str, float], None]

UNMANAGED = "platform"
DEBUGGED = "ephemeral container: env of teller-svid"
FORGOTTEN_SECONDS = 20.0
QUIET_SECONDS = 4.0
PROTECTION = "zerotrust-protected-objects"
OTHERS_LABEL = {"metadata": {"labels": SELECTOR}}
NATIVE = "validatingadmissionpolicybinding"


@pytest.fixture(scope="module")
def scores(request: pytest.FixtureRequest) -> Iterator[Scores]:
    scores = Scores()
    yield scores
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(f"\n{scores.table()}")


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory, scores: Scores) -> Iterator[Bank]:
    folder = tmp_path_factory.mktemp("attacks")
    with running_gatekeeper(folder) as (plane, gatekeeper):
        bank = Bank(plane, gatekeeper, folder)
        try:
            bank.plane.kubectl("create", "-n", NAMESPACE, "-f", "-", stdin=json.dumps(slice_of("other-0", "other")))
            yield bank
        finally:
            (folder / "attacks.txt").write_text(scores.table())
            keep_metrics(bank.cluster.port, folder / "controller.metrics")
            bank.stop()


@pytest.fixture
def note(scores: Scores, record_property: Callable[[str, object], None]) -> Note:
    """Keep what came of an attack, after how many milliseconds."""

    def keep(attack: str, outcome: str, milliseconds: float) -> None:
        scores.note(attack, outcome, milliseconds)
        record_property(attack, f"{outcome} after {milliseconds:.1f} ms")

    return keep


def is_refused(attack: Attack, answer: Answer) -> bool:
    return not answer.accepted and re.search(attack.expected, answer.message, re.DOTALL) is not None


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused(bank: Bank, note: Note, name: str) -> None:
    answer = ATTACKS[name].by(bank.api)
    note(name, answer.outcome, answer.milliseconds)
    assert is_refused(ATTACKS[name], answer), answer


@pytest.mark.xfail(strict=True, reason="open, as docs/adr/0011-constraint-templates.md says")
@pytest.mark.parametrize("name", OPEN)
def test_what_no_admission_sees(bank: Bank, note: Note, name: str) -> None:
    answer = OPEN[name].by(bank.api)
    note(name, answer.outcome, answer.milliseconds)
    assert is_refused(OPEN[name], answer), answer


def test_a_label_that_admission_did_not_see_is_found(bank: Bank, note: Note) -> None:
    """By the watch of pods at once, and by the audit, which says what is wrong."""
    assert bank.api["tenant"].create(in_bank(a_pod("drifter", "intruder"))).accepted
    began = time.monotonic()
    assert BOOK.patching("Pod", "drifter", OTHERS_LABEL, "", "admin", "status").by(bank.api).accepted

    def match() -> tuple[str, str, str]:
        return bank.cluster.conditions("svid", "ledger", NAMESPACE).get("PodsMatch", ("", "", ""))

    bank.cluster.until(lambda: match()[0] == "False", "the pod is noticed")
    note("selector's label through pods/status", f"detected: PodsMatch/{match()[1]}", (time.monotonic() - began) * 1000)
    assert "drifter" in match()[2]
    bank.cluster.until(lambda: told(bank, "ledger", "Pod drifter"), "the audit tells of it")
    note("selector's label through pods/status", "detected: status.violations", (time.monotonic() - began) * 1000)
    bank.plane.kubectl("delete", "pod", "drifter", "-n", NAMESPACE, "--force", "--grace-period=0")
    bank.cluster.until(lambda: match()[0] == "True", "it is gone")


def test_a_pod_that_waited_for_a_secret_is_found(bank: Bank, note: Note) -> None:
    """Nobody guards a Secret that is not there yet; the kubelet would hand it over once it is."""
    volume = {"name": "svid", "secret": {"secretName": "late-svid", "optional": True}}
    assert bank.api["tenant"].create(in_bank(a_pod("early", "intruder", volumes=[volume]))).accepted
    began = time.monotonic()
    bank.cluster.apply(ours("ServiceAccount", "late", version="v1"), ours("ServiceIdentity", "late"))
    bank.cluster.until(lambda: told(bank, "late", "Pod early"), "the audit tells of it")
    note("SVID: mounted before it is issued", "detected: status.violations", (time.monotonic() - began) * 1000)
    bank.plane.kubectl("delete", "pod", "early", "-n", NAMESPACE, "--force", "--grace-period=0")
    bank.plane.kubectl("delete", "svid", "late", "-n", NAMESPACE)
    bank.until_enforced()


def test_a_service_that_may_find_other_pods_is_told_of(bank: Bank, note: Note) -> None:
    """Its selector contradicts nothing, as that of many a Service that is well: a warning, and the audit."""
    before = BOOK.reading("Service", "teller", "").by(bank.api).body["spec"]["selector"]
    began = time.monotonic()
    change = {"spec": {"selector": {naming.SERVICE_ACCOUNT: None, "app": "intruder"}}}
    answer = BOOK.patching("Service", "teller", change, "").by(bank.api)
    note("Service finds other pods, uncontradicted", "accepted with a warning", answer.milliseconds)
    assert "so that other pods could get traffic that is meant for the identity" in str(answer.warnings)
    bank.cluster.until(lambda: told(bank, "teller", "Service teller"), "the audit tells of it")
    note("Service finds other pods, uncontradicted", "detected: status.violations", (time.monotonic() - began) * 1000)
    assert BOOK.patching("Service", "teller", {"spec": {"selector": {**before, "app": None}}}, "").by(bank.api).accepted


def told(bank: Bank, identity: str, name: str) -> bool:
    """Whether an identity's status names an object among those that should not be."""
    found = reads(bank.plane, "svid", identity, NAMESPACE).get("status", {}).get("violations", {})
    return name in [one["object"] for one in found.get("examples", [])]


def in_bank(body: Body) -> Body:
    return {**body, "metadata": {**body["metadata"], "namespace": NAMESPACE}}


def test_a_deployments_swapped_template_makes_no_pod(bank: Bank, note: Note) -> None:
    """The Deployment itself is accepted: nothing runs, and the ReplicaSet's status says why."""
    pod = a_pod("swapped", "ledger", {"app": "ledger"})
    template = {"metadata": {"labels": pod["metadata"]["labels"]}, "spec": pod["spec"]}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "ledger", "namespace": NAMESPACE},
        "spec": {"selector": {"matchLabels": {"app": "ledger"}}, "template": template},
    }
    assert bank.api["tenant"].create(deployment).accepted
    swap = {"spec": {"template": {"spec": {"serviceAccountName": "intruder"}}}}
    assert BOOK.patching("Deployment", "ledger", swap, "").by(bank.api).accepted
    swapped = BOOK.reading("Deployment", "ledger", "").by(bank.api).body["spec"]["template"]
    made = {"apiVersion": "v1", "kind": "Pod", **swapped}
    made["metadata"] = {**made["metadata"], "name": "ledger-abc", "namespace": NAMESPACE}
    answer = bank.api["replica sets"].create(made)
    note("Deployment's ServiceAccount swapped", answer.outcome, answer.milliseconds)
    assert "ServiceIdentity ledger: metadata.labels match its selector" in answer.message


def test_an_account_that_pulls_with_the_credential_of_another(bank: Bank, note: Note) -> None:
    """The API server puts the ServiceAccount's imagePullSecrets into its pods before they are looked at."""
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "puller", "namespace": NAMESPACE},
        "imagePullSecrets": [{"name": "teller-svid"}],
    }
    assert bank.api["tenant"].create(account).accepted
    thief = BOOK.creating(a_pod("puller", "puller"), "ServiceIdentity teller: spec.imagePullSecrets")
    answer = thief.by(bank.api)
    note("imagePullSecrets of the ServiceAccount", answer.outcome, answer.milliseconds)
    assert is_refused(thief, answer), answer


def test_a_forged_note_of_the_labelling_policy_is_corrected(bank: Bank, note: Note) -> None:
    pod = a_pod("forged", "intruder", TELLERS)
    pod["metadata"] |= {"namespace": NAMESPACE, "annotations": {"zerotrust.dev/labelled-as": "teller"}}
    answer = bank.api["tenant"].create(pod)
    note("derived label with a forged note", "corrected by policy zerotrust-pod-labels", answer.milliseconds)
    assert answer.body["metadata"]["labels"][naming.SERVICE_ACCOUNT] == "intruder"


def test_the_name_of_a_namespace_stays_its_label(bank: Bank, note: Note) -> None:
    """Constraints find their namespace by it."""
    change = {"metadata": {"labels": {"kubernetes.io/metadata.name": "elsewhere"}}}
    answer = BOOK.patching("Namespace", NAMESPACE, change, "", "labeller").by(bank.api)
    note("namespace's name as a label", "undone by the API server", answer.milliseconds)
    assert answer.body["metadata"]["labels"]["kubernetes.io/metadata.name"] == NAMESPACE


def test_a_network_policy_beside_ours_is_named(bank: Bank, note: Note) -> None:
    """Network policies add up, and a tenant's own is no business of admission's; the policy's status tells of it."""
    opened = network_policy("mine", namespace=NAMESPACE)
    began = time.monotonic()
    assert bank.api["tenant"].create(opened).accepted

    def shadowed() -> tuple[str, str, str]:
        return bank.cluster.conditions("tp", "everything", NAMESPACE).get("Shadowed", ("", "", ""))

    bank.cluster.until(lambda: shadowed()[0] == "True", "the condition Shadowed")
    note("another NetworkPolicy opens", f"detected: Shadowed/{shadowed()[1]}", (time.monotonic() - began) * 1000)
    assert "mine" in shadowed()[2]
    bank.plane.kubectl("delete", "networkpolicy", "mine", "-n", NAMESPACE)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_applied_as_it_is(bank: Bank, name: str) -> None:
    """Everything of it is there since the beginning, and its policies are in force; pods of its workloads are made as well."""
    documents = example(name)
    items = json.dumps({"apiVersion": "v1", "kind": "List", "items": documents})
    said = bank.plane.kubectl("apply", "-f", "-", stdin=items, check=False)
    assert not re.search("Warning|Error", said), said
    pods = [one for body in documents if body["kind"] == "Deployment" and (one := pod_of(body))]
    pods += [pod_of_identity(bank, body) for body in documents if body["kind"] == "ServiceIdentity"]
    accepted(
        bank, [{**one, "metadata": {**one["metadata"], "name": f"{name}-{number}"}} for number, one in enumerate(pods)]
    )


def pod_of_identity(bank: Bank, given: Body) -> Body:
    """A pod as the guides say: under the ServiceAccount, with the SVID's Secret."""
    name, namespace = given["metadata"]["name"], given["metadata"]["namespace"]
    spec = reads(bank.plane, "svid", name, namespace)["spec"]
    secret = spec.get("secret", {}).get("name", f"{name}-svid")
    pod = a_pod(
        name, spec.get("serviceAccountName", name), volumes=[{"name": "svid", "secret": {"secretName": secret}}]
    )
    pod["metadata"]["namespace"] = namespace
    return pod


def test_the_operators_own_pods_are_made(bank: Bank) -> None:
    deployments = bank.cluster.every("deployments", "-n", OPERATOR_NAMESPACE)
    assert deployments
    accepted(bank, [one for body in deployments if (one := pod_of(body))])


@pytest.mark.parametrize("place", [UNMANAGED, NAMESPACE])
def test_workloads_without_identity_are_left_alone(bank: Bank, place: str) -> None:
    """In a namespace without identities, and beside identities; they are made, annotated and deleted."""
    if place == UNMANAGED:
        bank.plane.kubectl("create", "namespace", place)
        bank.plane.kubectl("wait", "--for=create", "serviceaccount/default", "-n", place, "--timeout=60s")
    for account in ACCOUNTS:
        bank.plane.kubectl("create", "serviceaccount", account, "-n", place)
    found = [one for one in workloads(place) if place == UNMANAGED or not is_the_banks(one)]
    assert len(found) >= 30
    made = accepted(bank, found) + accepted(bank, [pod for one in found if (pod := pod_of(one))])
    # What belongs to a Service goes before the Service does, or the controllers would be faster.
    for body in reversed(made):
        path = path_of(body["apiVersion"], body["kind"], place, body["metadata"]["name"])
        change = {"metadata": {"annotations": {"note": "mine"}, "labels": {"team": "a"}}}
        changed = bank.api["admin"].ask("PATCH", path, change, "application/merge-patch+json")
        deleted = bank.api["admin"].ask("DELETE", path + "?gracePeriodSeconds=0")
        assert unhindered(changed), (body, changed)
        assert unhindered(deleted), (body, deleted)


def is_the_banks(body: Body) -> bool:
    """Whether, in a namespace with identities, it has the labels of one, draws a warning rightly, or shares its node."""
    labels, text = body["metadata"].get("labels", {}), json.dumps(body)
    return (
        labels.get("app") == "ledger"
        or re.search('"(externalIPs|hostNetwork|hostPID|hostIPC|hostPort)"', text) is not None
    )


def accepted(bank: Bank, bodies: list[Body]) -> list[Body]:
    """Make objects; none is refused, and none of our policies says anything."""
    answers = [(body, bank.api["admin"].create(body)) for body in bodies]
    hindered = [(body["kind"], body["metadata"]["name"], answer) for body, answer in answers if not unhindered(answer)]
    assert not hindered
    return bodies


def unhindered(answer: Answer) -> bool:
    return answer.accepted and not [one for one in answer.warnings if re.search("(?i)zero-?trust|gatekeeper", one)]


@pytest.fixture
def unasked(bank: Bank) -> Iterator[Bank]:
    """With Gatekeeper's webhook configuration away."""
    bank.gatekeeper.remove_webhook_configuration()
    yield bank
    bank.gatekeeper.restore_webhook_configuration()
    bank.cluster.until(lambda: not tried(bank, DEBUGGED).accepted, "the API server looks at ephemeral containers again")


def test_without_a_webhook_the_api_server_refuses(unasked: Bank, note: Note) -> None:
    answers = {name: ATTACKS[name].by(unasked.api) for name in WITHOUT_WEBHOOK}
    for name, answer in answers.items():
        note(f"no webhook: {name}", answer.outcome, answer.milliseconds)
    assert not [(name, one) for name, one in answers.items() if not is_refused(ATTACKS[name], one)]
    assert all("denied by policy" in one.outcome for one in answers.values())


@pytest.mark.xfail(strict=True, reason="open, as docs/adr/0011-constraint-templates.md says")
def test_without_a_webhook_the_api_server_refuses_ephemeral_containers(unasked: Bank, note: Note) -> None:
    """Gatekeeper takes a while to leave them out of its policies."""
    deadline = time.monotonic() + FORGOTTEN_SECONDS
    while not (answer := tried(unasked, DEBUGGED)).accepted and time.monotonic() < deadline:
        time.sleep(0.1)
    note("no webhook: ephemeral container", answer.outcome, answer.milliseconds)
    assert not answer.accepted


@pytest.fixture(scope="module")
def unprotected(bank: Bank) -> Iterator[Bank]:
    """As after an administrator has deleted the Binding that keeps the operator's objects."""
    bank.plane.kubectl("delete", NATIVE, PROTECTION)
    probe = ("annotate", "networkpolicy", "zt-teller", "-n", NAMESPACE, f"{naming.REVISION}=0", "--dry-run=server")
    bank.cluster.until(lambda: "annotated" in bank.plane.kubectl(*probe, check=False), "nobody is refused")
    yield bank
    bank.plane.kubectl("apply", "-k", str(ROOT / "manifests" / "admission"))


MERGE = ("--type=merge", "-p")
POLICY, SECRET = ("networkpolicy", "zt-teller"), ("secret", "teller-svid")
CREDENTIAL, IDENTITY = ((constraint_kind(kind), f"{NAMESPACE}.enforce") for kind in (CREDENTIALS, BINDING))
TEMPLATE = ("constrainttemplate", TEMPLATES[CREDENTIALS].name)
# What an administrator does, to what, and what is refused before and after.
DAMAGE: dict[str, tuple[tuple[str, str], tuple[str, ...], str]] = {
    "NetworkPolicy edited": (POLICY, ("patch", *MERGE, '{"spec": {"ingress": [{}]}}'), ""),
    "NetworkPolicy deleted": (POLICY, ("delete",), ""),
    "SVID's Secret edited": (SECRET, ("patch", *MERGE, '{"data": {"ca.crt": "b29wcw=="}}'), ""),
    "SVID's Secret deleted": (SECRET, ("delete",), ""),
    "Constraint edited": (
        CREDENTIAL,
        ("patch", *MERGE, '{"spec": {"enforcementAction": "dryrun"}}'),
        "SVID: volume secret",
    ),
    "Constraint deleted": (IDENTITY, ("delete",), "selector's label on create"),
    "ConstraintTemplate deleted": (TEMPLATE, ("delete",), "SVID: volume secret"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_what_is_not_refused_is_repaired(unprotected: Bank, note: Note, name: str) -> None:
    """How long an attack got through is told by asking again and again, until it has not for a while."""
    (kind, object_name), (verb, *more), attack = DAMAGE[name]
    wanted = reads(unprotected.plane, kind, object_name, NAMESPACE)
    began = time.monotonic()
    unprotected.plane.kubectl(verb, kind, object_name, "-n", NAMESPACE, *more)
    seen = {"repaired": 0.0, "let through": 0.0}

    def is_over() -> bool:
        if attack and tried(unprotected, attack).accepted:
            seen["let through"] = time.monotonic() - began
        if not seen["repaired"] and is_repaired(unprotected, wanted, deleted=verb == "delete"):
            seen["repaired"] = time.monotonic() - began
        quiet = time.monotonic() - began - max(seen.values())
        return seen["repaired"] > 0 and (not attack or quiet > QUIET_SECONDS)

    unprotected.cluster.until(is_over, "it is repaired and in force")
    note(f"unprotected: {name}", "repaired", seen["repaired"] * 1000)
    if attack:
        note(f"unprotected: {name}", "last let through (0: never)", seen["let through"] * 1000)
        unprotected.until_enforced()
        assert is_refused(ATTACKS[attack], tried(unprotected, attack))


def tried(bank: Bank, attack: str) -> Answer:
    """What the API server says to an attack; what it makes is not stored."""
    return replace(ATTACKS[attack], path=f"{ATTACKS[attack].path}?dryRun=All").by(bank.api)


def is_repaired(bank: Bank, wanted: Body, *, deleted: bool) -> bool:
    found = reads(bank.plane, wanted["kind"], wanted["metadata"]["name"], NAMESPACE)
    if not found or (deleted and found["metadata"]["uid"] == wanted["metadata"]["uid"]):
        return False
    if found["kind"] == "Secret":  # a deleted one is issued anew
        return bool(found["data"]["ca.crt"] == wanted["data"]["ca.crt"])
    return bool(found["spec"] == wanted["spec"])
