"""How far Gatekeeper is with what a policy and its targets ask of admission: a value that conditions are made from."""

from dataclasses import dataclass
from typing import NamedTuple

from zerotrust.common.conditions import Condition, false, some, true, unknown
from zerotrust.common.status import Finding
from zerotrust.policy.resource import TrustPolicySpec


class Violation(NamedTuple):
    """An object that is there although a constraint is against it, as Gatekeeper's audit found it.

    `by` is who asks for it, such as `ServiceIdentity orders`; `object` is such as `Pod orders-0`.
    """

    by: str
    object: str
    message: str


@dataclass(frozen=True)
class AdmissionState:
    """What Gatekeeper and the operator's constraints in it are known to do.

    `wanted` counts the constraints that have something of the policy's targets in them. `awaited` names what is not so far yet,
    down to the Gatekeeper pod and the generation; `differing` names what the cluster's constraints say otherwise than the policy.
    `by_webhook_only` are constraints that the API server does not enforce by itself: while no webhook answers, they let through.
    `pods` is how many Gatekeeper pods report them; `webhook` says whether the API server has a configuration to ask them.
    """

    installed: bool = False
    wanted: int = 0
    pods: int = 0
    awaited: tuple[str, ...] = ()
    differing: tuple[str, ...] = ()
    by_webhook_only: tuple[str, ...] = ()
    violations: tuple[Finding, ...] = ()
    webhook: bool = True

    @property
    def enforced(self) -> bool:
        """Whether everything that is wanted is in force."""
        return self.installed and self.webhook and not self.awaited and not self.differing


def constraints_enforced(spec: TrustPolicySpec | None, state: AdmissionState) -> Condition:
    """Return the condition ConstraintsEnforced of a policy whose spec, as it is or as it was accepted, is this."""
    kind = "ConstraintsEnforced"
    if spec is None:
        return unknown(kind, "NoTargets", "the target cannot be read")
    if spec.mode == "Observe":
        return unknown(kind, "ObserveMode", "spec.mode is Observe: nothing is enforced")
    if "Gatekeeper" not in spec.layers:
        return unknown(kind, "NotSelected", "spec.layers does not name Gatekeeper")
    if not state.installed:
        return unknown(kind, "NotInstalled", "the cluster has no Gatekeeper")
    if state.differing:
        return false(kind, "ConstraintsDiffer", some(state.differing))
    if state.awaited:
        return false(kind, "Awaited", some(state.awaited))
    if not state.wanted:
        return unknown(kind, "NoTargets", "no ServiceIdentity is selected yet")
    if not state.webhook:
        text = "no ValidatingWebhookConfiguration of Gatekeeper is there"
        return false(kind, "WebhookMissing", f"{text}: {_without_webhook(state)}")
    counted = f"{state.wanted} constraints are enforced by {state.pods} Gatekeeper pods"
    if state.by_webhook_only:
        text = f"the API server does not enforce {some(state.by_webhook_only)} by itself, so without a webhook they let through"
        return true(kind, "WebhookOnly", f"{counted}; {text}")
    return true(kind, "Enforced", f"{counted} and by the API server itself")


def _without_webhook(state: AdmissionState) -> str:
    if state.by_webhook_only:
        return f"nothing asks for {some(state.by_webhook_only)}, which the API server does not enforce by itself"
    return "the API server enforces by itself, but for ephemeral containers"


def pending(spec: TrustPolicySpec, state: AdmissionState) -> Condition | None:
    """Return why constraints are not in force yet, None where they are or where there is no Gatekeeper to have them."""
    found = constraints_enforced(spec, state)
    return found if found.status == "False" else None
