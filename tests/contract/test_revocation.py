"""Revocations against the fake API server: what is written for one, and what is remembered when its identity is gone."""

import asyncio
import base64
import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support.fakeapi import FakeApi
from tests.support.rig import OPERATOR_NAMESPACE, Rig, resource, running
from zerotrust.common import naming, times

ORDERS = "spiffe://example.org/ns/shop/sa/orders"


@pytest.fixture
async def server():
    async with FakeApi(namespaces=[OPERATOR_NAMESPACE, "shop"]) as server:
        yield server


def revoke(server: FakeApi, before: datetime | None) -> None:
    revocation = {"before": before.isoformat().replace("+00:00", "Z")} if before is not None else None
    server.patch("ServiceIdentity", "orders", {"spec": {"revocation": revocation}}, "shop")


def remembered(server: FakeApi) -> dict[str, str]:
    body = server.get("ConfigMap", naming.REVOCATIONS, OPERATOR_NAMESPACE)
    entries = [json.loads(text) for text in (body or {}).get("data", {}).values()]
    return {one["id"]: one["before"] for one in entries}


def seen(server: FakeApi) -> int:
    """The generation of the identity that the status is about."""
    generation: int = server.get("ServiceIdentity", "orders", "shop")["status"]["observedGeneration"]
    return generation


def leaf(rig: Rig) -> x509.Certificate:
    text = rig.secret()["data"]["tls.crt"]
    return x509.load_pem_x509_certificates(base64.b64decode(text))[0]


async def issued(rig: Rig) -> x509.Certificate:
    rig.domain()
    rig.identity()
    await rig.until(rig.is_ready)
    await rig.watching()
    await rig.idle()
    return leaf(rig)


def now() -> datetime:
    return datetime.now(UTC)


def annotate(server: FakeApi, name: str, moment: datetime) -> None:
    server.patch("ServiceIdentity", "orders", {"metadata": {"annotations": {name: times.render(moment)}}}, "shop")


@pytest.mark.parametrize("by", ["spec", "annotation"])
async def test_a_revocation_costs_a_secret_a_status_and_the_memory(server: FakeApi, tmp_path: Path, by: str) -> None:
    async with running(server, tmp_path) as rig:
        old = await issued(rig)
        server.reset_counts()
        cutoff = times.whole_seconds(now())
        if by == "spec":
            revoke(server, cutoff)
        else:
            annotate(server, naming.REVOKE_BEFORE, cutoff)
        await rig.until(lambda: leaf(rig) != old and remembered(server))
        await rig.idle()
        writes = Counter((verb, what) for verb, what, _, _ in rig.writes() if what != "events")
        assert writes == Counter(
            [("patch", "secrets"), ("patch", "serviceidentities/status"), ("create", "configmaps")]
        )
        assert leaf(rig).not_valid_before_utc >= cutoff
        assert remembered(server) == {ORDERS: times.render(cutoff)}
        assert rig.is_ready()


async def test_neither_a_restart_nor_a_removed_revocation_writes_or_lowers_anything(
    server: FakeApi, tmp_path: Path
) -> None:
    async with running(server, tmp_path) as rig:
        old = await issued(rig)
        revoke(server, now())
        await rig.until(lambda: leaf(rig) != old and remembered(server))
        await rig.idle()
        known, certificate = remembered(server), leaf(rig)
        revoke(server, None)
        await rig.until(lambda: seen(server) == 3)
        await rig.idle()
    server.reset_counts()
    async with running(server, tmp_path) as rig:
        await rig.watching()
        await rig.idle()
        touched = {what for _, what, _, _ in rig.writes()}
        assert not touched & {"secrets", "configmaps", "serviceidentities/status"}
        assert (remembered(server), leaf(rig)) == (known, certificate)


async def test_a_renewal_that_is_asked_for_costs_two_writes_and_a_restart_none(server: FakeApi, tmp_path: Path) -> None:
    async with running(server, tmp_path) as rig:
        old = await issued(rig)
        await asyncio.sleep(1.1)  # a request counts when it is later than the last issue, in whole seconds
        server.reset_counts()
        annotate(server, naming.ROTATE_REQUESTED, now())
        await rig.until(lambda: leaf(rig) != old)
        await rig.idle()
        writes = [(verb, what) for verb, what, _, _ in rig.writes() if what != "events"]
        assert writes == [("patch", "secrets"), ("patch", "serviceidentities/status")]
        renewed = leaf(rig)
    server.reset_counts()
    async with running(server, tmp_path) as rig:
        await rig.watching()
        await rig.idle()
        assert not rig.writes()
        assert leaf(rig) == renewed


async def test_an_identity_that_is_created_anew_gets_no_certificate_from_before(
    server: FakeApi, tmp_path: Path
) -> None:
    async with running(server, tmp_path) as rig:
        old = await issued(rig)
        cutoff = now() + timedelta(seconds=1, microseconds=1)
        revoke(server, cutoff)
        await rig.until(lambda: leaf(rig) != old and remembered(server))
        known = remembered(server)
        assert known == {ORDERS: times.render(times.next_whole_second(cutoff))}, "the fraction is rounded up and stays"
        await rig.idle()
        body = old_secret(rig, old)
        server.delete("ServiceIdentity", "orders", "shop")
        await rig.until(lambda: server.get("Secret", "orders-svid", "shop") is None)
        await rig.idle()
        assert remembered(server) == known
        server.create(body)  # somebody has kept the old one, labels and all
        server.create(resource("ServiceIdentity", "orders", "shop"))
        await rig.until(lambda: rig.is_ready() and leaf(rig).not_valid_before_utc >= cutoff)
        assert server.get("ServiceIdentity", "orders", "shop")["status"]["revokedBefore"] == known[ORDERS]


def old_secret(rig: Rig, certificate: x509.Certificate) -> dict[str, Any]:
    body = rig.secret()
    labels = body["metadata"]["labels"]
    chain = base64.b64encode(certificate.public_bytes(Encoding.PEM)).decode()
    metadata = {"name": "orders-svid", "namespace": "shop", "labels": labels}
    return {**body, "metadata": metadata, "data": {**body["data"], "tls.crt": chain}}


async def test_a_memory_that_is_damaged_or_deleted_is_put_right(server: FakeApi, tmp_path: Path) -> None:
    async with running(server, tmp_path) as rig:
        old = await issued(rig)
        revoke(server, now())
        await rig.until(lambda: leaf(rig) != old and remembered(server))
        await rig.idle()
        known = remembered(server)
        server.delete("ConfigMap", naming.REVOCATIONS, OPERATOR_NAMESPACE)
        await rig.until(lambda: remembered(server) == known)
        (key,) = server.get("ConfigMap", naming.REVOCATIONS, OPERATOR_NAMESPACE)["data"]
        server.patch("ConfigMap", naming.REVOCATIONS, {"data": {key: "x", "more": "y"}}, OPERATOR_NAMESPACE)
        await rig.until(lambda: set(server.get("ConfigMap", naming.REVOCATIONS, OPERATOR_NAMESPACE)["data"]) == {key})
        assert remembered(server) == known


async def test_a_revocation_is_remembered_although_its_trust_domain_comes_later(
    server: FakeApi, tmp_path: Path
) -> None:
    async with running(server, tmp_path) as rig:
        await rig.watching()
        rig.identity(revocation={"before": times.render(now())})
        await rig.until(lambda: rig.condition("Ready")[1] == "TrustDomainNotFound")
        await rig.idle()
        rig.domain()
        await rig.until(lambda: rig.is_ready() and remembered(server))
