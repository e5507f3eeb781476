"""`zerotrust status`, `why`, `renew`, `revoke` and `doctor` against the fake API server, mostly with the real controller."""

import asyncio
import json
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from tests.contract.test_apikeys import issued as issued_key
from tests.contract.test_apikeys import serving
from tests.support.fakeapi import FakeApi, Respond
from tests.support.fakeapi.resources import ResourceType
from tests.support.rig import OPERATOR_NAMESPACE, TRUST_DOMAIN, Rig, resource, running
from zerotrust.cli.checking import install
from zerotrust.cli.main import zerotrust
from zerotrust.common import naming, times

_ADMISSION = "admissionregistration.k8s.io"
FURTHER = (
    ResourceType("apps", "v1", "daemonsets", "daemonset", "DaemonSet", namespaced=True),
    *(
        ResourceType(_ADMISSION, "v1", f"{plural}", kind.lower(), kind, namespaced=False)
        for kind, plural in (
            ("ValidatingAdmissionPolicy", "validatingadmissionpolicies"),
            ("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings"),
            ("MutatingAdmissionPolicy", "mutatingadmissionpolicies"),
            ("MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings"),
        )
    ),
)


@pytest.fixture
async def server():
    async with FakeApi(FURTHER, namespaces=[OPERATOR_NAMESPACE, "shop", "web"]) as server:
        yield server


class Console:
    """Runs commands in a thread, beside the controller."""

    def __init__(self, server: FakeApi, folder: Path) -> None:
        self._kubeconfig = server.kubeconfig(folder / "user")

    async def __call__(self, *arguments: str, **environment: str) -> Result:
        runner = CliRunner(env={"NO_COLOR": "1", **environment})
        command = [*arguments, "--kubeconfig", str(self._kubeconfig)]
        result = await asyncio.to_thread(runner.invoke, zerotrust, command)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        return result


@pytest.fixture
def console(server: FakeApi, tmp_path: Path) -> Console:
    return Console(server, tmp_path)


async def issued(rig: Rig) -> dict[str, Any]:
    rig.domain()
    rig.identity()
    await rig.until(rig.is_ready)
    await rig.watching()
    await rig.idle()
    return identity(rig.server)


def identity(server: FakeApi) -> dict[str, Any]:
    body = server.get("ServiceIdentity", "orders", "shop")
    assert body is not None
    return body


async def test_all_is_well_and_then_something_is_wrong(server: FakeApi, tmp_path: Path, console: Console) -> None:
    async with running(server, tmp_path) as rig:
        await issued(rig)
        await rig.until(lambda: rig.condition("BundlePublished", TRUST_DOMAIN, None)[0] == "True")
        ready = {"total": 1, "ready": 1}
        await rig.until(lambda: server.get("TrustDomain", TRUST_DOMAIN)["status"].get("identities") == ready)
        well = await console("status", "-A")
        assert well.exit_code == 0, well.output
        assert well.stdout.splitlines()[-1] == "All is well."
        assert "ServiceIdentity  1      1      0          0           0" in well.stdout
        assert "example.org  1 of 1 ready" in well.stdout

        rig.identity("lost", trustDomain="nowhere.org")
        await rig.until(lambda: rig.condition("Ready", "lost") == ("False", "TrustDomainNotFound"))
        wrong = await console("status", "-n", "shop")
        assert wrong.exit_code == 1
        assert "svid shop/lost  Ready=False/TrustDomainNotFound: TrustDomain nowhere.org does not exist" in wrong.stdout
        told = json.loads((await console("status", "-n", "shop", "-o", "json")).stdout)
        assert told["kinds"]["ServiceIdentity"] == {
            "total": 2,
            "notReady": 1,
            "notJudged": 0,
            "attention": 0,
            "ready": 1,
        }
        assert [(one["name"], one["problem"]["reason"]) for one in told["wrong"]] == [("lost", "TrustDomainNotFound")]
        assert [(one["name"], one["next"]["what"]) for one in told["next"] if one["kind"] == "ServiceIdentity"] == [
            ("orders", "renewal")
        ]
        elsewhere = await console("status", "-n", "web")
        assert elsewhere.exit_code == 0
        assert yaml.safe_load((await console("status", "-n", "web", "-o", "yaml")).stdout)["well"] is True


