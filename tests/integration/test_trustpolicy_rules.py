"""TrustPolicy on a real API server: rules and bounds, unknown fields, the largest policy, and whether the model agrees."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from random import Random
from typing import Any, Literal, get_args, get_origin

import pytest
import yaml
from annotated_types import Ge, Le, MaxLen, MinLen
from hypothesis import HealthCheck, given, note, settings
from pydantic.alias_generators import to_snake

from hack.controlplane import ControlPlane
from tests.integration.test_crd_rules import (
    ABSENT,
    EXAMPLES,
    TIME,
    WORDS,
    WRONG_TYPES,
    ApiServer,
    Body,
    Case,
    Existing,
    Node,
    an_object,
    as_reported,
    causes,
    collection,
    get,
    has,
    nodes_of,
    put,
    rules_of,
    selector_cases,
    submit,
    time_case,
)
from tests.support.policies import random_world, seeds
from zerotrust.common.errors import SpecError
from zerotrust.common.resource import TIMESTAMP, Resource, parse
from zerotrust.policy.peers import MAX_DESTINATIONS, MAX_PEERS, PATH_PATTERN
from zerotrust.policy.reading import digest, read
from zerotrust.policy.resource import KIND, MAX_RULES, TrustPolicySpec

pytestmark = pytest.mark.cluster

_WRITTEN = yaml.safe_load("""
- spec:
    target: {identities: [orders]}
    mode: Enforce
    layers: [NetworkPolicy, OPA, Gatekeeper]
    rules:
      - name: requests
        effect: Allow
        from:
          - workload: {name: front, namespace: web}
            user: {provider: corp, audiences: [orders], claims: {groups: [sre]}}
        to: [{port: 8443, protocol: TCP, methods: [GET], paths: [/api/orders/**]}]
        when:
          scopes: ["orders:read"]
          requireMTLS: true
          time: {days: [Mon], from: "06:00", to: "20:00", timeZone: Asia/Tokyo}
        until: "2026-12-31T00:00:00Z"
    admission: {allowedRegistries: [registry.example.org/shop], denyHostNetwork: true, requireDigest: false}
    tests:
      - name: no-writes
        request:
          from: web/front
          to: orders
          port: 8443
          protocol: TCP
          method: POST
          path: /api/orders
          mtls: true
          user: {provider: corp, audiences: [orders], claims: {groups: [sre]}, scopes: ["orders:read"]}
          apiKey: partner-x
        at: "2026-12-31T00:00:00Z"
        expect: Deny
  status: &status
    observedGeneration: 1
    targets: 1
    revision: 00ff
    networkPolicies: 1
    constraints: 0
    decisionPoints: {total: 1, acknowledged: 0, lagging: [opa]}
    denials:
      - target: orders
        client: spiffe://example.org/ns/web/sa/batch
        reason: no_grant
        at: "2026-12-31T00:00:00Z"
    tests: {passed: 1, failed: [no-writes]}
    violations: {total: 1, examples: [{object: Pod orders-0, message: x, foundAt: "2026-11-22T12:00:00Z"}]}
    conditions:
      - type: Ready
        status: "True"
        reason: Programmed
        message: x
        observedGeneration: 1
        lastTransitionTime: "2026-12-31T00:00:00Z"
- spec:
    target: {selector: &selector {matchLabels: {team: shop}, matchExpressions: [{key: tier, operator: In, values: [prod]}]}}
    rules:
      - name: by-label
        from: [{workloads: {namespaceSelector: *selector, selector: *selector}, apiKey: {name: partner-x}}]
        to: [{port: 8443}]
- spec:
    target: {all: true}
    rules:
      - {name: keys, from: [{anyWorkload: {}, apiKey: {scopes: ["orders:read"]}}], to: [{port: 8443}]}
- spec:
    target: {selector: &exists {matchExpressions: [{key: tier, operator: Exists}]}}
    mode: Observe
    layers: [NetworkPolicy]
    rules:
      - name: below
        from: [{pods: {namespaceSelector: *selector, podSelector: *selector}}, {cidr: 10.20.0.0/16}]
        to: [{port: 53, protocol: UDP}]
- spec:
    target: {all: true}
    rules: [{name: range, from: [{cidr: 10.20.0.0/16}], to: [{port: 53}]}]
- spec:
    target: {all: true}
    rules:
      - name: elsewhere
        from: [{workloads: {namespaceSelector: *exists, selector: *exists}}]
        to: [{port: 1}]
- spec:
    target: {all: true}
    rules:
      - name: pods
        from: [{pods: {namespaceSelector: *exists, podSelector: *exists}}]
        to: [{port: 1}]
- spec:
    target: {all: true}
    rules: [{name: days, from: [{anyWorkload: {}}], to: [{port: 1}], when: {time: {days: [Mon], timeZone: UTC}}}]
- spec:
    target: {all: true}
    tests: [{name: plain, request: {from: web/front, port: 1}, expect: Deny}]
""")
SAMPLES: list[Body] = json.loads(
    json.dumps(_WRITTEN)
)  # without YAML's anchors: an edit of one place must not show in others
SELECTOR = SAMPLES[1]["spec"]["target"]["selector"]
NODES = list(nodes_of(KIND))
FRONT: Body = {"workload": {"name": "front", "namespace": "web"}}
ANYONE: Body = {"anyWorkload": {}}
USER: Body = {"provider": "corp", "audiences": ["orders"]}
KEY: Body = {"name": "partner-x"}
HOURS: Body = {"time": {"days": ["Mon"], "timeZone": "UTC"}}


def a_rule(name: str = "rule", **changes: Any) -> Body:
    """A rule; `from_` stands for `from`."""
    rule = {"name": name, "from": [FRONT], "to": [{"port": 8443}], **changes}
    return rule | ({"from": rule.pop("from_")} if "from_" in rule else {})


def a_spec(*rules: Body, **changes: Any) -> Body:
    return {"target": {"all": True}, "rules": [*(rules or [a_rule()])], **changes}


def a_test(name: str = "test", **changes: Any) -> Body:
    return {"name": name, "request": {"from": "web/front", "port": 8443}, "expect": "Deny", **changes}


def case(path: str, says: str, accepted: tuple[Any, ...], refused: tuple[Any, ...], *beside: str) -> Case:
    sample = a_spec() if path in ("spec.rules[]", "spec.rules[].from[]", "spec.rules[].to[]") else None
    found = sample or next(sample["spec"] for sample in SAMPLES if has(sample, path))
    return Case(KIND, path, says, accepted, refused, {"spec": found}, beside)


def in_sample(number: int, cases: Iterator[Case]) -> Iterator[Case]:
    for one in cases:
        yield Case(KIND, one.path, one.says, one.accepted, one.refused, {"spec": SAMPLES[number]["spec"]}, one.beside)


PODS: Body = {"pods": {"podSelector": SELECTOR}}
CIDRS = ("10.0.0.0/8", "10.0.0.1/8", "0.0.0.0/1", "8000::/1", "2001:DB8::/32", "::10.0.0.1/128")
NOT_CIDRS = (
    *(
        "0.0.0.0/0",
        "::/0",
        "999.1.1.1/99",
        "010.0.0.0/8",
        "10.0.0.0/08",
        "10.0.0.0/33",
        "1.2.3/8",
        ".../8",
        "1.2.3.4.5/1",
        "1e1.0.0.0/8",
    ),
    *("::/129", "::1/00", "1::2::3/8", "00000::/8", "::ffff:10.0.0.0/104", "::ffff:a00:0/104"),
)
CASES = (
    case(
        "spec",
        "rules have unique names",
        (a_spec(a_rule("a"), a_rule("b")), a_spec()),
        (a_spec(a_rule(), a_rule(port=1)),),
    ),
    case(
        "spec",
        "tests have unique names",
        (a_spec(tests=[a_test("a"), a_test("b")]),),
        (a_spec(tests=[a_test(), a_test(expect="Allow")]),),
    ),
    case(
        "spec",
        "layers names each layer once",
        (a_spec(layers=["OPA", "Gatekeeper"]),),
        (a_spec(layers=["OPA", "OPA"]),),
        "Duplicate value",
    ),
    case(
        "spec",
        "needs OPA among the layers",
        (a_spec(layers=["NetworkPolicy"]), a_spec(a_rule(until=TIME), layers=["OPA"]), a_spec(a_rule(until=TIME))),
        tuple(
            a_spec(a_rule("plain"), a_rule(**change), layers=["NetworkPolicy", "Gatekeeper"])
            for change in (
                {"until": TIME},
                {"when": {"requireMTLS": True}},
                {"from_": [{**FRONT, "user": USER}]},
                {"from_": [FRONT, {**FRONT, "apiKey": KEY}]},
                {"to": [{"port": 1}, {"port": 1, "methods": ["GET"]}]},
                {"to": [{"port": 1, "paths": ["/"]}]},
            )
        ),
    ),
    case(
        "spec",
        "every test needs `at`",
        (
            a_spec(a_rule(until=TIME), tests=[a_test(at=TIME)]),
            a_spec(a_rule(when={"requireMTLS": True}), tests=[a_test()]),
        ),
        (
            a_spec(a_rule(until=TIME), tests=[a_test()]),
            a_spec(a_rule("a"), a_rule(when=HOURS), tests=[a_test("a", at=TIME), a_test()]),
        ),
    ),
    case(
        "spec.admission",
        "entries of allowedRegistries begin with a host: write docker.io/team instead of team",
        tuple(
            {"allowedRegistries": entries}
            for entries in (
                ["docker.io/team", "docker.io"],
                ["localhost"],
                ["localhost/team/"],
                ["registry:5000/team", "localhost:5000"],
                ["10.0.0.1:5000/team/app"],
            )
        ),
        tuple(
            {"allowedRegistries": entries}
            for entries in (
                ["team"],
                ["nginx/"],
                ["docker.io/team", "team/app"],
                ["localhosts"],
                ["team/docker.io"],
                ["team/localhost"],
            )
        ),
    ),
    case(
        "spec.admission",
        "entries of allowedRegistries have no tag and no empty segment, and Docker Hub is docker.io: write docker.io/team",
        tuple(
            {"allowedRegistries": entries}
            for entries in (
                ["docker.io/team"],
                ["registry:5000/team/"],
                ["my.index.docker.io/team"],
                ["index.docker.io.lan"],
            )
        ),
        tuple(
            {"allowedRegistries": entries}
            for entries in (
                ["docker.io/team/app:1"],
                ["docker.io/team", "registry:5000/team:latest"],
                ["docker.io//team"],
                ["index.docker.io"],
                ["index.docker.io/team"],
            )
        ),
    ),
    *in_sample(1, selector_cases(KIND, "spec.target.selector")),
    *(
        one
        for place, number in (
            ("workloads.namespaceSelector", 1),
            ("workloads.selector", 1),
            ("pods.namespaceSelector", 3),
            ("pods.podSelector", 3),
        )
        for one in in_sample(number, selector_cases(KIND, f"spec.rules[].from[].{place}"))
    ),
    case(
        "spec.target",
        "exactly one of identities, selector and all: true",
        ({"all": True}, {"selector": SELECTOR}, {"identities": ["a"]}),
        (
            {},
            {"all": True, "selector": SELECTOR},
            {"identities": ["a"], "all": True},
            {"identities": ["a"], "selector": SELECTOR},
        ),
    ),
    case(
        "spec.rules[]",
        "a Deny has no until",
        (a_rule(effect="Deny"), a_rule(until=TIME)),
        (a_rule(effect="Deny", until=TIME),),
    ),
    case(
        "spec.rules[]",
        "a Deny has no cidr",
        (a_rule(from_=[{"cidr": "10.0.0.0/8"}]), a_rule(from_=[PODS], effect="Deny")),
        (
            a_rule(from_=[{"cidr": "10.0.0.0/8"}], effect="Deny"),
            a_rule(from_=[FRONT, {"cidr": "10.0.0.0/8"}], effect="Deny"),
        ),
    ),
    case(
        "spec.rules[]",
        "a rule with them takes no methods, paths, when and until",
        (a_rule(from_=[PODS, FRONT]), a_rule(from_=[{"cidr": "2001:db8::/32"}], to=[{"port": 1, "protocol": "SCTP"}])),
        tuple(
            a_rule(from_=[FRONT, peer], **more)
            for peer in (PODS, {"cidr": "10.0.0.0/8"})
            for more in (
                {"until": TIME},
                {"when": HOURS},
                {"to": [{"port": 1}, {"port": 2, "methods": ["GET"]}]},
                {"to": [{"port": 2, "paths": ["/"]}]},
            )
        ),
    ),
    case(
        "spec.rules[]",
        "when.scopes needs a user or an apiKey",
        (a_rule(from_=[{**FRONT, "user": USER}, {**ANYONE, "apiKey": KEY}], when={"scopes": ["a"]}),),
        (
            a_rule(when={"scopes": ["a"]}),
            a_rule(from_=[{**FRONT, "user": USER}, ANYONE], when={"scopes": ["a"], **HOURS}),
        ),
    ),
    case(
        "spec.rules[]",
        "user, apiKey and when belong to protocol TCP",
        (a_rule(to=[{"port": 53, "protocol": "UDP"}], until=TIME), a_rule(from_=[{**FRONT, "user": USER}], when=HOURS)),
        tuple(
            a_rule(to=[{"port": 1}, {"port": 2, "protocol": protocol}], **change)
            for protocol in ("UDP", "SCTP")
            for change in (
                {"when": HOURS},
                {"from_": [FRONT, {**FRONT, "user": USER}]},
                {"from_": [{**FRONT, "apiKey": KEY}]},
            )
        ),
    ),
    case(
        "spec.rules[].from[]",
        "exactly one of workload, workloads, anyWorkload: {}, pods and cidr",
        (FRONT, ANYONE, {"workloads": {"selector": SELECTOR}}),
        ({}, {"user": USER}, {**FRONT, **ANYONE}, {**ANYONE, "workloads": {"selector": SELECTOR}}),
    ),
    case(
        "spec.rules[].from[]",
        "write user or apiKey, not both",
        ({**FRONT, "apiKey": KEY},),
        ({**FRONT, "user": USER, "apiKey": KEY},),
    ),
    Case(
        KIND,
        "spec.rules[].from[]",
        "user and apiKey need workload",
        (PODS, {"cidr": "2001:db8::/32"}),
        ({**PODS, "user": USER}, {"cidr": "2001:db8::/32", "apiKey": KEY}),
        {"spec": a_spec()},
    ),
    Case(
        KIND,
        "spec.rules[].from[]",
        "cidr must be an address range",
        tuple({"cidr": one} for one in CIDRS),
        tuple({"cidr": one} for one in NOT_CIDRS),
        {"spec": a_spec()},
    ),
    case(
        "spec.rules[].from[].workloads",
        "write namespaceSelector, selector or both",
        ({"selector": SELECTOR}, {"namespaceSelector": SELECTOR}),
        ({},),
    ),
    case(
        "spec.rules[].from[].pods",
        "write namespaceSelector, podSelector or both",
        ({"podSelector": SELECTOR}, {"namespaceSelector": SELECTOR}),
        ({},),
    ),
    case(
        "spec.rules[].from[].apiKey",
        "exactly one of name and scopes",
        (KEY, {"scopes": ["a"]}),
        ({}, {**KEY, "scopes": ["a"]}),
    ),
    Case(
        KIND,
        "spec.rules[].to[]",
        "methods and paths belong to protocol TCP",
        (
            {"port": 1, "protocol": "UDP"},
            {"port": 1, "protocol": "TCP", "methods": ["GET"]},
            {"port": 1, "paths": ["/"]},
        ),
        ({"port": 1, "protocol": "UDP", "methods": ["GET"]}, {"port": 1, "protocol": "SCTP", "paths": ["/"]}),
        {"spec": a_spec()},
    ),
    case(
        "spec.rules[].when", "write scopes, requireMTLS, time", (HOURS, {"requireMTLS": True}, {"scopes": ["a"]}), ({},)
    ),
    case(
        "spec.rules[].when.time",
        "write days, or from and to, or all three",
        ({"timeZone": "UTC", "days": ["Sun"]}, {"timeZone": "UTC", "from": "06:00", "to": "05:59"}),
        (
            {"timeZone": "UTC"},
            {"timeZone": "UTC", "from": "06:00"},
            {"timeZone": "UTC", "days": ["Mon"], "to": "06:00"},
        ),
    ),
    case(
        "spec.rules[].when.time",
        "from and to must differ",
        ({"timeZone": "UTC", "from": "00:00", "to": "23:59"},),
        ({"timeZone": "UTC", "from": "00:00", "to": "00:00"},),
    ),
    case(
        "spec.tests[].request",
        "write method and path, or neither",
        ({"from": "a/b", "port": 1}, {"from": "a/b", "port": 1, "method": "GET", "path": "\u00e9%2e%2e\\"}),
        ({"from": "a/b", "port": 1, "method": "GET"}, {"from": "a/b", "port": 1, "path": "/"}),
    ),
    case(
        "spec.tests[].request",
        "user and apiKey belong to a request",
        ({"from": "a/b", "port": 1, "method": "GET", "path": "/", "apiKey": "x"},),
        ({"from": "a/b", "port": 1, "apiKey": "x"}, {"from": "a/b", "port": 1, "user": {"provider": "corp"}}),
    ),
    *(
        replace(time_case(KIND, path), beside=("expected string",))
        for path in ("spec.rules[].until", "spec.tests[].at")
    ),
    time_case(KIND, "status.denials[].at"),
    time_case(KIND, "status.violations.examples[].foundAt"),
    time_case(KIND, "status.conditions[].lastTransitionTime"),
)


@pytest.fixture(scope="module")
def server(control_plane: ControlPlane) -> Iterator[ApiServer]:
    """The API server with the CRDs, which stay for the other tests of the session."""
    with closing(ApiServer(control_plane)) as server:
        server.install()
        yield server


@pytest.fixture(scope="module")
def target(server: ApiServer) -> Iterator[Existing]:
    """A real policy, whose status dry runs may try to change."""
    existing = Existing(KIND, "trustpolicy-rules", "default")
    server.send("DELETE", existing.path)
    status, answer = server.send("POST", collection(KIND), an_object(KIND, existing.name, spec=a_spec()))
    assert status == 201, answer["message"]
    yield existing
    server.send("DELETE", existing.path)


def sample_of(one: Case) -> Body:
    part = one.path.partition(".")[0]
    return one.sample or next({part: sample[part]} for sample in SAMPLES if has(sample, one.path))


def by_model(spec: Any) -> str:
    """What the model says against a spec; empty when it accepts it."""
    try:
        parse(TrustPolicySpec, {} if spec is None else spec, "spec")
    except SpecError as error:
        return str(error)
    return ""


def test_every_rule_has_a_case() -> None:
    rules = set(rules_of(KIND))
    proven = [(one.path, one.says) for one in CASES]
    missing = {rule for rule in rules if not any(rule[0] == path and says in rule[1] for path, says in proven)}
    unknown = [one for one in proven if sum(one[0] == path and one[1] in message for path, message in rules) != 1]
    assert not missing, "add a case for each of these rules"
    assert not unknown, "these cases name no rule, or several"


@pytest.mark.parametrize("one", CASES, ids=str)
def test_rule_refuses_what_breaks_it_and_nothing_else(server: ApiServer, target: Existing, one: Case) -> None:
    sample = sample_of(one)
    (message,) = (message for path, message in rules_of(KIND) if path == one.path and one.says in message)
    for value in one.accepted:
        body = put(sample, one.path, value)
        accepted, answer = submit(server, target, body)
        assert accepted, f"{value} is refused: {answer['message']}"
        assert "status" in body or not by_model(body["spec"])
    for value in one.refused:
        body = put(sample, one.path, value)
        accepted, answer = submit(server, target, body)
        assert not accepted, f"{value} is accepted"
        found = causes(answer)
        assert any(place in (as_reported(sample, one.path), "<nil>") and message in text for place, text in found), (
            found
        )
        others = [cause for cause in found if not any(says in cause[1] for says in (message, *one.beside))]
        assert not others, f"{value} breaks more than this rule: {others}"
        assert "status" in body or by_model(body["spec"]), f"the model accepts {value}"


# Examples for the patterns of this kind: what matches, what does not, and a match of any length.
ALL_EXAMPLES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    **EXAMPLES,
    PATH_PATTERN: (
        ("/", "/a", "/a/", "/*", "/**", "/a/*/b/**", "/**/**", "/.well-known/a.b", "/a!$&'()+,=:@~_-"),
        (
            *("", "a", "//", "/a//b", "/.", "/..", "/./a", "/a/..", "/a b", "/a;b", "/a?b", "/a#b", "/a\\b", "/a\n"),
            *("/%61", "/%2e%2e", "/é", "/\u202e", "/\uff0f", "/a*", "/***", "/*a", "/[a]", "/{a}", "/\x00", "/..a"),
        ),
    ),
    r"^[A-Z][A-Z-]*$": (("GET", "M-SEARCH"), ("", "get", "G3T", "-", "GET ", "GET\n", "*", "ÉT")),
    r"^[\x21\x23-\x5B\x5D-\x7E]+$": (("orders:read", "!", "a/b.c"), ("", "a b", 'a"', "a\\b", "é", "a\n", "\x7f")),
    r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$": (("a", "a-1"), ("", "A", "-a", "a-", "a.b", "a\n", "é")),
    r"^([01][0-9]|2[0-3]):[0-5][0-9]$": (("05:59", "23:59"), ("", "24:00", "6:00", "06:60", "0600", "06.00")),
    r"^[A-Za-z0-9_+/-]+$": (("UTC", "America/Argentina/Buenos_Aires", "Etc/GMT+1"), ("", "a b", "a.b", "../x", "é", "UTC\n")),
    r"^[a-z0-9]([-a-z0-9._:/]*[a-z0-9])?/?$": (
        ("docker.io", "registry.example.org:5000/shop/"),
        ("", "/a", "A", "a//-", "a b", "a*", "a\n", "https://é"),
    ),
    r"^[a-z0-9][-a-z0-9]*/[a-z0-9][-a-z0-9.]*$": (("a/b", "web/front.v2"), ("", "a", "a/", "/b", "a/b/c", "A/b", "a/b\n")),
}  # fmt: skip


def a_word(node: Node, length: int) -> str:
    match node.pattern:
        case pattern if pattern == PATH_PATTERN:
            return "/" + "a" * (length - 1)
        case r"^[a-z0-9][-a-z0-9]*/[a-z0-9][-a-z0-9.]*$":
            return "a/" + "b" * (length - 2)
        case r"^[a-z0-9]([-a-z0-9._:/]*[a-z0-9])?/?$":
            return f"a.{'b' * length}"[:length]
        case r"^[A-Z][A-Z-]*$":
            return "G" * length
        case r"^([01][0-9]|2[0-3]):[0-5][0-9]$":
            return "06:00".rjust(length, "0")
        case pattern if pattern in WORDS:
            return WORDS[pattern](length)
        case _:
            return "a" * length


def resized(node: Node, present: Any, length: int) -> Any:
    if node.shape is str or node.shape is datetime:
        return a_word(node, length)
    if isinstance(present, dict):
        return {f"key{number}": next(iter(present.values())) for number in range(length)}
    first = present[0]
    keys = [key for key in ("name", "type") if isinstance(first, dict) and key in first]
    return [{**first, **{key: f"{first[key]}{number}" for key in keys}} if keys else first for number in range(length)]


def edges(node: Node, present: Any) -> Iterator[tuple[str, tuple[Any, ...], tuple[Any, ...]]]:
    """Every constraint of a place: what the API server says, values that keep it, values that break it."""
    yield "must be of type", (), WRONG_TYPES.get(node.shape, ({},) if get_origin(node.shape) is Literal else ([],))
    if node.required:
        yield "Required value", (), (ABSENT,)
    if get_origin(node.shape) is Literal:
        choices = get_args(node.shape)
        yield "Unsupported value", choices, (False,) if choices == (True,) else ("", choices[0].lower(), "Other")
        return
    if node.pattern:
        yield "should match", *ALL_EXAMPLES[node.pattern]
    for says, kind, attribute, step in (
        ("Too", MaxLen, "max_length", 1),
        ("should ", MinLen, "min_length", -1),
        ("greater than or equal to", Ge, "ge", -1),
        ("less than or equal to", Le, "le", 1),
    ):
        bound = node.bound(kind, attribute)
        if bound is None or (node.pattern == TIMESTAMP and says == "Too"):
            continue
        if kind in (Ge, Le):
            yield says, (bound,), (bound + step,)
        else:
            yield says, (resized(node, present, bound),), (resized(node, present, bound + step),)


# What a schema cannot say: 12 o'clock in `from` and `to` at once, sets that repeat, zones that do not exist.
NEIGHBOURS = (
    "a Deny has no until",
    "from and to must differ",
    "Duplicate value",
    "each layer once",
    "needs OPA",
    "time zone",
    "begin with a host",
)


@pytest.mark.parametrize("node", NODES, ids=str)
def test_field_is_typed_and_bounded(server: ApiServer, target: Existing, node: Node) -> None:
    part = node.path.partition(".")[0]
    samples = [{part: sample[part]} for sample in SAMPLES if has(sample, node.path)]
    assert samples, f"no sample has {node.path}: add one"
    kept: dict[tuple[str, int], list[str]] = {}
    for sample in samples:
        for says, accepted, refused in edges(node, get(sample, node.path)):
            for number, value in enumerate(accepted):
                body = put(sample, node.path, value)
                fits, answer = submit(server, target, body)
                model = by_model(body["spec"]) if part == "spec" else ""
                assert fits is not bool(model) or (fits and "IANA" in model), (
                    f"{value!r}: {answer.get('message')}, model: {model}"
                )
                message = "" if fits or any(one in answer["message"] for one in NEIGHBOURS) else answer["message"]
                kept.setdefault((says, number), []).append(f"{value!r}: {message}" if message else "")
            for value in refused:
                if value == "" and says == "should match":
                    continue  # told by its length
                body = put(sample, node.path, value)
                fits, answer = submit(server, target, body)
                assert not fits, f"{value!r} is accepted"
                place = as_reported(sample, node.path)
                assert any(field == place and says in text for field, text in causes(answer)), (
                    value,
                    answer["message"],
                )
                assert part == "status" or by_model(body["spec"]), f"the model accepts {value!r}"
    assert not [answers[0] for answers in kept.values() if all(answers)]


def test_every_string_list_and_map_is_bounded() -> None:
    sized = [node for node in NODES if node.shape in (str, list, dict, datetime)]
    assert [str(node) for node in sized if node.bound(MaxLen, "max_length") is None] == []


# --- unknown fields ---

OBJECTS = [
    node.path
    for node in NODES
    if node.path.startswith("spec") and isinstance(node.shape, type) and issubclass(node.shape, Resource)
]


def stored(server: ApiServer, spec: Any) -> tuple[int, Body]:
    """What the API server would keep of a policy."""
    return server.send("POST", f"{collection(KIND)}?dryRun=All", an_object(KIND, spec=spec))


@pytest.mark.parametrize("value", [1, {"a": [1]}, [], "x", None], ids=repr)
@pytest.mark.parametrize("path", OBJECTS)
def test_an_unknown_field_is_stored_and_refused_by_name(server: ApiServer, path: str, value: Any) -> None:
    for sample in SAMPLES:
        whole = {"spec": sample["spec"]}
        if not has(whole, path):
            continue
        for name in ("unknown", "Until", "apikey", "name space", "é"):
            spec = put(whole, path, {**get(whole, path), name: value})["spec"]
            status, answer = stored(server, spec)
            assert status == 201, answer["message"]
            assert get(answer, path)[name] == value, "dropped: what a typo meant would be forgotten"
            problem = read(answer["spec"]).problem
            assert problem is not None
            assert (problem.reason, problem.path) == ("UnknownField", f"{as_reported(whole, path)}.{name}")


@pytest.mark.parametrize(
    "path", [node.path for node in NODES if node.path.startswith("spec.") and "{}" not in node.path]
)
def test_a_misspelt_field_is_refused_by_name(server: ApiServer, path: str) -> None:
    parent, _, name = path.rpartition(".")
    if "[]" in name:
        return
    for sample in SAMPLES:
        whole = {"spec": sample["spec"]}
        if not has(whole, path):
            continue
        for wrong in {f"{name}l", name.upper(), to_snake(name), f"{name} "} - {name}:
            fields = get(whole, parent)
            spec = put(whole, parent, {wrong if key == name else key: value for key, value in fields.items()})["spec"]
            status, answer = stored(server, spec)
            if status == 422:
                continue  # the name that is missing is a reason to refuse as well
            problem = read(answer["spec"]).problem
            assert problem is not None
            assert problem.reason == "UnknownField" or problem.message == "is required"


# --- sizes ---


def the_largest(rules: int = MAX_RULES, peers: int = MAX_PEERS, destinations: int = MAX_DESTINATIONS) -> Body:
    return a_spec(
        *(
            a_rule(
                f"rule-{number}",
                from_=[{"workload": {"name": f"client-{peer}", "namespace": "web"}} for peer in range(peers)],
                to=[{"port": port + 1, "methods": ["GET"], "paths": ["/a/**"]} for port in range(destinations)],
                until=TIME,
            )
            for number in range(rules)
        ),
        tests=[a_test(f"test-{number}", at=TIME) for number in range(64)],
    )


def test_the_largest_policy_is_accepted_and_stored(server: ApiServer) -> None:
    place = Existing(KIND, "the-largest", "default")
    status, answer = server.send(
        "POST", f"{collection(KIND)}?fieldValidation=Strict", an_object(KIND, place.name, spec=the_largest())
    )
    assert status == 201, answer["message"]
    reading = read(answer["spec"])
    assert reading.problem is None
    assert reading.spec is not None
    assert digest(reading.spec) == digest(parse(TrustPolicySpec, the_largest(), "spec"))
    # The rules run on every update, and on that of a status too.
    answer["spec"]["rules"][-1]["name"] = "renamed"
    assert server.send("PUT", place.path, answer)[0] == 200
    assert server.send("DELETE", place.path)[0] == 200


@pytest.mark.parametrize(
    ("spec", "place"),
    [
        (the_largest(rules=MAX_RULES + 1, peers=1, destinations=1), "spec.rules"),
        (the_largest(rules=1, peers=MAX_PEERS + 1, destinations=1), "spec.rules[0].from"),
        (the_largest(rules=1, peers=1, destinations=MAX_DESTINATIONS + 1), "spec.rules[0].to"),
    ],
    ids=["rules", "peers", "destinations"],
)
def test_more_than_the_bound_is_refused_at_apply(server: ApiServer, spec: Body, place: str) -> None:
    status, answer = server.try_to_create(KIND, {"spec": spec})
    assert status == 422
    assert [cause for cause in causes(answer) if cause[0] == place and "Too many" in cause[1]]
    assert place in by_model(spec)


# --- nothing empty means everything ---

EMPTY: dict[str, tuple[Any, ...]] = {
    "spec": ({}, None, {"rules": []}),
    "spec.target": ({}, None, {"selector": {}}, {"identities": []}, {"all": False}, {"all": None}),
    "spec.target.selector": ({}, {"matchLabels": {}}, {"matchExpressions": []}, {"matchLabels": None}),
    "spec.layers": ([],),
    "spec.rules[]": ({}, None),
    "spec.rules[].from": ([], None, [{}], [None]),
    "spec.rules[].to": ([], None, [{}], [None]),
    "spec.rules[].to[].methods": ([], [""], [None]),
    "spec.rules[].to[].paths": ([], [""], [None]),
    "spec.rules[].when": ({}, {"scopes": []}, {"time": {}}, {"time": None}, {"requireMTLS": None}, {"requireMTLS": False}),
    "spec.rules[].when.time": ({}, {"timeZone": "UTC", "days": []}, {"timeZone": "", "days": ["Mon"]}),
    "spec.rules[].from[].workload": ({}, {"name": "", "namespace": "web"}, {"name": "front", "namespace": ""}),
    "spec.rules[].from[].workloads": ({}, {"selector": {}}, {"namespaceSelector": {}}, {"selector": None}),
    "spec.rules[].from[].pods": ({}, {"podSelector": {}}, {"namespaceSelector": {}, "podSelector": SELECTOR}),
    "spec.rules[].from[].user": ({}, {"provider": "corp", "audiences": []}, {"provider": "", "audiences": ["a"]}),
    "spec.rules[].from[].user.claims": ({}, {"groups": []}, {"groups": None}, {"groups": [""]}, {"": ["a"]}),
    "spec.rules[].from[].apiKey": ({}, {"scopes": []}, {"name": ""}, {"name": None}),
    "spec.rules[].from[].cidr": ("",),
    "spec.admission.allowedRegistries": ([], [""]),
}  # fmt: skip


@pytest.mark.parametrize("path", EMPTY)
def test_what_is_empty_is_refused(server: ApiServer, path: str) -> None:
    sample = next({"spec": sample["spec"]} for sample in SAMPLES if has(sample, path))
    for value in EMPTY[path]:
        spec = put(sample, path, value)["spec"]
        refused = server.try_to_create(KIND, {"spec": spec})[0] in (400, 422)
        assert refused or (path == "spec.rules[].from[].user.claims" and "" in value), f"{value} is accepted"
        assert by_model(spec), f"the model accepts {value}"


def test_empty_rules_deny_everything_and_are_accepted(server: ApiServer) -> None:
    for spec in (
        a_spec(rules=[]),
        {"target": {"all": True}},
        a_spec(rules=None),
        a_spec(tests=[]),
        a_spec(admission={}),
    ):
        status, answer = server.try_to_create(KIND, {"spec": spec})
        assert status == 201, answer["message"]
        assert read(answer["spec"]).problem is None


# --- the model agrees ---


def test_a_time_zone_that_does_not_exist_is_for_the_model_to_refuse(server: ApiServer) -> None:
    for zone in ("Mars/Olympus", "utc", "europe/berlin", "Europe/Berlin/", "/etc/passwd", "posix/UTC", "right/UTC"):
        spec = a_spec(a_rule(when={"time": {"days": ["Mon"], "timeZone": zone}}))
        status, answer = stored(server, spec)
        assert status == 201, answer["message"]
        problem = read(answer["spec"]).problem
        assert problem is not None
        assert (problem.reason, problem.path) == ("InvalidSpec", "spec.rules[0].when.time.timeZone")


def test_the_digest_survives_the_api_server(server: ApiServer) -> None:
    specs = [sample["spec"] for sample in SAMPLES]
    specs += [body["spec"] for seed in range(30) for body in random_world(seed).manifests]
    for spec in specs:
        status, answer = server.try_to_create(KIND, {"spec": spec})
        assert status == 201, answer["message"]
        reading = read(answer["spec"])
        assert reading.spec is not None
        assert reading == read(spec)
        assert digest(reading.spec) == digest(parse(TrustPolicySpec, spec, "spec"))
        for name in ("rules", "tests"):  # as written: Argo CD compares lists whole
            assert answer["spec"].get(name, []) == spec.get(name, [])


OTHERS: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 65536, 10**30, 1.5, [], {}, [None], [[]], [{}], ["a"], {"": ""}, {"a": None}),
    *("", "a", "A", "a/b", "a.b", "*", "/**", "é", "\x00", "a\n", "a" * 64, "a" * 300, "GET", "TCP", "UDP", "Deny"),
    *("10.0.0.0/8", "::/0", "06:00", "UTC", TIME, "2026-02-30T00:00:00Z", "2026-12-31T24:00:00Z", "/é", "/..", "/%2e"),
)


