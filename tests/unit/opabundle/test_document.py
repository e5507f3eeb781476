"""The projection of decision tables to OPA's data, and what a bundle's revision covers."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given

from tests.support.certificates import NOW
from tests.support.policies import Body, World, a_policy, tables_of, worlds
from zerotrust.opabundle.document import Document, Server, content_hash, policy_document, revocations_document
from zerotrust.opabundle.modules import modules
from zerotrust.pki.spiffe import SpiffeID
from zerotrust.policy.directory import Identity, PlainDirectory, Workload, default_selector

ORDERS, FRONT, STRANGER = Workload("shop", "orders"), Workload("web", "front"), Workload("web", "stranger")
SERVER = "spiffe://example.org/ns/shop/sa/orders"
CLIENT = "spiffe://example.org/ns/web/sa/front"


def spiffe_id(workload: Workload) -> SpiffeID | None:
    if workload == STRANGER:
        return None
    return SpiffeID.of_service_account("example.org", workload.namespace, workload.name)


def document(*rules: Body, **spec: Any) -> Document:
    """The document of shop/orders under one policy with these rules."""
    places = (ORDERS, FRONT, STRANGER)
    directory = PlainDirectory(
        {one: Identity(one, {}, default_selector(one.name), providers=frozenset({"corp"})) for one in places},
        {"shop": {}, "web": {}},
        {Workload("shop", "partner"): frozenset({"read"})},
    )
    policy = a_policy("policy", target={"identities": ["orders"]}, rules=[*rules], **spec)
    tables = tables_of(directory, [policy])
    return policy_document([Server(tables[ORDERS], "example.org", "Allow")], spiffe_id, {}, {})


def grants(*rules: Body, **spec: Any) -> dict[str, Any]:
    found: dict[str, Any] = document(*rules, **spec)["servers"][SERVER]["grants"]
    return found


def a_rule(peer: Body, to: Body | None = None, **more: Any) -> Body:
    return {"name": "rule", "from": [peer], "to": [{"port": 8443, **(to or {})}], **more}


FROM_FRONT: Body = {"workload": {"name": "front", "namespace": "web"}}
PLAIN = {"policy": "policy", "rule": "rule", "effect": "Allow", "port": 8443, "protocol": "TCP"}


def test_a_row_says_only_what_it_asks_for() -> None:
    assert grants(a_rule(FROM_FRONT)) == {CLIENT: [PLAIN]}


def test_a_row_says_everything_that_it_asks_for() -> None:
    user = {"provider": "corp", "audiences": ["orders"], "claims": {"groups": ["sre", "dev"]}}
    window = {"days": ["Sat", "Mon"], "from": "22:00", "to": "06:30", "timeZone": "Europe/Berlin"}
    when = {"scopes": ["write", "read"], "requireMTLS": True, "time": window}
    to = {"methods": ["PUT", "GET"], "paths": ["/a/*/", "/**", "/"]}
    rule = a_rule({**FROM_FRONT, "user": user}, to, when=when, until="2026-12-31T00:00:00.5Z")
    assert grants(rule, mode="Observe") == {
        CLIENT: [
            {
                **PLAIN,
                "observe": True,
                "methods": ["GET", "PUT"],
                "paths": [[], ["**"], ["a", "*"]],
                "principal": {
                    "kind": "user",
                    "provider": "corp",
                    "audiences": ["orders"],
                    "claims": {"groups": ["dev", "sre"]},
                },
                "scopes": ["read", "write"],
                "require_mtls": True,
                "window": {"days": [0, 5], "start": 1320, "end": 390, "time_zone": "Europe/Berlin"},
                "until": int(datetime(2026, 12, 31, tzinfo=UTC).timestamp()),
            }
        ]
    }


@pytest.mark.parametrize(
    ("key", "principal"),
    [
        ({"name": "partner"}, {"kind": "key", "name": "partner", "scopes": []}),
        ({"scopes": ["read"]}, {"kind": "key", "name": "", "scopes": ["read"]}),
    ],
)
def test_a_key_is_asked_for_by_name_or_by_scopes(key: Body, principal: Body) -> None:
    assert grants(a_rule({"anyWorkload": {}, "apiKey": key})) == {"*": [{**PLAIN, "principal": principal}]}


def test_who_has_no_spiffe_id_is_left_out() -> None:
    assert grants(a_rule({"workload": {"name": "stranger", "namespace": "web"}})) == {}
    directory = PlainDirectory({STRANGER: Identity(STRANGER, {}, default_selector("stranger"))}, {"web": {}})
    (table,) = tables_of(directory, []).values()
    assert policy_document([Server(table, "example.org")], spiffe_id, {}, {})["servers"] == {}


@pytest.mark.parametrize("peer", [{"pods": {"podSelector": {"matchLabels": {"a": "b"}}}}, {"cidr": "10.20.0.0/16"}])
def test_what_only_layer_4_knows_is_left_out(peer: Body) -> None:
    assert grants(a_rule(peer)) == {}


def test_a_server_says_what_its_identity_and_trust_domain_say() -> None:
    assert document() == {
        "authorities": {},
        "providers": {},
        "servers": {
            SERVER: {
                "name": "orders",
                "trust_domain": "example.org",
                "enforcement": "Enforce",
                "on_stale_revocations": "Allow",
                "grants": {},
            }
        },
        "api_keys": {},
    }


def test_authorities_have_one_order() -> None:
    one = policy_document([], spiffe_id, {}, {"example.org": ["b", "a", "b"]})
    assert one["authorities"] == {"example.org": ["a", "b"]}


def test_cutoffs_are_whole_seconds_and_never_earlier() -> None:
    name = SpiffeID.parse(CLIENT)
    second = int(NOW.timestamp())
    assert revocations_document({name: NOW}) == {"identities": {CLIENT: second}, "keys": {}}
    later = revocations_document({name: NOW + timedelta(microseconds=1)})
    assert later["identities"] == {CLIENT: second + 1}


def whole(world: World) -> Document:
    servers = [Server(table, "example.org") for table in world.tables().values()]
    return policy_document(servers, spiffe_id, {}, {})


@given(worlds)
def test_every_row_about_an_identity_is_there_once_and_in_order(world: World) -> None:
    found = whole(world)["servers"]
    for workload, table in world.tables().items():
        mine = found[str(spiffe_id(workload))]["grants"]
        rows = [row for row in table.rows if row.client.kind in ("workload", "anyWorkload")]
        assert sum(map(len, mine.values())) == len(rows)
        for client, projected in mine.items():
            kept = [
                row for row in rows if client == (str(spiffe_id(row.client.workload)) if row.client.workload else "*")
            ]
            assert [(row["policy"], row["rule"], row["port"]) for row in projected] == [
                (row.policy, row.rule, row.port) for row in kept
            ]


def test_the_hash_covers_document_and_modules_and_no_order() -> None:
    one = document(a_rule(FROM_FRONT))
    shuffled = json.loads(json.dumps(dict(reversed(one.items()))))
    assert content_hash(one, {"a": "1", "b": "2"}) == content_hash(shuffled, {"b": "2", "a": "1"})
    different = {
        content_hash(one, {"a": "1"}),
        content_hash(one, {"a": "2"}),
        content_hash(one, {"b": "1"}),
        content_hash(document(), {"a": "1"}),
    }
    assert len(different) == 4
    assert all(len(value) == 64 for value in different)


def test_the_modules_are_under_the_roots_and_no_tests() -> None:
    names = [*modules()]
    assert "zerotrust/authz/decision.rego" in names
    assert "system/log/mask.rego" in names
    assert names == sorted(names)
    assert all(name.startswith(("zerotrust/authz/", "system/log/")) for name in names)
    assert not [name for name in names if name.endswith("_test.rego")]
