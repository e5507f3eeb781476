"""Decision logs: counted by who, whom and why; bounded whatever is sent; nothing secret left."""

import gzip
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.bundleserver import Directory, an_id, serving
from zerotrust.bundleserver.caller import POD_NAME, POD_UID, Caller, Subject
from zerotrust.bundleserver.decisions import Denial, Labels, LogReader, LogSummary, UnknownKey
from zerotrust.bundleserver.refusals import Refused

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
ORDERS, FRONTEND = an_id("orders"), an_id("frontend", "web")
CALLER = Caller(Subject("system:serviceaccount:shop:orders"), NOW + timedelta(hours=1), "orders-0", "uid-orders-0")
SECRETS = ("Bearer eyJhbGciOi.eyJzdWIi.c2ln", "sk_abcdefgh.secretsecret", "/reset/t0ps3cret", "alice@example.org")


def an_event(at: str = "2026-11-22T11:59:58.5Z", method: str = "GET", **answer: Any) -> dict[str, Any]:
    """One event of OPA 1.22 with the answer of our entry point."""
    headers = {"authorization": SECRETS[0], "x-api-key": SECRETS[1]}
    result = {"allowed": True, "reason": "allowed", "server": ORDERS, "client": FRONTEND, "policy": "p", "rule": "r"}
    return {
        "labels": {"id": "opa", "namespace": "forged"},
        "decision_id": "d-1",
        "bundles": {"policy": {"revision": "a" * 64}},
        "path": "zerotrust/authz/decision",
        "input": {"request": {"method": method, "path": SECRETS[2], "headers": headers}},
        "result": {**result, **answer},
        "requested_by": "127.0.0.1:1",
        "timestamp": at,
        "metrics": {"counter_server_query_cache_hit": 0},
    }


def summary(*events: Any, **limits: int) -> LogSummary:
    reader = LogReader(Directory(), **{"entries": 1000, "label_sets": 10, "denials": 3, **limits})
    return reader.summary(list(events), CALLER, NOW)


def test_verdicts_are_counted_by_server_client_and_reason() -> None:
    denied = an_event(allowed=False, reason="no_grant")
    found = summary(an_event(), an_event(), denied, an_event(client=None, allowed=False, reason="no_identity"))
    assert found.decided == {
        Labels(ORDERS, FRONTEND, "allowed"): 2,
        Labels(ORDERS, FRONTEND, "no_grant"): 1,
        Labels(ORDERS, "none", "no_identity"): 1,
    }
    assert (found.namespace, found.pod, found.pod_uid) == ("shop", "orders-0", "uid-orders-0")


def test_what_observe_would_have_done_is_counted_apart() -> None:
    found = summary(
        an_event(observed={"allowed": False, "reason": "no_grant"}),
        an_event(candidate={"allowed": False, "reason": "denied_by_rule"}),
    )
    assert found.decided == {Labels(ORDERS, FRONTEND, "allowed"): 2}
    assert found.observed == {Labels(ORDERS, FRONTEND, "no_grant"): 1}
    assert found.candidates == {Labels(ORDERS, FRONTEND, "denied_by_rule"): 1}


def test_the_newest_denials_are_kept_without_what_may_be_secret() -> None:
    events = [
        an_event(f"2026-11-22T11:59:{second:02}Z", "POST", allowed=False, reason="no_grant", policy=f"p-{second}")
        for second in (5, 1, 9, 7)
    ]
    found = summary(*events, an_event())
    assert [denial.policy for denial in found.denials] == ["p-1", "p-7", "p-9"][-3:]
    at = datetime(2026, 11, 22, 11, 59, 9, tzinfo=UTC)
    assert found.denials[-1] == Denial(at, ORDERS, FRONTEND, "no_grant", "p-9", "r", "POST")
    assert not [secret for secret in SECRETS if secret in repr(found)]


def test_labels_are_bounded_and_the_rest_is_one_bucket() -> None:
    clients = [an_id(f"client-{number}", "web") for number in range(50)]
    found = summary(*(an_event(client=client) for client in clients), *(an_event(client=clients[0]) for _ in range(3)))
    assert len(found.decided) == 11
    assert found.decided[Labels("other", "other", "allowed")] == 40
    assert found.decided[Labels(ORDERS, clients[0], "allowed")] == 4


