"""The controller against the fake API server: what it writes, and that it writes nothing more."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.fakeapi import FakeApi
from tests.support.rig import OPERATOR_NAMESPACE, TRUST_DOMAIN, Rig, replica, resource, running
from zerotrust.common.naming import Ref


@pytest.fixture
async def server():
    async with FakeApi(namespaces=[OPERATOR_NAMESPACE, "shop", "web"]) as server:
        yield server


async def test_an_identity_costs_two_writes_and_one_event(server: FakeApi, tmp_path: Path) -> None:
    async with running(server, tmp_path) as rig:
        rig.domain()
        await rig.until(lambda: rig.condition("Ready", TRUST_DOMAIN, None)[0] == "True")
        await rig.watching()
        await rig.idle()
        server.reset_counts()
        rig.identity()
        await rig.until(rig.is_ready)
        await rig.until(lambda: server.count_writes(resource="events", namespace="shop") == 1)
        mine = [write for write in rig.writes() if write[2] == "shop" and write[1] != "configmaps"]
        assert Counter(mine) == Counter(
            [
                ("create", "secrets", "shop", "orders-svid"),
                ("patch", "serviceidentities/status", "shop", "orders"),
                ("create", "events", "shop", next(write[3] for write in mine if write[1] == "events")),
            ]
        )


async def test_a_restart_writes_nothing(server: FakeApi, tmp_path: Path) -> None:
    async with running(server, tmp_path) as rig:
        rig.domain()
        for number in range(20):
            rig.identity(f"workload-{number}")
        await rig.until(lambda: all(rig.is_ready(f"workload-{number}") for number in range(20)))
        await rig.until(
            lambda: (
                (server.get("TrustDomain", TRUST_DOMAIN) or {})["status"]["identities"] == {"total": 20, "ready": 20}
            )
        )
        await rig.until(lambda: rig.condition("BundlePublished", TRUST_DOMAIN, None)[0] == "True")
    server.reset_counts()
    async with running(server, tmp_path) as rig:
        await rig.watching()
        await rig.until(lambda: server.count_writes(resource="leases") >= 4)
        await rig.idle()
        assert rig.writes() == []


async def test_a_stop_gives_the_lease_back(server: FakeApi, tmp_path: Path) -> None:
    rig = Rig(server, tmp_path)
    await rig.start()
    await rig.watching()
    await rig.stop()
    lease = server.get("Lease", "zerotrust-controller", OPERATOR_NAMESPACE)
    assert lease is not None
    assert lease["spec"]["holderIdentity"] == ""


async def test_the_second_replica_waits_and_takes_over(server: FakeApi, tmp_path: Path) -> None:
    def holder() -> str:
        lease = server.get("Lease", "zerotrust-controller", OPERATOR_NAMESPACE) or {}
        return str(lease.get("spec", {}).get("holderIdentity", ""))

    first = await replica(server, tmp_path, "first")
    await server.until(holder, 20)
    leader = holder()
    second = await replica(server, tmp_path, "second")
    try:
        await server.until(lambda: "leads" in (tmp_path / "second.log").read_text(), 20)
        assert holder() == leader
        first.terminate()
        assert await first.wait() == 0
        await server.until(lambda: holder() not in ("", leader), 20)
        server.create(resource("TrustDomain", TRUST_DOMAIN, spec={"default": True}))
        server.create(
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "orders", "namespace": "shop"}}
        )
        server.create(resource("ServiceIdentity", "orders", "shop"))
        await server.until(lambda: server.get("Secret", "orders-svid", "shop"), 20)
    finally:
        second.terminate()
        assert await second.wait() == 0


async def test_an_edit_that_a_status_write_is_the_first_to_see_is_not_lost(
    server: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watch tells of the edit afterwards, with a version that is known already."""
    async with running(server, tmp_path) as rig:
        rig.domain()
        await rig.until(lambda: rig.condition("Ready", TRUST_DOMAIN, None)[0] == "True")
        await rig.watching()
        send, edited = rig.controller._client.patch, []

        async def patch(ref: Ref, body: Mapping[str, Any], subresource: str = "") -> Any:
            if (ref.kind, subresource, edited) == ("ServiceIdentity", "status", []):
                edited.append(ref)
                server.hold_watches("serviceidentities")
                server.patch("ServiceIdentity", "orders", {"spec": {"certificate": {"duration": "2h"}}}, "shop")
            return await send(ref, body, subresource)

        monkeypatch.setattr(rig.controller._client, "patch", patch)
        rig.identity()
        await rig.until(lambda: edited)
        await rig.idle()
        server.release_watches("serviceidentities")
        await rig.until(lambda: rig.issued() == 2)
        await rig.until(
            lambda: server.get("ServiceIdentity", "orders", "shop")["status"]["observedGeneration"] == 2,
        )
