"""Faults that a real API server cannot be told to have: the right end state, no key lost, no tight loop."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.fakeapi import MUTATING, Action, CloseBefore, FakeApi, Halt, Hang, LoseAnswer, Respond
from tests.support.rig import OPERATOR_NAMESPACE, TRUST_DOMAIN, Rig, replica, running
from zerotrust.common import naming
from zerotrust.pki import secret as secrets

IDENTITIES = ("orders", "payments", "frontend")


@pytest.fixture
async def server():
    async with FakeApi(namespaces=[OPERATOR_NAMESPACE, "shop", "web"]) as server:
        yield server


async def everything_ready(rig: Rig) -> None:
    await rig.until(lambda: all(rig.is_ready(name) for name in IDENTITIES))
    await rig.until(lambda: rig.condition("BundlePublished", TRUST_DOMAIN, None)[0] == "True")
    await rig.until(lambda: rig.server.get("ConfigMap", naming.trust_bundle_name(TRUST_DOMAIN), "shop"))


def populate(rig: Rig) -> None:
    rig.domain()
    for name in IDENTITIES:
        rig.identity(name)


def check_end_state(server: FakeApi) -> None:
    """One authority, one Secret each, keys that match, leaves that verify, status that tells of the present Secret."""
    authorities = [
        body
        for body in server.list("Secret", OPERATOR_NAMESPACE)
        if body["metadata"]["labels"][naming.COMPONENT] == naming.COMPONENT_AUTHORITY
    ]
    assert len(authorities) == 1
    for name in IDENTITIES:
        body = server.get("Secret", f"{name}-svid", "shop")
        assert body is not None
        facts = secrets.observe(body).certificate
        assert facts is not None
        assert facts.key_matches
        assert facts.spiffe_ids == (f"spiffe://{TRUST_DOMAIN}/ns/shop/sa/{name}",)
        from zerotrust.pki import x509 as profiles

        root = profiles.read_pem(secrets.value_of(authorities[0], secrets.CERTIFICATE))
        profiles.verify_chain(facts.chain(), root, facts.not_before + timedelta(seconds=61))
        assert secrets.value_of(body, secrets.AUTHORITIES) == profiles.write_pem(*root)
        identity = server.get("ServiceIdentity", name, "shop")
        assert identity is not None
        assert identity["status"]["serialNumber"] == f"{facts.serial_number:x}"
    bundle = server.get("ConfigMap", naming.trust_bundle_name(TRUST_DOMAIN), "shop")
    assert bundle is not None


FAILURES: dict[str, tuple[Action, int]] = {
    "conflict": (Respond(409), 1),
    "throttled": (Respond(429, retry_after=1), 1),
    "error 500": (Respond(500), 3),
    "error 503": (Respond(503), 1),
    "forbidden": (Respond(403), 2),
    "no answer": (Hang(), 1),
    "closed before": (CloseBefore(), 2),
    "answer lost": (LoseAnswer(), 2),
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize(
    "write",
    [
        ("create", "secrets"),
        ("patch", "serviceidentities"),
        ("create", "configmaps"),
        ("patch", "trustdomains"),
        ("create", "events"),
    ],
)
async def test_a_failing_write_is_made_good(
    server: FakeApi, tmp_path: Path, write: tuple[str, str], failure: str
) -> None:
    action, times = FAILURES[failure]
    server.faults.on(verb=write[0], resource=write[1], action=action, times=times)
    async with running(server, tmp_path) as rig:
        populate(rig)
        await everything_ready(rig)
        await rig.idle()
        issued = rig.issued()
    server.faults.assert_all_used()
    check_end_state(server)
    # A lost or failed write to one object may cost one further certificate for each time it happened, never more.
    assert issued <= len(IDENTITIES) + times


@pytest.mark.parametrize("failure", ["conflict", "error 500", "answer lost", "no answer"])
@pytest.mark.parametrize("target", ["secrets", "serviceidentities"])
async def test_a_failing_renewal_is_made_good(server: FakeApi, tmp_path: Path, target: str, failure: str) -> None:
    action, times = FAILURES[failure]
    async with running(server, tmp_path) as rig:
        populate(rig)
        await everything_ready(rig)
        before = rig.secret()
        server.faults.on(verb="patch", resource=target, name=None, action=action, times=times)
        await rig.watching()
        server.patch(
            "ServiceIdentity",
            "orders",
            {"metadata": {"annotations": {naming.ROTATE_REQUESTED: "2020-01-01T00:00:00Z"}}},
            "shop",
        )
        await rig.idle()
        assert rig.secret() == before, "an older trigger does nothing"
        server.patch("ServiceIdentity", "orders", {"spec": {"certificate": {"duration": "2h"}}}, "shop")
        await rig.until(lambda: rig.secret()["data"] != before["data"])
        await rig.until(lambda: not rig.controller.engine.scheduler.when(("retry", _key("orders"))))
        await rig.idle()
        await rig.until(lambda: _status_is_true(server, "orders"))
    server.faults.assert_all_used()
    check_end_state(server)


def _key(name: str):
    from zerotrust.common.naming import Ref
    from zerotrust.engine.controller import Key

    return Key("ServiceIdentity", Ref("ServiceIdentity", "shop", name))


def _status_is_true(server: FakeApi, name: str) -> bool:
    body, identity = server.get("Secret", f"{name}-svid", "shop"), server.get("ServiceIdentity", name, "shop")
    assert body is not None
    assert identity is not None
    facts = secrets.observe(body).certificate
    return facts is not None and identity["status"].get("serialNumber") == f"{facts.serial_number:x}"


async def test_killed_between_any_two_writes(server: FakeApi, tmp_path: Path) -> None:
    """Kill after the first write, after the second, … until a run gets through; each restart goes on from what is there."""
    kills = 0
    for nth in range(1, 40):
        async with FakeApi(namespaces=[OPERATOR_NAMESPACE, "shop"]) as fresh:
            rig = Rig(fresh, tmp_path)
            await rig.start()
            rule = fresh.faults.on(
                verb=MUTATING,
                when=lambda exchange: exchange.resource not in ("leases", "events"),
                nth=nth,
                action=Halt(),
            )
            populate(rig)
            try:
                await fresh.wait_halted(3)
            except TimeoutError:
                assert rule.fired == 0, "every write of a whole run was reached"
                await rig.stop()
                break
            kills += 1
            await rig.kill()
            keys = {body["metadata"]["name"]: body["data"].get("tls.key") for body in fresh.list("Secret")}
            await rig.start()
            await everything_ready(rig)
            await rig.idle()
            check_end_state(fresh)
            after = {body["metadata"]["name"]: body["data"].get("tls.key") for body in fresh.list("Secret")}
            assert {name: after.get(name) for name in keys} == keys, "a key that was written is kept"
            await rig.stop()
    assert kills >= 3 + 2 * len(IDENTITIES)


async def test_a_lasting_outage_backs_off_and_shows_in_the_status(server: FakeApi, tmp_path: Path) -> None:
    async with running(server, tmp_path) as rig:
        rig.domain()
        await rig.until(lambda: rig.condition("Ready", TRUST_DOMAIN, None)[0] == "True")
        refused = server.faults.on(verb="create", resource="secrets", namespace="shop", action=Respond(500), times=None)
        rig.identity()
        await rig.until(lambda: rig.condition() == ("False", "WriteFailed"))
        await asyncio.sleep(2)
        status = (server.get("ServiceIdentity", "orders", "shop") or {})["status"]
        assert status["failedAttempts"] >= 2
        assert status["nextAttemptTime"]
        # Back-off doubles from 40 ms to 1 s here: within these seconds some ten attempts, never hundreds.
        assert refused.seen < 25
        server.faults.clear()
        await rig.until(rig.is_ready)
        await rig.until(
            lambda: "failedAttempts" not in (server.get("ServiceIdentity", "orders", "shop") or {})["status"]
        )


async def test_a_cut_watch_is_resumed(server: FakeApi, tmp_path: Path) -> None:
    async with running(server, tmp_path) as rig:
        rig.domain()
        await rig.watching()
        assert server.cut_watches() > 0
        rig.identity()
        await rig.until(rig.is_ready)


async def test_deletions_during_a_gone_watch_are_found(server: FakeApi, tmp_path: Path) -> None:
    """kopf lists again after a 410 and tells nobody what is gone; the comparison does."""
    async with running(server, tmp_path) as rig:
        populate(rig)
        await everything_ready(rig)
        await rig.watching()
        await rig.until(lambda: not rig.controller.watch.comparing)
        for kind in ("svid", "secrets", "serviceaccounts"):
            server.hold_watches(kind)
        server.delete("ServiceIdentity", "payments", "shop")
        server.delete("ServiceAccount", "frontend", "shop")
        server.compact()
        server.cut_watches()
        for kind in ("svid", "secrets", "serviceaccounts"):
            server.release_watches(kind)
        await rig.until(lambda: rig.condition(name="frontend") == ("False", "ServiceAccountNotFound"))
        await rig.until(lambda: rig.controller.cache.count("ServiceIdentity") == 2)
        assert server.get("Secret", "payments-svid", "shop") is None
        assert server.get("Secret", "frontend-svid", "shop") is not None


@pytest.mark.parametrize("how", ["status 410", "in-stream 500"])
async def test_what_kopf_dies_of_ends_the_process(server: FakeApi, tmp_path: Path, how: str) -> None:
    process = await replica(server, tmp_path, "first")
    await server.until(lambda: server.open_watches("svid") and server.open_watches("secrets"), 30)
    if how == "status 410":
        server.gone_as_status("svid")
        server.cut_watches("svid")
    else:
        server.error_in_stream("svid", 500)
    assert await asyncio.wait_for(process.wait(), 30) == 1
    assert "the watch has ended" in (tmp_path / "first.log").read_text()
    async with running(server, tmp_path) as again:
        populate(again)
        await everything_ready(again)
    check_end_state(server)


async def test_a_foreign_edit_is_repaired_and_counted(server: FakeApi, tmp_path: Path) -> None:
    async with running(server, tmp_path) as rig:
        populate(rig)
        await everything_ready(rig)
        await rig.watching()
        before = rig.secret()
        server.patch("Secret", "orders-svid", {"data": {"ca.crt": secrets.encode(b"not a bundle")}}, "shop")
        await rig.until(lambda: rig.secret()["data"] == before["data"])
        server.patch("Secret", "orders-svid", {"metadata": {"labels": {naming.MANAGED_BY: None}}}, "shop")
        await rig.until(lambda: rig.secret()["metadata"]["labels"] == before["metadata"]["labels"])
        bundle = naming.trust_bundle_name(TRUST_DOMAIN)
        server.patch("ConfigMap", bundle, {"data": {"bundle.pem": "edited", "extra": "x"}}, "shop")
        await rig.until(
            lambda: set((server.get("ConfigMap", bundle, "shop") or {})["data"]) == {"bundle.pem", "bundle.spiffe.json"}
        )
        server.delete("ConfigMap", bundle, "shop")
        await rig.until(lambda: server.get("ConfigMap", bundle, "shop"))
        metrics = rig.controller.metrics.render().decode()
        assert 'zerotrust_repaired_total{kind="Secret"}' in metrics
        assert 'zerotrust_repaired_total{kind="ConfigMap"}' in metrics
        server.patch("Secret", "orders-svid", {"data": {"tls.key": secrets.encode(b"not a key")}}, "shop")
        await rig.until(lambda: secrets.observe(rig.secret()).certificate.key_matches)  # type: ignore[union-attr]
        await rig.until(lambda: _status_is_true(server, "orders"))
    check_end_state(server)
