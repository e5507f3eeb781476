"""The decision table: what TrustPolicies say about one workload, resolved to rows. Every layer is a projection of it.

One table belongs to one server identity, so an edit compiles only the tables of the workloads that it is about. What no row
allows is denied, Deny rows override, rows of policies in mode Observe are carried and never decide anything.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any, Literal, NamedTuple

from zerotrust.common import times
from zerotrust.common.conditions import some
from zerotrust.policy.directory import Directory, Identity, Workload, named_namespaces, unwatched
from zerotrust.policy.peers import Destination, Peer, TimeWindow, When
from zerotrust.policy.podset import PodSet, selector_of
from zerotrust.policy.resource import Layer, PolicyRule, TrustPolicySpec

MAX_ROWS = 16_384  # of one policy; selectors over thousands of identities belong in anyWorkload or in several policies


class Client(NamedTuple):
    """Who connects: exactly one of a workload, any workload, a set of pods, an address range."""

    kind: Literal["workload", "anyWorkload", "pods", "cidr"]
    namespace: str = ""
    name: str = ""
    pods: PodSet | None = None

    @classmethod
    def of(cls, workload: Workload) -> "Client":
        """One ServiceIdentity."""
        return cls("workload", workload.namespace, workload.name)

    @property
    def workload(self) -> Workload | None:
        """The ServiceIdentity, when the client is one."""
        return Workload(self.namespace, self.name) if self.kind == "workload" else None

    def __str__(self) -> str:
        match self.kind:
            case "workload":
                return f"{self.namespace}/{self.name}"
            case "anyWorkload":
                return "any workload"
            case "cidr":
                return self.name
            case _:
                return f"pods {_selector_text(self.pods)}"


ANY_WORKLOAD = Client("anyWorkload")


class UserPrincipal(NamedTuple):
    """A token of this provider for one of these audiences; each claim has one of its values."""

    provider: str
    audiences: tuple[str, ...]
    claims: tuple[tuple[str, tuple[str, ...]], ...]


class KeyPrincipal(NamedTuple):
    """An ApiKey of the server's namespace: the one of that name, or, without a name, any with all of these scopes."""

    name: str
    scopes: tuple[str, ...]


Principal = UserPrincipal | KeyPrincipal


