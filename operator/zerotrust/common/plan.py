"""What a reconcile wants: a value that the executor carries out.

A plan is complete in itself and safe to carry out twice; whoever makes one has touched nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple

from zerotrust.common.naming import Ref

Manifest = Mapping[str, Any]


class Copy(NamedTuple):
    """A value of a Secret that is to stand in another place: read when the plan is carried out, and only if it is still the one
    with this SHA-256.
    """

    ref: Ref
    data_key: str
    digest: bytes


@dataclass(frozen=True)
class Apply:
    """Make these fields so, and touch no others; a value of None removes the field.

    The executor creates the object when it is absent, and otherwise sends a merge patch (RFC 7396) of what differs.
    `repairs` says that the object was right once, so that a difference is somebody else's edit and is counted.
    `exact` names top-level fields of which nothing may be there that the manifest does not say. `copies` are values of `data`
    that nobody but the API server has. `shared` is an object whose status somebody else writes often: an update then asks only
    that it is the same object, because asking for the same version would mostly lose the race.
    """

    manifest: Manifest
    repairs: bool = False
    exact: tuple[str, ...] = ()
    shared: bool = False
    copies: Mapping[str, Copy] = field(default_factory=dict)

    @property
    def ref(self) -> Ref:
        """Where the object belongs."""
        metadata = self.manifest["metadata"]
        return Ref(self.manifest["kind"], metadata.get("namespace", ""), metadata["name"])


@dataclass(frozen=True)
class Delete:
    """Remove exactly the object with this uid; gone already counts as done."""

    ref: Ref
    uid: str


class Touch(NamedTuple):
    """Another controller's object to look at once the plan is carried out, at the latest after `within`."""

    controller: str
    ref: Ref
    within: timedelta


@dataclass(frozen=True)
class Event:
    """A Kubernetes event about the reconciled object, sent on transitions only."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str
    action: str = "Reconcile"


@dataclass(frozen=True)
class Plan:
    """Children first, then deletions, then at most one status write, then events.

    `status` is the whole status to show (None: leave it), compared before it is written. `requeue_at` is when time alone
    will change the answer. `refresh` names objects outside the watches that must be read again.
    `outcomes` are counted by the telemetry: `(metric, label, value)`. `touches` are handed on when all is done.
    """

    applies: tuple[Apply, ...] = ()
    deletes: tuple[Delete, ...] = ()
    status: Mapping[str, Any] | None = None
    events: tuple[Event, ...] = ()
    requeue_at: datetime | None = None
    refresh: tuple[Ref, ...] = ()
    outcomes: tuple["Outcome", ...] = field(default=())
    touches: tuple[Touch, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """Something worth measuring that happened when the plan was carried out; `value` in seconds where it is a time."""

    metric: Literal["issued", "issue_seconds", "renewal_lateness_seconds", "repaired"]
    label: str = ""
    value: float = 1.0
