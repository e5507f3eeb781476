"""Random requests to random tables at random times, as a decision point is asked, with what the reference evaluator says.

`tables(count)` and `cases_of(table, random, count)` give the same for the same seeds, in every process.
"""

import json
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

from joserfc import jwt
from joserfc.jwk import ECKey

from tests.support.certificates import NOW
from tests.support.differential_keys import Shown, joined, show
from tests.support.policies import (
    GROUPS,
    KEYS,
    METHODS,
    PATHS,
    PATTERNS,
    PROVIDERS,
    SCOPES,
    ZONES,
    World,
    random_moment,
    random_request,
    random_world,
)
from tests.support.rego import META, NEVER
from zerotrust.opabundle.document import Document, Server, policy_document, revocations_document
from zerotrust.pki.spiffe import SpiffeID
from zerotrust.policy.directory import Workload
from zerotrust.policy.evaluate import Decision, Request, Token, Verdict, decide
from zerotrust.policy.table import KeyPrincipal, Row, Table, UserPrincipal, Window

HOSTILE_PATHS = (
    "", "a", "/a/%2e%2e/b", "/%2E", "/a%2Fb", "/a%2fb", "/a%5cb", "/a\\b", "/a;v=1/b", "/a/%3Bb", "/a%00", "/a%", "/a%4",
    "/a%zz", "/a%25b",
    "/%c3%a9", "/\u00e9", "/%ff", "/%ed%a0%80", "/%f4%90%80%80", "/%c0%af", "/\ufffd", "/%ef%bf%bd", "/a\n", "/a%0A", "/a%09",
    "/a b", "/a+b",
    "/a%2Bb", "/a%20b", "/a?b=/../c", "/?/..", "/a#b", "/a%23", "//", "/a//b", "/a/./b", "/a/..", "/...", "/a/*", "/a/**",
    "/A", "/a/" + "b/" * 4094 + "b", "/" + "x" * 8191, "/" + "x" * 8192, "/\u0085", "/%c2%85", "/%C2%A0", "/\U0001f600", "/a?%zz",
    "/b/b", "/b/c/b", "/a/b/b/b/d", "/a/%62/c/b/d",
)  # fmt: skip
ODD_METHODS = (
    "",
    "get",
    "Get",
    "GET ",
    "GET\n",
    "G3T",
    "-",
    "PROPFIND",
    "VERSION-CONTROL",
    "HEAD",
    "DELETE\0",
    "\uff27ET",
)
# Half an hour of summer time, a date line, clocks that go back over midnight, no summer time at all.
OTHER_ZONES = ("Australia/Lord_Howe", "Pacific/Kiritimati", "America/Havana", "Asia/Tokyo", "Pacific/Chatham")
# Days on which clocks are changed in one of the time zones that rules name, and days around the turn of the year.
DAYS = [
    datetime(2026, *day, tzinfo=UTC)
    for day in ((3, 8), (3, 28), (3, 29), (4, 5), (10, 4), (10, 25), (10, 26), (11, 1), (11, 22))
]
DAYS += [datetime(2026, 12, 31, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC), datetime(2028, 2, 29, tzinfo=UTC)]


@dataclass(frozen=True)
class Target:
    """A table of a random world, of which each is a trust domain of its own."""

    world: World
    table: Table

    @property
    def trust_domain(self) -> str:
        return f"w{self.world.seed}.example.org"

    def spiffe_id(self, workload: Workload) -> SpiffeID:
        return SpiffeID.of_service_account(self.trust_domain, workload.namespace, workload.name)


@dataclass(frozen=True)
class Case:
    """One question in the shape of the contract, when it is asked, and the right answer; and the records of its API keys."""

    seed: int
    given: dict[str, Any]
    now: datetime
    decision: Decision
    api_keys: Mapping[str, Any] = field(default_factory=dict)
    revoked: Mapping[str, int] = field(default_factory=dict)

    def right(self, answer: dict[str, Any]) -> bool:
        """Tell whether a decision point answers the same, in everything that both know."""
        told = {key: answer.get(key) for key in ("allowed", "reason", "policy", "rule", "observed", "candidate")}
        mine = {"observed": _plain(self.decision.observed), "candidate": _plain(self.decision.candidate)}
        return told == {**(_plain(self.decision.verdict) or {}), **mine}


