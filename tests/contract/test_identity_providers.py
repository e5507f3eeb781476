"""Identity providers: a real issuer over HTTPS, the controller, and what it publishes about the issuer's keys."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.clock import FakeClock
from tests.support.fakeapi import FakeApi
from tests.support.issuer import LOOPBACK, Issuer, running_issuer
from tests.support.rig import OPERATOR_NAMESPACE, TRUST_DOMAIN, Rig, running
from zerotrust.common.naming import Ref
from zerotrust.engine.clock import SystemClock
from zerotrust.engine.trustdomains import COUNTS
from zerotrust.opabundle import reports
from zerotrust.opabundle.reports import NamespaceReport, UnknownKid
from zerotrust.providers import memory

REPORT = "zt-reports-one"
MINUTE, SECOND = timedelta(minutes=1), timedelta(seconds=1)
STEP = timedelta(hours=6)  # a quarter of maxStale's default


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(SystemClock().now())


@pytest.fixture
async def server(clock: FakeClock) -> AsyncIterator[FakeApi]:
    async with FakeApi(namespaces=[OPERATOR_NAMESPACE, "shop", "web"], clock=clock.now) as server:
        yield server


@pytest.fixture
async def issuer(tmp_path: Path) -> AsyncIterator[Issuer]:
    async with running_issuer(tmp_path) as issuer:
        yield issuer


def controller(server: FakeApi, folder: Path, clock: FakeClock, *private: Any) -> AbstractAsyncContextManager[Rig]:
    started: AbstractAsyncContextManager[Rig] = running(server, folder, clock, private_issuers=private or (LOOPBACK,))
    return started


def stored(server: FakeApi, provider: str = "corp") -> dict[str, Any] | None:
    place = memory.place(OPERATOR_NAMESPACE, TRUST_DOMAIN, provider)
    body: dict[str, Any] | None = server.get("ConfigMap", place.name, OPERATOR_NAMESPACE)
    return body


def kids(server: FakeApi, provider: str = "corp") -> list[str]:
    """The key IDs that are published for decision points."""
    body = stored(server, provider)
    return [key["kid"] for key in json.loads(body["data"][memory.JWKS])["keys"]] if body else []


def told(server: FakeApi) -> tuple[str, str, str]:
    """Status, reason and message of the TrustDomain's condition."""
    body = server.get("TrustDomain", TRUST_DOMAIN) or {}
    for one in body.get("status", {}).get("conditions", []):
        if one["type"] == "IdentityProvidersReady":
            return one["status"], one["reason"], one["message"]
    return "", "", ""


def warnings(server: FakeApi) -> list[str]:
    """The warnings about identity providers; moving the clock makes some about clocks."""
    found = [one["reason"] for one in server.list("Event", "default") if one["type"] == "Warning"]
    return sorted(reason for reason in found if reason != "ClocksDisagree")


def change_providers(server: FakeApi, *providers: dict[str, Any]) -> None:
    server.patch("TrustDomain", TRUST_DOMAIN, {"spec": {"identityProviders": list(providers)}})


async def settled(rig: Rig) -> None:
    """Wait until nothing is fetched and nothing is waiting for work."""
    await rig.until(lambda: not rig.controller.key_fetching.busy and rig.controller.engine.idle)


async def later(rig: Rig, clock: FakeClock, by: timedelta) -> None:
    """Let time pass, in steps that no renewal of the Lease takes for an outage."""
    clock.advance(by)
    await asyncio.sleep(0.1)
    await settled(rig)


async def known(rig: Rig, clock: FakeClock, *providers: dict[str, Any]) -> None:
    """A TrustDomain whose providers' keys are known, and about which nothing else is left to tell."""
    rig.domain(identityProviders=list(providers))
    await rig.until(lambda: told(rig.server)[:2] == ("True", "KeysKnown"))
    await rig.watching()
    await rig.until(lambda: rig.condition("ClockSkew", TRUST_DOMAIN, None)[0] in ("True", "False"))
    await later(rig, clock, COUNTS + SECOND)
    await rig.until(lambda: rig.condition("BundlePublished", TRUST_DOMAIN, None)[0] == "True")


