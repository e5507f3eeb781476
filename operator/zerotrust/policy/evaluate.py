"""The reference semantics: what the table says about one request, and why. Every other layer is tested against this.

A request is denied unless a row allows it; a Deny row that matches overrides every Allow. Rows of mode Observe are told in the
trace and decide nothing. Credentials in a `Request` are verified already: a decision point never passes on what it did not check.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from zerotrust.policy.directory import Workload
from zerotrust.policy.paths import matches, segments
from zerotrust.policy.table import KeyPrincipal, Principal, Row, Table, UserPrincipal, Window

Reason = Literal[
    "allowed", "no_identity", "no_grant", "denied_by_rule", "bad_token", "bad_key",
    "expired_key", "revoked_key", "outside_hours", "missing_scope", "mtls_required", "malformed_request",
]  # fmt: skip

# Some servers read `delete` as DELETE: a Deny for the one must not be passed with the other. Only what a rule can name is read.
_METHOD = re.compile(r"[A-Z][A-Z-]*")
# Behind it there is no wall clock east of Greenwich: Python's calendar ends with the year 9999.
_LATEST = datetime.max.replace(tzinfo=UTC) - timedelta(days=1)

# What is missing last is told: a caller who fixes that one thing gets through.
_NEAREST: tuple[Reason, ...] = (
    "outside_hours", "missing_scope", "mtls_required", "bad_key", "expired_key", "revoked_key", "bad_token", "no_grant",
)  # fmt: skip


@dataclass(frozen=True)
class Token:
    """A verified token: who issued it, for whom, and what it says; single claims are lists of one."""

    provider: str
    audiences: frozenset[str]
    claims: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    scopes: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Key:
    """A key of an ApiKey of the server's namespace, which the caller has shown, with what its record says.

    It holds from `not_before` until before `not_after`, for the servers in `audience`, and from `workload` alone; None is no
    bound. `withdrawn` is a key that is revoked or suspended.
    """

    name: str
    scopes: frozenset[str]
    not_before: datetime | None = None
    not_after: datetime | None = None
    withdrawn: bool = False
    audience: frozenset[Workload] | None = None
    workload: Workload | None = None

    def refusal(self, server: Workload, client: Workload, now: datetime) -> Reason | None:
        """Why it is not accepted from this client by this server, whatever a row asks for; None when it is."""
        if self.not_before is not None and now < self.not_before:
            return "bad_key"
        if self.not_after is not None and now >= self.not_after:
            return "expired_key"
        if self.withdrawn:
            return "revoked_key"
        if self.audience is not None and server not in self.audience:
            return "bad_key"
        return "bad_key" if self.workload not in (None, client) else None


@dataclass(frozen=True)
class Request:
    """One request, or, with neither method nor path, one connection; `client` is None for a caller without an identity."""

    client: Workload | None
    port: int
    protocol: str = "TCP"
    method: str | None = None
    path: str | None = None
    mtls: bool = True
    token: Token | None = None
    key: Key | None = None


@dataclass(frozen=True)
class Step:
    """What one row said: `match` for a row that applies, otherwise the first thing that it misses."""

    policy: str
    rule: str
    effect: str
    observe: bool
    outcome: str


@dataclass(frozen=True)
class Verdict:
    """The decision; policy and rule are those that decided, empty when nothing did."""

    allowed: bool
    reason: Reason
    policy: str = ""
    rule: str = ""
    trace: tuple[Step, ...] = ()


@dataclass(frozen=True)
class Decision:
    """What a decision point answers, and what it reports beside it.

    `observed` is what would have been decided for a server in Observe, None for others. `candidate` is what would be decided if
    the rows in mode Observe decided as well, None where that changes neither verdict nor reason.
    """

    verdict: Verdict
    observed: Verdict | None = None
    candidate: Verdict | None = None


def decide(table: Table, request: Request, now: datetime) -> Decision:
    """Decide about a request as a decision point with fresh data does: a server in Observe is allowed everything."""
    judged = evaluate(table, request, now)
    tried = evaluate(_with_candidates(table), request, now)
    candidate = None if (tried.allowed, tried.reason) == (judged.allowed, judged.reason) else tried
    if table.enforcement == "Observe":
        return Decision(replace(judged, allowed=True, reason="allowed"), judged, candidate)
    return Decision(judged, None, candidate)


def _with_candidates(table: Table) -> Table:
    """The table of which every row decides; their order stays."""
    return replace(table, rows=tuple(replace(row, observe=False) if row.observe else row for row in table.rows))


def evaluate(table: Table, request: Request, now: datetime) -> Verdict:
    """Decide about a request."""
    if request.method is None and request.path is None:
        return _connection(table, request, now)
    parts = segments(request.path) if request.path is not None else None
    if parts is None or not _METHOD.fullmatch(request.method or ""):
        return Verdict(False, "malformed_request")
    if request.client is None:
        return Verdict(False, "no_identity")
    refusal = request.key.refusal(table.server, request.client, now) if request.key else "bad_key"
    rows = table.about(request.client)
    outcomes = [(row, _outcome(row, request, parts, now, refusal)) for row in rows]
    return _verdict(outcomes)


def _connection(table: Table, request: Request, now: datetime) -> Verdict:
    """Layer 4's view: an Allow row for this port may still let a request through, and no Deny row forbids all of them."""
    if request.client is None:
        return Verdict(False, "no_identity")
    outcomes = []
    for row in table.about(request.client):
        outcome = _transport(row, request, now)
        if outcome == "match" and row.effect == "Deny" and not row.decides_connections:
            outcome = "depends on the request"
        outcomes.append((row, outcome))
    return _verdict(outcomes)


