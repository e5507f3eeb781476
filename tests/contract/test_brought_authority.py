"""An authority that somebody brings in a Secret which the operator does not watch: restarts and replacements."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import a_secret_body
from tests.support.certificates import Issued, a_root, an_intermediate, key_pem, pem
from tests.support.fakeapi import FakeApi
from tests.support.rig import OPERATOR_NAMESPACE, TRUST_DOMAIN, Rig, running

NOW = datetime.now(UTC).replace(microsecond=0)
BROUGHT = {"certificateAuthority": {"source": "Secret", "secretName": "our-ca"}}


@pytest.fixture
async def server() -> AsyncIterator[FakeApi]:
    async with FakeApi(namespaces=[OPERATOR_NAMESPACE, "shop"]) as server:
        yield server


def an_issuer() -> tuple[Issued, Issued]:
    times: dict[str, Any] = {"not_before": NOW - timedelta(days=9), "not_after": NOW + timedelta(days=900)}
    root = a_root(uris=(), **times)
    return an_intermediate(root, uris=(), **times), root


def bring(server: FakeApi) -> None:
    issuer, root = an_issuer()
    data = {"tls.crt": pem(issuer.certificate), "tls.key": key_pem(issuer.key), "ca.crt": pem(root.certificate)}
    body = a_secret_body("our-ca", namespace=OPERATOR_NAMESPACE, data=data)
    del body["metadata"]["uid"], body["metadata"]["resourceVersion"]
    server.create(body)


async def settle(server: FakeApi, folder: Path) -> None:
    """Let a first controller make everything, and stop it."""
    bring(server)
    async with running(server, folder) as rig:
        rig.domain(**BROUGHT)
        rig.identity()
        await rig.until(rig.is_ready)
        await rig.until(lambda: rig.condition("BundlePublished", TRUST_DOMAIN, None)[0] == "True")
        await rig.until(lambda: _counts(server) == (1, 1))
        await rig.idle()


def _counts(server: FakeApi) -> tuple[int, int]:
    """Identities that are ready, and leaves that live, as the TrustDomain's status says."""
    status = (server.get("TrustDomain", TRUST_DOMAIN) or {}).get("status") or {}
    authorities = status.get("certificateAuthorities") or [{}]
    return (status.get("identities") or {}).get("ready", 0), authorities[0].get("liveLeaves", 0)


async def test_a_brought_authority_signs(server: FakeApi, tmp_path: Path) -> None:
    await settle(server, tmp_path)


async def test_a_restart_with_a_brought_authority_writes_nothing(server: FakeApi, tmp_path: Path) -> None:
    await settle(server, tmp_path)
    before = len(Rig(server, tmp_path).writes())
    async with running(server, tmp_path) as rig:
        await rig.watching()
        await rig.idle()
        assert rig.writes()[before:] == []


async def test_an_identity_that_is_due_at_a_restart_is_issued(server: FakeApi, tmp_path: Path) -> None:
    await settle(server, tmp_path)
    server.delete("Secret", "orders-svid", "shop")
    async with running(server, tmp_path) as rig:
        await rig.until(lambda: server.get("Secret", "orders-svid", "shop") is not None, seconds=5)
