"""What a decision about one ApiKey depends on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from zerotrust.apikey.key import Digest, KeyID
from zerotrust.apikey.memory import Memory
from zerotrust.apikey.resource import ApiKeySpec
from zerotrust.common.conditions import Condition


@dataclass(frozen=True, slots=True)
class NotServed:
    """No bundle server serves it yet."""


@dataclass(frozen=True, slots=True)
class Lagging:
    """Some decision points have not reported it; `names` are theirs."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """Every decision point has reported it, or there is none and it is served."""


Reach = NotServed | Lagging | Acknowledged


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """A plaintext that exists somewhere else, by its id and digest: a fresh key, or one that a Secret holds."""

    id: KeyID
    digest: Digest


@dataclass(frozen=True, slots=True)
class SecretView:
    """The consumer's Secret, made by the operator for this ApiKey; None where it holds no well-formed key."""

    current: Fingerprint | None
    previous: Fingerprint | None = None


@dataclass(frozen=True)
class ApiKeySnapshot:
    """Everything a decision about one ApiKey depends on.

    `memory` is what the record says, `orphans` what it says of deleted ApiKeys of the same name, by UID. `candidate` is the
    fresh key that only this leader has. `secret` is where our key is, under whatever name; `foreign` says that the name in the
    spec is taken by somebody else's Secret. `published` tells how far a key's digest is, `withdrawn` how far its revocation is,
    `last_used` the latest use that decision logs told of. `grace` is how long a decision point can run an old policy bundle
    (its validity and the clocks' difference). `logs_since` is since when decision logs were followed without a gap, None while
    they are not. `clock_agrees` is False while the local clock and the API server's differ. `annotated_rotation` is the time in
    the annotation `zerotrust.dev/rotate-requested-at`; `unreadable` tells of one that is none.
    """

    spec: ApiKeySpec
    uid: str
    name: str
    namespace: str
    memory: Memory | None
    candidate: Fingerprint | None
    secret: SecretView | None
    published: Callable[[KeyID], Reach]
    withdrawn: Callable[[KeyID], Reach]
    last_used: Callable[[KeyID], datetime | None]
    grace: timedelta
    now: datetime
    created: datetime | None = None
    foreign: bool = False
    orphans: Mapping[str, Memory] = field(default_factory=dict)
    room: bool = True
    clock_agrees: bool = True
    logs_since: datetime | None = None
    annotated_rotation: datetime | None = None
    unreadable: tuple[Condition, ...] = ()

    @property
    def rotation_requests(self) -> tuple[datetime, ...]:
        """When rotations were, or are to be, asked for: in the spec and by annotation."""
        both = (self.spec.rotation.requested_at, self.annotated_rotation)
        return tuple(moment for moment in both if moment is not None)
