"""From what is observed of a TrustPolicy to what should be done: accept a change or say why not, and tell what is enforced."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from zerotrust.common import times
from zerotrust.common.conditions import Condition, false, find, merge, some, true, unknown
from zerotrust.common.naming import Ref
from zerotrust.common.observed import ControllerRevision
from zerotrust.common.plan import Delete, Event, Plan
from zerotrust.common.status import news_of_violations, violations_of
from zerotrust.policy import acceptance, admission
from zerotrust.policy.acceptance import Accepted, TableOf, TestRun
from zerotrust.policy.admission import AdmissionState
from zerotrust.policy.delivery import DecisionPoint, Delivery, Denial
from zerotrust.policy.directory import Directory, Identity, Workload
from zerotrust.policy.foreign import Edge
from zerotrust.policy.network import MAX_PARTS, PortOf
from zerotrust.policy.reading import Policy
from zerotrust.policy.resource import TrustPolicySpec
from zerotrust.policy.survey import Survey, survey_ref
from zerotrust.policy.table import Contribution, Table, compile_table

SETTLING = timedelta(seconds=10)  # for so long after a change, writing network policies is no news worth a status
REFRESH = timedelta(seconds=30)
MAX_LAGGING = 16
MAX_DENIALS = 3

Programming = Literal["programmed", "pending", "conflict", "observed"]


@dataclass(frozen=True)
class TargetState:
    """How far a target's network policy is; `observed` for an identity of which nothing is isolated.

    `newly_isolated` says that this policy is what isolates it first; `too_complex` are ports that stay closed to some client
    because what Deny rules leave of it has too many parts; `shadowed` is what network policies of others let in and the table
    does not, None when the namespace's pods must be looked at to know. `points` are the decision points of its pods,
    `denials` whom they denied lately.
    """

    identity: Identity
    programming: Programming
    newly_isolated: bool = False
    too_complex: tuple[PortOf, ...] = ()
    shadowed: tuple[Edge, ...] | None = ()
    points: tuple[DecisionPoint, ...] = ()
    denials: tuple[Denial, ...] = ()


def _alone(server: Identity, candidate: Contribution) -> Table:
    return compile_table(server, [candidate])


@dataclass(frozen=True)
class PolicySnapshot:
    """What a decision about one TrustPolicy depends on; `resource` is None once it is gone.

    `refusing` lists clients that are isolated and have not agreed to call a target: `(client, target)`. `leftover` are versions
    of an earlier policy of the same name.
    """

    ref: Ref
    resource: Policy | None
    revisions: tuple[ControllerRevision, ...]
    operator_namespace: str
    directory: Directory
    table_of: TableOf = _alone
    targets: tuple[TargetState, ...] = ()
    refusing: tuple[tuple[Workload, Workload], ...] = ()
    survey: Survey | None = None
    leftover: tuple[ControllerRevision, ...] = ()
    delivery: Delivery = field(default_factory=Delivery)
    admission: AdmissionState = field(default_factory=AdmissionState)

    @property
    def lagging(self) -> list[str]:
        """The pods whose decision points do not run the accepted version."""
        return sorted({point.pod for one in self.targets for point in one.points if not point.acknowledged})


@dataclass(frozen=True)
class _Judgement:
    """Whether the spec as it stands is in force, and why not."""

    accepted: Accepted | None
    condition: Condition
    tests: TestRun | None
    candidate: TrustPolicySpec | None = None


def reconcile(snapshot: PolicySnapshot, now: datetime) -> Plan:
    """Return what to do for a TrustPolicy."""
    policy = snapshot.resource
    if policy is None:
        return Plan(deletes=tuple(Delete(one.meta.ref, one.meta.uid) for one in snapshot.revisions))
    if policy.meta.deleting:
        return Plan()
    judged = _judge(policy, snapshot, now)
    if judged.candidate is not None:
        plan = _accept(policy, snapshot, judged.candidate, now)
        return replace(
            plan, deletes=(*plan.deletes, *(Delete(one.meta.ref, one.meta.uid) for one in snapshot.leftover))
        )
    if judged.accepted is not None and judged.condition.status == "True" and _is_settling(snapshot, now):
        return Plan(requeue_at=now + SETTLING)
    return _tell(policy, snapshot, judged, now)


def _judge(policy: Policy, snapshot: PolicySnapshot, now: datetime) -> _Judgement:
    accepted = acceptance.newest(snapshot.revisions)
    reading = policy.spec
    if reading.problem is not None or reading.spec is None:
        problem = reading.problem
        reason, message = (problem.reason, str(problem)) if problem is not None else ("InvalidSpec", "unreadable")
        return _Judgement(accepted, _refused(reason, message, accepted), None)
    unresolved = acceptance.unresolved(policy, reading.spec, snapshot.directory)
    tests = acceptance.run_tests(policy, reading.spec, snapshot.directory, snapshot.table_of, now)
    if acceptance.is_accepted(policy, accepted):
        message = "" if not unresolved else f"{some(unresolved)}; what they would grant is not granted"
        return _Judgement(accepted, true("Accepted", "Accepted", message), tests)
    if unresolved:
        return _Judgement(accepted, _refused("Unresolved", some(unresolved), accepted), tests)
    if tests.failed:
        return _Judgement(accepted, _refused("TestsFailed", tests.first, accepted), tests)
    return _Judgement(accepted, true("Accepted", "Accepted"), tests, reading.spec)


def _refused(reason: str, message: str, accepted: Accepted | None) -> Condition:
    effect = (
        f"in force is what revision {accepted.digest} and this version both allow"
        if accepted is not None
        else "nothing is allowed by it"
    )
    return false("Accepted", reason, f"{message}. Until that is mended {effect}")


def _accept(policy: Policy, snapshot: PolicySnapshot, spec: TrustPolicySpec, now: datetime) -> Plan:
    """Remember the version; the network policies follow from that, and the status from them."""
    exposed: list[str] = []
    if spec.mode == "Enforce" and "NetworkPolicy" in spec.layers:
        fresh = [one.identity for one in snapshot.targets if one.newly_isolated]
        if fresh and snapshot.survey is None:
            return Plan(refresh=(survey_ref(policy.meta.namespace),))
        exposed = [
            f"{what} brings traffic to {identity.workload}"
            for identity in fresh
            for what in (snapshot.survey.exposing(identity.pods) if snapshot.survey else ())
        ]
    events = []
    if exposed:
        text = f"{some(exposed)}, which is isolated now: whoever brings it must be allowed by a rule (pods or cidr)"
        events.append(Event("Warning", "ExposedTarget", text))
    number = max((one.revision for one in snapshot.revisions), default=0) + 1
    return Plan(
        applies=(acceptance.remember(policy, spec, number, snapshot.operator_namespace),),
        deletes=acceptance.superseded(snapshot.revisions, acceptance.HISTORY - 1),
        events=tuple(events),
        requeue_at=now,
    )


def _is_settling(snapshot: PolicySnapshot, now: datetime) -> bool:
    """Whether a version accepted just now is still on its way into network policies and to decision points."""
    newest = max((one.meta.created for one in snapshot.revisions if one.meta.created is not None), default=None)
    waiting = any(one.programming == "pending" for one in snapshot.targets) or bool(snapshot.lagging)
    waiting |= snapshot.delivery.replicas > 0 and not snapshot.delivery.published
    waiting |= bool(snapshot.admission.awaited)
    return waiting and newest is not None and now - newest < SETTLING


def _tell(policy: Policy, snapshot: PolicySnapshot, judged: _Judgement, now: datetime) -> Plan:
    conditions = _conditions(policy, snapshot, judged)
    observed, generation = policy.conditions, policy.meta.generation
    tests = judged.tests
    status: dict[str, Any] = {
        "observedGeneration": generation,
        "targets": len(snapshot.targets),
        "networkPolicies": sum(one.programming == "programmed" for one in snapshot.targets),
        "constraints": snapshot.admission.wanted,
        "decisionPoints": {
            "total": sum(len(one.points) for one in snapshot.targets),
            "acknowledged": sum(point.acknowledged for one in snapshot.targets for point in one.points),
            "lagging": snapshot.lagging[:MAX_LAGGING],
        },
        "denials": _denials(snapshot),
        "tests": {"passed": tests.passed if tests else 0, "failed": list(tests.failed) if tests else []},
        "conditions": merge(observed, conditions, generation, now),
    }
    if judged.accepted is not None:
        status["revision"] = judged.accepted.digest
    if snapshot.admission.violations:
        status["violations"] = violations_of(snapshot.admission.violations, policy.status.get("violations"))
    # Who lags may be gone, and only a look at the pods can tell.
    undecided = any(one.shadowed is None for one in snapshot.targets) or bool(snapshot.lagging)
    ends = [end for end in _ends(policy) if end > now]
    return Plan(
        status=status,
        events=(
            *_transitions(observed, conditions),
            *_news_of_denials(policy, snapshot),
            *news_of_violations(policy.status.get("violations"), status.get("violations")),
        ),
        refresh=(survey_ref(policy.meta.namespace),) if undecided else (),
        requeue_at=min((*ends, *([now + REFRESH] if undecided or _foreign(snapshot) else [])), default=None),
    )


def _denials(snapshot: PolicySnapshot) -> list[dict[str, str]]:
    """The newest denials at the policy's targets, newest first."""
    found = sorted((denial for one in snapshot.targets for denial in one.denials), reverse=True)[:MAX_DENIALS]
    return [
        {"target": one.target, "client": one.client, "reason": one.reason, "at": times.render(one.at)} for one in found
    ]


