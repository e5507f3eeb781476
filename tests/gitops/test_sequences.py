"""What Argo CD shows of resources while real controllers work on them: every status that a watch tells, in its order.

The tests run in order over one cluster; the last ones look back at everything that was recorded.
"""

import asyncio
import contextlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hack.controlplane import EXISTING_CLUSTER
from tests.support.argocd import Customizations, by_argo_cd
from tests.support.decision_points import DecisionPoints
from tests.support.deployment import OPERATOR_NAMESPACE, ROOT, Running, deployed
from tests.support.proving import only_in_prove
from tests.support.statuses import Recorder
from zerotrust.common import naming, times

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(EXISTING_CLUSTER in os.environ, reason="installs cluster-wide objects"),
]

ARGO = Customizations()
PLURALS = {"TrustDomain": "td", "ServiceIdentity": "svid", "TrustPolicy": "tp", "ApiKey": "zkey"}
QUICK = {"certificate": {"duration": "1m", "renewBefore": "50s"}}


class Stage:
    """A cluster with a controller, and everything that a watch has told of our resources."""

    def __init__(self, running: Running, recorder: Recorder) -> None:
        self.running, self.recorder = running, recorder

    def apply(self, kind: str, name: str, namespace: str = "shop", **spec: Any) -> None:
        metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
        self.running.apply({"apiVersion": naming.API_VERSION, "kind": kind, "metadata": metadata, "spec": spec})

    def identity(self, name: str, namespace: str = "shop", **spec: Any) -> None:
        self.running.apply(
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}
        )
        self.apply("ServiceIdentity", name, namespace, **spec)

    def kubectl(self, verb: str, kind: str, name: str, *arguments: str, namespace: str = "shop") -> None:
        place = ("-n", namespace) if namespace else ()
        self.running.plane.kubectl(verb, PLURALS.get(kind, kind), name, *place, *arguments)

    def patch(self, kind: str, name: str, spec: dict[str, Any], namespace: str = "shop") -> None:
        self.kubectl("patch", kind, name, "--type=merge", "-p", json.dumps({"spec": spec}), namespace=namespace)

    def versions(self, kind: str, name: str, namespace: str = "shop") -> list[dict[str, Any]]:
        return self.recorder.of_object(kind, name, namespace)

    def status(self, kind: str, name: str, namespace: str = "shop") -> dict[str, Any]:
        seen = [one for one in self.recorder.all if one["metadata"]["name"] == name and one["kind"] == kind]
        seen = [one for one in seen if one["metadata"].get("namespace", "") == namespace]
        return dict(seen[-1].get("status", {})) if seen else {}

    def until(self, health: str, kind: str, name: str, namespace: str = "shop", told: str = "") -> None:
        shown = ""

        def shows() -> bool:
            nonlocal shown
            seen = [one for one in self.recorder.all if one["kind"] == kind and one["metadata"]["name"] == name]
            seen = [one for one in seen if one["metadata"].get("namespace", "") == namespace]
            found = ARGO.health(seen[-1]) if seen else None
            shown = str(found)
            return found is not None and found.status == health and told in found.message

        try:
            self.running.until(shows, f"{kind} {namespace}/{name} is {health} {told}")
        except AssertionError as error:
            raise AssertionError(f"last shown: {shown}\n{error}") from None

    def sequence(self, kind: str, name: str, namespace: str = "shop", after: int = 0) -> list[str]:
        """The verdicts one after the other, each once; without the first `after` versions."""
        found = [ARGO.health(one).status for one in self.versions(kind, name, namespace)[after:]]
        return [one for number, one in enumerate(found) if number == 0 or found[number - 1] != one]

    @contextlib.contextmanager
    def expecting(self, allowed: str, kind: str, *names: str, namespace: str = "shop") -> Iterator[None]:
        """Nothing but these verdicts while the block runs."""
        self.recorder.until_quiet(0.5)
        before = {name: len(self.versions(kind, name, namespace)) for name in names}
        yield
        self.recorder.until_quiet(0.5)
        for name in names:
            seen = self.sequence(kind, name, namespace, before[name])
            assert set(seen) <= set(allowed.split()), (name, seen, self.versions(kind, name, namespace)[before[name] :])


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with deployed(tmp_path_factory.mktemp("gitops")) as running, Recorder.of(running.plane) as recorder:
        stage = Stage(running, recorder)
        for name in ("shop", "web", "edge"):
            running.plane.kubectl("create", "namespace", name)
        stage.apply("TrustDomain", "example.org", "", default=True)
        stage.identity("renewing", **QUICK)
        stage.identity("ending", certificate={"duration": "1m", "renewBefore": "20s"})
        stage.until("Healthy", "ServiceIdentity", "ending")
        stage.patch("ServiceIdentity", "ending", {"issuance": "Paused"})
        yield stage