def ways(value: Any) -> Iterator[tuple[Any, ...]]:
    """The keys that lead to every place in a value, and to the value itself."""
    yield ()
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield from ((key, *rest) for rest in ways(value[key]))


def at(value: Any, way: tuple[Any, ...]) -> Any:
    for key in way:
        value = value[key]
    return value


def edited(value: Any, way: tuple[Any, ...], new: Any) -> Any:
    if not way:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[way[0]] = edited(value[way[0]], way[1:], new)
    return copy


def damaged(random: Random, spec: Any) -> Any:
    """The spec with up to two places replaced, dropped, repeated, renamed, or given a field of another place."""
    for _ in range(random.choice((0, 1, 1, 1, 2))):
        places = list(ways(spec))
        way = random.choice(places)
        value = at(spec, way)
        change = random.randrange(5)
        if change == 0 and isinstance(value, dict) and value:
            gone = random.choice(sorted(value))
            spec = edited(spec, way, {key: one for key, one in value.items() if key != gone})
        elif change == 1 and isinstance(value, list):
            spec = edited(spec, way, random.choice((value * 2, value * 20, value[:0], [*value, None])))
        elif change == 2 and isinstance(value, dict):
            other = at(spec, random.choice(places))
            spec = edited(spec, way, {**value, **other} if isinstance(other, dict) else {**value, "unknown": other})
        elif change == 3 and isinstance(value, str):
            spec = edited(
                spec, way, random.choice((f"{value}\n", value.upper(), f"{value}é", value * 20, f" {value}", value[1:]))
            )
        else:
            spec = edited(spec, way, random.choice((*OTHERS, at(spec, random.choice(places)))))
    return spec