async def test_keys_are_published_and_told(server: FakeApi, issuer: Issuer, tmp_path: Path, clock: FakeClock) -> None:
    async with controller(server, tmp_path, clock) as rig:
        await known(rig, clock, issuer.provider())
        body = stored(server)
        assert body is not None
        assert body["metadata"]["labels"]["zerotrust.dev/component"] == "identity-provider"
        assert kids(server) == ["one"]
        end = json.loads(body["data"][memory.STATE])["not_after"]
        assert 18 * 3600 < end - clock.now().timestamp() <= 24 * 3600 + 600
        named = {"trust_domain": TRUST_DOMAIN, "provider": "corp"}
        gauge = "zerotrust_identity_provider_keys_end_timestamp_seconds"
        assert rig.controller.metrics.registry.get_sample_value(gauge, named) == end
        assert len(issuer.asked) == 1


async def test_the_issuer_may_say_where_its_keys_are(
    server: FakeApi, issuer: Issuer, tmp_path: Path, clock: FakeClock
) -> None:
    async with controller(server, tmp_path, clock) as rig:
        await known(rig, clock, issuer.provider(jwksURI=None))
        assert kids(server) == ["one"]


async def test_a_fetch_without_news_writes_nothing(
    server: FakeApi, issuer: Issuer, tmp_path: Path, clock: FakeClock
) -> None:
    issuer.publishes("one", etag='"a"')
    beyond = (clock.now().timestamp() + 600) % STEP.total_seconds()
    clock.advance(STEP - timedelta(seconds=beyond) + MINUTE)  # far from the next step of the published end
    async with controller(server, tmp_path, clock) as rig:
        await known(rig, clock, issuer.provider())
        server.reset_counts()
        for fetches in range(2, 6):
            await later(rig, clock, 10 * MINUTE)
            await rig.until(lambda n=fetches: len(issuer.asked) == n)
            await settled(rig)
        assert issuer.asked[-1]["If-None-Match"] == '"a"'
        assert rig.writes() == []


async def test_a_retired_key_is_accepted_one_max_age_longer(
    server: FakeApi, issuer: Issuer, tmp_path: Path, clock: FakeClock
) -> None:
    async with controller(server, tmp_path, clock) as rig:
        await known(rig, clock, issuer.provider())
        issuer.publishes("two")
        await later(rig, clock, 10 * MINUTE)
        await rig.until(lambda: kids(server) == ["one", "two"])
    async with controller(server, tmp_path, clock) as rig:  # a restart does not forget it
        await rig.watching()
        await settled(rig)
        assert kids(server) == ["one", "two"]
        await later(rig, clock, 9 * MINUTE)
        assert kids(server) == ["one", "two"]
        await later(rig, clock, MINUTE + SECOND)
        await rig.until(lambda: kids(server) == ["two"])


async def test_a_restart_writes_nothing_and_asks_only_when_it_is_time(
    server: FakeApi, issuer: Issuer, tmp_path: Path, clock: FakeClock
) -> None:
    async with controller(server, tmp_path, clock) as rig:
        await known(rig, clock, issuer.provider())
    server.reset_counts()
    async with controller(server, tmp_path, clock) as rig:
        await rig.watching()
        await rig.until(lambda: server.count_writes(resource="leases") >= 4)
        await settled(rig)
        assert rig.writes() == []
        await later(rig, clock, 9 * MINUTE)
        assert len(issuer.asked) == 1
        await later(rig, clock, MINUTE + SECOND)
        await rig.until(lambda: len(issuer.asked) == 2)


