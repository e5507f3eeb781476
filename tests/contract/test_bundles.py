"""The controllers for bundles against the fake API server: what is written once, what is repaired, and in which order."""

import asyncio
import base64
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.support.fakeapi import FakeApi
from tests.support.rig import OPERATOR_NAMESPACE, Rig, resource, running
from zerotrust.common import naming
from zerotrust.opabundle.configuration import CONFIG_MAP, ENVOY_FILE, OPA_FILE

RECORD = "shop.bundles"


@pytest.fixture
async def server():
    async with FakeApi(namespaces=[OPERATOR_NAMESPACE, "shop", "web"]) as server:
        yield server


def policy(server: FakeApi, *paths: str, name: str = "orders") -> None:
    peer = {"workload": {"name": "frontend", "namespace": "web"}}
    rule = {"name": "reads", "from": [peer], "to": [{"port": 8443, "methods": ["GET"], "paths": list(paths)}]}
    spec = {"target": {"identities": ["orders"]}, "rules": [rule]}
    if server.get("TrustPolicy", name, "shop") is None:
        server.create(resource("TrustPolicy", name, "shop", spec))
    else:
        server.patch("TrustPolicy", name, {"spec": spec}, "shop")


def record(server: FakeApi) -> dict[str, Any]:
    body = server.get("ConfigMap", RECORD, OPERATOR_NAMESPACE) or {}
    return {kind: json.loads(text) for kind, text in body.get("data", {}).items()}


def keys(server: FakeApi) -> dict[str, str]:
    body = server.get("Secret", naming.BUNDLE_KEYS, OPERATOR_NAMESPACE) or {}
    return dict(body.get("data", {}))


def key_ids(server: FakeApi) -> list[str]:
    text = keys(server).get("record.json", "")
    return [one["id"] for one in json.loads(base64.b64decode(text))["keys"]] if text else []


def configuration(server: FakeApi) -> dict[str, str]:
    body = server.get("ConfigMap", CONFIG_MAP, "shop") or {}
    return dict(body.get("data", {}))


def complete(server: FakeApi) -> bool:
    (key,) = key_ids(server) or [""]
    return (
        bool(key)
        and set(record(server)) == {"policy", "revocations"}
        and key in configuration(server).get(OPA_FILE, "")
    )


async def populated(rig: Rig) -> None:
    rig.domain()
    rig.identity("orders")
    rig.identity("frontend", "web")
    rig.identity(naming.BUNDLE_SERVER, OPERATOR_NAMESPACE)
    await rig.until(lambda: rig.is_ready() and rig.is_ready("frontend", "web"))
    await rig.watching()
    await rig.idle()


async def served(rig: Rig) -> None:
    """One policy, and everything that follows from it."""
    await populated(rig)
    policy(rig.server, "/a")
    await rig.until(lambda: complete(rig.server))
    await quiet(rig)


async def quiet(rig: Rig) -> None:
    """Wait until nothing was written for more than the second in which changes are gathered."""
    seen, since = len(rig.writes()), time.monotonic()
    while time.monotonic() - since < 1.3:
        await asyncio.sleep(0.05)
        if len(rig.writes()) != seen:
            seen, since = len(rig.writes()), time.monotonic()
    await rig.idle()


def bundle_writes(rig: Rig) -> Counter[tuple[str, str]]:
    names = {RECORD, CONFIG_MAP, naming.BUNDLE_KEYS}
    return Counter((verb, name) for verb, _, _, name in rig.writes() if name in names)


async def test_without_policies_there_is_nothing(server: FakeApi, tmp_path: Path) -> None:
    async with running(server, tmp_path) as rig:
        await populated(rig)
        await quiet(rig)
        assert bundle_writes(rig) == Counter()


async def test_record_key_and_configuration_are_created_once(server: FakeApi, tmp_path: Path) -> None:
    async with running(server, tmp_path) as rig:
        await served(rig)
        writes = bundle_writes(rig)
        assert writes[("create", naming.BUNDLE_KEYS)] == writes[("create", CONFIG_MAP)] == 1
        assert writes[("create", RECORD)] == 1
        assert not [verb for (verb, name) in writes if verb == "patch" and name != RECORD]
        assert set(configuration(server)) == {OPA_FILE, ENVOY_FILE}
        assert server.get("ConfigMap", CONFIG_MAP, "web") is None, "nobody there is a target"
        assert "PRIVATE" not in json.dumps(configuration(server)) + json.dumps(record(server))


async def test_an_edit_grows_one_serial_in_one_write(server: FakeApi, tmp_path: Path) -> None:
    async with running(server, tmp_path) as rig:
        await served(rig)
        before, key = record(server), key_ids(server)
        server.reset_counts()
        policy(server, "/b")
        await rig.until(lambda: record(server)["policy"] != before["policy"])
        await quiet(rig)
        assert record(server)["policy"]["serial"] > before["policy"]["serial"]
        assert record(server)["revocations"] == before["revocations"]
        assert bundle_writes(rig) == Counter({("patch", RECORD): 1})
        assert key_ids(server) == key


