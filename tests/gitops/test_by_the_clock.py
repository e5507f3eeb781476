"""What Argo CD shows while time passes: renewals, rotations, overdue and expired, in the whole controller's own statuses.

The controller is the real one, its API server a strict fake that lives in the same pretended time.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.contract.test_apikeys import condition as key_condition
from tests.contract.test_apikeys import issued, serving, status
from tests.support.argocd import Customizations, by_argo_cd
from tests.support.clock import FakeClock
from tests.support.fakeapi import FakeApi
from tests.support.proving import PROVING
from tests.support.rig import OPERATOR_NAMESPACE, TRUST_DOMAIN, Rig, running
from tests.support.statuses import Recorder
from zerotrust.common import times
from zerotrust.engine.clock import SystemClock
from zerotrust.kube.client import Client

ARGO = Customizations()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(SystemClock().now())


@pytest.fixture
async def server(clock: FakeClock) -> AsyncIterator[FakeApi]:
    async with FakeApi(namespaces=[OPERATOR_NAMESPACE, "shop"], clock=clock.now) as server:
        yield server


class Shown:
    """What Argo CD shows of each version of an object, each verdict once; Argo CD's own code is asked in `make prove`."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    async def of(self, kind: str, name: str, namespace: str = "shop") -> list[str]:
        await asyncio.to_thread(self._recorder.until_quiet, 0.2)
        versions = self._recorder.of_object(kind, name, namespace)
        found = [ARGO.health(one)._asdict() for one in versions]
        if PROVING:
            theirs = await asyncio.to_thread(by_argo_cd, "health", versions)
            assert [{"message": "", **one} for one in theirs] == found
        verdicts = [one["status"] for one in found]
        return [one for number, one in enumerate(verdicts) if number == 0 or verdicts[number - 1] != one]


@contextlib.asynccontextmanager
async def recording(server: FakeApi) -> AsyncIterator[Shown]:
    recorder = Recorder(server.url)
    await asyncio.to_thread(recorder.__enter__)  # it waits for the server, which lives in this loop
    try:
        yield Shown(recorder)
    finally:
        await asyncio.to_thread(recorder.__exit__, None, None, None)


@contextlib.asynccontextmanager
async def ticking(clock: FakeClock) -> AsyncIterator[None]:
    """Time passes, some twenty times as fast as outside."""

    async def tick() -> None:
        while True:
            clock.advance(timedelta(milliseconds=200))
            await asyncio.sleep(0.01)

    task = asyncio.create_task(tick())
    try:
        yield
    finally:
        task.cancel()


async def advance_to(rig: Rig, clock: FakeClock, moment: str) -> None:
    clock.advance(times.parse(moment) - clock.now() + timedelta(seconds=1))
    await rig.idle()


def identity(server: FakeApi) -> dict[str, str]:
    return dict((server.get("ServiceIdentity", "orders", "shop") or {})["status"])


async def test_renewals_are_not_seen(server: FakeApi, tmp_path: Path, clock: FakeClock) -> None:
    async with recording(server) as shown, running(server, tmp_path, clock) as rig:
        rig.domain()
        rig.identity()
        await rig.until(rig.is_ready)
        for revision in range(2, 22):
            await advance_to(rig, clock, identity(server)["renewalTime"])
            await rig.until(lambda r=revision: identity(server)["revision"] == r)
        assert await shown.of("ServiceIdentity", "orders") == ["Progressing", "Healthy"]
        assert await shown.of("TrustDomain", TRUST_DOMAIN, "") == ["Progressing", "Healthy"]


async def test_a_certificate_that_ended_while_the_controller_was_away_is_renewed_first(
    server: FakeApi, tmp_path: Path, clock: FakeClock
) -> None:
    async with recording(server) as shown:
        async with running(server, tmp_path, clock) as rig:
            rig.domain()
            rig.identity()
            await rig.until(rig.is_ready)
        clock.advance(timedelta(days=3))
        async with running(server, tmp_path, clock) as rig:
            await rig.until(lambda: identity(server)["revision"] == 2)
            await rig.idle()
        assert await shown.of("ServiceIdentity", "orders") == ["Progressing", "Healthy"]


