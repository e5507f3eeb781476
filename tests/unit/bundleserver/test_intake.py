"""Status reports: bound to the pod of the token, read strictly, and nothing else of them kept."""

import copy
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.bundleserver import PATH, POD, POLICY, Rig, a_bundle, an_svid, serving
from zerotrust.bundleserver.caller import POD_UID
from zerotrust.bundleserver.intake import BundleState

REVISION = "a" * 64
# As OPA 1.22.2 sends it, but for metrics.
STATUS: dict[str, Any] = {
    "labels": {
        "id": "6d0e0f7f-5c2a-4a63-9b6d-8d9e7b8f2a11",
        "version": "1.22.2",
        "pod": "forged",
        "namespace": "forged",
    },
    "bundles": {
        "policy": {
            "name": "policy",
            "active_revision": REVISION,
            "last_successful_activation": "2026-11-22T12:00:00.123456789Z",
            "last_request": "2026-11-22T12:00:00.1Z",
            "type": "snapshot",
            "size": 1234,
        },
        "revocations": {
            "name": "revocations",
            "active_revision": "",
            "last_successful_activation": "0001-01-01T00:00:00Z",
            "code": "bundle_error",
            "message": "verification failed for eyJhbGciOiJFUzI1NiJ9.c2VjcmV0.c2ln",
            "errors": [],
        },
    },
    "plugins": {"bundle": {"state": "OK"}},
    "metrics": {"prometheus": {"go_info": {"secret-looking": "hunter2"}}},
}


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with serving(tmp_path) as rig:
        yield rig


async def post(session: aiohttp.ClientSession, body: Any) -> tuple[int, str]:
    async with session.post("/status", data=json.dumps(body)) as response:
        return response.status, await response.text()


def changed(**bundle: Any) -> dict[str, Any]:
    body = copy.deepcopy(STATUS)
    body["bundles"]["policy"] |= bundle
    return body


async def test_a_report_says_who_sent_it_and_what_runs_there(rig: Rig) -> None:
    session = await rig.session(rig.token())
    assert await post(session, STATUS) == (204, "")
    (report,) = rig.sinks.reports
    assert (report.pod, report.pod_uid) == ("orders-0", "uid-orders-0")
    assert (report.namespace, report.service_account) == ("shop", "orders")
    assert report.opa_id == STATUS["labels"]["id"]
    activated = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)
    assert report.bundles == {
        "policy": BundleState(REVISION, "", activated),
        "revocations": BundleState("", "bundle_error", None),
    }
    assert "eyJ" not in repr(report)
    assert "hunter2" not in repr(report)


async def test_keys_in_use_are_those_we_have_served_the_pod_under(rig: Rig) -> None:
    rig.shelf.publish(POLICY, a_bundle(1))
    session, other = await rig.session(rig.token()), await rig.session(rig.token("web"))
    await post(session, STATUS)
    for one in (session, session):
        async with one.get(PATH):
            pass
    await post(session, STATUS)
    await post(other, STATUS)
    rig.clock.advance(901)
    token = await rig.session(rig.token(seconds=3600))
    await post(token, STATUS)
    assert [report.key_ids for report in rig.sinks.reports] == [set(), {"k1"}, set(), set()]


async def test_a_report_names_its_key(rig: Rig) -> None:
    """Another replica may have served it."""
    session = await rig.session(rig.token())
    for label in ("12e4567890123456", "k.1", 7, None):
        assert (await post(session, {"labels": {"signing_key": label}}))[0] == 204
    assert [report.key_ids for report in rig.sinks.reports] == [{"12e4567890123456"}, set(), set(), set()]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ([], "the report must be an object"),
        ({"bundles": []} | {"bundles": [1]}, "bundles must be"),
        ({"bundles": {"policy": 1}}, r"bundles.policy must be an object"),
        ({"bundles": {"a b": {}}}, "no bundle name"),
        ({"bundles": {f"b{n}": {} for n in range(65)}}, "at most 64"),
        (changed(active_revision=7), "bundles.policy.active_revision"),
        (changed(active_revision="x" * 129), "bundles.policy.active_revision"),
        (changed(active_revision="<script>"), "bundles.policy.active_revision"),
    ],
)
async def test_a_malformed_report_is_refused_and_counted(rig: Rig, body: Any, words: str) -> None:
    status, text = await post(await rig.session(rig.token()), body)
    assert status == 400
    assert words in text
    assert not rig.sinks.reports
    assert rig.metric("intake_total", kind="status", outcome="malformed") == 1


async def test_odd_but_harmless_fields_are_read_as_nothing(rig: Rig) -> None:
    session = await rig.session(rig.token())
    body = changed(last_successful_activation="yesterday", code=7)
    body["labels"] = ["no mapping"]
    assert (await post(session, body))[0] == 204
    assert (await post(session, {}))[0] == 204
    first, second = rig.sinks.reports
    assert first.bundles["policy"] == BundleState(REVISION, "error", None)
    assert (first.opa_id, second.bundles) == ("", {})


async def test_only_a_pod_of_a_namespace_that_may_reports(rig: Rig) -> None:
    sessions = {
        401: await rig.session(),
        403: await rig.session(rig.token("web", may=False)),
    }
    for status, session in sessions.items():
        assert (await post(session, STATUS))[0] == status
    unbound = await rig.session(rig.token("cron", pod={}))
    ambiguous = await rig.session(rig.token("twins", pod=POD | {POD_UID: ["a", "b"]}))
    svid = await rig.session("", an_svid(rig.authority, "cron"))
    for session in (unbound, ambiguous, svid):
        status, text = await post(session, STATUS)
        assert status == 403
        assert "pod_unknown" in text
    assert not rig.sinks.reports
