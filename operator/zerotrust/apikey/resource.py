"""ApiKey: this API has this key holder with these scopes. The CRD is generated from these models."""

from datetime import timedelta
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from zerotrust.apikey.key import ID_PATTERN
from zerotrust.common.kind import Column, Kind, age_column, ready_column, reason_column
from zerotrust.common.resource import (
    AccountName,
    Between,
    Resource,
    Rule,
    SubdomainName,
    Timestamp,
    count_of,
    exactly_one,
)
from zerotrust.common.selectors import WorkloadReference
from zerotrust.common.status import Conditions, conditions_field

MAX_NAME = 63
MAX_REVOKED = 1000

HolderName = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]
Scope = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[\x21\x23-\x5B\x5D-\x7E]+$")]  # RFC 6749 §3.3
KeyIDText = Annotated[str, Field(max_length=12, pattern=ID_PATTERN)]

Phase = Literal["Pending", "Published", "Delivered", "Active", "Overlap", "Retired", "Expired", "Suspended", "Revoked"]


class Holder(Resource):
    """Who has the key: exactly one of a name and a workload."""

    name: HolderName | None = Field(default=None, description="Anybody, in your own words.")
    workload: WorkloadReference | None = Field(
        default=None, description="A ServiceIdentity; the key is good only in a connection that this workload makes."
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            exactly_one("name", "workload"),
            "write exactly one of name and workload",
            lambda self: count_of(self.name, self.workload) == 1,
        ),
    )


class Rotation(Resource):
    """When a new key replaces the present one, and for how long both are good."""

    interval: Annotated[timedelta, Between("2m", "87600h")] = Field(
        default=timedelta(hours=2160), description="A new key comes after so long, or a little earlier."
    )
    overlap: Annotated[timedelta, Between("1m", "8760h")] = Field(
        default=timedelta(hours=168), description="The old key stays good for so long after the new one was delivered."
    )
    requested_at: Timestamp | None = Field(
        default=None, description="Rotate once this time has come, if it is later than the last key's issue."
    )
    retire_unused_after: Annotated[timedelta, Between("1m", "8760h")] | None = Field(
        default=None,
        description="End an old key's overlap early, once it was not used for so long while the new one is in use.",
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.overlap) || !has(self.interval) || duration(self.overlap) < duration(self.interval)",
            "overlap must be shorter than interval",
            lambda self: self.overlap < self.interval,
        ),
    )


class SecretDelivery(Resource):
    """The Secret of this namespace that holds the key in plaintext."""

    secret_name: SubdomainName | None = Field(
        default=None, description="Name of the Secret; default: <metadata.name>-api-key."
    )
    format: Literal["Opaque", "Env"] = Field(
        default="Opaque",
        description="Opaque has the keys api-key and api-key-previous, Env has API_KEY and API_KEY_PREVIOUS for envFrom.",
    )


def _unique(names: list[str]) -> bool:
    return len(set(names)) == len(names)


def _each_once(names: list[str]) -> list[str]:
    """For lists that are too long for a CEL rule; the API server sees it by the schema's list type."""
    if not _unique(names):
        raise PydanticCustomError("rule", "{message}", {"message": "names each key once"})
    return names