def _news_of_denials(policy: Policy, snapshot: PolicySnapshot) -> list[Event]:
    """One event for each caller and reason that the status did not name before."""
    told = {(one["target"], one["client"], one["reason"]) for one in policy.status.get("denials") or ()}
    return [
        Event("Warning", "Denied", f"{one['client']} was denied at {one['target']}: {one['reason']}")
        for one in _denials(snapshot)
        if (one["target"], one["client"], one["reason"]) not in told
    ]


def _foreign(snapshot: PolicySnapshot) -> bool:
    return any(one.shadowed is None or one.shadowed for one in snapshot.targets)


def _ends(policy: Policy) -> list[datetime]:
    rules = policy.spec.spec.policy_rules if policy.spec.spec is not None else []
    return [rule.until for rule in rules if rule.until is not None]


def _conditions(policy: Policy, snapshot: PolicySnapshot, judged: _Judgement) -> list[Condition]:
    programmed = _programmed(policy, snapshot, judged)
    ready = _ready(snapshot, judged, programmed)
    conditions = [ready, judged.condition, _tested(judged), programmed]
    spec = policy.spec.spec or (judged.accepted.spec if judged.accepted is not None else None)
    conditions += [
        _published(policy, snapshot),
        admission.constraints_enforced(spec, snapshot.admission),
        _enforced(policy, snapshot, judged, programmed),
        _agreeing(programmed, snapshot, spec),
        _egress(snapshot),
        _shadowed(snapshot),
    ]
    if judged.condition.reason in ("InvalidSpec", "UnknownField"):
        conditions.append(true("Stalled", judged.condition.reason, judged.condition.message))
    return conditions