async def test_a_paused_identity_is_suspended_then_degraded_then_healthy(
    server: FakeApi, tmp_path: Path, clock: FakeClock
) -> None:
    async with recording(server) as shown, running(server, tmp_path, clock) as rig:
        rig.domain()
        rig.identity()
        await rig.until(rig.is_ready)
        server.patch("ServiceIdentity", "orders", {"spec": {"issuance": "Paused"}}, "shop")
        await rig.watching()
        await rig.until(lambda: identity(server)["observedGeneration"] == 2)
        end = identity(server)["notAfter"]
        await advance_to(rig, clock, identity(server)["renewalTime"])
        await rig.until(lambda: rig.condition("RenewalOverdue") == ("True", "Paused"))
        await advance_to(rig, clock, end)
        await rig.until(lambda: rig.condition("Ready") == ("False", "Expired"))
        server.patch("ServiceIdentity", "orders", {"spec": {"issuance": "Active"}}, "shop")
        await rig.until(rig.is_ready)
        steps = await shown.of("ServiceIdentity", "orders")
    # Between an edit and the operator's answer to it, nobody can say more than that it goes on.
    assert steps == [
        "Progressing", "Healthy", "Progressing", "Suspended", "Degraded", "Progressing", "Healthy",
    ]  # fmt: skip


async def test_an_authority_that_ends_is_degraded_with_what_it_signed(
    server: FakeApi, tmp_path: Path, clock: FakeClock
) -> None:
    async with recording(server) as shown, running(server, tmp_path, clock) as rig:
        rig.domain(certificateAuthority={"duration": "12h"}, identities={"duration": "2h", "maxDuration": "2h"})
        rig.identity()
        await rig.until(rig.is_ready)
        end = (server.get("TrustDomain", TRUST_DOMAIN) or {})["status"]["certificateAuthorities"][0]["notAfter"]
        while clock.now() < times.parse(end) - timedelta(minutes=30):
            clock.advance(timedelta(minutes=10))
            await rig.idle()
        assert await shown.of("TrustDomain", TRUST_DOMAIN, "") == ["Progressing", "Healthy"]
        assert await shown.of("ServiceIdentity", "orders") == ["Progressing", "Healthy"], "what it has still works"
        await advance_to(rig, clock, end)
        await rig.until(lambda: rig.condition("Ready", TRUST_DOMAIN, None) == ("False", "AuthorityExpired"))
        await rig.until(lambda: rig.condition("Ready") == ("False", "Expired"))
        assert (await shown.of("TrustDomain", TRUST_DOMAIN, ""))[-1] == "Degraded"
        assert (await shown.of("ServiceIdentity", "orders"))[-1] == "Degraded"


async def test_rotations_of_a_key_are_not_seen_and_its_end_is(
    server: FakeApi, tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A jump of the clock while an answer is on its way would look like clocks that disagree.
    monkeypatch.setattr(Client, "skew", property(lambda _: timedelta(), lambda *_: None), raising=False)
    async with (
        recording(server) as shown,
        running(server, tmp_path, clock) as rig,
        serving(server),
        ticking(clock),
    ):
        end = times.render(clock.now() + timedelta(days=6))
        await issued(rig, rotation={"interval": "24h", "overlap": "4h"}, maxKeyAge="48h", notAfter=end)
        for _ in range(4):
            before = status(server)["keyID"]
            await advance_to(rig, clock, status(server)["nextRotationTime"])
            await rig.until(lambda old=before: status(server)["keyID"] != old)
            await rig.until(lambda: key_condition(server, "OverlapActive")[0] == "True")
            clock.advance(timedelta(hours=5))
            await rig.until(lambda: key_condition(server, "OverlapActive")[0] == "False")
        assert await shown.of("ApiKey", "partner") == ["Progressing", "Healthy"]
        await advance_to(rig, clock, end)
        await rig.until(lambda: key_condition(server, "Ready") == ("False", "GrantEnded"))
        assert await shown.of("ApiKey", "partner") == ["Progressing", "Healthy", "Degraded"]
