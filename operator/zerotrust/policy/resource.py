"""TrustPolicy: who may call the workloads of this namespace. The CRD is generated from these models."""

import re
from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from zerotrust.common.kind import Column, Kind, age_column, ready_column, reason_column
from zerotrust.common.resource import AccountName, DnsLabel, Resource, Rule, Timestamp
from zerotrust.common.status import Conditions, ViolationsStatus, conditions_field
from zerotrust.policy.peers import (
    MAX_DESTINATIONS,
    MAX_PEERS,
    Audience,
    ClaimName,
    ClaimValue,
    Destination,
    Method,
    Peer,
    RuleName,
    Scope,
    Target,
    When,
)

MAX_RULES = 256

Layer = Literal["NetworkPolicy", "OPA", "Gatekeeper"]
LAYERS: tuple[Layer, ...] = ("NetworkPolicy", "OPA", "Gatekeeper")

_LAYER4_PEER = "(has(p.pods) || has(p.cidr))"
_HTTP = "(has(d.methods) || has(d.paths))"


class PolicyRule(Resource):
    """Any of the peers may, or may not, reach any of the destinations while all conditions hold."""

    refuses_null: ClassVar[bool] = True

    name: RuleName = Field(description="Name, unique in the policy; decisions and logs show it.")
    effect: Literal["Allow", "Deny"] = Field(default="Allow", description="Deny overrides every Allow.")
    from_: Annotated[list[Peer], Field(min_length=1, max_length=MAX_PEERS)] = Field(
        alias="from", description="Who: any of these."
    )
    to: Annotated[list[Destination], Field(min_length=1, max_length=MAX_DESTINATIONS)] = Field(
        description="What: any of these."
    )
    when: When | None = Field(default=None, description="Conditions, all of which must hold.")
    until: Timestamp | None = Field(default=None, description="When an Allow ends by itself.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.effect) || self.effect == 'Allow' || !has(self.until)",
            "a Deny has no until: it would open something by itself; delete the rule when it is no longer wanted",
            lambda self: self.effect == "Allow" or self.until is None,
        ),
        Rule(
            "!has(self.effect) || self.effect == 'Allow' || !self.from.exists(p, has(p.cidr))",
            "a Deny has no cidr: network policies cannot subtract; leave the range out of the Allow instead",
            lambda self: self.effect == "Allow" or not any(peer.cidr for peer in self.from_),
        ),
        Rule(
            f"!self.from.exists(p, {_LAYER4_PEER}) || !(has(self.when) || has(self.until) || self.to.exists(d, {_HTTP}))",
            "pods and cidr are known at layer 4 only: a rule with them takes no methods, paths, when and until;"
            " write another rule for the workloads",
            lambda self: not any(peer.is_layer4_only for peer in self.from_) or not self.has_request_conditions,
        ),
        Rule(
            "!has(self.when) || !has(self.when.scopes) || self.from.all(p, has(p.user) || has(p.apiKey))",
            "when.scopes needs a user or an apiKey in every entry of from: nobody else has scopes",
            lambda self: (
                self.when is None or self.when.scopes is None or all(peer.has_principal for peer in self.from_)
            ),
        ),
        Rule(
            "!(has(self.when) || self.from.exists(p, has(p.user) || has(p.apiKey))) ||"
            " self.to.all(d, !has(d.protocol) || d.protocol == 'TCP')",
            "user, apiKey and when belong to protocol TCP: nobody decides about single requests of UDP and SCTP",
            lambda self: (
                (self.when is None and not any(peer.has_principal for peer in self.from_))
                or all(one.protocol == "TCP" for one in self.to)
            ),
        ),
    )

    @property
    def has_request_conditions(self) -> bool:
        """Whether anything beside peers and ports matters; principals, which are part of a peer, left out."""
        return self.when is not None or self.until is not None or any(one.is_http for one in self.to)

    @property
    def needs_decision_point(self) -> bool:
        """Whether a network policy alone cannot enforce the rule."""
        return self.has_request_conditions or any(peer.has_principal for peer in self.from_)

    @property
    def depends_on_time(self) -> bool:
        """Whether the same request is decided differently at different times."""
        return self.until is not None or (self.when is not None and self.when.time is not None)


Registry = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9._:/]*[a-z0-9])?/?$")]
# Images are compared with the host that a short name leaves out, so an entry without one would match none.
_HOST = "^(localhost(/|$)|[^/]*[.:])"
# They are compared without tags, and under Docker Hub's first name.
_NEVER = "/.*:|//|^index[.]docker[.]io(/|$)"


