"""The reference semantics: the verdict on each request, and the reason that a caller is told."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, get_args
from zoneinfo import ZoneInfo

import pytest

from tests.support.certificates import NOW
from tests.support.policies import Body, a_policy, tables_of
from zerotrust.policy import evaluate as evaluation
from zerotrust.policy.directory import Identity, PlainDirectory, Workload, default_selector
from zerotrust.policy.evaluate import Decision, Key, Reason, Request, Token, Verdict, evaluate, is_open
from zerotrust.policy.table import Table, Window

ORDERS, FRONT, OTHER = Workload("shop", "orders"), Workload("web", "front"), Workload("web", "other")
GET = Request(FRONT, 8443, method="GET", path="/a")
CONNECTION = Request(FRONT, 8443)
FROM_FRONT: Body = {"workload": {"name": "front", "namespace": "web"}}
SRE: Body = {"provider": "corp", "audiences": ["orders"], "claims": {"groups": ["sre", "ops"], "level": ["3"]}}
TOKEN = Token("corp", frozenset({"orders", "stock"}), {"groups": ("dev", "sre"), "level": ("3",)}, frozenset({"read"}))


def a_directory() -> PlainDirectory:
    return PlainDirectory(
        {
            place: Identity(place, {}, default_selector(place.name), providers=frozenset({"corp", "customers"}))
            for place in (ORDERS, FRONT, OTHER)
        },
        {"shop": {}, "web": {"kubernetes.io/metadata.name": "web"}},
        {Workload("shop", "partner"): frozenset({"read", "write"}), Workload("shop", "guest"): frozenset({"read"})},
    )


def a_rule(
    name: str = "rule", *, peers: list[Body] | None = None, to: Mapping[str, Any] | None = None, **more: Any
) -> Body:
    """An Allow for web/front to port 8443; with a Deny in its place, or more conditions, as told."""
    return {"name": name, "from": peers or [FROM_FRONT], "to": [{"port": 8443, **(to or {})}], **more}


def a_table(*rules: Body, **spec: Any) -> Table:
    """The table of shop/orders under one policy with these rules, the policy being called `policy`."""
    policy = a_policy("policy", target={"identities": ["orders"]}, rules=[*rules], **spec)
    return tables_of(a_directory(), [policy])[ORDERS]


def decide(request: Request, *rules: Body, at: datetime = NOW, **spec: Any) -> Verdict:
    return evaluate(a_table(*rules, **spec), request, at)


# --- reasons ---

HOURS = {"time": {"days": ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"], "from": "00:00", "to": "00:01"}}
NOT_NOW = {"time": {**HOURS["time"], "timeZone": "UTC"}}
WITH_USER = [{**FROM_FRONT, "user": SRE}]
PARTNER = Key("partner", frozenset())
WITH_KEY = [{**FROM_FRONT, "apiKey": {"name": "partner"}}]

REASONS: list[tuple[Reason, Request, list[Body]]] = [
    ("allowed", GET, [a_rule()]),
    ("no_identity", replace(GET, client=None), [a_rule(peers=[{"anyWorkload": {}}])]),
    ("no_identity", replace(CONNECTION, client=None), [a_rule(peers=[{"anyWorkload": {}}])]),
    ("no_grant", GET, []),
    ("no_grant", replace(GET, client=OTHER), [a_rule()]),
    ("no_grant", replace(GET, port=8444), [a_rule()]),
    ("no_grant", replace(GET, protocol="UDP"), [a_rule()]),
    ("no_grant", GET, [a_rule(to={"methods": ["POST", "PUT"]})]),
    ("no_grant", GET, [a_rule(to={"paths": ["/b", "/a/*"]})]),
    ("no_grant", GET, [a_rule(until="2020-01-01T00:00:00Z")]),
    ("denied_by_rule", GET, [a_rule(), a_rule("deny", effect="Deny")]),
    ("denied_by_rule", GET, [a_rule("deny", effect="Deny")]),
    ("bad_token", GET, [a_rule(peers=WITH_USER)]),
    ("bad_key", GET, [a_rule(peers=WITH_KEY)]),
    ("expired_key", replace(GET, key=replace(PARTNER, not_after=NOW)), [a_rule(peers=WITH_KEY)]),
    ("revoked_key", replace(GET, key=replace(PARTNER, withdrawn=True)), [a_rule(peers=WITH_KEY)]),
    ("outside_hours", GET, [a_rule(when=NOT_NOW)]),
    ("missing_scope", replace(GET, token=TOKEN), [a_rule(peers=WITH_USER, when={"scopes": ["write"]})]),
    ("mtls_required", replace(GET, mtls=False), [a_rule(when={"requireMTLS": True})]),
    ("malformed_request", replace(GET, path="/a/%2e%2e/b"), [a_rule()]),
    ("malformed_request", replace(GET, path=""), [a_rule()]),
    ("malformed_request", replace(GET, client=None, path="/.."), [a_rule()]),
]


@pytest.mark.parametrize(("reason", "request_", "rules"), REASONS)
def test_each_reason(reason: Reason, request_: Request, rules: list[Body]) -> None:
    verdict = decide(request_, *rules)
    assert verdict.reason == reason
    assert verdict.allowed is (reason == "allowed")


def test_every_reason_has_a_case() -> None:
    assert {reason for reason, _, _ in REASONS} == set(get_args(Reason))


@pytest.mark.parametrize(
    "method", ["", "get", "delete", "Get", "GET ", " GET", "GET\n", "GET\0", "\uff27ET", "G3T", "-"]
)
def test_a_method_that_a_server_could_read_otherwise_is_malformed(method: str) -> None:
    # Some frameworks turn `delete` into DELETE: the Deny for the one must not be passed with the other.
    rules = [a_rule(), a_rule("deny", effect="Deny", to={"methods": ["GET", "DELETE"]})]
    assert decide(replace(GET, method=method), *rules) == Verdict(False, "malformed_request")


@pytest.mark.parametrize("request_", [replace(GET, path=None), replace(GET, method=None)])
def test_half_a_request_is_no_connection(request_: Request) -> None:
    rules = [a_rule(), a_rule("deny", effect="Deny", to={"methods": ["GET"], "paths": ["/**"]})]
    assert decide(request_, *rules) == Verdict(False, "malformed_request")


@pytest.mark.parametrize("method", ["GET", "PROPFIND", "VERSION-CONTROL", "M-SEARCH"])
def test_any_method_may_be_asked_for(method: str) -> None:
    assert decide(replace(GET, method=method), a_rule()).allowed
    assert decide(replace(GET, method=method), a_rule(to={"methods": [method]})).allowed


def test_the_nearest_miss_is_told() -> None:
    closed, unscoped = a_rule("a", when=NOT_NOW), a_rule("b", peers=WITH_USER, when={"scopes": ["write"]})
    plain, user, key = (
        a_rule("c", when={"requireMTLS": True}),
        a_rule("d", peers=WITH_USER),
        a_rule("e", peers=WITH_KEY),
    )
    elsewhere = a_rule("f", to={"paths": ["/b"]})
    insecure = replace(GET, mtls=False)
    assert decide(insecure, elsewhere, user).reason == "bad_token"
    assert decide(insecure, elsewhere, user, key).reason == "bad_key"
    assert decide(insecure, user, key, plain).reason == "mtls_required"
    assert decide(replace(insecure, token=TOKEN), plain, unscoped, key).reason == "missing_scope"
    assert decide(replace(insecure, token=TOKEN), plain, unscoped, key, closed).reason == "outside_hours"


def test_a_deny_that_nearly_matched_is_no_reason() -> None:
    assert decide(GET, a_rule("deny", effect="Deny", peers=WITH_USER)).reason == "no_grant"
    assert decide(GET, a_rule("deny", effect="Deny", when=NOT_NOW)).reason == "no_grant"


# --- who decides ---


def test_deny_overrides_whatever_the_order_and_the_policy() -> None:
    deny = a_rule("deny", effect="Deny", to={"paths": ["/a/**"]})
    for rules in ([a_rule(), deny], [deny, a_rule()], [a_rule("a"), deny, a_rule("z")]):
        verdict = decide(GET, *rules)
        assert (verdict.allowed, verdict.policy, verdict.rule) == (False, "policy", "deny")
        assert decide(replace(GET, path="/b"), *rules).allowed
    target = {"identities": ["orders"]}
    policies = [a_policy("one", target=target, rules=[a_rule()]), a_policy("two", target=target, rules=[deny])]
    verdict = evaluate(tables_of(a_directory(), policies)[ORDERS], GET, NOW)
    assert (verdict.policy, verdict.rule, verdict.reason) == ("two", "deny", "denied_by_rule")


def test_a_deny_holds_for_all_workloads_or_for_one() -> None:
    everybody = a_rule("deny", effect="Deny", peers=[{"anyWorkload": {}}])
    assert decide(GET, a_rule(), everybody).reason == "denied_by_rule"
    other = a_rule("deny", effect="Deny", peers=[{"workload": {"name": "other", "namespace": "web"}}])
    assert decide(GET, a_rule(), other).allowed
    assert decide(replace(GET, client=OTHER), a_rule(peers=[{"anyWorkload": {}}]), other).reason == "denied_by_rule"


def test_a_deny_with_conditions_holds_only_under_them() -> None:
    allow = a_rule()
    for_users = a_rule("deny", effect="Deny", peers=WITH_USER)
    assert decide(GET, allow, for_users).allowed
    assert decide(replace(GET, token=TOKEN), allow, for_users).reason == "denied_by_rule"
    at_night = a_rule("deny", effect="Deny", when=NOT_NOW)
    assert decide(GET, allow, at_night).allowed
    assert decide(GET, allow, at_night, at=datetime(2026, 11, 22, 0, 0, 30, tzinfo=UTC)).reason == "denied_by_rule"


def test_observe_never_decides_and_is_told() -> None:
    for effect in ("Allow", "Deny"):
        verdict = decide(GET, a_rule(effect=effect), mode="Observe")
        assert verdict.reason == "no_grant"
        assert [(step.observe, step.outcome) for step in verdict.trace] == [(True, "match")]
    assert decide(GET, a_rule(when=NOT_NOW), mode="Observe").reason == "no_grant"
    assert decide(CONNECTION, a_rule(), mode="Observe").reason == "no_grant"
    target = {"identities": ["orders"]}
    denies = a_policy("watching", target=target, rules=[a_rule("deny", effect="Deny")], mode="Observe")
    table = tables_of(a_directory(), [a_policy("allows", target=target, rules=[a_rule()]), denies])[ORDERS]
    assert evaluate(table, GET, NOW).allowed
    assert len(evaluate(table, GET, NOW).trace) == 2


def test_layer_4_peers_say_nothing_about_requests() -> None:
    pods = a_rule(peers=[{"pods": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "web"}}}}])
    assert decide(GET, pods).reason == "no_grant"
    assert decide(GET, a_rule(peers=[{"cidr": "10.20.0.0/16"}])).reason == "no_grant"


def test_the_trace_says_what_each_row_misses() -> None:
    rules = [
        a_rule("a", to={"methods": ["POST"]}),
        a_rule("b", to={"paths": ["/b"]}),
        a_rule("c"),
        a_rule("d", until="2020-01-01T00:00:00Z"),
    ]
    verdict = decide(GET, *rules)
    assert {step.rule: step.outcome for step in verdict.trace} == {
        "a": "other method", "b": "other path", "c": "match", "d": "ended",
    }  # fmt: skip
    assert verdict.rule == "c"


# --- credentials ---


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (None, "bad_token"),
        (TOKEN, "allowed"),
        (replace(TOKEN, provider="customers"), "bad_token"),
        (replace(TOKEN, audiences=frozenset({"stock"})), "bad_token"),
        (replace(TOKEN, audiences=frozenset()), "bad_token"),
        (replace(TOKEN, claims={}), "bad_token"),
        (replace(TOKEN, claims={"groups": ("sre",)}), "bad_token"),
        (replace(TOKEN, claims={"groups": (), "level": ("3",)}), "bad_token"),
        (replace(TOKEN, claims={"groups": ("dev",), "level": ("3",)}), "bad_token"),
        (replace(TOKEN, claims={"groups": ("SRE",), "level": ("3",)}), "bad_token"),
        (replace(TOKEN, claims={"groups": ("ops",), "level": ("2", "3")}), "allowed"),
    ],
)
def test_a_user_needs_provider_audience_and_every_claim(token: Token | None, reason: str) -> None:
    assert decide(replace(GET, token=token), a_rule(peers=WITH_USER)).reason == reason


def test_a_key_is_known_by_name_or_has_every_scope() -> None:
    partner, guest = Key("partner", frozenset({"read", "write"})), Key("guest", frozenset({"read"}))
    by_scopes = [{**FROM_FRONT, "apiKey": {"scopes": ["read", "write"]}}]
    assert decide(replace(GET, key=partner), a_rule(peers=WITH_KEY)).allowed
    assert decide(replace(GET, key=guest), a_rule(peers=WITH_KEY)).reason == "bad_key"
    assert decide(replace(GET, key=partner), a_rule(peers=by_scopes)).allowed
    assert decide(replace(GET, key=guest), a_rule(peers=by_scopes)).reason == "bad_key"
    assert decide(replace(GET, token=TOKEN), a_rule(peers=by_scopes)).reason == "bad_key"
    assert decide(replace(GET, client=OTHER, key=partner), a_rule(peers=WITH_KEY)).reason == "no_grant"


def test_scopes_count_of_the_credential_that_the_rule_asks_for() -> None:
    partner = Key("partner", frozenset({"read", "write"}))
    writing = {"scopes": ["write"]}
    assert decide(replace(GET, key=partner), a_rule(peers=WITH_KEY, when=writing)).allowed
    both = replace(GET, key=partner, token=TOKEN)
    assert decide(both, a_rule(peers=WITH_USER, when=writing)).reason == "missing_scope"
    assert decide(
        replace(both, token=replace(TOKEN, scopes=frozenset({"write"}))), a_rule(peers=WITH_USER, when=writing)
    ).allowed
    narrow = replace(
        both, key=replace(partner, scopes=frozenset({"read"})), token=replace(TOKEN, scopes=frozenset({"write"}))
    )
    assert decide(narrow, a_rule(peers=WITH_KEY, when=writing)).reason == "missing_scope"


def test_peers_of_a_rule_are_alternatives() -> None:
    rule = a_rule(peers=[*WITH_USER, *WITH_KEY, {"workload": {"name": "other", "namespace": "web"}}])
    assert decide(replace(GET, token=TOKEN), rule).allowed
    assert decide(replace(GET, key=Key("partner", frozenset())), rule).allowed
    assert decide(replace(GET, client=OTHER), rule).allowed
    assert not decide(GET, rule).allowed


# --- time ---


def test_an_allow_ends_at_the_very_moment() -> None:
    until = datetime(2026, 12, 31, tzinfo=UTC)
    rule = a_rule(until="2026-12-31T01:00:00+01:00")
    for request in (GET, CONNECTION):
        assert decide(request, rule, at=until - timedelta(microseconds=1)).allowed
        assert decide(request, rule, at=until).reason == "no_grant"
        assert decide(request, rule, at=until + timedelta(days=1)).reason == "no_grant"
        assert decide(request, rule, at=until.astimezone(ZoneInfo("Asia/Tokyo"))).reason == "no_grant"


MON, TUE, WED, THU, FRI, SAT, SUN = range(7)
EVERY_DAY = tuple(range(7))


def a_window(zone: str = "UTC", start: str = "00:00", end: str = "24:00", days: tuple[int, ...] = EVERY_DAY) -> Window:
    first, last = ((int(clock[:2]) * 60 + int(clock[3:])) for clock in (start, end))
    return Window(days, first, last, zone)


def opened(window: Window, *moments: str) -> list[bool]:
    """Whether it is open at these UTC times."""
    return [is_open(window, datetime.fromisoformat(f"{moment}+00:00")) for moment in moments]


def test_a_window_opens_at_its_first_minute_and_closes_before_its_last() -> None:
    window = a_window(start="06:00", end="20:00")
    moments = ["2026-11-23T05:59:59.999999", "2026-11-23T06:00", "2026-11-23T19:59:59.999999", "2026-11-23T20:00"]
    assert opened(window, *moments) == [False, True, True, False]


def test_days_alone_are_whole_days_of_the_time_zone() -> None:
    moments = ["2026-11-22T14:59:59", "2026-11-22T15:00", "2026-11-23T14:59:59", "2026-11-23T15:00"]
    assert opened(a_window("Asia/Tokyo", days=(MON,)), *moments) == [False, True, True, False]
    moments = ["2026-11-22T18:14:59", "2026-11-22T18:15", "2026-11-23T18:14:59", "2026-11-23T18:15"]
    assert opened(a_window("Asia/Kathmandu", days=(MON,)), *moments) == [False, True, True, False]


def test_a_window_across_midnight_belongs_to_the_day_on_which_it_opens() -> None:
    friday = a_window(start="22:00", end="06:00", days=(FRI,))
    moments = [
        "2026-11-27T05:59",
        "2026-11-27T21:59",
        "2026-11-27T22:00",
        "2026-11-28T00:00",
        "2026-11-28T05:59",
        "2026-11-28T06:00",
        "2026-11-28T22:00",
    ]
    assert opened(friday, *moments) == [False, False, True, True, True, False, False]
    sunday = a_window(start="22:00", end="06:00", days=(SUN,))
    assert opened(sunday, "2026-11-22T23:00", "2026-11-23T05:59", "2026-11-23T23:00") == [True, True, False]


def test_a_window_until_midnight_ends_there() -> None:
    window = a_window(start="22:00", end="00:00", days=(FRI,))
    assert opened(window, "2026-11-27T23:59:59", "2026-11-28T00:00", "2026-11-27T00:00") == [True, False, False]


def test_spring_skips_what_the_clock_skips() -> None:
    # Berlin, 29 March 2026: 02:00 is 03:00. A window that opens in the hour that is missing opens with the next.
    window = a_window("Europe/Berlin", "02:30", "03:30")
    assert opened(window, "2026-03-29T00:59:59", "2026-03-29T01:00", "2026-03-29T01:29", "2026-03-29T01:30") == [
        False,
        True,
        True,
        False,
    ]
    assert opened(a_window("Europe/Berlin", "02:00", "03:00"), "2026-03-29T00:59:59", "2026-03-29T01:00") == [
        False,
        False,
    ]
    assert opened(a_window("Europe/Berlin", "02:00", "03:00"), "2026-03-28T01:30") == [True]
    # New York, 8 March 2026.
    night = a_window("America/New_York", "22:00", "04:00", days=(SAT,))
    assert opened(night, "2026-03-08T02:59", "2026-03-08T03:00", "2026-03-08T07:59", "2026-03-08T08:00") == [
        False,
        True,
        True,
        False,
    ]


def test_autumn_repeats_what_the_clock_repeats() -> None:
    # Berlin, 25 October 2026: 03:00 is 02:00 again.
    window = a_window("Europe/Berlin", "02:00", "03:00")
    moments = [
        "2026-10-24T23:59:59",
        "2026-10-25T00:00",
        "2026-10-25T00:59:59",
        "2026-10-25T01:00",
        "2026-10-25T01:59:59",
        "2026-10-25T02:00",
    ]
    assert opened(window, *moments) == [False, True, True, True, True, False]
    half = a_window("Europe/Berlin", "02:00", "02:30")
    assert opened(half, "2026-10-25T00:29", "2026-10-25T00:30", "2026-10-25T01:00", "2026-10-25T01:30") == [
        True,
        False,
        True,
        False,
    ]
    # New York, 1 November 2026: the hour from 01:00 comes twice.
    assert opened(
        a_window("America/New_York", "01:00", "02:00"), "2026-11-01T05:30", "2026-11-01T06:30", "2026-11-01T07:00"
    ) == [True, True, False]


def test_half_an_hour_of_summer_time() -> None:
    # Lord Howe, 4 October 2026: 02:00 is 02:30; 5 April 2026: 02:00 is 01:30 again.
    window = a_window("Australia/Lord_Howe", "01:30", "02:15")
    assert opened(window, "2026-10-03T15:00", "2026-10-03T15:29", "2026-10-03T15:30") == [True, True, False]
    moments = [
        "2026-04-04T14:30",
        "2026-04-04T14:59",
        "2026-04-04T15:00",
        "2026-04-04T15:29",
        "2026-04-04T15:44",
        "2026-04-04T15:45",
    ]
    assert opened(window, *moments) == [True, True, True, True, True, False]


def test_summer_time_moves_a_window_with_the_wall_clock() -> None:
    window = a_window("Europe/Berlin", "06:00", "20:00")
    assert opened(window, "2026-01-15T04:59", "2026-01-15T05:00", "2026-07-15T03:59", "2026-07-15T04:00") == [
        False,
        True,
        False,
        True,
    ]
    assert opened(a_window("Asia/Tokyo", "06:00", "20:00"), "2026-01-14T21:00", "2026-07-14T21:00") == [True, True]


def test_a_window_is_the_same_in_whatever_zone_the_time_is_given() -> None:
    window, moment = a_window("Asia/Kathmandu", "11:45", "12:00"), datetime(2026, 11, 22, 6, 0, tzinfo=UTC)
    assert all(is_open(window, moment.astimezone(ZoneInfo(zone))) for zone in ("UTC", "Asia/Tokyo", "America/New_York"))


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "Pacific/Kiritimati", "UTC", "America/New_York", "Etc/GMT+12"])
def test_the_last_and_the_first_moment_that_can_be_written_are_decided(zone: str) -> None:
    for moment in (datetime.max.replace(tzinfo=UTC), datetime(1000, 1, 1, tzinfo=UTC)):
        rule = a_rule(when={"time": {"days": ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"], "timeZone": zone}})
        assert decide(GET, rule, at=moment).allowed


# --- connections ---


def test_a_connection_is_allowed_where_some_request_might_be() -> None:
    for rule in (
        a_rule(),
        a_rule(to={"methods": ["POST"], "paths": ["/b"]}),
        a_rule(peers=WITH_USER),
        a_rule(peers=WITH_KEY, when={"scopes": ["write"], "requireMTLS": True}),
        a_rule(when=NOT_NOW),
    ):
        assert decide(replace(CONNECTION, mtls=False), rule).allowed
        assert decide(replace(CONNECTION, port=1), rule).reason == "no_grant"
        assert decide(replace(CONNECTION, client=OTHER), rule).reason == "no_grant"


def test_only_a_deny_without_conditions_denies_a_connection() -> None:
    for rule in (
        a_rule("deny", effect="Deny", to={"methods": ["GET"]}),
        a_rule("deny", effect="Deny", to={"paths": ["/**"]}),
        a_rule("deny", effect="Deny", peers=WITH_USER),
        a_rule("deny", effect="Deny", when=NOT_NOW),
        a_rule("deny", effect="Deny", when={"requireMTLS": True}),
    ):
        verdict = decide(CONNECTION, a_rule(), rule)
        assert verdict.allowed
        assert "depends on the request" in {step.outcome for step in verdict.trace}
    assert decide(CONNECTION, a_rule(), a_rule("deny", effect="Deny")).reason == "denied_by_rule"
    assert decide(replace(CONNECTION, port=1), a_rule("deny", effect="Deny")).reason == "no_grant"


def test_connections_have_the_protocol_of_the_row() -> None:
    rule = a_rule(to={"protocol": "UDP"})
    assert decide(replace(CONNECTION, protocol="UDP"), rule).allowed
    assert decide(CONNECTION, rule).reason == "no_grant"


# --- what a decision point reports beside the verdict ---


def answer(*rules: Body, enforcement: Literal["Enforce", "Observe"] = "Enforce", **spec: Any) -> Decision:
    table = replace(a_table(*rules, **spec), enforcement=enforcement)
    return evaluation.decide(table, GET, NOW)


def test_a_server_that_is_enforced_reports_nothing_beside() -> None:
    assert answer(a_rule()) == Decision(decide(GET, a_rule()))
    assert answer() == Decision(decide(GET))


def test_a_server_in_observe_is_allowed_and_reports_what_would_have_been() -> None:
    denied = answer(enforcement="Observe")
    assert (denied.verdict.allowed, denied.verdict.reason) == (True, "allowed")
    assert denied.observed == decide(GET)
    allowed = answer(a_rule(), enforcement="Observe")
    assert allowed.verdict == allowed.observed == decide(GET, a_rule())


def test_a_candidate_that_would_allow_is_reported() -> None:
    found = answer(a_rule(), mode="Observe")
    assert (found.verdict.allowed, found.verdict.reason) == (False, "no_grant")
    assert found.candidate is not None
    assert (found.candidate.allowed, found.candidate.policy, found.candidate.rule) == (True, "policy", "rule")


def test_a_candidate_that_would_deny_otherwise_is_reported() -> None:
    found = answer(a_rule(effect="Deny"), mode="Observe")
    assert found.candidate is not None
    assert (found.verdict.reason, found.candidate.reason) == ("no_grant", "denied_by_rule")


def test_a_candidate_that_changes_nothing_is_not_reported() -> None:
    assert answer(a_rule(to={"methods": ["POST"]}), mode="Observe").candidate is None