class ApiKeySpec(Resource):
    """One holder's access to APIs of this namespace."""

    holder: Holder = Field(description="Who has the key.")
    audience: Annotated[list[AccountName], Field(min_length=1, max_length=32)] = Field(
        description="ServiceIdentities of this namespace that accept the key.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    scopes: Annotated[list[Scope], Field(max_length=64)] = Field(
        default=[],
        description="What the key may be used for; TrustPolicies ask for scopes.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    max_key_age: Annotated[timedelta, Between("3m", "175200h")] = Field(
        default=timedelta(hours=8760), description="No key lives longer, even when rotation is stuck."
    )
    not_after: Timestamp | None = Field(default=None, description="When the grant itself ends; no key outlives it.")
    rotation: Rotation = Field(default=Rotation(), description="How keys follow each other.")
    unused_after: Annotated[timedelta, Between("1h", "87600h")] = Field(
        default=timedelta(hours=2160), description="After so long without use the condition Unused says so."
    )
    state: Literal["Active", "Suspended"] = Field(
        default="Active", description="Suspended refuses every key for as long as it stands, and makes no new ones."
    )
    revoked_key_ids: Annotated[list[KeyIDText], Field(max_length=MAX_REVOKED), AfterValidator(_each_once)] = Field(
        default=[],
        alias="revokedKeyIDs",
        description="Keys that are revoked now and for good, also after they were taken off this list.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    delivery: SecretDelivery = Field(default=SecretDelivery(), description="Where the key is kept.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.rotation) || !has(self.rotation.interval) || !has(self.maxKeyAge) ||"
            " duration(self.rotation.interval) < duration(self.maxKeyAge)",
            "rotation.interval must be shorter than maxKeyAge, or a key would end before the next one comes",
            lambda self: self.rotation.interval < self.max_key_age,
        ),
        # Sets by their schema already; these sentences are what a user understands, also from the offline commands.
        Rule(
            "!has(self.audience) || self.audience.all(a, self.audience.exists_one(b, b == a))",
            "audience names each ServiceIdentity once",
            lambda self: _unique(self.audience),
        ),
        Rule(
            "!has(self.scopes) || self.scopes.all(a, self.scopes.exists_one(b, b == a))",
            "scopes names each scope once",
            lambda self: _unique(self.scopes),
        ),
    )


class RevocationStatus(Resource):
    """How far the newest revocation is."""

    requested_at: Timestamp | None = Field(default=None, description="When the key was found on the list.")
    effective_at: Timestamp | None = Field(
        default=None, description="When every decision point had reported that it refuses the key."
    )
    acknowledged: bool = Field(default=False, description="Whether every decision point has reported it.")


class ApiKeyStatus(Resource):
    """What is true about the keys; written by the operator only, never read by it, and never a secret."""

    observed_generation: int | None = Field(default=None, description="Generation of the spec that was judged.")
    phase: Phase | None = Field(default=None, description="Where the newest key is on its way.")
    key_id: KeyIDText | None = Field(default=None, alias="keyID", description="Id of the key in use.")
    previous_key_id: KeyIDText | None = Field(
        default=None, alias="previousKeyID", description="Id of the newest old key that is still good."
    )
    issued_at: Timestamp | None = Field(default=None, description="When the key in use was made.")
    expires_at: Timestamp | None = Field(default=None, description="When it expires.")
    next_rotation_time: Timestamp | None = Field(default=None, description="When the next key comes.")
    overlap_ends_at: Timestamp | None = Field(default=None, description="When the last old key ends.")
    last_used_time: Timestamp | None = Field(
        default=None, description="The latest use that decision points told of; there may be later ones."
    )
    revocation: RevocationStatus | None = Field(default=None, description="The newest revocation.")
    secret_name: str | None = Field(default=None, max_length=253, description="The Secret that holds the key.")
    conditions: Conditions = conditions_field()


KIND = Kind(
    name="ApiKey",
    plural="apikeys",
    short_name="zkey",
    namespaced=True,
    description="Access of a key holder to APIs of this namespace: a key in a Secret, rotated with overlap, and revocable.",
    spec=ApiKeySpec,
    status=ApiKeyStatus,
    columns=(
        ready_column(),
        Column("Key-ID", "string", ".status.keyID", "Id of the key in use."),
        Column("Phase", "string", ".status.phase", "Where the newest key is on its way."),
        Column("Next-Rotation", "string", ".status.nextRotationTime", "When the next key comes."),
        Column("Expires", "string", ".status.expiresAt", "When the key in use expires."),
        Column("Last-Used", "string", ".status.lastUsedTime", "The latest use that is known."),
        reason_column(),
        age_column(),
    ),
    rules=(
        Rule(
            f"self.metadata.name.size() <= {MAX_NAME}",
            f"metadata.name has at most {MAX_NAME} characters, because TrustPolicies name it and it is used as a label value",
        ),
    ),
)


def secret_name(spec: ApiKeySpec, name: str) -> str:
    """Name of the Secret that holds the key of the ApiKey `name`."""
    return spec.delivery.secret_name or f"{name}-api-key"