def _ready(snapshot: PolicySnapshot, judged: _Judgement, programmed: Condition) -> Condition:
    if judged.condition.status != "True":
        return false("Ready", judged.condition.reason, judged.condition.message)
    if programmed.status == "False":
        return false("Ready", programmed.reason, programmed.message)
    if not snapshot.targets:
        return true("Ready", "NoTargets", "no ServiceIdentity is selected yet")
    return true("Ready", "Programmed", "the version is accepted, and every layer that this operator writes says so")


def _tested(judged: _Judgement) -> Condition:
    tests = judged.tests
    if tests is None:
        return unknown("TestsPassed", "NotRun", "the spec cannot be read")
    if tests.failed:
        return false("TestsPassed", "TestsFailed", tests.first)
    return true("TestsPassed", "Passed" if tests.passed else "NoTests", f"{tests.passed} passed")


def _programmed(policy: Policy, snapshot: PolicySnapshot, judged: _Judgement) -> Condition:
    kind = "NetworkProgrammed"
    spec = policy.spec.spec or (judged.accepted.spec if judged.accepted else None)
    if spec is None:
        return unknown(kind, "NoTargets", "the target cannot be read")
    if spec.mode == "Observe":
        return unknown(kind, "ObserveMode", "spec.mode is Observe: nothing is enforced")
    if "NetworkPolicy" not in spec.layers:
        return unknown(kind, "NotSelected", "spec.layers does not name NetworkPolicy")
    conflicts = [one.identity for one in snapshot.targets if one.programming == "conflict"]
    if conflicts:
        name = f"{conflicts[0].workload.namespace}/zt-{conflicts[0].workload.name}"
        return false(kind, "Conflict", f"NetworkPolicy {name} was not made by this operator; delete or rename it")
    waiting = [str(one.identity.workload) for one in snapshot.targets if one.programming == "pending"]
    if waiting:
        return false(kind, "Programming", f"not written yet for {some(waiting)}")
    closed = [
        f"{one.identity.workload} port {port.port}/{port.protocol}"
        for one in snapshot.targets
        for port in one.too_complex
    ]
    if closed:
        text = f"{some(closed)}: what Deny rules leave of a client has more than {MAX_PARTS} parts, so it stays closed"
        return false(kind, "TooComplex", f"{text}; name fewer clients in Deny rules, or allow fewer by name")
    passive = sum(one.programming == "observed" for one in snapshot.targets)
    note = f", {passive} of them in enforcement: Observe, which isolates nothing" if passive else ""
    return true(kind, "Programmed", f"{len(snapshot.targets)} targets{note}")