def now() -> str:
    return times.render(datetime.now(UTC))


def test_a_trust_domain_is_progressing_until_it_signs(stage: Stage) -> None:
    stage.until("Healthy", "TrustDomain", "example.org", "")
    assert stage.sequence("TrustDomain", "example.org", "") == ["Progressing", "Healthy"]


def test_an_identity_waits_for_its_trust_domain_and_its_service_account(stage: Stage) -> None:
    stage.identity("early", trustDomain="later.example.org")
    stage.apply("ServiceIdentity", "lonely")
    stage.until("Progressing", "ServiceIdentity", "early", told="TrustDomainNotFound: ")
    stage.until("Progressing", "ServiceIdentity", "lonely", told="ServiceAccountNotFound: ")
    stage.apply("TrustDomain", "later.example.org", "")
    stage.running.plane.kubectl("create", "serviceaccount", "lonely", "-n", "shop")
    for name in ("early", "lonely"):
        stage.until("Healthy", "ServiceIdentity", name, told="valid until")
        assert stage.sequence("ServiceIdentity", name) == ["Progressing", "Healthy"]


def test_what_only_a_person_can_solve_is_degraded(stage: Stage) -> None:
    stage.apply("TrustDomain", "picky.example.org", "", allowedNamespaces={"selector": {"matchLabels": {"no": "one"}}})
    stage.identity("barred", trustDomain="picky.example.org")
    stage.identity("orders")
    stage.until("Healthy", "ServiceIdentity", "orders")
    time.sleep(1.1)  # the older one wins, and creationTimestamp counts whole seconds
    stage.apply("ServiceIdentity", "twin", serviceAccountName="orders")
    stage.running.plane.kubectl("create", "secret", "generic", "taken-svid", "-n", "shop")
    stage.identity("taken")
    stage.apply("TrustDomain", "second.example.org", "", default=True)
    stage.until("Degraded", "ServiceIdentity", "barred", told="NamespaceNotAllowed: ")
    stage.until("Degraded", "ServiceIdentity", "twin", told="DuplicateIdentity: ")
    stage.until("Degraded", "ServiceIdentity", "taken", told="SecretConflict: ")
    stage.until("Degraded", "TrustDomain", "second.example.org", "", told="DuplicateDefault: ")
    stage.patch("TrustDomain", "second.example.org", {"default": False}, "")
    stage.kubectl("delete", "secret", "taken-svid")
    stage.kubectl("delete", "ServiceIdentity", "twin")
    stage.until("Healthy", "ServiceIdentity", "taken")
    stage.until("Healthy", "TrustDomain", "second.example.org", "")
    assert stage.sequence("ServiceIdentity", "orders") == ["Progressing", "Healthy"], "the other one is not its fault"


def test_a_trust_domain_without_its_authority_is_degraded(stage: Stage) -> None:
    stage.apply("TrustDomain", "lost.example.org", "")
    stage.until("Healthy", "TrustDomain", "lost.example.org", "")
    (authority,) = stage.status("TrustDomain", "lost.example.org", "")["certificateAuthorities"]
    stage.kubectl("delete", "secret", f"lost.example.org.ca-{authority['id']}", namespace=OPERATOR_NAMESPACE)
    stage.until("Degraded", "TrustDomain", "lost.example.org", "", told="AuthorityMissing: ")
    time.sleep(1.1)  # a request counts that is later than the lost authority
    stage.patch("TrustDomain", "lost.example.org", {"certificateAuthority": {"rotation": {"requestedAt": now()}}}, "")
    stage.until("Healthy", "TrustDomain", "lost.example.org", "")
    stage.apply("TrustDomain", "brought.example.org", "", certificateAuthority={"source": "Secret", "secretName": "ca"})
    stage.until("Progressing", "TrustDomain", "brought.example.org", "", told="SecretNotFound: ")