class Window(NamedTuple):
    """Weekdays (Monday is 0) and minutes since midnight in a time zone; `end` before `start` means the next day."""

    days: tuple[int, ...]
    start: int
    end: int
    time_zone: str


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; None for methods and paths means every one, empty scopes none in particular."""

    client: Client
    port: int
    protocol: str
    effect: Literal["Allow", "Deny"]
    observe: bool
    methods: tuple[str, ...] | None
    paths: tuple[str, ...] | None
    principal: Principal | None
    scopes: tuple[str, ...]
    require_mtls: bool
    window: Window | None
    until: datetime | None
    policy: str
    rule: str

    @property
    def decides_connections(self) -> bool:
        """Whether layer 4 can tell everything that the row asks for."""
        return (
            self.methods is None
            and self.paths is None
            and self.principal is None
            and not self.scopes
            and not self.require_mtls
            and self.window is None
        )

    @property
    def order(self) -> tuple[Any, ...]:
        """The canonical order of rows."""
        return (
            self.client,
            self.port,
            self.protocol,
            self.effect,
            self.observe,
            self.methods or (),
            self.paths or (),
            repr(self.principal),
            self.scopes,
            self.require_mtls,
            repr(self.window),
            times.render(self.until) if self.until else "",
            self.policy,
            self.rule,
        )

    def to_document(self) -> dict[str, Any]:
        """The row as plain data, without what does not apply."""
        document: dict[str, Any] = {
            "client": str(self.client),
            "port": self.port,
            "protocol": self.protocol,
            "effect": self.effect,
            "policy": self.policy,
            "rule": self.rule,
        }
        optional = {
            "pods": [self.client.pods.namespace, self.client.pods.pod] if self.client.pods is not None else None,
            "observe": self.observe,
            "methods": list(self.methods or ()),
            "paths": list(self.paths or ()),
            "principal": {"kind": type(self.principal).__name__, **self.principal._asdict()}
            if self.principal
            else None,
            "scopes": list(self.scopes),
            "requireMTLS": self.require_mtls,
            "window": self.window._asdict() if self.window else None,
            "until": times.render(self.until) if self.until else None,
        }
        return document | {key: value for key, value in optional.items() if value}


@dataclass(frozen=True)
class Contribution:
    """What one policy adds to a table; `layers` is empty for a policy in mode Observe, which enforces nothing."""

    policy: str
    layers: frozenset[Layer]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Table:
    """Every row about one server, in canonical order; `layers` are those that enforce it, by any of its policies."""

    server: Workload
    enforcement: Literal["Enforce", "Observe"]
    layers: frozenset[Layer]
    rows: tuple[Row, ...]

    @cached_property
    def by_client(self) -> dict[Client, tuple[Row, ...]]:
        """The rows of each client."""
        grouped: dict[Client, list[Row]] = {}
        for row in self.rows:
            grouped.setdefault(row.client, []).append(row)
        return {client: tuple(rows) for client, rows in grouped.items()}

    def about(self, client: Workload) -> tuple[Row, ...]:
        """The rows that speak of an identity, by name or as any workload."""
        return self.by_client.get(Client.of(client), ()) + self.by_client.get(ANY_WORKLOAD, ())

    def ends(self) -> list[datetime]:
        """When rows end by themselves."""
        return [row.until for row in self.rows if row.until is not None]

    @cached_property
    def content(self) -> bytes:
        """Canonical bytes: equal tables have equal ones."""
        document = {
            "server": str(self.server),
            "enforcement": self.enforcement,
            "layers": sorted(self.layers),
            "rows": [row.to_document() for row in self.rows],
        }
        return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()

    @property
    def digest(self) -> str:
        """SHA-256 of the content, in hex."""
        return hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True)
class Resolution:
    """A policy's rows, and what in it does not resolve: `(path of the field, message)`."""

    rows: tuple[Row, ...]
    unresolved: tuple[tuple[str, str], ...]


def compile_table(server: Identity, contributions: Iterable[Contribution]) -> Table:
    """Put together what policies add; the order in which they come changes nothing."""
    rows: list[Row] = []
    layers: frozenset[Layer] = frozenset()
    for one in contributions:
        rows += one.rows if server.resolved else [row for row in one.rows if row.effect == "Deny"]
        layers |= one.layers
    # The same row from two rules is kept twice: each says of itself that it decides.
    return Table(server.workload, server.enforcement, layers, tuple(sorted(set(rows), key=lambda row: row.order)))


def targets_of(spec: TrustPolicySpec, namespace: str, directory: Directory) -> list[Identity]:
    """The identities that a policy protects, sorted; names that do not exist are left out."""
    target = spec.target
    if target.identities is not None:
        named = (directory.identity(Workload(namespace, name)) for name in set(target.identities))
        return sorted((one for one in named if one is not None), key=lambda one: one.workload)
    found = directory.identities(namespace)
    chosen = [one for one in found if target.selector is None or target.selector.matches(one.labels)]
    return sorted(chosen, key=lambda one: one.workload)


def contribution(name: str, spec: TrustPolicySpec, rows: tuple[Row, ...]) -> Contribution:
    """What a policy with these rows adds to each of its targets' tables."""
    return Contribution(name, frozenset(spec.layers) if spec.mode == "Enforce" else frozenset(), rows)