class Admission(Resource):
    """What the target's pods must look like to be admitted."""

    allowed_registries: Annotated[list[Registry], Field(min_length=1, max_length=32)] | None = Field(
        default=None, description="Images come from these registries or repositories; each begins with a host."
    )
    deny_host_network: bool = Field(
        default=True, description="No pod uses the node's network, ports, processes or IPC."
    )
    require_digest: bool = Field(default=False, description="Images are named by digest.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"!has(self.allowedRegistries) || self.allowedRegistries.all(one, one.matches('{_HOST}'))",
            "entries of allowedRegistries begin with a host: write docker.io/team instead of team",
            lambda self: all(re.search(_HOST, one) for one in self.allowed_registries or ()),
        ),
        Rule(
            f"!has(self.allowedRegistries) || !self.allowedRegistries.exists(one, one.matches('{_NEVER}'))",
            "entries of allowedRegistries have no tag and no empty segment, and Docker Hub is docker.io: write docker.io/team",
            lambda self: not any(re.search(_NEVER, one) for one in self.allowed_registries or ()),
        ),
    )


class SampleUser(Resource):
    """The verified token of a test's request."""

    provider: DnsLabel = Field(description="Identity provider that issued it.")
    audiences: Annotated[list[Audience], Field(max_length=16)] = Field(default=[], description="Its `aud`.")
    claims: Annotated[dict[ClaimName, Annotated[list[ClaimValue], Field(max_length=16)]], Field(max_length=16)] = Field(
        default={}, description="Its claims, each as the list of its values."
    )
    scopes: Annotated[list[Scope], Field(max_length=16)] = Field(default=[], description="Its scopes.")


class SampleRequest(Resource):
    """A request as a decision point would see it; without method and path it is a connection."""

    from_: Annotated[str, Field(max_length=127, pattern=r"^[a-z0-9][-a-z0-9]*/[a-z0-9][-a-z0-9.]*$")] = Field(
        alias="from", description="The calling ServiceIdentity, as namespace/name."
    )
    to: AccountName | None = Field(
        default=None, description="The called ServiceIdentity of this namespace; default: each of the targets."
    )
    port: int = Field(ge=1, le=65535, description="Port that is called.")
    protocol: Literal["TCP", "UDP", "SCTP"] = Field(default="TCP", description="Transport protocol.")
    method: Method | None = Field(default=None, description="HTTP method.")
    path: Annotated[str, Field(min_length=1, max_length=4096)] | None = Field(
        default=None, description="Path as it is sent, escapes included."
    )
    mtls: bool = Field(default=True, description="Whether the connection is mutual TLS.")
    user: SampleUser | None = Field(default=None, description="The verified token that is presented.")
    api_key: AccountName | None = Field(default=None, description="The ApiKey that is presented.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.method) == has(self.path)",
            "write method and path, or neither for a connection",
            lambda self: (self.method is None) == (self.path is None),
        ),
        Rule(
            "has(self.method) || !(has(self.user) || has(self.apiKey))",
            "user and apiKey belong to a request with method and path",
            lambda self: self.method is not None or (self.user is None and self.api_key is None),
        ),
    )


class PolicyTest(Resource):
    """What must be decided about a request; a change that breaks a test widens nothing."""

    name: RuleName = Field(description="Name, unique in the policy.")
    request: SampleRequest = Field(description="The request.")
    at: Timestamp | None = Field(
        default=None, description="When it is made; required where a rule of the policy depends on time."
    )
    expect: Literal["Allow", "Deny"] = Field(description="The verdict.")


_NEEDS_OPA = (
    "r.from.exists(p, has(p.user) || has(p.apiKey)) || has(r.when) || has(r.until) ||"
    " r.to.exists(d, has(d.methods) || has(d.paths))"
)