def test_a_renewal_on_request_and_a_revocation_are_no_failures(stage: Stage) -> None:
    revision = stage.status("ServiceIdentity", "orders")["revision"]

    def follows() -> int:
        nonlocal revision
        before = revision
        stage.running.until(
            lambda: stage.status("ServiceIdentity", "orders").get("revision", 0) > before, "it is renewed"
        )
        revision = stage.status("ServiceIdentity", "orders")["revision"]
        time.sleep(1.1)  # requests count whole seconds, as certificates do
        return int(revision)

    time.sleep(1.1)
    with stage.expecting("Healthy", "ServiceIdentity", "orders"):
        action = ARGO.actions(stage.versions("ServiceIdentity", "orders")[-1])["renew"]
        assert action is not None
        (asked,) = (f"{k}={v}" for k, v in action["metadata"]["annotations"].items() if k.startswith(naming.GROUP))
        stage.kubectl("annotate", "ServiceIdentity", "orders", asked)
        follows()
    with stage.expecting("Progressing Healthy", "ServiceIdentity", "orders"):
        stage.patch("ServiceIdentity", "orders", {"rotation": {"requestedAt": now()}})
        follows()
        stage.patch("ServiceIdentity", "orders", {"certificate": {"keyAlgorithm": "ECDSA-P256", "duration": "12h"}})
        follows()
        stage.patch("ServiceIdentity", "orders", {"revocation": {"before": now(), "reason": "KeyCompromise"}})
        follows()
        stage.kubectl("delete", "secret", "orders-svid")
        stage.running.until(lambda: secret_of(stage, "orders-svid"), "the Secret is back")
    stage.until("Healthy", "ServiceIdentity", "orders")


def secret_of(stage: Stage, name: str) -> str:
    return stage.running.plane.kubectl("get", "secret", name, "-n", "shop", "--ignore-not-found")


def test_a_policy_that_is_refused_is_degraded_and_one_that_waits_is_not(stage: Stage) -> None:
    stage.identity("frontend", "web")
    stage.until("Healthy", "ServiceIdentity", "frontend", "web")
    target = {"identities": ["orders"]}
    peer = {"workload": {"name": "frontend", "namespace": "web"}}
    rule = {"name": "frontend", "from": [peer], "to": [{"port": 8443}]}
    stage.apply("TrustPolicy", "orders", target=target, rules=[rule])
    stage.until("Healthy", "TrustPolicy", "orders")
    stage.apply(
        "TrustPolicy",
        "waiting",
        target=target,
        rules=[{**rule, "from": [{"workload": {"name": "gateway", "namespace": "edge"}}]}],
    )
    stage.until("Progressing", "TrustPolicy", "waiting", told="Unresolved: ")
    stage.identity("gateway", "edge")
    stage.until("Healthy", "TrustPolicy", "waiting")
    for name in ("orders", "waiting"):
        assert stage.sequence("TrustPolicy", name) == ["Progressing", "Healthy"]

    expects = {"name": "nobody", "request": {"from": "web/frontend", "port": 8443}, "expect": "Deny"}
    stage.patch("TrustPolicy", "orders", {"tests": [expects]})
    stage.until("Degraded", "TrustPolicy", "orders", told="TestsFailed: ")
    stage.patch("TrustPolicy", "orders", {"tests": [{**expects, "expect": "Allow"}]})
    stage.until("Healthy", "TrustPolicy", "orders")
    stage.patch("TrustPolicy", "orders", {"rules": [{**rule, "untill": "2030-01-01T00:00:00Z"}]})
    stage.until("Degraded", "TrustPolicy", "orders", told="UnknownField: ")
    with stage.expecting("Progressing Healthy", "TrustPolicy", "orders"):
        stage.patch("TrustPolicy", "orders", {"rules": [rule, {**rule, "name": "again"}]})
        stage.until("Healthy", "TrustPolicy", "orders")
    stage.patch(
        "TrustPolicy", "orders", {"rules": [{**rule, "to": [{"port": 8443, "methods": ["GET"]}]}], "tests": None}
    )
    stage.until("Healthy", "TrustPolicy", "orders", told="NoDecisionPoint: ")


