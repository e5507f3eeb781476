"""Key IDs that decision points lack, from their logs into a replica's report: bounded, and no more than one a minute each."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.fakeapi import FakeApi
from tests.support.replicas import OPERATOR
from tests.unit.bundleserver.test_reporting import REPORT, Rig
from zerotrust.bundleserver.decisions import LogSummary, UnknownKey
from zerotrust.bundleserver.sources import DecisionMetrics
from zerotrust.common.observed import config_map
from zerotrust.kube.client import Client, load_configuration
from zerotrust.opabundle import reports
from zerotrust.opabundle.reports import MAX_UNKNOWN, UnknownKid
from zerotrust.telemetry.metrics import Metrics

SECOND = timedelta(seconds=1)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with FakeApi(namespaces=[OPERATOR]) as api:
        configuration = await load_configuration(str(api.kubeconfig(tmp_path / "kubeconfig")))
        async with Client(configuration, Metrics()) as client:
            rig = Rig(api, client)
            rig.cluster.populate()
            await rig.accept("frontend")
            yield rig


def seen(rig: Rig, *keys: tuple[str, str], namespace: str = "shop") -> None:
    found = frozenset(UnknownKey(*key) for key in keys)
    sink = DecisionMetrics(Metrics(), rig.reporting.decisions)
    sink.decisions(LogSummary("orders-0", "uid", namespace, rig.cluster.clock.now(), unknown_keys=found))


async def told(rig: Rig) -> tuple[UnknownKid, ...]:
    """What the controller reads in the report."""
    await rig.reporting.write()
    body = rig.api.get("ConfigMap", REPORT.name, OPERATOR)
    assert body is not None
    return reports.read(config_map(body), "shop").unknown


async def test_an_unknown_key_is_in_the_report_and_leaves_it_again(rig: Rig) -> None:
    assert await told(rig) == ()
    seen(rig, ("corp", "two"))
    (one,) = await told(rig)
    assert one == UnknownKid("corp", "two", rig.cluster.clock.now().replace(microsecond=0))
    rig.cluster.later(301)
    assert await told(rig) == ()


async def test_made_up_keys_cost_one_write_a_minute(rig: Rig) -> None:
    seen(rig, ("corp", "junk-0"))
    await told(rig)
    rig.api.reset_counts()
    for number in range(1, 60):
        rig.cluster.later(1)
        seen(rig, ("corp", f"junk-{number}"))
        assert [one.kid for one in await told(rig)] == ["junk-0"]
    assert rig.api.count_writes(resource="configmaps") == 0
    rig.cluster.later(1)
    seen(rig, ("corp", "new"))
    assert [one.kid for one in await told(rig)] == ["new"]


async def test_what_is_reported_is_bounded(rig: Rig) -> None:
    seen(rig, ("corp", "x" * 65), ("", "two"))
    assert await told(rig) == ()
    seen(rig, *((f"p{number:02}", "k" * 64) for number in range(100)))
    assert len(await told(rig)) == MAX_UNKNOWN


async def test_namespaces_are_kept_apart(rig: Rig) -> None:
    seen(rig, ("corp", "two"), namespace="elsewhere")
    assert await told(rig) == ()


def test_a_report_that_is_not_ours_to_read_says_nothing() -> None:
    body = reports.manifest("zt-reports-a", OPERATOR, {})
    for text in ('{"unknown":[1]}', '{"unknown":7}', '{"unknown":[{"provider":"a","kid":"b","at":1e30}]}'):
        assert reports.read(config_map({**body, "data": {"shop": text}}), "shop") == reports.NamespaceReport()