def _plain(verdict: Verdict | None) -> dict[str, Any] | None:
    if verdict is None:
        return None
    return {"allowed": verdict.allowed, "reason": verdict.reason, "policy": verdict.policy, "rule": verdict.rule}


def targets(count: int) -> list[Target]:
    """The first so many tables with rows that a decision point is given."""
    found: list[Target] = []
    seed = 0
    while len(found) < count:
        world = random_world(seed)
        random = Random(seed)
        for table in world.tables().values():
            found += [Target(world, _seasoned(random, table))] if any(map(_travels, table.rows)) else []
        seed += 1
    return found[:count]


def _seasoned(random: Random, table: Table) -> Table:
    """The table with more conditions in its rows than policies that are also about connections have."""
    rows = {_seasoned_row(random, row) if _travels(row) and row.protocol == "TCP" else row for row in table.rows}
    return replace(table, rows=tuple(sorted(rows, key=lambda row: row.order)))


def _seasoned_row(random: Random, row: Row) -> Row:
    if row.principal is None and random.random() < 0.4:
        claims = (
            (("groups", tuple(sorted(random.sample(GROUPS, random.randint(1, 2))))),) if random.random() < 0.5 else ()
        )
        row = replace(row, principal=UserPrincipal(random.choice(PROVIDERS), ("orders",), claims))
    if row.principal is None and random.random() < 0.4:
        name, scopes = random.choice(((random.choice(KEYS), ()), ("", tuple(sorted(random.sample(SCOPES, 1))))))
        row = replace(row, principal=KeyPrincipal(name, scopes))
    if row.principal is not None and random.random() < 0.5:
        row = replace(row, scopes=tuple(sorted(random.sample(SCOPES, random.randint(1, 2)))))
    if row.window is None and random.random() < 0.25:
        row = replace(row, window=_window(random))
    if random.random() < 0.4:
        row = replace(row, paths=(random.choice(PATTERNS),))
    if row.until is None and row.effect == "Allow" and random.random() < 0.1:
        row = replace(row, until=NOW + timedelta(hours=random.randint(-48, 48)))
    return replace(row, require_mtls=row.require_mtls or random.random() < 0.25)


def _window(random: Random) -> Window:
    days = tuple(sorted(random.sample(range(7), random.randint(1, 7))))
    start, end = random.sample(range(0, 24 * 60, 30), 2)
    if random.random() < 0.2:
        start, end = 0, 24 * 60
    return Window(days, start, end, random.choice((*ZONES, *OTHER_ZONES)))


def _travels(row: Row) -> bool:
    return row.client.kind in ("workload", "anyWorkload")


def documents(tables: Iterable[Target], asked: Iterable[Case]) -> Document:
    """What both bundles hold for all of these tables, and for the keys of these questions, as the data of one OPA."""
    merged: dict[str, Any] = {"authorities": {}, "providers": {}, "servers": {}, "api_keys": {}}
    revoked: dict[str, int] = {}
    for target in tables:
        providers = {target.trust_domain: {name: _provider_document(name) for name in PROVIDERS}}
        one = policy_document([Server(target.table, target.trust_domain)], target.spiffe_id, providers, {})
        for key, value in one.items():
            merged[key] |= value
    for case in asked:
        merged["api_keys"] |= case.api_keys
        revoked |= case.revoked
    revocations = {**revocations_document({}, revoked), "meta": META}
    return {"zerotrust_data": {"policy": {**merged, "meta": META}, "revocations": revocations}}


def cases(asked: Iterable[Target], of_each: int) -> Iterator[Case]:
    """So many questions to each of these tables."""
    for number, target in enumerate(asked):
        random = Random(number)
        for index in range(of_each):
            yield _case(random, target, number, number * of_each + index)


