"""Decision logs of OPA (v1/plugins/logs), counted; nothing of an event is kept but names, codes and times."""

from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from zerotrust.bundleserver import words
from zerotrust.bundleserver.caller import Caller, IdentityResolver
from zerotrust.bundleserver.refusals import Refused
from zerotrust.opabundle.reports import UNKNOWN_KEY
from zerotrust.pki.spiffe import SpiffeID

OTHER = "other"
_REFUSED_KEYS = ("expired_key", "revoked_key")
NOBODY = "none"
_MOST_NAMES = 256


class Labels(NamedTuple):
    """What decisions are counted by: SPIFFE IDs (`none` without one) and the reason; all `other` but the reason when full."""

    server: str
    client: str
    reason: str


@dataclass(frozen=True, slots=True)
class Denial:
    """A request that was denied. No path, no header, no claim: any of them may be a secret."""

    at: datetime
    server: str
    client: str
    reason: str
    policy: str
    rule: str
    method: str


@dataclass(frozen=True, slots=True)
class UnknownKey:
    """A token was signed by a key that the identity provider's JWKS does not have."""

    provider: str
    kid: str


@dataclass(frozen=True, slots=True)
class LogSummary:
    """What one upload says. `decided` are verdicts in force, `observed` what an Observe server would have got,
    `candidates` what policies in Observe would change; `key_uses` is the newest use of each API key id, by
    id and reason: empty where it was accepted, else why it was refused.
    `foreign` events were about servers of other namespaces, `malformed` ones could not be read: both count for nothing.
    """

    pod: str
    pod_uid: str
    namespace: str
    received_at: datetime
    decided: Counter[Labels] = field(default_factory=Counter)
    observed: Counter[Labels] = field(default_factory=Counter)
    candidates: Counter[Labels] = field(default_factory=Counter)
    denials: tuple[Denial, ...] = ()
    key_uses: Mapping[tuple[str, str], datetime] = field(default_factory=dict)
    unknown_keys: frozenset[UnknownKey] = frozenset()
    foreign: int = 0
    malformed: int = 0


class LogSink(Protocol):
    """Takes summaries; returns at once, because it is called in the middle of a request."""

    def decisions(self, summary: LogSummary) -> None:
        """Take the summary of one upload."""


@dataclass(frozen=True)
class LogReader:
    """Reads uploads: at most `entries` events, `label_sets` counted apart, the newest `denials` kept."""

    resolver: IdentityResolver
    entries: int
    label_sets: int
    denials: int

    def summary(self, body: Any, caller: Caller, now: datetime) -> LogSummary:
        """Summarise an upload; Refused with 400 when it is no list of events, or too long a one."""
        workload = caller.workload
        if not caller.pod_uid or workload is None:
            raise Refused(403, "pod_unknown", "logs must be sent with a ServiceAccount token that is bound to a pod")
        if not isinstance(body, list) or len(body) > self.entries:
            raise Refused(400, "malformed", f"decision logs must be a list of at most {self.entries} events")
        counts: dict[str, Counter[Labels]] = {"decided": Counter(), "observed": Counter(), "candidate": Counter()}
        denials: deque[Denial] = deque(maxlen=self.denials)
        used: dict[tuple[str, str], datetime] = {}
        unknown: set[UnknownKey] = set()
        foreign = malformed = 0
        for event in body:
            decision = _Decision.parse(event, now)
            if decision is None:
                malformed += 1
                continue
            if not self._belongs(decision.server, workload.namespace, now):
                foreign += 1
                continue
            for view, labels in decision.views():
                self._count(counts[view], labels)
            if not decision.allowed:
                denials.append(decision.denial())
            use = decision.key_use()
            if use is not None and _room(used, use):
                used[use] = max(decision.at, used.get(use, decision.at))
            if decision.unknown_key and _room(unknown, decision.unknown_key):
                unknown.add(decision.unknown_key)
        return LogSummary(
            caller.pod, caller.pod_uid, workload.namespace, now,
            counts["decided"], counts["observed"], counts["candidate"],
            tuple(sorted(denials, key=lambda denial: denial.at)), used, frozenset(unknown), foreign, malformed,
        )  # fmt: skip

    def _belongs(self, server: SpiffeID | None, namespace: str, now: datetime) -> bool:
        owner = self.resolver.resolve(server, now) if server else None
        return server is None or (owner is not None and owner.namespace == namespace)

    def _count(self, counter: Counter[Labels], labels: Labels) -> None:
        known = labels in counter or len(counter) < self.label_sets
        counter[labels if known else Labels(OTHER, OTHER, labels.reason)] += 1


