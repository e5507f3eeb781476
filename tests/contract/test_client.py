"""The client and the event recorder against the fake API server."""

import asyncio
import contextlib
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.clock import FakeClock
from tests.support.fakeapi import FakeApi, Hang, Respond, StreamError
from tests.support.waiting import eventually
from zerotrust.common.naming import Ref
from zerotrust.common.observed import meta_of
from zerotrust.common.plan import Event
from zerotrust.kube.client import Client, NoCluster, load_configuration
from zerotrust.kube.errors import (
    AlreadyExists,
    Conflict,
    Forbidden,
    Gone,
    NotFound,
    ServerError,
    Throttled,
    Unreachable,
)
from zerotrust.kube.recorder import SERIES_WINDOW, Recorder
from zerotrust.kube.resources import CONSTRAINT_TEMPLATES, SECRETS
from zerotrust.telemetry.metrics import Metrics


@pytest.fixture
async def server():
    async with FakeApi(namespaces=["shop"]) as server:
        yield server


@pytest.fixture
async def client(server: FakeApi, tmp_path: Path):
    configuration = await load_configuration(str(server.kubeconfig(tmp_path / "kubeconfig")))
    async with Client(configuration, Metrics(), timeout=1) as client:
        yield client


def a_secret(name: str = "s", **labels: str) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "shop", "labels": labels}}


@pytest.mark.parametrize(
    ("code", "error"),
    [(403, Forbidden), (404, NotFound), (409, Conflict), (410, Gone), (429, Throttled), (500, ServerError)],
)
async def test_answers_become_typed_errors_without_content(
    server: FakeApi, client: Client, code: int, error: type
) -> None:
    server.faults.on(verb="patch", resource="secrets", action=Respond(code, retry_after=7 if code == 429 else None))
    with pytest.raises(error) as raised:
        await client.patch(Ref("Secret", "shop", "s"), {"data": {"tls.key": "c2VjcmV0"}})
    assert raised.value.code == code
    assert "c2VjcmV0" not in str(raised.value)
    assert raised.value.retry_after == (timedelta(seconds=7) if code == 429 else None)


async def test_a_taken_name_is_told_apart_from_a_conflict(client: Client) -> None:
    await client.create(a_secret())
    with pytest.raises(AlreadyExists):
        await client.create(a_secret())
    with pytest.raises(Conflict):
        await client.patch(Ref("Secret", "shop", "s"), {"metadata": {"resourceVersion": "1"}, "data": {"a": "YQ=="}})


async def test_reads_are_retried_and_honour_retry_after(server: FakeApi, client: Client) -> None:
    server.create(a_secret())
    rule = server.faults.on(verb="get", resource="secrets", action=Respond(429, retry_after=1), times=1)
    server.faults.on(verb="get", resource="secrets", action=Respond(503), times=2)
    started = asyncio.get_running_loop().time()
    assert (await client.get(Ref("Secret", "shop", "s")))["metadata"]["name"] == "s"
    assert asyncio.get_running_loop().time() - started >= 1
    assert rule.fired == 1


async def test_writes_are_never_repeated_by_the_client(server: FakeApi, client: Client) -> None:
    rule = server.faults.on(verb="create", resource="secrets", action=Respond(503), times=None)
    with pytest.raises(ServerError):
        await client.create(a_secret())
    assert rule.seen == 1


async def test_a_server_that_does_not_answer(server: FakeApi, client: Client) -> None:
    server.faults.on(verb="create", resource="secrets", action=Hang())
    with pytest.raises(Unreachable):
        await client.create(a_secret())


async def test_lists_come_in_pages_of_one_state(server: FakeApi, client: Client) -> None:
    for number in range(1201):
        server.create(a_secret(f"s-{number:04d}", **{"app.kubernetes.io/managed-by": "zerotrust-operator"}))
    server.create(a_secret("foreign"))
    pages = [(len(page), version) async for page, version in client.list(SECRETS, metadata_only=True)]
    assert [number for number, _ in pages] == [500, 500, 201]
    assert len({version for _, version in pages}) == 1


async def test_no_configuration_is_told_plainly(tmp_path: Path) -> None:
    with pytest.raises(NoCluster, match="KUBECONFIG"):
        await load_configuration(str(tmp_path / "missing"))


async def test_a_repeated_event_becomes_a_series(server: FakeApi, client: Client) -> None:
    clock = FakeClock()
    recorder = Recorder(client, clock, Metrics(), "test")
    sender = asyncio.create_task(recorder.run())
    about = meta_of("ServiceIdentity", {"metadata": {"name": "orders", "namespace": "shop", "uid": "u-1"}})
    for _ in range(3):
        recorder.record(about, Event("Warning", "SecretConflict", "same words"))
        await recorder.drain(5)
        clock.advance(timedelta(seconds=10))
    (event,) = server.list("events.events.k8s.io", "shop")
    assert event["series"]["count"] == 3
    assert event["regarding"]["uid"] == "u-1"
    assert event["type"] == "Warning"
    recorder.record(about, Event("Warning", "SecretConflict", "other words"))
    clock.advance(SERIES_WINDOW)
    recorder.record(about, Event("Warning", "SecretConflict", "same words"))
    await recorder.drain(5)
    assert len(server.list("events.events.k8s.io", "shop")) == 3
    sender.cancel()


async def test_events_that_cannot_be_sent_are_dropped_and_counted(server: FakeApi, client: Client) -> None:
    metrics = Metrics()
    recorder = Recorder(client, FakeClock(), metrics, "test")
    sender = asyncio.create_task(recorder.run())
    server.faults.on(verb="create", resource="events", action=Respond(500), times=None)
    about = meta_of("ServiceIdentity", {"metadata": {"name": "orders", "namespace": "shop", "uid": "u-1"}})
    recorder.record(about, Event("Normal", "Issued", "words"))
    await recorder.drain(5)
    assert b'zerotrust_events_dropped_total{reason="ServerError"} 1.0' in metrics.render()
    sender.cancel()


async def test_a_watch_tells_what_happens_after_a_version_and_ends_when_it_is_cut(
    server: FakeApi, client: Client
) -> None:
    labels = {"app.kubernetes.io/managed-by": "zerotrust-operator"}
    (version,) = [shown async for _, shown in client.list(SECRETS)]
    seen: list[tuple[str, str]] = []

    async def follow() -> None:
        async for what, body in client.watch(SECRETS, version):
            seen.append((what, body["metadata"]["name"]))

    following = asyncio.create_task(follow())
    await eventually(lambda: server.open_watches("secrets"))
    await client.create(a_secret("one", **labels))
    await client.create(a_secret("foreign"))
    await client.patch(Ref("Secret", "shop", "one"), {"metadata": {"annotations": {"long": "é" * 100_000}}})
    await client.delete(Ref("Secret", "shop", "one"))
    await eventually(lambda: len(seen) == 3)
    server.cut_watches("secrets")
    async with asyncio.timeout(5):
        with contextlib.suppress(Unreachable):  # cut in the middle, or ended in good order
            await following
    assert seen == [("ADDED", "one"), ("MODIFIED", "one"), ("DELETED", "one")]


async def test_a_watch_of_a_version_that_is_too_old_is_gone(server: FakeApi, client: Client) -> None:
    server.faults.on(verb="watch", resource="secrets", action=StreamError(410))
    with pytest.raises(Gone):
        async for _ in client.watch(SECRETS, "1"):
            pass


async def test_a_watch_of_a_kind_that_is_not_there_is_not_found(client: Client) -> None:
    with pytest.raises(NotFound):
        async for _ in client.watch(CONSTRAINT_TEMPLATES, "1"):
            pass