def _published(policy: Policy, snapshot: PolicySnapshot) -> Condition:
    kind, spec, delivery = "BundlePublished", policy.spec.spec, snapshot.delivery
    if spec is not None and "OPA" not in spec.layers:
        return unknown(kind, "NotSelected", "spec.layers does not name OPA")
    if not delivery.replicas:
        return unknown(kind, "NotInstalled", "no bundle server reports")
    if not delivery.published:
        return false(kind, "Publishing", "no bundle server serves the accepted version yet")
    return true(kind, "Published", f"{delivery.serving} of {delivery.replicas} bundle servers serve it")


def _enforced(policy: Policy, snapshot: PolicySnapshot, judged: _Judgement, programmed: Condition) -> Condition:
    """True only when every layer that a rule needs says so; a rule that needs a decision point is never enforced without."""
    kind, spec = "Enforced", policy.spec.spec
    if judged.condition.status != "True" or spec is None:
        return false(kind, judged.condition.reason, judged.condition.message)
    if spec.mode == "Observe":
        return false(kind, "ObserveMode", "spec.mode is Observe")
    if (pending := admission.pending(spec, snapshot.admission)) is not None:
        return replace(pending, type=kind)
    if not any(rule.needs_decision_point for rule in spec.policy_rules):
        return replace(programmed, type=kind)
    enforcing = [one for one in snapshot.targets if one.identity.enforcement == "Enforce"]
    alone = [str(one.identity.workload) for one in enforcing if not one.points]
    if alone or not enforcing:
        text = "rules with methods, paths, users, keys, when or until need a decision point"
        return false(kind, "NoDecisionPoint", f"{text}, and none reports for {some(alone) or 'any target'}")
    if not snapshot.delivery.published:
        return false(kind, "Publishing", "no bundle server serves the accepted version yet")
    if snapshot.lagging:
        return false(kind, "Lagging", f"the accepted version is not reported by {some(snapshot.lagging)}")
    if programmed.status == "False":
        return replace(programmed, type=kind)
    return true(kind, "Acknowledged", f"reported by {sum(len(one.points) for one in enforcing)} decision points")


