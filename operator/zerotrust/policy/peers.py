"""The parts of a TrustPolicy's rules: who (`Target`, `Peer`), what (`Destination`) and when (`When`)."""

from functools import cache
from typing import Annotated, ClassVar, Literal
from zoneinfo import available_timezones

from pydantic import AfterValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from zerotrust.common.resource import (
    AccountName,
    DnsLabel,
    OnlyTrue,
    Resource,
    Rule,
    count_of,
    exactly_one,
    is_address_range,
)
from zerotrust.common.selectors import LabelSelector, WorkloadReference
from zerotrust.trustdomain.resource import Cidr

MAX_PEERS, MAX_DESTINATIONS = 16, 16

Method = Annotated[str, Field(max_length=32, pattern=r"^[A-Z][A-Z-]*$")]
# Letters of other alphabets, escapes, queries, matrix parameters and dot segments have no place in a pattern: a request's
# path is compared after it was decoded, and whatever could be read in two ways is denied before that.
PATH_PATTERN = (
    r"^(/|(/(\*\*|\*|[A-Za-z0-9_~!$&'()+,=:@-][A-Za-z0-9._~!$&'()+,=:@-]*|\.[A-Za-z0-9_~-][A-Za-z0-9._~-]*))+/?)$"
)
PathPattern = Annotated[str, Field(max_length=256, pattern=PATH_PATTERN)]
Scope = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[\x21\x23-\x5B\x5D-\x7E]+$")]  # RFC 6749 §3.3
Audience = Annotated[str, Field(min_length=1, max_length=256)]
ClaimValue = Annotated[str, Field(min_length=1, max_length=256)]
ClaimName = Annotated[str, Field(min_length=1, max_length=128)]
RuleName = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
Weekday = Literal["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
ClockTime = Annotated[str, Field(max_length=5, pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]


@cache
def _time_zones() -> frozenset[str]:
    """The names of the database, whose files Python would look through each time it is asked."""
    return frozenset(available_timezones())


def _known_time_zone(name: str) -> str:
    if name not in _time_zones():
        message = "is not in the IANA time zone database; write for example Europe/Berlin or UTC"
        raise PydanticCustomError("time_zone", "{message}", {"message": message})
    return name


TimeZone = Annotated[
    str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_+/-]+$"), AfterValidator(_known_time_zone)
]


class Target(Resource):
    """The ServiceIdentities of this namespace that the policy protects."""

    identities: Annotated[list[AccountName], Field(min_length=1, max_length=64)] | None = Field(
        default=None, description="Names of ServiceIdentities of this namespace."
    )
    selector: LabelSelector | None = Field(default=None, description="ServiceIdentities with these labels.")
    all: OnlyTrue | None = Field(default=None, description="Every ServiceIdentity here; the only value is true.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            exactly_one("identities", "selector", "all"),
            "write exactly one of identities, selector and all: true",
            lambda self: count_of(self.identities, self.selector, self.all) == 1,
        ),
    )


class Workloads(Resource):
    """ServiceIdentities by their labels."""

    refuses_null: ClassVar[bool] = True

    namespace_selector: LabelSelector | None = Field(
        default=None, description="Their namespaces, by label; default: this namespace."
    )
    selector: LabelSelector | None = Field(default=None, description="Labels of the ServiceIdentities.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.namespaceSelector) || has(self.selector)",
            "write namespaceSelector, selector or both",
            lambda self: self.namespace_selector is not None or self.selector is not None,
        ),
    )


class AnyWorkload(Resource):
    """Any ServiceIdentity of the cluster."""

    # The API server forgets an empty `properties`, and what it stores should be what was applied.
    model_config = ConfigDict(json_schema_extra=lambda schema: schema.pop("properties", None))


class PodSelection(Resource):
    """Pods by label, whether they have an identity or not."""

    refuses_null: ClassVar[bool] = True

    namespace_selector: LabelSelector | None = Field(
        default=None, description="Their namespaces, by label; default: this namespace."
    )
    pod_selector: LabelSelector | None = Field(default=None, description="Their labels; default: every pod there.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.namespaceSelector) || has(self.podSelector)",
            "write namespaceSelector, podSelector or both",
            lambda self: self.namespace_selector is not None or self.pod_selector is not None,
        ),
    )


class User(Resource):
    """Somebody whom an identity provider vouches for, with a token that was issued for this API."""

    refuses_null: ClassVar[bool] = True

    provider: DnsLabel = Field(description="Name of an entry of the TrustDomain's identityProviders.")
    audiences: Annotated[list[Audience], Field(min_length=1, max_length=16)] = Field(
        description="The token must name one of these in `aud` (RFC 7519 §4.1.3)."
    )
    claims: (
        Annotated[
            dict[ClaimName, Annotated[list[ClaimValue], Field(min_length=1, max_length=16)]],
            Field(
                min_length=1, max_length=16
            ),  # the API server drops `groups:` without a value, and any token would do
        ]
        | None
    ) = Field(default=None, description="Claims of the token, each with the values of which one must be there.")


