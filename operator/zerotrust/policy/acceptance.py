"""Which version of a TrustPolicy is in force: the accepted one is remembered, and a change must pass before it widens anything.

The memory is a ControllerRevision in the operator's namespace, named by the policy's uid: no tenant can forge it, and every
process and every restart finds the same one.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from zerotrust.common import naming
from zerotrust.common.observed import ControllerRevision
from zerotrust.common.plan import Apply, Delete
from zerotrust.policy import table as tables
from zerotrust.policy.directory import Directory, Identity, Workload
from zerotrust.policy.evaluate import Key, Request, Token, Verdict, evaluate
from zerotrust.policy.reading import Policy, Reading, document_of
from zerotrust.policy.resource import LAYERS, PolicyTest, SampleRequest, TrustPolicySpec
from zerotrust.policy.table import Contribution, Row, Table

HISTORY = 3

TableOf = Callable[[Identity, Contribution], Table]
"""Compiles a server's table with one policy's contribution in place of what that policy has in force."""


@dataclass(frozen=True)
class Accepted:
    """The newest accepted version of a policy."""

    number: int
    spec: TrustPolicySpec
    digest: str


def newest(revisions: Iterable[ControllerRevision]) -> Accepted | None:
    """Return the newest version that can be read, or None."""
    for one in sorted(revisions, key=lambda revision: revision.revision, reverse=True):
        reading: Reading = one.reading
        if reading.spec is not None and reading.problem is None:
            return Accepted(one.revision, reading.spec, reading.digest)
    return None


def remember(policy: Policy, spec: TrustPolicySpec, number: int, namespace: str) -> Apply:
    """The object that makes a version the accepted one."""
    return Apply(
        {
            "apiVersion": "apps/v1",
            "kind": "ControllerRevision",
            "metadata": {
                "name": naming.accepted_policy_name(policy.meta.uid, number),
                "namespace": namespace,
                "labels": {
                    naming.MANAGED_BY: naming.OPERATOR,
                    naming.COMPONENT: naming.COMPONENT_ACCEPTED_POLICY,
                    naming.POLICY_UID: policy.meta.uid,
                },
                "annotations": {naming.POLICY: f"{policy.meta.namespace}/{policy.meta.name}"},
            },
            "revision": number,
            "data": {"spec": document_of(spec)},
        }
    )


def superseded(revisions: Sequence[ControllerRevision], kept: int) -> tuple[Delete, ...]:
    """The deletions that leave the newest `kept` versions."""
    ordered = sorted(revisions, key=lambda one: one.revision, reverse=True)
    return tuple(Delete(one.meta.ref, one.meta.uid) for one in ordered[kept:])


def rows_in_force(
    policy: Policy, accepted: Accepted | None, directory: Directory, server: Identity
) -> tuple[TrustPolicySpec, tuple[Row, ...]] | None:
    """Return the spec and the rows that count for a server now, None when the policy has nothing to say about it.

    That is the spec itself once it is accepted; before that, what `withheld` leaves of it.
    """
    name, namespace, spec = policy.meta.name, policy.meta.namespace, policy.spec.spec
    before = accepted.spec if accepted is not None and targets(accepted.spec, server) else None
    if spec is not None and not targets(spec, server):
        spec = None
    if is_accepted(policy, accepted):
        return (spec, tables.resolve(name, namespace, spec, directory, server).rows) if spec is not None else None
    new = tables.resolve(name, namespace, spec, directory, server).rows if spec is not None else ()
    old = tables.resolve(name, namespace, before, directory, server).rows if before is not None else ()
    stated = spec or before
    if stated is None:
        return None
    rows = tables.withheld(new, old)
    if before is not None and before.mode == "Enforce":  # not accepted: what enforced goes on enforcing
        stated = before if stated.mode == "Observe" else _with_layers_of(before, stated)
    return stated, rows


def _with_layers_of(before: TrustPolicySpec, spec: TrustPolicySpec) -> TrustPolicySpec:
    layers = [layer for layer in LAYERS if layer in before.layers or layer in spec.layers]
    return spec.model_copy(update={"layers": layers})


def is_accepted(policy: Policy, accepted: Accepted | None) -> bool:
    """Tell whether the spec as it stands is the accepted version."""
    reading = policy.spec
    return (
        accepted is not None
        and reading.spec is not None
        and reading.problem is None
        and accepted.digest == reading.digest
    )


def targets(spec: TrustPolicySpec, server: Identity) -> bool:
    """Tell whether a version of a policy is about a workload of its namespace."""
    target = spec.target
    if target.identities is not None:
        return server.workload.name in target.identities
    return target.selector is None or target.selector.matches(server.labels)


def unresolved(policy: Policy, spec: TrustPolicySpec, directory: Directory) -> list[str]:
    """What in a spec names something that does not exist."""
    found = []
    for number, name in enumerate(spec.target.identities or ()):
        if directory.identity(Workload(policy.meta.namespace, name)) is None:
            place = f"{policy.meta.namespace}/{name}"
            found.append(f"spec.target.identities[{number}]: ServiceIdentity {place} does not exist; create it")
    for server in tables.targets_of(spec, policy.meta.namespace, directory):
        resolution = tables.resolve(policy.meta.name, policy.meta.namespace, spec, directory, server)
        found += [f"{path}: {message}" for path, message in resolution.unresolved]
    return list(dict.fromkeys(found))


def may_be_accepted(policy: Policy, directory: Directory, table_of: "TableOf", now: datetime) -> bool:
    """Tell whether the spec as it stands has nothing against it; it is in force once it is remembered."""
    spec = policy.spec.spec
    if spec is None or policy.spec.problem is not None or unresolved(policy, spec, directory):
        return False
    return not run_tests(policy, spec, directory, table_of, now).failed


@dataclass(frozen=True)
class TestRun:
    """How a policy's tests went: names of those that failed, and what is wrong with the first of them."""

    passed: int
    failed: tuple[str, ...] = ()
    first: str = ""