async def test_what_may_not_be_read_is_told_with_the_missing_right(server: FakeApi, console: Console) -> None:
    refusal = (
        'apikeys.zerotrust.dev is forbidden: User "ann" cannot list resource "apikeys" in API group "zerotrust.dev"'
    )
    server.faults.on(
        verb="list",
        resource="apikeys",
        action=Respond(403, message=f'{refusal} in the namespace "shop"'),
    )
    result = await console("status", "-n", "shop")
    assert result.exit_code == 2
    assert "ApiKey           not readable" in result.stdout
    assert "Missing right: list apikeys.zerotrust.dev in namespace shop, for ann" in result.stderr
    assert "`kubectl auth can-i list apikeys.zerotrust.dev -n shop`" in result.stderr


async def test_without_a_controller_nothing_is_believed(server: FakeApi, console: Console) -> None:
    server.create(resource("ServiceIdentity", "orders", "shop"))
    result = await console("status", "-n", "shop")
    assert result.exit_code == 1
    assert "Controller: no controller has ever led" in result.stdout
    why = await console("why", "svid/orders", "-n", "shop")
    assert why.exit_code == 1
    assert "Ready=Unknown/NotObserved" in why.stdout
    assert "the controller: no controller has ever led" in why.stdout


async def test_why_follows_the_chain_and_says_what_to_do(server: FakeApi, tmp_path: Path, console: Console) -> None:
    async with running(server, tmp_path) as rig:
        await issued(rig)
        well = await console("why", "serviceidentity/orders", "-n", "shop")
        assert well.exit_code == 0, well.output
        assert "ServiceIdentity shop/orders is ready, and all is well" in well.stdout
        assert "Issued: there is no Secret yet; issued revision 1" in well.stdout
        assert ") renewal\n" in well.stdout

        spec = {"certificateAuthority": {"source": "Secret", "secretName": "brought"}}
        server.create(resource("TrustDomain", "brought.org", spec=spec))
        rig.identity("borrowed", trustDomain="brought.org")
        await rig.until(lambda: rig.condition("Ready", "borrowed")[1] == "AuthorityNotReady", 30)
        why = await console("why", "svid/borrowed", "-n", "shop")
        assert why.exit_code == 1
        assert (
            "BECAUSE\n  TrustDomain brought.org: Ready=False/SecretNotFound: Secret zerotrust-system/brought"
            in why.stdout
        )
        assert "WHAT TO DO\n  look at the TrustDomain's conditions\n  TrustDomain brought.org: create it" in why.stdout
        told = json.loads((await console("why", "svid/borrowed", "-n", "shop", "-o", "json")).stdout)
        assert told["problem"]["reason"] == "AuthorityNotReady"
        assert [one["object"] for one in told["because"]] == ["TrustDomain brought.org"]
        assert (await console("why", "td/brought.org")).exit_code == 1


async def test_names_that_are_not_there(server: FakeApi, console: Console) -> None:
    server.create(resource("ServiceIdentity", "orders", "shop"))
    server.create(resource("ServiceIdentity", "order", "web"))
    near = await console("why", "svid/order", "-n", "shop")
    assert near.exit_code == 2
    assert "there is no ServiceIdentity shop/order; there is shop/orders and web/order" in near.stderr
    for wrong, said in (
        ("svd/orders", "did you mean svid?"),
        ("pods/orders", "write one of td (TrustDomain), svid"),
        ("svid", "for example svid/orders"),
        ("svid/Orders_", "for example svid/orders"),
    ):
        result = await console("why", wrong)
        assert result.exit_code == 2
        assert said in result.stderr


async def test_renew_writes_one_annotation_and_waits(server: FakeApi, tmp_path: Path, console: Console) -> None:
    async with running(server, tmp_path) as rig:
        before = await issued(rig)
        dry = await console("renew", "svid/orders", "-n", "shop", "--dry-run")
        assert dry.exit_code == 0
        assert "a renewal would be requested" in dry.stdout
        assert identity(server) == before
        await asyncio.sleep(1.1)  # certificates and requests count whole seconds
        server.reset_counts()
        done = await console("renew", "svid/orders", "-n", "shop", "--timeout", "20s", "-o", "json")
        assert done.exit_code == 0, done.output
        assert (json.loads(done.stdout)["ending"], json.loads(done.stdout)["revision"]) == ("done", 2)
        await rig.idle()
        after = identity(server)
        assert after["spec"] == before["spec"]
        assert after["metadata"]["generation"] == before["metadata"]["generation"]
        assert list(after["metadata"]["annotations"]) == [naming.ROTATE_REQUESTED]
        writes = Counter((verb, what) for verb, what, _, _ in rig.writes() if what != "events")
        assert writes == Counter(
            [("patch", "serviceidentities"), ("patch", "secrets"), ("patch", "serviceidentities/status")]
        )
    # Without a controller the request stands; asked for again it is not written again.
    await asyncio.sleep(1.1)
    assert (await console("renew", "svid/orders", "-n", "shop", "--no-wait")).exit_code == 0
    asked = identity(server)
    again = await console("renew", "svid/orders", "-n", "shop", "--timeout", "1s")
    assert again.exit_code == 1
    assert "nothing was changed" in again.stdout
    assert "no new certificate after 1." in again.stdout
    assert identity(server) == asked