async def test_an_issuer_that_is_down_for_less_and_for_more_than_max_stale(
    server: FakeApi, issuer: Issuer, tmp_path: Path, clock: FakeClock
) -> None:
    async with controller(server, tmp_path, clock) as rig:
        await known(rig, clock, issuer.provider(maxStale="2h"))
        body = stored(server)
        assert body is not None
        end = json.loads(body["data"][memory.STATE])["not_after"]
        issuer.fails(503)
        await later(rig, clock, 10 * MINUTE)
        for _ in range(4):
            await later(rig, clock, MINUTE)
        await rig.until(lambda: told(server)[:2] == ("False", "FetchFailed"))
        assert "corp: 127.0.0.1 answered with status 503; its last keys are used until" in told(server)[2]
        assert kids(server) == ["one"]
        assert rig.condition("Ready", TRUST_DOMAIN, None)[0] == "True"
        clock.set(clock.now().fromtimestamp(end, clock.now().tzinfo))
        await rig.until(lambda: told(server)[:2] == ("False", "Stale"))
        body = stored(server)
        assert body is not None
        assert json.loads(body["data"][memory.STATE])["not_after"] == end, "keys that are too old do not get younger"
        await rig.until(lambda: warnings(server) == ["FetchFailed", "Stale"])
        issuer.publishes("one")
        await later(rig, clock, 5 * MINUTE)
        await rig.until(lambda: told(server)[:2] == ("True", "KeysKnown"))


async def test_a_restart_while_the_issuer_is_down_tells_nothing_anew(
    server: FakeApi, issuer: Issuer, tmp_path: Path, clock: FakeClock
) -> None:
    async with controller(server, tmp_path, clock) as rig:
        await known(rig, clock, issuer.provider())
        issuer.fails(503)
        for by in (10, 1, 1, 1):
            await later(rig, clock, by * MINUTE)
        await rig.until(lambda: told(server)[:2] == ("False", "FetchFailed"))
        await settled(rig)
        asked = len(issuer.asked)
    server.reset_counts()
    async with controller(server, tmp_path, clock) as rig:
        await rig.watching()
        await rig.until(lambda: len(issuer.asked) > asked)
        await settled(rig)
        assert rig.writes() == []


@pytest.mark.parametrize(
    ("status", "body", "headers", "says"),
    [
        (200, b'{"keys": [' + 70_000 * b" " + b"]}", {}, "more than 65536 bytes"),
        (302, b"", {"Location": "https://127.0.0.1/other"}, "redirect"),
        (200, b"<html>", {}, "not JSON"),
    ],
    ids=["huge", "redirecting", "nonsense"],
)
async def test_an_issuer_that_answers_badly_is_named(
    server: FakeApi,
    issuer: Issuer,
    tmp_path: Path,
    clock: FakeClock,
    status: int,
    body: bytes,
    headers: dict[str, str],
    says: str,
) -> None:
    issuer.fails(status, body, **headers)
    async with controller(server, tmp_path, clock) as rig:
        rig.domain(identityProviders=[issuer.provider()])
        await rig.until(lambda: told(server)[:2] == ("False", "FetchFailed"))
        assert says in told(server)[2]
        assert "none of its tokens is accepted" in told(server)[2]
        assert kids(server) == []


async def test_a_hanging_issuer_holds_up_nobody(
    server: FakeApi, issuer: Issuer, tmp_path: Path, clock: FakeClock
) -> None:
    (tmp_path / "other").mkdir()
    async with running_issuer(tmp_path / "other") as other, controller(server, tmp_path, clock) as rig:
        issuer.hangs()
        rig.domain(identityProviders=[issuer.provider("slow"), other.provider("quick")])
        await rig.until(lambda: kids(server, "quick") == ["one"], 5)
        await rig.until(lambda: rig.controller.engine.idle, 5)
        assert rig.controller.key_fetching.busy
        await rig.until(lambda: told(server)[:2] == ("False", "FetchFailed"))
        assert "slow: 127.0.0.1 took longer than 10 s" in told(server)[2]


async def test_private_addresses_are_refused_unless_they_are_allowed(
    server: FakeApi, issuer: Issuer, tmp_path: Path, clock: FakeClock
) -> None:
    async with running(server, tmp_path, clock) as rig:
        rig.domain(identityProviders=[issuer.provider()])
        await rig.until(lambda: told(server)[:2] == ("False", "FetchFailed"))
        assert "not public" in told(server)[2]
        assert issuer.asked == []


async def test_another_authority_is_not_trusted(
    server: FakeApi, issuer: Issuer, tmp_path: Path, clock: FakeClock
) -> None:
    async with controller(server, tmp_path, clock) as rig:
        rig.domain(identityProviders=[issuer.provider(caBundle=None)])
        await rig.until(lambda: told(server)[:2] == ("False", "FetchFailed"))
        assert "is not trusted; write its authority into caBundle" in told(server)[2]


