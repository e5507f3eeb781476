"""Reading a TrustPolicy of which parts may be unusable: what can be read still withdraws and denies."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from zerotrust.common.errors import SpecError
from zerotrust.common.observed import Own, own
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


Policy = Own[Reading]


def read(body: Mapping[str, Any]) -> Reading:
    """Read a spec as the API server has it."""
    return _read(json.dumps(body, sort_keys=True))


@lru_cache(maxsize=8192)
def _read(text: str) -> Reading:
    body = json.loads(text)
    try:
        return Reading(parse(TrustPolicySpec, body, "spec"))
    except SpecError as error:
        problem = SpecError(error.path, error.message, error.reason)
    target = _part(Target, body.get("target"))
    if target is None:
        return Reading(None, problem)
    rules = body.get("rules")
    readable = [_part(PolicyRule, rule) for rule in rules] if isinstance(rules, list) else []
    layers = [layer for layer in LAYERS if layer in (body.get("layers") or LAYERS)]
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