async def test_renew_refuses_what_would_do_nothing(server: FakeApi, console: Console) -> None:
    told = {"observedGeneration": 1, "notBefore": "2026-01-01T00:00:00Z"}
    stalled = {"type": "Ready", "status": "False", "reason": "InvalidSpec", "message": "spec.x: is wrong"}
    for name, spec, status, said in (
        ("paused", {"issuance": "Paused"}, told, "spec.issuance is Paused"),
        ("new", {}, {}, "has no certificate yet"),
        ("wrong", {}, {**told, "conditions": [stalled]}, "InvalidSpec: spec.x: is wrong; solve that first"),
    ):
        before = server.create({**resource("ServiceIdentity", name, "shop", spec), "status": status})
        result = await console("renew", f"svid/{name}", "-n", "shop")
        assert result.exit_code == 2
        assert said in result.stderr
        assert server.get("ServiceIdentity", name, "shop") == before
    result = await console("renew", "td/example.org")
    assert result.exit_code == 2
    assert "docs/guides/trust-domains.md" in result.stderr


async def test_renew_survives_other_writers(server: FakeApi, tmp_path: Path, console: Console) -> None:
    async with running(server, tmp_path) as rig:
        await issued(rig)
        server.faults.on(verb="patch", resource="serviceidentities", action=Respond(409), times=2)
        assert (await console("renew", "svid/orders", "-n", "shop", "--no-wait")).exit_code == 0
        assert naming.ROTATE_REQUESTED in identity(server)["metadata"]["annotations"]


async def test_revoke_waits_for_another_certificate(server: FakeApi, tmp_path: Path, console: Console) -> None:
    async with running(server, tmp_path) as rig:
        before = await issued(rig)
        await asyncio.sleep(1.1)
        done = await console("revoke", "svid/orders", "-n", "shop", "--timeout", "20s")
        assert done.exit_code == 0, done.output
        assert "revision 2 is in Secret shop/orders-svid after" in done.stdout
        after = identity(server)
        cutoff = after["metadata"]["annotations"][naming.REVOKE_BEFORE]
        assert (after["spec"], after["status"]["revokedBefore"]) == (before["spec"], cutoff)
        assert after["status"]["notBefore"] >= cutoff
        early = times.render(times.parse(cutoff) - timedelta(hours=1))
        refused = await console("revoke", "svid/orders", "-n", "shop", "--before", early)
        assert refused.exit_code == 2
        assert "no cut-off is lowered" in refused.stderr
        server.patch("ServiceIdentity", "orders", {"metadata": {"annotations": {naming.REVOKE_BEFORE: None}}}, "shop")
        await rig.idle()
        assert identity(server)["status"]["revokedBefore"] == cutoff, "removing the annotation undoes nothing"


async def test_keys_by_the_common_names(server: FakeApi, tmp_path: Path, console: Console) -> None:
    async with running(server, tmp_path) as rig, serving(server):
        old = await issued_key(rig)
        rotated = await console("rotate", "zkey/partner", "-n", "shop", "--timeout", "20s")
        assert rotated.exit_code == 0, rotated.output
        overlap = await console("status", "-n", "shop")
        assert f"zkey shop/partner  {old}" in overlap.stdout
        revoked = await console("revoke", "apikey/partner", "-n", "shop", "--key-id", old, "--timeout", "20s")
        assert revoked.exit_code == 0, revoked.output
        assert (await console("why", "apikeys/partner", "-n", "shop")).exit_code in (0, 1)
        for wrong in (("zkey/partner", "--before", "2026-01-01T00:00:00Z"), ("svid/orders", "--current")):
            assert (await console("revoke", *wrong)).exit_code == 2