async def test_a_key_from_its_creation_to_its_end(stage: Stage, tmp_path: Path) -> None:
    """With a bundle server and a real OPA, so that deliveries and revocations wait for somebody."""
    points = DecisionPoints(stage.running, tmp_path)

    async def until(health: str, name: str = "partner", told: str = "") -> None:
        await points.until(lambda: stage.until(health, "ApiKey", name, told=told) or True, health)

    async def replaced(before: str) -> str:
        await points.until(lambda: stage.status("ApiKey", "partner").get("keyID", before) != before, "another key")
        await until("Healthy")
        return str(stage.status("ApiKey", "partner")["keyID"])

    body = {"holder": {"name": "Partner"}, "audience": ["orders"], "scopes": ["orders:read"]}
    async with points.serving(), points.opa("shop", "orders", "orders-0") as opa:
        await opa.ready()
        stage.apply("ApiKey", "partner", **body)
        await until("Healthy")
        assert stage.sequence("ApiKey", "partner") == ["Progressing", "Healthy"]
        first = stage.status("ApiKey", "partner")["keyID"]
        await asyncio.sleep(1.1)  # a request counts that is later than the key
        with stage.expecting("Healthy", "ApiKey", "partner"):
            action = ARGO.actions(stage.versions("ApiKey", "partner")[-1])["rotate"]
            assert action is not None
            (asked,) = (f"{k}={v}" for k, v in action["metadata"]["annotations"].items() if k.startswith(naming.GROUP))
            stage.kubectl("annotate", "ApiKey", "partner", asked)
            second = await replaced(first)
        assert stage.status("ApiKey", "partner")["previousKeyID"] == first, "the old one stays good for the overlap"
        with stage.expecting("Progressing Healthy", "ApiKey", "partner"):
            await asyncio.sleep(1.1)
            stage.patch("ApiKey", "partner", {"rotation": {"requestedAt": now()}})
            third = await replaced(second)
            stage.patch("ApiKey", "partner", {"revokedKeyIDs": [third]})
            fourth = await replaced(third)
            stage.kubectl("delete", "secret", "partner-api-key")
            await replaced(fourth)
        stage.patch("ApiKey", "partner", {"state": "Suspended"})
        await until("Suspended", told="every key is refused")
        stage.patch("ApiKey", "partner", {"state": "Active"})
        await until("Healthy")

        stage.running.plane.kubectl("create", "secret", "generic", "conflicting-api-key", "-n", "shop")
        stage.apply("ApiKey", "conflicting", **body)
        await until("Degraded", "conflicting", "SecretConflict: ")
        stage.apply("ApiKey", "brief", **body, notAfter=times.render(datetime.now(UTC) + timedelta(seconds=15)))
        await until("Healthy", "brief", "GrantEndsSoon: ")
        await until("Degraded", "brief", "GrantEnded: ")
        assert stage.sequence("ApiKey", "brief") == ["Progressing", "Healthy", "Degraded"]

        with stage.expecting("Progressing Healthy", "TrustPolicy", "orders"):
            again = {"port": 8443, "methods": ["GET", "POST"]}
            peer = {"workload": {"name": "frontend", "namespace": "web"}}
            stage.patch("TrustPolicy", "orders", {"rules": [{"name": "frontend", "from": [peer], "to": [again]}]})
            await points.until(
                lambda: stage.until("Healthy", "TrustPolicy", "orders", told="every layer") or True, "acknowledged"
            )
        with (
            stage.expecting("Progressing Healthy", "TrustPolicy", "orders", "waiting"),
            stage.expecting("Progressing Healthy", "ApiKey", "partner"),
        ):
            name = restart(stage)
            await points.until(lambda: stage.until("Healthy", "ServiceIdentity", name) or True, "it works again")
            await asyncio.sleep(2)