def _case(random: Random, target: Target, seed: int, number: int) -> Case:
    rows = [row for row in target.table.rows if _travels(row)]
    personal = [row for row in rows if row.principal is not None]
    aim = random.choice(personal if personal and random.random() < 0.5 else rows)
    request = _request(random, target, aim)
    now = _moment(random, (aim,) if random.random() < 0.6 else target.table.rows)
    if random.random() < 0.1:
        request = replace(request, path=random.choice(HOSTILE_PATHS))
    if random.random() < 0.04:
        request = replace(request, method=random.choice(ODD_METHODS))
    headers: dict[str, Any] = {"user-agent": "test"}
    if request.token is not None:
        kind = random.choice(
            ("good", "good", "good", "good", "forged", "expired", "twice", "two headers", "other scheme")
        )
        headers["authorization" if random.random() < 0.8 else "Authorization"] = authorization(request.token, kind, now)
        if kind == "two headers":
            headers |= {name: authorization(request.token, "good", now) for name in ("authorization", "Authorization")}
        request = replace(request, token=request.token if kind == "good" else None)
    by_envoy, shown = random.random() < 0.3, Shown(None, {})
    if random.random() < (0.9 if isinstance(aim.principal, KeyPrincipal) else 0.1):
        shown = show(random, number, aim, target.table.server, request.client, now, target.spiffe_id)
        headers = {**headers, **(joined(shown) if by_envoy else shown).headers}
        if "authorization" in shown.headers:  # instead of a token
            headers.pop("Authorization", None)
            request = replace(request, token=None)
        if len([name for name in headers if name.lower() == "authorization"]) > 1:
            shown = replace(shown, key=None)
        request = replace(request, key=shown.key)
    if by_envoy:
        request = replace(request, mtls=request.client is not None)
        given = envoy_input(target, request, headers)
    else:
        given = pep_input(target, request, headers)
    return Case(seed, given, now, decide(target.table, request, now), shown.records, shown.revoked)


def pep_input(target: Target, request: Request, headers: dict[str, Any]) -> dict[str, Any]:
    """The request as an HTTP enforcement point asks about it."""
    source: dict[str, Any] = {"mtls": request.mtls}
    if request.client is not None:
        source["principal"] = str(target.spiffe_id(request.client))
    asked = {"method": request.method, "path": request.path, "port": request.port, "headers": headers}
    if request.protocol != "TCP":
        asked["protocol"] = request.protocol
    return {"server": str(target.spiffe_id(target.table.server)), "source": source, "request": asked}


def envoy_input(target: Target, request: Request, headers: dict[str, Any]) -> dict[str, Any]:
    """The request as Envoy asks about it through opa-envoy-plugin."""
    address = {"socketAddress": {"address": "192.0.2.1", "portValue": request.port, "protocol": request.protocol}}
    http = {"method": request.method, "path": request.path, "host": "shop", "headers": headers}
    destination = {"address": address, "principal": str(target.spiffe_id(target.table.server))}
    source = {"principal": str(target.spiffe_id(request.client))} if request.client is not None else {}
    return {"attributes": {"source": source, "destination": destination, "request": {"http": http}}}


# --- requests that have a chance ---


def _request(random: Random, target: Target, aim: Row) -> Request:
    request = random_request(random, target.world, target.table.server)
    if request.method is None:  # a decision point decides about requests only
        request = replace(request, method=random.choice(METHODS), path=random.choice(PATHS))
    if random.random() < 0.6:
        request = _aimed(random, target, request, aim)
    return replace(request, key=None)


def _aimed(random: Random, target: Target, request: Request, row: Row) -> Request:
    """A request that meets a row, in most things."""
    known = [one.workload for one in target.world.directory.identities()]
    aimed = Request(
        row.client.workload or random.choice(known),
        row.port,
        row.protocol,
        random.choice(row.methods or METHODS),
        _path(random, random.choice(row.paths)) if row.paths else random.choice(PATHS),
        mtls=not (row.require_mtls and random.random() < 0.3),
        token=_token(random, row) if isinstance(row.principal, UserPrincipal) else None,
    )
    spoilt = random.choice(("client", "port", "method", "path", "mtls", "token", "", "", "", ""))
    return replace(aimed, **{spoilt: getattr(request, spoilt)}) if spoilt else aimed