def _agreeing(programmed: Condition, snapshot: PolicySnapshot, spec: TrustPolicySpec | None) -> Condition:
    """True only when everything that is in the cluster was read back and is what one table says."""
    kind, layers = "LayersAgree", spec.layers if spec is not None else []
    if shadowed := _ways_in(snapshot):
        return false(kind, "Shadowed", f"{some(shadowed)}, and the table does not")
    if snapshot.admission.differing:
        return false(kind, "ConstraintsDiffer", some(snapshot.admission.differing))
    if programmed.status != "True":
        return unknown(kind, programmed.reason, programmed.message)
    agreeing = ["network policies"]
    if "OPA" in layers and snapshot.delivery.replicas:
        if not snapshot.delivery.published:
            return unknown(kind, "Publishing", "no bundle server serves the accepted version yet")
        agreeing.append("bundles")
    if "Gatekeeper" in layers and snapshot.admission.installed:
        if snapshot.admission.awaited:
            return unknown(kind, "Awaited", some(snapshot.admission.awaited))
        agreeing.append("constraints")
    return true(kind, "OneTable", f"the {', '.join(agreeing)} in the cluster are the table's own")


def _egress(snapshot: PolicySnapshot) -> Condition:
    if not snapshot.refusing:
        return true("EgressAccepted", "Accepted")
    named = [f"{client} has not named {server} in spec.egress.calls" for client, server in snapshot.refusing]
    return false("EgressAccepted", "NotNamed", some(named))


def _shadowed(snapshot: PolicySnapshot) -> Condition:
    if any(one.shadowed is None for one in snapshot.targets):
        return unknown("Shadowed", "Looking", "the namespace's pods are being looked at")
    if ways := _ways_in(snapshot):
        text = f"{some(ways)}, and the table does not; it is not ours, and network policies only add up"
        return true("Shadowed", "ForeignPolicy", text)
    return false("Shadowed", "NotShadowed")


def _ways_in(snapshot: PolicySnapshot) -> list[str]:
    return sorted({str(edge) for one in snapshot.targets for edge in one.shadowed or ()})


def _transitions(observed: Sequence[Mapping[str, Any]], conditions: Sequence[Condition]) -> tuple[Event, ...]:
    """Warn once about each condition that turned bad, and tell once that Ready came back."""
    bad = {("Accepted", "False"), ("Shadowed", "True"), ("EgressAccepted", "False"), ("NetworkProgrammed", "False")}
    events = []
    for condition in conditions:
        before = find(observed, condition.type) or {}
        if (before.get("status"), before.get("reason")) == (condition.status, condition.reason):
            continue
        if (condition.type, condition.status) in bad and condition.reason != "Programming":
            events.append(Event("Warning", condition.reason, condition.message))
        elif (condition.type, condition.status) == ("Ready", "True") and before.get("status") == "False":
            events.append(Event("Normal", "Programmed", condition.message))
    return tuple(events)


def failed(snapshot: PolicySnapshot, message: str, now: datetime) -> Plan:
    """Return the status that tells of failing writes."""
    policy = snapshot.resource
    if policy is None or policy.meta.deleting:
        return Plan()
    judged = _judge(policy, snapshot, now)
    plan = _tell(policy, snapshot, replace(judged, condition=false("Accepted", "WriteFailed", message)), now)
    return replace(plan, applies=(), deletes=(), refresh=(), requeue_at=None)