def restart(stage: Stage) -> str:
    """Stop the controller and start it, in the thread that stays; returns what shows that it works again."""
    stage.running.controller.stop(30)
    stage.running.restart_controller()
    name = f"after-{len(stage.recorder.all)}"
    stage.identity(name)
    return name


def test_a_restart_changes_no_verdict(stage: Stage) -> None:
    # Not `renewing`: its certificate may have ended while nobody was there to renew it.
    steady = ("early", "lonely", "orders", "taken")
    with (
        stage.expecting("Healthy", "ServiceIdentity", *steady),
        stage.expecting("Degraded", "ServiceIdentity", "barred"),
    ):
        stage.until("Healthy", "ServiceIdentity", restart(stage))
        time.sleep(2)


@pytest.mark.parametrize("order", ["identities first", "policies first"])
def test_the_shop_is_never_degraded_while_it_is_deployed(stage: Stage, order: str) -> None:
    """In the order of the example's waves; and without waves, where policies may come before the identities that they name."""
    running, folder = stage.running, ROOT / "examples" / "shop"
    running.plane.kubectl("delete", "tp,zkey,svid", "--all", "-A")
    # Its pod would own the report of the bundle server, which has ended.
    report = f"{naming.COMPONENT}={naming.COMPONENT_BUNDLE_REPORT}"
    running.plane.kubectl("delete", "configmap", "-n", OPERATOR_NAMESPACE, "-l", report)
    stage.recorder.until_quiet(0.5)
    before = len(stage.recorder.all)
    running.apply(folder / "10-namespaces.yaml")
    for path in sorted(folder.glob("*.yaml"), reverse=order == "policies first"):
        running.apply(path)
    names = [(one["metadata"]["namespace"], one["metadata"]["name"]) for one in running.every("tp")]
    for namespace, name in names:
        stage.until("Healthy", "TrustPolicy", name, namespace)
    stage.recorder.until_quiet(1.0)
    told = [ARGO.health(one) for one in stage.recorder.all[before:] if one["kind"] != "TrustDomain"]
    assert Counter(one.status for one in told)["Progressing"] > 0
    degraded = {one.message for one in told if one.status == "Degraded"}
    if order == "policies first":
        # A test may be about a caller that is nobody, so a caller that is not there yet is not waited for.
        degraded = {one for one in degraded if "expects Allow" not in one}
    assert degraded == set()


def test_a_certificate_that_is_renewed_by_the_clock_stays_healthy(stage: Stage) -> None:
    versions = stage.versions("ServiceIdentity", "renewing")
    revisions = {one.get("status", {}).get("revision") for one in versions}
    assert len(revisions) >= 4, f"it was not renewed often enough to say anything: {revisions}"
    seen = stage.sequence("ServiceIdentity", "renewing")
    assert "Degraded" not in seen
    assert seen[:2] == ["Progressing", "Healthy"]


def test_a_certificate_that_ends_is_degraded_then(stage: Stage) -> None:
    seen = stage.sequence("ServiceIdentity", "ending")
    assert seen[-1] == "Degraded", "it is paused, and its time is over"
    assert seen[0] == "Progressing"
    assert set(seen[1:-1]) <= {"Healthy", "Progressing", "Suspended"}
    assert seen[-2] == "Suspended"


@only_in_prove
def test_argo_cd_itself_gives_every_recorded_status_the_same_verdict(stage: Stage) -> None:
    recorded = stage.recorder.all
    mine = [ARGO.health(one)._asdict() for one in recorded]
    assert [{"message": "", **one} for one in by_argo_cd("health", recorded)] == mine
    print(f"{len(recorded)} statuses, {Counter(one['status'] for one in mine)}")
