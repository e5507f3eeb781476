"""A real OPA server with the shipped modules: whatever it is asked there is an answer, and nothing secret in its log."""

import copy
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.support.api_keys import a_key
from tests.support.certificates import NOW
from tests.support.opa import DECISION, Opa, running_opa
from tests.support.proving import only_in_prove
from tests.support.rego import (
    CLIENT,
    META,
    ROW,
    SERVER,
    a_policy,
    a_request,
    a_server,
    an_envoy_request,
    answers,
    ask,
    nanoseconds,
    written_modules,
)

ENVOY = "zerotrust/authz/envoy"
KEYS = {"allowed", "reason", "policy", "rule", "status", "headers", "server", "client", "revision"}
NONSENSE: list[Any] = [
    None, True, False, 0, -1, 1.5, 1e300, 10**40, "", "x", "x" * 100_000, "\u0000", "\ud83d\ude00", [], [[]], ["x"], {}, {"": ""},
    {"x": {"y": [None]}},
]  # fmt: skip
SECRET = "secret-of-somebody"
# Open to anybody; a Deny, an Observe row, a user, a key, a path and a window make every part be read.
ROWS = [
    ROW,
    {**ROW, "rule": "observed", "observe": True, "methods": ["PUT"], "paths": [["a", "**"]]},
    {
        **ROW,
        "rule": "user",
        "port": 1,
        "principal": {"kind": "user", "provider": "corp", "audiences": ["a"], "claims": {}},
    },
    {**ROW, "rule": "key", "port": 1, "principal": {"kind": "key", "name": "", "scopes": ["a"]}},
]
OBSERVED = "spiffe://example.org/ns/shop/sa/observed"
DATA = a_policy(servers={SERVER: a_server(*ROWS), OBSERVED: a_server(enforcement="Observe")})