def test_the_last_use_of_keys_goes_forward_only() -> None:
    found = summary(
        an_event("2026-11-22T11:30:00Z", key_id="abcd1234"),
        an_event("2026-11-22T11:20:00Z", key_id="abcd1234"),
        an_event("2026-11-22T13:00:00Z", key_id="fromthefuture"),
        an_event(key_id="denied123", allowed=False, reason="revoked_key"),
        an_event(key_id="noscope12345", allowed=False, reason="missing_scope"),
        an_event(unknown_key_id="neverseen123", allowed=False, reason="bad_key"),
        an_event(key_id=SECRETS[1]),
    )
    assert {use: at for use, at in found.key_uses.items() if use[0] in ("abcd1234", "fromthefuture")} == {
        ("abcd1234", ""): datetime(2026, 11, 22, 11, 30, tzinfo=UTC),
        ("fromthefuture", ""): NOW,
    }
    assert set(found.key_uses) - {("abcd1234", ""), ("fromthefuture", "")} == {
        ("denied123", "revoked_key"),
        ("neverseen123", "unknown_key"),
    }


def test_unknown_keys_are_named() -> None:
    event = an_event(allowed=False, reason="bad_token", unknown_key={"provider": "corp", "kid": "2026-11"})
    assert summary(event, event).unknown_keys == {UnknownKey("corp", "2026-11")}


def test_nobody_speaks_for_the_servers_of_another_namespace() -> None:
    found = summary(an_event(server=an_id("web", "web")), an_event(server="spiffe://example.org/elsewhere"))
    assert (found.foreign, found.decided.total()) == (2, 0)


def test_the_envoy_entry_point_is_read_as_well() -> None:
    event = an_event()
    event["result"] = {"allowed": True, "dynamic_metadata": event["result"], "headers": {}}
    event["input"] = {"attributes": {"request": {"http": {"method": "PUT"}}}}
    assert summary(event).decided == {Labels(ORDERS, FRONTEND, "allowed"): 1}


def test_what_cannot_be_read_is_counted_and_nothing_more() -> None:
    for event in (
        None, 7, [], {}, an_event(at="yesterday"), an_event(allowed="true"), an_event(reason="<b>"), an_event(reason=7),
        {**an_event(), "result": None}, {**an_event(), "erased": ["/result"], "result": {}},
    ):  # fmt: skip
        found = summary(event)
        assert (found.malformed, found.decided.total(), found.denials) == (1, 0, ())


@pytest.mark.parametrize("body", [{}, None, "text", [an_event()] * 1001])
def test_no_list_or_too_long_a_list_is_refused(body: Any) -> None:
    with pytest.raises(Refused) as refused:
        LogReader(Directory(), 1000, 10, 3).summary(body, CALLER, NOW)
    assert refused.value.status == 400


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(anything | st.builds(lambda value, name: an_event(**{name: value}), anything, st.sampled_from(
    ["allowed", "reason", "server", "client", "policy", "rule", "key_id", "unknown_key", "provider", "observed", "candidate"]
)), max_size=4))  # fmt: skip
def test_no_event_breaks_the_reader(events: list[Any]) -> None:
    found = summary(*events)
    assert found.decided.total() + found.foreign + found.malformed == len(events)


async def test_an_upload_as_opa_sends_it(tmp_path: Path) -> None:
    async with serving(tmp_path, log_entries=5) as rig:
        session = await rig.session(rig.token())
        events = [an_event(), an_event(allowed=False, reason="no_grant"), 7]
        headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
        async with session.post("/logs", data=gzip.compress(json.dumps(events).encode()), headers=headers) as response:
            assert response.status == 204
        (found,) = rig.sinks.summaries
        assert (found.decided.total(), found.malformed, len(found.denials)) == (2, 1, 1)
        async with session.post("/logs", data=json.dumps([7] * 6)) as response:
            assert response.status == 400
        unbound = await rig.session(rig.token("cron", pod={POD_NAME: ["x"], POD_UID: []}))
        async with unbound.post("/logs", data="[]") as response:
            assert response.status == 403
        assert rig.metric("decision_events_total", outcome="counted") == 2