def resolve(name: str, namespace: str, spec: TrustPolicySpec, directory: Directory, server: Identity) -> Resolution:
    """Return the rows that a policy adds to the table of one of its targets.

    What does not resolve adds no Allow row; a Deny by name stands even before its identity exists, and a Deny of workloads in
    namespaces that are not watched is one of every workload.
    """
    rows: list[Row] = []
    unresolved: list[tuple[str, str]] = []
    for number, rule in enumerate(spec.policy_rules):
        for position, peer in enumerate(rule.from_):
            path = f"spec.rules[{number}].from[{position}]"
            problem = _unresolved(peer, namespace, directory, server, rule.effect)
            if problem is not None:
                unresolved.append((f"{path}.{problem[0]}", problem[1]))
                if rule.effect == "Allow":
                    continue
            clients = _clients(peer, namespace, directory, rule.effect)
            if rule.effect == "Allow" and len(rows) + len(clients) * len(rule.to) > MAX_ROWS:
                unresolved.append(
                    (path, f"makes more than {MAX_ROWS} rows; write anyWorkload: {{}}, or divide the policy")
                )
                continue
            rows += _rows(name, spec, rule, peer, clients)
    return Resolution(tuple(rows), tuple(unresolved))


def _unresolved(
    peer: Peer, namespace: str, directory: Directory, server: Identity, effect: str
) -> tuple[str, str] | None:
    if peer.workload is not None:
        place = Workload(peer.workload.namespace, peer.workload.name)
        identity = directory.identity(place)
        if identity is None:
            known = directory.watches(place.namespace)
            why = "does not exist" if known else "is unknown: the operator does not watch its namespace"
            return "workload", f"ServiceIdentity {place} {why}"
        if not identity.resolved:
            return "workload", f"ServiceIdentity {place} is refused itself; see its conditions"
    if effect == "Deny" and (unknown := _unknown(peer, namespace, directory)):
        problem = f"the operator does not watch {some(unknown)}, so who is denied is unknown"
        return "workloads.namespaceSelector", problem
    if peer.user is not None and peer.user.provider not in server.providers:
        return "user.provider", f"the TrustDomain of {server.workload} has no identity provider {peer.user.provider}"
    if peer.api_key is not None and peer.api_key.name is not None:
        place = Workload(namespace, peer.api_key.name)
        if directory.api_key_scopes(place) is None:
            return "apiKey.name", f"ApiKey {place} does not exist"
    return None


def _unknown(peer: Peer, namespace: str, directory: Directory) -> list[str]:
    """The namespaces that a peer selects workloads in, and that are not watched."""
    return unwatched(directory, peer.workloads.namespace_selector, namespace) if peer.workloads is not None else []


def _clients(peer: Peer, namespace: str, directory: Directory, effect: str) -> list[Client]:
    if peer.workload is not None:
        return [Client("workload", peer.workload.namespace, peer.workload.name)]
    if peer.any_workload is not None:
        return [ANY_WORKLOAD]
    if peer.cidr is not None:
        return [Client("cidr", name=peer.cidr)]
    if peer.pods is not None:
        pod = selector_of(peer.pods.pod_selector)
        if peer.pods.namespace_selector is None:
            return [Client("pods", pods=PodSet.within(namespace, pod))]
        return [Client("pods", pods=PodSet(selector_of(peer.pods.namespace_selector), pod))]
    assert peer.workloads is not None
    if effect == "Deny" and _unknown(peer, namespace, directory):
        return [ANY_WORKLOAD]
    selector = peer.workloads.selector
    return [
        Client.of(one.workload)
        for place in named_namespaces(directory, peer.workloads.namespace_selector, namespace)
        for one in directory.identities(place)
        if (selector is None or selector.matches(one.labels)) and (one.resolved or effect == "Deny")
    ]


def _rows(name: str, spec: TrustPolicySpec, rule: PolicyRule, peer: Peer, clients: Sequence[Client]) -> list[Row]:
    when = rule.when or _ALWAYS
    principal = _principal(peer)
    window = _window(when.time) if when.time else None
    scopes = tuple(sorted(set(when.scopes or ())))
    return [
        Row(
            client=client,
            port=destination.port,
            protocol=destination.protocol,
            effect=rule.effect,
            observe=spec.mode == "Observe",
            methods=_listed(destination, "methods"),
            paths=_listed(destination, "paths"),
            principal=principal,
            scopes=scopes,
            require_mtls=bool(when.require_mtls),
            window=window,
            until=times.whole_seconds(rule.until)
            if rule.until is not None
            else None,  # as it is written and remembered
            policy=name,
            rule=rule.name,
        )
        for client in clients
        for destination in rule.to
    ]