def is_known(server_says: str, model_says: str) -> bool:
    """What the API server stores and the model refuses on purpose; whatever else differs is a defect."""
    return not server_says and bool(
        re.search(
            r"is not a field of this resource|IANA time zone|claims\.[^ ]*: input should be a valid list", model_says
        )
    )


def test_the_model_agrees_about_damaged_policies(server: ApiServer) -> None:
    verdicts: Counter[str] = Counter()

    @settings(max_examples=400, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(seeds)
    def agree(seed: int) -> None:
        random = Random(seed)
        specs = [sample["spec"] for sample in SAMPLES] + [body["spec"] for body in random_world(seed).manifests]
        spec = damaged(random, random.choice(specs))
        note(f"spec: {spec!r}")
        status, answer = server.try_to_create(KIND, {"spec": spec})
        assert status in (201, 400, 422), answer
        server_says, model_says = answer.get("message", "") if status != 201 else "", by_model(spec)
        assert bool(server_says) == bool(model_says) or is_known(server_says, model_says), (
            f"API server: {server_says or 'accepted'}\nmodel: {model_says or 'accepted'}"
        )
        if status == 201 and not model_says:
            assert read(answer["spec"]) == read(spec), "stored, it says something else"
        verdicts["refused" if server_says or model_says else "accepted"] += 1

    agree()
    assert min(verdicts["accepted"], verdicts["refused"]) > 60, verdicts