@dataclass(frozen=True, slots=True)
class _Decision:
    """One event, read; `answer` is what our entry point has said."""

    at: datetime
    allowed: bool
    server: SpiffeID | None
    client: SpiffeID | None
    reason: str
    method: str
    key_id: str
    unknown_key_id: str
    unknown_key: UnknownKey | None
    answer: Mapping[str, Any]

    @classmethod
    def parse(cls, event: Any, now: datetime) -> "_Decision | None":
        answer = _answer(words.member(event, "result"))
        at = words.moment(words.member(event, "timestamp"))
        reason = words.code(words.member(answer, "reason"))
        if answer is None or at is None or not reason or not isinstance(answer.get("allowed"), bool):
            return None
        unknown = answer.get("unknown_key")
        kid = words.revision(words.member(unknown, "kid"))
        return cls(
            at=min(at, now),
            allowed=answer["allowed"],
            server=words.spiffe_id(answer.get("server")),
            client=words.spiffe_id(answer.get("client")),
            reason=reason,
            method=words.method(_request_method(words.member(event, "input"))),
            key_id=words.key_id(answer.get("key_id")),
            unknown_key_id=words.key_id(answer.get("unknown_key_id")),
            unknown_key=UnknownKey(words.name(words.member(unknown, "provider")), kid) if kid else None,
            answer=answer,
        )

    def views(self) -> Iterator[tuple[str, Labels]]:
        """The decision, and what would have been decided where the answer says so."""
        server, client = str(self.server or NOBODY), str(self.client or NOBODY)
        yield "decided", Labels(server, client, self.reason)
        for view in ("observed", "candidate"):
            reason = words.code(words.member(self.answer.get(view), "reason"))
            if reason:
                yield view, Labels(server, client, reason)

    def key_use(self) -> tuple[str, str] | None:
        """Which API key was used, and why not if it was refused for its own sake."""
        if self.unknown_key_id:
            return self.unknown_key_id, UNKNOWN_KEY
        observed = words.code(words.member(self.answer.get("observed"), "reason"))
        refused = next((reason for reason in (observed, self.reason) if reason in _REFUSED_KEYS), "")
        return (self.key_id, refused) if self.key_id and (self.allowed or refused) else None

    def denial(self) -> Denial:
        policy, rule = words.name(self.answer.get("policy")), words.name(self.answer.get("rule"))
        server, client = str(self.server or NOBODY), str(self.client or NOBODY)
        return Denial(self.at, server, client, self.reason, policy, rule, self.method)


def _answer(result: Any) -> Mapping[str, Any] | None:
    """Our answer, as it stands or where the Envoy entry point carries it."""
    for candidate in (result, words.member(result, "dynamic_metadata"), words.member(result, "decision")):
        if isinstance(candidate, Mapping) and "reason" in candidate:
            return candidate
    return None


def _request_method(request: Any) -> Any:
    envoy = words.member(words.member(words.member(request, "attributes"), "request"), "http")
    return words.member(envoy, "method") or words.member(words.member(request, "request"), "method")


def _room(seen: Mapping[Any, Any] | set[Any], key: Any) -> bool:
    return key in seen or len(seen) < _MOST_NAMES