def run_tests(policy: Policy, spec: TrustPolicySpec, directory: Directory, table_of: TableOf, now: datetime) -> TestRun:
    """Run a spec's tests as if it were in force, also when its mode is Observe."""
    enforced = spec.model_copy(update={"mode": "Enforce"})
    targets = tables.targets_of(spec, policy.meta.namespace, directory)
    candidates: dict[Workload, Table] = {}
    passed, failed, first = 0, [], ""
    for number, test in enumerate(spec.tests):
        problem = ""
        called = [one for one in targets if test.request.to in (None, one.workload.name)]
        if not called:
            problem = (
                f"no target of the policy is called {test.request.to}" if test.request.to else "there is no target"
            )
        for server in called:
            if server.workload not in candidates:
                rows = tables.resolve(policy.meta.name, policy.meta.namespace, enforced, directory, server).rows
                contribution = tables.contribution(policy.meta.name, enforced, rows)
                candidates[server.workload] = table_of(server, contribution)
            verdict = evaluate(candidates[server.workload], request_of(test.request, directory, server), test.at or now)
            if verdict.allowed != (test.expect == "Allow"):
                problem = problem or _difference(test, server, verdict)
        if problem:
            failed.append(test.name)
            first = first or f"spec.tests[{number}] ({test.name}): {problem}"
        else:
            passed += 1
    return TestRun(passed, tuple(failed), first)


def _difference(test: PolicyTest, server: Identity, verdict: Verdict) -> str:
    by = f" by rule {verdict.rule} of TrustPolicy {verdict.policy}" if verdict.rule else ""
    outcome = "Allow" if verdict.allowed else "Deny"
    return (
        f"expects {test.expect} from {test.request.from_} to {server.workload}, gets {outcome} ({verdict.reason}){by}"
    )


def request_of(sample: SampleRequest, directory: Directory, server: Identity) -> Request:
    """The request that a test describes; a caller without a ServiceIdentity has no identity."""
    namespace, _, name = sample.from_.partition("/")
    client = directory.identity(Workload(namespace, name))
    token = key = None
    if sample.user is not None:
        claims = {claim: tuple(values) for claim, values in sample.user.claims.items()}
        token = Token(sample.user.provider, frozenset(sample.user.audiences), claims, frozenset(sample.user.scopes))
    if sample.api_key is not None:
        scopes = directory.api_key_scopes(Workload(server.workload.namespace, sample.api_key))
        key = Key(sample.api_key, scopes) if scopes is not None else None
    return Request(
        client=client.workload if client is not None and client.resolved else None,
        port=sample.port,
        protocol=sample.protocol,
        method=sample.method,
        path=sample.path,
        mtls=sample.mtls,
        token=token,
        key=key,
    )