async def test_a_provider_that_is_removed_or_moved_keeps_no_keys(
    server: FakeApi, issuer: Issuer, tmp_path: Path, clock: FakeClock
) -> None:
    async with controller(server, tmp_path, clock) as rig:
        await known(rig, clock, issuer.provider())
        issuer.fails()
        change_providers(server, issuer.provider(issuer="https://elsewhere.example.org"))
        await rig.until(lambda: told(server)[:2] == ("False", "FetchFailed"))
        await rig.until(lambda: kids(server) == [])
        change_providers(server)
        await rig.until(lambda: stored(server) is None)
        await rig.until(lambda: told(server) == ("", "", ""))


async def test_a_retired_key_can_be_dropped_at_once_by_taking_the_provider_out_and_in_again(
    server: FakeApi, issuer: Issuer, tmp_path: Path, clock: FakeClock
) -> None:
    async with controller(server, tmp_path, clock) as rig:
        await known(rig, clock, issuer.provider())
        issuer.publishes("two")
        await later(rig, clock, 10 * MINUTE)
        await rig.until(lambda: kids(server) == ["one", "two"])
        change_providers(server)
        await rig.until(lambda: stored(server) is None)
        change_providers(server, issuer.provider())
        await rig.until(lambda: kids(server) == ["two"])


async def test_what_was_removed_during_an_outage_is_deleted_afterwards(
    server: FakeApi, issuer: Issuer, tmp_path: Path, clock: FakeClock
) -> None:
    async with controller(server, tmp_path, clock) as rig:
        await known(rig, clock, issuer.provider())
    change_providers(server)
    async with controller(server, tmp_path, clock) as rig:
        await rig.until(lambda: stored(server) is None)


async def test_inline_keys_that_cannot_be_used_are_named(server: FakeApi, tmp_path: Path, clock: FakeClock) -> None:
    inline = {"name": "corp", "issuer": "https://login.example.org", "algorithms": ["ES256"], "jwks": '{"keys": []}'}
    async with controller(server, tmp_path, clock) as rig:
        rig.domain(identityProviders=[inline])
        await rig.until(lambda: told(server)[:2] == ("False", "UnusableKeys"))
        assert "corp: spec.identityProviders[0].jwks: " in told(server)[2]
        assert stored(server) is None


async def test_a_reported_unknown_key_fetches_once_a_minute(
    server: FakeApi, issuer: Issuer, tmp_path: Path, clock: FakeClock
) -> None:
    def report(kid: str) -> None:
        seen = UnknownKid("corp", kid, clock.now())
        body = reports.manifest(REPORT, OPERATOR_NAMESPACE, {"shop": NamespaceReport(unknown=(seen,))})
        if server.get("ConfigMap", REPORT, OPERATOR_NAMESPACE) is None:
            server.create(body)
        else:
            server.patch("ConfigMap", REPORT, {"data": body["data"]}, OPERATOR_NAMESPACE)

    async with controller(server, tmp_path, clock) as rig:
        rig.identity()
        await known(rig, clock, issuer.provider())
        await rig.until(rig.is_ready)
        await later(rig, clock, 2 * MINUTE)
        issuer.publishes("one", "two")
        report("two")
        await rig.until(lambda: kids(server) == ["one", "two"])
        assert len(issuer.asked) == 2
        for number in range(5):  # made up, and many
            report(f"junk-{number}")
            await rig.until(lambda n=number: _reported(rig, f"junk-{n}"))
            await later(rig, clock, SECOND)
        assert len(issuer.asked) == 2
        await later(rig, clock, MINUTE)
        report("junk")
        await rig.until(lambda: len(issuer.asked) == 3)
        await settled(rig)
        report("one")  # a replica that has not heard yet
        await rig.until(lambda: _reported(rig, "one"))
        await later(rig, clock, 2 * MINUTE)
        assert len(issuer.asked) == 3


def _reported(rig: Rig, kid: str) -> bool:
    observed = rig.controller.cache.get(Ref("ConfigMap", OPERATOR_NAMESPACE, REPORT))
    return observed is not None and [one.kid for one in reports.read(observed, "shop").unknown] == [kid]
