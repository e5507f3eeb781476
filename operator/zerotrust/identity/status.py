"""What a ServiceIdentity's status says, and which events its changes are worth."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from zerotrust.common import naming, times
from zerotrust.common.conditions import Condition, false, find, merge, true
from zerotrust.common.errors import SpecError
from zerotrust.common.observed import CustomResource
from zerotrust.common.plan import Event
from zerotrust.common.requests import unreadable
from zerotrust.common.status import Finding, news_of_violations, violations_of
from zerotrust.identity import pods
from zerotrust.identity.pods import PodMatch
from zerotrust.identity.renewal import Reason, Schedule
from zerotrust.identity.resource import ServiceIdentitySpec
from zerotrust.pki.secret import CertificateFacts
from zerotrust.pki.spiffe import SpiffeID

STALLED = ("InvalidSpec", "DuplicateIdentity", "NamespaceNotAllowed", "SecretConflict")


@dataclass(frozen=True)
class Standing:
    """Where an identity stands: what it has, why it does not get more (`blocked`), why what it has is no use (`unusable`).

    `isolated` are the directions that its network policy closes, `revoked_before` is the cut-off in force.
    """

    spiffe_id: SpiffeID | None
    certificate: CertificateFacts | None
    schedule: Schedule | None
    revision: int
    authority_id: str | None
    blocked: Reason | None
    unusable: Reason | None = None
    cut_short: bool = False
    isolated: tuple[str, ...] = ()
    revoked_before: datetime | None = None
    pods: PodMatch | None = None
    violations: tuple[Finding, ...] = ()


def status_of(
    resource: CustomResource[ServiceIdentitySpec], standing: Standing, secret_name: str, now: datetime
) -> dict[str, Any]:
    """Return the whole status; what does not apply is left out, so that the executor removes it."""
    certificate = standing.certificate
    status: dict[str, Any] = {
        "observedGeneration": resource.meta.generation,
        "secretName": secret_name,
        "conditions": merge(resource.conditions, _conditions(resource, standing, now), resource.meta.generation, now),
    }
    if standing.spiffe_id is not None:
        status["spiffeID"] = str(standing.spiffe_id)
    if certificate is not None:
        status |= {
            "serialNumber": f"{certificate.serial_number:x}",
            "notBefore": times.render(certificate.not_before),
            "notAfter": times.render(certificate.not_after),
            "revision": standing.revision,
        }
    if standing.schedule is not None:
        status["renewalTime"] = times.render(standing.schedule.renewal)
    if standing.revoked_before is not None:
        status["revokedBefore"] = times.render(standing.revoked_before)
    if standing.authority_id is not None:
        status["authorityID"] = standing.authority_id
    if standing.violations:
        status["violations"] = violations_of(standing.violations, resource.status.get("violations"))
    return status


def _conditions(resource: CustomResource[ServiceIdentitySpec], standing: Standing, now: datetime) -> list[Condition]:
    conditions = [
        _ready(standing),
        _overdue(standing, now),
        _secret_conflict(standing),
        pods.condition(standing.pods),
        _isolated(standing),
    ]
    reason = standing.unusable
    if reason is not None and standing.blocked is not None and standing.blocked.word in STALLED:
        conditions.append(true("Stalled", standing.blocked.word, standing.blocked.message))
    elif reason is not None and standing.blocked is not None and standing.blocked.word != "Paused":
        conditions.append(true("Reconciling", standing.blocked.word, standing.blocked.message))
    conditions += unreadable(resource.meta, naming.ROTATE_REQUESTED, naming.REVOKE_BEFORE)
    fields = _fields_without_effect(resource)
    if fields:
        message = f"have no effect in this version: {', '.join(fields)}"
        conditions.append(true("NotImplementedYet", "FieldsWithoutEffect", message))
    return conditions


def _ready(standing: Standing) -> Condition:
    certificate = standing.certificate
    if standing.unusable is not None or certificate is None:
        because = standing.blocked or standing.unusable
        if because is None:
            return false("Ready", "DoesNotExist", "there is no certificate yet")
        if standing.unusable is not None and standing.unusable != because:
            # The user first wants to know what is wrong with what they have, then why it is not mended.
            word = standing.unusable.word if standing.unusable.word in ("Expired", "Revoked") else because.word
            return false("Ready", word, f"{standing.unusable.message}; {because.message}")
        return false("Ready", because.word, because.message)
    end = times.render(certificate.not_after)
    if standing.cut_short:
        return true("Ready", "Issued", f"valid until {end}, cut short by the end of its authority")
    return true("Ready", "Issued", f"valid until {end}")


def _overdue(standing: Standing, now: datetime) -> Condition:
    due = standing.schedule
    if due is None:
        return false("RenewalOverdue", "NoCertificate")
    if now < due.renewal:
        return false("RenewalOverdue", "OnTime")
    because = standing.blocked.message if standing.blocked else "a new certificate would not live longer than this one"
    word = standing.blocked.word if standing.blocked else "AuthorityEnds"
    return true("RenewalOverdue", word, f"renewal was due at {times.render(due.renewal)}; {because}")


def _secret_conflict(standing: Standing) -> Condition:
    if standing.blocked is not None and standing.blocked.word == "SecretConflict":
        return true("SecretConflict", "ForeignSecret", standing.blocked.message)
    return false("SecretConflict", "NoConflict")


def _isolated(standing: Standing) -> Condition:
    if not standing.isolated:
        return false("Isolated", "Open", "no TrustPolicy isolates it")
    return true("Isolated", "NetworkPolicy", f"its NetworkPolicy closes {' and '.join(standing.isolated).lower()}")


def _fields_without_effect(resource: CustomResource[ServiceIdentitySpec]) -> list[str]:
    spec = resource.spec
    if isinstance(spec, SpecError):
        return []
    return ["spec.secret.formats"] if spec.secret.formats else []


def events_of(resource: CustomResource[ServiceIdentitySpec], status: Mapping[str, Any]) -> tuple[Event, ...]:
    """One warning when Ready turns false or its reason changes, one when a renewal becomes overdue, one for NotImplementedYet.

    And one for each cut-off that comes into force.
    """
    events = []
    cutoff = status.get("revokedBefore")
    revokes = cutoff is not None and cutoff != resource.status.get("revokedBefore")
    if revokes:
        events.append(Event("Warning", "Revoked", f"certificates from before {cutoff} are revoked", "Revoke"))
    for type_, bad in (("Ready", "False"), ("RenewalOverdue", "True"), ("NotImplementedYet", "True")):
        now, before = find(status["conditions"], type_), find(resource.conditions, type_)
        if now is None or now["status"] != bad or (revokes and now["reason"] == "Revoked"):
            continue
        if before is None or (before.get("status"), before.get("reason")) != (now["status"], now["reason"]):
            reason = type_ if type_ == "RenewalOverdue" else now["reason"]
            events.append(Event("Warning", reason, now["message"]))
    events += news_of_violations(resource.status.get("violations"), status.get("violations"))
    return tuple(events)
