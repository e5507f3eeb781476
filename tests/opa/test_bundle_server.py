"""A real OPA as client of the bundle server: TLS, token, held polls, status reports, decision logs, a replica that lags."""

import gzip
import hashlib
import io
import ipaddress
import json
import tarfile
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from tests.support.bundleserver import POLICY, Rig, an_id, an_svid, serving
from tests.support.opa import Opa, running_opa
from zerotrust.bundleserver.decisions import Labels
from zerotrust.bundleserver.intake import BundleState
from zerotrust.bundleserver.shelf import Bundle

MODULE = """package zerotrust.authz

decision := {
	"allowed": input.request.method == "GET", "reason": reason, "server": "%s", "client": "%s",
	"policy": "p", "rule": "r", "serial": %d,
}

reason := "allowed" if input.request.method == "GET" else := "no_grant"
"""


def a_bundle(serial: int) -> Bundle:
    """An archive, unsigned, whose decision tells its serial."""
    module = MODULE % (an_id("orders"), an_id("frontend", "web"), serial)
    digest = hashlib.sha256(module.encode()).hexdigest()
    manifest = json.dumps({"revision": digest, "roots": ["zerotrust/authz"], "rego_version": 1})
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, text in ((".manifest", manifest), ("authz.rego", module)):
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return Bundle(serial, digest, 0, gzip.compress(packed.getvalue(), mtime=0), datetime.now(UTC) + timedelta(hours=1))


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    folder = tmp_path / "server"
    folder.mkdir()
    async with serving(folder, drain_grace_seconds=0.2) as rig:
        here = (x509.IPAddress(ipaddress.ip_address("127.0.0.1")),)
        rig.install(an_svid(rig.authority, "bundle-server", "zerotrust-system", other_names=here), rig.authority)
        assert rig.tls.reload()
        rig.shelf.publish(POLICY, a_bundle(1))
        yield rig


@pytest.fixture
async def opa(rig: Rig, tmp_path: Path) -> AsyncIterator[Opa]:
    token = tmp_path / "token"
    token.write_text(rig.token())
    service = {
        "url": f"https://127.0.0.1:{rig.server.port}",
        "credentials": {"bearer": {"token_path": str(token)}},
        "tls": {"ca_cert": str(rig.folder / "ca.crt"), "min_version": "1.3"},
    }
    polling = {"long_polling_timeout_seconds": 20, "min_delay_seconds": 1, "max_delay_seconds": 1}
    configuration = {
        "services": {"zerotrust": service},
        "bundles": {"policy": {"service": "zerotrust", "resource": "/bundles/k1/shop/policy", "polling": polling}},
        "status": {"service": "zerotrust"},
        "decision_logs": {"service": "zerotrust", "reporting": {"min_delay_seconds": 1, "max_delay_seconds": 1}},
    }
    async with running_opa(tmp_path / "opa", configuration) as opa:
        await opa.ready()
        yield opa


async def serial_of(opa: Opa) -> int:
    return int((await opa.ask({"request": {"method": "GET"}}))["serial"])


async def until_serial(rig: Rig, opa: Opa, serial: int) -> float:
    """Seconds until the OPA decides by this serial."""
    started = time.monotonic()
    while await serial_of(opa) != serial:
        assert time.monotonic() - started < 10
    return time.monotonic() - started


def states(rig: Rig) -> list[BundleState]:
    """What was reported of the bundle; OPA's first report may come before it has one."""
    return [report.bundles["policy"] for report in rig.sinks.reports if report.bundles]


async def test_opa_is_held_and_woken_and_reports(rig: Rig, opa: Opa) -> None:
    await rig.waiting(1)
    answered = rig.metric("requests_total", route="bundle", code="200")
    for serial in (2, 3, 4):
        rig.shelf.publish(POLICY, a_bundle(serial))
        assert await until_serial(rig, opa, serial) < 3
        await rig.waiting(1)
    assert rig.metric("requests_total", route="bundle", code="200") == answered + 3
    assert rig.metric("requests_total", route="bundle", code="304") == 0, "held, not answered again and again"
    await rig.api.until(
        lambda: (
            rig.sinks.reports and rig.sinks.reports[-1].bundles["policy"].active_revision == a_bundle(4).content_hash
        )
    )
    report = rig.sinks.reports[-1]
    assert (report.pod_uid, report.key_ids, report.bundles["policy"].error) == ("uid-orders-0", {"k1"}, "")
    activated = report.bundles["policy"].activated_at
    assert activated is not None
    assert datetime.now(UTC) - activated < timedelta(minutes=1)
    assert [delivery.serial for delivery in rig.sinks.deliveries] == [1, 2, 3, 4]


async def test_decision_logs_of_opa_are_read(rig: Rig, opa: Opa) -> None:
    assert not (await opa.ask({"request": {"method": "POST", "headers": {"authorization": "Bearer secret"}}}))[
        "allowed"
    ]
    await rig.api.until(lambda: any(summary.denials for summary in rig.sinks.summaries))
    summary = next(summary for summary in rig.sinks.summaries if summary.denials)
    assert summary.decided[Labels(an_id("orders"), an_id("frontend", "web"), "no_grant")] == 1
    assert (summary.malformed, summary.foreign, summary.denials[0].method) == (0, 0, "POST")
    assert "secret" not in repr(summary)


async def test_a_broken_bundle_is_reported_and_the_last_good_one_stays(rig: Rig, opa: Opa) -> None:
    broken = a_bundle(2)
    rig.shelf.publish(POLICY, Bundle(2, broken.content_hash, 0, b"no archive", broken.not_after))
    await rig.api.until(lambda: any(state.error for state in states(rig)))
    failed = next(state for state in states(rig) if state.error)
    assert failed.error == "bundle_error"
    assert failed.active_revision == a_bundle(1).content_hash
    assert await serial_of(opa) == 1


async def test_a_replica_that_lags_holds_opa_where_it_is(rig: Rig, opa: Opa) -> None:
    rig.shelf.publish(POLICY, a_bundle(5))
    await until_serial(rig, opa, 5)
    rig.shelf.drop(POLICY)
    rig.shelf.publish(POLICY, a_bundle(4))  # as if the next request came to another replica
    await rig.waiting(1)
    assert await serial_of(opa) == 5
    rig.shelf.publish(POLICY, a_bundle(6))
    await until_serial(rig, opa, 6)
    assert [delivery.serial for delivery in rig.sinks.deliveries] == [1, 5, 6]