_ALWAYS = When.model_construct(scopes=None, require_mtls=None, time=None)


def _listed(destination: Destination, field: Literal["methods", "paths"]) -> tuple[str, ...] | None:
    values: list[str] | None = getattr(destination, field)
    return None if values is None else tuple(sorted(set(values)))


def _principal(peer: Peer) -> Principal | None:
    if peer.user is not None:
        claims = tuple((name, tuple(sorted(set(values)))) for name, values in sorted((peer.user.claims or {}).items()))
        return UserPrincipal(peer.user.provider, tuple(sorted(set(peer.user.audiences))), claims)
    if peer.api_key is not None:
        return KeyPrincipal(peer.api_key.name or "", tuple(sorted(set(peer.api_key.scopes or ()))))
    return None


_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def _window(window: TimeWindow) -> Window:
    days = tuple(sorted({_WEEKDAYS.index(day) for day in window.days or _WEEKDAYS}))
    start, end = (_minutes(window.from_), _minutes(window.to)) if window.from_ and window.to else (0, 24 * 60)
    return Window(days, start, end, window.time_zone)


def _minutes(clock: str) -> int:
    hours, _, minutes = clock.partition(":")
    return int(hours) * 60 + int(minutes)


def withheld(new: Iterable[Row], accepted: Iterable[Row]) -> tuple[Row, ...]:
    """Return what is in force of a change that is not accepted: what both versions allow, and what either denies.

    So nothing widens, no withdrawal has to wait, and what is narrowed is narrowed at once.
    """
    new, accepted = list(new), list(accepted)
    denied = [row for row in (*accepted, *new) if row.effect == "Deny"]
    before: dict[tuple[Any, ...], list[Row]] = {}
    for row in accepted:
        if row.effect == "Allow":
            before.setdefault(_grantee(row), []).append(row)
    pairs = [(row, before.get(_grantee(row), [])) for row in new if row.effect == "Allow"]
    if sum(len(old) for _, old in pairs) > MAX_ROWS:
        # Thousands of rows about one client meet in millions: then only those count that both versions have word for word.
        kept = {_unnamed(row) for row in accepted}
        allowed = [row for row, _ in pairs if _unnamed(row) in kept]
    else:
        allowed = [met for row, old in pairs for one in old if (met := _both(row, one)) is not None]
    return tuple(dict.fromkeys((*denied, *allowed)))


def _unnamed(row: Row) -> Row:
    """What a row says, whatever its rule is called."""
    return replace(row, policy="", rule="")


def _grantee(row: Row) -> tuple[Any, ...]:
    return (row.client, row.port, row.protocol, row.observe, row.principal)


def _both(new: Row, old: Row) -> Row | None:
    """The row that allows what both allow, or None where that cannot be said in one row."""
    methods, paths = _common(new.methods, old.methods), _common(new.paths, old.paths)
    if methods == () or paths == () or (None not in (new.window, old.window) and new.window != old.window):
        return None
    ends = [until for until in (new.until, old.until) if until is not None]
    return replace(
        new,
        methods=methods,
        paths=paths,
        scopes=tuple(sorted({*new.scopes, *old.scopes})),
        require_mtls=new.require_mtls or old.require_mtls,
        window=new.window or old.window,
        until=min(ends, default=None),
    )


def _common(new: tuple[str, ...] | None, old: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if new is None or old is None:
        return old if new is None else new
    return tuple(value for value in new if value in old)


def _selector_text(pods: PodSet | None) -> str:
    if pods is None:
        return ""
    parts = [
        f"{prefix}{one.key} {one.operator} {','.join(one.values)}".rstrip()
        for prefix, selector in (("namespace ", pods.namespace), ("", pods.pod))
        for one in selector
    ]
    return "; ".join(parts) or "all"