class TrustPolicySpec(Resource):
    """Who may call workloads of this namespace."""

    target: Target = Field(description="The workloads that are protected.")
    mode: Literal["Enforce", "Observe"] = Field(
        default="Enforce", description="Observe is a candidate: evaluated and reported, never enforced."
    )
    layers: Annotated[list[Layer], Field(min_length=1, max_length=3)] = Field(
        default=[*LAYERS],
        description="What enforces the target's decision table.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    policy_rules: Annotated[list[PolicyRule], Field(max_length=MAX_RULES)] = Field(
        default=[], alias="rules", description="Who may call, and who may not; what no rule allows is denied."
    )
    admission: Admission | None = Field(default=None, description="What the target's pods must look like.")
    tests: Annotated[list[PolicyTest], Field(max_length=64)] = Field(
        default=[], description="Requests with the verdict that is expected, run on every change."
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.rules) || self.rules.all(a, self.rules.exists_one(b, b.name == a.name))",
            "rules have unique names",
            lambda self: _unique(rule.name for rule in self.policy_rules),
        ),
        Rule(
            "!has(self.tests) || self.tests.all(a, self.tests.exists_one(b, b.name == a.name))",
            "tests have unique names",
            lambda self: _unique(test.name for test in self.tests),
        ),
        Rule(
            "!has(self.layers) || self.layers.all(a, self.layers.exists_one(b, b == a))",
            "layers names each layer once",
            lambda self: _unique(self.layers),
        ),
        Rule(
            f"!has(self.layers) || 'OPA' in self.layers || !has(self.rules) || !self.rules.exists(r, {_NEEDS_OPA})",
            "a rule with user, apiKey, methods, paths, when or until needs OPA among the layers",
            lambda self: "OPA" in self.layers or not any(rule.needs_decision_point for rule in self.policy_rules),
        ),
        Rule(
            "!has(self.tests) || !has(self.rules) || self.tests.all(t, has(t.at)) ||"
            " !self.rules.exists(r, has(r.until) || (has(r.when) && has(r.when.time)))",
            "every test needs `at` where a rule has until or when.time, or its verdict would change by itself",
            lambda self: (
                all(test.at for test in self.tests) or not any(rule.depends_on_time for rule in self.policy_rules)
            ),
        ),
    )


def _unique(names: Iterable[str] | list[Layer]) -> bool:
    listed = list(names)
    return len(set(listed)) == len(listed)


class DecisionPoints(Resource):
    """OPA instances that decide for the targets."""

    total: int = Field(default=0, ge=0, description="How many there are.")
    acknowledged: int = Field(default=0, ge=0, description="How many have reported this revision.")
    lagging: list[Annotated[str, Field(max_length=253)]] = Field(default=[], max_length=16, description="Who has not.")


class DenialStatus(Resource):
    """A caller that decision points denied lately."""

    target: Annotated[str, Field(max_length=253)] = Field(description="Who was called.")
    client: Annotated[str, Field(max_length=2048)] = Field(description="The caller's SPIFFE ID, or none.")
    reason: Annotated[str, Field(max_length=63)] = Field(description="Why it was denied.")
    at: Timestamp = Field(description="When that was, lately.")


class TestsStatus(Resource):
    """How the policy's tests went."""

    passed: int = Field(default=0, ge=0, description="How many got the verdict that they expect.")
    failed: list[Annotated[str, Field(max_length=63)]] = Field(default=[], max_length=64, description="Who did not.")


class TrustPolicyStatus(Resource):
    """What is true about the policy; written by the operator only, never read by it."""

    observed_generation: int | None = Field(default=None, description="Generation of the spec that was judged.")
    targets: int | None = Field(default=None, ge=0, description="ServiceIdentities that the policy protects.")
    revision: str | None = Field(default=None, max_length=64, description="Short hash of the version in force.")
    network_policies: int | None = Field(
        default=None, ge=0, description="Targets whose NetworkPolicy is as it should be."
    )
    constraints: int | None = Field(default=None, ge=0, description="Gatekeeper constraints that follow from it.")
    decision_points: DecisionPoints | None = Field(default=None, description="OPA instances of the targets.")
    denials: Annotated[list[DenialStatus], Field(max_length=16)] | None = Field(
        default=None, description="The newest denials at the targets."
    )
    tests: TestsStatus | None = Field(default=None, description="How its tests went.")
    violations: ViolationsStatus | None = Field(
        default=None,
        description="Objects that Gatekeeper's audit found to be against what the policy and its targets ask for.",
    )
    conditions: Conditions = conditions_field()


KIND = Kind(
    name="TrustPolicy",
    plural="trustpolicies",
    short_name="tp",
    namespaced=True,
    description="Who may call workloads of this namespace, on which port, method and path, and when.",
    spec=TrustPolicySpec,
    status=TrustPolicyStatus,
    columns=(
        ready_column(),
        Column("Mode", "string", ".spec.mode", "Whether it is enforced or observed."),
        Column("Targets", "integer", ".status.targets", "How many identities it protects."),
        Column(
            "Enforced", "string", '.status.conditions[?(@.type=="Enforced")].status', "Whether every layer runs it."
        ),
        Column("Revision", "string", ".status.revision", "Short hash of the version in force."),
        reason_column(),
        age_column(),
    ),
    keeps_unknown_fields=True,
)
