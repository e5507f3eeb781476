"""How far a policy has come on its way to decision points, as bundle servers report it. Silence is never agreement."""

from dataclasses import dataclass


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