@pytest.fixture
async def opa(tmp_path: Path) -> AsyncIterator[Opa]:
    data = tmp_path / "data.json"
    data.write_text(json.dumps(DATA))
    log = {"decision_logs": {"console": True}}
    async with running_opa(tmp_path / "opa", log, [written_modules(tmp_path / "modules"), data]) as running:
        yield running


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value inside."""
    yield path
    for key, inner in node.items() if isinstance(node, dict) else ():
        yield from places(inner, (*path, key))


def with_value(given: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    changed = copy.deepcopy(given)
    node = changed
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return changed


def malformed() -> Iterator[Any]:
    """Both shapes, of which one part is missing or something else; what may be left out is left alone."""
    for given, needed in (
        (a_request(), {("server",), ("request",), ("request", "method"), ("request", "path"), ("request", "port")}),
        (an_envoy_request(), {("attributes",), ("attributes", "destination"), ("attributes", "request"),
                              ("attributes", "request", "http"), ("attributes", "request", "http", "path")}),
    ):  # fmt: skip
        for path in places(given):
            for value in NONSENSE:
                yield with_value(given, path, value)
        for path in needed:
            changed = copy.deepcopy(given)
            node = changed
            for key in path[:-1]:
                node = node[key]
            del node[path[-1]]
            yield changed


async def test_a_well_formed_request_is_allowed(opa: Opa) -> None:
    for given in (a_request(), an_envoy_request()):
        assert (await opa.ask(given))["allowed"] is True
        assert (await opa.ask(given, ENVOY))["allowed"] is True


async def test_what_is_malformed_is_answered_and_denied(opa: Opa) -> None:
    asked = [*malformed()]
    assert len(asked) > 300
    for given in asked:
        answer = await opa.ask(given)
        assert set(answer) >= KEYS
        if answer["allowed"]:
            assert harmless(given), given
            continue
        assert answer["reason"] in ("malformed_request", "no_identity", "no_grant"), given
        told = await opa.ask(given, ENVOY)
        assert told["allowed"] is False
        assert told["http_status"] == answer["status"] >= 400
        assert told["headers"] == answer["headers"] == {"x-zerotrust-reason": answer["reason"]}


def harmless(given: Any) -> bool:
    """Headers may be any map, a principal may be shown without mTLS, and a method may have any name."""
    plain = copy.deepcopy(given)
    http = plain["attributes"]["request"]["http"] if "attributes" in plain else plain["request"]
    headers = http.pop("headers")
    if "attributes" not in plain:
        plain["source"].pop("mtls")
    whole = an_envoy_request() if "attributes" in plain else a_request()
    bare = whole["attributes"]["request"]["http"] if "attributes" in whole else whole["request"]
    bare.pop("headers")
    if "attributes" not in whole:
        whole["source"].pop("mtls")
    return plain == whole and isinstance(headers, dict)


async def test_random_nonsense_is_answered_and_denied(opa: Opa) -> None:
    random = Random(5)
    words = [
        "server",
        "source",
        "request",
        "attributes",
        "principal",
        "certificate",
        "path",
        "port",
        "http",
        "headers",
        SERVER,
    ]

    def grown(depth: int) -> Any:
        if depth == 0 or random.random() < 0.3:
            return random.choice(NONSENSE)
        if random.random() < 0.2:
            return [grown(depth - 1) for _ in range(random.randint(0, 3))]
        return {random.choice(words): grown(depth - 1) for _ in range(random.randint(0, 5))}

    for _ in range(300):
        given = grown(5)
        answer = await opa.ask(given)
        assert (answer["allowed"], answer["reason"]) == (False, "malformed_request"), given
    assert not opa.said('"level":"error"')


async def test_an_observed_server_is_spared_odd_paths_but_no_nonsense(opa: Opa) -> None:
    odd = await opa.ask({**a_request(path="/a/../b"), "server": OBSERVED})
    assert (odd["allowed"], odd["status"], odd["observed"]["reason"]) == (True, 200, "malformed_request")
    nonsense = await opa.ask({**a_request(path=7), "server": OBSERVED})
    assert (nonsense["allowed"], nonsense["reason"]) == (False, "malformed_request")
    assert "observed" not in nonsense


async def test_nothing_secret_is_in_the_decision_log(opa: Opa) -> None:
    names = [
        "Authorization",
        "authorization",
        "X-API-Key",
        "x-api-key",
        "cookie",
        "Set-Cookie",
        "x-my-token",
        "a/b~c%zz",
        ":path",
    ]
    headers = dict.fromkeys(names, SECRET)
    unknown = {"token": SECRET, "body": {"password": SECRET}, "parsed_body": SECRET}
    asked: list[Any] = [
        {**a_request(headers=headers, path=f"/a?token={SECRET}", **unknown), "token": SECRET},
        a_request(headers=[SECRET]),
        a_request({"principal": CLIENT, "certificate": SECRET}),
        an_envoy_request({"principal": CLIENT, "certificate": SECRET}, headers, **unknown),
        {**an_envoy_request(), "parsed_query": {"token": [SECRET]}, "parsed_body": SECRET},
        {"attributes": SECRET},
        {
            "attributes": {
                "request": {"http": {"path": f"/?{SECRET}", "query": SECRET, "rawBody": SECRET, "headers": SECRET}}
            }
        },
        [SECRET],
        SECRET,
    ]
    for given in asked:
        await opa.ask(given)
    await opa.ask(a_request(path="/seen", headers={"user-agent": "seen-agent"}))
    log = opa.log.read_text()
    assert log.count(f'"path":"{DECISION}"') == len(asked) + 1
    assert SECRET not in log
    assert "/seen" in log
    assert "seen-agent" in log
    assert SERVER in log
    assert CLIENT in log


# --- freshness and reports, at a time of our choice ---


def stale(seconds: int) -> dict[str, Any]:
    return {**META, "not_after": int(NOW.timestamp()) + seconds}


@pytest.mark.parametrize(
    ("meta", "reason"),
    [
        (META, "allowed"),
        (stale(1), "allowed"),
        (stale(0), "stale_bundle"),
        (stale(-1), "stale_bundle"),
        ({}, "stale_bundle"),
        (None, "stale_bundle"),
        ({**META, "not_after": "never"}, "stale_bundle"),
        ({**META, "not_after": None}, "stale_bundle"),
        ({**META, "schema": 2}, "stale_bundle"),
    ],
)
def test_what_is_stale_denies(meta: Any, reason: str, tmp_path: Path) -> None:
    observing = {SERVER: a_server(enforcement="Observe")}
    for data in (a_policy(meta=meta), a_policy(meta=meta, servers=observing), a_policy(revocations={"meta": meta})):
        (answer,) = ask(tmp_path, data, a_request())
        assert (answer["reason"], answer["allowed"]) == (reason, reason == "allowed")
        assert answer["status"] == (200 if reason == "allowed" else 503)


def test_stale_revocations_do_what_the_trust_domain_says(tmp_path: Path) -> None:
    kinds = {SERVER: a_server(on_stale_revocations="Allow"), OBSERVED: a_server(enforcement="Observe")}
    data = a_policy(servers=kinds, revocations={"meta": stale(-1)})
    allowed, observed = ask(tmp_path, data, a_request(), {**a_request(), "server": OBSERVED})
    assert allowed["reason"] == "allowed"
    assert (observed["reason"], observed["observed"]["reason"]) == ("allowed", "stale_bundle")
    # What they said when they were fresh goes on.
    data["zerotrust_data"]["revocations"]["identities"] = {CLIENT: 1}
    assert ask(tmp_path, data, a_request())[0]["reason"] == "revoked_identity"


def test_without_any_data_everything_is_denied(tmp_path: Path) -> None:
    (answer,) = ask(tmp_path, {}, a_request())
    assert (answer["allowed"], answer["reason"], answer["status"], answer["revision"]) == (
        False,
        "stale_bundle",
        503,
        "",
    )


def test_a_time_zone_that_opa_does_not_know_closes_an_allow_and_spares_nobody_from_a_deny(tmp_path: Path) -> None:
    window = {"days": [*range(7)], "start": 0, "end": 1440, "time_zone": "Europe/Atlantis"}
    data = a_policy(servers={SERVER: a_server({**ROW, "window": window})})
    assert ask(tmp_path, data, a_request())[0]["reason"] == "outside_hours"
    data = a_policy(servers={SERVER: a_server(ROW, {**ROW, "window": window, "effect": "Deny"})})
    assert ask(tmp_path, data, a_request())[0]["reason"] == "denied_by_rule"


def test_envoy_is_told_the_same_in_its_own_words(tmp_path: Path) -> None:
    shown = {"authorization": f"ApiKey {a_key()}"}
    asked = [(one, nanoseconds(NOW)) for one in (an_envoy_request(headers=shown), an_envoy_request({}))]
    allowed, denied = answers(tmp_path, DATA, asked, "envoy")
    assert allowed["request_headers_to_remove"] == ["authorization"]
    assert (allowed["allowed"], allowed["http_status"], allowed["headers"]) == (True, 200, {})
    assert (denied["allowed"], denied["http_status"]) == (False, 401)
    assert denied["headers"] == {"x-zerotrust-reason": "no_identity"}
    assert denied["dynamic_metadata"]["reason"] == "no_identity"


@only_in_prove
def test_the_envoy_plugins_older_opa_loads_the_modules_too(tmp_path: Path) -> None:
    asked = [(a_request(), nanoseconds(NOW)), (an_envoy_request({}), nanoseconds(NOW)), (7, nanoseconds(NOW))]
    old = answers(tmp_path, DATA, asked, program="opa-envoy-plugin")
    assert old == answers(tmp_path, DATA, asked)
