"""What the cache keeps of ConstraintTemplates and Constraints. Source: Gatekeeper's documentation, "status" of both."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from zerotrust.common import naming
from zerotrust.common.observed import Meta, meta_of
from zerotrust.policy.admission import Violation

WEBHOOK = "webhook"
API_SERVER = "vap.k8s.io"  # the enforcement point that is the API server itself
VALIDATION = "validation.gatekeeper.sh"  # the name of its webhook, in a configuration of any name
MAX_MESSAGE = 512


@dataclass(frozen=True, slots=True)
class PodReport:
    """What one Gatekeeper pod says of a template or a constraint: which generation it has, and what it could not do with it.

    `native` says that the API server enforces it by itself; only the pod that makes ValidatingAdmissionPolicies knows.
    """

    pod: str
    generation: int
    operations: tuple[str, ...]
    errors: tuple[str, ...] = ()
    enforced: bool = True
    native: bool = False


@dataclass(frozen=True, slots=True)
class ConstraintTemplate:
    """A ConstraintTemplate with its spec as the API server has it; `created`: its constraints' kind exists."""

    meta: Meta
    spec: Mapping[str, Any]
    created: bool
    pods: tuple[PodReport, ...]


@dataclass(frozen=True, slots=True)
class Constraint:
    """A Constraint with its spec as the API server has it, and what Gatekeeper says of it.

    `as_written` says that the spec is one that the operator wrote; what is otherwise in it is then only out of date.
    """

    meta: Meta
    spec: Mapping[str, Any]
    as_written: bool
    pods: tuple[PodReport, ...]
    violations: tuple[Violation, ...]

    @property
    def parameters(self) -> Mapping[str, Any]:
        """What its template is to do here."""
        return self.spec.get("parameters") or {}


@dataclass(frozen=True, slots=True)
class WebhookConfiguration:
    """A ValidatingWebhookConfiguration; `is_gatekeeper`: by it the API server asks Gatekeeper, whatever its name is."""

    meta: Meta
    is_gatekeeper: bool


@dataclass(frozen=True, slots=True)
class Installation:
    """Whether the cluster has Gatekeeper's API; looked at every now and then, for there is no object to watch."""

    meta: Meta
    installed: bool


def webhook_configuration(body: Mapping[str, Any]) -> WebhookConfiguration:
    """Read a ValidatingWebhookConfiguration."""
    asked = {one.get("name") for one in body.get("webhooks") or ()}
    return WebhookConfiguration(meta_of("ValidatingWebhookConfiguration", body), VALIDATION in asked)


def template(body: Mapping[str, Any]) -> ConstraintTemplate:
    """Read a ConstraintTemplate; what an earlier object of the same name had reported does not count."""
    meta, status = meta_of("ConstraintTemplate", body), body.get("status") or {}
    pods = [one for one in status.get("byPod") or () if one.get("templateUID") == meta.uid]
    return ConstraintTemplate(meta, body.get("spec") or {}, status.get("created") is True, _reports(pods))


def constraint(body: Mapping[str, Any]) -> Constraint:
    """Read a Constraint; what an earlier object of the same name had reported does not count."""
    meta, status = meta_of(body["kind"], body), body.get("status") or {}
    pods = [one for one in status.get("byPod") or () if one.get("constraintUID") == meta.uid]
    found = sorted({_violation(one) for one in status.get("violations") or ()})
    spec = body.get("spec") or {}
    as_written = meta.annotations.get(naming.CONTENT_HASH) == content_hash(spec)
    return Constraint(meta, spec, as_written, _reports(pods), tuple(found))


def content_hash(spec: Mapping[str, Any]) -> str:
    """SHA-256 of a constraint's spec, in hex."""
    return sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()


def _reports(pods: Iterable[Mapping[str, Any]]) -> tuple[PodReport, ...]:
    return tuple(sorted((_report(one) for one in pods), key=lambda one: one.pod))


def _report(body: Mapping[str, Any]) -> PodReport:
    errors = [
        f"{one.get('message') or one.get('code') or 'unknown error'}"[:MAX_MESSAGE] for one in body.get("errors") or ()
    ]
    points = {one.get("enforcementPoint"): one for one in body.get("enforcementPointsStatus") or ()}
    native, generation = points.get(API_SERVER, {}), body.get("observedGeneration") or 0
    return PodReport(
        pod=body.get("id") or "unnamed",
        generation=generation,
        operations=tuple(sorted(body.get("operations") or ())),
        errors=tuple(errors),
        enforced=body.get("enforced") is not False,
        native=native.get("state") == "generated" and native.get("observedGeneration") == generation,
    )


def _violation(body: Mapping[str, Any]) -> Violation:
    message = body.get("message") or ""
    return Violation(message.partition(": ")[0], f"{body.get('kind')} {body.get('name')}", message[:MAX_MESSAGE])