class ApiKeyReference(Resource):
    """Whoever presents one of these API keys."""

    refuses_null: ClassVar[bool] = True

    name: AccountName | None = Field(default=None, description="Name of an ApiKey of this namespace.")
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=16)] | None = Field(
        default=None, description="Any ApiKey of this namespace that has all of these scopes."
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            exactly_one("name", "scopes"),
            "write exactly one of name and scopes",
            lambda self: count_of(self.name, self.scopes) == 1,
        ),
    )


class Peer(Resource):
    """Who connects, and optionally on whose behalf."""

    refuses_null: ClassVar[bool] = True

    workload: WorkloadReference | None = Field(default=None, description="One ServiceIdentity.")
    workloads: Workloads | None = Field(default=None, description="ServiceIdentities by label.")
    any_workload: AnyWorkload | None = Field(default=None, description="Any ServiceIdentity; written as {}.")
    pods: PodSelection | None = Field(default=None, description="Pods by label, at layer 4 only.")
    cidr: Cidr | None = Field(default=None, description="An address range outside the cluster, at layer 4 only.")
    user: User | None = Field(default=None, description="A user's token that must be presented as well.")
    api_key: ApiKeyReference | None = Field(default=None, description="An API key that must be presented as well.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            exactly_one("workload", "workloads", "anyWorkload", "pods", "cidr"),
            "write exactly one of workload, workloads, anyWorkload: {}, pods and cidr",
            lambda self: count_of(self.workload, self.workloads, self.any_workload, self.pods, self.cidr) == 1,
        ),
        Rule(
            "!has(self.user) || !has(self.apiKey)",
            "write user or apiKey, not both",
            lambda self: self.user is None or self.api_key is None,
        ),
        Rule(
            "!(has(self.pods) || has(self.cidr)) || !(has(self.user) || has(self.apiKey))",
            "user and apiKey need workload, workloads or anyWorkload: pods and cidr are known at layer 4 only",
            lambda self: not self.is_layer4_only or not self.has_principal,
        ),
        Rule(
            "!has(self.cidr) || (isCIDR(self.cidr) && !self.cidr.endsWith('/0'))",
            "cidr must be an address range and not every address, for example 10.20.0.0/16 or 2001:db8::/32",
            lambda self: self.cidr is None or (is_address_range(self.cidr) and not self.cidr.endswith("/0")),
        ),
    )

    @property
    def is_layer4_only(self) -> bool:
        """Whether only a network policy can tell this peer."""
        return self.pods is not None or self.cidr is not None

    @property
    def has_principal(self) -> bool:
        """Whether a request needs a credential beside the connection's identity."""
        return self.user is not None or self.api_key is not None


class Destination(Resource):
    """A port of the target, and which requests to it."""

    refuses_null: ClassVar[bool] = True

    port: int = Field(ge=1, le=65535, description="Port of the pod (not of a Service).")
    protocol: Literal["TCP", "UDP", "SCTP"] = Field(default="TCP", description="Transport protocol.")
    methods: Annotated[list[Method], Field(min_length=1, max_length=16)] | None = Field(
        default=None, description="HTTP methods; default: all of them."
    )
    paths: Annotated[list[PathPattern], Field(min_length=1, max_length=16)] | None = Field(
        default=None, description="Patterns of the path: * is one segment, ** any number; default: every path."
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(has(self.protocol) && self.protocol != 'TCP') ? !has(self.methods) && !has(self.paths) : true",
            "methods and paths belong to protocol TCP",
            lambda self: self.protocol == "TCP" or not self.is_http,
        ),
    )

    @property
    def is_http(self) -> bool:
        """Whether the request itself matters."""
        return self.methods is not None or self.paths is not None


class TimeWindow(Resource):
    """Times of the week, by the clock on a wall of that time zone."""

    refuses_null: ClassVar[bool] = True

    days: Annotated[list[Weekday], Field(min_length=1, max_length=7)] | None = Field(
        default=None, description="Days on which the window opens; default: every day."
    )
    from_: ClockTime | None = Field(default=None, alias="from", description="When it opens, HH:MM.")
    to: ClockTime | None = Field(
        default=None, description="When it closes, HH:MM, on the next day when it is earlier than `from`."
    )
    time_zone: TimeZone = Field(description="Name of the IANA time zone, for example Europe/Berlin or UTC.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.from) == has(self.to) && (has(self.days) || has(self.from))",
            "write days, or from and to, or all three",
            lambda self: (self.from_ is None) == (self.to is None) and (self.days or self.from_),
        ),
        Rule(
            "!has(self.from) || !has(self.to) || self.from != self.to",
            "from and to must differ; for whole days write days alone",
            lambda self: self.from_ is None or self.from_ != self.to,
        ),
    )


class When(Resource):
    """Conditions that must all hold."""

    refuses_null: ClassVar[bool] = True

    scopes: Annotated[list[Scope], Field(min_length=1, max_length=16)] | None = Field(
        default=None, description="Scopes that the token or API key must have, all of them."
    )
    require_mtls: OnlyTrue | None = Field(
        default=None, alias="requireMTLS", description="The connection must be mutual TLS; the only value is true."
    )
    time: TimeWindow | None = Field(default=None, description="When the rule holds.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.scopes) || has(self.requireMTLS) || has(self.time)",
            "write scopes, requireMTLS, time, or leave `when` out",
            lambda self: count_of(self.scopes, self.require_mtls, self.time) > 0,
        ),
    )
