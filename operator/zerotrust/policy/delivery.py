"""How far a policy has come on its way to decision points, as bundle servers report it. Silence is never agreement."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DecisionPoint:
    """An OPA in a target's pod, and whether it runs a revision that has the policy's accepted version in it."""

    pod: str
    acknowledged: bool


@dataclass(frozen=True)
class Delivery:
    """`replicas` are the bundle servers that report; `published` says that each of them serves the accepted version."""

    replicas: int = 0
    published: bool = False