async def test_ten_thousand_identities_fit_on_a_screen(server: FakeApi, console: Console) -> None:
    now = datetime.now(UTC)
    for number in range(10_000):
        ready = number % 10 != 0
        conditions = [
            {"type": "Ready", "status": str(ready), "reason": "Issued" if ready else "Expired", "message": "why " * 40},
            {"type": "RenewalOverdue", "status": "False", "reason": "OnTime", "message": ""},
        ]
        end = times.render(now + timedelta(hours=1, seconds=number))
        status = {"observedGeneration": 1, "conditions": conditions, "notAfter": end, "renewalTime": end}
        server.create({**resource("ServiceIdentity", f"s{number:05}", "shop"), "status": status})
    result = await console("status", "-n", "shop", COLUMNS="80", FORCE_COLOR="1")
    assert result.exit_code == 1
    lines = re.sub(r"\x1b\[[0-9;]*m", "", result.stdout).splitlines()
    assert len(lines) < 70
    assert max(map(len, lines)) <= 80, [line for line in lines if len(line) > 80]
    assert "WRONG (1000)" in lines
    assert "… and 992 more; --limit 0 shows all" in lines


async def test_doctor_sees_what_is_there_and_what_is_missing(server: FakeApi, tmp_path: Path, console: Console) -> None:
    def verdicts(result: Result) -> dict[str, list[tuple[str, str]]]:
        found: dict[str, list[tuple[str, str]]] = {}
        for one in json.loads(result.stdout)["checks"]:
            found.setdefault(one["check"], []).append((one["verdict"], one["found"]))
        return found

    bare = await console("doctor", "-o", "json")
    assert bare.exit_code == 1
    found = verdicts(bare)
    assert found["Kubernetes"] == [("ok", "v1.37.0")]
    assert found["Controller"][0][0] == "fail"
    assert [verdict for verdict, _ in found["Rights"]] == ["fail", "fail"]
    assert "none of its rights" in found["Rights"][0][1]
    assert found["Network plugin"][0][0] == "unknown"
    assert [verdict for verdict, _ in found["Admission policies"]] == ["fail", "fail"]
    assert "lacks" in found["CRDs"][0][1]

    for policy in install()["policies"]:
        name = policy["name"]
        actions = {"validationActions": ["Audit" if name == "zerotrust-isolation-exempt" else "Deny"]}
        for kind, spec in ((policy["kind"], {}), (f"{policy['kind']}Binding", {"policyName": name, **actions})):
            server.create({"apiVersion": f"{_ADMISSION}/v1", "kind": kind, "metadata": {"name": name}, "spec": spec})
    daemons = {"template": {"spec": {"containers": [{"name": "kube-flannel"}]}}}
    server.create({**_in("kube-system", "apps/v1", "DaemonSet", "kube-flannel-ds"), "spec": daemons})
    server.reviews.may = lambda spec: spec["resourceAttributes"]["resource"] != "configmaps"
    async with running(server, tmp_path):
        found = verdicts(await console("doctor", "-o", "json"))
    assert found["Controller"][0][0] == "ok"
    assert found["Network plugin"][0][0] == "fail"
    assert "a guess" in found["Network plugin"][0][1]
    assert (
        "fail",
        "ValidatingAdmissionPolicy zerotrust-isolation-exempt installed, but no binding makes it refuse",
    ) in found["Admission policies"]
    assert "may not: create,delete,get,list,patch,watch configmaps" in found["Rights"][0][1]

    server.faults.on(verb="list", resource="pods", action=Respond(403), times=50)
    blind = await console("doctor")
    assert "Decision points     unknown" in blind.stdout


async def test_doctor_asks_for_rights_where_the_controller_works(server: FakeApi, console: Console) -> None:
    """With --watch-namespace Roles are enough, so nothing in other namespaces is asked for."""
    pod = _in(OPERATOR_NAMESPACE, "v1", "Pod", "controller-1")
    pod["metadata"]["labels"] = {"app.kubernetes.io/name": "zerotrust-controller"}
    arguments = ["controller", "--watch-namespace=shop", "--watch-namespace", "web"]
    container = {"name": "controller", "image": "none", "args": arguments}
    server.create({**pod, "spec": {"serviceAccountName": "limited", "containers": [container]}})
    await console("doctor")
    user = f"system:serviceaccount:{OPERATOR_NAMESPACE}:limited"
    asked = [one["resourceAttributes"] for one in server.reviews.asked_rights if one["user"] == user]
    secrets = {one["namespace"] for one in asked if (one["group"], one["resource"]) == ("", "secrets")}
    assert secrets == {"shop", "web", OPERATOR_NAMESPACE}
    assert {one["namespace"] for one in asked if one["resource"] == "trustdomains"} == {""}


def _in(namespace: str, version: str, kind: str, name: str) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": namespace}}
