"""How one resource stands, by its status and the clock: what is wrong with it, what comes next and when, and when it ends."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from zerotrust.common import naming, times
from zerotrust.common.conditions import find
from zerotrust.common.naming import Ref
from zerotrust.common.observed import Meta, meta_of
from zerotrust.common.requests import asked_at

State = Literal["ready", "attention", "not ready", "not judged"]
STATES: tuple[State, ...] = ("not ready", "not judged", "attention", "ready")  # the worst first

# What a condition says while all is well, where only one answer is well; Stalled and Reconciling repeat Ready.
_ONLY: Mapping[str, Mapping[str, str]] = {
    "TrustDomain": {"Ready": "True", "CertificateAuthorityHealthy": "True", "BundlePublished": "True"},
    "ServiceIdentity": {"Ready": "True", "RenewalOverdue": "False", "SecretConflict": "False"},
    "TrustPolicy": {"Ready": "True", "Accepted": "True", "Enforced": "True", "EgressAccepted": "True"},
    "ApiKey": {
        "Ready": "True",
        "Published": "True",
        "Delivered": "True",
        "ExpiringSoon": "False",
        "Expired": "False",
        "Suspended": "False",
        "Unused": "False",
    },
}
# What is wrong when it is said, while Unknown, or saying nothing, is not.
_BAD = {
    ("TrustDomain", "ClockSkew", "True"),
    ("TrustDomain", "IdentityProvidersReady", "False"),
    ("ServiceIdentity", "PodsMatch", "False"),
    ("TrustPolicy", "TestsPassed", "False"),
    ("TrustPolicy", "NetworkProgrammed", "False"),
    ("TrustPolicy", "BundlePublished", "False"),
    ("TrustPolicy", "ConstraintsEnforced", "False"),
    ("TrustPolicy", "LayersAgree", "False"),
    ("TrustPolicy", "Shadowed", "True"),
}
_BAD |= {(kind, "RequestUnreadable", "True") for kind in ("ServiceIdentity", "ApiKey")}
WISHED = ("ObserveMode",)  # reasons that somebody has chosen
ENDS = {"ServiceIdentity": "notAfter", "ApiKey": "expiresAt"}


@dataclass(frozen=True)
class Problem:
    """What is not as it should be, in the words of a condition where one says so."""

    condition: str
    status: str
    reason: str
    message: str

    def __str__(self) -> str:
        head = f"{self.condition}={self.status}/{self.reason}"
        return f"{head}: {self.message}" if self.message else head


@dataclass(frozen=True, order=True)
class Step:
    """Something that happens by itself at a time."""

    at: datetime
    what: str


@dataclass(frozen=True)
class Standing:
    """One resource, in few words. `ends` is when what it gives stops working, unless something comes first."""

    ref: Ref
    state: State
    problem: Problem | None
    next: Step | None
    ends: datetime | None
    notes: Mapping[str, Any]


def standing_of(kind: str, body: Mapping[str, Any], now: datetime) -> Standing:
    """Judge one object of the API server."""
    meta, status = meta_of(kind, body), body.get("status") or {}
    problem = problem_of(kind, status, meta.generation, now)
    coming = [step for step in steps(kind, body) if step.at > now]
    return Standing(
        meta.ref,
        _state(status, problem),
        problem,
        min(coming, default=None),
        end_of(kind, status),
        _notes(kind, status),
    )


def problem_of(kind: str, status: Mapping[str, Any], generation: int, now: datetime) -> Problem | None:
    """Return the first thing that is wrong, None while all is well; a status that is old is not believed."""
    if not status:
        return Problem("Ready", "Unknown", "NotObserved", "no controller has looked at it; is one running?")
    for condition in status.get("conditions") or ():
        told = Problem(*(str(condition.get(name, "")) for name in ("type", "status", "reason", "message")))
        if is_wrong(kind, told):
            return told
    if not status.get("observedGeneration", 0) >= generation:
        return Problem("Ready", "Unknown", "NotObserved", "the controller has not looked at the last change yet")
    ends = end_of(kind, status)
    if ends is not None and ends <= now:
        text = f"{ENDS.get(kind, 'the end of its authority')} is over and the status does not say so; is a controller running?"
        return Problem("Ready", "Unknown", "NotObserved", text)
    return None


def is_wrong(kind: str, told: Problem) -> bool:
    """Whether what a condition says is not as it should be."""
    if told.reason in WISHED:
        return False
    if (kind, told.condition) == ("ApiKey", "Revoked"):
        return told.status != "True" and told.reason != "NoRevokedKey"
    if (kind, told.condition, told.reason) == ("TrustDomain", "CertificateAuthorityHealthy", "ExpiringSoon"):
        return True
    return told.status != _ONLY[kind].get(told.condition, told.status) or (kind, told.condition, told.status) in _BAD


def _state(status: Mapping[str, Any], problem: Problem | None) -> State:
    if problem is None:
        return "ready"
    if problem.reason == "NotObserved":
        return "not judged"
    ready = find(status.get("conditions") or (), "Ready") or {}
    return "attention" if ready.get("status") == "True" else "not ready"


def end_of(kind: str, status: Mapping[str, Any]) -> datetime | None:
    """When the certificate, the key or the authority ends; None where nothing does."""
    if kind == "TrustDomain":
        active = [one for one in authorities(status) if one.get("state") == "Active"]
        return times.parse_or_none(active[0].get("notAfter")) if active else None
    return times.parse_or_none(status.get(ENDS.get(kind, "")))


def authorities(status: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The authorities of a TrustDomain."""
    return status.get("certificateAuthorities") or ()


