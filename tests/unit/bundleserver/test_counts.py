"""What a bundle server shows of the bundles that it serves."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.bundleserver import Rig, a_bundle, serving
from zerotrust.bundleserver.shelf import Kind, Place


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with serving(tmp_path) as rig:
        yield rig


async def test_the_least_share_of_a_validity_that_is_left(rig: Rig) -> None:
    now = datetime.now(UTC)
    for namespace, age in (("shop", 6), ("web", 18)):
        signed = now - timedelta(hours=age)
        bundle = replace(a_bundle(epoch=int(signed.timestamp())), not_after=signed + timedelta(hours=24))
        rig.shelf.publish(Place("k1", namespace, Kind.POLICY), bundle)
    assert rig.metric("remaining_validity_ratio", kind="policy") == pytest.approx(0.25, abs=0.001)
    rig.clock.offset = timedelta(hours=7)
    assert rig.metric("remaining_validity_ratio", kind="policy") == 0
    assert b'remaining_validity_ratio{kind="revocations"}' not in rig.metrics.render()
