"""The present controller takes over what older revisions have written: it reads everything and re-issues nothing.

The strict fake API server holds the objects as they were recorded, at the time at which they were, so that no certificate in them
ever gets old.
"""

from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.clock import FakeClock
from tests.support.fakeapi import FakeApi
from tests.support.rig import Rig, running
from tests.upgrade.recorded import RECORDINGS, Recording

OURS = ("TrustDomain", "ServiceIdentity", "TrustPolicy", "ApiKey")
# What an upgrade may write: new conditions and fields of a status, at most so many times for each object on average; and records
# that the older revision did not know.
STATUSES = ("trustdomains/status", "serviceidentities/status", "trustpolicies/status", "apikeys/status")
MOST_STATUSES = 1.5
# Nothing here is about a process that is held up, so a busy machine may hold it up.
PATIENT = {"lease_duration": timedelta(minutes=1), "request_timeout": 30.0}


@pytest.fixture(params=RECORDINGS, ids=str)
def recording(request: pytest.FixtureRequest) -> Recording:
    found: Recording = request.param
    return found


def test_there_are_recordings() -> None:
    assert len(RECORDINGS) >= 2
    newest = {kind for one in RECORDINGS for kind in {body["kind"] for body in one.objects}}
    assert {*OURS, "Secret", "ConfigMap", "NetworkPolicy", "ControllerRevision"} <= newest


async def test_nothing_is_issued_or_closed_or_opened(recording: Recording, tmp_path: Path) -> None:
    clock = FakeClock(recording.moment)
    async with FakeApi(clock=clock.now) as server:
        for body in recording.objects:
            server.restore(body)
        async with running(server, tmp_path, clock, **PATIENT) as rig:
            await at_rest(rig, recording, clock)
            assert rig.issued() == 0
            written = Counter((verb, resource) for verb, resource, _, _ in rig.writes())
            print(f"{recording}: {len(recording.objects)} objects, writes: {dict(written)}")
            statuses = sum(written.pop(("patch", one), 0) for one in STATUSES)
            assert statuses <= MOST_STATUSES * len(recording.of(*OURS))
            assert written.keys() <= {("create", "configmaps"), ("create", "events")}
            for kind in ("Secret", "NetworkPolicy", "ControllerRevision"):
                for body in recording.of(kind):
                    assert content(server, body) == without_metadata(body), f"{kind} {body['metadata']['name']}"
            for kind in OURS:
                for body in recording.of(kind):
                    assert condition(server, body, "Ready") == told(body, "Ready"), f"{kind} {body['metadata']['name']}"
        # Whoever comes next finds nothing to do.
        server.reset_counts()
        async with running(server, tmp_path, clock, **PATIENT) as again:
            await at_rest(again, recording, clock)
            assert not again.writes()


async def at_rest(rig: Rig, recording: Recording, clock: FakeClock) -> None:
    """Wait until there is nothing to do, and until it is told that the providers of the examples cannot be reached."""
    await rig.watching()
    asking = [one for one in recording.of("TrustDomain") if one["spec"].get("identityProviders")]
    await rig.until(
        lambda: all(condition(rig.server, one, "IdentityProvidersReady")[1] == "FetchFailed" for one in asking)
    )
    for _ in range(3):  # what is gathered for some seconds
        await rig.idle()
        clock.advance(timedelta(seconds=6))
    await rig.idle()


def content(server: FakeApi, body: dict[str, Any]) -> dict[str, Any]:
    metadata = body["metadata"]
    found = server.get(body["kind"], metadata["name"], metadata.get("namespace"))
    assert found is not None, f"{body['kind']} {metadata['name']} is gone"
    return without_metadata(dict(found))


def without_metadata(body: dict[str, Any]) -> dict[str, Any]:
    return {field: value for field, value in body.items() if field != "metadata"}


def told(body: dict[str, Any], type_: str) -> tuple[str, str]:
    found = [one for one in body.get("status", {}).get("conditions", ()) if one["type"] == type_]
    return (found[0]["status"], found[0]["reason"]) if found else ("", "")


def condition(server: FakeApi, body: dict[str, Any], type_: str) -> tuple[str, str]:
    metadata = body["metadata"]
    return told(dict(server.get(body["kind"], metadata["name"], metadata.get("namespace")) or {}), type_)