def steps(kind: str, body: Mapping[str, Any]) -> Iterator[Step]:
    """Yield what the status and the spec say will happen, in no order; some of it may be over."""
    status, spec, meta = body.get("status") or {}, body.get("spec") or {}, meta_of(kind, body)
    match kind:
        case "ServiceIdentity":
            if spec.get("issuance") != "Paused":
                yield from _step(status.get("renewalTime"), "renewal")
                yield from _step(_requested(meta, spec), "requested renewal")
            yield from _step(status.get("nextAttemptTime"), "next attempt")
            yield from _step(status.get("notAfter"), "certificate expires")
        case "ApiKey":
            yield from _step(status.get("nextRotationTime"), "rotation")
            yield from _step(_requested(meta, spec), "requested rotation")
            yield from _step(status.get("overlapEndsAt"), "old key ends")
            yield from _step(status.get("expiresAt"), "key expires")
            yield from _step(spec.get("notAfter"), "grant ends")
        case "TrustDomain":
            for one in authorities(status):
                yield from _step(one.get("notAfter"), f"authority {one.get('id')} ends")
        case "TrustPolicy":
            for rule in spec.get("rules") or ():
                yield from _step(rule.get("until"), f"rule {rule.get('name')} ends")


def _step(text: object, what: str) -> Iterator[Step]:
    at = times.parse_or_none(text)
    if at is not None:
        yield Step(at, what)


def _requested(meta: Meta, spec: Mapping[str, Any]) -> str | None:
    asked = (
        asked_at(meta, naming.ROTATE_REQUESTED),
        times.parse_or_none((spec.get("rotation") or {}).get("requestedAt")),
    )
    latest = max((one for one in asked if one is not None), default=None)
    return times.render(latest) if latest is not None else None


_KEPT = {
    "TrustDomain": ("identities", "bundle"),
    "ServiceIdentity": ("spiffeID", "revision", "revokedBefore"),
    "TrustPolicy": ("targets", "revision", "decisionPoints"),
    "ApiKey": ("keyID", "phase", "previousKeyID", "overlapEndsAt"),
}


def _notes(kind: str, status: Mapping[str, Any]) -> Mapping[str, Any]:
    notes = {name: status[name] for name in _KEPT[kind] if name in status}
    enforced = find(status.get("conditions") or (), "Enforced")
    return notes | ({"enforced": f"{enforced.get('status')}/{enforced.get('reason')}"} if enforced is not None else {})
