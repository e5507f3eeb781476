"""How far a policy has come on its way to decision points, as bundle servers report it. Silence is never agreement."""

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple


@dataclass(frozen=True)
class DecisionPoint:
    """An OPA in a target's pod, and whether it runs a revision that has the policy's accepted version in it."""

    pod: str
    acknowledged: bool


@dataclass(frozen=True)
class Delivery:
    """`replicas` are the bundle servers that report, `serving` those of them that serve the accepted version.

    One is enough to be published: what counts is who has reported it, and a server that is gone reports nothing more.
    """

    replicas: int = 0
    serving: int = 0

    @property
    def published(self) -> bool:
        """Whether decision points can get it."""
        return self.serving > 0


class Denial(NamedTuple):
    """Whom the decision points of a target denied lately, and why; `client` is a SPIFFE ID, or `none`."""

    at: datetime
    target: str
    client: str
    reason: str
