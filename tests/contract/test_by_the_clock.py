"""Conditions tell the truth by the clock: time passes, and nobody sends an event."""

from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.clock import FakeClock
from tests.support.fakeapi import FakeApi
from tests.support.rig import OPERATOR_NAMESPACE, TRUST_DOMAIN, Rig, running
from zerotrust.common import naming, times
from zerotrust.engine.clock import SystemClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(SystemClock().now())


@pytest.fixture
async def server(clock: FakeClock):
    # The server lives in the same time, or the clocks would rightly be said to disagree.
    async with FakeApi(namespaces=[OPERATOR_NAMESPACE, "shop"], clock=clock.now) as server:
        yield server


async def advance_to(rig: Rig, clock: FakeClock, moment: str, beyond: timedelta = timedelta(seconds=1)) -> None:
    clock.advance(times.parse(moment) - clock.now() + beyond)
    await rig.idle()


async def paused_identity(rig: Rig) -> dict[str, str]:
    """An identity that was issued and may not be renewed; returns its status."""
    rig.domain()
    rig.identity()
    await rig.until(rig.is_ready)
    rig.server.patch("ServiceIdentity", "orders", {"spec": {"issuance": "Paused"}}, "shop")
    await rig.watching()
    await rig.until(
        lambda: (rig.server.get("ServiceIdentity", "orders", "shop") or {})["status"]["observedGeneration"] == 2
    )
    return dict((rig.server.get("ServiceIdentity", "orders", "shop") or {})["status"])


async def test_overdue_at_the_due_time_and_not_ready_at_the_end(
    server: FakeApi, tmp_path: Path, clock: FakeClock
) -> None:
    async with running(server, tmp_path, clock) as rig:
        status = await paused_identity(rig)
        await advance_to(rig, clock, status["renewalTime"], -timedelta(seconds=2))
        assert rig.condition("RenewalOverdue") == ("False", "OnTime")
        await advance_to(rig, clock, status["renewalTime"])
        await rig.until(lambda: rig.condition("RenewalOverdue") == ("True", "Paused"))
        assert rig.is_ready()
        await advance_to(rig, clock, status["notAfter"], -timedelta(seconds=2))
        assert rig.is_ready()
        await advance_to(rig, clock, status["notAfter"])
        await rig.until(lambda: rig.condition("Ready") == ("False", "Expired"))
        server.patch("ServiceIdentity", "orders", {"spec": {"issuance": "Active"}}, "shop")
        await rig.until(rig.is_ready)
        await rig.until(lambda: rig.condition("RenewalOverdue") == ("False", "OnTime"))


async def test_renewal_comes_at_its_time_and_stays_ready(server: FakeApi, tmp_path: Path, clock: FakeClock) -> None:
    async with running(server, tmp_path, clock) as rig:
        rig.domain()
        rig.identity()
        await rig.until(rig.is_ready)
        for revision in range(2, 5):
            status = (server.get("ServiceIdentity", "orders", "shop") or {})["status"]
            before = rig.secret()["data"]
            server.reset_counts()
            await advance_to(rig, clock, status["renewalTime"], -timedelta(seconds=2))
            assert rig.secret()["data"] == before
            await advance_to(rig, clock, status["renewalTime"])
            await rig.until(
                lambda r=revision: (server.get("ServiceIdentity", "orders", "shop") or {})["status"]["revision"] == r
            )
            assert rig.is_ready()
            assert rig.secret()["data"]["tls.key"] != before["tls.key"]
            mine = [write[:2] for write in rig.writes() if write[2] == "shop" and write[1] != "events"]
            assert mine == [("patch", "secrets"), ("patch", "serviceidentities/status")]


async def test_an_expired_authority_is_told_and_leaves_are_cut_short(
    server: FakeApi, tmp_path: Path, clock: FakeClock
) -> None:
    async with running(server, tmp_path, clock) as rig:
        rig.domain(certificateAuthority={"duration": "12h"}, identities={"duration": "2h", "maxDuration": "2h"})
        rig.identity()
        await rig.until(rig.is_ready)
        end = (server.get("TrustDomain", TRUST_DOMAIN) or {})["status"]["certificateAuthorities"][0]["notAfter"]
        while clock.now() < times.parse(end) - timedelta(minutes=30):
            clock.advance(timedelta(minutes=10))
            await rig.idle()
            await rig.until(rig.is_ready)
        status = (server.get("ServiceIdentity", "orders", "shop") or {})["status"]
        assert times.parse(status["notAfter"]) <= times.parse(end)
        await rig.until(
            lambda: rig.condition("CertificateAuthorityHealthy", TRUST_DOMAIN, None) == ("True", "ExpiringSoon")
        )
        secret = rig.secret()
        await advance_to(rig, clock, end)
        await rig.until(lambda: rig.condition("Ready", TRUST_DOMAIN, None) == ("False", "AuthorityExpired"))
        await rig.until(lambda: rig.condition("Ready") == ("False", "Expired"))
        assert rig.issued() < 40, "the end of an authority is no reason for a loop"
        assert rig.secret()["metadata"]["name"] == secret["metadata"]["name"]


async def test_the_authority_secret_is_deleted(server: FakeApi, tmp_path: Path, clock: FakeClock) -> None:
    async with running(server, tmp_path, clock) as rig:
        rig.domain()
        rig.identity()
        await rig.until(rig.is_ready)
        await rig.watching()
        before = rig.secret()
        (authority,) = [
            body["metadata"]["name"]
            for body in server.list("Secret", OPERATOR_NAMESPACE)
            if body["metadata"]["labels"][naming.COMPONENT] == naming.COMPONENT_AUTHORITY
        ]
        server.delete("Secret", authority, OPERATOR_NAMESPACE)
        await rig.until(
            lambda: rig.condition("CertificateAuthorityHealthy", TRUST_DOMAIN, None) == ("False", "AuthorityMissing")
        )
        assert rig.is_ready(), "what was signed keeps working"
        assert rig.secret() == before
        server.delete("ConfigMap", naming.trust_bundle_name(TRUST_DOMAIN), "shop")
        await rig.until(lambda: server.get("ConfigMap", naming.trust_bundle_name(TRUST_DOMAIN), "shop"))
        clock.advance(timedelta(seconds=10))
        asked = times.render(clock.now())
        server.patch(
            "TrustDomain", TRUST_DOMAIN, {"spec": {"certificateAuthority": {"rotation": {"requestedAt": asked}}}}
        )
        await rig.until(lambda: rig.condition("Ready", TRUST_DOMAIN, None)[0] == "True")
        await rig.until(lambda: rig.secret()["data"]["tls.crt"] != before["data"]["tls.crt"])
        bundle = (server.get("ConfigMap", naming.trust_bundle_name(TRUST_DOMAIN), "shop") or {})["data"]["bundle.pem"]
        assert bundle.count("BEGIN CERTIFICATE") == 2, "leaves of the lost authority still verify"


async def test_clocks_that_disagree_are_told(tmp_path: Path) -> None:
    ahead = FakeClock(SystemClock().now() + timedelta(hours=1))
    async with (
        FakeApi(namespaces=[OPERATOR_NAMESPACE, "shop"], clock=ahead.now) as server,
        running(server, tmp_path) as rig,
    ):
        rig.domain()
        await rig.until(lambda: rig.condition("ClockSkew", TRUST_DOMAIN, None) == ("True", "ClocksDisagree"))
