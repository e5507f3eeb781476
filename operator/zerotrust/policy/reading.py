"""Reading a TrustPolicy of which parts may be unusable: what can be read still withdraws and denies."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from zerotrust.common.errors import SpecError
from zerotrust.common.observed import ControllerRevision, Own, controller_revision, own
from zerotrust.common.resource import Resource, parse
from zerotrust.policy.peers import Target
from zerotrust.policy.resource import LAYERS, PolicyRule, TrustPolicySpec


@dataclass(frozen=True)
class Reading:
    """A policy's spec as far as it can be read; `problem` says why it is not accepted as it stands.

    `spec` is None when not even its target can be read. A rule that cannot be read is left out: an Allow in it grants nothing,
    and a Deny in it is no worse than before, because what the accepted version denies stays denied.
    """

    spec: TrustPolicySpec | None
    problem: SpecError | None = None

    @cached_property
    def digest(self) -> str:
        """A short hash of what the spec says, whatever the order of its keys; empty when there is none."""
        return digest(self.spec) if self.spec is not None else ""


Policy = Own[Reading]


def digest(spec: TrustPolicySpec) -> str:
    """Return a short hash of what a spec says, whatever the order of its keys."""
    canonical = json.dumps(document_of(spec), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def document_of(spec: TrustPolicySpec) -> dict[str, Any]:
    """The spec as users write it, with every default in it."""
    document: dict[str, Any] = spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    return document


def read(body: Any) -> Reading:
    """Read a spec as the API server has it; what else a file may hold in its place is told and never raised."""
    return _read(json.dumps(body, sort_keys=True))


@lru_cache(maxsize=8192)
def _read(text: str) -> Reading:
    body = json.loads(text)
    try:
        return Reading(parse(TrustPolicySpec, body, "spec"))
    except SpecError as error:
        problem = SpecError(error.path, error.message, error.reason)
    target = _part(Target, body.get("target")) if isinstance(body, Mapping) else None
    if target is None:
        return Reading(None, problem)
    rules = body.get("rules")
    readable = [_part(PolicyRule, rule) for rule in rules] if isinstance(rules, list) else []
    named = body.get("layers")
    layers = [layer for layer in LAYERS if not isinstance(named, list) or layer in named]
    # Without its own checks: a rule name given twice, say, is a reason to refuse the change and not to forget what it denies.
    spec = TrustPolicySpec.model_construct(
        target=target,
        mode="Observe" if body.get("mode") == "Observe" else "Enforce",
        layers=layers or list(LAYERS),
        policy_rules=[rule for rule in readable if rule is not None],
        admission=None,
        tests=[],
    )
    return Reading(spec, problem)


def _part(model: type[Resource], body: Any) -> Any:
    try:
        return parse(model, body, "") if isinstance(body, Mapping) else None
    except SpecError:
        return None


def observe(body: Mapping[str, Any]) -> Policy:
    """Reduce a TrustPolicy to what decisions need."""
    return own("TrustPolicy", read(body.get("spec") or {}), body)


def observe_revision(body: Mapping[str, Any]) -> ControllerRevision:
    """Reduce a ControllerRevision to the version of a policy that it keeps, which is read once here."""
    spec = (body.get("data") or {}).get("spec")
    return controller_revision(body, read(spec) if isinstance(spec, dict) else Reading(None))