def _verdict(outcomes: list[tuple[Row, str]]) -> Verdict:
    trace = tuple(Step(row.policy, row.rule, row.effect, row.observe, outcome) for row, outcome in outcomes)
    deciding = [(row, outcome) for row, outcome in outcomes if not row.observe]
    for effect, reason in (("Deny", "denied_by_rule"), ("Allow", "allowed")):
        for row, outcome in deciding:
            if row.effect == effect and outcome == "match":
                return Verdict(effect == "Allow", reason, row.policy, row.rule, trace)  # type: ignore[arg-type]
    missing = {outcome for row, outcome in deciding if row.effect == "Allow"}
    return Verdict(False, next((one for one in _NEAREST if one in missing), "no_grant"), trace=trace)


def _transport(row: Row, request: Request, now: datetime) -> str:
    if (row.port, row.protocol) != (request.port, request.protocol):
        return "other port"
    if row.until is not None and now >= row.until:
        return "ended"
    return "match"


def _outcome(row: Row, request: Request, parts: tuple[str, ...], now: datetime, refusal: Reason | None) -> str:
    """The first thing that the row misses, in the order in which a caller can mend them; `refusal` is that of the key."""
    transport = _transport(row, request, now)
    if transport != "match":
        return transport
    if row.methods is not None and request.method not in row.methods:
        return "other method"
    if row.paths is not None and not any(matches(pattern, parts) for pattern in row.paths):
        return "other path"
    if isinstance(row.principal, KeyPrincipal) and refusal is not None:
        return refusal
    if row.principal is not None and not _presented(row.principal, request):
        return "bad_token" if isinstance(row.principal, UserPrincipal) else "bad_key"
    if row.require_mtls and not request.mtls:
        return "mtls_required"
    if row.scopes and not _scopes(row.principal, request).issuperset(row.scopes):
        return "missing_scope"
    if row.window is not None and not is_open(row.window, now):
        return "outside_hours"
    return "match"


def _presented(principal: Principal, request: Request) -> bool:
    if isinstance(principal, KeyPrincipal):
        key = request.key
        if key is None:
            return False
        return key.name == principal.name if principal.name else key.scopes.issuperset(principal.scopes)
    token = request.token
    if token is None or token.provider != principal.provider or token.audiences.isdisjoint(principal.audiences):
        return False
    return all(not set(values).isdisjoint(token.claims.get(name, ())) for name, values in principal.claims)


def _scopes(principal: Principal | None, request: Request) -> frozenset[str]:
    """Only the credential that the row asks for counts: a key's scopes do not help a token."""
    if isinstance(principal, KeyPrincipal):
        return request.key.scopes if request.key else frozenset()
    return request.token.scopes if request.token else frozenset()


def is_open(window: Window, now: datetime) -> bool:
    """Tell whether a window is open, by the wall clock of its time zone; summer time moves it with the wall clock.

    A window across midnight belongs to the day on which it opens.
    """
    local = min(now, _LATEST).astimezone(ZoneInfo(window.time_zone))
    minute, today = local.hour * 60 + local.minute, local.weekday()
    if window.start < window.end:
        return today in window.days and window.start <= minute < window.end
    yesterday = (today - 1) % 7
    return (today in window.days and minute >= window.start) or (yesterday in window.days and minute < window.end)