async def test_a_content_that_comes_back_has_a_higher_serial(server: FakeApi, tmp_path: Path) -> None:
    async with running(server, tmp_path) as rig:
        await served(rig)
        first = record(server)["policy"]
        policy(server, "/b")
        await rig.until(lambda: record(server)["policy"]["revision"] != first["revision"])
        second = record(server)["policy"]
        policy(server, "/a")
        await rig.until(lambda: record(server)["policy"]["revision"] == first["revision"])
        assert first["serial"] < second["serial"] < record(server)["policy"]["serial"]


async def test_a_restart_writes_nothing(server: FakeApi, tmp_path: Path) -> None:
    async with running(server, tmp_path) as rig:
        await served(rig)
        before = record(server), keys(server), configuration(server)
    server.reset_counts()
    async with running(server, tmp_path) as rig:
        await rig.watching()
        await quiet(rig)
        assert bundle_writes(rig) == Counter()
        assert (record(server), keys(server), configuration(server)) == before


async def test_a_damaged_configuration_is_put_right_and_has_nothing_else(server: FakeApi, tmp_path: Path) -> None:
    async with running(server, tmp_path) as rig:
        await served(rig)
        before = configuration(server)
        server.patch("ConfigMap", CONFIG_MAP, {"data": {OPA_FILE: "services: {}", "more.yaml": "x"}}, "shop")
        await rig.until(lambda: configuration(server) == before)
        server.delete("ConfigMap", CONFIG_MAP, "shop")
        await rig.until(lambda: configuration(server) == before)


async def test_a_configuration_of_somebody_else_is_left_alone(server: FakeApi, tmp_path: Path) -> None:
    body = {
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": CONFIG_MAP, "namespace": "shop"},
        "data": {OPA_FILE: "theirs"},
    }  # fmt: skip
    server.create(body)
    async with running(server, tmp_path) as rig:
        await populated(rig)
        policy(server, "/a")
        await rig.until(lambda: record(server) and key_ids(server))
        await asyncio.sleep(1.5)  # time enough to do harm
        assert configuration(server) == {OPA_FILE: "theirs"}
        server.delete("ConfigMap", CONFIG_MAP, "shop")
        policy(server, "/b")
        await rig.until(lambda: complete(server), 30)


async def test_a_lost_record_comes_back_with_higher_serials(server: FakeApi, tmp_path: Path) -> None:
    async with running(server, tmp_path) as rig:
        await served(rig)
        before = record(server)
        server.delete("ConfigMap", RECORD, OPERATOR_NAMESPACE)
        await rig.until(lambda: record(server))
        for kind, entry in record(server).items():
            assert entry["serial"] > before[kind]["serial"]
            assert entry["revision"] == before[kind]["revision"]


@pytest.mark.parametrize("text", ["", "x", '{"serial": "7"}'])
async def test_a_damaged_record_is_put_right_with_higher_serials(server: FakeApi, tmp_path: Path, text: str) -> None:
    async with running(server, tmp_path) as rig:
        await served(rig)
        before = record(server)
        server.patch("ConfigMap", RECORD, {"data": {"policy": text}}, OPERATOR_NAMESPACE)

        def repaired() -> bool:
            body = server.get("ConfigMap", RECORD, OPERATOR_NAMESPACE)
            return before["policy"]["revision"] in body["data"]["policy"]

        await rig.until(repaired)
        assert record(server)["policy"]["serial"] > before["policy"]["serial"]
        assert record(server)["revocations"] == before["revocations"]


async def test_lost_keys_are_made_anew_and_named(server: FakeApi, tmp_path: Path) -> None:
    async with running(server, tmp_path) as rig:
        await served(rig)
        (old,) = key_ids(server)
        server.delete("Secret", naming.BUNDLE_KEYS, OPERATOR_NAMESPACE)
        await rig.until(lambda: key_ids(server) not in ([], [old]) and complete(server))
        assert old not in configuration(server)[OPA_FILE]


async def test_the_record_goes_with_its_namespace(server: FakeApi, tmp_path: Path) -> None:
    async with running(server, tmp_path) as rig:
        await served(rig)
        server.delete("Namespace", "shop")
        await rig.until(lambda: server.get("ConfigMap", RECORD, OPERATOR_NAMESPACE) is None)
        await quiet(rig)
        assert server.get("ConfigMap", RECORD, OPERATOR_NAMESPACE) is None


async def test_a_wave_of_edits_is_recorded_about_once_a_second(server: FakeApi, tmp_path: Path) -> None:
    async with running(server, tmp_path) as rig:
        await served(rig)
        server.reset_counts()
        began = time.monotonic()
        for number in range(40):
            policy(server, f"/{number}")
            await asyncio.sleep(0.05)
        await quiet(rig)
        took = time.monotonic() - began  # with what a loaded machine is late
        # One for each second by the clock the wave touches: a part of one at each end, and one after it.
        assert 2 <= bundle_writes(rig)[("patch", RECORD)] <= took + 3