def _token(random: Random, row: Row) -> Token:
    assert isinstance(row.principal, UserPrincipal)
    claims = {name: (random.choice(values),) for name, values in row.principal.claims}
    audience = random.choice(row.principal.audiences)
    scopes = frozenset(row.scopes) if random.random() < 0.7 else frozenset[str]()
    return Token(row.principal.provider, frozenset({audience}), claims, scopes)


def _path(random: Random, pattern: str) -> str:
    parts: list[str] = []
    for part in pattern.removesuffix("/").split("/")[1:]:
        many = random.randint(0, 3) if part == "**" else 1
        parts += [random.choice("abcd") if "*" in part else part for _ in range(many)]
    path = "/" + "/".join(parts)
    if random.random() < 0.2:
        path = "/" + "/".join("".join(f"%{ord(letter):02x}" for letter in part) for part in parts)
    return urllib.parse.urljoin("/", path) + random.choice(("", "", "", "?q=1", "/"))


def _moment(random: Random, rows: tuple[Row, ...]) -> datetime:
    """Often a bound of some row: the end of an Allow, an edge of a window, on a day on which clocks change too."""
    ends = [row.until for row in rows if row.until is not None]
    windows = [row.window for row in rows if row.window is not None]
    near = timedelta(microseconds=random.choice((0, 0, 1, -1, 1_000_000, -1_000_000, 60_000_000, -60_000_000)))
    kind = random.random()
    if ends and kind < 0.3:
        return random.choice(ends) + near
    if windows and kind < 0.8:
        return _edge(random, random.choice(windows)) + near
    return random_moment(random)


def _edge(random: Random, window: Window) -> datetime:
    day = random.choice(DAYS) + timedelta(days=random.choice((0, 0, 0, -1, 1, 2)))
    minute = random.choice((window.start, window.end, 0, 2 * 60, 2 * 60 + 30, 3 * 60, random.randrange(24 * 60)))
    wall = datetime(day.year, day.month, day.day) + timedelta(minutes=minute)  # noqa: DTZ001 - a wall clock
    zone = ZoneInfo(window.time_zone)
    return wall.replace(tzinfo=zone, fold=random.choice((0, 1))).astimezone(UTC)


# --- tokens ---


@cache
def _key(provider: str) -> ECKey:
    return ECKey.generate_key("P-256", {"kid": f"{provider}-1", "alg": "ES256", "use": "sig"})


@cache
def _provider_document(name: str) -> dict[str, Any]:
    keys = {"keys": [_key(name).as_dict(private=False)]}
    return {
        "issuer": f"https://{name}.example.com",
        "algorithms": ["ES256"],
        "jwks": json.dumps(keys),
        "leeway": 60,
        "not_after": NEVER,
    }


def authorization(token: Token, kind: str, now: datetime) -> str:
    """The header with such a token, of which only `good` is accepted at that time."""
    issued = int(now.timestamp()) - 100
    claims: dict[str, Any] = {name: list(values) for name, values in token.claims.items()}
    claims |= {
        "iss": f"https://{token.provider}.example.com",
        "sub": "somebody",
        "aud": sorted(token.audiences),
        "scope": " ".join(sorted(token.scopes)),
        "iat": issued,
        "exp": issued + (20 if kind == "expired" else 1000),
    }
    signer = _key("nobody" if kind == "forged" else token.provider)
    raw = jwt.encode({"alg": "ES256", "kid": f"{token.provider}-1"}, claims, signer, algorithms=["ES256"])
    match kind:
        case "twice":
            return f"Bearer {raw},Bearer {raw}"
        case "other scheme":
            return f"Basic {raw}"
    return f"{'bearer' if issued % 2 else 'Bearer'} {raw}"
